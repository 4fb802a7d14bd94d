//! Checks that forged segments have no effect on a connection, and that real segments of the same kind have.

use etherparse::TcpHeader;

use super::*;

/// A connection of this client and server, whose next numbers are known.
struct Session<'r> {
    wire: Wire<'r>,
    /// The window scale.
    scale: u8,
}

/// The originator and the responder.
const ENDS: [usize; 2] = [0, 1];

impl<'r> Session<'r> {
    fn begun(settings: &'r Tracking) -> Session<'r> {
        let mut wire = Wire::new(settings);
        assert_eq!(wire.talk(&["S", "sa", "A"]), [New, Established, Established]);
        Session { wire, scale: 0 }
    }

    /// Begins a session with these window scales in the SYN and in the SYN-ACK; `None` for no option.
    fn with_scales(settings: &'r Tracking, scales: [Option<u8>; 2]) -> Session<'r> {
        let mut wire = Wire::new(settings);
        for (from, flags) in [(0, "S"), (1, "SA")] {
            let isn = [CLIENT_ISN, SERVER_ISN][from];
            let ack = if from == 1 { wire.next[0] } else { 0 };
            let mut frame = segment(from, flags, (isn, ack));
            if let Some(scale) = scales[from] {
                frame = with_options(frame, &[1, 3, 3, scale]);
            }
            wire.next[from] = isn.wrapping_add(1);
            wire.sees_from([Side::Outside, Side::Inside][from], &frame);
        }
        assert_eq!(wire.say("A"), Established);
        Session { wire, scale: 0 }
    }

    /// Sends a segment whose sequence and acknowledgement numbers exceed the next ones by `ahead`.
    fn ahead(&mut self, from: usize, flags: &str, ahead: (u32, u32)) -> ConnectionState {
        let frame = self.frame(from, flags, ahead, b"");
        self.sees(from, &frame)
    }

    fn frame(&self, from: usize, flags: &str, ahead: (u32, u32), payload: &[u8]) -> Vec<u8> {
        let next = self.wire.next;
        let numbers = (next[from].wrapping_add(ahead.0), next[1 - from].wrapping_add(ahead.1));
        let ends = [(CLIENT, 40_000), (SERVER, 22)];
        tcp(ends[from], ends[1 - from], flags, numbers, payload)
    }

    /// Tracks a frame from the side of this end.
    fn sees(&mut self, from: usize, frame: &[u8]) -> ConnectionState {
        self.wire.sees_from([Side::Outside, Side::Inside][from], frame)
    }

    /// Sends data in order.
    fn send(&mut self, from: usize, payload: &[u8]) -> ConnectionState {
        let frame = self.frame(from, "A", (0, 0), payload);
        self.wire.next[from] = self.wire.next[from].wrapping_add(payload.len() as u32);
        self.sees(from, &frame)
    }

    fn flow(&self) -> &Flow {
        self.wire.tracker.flows.values().next().expect("a connection")
    }

    fn state(&self) -> TcpState {
        self.flow().tcp.expect("of TCP").state()
    }

    /// The state of the connection that an attack could change.
    fn seen(&self) -> String {
        format!("{:?}", self.flow())
    }

    /// Checks that the session continues in both directions.
    fn works(&mut self) {
        for from in ENDS {
            assert_eq!(self.send(from, b"still here"), Established, "from {from}");
        }
        assert_eq!(self.state(), TcpState::Established);
    }
}

/// Sets a segment's window, and corrects its checksum.
fn with_window(frame: Vec<u8>, window: u16) -> Vec<u8> {
    rebuilt(frame, |header| header.window_size = window)
}

fn with_options(frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    rebuilt(frame, |header| header.set_options_raw(options).unwrap())
}

fn rebuilt(frame: Vec<u8>, change: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    let (mut header, payload) = TcpHeader::from_slice(&frame[34..]).unwrap();
    change(&mut header);
    let source = <[u8; 4]>::try_from(&frame[26..30]).unwrap();
    let destination = <[u8; 4]>::try_from(&frame[30..34]).unwrap();
    let mut built = Vec::new();
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    ethernet.ipv4(source, destination, 64).tcp_header(header).write(&mut built, payload).unwrap();
    built
}

fn broken(mut frame: Vec<u8>) -> Vec<u8> {
    frame[51] ^= 1;
    frame
}

#[test]
fn segments_outside_the_window_change_nothing() {
    let settings = Tracking::default();
    let far = [70_000, 1 << 20, 1 << 30, 1 << 31, (1 << 31) + 1, 3 << 30, 0_u32.wrapping_sub(70_000)];
    for from in ENDS {
        for flags in ["R", "RA", "FA", "A", "AP"] {
            for ahead in far {
                let mut session = Session::begun(&settings);
                session.wire.wait(5_000);
                let before = session.seen();
                assert_eq!(session.ahead(from, flags, (ahead, 0)), Invalid, "{flags} {ahead} ahead");
                // RST without ACK has no second number.
                if flags != "R" {
                    assert_eq!(session.ahead(from, flags, (0, ahead)), Invalid, "{flags} acknowledges {ahead} ahead");
                }
                assert_eq!(session.seen(), before, "{flags} {ahead} ahead");
                session.works();
            }
        }
    }
}

#[test]
fn a_reset_counts_only_at_exactly_the_next_number() {
    let settings = Tracking::default();
    for from in ENDS {
        for flags in ["R", "RA"] {
            let mut session = Session::begun(&settings);
            let before = session.seen();
            // The first numbers are in the window, so that the other end challenges the segment; the last ones are
            // outside.
            for ahead in [1, 2, 1_000] {
                assert_eq!(session.ahead(from, flags, (ahead, 0)), Established);
            }
            for behind in [1, 2, 1_000] {
                assert_eq!(session.ahead(from, flags, (0_u32.wrapping_sub(behind), 0)), Invalid);
            }
            assert_eq!(session.seen(), before);
            session.works();
            assert_eq!(session.ahead(from, flags, (0, 0)), Established);
            assert_eq!(session.state(), TcpState::Close);
        }
        // Numbers before and after data in flight that is not acknowledged.
        for number in [0, 10] {
            let mut session = Session::begun(&settings);
            session.send(from, b"0123456789");
            let back = 0_u32.wrapping_sub(10 - number);
            session.ahead(from, "R", (back, 0));
            assert_eq!(session.state(), TcpState::Close, "{number} of 10");
        }
    }
}

#[test]
fn a_wrong_checksum_shortens_nothing() {
    let settings = Tracking::default();
    for from in ENDS {
        for flags in ["R", "RA", "FA"] {
            let mut session = Session::begun(&settings);
            let before = session.seen();
            let frame = session.frame(from, flags, (0, 0), b"");
            assert_eq!(session.sees(from, &broken(frame.clone())), Invalid, "{flags}");
            assert_eq!(session.seen(), before);
            session.works();
            let frame = session.frame(from, flags, (0, 0), b"");
            session.sees(from, &frame);
            assert_ne!(session.state(), TcpState::Established, "{flags}");
        }
        // Tracking does not compute the checksum of an ordinary segment.
        let mut session = Session::begun(&settings);
        let frame = session.frame(from, "A", (0, 0), b"data");
        assert_eq!(session.sees(from, &broken(frame)), Established);
    }
}

#[test]
fn a_segment_in_fragments_shortens_nothing() {
    let settings = Tracking::default();
    for flags in ["R", "FA"] {
        let mut session = Session::begun(&settings);
        let whole = session.frame(0, flags, (0, 0), &[b'x'; 12]);
        let first = fragment(whole[..14 + 20 + 24].to_vec(), 7, 0, true);
        let mut first = first;
        first[16..18].copy_from_slice(&44_u16.to_be_bytes());
        assert_eq!(session.sees(0, &first), Established, "{flags}");
        assert_eq!(session.state(), TcpState::Established, "{flags}");
        assert!(session.flow().expiry >= ms(86_400_000));
    }
}

#[test]
fn data_in_fragments_may_be_acknowledged() {
    let settings = Tracking::default();
    let mut session = Session::begun(&settings);
    // 20 bytes of header and 12 of data; 16 more of data.
    let whole = session.frame(0, "A", (0, 0), &[b'x'; 28]);
    let mut first = fragment(whole[..14 + 20 + 32].to_vec(), 7, 0, true);
    first[16..18].copy_from_slice(&52_u16.to_be_bytes());
    let mut later = fragment([&whole[..34], &whole[66..]].concat(), 7, 4, false);
    later[16..18].copy_from_slice(&36_u16.to_be_bytes());
    assert_eq!([session.sees(0, &first), session.sees(0, &later)], [Established; 2]);
    assert_eq!(session.ahead(1, "A", (0, 29)), Invalid);
    assert_eq!(session.ahead(1, "A", (0, 28)), Established);
}

#[test]
fn a_syn_or_a_syn_ack_in_a_connection_is_ignored() {
    let settings = Tracking::default();
    for ahead in [0, 1, 70_000, 1 << 31] {
        let mut session = Session::begun(&settings);
        let state = format!("{:?}", (session.flow().expiry, session.flow().packets, session.state()));
        assert_eq!(session.ahead(0, "S", (ahead, 0)), Established);
        assert_eq!(session.ahead(1, "S", (ahead, 0)), Invalid);
        // Forged segments arrive from outside.
        let answer = session.frame(1, "SA", (ahead, ahead), b"");
        assert_eq!(session.wire.sees_from(Side::Outside, &answer), Established);
        assert_eq!(session.ahead(0, "SA", (ahead, ahead)), Invalid);
        assert_eq!(format!("{:?}", (session.flow().expiry, session.flow().packets, session.state())), state);
        session.works();
    }
}

#[test]
fn an_answer_to_a_syn_in_a_connection_begins_it_anew_if_it_comes_from_the_other_side() {
    let settings = Tracking::default();
    // Client and server have both lost the connection.
    let mut session = Session::begun(&settings);
    let syn = segment(0, "S", (500_000, 0));
    let answer = segment(1, "SA", (900_000, 500_001));
    let next = session.wire.next;
    assert_eq!(session.sees(0, &syn), Established);
    // The sender of the forged SYN also forges the answer to it.
    assert_eq!(session.wire.sees_from(Side::Outside, &answer), Established);
    session.works();
    assert_eq!(session.wire.sees_from(Side::Outside, &segment(1, "SA", (900_000, 500_002))), Established);
    session.works();
    assert_eq!(session.sees(1, &broken(answer.clone())), Invalid);
    session.works();
    assert_ne!(session.wire.next, next);
    assert_eq!(session.sees(1, &answer), Established);
    assert_eq!(session.state(), TcpState::SynReceived);
    session.wire.next = [500_001, 900_001];
    session.works();
}

#[test]
fn a_real_connection_replaces_one_of_forged_segments() {
    let settings = Tracking::default();
    type Forged = (usize, &'static str, (u32, u32));
    let forged: [&[Forged]; 5] = [
        // Forged segments before the client's first packet: a SYN, an ACK, a segment of the server, a whole handshake.
        &[(0, "S", (7, 0))],
        &[(0, "A", (7, 7))],
        &[(1, "A", (7, 7))],
        &[(0, "S", (7, 0)), (1, "SA", (70, 8)), (0, "A", (8, 71))],
        &[(1, "A", (7, 7)), (0, "A", (7, 7)), (1, "A", (7, 7))],
    ];
    for segments in forged {
        let mut wire = Wire::new(&settings);
        for (from, flags, numbers) in segments {
            // All of them arrive from outside.
            wire.sees(&segment(*from, flags, *numbers));
        }
        assert_ne!(wire.say("S"), Invalid, "{segments:?}");
        assert_eq!(wire.talk(&["sa", "A", "a", "A"]), [Established; 4], "{segments:?}");
        let mut session = Session { wire, scale: 0 };
        session.works();
    }
}

#[test]
fn a_sender_on_one_side_alone_cannot_answer_a_syn() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    // A whole forged handshake from outside, and an acknowledged byte.
    wire.sees(&segment(0, "S", (7, 0)));
    assert_eq!(wire.sees(&segment(1, "SA", (70, 8))), Invalid);
    assert_eq!(wire.sees(&segment(0, "A", (8, 71))), Invalid);
    let state = |wire: &Wire<'_>| wire.tracker.flows.values().next().unwrap().tcp.unwrap().state();
    assert_eq!(state(&wire), TcpState::SynSent);
    // The sender cannot act as the other end of a simultaneous open either.
    wire.sees(&segment(1, "S", (70, 0)));
    assert_eq!(state(&wire), TcpState::SynSent);
    assert_eq!(wire.tracker.count, 1);
    assert_eq!(wire.sees_from(Side::Inside, &segment(1, "SA", (900, 8))), Established);
    assert_eq!(wire.sees(&segment(0, "A", (8, 901))), Established);
}

#[test]
fn an_answer_may_come_from_the_side_a_router_sent_the_syn_to() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    // The same packets arrive twice: from the client, and from the router behind the filter.
    for (from, flags, numbers) in [(0, "S", (7, 0)), (1, "SA", (70, 8)), (0, "A", (8, 71))] {
        for side in [Side::Outside, Side::Inside] {
            assert_ne!(wire.sees_from(side, &segment(from, flags, numbers)), Invalid, "{flags} from {side}");
        }
    }
    let flow = wire.tracker.flows.values().next().unwrap();
    assert_eq!(flow.tcp.unwrap().state(), TcpState::Established);
}

#[test]
fn a_forged_syn_and_its_reset_end_no_connection_that_opens() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    // In this case, the client is inside.
    wire.sees_from(Side::Inside, &segment(0, "S", (CLIENT_ISN, 0)));
    wire.sees(&segment(1, "S", (70, 0)));
    for flags in ["R", "RA"] {
        wire.sees(&segment(1, flags, (71, 0)));
    }
    // The client does not answer a SYN that it did not receive.
    assert_eq!(wire.sees(&segment(0, "SA", (5, 71))), Invalid);
    assert_eq!(wire.sees(&segment(1, "SA", (SERVER_ISN, CLIENT_ISN + 1))), Established);
    let ack = segment(0, "A", (CLIENT_ISN + 1, SERVER_ISN.wrapping_add(1)));
    assert_eq!(wire.sees_from(Side::Inside, &ack), Established);
    let flow = wire.tracker.flows.values().next().unwrap();
    assert_eq!(flow.tcp.unwrap().state(), TcpState::Established);
}

