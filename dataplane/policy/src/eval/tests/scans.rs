//! Compares scans that complete a knock with the lints about the rules.
//!
//! Not covered, as in `lint::scan`: scans in random order that succeed less than once in 1,000 times, rules that count
//! ports or packets if the scan is short or pauses, and speeds between those that the lint tries.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRng;

use super::*;
use crate::lint::{Code, lint};
use crate::reason::Verdict;
use crate::rsc;

/// The scanned ports.
const PORTS: u16 = 48;

/// A knock, its opening, and rules that may detect a scan, in some order.
#[derive(Clone, Debug)]
struct Script {
    rules: String,
    /// Whether some rule counts ports or packets.
    counts: bool,
}

fn some_script() -> impl Strategy<Value = Script> {
    let ports = prop_oneof![
        4 => (1..=PORTS).prop_map(|port| port.to_string()),
        1 => (1..=PORTS, 1..6_u16).prop_map(|(from, more)| format!("{from}-{}", (from + more).min(PORTS))),
        1 => (1..=PORTS, 1..=PORTS).prop_map(|(one, other)| format!("{one},{other}")),
    ];
    let knock = prop::collection::vec((ports.clone(), select(&["2s", "10s", "1m", "1h"][..])), 1..4);
    let guard = (0..9_usize, ports, select(&["1s", "10s", "2h"][..]), 0..5_usize, 0..5_usize);
    let guards = prop::collection::vec(guard, 0..3);
    (any::<bool>(), knock, guards, any::<bool>(), 0..4_u8).prop_map(|(is_tcp, knock, guards, falling, chains)| {
        let protocol = if is_tcp { "tcp" } else { "udp" };
        let mut rules: Vec<String> = Vec::new();
        for (step, (ports, timeout)) in knock.iter().enumerate() {
            let needs = if step > 0 { format!("src-address-list=s{step} ") } else { String::new() };
            rules.push(format!(
                "protocol={protocol} dst-port={ports} {needs}action=add-src-to-address-list address-list=s{} \
                 address-list-timeout={timeout}",
                step + 1
            ));
        }
        if falling {
            rules.reverse();
        }
        rules.push(format!("protocol=tcp dst-port=22 src-address-list=s{} action=accept", knock.len()));
        let mut counts = false;
        for (kind, ports, timeout, place, second) in guards {
            let trap = |matchers: &str| {
                format!("{matchers} action=add-src-to-address-list address-list=caught address-list-timeout={timeout}")
            };
            let mut put = |place: usize, rule: String| rules.insert(place.min(rules.len()), rule);
            match kind {
                0 | 1 => {
                    put(place, trap(&format!("protocol={protocol} dst-port={ports}")));
                    put(second, "src-address-list=caught action=drop".to_owned());
                }
                2 => {
                    put(place, trap(&format!("protocol={protocol} dst-port=!{ports}")));
                    put(second, "src-address-list=caught action=drop".to_owned());
                }
                3 => put(place, format!("protocol={protocol} psd=6,3s,3,1 action=drop")),
                4 => {
                    put(place, trap(&format!("protocol={protocol} psd=6,3s,3,1")));
                    put(second, "src-address-list=caught action=drop".to_owned());
                }
                5 => put(place, format!("protocol={protocol} limit=!5,5 action=drop")),
                6 => put(place, format!("protocol={protocol} dst-port={ports} action=drop")),
                7 => put(place, "connection-state=established action=accept".to_owned()),
                _ => put(place, format!("protocol={protocol} dst-port={ports} action=return")),
            }
            counts |= (3..=5).contains(&kind);
        }
        let chain = |rule: &String| format!("add chain={} {rule}\n", if chains == 0 { "knock" } else { "input" });
        let rules: String = rules.iter().map(chain).collect();
        let jump = if chains == 0 { "add chain=input action=jump jump-target=knock\n" } else { "" };
        Script { rules: format!("/ip firewall filter\n{jump}{rules}add chain=input action=drop\n"), counts }
    })
}

/// The kind of a scan: order, time between two ports, pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
    Random,
}

