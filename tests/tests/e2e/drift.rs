//! Changes of the interfaces and the host while the filter runs: reports in readiness, log, status and metrics,
//! repairs, ends of the filter, and the balance of frames. docs/drift.md has the table of cases.

use std::net::UdpSocket;

use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology};
use serde_json::Value;

use crate::scenario::{eventually, ping, with};

/// Rules that accept all packets in both directions, so that no rule drops a frame.
const OPEN: &str = "/ip firewall filter\nadd chain=input\n";

fn open() -> FilterOptions {
    FilterOptions::from_rules(OPEN)
}

/// Runs `ethtool` on the filter's host, which must succeed.
fn ethtool(topology: &Topology, arguments: &str) {
    let output = topology.filter.run(&format!("ethtool {arguments}")).expect("ethtool can be run");
    assert!(output.ok(), "ethtool {arguments}: {output:?}");
}

/// The drift that is reported for one side now: kind and text.
fn drift(filter: &Filter<'_>, side: &str) -> Vec<(String, String)> {
    let status = filter.ask(&["show", "status"]).expect("the status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let interface = interfaces.iter().find(|interface| interface["side"] == side).expect("the side");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let drift = interface["drift"].as_array().expect("drift");
    drift.iter().map(|drift| (text(&drift["kind"]), text(&drift["problem"]))).collect()
}

fn gauge(filter: &Filter<'_>, side: &str, kind: &str) -> f64 {
    let labels = [&*format!("side=\"{side}\""), &*format!("kind=\"{kind}\"")];
    filter.metric("knockplane_configuration_drift", &labels).expect("the gauge is there from the start")
}

/// Checks that readiness, log, status and metrics report a kind of drift, with its remedy.
fn assert_reported(filter: &Filter<'_>, side: &str, kind: &str, remedy: &str) {
    eventually(&format!("{kind} is reported of {side}"), || {
        drift(filter, side).iter().any(|(reported, _)| reported == kind)
    });
    let reported = drift(filter, side);
    assert!(
        reported.iter().any(|(found, text)| found == kind && text.contains(remedy)),
        "{remedy:?} expected in {reported:?}"
    );
    assert_eq!(gauge(filter, side, kind), 1.0, "{kind} of {side}");
    let unready = filter.http("/readyz").expect_err("it is not ready").to_string();
    assert!(unready.contains("503") && unready.contains(&reported[0].1), "{unready}");
    let status = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
    assert!(status.contains(&format!("drift       {side}, {kind}: ")), "{status}");
    assert!(logged(filter, &format!("ERROR {}", reported[0].1)) >= 1, "{}", filter.log());
}

/// Checks that all of them report the end of the drift.
fn assert_over(filter: &Filter<'_>, side: &str, kind: &str) {
    eventually("ready again", || filter.http("/readyz").is_ok());
    assert_eq!(drift(filter, side), []);
    assert_eq!(gauge(filter, side, kind), 0.0, "{kind} of {side}");
    let line = format!("meets its requirement again side={side} kind=\"{kind}\"");
    assert!(logged(filter, &line) >= 1, "{line:?} expected in: {}", filter.log());
}

/// The number of lines of the log that contain this.
fn logged(filter: &Filter<'_>, part: &str) -> usize {
    filter.log().lines().filter(|line| line.contains(part)).count()
}

/// Checks that the filter ends with exit code 1, logs the reason and the remedy, and forwards nothing any more.
fn assert_ends(topology: &Topology, filter: &mut Filter<'_>, parts: &[&str]) {
    eventually("it ends", || !filter.dataplane.runs().expect("known"));
    let code = filter.dataplane.stop(rustix::process::Signal::TERM).expect("it has ended").code();
    assert_eq!(code, Some(1), "{}", filter.log());
    let log = filter.log();
    let last = log.lines().rfind(|line| line.starts_with("knockplane-dataplane: ")).unwrap_or_default();
    for part in parts {
        assert!(last.contains(part), "{part:?} expected in {last:?} of: {log}");
    }
    assert!(!ping(topology, ""), "no process, no forwarding");
}

#[test]
fn without_changes_there_is_no_drift_and_every_kind_is_a_series_from_the_start() {
    with(&open(), |topology, filter| {
        assert!(ping(topology, ""));
        let metrics = filter.http("/metrics").expect("metrics");
        let series: Vec<_> =
            metrics.lines().filter(|line| line.starts_with("knockplane_configuration_drift{")).collect();
        assert_eq!(series.len(), 2 * 15, "{series:?}");
        assert!(series.iter().all(|line| line.ends_with(" 0")), "{series:?}");
        assert_eq!(logged(filter, "kind="), 0, "{}", filter.log());
    });
}

#[test]
fn a_different_mtu_is_reported_and_a_smaller_one_on_both_sides_is_accepted() {
    with(&open(), |topology, filter| {
        topology.filter.ip("link set inside mtu 1400").expect("set");
        assert_reported(filter, "inside", "mtu", "ip link set dev outside mtu 1400");
        assert_eq!(gauge(filter, "outside", "mtu"), 0.0, "the outside has not changed");
        assert!(ping(topology, "-s 1300 -M do"), "what fits passes on");
        topology.filter.ip("link set outside mtu 1400").expect("set");
        assert_over(filter, "inside", "mtu");
        assert!(logged(filter, "both interfaces have this MTU now mtu=1400") == 1, "{}", filter.log());
        let status = filter.ask(&["show", "status"]).expect("the status");
        assert_eq!(status["interfaces"][0]["mtu"], 1400);

        // Larger frames are dropped by the kernel, and counted.
        let dropped = || filter.metric("knockplane_interface_rx_dropped_total", &["outside"]).expect("a counter");
        let before = dropped();
        assert!(!ping(topology, "-s 1472 -M do"));
        eventually("the drops show", || dropped() > before);

        for side in ["outside", "inside"] {
            topology.filter.ip(&format!("link set {side} mtu 1600")).expect("set");
        }
        assert_reported(filter, "outside", "mtu", "ip link set dev outside mtu 1500");
        assert_eq!(gauge(filter, "inside", "mtu"), 1.0);
        assert!(ping(topology, "-s 1472 -M do"), "frames that there is room for pass on");
        for side in ["outside", "inside"] {
            topology.filter.ip(&format!("link set {side} mtu 1500")).expect("set");
        }
        assert_over(filter, "outside", "mtu");
    });
}

#[test]
fn an_enabled_offload_is_disabled_again() {
    with(&open(), |topology, filter| {
        for (name, feature, kind) in
            [("gro", "generic-receive-offload", "gro"), ("rxvlan", "rx-vlan-offload", "rxvlan")]
        {
            ethtool(topology, &format!("-K outside {name} on"));
            let repairs = || {
                let labels = ["side=\"outside\"", &*format!("kind=\"{kind}\"")];
                filter.metric("knockplane_configuration_repairs_total", &labels).expect("a counter")
            };
            eventually("it is repaired", || repairs() == 1.0);
            assert_eq!(
                logged(filter, &format!("{name} was turned on, and was turned off again")),
                1,
                "{}",
                filter.log()
            );
            let features = topology.filter.run("ethtool -k outside").expect("ethtool").stdout;
            let line = features.lines().find(|line| line.starts_with(feature)).expect("the feature");
            // veth uses GRO behind a program with any setting.
            assert!(line.contains("off") || line.contains("[not requested]") || kind == "gro", "{line}");
            assert!(filter.http("/readyz").is_ok());
            assert!(ping(topology, ""));
        }
    });
}

#[test]
fn an_enabled_offload_is_reported_if_the_filter_may_not_change_it() {
    let mut options = open();
    options.dataplane = "offloads = \"refuse\"".to_owned();
    let topology = Topology::new(1).expect("a topology");
    for side in ["outside", "inside"] {
        ethtool(&topology, &format!("-K {side} gro off rxvlan off"));
    }
    let filter = Filter::start(&topology, &options).expect("the filter starts");
    ethtool(&topology, "-K inside rxvlan on");
    assert_reported(&filter, "inside", "rxvlan", "ethtool -K inside rxvlan off");
    ethtool(&topology, "-K inside rxvlan off");
    assert_over(&filter, "inside", "rxvlan");
}

#[test]
fn bridges_forwarding_and_addresses_of_the_host_are_reported() {
    with(&open(), |topology, filter| {
        let ip = |arguments: &str| topology.filter.ip(arguments).expect("ip");
        ip("link add br0 type bridge");
        ip("link set outside master br0");
        assert_reported(filter, "outside", "master", "ip link set dev outside nomaster");
        ip("link set outside nomaster");
        assert_over(filter, "outside", "master");

        // A device on the interface bypasses the filter as well: a VLAN, or as here a macvlan.
        ip("link add link inside name above type macvlan");
        ip("link set above master br0");
        assert_reported(filter, "inside", "master", "ip link set dev above nomaster");
        ip("link del above");
        assert_over(filter, "inside", "master");

        topology.filter.set("net/ipv4/conf/inside/forwarding", "1").expect("set");
        assert_reported(filter, "inside", "forwarding", "sysctl -w net.ipv4.conf.inside.forwarding=0");
        topology.filter.set("net/ipv4/conf/inside/forwarding", "0").expect("set");
        assert_over(filter, "inside", "forwarding");

        ip("addr add 10.77.0.9/24 dev outside");
        assert_reported(filter, "outside", "address", "ip addr del 10.77.0.9/24 dev outside");
        assert!(!topology.client.run("ping -n -c 1 -W 1 10.77.0.9").expect("ping").ok(), "the host hears nothing");
        ip("addr del 10.77.0.9/24 dev outside");
        assert_over(filter, "outside", "address");
        ip("route add default dev inside");
        assert_reported(filter, "inside", "default-route", "ip route del default dev inside");
        ip("route del default dev inside");
        assert_over(filter, "inside", "default-route");
        assert!(ping(topology, ""), "all the while, the wire works");
    });
}

#[test]
fn a_dedicated_interface_may_get_addresses_and_a_start_with_them_works() {
    let mut options = open();
    options.dataplane = "dedicated = true".to_owned();
    with(&options, |topology, filter| {
        topology.filter.ip("addr add 10.77.0.9/24 dev outside").expect("ip");
        topology.filter.ip("route add default dev outside").expect("ip");
        filter.dataplane.kill().expect("killed");
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, "") && filter.http("/readyz").is_ok(), "{}", filter.log());
        assert_eq!(drift(filter, "outside"), []);
        assert_eq!(logged(filter, "WARN outside has the address 10.77.0.9/24"), 1, "{}", filter.log());
    });
}

