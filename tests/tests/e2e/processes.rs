//! Start, stop, kill and restart of the processes; refused starts.

use std::fs;
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, Topology, binary, run};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::scenario::{CLIENT, QUICK, eventually, knock, listed, ping, rule_ids, with};

fn two_ports() -> FilterOptions {
    FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc")
}

/// Whether an XDP program is attached to either of the filter's interfaces.
fn xdp_attached(topology: &Topology) -> bool {
    topology.filter.ip("link show").expect("links").contains("xdp")
}

#[test]
fn killing_control_leaves_the_dataplane_forwarding_and_a_new_control_finds_everything() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        let before = filter.ask(&["show", "rules"]).expect("rules");
        filter.control.kill().expect("killed");
        assert!(ping(topology, ""), "the open door stays open");
        assert_eq!(filter.knockctl(&["show", "status"]).expect("knockctl").code, Some(4), "the daemon is unreachable");

        filter.restart_control().expect("control starts again");
        assert!(listed(filter, "secured", CLIENT), "the lists are there");
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!(rule_ids(&before), rule_ids(&after));
        let packets = |rules: &serde_json::Value| rules["rules"][2]["counter"]["packets"].as_u64().expect("a counter");
        assert!(packets(&after) > packets(&before), "and counted on meanwhile");
    });
}

#[test]
fn killing_the_dataplane_closes_the_wire_leaves_no_program_and_a_restart_works_at_once() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, "") && xdp_attached(topology));
        filter.dataplane.kill().expect("killed");
        assert!(!ping(topology, ""), "nothing is forwarded");
        assert!(!xdp_attached(topology), "no program is left");
        let up = filter.metric("knockplane_dataplane_up", &[]).expect("control still answers");
        assert_eq!(up, 0.0);

        for _ in 0..3 {
            filter.restart_dataplane().expect("the dataplane starts again, at once");
            assert!(ping(topology, ""), "whoever was in is in again");
            assert!(filter.knockctl(&["list", "flush", "secured"]).expect("knockctl").ok());
            filter.dataplane.kill().expect("killed");
            filter.restart_dataplane().expect("the dataplane starts again, at once");
            assert!(!ping(topology, ""), "a restart opens nothing");
            knock(topology, "1234:tcp 4321:tcp");
            assert!(ping(topology, ""), "and a knock opens as before");
            std::thread::sleep(std::time::Duration::from_millis(500));
            filter.dataplane.kill().expect("killed");
        }
    });
}

#[test]
fn a_stopped_dataplane_leaves_nothing_behind() {
    with(&two_ports(), |topology, filter| {
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
            let status = filter.dataplane.stop(signal).expect("it ends");
            assert!(status.success(), "{signal:?}: {status}");
            assert!(!xdp_attached(topology) && !filter.path("dataplane.sock").exists());
            filter.restart_dataplane().expect("started again");
        }
    });
}

#[test]
fn an_invalid_apply_changes_nothing() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        let before = filter.ask(&["show", "rules"]).expect("rules");
        let file = filter.path("wrong.rsc");
        for wrong in [
            "/ip firewall filter\nadd chain=input action=acept\n",
            "/ip firewall filter\nadd chain=input protocol=tcp dst-port=70000\n",
            "/ip firewall filter\nadd chain=input layer7-protocol=nobody\n",
            "/ip firewall filter\nadd chain=input packet-mark=video\n",
            "add chain",
        ] {
            fs::write(&file, wrong).expect("written");
            let output = filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl");
            assert_eq!(output.code, Some(3), "{wrong:?}: {output:?}");
            assert!(output.stderr.contains("wrong.rsc"), "{wrong:?} is located: {}", output.stderr);
        }
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!((rule_ids(&before), &before["generation"]), (rule_ids(&after), &after["generation"]));
        assert!(ping(topology, ""), "the open door stays open");
    });
}

