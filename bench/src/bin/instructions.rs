//! Counts the instructions of the engine, and its accesses to memory beyond a simulated cache. Neither depends on the
//! load or speed of the machine: `make bench-check` compares them with `bench/baseline/instructions.toml` and fails if
//! a workload takes more.
//!
//! Each workload runs twice under Valgrind's callgrind, in two processes: once with half as many runs. The difference
//! is the count of these runs, because preparation and end cancel out. Counting begins after the preparation, which
//! takes a fraction of the time without it:
//!
//! ```text
//! check                          run, under callgrind
//!                                prepares the workload
//!         ◄── "prepared" ──
//! vgdb: instrumentation on
//!         ── end of input ──►    does the runs
//! ```
//!
//! Counts depend on compiler, profile and CPU features. The baseline names its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, process};

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
        /// Before the runs, write a line and wait for the end of the input.
        #[arg(long)]
        wait: bool,
    },
}

/// Bounds of a change. Another decision of the compiler about one function stays within them; an additional hash or
/// copy does not. Below the lower bound, a new baseline is due.
const MOST: f64 = 1.10;
const LEAST: f64 = 0.90;

/// A change of the misses of an operation within this many lines is none, whatever its part. Runs with other addresses
/// of the stack differ by 0.03.
const LINES: f64 = 0.1;

/// The simulated caches, the same on every machine: size, associativity and line size of L1 for instructions and for
/// data, and of the last level. They are those of a small core whose last level it has to itself. A million entries or
/// connections are far more than the last level. The table of rules, counters and the frames of a batch fit.
const CACHES: [&str; 4] = ["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64"];

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/instructions.toml");

const BASELINE_HEADING: &str = "\
# Instructions of one operation (packet, lookup, addition, slot of a sweep) of each workload, and of large ones the misses of
# the simulated last-level cache, see docs/benchmarks-memory.md. Written by `make bench-check UPDATE=1`.

";

/// The line of a process whose workload is prepared.
const PREPARED: &str = "prepared\n";

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Check { update, only } => check(update, &only),
        Task::Run { workload, runs, wait } => run(&workload, runs, wait),
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
    misses: BTreeMap<String, f64>,
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

/// Counts of one operation.
struct Counts {
    instructions: f64,
    /// Lines read or written beyond the simulated caches; only of workloads that are larger than these.
    misses: Option<f64>,
}

/// A table of the report and of the baseline.
struct Metric {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    decimals: usize,
    /// A difference that is none.
    scatter: f64,
}

const INSTRUCTIONS: Metric = Metric {
    name: "instructions",
    title: "Instructions of one operation",
    unit: "instructions",
    decimals: 1,
    scatter: 0.0,
};

const MISSES: Metric = Metric {
    name: "misses",
    title: "Cache lines of one operation beyond a last-level cache of 1 MiB",
    unit: "lines",
    decimals: 2,
    scatter: LINES,
};

