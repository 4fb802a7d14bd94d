//! The state of one source: its lists, doors, quota, connections and drops, and the reasons that its knocks are
//! ignored.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use knockplane_tests::{CLIENT, CLIENT6, Filter, FilterOptions, SERVER, SERVER6, Topology, VISITOR};
use serde_json::Value;

use crate::scenario::{client, eventually, knock, listed, ping, serve_tcp, tcp_echo, udp_to, with};

/// A knock of three steps, of which the second needs a passphrase.
const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321 \"open sesame\"", "tcp/1234 syn"]
opens = ["tcp/8080"]
"#;

fn doors(doors: &str) -> FilterOptions {
    FilterOptions { sections: doors.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") }
}

/// The state of an address.
fn told(filter: &Filter<'_>, address: &str) -> Value {
    filter.ask(&["explain-source", address]).expect("the source is explained")
}

fn text(filter: &Filter<'_>, address: &str) -> String {
    let output = filter.knockctl(&["explain-source", address]).expect("knockctl");
    assert!(output.ok(), "{output:?}");
    // Without line breaks, because sentences are wrapped anywhere.
    output.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whole seconds of a time.
fn whole_seconds(time: &Value) -> u64 {
    time.as_f64().unwrap_or_else(|| panic!("no time: {time}")) as u64
}

fn scan(topology: &Topology) {
    client(topology, &format!("nmap -n -Pn -T5 --max-retries 0 -sS -r -p 1-200 {SERVER}"));
}

/// Sends a datagram to the server from one of the client's addresses.
fn datagram(topology: &Topology, source: &str, port: u16, payload: &[u8]) {
    let source: IpAddr = source.parse().expect("an address");
    let server = if source.is_ipv4() { SERVER } else { SERVER6 };
    let sent = topology.client.within(|| {
        let socket = UdpSocket::bind((source, 0))?;
        Ok(socket.send_to(payload, (server, port))?)
    });
    assert_eq!(sent.expect("sent"), payload.len());
}

#[test]
fn a_source_whose_knocks_are_ignored_is_shown_with_reason_and_time() {
    with(&doors(DOOR), |topology, filter| {
        assert!(text(filter, CLIENT).contains("nothing is known of it: a knock would be counted from step 1"));
        scan(topology);
        knock(topology, "7000:tcp");
        eventually("the budget of ports ignores it", || told(filter, CLIENT)["ports"][0]["ignored"] == true);
        let source = told(filter, CLIENT);
        let ignored = &source["doors"][0]["ignored"][0];
        assert_eq!(ignored["reason"], "ports", "{source}");
        assert!((1..60).contains(&whole_seconds(&ignored["time_left_seconds"])), "{source}");
        assert_eq!(
            (&source["ports"][0]["budget"], whole_seconds(&source["ports"][0]["ignore_for_seconds"])),
            (&32.into(), 60)
        );
        eventually("the step that did not count is recorded", || {
            let failure = &told(filter, CLIENT)["doors"][0]["failures"][0];
            (&failure["reason"], &failure["port"]) == (&"ports".into(), &7000.into())
        });
        let dropped = &source["drops"]["recent"][0];
        assert_eq!((&dropped["reason"], &dropped["side"]), (&"chain-default".into(), &"outside".into()), "{source}");
        assert!(dropped["packets"].as_u64().expect("a number") > 100, "{source}");

        let text = text(filter, CLIENT);
        for part in [
            "Its knocks are ignored at all doors for another",
            "more than 32 different ports were tried within 10s. If several hosts share the address",
            "Remedy: [policy.port-budget]",
            "`knockctl list add door-echo 10.77.0.1 --timeout 10m` lets the address in",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let shown = filter.ask(&["show", "doors"]).expect("doors");
        assert_eq!((&shown["ignored"][0]["address"], &shown["truncated"]), (&CLIENT.into(), &false.into()));
        assert_eq!((&shown["ignored"][0]["reason"], &shown["ignored"][0]["door"]), (&"ports".into(), &Value::Null));
        assert!(whole_seconds(&shown["ignored"][0]["time_left_seconds"]) < 60, "{shown}");
        let table = filter.knockctl(&["show", "doors"]).expect("knockctl").stdout;
        assert!(table.contains("whose knocks are ignored\nDOOR  SOURCE     BECAUSE"), "{table}");
        let none = filter.ask(&["show", "doors", "--limit", "0"]).expect("doors");
        assert_eq!((&none["ignored"], &none["truncated"]), (&Value::Array(Vec::new()), &true.into()));

        assert!(told(filter, VISITOR)["doors"][0]["ignored"].as_array().expect("a list").is_empty());
        // The remedies work.
        assert!(filter.knockctl(&["list", "add", "door-echo", CLIENT, "--timeout", "10m"]).expect("knockctl").ok());
        serve_tcp(topology, 8080);
        assert!(tcp_echo(topology, 8080), "let in without a knock");
        let file = filter.path("knockplane.toml");
        let before = fs::read_to_string(&file).expect("the configuration");
        fs::write(&file, format!("{before}\n[policy.port-budget]\nports = 0\n")).expect("written");
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        let source = told(filter, CLIENT);
        assert!(
            source["ports"] == Value::Array(Vec::new())
                && source["doors"][0]["ignored"].as_array().expect("a list").is_empty()
        );
        assert!(filter.ask(&["show", "doors"]).expect("doors")["ignored"].as_array().expect("a list").is_empty());
    });
}

#[test]
fn progress_grants_connections_and_restarts_are_shown_without_the_passphrase() {
    with(&doors(&DOOR.replace("opens", "hold-off = \"1h\"\nmax-attempts = \"9/1h\"\nopens")), |topology, filter| {
        serve_tcp(topology, 8080);
        let door = |filter: &Filter<'_>| told(filter, CLIENT)["doors"][0].clone();
        knock(topology, "7000:tcp");
        eventually("a step is taken", || door(filter)["progress"]["steps"] == 1);
        let progress = &door(filter)["progress"];
        assert_eq!((&progress["of"], &progress["to"]["address"]), (&3.into(), &SERVER.into()));
        assert_eq!(progress["next"], "udp/4321 with its passphrase");
        assert!(whole_seconds(&progress["time_left_seconds"]) < 10, "{progress}");
        let shown = text(filter, CLIENT);
        assert!(shown.contains("step 1 of 3, next: udp/4321 with its passphrase") && !shown.contains("sesame"));

        knock(topology, "80:tcp");
        eventually("another packet starts over", || door(filter)["failures"][0]["reason"] == "started-over");
        assert_eq!((&door(filter)["failures"][0]["port"], &door(filter)["progress"]), (&80.into(), &Value::Null));
        let shown = text(filter, CLIENT);
        assert!(
            shown.contains("its knock started over once, last") && shown.contains("by a packet to tcp/80"),
            "{shown}"
        );
        assert!(
            shown.contains("With `strict = false` at this door, a port scan still lacks the passphrase"),
            "{shown}"
        );

        knock(topology, "7000:tcp");
        udp_to(topology, 4321).send(b"open sesame").expect("sent");
        eventually("two steps are taken", || door(filter)["progress"]["next"] == "tcp/1234 syn");
        knock(topology, "1234:tcp");
        eventually("the door opens", || !door(filter)["grants"].as_array().expect("grants").is_empty());
        let open = door(filter);
        assert_eq!((&open["grants"][0]["to"]["address"], &open["attempts"]["used"]), (&SERVER.into(), &2.into()));
        let left = whole_seconds(&open["grants"][0]["time_left_seconds"]);
        assert!((3_000..3_600).contains(&left), "{open}");
        assert!(
            whole_seconds(&open["held_off_seconds"]) > 3_000 && open["ignored"][0]["reason"] == "held-off",
            "{open}"
        );
        let held = filter.ask(&["show", "doors", "echo"]).expect("doors")["ignored"][0].clone();
        assert_eq!((&held["door"], &held["reason"]), (&"echo".into(), &"held-off".into()));

        assert!(tcp_echo(topology, 8080));
        eventually("its connection is shown", || told(filter, CLIENT)["connections"]["count"] != 0);
        let source = told(filter, CLIENT);
        let connections = source["connections"]["oldest"].as_array().expect("connections");
        let through = connections.iter().find(|connection| connection["to"]["port"] == 8080).expect("the session");
        assert_eq!(
            (&through["door"], &through["to"]["address"], &through["protocol"]),
            (&"echo".into(), &SERVER.into(), &"tcp".into())
        );
        let lists: Vec<_> = source["lists"].as_array().expect("lists").iter().map(|list| &list["list"]).collect();
        assert_eq!((&lists[..], &source["lists"][0]["origin"]), (&[&"door-echo".into()][..], &"door".into()));
    });
}

#[test]
fn every_list_with_an_address_is_shown_with_its_origin() {
    let rules = "/ip firewall address-list
add list=office address=10.77.0.0/28 comment=\"the branch\"
add list=guests address=10.77.0.1 timeout=1h
/ip firewall filter
add chain=input protocol=udp dst-port=7001 action=add-src-to-address-list address-list=knocked address-list-timeout=1m
add chain=input src-address-list=knocked protocol=udp dst-port=7002 action=drop comment=\"too early\"
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        for (list, address, timeout) in [("friends", "10.77.0.0-10.77.0.9", None), ("friends", CLIENT, Some("5m"))] {
            let timeout = timeout.map(|timeout| ["--timeout", timeout]);
            let arguments = ["list", "add", list, address].into_iter().chain(timeout.into_iter().flatten());
            assert!(filter.knockctl(&arguments.collect::<Vec<_>>()).expect("knockctl").ok());
        }
        datagram(topology, CLIENT, 7001, b"");
        datagram(topology, CLIENT, 7002, b"");
        eventually("everything is told", || {
            told(filter, CLIENT)["drops"]["recent"].as_array().map(Vec::len) == Some(2)
        });
        let source = told(filter, CLIENT);
        let lists: Vec<_> = source["lists"]
            .as_array()
            .expect("lists")
            .iter()
            .map(|list| {
                let line = list["line"].as_u64().unwrap_or_default();
                format!(
                    "{} {} {} {line}",
                    list["list"].as_str().unwrap(),
                    list["address"].as_str().unwrap(),
                    list["origin"]
                )
            })
            .collect();
        assert_eq!(
            lists,
            [
                "friends 10.77.0.1 \"operator\" 0",
                "friends 10.77.0.0-10.77.0.9 \"operator\" 0",
                "guests 10.77.0.1 \"rules\" 3",
                "knocked 10.77.0.1 \"packet\" 0",
                "office 10.77.0.0/28 \"rules\" 2",
            ]
        );
        let knocked = &source["lists"][3];
        assert_eq!((&knocked["added_by"][0]["line"], &knocked["used_by"][0]["line"]), (&5.into(), &6.into()));
        // Both packets may arrive in one batch, and so at the same time.
        let recent = source["drops"]["recent"].as_array().expect("drops");
        let dropped = recent.iter().find(|dropped| dropped["reason"] == "rule").expect("a drop by a rule");
        assert_eq!(dropped["port"], 7002);
        assert_eq!((&dropped["rule"]["line"], &dropped["rule"]["comment"]), (&6.into(), &"too early".into()));
        let shown = text(filter, CLIENT);
        assert!(
            shown.contains("D knocked packets, ip filter 0")
                && shown.contains("office 10.77.0.0/28 line 2 of the rules")
        );
        let one = filter.ask(&["explain-source", CLIENT, "--limit", "1"]).expect("explained");
        assert_eq!((one["lists"].as_array().map(Vec::len), &one["lists_truncated"]), (Some(1), &true.into()));
        assert_eq!(
            (one["drops"]["recent"].as_array().map(Vec::len), &one["drops"]["truncated"]),
            (Some(1), &true.into())
        );
    });
}

#[test]
fn the_quota_of_a_prefix_is_shown_for_its_sources() {
    let options = FilterOptions {
        dataplane: "first-step-quota = 2\n".to_owned(),
        ..doors("[[door]]\nname = \"echo\"\nknock = [\"udp/7001\", \"udp/7002\"]\nwithin = \"5m\"\ntotal = \"5m\"\n")
    };
    with(&options, |topology, filter| {
        datagram(topology, CLIENT, 7001, b"");
        eventually("one is in use", || told(filter, "10.77.0.99")["quota"]["used"] == 1);
        assert!(!text(filter, "10.77.0.99").contains("First steps of"));
        datagram(topology, VISITOR, 7001, b"");
        eventually("both are in use", || told(filter, "10.77.0.99")["quota"]["used"] == 2);
        let quota = told(filter, "10.77.0.99")["quota"].clone();
        assert_eq!((&quota["prefix"], &quota["limit"]), (&"10.77.0.0/24".into(), &2.into()));
        let shown = text(filter, "10.77.0.99");
        assert!(shown.contains("First steps of 10.77.0.0/24 are refused: 2 of 2 are in use"), "{shown}");
        assert_eq!(told(filter, "198.51.100.7")["quota"]["used"], 0);
    });
}

#[test]
fn an_ipv6_source_is_shown_with_its_network() {
    let options = FilterOptions {
        dataplane: "ipv6-first-steps = \"prefix\"\n".to_owned(),
        ..doors(
            "[[door]]\nname = \"echo\"\nknock = [\"udp/7001\", \"udp/7002\"]\nmax-attempts = \"1/1h\"\nwithin = \"5m\"\ntotal = \"5m\"\n",
        )
    };
    with(&options, |topology, filter| {
        topology.add_ipv6().expect("IPv6");
        datagram(topology, CLIENT6, 7001, b"");
        eventually("a step is taken", || told(filter, CLIENT6)["doors"][0]["progress"]["steps"] == 1);
        let source = told(filter, CLIENT6);
        assert_eq!((&source["network"], &source["first_steps_by_network"]), (&"fd77::/64".into(), &true.into()));
        let neighbour = told(filter, "fd77::99");
        assert_eq!(neighbour["doors"][0]["ignored"][0]["reason"], "attempts", "they are those of the /64: {neighbour}");
        assert!(neighbour["doors"][0]["progress"].is_null(), "{neighbour}");
        assert_eq!(filter.ask(&["show", "doors"]).expect("doors")["ignored"][0]["address"], "fd77::/64");
        assert!(text(filter, CLIENT6).contains("are those of its whole network fd77::/64"));
    });
}

#[test]
fn a_watch_counts_every_drop_of_one_source_and_one_at_a_time() {
    let rules = FilterOptions::from_rules("/ip firewall filter\nadd chain=input action=drop\n");
    with(&rules, |topology, filter| {
        let filter: &Filter<'_> = filter;
        std::thread::scope(|scope| {
            let watching = |time: &'static str| {
                let asked =
                    scope.spawn(move || filter.knockctl(&["--json", "explain-source", CLIENT, "--watch", time]));
                eventually("the watch begins", || !told(filter, CLIENT)["drops"]["watch"].is_null());
                asked
            };
            let asked = watching("4s");
            let socket = udp_to(topology, 9);
            (0..200).for_each(|_| assert_eq!(socket.send(b"x").expect("sent"), 1));
            datagram(topology, VISITOR, 9, b"x");
            let output = asked.join().expect("no panic").expect("knockctl");
            assert!(output.ok(), "{output:?}");
            let source: Value = serde_json::from_str(&output.stdout).expect("JSON");
            let watch = &source["drops"]["watch"];
            let dropped = watch["drops"].as_array().expect("drops");
            assert_eq!(
                (dropped.len(), &dropped[0]["packets"], &dropped[0]["rule"]["line"]),
                (1, &200.into(), &2.into())
            );
            assert_eq!((&watch["truncated"], &dropped[0]["port"]), (&false.into(), &9.into()), "{watch}");
            assert!(told(filter, VISITOR)["drops"]["watch"].is_null());

            let asked = watching("4s");
            assert!(filter.knockctl(&["explain-source", VISITOR, "--watch", "1s"]).expect("knockctl").ok());
            let output = asked.join().expect("no panic").expect("knockctl");
            assert!(output.code == Some(1) && output.stderr.contains("the watch was cut short"), "{output:?}");
        });
    });
}

