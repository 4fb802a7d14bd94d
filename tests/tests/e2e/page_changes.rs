//! Changes of rules in the web page: with confirmation, by drag, with the keyboard, undone; and requests of other pages.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fantoccini::key::Key;
use knockplane_tests::{Filter, FilterOptions, Topology};
use serde_json::{Value, json};

use crate::browser::{Browser, PAGE, Pointer};
use crate::fast_path::control;
use crate::page::{on_page, on_page_with, passes, token};
use crate::scenario::{eventually, listed};

/// A script: the actions of the shown rules, in the column that a narrow window has as well.
const ACTIONS: &str = "return [...document.querySelectorAll('.rows [role=row]:not(.heading)')] \
     .sort((one, other) => one.ariaRowIndex - other.ariaRowIndex).map((row) => [...row.children].map((cell) => cell.textContent).find((text) => /^[✓✗] /.test(text)))";

/// The rules of the test, before and after the move that lets the packet pass.
const CLOSED: [&str; 3] = ["✗ drop", "✓ accept", "✗ drop"];
const OPEN: [&str; 3] = ["✓ accept", "✗ drop", "✗ drop"];

/// Waits until the page shows rules with these actions, in this order.
fn until_shown(browser: &Browser, actions: [&str; 3]) {
    let script = ACTIONS.replacen("return ", "const shown = ", 1);
    let wanted = json!(actions);
    browser.until("the rules", &format!("{script}; return JSON.stringify(shown) === JSON.stringify({wanted})"));
}

/// Runs a test after the sign-in of an administrator.
fn signed_in(name: &str, size: (u32, u32), test: impl FnOnce(&Topology, &mut Filter<'_>, &Browser) + Send) {
    on_page(name, size, |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", "administer"));
        until_shown(browser, CLOSED);
        test(topology, filter, browser);
    });
}

#[test]
fn a_change_that_nobody_confirms_is_rolled_back_and_the_page_tells_it() {
    signed_in("page-rollback", (1280, 800), |topology, filter, browser| {
        browser.choose("accept");
        browser.click("Up");
        browser.until_text("dialog", "1 moved");
        browser.select("dialog select", "15s");
        browser.click("Apply");
        browser.until_text(".notice", "confirm within");
        assert!(passes(topology), "the change runs");
        until_shown(browser, OPEN);
        // The countdown runs in the page.
        let left = "Number(/confirm within (\\d+)s/.exec(document.querySelector('.notice span').textContent)?.[1])";
        let first = browser.run(&format!("return {left}")).as_u64().expect("seconds");
        assert!((1..=15).contains(&first), "{first}");
        browser.until("fewer seconds", &format!("return {left} < {first}"));
        browser.until_text(".toast.error", "Not confirmed in time: rolled back");
        let history = filter.ask(&["history"]).expect("the history");
        assert_eq!(history["revisions"][2]["origin"], "unconfirmed", "the dataplane has rolled it back: {history}");
        assert!(!passes(topology));
        until_shown(browser, CLOSED);
        let bar = "return document.querySelector('[aria-label=\"Unconfirmed change\"]').checkVisibility()";
        assert_eq!(browser.run(bar), false);
    });
}

/// Drags the rule that accepts above the one that drops, and confirms.
fn drag(name: &str, size: (u32, u32), pointer: Pointer) {
    signed_in(name, size, |topology, filter, browser| {
        browser.drag("accept", "✗ drop", pointer);
        browser.until_text("dialog .commands", "move ");
        browser.until_text("dialog", "1 moved");
        assert!(!passes(topology), "a plan changes nothing");
        browser.click("Cancel");
        until_shown(browser, CLOSED);
        browser.drag("accept", "✗ drop", pointer);
        browser.until_text("dialog", "1 moved");
        browser.click("Apply");
        until_shown(browser, OPEN);
        assert!(passes(topology));
        browser.click("Confirm");
        browser.until_text(".toast", "Confirmed");
        assert!(filter.ask(&["show", "status"]).expect("status")["confirmation"].is_null());
        assert!(passes(topology));
    });
}

#[test]
fn a_rule_that_is_dragged_with_the_mouse_changes_a_verdict() {
    drag("page-mouse", (1280, 800), Pointer::Mouse);
}

#[test]
fn a_rule_that_is_dragged_with_a_finger_changes_a_verdict() {
    drag("page-finger", (390, 800), Pointer::Touch);
}

#[test]
fn a_rule_that_is_dragged_behind_the_last_shown_one_passes_no_hidden_rule() {
    signed_in("page-filtered", (1280, 800), |_, filter, browser| {
        browser.type_into("input[type=search]", "protocol=udp");
        browser.until_text("main .toolbar", "2 of 3 rules");
        browser.drag_behind("✗ drop", "✓ accept");
        let rules = filter.ask(&["show", "rules"]).expect("rules")["rules"].clone();
        let id = |place: usize| rules[place]["id"].as_str().expect("an id").to_owned();
        browser.until_text("dialog .commands", &format!("move {} {}", id(0), id(2)));
    });
}

