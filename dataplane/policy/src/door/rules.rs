//! The rules of doors. They precede the filter rules of the file and are not part of the file.
//!
//! ```text
//! chain=input  action=accept connection-door=ssh              connections through the door continue after it closes
//! chain=output action=accept connection-door=ssh
//! chain=input  action=knock door=ssh connection-state=new,invalid,untracked      packets of no connection may be knocks
//! chain=input  action=accept door=ssh protocol=tcp dst-port=22 src-address-list=door-ssh         the openings
//! ```
//!
//! The order: the connections of all doors, the knocks at all doors, the openings of all doors. So an open door does
//! not hide a knock at another door, and a packet of an established connection does not count as a knock. With `cut`,
//! connections and openings match only with a grant, and two further rules drop packets of connections through the door
//! without a grant. A cut connection is `invalid`, so that no later grant reopens it.

use super::{Door, KnockStep, Opening, open_list};
use crate::packet::Family;
use crate::rule::{Action, Condition, ConnectionState, Matcher, Rule, RuleSet};
use crate::settings::Settings;

/// The rules, preceded by those of the settings' doors, which replace earlier rules of doors. A rule of the file that
/// adds to a door's list is invalid: only knocks add entries there.
pub fn rules(settings: &Settings, mut rules: RuleSet) -> RuleSet {
    rules.rules.retain(|rule| !rule.dynamic);
    let doors = &settings.doors;
    if doors.is_empty() {
        return rules;
    }
    for rule in &mut rules.rules {
        if let Some(door) = doors.iter().find(|door| adds_to(rule, door)) {
            let why = || format!("`address-list` is a list of door `{}`, which only its knocks fill", door.name);
            rule.invalid = rule.invalid.take().or_else(|| Some(why()));
        }
    }
    let parts: [fn(&Door, Family) -> Vec<Rule>; 3] = [connections, knocks, openings];
    let made = parts.into_iter().flat_map(|part| {
        doors.iter().flat_map(move |door| families(door).into_iter().flat_map(move |family| part(door, family)))
    });
    let made: Vec<Rule> = made.collect();
    rules.rules.splice(0..0, made);
    rules.assign_ids();
    rules
}

/// The lists of the doors, each with its level: the number of earlier proofs that an addition needs.
pub fn levels(doors: &[Door]) -> impl Iterator<Item = (String, u8)> {
    doors.iter().flat_map(|door| {
        let open = proofs(&door.knock);
        let closing = door.closing_shape().map(|_| (door.closing_list(), open));
        [(door.open_list(), open), (door.knocking_list(), 0)].into_iter().chain(closing)
    })
}

/// The number of proofs that these steps need, beyond the one packet to a port that any stranger can send.
pub fn proofs(steps: &[KnockStep]) -> u8 {
    let secrets = steps.iter().filter(|step| step.is_secret()).count();
    // There are at most MOST_STEPS.
    (steps.len().saturating_sub(1) + secrets) as u8
}

fn adds_to(rule: &Rule, door: &Door) -> bool {
    match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => door.lists().contains(&add.list),
        _ => false,
    }
}

/// The families of the sources that may knock.
fn families(door: &Door) -> Vec<Family> {
    let can = |of: &Family| door.sources.is_empty() || door.sources.iter().any(|set| set.family() == *of);
    [Family::Ipv4, Family::Ipv6].into_iter().filter(can).collect()
}

fn rule(door: &Door, family: Family, chain: &str, conditions: Vec<Condition>, action: Action) -> Rule {
    let matchers = conditions.into_iter().map(|condition| Matcher { negated: false, condition });
    let comment = format!("door {}", door.name);
    Rule { matchers: matchers.collect(), dynamic: true, comment, ..Rule::new(family, chain, action) }
}

fn connections(door: &Door, family: Family) -> Vec<Rule> {
    let began = || Condition::ConnectionDoor(door.name.clone());
    let both = [("input", Condition::SrcAddressList as fn(String) -> _), ("output", Condition::DstAddressList)];
    let accept = |(chain, list): (&str, fn(String) -> Condition)| {
        let alive = [ConnectionState::New, ConnectionState::Established, ConnectionState::Related];
        let alive = || Condition::ConnectionState(alive.into_iter().collect());
        let grant = door.cut.then(|| [alive(), list(open_list(&door.name))]);
        rule(door, family, chain, grant.into_iter().flatten().chain([began()]).collect(), Action::Accept)
    };
    // Without a grant, no rule of the file may accept packets of these connections.
    let cut = |(chain, _): (&str, _)| rule(door, family, chain, vec![began()], Action::Drop);
    both.into_iter().map(accept).chain(both.into_iter().filter(|_| door.cut).map(cut)).collect()
}

fn knocks(door: &Door, family: Family) -> Vec<Rule> {
    let states = [ConnectionState::New, ConnectionState::Invalid, ConnectionState::Untracked].into_iter().collect();
    vec![rule(door, family, "input", vec![Condition::ConnectionState(states)], Action::Knock(door.name.clone()))]
}

