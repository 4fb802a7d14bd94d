//! Strangers: sources that the state knows nothing about, in memory that the engine and the XDP program share.
//!
//! The XDP program drops frames of strangers to ports where no rule could accept them or learn from them. A source is
//! no stranger while it has an entry in a list or a connection: the engine counts both, at a place that a hash of the
//! address selects, and sets a bit for the program. Addresses can share a place. Then the program takes one of them for
//! known, which only costs time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::packet::Family;
use crate::sync::{AtomicU8, AtomicU64};

/// One round of the hash of flows and sources. `bpf/fast_path.h` has the same. Source of the factor: Knuth, TAOCP
/// volume 3, 6.4.
#[inline]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

/// The number of classes of frames that rules distinguish: by family, by kind of packet, and by whether the destination
/// is protected. See [`class_index`].
pub const CLASSES: usize = 12;

/// The number of ports of a class.
pub const CLASS_PORTS: usize = 1 << 16;

/// The kinds of packets that rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// A TCP segment whose only flag is SYN.
    Syn,
    /// Any other TCP segment.
    Segment,
    /// UDP.
    Datagram,
}

impl PacketKind {
    /// All kinds, in the order of their indexes.
    pub const ALL: [PacketKind; 3] = [PacketKind::Syn, PacketKind::Segment, PacketKind::Datagram];
}

/// The index of a class: `class_of` of `dataplane/ring/bpf/strangers.h`.
pub const fn class_index(family: Family, kind: PacketKind, is_protected: bool) -> usize {
    family as usize * 6 + kind as usize * 2 + !is_protected as usize
}

/// The memory of the known sources, which the kernel reads: a bit for each place. Its length is a power of two.
pub type KnownBits = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// Networks whose sources are no strangers.
pub trait NamedNetworks: Send + Sync {
    /// No source in this range is a stranger from now on.
    fn name(&self, first: IpAddr, last: IpAddr);
}

/// The sources with entries or connections.
#[derive(Clone)]
pub struct KnownSources {
    /// The number of entries and connections of the sources at each place.
    counts: Arc<[AtomicU8]>,
    /// Whether the count of a place is not 0.
    bits: KnownBits,
    hash: SourceHash,
}

/// The places of sources.
#[derive(Clone, Copy, Debug)]
pub struct SourceHash {
    /// So that nobody can choose sources that share a place with another one.
    pub secret: u64,
    /// Whether all addresses of a /64 are one source.
    pub v6_by_prefix: bool,
}

impl SourceHash {
    /// The hash of an address, whose words are as in the packet.
    pub fn of(self, address: IpAddr) -> u64 {
        match address {
            IpAddr::V4(address) => mix(self.secret, u32::from_ne_bytes(address.octets()).into()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let [high, low] = [(bits >> 64) as u64, bits as u64].map(u64::to_be);
                let of_network = mix(self.secret, high);
                if self.v6_by_prefix { of_network } else { mix(of_network, low) }
            }
        }
    }
}

/// The position of the bit of a hash.
pub fn known_bit(bits: &[AtomicU64], hash: u64) -> (&AtomicU64, u64) {
    let place = hash as usize & (bits.len() * u64::BITS as usize - 1);
    (&bits[place / 64], 1 << (place % 64))
}

impl KnownSources {
    /// Notes sources in this memory.
    ///
    /// # Panics
    /// If its length is not a power of two.
    pub fn new(bits: KnownBits, hash: SourceHash) -> KnownSources {
        let words = (*bits).as_ref().len();
        assert!(words.is_power_of_two(), "a mask selects places");
        let counts = std::iter::repeat_with(|| AtomicU8::new(0)).take(words * u64::BITS as usize).collect();
        KnownSources { counts, bits, hash }
    }

    fn place(&self, address: IpAddr) -> (&AtomicU8, &AtomicU64, u64) {
        let hash = self.hash.of(address);
        let (word, bit) = known_bit((*self.bits).as_ref(), hash);
        (&self.counts[hash as usize & (self.counts.len() - 1)], word, bit)
    }

    /// Notes an entry or a connection of the address. A count of 255 stays: the addresses at this place are known until the
    /// memory is new.
    pub fn add(&self, address: IpAddr) {
        let (count, word, bit) = self.place(address);
        if count.fetch_update(SeqCst, Relaxed, |count| count.checked_add(1)) == Ok(0) {
            word.fetch_or(bit, SeqCst);
        }
    }

    /// The entry or connection has ended.
    pub fn remove(&self, address: IpAddr) {
        let (count, word, bit) = self.place(address);
        let fewer = |count: u8| if count == u8::MAX { None } else { count.checked_sub(1) };
        if count.fetch_update(SeqCst, Relaxed, fewer) == Ok(1) {
            word.fetch_and(!bit, SeqCst);
            // Another thread may have added a source at this place meanwhile.
            if count.load(SeqCst) > 0 {
                word.fetch_or(bit, SeqCst);
            }
        }
    }

    /// Whether an address at the place of this one has an entry or a connection.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (_, word, bit) = self.place(address);
        word.load(Acquire) & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(v6_by_prefix: bool) -> KnownSources {
        let bits: Vec<_> = (0..1 << 10).map(|_| AtomicU64::new(0)).collect();
        KnownSources::new(Arc::new(bits), SourceHash { secret: 7, v6_by_prefix })
    }

    #[test]
    fn a_source_is_known_until_its_last_entry_ends() {
        let sources = sources(false);
        let addresses: [IpAddr; 3] =
            ["192.0.2.1", "2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
        for address in addresses {
            assert!(!sources.contains(address));
            sources.add(address);
            sources.add(address);
            sources.remove(address);
            assert!(sources.contains(address));
            sources.remove(address);
            assert!(!sources.contains(address));
        }
        sources.remove(addresses[0]);
        assert!(!sources.contains(addresses[0]), "a count never wraps");
    }

    #[test]
    fn sources_at_one_place_are_known_until_the_last_one_ends() {
        let sources =
            KnownSources::new(Arc::new(vec![AtomicU64::new(0)]), SourceHash { secret: 7, v6_by_prefix: false });
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let threads = |work: fn(&KnownSources, IpAddr)| {
            std::thread::scope(|scope| {
                for first in [0, 100] {
                    let sources = &sources;
                    scope.spawn(move || (0..10_000_u32).for_each(|n| work(sources, address(first + (n % 100) as u8))));
                }
            });
        };
        threads(|sources, address| {
            sources.add(address);
            assert!(sources.contains(address));
            sources.remove(address);
        });
        assert!((0..200).all(|last| !sources.contains(address(last))));
    }

    #[test]
    fn a_count_that_is_full_stays() {
        let sources = sources(true);
        let [one, other]: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
        (0..300).for_each(|_| sources.add(one));
        (0..300).for_each(|_| sources.remove(other));
        assert!(sources.contains(one), "addresses of one network are one source");
    }
}
