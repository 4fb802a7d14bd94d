//! Measures grants while they are written to the journal: `make bench-grants`.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use knockplane_bench::compare::grants;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::report;

/// Lets many sources knock, kills the dataplane, and counts the grants that the next one restores. As root.
#[derive(Parser)]
#[command(name = "grants")]
struct Arguments {
    /// Sources that knock, a second.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 50_000])]
    rates: Vec<u64>,
    /// Time of knocks.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rates, seconds } = Arguments::parse();
    println!("{}\n", Machine::this());
    let mut results = Vec::new();
    let measured = rates.into_iter().try_for_each(|rate| {
        results.push(grants::measure(rate, Duration::from_secs(seconds))?);
        Ok(())
    });
    report::publish(&[grants::table(&results)], Path::new(report::FOLDER))?;
    measured
}
