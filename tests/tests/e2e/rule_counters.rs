//! The counters of rules in columns: through the API, and in the web page, which reads them each second.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, Folder, run};
use serde_json::{Value, json};

use crate::fast_path::PORT;
use crate::page::{on_page_with, token};
use crate::scenario::{eventually, udp_to, with};

fn rules() -> String {
    format!(
        "/ip firewall filter
add action=passthrough chain=input protocol=udp comment=counted
add action=drop chain=input protocol=udp dst-port={PORT} comment=closed
add action=drop chain=input
"
    )
}

const DOOR: &str =
    "\n[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"tcp/8000\"]\nopens = [\"tcp/22\"]\nfor = \"1m\"\n";

/// Adds a door to the configuration.
fn add_door(filter: &Filter<'_>) {
    let file = filter.path("knockplane.toml");
    let configuration = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, configuration + DOOR).expect("written");
    let reloaded = filter.knockctl(&["reload"]).expect("knockctl");
    assert!(reloaded.ok(), "{reloaded:?}");
}

/// The output of curl for a request to the read-only socket.
fn curl(folder: &Folder, path: &str, options: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"]).arg(folder.0.join("read.sock"));
    let output = run(command.args(options).arg(format!("http://localhost/api/v1/{path}"))).expect("curl");
    assert!(output.ok(), "{output:?}");
    output.stdout
}

/// The status and the answer of a request.
fn get(folder: &Folder, path: &str) -> (u16, Value) {
    let answer = curl(folder, path, &["--write-out", "\n%{http_code}"]);
    let (body, status) = answer.rsplit_once('\n').expect("a status");
    (status.parse().expect("a status"), serde_json::from_str(body).expect("JSON"))
}

#[test]
fn columns_are_the_counters_of_the_rules_that_the_client_knows_and_of_no_others() {
    let folder = Folder::make(&format!("kp-counters-{}", std::process::id())).expect("a folder");
    let sections = format!("read-socket = \"{}/read.sock\"\n", folder.0.display());
    let options = FilterOptions { sections, ..FilterOptions::from_rules(&rules()) };
    with(&options, |topology, filter| {
        let read = || get(&folder, "rules").1;
        let counters =
            |order: &Value| get(&folder, &format!("rules/counters?order={}", order.as_str().expect("an order")));
        let before = read();
        let first = counters(&before["order"]).1;
        let client = udp_to(topology, PORT);
        for _ in 0..7 {
            client.send(b"hello").expect("sent");
        }
        eventually("the packets are counted", || counters(&before["order"]).1["packets"][0] == 7);
        let (status, now) = counters(&before["order"]);
        let column = |of: &str| {
            read()["rules"].as_array().expect("rules").iter().map(|rule| rule["counter"][of].clone()).collect()
        };
        let columns: [Vec<Value>; 2] = [column("packets"), column("bytes")];
        assert_eq!((status, &now["order"], &now["version"]), (200, &before["order"], &json!(1)));
        assert_eq!((&now["packets"], &now["bytes"]), (&json!(columns[0]), &json!(columns[1])));
        assert_eq!((&now["packets"], &now["bytes"][1]), (&json!([7, 7, 0]), &json!(7 * 33)));
        assert!(now["uptime_seconds"].as_f64() > first["uptime_seconds"].as_f64(), "{first} {now}");

        let size = |options: &[&str]| {
            let options = [options, &["--output", "/dev/null", "--write-out", "%{size_download}"]].concat();
            curl(&folder, "rules", &options).parse::<u32>().expect("a size")
        };
        assert!(size(&["--header", "Accept-Encoding: gzip"]) < size(&[]), "a client that accepts gzip gets it");

        // A reload adds the rules of a door.
        add_door(filter);
        let (status, refused) = counters(&before["order"]);
        assert_eq!((status, &refused["code"]), (409, &json!("other-rules")), "{refused}");
        let after = read();
        let rules = after["rules"].as_array().expect("rules");
        let place = rules.iter().position(|rule| rule["comment"] == "counted").expect("the rule");
        assert!(place > 0, "rules of doors are before those of the file");
        let (status, now) = counters(&after["order"]);
        let at = |place: usize| (&now["packets"][place], &now["bytes"][place]);
        assert_eq!((status, at(0), at(place)), (200, (&json!(0), &json!(0)), (&json!(7), &json!(7 * 33))), "{now}");
        assert_eq!(now["packets"].as_array().map(Vec::len), Some(rules.len()));

        // The first generation after a restart is another one than that before.
        filter.restart_dataplane().expect("it starts");
        let (status, refused) = counters(&before["order"]);
        assert_eq!((status, &refused["code"]), (409, &json!("other-rules")), "{refused}");
        assert_eq!(read()["generation"], before["generation"]);
    });
}

#[test]
fn the_page_reads_counters_alone_until_other_rules_run() {
    on_page_with("page-counters", (1280, 800), &FilterOptions::from_rules(&rules()), |topology, filter, browser| {
        browser.sign_in(&token(filter, "me", "operate"));
        browser.until_text(".grid .heading", "counted");
        let requests = |path: &str| {
            let found = browser.run(&format!(
                "return performance.getEntriesByType('resource').filter((one) => new URL(one.name).pathname === '/api/v1/{path}').length"
            ));
            found.as_u64().expect("a number")
        };
        // The text of a cell of the row with the action `drop` and a port.
        let cell = |column: &str| {
            format!(
                "(() => {{ const titles = [...document.querySelectorAll('.grid .head > *')].map((one) => one.textContent); \
                 const row = [...document.querySelectorAll('.rows [role=row]')].find((one) => one.textContent.includes('{PORT}')); \
                 return row?.children[titles.indexOf('{column}')]?.textContent; }})()"
            )
        };
        let client = udp_to(topology, PORT);
        for _ in 0..5 {
            client.send(b"hello").expect("sent");
        }
        browser.until("five packets", &format!("return {} === '5'", cell("Packets")));
        // A packet every 10 ms or more: up to 100 a second.
        eventually("a rate", || {
            client.send(b"hello").expect("sent");
            thread::sleep(Duration::from_millis(10));
            let rate = browser.run(&format!("return {}", cell("Packets/s")));
            let rate = rate.as_str().expect("a text").trim_end_matches("/s").parse::<u32>().unwrap_or(0);
            assert!(rate <= 101, "{rate}");
            rate > 10
        });
        assert_eq!(requests("rules"), 1, "the counters need no rules");
        assert!(requests("rules/counters") > 1);

        browser.click("Packets");
        browser.click("Packets ▲");
        browser.until(
            "the highest first",
            "return document.querySelector('.rows [role=row]').textContent.includes('passthrough')",
        );
        browser.click("Packets ▼");
        browser.click("Reset counters");
        browser.until_text("dialog", "all 3 rules become 0");
        browser.click("Reset");
        browser.until("no packet", &format!("return {} === '0'", cell("Packets")));
        let before = requests("rules");
        let commented = filter.knockctl(&["rule", "comment", "1", "changed"]).expect("knockctl");
        assert!(commented.ok(), "{commented:?}");
        browser.until_text(".grid .heading", "changed");
        assert_eq!(requests("rules"), before + 1, "other rules are read once");
        add_door(filter);
        browser.until_text(".grid", "door=ssh");
        assert_eq!(requests("rules"), before + 2, "and so are those of a door");
        client.send(b"hello").expect("sent");
        browser.until("the counter of the same rule", &format!("return {} === '1'", cell("Packets")));
        assert_eq!(browser.console(topology).len(), 2, "an answer 409 for each change");
    });
}