#[test]
fn an_interface_that_is_set_down_or_renamed_is_reported_and_works_again() {
    with(&open(), |topology, filter| {
        let ip = |arguments: &str| topology.filter.ip(arguments).expect("ip");
        ip("link set inside down");
        assert_reported(filter, "inside", "down", "ip link set dev inside up");
        assert!(!ping(topology, ""));
        ip("link set inside up");
        assert_over(filter, "inside", "down");
        assert!(ping(topology, ""), "the wire works as before");

        // The filter's own request for promiscuous mode is independent of an operator's setting.
        ip("link set outside promisc on");
        ip("link set outside promisc off");
        assert!(ping(topology, ""));
        assert_eq!(drift(filter, "outside"), []);

        ip("link set outside name wan0");
        assert_reported(filter, "outside", "name", "ip link set dev wan0 name outside");
        assert!(ping(topology, ""), "the wire works under any name");
        // It is still monitored, under its new name.
        topology.filter.set("net/ipv4/conf/wan0/forwarding", "1").expect("set");
        assert_reported(filter, "outside", "forwarding", "sysctl -w net.ipv4.conf.wan0.forwarding=0");
        topology.filter.set("net/ipv4/conf/wan0/forwarding", "0").expect("set");
        ip("link set wan0 name outside");
        assert_over(filter, "outside", "name");
        assert!(ping(topology, ""));
    });
}

