//! Path MTU discovery through the filter: a server sends full-size packets to a host behind a link of smaller MTU, and
//! the router there sends ICMP errors.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use knockplane_tests::{FAR, FAR6, FilterOptions, Namespace, SERVER, SERVER6, Topology};

use crate::scenario::{PATIENCE, with};

/// MTU of the link to the far host. Larger than a greeting, smaller than Ethernet's.
const MTU: u32 = 1_400;

/// Size of the download in bytes.
const DOWNLOAD: usize = 200_000;

/// Time after which a download counts as stalled.
const STALLED: Duration = Duration::from_secs(3);

const RELATED: &str = "add chain=input connection-state=established,related action=accept\n";

/// All packets of sources in `secured` are accepted, as in `configs/two-ports.rsc`, for both families.
fn rules(first: &str) -> String {
    let accept =
        format!("{first}add chain=input src-address-list=secured action=accept\nadd chain=input action=drop\n");
    format!("/ip firewall filter\n{accept}/ipv6 firewall filter\n{accept}")
}

/// Runs a test with a far host that is in `secured`.
fn with_far_host(rules: &str, test: impl FnOnce(&Topology, &Namespace)) {
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let far = topology.add_far_host(MTU).expect("a host behind the client");
        for address in [FAR, FAR6] {
            assert!(filter.knockctl(&["list", "add", "secured", address]).expect("knockctl").ok());
        }
        test(topology, &far);
    });
}

/// Bytes of a download that the far host gets within a time.
fn download(topology: &Topology, far: &Namespace, server: &str, patience: Duration) -> usize {
    let address = SocketAddr::new(server.parse::<IpAddr>().expect("an address"), 8_080);
    let listener = topology.server.within(|| Ok(TcpListener::bind(address)?)).expect("the port is free");
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            // The write fails if the reader has ended because the download stalled.
            let _ = stream.write_all(&[b'x'; DOWNLOAD]);
        }
    });
    let stream = far.within(|| {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(stream)
    });
    let mut stream = stream.expect("a connection takes small packets only");
    let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
    while let Ok(count) = stream.read(&mut buffer) {
        got += count;
        if count == 0 || got >= DOWNLOAD {
            break;
        }
    }
    got
}

#[test]
fn a_download_over_a_small_link_arrives_if_related_packets_are_accepted() {
    with_far_host(&rules(RELATED), |topology, far| {
        for server in [SERVER, SERVER6] {
            assert_eq!(download(topology, far, server, PATIENCE), DOWNLOAD, "from {server}");
        }
    });
}

/// Tests the case of lint K021: without the rule, the connection is established and stalls.
#[test]
fn a_download_over_a_small_link_stalls_if_icmp_errors_are_dropped() {
    with_far_host(&rules(""), |topology, far| {
        for server in [SERVER, SERVER6] {
            assert!(download(topology, far, server, STALLED) < DOWNLOAD, "from {server}");
        }
    });
}
