//! Doors of the settings: knocks that need few guesses, that scans and programs may complete, or that open other doors
//! too.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Code, Lint, Subject};
use crate::door::progress::{Outcome, StepSet, next};
use crate::door::{Door, KnockStep};
use crate::rule::AddressSet;
use crate::time::Time;

/// Number of ports that a step may have.
const PORTS: u128 = 65_535;

/// With fewer ports than this, an attacker with a thousand packets a second tries all knocks in days instead of
/// centuries.
const FEW: usize = 3;

/// Ports that scans try first, or that programs use. Source: nmap's most frequent ports (nmap-services), IANA's
/// registry.
const SERVICES: [u16; 28] = [
    21, 22, 23, 25, 53, 80, 110, 111, 123, 135, 139, 143, 161, 443, 445, 465, 587, 853, 993, 995, 1723, 3306, 3389,
    5432, 5900, 8080, 8291, 8443,
];

pub(super) fn lints(doors: &[Door]) -> Vec<Lint> {
    let mut lints = Vec::new();
    for (place, door) in doors.iter().enumerate() {
        lints.extend([short(door), ordered(door), service(door)].into_iter().flatten());
        lints.extend(doors.iter().enumerate().filter_map(|(other_place, other)| {
            let both = opens(door, other);
            // If two doors open each other, only one of them is reported.
            let told = other_place != place && both && !(other_place < place && opens(other, door));
            told.then(|| overlapping(other, door))
        }));
        lints.extend(lenient(door));
    }
    lints
}

fn lint(code: Code, door: &Door, key: &str, sentence: String, remedy: &str) -> Lint {
    let subject = Subject::Door(door.name.clone());
    Lint { code, subject, line: 0, property: Some(key.to_owned()), sentence, remedy: remedy.to_owned(), also: None }
}

fn short(door: &Door) -> Option<Lint> {
    let steps = ports(door).len();
    if steps >= FEW || door.knock.iter().any(has_passphrase) {
        return None;
    }
    let sentence = format!(
        "the knock of door `{}` takes an attacker at most {}",
        door.name,
        count(guesses(steps), "guess", "guesses")
    );
    let remedy = "knock at three ports or more, or with a passphrase: `udp/4321 \"open sesame\"`";
    Some(lint(Code::ShortKnock, door, "knock", sentence, remedy))
}

/// Two ports always have an order.
fn ordered(door: &Door) -> Option<Lint> {
    let ports = ports(door);
    let how = match ports.is_sorted_by(|one, other| one < other) {
        true => "ascend",
        false if ports.is_sorted_by(|one, other| one > other) => "descend",
        false => return None,
    };
    if ports.len() < FEW {
        return None;
    }
    let orders: u64 = (1..=ports.len() as u64).product();
    let sentence = format!(
        "the ports of door `{}` {how}, as those of a scan do: an attacker who tries only such knocks needs about {} times fewer \
         guesses than {}",
        door.name,
        grouped(orders.into()),
        guesses(ports.len()).map_or_else(|| "10^38".to_owned(), grouped)
    );
    Some(lint(
        Code::OrderedKnock,
        door,
        "knock",
        sentence,
        "write its ports in an order that neither only ascends nor only descends",
    ))
}

fn service(door: &Door) -> Option<Lint> {
    let known: BTreeSet<u16> = ports(door).into_iter().filter(|port| SERVICES.contains(port)).collect();
    let ports: Vec<String> = known.iter().map(ToString::to_string).collect();
    let (what, whose) = match ports.len() {
        0 => return None,
        1 => ("port", "a service"),
        _ => ("ports", "services"),
    };
    let sentence = format!(
        "the knock of door `{}` has {what} {} of {whose} in it, which scans try first and programs use",
        door.name,
        ports.join(", ")
    );
    let remedy = "knock at ports that no program uses, such as ports from 7000 to 49151 without well-known ones";
    Some(lint(Code::ServiceKnock, door, "knock", sentence, remedy))
}

fn overlapping(opened: &Door, door: &Door) -> Lint {
    let sentence = format!("a knock at door `{}` opens door `{}` as well", door.name, opened.name);
    let remedy = "give them other steps: they may share first steps, but one must not contain the whole other knock";
    lint(Code::OverlappingKnock, door, "knock", sentence, remedy)
}

fn lenient(door: &Door) -> Option<Lint> {
    if door.strict || door.knock.len() == 1 {
        return None;
    }
    let sentence = format!(
        "other packets do not restart the knock of door `{}`: a scan that meets its steps in order, whatever else it \
         tries, opens it",
        door.name
    );
    Some(lint(Code::LenientDoor, door, "strict", sentence, "leave `strict` out: the default is on"))
}

/// Whether a source that knocks at `door`, and sends nothing else, opens `other`.
fn opens(door: &Door, other: &Door) -> bool {
    let (shape, now) = (other.shape(), Time::default());
    let mut progress = None;
    may_meet(door, other)
        && door.knock.iter().any(|step| {
            let is = |(place, of): (usize, &KnockStep)| if covers(of, step) { 1 << place } else { 0 };
            let fits = StepSet(other.knock.iter().enumerate().map(is).sum());
            match next(shape, progress, fits, 0, now) {
                Outcome::Opened => return true,
                Outcome::Stepped(at) => progress = Some(at),
                Outcome::StartedOver(at) => progress = at,
                Outcome::Nothing | Outcome::Repeated => {}
            }
            false
        })
}

