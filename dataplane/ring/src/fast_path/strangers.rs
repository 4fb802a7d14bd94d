//! The tables by which the program drops frames of strangers: `bpf/strangers.h`.
//!
//! **Order.** A frame that goes up can make its source known. The program notes its source, with the present tick, and drops
//! no frame of the source before workers have decided it: they begin the ticks ([`Strangers::begin_tick`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};

use ipnet::IpNet;
use knockplane_policy::packet::{Family, Side};
use knockplane_policy::strangers::{
    CLASS_PORTS, CLASSES, KnownBits, KnownSources, NamedNetworks, SourceHash, class_index, known_bit, mix,
};

use super::flow::Flow;
use super::shared::SharedWords;
use super::sync::{AtomicU32, AtomicU64};
use crate::program::map;

/// Constants of `bpf/strangers.h`.
const PROTECTED: usize = 4;
const TICKS: usize = 4;
const PASSED: usize = 1 << 16;
const NETWORK6_BITS: u32 = 20;
const ANY_NUMBER: u32 = 32;

/// Frames of strangers that go up between two ticks, on each queue: up to some thousand a second, for the records of who was
/// dropped.
const SAMPLES: u32 = 32;

const HOST_NAME_BITS: u32 = 18;

/// The most single addresses that are named one by one. With more, too many sources would share their bits: then their networks
/// are named.
const HOSTS: u32 = 1 << (HOST_NAME_BITS - 4);

/// The number of /24 of IPv4, and of places of a /32 of IPv6.
const NETWORKS: [u32; 2] = [1 << 24, 1 << NETWORK6_BITS];

/// Places of the fields of `struct strangers`, in words of 32 bits.
mod control {
    pub(super) const IS_ON: usize = 0;
    pub(super) const TICK: usize = 1;
    pub(super) const UNREAD: usize = 2;
    pub(super) const WINDOW: usize = 3;
    pub(super) const FREE_PORTS: usize = 4;
    pub(super) const BY_PREFIX: usize = 5;
    pub(super) const MASK: usize = 6;
    pub(super) const HAS_NETWORKS: usize = 7;
    pub(super) const SAMPLES: usize = 9;
    pub(super) const HAS_HOSTS: usize = 10;
    pub(super) const PROTECTED4: usize = 12;
    /// In words of 64 bits.
    pub(super) const PROTECTED6: usize = 10;
    /// Bytes of the whole.
    pub(super) const BYTES: usize = 144;
}

/// The tables, shared with the XDP program.
pub struct Strangers {
    control: Arc<SharedWords>,
    classes: SharedWords,
    known: Arc<Known>,
    /// Four words for each 64 places of a source, one for each of the last ticks.
    passed: SharedWords,
    networks: Arc<Networks>,
}

/// The networks whose sources are no strangers.
struct Networks {
    control: Arc<SharedWords>,
    /// A bit for each /24 of IPv4, and for each place of a /32 of IPv6.
    bits: [SharedWords; 2],
    /// A bit for each place of a single address.
    hosts: SharedWords,
    /// The number of single addresses.
    named_hosts: AtomicU32,
    secret: u64,
}

/// A bit for each place of a source.
struct Known {
    words: SharedWords,
}

impl AsRef<[AtomicU64]> for Known {
    fn as_ref(&self) -> &[AtomicU64] {
        self.words.of_64_bits()
    }
}

impl Strangers {
    /// The tables of a loaded program, for this number of places of sources.
    pub(super) fn open(object: &libbpf_rs::Object, sources: usize, secret: u64) -> io::Result<Strangers> {
        let words = |name: &str, bytes: usize| SharedWords::of_map(map(object, name).as_fd(), bytes);
        let control = Arc::new(words("strangers", control::BYTES)?);
        let bits = [words("named4", NETWORKS[0] as usize / 8)?, words("named6", NETWORKS[1] as usize / 8)?];
        let hosts = words("named_hosts", (1 << HOST_NAME_BITS) / 8)?;
        let strangers = Strangers {
            control: Arc::clone(&control),
            classes: words("classes", CLASSES * CLASS_PORTS)?,
            known: Arc::new(Known { words: words("known", sources / 8)? }),
            passed: words("passed", TICKS * PASSED / 8)?,
            networks: Arc::new(Networks { control, bits, hosts, named_hosts: AtomicU32::new(0), secret }),
        };
        strangers.set(control::MASK, sources as u32 - 1);
        strangers.set_samples(SAMPLES);
        Ok(strangers)
    }

    fn set(&self, word: usize, value: u32) {
        self.control.of_32_bits()[word].store(value, Release);
    }