#[test]
fn a_forged_syn_from_outside_does_not_replace_one_from_inside() {
    let settings = Tracking::default();
    // The client is inside. Client and server have lost the connection.
    let mut wire = Wire::new(&settings);
    for (from, flags, numbers) in [(0, "S", (7, 0)), (1, "SA", (70, 8)), (0, "A", (8, 71))] {
        wire.sees_from([Side::Inside, Side::Outside][from], &segment(from, flags, numbers));
    }
    wire.sees_from(Side::Inside, &segment(0, "S", (500_000, 0)));
    wire.sees(&segment(0, "S", (600_000, 0)));
    assert_eq!(wire.sees(&segment(1, "SA", (900_000, 500_001))), Established);
    let flow = wire.tracker.flows.values().next().unwrap();
    assert_eq!(flow.tcp.unwrap().state(), TcpState::SynReceived);
}

#[test]
fn a_refusal_must_acknowledge_the_syn() {
    let settings = Tracking::default();
    for (flags, numbers) in [("R", (0, 0)), ("RA", (0, 0)), ("RA", (0, CLIENT_ISN)), ("RA", (0, CLIENT_ISN + 2))] {
        let mut wire = Wire::new(&settings);
        wire.say("S");
        let before = format!("{:?}", wire.tracker.flows);
        assert_eq!(wire.sees_from(Side::Inside, &segment(1, flags, numbers)), Invalid, "{flags} {numbers:?}");
        assert_eq!(format!("{:?}", wire.tracker.flows), before);
        assert_eq!(wire.say("sa"), Established);
    }
    // The SYN-ACK and the segment after it must do so too.
    let mut wire = Wire::new(&settings);
    wire.say("S");
    for number in [CLIENT_ISN, CLIENT_ISN + 2, CLIENT_ISN.wrapping_sub(10), 1 << 31] {
        assert_eq!(wire.sees_from(Side::Inside, &segment(1, "SA", (9, number))), Invalid);
    }
    wire.say("sa");
    for number in [SERVER_ISN, SERVER_ISN.wrapping_add(2), SERVER_ISN.wrapping_sub(10), 1 << 31] {
        assert_eq!(wire.sees(&segment(0, "A", (CLIENT_ISN + 1, number))), Invalid);
    }
    let flow = wire.tracker.flows.values().next().unwrap();
    assert_eq!(flow.tcp.unwrap().state(), TcpState::SynReceived);
    assert_eq!(wire.talk(&["A", "a"]), [Established; 2]);
}

