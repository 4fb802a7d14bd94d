//! The losses of new rules that an operator must confirm: no rule that runs, or no way in from outside, is left.

use knockplane_policy::lint::{WayIn, ways_in};
use knockplane_policy::rsc::wording;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;

use crate::text::printable;

/// Maximum number of lost ways in that a message names.
const MOST_NAMED: usize = 5;

/// The losses that need a confirmation, as the beginning of a question; `None` if there are none.
/// `source` is the origin of the running rules.
pub(crate) fn loss(source: &str, running: &RuleSet, new: &RuleSet, settings: &Settings) -> Option<String> {
    let are_left = |rules: &RuleSet| rules.rules.iter().filter(|rule| !rule.dynamic && rule.runs()).count();
    let ways = ways_in(running, settings);
    let is_closed = !ways.is_empty() && ways_in(new, settings).is_empty();
    let before = are_left(running);
    let closed = if is_closed {
        format!("; no source outside could begin a connection\n{}", named(&ways, source, running))
    } else {
        "\n".to_owned()
    };
    match (are_left(new), is_closed) {
        (0, _) if before > 0 => Some(format!("these rules have none that runs, in place of {before}{closed}")),
        (_, true) => Some(format!("these rules accept nothing from outside{closed}")),
        _ => None,
    }
}

/// The names of the ways in that would be lost.
fn named(ways: &[WayIn], source: &str, running: &RuleSet) -> String {
    let said = |way: &WayIn| match way {
        WayIn::Door(name) => format!("door `{name}`"),
        WayIn::Rule(place) => {
            let rule = &running.rules[*place];
            let line = if rule.line > 0 { format!("line {} of {source}: ", rule.line) } else { String::new() };
            line + &wording::rule(rule).join(" ")
        }
        WayIn::Default(chain) => format!("`{} = \"accept\"` in [policy.chain-default]", chain.name()),
    };
    let mut text: String = ways
        .iter()
        .take(MOST_NAMED)
        .map(|way| format!("  the running rules accept by {}\n", printable(&said(way))))
        .collect();
    if let Some(more) = ways.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        text += &format!("  and by {more} more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use knockplane_policy::rsc;

    use super::*;

    const KNOCK: &str = "add chain=input connection-state=established,related\n\
        add chain=input protocol=icmp packet-size=99 action=add-src-to-address-list address-list=open\n\
        add chain=input src-address-list=open comment=\"who knocked\"\nadd chain=input action=drop\n";

    fn rules(rules: &str) -> RuleSet {
        let reading = rsc::read(format!("/ip firewall filter\n{rules}").as_bytes());
        assert_eq!(reading.problems, [], "{rules}");
        reading.rules
    }

    fn loss_of(before: &str, after: &str, settings: &Settings) -> Option<String> {
        loss("old.rsc", &rules(before), &rules(after), settings)
    }

    #[test]
    fn what_leaves_nothing_is_told() {
        let loss = |after: &str| loss_of(KNOCK, after, &Settings::default());
        let all = loss("").unwrap();
        assert!(
            all.starts_with("these rules have none that runs, in place of 4; no source outside could begin a"),
            "{all}"
        );
        assert!(all.contains("\n  the running rules accept by line 4 of old.rsc: chain=input action=accept"), "{all}");
        for after in [
            "add chain=input action=drop\n",
            "add chain=input connection-state=established,related\nadd chain=input action=drop\n",
            "add chain=input disabled=yes\nadd chain=input action=drop\n",
            "add chain=input in-interface=inside\nadd chain=input action=drop\n",
            "add chain=input action=drop\nadd chain=input protocol=tcp dst-port=22\n",
            "add chain=output action=accept\nadd chain=inptu action=accept\n",
            "add chain=input protocol=tcp tcp-flags=syn,!syn\nadd chain=input action=drop\n",
        ] {
            assert!(loss(after).unwrap().starts_with("these rules accept nothing from outside; "), "{after}");
        }
        for after in [
            KNOCK,
            "add chain=input protocol=tcp dst-port=22\nadd chain=input action=drop\n",
            "add chain=input action=jump jump-target=k\nadd chain=k src-address-list=friends\n",
            "add chain=input connection-state=!invalid\n",
        ] {
            assert_eq!(loss(after), None, "{after}");
        }
    }

    #[test]
    fn what_was_not_there_cannot_be_lost() {
        let closed = "add chain=input action=drop\n";
        assert_eq!(loss_of("", "", &Settings::default()), None);
        assert_eq!(loss_of("", closed, &Settings::default()), None);
        assert_eq!(loss_of(closed, closed, &Settings::default()), None);
        let none = loss_of(closed, "", &Settings::default()).unwrap();
        assert_eq!(none, "these rules have none that runs, in place of 1\n");
    }

    /// Doors of the configuration remain when rules change.
    #[test]
    fn a_door_is_a_way_in() {
        let door = r#"{"name":"ssh","knock":["tcp/7000","udp/9000","tcp/8000"]}"#;
        let settings = Settings { doors: vec![serde_json::from_str(door).unwrap()], ..Settings::default() };
        assert_eq!(loss_of(KNOCK, "add chain=input action=drop\n", &settings), None);
    }
}
