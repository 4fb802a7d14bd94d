use std::net::IpAddr;
use std::sync::LazyLock;

use knockplane_policy::eval::tls;
use knockplane_policy::packet::Side;
use proptest::prelude::*;

use super::*;

const GLOBS: [&str; 6] = ["*.example.com", "WWW.*", "*", "w?w.example.com", "", "ex[a]mple.com"];

/// Built once: it takes longer than to match.
static NAMES: LazyLock<Patterns> = LazyLock::new(|| compile(&GLOBS).unwrap());

fn fits(name: &str) -> [bool; GLOBS.len()] {
    GLOBS.map(|glob| tls::fits(glob, name))
}

fn of(name: ServerName) -> Option<[bool; GLOBS.len()]> {
    match name {
        ServerName::Unknown => None,
        ServerName::Fits(set) => Some(std::array::from_fn(|position| set.contains(position))),
    }
}

fn sized(size: usize, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[4 - size..], bytes].concat()
}

fn client_hello(names: &[(u8, &[u8])], record: usize) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|(kind, name)| [&[*kind][..], &sized(2, name)].concat()).collect();
    let extensions =
        [&[0, 43][..], &sized(2, &[2, 3, 4]), &[0, 0], &sized(2, &sized(2, &list)), &[0, 21, 0, 0]].concat();
    let hello = [&[3, 3][..], &[7; 32], &sized(1, &[9; 32]), &sized(2, &[0x13, 1]), &[1, 0], &sized(2, &extensions)];
    let handshake = [&[1][..], &sized(3, &hello.concat())].concat();
    handshake.chunks(record.max(1)).flat_map(|part| [&[22, 3, 1][..], &sized(2, part)].concat()).collect()
}

fn hello() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        &b"www.example.com"[..],
        b"WWW.Example.Com",
        b"example.com",
        b"",
        b"w\xffw.example.com",
        b"ex[a]mple.com",
    ]);
    let names = prop::collection::vec((prop_oneof![4 => Just(0_u8), 1 => Just(1)], name), 0..3);
    let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    (names, prop_oneof![Just(10_000_usize), 1..40_usize], change).prop_map(|(names, record, change)| {
        let mut hello = client_hello(&names, record);
        if let Some((place, byte)) = change {
            *place.get_mut(&mut hello) = byte;
        }
        hello
    })
}

proptest! {
    #[test]
    fn the_name_is_the_one_that_policy_finds_after_every_byte(hello in hello(), cut in any::<prop::sample::Index>()) {
        let (one, other) = hello.split_at(cut.index(hello.len()));
        let mut parser = Hello::default();
        for (said, part) in [(one, one), (&hello, other)] {
            parser.read(part, &NAMES);
            prop_assert_eq!(of(parser.name), tls::server_name(said).map(|name| fits(&name)));
        }
        prop_assert_eq!(of(server_name(&hello, &NAMES)), of(parser.name));
    }

    #[test]
    fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), lead in 0..9_usize) {
        let lead = &[22, 3, 1, 0, 200, 1, 0, 0, 196][..lead];
        let bytes = [lead, &bytes].concat();
        prop_assert_eq!(of(server_name(&bytes, &NAMES)), tls::server_name(&bytes).map(|name| fits(&name)));
    }
}

/// A segment with the ACK flag alone.
fn segment(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([0, 1, 0, 2]);
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn push(stream: &mut Stream, names: &Patterns, sequence: u32, payload: &[u8]) {
    let frame = segment(sequence, payload);
    let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    let packet = Packet {
        ports: Some((1, 2)),
        frame: &frame,
        payload: &frame[40..],
        ip_length: frame.len() as u32,
        transport: 20,
        ..Packet::bare(Side::Outside, source, destination, 6)
    };
    stream.push(&packet, names);
}

#[test]
fn segments_that_come_again_add_nothing_and_those_that_come_early_are_left_out() {
    let names = compile(&["example.com"]).unwrap();
    let hello = client_hello(&[(0, b"example.com")], 10_000);
    let (one, other) = hello.split_at(50);
    let start = u32::MAX - 20;
    let mut stream = Stream::default();
    push(&mut stream, &names, start, one);
    push(&mut stream, &names, start, one);
    push(&mut stream, &names, start.wrapping_add(60), &other[10..]);
    assert_eq!(stream.server_name(), ServerName::Unknown);
    push(&mut stream, &names, start.wrapping_add(40), &hello[40..]);
    assert!(matches!(stream.server_name(), ServerName::Fits(set) if set.contains(0)));
}
