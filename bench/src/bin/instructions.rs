//! How many instructions the engine takes, which does not depend on how busy or fast a machine is: `make bench-check`
//! compares with `bench/baseline/instructions.toml` and fails if anything became dearer.
//!
//! Each workload runs twice under Valgrind's callgrind, in two processes: once for half as many runs as the other.
//! The difference is what those runs take; starting, preparing and ending cancel out.
//!
//! Counts depend on compiler, profile and CPU features; the baseline says which they were taken with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, process, slice};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use knockplane_bench::report::{self, Table};
use serde::{Deserialize, Serialize};

#[path = "../workload/mod.rs"]
mod workload;

use workload::{Size, Workload};

/// Counted instructions of the engine's workloads.
#[derive(Parser)]
#[command(name = "instructions")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Counts, and compares with the baseline.
    Check {
        /// Write the baseline instead of comparing.
        #[arg(long, conflicts_with = "only")]
        update: bool,
        /// Leave out workloads without this in their name.
        #[arg(default_value = "")]
        only: String,
    },
    /// Does one workload's work; what is run under callgrind.
    Run {
        /// The workload's name.
        workload: String,
        /// How many runs.
        runs: u32,
    },
}

/// How much more is too much, and how much less is a reason for a new baseline: a change of the compiler's mind about
/// one function stays below, an additional hash or copy does not.
const TOO_MANY: f64 = 1.10;
const MANY_LESS: f64 = 0.90;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/instructions.toml");

const BASELINE_HEADING: &str = "\
# Instructions of one operation (packet, lookup, addition, slot of a sweep) of each workload, see
# docs/benchmarks-memory.md. Written by `make bench-check UPDATE=1`.

";

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Check { update, only } => check(update, &only),
        Task::Run { workload, runs } => run(&workload, runs),
    };
    done.unwrap_or_else(|error| {
        eprintln!("instructions: {error:#}");
        ExitCode::FAILURE
    })
}

/// What was counted, and with what.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    built: Built,
    instructions: BTreeMap<String, f64>,
}

/// What the counts depend on.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    /// The compiler.
    rustc: String,
    /// Architecture and the CPU features that the compiler was allowed to use.
    target: String,
    /// `profile.release` of the workspace.
    profile: toml::Table,
}

