//! The web page, in a browser.

use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, Folder, Topology};

use crate::browser::{Browser, PAGE, with_browser};
use crate::fast_path::{PORT, receiver};
use crate::scenario::{eventually, udp_to, with};

/// The packet of the tests is dropped by the first of two rules.
fn rules() -> String {
    format!(
        "/ip firewall filter
add action=drop chain=input protocol=udp dst-port={PORT} comment=closed
add action=accept chain=input protocol=udp dst-port={PORT} comment=open
add action=drop chain=input
"
    )
}

/// Runs a test with the page, in a window of this size.
fn on_page(name: &str, size: (u32, u32), test: impl FnOnce(&Topology, &mut Filter<'_>, &Browser) + Send) {
    let folder = Folder::make(&format!("kp{}-{name}", std::process::id())).expect("a folder");
    let sections = format!("[control.api]\npage = true\ntokens = \"{}/tokens.json\"\n", folder.0.display());
    with(&FilterOptions { sections, ..FilterOptions::from_rules(&rules()) }, |topology, filter| {
        with_browser(topology, &folder.0, size, |browser| test(topology, filter, browser));
    });
}

fn token(filter: &Filter<'_>, name: &str, role: &str) -> String {
    let made = filter.knockctl(&["token", "new", name, "--role", role, "--expires", "1d"]).expect("knockctl");
    assert!(made.ok(), "{made:?}");
    made.stdout.trim().to_owned()
}

/// Whether a packet arrives at the server.
fn passes(topology: &Topology) -> bool {
    let receiver = receiver(topology);
    udp_to(topology, PORT).send(b"hello").expect("sent");
    receiver.recv(&mut [0; 16]).is_ok()
}

#[test]
fn a_rule_that_is_moved_in_the_page_changes_a_verdict_until_it_is_undone() {
    on_page("page-rules", (1280, 800), |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", "administer"));
        assert!(!passes(topology));
        browser.choose("accept");
        browser.click("Up");
        browser.until_text("dialog", "1 moved");
        assert!(!passes(topology), "a plan changes nothing");
        browser.click("Apply");
        browser.until_text(".notice", "not confirmed");
        assert!(passes(topology));
        browser.click("Undo now");
        browser.until_text("dialog", "The rules of the revision before run at once");
        browser.click("Undo now");
        browser.until_text(".toast", "Undone");
        assert!(!passes(topology));
        // Another session changes the rules behind the back of this one.
        browser.run(
            "const get = window.fetch; \
             window.fetch = (url, ...more) => (String(url).endsWith('/rules') ? new Promise(() => {}) : get(url, ...more))",
        );
        thread::sleep(Duration::from_secs(2));
        let other = filter.knockctl(&["rule", "comment", "0", "another"]).expect("knockctl");
        assert!(other.ok(), "{other:?}");
        browser.choose("accept");
        browser.click("Disable");
        browser.until_text(".toast.error", "revision");
        let kept = filter.ask(&["show", "rules"]).expect("rules");
        assert!(kept["rules"].as_array().expect("rules").iter().all(|rule| rule["disabled"] == false), "{kept}");
    });
}

#[test]
fn sign_in_roles_and_texts_of_others() {
    on_page("page-texts", (390, 800), |_, filter, browser| {
        browser.open("");
        browser.type_into("input[name=token]", "kp_wrong");
        browser.click("Sign in");
        browser.until_text("#sign-in-error", "unknown or revoked");
        // Texts are no markup.
        let text = "<img src=x onerror=\"document.title='broken'\">\u{202e}'\" $ ?";
        let long = "x".repeat(4_000);
        for comment in [text, &long] {
            let added = filter.knockctl(&["list", "add", "<b>office</b>", "192.0.2.1", "--comment", comment]);
            drop(added.expect("knockctl"));
        }
        let commented = filter.knockctl(&["rule", "comment", "0", text]).expect("knockctl");
        assert!(commented.ok(), "{commented:?}");
        browser.sign_in(&token(filter, "reader", "read"));
        browser.until_text(".grid .heading", text);
        let buttons =
            browser.run("return [...document.querySelectorAll('main .toolbar button')].map((one) => one.textContent)");
        assert_eq!(buttons, serde_json::json!(["all", "input"]), "the role read changes nothing");
        for view in ["rules", "lists", "doors", "live", "explain", "import", "status"] {
            browser.open(&format!("#/{view}"));
            browser.until(view, "return document.querySelector('main > *') !== null");
            thread::sleep(Duration::from_millis(300));
        }
        let foreign = browser.run(&format!(
            "return performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('{PAGE}'))"
        ));
        assert_eq!(foreign, serde_json::json!([]), "no request to another host");
        assert_eq!(browser.run("return document.querySelectorAll('main img, main b, main script').length"), 0);
        assert_eq!(browser.run("return document.title.includes('broken')"), false);
        assert_eq!(
            browser.run("return document.documentElement.scrollWidth <= innerWidth"),
            true,
            "it fits 390 pixels"
        );
        // A revoked token ends the session.
        let revoked = filter.knockctl(&["token", "revoke", "reader"]).expect("knockctl");
        assert!(revoked.ok(), "{revoked:?}");
        browser.until("the sign-in", "return document.querySelector('input[name=token]') !== null");
    });
}

#[test]
fn an_import_shows_its_problems_and_the_page_outlives_a_kill_of_the_control_process() {
    on_page("page-import", (1280, 800), |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", "administer"));
        browser.open("#/import");
        let generation = filter.ask(&["show", "rules"]).expect("rules")["generation"].clone();
        browser.type_into("textarea", "/ip firewall filter\nadd chain=input protocol=tcp dst-port=x\n");
        browser.click("Check");
        browser.until_text("main", "The rules have errors");
        browser.until_text("main td", "2:39");
        assert_eq!(browser.run("return document.querySelector('main button.primary').disabled"), true);
        assert_eq!(filter.ask(&["show", "rules"]).expect("rules")["generation"], generation);
        browser.type_into("textarea", "/ip firewall filter\nadd chain=input action=accept protocol=udp\n");
        browser.click("Check");
        browser.until_text("main", "Valid: 1 rules");
        browser.click("Plan and apply");
        browser.until_text("dialog", "removed");
        browser.click("Apply");
        browser.until_text(".notice", "not confirmed");
        assert!(passes(topology));
        browser.click("Confirm");
        eventually("it is confirmed", || filter.ask(&["show", "status"]).expect("status")["confirmation"].is_null());

        filter.control.kill().expect("killed");
        browser.until_text(".notice.error", "does not answer");
        filter.restart_control().expect("started");
        browser.until(
            "the notice is gone",
            "return ![...document.querySelectorAll('.notice.error')].some((one) => one.checkVisibility())",
        );
        browser.open("#/rules");
        browser.until_text(".grid", "udp");
    });
}
