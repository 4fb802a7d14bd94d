//! Large changes, while the dataplane continues to answer, and small changes beside a large list. The latencies are
//! printed (`--nocapture`). Only the ratio of those of small changes is asserted.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_policy::rsc;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::wire::{ApplyRequest, NewEntry, Request, Response};
use knockplane_tests::{Filter, FilterOptions};

use crate::scenario::{PATIENCE, QUICK, with};

/// Number of requests of each kind that must be answered, as in the requirement.
const REQUESTS: usize = 100;

/// Clients that request at once, so that there are enough requests on a fast machine too.
const CLIENTS: usize = 4;

/// Small changes of each kind. Each 1,024 changes, the dataplane compiles all entries once.
const SMALL_CHANGES: usize = 100;

/// The time that a removal may take longer than an addition, on a loaded machine. A compilation of all entries takes
/// longer.
const NOISE: Duration = Duration::from_millis(100);

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
    let request = ApplyRequest { rules: reading.rules, source: "large".to_owned(), ..ApplyRequest::default() };
    serde_json::to_string(&Request::Apply(Box::new(request))).expect("plain data") + "\n"
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
    /// Pairs of requests that were begun when the dataplane had all changes, and answered before the last change was.
    meanwhile: usize,
}

impl Latencies {
    /// Requests the status and the metrics once.
    fn request(&mut self, filter: &Filter<'_>) {
        let began = Instant::now();
        let status = answer(&mut ask(filter, "{\"request\":\"status\"}\n", PATIENCE));
        assert!(matches!(status, Response::Status(_)), "{status:?}");
        self.status.push(began.elapsed());
        let began = Instant::now();
        let metrics = filter.http("/metrics").expect("a scrape");
        self.unanswered += usize::from(!metrics.contains("\nknockplane_dataplane_up 1\n"));
        self.scrape.push(began.elapsed());
    }

    fn add(&mut self, other: Latencies) {
        self.status.extend(other.status);
        self.scrape.extend(other.scrape);
        self.unanswered += other.unanswered;
        self.meanwhile += other.meanwhile;
    }

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

/// Sends changes at once. Several clients request the status and the metrics until the last change is answered and
/// there are enough answers.
fn measure<const N: usize>(filter: &Filter<'_>, changes: [String; N]) -> ([Response; N], Latencies, Duration) {
    let (sent, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let began = Instant::now();
        let changes = changes.map(|line| {
            let (sent, answered) = (&sent, &answered);
            scope.spawn(move || {
                let mut peer = ask(filter, &line, CHANGE_WITHIN);
                sent.fetch_add(1, SeqCst);
                let answer = answer(&mut peer);
                answered.fetch_add(1, SeqCst);
                (answer, began.elapsed())
            })
        });
        let clients = [(); CLIENTS].map(|()| {
            scope.spawn(|| {
                let mut latencies = Latencies::default();
                while answered.load(SeqCst) < N || latencies.status.len() < REQUESTS {
                    let has_all = sent.load(SeqCst) == N;
                    latencies.request(filter);
                    if has_all && answered.load(SeqCst) < N {
                        latencies.meanwhile += 1;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                latencies
            })
        });
        let mut latencies = Latencies::default();
        clients.into_iter().for_each(|client| latencies.add(client.join().expect("all are answered")));
        let changes = changes.map(|change| change.join().expect("the change is answered"));
        let took = changes.iter().map(|(_, took)| *took).max().unwrap_or_default();
        (changes.map(|(answer, _)| answer), latencies, took)
    })
}

/// The median time of an addition of a static entry, and that of a removal. Prints both, and the longest times.
fn small_changes(filter: &Filter<'_>, list: &str, beside: &str) -> [Duration; 2] {
    let requests = |address: &str| {
        let (list, address) = (list.to_owned(), address.parse::<AddressSet>().expect("an address"));
        let entry = NewEntry { list: list.clone(), address: address.clone(), timeout: None, comment: String::new() };
        let requests = [Request::ListAdd { entries: vec![entry] }, Request::ListRemove { list, address }];
        requests.map(|request| serde_json::to_string(&request).expect("plain data") + "\n")
    };
    let mut times = [const { Vec::new() }; 2];
    for number in 0..SMALL_CHANGES {
        for (times, line) in times.iter_mut().zip(requests(&format!("192.0.2.{number}"))) {
            let began = Instant::now();
            let answer = answer(&mut ask(filter, &line, CHANGE_WITHIN));
            assert!(matches!(answer, Response::Added(_) | Response::Done), "{answer:?}");
            times.push(began.elapsed());
        }
    }
    let medians = ["addition", "removal"].into_iter().zip(&mut times).map(|(kind, times)| {
        times.sort_unstable();
        let (median, max) = (times[SMALL_CHANGES / 2], times[SMALL_CHANGES - 1]);
        println!("{kind} of an entry beside {beside}: median {median:?}, max {max:?}");
        median
    });
    medians.collect::<Vec<_>>().try_into().expect("two")
}

#[test]
fn status_and_metrics_are_answered_during_large_changes() {
    let options = FilterOptions { list_capacity: ENTRIES + 1_000, ..FilterOptions::from_rules(QUICK) };
    with(&options, |_, filter| {
        small_changes(filter, "bulk", "none");
        let ([applied, added], mut latencies, took) = measure(filter, [apply(), import()]);
        latencies.print("apply of 10,000 rules and import of 1,000,000 entries", took);
        assert!(matches!(applied, Response::Applied { generation: 2, revision: 2 }), "{applied:?}");
        assert!(matches!(added, Response::Added(_)), "{added:?}");
        assert_eq!(latencies.unanswered, 0, "scrapes that the dataplane did not answer in time");
        assert!(latencies.meanwhile >= REQUESTS, "{} answers during the changes", latencies.meanwhile);
        let [addition, removal] = small_changes(filter, "bulk", "1,000,000");
        assert!(removal < 3 * addition + NOISE, "{removal:?} for a removal, {addition:?} for an addition");
    });
}
