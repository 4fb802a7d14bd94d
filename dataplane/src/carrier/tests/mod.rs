//! The same frames with and without the fast path: the real XDP program, by test runs of the kernel, and the engine.
//!
//! Two worlds receive the same frames and the same changes. In one of them the engine decides about each frame. In the other
//! one the program receives each frame first, and the engine decides about those that come up. Verdicts, counters of
//! rules and chains, lists and connections must be equal.

mod lab;
mod strangers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use self::lab::{Numbers, Program, World, sequences, soak};
use super::Carrier;
use crate::fast_path::FastPathSwitch;

/// Rules, of which each rule set has some, in a random order, before the last one.
const RULES: [&str; 18] = [
    "add chain=input connection-state=established,related action=accept",
    "add chain=input connection-state=established action=fasttrack-connection",
    "add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=temporary address-list-timeout=10s",
    "add chain=input protocol=tcp dst-port=4321 src-address-list=temporary action=add-src-to-address-list address-list=secured \
     address-list-timeout=30s",
    "add chain=input src-address-list=secured action=accept",
    "add chain=input src-address-list=secured action=accept",
    "add chain=input dst-address-list=secured action=accept",
    "add chain=input protocol=udp src-address-list=!secured dst-port=53 action=accept",
    "add chain=input protocol=udp dst-port=53 action=accept",
    "add chain=input packet-size=0-60 action=passthrough",
    "add chain=input connection-state=established action=accept",
    "add chain=input protocol=tcp tcp-flags=syn dst-port=22 action=drop",
    "add chain=input src-address-list=blocked action=drop",
    "add chain=input dst-address-list=blocked src-address-list=!secured action=drop",
    "add chain=input limit=5,5:packet protocol=tcp action=accept",
    "add chain=input protocol=udp dst-port=123 log=yes action=accept",
    "add chain=input protocol=tcp action=jump jump-target=tcp",
    "add chain=input protocol=udp action=add-dst-to-address-list address-list=blocked address-list-timeout=2s dst-port=99",
];

fn rule_set(numbers: &mut Numbers) -> String {
    let mut text = "/ip firewall filter\n".to_owned();
    if numbers.below(2) == 0 {
        text += "add chain=input connection-state=established,related action=accept\n";
        text += numbers.one_of(&["add chain=input connection-state=invalid action=drop\n", ""]);
    }
    for _ in 0..1 + numbers.below(7) {
        text += numbers.one_of(&RULES);
        text.push('\n');
    }
    text += numbers.one_of(&["add chain=input src-address-list=secured action=accept\n", ""]);
    text += "add chain=tcp dst-port=22 src-address-list=secured action=accept\n";
    text += numbers.one_of(&["add chain=input action=drop\n", "add chain=input action=accept\n", ""]);
    text += "/ip firewall address-list\nadd list=blocked address=192.0.2.4\n";
    text + "add list=secured address=192.0.2.3 timeout=20s\nadd list=temporary address=198.51.100.0/24\n"
}

const ADDRESSES: [[u8; 4]; 5] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3], [192, 0, 2, 4], [203, 0, 113, 5]];

