//! The level of a list is never higher than the number of packets that lead into it.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::level;
use crate::rule::PortSet;

const LISTS: [&str; 4] = ["a", "b", "c", "d"];

/// Steps with few ports, protocols, sizes and lists, in chains that jumps lead to.
fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let asked = prop_oneof![
        (0..4_u16, 0..3_u16).prop_map(|(from, more)| Condition::DstPort(PortSet(vec![from..=from + more]))),
        select(&[protocol::TCP, protocol::UDP][..]).prop_map(Condition::Protocol),
        select(&[28..=28, 40..=40, 20..=60][..]).prop_map(Condition::PacketSize),
        Just(Condition::SrcAddress("198.51.100.0/24".parse().unwrap())),
        Just(Condition::Content(crate::rule::Bytes(b"pw".to_vec()))),
    ];
    let asked = (prop::bool::weighted(0.2), asked).prop_map(|(negated, condition)| Matcher { negated, condition });
    let needed = (prop::bool::weighted(0.1), select(&LISTS[..]))
        .prop_map(|(negated, list)| Matcher { negated, condition: Condition::SrcAddressList(list.to_owned()) });
    let matchers = (prop::collection::vec(asked, 0..3), prop::collection::vec(needed, 0..3));
    let place = select(vec![
        (Table::Filter, "input"),
        (Table::Filter, "input"),
        (Table::Filter, "input"),
        (Table::Filter, "k"),
        (Table::Filter, "l"),
        (Table::Filter, "output"),
        (Table::Raw, "prerouting"),
    ]);
    let action = prop_oneof![
        6 => select(&LISTS[..]).prop_map(|list| add_src(list, 100)),
        1 => select(vec![Action::Drop, Action::Return, Action::Jump("k".to_owned()), Action::Jump("l".to_owned())]),
    ];
    let rule = (place, matchers, action).prop_map(|((table, chain), (mut matchers, needed), action)| {
        matchers.extend(needed);
        let action = match action {
            // No cycles.
            Action::Jump(target) if chain >= target.as_str() || table == Table::Raw => Action::Log,
            action => action,
        };
        Rule { table, matchers, ..Rule::new(Family::Ipv4, chain, action) }
    });
    prop::collection::vec(rule, 1..10)
}

proptest! {
    #![proptest_config(crate::cases::cases(4_000))]

    #[test]
    fn no_level_is_higher_than_the_packets_that_it_takes(
        list in some_rules(),
        packets in prop::collection::vec((any::<bool>(), 0..7_u16, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let mut rules = RuleSet { rules: list, ..RuleSet::default() };
        rules.assign_ids();
        let levels = level::levels(&rules, &[]);
        let settings = Settings::default();
        let mut evaluator = Evaluator::new(&rules, &settings, 7);
        let source: IpAddr = CLIENT.parse().unwrap();
        let mut passphrases = 0;
        for (place, (is_tcp, port, knows, inside)) in packets.iter().enumerate() {
            let payload: &[u8] = if *knows { b"pw" } else { b"" };
            let frame = match is_tcp {
                true => tcp((CLIENT, 9), (SERVER, *port), "S", (1, 1), payload),
                false => udp((CLIENT, 9), (SERVER, *port), payload),
            };
            passphrases += usize::from(*knows);
            let now = ms(place as u64);
            evaluator.evaluate(&view(if *inside { Side::Inside } else { Side::Outside }, &frame), now);
            for list in LISTS.iter().filter(|list| evaluator.lists().contains(list, source, now)) {
                let most = place + usize::from(passphrases > 0);
                prop_assert!(usize::from(levels[*list]) <= most, "{} is level {} after {} packets", list, levels[*list], place + 1);
            }
        }
    }
}

/// Checks with every sequence of packets that the level is exact, for rules that are difficult to analyse.
#[test]
fn levels_are_exact() {
    for (text, expected) in [
        ("dst-port=1 list=a; dst-port=1 needs=a list=b; dst-port=1 needs=b list=c", [0, 0, 0]),
        ("dst-port=1 needs=b list=c; dst-port=1 needs=a list=b; dst-port=1 list=a", [0, 1, 2]),
        ("dst-port=1 list=a; dst-port=2 needs=a list=b; dst-port=1-2 needs=b list=c", [0, 1, 1]),
        ("dst-port=1 list=a; dst-port=2 needs=a list=b; dst-port=1,3 needs=b list=c", [0, 1, 2]),
        ("dst-port=1-2 list=a; dst-port=2 needs=a list=b; dst-port=3 needs=b list=c", [0, 0, 1]),
        ("dst-port=1 list=a; dst-port=!1 needs=a list=b; dst-port=2 needs=a list=c", [0, 1, 1]),
    ] {
        let rules: String = text
            .split("; ")
            .map(|rule| {
                let rule = rule
                    .replace("needs", "src-address-list")
                    .replace(" list", " action=add-src-to-address-list address-list");
                format!("add chain=input protocol=tcp {rule} address-list-timeout=1m\n")
            })
            .collect();
        let reading = crate::rsc::read(format!("/ip firewall filter\n{rules}").as_bytes());
        assert_eq!(reading.problems, [], "{rules}");
        let levels = level::levels(&reading.rules, &[]);
        assert_eq!(["a", "b", "c"].map(|list| levels[list]), expected, "{text}");
        assert_eq!(["a", "b", "c"].map(|list| least(&reading.rules, list)), expected.map(usize::from), "{text}");
    }
}

/// The minimum number of packets that lead into the list, less one, over all sequences of up to three packets.
fn least(rules: &RuleSet, list: &str) -> usize {
    let (settings, source) = (Settings::default(), CLIENT.parse().unwrap());
    let leads = |ports: &[u16]| {
        let mut evaluator = Evaluator::new(rules, &settings, 7);
        for (place, port) in ports.iter().enumerate() {
            evaluator.outside(&tcp((CLIENT, 9), (SERVER, *port), "S", (1, 1), b""), ms(place as u64));
        }
        evaluator.lists().contains(list, source, ms(9))
    };
    let sequences = |length: u32| {
        (0..4_u16.pow(length))
            .map(move |number| (0..length).map(|digit| number / 4_u16.pow(digit) % 4).collect::<Vec<_>>())
    };
    (1..=3).find(|length| sequences(*length).any(|ports| leads(&ports))).expect("a list that packets lead into")
        as usize
        - 1
}
