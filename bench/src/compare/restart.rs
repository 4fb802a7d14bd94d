//! Measures the outage when the dataplane is killed and started again at once: from the kill to the first frame that arrives
//! behind the filter, from a source that a static entry accepts.
//!
//! A client sends a frame every 250 µs. The next dataplane is started directly after the kill, while the kernel still
//! releases the resources of the last one. Entries are imported before, with the command of operators.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{CLIENT, Filter, FilterOptions, Process, SERVER, Topology, binary};
use rustix::process::{Pid, Signal, kill_process};

use super::results::quantile;
use crate::report::Table;

/// Rules that accept the addresses in `friends`.
const RULES: &str = "/ip firewall filter
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

/// Capacity of the lists: the default of the configuration.
const CAPACITY: usize = 1_000_000;

/// Time between two frames.
const INTERVAL: Duration = Duration::from_micros(250);

const PORT: u16 = 9_000;

/// Time from a restart to the next kill.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest time of a successful restart.
const PATIENCE: Duration = Duration::from_secs(20);

/// Results of the restarts with one number of entries.
#[derive(Debug)]
pub struct Restarts {
    /// Static entries of operators.
    pub entries: usize,
    /// Times from each kill to the next frame that arrived, in milliseconds, ascending.
    pub outages: Vec<f64>,
}

/// A row for each number of entries.
pub fn table(restarts: &[Restarts]) -> Table {
    let columns = ["static entries", "rounds", "median, ms", "least", "p90", "most"];
    let rows = restarts.iter().map(|Restarts { entries, outages }| {
        let outage = |part| format!("{:.1}", quantile(outages, part));
        vec![entries.to_string(), outages.len().to_string(), outage(0.5), outage(0.0), outage(0.9), outage(1.0)]
    });
    Table::new("restart", "Outage of a restart", &columns).with_rows(rows)
}

/// Kills and restarts the dataplane `rounds` times with `entries` static entries, one of which is the client. With 0 entries,
/// a rule accepts the client.
///
/// # Errors
/// Without root, or if a restart fails.
pub fn measure(entries: usize, rounds: u32) -> Result<Restarts> {
    let topology = Topology::new(1)?;
    let by_rule = format!("/ip firewall filter\nadd action=accept chain=input src-address={CLIENT}\n");
    let rules = if entries == 0 { &by_rule } else { RULES };
    let options = FilterOptions { list_capacity: CAPACITY, ..FilterOptions::from_rules(rules) };
    let mut filter = Filter::start(&topology, &options)?;
    if entries > 0 {
        import(&filter, entries)?;
    }
    let traffic = ProbeTraffic::start(&topology)?;
    let mut outages = Vec::new();
    for round in 0..rounds {
        thread::sleep(PAUSE);
        let killed = Instant::now();
        let pid = Pid::from_raw(filter.dataplane.id() as i32).context("a process has an id")?;
        kill_process(pid, Signal::KILL)?;
        let next = start(&topology, &filter)?;
        // The replacement drops the killed process, and waits for it only after the start of the next one.
        filter.dataplane = next;
        let outage = traffic.outage(killed).with_context(|| format!("restart {round}: {}", filter.log()))?;
        outages.push(outage.as_secs_f64() * 1e3);
        filter.wait_until_ready()?;
    }
    outages.sort_by(f64::total_cmp);
    Ok(Restarts { entries, outages })
}

/// Starts a dataplane without a wrapper, because the measurement would include the start of the wrapper.
fn start(topology: &Topology, filter: &Filter<'_>) -> Result<Process> {
    let mut command = Command::new(binary("knockplane-dataplane")?);
    command.arg("--config").arg(filter.path("knockplane.toml"));
    let log = filter.path("knockplane-dataplane.log");
    topology.filter.within(|| Process::start("knockplane-dataplane", &mut command, &log))
}

fn import(filter: &Filter<'_>, entries: usize) -> Result<()> {
    let file = filter.path("friends.txt");
    let mut lines = format!("friends {CLIENT}\n");
    for number in 1..entries as u32 {
        // Every second address, so that neighbouring entries do not merge.
        let address = std::net::Ipv4Addr::from_bits(0x6440_0000 + 2 * number);
        lines.push_str(&format!("friends {address}\n"));
    }
    fs::write(&file, lines)?;
    let imported = filter.knockctl(&["list", "import", &file.display().to_string()])?;
    ensure!(imported.ok(), "{imported:?}");
    Ok(())
}

/// Frames from the client to the server, until dropped.
struct ProbeTraffic {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
}

impl ProbeTraffic {
    fn start(topology: &Topology) -> Result<ProbeTraffic> {
        let text = topology.server.ip("-j link show dev eth0")?;
        let link: serde_json::Value = serde_json::from_str(&text)?;
        let mac = link[0]["address"].as_str().context("the server's interface has an address")?;
        // Without it, the first frame after an outage could be an unanswered ARP request.
        topology.client.ip(&format!("neigh replace {SERVER} lladdr {mac} nud permanent dev eth0"))?;
        let receiver = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let sender = topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?))?;
        sender.connect((SERVER, PORT))?;
        let traffic = ProbeTraffic { arrivals: Arc::default(), stop: Arc::default() };
        let (arrivals, stop) = (Arc::clone(&traffic.arrivals), Arc::clone(&traffic.stop));
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop.load(Relaxed) {
                if receiver.recv(&mut buffer).is_ok() {
                    arrivals.lock().unwrap_or_else(|error| error.into_inner()).push(Instant::now());
                }
            }
        });
        let stop = Arc::clone(&traffic.stop);
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                // A frame that the kernel refuses is lost, and the next one follows.
                let _ = sender.send(b"restart");
                thread::sleep(INTERVAL);
            }
        });
        Ok(traffic)
    }

    /// Time from the kill to the first frame of the next dataplane. The last dataplane may still forward frames after the
    /// kill, so the outage ends at the end of the longest pause.
    fn outage(&self, killed: Instant) -> Result<Duration> {
        let patience = killed + PATIENCE;
        let mut longest = None;
        while Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
            let mut arrivals = self.arrivals.lock().unwrap_or_else(|error| error.into_inner());
            arrivals.retain(|arrival| *arrival >= killed);
            let before = std::iter::once(&killed).chain(arrivals.iter());
            let pauses = before.zip(arrivals.iter()).map(|(before, after)| (*after - *before, *after));
            let Some((_, end)) = pauses.max().filter(|(pause, _)| *pause > 4 * INTERVAL) else { continue };
            // Checked twice, so that a pause of the machine directly after the kill does not count as the outage.
            if longest == Some(end) && Instant::now() > end + Duration::from_millis(100) {
                return Ok(end - killed);
            }
            longest = Some(end);
        }
        anyhow::bail!("no frame arrived within {PATIENCE:?}")
    }
}

impl Drop for ProbeTraffic {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