#[test]
fn a_challenged_client_resets_the_servers_old_connection() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    // The server has another connection. The client resets it and tries again.
    assert_eq!(wire.say("S"), New);
    let state = format!("{:?}", wire.tracker.flows);
    assert_eq!(wire.sees_from(Side::Inside, &segment(1, "A", (5, 77_777))), Established);
    assert_eq!(wire.sees(&segment(0, "R", (77_777, 0))), New);
    assert_eq!(format!("{:?}", wire.tracker.flows), state);
    assert_eq!(wire.talk(&["S", "sa", "A"]), [New, Established, Established]);
}

#[test]
fn a_fin_counts_once_nothing_before_it_is_missing_or_it_is_acknowledged() {
    let settings = Tracking::default();
    for from in ENDS {
        let mut session = Session::begun(&settings);
        assert_eq!(session.ahead(from, "FA", (500, 0)), Established);
        assert_eq!(session.state(), TcpState::Established);
        assert!(session.flow().expiry == ms(86_400_000));
        // The missing data arrives later.
        session.send(from, &[b'x'; 500]);
        assert_eq!(session.ahead(1 - from, "A", (0, 1)), Established);
        assert_eq!(session.state(), TcpState::CloseWait);
    }
    // A forged FIN, and data beyond it.
    let mut session = Session::begun(&settings);
    session.ahead(0, "FA", (500, 0));
    session.send(0, &[b'x'; 400]);
    session.send(0, &[b'x'; 400]);
    session.works();
}

