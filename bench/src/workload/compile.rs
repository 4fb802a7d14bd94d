//! Compilation of 10,000 rules, and of a million entries of address lists. One operation is the whole compilation.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use knockplane_engine::state::State;
use knockplane_engine::table::RuleTable;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::Workload;
use super::decide::rule_set;

const RULES: u32 = 10_000;
const ENTRIES: u32 = 1_000_000;

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let rules = || rule_set(RULES);
    let with_entries = || RuleSet { address_lists: entries().address_lists, ..rule_set(RULES) };
    let of = |name: &str, rules: fn() -> RuleSet| {
        let workload = Workload::new(format!("compile/{name}"), move || compiling(rules()));
        Workload { operations: 1, runs: 1, ..workload }
    };
    vec![of("10000-rules", rules), of("10000-rules-1M-entries", with_entries)]
}

fn compiling(rules: RuleSet) -> impl FnMut() {
    let rules = Arc::new(rules);
    let state = State::with_secret(1, 1, [1, 2]).expect("little memory");
    move || {
        let table = RuleTable::compile(Arc::clone(&rules), &Settings::default(), &state, Time::default());
        assert!(black_box(table).is_ok(), "rules that run");
    }
}

/// Every second address of a network, a prefix of 256 for each thousand of them, in two lists.
fn entries() -> RuleSet {
    let mut text = "/ip firewall address-list\n".to_owned();
    for number in 0..ENTRIES {
        let list = if number % 3 == 0 { "blocked" } else { "known" };
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * number);
        let length = if number % 1000 == 0 { "/24" } else { "" };
        writeln!(text, "add list={list} address={address}{length}").expect("a string takes everything");
    }
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems.first());
    reading.rules
}
