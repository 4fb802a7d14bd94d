//! Sign-in at the web page with the link of `knockctl page`, and the end of sessions while the page is open.

use knockplane_tests::{Filter, FilterOptions};
use serde_json::{Value, json};

use crate::browser::{Browser, PAGE};
use crate::page::on_page_with;

/// Two rules, so that one can be moved.
const RULES: &str = "/ip firewall filter
add action=drop chain=input protocol=udp comment=first
add action=accept chain=input protocol=udp comment=second
";

fn on_page(name: &str, test: impl FnOnce(&mut Filter<'_>, &Browser) + Send) {
    on_page_with(name, (1280, 800), &FilterOptions::from_rules(RULES), |_, filter, browser| test(filter, browser));
}

/// The fragment of a new link, with its secret.
fn link(filter: &Filter<'_>, arguments: &[&str]) -> String {
    let made = filter.knockctl(&[&["page"], arguments].concat()).expect("knockctl");
    assert!(made.ok() && made.stderr.contains(&format!("the web page is at {PAGE}")), "{made:?}");
    made.stdout.trim().strip_prefix(PAGE).unwrap_or_else(|| panic!("{made:?}")).to_owned()
}

fn until_signed_in_as(browser: &Browser, role: &str) {
    browser.until_text(".account", &format!("user 0 {role}"));
}

#[test]
fn a_link_signs_in_once_and_changes_have_the_user_id() {
    on_page("page-link", |filter, browser| {
        let link = link(filter, &[]);
        let secret = link.strip_prefix("#link=").expect("a secret");
        browser.open(&link);
        until_signed_in_as(browser, "administer");
        let address = browser.run("return location.href");
        assert_eq!(address, json!(format!("{PAGE}#/rules")), "the address has no secret");
        assert_eq!(browser.run(&format!("return document.documentElement.outerHTML.includes('{secret}')")), false);

        browser.choose("accept");
        browser.click("Up");
        browser.until_text("dialog", "1 moved");
        browser.click("Apply");
        browser.until_text(".notice", "not confirmed");
        browser.click("Confirm");
        let history = filter.ask(&["history"]).expect("history");
        let last = history["revisions"].as_array().and_then(|revisions| revisions.last()).expect("a revision");
        let by = [&last["origin"], &last["uid"], &last["token"], &last["page"]];
        assert_eq!(by, [&json!("edit"), &json!(0), &Value::Null, &json!(true)], "{last}");
        let table = filter.knockctl(&["history"]).expect("knockctl").stdout;
        assert!(table.lines().any(|line| line.contains(" 0 (page) ") && line.contains("edit")), "{table}");

        // The same link again, in the window of the page: it signs nobody in, and the session goes on.
        browser.open(&link);
        browser.until_text(".toast.error", "the link is wrong, was used already, or is older than 60 s");
        browser.until_text(".toast.error", "run `knockctl page` on the host again");
        until_signed_in_as(browser, "administer");
        browser.click("Sign out");
        browser.until("the sign-in", "return document.querySelector('input[name=token]') !== null");
        browser.open(&link);
        browser.until_text("#sign-in-error", "the link is wrong, was used already");
        assert_eq!(browser.run("return location.href.includes('link=')"), false);

        let log = filter.log();
        let signed_in: Vec<_> = log.lines().filter(|line| line.contains("operator.action=sign-in")).collect();
        assert!(
            matches!(signed_in[..], [line] if line.contains("operator.by.uid=0") && line.contains("operator.by.page=true")),
            "{signed_in:?}"
        );
        assert_eq!(log.matches("reason=\"invalid link\"").count(), 2, "{log}");
        assert!(!log.contains(secret), "{log}");
    });
}

#[test]
fn a_link_has_the_wanted_role_until_an_operator_ends_its_session() {
    on_page("page-roles", |filter, browser| {
        browser.open(&link(filter, &["--role", "read"]));
        until_signed_in_as(browser, "read");
        browser.until_text(".grid", "second");
        assert_eq!(
            browser.run("return [...document.querySelectorAll('button')].some((one) => one.textContent === 'Up')"),
            false
        );
        // A link in the window of the page replaces the session.
        browser.open(&link(filter, &["--role", "operate"]));
        until_signed_in_as(browser, "operate");
        let ended = filter.ask(&["page", "--sign-out"]).expect("knockctl");
        assert_eq!(ended["ended"], 2, "{ended}");
        browser.until_text("#sign-in-error", "the session has ended: open a link of `knockctl page`");
    });
}

/// A token that is valid for this time.
fn token(filter: &Filter<'_>, name: &str, expires: &str) -> String {
    let made =
        filter.knockctl(&["token", "new", name, "--role", "administer", "--expires", expires]).expect("knockctl");
    assert!(made.ok(), "{made:?}");
    made.stdout.trim().to_owned()
}

#[test]
fn a_token_that_ends_while_the_page_is_open_leads_to_the_sign_in_which_tells_what_is_lost() {
    on_page("page-ends", |filter, browser| {
        for (name, expires, enters) in [("expires", "15s", true), ("revoked", "1d", false)] {
            browser.sign_in(&token(filter, name, expires));
            browser.open("#/lists");
            browser.until_text("main .toolbar", "Add");
            if enters {
                browser.click("Add");
                browser.type_into("dialog input", "office");
            } else {
                assert!(filter.knockctl(&["token", "revoke", name]).expect("knockctl").ok());
            }
            browser
                .until_text("#sign-in-error", "the session has ended: open a link of `knockctl page`, or sign in with");
            let lost = browser.text("#sign-in-error").contains("What was entered and not applied is lost.");
            assert_eq!(lost, enters, "{name}");
            assert_eq!(browser.run("return document.querySelector('dialog, main .toolbar')"), Value::Null);
            // The next sign-in shows the view that the session had.
            browser.type_into("input[name=token]", &token(filter, &format!("{name}-again"), "1d"));
            browser.click("Sign in");
            browser.until_text("main .toolbar", "Add");
            assert_eq!(browser.run("return location.hash"), "#/lists");
            browser.click("Sign out");
        }
        let lists = filter.knockctl(&["show", "lists"]).expect("knockctl").stdout;
        assert!(!lists.contains("office"), "nothing was applied: {lists}");
    });
}