#[test]
fn a_connection_is_over_when_both_fins_are_acknowledged() {
    let settings = Tracking::default();
    let mut session = Session::begun(&settings);
    session.wire.say("FA");
    // The same FIN again does not count as a second one.
    let back = 0_u32.wrapping_sub(1);
    session.ahead(0, "FA", (back, 0));
    assert_eq!(session.state(), TcpState::FinWait);
    session.wire.say("a");
    assert_eq!(session.send(1, b"not yet"), Established);
    assert_eq!(session.state(), TcpState::CloseWait);
    // No data follows a FIN.
    assert_eq!(session.send(0, b"beyond"), Invalid);
    session.wire.next[0] = session.wire.next[0].wrapping_sub(6);
    session.wire.say("fa");
    assert_eq!(session.state(), TcpState::LastAck);
    session.wire.say("A");
    assert_eq!(session.state(), TcpState::TimeWait);
    // Ports may be used again, with numbers above or below the old ones. A segment with a wrong checksum begins no
    // connection.
    for isn in [500_000, 1] {
        assert_eq!(session.sees(0, &broken(segment(0, "S", (isn, 0)))), Invalid);
        assert_eq!(session.state(), TcpState::TimeWait);
    }
    assert_eq!(session.sees(0, &segment(0, "S", (500_000, 0))), New);
}

