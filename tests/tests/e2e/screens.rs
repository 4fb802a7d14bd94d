//! The screens in docs/screens.md: each is that of a real run, with its numbers masked.
//!
//! `UPDATE=1` writes the page again. A new command adds a [`Section`] with its screens: a function that runs it and returns
//! them. Everything that a run can change must be masked, or absent: the test compares the page with each run.

use std::env;
use std::fs;
use std::path::PathBuf;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Terminal, Topology, VISITOR, key, masked};

use crate::fast_path::{PORT, control, receiver, with_fast_path};
use crate::scenario::{eventually, knock, udp_from, udp_to};
use crate::top::{on_screen, under_traffic};

/// The beginning of the page.
const HEAD: &str = "# Screens

What an operator sees in a terminal of 80 columns and 24 lines, if no other size is named. Each screen is that of a run in network
namespaces, with `#` for numbers. The end-to-end test `screens` writes this page with `UPDATE=1`, and compares it in every other run.
";

/// A list, a door, and rules that accept one source and drop the others.
const RULES: &str = "/ip firewall address-list
add list=office address=198.51.100.0/24 comment=\"the office\"
/ip firewall filter
add action=accept chain=input src-address-list=secured comment=\"who was let in\"
add action=accept chain=input src-address-list=office comment=\"the office\"
add action=drop chain=input comment=\"everybody else\"
";

