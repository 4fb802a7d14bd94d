//! Matchers that remember packets: `limit`, `dst-limit`, `nth`, `random`, `psd`.
//!
//! Each matcher of each rule remembers for itself, and only packets for which every matcher before it was true.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::matchers::Place;
use crate::packet::Packet;
use crate::rule::{LimitMode, Rate, RateUnit};
use crate::time::Time;

/// How often buckets are refilled. Source: RouterOS's kernel modules.
pub const REFILL: Duration = Duration::from_millis(10);

/// What all of them remember.
pub(super) struct Memory {
    limits: HashMap<Place, Bucket>,
    dst_limits: HashMap<(Place, Destination), (Bucket, Time)>,
    counts: HashMap<Place, u32>,
    scans: HashMap<(Place, IpAddr), Scan>,
    pub(super) random: Random,
}

/// What `dst-limit` keeps a bucket for: source, destination and its port, as far as the mode asks for them.
type Destination = (Option<IpAddr>, Option<IpAddr>, Option<u16>);

impl Memory {
    pub(super) fn new(seed: u64) -> Memory {
        let (limits, dst_limits, counts, scans) = Default::default();
        Memory { limits, dst_limits, counts, scans, random: Random(seed) }
    }

    /// Forgets what has expired. Scans are short, and begin again by themselves.
    pub(super) fn sweep(&mut self, now: Time) {
        self.dst_limits.retain(|_, (_, expiry)| now < *expiry);
        self.scans.retain(|_, scan| now <= scan.until);
    }

    /// `limit`: whether the bucket holds what the packet costs, which it then takes.
    pub(super) fn limit(&mut self, place: Place, rate: &Rate, packet: &Packet<'_>, now: Time) -> bool {
        self.limits.entry(place).or_insert_with(|| Bucket::full(rate, now)).take(rate, packet.ip_length, now)
    }

    /// `dst-limit`: the same with a bucket for each address or pair. A bucket that has seen no packet for `expire` is
    /// gone; the next one is full. Ports that are not there are 0. Source: RouterOS manual, Filter, `dst-limit`.
    pub(super) fn dst_limit(
        &mut self,
        place: Place,
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
            self.dst_limits.entry((place, key)).or_insert_with(|| (Bucket::full(rate, now), Time::NEVER));
        if *expiry <= now {
            *bucket = Bucket::full(rate, now);
        }
        *expiry = now + expire;
        bucket.take(rate, packet.ip_length, now)
    }

    /// `nth`: which of every so many packets this one is, from 1.
    pub(super) fn nth(&mut self, place: Place, every: u32) -> u32 {
        let count = self.counts.entry(place).or_default();
        *count = if *count < every { *count + 1 } else { 1 };
        *count
    }

    /// `psd`: the weight of the ports that the source has tried, this one included. Each port of TCP or UDP counts once,
    /// low ones (below 1024) by the first weight. What was tried before a pause longer than the delay does not count; every
    /// packet of the source ends a pause. Any number of sources and ports is remembered, RouterOS stops at 256 and 21. None
    /// without ports. Source: RouterOS manual, Filter, `psd`; RouterOS's kernel modules.
    pub(super) fn scan(
        &mut self,
        place: Place,
        packet: &Packet<'_>,
        delay: Duration,
        [low_weight, high_weight]: [u32; 2],
        now: Time,
    ) -> Option<u64> {
        let (_, port) = packet.ports?;
        let scan = self.scans.entry((place, packet.source)).or_default();
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

/// What a source has tried.
#[derive(Debug, Default)]
struct Scan {
    ports: HashSet<(u8, u16)>,
    weight: u64,
    /// Its next packet counts together with these until then, included.
    until: Time,
}

/// Tokens. To reckon without fractions, they are kept in parts, as many a token as the rate's time has nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    parts: u128,
    /// The refill it had last, counted from the clock's zero.
    refill: u64,
}

impl Bucket {
    /// A bucket with its burst in it.
    pub fn full(rate: &Rate, now: Time) -> Bucket {
        Bucket { parts: Bucket::most(rate), refill: refill(now) }
    }

    /// The burst, and at least one token: with the 0 that exports of RouterOS 6 hold, packets pass at the rate.
    fn most(rate: &Rate) -> u128 {
        u128::from(rate.burst.max(1)).saturating_mul(rate.per.as_nanos())
    }

    /// The whole tokens that it holds now.
    pub fn tokens(&self, rate: &Rate, now: Time) -> u64 {
        let tokens = self.refilled(rate, now).checked_div(rate.per.as_nanos()).unwrap_or_default();
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    fn refilled(&self, rate: &Rate, now: Time) -> u128 {
        let refills = refill(now).saturating_sub(self.refill);
        let gained = (u128::from(refills) * REFILL.as_nanos()).saturating_mul(rate.count.into());
        self.parts.saturating_add(gained).min(Bucket::most(rate))
    }

    /// Whether it holds what a packet costs: a token, or one for each bit of the IP packet. If so, takes that.
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

/// SplitMix64: the same seed, the same numbers. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014.
pub struct Random(pub u64);

impl Random {
    /// `random`: 0 to 99, each as often.
    pub fn percent(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % 100) as u8
    }
}

#[cfg(test)]
mod tests;
