use super::sample::{block, interface, packet, pcap, section};
use super::*;

/// Number, nanoseconds, interface, frame.
type Read = (usize, u64, Option<String>, Vec<u8>);

fn read(bytes: &[u8]) -> Result<Vec<Read>, Broken> {
    let capture = Capture { bytes: bytes.to_vec() };
    let (_, records) = capture.records()?;
    let mut packets = Vec::new();
    for record in records {
        if let Record::Packet(packet) = record? {
            let interface = packet.interface.map(|name| name.to_string());
            packets.push((packet.number, packet.at.as_nanos(), interface, packet.frame.into_owned()));
        }
    }
    Ok(packets)
}

fn copy(bytes: &[u8]) -> Vec<u8> {
    let capture = Capture { bytes: bytes.to_vec() };
    let (head, records) = capture.records().unwrap();
    let mut copy = head.to_vec();
    for record in records {
        match record.unwrap() {
            Record::Packet(packet) => copy.extend(packet.record),
            Record::Other(other) => copy.extend(other.record),
        }
    }
    copy
}

#[test]
fn pcap_in_all_its_forms_is_read_and_copied() {
    for big_endian in [false, true] {
        for (nanoseconds, expected) in [(false, 7_000_123_000), (true, 7_000_000_123)] {
            let file = pcap(big_endian, nanoseconds, 1, &[(7, 123, b"first frame"), (8, 0, b"")]);
            let packets = read(&file).unwrap();
            assert_eq!(packets[0], (1, expected, None, b"first frame".to_vec()));
            assert_eq!((packets.len(), packets[1].0, packets[1].1), (2, 2, 8_000_000_000));
            assert_eq!(copy(&file), file);
        }
    }
}

#[test]
fn pcapng_has_interfaces_with_names_and_clocks() {
    let micro = interface("outside", 6);
    let binary = interface("in", 0x80 | 1);
    let comment = block(0x0bad, b"whatever it is");
    let packets = [packet(0, 1_000_001, b"one", 3), comment, packet(1, 5, b"four", 4)].concat();
    let again = [section(), interface("new", 9), packet(0, 42, b"x", 1)].concat();
    let file = [section(), micro, binary, packets, again].concat();
    let expected = vec![
        (1, 1_000_001_000, Some("outside".to_owned()), b"one".to_vec()),
        (2, 2_500_000_000, Some("in".to_owned()), b"four".to_vec()),
        (3, 42, Some("new".to_owned()), b"x".to_vec()),
    ];
    assert_eq!(read(&file), Ok(expected));
    assert_eq!(copy(&file), file);
}

#[test]
fn other_links_become_ethernet() {
    let ip = [0x45, 0, 0, 20];
    let raw = read(&pcap(false, false, 101, &[(0, 0, &ip), (0, 0, &[0x60, 0])])).unwrap();
    assert_eq!(raw[0].3, [&[0; 12][..], &[8, 0], &ip].concat());
    assert_eq!(raw[1].3[12..], [0x86, 0xdd, 0x60, 0]);
    let sll = [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0][..], &ip].concat();
    let expected = [&[0; 6][..], &[1, 2, 3, 4, 5, 6, 8, 0], &ip].concat();
    assert_eq!(read(&pcap(true, false, 113, &[(0, 0, &sll)])).unwrap()[0].3, expected);
    let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &ip].concat();
    assert_eq!(read(&pcap(false, true, 276, &[(0, 0, &sll2)])).unwrap()[0].3, expected);
}

#[test]
fn what_is_broken_is_named_with_its_number() {
    let whole = pcap(false, false, 1, &[(1, 0, b"one"), (2, 0, b"two")]);
    let mut cut = whole.clone();
    let original_length = whole.len() - 3 - 4;
    cut[original_length] = 100;
    let cases = [
        (whole[..whole.len() - 1].to_vec(), "packet 2: the file ends in the middle of it"),
        (whole[..30].to_vec(), "packet 1: the file ends in the middle of it"),
        (cut, "packet 2: it is cut short, 3 of its 100 bytes were captured: capture whole packets (tcpdump -s 0)"),
        (whole[..10].to_vec(), "it is no capture: it is too short"),
        (b"# a text that is not a capture".to_vec(), "it is no capture: neither pcap nor pcapng"),
        (pcap(false, false, 147, &[]), "its link type, 147, is not known here: capture on an Ethernet interface"),
        ([section(), packet(0, 0, b"x", 1)].concat(), "packet 1: the file does not describe its interface, 0"),
        ([section(), interface("", 200)].concat(), ""),
        ([section(), interface("", 6), packet(0, 0, b"x", 9)].concat(), "packet 1: it is cut short, 1 of its 9 bytes"),
        ([section(), interface("", 6), block(3, b"\x01\0\0\0x")].concat(), "packet 1: it has no time"),
        ([section(), block(2, &[0; 20])].concat(), "packet 1: it is of an obsolete kind"),
    ];
    for (file, expected) in cases {
        match read(&file) {
            Ok(_) => assert_eq!(expected, ""),
            Err(broken) => assert!(broken.to_string().starts_with(expected), "{broken}, not {expected}"),
        }
    }
}

/// Checks that any file is read or refused, without a panic.
#[test]
fn no_damage_is_fatal() {
    let ng = [section(), interface("outside", 6), packet(0, 1, b"some data", 9), packet(0, 2, b"more", 4)].concat();
    for file in [pcap(false, false, 1, &[(1, 0, b"one"), (2, 0, b"two")]), ng] {
        for at in 0..file.len() {
            let _ = read(&file[..at]);
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = read(&damaged);
            }
        }
    }
}
