//! The doors and the lists in the web page.

use knockplane_tests::{CLIENT, FilterOptions};
use serde_json::json;

use crate::page::{on_page_with, token};
use crate::scenario::{eventually, knock, listed, serve_tcp, tcp_echo};

const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "10m"
"#;

/// The names of the buttons above the tables.
const BUTTONS: &str = "return [...document.querySelectorAll('main .toolbar button')].map((one) => one.textContent)";

#[test]
fn the_page_follows_a_knock_and_closes_the_door() {
    let options = FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") };
    on_page_with("page-doors", (1280, 800), &options, |topology, filter, browser| {
        serve_tcp(topology, 8080);
        browser.sign_in(&token(filter, "reader", "read"));
        browser.open("#/doors");
        browser.until_text("[aria-label=Doors]", "tcp/8080");
        assert_eq!(browser.run(BUTTONS), json!(["State of the source"]), "the role read closes no door");
        browser.click("Sign out");
        browser.until("signed out", "return document.querySelector('input[name=token]') !== null");
        browser.sign_in(&token(filter, "me", "operate"));
        browser.open("#/doors");
        browser.until_text("[aria-label='Doors']", "echo");
        let at = "[aria-label='Sources at doors']";
        knock(topology, "7000:tcp");
        browser.until_text(at, "step 1 of 3, next: udp/4321");
        knock(topology, "4321:udp");
        browser.until_text(at, "step 2 of 3, next: tcp/1234 syn");
        browser.until_text("[aria-label='Events at doors']", "took step 2 of 3");
        // Another packet in between: the knock starts over, and the page tells the reason.
        knock(topology, "9000:udp");
        browser.until_text("[aria-label='Events at doors']", "another packet arrived between the steps");
        assert!(!listed(filter, "door-echo", CLIENT));
        knock(topology, "7000:tcp 4321:udp 1234:tcp");
        browser.until_text(at, "is in");
        browser.until_text("[aria-label='Events at doors']", "door opened by a knock");
        eventually("the door is open", || tcp_echo(topology, 8080));

        browser.choose("is in");
        browser.click("State of the source");
        browser.until_text("dialog", "The door is open to");
        browser.until_text("dialog", "another packet arrived between the steps");
        browser.until_text("dialog", "port 9000");
        browser.click("Close");
        browser.click("Close the door");
        browser.until_text("dialog p", &format!("Close door echo for {CLIENT}?"));
        assert!(listed(filter, "door-echo", CLIENT), "a question closes nothing");
        browser.click("Close the door");
        browser.until_text("[aria-label='Events at doors']", "door closed by an operator");
        assert!(!listed(filter, "door-echo", CLIENT));
        assert!(!tcp_echo(topology, 8080));
        browser.until(
            "no source is in",
            &format!("return !document.querySelector(\"{at}\").textContent.includes('is in')"),
        );
    });
}

