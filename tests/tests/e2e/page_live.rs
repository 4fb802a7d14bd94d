//! The live view of the web page, in a browser: events with filter and pause, a trace, and the traffic.

use knockplane_tests::{CLIENT, Filter, FilterOptions, Topology, VISITOR};
use serde_json::Value;

use crate::browser::Browser;
use crate::fast_path::{PORT, receiver};
use crate::page::{on_page_with, token};
use crate::scenario::{eventually, listed, udp_from, udp_to};

/// A knock of two packets, and a port whose packets are logged and dropped.
fn rules() -> String {
    format!(
        "/ip firewall filter
add action=add-src-to-address-list address-list=first address-list-timeout=1m chain=input protocol=udp dst-port=1234
add action=add-src-to-address-list address-list=open address-list-timeout=1h chain=input protocol=udp dst-port=4321 \
src-address-list=first
add action=accept chain=input protocol=udp dst-port={PORT} src-address-list=open
add action=log chain=input protocol=udp dst-port=7777 log-prefix=scan
add action=drop chain=input
"
    )
}

/// Runs a test with the live view, after a sign-in with this role.
fn live(name: &str, role: &str, test: impl FnOnce(&Topology, &mut Filter<'_>, &Browser) + Send) {
    let options = FilterOptions::from_rules(&rules());
    on_page_with(name, (1280, 800), &options, |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", role));
        browser.open("#/live");
        browser.until_text(".empty", "No event");
        until_streams(filter);
        test(topology, filter, browser);
    });
}

/// Waits until the page has its stream: events before that are not shown.
fn until_streams(filter: &Filter<'_>) {
    eventually("a stream", || filter.ask(&["show", "status"]).expect("status")["control"]["event_streams"] == 1);
}

/// Sends the packets of the knock, one after the other.
fn knock(topology: &Topology, filter: &Filter<'_>) {
    udp_to(topology, 1234).send(b"1").expect("sent");
    eventually("the first step", || listed(filter, "first", CLIENT));
    udp_to(topology, 4321).send(b"2").expect("sent");
    eventually("the second step", || listed(filter, "open", CLIENT));
}

/// A script: whether a row of the table, or of a table in a dialog, contains all these texts.
fn row(texts: &[&str]) -> String {
    let texts = serde_json::json!(texts);
    format!(
        "return [...document.querySelectorAll('.rows [role=row], dialog tbody tr')] \
         .some((row) => {texts}.every((text) => row.textContent.includes(text)))"
    )
}

#[test]
fn events_of_a_real_knock_lead_to_a_trace_of_their_source() {
    live("page-live", "operate", |topology, filter, browser| {
        knock(topology, filter);
        browser.until("the knock", &row(&["listed", CLIENT, "list open", "ip filter 1"]));
        browser.choose("list open");
        browser.click("Source");
        browser.until_text("dialog td a", "open");
        browser.click("Trace");
        // Without a receiver, the server would refuse packets.
        let _receiver = receiver(topology);
        let client = udp_to(topology, PORT);
        eventually("a traced packet", || {
            client.send(b"hello").expect("sent");
            browser.run(&row(&[&format!("> 10.77.0.2:{PORT}"), "forward: rule", "ip filter 2 accept"])) == true
        });
        let traced = || filter.ask(&["show", "status"]).expect("status")["fast_path"]["traced"].clone();
        browser.click("Close");
        eventually("the trace has ended", || traced() == false);
    });
}

#[test]
fn pause_holds_the_rows_and_a_filter_selects_events() {
    live("page-pause", "read", |topology, filter, browser| {
        let scan = udp_from(topology, VISITOR, 7777);
        browser.click("Pause");
        scan.send(b"x").expect("sent");
        browser.until_text("form button", "Continue (1 new)");
        assert_eq!(browser.run(&row(&["scan"])), false, "the rows are held");
        browser.click("Continue (1 new)");
        browser.until("the packet", &row(&["packet", VISITOR, "scan", "ip filter 3"]));
        browser.choose("scan");
        browser.until_text(".detail button", "Source");
        assert_eq!(
            browser.run("return [...document.querySelectorAll('.detail button')].map((one) => one.textContent)"),
            serde_json::json!(["Source"]),
            "the role read cannot trace"
        );

        browser.type_into("input[name=source]", VISITOR);
        browser.click("Filter");
        browser.until_text(".empty", "No event");
        let scans = "return [...document.querySelectorAll('.rows [role=row]')].filter((row) => row.textContent.includes('scan')).length";
        let scanned = || browser.run(scans).as_u64().unwrap_or(0);
        eventually("the packet", || {
            scan.send(b"x").expect("sent");
            scanned() > 0
        });
        knock(topology, filter);
        let before = scanned();
        eventually("a packet after the knock", || {
            scan.send(b"x").expect("sent");
            scanned() > before + 1
        });
        assert_eq!(browser.run(&row(&["list open"])), false, "the knock is of another source");

        browser.type_into("input[name=rule]", "nonsense");
        browser.click("Filter");
        browser.until_text(".error-text", "neither the id of a rule");
    });
}

/// The answer of the API about the traffic.
fn traffic(browser: &Browser) -> Value {
    browser.run("return fetch('/api/v1/traffic').then((answer) => answer.json())")
}

/// The rates of all samples, the oldest first; null in gaps.
fn rates(browser: &Browser) -> Vec<Value> {
    let answer = traffic(browser);
    answer["samples"].as_array().expect("samples").iter().map(|sample| sample["rates"].clone()).collect()
}