#[derive(Clone, Copy, Debug)]
struct Manner {
    order: Order,
    interval_ms: u64,
    /// Number of ports between two pauses of 11 s, which outlast some lists; 0 for no pauses.
    pauses: u16,
}

/// Whether the scan of one protocol reaches port 22.
fn gets_in(rules: &RuleSet, number: u8, manner: Manner, dice: &mut TestRng) -> bool {
    let mut ports: Vec<u16> = (1..=PORTS).collect();
    match manner.order {
        Order::Ascending => {}
        Order::Descending => ports.reverse(),
        Order::Random => {
            for place in (1..ports.len()).rev() {
                ports.swap(place, dice.next_u32() as usize % (place + 1));
            }
        }
    }
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(rules, &settings, 7);
    let mut now = 0;
    let source = (CLIENT, 40_000);
    for (place, port) in ports.into_iter().enumerate() {
        let frame = match number {
            protocol::TCP => tcp(source, (SERVER, port), "S", (1, 0), b""),
            _ => udp(source, (SERVER, port), b""),
        };
        evaluator.outside(&frame, ms(now));
        // The scanner tries the port behind the knock as soon as the port could be open.
        let door = |list: &str| evaluator.lists().contains(list, CLIENT.parse().unwrap(), ms(now));
        let last = (1..=3)
            .rev()
            .map(|step| format!("s{step}"))
            .find(|list| rules.rules.iter().any(|rule| rule.action == Action::Accept && asks(rule, list)));
        if last.is_some_and(|list| door(&list)) {
            let entry = tcp((CLIENT, 40_001), (SERVER, 22), "S", (1, 0), b"");
            if evaluator.outside(&entry, ms(now + 1)).verdict == Verdict::Forward {
                return true;
            }
        }
        now += manner.interval_ms;
        if manner.pauses > 0 && (place as u16).is_multiple_of(manner.pauses) {
            now += 11_000;
        }
    }
    false
}

fn asks(rule: &Rule, list: &str) -> bool {
    rule.matchers.iter().any(|matcher| matches!(&matcher.condition, Condition::SrcAddressList(of) if of == list))
}

proptest! {
    // Failing cases are short enough; shrinking takes minutes.
    #![proptest_config(ProptestConfig { max_shrink_iters: 100, ..crate::cases::cases(1_000) })]

    /// Checks that rules with a successful scan have a lint. Scans in random order run several times for rules without
    /// a lint, because one success may be chance.
    #[test]
    fn a_scan_that_succeeds_has_a_lint(script in some_script(), seed in any::<[u8; 32]>()) {
        let reading = rsc::read(script.rules.as_bytes());
        prop_assert_eq!(&reading.problems, &[], "{}", script.rules);
        let told = lint(&reading.rules, &Settings::default()).iter().any(|lint| lint.code == Code::ScanOpens);
        if told {
            return Ok(());
        }
        let mut dice = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        for _ in 0..4 {
            let mut one = |of: &[u64]| of[dice.next_u32() as usize % of.len()];
            let number = one(&[protocol::TCP.into(), protocol::TCP.into(), protocol::UDP.into()]) as u8;
            let order = if one(&[0, 1]) == 0 { Order::Ascending } else { Order::Descending };
            let manner = Manner { order, interval_ms: one(&[1, 10, 100, 1_000, 4_000]), pauses: if script.counts { 0 } else { one(&[0, 0, 5, 7]) as u16 } };
            prop_assert!(!gets_in(&reading.rules, number, manner, &mut dice), "{:?} gets in: {}", manner, script.rules);
        }
        if !script.counts {
            let manner = Manner { order: Order::Random, interval_ms: 1, pauses: 0 };
            for number in [protocol::TCP, protocol::UDP] {
                if gets_in(&reading.rules, number, manner, &mut dice) {
                    let times = (0..30).filter(|_| gets_in(&reading.rules, number, manner, &mut dice)).count();
                    prop_assert!(times < 2, "random order succeeds again, {} of 30 times: {}", times, script.rules);
                }
            }
        }
    }
}