#[test]
fn an_interface_that_is_moved_or_recreated_ends_the_filter() {
    with(&open(), |topology, filter| {
        assert!(ping(topology, ""));
        topology.filter.ip(&format!("link set inside netns {}", topology.server.name())).expect("moved");
        assert_ends(topology, filter, &["interface inside (inside) is gone", "start again once it is back"]);
        topology.server.ip(&format!("link set inside netns {}", topology.filter.name())).expect("moved back");
        topology.filter.ip("link set inside up").expect("up");
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, ""));

        // Creates the interface again at once, with the same name and the same index.
        let links = topology.filter.ip("-j link show dev outside").expect("links");
        let index = serde_json::from_str::<Value>(&links).expect("JSON")[0]["ifindex"].as_u64().expect("an index");
        topology.filter.ip("link del outside").expect("deleted");
        topology.filter.ip(&format!("link add outside index {index} type veth peer other")).expect("made anew");
        topology.filter.ip("link set outside up").expect("up");
        topology.filter.ip("link set other up").expect("up");
        // The check finds either no interface of this index, or the new one.
        assert_ends(topology, filter, &["outside (outside)", "made anew", "start again"]);
        filter.restart_dataplane().expect("started again, on the new interface");
    });
}

#[test]
fn the_program_cannot_be_replaced_and_its_detachment_ends_the_filter() {
    with(&open(), |topology, filter| {
        for way in ["xdp off", "xdpgeneric off", "xdpdrv off"] {
            let _ = topology.filter.run(&format!("ip link set dev outside {way}")).expect("ip can be run");
        }
        assert!(ping(topology, "") && filter.http("/readyz").is_ok(), "the program stands as before");
        detach(topology, "outside");
        assert_ends(topology, filter, &["XDP program is no longer attached to outside (outside)", "start again"]);
        filter.restart_dataplane().expect("started again");
        assert!(ping(topology, ""));
    });
}

