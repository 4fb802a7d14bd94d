//! Measures what watching costs, and what it misses: a flood of drops that a rule logs, while a hundred sources open a door, while
//! one source sends ten packets a second, and while a client that a rule accepts sends frames. Nobody watches, or `knockctl
//! monitor` and the audit file do, or a trace of the one source.
//!
//! All senders run on the generator's core, as for [`crowd`](super::crowd).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use knockplane_ring::Device;
use knockplane_tests::{
    CLIENT, Filter, FilterOptions, Folder, Process, SERVER, granted, json_lines, shown_and_omitted,
};
use rustix::process::Signal;
use serde_json::Value;

use super::crowd::step;
use super::deafness::{FLOOD, KNOCKERS, go_outside, join};
use super::lab::{CANDIDATE_CORE, Lab};
use super::results::Arrangement;
use super::steady::SteadyTraffic;
use crate::generator::{Generator, Profile, Spec};
use crate::report::{NONE, ResultTable};

/// Sources that open the door.
const KNOCKING: u32 = 100;

/// The source of the trace.
const TRACED: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 250);

/// Time between two of its packets.
const BETWEEN: Duration = Duration::from_millis(100);

/// Time of the flood before the first knock.
const SETTLED: Duration = Duration::from_secs(1);

/// Time until the last events are in all files.
const PATIENCE: Duration = Duration::from_secs(20);

const DOOR: &str =
    "[[door]]\nname = \"ssh\"\nknock = [\"tcp/1234 syn\", \"tcp/4321 syn\"]\nopens = [\"tcp/22\"]\nfor = \"10m\"\n";

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// Nobody, except the audit file.
    Nobody,
    /// `knockctl monitor`.
    Monitor,
    /// `knockctl trace` of one source.
    Trace,
}

impl Watcher {
    /// All of them, in the order of the measurement.
    pub const ALL: [Watcher; 3] = [Watcher::Nobody, Watcher::Monitor, Watcher::Trace];

    const fn name(self) -> &'static str {
        match self {
            Watcher::Nobody => "nobody",
            Watcher::Monitor => "monitor",
            Watcher::Trace => "trace",
        }
    }
}

/// The result of a flood.
#[derive(Debug)]
pub struct WatchingResult {
    watcher: Watcher,
    /// Frames of the flood, in thousands a second.
    offered: f64,
    /// Frames of the flood that the filter dropped with a line of the log, shown or not.
    logged: u64,
    /// Frames of the client that were sent and that arrived.
    client: [u64; 2],
    /// Grants in the audit file, and in the monitor with the same id.
    grants: [Option<usize>; 2],
    /// Lines about packets that the monitor showed, and those that it told to be omitted.
    lines: Option<[u64; 2]>,
    /// Packets of the traced source that were sent and that the trace showed.
    traced: Option<[u64; 2]>,
}

/// A row for each result.
pub fn table(results: &[WatchingResult]) -> ResultTable {
    let columns = [
        "who watches",
        "flood, kpps",
        "logged drops",
        "client's frames",
        "lost",
        "grants in the audit file",
        "with the same id in the monitor",
        "lines shown",
        "omitted",
        "traced source's packets",
        "shown",
    ];
    let rows = results.iter().map(|result| {
        let pair =
            |pair: Option<[u64; 2]>, of: usize| pair.map_or_else(|| NONE.to_owned(), |pair| pair[of].to_string());
        let grants = |of: usize| result.grants[of].map_or_else(|| NONE.to_owned(), |grants| grants.to_string());
        let [sent, arrived] = result.client;
        vec![
            result.watcher.name().to_owned(),
            format!("{:.0}", result.offered),
            result.logged.to_string(),
            sent.to_string(),
            sent.saturating_sub(arrived).to_string(),
            grants(0),
            grants(1),
            pair(result.lines, 0),
            pair(result.lines, 1),
            pair(result.traced, 0),
            pair(result.traced, 1),
        ]
    });
    ResultTable::new("watching", "Watching during a flood of logged drops", &columns).with_rows(rows)
}