/// A frame of a few flows, and sometimes with changed bytes.
fn frame(numbers: &mut Numbers) -> Vec<u8> {
    let source = numbers.one_of(&[ADDRESSES[0], ADDRESSES[0], ADDRESSES[1], ADDRESSES[2], ADDRESSES[3], ADDRESSES[4]]);
    let destination = numbers.one_of(&ADDRESSES);
    let is_tcp = numbers.below(2) == 0;
    let port: u16 = if is_tcp { numbers.one_of(&[1234, 4321, 22]) } else { numbers.one_of(&[53, 123, 99, 7]) };
    let payload = numbers.one_of(&[0_usize, 0, 0, 4, 300]);
    let transport: Vec<u8> = if is_tcp {
        let flags = numbers.one_of(&[0x02, 0x10, 0x10, 0x18, 0x11, 0x04]);
        [&[0x9c, 0x40][..], &port.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]].concat()
    } else {
        let length = 8 + payload as u16;
        [&[0x9c, 0x40][..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0]].concat()
    };
    let protocol = if is_tcp { 6 } else { 17 };
    let length = (transport.len() + payload) as u16;
    let mut frame = vec![2; 12];
    if numbers.below(5) == 0 {
        frame.extend([0x81, 0, numbers.one_of(&[0, 0x60]), numbers.one_of(&[0, 7, 9])]);
    }
    if numbers.below(4) > 0 {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(source.into_iter().chain(destination));
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([protocol, 64]);
        for address in [source, destination] {
            frame.extend([&[0x20, 1, 0xd, 0xb8][..], &[0; 8], &address].concat());
        }
    }
    frame.extend(transport);
    frame.resize(frame.len() + payload, 0x2e);
    if numbers.below(8) == 0 {
        let at = 12 + numbers.below(frame.len() - 12);
        frame[at] = numbers.below(256) as u8;
    }
    frame
}

/// A TCP connection between a client outside and a server inside, with valid segments and others.
struct Conversation {
    port: u16,
    /// The next sequence number of each end.
    next: [u32; 2],
    /// Segments of the handshake that were sent.
    opened: u8,
}

impl Conversation {
    fn new(numbers: &mut Numbers) -> Conversation {
        let next = [0; 2].map(|_: u32| numbers.one_of(&[1, 0x7fff_ff00, 0xffff_ff80]));
        Conversation { port: 40_000 + numbers.below(4) as u16, next, opened: 0 }
    }

