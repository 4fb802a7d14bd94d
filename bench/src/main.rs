//! How fast the filter is, compared with what one would take instead: see `compare`.

use std::process::ExitCode;

use clap::Parser;
use knockplane_bench::compare::candidate::{Kind, Role};
use knockplane_bench::compare::results::{Arrangement, Counted};
use knockplane_bench::compare::rules::Rules;
use knockplane_bench::compare::throughput::{Load, measure};
use knockplane_bench::generator::{Profile, Spec};

#[derive(Parser)]
#[command(name = "knockplane-bench")]
struct Arguments {
    /// Windows of a second for each candidate.
    #[arg(long, default_value_t = 16)]
    windows: usize,
    #[arg(long, default_value = "forward")]
    load: String,
    #[arg(long, value_delimiter = ',', default_value = "smallest,knockplane")]
    kinds: Vec<String>,
    #[arg(long, default_value = "S")]
    arrangement: String,
    #[arg(long, value_parser = knockplane_bench::generator::parse_rate)]
    rate: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let all = [
        Kind::Knockplane,
        Kind::Smallest,
        Kind::SmallestSpinning,
        Kind::Nftables,
        Kind::NftablesRps,
        Kind::NftablesBridge,
        Kind::Xdp,
    ];
    let kinds: Vec<Kind> =
        arguments.kinds.iter().map(|name| *all.iter().find(|kind| kind.name() == name).expect("a kind")).collect();
    let arrangement = if arguments.arrangement == "S" { Arrangement::S } else { Arrangement::T };
    let forward = arguments.load == "forward";
    let mut spec = Spec { rate: arguments.rate, frame_bytes: Some(60), ..Spec::new(Profile::Flow) };
    if !forward {
        spec.source = "198.18.0.2/16".parse()?;
    }
    let load = Load {
        name: arguments.load.clone(),
        spec,
        counted: if forward { Counted::Forwarded } else { Counted::Decided },
        role: if forward { Role::Forward } else { Role::Drop },
        rules: Rules::default(),
        first: None,
    };
    let results = measure(&load, arrangement, &kinds, arguments.windows, |_, _| ())?;
    let base = results[0].rate(0.9);
    for result in &results {
        let window = &result.windows[result.windows.len() / 2];
        println!(
            "{:<18} p90 {:.3} median {:.3} ratio {:.3}  offered {:.2} {:?}",
            result.candidate,
            result.rate(0.9) / 1e6,
            result.rate(0.5) / 1e6,
            result.rate(0.9) / base,
            window.offered as f64 / window.seconds / 1e6,
            window.lost
        );
        for core in &window.cores {
            println!(
                "     user {:.2} system {:.2} softirq {:.2} idle {:.2}",
                core.user, core.system, core.softirq, core.idle
            );
        }
    }
    Ok(())
}
