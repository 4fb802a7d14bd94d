//! Large changes, while the dataplane continues to answer. The latencies are printed (`--nocapture`) and not asserted.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_policy::rsc;
use knockplane_policy::wire::{Request, Response};
use knockplane_tests::{Filter, FilterOptions};

use crate::scenario::{PATIENCE, QUICK, with};

/// Number of requests of each kind that must be answered, as in the requirement.
const REQUESTS: usize = 100;

/// Number of requests of each kind that must be answered before the change. A large change takes the time of hundreds
/// of requests.
const MEANWHILE: usize = 10;

/// Longest time that a change may take, in a build without optimisation on a loaded machine.
const CHANGE_WITHIN: Duration = Duration::from_secs(600);

const RULES: usize = 10_000;
const ENTRIES: usize = 1_000_000;

/// A connection to the dataplane that has sent this line.
fn ask(filter: &Filter<'_>, line: &str, patience: Duration) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(filter.path("dataplane.sock")).expect("root may connect");
    stream.set_read_timeout(Some(patience)).expect("set");
    stream.set_write_timeout(Some(patience)).expect("set");
    stream.write_all(line.as_bytes()).expect("the request is read");
    BufReader::new(stream)
}

/// The answer after the greeting.
fn answer(peer: &mut BufReader<UnixStream>) -> Response {
    let mut line = String::new();
    for _ in 0..2 {
        line.clear();
        assert!(peer.read_line(&mut line).expect("an answer") > 0, "the connection ended");
    }
    serde_json::from_str(&line).expect("an answer")
}

/// An apply of this many rules.
fn apply() -> String {
    let mut text = String::from("/ip firewall filter\n");
    for rule in 0..RULES {
        let (high, low) = (rule / 250, rule % 250);
        let _ = writeln!(
            text,
            "add chain=input protocol=tcp src-address=10.{high}.{low}.0/24 dst-port={} src-address-list=bulk \
             action=accept",
            1_000 + rule
        );
    }
    text += "add chain=input action=drop\n";
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let request = Request::Apply { rules: Box::new(reading.rules), source: "large".to_owned(), names: Vec::new() };
    serde_json::to_string(&request).expect("plain data") + "\n"
}

/// An import of this many static entries.
fn import() -> String {
    let mut line = String::from("{\"request\":\"list-add\",\"with\":{\"entries\":[");
    for entry in 0..ENTRIES {
        let separator = if entry == 0 { "" } else { "," };
        let (a, b, c) = (entry >> 16, (entry >> 8) & 255, entry & 255);
        let _ = write!(
            line,
            "{separator}{{\"list\":\"bulk\",\"address\":\"10.{a}.{b}.{c}\",\"comment\":\"host {entry}\"}}"
        );
    }
    line + "]}}\n"
}

/// The measurements during a change.
#[derive(Default)]
struct Latencies {
    status: Vec<Duration>,
    scrape: Vec<Duration>,
    /// Number of scrapes that the dataplane did not answer within the time limit of the control process.
    unanswered: usize,
    /// Number of requests of both kinds that began after the dataplane had received the whole change, and that were
    /// answered before the change.
    meanwhile: usize,
}

impl Latencies {
    fn print(&mut self, change: &str, took: Duration) {
        for (kind, all) in [("status", &mut self.status), ("scrape", &mut self.scrape)] {
            all.sort_unstable();
            let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
            let (median, p99, max) = (at(0.5), at(0.99), at(1.0));
            println!(
                "{change} ({took:?}), {kind}: {} requests, median {median:?}, p99 {p99:?}, max {max:?}",
                all.len()
            );
        }
        println!("{} scrapes unanswered, {} requests of each kind meanwhile", self.unanswered, self.meanwhile);
    }
}

/// Sends a change. Requests the status and the metrics until the change is answered and there are enough answers.
fn measure(filter: &Filter<'_>, line: &str) -> (Response, Latencies, Duration) {
    let (is_sent, is_answered) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let change = scope.spawn(|| {
            let mut peer = ask(filter, line, CHANGE_WITHIN);
            is_sent.store(true, SeqCst);
            let began = Instant::now();
            let answer = answer(&mut peer);
            is_answered.store(true, SeqCst);
            (answer, began.elapsed())
        });
        let mut latencies = Latencies::default();
        while !is_answered.load(SeqCst) || latencies.status.len() < REQUESTS {
            let has_all = is_sent.load(SeqCst);
            let began = Instant::now();
            let status = answer(&mut ask(filter, "{\"request\":\"status\"}\n", PATIENCE));
            assert!(matches!(status, Response::Status(_)), "{status:?}");
            latencies.status.push(began.elapsed());
            let began = Instant::now();
            let metrics = filter.http("/metrics").expect("a scrape");
            latencies.unanswered += usize::from(!metrics.contains("\nknockplane_dataplane_up 1\n"));
            latencies.scrape.push(began.elapsed());
            if has_all && !is_answered.load(SeqCst) {
                latencies.meanwhile += 1;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let (answer, took) = change.join().expect("the change is answered");
        (answer, latencies, took)
    })
}

#[test]
fn status_and_metrics_are_answered_during_large_changes() {
    let options = FilterOptions { list_capacity: ENTRIES, ..FilterOptions::from_rules(QUICK) };
    with(&options, |_, filter| {
        let (applied, mut apply, took) = measure(filter, &apply());
        apply.print("apply of 10,000 rules", took);
        let (added, mut import, took) = measure(filter, &import());
        import.print("import of 1,000,000 entries", took);
        assert!(matches!(applied, Response::Applied { generation: 2 }), "{applied:?}");
        assert!(matches!(added, Response::Added(_)), "{added:?}");
        assert_eq!((apply.unanswered, import.unanswered), (0, 0), "scrapes that the dataplane did not answer in time");
        assert!(apply.meanwhile >= MEANWHILE, "{} answers while rules compiled", apply.meanwhile);
        assert!(import.meanwhile >= MEANWHILE, "{} answers during the import", import.meanwhile);
    });
}
