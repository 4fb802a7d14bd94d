//! Compares the filter with its peers on real interfaces (`knockplane_bench::compare`): `make bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::Parser;
use knockplane_bench::compare::results::Results;
use knockplane_bench::compare::run::{Options, run};
use knockplane_bench::compare::tables;
use knockplane_bench::report;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Compares knockplane with its peers on real interfaces in network namespaces. As root.
///
/// The full run takes half an hour. Ctrl-C ends it early and shows the results so far.
#[derive(Parser)]
#[command(name = "knockplane-bench", version)]
struct Arguments {
    /// Measure the most important loads, in five minutes.
    #[arg(long)]
    quick: bool,
    /// Measure only what has this in its name, such as `forward 60 B, S`, `entries` or `latency`.
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Number of windows for each candidate under each load, without a limit of time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    windows: Option<u16>,
    /// Measure only these candidates, such as `knockplane,smallest`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    candidates: Option<Vec<String>>,
    /// Folder for results and tables.
    #[arg(long, value_name = "DIR", default_value = report::FOLDER)]
    out: PathBuf,
    /// Measure nothing and show the results of this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "windows", "candidates"])]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(file) = &arguments.report {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let results = serde_json::from_str(&text).with_context(|| format!("{} has no results", file.display()))?;
        show(&results, &arguments.out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let options = Options {
        quick: arguments.quick,
        only: arguments.only.clone(),
        candidates: arguments.candidates.clone(),
        windows: arguments.windows.map(usize::from),
    };
    let finished = run(&options, &stop)?;
    fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let file = arguments.out.join("results.json");
    fs::write(&file, serde_json::to_string_pretty(&finished.results)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    show(&finished.results, &arguments.out)?;
    println!("{}", file.display());
    for failure in &finished.failed {
        eprintln!("bench: left out: {failure}");
    }
    let done = finished.failed.is_empty() && !finished.interrupted;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the tables, and writes their CSV files.
fn show(results: &Results, out: &Path) -> anyhow::Result<()> {
    println!("{}\n", tables::heading(results));
    report::publish(&tables::all(results), out)?;
    report::store(&[tables::loss_points(results)], out)
}