#[test]
fn windows_are_scaled_if_both_ends_want_that() {
    let settings = Tracking::default();
    for (scales, fits) in
        [([Some(7), Some(7)], true), ([Some(7), None], false), ([None, Some(7)], false), ([Some(0), Some(0)], false)]
    {
        for from in ENDS {
            let mut session = Session::with_scales(&settings, scales);
            // The receiver offers a window of 1,024, scaled or not.
            assert_eq!(session.ahead(1 - from, "A", (0, 0)), Established);
            let expected = if fits { Established } else { Invalid };
            let frame = session.frame(from, "A", (100_000, 0), b"data");
            assert_eq!(session.sees(from, &frame), expected, "{scales:?} from {from}");
            let frame = session.frame(from, "A", (1024 << 7, 0), b"");
            assert_eq!(session.sees(from, &frame), expected, "{scales:?} from {from}");
            let frame = session.frame(from, "A", ((1024 << 7) + 1, 0), b"");
            assert_eq!(session.sees(from, &frame), Invalid, "{scales:?} from {from}");
        }
    }
    // More than 14 means 14.
    let mut session = Session::with_scales(&settings, [Some(200), Some(255)]);
    session.ahead(1, "A", (0, 0));
    assert_eq!(session.ahead(0, "A", (1024 << 14, 0)), Established);
    assert_eq!(session.ahead(0, "A", ((1024 << 14) + 1, 0)), Invalid);
}

