//! Measures the throughput of TCP connections through a door: `make bench-tcp`.

use std::path::Path;

use clap::Parser;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::compare::tcp;
use knockplane_bench::report;

/// Sends TCP streams through a door, with and without the kernel's fast path, and through a bridge with nftables. As
/// root.
#[derive(Parser)]
#[command(name = "tcp")]
struct Arguments {
    /// Rounds of all candidates.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rounds } = Arguments::parse();
    println!("{}\n", Machine::this());
    report::publish(&[tcp::table(&tcp::measure(rounds)?)], Path::new(report::FOLDER))
}