#[test]
fn applied_rules_survive_a_restart() {
    with(&two_ports(), |topology, filter| {
        let file = filter.path("quick.rsc");
        fs::write(&file, QUICK).expect("written");
        assert!(filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl").ok());
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        let rules = filter.ask(&["show", "rules"]).expect("rules");
        assert!(rules["source"].as_str().expect("a source").contains("quick.rsc"), "{rules}");
        knock(topology, "1234:tcp 4321:tcp");
        eventually("the applied timeout of 3 s is in force", || !listed(filter, "secured", CLIENT));
    });
}

#[test]
fn a_second_dataplane_is_refused_and_disturbs_nothing() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        let mut command = topology.filter.command("timeout");
        command.arg("20").arg(binary("knockplane-dataplane").expect("built"));
        let output = run(command.arg("--config").arg(filter.path("knockplane.toml"))).expect("started");
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(ping(topology, ""), "the first one goes on");
    });
}

/// Starts a dataplane that must refuse to start, and returns its output.
fn refusal(topology: &Topology, dataplane: &str) -> String {
    let refused = refusal_with(topology, dataplane, "s");
    assert!(!xdp_attached(topology), "nothing is left attached");
    refused
}

/// As [`refusal`], with this socket.
fn refusal_with(topology: &Topology, dataplane: &str, socket: &str) -> String {
    let folder = std::env::temp_dir().join(format!("{}-refusal", topology.filter.name()));
    fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("k.toml");
    let text = format!(
        "[dataplane]\nrules = \"r.rsc\"\nsocket = \"{socket}\"\nstate-dir = \"{}\"\n{dataplane}",
        folder.display()
    );
    fs::write(folder.join("r.rsc"), QUICK).expect("written");
    fs::write(&config, text).expect("written");
    let mut command = topology.filter.command("timeout");
    command.arg("20").arg(binary("knockplane-dataplane").expect("built")).arg("--config").arg(&config);
    let output = run(&mut command).expect("it can be started");
    let _ = fs::remove_dir_all(&folder);
    assert!(!output.ok(), "it must refuse: {output:?}");
    output.stderr
}

#[test]
fn unsuitable_interfaces_are_refused_with_the_remedy() {
    const SIDES: &str = "outside = \"outside\"\ninside = \"inside\"\n";
    let topology = Topology::new(2).expect("a topology");
    let said = |dataplane: &str, expected: &[&str]| {
        let refusal = refusal(&topology, dataplane);
        for part in expected {
            assert!(refusal.contains(part), "{part:?} expected in: {refusal}");
        }
    };
    said("outside = \"outside\"\ninside = \"nowhere\"\n", &["interface nowhere", "ip link"]);
    said(&format!("{SIDES}ring-sise = 64\n"), &["k.toml:7:1", "ring-sise", "ring-size"]);
    said(&format!("{SIDES}cores = [4711]\n"), &["core 4711"]);
    said(&format!("{SIDES}zero-copy = \"force\"\n"), &["cannot bind", "no zero-copy", "zero-copy = \"auto\""]);

    topology.filter.ip("link set inside mtu 1400").expect("set");
    said(SIDES, &["1500", "1400", "mtu"]);
    topology.filter.ip("link set inside mtu 9000").expect("set");
    topology.filter.ip("link set outside mtu 9000").expect("set");
    said(SIDES, &["MTU of both interfaces to 3506 at most", "9022"]);
    for interface in ["inside", "outside"] {
        topology.filter.ip(&format!("link set {interface} mtu 1500")).expect("set");
    }
    // veth refuses the program because of the MTU of its peer. The kernel's message occurs once.
    topology.client.ip("link set eth0 mtu 3507").expect("set");
    let refused = refusal(&topology, SIDES);
    assert!(
        refused.contains("takes an MTU of 3506 at most") && refused.matches("os error 34").count() == 1,
        "{refused}"
    );
    topology.client.ip("link set eth0 mtu 1500").expect("set");

    let fewer = topology.filter.run("ethtool -L inside rx 1").expect("ethtool");
    assert!(fewer.ok(), "{fewer:?}");
    said(SIDES, &["outside has 2 receive queues and inside has 1", "ethtool -L outside"]);
    assert!(topology.filter.run("ethtool -L inside rx 2 tx 1").expect("ethtool").ok());
    said(SIDES, &["inside has 2 receive queues and only 1 to send by", "ethtool -L inside rx 2 tx 2"]);
    assert!(topology.filter.run("ethtool -L inside tx 2").expect("ethtool").ok());

    topology.filter.run("ethtool -K outside gro on").expect("ethtool");
    said(&format!("{SIDES}offloads = \"refuse\"\n"), &["gro", "ethtool -K outside gro off"]);

    topology.filter.set("net/ipv4/conf/outside/forwarding", "1").expect("set");
    said(SIDES, &["outside", "sysctl -w net.ipv4.conf.outside.forwarding=0"]);
    topology.filter.set("net/ipv4/conf/outside/forwarding", "0").expect("set");

    topology.filter.ip("link set inside down").expect("set");
    said(SIDES, &["inside", "ip link set dev inside up"]);
}