#[test]
fn segments_of_real_ends_are_in_the_window() {
    let settings = Tracking::default();
    for from in ENDS {
        let mut session = Session::begun(&settings);
        // Keep-alives without data and with one byte, and their answers.
        for payload in [&b""[..], b"x"] {
            let probe = session.frame(from, "A", (0_u32.wrapping_sub(1), 0), payload);
            assert_eq!(session.sees(from, &probe), Established);
            assert_eq!(session.ahead(1 - from, "A", (0, 0)), Established);
        }
        // A zero window and a probe of one byte; then a larger window.
        let closed = with_window(session.frame(1 - from, "A", (0, 0), b""), 0);
        assert_eq!(session.sees(1 - from, &closed), Established);
        session.send(from, &[0; 1024]);
        let closed = with_window(session.frame(1 - from, "A", (0, 0), b""), 0);
        assert_eq!(session.sees(1 - from, &closed), Established);
        assert_eq!(session.send(from, b"p"), Established);
        assert_eq!(session.ahead(1 - from, "A", (0, 0)), Established);
        // Retransmissions, in order and out of order.
        session.send(from, &[1; 500]);
        session.send(from, &[1; 500]);
        for back in [1_000, 500, 1_000] {
            let again = session.frame(from, "A", (0_u32.wrapping_sub(back), 0), &[1; 500]);
            assert_eq!(session.sees(from, &again), Established);
        }
        session.works();
    }
}

#[test]
fn numbers_wrap_around() {
    let settings = Tracking::default();
    let mut session = Session::with_scales(&settings, [Some(14), Some(14)]);
    session.ahead(1, "A", (0, 0));
    session.ahead(0, "A", (0, 0));
    // Five gibibytes in each direction. The filter receives only the beginning and the end of each half mebibyte.
    let jump = 1 << 19;
    for _ in 0..(5_u64 << 30) / u64::from(jump) {
        for from in ENDS {
            session.wire.next[from] = session.wire.next[from].wrapping_add(jump);
            assert_eq!(session.send(from, b"the end"), Established);
            assert_eq!(session.ahead(1 - from, "A", (0, 0)), Established);
            for (ahead, ack) in [((1024 << 14) + 1, 0), (1 << 31, 0), (0, 1), (0, 1 << 31)] {
                assert_eq!(session.ahead(from, "A", (ahead, ack)), Invalid);
            }
        }
    }
    session.works();
}

