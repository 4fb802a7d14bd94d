//! Measures the outage when the dataplane is killed and started again: `make bench-restart`.

use std::path::Path;

use clap::Parser;
use knockplane_bench::compare::restart::{self, EntryKind::*};
use knockplane_bench::compare::results::Machine;
use knockplane_bench::report;

/// Kills the dataplane and starts it again at once, with few and with many entries. As root.
#[derive(Parser)]
#[command(name = "restart")]
struct Arguments {
    /// Restarts with each number of entries.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Numbers of entries.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000])]
    entries: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rounds, entries } = Arguments::parse();
    println!("{}\n", Machine::this());
    let mut restarts = Vec::new();
    let measured = entries.into_iter().try_for_each(|entries| {
        let kinds: &[_] = if entries == 0 { &[Static] } else { &[Static, WithTimeout] };
        kinds.iter().try_for_each(|kind| {
            restarts.push(restart::measure(entries, *kind, rounds)?);
            Ok(())
        })
    });
    report::publish(&[restart::table(&restarts)], Path::new(report::FOLDER))?;
    measured
}
