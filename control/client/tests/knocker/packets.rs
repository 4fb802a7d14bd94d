//! The packets of a knock: bytes, lengths, order, number.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::lab::{self, KNOCKER, Lab, Payload};

fn payloads(lab: &Lab, arguments: &[&str]) -> Vec<Payload> {
    lab.knocks_of(KNOCKER, arguments).into_iter().map(|knock| knock.payload).collect()
}

fn datagram(port: u16, payload: &[u8]) -> Payload {
    Payload::Datagram(port, payload.to_vec())
}

const ECHO: Payload = Payload::Echo { checksum_is_right: true };

#[test]
fn steps_leave_in_order_once_each() {
    lab::inside(|lab| {
        assert_eq!(
            payloads(lab, &["127.0.0.1", "3000", "2000:udp", "icmp", "2000:udp=word", "1000:tcp", "3000", "icmp=100"]),
            [
                Payload::Syn(3000),
                datagram(2000, &[0]),
                ECHO,
                datagram(2000, b"word"),
                Payload::Syn(1000),
                Payload::Syn(3000),
                ECHO,
            ]
        );
    });
}

#[test]
fn a_long_sequence_keeps_its_order() {
    lab::inside(|lab| {
        // Ports in neither ascending nor descending order; the even ones use TCP.
        let ports: Vec<u16> = (0..64).map(|n| 1 + n * 97 % 251).collect();
        let steps: Vec<String> =
            ports.iter().map(|port| if port % 2 == 0 { port.to_string() } else { format!("{port}:udp") }).collect();
        let arguments: Vec<&str> = std::iter::once("127.0.0.1").chain(steps.iter().map(String::as_str)).collect();
        let expected: Vec<Payload> =
            ports.iter().map(|&port| if port % 2 == 0 { Payload::Syn(port) } else { datagram(port, &[0]) }).collect();
        assert_eq!(payloads(lab, &arguments), expected);
    });
}

#[test]
fn a_delay_changes_nothing_but_the_time() {
    lab::inside(|lab| {
        assert_eq!(
            payloads(lab, &["-d", "5", "127.0.0.1", "3", "2:udp", "1"]),
            [Payload::Syn(3), datagram(2, &[0]), Payload::Syn(1)]
        );
    });
}

#[test]
fn a_udp_socket_receives_exactly_the_payload() {
    lab::inside(|_| {
        let door = UdpSocket::bind("127.0.0.1:4321").unwrap();
        door.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let passphrase = b"a=b:c \xff\x01\n".as_slice();
        let step = [b"4321:udp=".as_slice(), passphrase].concat();
        let status = Command::new(KNOCKER).args(["127.0.0.1", "4321:udp"]).arg(OsStr::from_bytes(&step)).status();
        assert!(status.unwrap().success());

        let mut buffer = [0xaa; 100];
        assert_eq!(door.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], 0);
        let len = door.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], passphrase);
    });
}

/// Loopback gets a route to a network without hosts, so that the SYN is never answered. The kernel would retransmit it after
/// one second (RFC 6298); the test waits longer.
#[test]
fn a_syn_without_an_answer_is_not_retransmitted() {
    lab::inside(|lab| {
        lab.ip("address add 10.9.0.1/32 dev lo");
        lab.ip("route add 10.9.9.0/24 dev lo src 10.9.0.1");
        let mut tap = lab.tap();
        assert!(lab.knocker(&["10.9.9.9", "1234"]).status.success());
        thread::sleep(Duration::from_millis(2500));
        let payloads: Vec<Payload> = tap.finish().into_iter().map(|knock| knock.payload).collect();
        assert_eq!(payloads, [Payload::Syn(1234)]);
    });
}

#[test]
fn the_size_of_an_echo_request_is_that_of_its_ip_packet() {
    lab::inside(|lab| {
        let sizes = |host: &str, steps: &[&str]| -> Vec<(usize, Payload)> {
            let arguments = [&[host], steps].concat();
            let knocks = lab.knocks_of(KNOCKER, &arguments);
            knocks.into_iter().map(|knock| (knock.packet_len, knock.payload)).collect()
        };
        assert_eq!(
            sizes("127.0.0.1", &["icmp", "icmp=28", "icmp=29", "icmp=1500"]),
            [(84, ECHO), (28, ECHO), (29, ECHO), (1500, ECHO)]
        );
        assert_eq!(
            sizes("::1", &["icmp", "icmp=48", "icmp=101", "icmp=1500"]),
            [(104, ECHO), (48, ECHO), (101, ECHO), (1500, ECHO)]
        );
    });
}

/// A new network namespace permits no ping socket; here all users may open one, and the process may not open a raw socket.
#[test]
fn a_ping_socket_needs_no_privilege() {
    lab::inside(|lab| {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("the namespace's own setting");
        let without_raw = ["--bounding-set=-net_raw", "--inh-caps=-net_raw", KNOCKER];
        for (host, packet_len) in [("127.0.0.1", 128), ("::1", 128)] {
            let knocks = lab.knocks_of("setpriv", &[&without_raw[..], &[host, "icmp=128"]].concat());
            assert_eq!(knocks.len(), 1);
            assert_eq!((knocks[0].packet_len, &knocks[0].payload), (packet_len, &ECHO));
        }
    });
}

