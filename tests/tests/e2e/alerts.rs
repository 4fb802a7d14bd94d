//! The rules of `configs/prometheus` and the dashboards of `configs/grafana`, in a real Prometheus that scrapes a real filter.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_tests::{Filter, FilterOptions, Topology};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid as Thread;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::prometheus::{Prometheus, repository, with_short_windows};
use crate::restart::SmallDisk;
use crate::scenario::{Stop, eventually_within, knock, udp_to, with};

/// Longest wait for an alert: the window, a scrape, an evaluation, and a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "/ip firewall address-list
add address=nobody.example.test list=friends
/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=10s chain=input dst-port=1234 protocol=udp
add action=accept chain=input connection-state=established
add action=accept chain=input src-address-list=friends comment=friends
add action=drop chain=input
";

/// No name server listens on the port.
const SECTIONS: &str = "name-servers = [\"127.0.0.1:5399\"]
[[door]]
name = \"echo\"
knock = [\"udp/7000\", \"udp/7001\"]
opens = [\"tcp/8081\"]
for = \"1h\"
";

fn options() -> FilterOptions {
    FilterOptions { sections: SECTIONS.to_owned(), list_capacity: 1_000, ..FilterOptions::from_rules(RULES) }
}

/// Sends packets to closed ports until the end of `work`.
fn under_load<T>(topology: &Topology, work: impl FnOnce() -> T) -> T {
    let ends = AtomicBool::new(false);
    let sockets = [1234, 5000].map(|port| udp_to(topology, port));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                for socket in &sockets {
                    // A rejected packet makes the next one fail.
                    let _ = socket.send(b"load");
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let _stops = Stop(&ends);
        work()
    })
}

/// An expression without its comparisons with numbers, so that it has series also while nothing is wrong.
fn without_comparisons(expression: &str) -> String {
    let mut result = Vec::new();
    let mut words = expression.split_whitespace();
    while let Some(word) = words.next() {
        if [">", "<", "==", "!=", ">=", "<="].contains(&word) {
            let number = words.next().expect("a number");
            result.push(number.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.'));
        } else {
            result.push(word);
        }
    }
    // A filter with native XDP has no other series of this metric.
    result.join(" ").replace("mode=\"generic\"", "mode=~\".+\"")
}

/// The expressions of all panels.
fn panels() -> Vec<String> {
    let mut expressions = Vec::new();
    for dashboard in ["operator", "performance"] {
        let text = repository(&format!("configs/grafana/{dashboard}.json"));
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            expressions.extend(targets.iter().map(|target| target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    expressions
}

#[test]
fn every_expression_of_panels_and_rules_has_series_while_a_filter_is_under_load() {
    with(&options(), |topology, _| {
        let prometheus = Prometheus::start(topology);
        knock(topology, "7000:udp 7001:udp");
        under_load(topology, || {
            eventually_within(PATIENCE, "Prometheus has read the rules", || !prometheus.rules().is_empty());
            let rules = prometheus.rules();
            let of_rules = rules.iter().map(|rule| rule["query"].as_str().expect("an expression").to_owned());
            let of_panels = panels()
                .into_iter()
                .map(|expression| with_short_windows(&expression).replace("$job", ".*").replace("$instance", ".*"));
            let mut without: Vec<String> = of_rules.chain(of_panels).map(|text| without_comparisons(&text)).collect();
            assert!(without.len() > 100, "{without:?}");
            let patience = Instant::now() + PATIENCE;
            while !without.is_empty() {
                assert!(Instant::now() < patience, "expressions without series: {without:#?}");
                without.retain(|expression| prometheus.query(expression).is_empty());
                thread::sleep(Duration::from_millis(200));
            }
            let broken: Vec<_> = prometheus.rules().into_iter().filter(|rule| rule["health"] != "ok").collect();
            assert!(broken.is_empty(), "{broken:#?}");
        });
    });
}

/// Checks that an alert fires after its cause, with texts and a place in the manual, and not before and not after it.
fn fires(prometheus: &Prometheus<'_>, alert: &str, cause: impl FnOnce(), cure: impl FnOnce()) {
    assert!(prometheus.firing(alert).is_empty(), "{alert} fires before its cause");
    cause();
    eventually_within(PATIENCE, &format!("{alert} fires"), || !prometheus.firing(alert).is_empty());
    for one in prometheus.firing(alert) {
        let texts = one["annotations"].to_string();
        assert!(texts.contains("docs/alerts.md#") && !texts.contains("error expanding"), "{texts}");
        assert!(texts.contains("127.0.0.1:9479"), "the summary names the filter: {texts}");
    }
    cure();
    eventually_within(PATIENCE, &format!("{alert} is over"), || prometheus.firing(alert).is_empty());
}

/// The thread of the first worker.
fn worker(filter: &Filter<'_>) -> Thread {
    let tasks = fs::read_dir(format!("/proc/{}/task", filter.dataplane.id())).expect("threads").flatten();
    let name = |path: std::path::PathBuf| fs::read_to_string(path.join("comm")).unwrap_or_default();
    let mut workers = tasks.filter(|task| name(task.path()).trim() == "worker-0");
    let task = workers.next().expect("a worker").file_name().into_string().expect("a number");
    Thread::from_raw(task.parse().expect("a number"))
}

fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(process as i32).expect("a process has an id");
    kill_process(process, signal).expect("it runs");
}

#[test]
fn alerts_fire_and_resolve() {
    let topology = Topology::new(1).expect("a topology");
    let disk = SmallDisk::mount(std::env::temp_dir().join(topology.filter.name()).join("state"), "256k");
    let mut filter = Filter::start(&topology, &options()).expect("the filter starts");
    let prometheus = Prometheus::start(&topology);
    eventually_within(PATIENCE, "there are scrapes", || {
        !prometheus.query("rate(knockplane_rx_packets_total[10s])").is_empty()
    });
    let control = |filter: &Filter<'_>, arguments: &[&str]| {
        let output = filter.knockctl(arguments).expect("knockctl");
        assert!(output.ok(), "{output:?}");
    };
    let import = |filter: &Filter<'_>, third: u32, number: u32| {
        let lines: String = (0..number).map(|n| format!("many 10.{third}.{}.{} 1h\n", n / 250, n % 250)).collect();
        let file = filter.path("many.txt");
        fs::write(&file, lines).expect("written");
        control(filter, &["list", "import", &file.display().to_string()]);
    };

    let flush = || control(&filter, &["list", "flush", "many"]);
    fires(&prometheus, "KnockplaneListsFull", || import(&filter, 1, 900), flush);

    let ballast = disk.0.join("ballast");
    let fill = || {
        // The disk takes a part of it.
        let _ = fs::write(&ballast, vec![1; 1 << 20]);
        import(&filter, 2, 400);
    };
    fires(&prometheus, "KnockplaneJournalFailed", fill, || fs::remove_file(&ballast).expect("removed"));
    flush();

    let configuration = filter.path("knockplane.toml");
    let good = fs::read_to_string(&configuration).expect("the configuration");
    let break_it = || {
        fs::write(&configuration, good.replace("udp/7000", "nothing/7000")).expect("written");
        assert!(!filter.knockctl(&["reload"]).expect("knockctl").ok(), "it is refused");
    };
    let correct_it = || {
        fs::write(&configuration, &good).expect("written");
        control(&filter, &["reload"]);
    };
    fires(&prometheus, "KnockplaneReloadFailed", break_it, correct_it);

    let rules = filter.path("rules.rsc").display().to_string();
    let apply = || control(&filter, &["apply", "--force", "--confirm", "1h", &rules]);
    fires(&prometheus, "KnockplaneUnconfirmed", apply, || control(&filter, &["confirm"]));

    let link = |state: &str| _ = topology.client.ip(&format!("link set eth0 {state}")).expect("ip");
    fires(&prometheus, "KnockplaneLinkDown", || link("down"), || link("up"));

    let guess = || {
        let sockets = [7000, 5000].map(|port| udp_to(&topology, port));
        for _ in 0..100 {
            sockets.iter().for_each(|socket| _ = socket.send(b"guess"));
            thread::sleep(Duration::from_millis(20));
        }
    };
    fires(&prometheus, "KnockplaneFailedKnocks", guess, || ());

    // A traced thread stops alone.
    let thread = worker(&filter);
    let halt = || {
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may trace");
        ptrace::interrupt(thread).expect("interrupted");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("stopped");
    };
    fires(&prometheus, "KnockplaneWorkerStale", halt, || ptrace::detach(thread, None).expect("continued"));

    let dataplane = filter.dataplane.id();
    let stop = || signal(dataplane, Signal::STOP);
    fires(&prometheus, "KnockplaneDataplaneDown", stop, || signal(dataplane, Signal::CONT));

    let control = filter.control.id();
    let restart = || filter.restart_control().expect("control starts again");
    fires(&prometheus, "KnockplaneTargetDown", || signal(control, Signal::KILL), restart);
}