/// Detaches the XDP program of an interface by the kernel's command for it (`BPF_LINK_DETACH`), as root may. It uses
/// Perl, which every Debian has, so that no further tool is needed.
fn detach(topology: &Topology, interface: &str) {
    const SCRIPT: &str = r#"
        my ($call, $wanted) = @ARGV;
        # bpf(2): 31 the next link, 30 open it, 15 read it (type, id, program), 34 detach it.
        for (my $id = 0;;) {
            my $next = pack("LLLx64", $id, 0, 0);
            syscall($call, 31, $next, 12) == 0 or die "no such link";
            $id = (unpack("LL", $next))[1];
            my $open = pack("LLLx64", $id, 0, 0);
            my $fd = syscall($call, 30, $open, 12);
            next if $fd < 0;
            my $info = "\0" x 128;
            my $read = pack("LLQx64", $fd, 64, unpack("Q", pack("P", $info)));
            next if syscall($call, 15, $read, 16) != 0;
            my ($type, undef, $program) = unpack("LLL", $info);
            next if $type != 6 || $program != $wanted;
            my $detach = pack("Lx64", $fd);
            exit(syscall($call, 34, $detach, 4) == 0 ? 0 : 1);
        }
    "#;
    let links = topology.filter.ip(&format!("-j -d link show dev {interface}")).expect("links");
    let program = serde_json::from_str::<Value>(&links).expect("JSON")[0]["xdp"]["prog"]["id"].as_u64();
    let program = program.expect("a program is attached").to_string();
    let mut perl = topology.filter.command("perl");
    perl.args(["-e", SCRIPT, &libc::SYS_bpf.to_string(), &program]);
    let output = knockplane_tests::run(&mut perl).expect("perl can be run");
    assert!(output.ok(), "{output:?}");
}

#[test]
fn a_change_is_not_lost_when_the_kernel_drops_notifications() {
    with(&open(), |topology, filter| {
        // Each line causes a notification of about a thousand bytes.
        let mut batch: String = (0..20_000).map(|number| format!("link set outside alias a{number}\n")).collect();
        batch += "link set inside mtu 1400\n";
        let file = filter.path("batch");
        std::fs::write(&file, batch).expect("written");
        topology.filter.ip(&format!("-batch {}", file.display())).expect("ip runs all of them");
        assert_reported(filter, "inside", "mtu", "ip link set dev outside mtu 1400");
        topology.filter.ip("link set inside mtu 1500").expect("set");
        assert_over(filter, "inside", "mtu");
    });
}

