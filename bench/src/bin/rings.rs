//! Measures the cost and the gain of larger AF_XDP rings: `make bench-rings`.

use std::path::Path;

use clap::Parser;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::compare::rings;
use knockplane_bench::report;

/// Forwards TCP streams and the smallest frames with rings of several sizes, in turns. As root.
#[derive(Parser)]
#[command(name = "rings")]
struct Arguments {
    /// Rounds with each size.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Descriptors in each ring.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 2048, 4096, 8192, 16384, 32768])]
    sizes: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rounds, sizes } = Arguments::parse();
    println!("{}\n", Machine::this());
    report::publish(&[rings::table(&rings::measure(&sizes, rounds)?)], Path::new(report::FOLDER))
}
