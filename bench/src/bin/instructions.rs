//! Counts the instructions of the engine, which do not depend on the load or speed of the machine: `make bench-check`
//! compares them with `bench/baseline/instructions.toml` and fails if a workload takes more.
//!
//! Each workload runs twice under Valgrind's callgrind, in two processes: once with half as many runs. The difference is the
//! count of these runs, because start, preparation and end cancel out.
//!
//! Counts depend on compiler, profile and CPU features. The baseline names its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, process, slice};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use knockplane_bench::report::{self, ResultTable};
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
    /// Count, and compare with the baseline.
    Check {
        /// Write the baseline instead of comparing.
        #[arg(long, conflicts_with = "only")]
        update: bool,
        /// Leave out workloads without this in their name.
        #[arg(default_value = "")]
        only: String,
    },
    /// Do the work of one workload; runs under callgrind.
    Run {
        /// The workload's name.
        workload: String,
        /// Number of runs.
        runs: u32,
    },
}

/// Bounds of a change. Another decision of the compiler about one function stays within them; an additional hash or copy does
/// not. Below the lower bound, a new baseline is due.
const MOST: f64 = 1.10;
const LEAST: f64 = 0.90;

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

/// Counts, and the build that they belong to.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    built: Build,
    instructions: BTreeMap<String, f64>,
}

/// The properties of a build on which counts depend.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    /// The compiler.
    rustc: String,
    /// Architecture, and the CPU features that the compiler may use.
    target: String,
    /// `profile.release` of the workspace.
    profile: toml::Table,
}

fn check(update: bool, only: &str) -> anyhow::Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "this build is not optimized; use `make bench-check`");
    let built = Build::this()?;
    let baseline = if update { None } else { Some(read(Path::new(BASELINE))?) };
    if let Some(baseline) = baseline.as_ref().filter(|baseline| baseline.built != built) {
        warn(&baseline.built, &built);
    }

    let [_, size, _, _] = Size::all();
    let workloads = workload::all(slice::from_ref(&size));
    let mut counted = BTreeMap::new();
    let mut failed = Vec::new();
    let columns = ["workload", "instructions", "change since the baseline"];
    let mut table = ResultTable::new("instructions", "Instructions of one operation", &columns);
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
        let missing = baseline.instructions.keys().filter(|name| name.contains(only) && !counted.contains_key(*name));
        failed
            .extend(missing.map(|name| format!("{name}: only in the baseline; `make bench-check UPDATE=1` renews it")));
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

/// Not counted: etherparse, which is not part of the engine; a workload with a single run, which cannot be halved; and a
/// million connections, which take minutes to begin under Valgrind.
fn is_counted(workload: &Workload<'_>) -> bool {
    !["/etherparse", "/1M"].iter().any(|name| workload.name.ends_with(name)) && workload.runs > 1
}

/// Compares a count with the baseline's. An error fails the check.
fn compare(now: f64, before: Option<f64>) -> Result<String, String> {
    let Some(before) = before else {
        return Err("not in the baseline; `make bench-check UPDATE=1` adds it".to_owned());
    };
    let change = format!("{:+.1} %", (now / before - 1.0) * 100.0);
    if now > before * MOST {
        Err(format!("{change}: {before:.1} instructions became {now:.1}"))
    } else if now < before * LEAST {
        Ok(format!("{change}: better; `make bench-check UPDATE=1` keeps it so"))
    } else {
        Ok(change)
    }
}

/// Instructions of one operation.
fn count(workload: &Workload<'_>) -> anyhow::Result<f64> {
    let (fewer, more) = (workload.runs / 2, workload.runs);
    let (less, all) = (CallgrindRun::start(&workload.name, fewer)?, CallgrindRun::start(&workload.name, more)?);
    let difference = all.end()?.checked_sub(less.end()?).context("more runs took fewer instructions")?;
    let per_operation = difference as f64 / (f64::from(more - fewer) * f64::from(workload.operations));
    Ok((per_operation * 10.0).round() / 10.0)
}

/// A process under callgrind.
struct CallgrindRun {
    child: process::Child,
    report: PathBuf,
}

impl CallgrindRun {
    fn start(name: &str, runs: u32) -> anyhow::Result<CallgrindRun> {
        let report = env::temp_dir().join(format!("knockplane-instructions-{}-{runs}", process::id()));
        let child = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", report.display()))
            .arg(env::current_exe()?)
            .args(["run", name, &runs.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("valgrind does not start; install Debian's package valgrind")?;
        Ok(CallgrindRun { child, report })
    }

    /// Instructions of the whole process.
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
    let [_, size, _, _] = Size::all();
    let workloads = workload::all(slice::from_ref(&size));
    let Some(workload) = workloads.iter().find(|workload| workload.name == name) else {
        bail!("there is no workload {name}; these are: {}", names(&workloads));
    };
    let mut work = workload.prepare();
    // The first run includes one-time work, which is not counted.
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

fn warn(baseline: &Build, now: &Build) {
    eprintln!("instructions: the baseline belongs to another build, so figures may differ for that reason alone");
    for (property, before, now) in [
        ("rustc", &baseline.rustc, &now.rustc),
        ("target", &baseline.target, &now.target),
        ("profile", &baseline.profile.to_string(), &now.profile.to_string()),
    ] {
        if before != now {
            eprintln!("    {property}: {} then, {} now", before.trim(), now.trim());
        }
    }
}

impl Build {
    fn this() -> anyhow::Result<Build> {
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
        Ok(Build {
            rustc: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
            target: [env::consts::ARCH].into_iter().chain(features).collect::<Vec<_>>().join(" "),
            profile: workspace.profile.remove("release").unwrap_or_default(),
        })
    }
}
