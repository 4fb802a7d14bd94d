//! Parts of frames, as a driver delivers them if it splits a long frame over its receive buffers.
//!
//! A first part is always refused, because the lengths in its headers contradict it. A tail has no such contradiction:
//! it begins where the buffer ended, and its sender wrote every byte of it. Which tails pass depends on the bytes at
//! the cut:
//!
//! | at the cut                                | tail                                                          |
//! |-------------------------------------------|---------------------------------------------------------------|
//! | no frame                                  | refused, or of a class that is dropped by default             |
//! | a frame that is cut itself                | refused, as every first part                                  |
//! | a complete IP frame, with or without more | **accepted**: the bytes behind its IP length count as padding |
//! | a frame whose class passes (ARP)          | **accepted**                                                  |
//!
//! So no check of lengths protects against a driver that splits frames. Therefore `ring::Buffers` chooses buffers that
//! hold every frame, and the XDP program drops the rest of a frame that is too long.

use knockplane_engine::headers::{ETHERNET_LENGTH, read};
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Reason;
use proptest::prelude::*;

use crate::common::{Spec, Transport, cases};
use crate::headers::spec;

/// Positions of cuts in bytes: lengths of receive buffers that drivers use, and some other lengths.
const CUTS: [usize; 12] = [128, 256, 500, 512, 1000, 1024, 1280, 1500, 1536, 2048, 3072, 4096];

/// A UDP frame. Its payload is the filler up to `at`, counted from the beginning of the frame, and then the inner
/// bytes.
fn outer(at: usize, inner: &[u8]) -> Vec<u8> {
    let headers = ETHERNET_LENGTH + 20 + 8;
    let payload = [&vec![b'x'; at - headers], inner].concat();
    Spec::new("198.51.100.66", Transport::Udp(5, 5555), &payload).frame()
}

#[test]
fn a_first_part_is_always_refused() {
    for cut in CUTS {
        for behind in [1, 2, 100, 1000] {
            let frame = outer(cut, &vec![0; behind]);
            assert_eq!(
                read(Side::Outside, &frame[..cut], 9022),
                Err(Reason::Ipv4Malformed),
                "{cut} of {}",
                frame.len()
            );
            assert!(read(Side::Outside, &frame, 9022).is_ok(), "the whole one is in order");
        }
    }
}

#[test]
fn a_tail_that_is_no_frame_is_refused_or_of_a_class_that_is_dropped() {
    for cut in CUTS {
        for byte in 0..=255_u8 {
            let frame = outer(cut, &[byte; 490]);
            let reason = read(Side::Outside, &frame[cut..], 9022).expect_err("no frame");
            let dropped = matches!(reason, Reason::UnknownEthertype | Reason::SpanningTree);
            assert!(dropped, "{cut}, {byte:#x}: {reason}");
        }
    }
}

#[test]
fn a_tail_that_is_a_frame_cannot_be_told_from_a_frame() {
    let inner = Spec::new("192.0.2.1", Transport::Udp(1025, 9), b"NESTED").frame();
    // The answer of 192.0.2.1 to 192.0.2.9.
    let arp: Vec<u8> =
        [&[2; 12][..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &[2; 6], &[192, 0, 2, 1], &[2; 6], &[192, 0, 2, 9]].concat();
    for cut in CUTS {
        for more in [0, 1, 400] {
            let padded = [&inner[..], &vec![b'y'; more]].concat();
            let frame = outer(cut, &padded);
            let packet = read(Side::Outside, &frame[cut..], 9022).expect("a complete frame");
            assert_eq!(packet.source, "192.0.2.1".parse::<std::net::IpAddr>().unwrap(), "its sender chose the source");
            assert_eq!(read(Side::Outside, &outer(cut, &arp)[cut..], 9022), Err(Reason::Arp), "a class that passes");
        }
        let frame = outer(cut, &inner[..inner.len() - 1]);
        assert_eq!(read(Side::Outside, &frame[cut..], 9022), Err(Reason::Ipv4Malformed), "{cut}: cut itself");
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// The reader refuses any packet that is cut before its end, because its lengths show the cut.
    #[test]
    fn any_first_part_is_refused(spec in spec(), cut in any::<prop::sample::Index>(), longer in 0..3000_usize) {
        let mut spec = spec;
        spec.padding = 0;
        spec.payload.resize(spec.payload.len() + longer, 7);
        let frame = spec.frame();
        let part = &frame[..cut.index(frame.len())];
        prop_assert!(read(Side::Outside, part, 9022).is_err(), "{} of {} bytes", part.len(), frame.len());
    }

    /// For any bytes behind the cut, an accepted packet is complete by its own lengths.
    #[test]
    fn what_is_accepted_of_a_tail_is_complete(
        inner in spec(),
        cut in prop::sample::select(CUTS.to_vec()),
        skip in 0..60_usize,
        keep in 0..200_usize,
    ) {
        let inner = inner.frame();
        let inner = &inner[..keep.min(inner.len())];
        let frame = outer(cut, inner);
        let tail = &frame[(cut + skip).min(frame.len())..];
        if let Ok(packet) = read(Side::Outside, tail, 9022) {
            let headers = ETHERNET_LENGTH + 4 * packet.vlan_priority().map_or(0, |_| usize::from(tail[16] == 0x81) + 1);
            prop_assert!(packet.ip_length as usize + headers <= tail.len() + 4, "{} in {}", packet.ip_length, tail.len());
        }
    }
}
