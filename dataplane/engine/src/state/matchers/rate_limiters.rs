//! The state of the matchers `limit`, `dst-limit`, `nth` and `psd` of one table.
//!
//! Each matcher has its own state, which all workers share. A new table begins with empty state.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use knockplane_policy::eval::limits::Bucket;
use knockplane_policy::packet::Packet;
use knockplane_policy::rule::{LimitMode, Rate};
use knockplane_policy::time::Time;
use siphasher::sip128::SipHasher13;

use crate::state::keyed::{Keyed, Tag, tag, write_address};

/// The maximum number of stored ports of one source.
const PORTS: usize = 64;

/// A matcher, by its position among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimiterId(u32);

/// The number of matchers of each kind in a table.
#[derive(Default)]
pub(crate) struct LimiterCounts {
    limits: u32,
    counts: u32,
    buckets: u32,
    scans: u32,
}

/// The rate limiters of one table.
pub(crate) struct RateLimiters {
    secret: [u64; 2],
    limits: Box<[CachePadded<Mutex<Option<Bucket>>>]>,
    counts: Box<[CachePadded<AtomicU32>]>,
    buckets: Option<Keyed<Option<Bucket>>>,
    scans: Option<Keyed<TriedPorts>>,
}

/// The parameters of `psd`: the weight of each port, and the threshold of a scan.
#[derive(Clone, Copy)]
pub(crate) struct ScanWeights {
    pub(crate) threshold: u32,
    pub(crate) delay: Duration,
    pub(crate) low: u32,
    pub(crate) high: u32,
}

/// The ports that a source has tried, without those of weight 0.
#[derive(Clone, Copy)]
struct TriedPorts {
    ports: [u32; PORTS],
    known: u8,
    weight: u64,
}

impl Default for TriedPorts {
    fn default() -> Self {
        TriedPorts { ports: [0; PORTS], known: 0, weight: 0 }
    }
}

impl ScanWeights {
    /// The number of ports that the state must store to detect a scan, if that number exceeds the maximum.
    pub(crate) fn too_many_ports(&self) -> Option<u32> {
        let lightest = [self.low, self.high].into_iter().filter(|weight| *weight > 0).min()?;
        Some(self.threshold.div_ceil(lightest)).filter(|ports| *ports as usize > PORTS)
    }
}

impl LimiterCounts {
    pub(crate) fn limit(&mut self) -> LimiterId {
        next(&mut self.limits)
    }

    pub(crate) fn count(&mut self) -> LimiterId {
        next(&mut self.counts)
    }

    pub(crate) fn bucket(&mut self) -> LimiterId {
        next(&mut self.buckets)
    }

    pub(crate) fn scan(&mut self) -> LimiterId {
        next(&mut self.scans)
    }
}

fn next(count: &mut u32) -> LimiterId {
    *count += 1;
    LimiterId(*count - 1)
}

impl RateLimiters {
    /// Creates buckets for `keys` addresses and pairs, and room for `keys` sources of scans. RouterOS watches 256.
    pub(crate) fn new(wanted: &LimiterCounts, keys: usize, secret: [u64; 2]) -> RateLimiters {
        RateLimiters {
            secret,
            limits: (0..wanted.limits).map(|_| CachePadded::default()).collect(),
            counts: (0..wanted.counts).map(|_| CachePadded::default()).collect(),
            buckets: (wanted.buckets > 0).then(|| Keyed::new(keys)),
            scans: (wanted.scans > 0).then(|| Keyed::new(keys)),
        }
    }

    /// `limit`: whether the bucket contains enough tokens for the packet. If so, removes these tokens.
    pub(crate) fn limit(
        &self,
        LimiterId(limit): LimiterId,
        rate: &Rate,
        packet: &Packet<'_>,
        now: Time,
    ) -> Option<bool> {
        let mut bucket = self.limits.get(limit as usize)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(bucket.get_or_insert_with(|| Bucket::full(rate, now)).take(rate, packet.ip_length, now))
    }

