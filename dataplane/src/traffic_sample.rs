//! A sample of traffic: workers copy the headers of packets, with their verdicts, for an operator who asked for it.
//!
//! A process has one sample at a time. It is bounded in time and in packets, and its memory is allocated at its begin. A
//! worker looks for a sample in its housekeeping, and until then has one comparison for each batch. It copies no byte of a
//! payload. Packets that the kernel carries or drops without a worker are not in a sample, and neither are frames that
//! rules do not evaluate.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;
use knockplane_engine::headers;
use knockplane_engine::pipeline::Decision;
use knockplane_policy::packet::{FragmentPart, Side};
use knockplane_policy::reason::Verdict;
use knockplane_policy::time::Time;
use knockplane_policy::wire::sample::{self, SampledPacket};

/// Maximum length of the headers of a sampled packet: Ethernet with two tags and PPPoE, 30 bytes; IPv6 with extension
/// headers, or IPv4 with options; TCP with options, 60 bytes. A packet with longer headers counts as missed.
const MAX_HEADERS: usize = 224;

/// A sample in progress, or one that is complete and not read yet.
pub(crate) struct TrafficSample {
    /// Counted from 1.
    pub(crate) id: u64,
    /// Its end.
    pub(crate) until: Time,
    packets: ArrayQueue<Headers>,
    missed: AtomicU64,
}

/// The headers of a packet.
struct Headers {
    arrived: Time,
    side: Side,
    verdict: Verdict,
    bytes: [u8; MAX_HEADERS],
    length: usize,
    /// The length of the frame.
    frame: usize,
}

impl TrafficSample {
    /// Begins a sample with room for this number of packets, at least one.
    pub(crate) fn new(id: u64, until: Time, packets: usize) -> TrafficSample {
        TrafficSample { id, until, packets: ArrayQueue::new(packets.max(1)), missed: AtomicU64::new(0) }
    }

    /// Adds the packets of a batch from this side.
    pub(crate) fn add(&self, side: Side, frames: &[&[u8]], decisions: &[Decision], now: Time) {
        if now >= self.until {
            return;
        }
        for (frame, decision) in frames.iter().zip(decisions) {
            let Some(length) = headers_length(side, frame) else { continue };
            let mut bytes = [0; MAX_HEADERS];
            let is_whole = frame.get(..length).zip(bytes.get_mut(..length)).map(|(from, to)| to.copy_from_slice(from));
            let (arrived, verdict, frame) = (now, decision.verdict, frame.len());
            let headers = Headers { arrived, side, verdict, bytes, length, frame };
            let is_added = is_whole.is_some() && self.packets.push(headers).is_ok();
            if !is_added {
                self.missed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Removes and returns the packets so far, in the order of their arrival.
    pub(crate) fn take(&self, now: Time) -> sample::TrafficSample {
        let headers = std::iter::from_fn(|| self.packets.pop());
        let mut packets: Vec<_> = headers
            .map(|Headers { arrived, side, verdict, bytes, length, frame }| SampledPacket {
                age: now.since(arrived),
                side,
                verdict,
                headers: bytes[..length].to_vec(),
                rest: frame - length,
            })
            .collect();
        packets.sort_by_key(|packet| std::cmp::Reverse(packet.age));
        sample::TrafficSample { packets, missed: self.missed.load(Relaxed) }
    }
}

/// The number of bytes before the payload of a packet that rules evaluate; `None` for another frame, and for a later
/// fragment, which shares the verdict of the first one.
fn headers_length(side: Side, frame: &[u8]) -> Option<usize> {
    let packet = headers::read(side, frame, usize::MAX).ok()?;
    if packet.fragment() == Some(FragmentPart::Later) {
        return None;
    }
    // The payload is a part of the frame.
    Some(packet.payload.as_ptr().addr() - frame.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use knockplane_policy::reason::Reason;

    use super::*;

    /// A UDP packet with a payload and Ethernet padding.
    fn udp(port: u8) -> Vec<u8> {
        let ip = [
            0x45, 0, 0, 34, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 203, 0, 113, 1, 0x0f, 0xa0, 0, port, 0, 14, 0, 0,
        ];
        let sum: u32 = ip[..20].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let [high, low] = (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
        let mut frame = [&[2; 12][..], &[0x08, 0x00], &ip, b"secret"].concat();
        (frame[24], frame[25]) = (high, low);
        frame.resize(60, b'p');
        frame
    }

    fn decided(verdict: Verdict) -> Decision {
        Decision { verdict, reason: Reason::Rule }
    }

    #[test]
    fn headers_are_sampled_without_payload_until_the_sample_is_full_or_over() {
        let (now, second) = (Time::from_nanos(5_000_000_000), Duration::from_secs(1));
        let sample = TrafficSample::new(1, now + second + second, 3);
        let (first, second_frame) = (udp(1), udp(2));
        let arp = [&[0xff; 12][..], &[0x08, 0x06], &[0; 46]].concat();
        let frames = [&first[..], &arp, &second_frame];
        let decisions = [Verdict::Forward, Verdict::Forward, Verdict::Drop].map(decided);
        sample.add(Side::Inside, &frames[2..], &decisions[2..], now + second);
        sample.add(Side::Outside, &frames[..2], &decisions[..2], now);
        let two = sample.take(now + second);
        let seen: Vec<_> = two.packets.iter().map(|packet| (packet.age, packet.side, packet.verdict)).collect();
        assert_eq!(
            seen,
            [(second, Side::Outside, Verdict::Forward), (Duration::ZERO, Side::Inside, Verdict::Drop)],
            "ARP is not evaluated by rules"
        );
        assert_eq!((&two.packets[0].headers[..], two.packets[0].rest, two.missed), (&first[..42], 18, 0));
        let frame = two.packets[0].frame();
        assert_eq!((frame.len(), frame.windows(6).any(|bytes| bytes == b"secret")), (60, false));
        assert_eq!(headers::read(Side::Outside, &frame, 1514).map(|packet| packet.payload.len()), Ok(6));
        for _ in 0..5 {
            sample.add(Side::Outside, &frames[..1], &decisions[..1], now);
        }
        sample.add(Side::Outside, &frames[..1], &decisions[..1], now + second + second);
        let full = sample.take(now);
        assert_eq!((full.packets.len(), full.missed), (3, 2), "the sample is over for the last packet");
    }
}
