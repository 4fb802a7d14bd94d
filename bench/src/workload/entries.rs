//! Entries of a rule file: a million prefixes, far apart from each other, in two lists.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use knockplane_engine::state::State;
use knockplane_engine::table::Table;
use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::{BATCH, Random, Workload};

const ENTRIES: u32 = 1_000_000;

/// The factor is odd, so that all products differ.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// An address of the n-th prefix.
type Address = fn(u32) -> IpAddr;

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let families: [(&str, &str, u8, Address); 2] = [("v4", "ip", 28, v4), ("v6", "ipv6", 64, v6)];
    let of = |(name, menu, length, address): (&str, &'static str, u8, Address)| {
        let table = Rc::new(OnceCell::new());
        [("hit", 0), ("miss", ENTRIES)].map(|(what, first)| {
            let table = Rc::clone(&table);
            Workload::new(format!("entries/{name}-{what}/1M"), move || {
                let table = Rc::clone(table.get_or_init(|| Rc::new(compiled(menu, length, address))));
                let is_in = table.entries_of(address(first), Time::default()) != Default::default();
                assert_eq!(is_in, first == 0);
                let mut random = Random(1);
                move || {
                    for _ in 0..BATCH {
                        let address = address(first + random.below(ENTRIES));
                        black_box(table.entries_of(address, Time::default()));
                    }
                }
            })
        })
    };
    families.into_iter().flat_map(of).collect()
}

fn compiled(menu: &str, length: u8, address: Address) -> Table {
    let mut text = format!("/{menu} firewall address-list\n");
    for number in 0..ENTRIES {
        let list = if number % 3 == 0 { "blocked" } else { "known" };
        writeln!(text, "add list={list} address={}/{length}", address(number)).expect("a string takes everything");
    }
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems.first());
    let state = State::with_secret(1, 1, [1, 2]).expect("little memory");
    Table::compile(Arc::new(reading.rules), &Settings::default(), &state, Time::default()).expect("entries")
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number.wrapping_mul(SPREAD as u32) << 4).into()
}

fn v6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(u64::from(number).wrapping_mul(SPREAD) >> 4 | 2 << 60) << 64).into()
}
