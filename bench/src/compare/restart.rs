//! How long nothing passes when the dataplane is killed and started again at once: from the kill to the first frame that
//! arrives behind the filter, of a source that a static entry accepts.
//!
//! A client sends a frame every 250 µs all the time. The next dataplane is started right behind the kill, while the kernel
//! still takes away what the last one held. Entries are imported before, as operators do.

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

/// Lets those in `friends` pass.
const RULES: &str = "/ip firewall filter
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

/// Room of the lists: the default of the configuration.
const CAPACITY: usize = 1_000_000;

/// From one frame to the next.
const INTERVAL: Duration = Duration::from_micros(250);

const PORT: u16 = 9_000;

/// From a restart to the next kill.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a restart may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of the restarts with so many entries.
#[derive(Debug)]
pub struct Restarts {
    /// Static entries of operators.
    pub entries: usize,
    /// From each kill to the first frame behind it, in milliseconds, ascending.
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

/// Kills and restarts the dataplane so many times with so many static entries, the client's among them, if there are
/// any; else a rule lets the client pass.
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
    let traffic = Traffic::start(&topology)?;
    let mut outages = Vec::new();
    for round in 0..rounds {
        thread::sleep(PAUSE);
        let killed = Instant::now();
        let pid = Pid::from_raw(filter.dataplane.id() as i32).context("a process has an id")?;
        kill_process(pid, Signal::KILL)?;
        let next = start(&topology, &filter)?;
        // The last one is waited for behind the start of the next.
        filter.dataplane = next;
        let outage = traffic.outage(killed).with_context(|| format!("restart {round}: {}", filter.log()))?;
        outages.push(outage.as_secs_f64() * 1e3);
        filter.wait_until_ready()?;
    }
    outages.sort_by(f64::total_cmp);
    Ok(Restarts { entries, outages })
}

/// Starts a dataplane without a program around it, whose start would count.
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
        // Every other address: neighbours do not merge.
        let address = std::net::Ipv4Addr::from_bits(0x6440_0000 + 2 * number);
        lines.push_str(&format!("friends {address}\n"));
    }
    fs::write(&file, lines)?;
    let imported = filter.knockctl(&["list", "import", &file.display().to_string()])?;
    ensure!(imported.ok(), "{imported:?}");
    Ok(())
}

/// Frames from the client to the server, until dropped.
struct Traffic {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Traffic {
    fn start(topology: &Topology) -> Result<Traffic> {
        let text = topology.server.ip("-j link show dev eth0")?;
        let link: serde_json::Value = serde_json::from_str(&text)?;
        let mac = link[0]["address"].as_str().context("the server's interface has an address")?;
        // Otherwise the first frame behind an outage could be a question that nobody answered in time.
        topology.client.ip(&format!("neigh replace {SERVER} lladdr {mac} nud permanent dev eth0"))?;
        let receiver = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let sender = topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?))?;
        sender.connect((SERVER, PORT))?;
        let traffic = Traffic { arrivals: Arc::default(), stop: Arc::default() };
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
                // A frame that is refused was not sent; the next one will be.
                let _ = sender.send(b"restart");
                thread::sleep(INTERVAL);
            }
        });
        Ok(traffic)
    }

    /// From the kill to the first frame behind it. Frames that the last dataplane still forwarded do not count: it is the
    /// longest pause that ends.
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
            // Another look, so that a pause of the machine right behind the kill is not taken for the outage.
            if longest == Some(end) && Instant::now() > end + Duration::from_millis(100) {
                return Ok(end - killed);
            }
            longest = Some(end);
        }
        anyhow::bail!("no frame arrived within {PATIENCE:?}")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