/// Measures one watcher, with a flood of `rate` frames a second.
///
/// # Errors
/// Without root, if the dataplane does not start, or if a source does not get in.
pub fn measure(watcher: Watcher, rate: u64, duration: Duration) -> Result<WatchingResult> {
    let lab = Lab::new(Arrangement::S)?;
    lab.topology.allow_redirects()?;
    let client = &lab.topology.client;
    client.ip(&format!("route add local {KNOCKERS} dev lo"))?;
    let folder = Folder::make(&format!("kp{}-watching", std::process::id()))?;
    let audit = folder.0.join("audit.jsonl");
    let rules = format!(
        "/ip firewall filter\nadd action=accept chain=input src-address={CLIENT}\nadd action=drop chain=input log=yes log-prefix=scan\n"
    );
    let options = FilterOptions {
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n"),
        sections: format!("audit = \"{}\"\n{DOOR}", audit.display()),
        ..FilterOptions::from_rules(&rules)
    };
    let filter = Filter::start(&lab.topology, &options)?;
    // Threads that it starts inherit the core.
    let traffic = thread::scope(|scope| {
        join(scope.spawn(|| {
            go_outside()?;
            SteadyTraffic::start(&lab.topology)
        }))
    })?;
    let output = filter.path("watcher.jsonl");
    let mut process = watch(watcher, &filter, &output, duration)?;
    let stop = AtomicBool::new(false);
    let spec = Spec { rate: Some(rate), duration, source: FLOOD, ..Spec::new(Profile::SourcesSequential) };
    let ((flood, traced), counts) = traffic.during(|| {
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                client.within(|| {
                    go_outside()?;
                    Generator::new(&Device::open("eth0")?, &spec)?.run(&AtomicBool::new(false))
                })
            });
            let traced = scope.spawn(|| {
                client.within(|| {
                    go_outside()?;
                    send_traced(&stop)
                })
            });
            let knocked = join(scope.spawn(|| {
                client.within(|| {
                    go_outside()?;
                    thread::sleep(SETTLED);
                    knock(&filter)
                })
            }));
            let flood = join(flood);
            stop.store(true, Relaxed);
            let traced = join(traced)?;
            knocked?;
            Ok((flood?, traced))
        })
    })?;
    let end = Instant::now();
    let (mut lines, mut grants, mut shown) = (None, [None, None], None);
    match watcher {
        Watcher::Nobody => {}
        Watcher::Monitor => loop {
            let (events, audited) = (json_lines(&output)?, json_lines(&audit)?);
            let [events_ids, audited] = [ids(&events), ids(&audited)];
            let same = audited.iter().filter(|(source, id)| events_ids.get(*source) == Some(id)).count();
            grants[1] = Some(same);
            let (told, omitted) = shown_and_omitted(&events);
            lines = Some([told, omitted]);
            let is_complete = same == KNOCKING as usize && told + omitted == filter.matched_by_last_rule()?;
            if is_complete || end.elapsed() > PATIENCE {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        },
        Watcher::Trace => {
            while process.as_mut().map_or(Ok(false), Process::runs)? && end.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(100));
            }
            shown =
                Some([traced, json_lines(&output)?.iter().filter(|line| line.get("packet").is_some()).count() as u64]);
        }
    }
    grants[0] = Some(ids(&json_lines(&audit)?).len());
    if let Some(process) = process.as_mut().filter(|_| watcher == Watcher::Monitor) {
        process.stop(Signal::INT)?;
    }
    Ok(WatchingResult {
        watcher,
        offered: flood.rate() / 1e3,
        logged: filter.matched_by_last_rule()?,
        client: counts,
        grants,
        lines,
        traced: shown,
    })
}

/// Starts the watcher, whose lines go to this file.
fn watch(watcher: Watcher, filter: &Filter<'_>, output: &Path, duration: Duration) -> Result<Option<Process>> {
    let (source, time) = (TRACED.to_string(), format!("{}s", duration.as_secs() + 3));
    let arguments = match watcher {
        Watcher::Nobody => return Ok(None),
        Watcher::Monitor => vec!["--json", "monitor"],
        Watcher::Trace => vec!["--json", "trace", "src", &source, "--for", &time],
    };
    let mut command = filter.command(&arguments)?;
    command.stdout(File::create(output)?);
    let process = Process::start_with("knockctl", &mut command, File::create(filter.path("watcher.err"))?)?;
    // Until it watches.
    thread::sleep(Duration::from_secs(1));
    Ok(Some(process))
}

/// Sends packets of the traced source until the stop. Returns their number.
fn send_traced(stop: &AtomicBool) -> Result<u64> {
    let socket = UdpSocket::bind((TRACED, 0))?;
    socket.connect((SERVER, 9))?;
    let mut sent = 0;
    while !stop.load(Relaxed) {
        sent += u64::from(socket.send(b"traced").is_ok());
        thread::sleep(BETWEEN);
    }
    Ok(sent)
}

/// Knocks until all sources are in: a flood can fill a ring, and then a knock is lost.
fn knock(filter: &Filter<'_>) -> Result<()> {
    let address = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 1, 1).to_bits() + number);
    let mut left: Vec<Ipv4Addr> = (0..KNOCKING).map(address).collect();
    let begin = Instant::now();
    let server = SERVER.parse().context("an address")?;
    while !left.is_empty() {
        ensure!(begin.elapsed() < PATIENCE, "{} sources do not get in", left.len());
        for source in &left {
            step((*source, server), 1234, Instant::now())?;
            step((*source, server), 4321, Instant::now() + Duration::from_millis(10))?;
        }
        let doors = filter.ask(&["show", "doors", "--limit", "1000"])?;
        let open: Vec<_> = doors["open"].as_array().context("sources")?.iter().map(|open| &open["address"]).collect();
        left.retain(|source| !open.iter().any(|open| **open == source.to_string()));
    }
    Ok(())
}

/// The ids of grants, by their source.
fn ids(events: &[Value]) -> BTreeMap<String, String> {
    let pair = |event: Value| Some((event["source"].as_str()?.to_owned(), event["id"].as_str()?.to_owned()));
    granted(events).into_iter().filter_map(pair).collect()
}
