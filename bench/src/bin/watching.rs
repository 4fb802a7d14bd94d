//! Measures what `knockctl monitor`, the audit file and `knockctl trace` miss during a flood, and what they cost accepted traffic:
//! `make bench-watching`.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::compare::watching::{self, Watcher};
use knockplane_bench::report;

/// Watches a flood of logged drops, in which a hundred sources open a door. As root.
#[derive(Parser)]
#[command(name = "watching")]
struct Arguments {
    /// Frames a second of the flood.
    #[arg(long, default_value_t = 500_000)]
    rate: u64,
    /// Seconds of a flood.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Floods with each watcher, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rate, seconds, rounds } = Arguments::parse();
    println!("{}\n", Machine::this());
    let mut results = Vec::new();
    let measured = (0..rounds).flat_map(|_| Watcher::ALL).try_for_each(|watcher| {
        results.push(watching::measure(watcher, rate, Duration::from_secs(seconds))?);
        Ok(())
    });
    report::publish(&[watching::table(&results)], Path::new(report::FOLDER))?;
    measured
}
