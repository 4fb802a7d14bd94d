//! A measurement of the web page with few and many rules, all of which count: `make bench-page`, docs/benchmarks.md. It fails only if
//! something does not work.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology, run};
use serde_json::{Value, json};

use crate::browser::{Browser, PAGE};
use crate::page::{on_page_with, token};
use crate::random::Random;
use crate::scenario::Stop;

/// Packets in a second: each is compared with all rules.
const PACKETS: u32 = 200;

/// The time in which the page updates the counters.
const WATCHED: Duration = Duration::from_secs(30);

/// Requests that are timed.
const REQUESTS: usize = 50;

/// Notes the time of the first row of the table, and tasks of more than 50 ms.
const OBSERVER: &str = "window.seen = { row: null, long: [] };
    new PerformanceObserver((list) => window.seen.long.push(...list.getEntries().map((task) => task.duration)))
      .observe({ type: 'longtask', buffered: true });
    const look = () => {
      if (document.querySelector('.rows [role=row]')) window.seen.row = performance.now();
      else requestAnimationFrame(look);
    };
    look();";

/// Rules that count UDP packets to their port and those above, and a last one that drops all. Each tenth has a comment. So the counters
/// of all rules change, each to another number.
fn rules(number: usize) -> String {
    let mut text = "/ip firewall filter\n".to_owned();
    for rule in 1..number {
        let comment = if rule % 10 == 0 { format!(" comment=\"rule {rule}\"") } else { String::new() };
        writeln!(text, "add action=passthrough chain=input protocol=udp dst-port={rule}-65535{comment}")
            .expect("a text");
    }
    text + "add action=drop chain=input protocol=udp\n"
}

/// What the kernel and the browser tell about one number of rules: rows of a table.
struct Figures(Vec<(&'static str, String)>);

impl Figures {
    fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }
}

#[test]
#[ignore = "a measurement: make bench-page"]
fn measure_the_page() {
    let columns = [10, 10_000].map(|number| {
        let mut figures = Figures(Vec::new());
        let options = FilterOptions::from_rules(&rules(number));
        on_page_with(&format!("page-load-{number}"), (1280, 800), &options, |topology, filter, browser| {
            let token = token(filter, "me", "read");
            let (stop, client) = (&AtomicBool::new(false), &client(topology));
            thread::scope(|scope| {
                let _stop = Stop(stop);
                scope.spawn(move || {
                    let mut random = Random(1);
                    while !stop.load(Relaxed) {
                        let port = 1 + random.below(number) as u16;
                        client.send_to(b"hello", (SERVER, port)).expect("sent");
                        thread::sleep(Duration::from_secs(1) / PACKETS);
                    }
                });
                requests(topology, filter, &token, &mut figures);
                loads(topology, browser, &token, &mut figures);
                updates(topology, browser, &mut figures);
            });
        });
        figures.0
    });
    println!("| | 10 rules | 10,000 rules |\n|---|---|---|");
    for ((name, few), (_, many)) in columns[0].iter().zip(&columns[1]) {
        println!("| {name} | {few} | {many} |");
    }
}

/// A socket of the client.
fn client(topology: &Topology) -> UdpSocket {
    topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?)).expect("a socket")
}

/// Sizes and times of the requests, without a browser.
fn requests(topology: &Topology, filter: &Filter<'_>, token: &str, figures: &mut Figures) {
    let order = filter.ask(&["show", "rules"]).expect("rules")["order"].as_str().expect("an order").to_owned();
    let counters = format!("rules/counters?order={order}");
    for (name, path) in [("`rules`", "rules"), ("`rules/counters`", &*counters)] {
        let size = |compressed: bool| get(topology, token, path, compressed, 1)[0].0;
        let [plain, compressed] = [false, true].map(size);
        figures.add(name, format!("{} KB, {} KB with gzip", kilo(plain), kilo(compressed)));
    }
    for (name, compressed) in [("time of `rules/counters`", false), ("the same with gzip", true)] {
        let mut times: Vec<f64> =
            get(topology, token, &counters, compressed, REQUESTS).into_iter().map(|(_, time)| time * 1e3).collect();
        times.sort_by(f64::total_cmp);
        figures.add(name, format!("median {:.1} ms, longest {:.1} ms", times[REQUESTS / 2], times[REQUESTS - 1]));
    }
}

fn kilo(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e3)
}

