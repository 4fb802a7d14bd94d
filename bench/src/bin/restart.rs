//! How long nothing passes when the dataplane is killed and started again: `make bench-restart`.

use clap::Parser;
use knockplane_bench::compare::restart;

/// Kills the dataplane and starts it again at once, with few and with many static entries. As root.
#[derive(Parser)]
#[command(name = "restart")]
struct Arguments {
    /// Restarts with each number of entries.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Static entries of operators.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000])]
    entries: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rounds, entries } = Arguments::parse();
    println!("{}", restart::HEAD);
    for entries in entries {
        println!("{}", restart::measure(entries, rounds)?);
    }
    Ok(())
}
