//! Senders that leave checksums and segmentation to their interface, as hosts behind a veth do by default.

use knockplane_tests::{FilterOptions, Topology};

use crate::scenario::{eventually, knock, serve_tcp, tcp_echo, with};

const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "1h"
"#;

fn ethtool(topology: &Topology, options: &str) {
    let line = format!("ethtool -K eth0 {options}");
    let output = topology.client.run(&line).expect("ethtool can be run");
    assert!(output.ok(), "{line}: {output:?}");
}

#[test]
fn a_sender_without_checksums_is_reported_with_the_remedy() {
    let options = FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") };
    with(&options, |topology, filter| {
        serve_tcp(topology, 8080);
        let offload = || filter.ask(&["show", "status"]).expect("the status")["offload"].clone();
        ethtool(topology, "tx on");
        knock(topology, "7000:tcp 4321:udp 1234:tcp");
        eventually("the door opens, and the knock has no checksum", || offload()["checksums"]["outside"] == 1);
        assert!(!tcp_echo(topology, 8080), "the door is open, and nothing connects");
        assert_eq!(
            (offload()["checksums"]["outside"].as_u64(), offload()["checksums"]["inside"].as_u64()),
            (Some(2), Some(0))
        );
        let remedy = "`ethtool -K INTERFACE tx off tso off gso off`";
        let status = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
        let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status.contains("warning 2 packets have no checksum") && status.contains(remedy), "{status}");
        let ready = filter.http("/readyz").expect("it is ready all the same");
        assert!(ready.starts_with("ready\nwarning: 2 packets have no checksum") && ready.contains(remedy), "{ready}");
        assert_eq!(filter.log().matches("no checksum among first packets").count(), 1, "{}", filter.log());
        assert_eq!(
            filter.metric("knockplane_packets_without_checksum_total", &["side=\"outside\""]).expect("a counter"),
            2.0
        );

        ethtool(topology, "tx off tso off gso off");
        assert!(tcp_echo(topology, 8080), "the remedy helps");
        assert_eq!(offload()["checksums"]["outside"], 2);
    });
}