fn check(update: bool, only: &str) -> anyhow::Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "this build is not optimized; use `make bench-check`");
    let built = Built::this()?;
    let baseline = if update { None } else { Some(read(Path::new(BASELINE))?) };
    if let Some(baseline) = baseline.as_ref().filter(|baseline| baseline.built != built) {
        warn(&baseline.built, &built);
    }

    let [_, size, _] = Size::all();
    let workloads = workload::all(slice::from_ref(&size));
    let mut counted = BTreeMap::new();
    let mut failed = Vec::new();
    let columns = ["workload", "instructions", "change since the baseline"];
    let mut table = Table::new("instructions", "Instructions of one operation", &columns);
    for workload in workloads.iter().filter(|workload| is_counted(workload) && workload.name.contains(only)) {
        let instructions = count(workload).with_context(|| workload.name.clone())?;
        let before = baseline.as_ref().map(|baseline| baseline.instructions.get(&workload.name).copied());
        let verdict = before.map_or(Ok(String::new()), |before| compare(instructions, before));
        eprintln!("{}", workload.name);
        let (name, cell) = (workload.name.clone(), verdict.as_ref().unwrap_or_else(|problem| problem).clone());
        table.rows.push(vec![name, format!("{instructions:.1}"), cell]);
        failed.extend(verdict.err().map(|problem| format!("{}: {problem}", workload.name)));
        counted.insert(workload.name.clone(), instructions);
    }
    report::publish(&[table], Path::new(report::FOLDER))?;
    if let Some(baseline) = &baseline {
        let gone = baseline.instructions.keys().filter(|name| name.contains(only) && !counted.contains_key(*name));
        failed.extend(gone.map(|name| format!("{name}: only in the baseline; `make bench-check UPDATE=1` renews it")));
    }

    if update {
        let text = toml::to_string(&Baseline { built, instructions: counted }).context("the baseline as TOML")?;
        fs::write(BASELINE, BASELINE_HEADING.to_owned() + &text).context(BASELINE)?;
        println!("written: {BASELINE}");
    }
    for problem in &failed {
        eprintln!("instructions: {problem}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Etherparse's instructions are not ours, one run alone has nothing to be compared with, and a million connections take
/// minutes to begin under Valgrind.
fn is_counted(workload: &Workload<'_>) -> bool {
    !["/etherparse", "/1M"].iter().any(|name| workload.name.ends_with(name)) && workload.runs > 1
}

/// How a count compares with the baseline's, if that has one. An error is a reason to fail.
fn compare(now: f64, before: Option<f64>) -> Result<String, String> {
    let Some(before) = before else {
        return Err("not in the baseline; `make bench-check UPDATE=1` adds it".to_owned());
    };
    let change = format!("{:+.1} %", (now / before - 1.0) * 100.0);
    if now > before * TOO_MANY {
        Err(format!("{change}: {before:.1} instructions became {now:.1}"))
    } else if now < before * MANY_LESS {
        Ok(format!("{change}: better; `make bench-check UPDATE=1` keeps it so"))
    } else {
        Ok(change)
    }
}

/// Instructions of one operation.
fn count(workload: &Workload<'_>) -> anyhow::Result<f64> {
    let (fewer, more) = (workload.runs / 2, workload.runs);
    let (less, all) = (Counting::start(&workload.name, fewer)?, Counting::start(&workload.name, more)?);
    let difference = all.end()?.checked_sub(less.end()?).context("more runs took fewer instructions")?;
    let per_operation = difference as f64 / (f64::from(more - fewer) * f64::from(workload.operations));
    Ok((per_operation * 10.0).round() / 10.0)
}

/// A process under callgrind.
struct Counting {
    child: process::Child,
    report: PathBuf,
}

impl Counting {
    fn start(name: &str, runs: u32) -> anyhow::Result<Counting> {
        let report = env::temp_dir().join(format!("knockplane-instructions-{}-{runs}", process::id()));
        let child = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", report.display()))
            .arg(env::current_exe()?)
            .args(["run", name, &runs.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("valgrind does not start; install Debian's package valgrind")?;
        Ok(Counting { child, report })
    }

    /// How many instructions the whole process took.
    fn end(mut self) -> anyhow::Result<u64> {
        let status = self.child.wait()?;
        let report = fs::read_to_string(&self.report).unwrap_or_default();
        _ = fs::remove_file(&self.report);
        ensure!(status.success(), "valgrind: {status}");
        let totals = report.lines().find_map(|line| line.strip_prefix("totals: "));
        totals.and_then(|count| count.trim().parse().ok()).context("callgrind's report has no totals")
    }
}

fn run(name: &str, runs: u32) -> anyhow::Result<ExitCode> {
    let [_, size, _] = Size::all();
    let workloads = workload::all(slice::from_ref(&size));
    let Some(workload) = workloads.iter().find(|workload| workload.name == name) else {
        bail!("there is no workload {name}; these are: {}", names(&workloads));
    };
    let mut work = workload.prepare();
    // What happens only the first time is not counted.
    work.run();
    work.reset();
    for _ in 0..runs {
        work.run();
    }
    Ok(ExitCode::SUCCESS)
}

fn names(workloads: &[Workload<'_>]) -> String {
    workloads.iter().map(|workload| &*workload.name).collect::<Vec<_>>().join(", ")
}

fn read(path: &Path) -> anyhow::Result<Baseline> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn warn(baseline: &Built, now: &Built) {
    eprintln!("instructions: the baseline was taken with something else, so figures may differ for that alone");
    for (what, before, now) in [
        ("rustc", &baseline.rustc, &now.rustc),
        ("target", &baseline.target, &now.target),
        ("profile", &baseline.profile.to_string(), &now.profile.to_string()),
    ] {
        if before != now {
            eprintln!("    {what}: {} then, {} now", before.trim(), now.trim());
        }
    }
}

impl Built {
    fn this() -> anyhow::Result<Built> {
        #[derive(Deserialize)]
        struct Workspace {
            profile: BTreeMap<String, toml::Table>,
        }
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version = Command::new(rustc).arg("--version").output().context("rustc --version")?;
        let mut workspace: Workspace = toml::from_str(include_str!("../../../Cargo.toml"))?;
        let features = [
            ("avx2", cfg!(target_feature = "avx2")),
            ("avx512f", cfg!(target_feature = "avx512f")),
            ("bmi2", cfg!(target_feature = "bmi2")),
            ("popcnt", cfg!(target_feature = "popcnt")),
            ("sse4.2", cfg!(target_feature = "sse4.2")),
        ];
        let features = features.iter().filter(|(_, used)| *used).map(|(name, _)| *name);
        Ok(Built {
            rustc: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
            target: [env::consts::ARCH].into_iter().chain(features).collect::<Vec<_>>().join(" "),
            profile: workspace.profile.remove("release").unwrap_or_default(),
        })
    }
}
