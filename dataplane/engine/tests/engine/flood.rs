//! A flood of forged first knocks, and clients that knock meanwhile.
//!
//! The promise: with room for `capacity` entries and `rate` new sources a second, a client is never evicted if its next
//! step comes within capacity ÷ rate, less the difference in fill between shards. The flood evicts no entry above a
//! first step.

use std::net::{IpAddr, Ipv4Addr};

use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use crate::common::{Engine, Spec, Transport, door};

const CAPACITY: usize = 8_192;
/// Number of forged first knocks in each millisecond, each from a new source.
const RATE: u32 = 10;
const CLIENTS: u32 = 100;
const FLOOD: u32 = 4_800;
/// The time between two new clients, in milliseconds.
const EVERY: u32 = 20;

/// The time in milliseconds after which the flood evicts a first step, if all shards had the same size.
const REMEMBERED: u32 = CAPACITY as u32 / RATE;

fn two_ports() -> (RuleSet, Settings) {
    let text = "/ip firewall filter\n\
        add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s\n\
        add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list \
        address-list=secured address-list-timeout=1m\n\
        add chain=input src-address-list=secured action=accept\n";
    (rsc::read(text.as_bytes()).rules, Settings::default())
}

fn a_door() -> (RuleSet, Settings) {
    let door = door("a", &["tcp/1234", "tcp/4321"], &[]);
    (RuleSet::default(), Settings { doors: vec![door], ..Settings::default() })
}

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc633_6400 + number).into()
}

/// The number of clients that are admitted at the end of a flood, if each takes `gap` milliseconds from one step to the
/// next.
fn let_in((rules, settings): (RuleSet, Settings), gap: u32, levels: bool) -> usize {
    assert!(2 * REMEMBERED + EVERY * CLIENTS + gap < FLOOD, "everybody has knocked before it ends");
    let mut engine = Engine::with_room(rules, &settings, CAPACITY);
    if !levels {
        engine.state.lists.summaries().iter().for_each(|list| {
            engine.state.lists.bind(&list.list, 0).unwrap();
        });
    }
    let mut send = |source: IpAddr, port, now: u32| {
        let spec = Spec { source, ..Spec::new("198.51.100.1", Transport::Tcp(40_000, port), b"") };
        let now = Time::from_nanos(u64::from(now) * 1_000_000);
        engine.decide(Side::Outside, &[&spec.frame()], now)[0].verdict
    };
    for now in 0..FLOOD {
        for number in 0..RATE {
            send(Ipv4Addr::from_bits(0x0a00_0000 + now * RATE + number).into(), 1234, now);
        }
        // After the lists have been full for a while.
        let Some(since) = now.checked_sub(2 * REMEMBERED) else { continue };
        if since.is_multiple_of(EVERY) && since / EVERY < CLIENTS {
            send(client(since / EVERY), 1234, now);
        }
        if since >= gap && (since - gap).is_multiple_of(EVERY) && (since - gap) / EVERY < CLIENTS {
            send(client((since - gap) / EVERY), 4321, now);
        }
    }
    (0..CLIENTS).filter(|number| send(client(*number), 22, FLOOD) == Verdict::Forward).count()
}

#[test]
fn whoever_goes_on_in_time_gets_in_and_stays_in() {
    for gap in [1, REMEMBERED / 4] {
        assert_eq!(let_in(two_ports(), gap, true), CLIENTS as usize, "{gap} ms");
        assert_eq!(let_in(a_door(), gap, true), CLIENTS as usize, "{gap} ms, at a door");
    }
}

#[test]
fn the_edge_of_the_promise_is_where_it_is_said_to_be() {
    // Shards of a thousand entries fill up at times that differ by some percent.
    assert_eq!(let_in(two_ports(), REMEMBERED * 85 / 100, true), CLIENTS as usize);
    assert_eq!(let_in(two_ports(), REMEMBERED * 115 / 100, true), 0);
}

#[test]
fn without_levels_the_flood_pushes_everybody_out() {
    let stay = let_in(two_ports(), 1, false);
    assert!(stay < CLIENTS as usize / 2, "{stay} are in: those who came last");
}
