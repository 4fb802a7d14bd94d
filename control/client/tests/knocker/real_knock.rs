//! Compares the packets of `knocker` with those of Debian's `knock` (package knockd), which must be installed, for the
//! same arguments.

use crate::lab::{self, KNOCKER, Payload};

/// The command lines. Their hosts need no name server, because the namespace has none.
const LINES: &[&str] = &[
    "127.0.0.1 1234",
    "127.0.0.1 7000 8000 9000",
    "127.0.0.1 1234:tcp 4321:udp 5678",
    "127.0.0.1 4321:udp",
    "-u 127.0.0.1 1234 4321",
    // -u overrides `:tcp`.
    "-u 127.0.0.1 1234:tcp 4321:udp",
    "127.0.0.1 1 2 -u",
    "-d 2 127.0.0.1 3 1:udp 2",
    "--delay 2 --udp --verbose --ipv4 127.0.0.1 3 1",
    "-v -v -4 127.0.0.1 1000",
    "-6 ::1 1234 4321:udp",
    "::1 1234",
    "127.0.0.1 ssh domain:udp",
    // A service that is registered for the other protocol only.
    "127.0.0.1 tftp",
];

#[test]
fn the_packets_are_the_same() {
    lab::inside(|lab| {
        for line in LINES {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            let theirs = lab.knocks_of("knock", &arguments);
            let ours = lab.knocks_of(KNOCKER, &arguments);
            assert!(!theirs.is_empty(), "{line}: `knock` sent nothing");
            assert_eq!(ours, theirs, "{line}");
        }
    });
}

/// The only intended difference: `knock` sends a step with a mistyped protocol over TCP.
#[test]
fn a_mistyped_protocol_is_refused_here() {
    lab::inside(|lab| {
        let theirs = lab.knocks_of("knock", &["127.0.0.1", "1234:upd"]);
        assert_eq!(theirs.len(), 1);
        assert_eq!(theirs[0].payload, Payload::Syn(1234));

        let mut tap = lab.tap();
        assert_eq!(lab.knocker(&["127.0.0.1", "1234:upd"]).status.code(), Some(2));
        assert_eq!(tap.finish(), []);
    });
}