/// The bytes and the seconds of so many equal requests on one connection.
fn get(topology: &Topology, token: &str, path: &str, compressed: bool, times: usize) -> Vec<(f64, f64)> {
    let mut command: Command = topology.filter.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
    command.args([
        "--header",
        &format!("Authorization: Bearer {token}"),
        "--write-out",
        "%{size_download} %{time_total}\n",
    ]);
    if compressed {
        command.args(["--header", "Accept-Encoding: gzip"]);
    }
    for _ in 0..times {
        command.args(["--output", "/dev/null", &format!("{PAGE}api/v1/{path}")]);
    }
    let output = run(&mut command).expect("curl");
    assert!(output.ok(), "{output:?}");
    let numbers =
        |line: &str| line.split_once(' ').map(|(size, time)| (number(size), number(time))).expect("two numbers");
    output.stdout.lines().map(numbers).collect()
}

fn number(text: &str) -> f64 {
    text.parse().expect("a number")
}

/// Loads the page with a session, without anything in the cache.
fn loads(topology: &Topology, browser: &Browser, token: &str, figures: &mut Figures) {
    let command = |name: &str, parameters: Value| browser.command(topology, name, &parameters);
    command("Page.addScriptToEvaluateOnNewDocument", json!({ "source": OBSERVER }));
    browser.open("");
    let paint = || {
        browser.until("a paint", "return performance.getEntriesByName('first-contentful-paint').length > 0");
        browser
            .run("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
            .as_f64()
            .expect("a time")
    };
    figures.add("first paint of the sign-in", format!("{:.0} ms", paint()));
    browser.sign_in(token);
    browser.until("rows", "return window.seen.row !== null");
    command("Page.navigate", json!({ "url": "about:blank" }));
    command("Network.clearBrowserCache", json!({}));
    browser.open("#/rules");
    browser.until("rows", "return document.readyState === 'complete' && window.seen?.row > 0");
    figures.add("first paint of the rules", format!("{:.0} ms", paint()));
    figures.add("first rows", format!("{:.0} ms", browser.run("return window.seen.row").as_f64().expect("a time")));
    let long = browser.run("return window.seen.long");
    let long: Vec<f64> = long.as_array().expect("tasks").iter().filter_map(Value::as_f64).collect();
    figures.add("tasks over 50 ms during the load", told(&long));
}

fn told(long: &[f64]) -> String {
    match long.iter().copied().reduce(f64::max) {
        None => "none".to_owned(),
        Some(longest) => format!("{}, the longest {longest:.0} ms", long.len()),
    }
}

/// The work of the main thread while the counters change.
fn updates(topology: &Topology, browser: &Browser, figures: &mut Figures) {
    let command = |name: &str| browser.command(topology, name, &json!({}));
    command("Performance.enable");
    let metrics = || {
        let answer = command("Performance.getMetrics");
        let all = answer["metrics"].as_array().expect("metrics");
        ["Timestamp", "TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"].map(|name| {
            let metric = all.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("{name}: {answer}"));
            metric["value"].as_f64().expect("a number")
        })
    };
    // The lints of many rules take some seconds.
    browser.until("rates", "return /[1-9][0-9]*\\/s/.test(document.querySelector('.rows').textContent)");
    thread::sleep(Duration::from_secs(5));
    browser.run("window.seen.long.length = 0; performance.clearResourceTimings();");
    let before = metrics();
    thread::sleep(WATCHED);
    let after = metrics();
    let long = browser.run("return window.seen.long");
    let long: Vec<f64> = long.as_array().expect("tasks").iter().filter_map(Value::as_f64).collect();
    let reads = browser.run(
        "const read = (path) => performance.getEntriesByType('resource').filter((one) => new URL(one.name).pathname === path); \
         return [read('/api/v1/rules').length, read('/api/v1/rules/counters').length]",
    );
    let reads: Vec<u64> = reads.as_array().expect("numbers").iter().filter_map(Value::as_u64).collect();
    assert!(reads[0] == 0 && reads[1] >= WATCHED.as_secs() / 2, "the counters are read, and no rules: {reads:?}");
    let time = after[0] - before[0];
    figures.add("updates of the counters in a second", format!("{:.2}", reads[1] as f64 / time));
    for (at, name) in [(1, "main thread in a second"), (2, "of that, scripts"), (3, "layout"), (4, "styles")] {
        figures.add(name, format!("{:.1} ms", (after[at] - before[at]) / time * 1e3));
    }
    figures.add("tasks over 50 ms meanwhile", told(&long));
}