#[test]
fn a_narrow_window_shows_the_whole_of_a_selected_rule_and_a_filter_finds_quoted_values() {
    let rules = "/ip firewall layer7-protocol\nadd name=hello regexp=\"^hello\" comment=\"<b>first</b>\"\n/ip firewall filter\n\
                 add action=accept chain=input protocol=tcp dst-port=443 layer7-protocol=hello\n\
                 add action=drop chain=input src-address-list=\"port scanners\" in-interface=outside\n";
    on_page_with("page-narrow", (390, 800), &FilterOptions::from_rules(rules), |_, filter, browser| {
        browser.sign_in(&token(filter, "me", "read"));
        browser.choose("✗ drop");
        for text in
            ["chain=input action=drop", "src-address-list=\"port scanners\"", "in-interface=outside", "0 packets"]
        {
            browser.until_text(".detail", text);
        }
        browser.click("Layer-7 patterns");
        for text in ["hello", "^hello", "<b>first</b>"] {
            browser.until_text("dialog table", text);
        }
        browser.click("Close");
        for (line, found) in [
            ("src-address-list=\"port scanners\"", 1),
            ("src-address-list~\"t sc\"", 1),
            ("!src-address-list=\"port scanners\"", 1),
            ("src-address-list=port", 0),
        ] {
            browser.type_into("input[type=search]", line);
            browser.until_text("main .toolbar", &format!("{found} of 2 rules"));
        }
    });
}

#[test]
fn counters_of_all_rules_are_reset_after_a_question_only() {
    signed_in("page-reset", (1280, 800), |topology, filter, browser| {
        assert!(!passes(topology));
        let counted = || filter.ask(&["show", "rules"]).expect("rules")["rules"][0]["counter"]["packets"].clone();
        assert_ne!(counted(), 0);
        browser.click("Reset counters");
        browser.until_text("dialog", "all 3 rules become 0");
        browser.click("Cancel");
        assert_ne!(counted(), 0);
        browser.click("Reset counters");
        browser.until_text("dialog", "all 3 rules become 0");
        browser.click("Reset");
        eventually("the counters are reset", || counted() == 0);
    });
}

#[test]
fn an_undo_shows_its_plan_first_and_a_loss_needs_a_tick() {
    signed_in("page-undo", (1280, 800), |topology, filter, browser| {
        browser.choose("accept");
        browser.click("Up");
        browser.until_text("dialog", "1 moved");
        browser.select("dialog select", "");
        browser.click("Apply");
        until_shown(browser, OPEN);
        browser.click("Undo");
        browser.until_text("dialog", "the rules of revision 1 run");
        browser.until_text("dialog", "1 moved");
        assert!(passes(topology), "a plan changes nothing");
        browser.click("Apply");
        browser.until_text(".notice", "not confirmed");
        until_shown(browser, CLOSED);
        assert!(!passes(topology));
        browser.click("Confirm");
        browser.until_text(".toast", "Confirmed");

        // An undo that leaves no rule.
        let none = filter.path("none.rsc");
        fs::write(&none, "/ip firewall filter\n").expect("a file");
        for file in [none, filter.path("rules.rsc")] {
            control(filter, &["apply", "--force", file.to_str().expect("a path")]);
        }
        until_shown(browser, CLOSED);
        browser.click("Undo");
        browser.until_text("dialog .problem.outage", "these rules have none that runs");
        browser.click("Apply");
        browser.until_text("dialog .error-text", "these rules have none that runs");
        assert_eq!(filter.ask(&["history"]).expect("the history")["revisions"].as_array().map(Vec::len), Some(5));
        browser.run("document.querySelector('dialog input[type=checkbox]').click()");
        browser.click("Apply");
        browser.until_text(".empty", "No rules");
    });
}

#[test]
fn the_keyboard_alone_signs_in_moves_a_rule_and_confirms_it() {
    on_page("page-keys", (1280, 800), |topology, filter, browser| {
        let key = |key: Key| char::from(key);
        let focus = |script: &str| format!("const one = document.activeElement; return {script}");
        // Tab, until the focus is where it should be.
        let tab_to = |what: &str, script: &str| {
            let is_there = focus(script);
            for _ in 0..60 {
                if browser.run(&is_there) == true {
                    return;
                }
                browser.press(&[key(Key::Tab)]);
            }
            panic!("the focus does not reach {what}: {}", browser.text("body"));
        };
        let token = token(filter, "me", "administer");
        browser.open("");
        browser.until("the focus", &focus("one.name === 'token'"));
        browser.type_text(&token);
        browser.press(&[key(Key::Enter)]);
        until_shown(browser, CLOSED);
        tab_to("the rules", "one.ariaLabel === 'Rules' && one.role === 'grid'");
        browser.press(&[key(Key::Down)]);
        browser.press(&[key(Key::Down)]);
        browser.until(
            "the rule",
            "return document.querySelector('.active[aria-selected=true]').textContent.includes('accept')",
        );
        browser.press(&[key(Key::Alt), key(Key::Up)]);
        browser.until_text("dialog", "1 moved");
        assert!(!passes(topology));
        tab_to("the button", "one.textContent === 'Apply'");
        browser.press(&[key(Key::Enter)]);
        until_shown(browser, OPEN);
        assert!(passes(topology));
        browser.until("the rules have the focus again", &focus("one.role === 'grid'"));
        tab_to("the button", "one.textContent === 'Confirm'");
        browser.press(&[key(Key::Enter)]);
        browser.until_text(".toast", "Confirmed");
        assert!(filter.ask(&["show", "status"]).expect("status")["confirmation"].is_null());
        assert!(passes(topology));
    });
}