#[test]
fn sack_may_name_only_what_was_sent() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    for (from, flags, numbers) in [(0, "S", (CLIENT_ISN, 0)), (1, "SA", (SERVER_ISN, CLIENT_ISN + 1))] {
        let frame = with_options(segment(from, flags, numbers), &[1, 1, 4, 2]);
        wire.sees_from([Side::Outside, Side::Inside][from], &frame);
    }
    wire.next = [CLIENT_ISN + 1, SERVER_ISN.wrapping_add(1)];
    wire.say("A");
    let mut session = Session { wire, scale: 0 };
    let start = session.wire.next[0];
    session.send(0, &[0; 500]);
    session.send(0, &[0; 500]);
    let sack = |session: &Session<'_>, blocks: &[(u32, u32)]| {
        let mut options = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (left, right) in blocks {
            options
                .extend([start.wrapping_add(*left).to_be_bytes(), start.wrapping_add(*right).to_be_bytes()].concat());
        }
        with_options(session.frame(1, "A", (0, 0_u32.wrapping_sub(1_000)), b""), &options)
    };
    for (blocks, expected) in [
        (&[(500, 1_000)][..], Established),
        (&[(500, 1_001)], Invalid),
        (&[(500, 600), (700, 1_000)], Established),
        (&[(500, 600), (700, 5_000)], Invalid),
    ] {
        let frame = sack(&session, blocks);
        assert_eq!(session.sees(1, &frame), expected, "{blocks:?}");
    }
}

#[test]
fn errors_are_related_if_the_quoted_segment_can_be_in_flight() {
    let settings = Tracking::default();
    let router = "192.0.2.99";
    for from in ENDS {
        let mut session = Session::begun(&settings);
        session.send(from, &[0; 100]);
        let before = session.seen();
        let to = [CLIENT, SERVER][from];
        for (number, expected) in [
            (0, Related),
            (99, Related),
            // Data that was sent and not acknowledged, and an earlier keep-alive.
            (0_u32.wrapping_sub(1), Related),
            (100, Related),
            (101, Invalid),
            (0_u32.wrapping_sub(2), Invalid),
            (70_000, Invalid),
            (1 << 31, Invalid),
        ] {
            let back = 0_u32.wrapping_sub(100).wrapping_add(number);
            let about = session.frame(from, "A", (back, 0), b"");
            for length in [28, 40] {
                let error = icmp(router, to, (3, 4), [0; 4], &about[14..][..length]);
                assert_eq!(session.wire.sees(&error), expected, "{number}");
            }
            // Without the number, the connection cannot be found.
            let error = icmp(router, to, (3, 4), [0; 4], &about[14..][..27]);
            assert_eq!(session.wire.sees(&error), Invalid, "{number}");
        }
        assert_eq!(session.seen(), before);
    }
}

#[test]
fn a_connection_picked_up_in_the_middle_has_windows_too() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    // Both ends have sent much data. The server has sent data that the client has not acknowledged.
    wire.next = [3_000_000_000, 10];
    assert_eq!(wire.talk(&["A"]), [New]);
    wire.next[1] = 5_010;
    assert_eq!(wire.talk(&["a", "A"]), [Established; 2]);
    let mut session = Session { wire, scale: 14 };
    session.works();
    let beyond = (1024 << session.scale) + 100;
    for from in ENDS {
        for flags in ["A", "FA", "R", "RA"] {
            assert_eq!(session.ahead(from, flags, (beyond, 0)), Invalid, "{flags}");
        }
        for flags in ["A", "FA", "RA"] {
            assert_eq!(session.ahead(from, flags, (0, beyond)), Invalid, "{flags}");
        }
        assert_eq!(session.ahead(from, "R", (1, 0)), Established);
        assert_eq!(session.ahead(from, "FA", (2, 0)), Established);
        assert_eq!(session.state(), TcpState::Established);
    }
    session.works();
    assert_eq!(session.ahead(0, "R", (0, 0)), Established);
}

#[test]
fn a_sender_that_picks_up_a_connection_from_one_side_cannot_answer_itself() {
    let settings = Tracking::default();
    let mut wire = Wire::new(&settings);
    assert_eq!(wire.sees(&segment(0, "A", (7, 7))), New);
    assert_eq!(wire.sees(&segment(1, "A", (7, 7))), New);
    // The real ends have other numbers.
    wire.next = [3_000_000_000, 2_000_000_000];
    assert_eq!(wire.talk(&["a", "A", "a", "A"]), [New, New, Established, Established]);
    Session { wire, scale: 14 }.works();
}