    /// The known sources, for lists and connections. No source is known yet.
    pub fn known_sources(&self) -> KnownSources {
        let bits: KnownBits = Arc::<Known>::clone(&self.known);
        (*bits).as_ref().iter().for_each(|word| word.store(0, Relaxed));
        KnownSources::new(bits, self.networks.source_hash())
    }

    /// The networks whose sources are no strangers.
    pub fn networks(&self) -> Arc<dyn NamedNetworks> {
        Arc::<Networks>::clone(&self.networks)
    }

    /// Sets whether all addresses of a /64 are one source. Called before anything is counted.
    pub fn set_by_prefix(&self, by_prefix: bool) {
        self.set(control::BY_PREFIX, by_prefix.into());
    }

    /// Replaces the trails of dropped frames, by class and port: a byte each, 0 for none. The families that are not set have none.
    /// No program may run that drops frames. `free_ports`: the number of ports of a source that need not come up in an interval,
    /// below 32; `None` for any number. Removes all named networks. Returns whether any frames have a trail.
    pub fn set_trails(&self, trails: &[u8], families: [bool; 2], free_ports: Option<u8>) -> bool {
        let mut any = 0;
        let words = self.classes.of_64_bits();
        let trails = trails.as_chunks::<8>().0.iter().map(|trails| u64::from_ne_bytes(*trails));
        for (at, (word, trails)) in words.iter().zip(trails.chain(std::iter::repeat(0))).enumerate() {
            let trails = if families[2 * at / words.len()] { trails } else { 0 };
            any |= trails;
            if word.load(Relaxed) != trails {
                word.store(trails, Relaxed);
            }
        }
        self.networks.clear();
        self.set(control::FREE_PORTS, free_ports.map_or(ANY_NUMBER, u32::from));
        any != 0
    }

    /// Sets whether frames of strangers are dropped at all. Returns whether they were until now.
    pub fn set_on(&self, is_on: bool) -> bool {
        self.control.of_32_bits()[control::IS_ON].swap(is_on.into(), AcqRel) != 0
    }

    /// Drops no frame of a stranger before the fourth tick from now: frames have gone up without a note of their source.
    pub(super) fn wait_for_decisions(&self) {
        self.set(control::UNREAD, self.control.of_32_bits()[control::TICK].load(Relaxed));
    }

    /// Sets the protected networks. Returns, for IPv4 and IPv6, whether the program can compare destinations with them: there
    /// are few, and networks of IPv6 are not smaller than a /64.
    pub fn set_protected(&self, networks: &[IpNet]) -> [bool; 2] {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut small = false;
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push([network.network().to_bits(), network.broadcast().to_bits()]),
                IpNet::V6(network) => {
                    small |= network.prefix_len() > 64;
                    v6.push([network.network(), network.broadcast()].map(upper_half));
                }
            }
        }
        let fit = [v4.len() <= PROTECTED, v6.len() <= PROTECTED && !small];
        v4.resize(PROTECTED, [1, 0]);
        v6.resize(PROTECTED, [1, 0]);
        let words = &self.control.of_32_bits()[control::PROTECTED4..];
        words.iter().zip(v4.as_flattened()).for_each(|(word, bound)| word.store(*bound, Relaxed));
        let words = &self.control.of_64_bits()[control::PROTECTED6..];
        words.iter().zip(v6.as_flattened()).for_each(|(word, bound)| word.store(*bound, Relaxed));
        fit
    }

    /// Whether the program drops this frame from outside, when many arrive and none of its source is on its way.
    pub fn drops(&self, frame: &[u8]) -> bool {
        let Some((flow, kind)) = Flow::with_kind(Side::Outside, frame) else { return false };
        let ([source, destination], port) = (flow.addresses(), flow.destination_port());
        let family = Family::of(source);
        let class = class_index(family, kind, self.protects(destination));
        let trail = self.classes.of_8_bits()[class * CLASS_PORTS + usize::from(port)].load(Relaxed);
        let is_on = self.control.of_32_bits()[control::IS_ON].load(Relaxed) != 0;
        let (word, bit) = known_bit((*self.known).as_ref(), self.networks.source_hash().of(source));
        let is_known = word.load(Relaxed) & bit != 0;
        is_on && trail != 0 && !is_known && !self.networks.contain(source)
    }

    /// Whether an address is in a protected network.
    fn protects(&self, address: IpAddr) -> bool {
        let (narrow, wide) = (self.control.of_32_bits(), self.control.of_64_bits());
        (0..PROTECTED).any(|at| match address {
            IpAddr::V4(address) => {
                let [first, last] = [0, 1].map(|end| narrow[control::PROTECTED4 + 2 * at + end].load(Relaxed));
                (first..=last).contains(&address.to_bits())
            }
            IpAddr::V6(address) => {
                let [first, last] = [0, 1].map(|end| wide[control::PROTECTED6 + 2 * at + end].load(Relaxed));
                (first..=last).contains(&upper_half(address))
            }
        })
    }

    /// Sets the number of frames of strangers that go up between two ticks on each queue, for tests.
    pub fn set_samples(&self, samples: u32) {
        self.set(control::SAMPLES, samples);
    }

    /// Begins a tick, with the number of the present interval of the port budget. Workers have decided all frames that went up
    /// before the last tick.
    pub fn begin_tick(&self, tick: u32, interval: u32) {
        // Of the tick that is no longer recent.
        let words = self.passed.of_64_bits().iter().skip(tick as usize % TICKS).step_by(TICKS);
        words.for_each(|word| word.store(0, Relaxed));
        self.set(control::WINDOW, interval);
        self.set(control::TICK, tick);
    }
}