#[test]
fn each_family_when_asked_for() {
    lab::inside(|lab| {
        for (arguments, to) in [
            (["-4", "localhost", "1:udp"], "127.0.0.1"),
            (["-6", "::1", "1:udp"], "::1"),
            (["-v", "127.0.0.2", "1:udp"], "127.0.0.2"),
        ] {
            let knocks = lab.knocks_of(KNOCKER, &arguments);
            assert_eq!(knocks.len(), 1, "{arguments:?}");
            assert_eq!(knocks[0].to, to.parse::<std::net::IpAddr>().unwrap());
        }
    });
}

/// Connection tracking treats requests with the same identifier as one connection.
#[test]
fn each_echo_request_has_its_own_identifier() {
    lab::inside(|lab| {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("the namespace's own setting");
        let raw = [KNOCKER];
        let ping = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", KNOCKER];
        for program in [&raw[..], &ping[..]] {
            for host in ["127.0.0.1", "::1"] {
                let mut seen = Vec::new();
                for _ in 0..2 {
                    let arguments = [&program[1..], &[host, "icmp=128", "icmp=228", "7000", "icmp=328"]].concat();
                    seen.extend(lab.knocks_of(program[0], &arguments).into_iter().filter_map(|knock| knock.identifier));
                }
                assert_eq!(seen.len(), 6, "{program:?} {host}");
                seen.sort_unstable();
                seen.dedup();
                // The two runs begin at random identifiers: they overlap once in ten thousand times.
                assert!(seen.len() >= 5, "{program:?} {host}: {seen:?}");
            }
        }
    });
}

#[test]
fn each_step_is_sent_over_both_families() {
    lab::inside(|lab| {
        // A host name with an address of each family, known only in this test.
        let hosts = tempfile::NamedTempFile::new().unwrap();
        fs::write(&hosts, "127.0.0.1 gate\n::1 gate\n").unwrap();
        let script = format!("mount --bind {} /etc/hosts && exec {KNOCKER} \"$@\"", hosts.path().display());
        let with_hosts =
            |arguments: &[&'static str]| [&["--mount", "sh", "-c", &script, "knocker"], arguments].concat();
        let knocks = |arguments: &[&'static str]| -> Vec<(String, Payload)> {
            let knocks = lab.knocks_of("unshare", &with_hosts(arguments));
            knocks.into_iter().map(|knock| (knock.to.to_string(), knock.payload)).collect()
        };
        let at = |to: &str, what: &Payload| (to.to_owned(), what.clone());
        let (one, two) = (Payload::Syn(1), datagram(2, b"word"));
        assert_eq!(
            knocks(&["--both", "gate", "1", "2:udp=word"]),
            [at("127.0.0.1", &one), at("::1", &one), at("127.0.0.1", &two), at("::1", &two)]
        );
        // A host with one address.
        assert_eq!(knocks(&["--both", "::1", "1"]), [at("::1", &one)]);
        // A network without IPv6: the whole sequence is still sent over IPv4.
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("the namespace's own setting");
        let mut tap = lab.tap();
        let output = lab::run("unshare", &with_hosts(&["--both", "gate", "1", "2:udp=word"]));
        let error = lab::text(&output.stderr);
        assert!(output.status.success() && error.contains("warning: step 1"), "{error}");
        let sent: Vec<_> = tap.finish().into_iter().map(|knock| knock.payload).collect();
        assert_eq!(sent, [one, two]);
    });
}

#[test]
fn passphrases_come_from_standard_input() {
    lab::inside(|lab| {
        let mut tap = lab.tap();
        let mut child = Command::new(KNOCKER)
            .args(["--passphrase-stdin", "127.0.0.1", "1:udp=", "2", "3:udp="])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"a=\xff\nopen sesame\n").unwrap();
        assert!(child.wait().unwrap().success());
        let sent: Vec<_> = tap.finish().into_iter().map(|knock| knock.payload).collect();
        assert_eq!(sent, [datagram(1, b"a=\xff"), Payload::Syn(2), datagram(3, b"open sesame")]);

        // Without a line for each step, nothing is sent.
        let mut tap = lab.tap();
        let output = Command::new(KNOCKER)
            .args(["--passphrase-stdin", "127.0.0.1", "1:udp=", "3:udp="])
            .stdin(fs::File::open("/dev/null").unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", lab::text(&output.stderr));
        assert_eq!(tap.finish(), []);
    });
}

#[test]
fn a_dry_run_sends_nothing() {
    lab::inside(|lab| {
        let mut tap = lab.tap();
        let output = lab.knocker(&[
            "--dry-run",
            "127.0.0.1",
            "1",
            "2:udp=secret",
            "icmp",
            "--wait-port",
            "22",
            "--then",
            "touch",
            "/nonexistent/x",
        ]);
        assert_eq!(tap.finish(), []);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            lab::text(&output.stdout),
            "to 127.0.0.1, 10 ms between steps\n\
             step 1: tcp 1, a SYN\n\
             step 2: udp 2, a passphrase of 6 bytes\n\
             step 3: icmp, an echo request in an IP packet of 84 bytes\n\
             then wait 200 ms\n\
             then wait until tcp 22 answers, at most 10 s\n\
             then run: touch /nonexistent/x\n"
        );
    });
}
