//! The web page, in a browser.

use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, Folder, Topology};

use crate::browser::{Browser, PAGE, with_browser};
use crate::fast_path::{PORT, receiver};
use crate::scenario::{eventually, udp_to, with};

/// The packet of the tests is dropped by the first of two rules.
pub(crate) fn rules() -> String {
    format!(
        "/ip firewall filter
add action=drop chain=input protocol=udp dst-port={PORT} comment=closed
add action=accept chain=input protocol=udp dst-port={PORT} comment=open
add action=drop chain=input
"
    )
}

/// Runs a test with the page, in a window of this size.
pub(crate) fn on_page(name: &str, size: (u32, u32), test: impl FnOnce(&Topology, &mut Filter<'_>, &Browser) + Send) {
    on_page_with(name, size, &FilterOptions::from_rules(&rules()), test);
}

/// Runs a test with the page of a filter with these options.
pub(crate) fn on_page_with(
    name: &str,
    size: (u32, u32),
    options: &FilterOptions,
    test: impl FnOnce(&Topology, &mut Filter<'_>, &Browser) + Send,
) {
    let folder = Folder::make(&format!("kp{}-{name}", std::process::id())).expect("a folder");
    let page = format!("[control.api]\npage = true\ntokens = \"{}/tokens.json\"\n", folder.0.display());
    let sections = page + &options.sections;
    with(&FilterOptions { sections, ..options.clone() }, |topology, filter| {
        with_browser(topology, &folder.0, size, |browser| test(topology, filter, browser));
    });
}

pub(crate) fn token(filter: &Filter<'_>, name: &str, role: &str) -> String {
    let made = filter.knockctl(&["token", "new", name, "--role", role, "--expires", "1d"]).expect("knockctl");
    assert!(made.ok(), "{made:?}");
    made.stdout.trim().to_owned()
}

/// Whether a packet arrives at the server.
pub(crate) fn passes(topology: &Topology) -> bool {
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
        browser.until_text("dialog", "The rules and settings before the change run at once");
        browser.click("Undo now");
        browser.until_text(".toast", "Undone by me");
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
    on_page("page-texts", (390, 800), |topology, filter, browser| {
        browser.open("");
        browser.type_into("input[name=token]", "kp_wrong");
        browser.click("Sign in");
        browser.until_text("#sign-in-error", "unknown or revoked");
        // Texts are no markup.
        let text = "<img src=x onerror=\"document.title='broken'\">\u{202e}'\" $ ?";
        let long = format!("<b>{}", "x".repeat(4_093));
        let listed =
            filter.knockctl(&["list", "add", "<b>office</b>", "192.0.2.1", "--comment", text]).expect("knockctl");
        assert!(listed.ok(), "{listed:?}");
        for (rule, comment) in [("0", text), ("1", &long)] {
            let commented = filter.knockctl(&["rule", "comment", rule, comment]).expect("knockctl");
            assert!(commented.ok(), "{commented:?}");
        }
        assert_eq!(browser.console(topology).len(), 1, "the wrong token is the only error");
        let reader = token(filter, "reader", "read");
        browser.sign_in(&reader);
        browser.until_text(".grid .heading", text);
        browser.until_text(".grid .heading", &long);
        let buttons =
            browser.run("return [...document.querySelectorAll('main .toolbar button')].map((one) => one.textContent)");
        assert_eq!(buttons, serde_json::json!(["all", "input", "Layer-7 patterns"]), "the role read changes nothing");
        for (view, shown) in [
            ("rules", "5000"),
            ("lists", "<b>office</b>"),
            ("doors", "no doors"),
            ("live", "No event"),
            ("explain", "Packet"),
            ("import", "Check"),
            ("status", "well"),
        ] {
            browser.open(&format!("#/{view}"));
            browser.until_text("main", shown);
            let markup = "return document.querySelectorAll('main img, main b, main script').length";
            assert_eq!(browser.run(markup), 0, "{view}");
            assert_eq!(
                browser.run("return document.documentElement.scrollWidth <= innerWidth"),
                true,
                "{view} is wide"
            );
            for theme in ["light", "dark"] {
                browser.run(&format!("document.documentElement.dataset.theme = '{theme}'"));
                assert_eq!(browser.violations(), [""; 0], "{view}, {theme}");
            }
        }
        assert_eq!(browser.run("return document.title.includes('broken')"), false);
        let foreign = browser.run(&format!(
            "return performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('{PAGE}'))"
        ));
        assert_eq!(foreign, serde_json::json!([]), "no request to another host");
        assert_eq!(browser.console(topology), [""; 0], "no error, and nothing that the policy refused");
        // The API refuses what the page does not offer.
        let status = browser.run(
            "return (async () => { \
             const session = await (await fetch('/api/v1/session')).json(); \
             const headers = { 'Content-Type': 'application/json', 'X-Knockplane-CSRF': session.csrf }; \
             const post = (headers) => fetch('/api/v1/lists/office', { method: 'POST', headers, body: '{\"address\": \"192.0.2.2\"}' }); \
             return [(await post(headers)).status, (await post({ ...headers, 'X-Knockplane-CSRF': 'wrong' })).status] })()",
        );
        assert_eq!(status, serde_json::json!([403, 403]));
        // A revoked token ends the session: the page tells so by itself, and asks for a token.
        let revoked = filter.knockctl(&["token", "revoke", "reader"]).expect("knockctl");
        assert!(revoked.ok(), "{revoked:?}");
        browser.until_text("#sign-in-error", "the session has ended: open a link");
        browser.until("the sign-in", "return document.querySelector('input[name=token]') !== null");
        assert_eq!(browser.run("return document.querySelector('header.top')"), serde_json::Value::Null);
    });
}

#[test]
fn an_import_shows_its_problems_and_the_page_outlives_a_kill_of_the_control_process() {
    on_page("page-import", (1280, 800), |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", "administer"));
        browser.open("#/import");
        let generation = filter.ask(&["show", "rules"]).expect("rules")["generation"].clone();
        // Rules that would leave no rule: the plan tells it, and they are applied with a tick only.
        browser.type_into("textarea", "/ip firewall filter\n");
        browser.click("Check");
        browser.until_text("main", "Valid: 0 rules");
        browser.click("Plan and apply");
        browser.until_text("dialog .problem.outage", "these rules have none that runs");
        browser.click("Apply");
        browser.until_text("dialog .error-text", "these rules have none that runs");
        assert_eq!(filter.ask(&["show", "rules"]).expect("rules")["generation"], generation);
        browser.click("Cancel");
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