impl NamedNetworks for Networks {
    fn name(&self, first: IpAddr, last: IpAddr) {
        if self.name_hosts(first, last) {
            return;
        }
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.name_places(0, first.to_bits() >> 8..=last.to_bits() >> 8),
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let [first, last] = [first, last].map(|address| (upper_half(address) >> 32) as u32);
                match last.saturating_sub(first) < NETWORKS[1] {
                    true => self.name_places(1, (first..=last).map(|network| self.place6(network))),
                    false => self.name_places(1, 0..NETWORKS[1]),
                }
            }
            _ => {}
        }
    }
}

impl Networks {
    /// Removes all names.
    fn clear(&self) {
        for word in control::HAS_NETWORKS..control::HAS_NETWORKS + 2 {
            self.control.of_32_bits()[word].store(0, Release);
        }
        self.control.of_32_bits()[control::HAS_HOSTS].store(0, Release);
        self.named_hosts.store(0, Relaxed);
        let words = self.bits.iter().chain([&self.hosts]).flat_map(SharedWords::of_64_bits);
        words.filter(|word| word.load(Relaxed) != 0).for_each(|word| word.store(0, Relaxed));
    }

    /// Names the addresses of a range one by one. Returns whether it did: not if there are too many.
    fn name_hosts(&self, first: IpAddr, last: IpAddr) -> bool {
        let (first, count) = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                (first, u64::from(last.to_bits() - first.to_bits()) + 1)
            }
            _ if first == last => return self.name_host(first),
            _ => return false,
        };
        let few = u64::from(HOSTS - self.named_hosts.load(Relaxed).min(HOSTS));
        count < 256
            && count <= few
            && (0..count as u32).all(|at| self.name_host(Ipv4Addr::from_bits(first.to_bits() + at).into()))
    }

    fn name_host(&self, address: IpAddr) -> bool {
        if self.named_hosts.fetch_add(1, Relaxed) >= HOSTS {
            self.named_hosts.fetch_sub(1, Relaxed);
            return false;
        }
        let place = self.host_place(address);
        self.hosts.of_64_bits()[place / 64].fetch_or(1 << (place % 64), Release);
        self.control.of_32_bits()[control::HAS_HOSTS].store(1, Release);
        true
    }

    fn host_place(&self, address: IpAddr) -> usize {
        (self.source_hash().of(address) >> (u64::BITS - HOST_NAME_BITS)) as usize
    }

    fn source_hash(&self) -> SourceHash {
        let v6_by_prefix = self.control.of_32_bits()[control::BY_PREFIX].load(Relaxed) != 0;
        SourceHash { secret: self.secret, v6_by_prefix }
    }

    fn contain(&self, source: IpAddr) -> bool {
        let (family, place) = match source {
            IpAddr::V4(address) => (0, address.to_bits() >> 8),
            IpAddr::V6(address) => (1, self.place6((upper_half(address) >> 32) as u32)),
        };
        let is_set =
            |bits: &SharedWords, place: usize| bits.of_64_bits()[place / 64].load(Relaxed) >> (place % 64) & 1 == 1;
        is_set(&self.bits[family], place as usize) || is_set(&self.hosts, self.host_place(source))
    }

    /// The place of a /32 of IPv6. The hashed word is that of the packet.
    fn place6(&self, network: u32) -> u32 {
        mix(self.secret, network.to_be().into()) as u32 & (NETWORKS[1] - 1)
    }

    fn name_places(&self, family: usize, places: impl Iterator<Item = u32>) {
        let bits = self.bits[family].of_64_bits();
        for place in places {
            bits[place as usize / 64].fetch_or(1 << (place % 64), Release);
        }
        self.control.of_32_bits()[control::HAS_NETWORKS + family].store(1, Release);
    }
}

/// The upper half of an address.
fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}
