//! The live view of the web page, in a browser: events with filter and pause, and a trace.

use knockplane_tests::{CLIENT, Filter, FilterOptions, Topology, VISITOR};

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