fn check(update: bool, only: &str) -> anyhow::Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "this build is not optimized; use `make bench-check`");
    let mut counted = Baseline { built: Build::this()?, instructions: BTreeMap::new(), misses: BTreeMap::new() };
    let baseline = if update { None } else { Some(read(Path::new(BASELINE))?) };
    if let Some(baseline) = baseline.as_ref().filter(|baseline| baseline.built != counted.built) {
        warn(&baseline.built, &counted.built);
    }

    let sizes = counted_sizes();
    let workloads = workload::all(&sizes);
    for workload in workloads.iter().filter(|workload| is_counted(workload) && workload.name.contains(only)) {
        eprintln!("{}", workload.name);
        let counts = count(workload).with_context(|| workload.name.clone())?;
        counted.instructions.insert(workload.name.clone(), counts.instructions);
        counted.misses.extend(counts.misses.map(|misses| (workload.name.clone(), misses)));
    }

    let mut failed = Vec::new();
    let tables = [
        INSTRUCTIONS.table(&counted.instructions, baseline.as_ref().map(|it| &it.instructions), only, &mut failed),
        MISSES.table(&counted.misses, baseline.as_ref().map(|it| &it.misses), only, &mut failed),
    ];
    report::publish(&tables, Path::new(report::FOLDER))?;
    if update {
        let text = toml::to_string(&counted).context("the baseline as TOML")?;
        fs::write(BASELINE, BASELINE_HEADING.to_owned() + &text).context(BASELINE)?;
        println!("written: {BASELINE}");
    }
    for problem in &failed {
        eprintln!("instructions: {problem}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The lists of the counted workloads: of a usual size, and of one beyond the simulated caches.
fn counted_sizes() -> [Size; 2] {
    let [_, usual, beyond_caches, _] = Size::all();
    [usual, beyond_caches]
}

/// Not counted: etherparse, which is not part of the engine; a workload with a single run, which cannot be halved; and
/// the entries of a rule file, which take a minute to compile under Valgrind.
fn is_counted(workload: &Workload<'_>) -> bool {
    !workload.name.ends_with("/etherparse") && !workload.name.starts_with("entries/") && workload.runs > 1
}

/// Whether the workload's memory is larger than the simulated caches, so that its misses depend on its accesses alone.
fn is_beyond_caches(workload: &Workload<'_>) -> bool {
    workload.name.ends_with("/1M")
}

impl Metric {
    /// The counts, each with its change since the baseline if there is one. Appends the changes that fail the check.
    fn table(
        &self,
        counted: &BTreeMap<String, f64>,
        baseline: Option<&BTreeMap<String, f64>>,
        only: &str,
        failed: &mut Vec<String>,
    ) -> ResultTable {
        let mut table = ResultTable::new(self.name, self.title, &["workload", self.unit, "change since the baseline"]);
        for (workload, count) in counted {
            let verdict =
                baseline.map_or(Ok(String::new()), |baseline| self.compare(*count, baseline.get(workload).copied()));
            let cell = verdict.as_ref().unwrap_or_else(|problem| problem).clone();
            table.rows.push(vec![workload.clone(), self.shown(*count), cell]);
            failed.extend(verdict.err().map(|problem| format!("{workload}: {problem}")));
        }
        let missing = baseline.into_iter().flat_map(BTreeMap::keys);
        let missing = missing.filter(|name| name.contains(only) && !counted.contains_key(*name));
        failed.extend(missing.map(|name| {
            format!("{name}: its {} are only in the baseline; `make bench-check UPDATE=1` renews it", self.unit)
        }));
        table
    }

    /// Compares a count with the baseline's. An error fails the check.
    fn compare(&self, now: f64, before: Option<f64>) -> Result<String, String> {
        let Some(before) = before else {
            return Err(format!("no {} in the baseline; `make bench-check UPDATE=1` adds them", self.unit));
        };
        let change = if before > 0.0 { format!("{:+.1} %", (now / before - 1.0) * 100.0) } else { String::new() };
        if now > before * MOST && now > before + self.scatter {
            Err(format!("{change}: {} {} became {}", self.shown(before), self.unit, self.shown(now)))
        } else if now < before * LEAST && now < before - self.scatter {
            Ok(format!("{change}: better; `make bench-check UPDATE=1` keeps it so"))
        } else {
            Ok(change)
        }
    }

    fn shown(&self, count: f64) -> String {
        format!("{count:.*}", self.decimals)
    }

    /// The mean of one of this many operations, rounded as it is shown.
    fn mean(&self, count: u64, operations: f64) -> f64 {
        let shown = 10_f64.powi(self.decimals as i32);
        (count as f64 / operations * shown).round() / shown
    }
}

/// Counts of one operation.
fn count(workload: &Workload<'_>) -> anyhow::Result<Counts> {
    let (fewer, more) = (workload.runs / 2, workload.runs);
    let start = |runs| CallgrindRun::start(workload, runs);
    let (mut less, mut all) = (start(fewer)?, start(more)?);
    less.begin()?;
    all.begin()?;
    let (less, all) = (less.end()?, all.end()?);
    let operations = f64::from(more - fewer) * f64::from(workload.operations);
    let both = |event: &str| {
        let counts = all.get(event).zip(less.get(event)).with_context(|| format!("callgrind did not count {event}"))?;
        anyhow::Ok((*counts.0, *counts.1))
    };
    let (all_instructions, fewer_instructions) = both("Ir")?;
    let instructions = all_instructions.checked_sub(fewer_instructions).context("more runs, but less instructions")?;
    let misses = || {
        let ((reads, fewer_reads), (writes, fewer_writes)) = (both("DLmr")?, both("DLmw")?);
        // A workload with hardly any misses may have less of them in more runs.
        anyhow::Ok((reads + writes).saturating_sub(fewer_reads + fewer_writes))
    };
    let misses = is_beyond_caches(workload).then(misses).transpose()?;
    Ok(Counts {
        instructions: INSTRUCTIONS.mean(instructions, operations),
        misses: misses.map(|misses| MISSES.mean(misses, operations)),
    })
}

/// A process under callgrind.
struct CallgrindRun {
    child: process::Child,
    report: PathBuf,
}

impl CallgrindRun {
    fn start(workload: &Workload<'_>, runs: u32) -> anyhow::Result<CallgrindRun> {
        let report = env::temp_dir().join(format!("knockplane-instructions-{}-{runs}", process::id()));
        let child = Command::new("valgrind")
            // Without messages, because callgrind would mention caches of this machine that it does not use.
            .args(["--quiet", "--log-file=/dev/null", "--tool=callgrind", "--instr-atstart=no"])
            .args(CACHES.iter().filter(|_| is_beyond_caches(workload)))
            .arg(format!("--callgrind-out-file={}", report.display()))
            .arg(env::current_exe()?)
            .args(["run", &workload.name, &runs.to_string(), "--wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("valgrind does not start; install Debian's package valgrind")?;
        Ok(CallgrindRun { child, report })
    }

    /// Waits until the workload is prepared, and begins to count.
    fn begin(&mut self) -> anyhow::Result<()> {
        let mut line = String::new();
        let stdout = self.child.stdout.take().context("a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == PREPARED, "the workload was not prepared");
        let counting = Command::new("vgdb")
            .arg(format!("--pid={}", self.child.id()))
            .args(["instrumentation", "on"])
            .output()
            .context("vgdb does not start; install Debian's package valgrind")?;
        ensure!(counting.status.success(), "vgdb: {}", String::from_utf8_lossy(&counting.stderr));
        // The end of its input starts the process.
        drop(self.child.stdin.take());
        Ok(())
    }

    /// Counts of all runs, by callgrind's names of events.
    fn end(mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let status = self.child.wait()?;
        let report = fs::read_to_string(&self.report).unwrap_or_default();
        _ = fs::remove_file(&self.report);
        ensure!(status.success(), "valgrind: {status}");
        totals(&report).context("callgrind's report has no totals")
    }
}

/// The totals in callgrind's report, by the names of events.
fn totals(report: &str) -> Option<BTreeMap<String, u64>> {
    let values = |name| Some(report.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace());
    let counts = values("totals: ")?.map(|count| count.parse().ok()).collect::<Option<Vec<u64>>>()?;
    Some(values("events: ")?.map(str::to_owned).zip(counts).collect())
}

fn run(name: &str, runs: u32, wait: bool) -> anyhow::Result<ExitCode> {
    let sizes = counted_sizes();
    let workloads = workload::all(&sizes);
    let Some(workload) = workloads.iter().find(|workload| workload.name == name) else {
        bail!("there is no workload {name}; these are: {}", names(&workloads));
    };
    let mut work = workload.prepare();
    // The first run includes one-time work, which is not counted.
    work.run();
    work.reset();
    if wait {
        print!("{PREPARED}");
        stdout().flush()?;
        stdin().read_to_end(&mut Vec::new())?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_have_the_names_of_events() {
        let report = "# callgrind format\nevents: Ir DLmr DLmw\nfn=(1)\n5 10 1 0\ntotals: 1000 20 3\n";
        let totals = totals(report).expect("totals");
        assert_eq!([totals["Ir"], totals["DLmr"], totals["DLmw"]], [1000, 20, 3]);
        assert!(super::totals("events: Ir\n").is_none());
    }

    #[test]
    fn more_lines_fail_the_check() {
        let compare = |now, before| MISSES.compare(now, Some(before));
        assert!(compare(5.0, 4.0).is_err(), "another line for each operation");
        assert_eq!(compare(4.3, 4.0), Ok("+7.5 %".to_owned()));
        assert_eq!(compare(0.26 + LINES / 2.0, 0.26).map(|_| ()), Ok(()), "a large part of few lines");
        assert!(compare(3.0, 4.0).is_ok_and(|text| text.contains("UPDATE=1")));
        assert!(MISSES.compare(1.0, None).is_err(), "not in the baseline");
    }

    #[test]
    fn instructions_have_no_scatter() {
        assert!(INSTRUCTIONS.compare(0.12, Some(0.1)).is_err());
    }
}