/// A script: whether a row of the tables of the plots begins with this name, and its highest value is not zero.
fn has_traffic(line: &str) -> String {
    format!(
        "return [...document.querySelectorAll('.plot-table tbody tr')].some(({{ cells: [name, , highest] }}) => \
         name.textContent === '{line}' && /^[1-9]/.test(highest.textContent))"
    )
}

/// The places of these elements.
fn places(browser: &Browser, css: &str) -> Value {
    browser.run(&format!(
        "return [...document.querySelectorAll('{css}')].map((one) => one.getBoundingClientRect()) \
         .map(({{ x, y, width, height }}) => [x, y, width, height])"
    ))
}

/// Shows this plot, of those that a narrow window shows one at a time.
fn choose_plot(browser: &Browser, plot: usize) {
    browser.run(&format!(
        "const choice = document.querySelector('.plot-choice'); \
         choice.value = {plot}; choice.dispatchEvent(new Event('change'))"
    ));
}

/// Whether the first plot has pixels of its line's colour.
fn is_drawn(browser: &Browser) -> bool {
    let found = browser.run(
        "const canvas = document.querySelector('.plot canvas'); \
         if (canvas === null) return false; \
         const colour = getComputedStyle(document.querySelector('.mark.line-1')).color.match(/\\d+/g).map(Number); \
         const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); \
         for (let at = 0; at < data.length; at += 4) { \
           if (data[at + 3] > 200 && colour.every((part, index) => Math.abs(data[at + index] - part) < 8)) return true; \
         } \
         return false",
    );
    found == true
}

#[test]
fn the_traffic_of_ten_minutes_is_plotted_and_a_restart_is_a_gap() {
    live("page-traffic", "read", |topology, filter, browser| {
        topology.allow_redirects().expect("GRO can be turned on");
        browser.until_text(".plot-table", "worker 0");
        let parts = ".traffic, .plot, .plot-table, .plot-table thead th, .toolbar, .grid";
        let before = places(browser, parts);
        knock(topology, filter);
        let (client, scan, _receiver) = (udp_to(topology, PORT), udp_from(topology, VISITOR, 7777), receiver(topology));
        // The tables of the plots have a line for each of these.
        for line in ["forwarded", "rule", "worker 0", "kernel fast path", "userspace"] {
            eventually(line, || {
                client.send(b"hello").expect("sent");
                scan.send(b"x").expect("sent");
                browser.run(&has_traffic(line)) == true
            });
        }
        assert_eq!(places(browser, parts), before, "nothing moves while values change");
        assert_eq!(browser.console(topology), [""; 0], "no error, and nothing that the policy refused");
        for (width, theme) in [(1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")] {
            browser.resize((width, 800));
            browser.run(&format!("document.documentElement.dataset.theme = '{theme}'"));
            browser.until(
                "plots as wide as their places",
                "return [...document.querySelectorAll('.plot')].filter((one) => one.checkVisibility()) \
                 .every((one) => one.querySelector('canvas')?.clientWidth === Math.floor(one.clientWidth))",
            );
            eventually("a line in the colour of the table", || is_drawn(browser));
            assert_eq!(browser.violations(), [""; 0], "{width}, {theme}");
            assert_eq!(
                browser.run("return document.documentElement.scrollWidth <= innerWidth"),
                true,
                "{width} is wide"
            );
        }
        // Nor does anything move if a plot has more lines.
        let place = |plot| {
            choose_plot(browser, plot);
            places(browser, ".toolbar, .grid")
        };
        assert_eq!(place(3), place(0));

        // A page that is opened anew shows what happened before.
        let sum = |rates: &[Value]| rates.iter().filter_map(|rates| rates["dropped"]["rule"].as_f64()).sum::<f64>();
        let dropped = sum(&rates(browser));
        browser.open("#/status");
        browser.open("#/live");
        browser.until("the past", &has_traffic("rule"));

        filter.dataplane.kill().expect("killed");
        browser.until_text(".plot-table td", "–");
        filter.restart_dataplane().expect("started");
        let has_values = "return !document.querySelector('.plot-table td').textContent.includes('–')";
        browser.until("values after the gap", has_values);
        let all = rates(browser);
        assert!(sum(&all) >= dropped, "what was before the restart is kept: {all:?}");
        // Behind the first samples, which a slow start of the test may have without rates.
        let known = |rates: &Value| !rates.is_null();
        let (first, last) = (all.iter().position(known), all.iter().rposition(known));
        let gap = &all[first.expect("rates")..=last.expect("rates")];
        assert!(!gap.iter().all(known), "a gap: {all:?}");
        for rates in all.iter().filter(|rates| known(rates)) {
            for name in ["forwarded", "kernel", "userspace"] {
                assert!((0.0..10_000.0).contains(&rates[name].as_f64().expect("a rate")), "{rates}");
            }
        }

        // Another control process begins again; the page reads its samples from the first one, and keeps what it has seen.
        let from_first = "return performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/traffic?since=0')).length";
        let (before, start) = (browser.run(from_first).as_u64(), traffic(browser)["start"].clone());
        filter.control.kill().expect("killed");
        filter.restart_control().expect("started");
        eventually("the page reads from the first sample", || browser.run(from_first).as_u64() > before);
        browser.until("values of the other process", has_values);
        assert_eq!(browser.run(&has_traffic("rule")), true);
        let answer = traffic(browser);
        assert_ne!(answer["start"], start);
        assert!(answer["samples"][0]["rates"].is_null(), "its first sample has nothing to compare with");
    });
}