    /// The next segment, and the side that it arrives on.
    fn segment(&mut self, numbers: &mut Numbers) -> (Vec<u8>, Side) {
        const SCALE: [u8; 4] = [1, 3, 3, 7];
        let (from, flags, payload, options): (usize, u8, usize, Vec<u8>) = match self.opened {
            0 => (0, 0x02, 0, SCALE.to_vec()),
            1 => (1, 0x12, 0, SCALE.to_vec()),
            2 => (0, 0x10, 0, Vec::new()),
            _ => {
                let end = numbers.one_of(&[0x10, 0x10, 0x18, 0x10, 0x18, 0x10, 0x18, 0x10, 0x11, 0x04, 0x02, 0x00]);
                let flags = if numbers.below(6) == 0 { end } else { 0x10 };
                let timestamps = [&[1, 1, 8, 10][..], &[7; 8]].concat();
                let sack = [&[1, 1, 5, 10][..], &self.next[0].to_be_bytes(), &self.next[1].to_be_bytes()].concat();
                let options = match numbers.below(8) {
                    0..4 => Vec::new(),
                    4..7 => timestamps,
                    _ => sack,
                };
                (numbers.below(2), flags, numbers.one_of(&[0, 0, 10, 1_400]), options)
            }
        };
        let (mut sequence, mut acknowledgement) = (self.next[from], self.next[1 - from]);
        let is_open = self.opened > 2;
        if is_open && numbers.below(5) == 0 {
            let far = numbers.one_of(&[1, 50, 1_000, 70_000, 200_000, 0x4000_0000]);
            let ahead = numbers.below(2) == 0;
            let number = if numbers.below(2) == 0 { &mut sequence } else { &mut acknowledgement };
            *number = if ahead { number.wrapping_add(far) } else { number.wrapping_sub(far) };
        } else {
            let marks = u32::from(flags & 0x03 != 0);
            self.next[from] = sequence.wrapping_add(payload as u32 + marks);
            self.opened = self.opened.saturating_add(1);
        }
        if flags == 0x02 {
            acknowledgement = 0;
        }
        if is_open && flags & 0x07 != 0 && numbers.below(2) == 0 {
            *self = Conversation::new(numbers);
        }
        let offset = (20 + options.len() as u8) / 4 * 16;
        let [one, other] = if from == 0 { [self.port, 22] } else { [22, self.port] };
        let window = numbers.one_of(&[0_u16, 1, 500, 0x2000]);
        let mut segment = [one.to_be_bytes(), other.to_be_bytes()].concat();
        segment.extend(sequence.to_be_bytes().into_iter().chain(acknowledgement.to_be_bytes()));
        segment.extend([offset, flags]);
        segment.extend(window.to_be_bytes());
        segment.extend([0, 0, 0, 0]);
        segment.extend(options);
        segment.resize(segment.len() + payload, 0x2e);
        let addresses = if from == 0 { [ADDRESSES[0], ADDRESSES[4]] } else { [ADDRESSES[4], ADDRESSES[0]] };
        let mut frame = [&[2; 12][..], &[0x08, 0x00, 0x45, 0]].concat();
        frame.extend((20 + segment.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(addresses.concat());
        frame.extend(segment);
        (frame, if from == 0 { Side::Outside } else { Side::Inside })
    }
}

/// A change of the lists in both worlds.
fn change_lists(numbers: &mut Numbers, worlds: [&World; 2], now: Time) {
    let list = numbers.one_of(&["secured", "secured", "temporary", "blocked"]);
    let address = IpAddr::from(numbers.one_of(&ADDRESSES[..2]));
    let kind = numbers.below(10);
    let expiry = now + Duration::from_secs(1 + numbers.below(10) as u64);
    for World { state, .. } in worlds {
        let lists = &state.lists;
        let id = lists.id(list).expect("it is bound");
        match kind {
            0..5 => _ = lists.add(id, address, expiry, now),
            5..7 => _ = lists.remove(id, address, now),
            7 => _ = lists.flush(id, now),
            8 => lists.set_static_entries([(id, (address, address), Some(expiry))].into_iter()),
            _ => lists.set_static_entries(std::iter::empty()),
        }
    }
}

/// One sequence of frames and changes. Returns the number of carried frames, of those that are part of a connection, and of
/// dropped frames.
fn compare(program: &Program, fast_path: &Arc<FastPathSwitch>, seed: u64, now: &mut Time) -> [u64; 3] {
    let numbers = &mut Numbers(seed);
    let off = &Arc::new(FastPathSwitch::off("it is off".to_owned()));
    let rules = rule_set(numbers);
    let (mut without, mut with): (World, World) =
        [off, fast_path].map(|fast_path| World::new(fast_path, &rules, Settings::default(), *now)).into();
    let mut carrier = Carrier::new(Arc::clone(fast_path), 0);
    let tables = fast_path.tables().expect("it has tables");
    let mut frames: Vec<_> = (0..6).map(|_| (frame(numbers), numbers.one_of(&Side::ALL))).collect();
    let mut conversations = [0; 2].map(|_: u8| Conversation::new(numbers));
    let mut carried = [0; 3];
    for step in 0..120 {
        *now = *now + Duration::from_millis(numbers.one_of(&[0, 0, 1, 400, 3_000]));
        match numbers.below(20) {
            0..3 => change_lists(numbers, [&without, &with], *now),
            3 => {
                let new = numbers.below(frames.len());
                frames[new] = (frame(numbers), numbers.one_of(&Side::ALL));
            }
            4 if numbers.below(4) == 0 => {
                assert_eq!(without.counters(), with.counters(), "seed {seed}, step {step}:\n{rules}");
                let rules = rule_set(numbers);
                without.apply(&rules, *now, off);
                with.apply(&rules, *now, fast_path);
            }
            _ => {}
        }
        let talks = numbers.below(2) == 0;
        let segment = talks.then(|| conversations[numbers.below(2)].segment(numbers));
        let (frame, side) = segment.as_ref().unwrap_or(&frames[numbers.below(frames.len())]);
        let copies = vec![&frame[..]; 1 + numbers.below(3)];
        let expected = without.decide(*side, &copies, *now);
        tables.set_clock(*now);
        let by_kernel = copies.iter().map(|frame| with.by_kernel(program, *side, frame));
        let mut verdicts: Vec<Option<Verdict>> = by_kernel.collect();
        let up = vec![&frame[..]; verdicts.iter().filter(|verdict| verdict.is_none()).count()];
        let new = verdicts.iter().filter(|verdict| **verdict == Some(Verdict::Forward)).count() as u64;
        carried[0] += new;
        carried[1] += if talks && with.generation.table.tracks() { new } else { 0 };
        carried[2] += (copies.len() - up.len()) as u64 - new;
        carrier.begin(&mut with.decider);
        let decided = with.decide(*side, &up, *now);
        let forwarded = decided.iter().enumerate();
        let forwarded = forwarded.fold(0, |bits, (at, verdict)| bits | u64::from(*verdict == Verdict::Forward) << at);
        carrier.collect(*side, &up, &with.decider, forwarded);
        carrier.write(&with.generation, &with.state, *now);
        carrier.end(true, *now);
        verdicts
            .iter_mut()
            .filter(|verdict| verdict.is_none())
            .zip(decided)
            .for_each(|(one, decided)| *one = Some(decided));
        let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
        assert_eq!(verdicts, expected, "seed {seed}, step {step}: {side} {frame:02x?}\n{rules}");
    }
    assert_eq!(without.counters(), with.counters(), "seed {seed}:\n{rules}");
    assert_eq!(without.contents(*now), with.contents(*now), "seed {seed}:\n{rules}");
    with.apply("", *now, fast_path);
    with.generation.trails.end();
    carried
}

#[test]
fn the_fast_path_changes_no_verdict_no_counter_and_no_state() {
    let [all, tracked, dropped] = sequences(300 * soak(), compare);
    let counts = format!("the program carried {all} frames, {tracked} of them tracked segments, and dropped {dropped}");
    eprintln!("{counts}");
    assert!(all > 2_000 && tracked > 500 && dropped > 500, "{counts}");
}

/// Lets each of many flows send in turn, some times. Returns how many flows the program carries at last.
fn carry_in_turn(program: &Program, fast_path: &Arc<FastPathSwitch>, _number: u64, now: &mut Time) -> [u64; 1] {
    let rules = "/ip firewall filter\nadd chain=input action=accept\n";
    let mut world = World::new(fast_path, rules, Settings::default(), *now);
    let mut carrier = Carrier::new(Arc::clone(fast_path), 0);
    fast_path.tables().expect("it has tables").set_clock(*now);
    let udp = |flow: u16| {
        let [high, low] = flow.to_be_bytes();
        let ip = [0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, high, low, 203, 0, 113, 5];
        [&[2; 12][..], &[0x08, 0x00], &ip, &[0x9c, 0x40, 0, 53, 0, 8, 0, 0]].concat()
    };
    let frames: Vec<Vec<u8>> = (0..MANY).map(udp).collect();
    let mut carried = 0;
    for _ in 0..6 {
        carried = 0;
        for frame in &frames {
            if world.by_kernel(program, Side::Outside, frame) == Some(Verdict::Forward) {
                carried += 1;
                continue;
            }
            carrier.begin(&mut world.decider);
            assert_eq!(world.decide(Side::Outside, &[frame], *now), [Verdict::Forward]);
            carrier.collect(Side::Outside, &[frame], &world.decider, 1);
            carrier.write(&world.generation, &world.state, *now);
            carrier.end(true, *now);
        }
    }
    world.apply("", *now, fast_path);
    world.generation.trails.end();
    [carried]
}

/// Half of the flows for which the tables of the lab have room.
const MANY: u16 = 512;

#[test]
fn flows_that_send_in_turn_are_carried_as_many_as_there_is_room_for() {
    let [carried] = sequences(1, carry_in_turn);
    assert!(carried > u64::from(MANY) * 9 / 10, "{carried} of {MANY} flows");
}
