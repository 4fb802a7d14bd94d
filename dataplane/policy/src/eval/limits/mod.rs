//! Matchers with state: `limit`, `dst-limit`, `nth`, `random`, `psd`.
//!
//! Each matcher of each rule has its own state. Only packets for which every earlier matcher was true change it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::matchers::MatcherId;
use crate::packet::Packet;
use crate::rule::{LimitMode, Rate, RateUnit};
use crate::time::Time;

/// Time between two refills of a bucket. Source: RouterOS's kernel modules.
pub const REFILL: Duration = Duration::from_millis(10);

/// The state of all matchers.
pub(super) struct MatcherState {
    limits: HashMap<MatcherId, Bucket>,
    dst_limits: HashMap<(MatcherId, Destination), (Bucket, Time)>,
    counts: HashMap<MatcherId, u32>,
    scans: HashMap<(MatcherId, IpAddr), Scan>,
    pub(super) random: Random,
}

/// The key of a `dst-limit` bucket: source, destination and destination port, as far as the mode uses them.
type Destination = (Option<IpAddr>, Option<IpAddr>, Option<u16>);

impl MatcherState {
    pub(super) fn new(seed: u64) -> MatcherState {
        let (limits, dst_limits, counts, scans) = Default::default();
        MatcherState { limits, dst_limits, counts, scans, random: Random(seed) }
    }

    /// Removes expired state, except that of scans, which are few and reset after a pause.
    pub(super) fn sweep(&mut self, now: Time) {
        self.dst_limits.retain(|_, (_, expiry)| now < *expiry);
        self.scans.retain(|_, scan| now <= scan.until);
    }

    /// `limit`: whether the bucket contains enough tokens for the packet. If so, removes these tokens.
    pub(super) fn limit(&mut self, id: MatcherId, rate: &Rate, packet: &Packet<'_>, now: Time) -> bool {
        self.limits.entry(id).or_insert_with(|| Bucket::full(rate, now)).take(rate, packet.ip_length, now)
    }

    /// `dst-limit`: as `limit`, with one bucket for each address or pair. A bucket without packets for `expire` is
    /// removed, and a new bucket is full. Missing ports count as 0. Source: RouterOS manual, Filter, `dst-limit`.
    pub(super) fn dst_limit(
        &mut self,
        id: MatcherId,
        rate: &Rate,
        mode: LimitMode,
        expire: Duration,
        packet: &Packet<'_>,
        now: Time,
    ) -> bool {
        let (source, destination) = (Some(packet.source), Some(packet.destination));
        let port = Some(packet.ports.unwrap_or_default().1);
        let key = match mode {
            LimitMode::DstAddress => (None, destination, None),
            LimitMode::DstAddressAndPort => (None, destination, port),
            LimitMode::SrcAddress => (source, None, None),
            LimitMode::SrcAndDstAddresses => (source, destination, None),
            LimitMode::AddressesAndDstPort => (source, destination, port),
        };
        let (bucket, expiry) =
            self.dst_limits.entry((id, key)).or_insert_with(|| (Bucket::full(rate, now), Time::NEVER));
        if *expiry <= now {
            *bucket = Bucket::full(rate, now);
        }
        *expiry = now + expire;
        bucket.take(rate, packet.ip_length, now)
    }

    /// `nth`: the position of this packet in the cycle, from 1.
    pub(super) fn nth(&mut self, id: MatcherId, every: u32) -> u32 {
        let count = self.counts.entry(id).or_default();
        *count = if *count < every { *count + 1 } else { 1 };
        *count
    }

    /// `psd`: the weight of the ports that the source has tried, including this one. Each port of TCP or UDP counts
    /// once; ports below 1024 have the first weight. A pause longer than the delay resets the record. Every packet of
    /// the source ends a pause. The number of sources and ports is not limited; the limits of RouterOS are 256 and 21.
    /// `None` if the packet has no ports. Source: RouterOS manual, Filter, `psd`; RouterOS's kernel modules.
    pub(super) fn scan(
        &mut self,
        id: MatcherId,
        packet: &Packet<'_>,
        delay: Duration,
        [low_weight, high_weight]: [u32; 2],
        now: Time,
    ) -> Option<u64> {
        let (_, port) = packet.ports?;
        let scan = self.scans.entry((id, packet.source)).or_default();
        if scan.until < now {
            *scan = Scan::default();
        }
        scan.until = now + delay;
        if scan.ports.insert((packet.protocol, port)) {
            scan.weight += u64::from(if port < 1024 { low_weight } else { high_weight });
        }
        Some(scan.weight)
    }
}

/// The ports that a source has tried.
#[derive(Debug, Default)]
struct Scan {
    ports: HashSet<(u8, u16)>,
    weight: u64,
    /// The last time at which the next packet still belongs to the same scan.
    until: Time,
}

/// A token bucket. The bucket stores parts of tokens, so that no fractions are needed: a token has as many parts as the
/// rate's time has nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    parts: u128,
    /// The number of its last refill, counted from the clock's zero.
    refill: u64,
}

impl Bucket {
    /// A full bucket: it contains the burst.
    pub fn full(rate: &Rate, now: Time) -> Bucket {
        Bucket { parts: Bucket::most(rate), refill: refill(now) }
    }

    /// The burst, at least one token: with a burst of 0, as in exports of RouterOS 6, packets pass at the rate.
    fn most(rate: &Rate) -> u128 {
        u128::from(rate.burst.max(1)).saturating_mul(rate.per.as_nanos())
    }

    /// The number of whole tokens in the bucket now.
    pub fn tokens(&self, rate: &Rate, now: Time) -> u64 {
        let tokens = self.refilled(rate, now).checked_div(rate.per.as_nanos()).unwrap_or_default();
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    fn refilled(&self, rate: &Rate, now: Time) -> u128 {
        let refills = refill(now).saturating_sub(self.refill);
        let gained = (u128::from(refills) * REFILL.as_nanos()).saturating_mul(rate.count.into());
        self.parts.saturating_add(gained).min(Bucket::most(rate))
    }

    /// Whether the bucket contains enough tokens for the packet: one, or one for each bit of the IP packet. If so,
    /// removes these tokens.
    pub fn take(&mut self, rate: &Rate, ip_length: u32, now: Time) -> bool {
        self.parts = self.refilled(rate, now);
        self.refill = self.refill.max(refill(now));
        let tokens = match rate.unit {
            RateUnit::Packet => 1,
            RateUnit::Bit => u128::from(ip_length) * 8,
        };
        match self.parts.checked_sub(tokens.saturating_mul(rate.per.as_nanos())) {
            Some(rest) => {
                self.parts = rest;
                true
            }
            None => false,
        }
    }
}

fn refill(now: Time) -> u64 {
    now.as_nanos() / REFILL.as_nanos() as u64
}

/// SplitMix64: a seed determines the numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014.
pub struct Random(pub u64);

impl Random {
    /// `random`: 0 to 99, uniformly distributed.
    pub fn percent(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % 100) as u8
    }
}

#[cfg(test)]
mod tests;
