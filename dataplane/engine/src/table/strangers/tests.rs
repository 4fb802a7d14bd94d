//! The drops of strangers under some rule sets. `dataplane/src/carrier/tests/strangers.rs` compares them with decisions.

use std::sync::Arc;

use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::*;
use crate::state::State;

/// The trails of these rules, and of which trail the frames of IPv4 to a protected address are.
fn strangers(rules: &str) -> (Vec<StrangerTrail>, impl Fn(PacketKind, u16) -> u8 + use<>, StrangerClasses) {
    let reading = rsc::read(format!("/ip firewall filter\n{rules}").as_bytes());
    assert_eq!(reading.problems, []);
    let state = State::with_secret(16, 16, [1, 2]).expect("a small state");
    let table = RuleTable::compile(Arc::new(reading.rules), &Settings::default(), &state, Time::default());
    let mut trails = Vec::new();
    let classes = table.expect("the rules compile").strangers(&state.lists, |trail| {
        trails.push(trail.clone());
        u8::try_from(trails.len()).ok()
    });
    let of = classes.trails.clone();
    let find = move |kind, port: u16| of[class_index(Family::Ipv4, kind, true) * CLASS_PORTS + usize::from(port)];
    (trails, find, classes)
}

#[test]
fn ports_of_knocks_come_up_and_all_others_are_dropped() {
    let (trails, of, _) = strangers(
        "add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=9s\n\
         add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list \
         address-list=secured address-list-timeout=9s\n\
         add chain=input src-address-list=secured action=accept\n\
         add chain=input action=drop\n",
    );
    let rules: Vec<_> = trails.iter().map(|trail| &trail.rules[..]).collect();
    // The defaults of `input` for IPv6 and of `forward` drop, too.
    assert_eq!(rules, [&[3][..], &[], &[]]);
    for kind in PacketKind::ALL {
        let is_tcp = kind != PacketKind::Datagram;
        for (port, is_step) in [(0, false), (22, false), (1234, is_tcp), (4321, is_tcp), (65_535, false)] {
            assert_eq!(of(kind, port), u8::from(!is_step), "{kind:?} {port}");
        }
    }
}

#[test]
fn a_trail_has_the_rules_on_the_way() {
    let (trails, of, classes) = strangers(
        "add chain=input protocol=udp dst-port=100-200 action=passthrough\n\
         add chain=input protocol=udp dst-port=!150 action=jump jump-target=udp\n\
         add chain=input src-address=192.0.2.0/24 action=accept\n\
         add chain=udp dst-port=7 protocol=udp action=return\n\
         add chain=udp dst-port=9 protocol=udp action=accept\n\
         add chain=udp ttl=equal:1 protocol=udp dst-port=11 action=passthrough\n\
         add chain=udp protocol=udp dst-port=13 log=yes action=drop\n\
         add chain=udp action=drop\n",
    );
    let rules = |kind, port| {
        of(kind, port)
            .checked_sub(1)
            .map(|trail| (&trails[usize::from(trail)].rules[..], trails[usize::from(trail)].default_of))
    };
    let datagram = |port| rules(PacketKind::Datagram, port);
    assert_eq!(datagram(120), Some((&[0, 1, 7][..], None)));
    assert_eq!(datagram(150), Some((&[0][..], Some(BuiltinChain::Input))));
    assert_eq!(datagram(7), Some((&[1, 3][..], Some(BuiltinChain::Input))));
    assert_eq!(datagram(99), Some((&[1, 7][..], None)));
    assert_eq!([9, 11, 13].map(datagram), [None; 3], "accepted, an open question, logged");
    assert_eq!(rules(PacketKind::Syn, 120), Some((&[][..], Some(BuiltinChain::Input))));
    let network = ["192.0.2.0", "192.0.2.255"].map(|address| address.parse::<IpAddr>().expect("an address"));
    assert_eq!(classes.named, [network.into()]);
    assert!(!classes.counts_ports);
}

#[test]
fn rules_that_accept_everybody_drop_nobody() {
    let (trails, of, _) = strangers("add chain=input action=accept\nadd chain=forward action=accept\n");
    assert!(PacketKind::ALL.into_iter().all(|kind| of(kind, 22) == 0));
    assert!(trails.iter().all(|trail| trail.rules.is_empty() && trail.default_of.is_some()), "only IPv6 has a default");
}

#[test]
fn many_rules_and_paths_end_without_a_drop_too_many() {
    let jumps: String =
        (0..40).map(|port| format!("add chain=input protocol=tcp dst-port={port} action=passthrough\n")).collect();
    let (trails, of, _) = strangers(&format!("{jumps}{jumps}add chain=input action=drop\n"));
    assert!(trails.len() <= MAX_TRAILS);
    assert_ne!(of(PacketKind::Syn, 3), 0);
    let long: String = (0..50).map(|_| "add chain=input protocol=tcp action=passthrough\n").collect();
    let (_, of, _) = strangers(&format!("{long}add chain=input action=drop\n"));
    assert_eq!(of(PacketKind::Syn, 3), 0, "a trail of too many rules");
    assert_ne!(of(PacketKind::Datagram, 3), 0);
}
