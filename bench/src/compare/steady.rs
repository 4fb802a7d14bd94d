//! A client that sends a frame every 250 µs to the server, while something happens to the filter: how long frames do not arrive,
//! and how many are lost.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use knockplane_tests::{CLIENT, SERVER, Topology};

/// Time between two frames.
const INTERVAL: Duration = Duration::from_micros(250);

const PORT: u16 = 9_000;

/// The longest outage.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time of frames after an outage.
const AGAIN: Duration = Duration::from_millis(200);

/// Time of frames on their way.
const ON_THEIR_WAY: Duration = Duration::from_millis(200);

/// Frames from the client to the server, until dropped.
pub(super) struct SteadyTraffic {
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    is_paused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl SteadyTraffic {
    pub(super) fn start(topology: &Topology) -> Result<SteadyTraffic> {
        let text = topology.server.ip("-j link show dev eth0")?;
        let link: serde_json::Value = serde_json::from_str(&text)?;
        let mac = link[0]["address"].as_str().context("the server's interface has an address")?;
        // Without it, the first frame after an outage could be an unanswered ARP request.
        topology.client.ip(&format!("neigh replace {SERVER} lladdr {mac} nud permanent dev eth0"))?;
        let receiver = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let sender = topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?))?;
        sender.connect((SERVER, PORT))?;
        let traffic = SteadyTraffic {
            sent: Arc::default(),
            arrivals: Arc::default(),
            is_paused: Arc::default(),
            stop: Arc::default(),
        };
        let (arrivals, stop) = (Arc::clone(&traffic.arrivals), Arc::clone(&traffic.stop));
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop.load(Relaxed) {
                if receiver.recv(&mut buffer).is_ok() {
                    arrivals.lock().unwrap_or_else(|error| error.into_inner()).push(Instant::now());
                }
            }
        });
        let (sent, is_paused, stop) =
            (Arc::clone(&traffic.sent), Arc::clone(&traffic.is_paused), Arc::clone(&traffic.stop));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                // A frame that the kernel refuses is lost, and the next one follows.
                if !is_paused.load(Relaxed) && sender.send(b"steady").is_ok() {
                    sent.fetch_add(1, Relaxed);
                }
                thread::sleep(INTERVAL);
            }
        });
        Ok(traffic)
    }

    /// Time from the kill to the first frame of the next dataplane. The last dataplane may still forward frames after the
    /// kill, so the outage ends at the end of the longest pause, after which frames arrive again for a while.
    pub(super) fn outage(&self, killed: Instant) -> Result<Duration> {
        let patience = killed + PATIENCE;
        while Instant::now() < patience {
            thread::sleep(Duration::from_millis(20));
            let mut arrivals = self.arrivals.lock().unwrap_or_else(|error| error.into_inner());
            arrivals.retain(|arrival| *arrival >= killed);
            let before = std::iter::once(&killed).chain(arrivals.iter());
            let pauses = before.zip(arrivals.iter()).map(|(before, after)| (*after - *before, *after));
            let Some((_, end)) = pauses.max().filter(|(pause, _)| *pause > 4 * INTERVAL) else { continue };
            if arrivals.last().is_some_and(|last| *last > end + AGAIN) {
                return Ok(end - killed);
            }
        }
        bail!("no frame arrived within {PATIENCE:?}")
    }

    /// Frames that were sent and that arrived during `action`, which include all frames that were on their way.
    pub(super) fn during<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<(T, [u64; 2])> {
        let before = self.at_rest();
        let done = action()?;
        let after = self.at_rest();
        Ok((done, [0, 1].map(|of| after[of] - before[of])))
    }

    /// The numbers of frames that were sent and that arrived, while none is on its way.
    fn at_rest(&self) -> [u64; 2] {
        self.is_paused.store(true, Relaxed);
        thread::sleep(ON_THEIR_WAY);
        let arrived = self.arrivals.lock().unwrap_or_else(|error| error.into_inner()).len() as u64;
        let counts = [self.sent.load(Relaxed), arrived];
        self.is_paused.store(false, Relaxed);
        counts
    }
}

impl Drop for SteadyTraffic {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
