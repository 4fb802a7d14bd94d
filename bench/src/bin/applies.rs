//! Measures what applies of rules cost accepted traffic: `make bench-applies`.

use std::path::Path;

use clap::Parser;
use knockplane_bench::compare::applies;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::report;

/// Applies rules again and again while a probe sends 50,000 frames a second. As root.
#[derive(Parser)]
#[command(name = "applies")]
struct Arguments {
    /// Applies of each rule set.
    #[arg(long, default_value_t = 1_000)]
    applies: usize,
    /// Numbers of rules.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000])]
    rules: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { applies, rules } = Arguments::parse();
    println!("{}\n", Machine::this());
    let mut results = Vec::new();
    let measured = rules.into_iter().flat_map(|rules| [(true, rules), (false, rules)]).try_for_each(|(on, rules)| {
        results.extend(applies::measure(on, rules, applies)?);
        Ok(())
    });
    report::publish(&[applies::table(&results)], Path::new(report::FOLDER))?;
    measured
}
