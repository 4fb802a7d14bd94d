//! The set-up of configs/one-nic: the filter between a host's only NIC and the host itself.

use std::path::Path;
use std::process::Command;

use knockplane_tests::{CLIENT, Filter, FilterOptions, Output, SERVER, Topology, VISITOR, run};

use crate::scenario::{knock, listed, ping};

/// The filter's host has one NIC, `outside`, with the server's address and a default route.
fn one_nic() -> Topology {
    let topology = Topology::new(2).expect("a topology");
    let ip = |arguments: &str| topology.filter.ip(arguments).expect("ip");
    ip("link del inside");
    ip(&format!("addr add {SERVER}/24 dev outside"));
    ip("addr add 10.88.0.1/32 dev outside");
    ip(&format!("route add default via {CLIENT}"));
    ip("route add 198.51.100.0/24 dev outside");
    topology
}

/// Runs the script in the filter's namespace.
fn script(topology: &Topology, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/one-nic/one-nic");
    let mut command: Command = topology.filter.command("env");
    // The tests' configuration names its sides `outside` and `inside`.
    command.args(["KP_INSIDE=inside", "KP_HOST=host0", "sh"]).arg(script).args(arguments);
    run(&mut command).expect("sh can be run")
}

/// Addresses and routes of a device, without those that the kernel adds.
fn configured(topology: &Topology, device: &str) -> Vec<String> {
    let show = |what: &str| topology.filter.ip(&format!("-4 -o {what} show dev {device}")).expect("ip");
    let addresses =
        show("addr").lines().map(|line| line.split_whitespace().nth(3).unwrap_or_default().to_owned()).collect();
    let routes = show("route")
        .lines()
        .filter(|line| !line.contains("proto kernel"))
        .map(|line| line.trim().to_owned())
        .collect();
    let both: [Vec<String>; 2] = [addresses, routes];
    both.concat()
}

#[test]
fn a_host_behind_its_only_nic_answers_only_after_a_knock() {
    let topology = one_nic();
    let before = configured(&topology, "outside");
    assert!(ping(&topology, ""), "without a filter, the host answers");
    let mut options = FilterOptions::from_configs("one-nic/rules.rsc").expect("the rules");
    options.sections =
        "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7000\", \"tcp/1234\"]\nopens = [\"icmp\"]\n".to_owned();

    // A start with the unchanged NIC would make the host unreachable.
    topology.filter.ip("link add inside type veth peer other").expect("a pair");
    topology.filter.ip("link set inside up").expect("up");
    let refused = Filter::start(&topology, &options).expect_err("refused").to_string();
    assert!(refused.contains(&format!("outside has the addresses {SERVER}/24, 10.88.0.1/32")), "{refused}");
    assert!(refused.contains("this host's default route goes out by outside"), "{refused}");
    topology.filter.ip("link del inside").expect("deleted");

    let up = script(&topology, &["up", "outside"]);
    assert!(up.ok(), "{up:?}");
    assert_eq!(configured(&topology, "outside"), [""; 0], "the NIC has nothing left");
    assert_eq!(configured(&topology, "host0"), before);
    assert!(!ping(&topology, ""), "without a filter, nothing reaches the host");
    assert_eq!(script(&topology, &["up", "outside"]).code, Some(1), "it is up already");

    {
        let filter = Filter::start(&topology, &options).expect("the filter starts");
        assert!(!ping(&topology, ""), "the host answers nobody");
        let out = topology.filter.run(&format!("ping -n -c 1 -W 2 {CLIENT}")).expect("ping");
        assert!(out.ok(), "the host reaches the network: {out:?}\n{}", filter.log());
        knock(&topology, "7000:tcp 1234:tcp");
        assert!(ping(&topology, ""), "it answers a source that has knocked\n{}", filter.log());
        assert!(!ping(&topology, &format!("-I {VISITOR}")), "and no other");
        assert!(listed(&filter, "door-ssh", CLIENT));
    }
    assert!(!ping(&topology, ""), "no process, no forwarding");

    let down = script(&topology, &["down", "outside"]);
    assert!(down.ok(), "{down:?}");
    assert_eq!(configured(&topology, "outside"), before);
    assert!(ping(&topology, ""), "as before");
    assert_eq!(script(&topology, &["down", "outside"]).code, Some(1), "it is down already");
    assert_eq!(script(&topology, &["up", "none"]).code, Some(1));
    assert_eq!(script(&topology, &["up"]).code, Some(2));
}
