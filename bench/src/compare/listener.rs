//! The listeners for knocks: knockd, nftables and knockplane, each with the same two knocks.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use knockplane_tests::{Folder, Namespace, Process};

use super::candidate::CandidateKind;
use super::knockplane::Knockplane;
use super::lab::{CANDIDATE_CORE, Lab, checked};
use super::nftables::{GATEWAY_MAC, Nftables};
use super::rules::LoadRules;

/// Destination of the real knocks and of the flood.
pub(super) const SERVER: &str = "198.19.0.1";

/// Time for the second knock with all three listeners, in seconds.
pub(super) const REMEMBERED: u64 = 10;

/// Maximum time between the last knock and the opening of the door.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A running listener. It ends when dropped.
pub(super) enum Listener<'lab> {
    Knockd(Knockd<'lab>),
    Nftables(Nftables<'lab>),
    Knockplane(Knockplane<'lab>),
}

impl<'lab> Listener<'lab> {
    /// Starts the listener of this name, with this many entries for each set of nftables and for all lists of knockplane.
    pub(super) fn start(name: &str, lab: &'lab Lab, set_size: usize, list_capacity: usize) -> Result<Self> {
        Ok(match name {
            "knockd" => Listener::Knockd(Knockd::start(lab)?),
            "nftables" => {
                let rules = LoadRules { capacity: set_size, ..LoadRules::default() };
                Listener::Nftables(Nftables::start(CandidateKind::Nftables, lab, &rules)?)
            }
            "knockplane" => {
                let rules = LoadRules { capacity: list_capacity / 2, ..LoadRules::default() };
                Listener::Knockplane(Knockplane::start(lab, &rules, true)?)
            }
            _ => bail!("there is no listener {name}"),
        })
    }

    /// The number of these addresses that were admitted.
    pub(super) fn heard(&self, addresses: &[String]) -> Result<u32> {
        let listed = match self {
            Listener::Knockd(knockd) => secured(knockd.filter)?,
            Listener::Nftables(nftables) => secured(&nftables.lab.topology.filter)?,
            Listener::Knockplane(knockplane) => knockplane.0.ask(&["show", "lists", "secured"])?.to_string(),
        };
        Ok(addresses.iter().filter(|address| listed.contains(&format!("\"{address}\""))).count() as u32)
    }

    /// Waits until all of these addresses are admitted. Returns whether they are.
    pub(super) fn heard_all(&self, addresses: &[String]) -> Result<bool> {
        let patience = Instant::now() + PATIENCE;
        loop {
            if self.heard(addresses)? as usize == addresses.len() {
                return Ok(true);
            }
            if Instant::now() > patience {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// CPU time of the listener's process; `None` if it has no process.
    pub(super) fn on_core(&self) -> Result<Option<Duration>> {
        match self {
            Listener::Knockd(knockd) => knockd.process.on_core().map(Some),
            Listener::Nftables(_) => Ok(None),
            Listener::Knockplane(knockplane) => knockplane.0.dataplane.on_core().map(Some),
        }
    }

    /// Resident memory of the listener's process in bytes; `None` if it has no process.
    pub(super) fn resident(&self) -> Result<Option<u64>> {
        let process = match self {
            Listener::Knockd(knockd) => &knockd.process,
            Listener::Nftables(_) => return Ok(None),
            Listener::Knockplane(knockplane) => &knockplane.0.dataplane,
        };
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.split_whitespace().next().unwrap_or_default().parse()?;
        Ok(Some(kib * 1024))
    }

    /// Log of the listener; empty if it has none.
    pub(super) fn log(&self) -> String {
        match self {
            Listener::Knockd(knockd) => {
                format!(": {}", fs::read_to_string(knockd.folder.0.join("knockd.log")).unwrap_or_default())
            }
            Listener::Nftables(_) => String::new(),
            Listener::Knockplane(knockplane) => format!(": {}", knockplane.0.log()),
        }
    }
}

/// The set of admitted sources, as JSON.
fn secured(filter: &Namespace) -> Result<String> {
    let output = filter.run("nft -j list set ip knock secured")?;
    ensure!(output.ok(), "nft: {}", output.stderr);
    Ok(output.stdout)
}

/// knockd in its usual place: on the protected host, whose packet filter it opens.
pub(super) struct Knockd<'lab> {
    filter: &'lab Namespace,
    /// Declared before `folder`, so that it ends before the folder is removed.
    process: Process,
    folder: Folder,
}

const KNOCKD_RULES: &str = "table ip knock {
    set secured { type ipv4_addr; flags timeout; }
    chain input { type filter hook input priority 0; policy drop; ip saddr @secured accept; }
}
";

impl<'lab> Knockd<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        let filter = &lab.topology.filter;
        // Live frames enter a veth interface by NAPI, which GRO turns on.
        checked(filter, "ethtool -K outside gro on")?;
        filter.ip(&format!("link set outside address {GATEWAY_MAC}"))?;
        filter.ip(&format!("addr add {SERVER}/32 dev outside"))?;
        let folder = Folder::make(filter.name())?;
        let file = |name: &str| folder.0.join(name);
        fs::write(file("rules.nft"), KNOCKD_RULES)?;
        checked(filter, &format!("nft -f {}", file("rules.nft").display()))?;
        let open = "nft add element ip knock secured { %IP% timeout 1m }";
        let configuration = format!(
            "[options]\nLogFile = {}\nInterface = outside\n[door]\nSequence = 1234,4321\nSeq_Timeout = {REMEMBERED}\n\
             TCPFlags = syn\nStart_Command = {open}\n",
            file("knockd.log").display()
        );
        fs::write(file("knockd.conf"), configuration)?;
        let mut command = filter.command("taskset");
        command.args(["--cpu-list", &CANDIDATE_CORE.to_string(), "knockd"]).arg("--config").arg(file("knockd.conf"));
        let process = Process::start("knockd", &mut command, &file("knockd.log"))?;
        let patience = Instant::now() + Duration::from_secs(5);
        let log = || fs::read_to_string(file("knockd.log")).unwrap_or_default();
        while !log().contains("listening") {
            ensure!(Instant::now() < patience, "knockd does not listen: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Knockd { filter, process, folder })
    }
}