const DOOR: &str = "[[door]]
name = \"ssh\"
knock = [\"tcp/7000\", \"tcp/8000\"]
opens = [\"tcp/22\"]
for = \"1h\"
";

/// A part of the page: a command and its screens.
struct Section {
    title: &'static str,
    about: &'static str,
    /// The title and the text of each screen.
    screens: Vec<(String, String)>,
}

/// The screens of `top`: each view.
fn top(topology: &Topology, filter: &Filter<'_>) -> Section {
    let (flow, _receiver) = (udp_to(topology, PORT), receiver(topology));
    let stranger = udp_from(topology, VISITOR, PORT);
    let mut screens = Vec::new();
    under_traffic(&[&flow, &stranger], || {
        let mut top = on_screen(filter, &["top", "--interval", "1s"]);
        // Without an order by rates, which differ from run to run.
        top.send("n").expect("sent");
        for view in ["1 rules", "2 lists", "3 doors", "4 workers", "5 drops", "6 sources"] {
            top.send(&view[..1]).expect("sent");
            let tab = format!("[{view}]");
            let is_whole = |screen: &str| {
                let has_rates = screen.contains("rates over") && !screen.contains("not read yet");
                screen.contains(&tab) && screen.contains("by name") && has_rates && has_all_rates(screen)
            };
            let screen = top.wait_for(view, is_whole).expect("a screen with rates");
            screens.push((format!("`top`, view `{}`", &view[2..]), masked(&screen, &["[1", "1 rules", "q quit"])));
        }
        top.send("q").expect("sent");
        assert!(top.wait().expect("it ends").success());
    });
    let about = "`knockctl top`: [top.md](top.md). The order is by name here.";
    Section { title: "Live rates", about, screens }
}

/// The screen of `monitor`: a change by an operator, and a knock.
fn monitor(topology: &Topology, filter: &Filter<'_>) -> Section {
    let mut command = filter.command(&["monitor", "--kind", "operator,granted"]).expect("built");
    let mut monitor = Terminal::start(&mut command, (8, 240)).expect("a terminal");
    let streams = || filter.ask(&["show", "status"]).expect("status")["control"]["event_streams"] == 1;
    eventually("the stream is open", streams);
    control(filter, &["list", "add", "secured", CLIENT]);
    monitor.wait_for("the change", |screen| screen.contains("list-add")).expect("it is shown");
    knock(topology, "7000:tcp 8000:tcp");
    let screen = monitor.wait_for("the grant", |screen| screen.contains("granted")).expect("it is shown");
    monitor.send(key::CTRL_C).expect("sent");
    assert!(monitor.wait().expect("it ends").success());
    // The ids of starts have letters.
    let without_id = |line: &str| match line.rsplit_once(" id=") {
        Some((line, _)) => format!("{} id=#-#\n", masked(line, &[]).trim_end()),
        None => masked(line, &[]),
    };
    let screens = vec![("`monitor`, 240 columns".to_owned(), screen.lines().map(without_id).collect())];
    Section { title: "Events", about: "`knockctl monitor`: [monitor.md](monitor.md).", screens }
}

/// The screen of `trace`: a dropped packet.
fn trace(topology: &Topology, filter: &Filter<'_>) -> Section {
    let stranger = udp_from(topology, VISITOR, PORT);
    let arguments = ["trace", "src", VISITOR, "protocol", "udp", "--count", "1"];
    let mut trace = Terminal::start(&mut filter.command(&arguments).expect("built"), (40, 100)).expect("a terminal");
    trace.wait_for("the begin", |screen| screen.contains("tracing for")).expect("it begins");
    stranger.send(b"hello").expect("sent");
    let screen = trace.wait_for_output().expect("a packet");
    assert!(screen.contains("drop: a rule decided"), "{screen}");
    let screens = vec![("`trace`, 100 columns".to_owned(), masked(&screen, &[]))];
    Section { title: "A traced packet", about: "`knockctl trace`: [trace.md](trace.md).", screens }
}

/// Whether the rows have rates. A worker and the kernel have no busy time or bytes of their own: one dash each at most.
fn has_all_rates(screen: &str) -> bool {
    let rows = screen.lines().skip_while(|line| !line.starts_with(['[', ' ']) || !line.contains("6 sources")).skip(2);
    rows.take_while(|line| !line.starts_with("rows")).all(|line| line.matches("  - ").count() <= 1)
}

/// The screens of `show status`: all is well, and a link that is down.
fn status(topology: &Topology, filter: &Filter<'_>) -> Section {
    let shown = |what: &str| {
        let mut status = on_screen(filter, &["show", "status"]);
        let screen = status.wait_for_output().expect("the status");
        assert!(screen.starts_with(what), "{screen}");
        // Hosts send frames by themselves, which find the link down.
        let line = |line: &str| {
            if line.starts_with("drops ") { "drops       rule #\n".to_owned() } else { format!("{line}\n") }
        };
        masked(&screen, &[]).lines().map(line).collect::<String>()
    };
    let well = shown("all is well");
    topology.server.ip("link set eth0 down").expect("the link is set down");
    eventually("the link is down", || filter.http("/readyz").is_err());
    let down = shown("NOT WELL");
    topology.server.ip("link set eth0 up").expect("the link is set up");
    let screens = vec![("`show status`".to_owned(), well), ("`show status`, without a link".to_owned(), down)];
    Section { title: "Status", about: "`knockctl show status`: whether all is well, and what to do if not.", screens }
}

fn page(sections: &[Section]) -> String {
    let mut text = HEAD.to_owned();
    for Section { title, about, screens } in sections {
        text += &format!("\n## {title}\n\n{about}\n");
        for (title, screen) in screens {
            text += &format!("\n### {title}\n\n```text\n{}\n```\n", screen.trim_end());
        }
    }
    text
}

#[test]
fn the_screens_in_the_documentation_are_those_of_a_run() {
    let options = FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules(RULES) };
    let mut text = String::new();
    with_fast_path(&options, |topology, filter| {
        let (monitor, top, trace) = (monitor(topology, filter), top(topology, filter), trace(topology, filter));
        // The link is set down at last.
        text = page(&[status(topology, filter), top, monitor, trace]);
    });
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/screens.md");
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, &text).expect("written");
    }
    let stored = fs::read_to_string(&file).unwrap_or_default();
    let command = "UPDATE=1 cargo test -p knockplane-tests --test e2e screens";
    assert!(stored == text, "docs/screens.md is not what a run shows; write it again with\n{command}\n{text}");
}
