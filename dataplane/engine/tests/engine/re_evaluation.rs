//! Packets that are decided before packets that arrived earlier, as is possible with several queues.

use std::net::IpAddr;

use knockplane_engine::pipeline::{OutOfOrder, PendingSteps};
use knockplane_policy::door::Door;
use knockplane_policy::packet::Side;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use crate::common::{Engine, Spec, Transport, door};

fn engine(doors: Vec<Door>, file: &str) -> Engine {
    let rules: RuleSet = rsc::read(file.as_bytes()).rules;
    Engine::new(rules, &Settings { doors, ..Settings::default() })
}

/// A TCP packet to a port, and the time of its arrival, in milliseconds.
#[derive(Clone, Copy)]
struct Hit(u16, u64);

impl Hit {
    fn frame(self) -> Vec<u8> {
        Spec::new("198.51.100.1", Transport::Tcp(40_000 + self.1 as u16, self.0), b"").frame()
    }

    fn arrived(self) -> Time {
        Time::from_nanos(self.1 * 1_000_000)
    }

    /// Decides about the step, and returns its pending steps.
    fn decide(self, engine: &mut Engine) -> Option<PendingSteps> {
        engine.with(|decider, context| {
            decider.decide_arrived(Side::Outside, &[&self.frame()], |_| self.arrived(), context);
            decider.pending(0)
        })
    }

    /// Evaluates the step again. Returns whether it has no pending steps any more.
    fn re_evaluate(self, engine: &mut Engine, pending: PendingSteps, is_last: bool) -> bool {
        engine.with(|decider, context| {
            let (side, frame, arrived) = (Side::Outside, &self.frame(), self.arrived());
            !decider.re_evaluate(OutOfOrder { side, frame, arrived, pending, is_last }, context).is_any()
        })
    }
}

fn tally(engine: &Engine, door: &str) -> (u64, u64, u64) {
    let tally = engine.state.visitors().unwrap().counts(door).tally();
    (tally.steps[0], tally.opened, tally.failed.iter().sum())
}

fn is_in(engine: &Engine, list: &str) -> bool {
    let source: IpAddr = "198.51.100.1".parse().unwrap();
    let to = engine.state.lists.peer_tag("203.0.113.1".parse().unwrap());
    let list = engine.state.lists.id(list).unwrap();
    engine.state.lists.membership(source, to, Hit(0, 900).arrived()).contains(list)
}

#[test]
fn a_step_waits_for_the_one_that_arrived_before_it() {
    let mut engine = engine(vec![door("a", &["tcp/7000", "tcp/8000"], &[])], "");
    let (first, second) = (Hit(7000, 100), Hit(8000, 101));
    let pending = second.decide(&mut engine).expect("it may be early");
    assert!(!second.re_evaluate(&mut engine, pending, false), "its forerunner is not there");
    assert_eq!(first.decide(&mut engine), None);
    assert!(second.re_evaluate(&mut engine, pending, false));
    assert!(is_in(&engine, "door-a"));
    assert_eq!(tally(&engine, "a"), (1, 1, 0));
}

#[test]
fn a_step_that_really_came_too_early_starts_over_at_its_last_look() {
    let mut engine = engine(vec![door("a", &["tcp/7000", "tcp/8000", "tcp/9000"], &[])], "");
    Hit(7000, 100).decide(&mut engine);
    let third = Hit(9000, 101);
    let pending = third.decide(&mut engine).expect("it may be early");
    assert!(!third.re_evaluate(&mut engine, pending, false) && is_in(&engine, "door-a-knocking"));
    assert!(third.re_evaluate(&mut engine, pending, true) && !is_in(&engine, "door-a-knocking"));
    assert_eq!(tally(&engine, "a"), (1, 0, 1), "counted once");
}

#[test]
fn only_the_door_that_it_waits_for_sees_a_step_again() {
    // One packet opens a door and is the second step of another door.
    let doors = vec![door("one", &["tcp/8000"], &[]), door("two", &["tcp/7000", "tcp/8000"], &[])];
    let mut engine = engine(doors, "");
    let (first, second) = (Hit(7000, 100), Hit(8000, 101));
    let pending = second.decide(&mut engine).expect("it may be early");
    first.decide(&mut engine);
    assert!(second.re_evaluate(&mut engine, pending, false));
    assert_eq!((tally(&engine, "one").1, tally(&engine, "two").1), (1, 1));
}

#[test]
fn a_step_at_an_open_door_waits_for_the_closing_knock_and_repeats_no_other() {
    let knock = ["tcp/7000", "tcp/8000", "tcp/9000"];
    let close = ["tcp/9000", "tcp/8000", "tcp/7000"];
    let mut engine = engine(vec![door("a", &knock, &close)], "");
    for (port, at) in [(7000, 100), (8000, 101), (9000, 102)] {
        Hit(port, at).decide(&mut engine);
    }
    // The knock again while the door is open: the first two packets wait for the closing knock, which the third one
    // begins.
    let again = [Hit(7000, 200), Hit(8000, 201), Hit(9000, 202)];
    let pending = again.map(|hit| hit.decide(&mut engine));
    assert_eq!(tally(&engine, "a"), (2, 2, 0));
    for (hit, pending) in again.iter().zip(pending) {
        if let Some(pending) = pending {
            hit.re_evaluate(&mut engine, pending, false);
            hit.re_evaluate(&mut engine, pending, true);
        }
    }
    assert_eq!(tally(&engine, "a"), (2, 2, 0), "no step is taken twice");
    assert!(!is_in(&engine, "door-a-knocking") && is_in(&engine, "door-a"));
}

#[test]
fn without_tracking_it_is_the_same() {
    let file = "/ip firewall raw\nadd chain=prerouting action=notrack\n";
    let mut engine = engine(vec![door("a", &["tcp/7000", "tcp/8000"], &[])], file);
    let (first, second) = (Hit(7000, 100), Hit(8000, 101));
    let pending = second.decide(&mut engine).expect("it may be early");
    first.decide(&mut engine);
    assert!(second.re_evaluate(&mut engine, pending, false) && is_in(&engine, "door-a"));
}

#[test]
fn who_was_dropped_by_a_rule_that_learns_adds_nothing_behind_it() {
    let file = "/ip firewall filter\n\
        add chain=input nth=1,1 action=drop\n\
        add chain=input protocol=tcp dst-port=8000 action=add-src-to-address-list address-list=trusted \
        address-list-timeout=1h\n";
    let mut engine = engine(vec![door("a", &["tcp/7000", "tcp/8000"], &[])], file);
    let second = Hit(8000, 101);
    let pending = second.decide(&mut engine).expect("it may be early at the door");
    second.re_evaluate(&mut engine, pending, false);
    second.re_evaluate(&mut engine, PendingSteps::ADDITION, true);
    assert!(!is_in(&engine, "trusted"));
}
