//! Who gets in while a flood of forged first knocks fills what remembers them: `make bench-crowd`.

use std::time::Duration;

use clap::Parser;
use knockplane_bench::compare::crowd;

/// A hundred people knock during a flood of first knocks, at nftables and at knockplane. As root.
#[derive(Parser)]
#[command(name = "crowd")]
struct Arguments {
    /// How long each flood lasts.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Frames a second of the floods; 0 is as fast as it goes. One run for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 0])]
    rates: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { seconds, rates } = Arguments::parse();
    for rate in rates {
        crowd::measure(Some(rate).filter(|rate| *rate > 0), Duration::from_secs(seconds), |it| println!("{it}"))?;
    }
    Ok(())
}