    /// `dst-limit`: as `limit`, with a bucket for each address or pair.
    pub(crate) fn dst_limit(
        &self,
        limiter: LimiterId,
        rate: &Rate,
        mode: LimitMode,
        expire: Duration,
        packet: &Packet<'_>,
        now: Time,
    ) -> Option<bool> {
        let port = packet.ports.unwrap_or_default().1;
        let tag = self.tag(limiter, |hasher| {
            if let LimitMode::SrcAddress | LimitMode::SrcAndDstAddresses | LimitMode::AddressesAndDstPort = mode {
                write_address(hasher, packet.source);
            }
            if mode != LimitMode::SrcAddress {
                write_address(hasher, packet.destination);
            }
            if let LimitMode::DstAddressAndPort | LimitMode::AddressesAndDstPort = mode {
                hasher.write_u16(port);
            }
        });
        Some(self.buckets.as_ref()?.with(tag, now, |bucket| {
            let bucket = bucket.get_or_insert_with(|| Bucket::full(rate, now));
            (bucket.take(rate, packet.ip_length, now), now + expire)
        }))
    }

    /// `nth`: the position of this packet in a series of `every` packets, from 1.
    pub(crate) fn nth(&self, LimiterId(count): LimiterId, every: u32) -> Option<u32> {
        let next = |count: u32| if count < every { count + 1 } else { 1 };
        let count = self.counts.get(count as usize)?;
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(next(count))).ok().map(next)
    }

    /// `psd`: whether the ports that the source has tried, with this one, reach the threshold. From then on the state
    /// stores no more ports: the source remains a scanner until it pauses. `None` for packets without ports.
    pub(crate) fn scans(
        &self,
        limiter: LimiterId,
        weights: &ScanWeights,
        packet: &Packet<'_>,
        now: Time,
    ) -> Option<bool> {
        let (_, port) = packet.ports?;
        let weight = if port < 1024 { weights.low } else { weights.high };
        let tag = self.tag(limiter, |hasher| write_address(hasher, packet.source));
        let port = u32::from(packet.protocol) << 16 | u32::from(port);
        Some(self.scans.as_ref()?.with(tag, now, |scan| {
            let known = usize::from(scan.known);
            let is_enough = scan.weight >= u64::from(weights.threshold);
            if !is_enough && weight > 0 && !scan.ports[..known].contains(&port) {
                if let Some(place) = scan.ports.get_mut(known) {
                    *place = port;
                    scan.known += 1;
                }
                scan.weight += u64::from(weight);
            }
            // The end of the delay still counts.
            let until = now + weights.delay + Duration::from_nanos(1);
            (scan.weight >= u64::from(weights.threshold), until)
        }))
    }

    /// `psd`: the weight of the ports that the source has tried, and the expiry of this state.
    pub(crate) fn scan_of(&self, limiter: LimiterId, source: IpAddr, now: Time) -> Option<(u64, Time)> {
        let tag = self.tag(limiter, |hasher| write_address(hasher, source));
        self.scans.as_ref()?.get_until(tag, now).map(|(scan, until)| (scan.weight, until))
    }

    /// `dst-limit` by source addresses alone: the tokens that the source has left, and the expiry of this state.
    pub(crate) fn tokens_of(&self, limiter: LimiterId, rate: &Rate, source: IpAddr, now: Time) -> Option<(u64, Time)> {
        let tag = self.tag(limiter, |hasher| write_address(hasher, source));
        let (bucket, until) = self.buckets.as_ref()?.get_until(tag, now)?;
        Some((bucket?.tokens(rate, now), until))
    }

    fn tag(&self, LimiterId(limiter): LimiterId, write: impl FnOnce(&mut SipHasher13)) -> Tag {
        tag(self.secret, |hasher| {
            hasher.write_u32(limiter);
            write(hasher);
        })
    }
}