/// The port of the other pages, on loopback of the filter.
const OTHER: u16 = 8099;

/// Serves an empty page for every request. Returns the heads of all requests so far. It runs until the test process ends.
fn serve_other_page(topology: &Topology) -> Arc<Mutex<Vec<String>>> {
    let listener = topology.filter.within(|| Ok(TcpListener::bind(("127.0.0.1", OTHER))?)).expect("the port is free");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    thread::spawn(move || {
        // A browser also opens connections on which it sends nothing.
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || answer_with_a_page(stream, &kept));
        }
    });
    heads
}

/// Reads one request, keeps its head, and answers with a page.
fn answer_with_a_page(stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(&stream);
    let head: Vec<_> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let body = head
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = body.map_or(0, |(_, length)| length.trim().parse().expect("a length"));
    // A close with unread bytes resets the connection, and the answer can be lost.
    _ = reader.read_exact(&mut vec![0; length]);
    heads.lock().expect("no panic").push(head.join("\n"));
    let page = "<!doctype html><title>other</title><p>other";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
    _ = write!(&stream, "{head}Connection: close\r\n\r\n{page}");
}

/// A script: posts to an address with the cookies of the browser, and returns the type of the answer, or the error.
fn post(address: &str, more: &str) -> String {
    format!(
        "return fetch({}, {{ method: 'POST', credentials: 'include', body: '{{\"address\": \"192.0.2.66\"}}', {more} }}) \
         .then((answer) => answer.type + (answer.status || ''), (error) => error.name)",
        json!(address)
    )
}

#[test]
fn a_page_of_another_origin_changes_nothing_and_does_not_send_the_session() {
    signed_in("page-foreign", (1280, 800), |topology, filter, browser| {
        let heads = serve_other_page(topology);
        let address = format!("{PAGE}api/v1/lists/office");
        control(filter, &["list", "add", "office", "192.0.2.1"]);
        // Another site, and another port of the same host, which a browser counts as the same site.
        for (host, with_cookie, code) in [("localhost", false, "unauthenticated"), ("127.0.0.1", true, "forbidden")] {
            let other = format!("http://{host}:{OTHER}/");
            browser.visit(&other);
            let opaque = "mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }";
            let refused = || {
                let reason = ["reason=\"authentication\""];
                filter.metric("knockplane_control_api_requests_refused_total", &reason).expect("a metric")
            };
            let before = refused();
            assert_eq!(browser.run(&post(&address, opaque)), "TypeError", "{host}: the answer is not for others");
            assert_eq!(refused(), before + 1.0, "{host}: the request arrived, and was refused");
            let with_headers = "headers: { 'Content-Type': 'application/json', 'X-Knockplane-CSRF': 'x' }";
            assert_eq!(
                browser.run(&post(&address, with_headers)),
                "TypeError",
                "{host}: the API permits no such request"
            );
            assert!(!listed(filter, "office", "192.0.2.66"), "{host}");
            // What the browser sends to the host of the page, a server there can tell.
            let sent = browser.run(&post(&format!("http://127.0.0.1:{OTHER}/take"), opaque));
            assert!(sent == "opaque" || sent == "basic200", "{sent}");
            let heads = heads.lock().expect("no panic").clone();
            let head = heads.iter().rfind(|head| head.starts_with("POST /take")).expect("a request");
            assert_eq!(head.contains("knockplane-9480="), with_cookie, "{host}: {head}");
            // A form, whose answer is a page: the API tells why it refuses.
            browser.run(&format!(
                "const form = document.createElement('form'); \
                 Object.assign(form, {{ method: 'POST', enctype: 'text/plain', action: {} }}); \
                 const field = document.createElement('input'); \
                 Object.assign(field, {{ name: '{{\"address\": \"192.0.2.66\", \"comment\": \"', value: '\"}}' }}); \
                 form.append(field); document.body.append(form); form.submit()",
                json!(address)
            ));
            browser.until_text("body", &format!("\"code\":\"{code}\""));
            assert!(!listed(filter, "office", "192.0.2.66"), "{host}");
        }
        // The same request of the page itself is carried out: the session has not ended.
        browser.open("");
        until_shown(browser, CLOSED);
        let csrf =
            browser.run("return fetch('/api/v1/session').then((answer) => answer.json()).then(({ csrf }) => csrf)");
        let with_headers = format!("headers: {{ 'Content-Type': 'application/json', 'X-Knockplane-CSRF': {csrf} }}");
        assert_eq!(browser.run(&post(&address, &with_headers)), "basic200");
        assert!(listed(filter, "office", "192.0.2.66"));
        assert_ne!(csrf, Value::Null);
    });
}
