//! Measures the outage when the dataplane is killed and started again at once: from the kill to the first frame that arrives
//! behind the filter, from a source that a static entry accepts, or an entry with a timeout.
//!
//! A client sends a frame every 250 µs ([`steady`](super::steady)). The next dataplane is started directly after the kill, while the kernel still
//! releases the resources of the last one. Entries are imported before, with the command of operators.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{CLIENT, Filter, FilterOptions, Process, Topology, binary};
use rustix::process::{Pid, Signal, kill_process};

use super::results::quantile;
use super::steady::SteadyTraffic;
use crate::report::{NONE, ResultTable};

/// Rules that accept the addresses in `friends`.
const RULES: &str = "/ip firewall filter
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

/// Capacity of the lists. A tenth of it is left to packets.
const CAPACITY: usize = 1_200_000;

/// Time from a restart to the next kill.
const PAUSE: Duration = Duration::from_millis(500);

/// The kind of the entries, which are restored from different files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Entries of operators without a timeout: `lists.state`.
    Static,
    /// Entries of operators with a timeout of an hour, which are restored as grants are: `grants.state`.
    WithTimeout,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryKind::Static => "static",
            EntryKind::WithTimeout => "with a timeout",
        })
    }
}

/// Results of the restarts with one number of entries.
#[derive(Debug)]
pub struct Restarts {
    /// Entries of operators.
    pub entries: usize,
    /// Their kind.
    pub kind: EntryKind,
    /// Times from each kill to the next frame that arrived, in milliseconds, ascending.
    pub outages: Vec<f64>,
}

/// A row for each number of entries.
pub fn table(restarts: &[Restarts]) -> ResultTable {
    let columns = ["entries", "kind", "rounds", "median, ms", "least", "p90", "most"];
    let rows = restarts.iter().map(|Restarts { entries, kind, outages }| {
        let outage = |part| format!("{:.1}", quantile(outages, part));
        let kind = if *entries == 0 { NONE.to_owned() } else { kind.to_string() };
        let rounds = outages.len().to_string();
        vec![entries.to_string(), kind, rounds, outage(0.5), outage(0.0), outage(0.9), outage(1.0)]
    });
    ResultTable::new("restart", "Outage of a restart", &columns).with_rows(rows)
}

/// Kills and restarts the dataplane `rounds` times with this number of entries, one of which is the client. With 0 entries, a
/// rule accepts the client.
///
/// # Errors
/// Without root, or if a restart fails.
pub fn measure(entries: usize, kind: EntryKind, rounds: u32) -> Result<Restarts> {
    let topology = Topology::new(1)?;
    let by_rule = format!("/ip firewall filter\nadd action=accept chain=input src-address={CLIENT}\n");
    let rules = if entries == 0 { &by_rule } else { RULES };
    let options = FilterOptions { list_capacity: CAPACITY, ..FilterOptions::from_rules(rules) };
    let mut filter = Filter::start(&topology, &options)?;
    if entries > 0 {
        import(&filter, entries, kind)?;
    }
    let traffic = SteadyTraffic::start(&topology)?;
    let mut outages = Vec::new();
    for round in 0..rounds {
        thread::sleep(PAUSE);
        let killed = kill_and_start(&topology, &mut filter)?;
        let outage = traffic.outage(killed).with_context(|| format!("restart {round}: {}", filter.log()))?;
        outages.push(outage.as_secs_f64() * 1e3);
        filter.wait_until_ready()?;
    }
    outages.sort_by(f64::total_cmp);
    Ok(Restarts { entries, kind, outages })
}

/// Kills the dataplane and starts it again at once. Returns the time of the kill.
pub(super) fn kill_and_start(topology: &Topology, filter: &mut Filter<'_>) -> Result<Instant> {
    let killed = Instant::now();
    let pid = Pid::from_raw(filter.dataplane.id() as i32).context("a process has an id")?;
    kill_process(pid, Signal::KILL)?;
    let next = start(topology, filter)?;
    // The replacement drops the killed process, and waits for it only after the start of the next one.
    filter.dataplane = next;
    Ok(killed)
}

/// Starts a dataplane without a wrapper, because the measurement would include the start of the wrapper.
fn start(topology: &Topology, filter: &Filter<'_>) -> Result<Process> {
    let mut command = Command::new(binary("knockplane-dataplane")?);
    command.arg("--config").arg(filter.path("knockplane.toml"));
    let log = filter.path("knockplane-dataplane.log");
    topology.filter.within(|| Process::start("knockplane-dataplane", &mut command, &log))
}

fn import(filter: &Filter<'_>, entries: usize, kind: EntryKind) -> Result<()> {
    let file = filter.path("friends.txt");
    let timeout = if kind == EntryKind::WithTimeout { " 1h" } else { "" };
    let mut lines = format!("friends {CLIENT}{timeout}\n");
    for number in 1..entries as u32 {
        // Every second address, so that neighbouring entries do not merge.
        let address = std::net::Ipv4Addr::from_bits(0x6440_0000 + 2 * number);
        lines.push_str(&format!("friends {address}{timeout}\n"));
    }
    fs::write(&file, lines)?;
    let imported = filter.knockctl(&["list", "import", &file.display().to_string()])?;
    ensure!(imported.ok(), "{imported:?}");
    Ok(())
}