#[test]
fn an_argument_that_is_not_an_address_is_refused_with_the_remedy() {
    let options = FilterOptions {
        sections: "[policy]\nprotect = [\"10.77.0.2/32\"]\n".to_owned(),
        ..FilterOptions::from_rules("/ip firewall filter\n")
    };
    with(&options, |topology, filter| {
        for (several, remedy) in
            [("10.77.0.0/24", "knockctl list show --address 10.77.0.0/24"), ("nobody", "write one")]
        {
            let output = filter.knockctl(&["explain-source", several]).expect("knockctl");
            assert!(output.code == Some(2) && output.stderr.contains(remedy), "{output:?}");
        }
        assert!(!ping(topology, ""));
        let mapped = filter.knockctl(&["explain-source", "::ffff:10.77.0.1"]).expect("knockctl");
        let first = "::ffff:10.77.0.1 is the IPv4 address 10.77.0.1, written as IPv6\n10.77.0.1\n";
        assert!(mapped.ok() && mapped.stdout.starts_with(first) && mapped.stdout.contains("icmp"), "{mapped:?}");
        assert!(text(filter, SERVER).contains("It is a protected address (10.77.0.2/32 in `protect`)"));
    });
}

/// A scan from the client's address, until it is dropped.
struct Scan<'s>(&'s AtomicBool);

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The number of times that the door opens in twenty knocks, while the same address tries another port every
/// millisecond.
fn opened_of_twenty(doors: &FilterOptions, knock: impl Fn(&Topology)) -> usize {
    let mut opened = 0;
    with(doors, |topology, filter| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _scan = Scan(&over);
            scope.spawn(|| {
                let socket = topology.client.within(|| Ok(UdpSocket::bind((CLIENT, 0))?)).expect("a socket");
                for port in (20_000..21_000).cycle().take_while(|_| !over.load(Relaxed)) {
                    let _ = socket.send_to(b"", (SERVER, port));
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            eventually("the scan has arrived", || {
                told(filter, CLIENT)["drops"]["recent"][0]["packets"].as_u64().is_some_and(|packets| packets > 100)
            });
            for _ in 0..20 {
                knock(topology);
                std::thread::sleep(Duration::from_millis(100));
                opened += usize::from(listed(filter, "door-echo", CLIENT));
                assert!(filter.knockctl(&["list", "flush", "door-echo"]).expect("knockctl").ok());
            }
        });
    });
    opened
}

#[test]
fn a_passphrase_opens_beside_a_scan_from_the_same_address_and_ports_do_not() {
    let ports = "[[door]]\nname = \"echo\"\nknock = [\"tcp/7000\", \"tcp/4321\", \"tcp/1234\"]\n";
    let knocks = |topology: &Topology| knock(topology, "-d 10 7000:tcp 4321:tcp 1234:tcp");
    assert_eq!(opened_of_twenty(&doors(ports), knocks), 0, "the defaults");
    let no_budget = "[policy.port-budget]\nports = 0\n";
    assert_eq!(opened_of_twenty(&doors(&format!("{ports}{no_budget}")), knocks), 0, "a strict door without the budget");
    let passphrase = "[[door]]\nname = \"echo\"\nknock = [\"udp/4321 \\\"open sesame\\\"\"]\n";
    let says = |topology: &Topology| datagram(topology, CLIENT, 4321, b"open sesame");
    assert_eq!(
        opened_of_twenty(&doors(&format!("{passphrase}{no_budget}")), says),
        20,
        "what docs/doors.md recommends"
    );
}
