//! Measures the number of clients that are admitted while a flood of forged first knocks fills the lists: `make
//! bench-crowd`.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use knockplane_bench::compare::crowd;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::report;

/// A hundred clients knock during a flood of first knocks, at nftables and at knockplane. As root.
#[derive(Parser)]
#[command(name = "crowd")]
struct Arguments {
    /// Seconds of each flood.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Frames a second of the floods, one run for each; 0 is the highest possible rate.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 0])]
    rates: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { seconds, rates } = Arguments::parse();
    println!("{}\n", Machine::this());
    let mut floods = vec![crowd::measure_quiet(Duration::from_secs(seconds))?];
    let measured = rates.into_iter().try_for_each(|rate| {
        crowd::measure(Some(rate).filter(|rate| *rate > 0), Duration::from_secs(seconds), |flood| floods.push(flood))
    });
    report::publish(&[crowd::table(&floods)], Path::new(report::FOLDER))?;
    measured
}