/// Whether every packet that matches the second step matches the first one too.
fn covers(one: &KnockStep, other: &KnockStep) -> bool {
    match (one, other) {
        (KnockStep::Tcp { port, set, clear }, KnockStep::Tcp { port: other, set: all, clear: none }) => {
            port == other && set.is_subset(*all) && clear.is_subset(*none)
        }
        (KnockStep::Udp { port, passphrase }, KnockStep::Udp { port: other, passphrase: said }) => {
            port == other && (passphrase.is_none() || passphrase == said)
        }
        (KnockStep::Icmp { size }, KnockStep::Icmp { size: other }) => size.is_none() || size == other,
        _ => false,
    }
}

/// Whether some source may knock at both.
fn may_meet(one: &Door, other: &Door) -> bool {
    let first = |set: &AddressSet| match set {
        AddressSet::Prefix(IpNet::V4(net)) => net.network().into(),
        AddressSet::Prefix(IpNet::V6(net)) => net.network().into(),
        AddressSet::Range(first, _) => *first,
    };
    let meet = |one: &AddressSet, other: &AddressSet| one.contains(first(other)) || other.contains(first(one));
    one.sources.is_empty()
        || other.sources.is_empty()
        || one.sources.iter().any(|set| other.sources.iter().any(|others| meet(set, others)))
}

fn ports(door: &Door) -> Vec<u16> {
    door.knock.iter().filter_map(KnockStep::port).collect()
}

const fn has_passphrase(step: &KnockStep) -> bool {
    matches!(step, KnockStep::Udp { passphrase: Some(_), .. })
}

/// The number of knocks with this many ports; `None` if it is too large.
fn guesses(steps: usize) -> Option<u128> {
    PORTS.checked_pow(u32::try_from(steps).ok()?)
}

fn count(number: Option<u128>, one: &str, many: &str) -> String {
    let number = number.unwrap_or(u128::MAX);
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `4,294,836,225`.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::tests::doors;

    fn found(json: &str) -> Vec<(Code, String)> {
        lints(&doors(json)).into_iter().map(|lint| (lint.code, lint.sentence)).collect()
    }

    fn codes(json: &str) -> Vec<Code> {
        found(json).into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn short_knocks_have_a_lint_with_the_number_of_guesses() {
        for (knock, guesses) in [
            (r#""icmp""#, "1 guess"),
            (r#""tcp/7000""#, "65,535 guesses"),
            (r#""tcp/7000","icmp","udp/900""#, "4,294,836,225 guesses"),
        ] {
            let found = found(&format!(r#"[{{"name":"a","knock":[{knock}]}}]"#));
            assert!(found.len() == 1 && found[0].1.contains(guesses), "{found:?}");
        }
        assert_eq!(codes(r#"[{"name":"a","knock":["udp/7000 \"a\""]}]"#), []);
    }

    #[test]
    fn ports_that_only_ascend_or_descend_have_a_lint() {
        let with = |ports: &str| codes(&format!(r#"[{{"name":"a","knock":[{ports}]}}]"#));
        assert_eq!(with(r#""tcp/7000","tcp/8000","udp/9000""#), [Code::OrderedKnock]);
        assert_eq!(with(r#""tcp/9000","icmp","udp/8000","tcp/7000""#), [Code::OrderedKnock]);
        assert_eq!(with(r#""tcp/7000","tcp/9000","udp/8000""#), []);
        assert_eq!(with(r#""tcp/7000","tcp/7000","udp/8000""#), []);
        let most: Vec<_> = (7001..7017).map(|port| format!("\"tcp/{port}\"")).collect();
        let found = found(&format!(r#"[{{"name":"a","knock":[{}]}}]"#, most.join(",")));
        assert!(found[0].1.ends_with("about 20,922,789,888,000 times fewer guesses than 10^38"), "{found:?}");
    }

    #[test]
    fn a_door_opened_by_another_ones_knock_has_one_lint() {
        let two = |one: &str, other: &str| {
            codes(&format!(
                r#"[{{"name":"a","knock":["tcp/7000","tcp/9000",{one}]}},{{"name":"b","knock":["tcp/7000","tcp/9000",{other}]}}]"#
            ))
        };
        assert_eq!(two(r#""tcp/8000""#, r#""tcp/8000","udp/1""#), [Code::OverlappingKnock]);
        assert_eq!(two(r#""tcp/8000""#, r#""tcp/8000""#), [Code::OverlappingKnock], "the same");
        assert_eq!(two(r#""udp/8000""#, r#""udp/8000 \"a\"""#), [Code::OverlappingKnock], "one asks for more");
        assert_eq!(two(r#""tcp/8000""#, r#""udp/8000""#), [], "a common beginning");
        let apart = r#"[{"name":"a","knock":["icmp size=99","udp/1 \"a\""],"sources":["192.0.2.0/24"]},
                        {"name":"b","knock":["icmp size=99","udp/1 \"a\""],"sources":["192.0.3.0/24"]}]"#;
        assert_eq!(codes(apart), [], "nobody may knock at both");
        assert_eq!(codes(&apart.replace("0.3.0/24", "0.2.9")), [Code::OverlappingKnock]);
    }
}
