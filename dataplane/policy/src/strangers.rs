//! Strangers: sources that the state knows nothing about, in memory that the engine and the XDP program share.
//!
//! The XDP program drops frames of strangers to ports where no rule could accept them or learn from them. A source is
//! no stranger while it has an entry in a list or a connection: the engine counts both, at a place that a hash of the
//! address selects, and sets a bit for the program. Addresses can share a place. Then the program takes one of them for
//! known, which only costs time.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};

use crate::packet::Family;
use crate::sync::{AtomicU8, AtomicU64, Mutex};

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
    /// Whether the count of a place is not 0. Set before the count is, and cleared after it.
    bits: KnownBits,
    /// Held while the count of a place changes from 0 or to 0, so that nobody clears the bit of an addition. A place has one
    /// of these locks.
    turns: Arc<[Mutex<()>; TURNS]>,
    hash: SourceHash,
}

/// The number of locks: few enough to stay in a cache, and enough that two workers seldom wait for one.
const TURNS: usize = 256;

/// The place of a source.
struct Place<'s> {
    count: &'s AtomicU8,
    word: &'s AtomicU64,
    bit: u64,
    turn: &'s Mutex<()>,
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
        KnownSources { counts, bits, turns: Arc::new([const { Mutex::new(()) }; TURNS]), hash }
    }

    fn place(&self, address: IpAddr) -> Place<'_> {
        let hash = self.hash.of(address);
        let (word, bit) = known_bit((*self.bits).as_ref(), hash);
        let place = hash as usize & (self.counts.len() - 1);
        Place { count: &self.counts[place], word, bit, turn: &self.turns[place % TURNS] }
    }

    /// Notes an entry or a connection of the address. A count of 255 stays: the addresses at this place are known until the
    /// memory is new.
    pub fn add(&self, address: IpAddr) {
        let place = self.place(address);
        let more = |count: u8| if count > 0 { count.checked_add(1) } else { None };
        if place.count.fetch_update(SeqCst, Relaxed, more) == Err(0) {
            place.begin();
        }
    }

    /// The entry or connection has ended.
    pub fn remove(&self, address: IpAddr) {
        let place = self.place(address);
        let fewer = |count: u8| if count > 1 { less(count) } else { None };
        if place.count.fetch_update(SeqCst, Relaxed, fewer) == Err(1) {
            place.end();
        }
    }

    /// Whether an address at the place of this one has an entry or a connection.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Place { word, bit, .. } = self.place(address);
        word.load(Acquire) & bit != 0
    }
}

/// The count after an entry or a connection has ended. A count of 255 stays.
fn less(count: u8) -> Option<u8> {
    if count == u8::MAX { None } else { count.checked_sub(1) }
}

impl Place<'_> {
    /// An addition to a place that had none.
    fn begin(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.word.fetch_or(self.bit, SeqCst);
        // Another thread may have been faster.
        let _ = self.count.fetch_update(SeqCst, Relaxed, |count| count.checked_add(1));
    }

    /// The end of the last entry or connection of a place, unless another one was added meanwhile.
    fn end(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.count.fetch_update(SeqCst, Relaxed, less) == Ok(1) {
            self.word.fetch_and(!self.bit, SeqCst);
        }
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