/// Runs a test on interfaces with two queues in use and a third that can be added.
fn with_a_spare_queue(test: impl FnOnce(&Topology, &mut Filter<'_>)) {
    let topology = Topology::new(3).expect("a topology");
    for host in [&topology.client, &topology.server] {
        let fewer = host.run("ethtool -L eth0 rx 2 tx 2").expect("ethtool");
        assert!(fewer.ok(), "{fewer:?}");
    }
    for side in ["outside", "inside"] {
        ethtool(&topology, &format!("-L {side} rx 2 tx 2"));
    }
    let mut filter = Filter::start(&topology, &open()).expect("the filter starts");
    test(&topology, &mut filter);
}

/// Sends a frame from each of 40 ports, so that all queues have some.
fn forty_flows(topology: &Topology) {
    for port in 0..40 {
        let socket = topology.client.within(|| {
            let socket = UdpSocket::bind((CLIENT, 20_000 + port))?;
            socket.connect((SERVER, 9))?;
            Ok(socket)
        });
        let _ = socket.expect("a socket").send(b"a frame");
    }
}

/// Checks that every frame that arrived on the outside is in exactly one counter.
fn assert_balanced(topology: &Topology, filter: &Filter<'_>) {
    let outside = ["side=\"outside\""];
    let count = |name: &str| filter.metric(name, &outside).expect("a counter");
    eventually("what the client sent is in the counters", || {
        let (sent, _) = topology.client.traffic("eth0").expect("counters");
        count("knockplane_interface_rx_packets_total") == sent as f64
            && count("knockplane_xdp_frames_total") + count("knockplane_past_program_drops_total") == sent as f64
    });
    let lost = count("knockplane_unbound_queue_drops_total")
        + count("knockplane_tail_drops_total")
        + count("knockplane_ring_drops_total");
    eventually("what the program saw was received, or is a named loss", || {
        count("knockplane_rx_packets_total") + lost == count("knockplane_xdp_frames_total")
    });
}

#[test]
fn frames_of_an_added_queue_are_counted_whether_its_driver_runs_the_program_or_not() {
    with_a_spare_queue(|topology, filter| {
        // The server answers no frame.
        topology.server.ip("route add blackhole 10.77.0.1/32").expect("a route");
        forty_flows(topology);
        assert_balanced(topology, filter);
        ethtool(topology, "-L outside rx 3 tx 3");
        assert_reported(filter, "outside", "queues", "ethtool -L outside rx 2 tx 2");
        let more = topology.client.run("ethtool -L eth0 rx 3 tx 3").expect("ethtool");
        assert!(more.ok(), "{more:?}");
        eventually("the link is up", || {
            filter.ask(&["show", "status"]).expect("status")["interfaces"][0]["up"] == true
        });

        // veth does not run the program on a queue that is added while it is attached: its frames bypass it.
        forty_flows(topology);
        assert_reported(
            filter,
            "outside",
            "past-program",
            "frames get past the XDP program on outside, and are dropped",
        );
        assert_balanced(topology, filter);
        let past = filter.metric("knockplane_past_program_drops_total", &["outside"]).expect("a counter");
        assert!(past > 0.0);

        // After the interface is set up again, veth runs the program on the queue, which has no socket.
        topology.filter.ip("link set outside down").expect("down");
        topology.filter.ip("link set outside up").expect("up");
        eventually("the link is up", || {
            filter.ask(&["show", "status"]).expect("status")["interfaces"][0]["up"] == true
        });
        forty_flows(topology);
        assert_reported(filter, "outside", "no-socket", "frames arrive on queues of outside that no worker serves");
        assert_balanced(topology, filter);
        let status = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
        assert!(status.contains("NO SOCKET  TAILS  PAST XDP"), "{status}");

        let fewer = topology.client.run("ethtool -L eth0 rx 2 tx 2").expect("ethtool");
        assert!(fewer.ok(), "{fewer:?}");
        ethtool(topology, "-L outside rx 2 tx 2");
        eventually("the queues are no longer reported", || gauge(filter, "outside", "queues") == 0.0);
        topology.server.ip("route del blackhole 10.77.0.1/32").expect("a route");
        eventually("the wire works as before", || ping(topology, ""));
    });
}

#[test]
fn queues_added_on_both_sides_end_the_filter_and_a_restart_serves_them() {
    with_a_spare_queue(|topology, filter| {
        for side in ["outside", "inside"] {
            ethtool(topology, &format!("-L {side} rx 3 tx 3"));
        }
        assert_ends(topology, filter, &["outside and inside have 3 receive queues now and had 2", "start again"]);
        filter.restart_dataplane().expect("started again");
        let workers = filter.ask(&["show", "workers"]).expect("workers");
        assert_eq!(workers["workers"].as_array().map(Vec::len), Some(3), "{workers}");
        assert!(ping(topology, ""));
    });
}

#[test]
fn queues_in_use_cannot_be_removed() {
    with_a_spare_queue(|topology, filter| {
        // The kernel refuses to remove queues while their sockets exist.
        for fewer in ["rx 1", "tx 1"] {
            let refused = topology.filter.run(&format!("ethtool -L inside {fewer}")).expect("ethtool");
            assert!(!refused.ok() && refused.stderr.contains("AF_XDP sockets"), "{refused:?}");
        }
        assert!(ping(topology, "") && filter.http("/readyz").is_ok());
    });
}
