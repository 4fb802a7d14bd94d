//! The same decisions by the reference evaluator, which evaluates rules one by one, for comparison with the compiled
//! table.
//!
//! The reference evaluator is written for simplicity, not for speed. Only the growth of its figures with the number of
//! rules is meaningful.

use std::hint::black_box;

use knockplane_engine::headers::read;
use knockplane_policy::eval::Evaluator;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::decide::rule_set;
use super::headers::{MAX_FRAME, SOURCE, tcp_to};
use super::{Workload, lists};

const RULES: [u32; 4] = [10, 100, 1_000, 10_000];

/// Number of packets of a run. They take as long as thousands of packets in the engine.
const PACKETS: u32 = 4;

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    // A packet that an early rule accepts by its list, a packet that the last rule drops, and a first knock.
    let traffic = [("accept", 22, true), ("unknown", 22, false), ("knock", 1234, false)];
    let of = |(name, port, is_in): (&'static str, u16, bool)| {
        RULES.into_iter().map(move |rules| {
            let workload =
                Workload::new(format!("linear/{name}/{rules}-rules"), move || evaluating(rules, port, is_in));
            Workload { operations: PACKETS, runs: 1, ..workload }
        })
    };
    traffic.into_iter().flat_map(of).collect()
}

fn evaluating(rules: u32, port: u16, is_in: bool) -> impl FnMut() {
    let rules = Box::leak(Box::new(rule_set(rules)));
    let settings = Box::leak(Box::new(Settings::default()));
    let source = lists::client(1);
    let mut frame = tcp_to(port);
    frame[SOURCE].copy_from_slice(&source.octets());
    let mut evaluator = Evaluator::new(rules, settings, 1);
    if is_in {
        let forever = knockplane_policy::rule::ListTimeout::NoneStatic;
        evaluator.lists_mut().add("secured", source.into(), forever, Time::default());
    }
    move || {
        for _ in 0..PACKETS {
            let packet = read(Side::Outside, black_box(&frame), MAX_FRAME).expect("a packet");
            let verdict = evaluator.evaluate(&packet, Time::default()).verdict;
            assert_eq!(verdict == Verdict::Forward, is_in);
        }
    }
}