#[test]
fn an_idle_filter_sleeps() {
    with(&two_ports(), |_, filter| {
        let asleep = || filter.metric("knockplane_worker_seconds_total", &["state=\"asleep\""]).expect("a counter");
        let busy = || filter.metric("knockplane_worker_seconds_total", &["state=\"busy\""]).expect("a counter");
        let before = (busy(), asleep());
        thread::sleep(Duration::from_secs(1));
        let (busy, asleep) = (busy() - before.0, asleep() - before.1);
        assert!(asleep > 10.0 * busy, "busy for {busy} s, asleep for {asleep} s");
    });
}

#[test]
fn a_link_that_is_down_is_reported_and_its_frames_are_counted() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, ""));
        topology.server.ip("link set eth0 down").expect("set");
        eventually("not ready", || filter.http("/readyz").is_err());
        let dropped = |reason: &str| {
            filter.metric("knockplane_packets_total", &[&format!("reason=\"{reason}\"")]).expect("a counter")
        };
        assert!(!ping(topology, ""));
        assert!(dropped("link-down") > 0.0);
        assert_eq!(dropped("tx-full"), 0.0);
        topology.server.ip("link set eth0 up").expect("set");
        eventually("ready again", || filter.http("/readyz").is_ok());
        assert!(ping(topology, ""), "the wire works as before");
    });
}

#[test]
fn a_removed_interface_ends_the_dataplane() {
    with(&two_ports(), |topology, filter| {
        topology.filter.ip("link del inside").expect("deleted");
        eventually("it ends", || !filter.dataplane.runs().expect("known"));
        assert!(filter.log().contains("interface inside"), "{}", filter.log());
        assert!(!xdp_attached(topology));
    });
}