#[test]
fn the_steps_of_doors_are_shown_without_their_passphrases() {
    let secret = "[[door]]
name = \"secret\"
knock = ['tcp/7001 syn', 'udp/4321 \"open sesame\"', 'icmp size=128']
close = ['udp/4322 \"shut sesame\"']
for = \"1m\"
";
    let sections = format!("{DOOR}{secret}");
    let options = FilterOptions { sections, ..FilterOptions::from_rules("/ip firewall filter\n") };
    on_page_with("page-steps", (1280, 800), &options, |_, filter, browser| {
        let shown = filter.ask(&["show", "doors"]).expect("doors");
        assert_eq!(shown["doors"][0]["knock"], json!(["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]), "{shown}");
        assert_eq!((&shown["doors"][0]["close"], &shown["doors"][0]["opens"]), (&json!([]), &json!(["tcp/8080"])));
        assert_eq!((&shown["doors"][1]["opens"], &shown["doors"][1]["steps"]), (&json!([]), &json!([0, 0, 0])));
        for role in ["read", "administer"] {
            browser.sign_in(&token(filter, role, role));
            browser.open("#/doors");
            let table = "[aria-label='Doors']";
            browser.until_text(table, "1. tcp/7000 syn  2. udp/4321  3. tcp/1234 syn");
            browser.until_text(table, "1. tcp/7001 syn  2. udp/4321 with its passphrase  3. icmp size=128");
            browser.until_text(table, "1. udp/4322 with its passphrase");
            browser.until_text(table, "everything");
            let answer = browser.run("return fetch('/api/v1/doors').then((answer) => answer.json())");
            assert_eq!(answer, shown, "the API answers as the command, with the role {role}");
            assert!(!answer.to_string().contains("sesame"), "{answer}");
            browser.click("Sign out");
            browser.until("signed out", "return document.querySelector('input[name=token]') !== null");
        }
    });
}

#[test]
fn entries_are_added_extended_and_removed_in_the_page() {
    let options = FilterOptions { list_capacity: 20_000, ..FilterOptions::from_rules("/ip firewall filter\n") };
    on_page_with("page-lists", (390, 800), &options, |_, filter, browser| {
        // Names with the signs of markup and of scripts.
        let list = "<i>'staff\"</i>";
        let comment = "<img src=x onerror=\"document.title='broken'\">";
        browser.sign_in(&token(filter, "me", "operate"));
        browser.open("#/lists");
        for (address, timeout) in [("192.0.2.0/29", "20m"), ("192.0.2.77", "")] {
            browser.click("Add");
            browser.type_into("dialog input[name=list]", list);
            browser.type_into("dialog input[name=address]", address);
            browser.type_into("dialog input[name=timeout]", timeout);
            browser.type_into("dialog input[name=comment]", comment);
            browser.click("Add");
            browser.until_text("[aria-label='Entries of address lists']", address);
        }
        browser.until_text("[aria-label='Entries of address lists']", comment);
        browser.until_text("[aria-label='Address lists']", list);
        assert!(listed(filter, list, "192.0.2.0/29") && listed(filter, list, "192.0.2.77"));

        browser.click("Add");
        browser.type_into("dialog input[name=list]", list);
        browser.type_into("dialog input[name=address]", "nonsense");
        browser.click("Add");
        browser.until_text("dialog .error-text", "`nonsense` is not an address");
        browser.click("Cancel");

        browser.choose("192.0.2.0/29");
        browser.click("Extend");
        browser.type_into("dialog input[name=timeout]", "3h");
        browser.click("Extend");
        browser.until_text("[aria-label='Entries of address lists']", "2h59m");
        browser.click("Remove");
        browser.until_text("dialog p", &format!("Remove 192.0.2.0/29 of {list}?"));
        assert!(listed(filter, list, "192.0.2.0/29"), "a question removes nothing");
        browser.click("Remove");
        browser.until_text(".toast", "Removed");
        assert!(!listed(filter, list, "192.0.2.0/29") && listed(filter, list, "192.0.2.77"));
        // An entry that has ended meanwhile is removed as well.
        browser.choose("192.0.2.77");
        browser.click("Remove");
        browser.until_text("dialog p", "Remove 192.0.2.77");
        let ended = filter.knockctl(&["list", "remove", list, "192.0.2.77"]).expect("knockctl");
        assert!(ended.ok(), "{ended:?}");
        browser.click("Remove");
        browser.until_text(".toast", "Removed 192.0.2.77");
        assert_eq!(browser.run("return document.querySelectorAll('main img, main i, .toast i').length"), 0);
        assert_eq!(browser.run("return document.title.includes('broken')"), false);

        // Pages of a long list, and a search in all of it.
        let many: String = (0..2_500)
            .map(|at| format!("add list=many address=10.0.{}.{} comment=n{at}\n", at / 250, at % 250))
            .collect();
        let file = filter.path("many.rsc");
        std::fs::write(&file, format!("/ip firewall address-list\n{many}")).expect("a file");
        let imported = filter.knockctl(&["list", "import", file.to_str().expect("a path")]).expect("knockctl");
        assert!(imported.ok(), "{imported:?}");
        browser.open("#/lists/many");
        browser.until_text("[role=status]", "1–1\u{202f}000 of 2\u{202f}500");
        browser.click("Next page");
        browser.until_text("[role=status]", "1\u{202f}001–2\u{202f}000 of");
        browser.click("Next page");
        browser.until_text("[role=status]", "2\u{202f}001–2\u{202f}500 of");
        browser.until_text("[aria-label='Entries of address lists']", "10.0.8.0");
        browser.click("Previous page");
        browser.until_text("[aria-label='Entries of address lists']", "10.0.4.0");
        browser.type_into("input[aria-label=Comment]", "n2499");
        browser.until_text("[aria-label='Entries of address lists']", "10.0.9.249");
        assert_eq!(
            browser.run("return document.documentElement.scrollWidth <= innerWidth"),
            true,
            "it fits 390 pixels"
        );
    });
}
