//! TCP streams between client and server, by iperf3.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_tests::{Folder, Process, SERVER, Topology};
use serde_json::Value;

/// Longest time until iperf3's server listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// The direction of the streams' data. The client opens the connections in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the client to the server.
    Upload,
    /// From the server to the client.
    Download,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transfer {
    /// Received bits a second, of all streams.
    pub(super) bits_per_second: f64,
    /// Retransmitted segments, of all streams.
    pub(super) retransmissions: f64,
}

/// iperf3's server in a topology. It ends when dropped.
pub(super) struct IperfServer<'lab> {
    topology: &'lab Topology,
    /// Declared before the folder, so that it ends before the folder is removed.
    _process: Process,
    _folder: Folder,
}

impl<'lab> IperfServer<'lab> {
    /// Starts the server and waits until it listens.
    pub(super) fn start(topology: &'lab Topology) -> Result<Self> {
        let folder = Folder::make(topology.server.name())?;
        let log = folder.0.join("iperf3.log");
        let mut command = topology.server.command("iperf3");
        command.args(["--server", "--forceflush", "--bind", SERVER]);
        let mut process = Process::start("iperf3", &mut command, &log)?;
        let patience = Instant::now() + PATIENCE;
        while !fs::read_to_string(&log)?.contains("Server listening") {
            let is_late = Instant::now() > patience || !process.runs()?;
            ensure!(!is_late, "iperf3 does not listen: {}", fs::read_to_string(&log)?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(IperfServer { topology, _process: process, _folder: folder })
    }

    /// Sends as much as possible for this time, on this number of parallel streams.
    pub(super) fn transfer(&self, direction: Direction, streams: u32, seconds: u64) -> Result<Transfer> {
        let reverse = if direction == Direction::Download { " --reverse" } else { "" };
        let line = format!("iperf3 --json --client {SERVER} --time {seconds} --parallel {streams}{reverse}");
        let output = self.topology.client.run(&line)?;
        transfer(&output.stdout).with_context(|| format!("{line}: {}{}", output.stdout, output.stderr))
    }
}

/// Reads a report of iperf3's client.
fn transfer(report: &str) -> Option<Transfer> {
    let report: Value = serde_json::from_str(report).ok()?;
    Some(Transfer {
        // Sent bytes would include those in buffers at the end.
        bits_per_second: report["end"]["sum_received"]["bits_per_second"].as_f64()?,
        retransmissions: report["end"]["sum_sent"]["retransmits"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let report = r#"{"end": {
            "sum_sent": {"bits_per_second": 2e9, "retransmits": 7},
            "sum_received": {"bits_per_second": 1.5e9}
        }}"#;
        assert_eq!(transfer(report), Some(Transfer { bits_per_second: 1.5e9, retransmissions: 7.0 }));
        assert_eq!(transfer(r#"{"end": {}, "error": "unable to connect to server"}"#), None);
    }
}