#[test]
fn a_configured_file_that_was_edited_after_an_apply_is_not_run_silently() {
    with(&two_ports(), |_, filter| {
        let file = filter.path("rules.rsc");
        assert!(filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl").ok());
        fs::write(&file, QUICK).expect("edited");
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(filter.log().contains("has other rules, which do not run"), "{}", filter.log());
        let rules = filter.ask(&["show", "rules"]).expect("rules");
        assert!(rules["source"].as_str().expect("a source").contains("kept from the last apply"), "{rules}");
    });
}

#[test]
fn a_refused_start_changes_no_interface_and_no_file_of_others() {
    with(&two_ports(), |topology, filter| {
        // A dataplane with other interfaces, but with the socket of the running one.
        topology.filter.ip("link add spare0 type veth peer spare1").expect("a further pair");
        for interface in ["spare0", "spare1"] {
            topology.filter.ip(&format!("link set {interface} up")).expect("up");
        }
        let socket = filter.path("dataplane.sock");
        let refused =
            refusal_with(topology, "outside = \"spare0\"\ninside = \"spare1\"\n", &socket.display().to_string());
        assert!(refused.contains("another dataplane answers on"), "{refused}");
        assert!(!refused.contains("xdp off"), "nobody is told to detach the running one: {refused}");

        let precious = filter.path("precious.txt");
        fs::write(&precious, "precious").expect("written");
        let refused =
            refusal_with(topology, "outside = \"spare0\"\ninside = \"spare1\"\n", &precious.display().to_string());
        assert!(refused.contains("exists and is not a socket"), "{refused}");
        assert_eq!(fs::read_to_string(&precious).expect("still there"), "precious");
    });
}

#[test]
fn check_reads_the_rules_and_invalid_rules_are_a_configuration_error() {
    with(&two_ports(), |topology, filter| {
        let config = filter.path("knockplane.toml").display().to_string();
        let run_it = |arguments: &[&str]| {
            let mut command = topology.filter.command("timeout");
            command.arg("20").arg(binary("knockplane-dataplane").expect("built"));
            run(command.args(["--config", &config]).args(arguments)).expect("it can be started")
        };
        assert_eq!(run_it(&["--check"]).code, Some(0));
        fs::write(filter.path("rules.rsc"), "/ip firewall filter\nadd chain=input action=acept\n").expect("written");
        let checked = run_it(&["--check"]);
        assert_eq!(checked.code, Some(3), "{checked:?}");
        assert!(checked.stderr.contains("rules.rsc:2"), "{checked:?}");
        fs::remove_file(filter.path("rules.rsc")).expect("removed");
        assert_eq!(run_it(&["--check"]).code, Some(3));
        filter.dataplane.kill().expect("killed");
        assert_eq!(run_it(&[]).code, Some(3), "started without rules");
    });
}

#[test]
fn a_bridge_made_while_it_runs_is_reported() {
    with(&two_ports(), |topology, filter| {
        topology.filter.set("net/ipv4/conf/outside/forwarding", "1").expect("set");
        eventually("not ready", || filter.http("/readyz").is_err());
        assert!(filter.log().contains("sysctl -w net.ipv4.conf.outside.forwarding=0"), "{}", filter.log());
        topology.filter.set("net/ipv4/conf/outside/forwarding", "0").expect("set");
        eventually("ready again", || filter.http("/readyz").is_ok());
    });
}

#[test]
fn an_unwritable_state_directory_is_not_reported_as_an_error_of_the_rules() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        // A file at the path of the folder.
        fs::remove_dir_all(filter.path("state")).expect("removed");
        fs::write(filter.path("state"), "").expect("written");
        let before = filter.ask(&["show", "rules"]).expect("rules");
        let file = filter.path("quick.rsc");
        fs::write(&file, QUICK).expect("written");
        let applied = filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl");
        assert_eq!(applied.code, Some(1), "{applied:?}");
        assert!(applied.stderr.contains("nothing changed"), "{applied:?}");
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!((rule_ids(&before), &before["generation"]), (rule_ids(&after), &after["generation"]));
        let levels = filter.ask(&["show", "lists"]).expect("lists");
        let secured = levels["lists"].as_array().and_then(|lists| lists.iter().find(|list| list["list"] == "secured"));
        assert_eq!(secured.expect("secured")["level"], 1);
    });
}

#[test]
fn a_start_logs_no_error_and_no_worker_that_hangs() {
    with(&two_ports(), |_, filter| {
        // The log is written asynchronously: a killed process may have unwritten lines.
        let are_ready = |filter: &Filter<'_>, times: usize| filter.log().matches("ready: outside").count() == times;
        eventually("the start is logged", || are_ready(filter, 1));
        for restarts in 1..=5 {
            filter.dataplane.kill().expect("killed");
            filter.restart_dataplane().expect("started again");
            eventually("the start is logged", || are_ready(filter, 1 + restarts));
        }
        let log = filter.log();
        assert!(!log.contains("hangs") && !log.contains("ERROR"), "{log}");
    });
}

#[test]
fn processes_without_free_descriptors_continue() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        let pids = [&filter.dataplane, &filter.control].map(|process| Pid::from_raw(process.id() as i32));
        let limit = |descriptors: u64| {
            for pid in pids {
                let limit = Rlimit { current: Some(descriptors), maximum: Some(4096) };
                prlimit(pid, Resource::Nofile, limit).expect("a limit");
            }
        };
        // Files that are already open remain open.
        limit(0);
        thread::sleep(Duration::from_millis(500));
        assert!(ping(topology, ""), "the open door stays open");
        limit(1024);
        eventually("questions are answered again", || filter.knockctl(&["show", "status"]).expect("knockctl").ok());
        eventually("ready again", || filter.http("/readyz").is_ok());
        assert!(filter.dataplane.runs().expect("known") && filter.control.runs().expect("known"), "{}", filter.log());
    });
}

#[test]
fn a_hangup_ends_nothing() {
    with(&two_ports(), |topology, filter| {
        knock(topology, "1234:tcp 4321:tcp");
        let pid = rustix::process::Pid::from_raw(filter.dataplane.id() as i32).expect("a process has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
        eventually("the configuration is read again", || filter.log().contains("reload generation=2"));
        assert!(ping(topology, ""), "the open door stays open");
    });
}