fn openings(door: &Door, family: Family) -> Vec<Rule> {
    let opening = |opening: Option<&Opening>| {
        let protocol = opening.map(|opening| Condition::Protocol(opening.protocol.number(family)));
        let ports = opening.filter(|opening| !opening.ports.0.is_empty());
        let ports = ports.map(|opening| Condition::DstPort(opening.ports.clone()));
        let list = Condition::SrcAddressList(open_list(&door.name));
        let conditions = protocol.into_iter().chain([list]).chain(ports).collect();
        rule(door, family, "input", conditions, Action::AcceptDoor(door.name.clone()))
    };
    match door.opens.is_empty() {
        true => vec![opening(None)],
        false => door.opens.iter().map(|it| opening(Some(it))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::tests::doors;
    use crate::rsc::{self, wording};

    fn with(json: &str, file: &str) -> RuleSet {
        let settings = Settings { doors: doors(json), ..Settings::default() };
        let reading = rsc::read(format!("/ip firewall filter\n{file}").as_bytes());
        assert_eq!(reading.problems, []);
        rules(&settings, reading.rules)
    }

    fn printed(rules: &RuleSet, family: Family) -> Vec<String> {
        let of_family = rules.rules.iter().filter(|rule| rule.family == family);
        of_family.map(|it| wording::rule(it).join(" ")).collect()
    }

    #[test]
    fn doors_stand_in_front_of_the_file_connections_first_then_knocks_then_openings() {
        let rules = with(
            r#"[{"name":"ssh","knock":["tcp/7"],"opens":["tcp/22","icmp"]},
                {"name":"all","knock":["udp/7"],"cut":true}]"#,
            "add chain=input action=drop\n",
        );
        let expected = |icmp: &str| {
            vec![
                "chain=input action=accept connection-door=ssh".to_owned(),
                "chain=output action=accept connection-door=ssh".to_owned(),
                "chain=input action=accept connection-state=established,related,new src-address-list=door-all connection-door=all".to_owned(),
                "chain=output action=accept connection-state=established,related,new dst-address-list=door-all connection-door=all".to_owned(),
                "chain=input action=drop connection-door=all".to_owned(),
                "chain=output action=drop connection-door=all".to_owned(),
                "chain=input action=knock door=ssh connection-state=invalid,new,untracked".to_owned(),
                "chain=input action=knock door=all connection-state=invalid,new,untracked".to_owned(),
                "chain=input action=accept door=ssh protocol=tcp src-address-list=door-ssh dst-port=22".to_owned(),
                format!("chain=input action=accept door=ssh protocol={icmp} src-address-list=door-ssh"),
                "chain=input action=accept door=all src-address-list=door-all".to_owned(),
            ]
        };
        assert_eq!(printed(&rules, Family::Ipv6), expected("icmpv6"));
        let mut with_file = expected("icmp");
        with_file.push("chain=input action=drop".to_owned());
        assert_eq!(printed(&rules, Family::Ipv4), with_file);
        let ids: std::collections::HashSet<_> = rules.rules.iter().map(|rule| &rule.id).collect();
        assert_eq!(ids.len(), rules.rules.len());
    }

    #[test]
    fn rules_of_doors_replace_earlier_rules_of_doors() {
        let file = "add chain=input action=drop\n";
        let once = with(r#"[{"name":"ssh","knock":["tcp/7"]}]"#, file);
        let settings = |json| Settings { doors: doors(json), ..Settings::default() };
        assert_eq!(rules(&settings(r#"[{"name":"ssh","knock":["tcp/7"]}]"#), once.clone()), once);
        assert_eq!(rules(&settings("[]"), once).rules.len(), 1);
    }

    #[test]
    fn sources_of_one_family_have_rules_in_one_menu() {
        let rules = with(r#"[{"name":"a","knock":["tcp/7"],"sources":["192.0.2.0/24"]}]"#, "");
        assert_eq!((printed(&rules, Family::Ipv4).len(), printed(&rules, Family::Ipv6).len()), (4, 0));
    }

    #[test]
    fn rules_of_the_file_may_match_a_doors_lists_but_not_add_to_them() {
        let file = "add chain=input src-address-list=door-a action=accept\n\
                    add chain=input action=add-src-to-address-list address-list=door-a-knocking\n\
                    add chain=input action=add-src-to-address-list address-list=door-b\n";
        let rules = with(r#"[{"name":"a","knock":["tcp/7"]}]"#, file);
        let invalid: Vec<_> = rules.rules.iter().filter_map(|rule| Some((rule.line, rule.invalid.clone()?))).collect();
        let why = "`address-list` is a list of door `a`, which only its knocks fill".to_owned();
        assert_eq!(invalid, [(3, why)]);
    }

    #[test]
    fn levels_count_the_steps_of_a_knock() {
        let doors = doors(r#"[{"name":"a","knock":["tcp/7","tcp/9"],"close":["tcp/8"]}]"#);
        let levels: Vec<_> = levels(&doors).collect();
        let expected = [("door-a", 1), ("door-a-knocking", 0), ("door-a-closing", 1)];
        assert_eq!(levels, expected.map(|(list, level)| (list.to_owned(), level)));
    }
}
