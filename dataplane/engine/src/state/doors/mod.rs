//! Doors, shared by all workers: the progress of sources, the grants, and the counters.
//!
//! [`progress::next`] decides the effect of a packet on a knock. The progress of a source is an entry of the door's
//! list of knocking sources. A worker reads and writes the entry under one lock, so that two workers never take one
//! step twice. A grant is an entry of the open list of the door that counts for one destination. The rest (hold-off,
//! attempts, ports) is in bounded tables with keyed hashes. Under a flood, the tables evict the sources with the fewest
//! packets. An evicted scanner may try again. An eviction never causes a source to be ignored.
//!
//! The order of arrival counts, also between queues. A packet that another worker overtook counts as if it had been
//! processed in its turn. A later step whose previous step may be at another worker waits for that step in the reorder
//! buffer of the worker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

mod ignored;

pub use self::ignored::Ignored;

use crossbeam::utils::CachePadded;
use hashbrown::HashMap;
use knockplane_policy::door::exempt::{self, Exempt};
use knockplane_policy::door::ports::{self, PortBudget, Ports};
use knockplane_policy::door::progress::{self, KnockOutcome, KnockProgress, Shape, StepSet};
use knockplane_policy::door::{self, Attempts, Door, Failure, MOST_STEPS, Opening, What};
use knockplane_policy::packet::{Packet, Vlan};
use knockplane_policy::time::Time;
use knockplane_policy::word::Word as _;

use crate::state::keyed::{Keyed, Tag, tag, write_address, write_vlan};
use crate::state::lists::{AddOutcome, AddressHash, ListId, ListSet, Lists, ProgressChange, SequenceProgress};

/// A door of a table, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoorId(pub(crate) u16);

/// A door with resolved names.
pub(crate) struct CompiledDoor {
    pub(crate) door: Door,
    /// The list of sources that the door is open for, each entry towards one destination.
    pub(crate) open: ListId,
    pub(crate) opening: Sequence,
    pub(crate) closing: Option<Sequence>,
    pub(crate) exempt: CompiledExempt,
    pub(crate) counts: Arc<DoorCounts>,
}

/// [`Exempt`] with resolved names.
pub(crate) struct CompiledExempt {
    always: Box<[Opening]>,
    granted: Box<[(ListId, Box<[Opening]>)]>,
}

impl CompiledExempt {
    /// Resolves the lists by their names.
    pub(crate) fn new(exempt: Exempt, list: impl Fn(&str) -> Option<ListId>) -> CompiledExempt {
        let granted = exempt.granted.into_iter();
        CompiledExempt {
            always: exempt.always.into(),
            granted: granted.filter_map(|(name, openings)| Some((list(&name)?, openings.into()))).collect(),
        }
    }

    /// Whether a packet that matches no step is exempt, if its source is in these lists.
    pub(crate) fn covers(&self, packet: &Packet<'_>, lists: ListSet) -> bool {
        let granted =
            |(list, openings): &(ListId, Box<[Opening]>)| lists.contains(*list) && exempt::include(openings, packet);
        self.always.iter().any(|opening| opening.is(packet)) || self.granted.iter().any(granted)
    }
}

/// A knock that opens or closes, and the list that contains its progress.
pub(crate) struct Sequence {
    pub(crate) list: ListId,
    pub(crate) shape: Shape,
    /// The number of proofs beyond the first, by steps taken.
    pub(crate) levels: Box<[u8]>,
}

impl Sequence {
    fn level(&self, steps: u8) -> u8 {
        self.levels.get(usize::from(steps)).copied().unwrap_or_default()
    }
}

/// The counters of a door since start.
#[derive(Default)]
pub struct DoorCounts {
    /// Several copies of the counters, chosen by source, so that workers seldom write to the same copy.
    stripes: [CachePadded<Counts>; 8],
}

#[derive(Default)]
struct Counts {
    steps: [AtomicU64; MOST_STEPS],
    opened: AtomicU64,
    closed: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
}

/// The values of [`DoorCounts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorTally {
    /// The number of times that each step was taken, including the last step of the knock, which opens the door.
    pub steps: [u64; MOST_STEPS],
    /// The number of times that a knock opened the door.
    pub opened: u64,
    /// The number of times that a knock closed the door.
    pub closed: u64,
    /// Failed knocks, by [`Failure`].
    pub failed: [u64; Failure::ALL.len()],
}

impl DoorCounts {
    /// Counts an event of a source at the door, whose knock has `steps` steps. The last step counts as a step too, so
    /// that no counter of a step decreases when a knock gets longer or shorter.
    pub(crate) fn count(&self, source: IpAddr, what: What, steps: u8) {
        let stripe = match source {
            IpAddr::V4(address) => address.to_bits() as usize,
            IpAddr::V6(address) => address.to_bits() as usize,
        };
        let counts = &self.stripes[stripe % self.stripes.len()];
        let step = |step: u8| counts.steps.get(usize::from(step).saturating_sub(1));
        let (counter, step) = match what {
            What::Stepped(number) => (None, step(number)),
            What::Opened => (Some(&counts.opened), step(steps)),
            What::Closed => (Some(&counts.closed), None),
            What::Failed(failure) => (counts.failed.get(failure as usize), None),
        };
        for counter in [counter, step].into_iter().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sum of all stripes.
    pub fn tally(&self) -> DoorTally {
        let mut tally = DoorTally::default();
        for counts in &self.stripes {
            let add = |sums: &mut [u64], counters: &[AtomicU64]| {
                sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.load(Ordering::Relaxed));
            };
            add(&mut tally.steps, &counts.steps);
            add(&mut tally.failed, &counts.failed);
            tally.opened += counts.opened.load(Ordering::Relaxed);
            tally.closed += counts.closed.load(Ordering::Relaxed);
        }
        tally
    }
}

/// The state of doors outside the lists.
pub struct Visitors {
    secret: [u64; 2],
    /// Sources whose knocks at a door are ignored, until the expiry.
    held: Keyed<Whom>,
    /// The latest expiry of all entries of `held`, in nanoseconds: a door that seldom opens seldom reads that table.
    held_until: AtomicU64,
    /// The number of knocks that a source has begun at a door.
    attempts: Keyed<(Whom, u64, Time)>,
    ports: Keyed<(StoredSource, Ports)>,
    /// Counters by the name of the door. They outlive tables.
    counts: Mutex<HashMap<String, Arc<DoorCounts>>>,
}

/// A source of knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockSource {
    /// Its address; in the tables over IPv6 the first address of its /64.
    pub address: IpAddr,
    /// Its network.
    pub vlan: Vlan,
}

/// A source and the open list of a door, for operators. The tables find entries only by hash. `None` in a new slot.
type Whom = Option<(StoredSource, ListId)>;

/// A source in 16 bytes, so that a slot with the ports of a source is one cache line.
#[derive(Clone, Copy, Default)]
struct StoredSource {
    /// An IPv4 address, or the upper half of an IPv6 address.
    address: u64,
    /// The bits of the network, and above them 4 or 6; 0 in a new slot.
    network: u64,
}

/// The bits of a network, see [`Vlan::bits`].
const NETWORK_BITS: u32 = 48;

impl StoredSource {
    fn get(self) -> Option<KnockSource> {
        let address = match self.network >> NETWORK_BITS {
            4 => Ipv4Addr::from_bits(self.address as u32).into(),
            6 => Ipv6Addr::from_bits(u128::from(self.address) << 64).into(),
            _ => return None,
        };
        Some(KnockSource { address, vlan: Vlan::from_bits(self.network & ((1 << NETWORK_BITS) - 1)) })
    }
}

impl From<KnockSource> for StoredSource {
    fn from(KnockSource { address, vlan }: KnockSource) -> StoredSource {
        let (address, family) = match address {
            IpAddr::V4(address) => (address.to_bits().into(), 4),
            IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, 6),
        };
        StoredSource { address, network: family << NETWORK_BITS | vlan.bits() }
    }
}

/// A source in the form of the tables, and its keyed hash. One hash serves all doors.
#[derive(Clone, Copy)]
pub(crate) struct Visitor {
    source: StoredSource,
    tag: Tag,
}

impl Visitor {
    /// A value without a meaning.
    pub(crate) const NONE: Visitor = Visitor { source: StoredSource { address: 0, network: 0 }, tag: 0 };

    /// The tag of the source at the door with this open list: the keyed hash of the source, XORed with a number of the
    /// door that is not 0. Two doors have different numbers, because the factor is odd. Two pairs of a source and a door
    /// share a tag only if the hashes of their sources differ by exactly the difference of the doors' numbers. Without
    /// the secret, an attacker cannot choose such sources: for any two, the probability is 2⁻¹²⁸, as for equal hashes.
    fn at(self, open: ListId) -> Tag {
        const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.tag ^ (u128::from(open.0) + 1).wrapping_mul(FACTOR)
    }
}

impl Visitors {
    pub(crate) fn new(keys: usize, secret: [u64; 2]) -> Visitors {
        Visitors {
            secret,
            held: Keyed::new(keys),
            held_until: AtomicU64::default(),
            attempts: Keyed::new(keys),
            ports: Keyed::new(keys),
            counts: Mutex::default(),
        }
    }

    /// The counters of the door with this name.
    pub fn counts(&self, door: &str) -> Arc<DoorCounts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry_ref(door).or_default())
    }

    /// Hashes a source.
    #[inline]
    pub(crate) fn visitor(&self, source: KnockSource) -> Visitor {
        let source = KnockSource { address: door::visitor(source.address), ..source };
        let tag = tag(self.secret, |hasher| {
            write_address(hasher, source.address);
            write_vlan(hasher, source.vlan);
        });
        Visitor { source: source.into(), tag }
    }

    /// Loads the lines of the tables that a packet of this source will read first. Calls for several packets in
    /// sequence wait for memory together.
    #[inline]
    pub(crate) fn touch(&self, visitor: Visitor, budget: &PortBudget, doors: &[CompiledDoor], now: Time) {
        if budget.ports > 0 {
            self.ports.touch(visitor.tag);
        }
        for door in doors {
            if self.may_hold(door, now) {
                self.held.touch(visitor.at(door.open));
            }
            if door.door.max_attempts.is_some() {
                self.attempts.touch(visitor.at(door.open));
            }
        }
    }

    /// Records the port of the packet. Returns whether its source has tried too many ports. Called only with a budget.
    pub(crate) fn scans(&self, packet: &Packet<'_>, visitor: Visitor, budget: &PortBudget, now: Time) -> bool {
        match ports::bit(self.secret, packet) {
            Some(bit) => self.ports.with(visitor.tag, now, |(source, ports)| {
                *source = visitor.source;
                (ports.ignores(bit, budget, now), ports.until())
            }),
            None => self.ports.get(visitor.tag, now).is_some_and(|(_, ports)| ports.are_too_many(now)),
        }
    }

    /// Whether the door may ignore sources now because of its hold-off.
    #[inline]
    pub(crate) fn may_hold(&self, door: &CompiledDoor, now: Time) -> bool {
        !door.door.hold_off.is_zero() && now.as_nanos() < self.held_until.load(Ordering::Relaxed)
    }

    pub(crate) fn are_held(&self, door: &CompiledDoor, visitor: Visitor, now: Time) -> bool {
        self.held.get(visitor.at(door.open), now).is_some()
    }

    /// Begins the hold-off of a source. Called only at a door with a hold-off.
    pub(crate) fn hold(&self, door: &CompiledDoor, visitor: Visitor, now: Time) {
        let until = now + door.door.hold_off;
        self.held_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
        self.held.with(visitor.at(door.open), now, |whom| {
            *whom = Some((visitor.source, door.open));
            ((), until)
        });
    }

    /// Whether the source may begin another knock.
    pub(crate) fn attempt(&self, door: &CompiledDoor, visitor: Visitor, most: Attempts, now: Time) -> bool {
        self.attempts.with(visitor.at(door.open), now, |(whom, begun, until)| {
            *whom = Some((visitor.source, door.open));
            if now >= *until {
                (*begun, *until) = (0, now + most.per);
            }
            *begun += 1;
            (*begun <= u64::from(most.count), *until)
        })
    }
}

/// A packet at a door.
#[derive(Clone, Copy)]
pub(crate) struct Knock {
    pub(crate) source: KnockSource,
    /// The hash of its address, if it is known.
    pub(crate) hash: Option<AddressHash>,
    /// The peer tag of its destination.
    pub(crate) to: u32,
    /// The steps that the packet matches.
    pub(crate) fits: StepSet,
    pub(crate) now: Time,
    /// Whether the packet can wait in the reorder buffer if it is out of order.
    pub(crate) waits: bool,
}

/// The result of a packet at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knocked {
    pub(crate) outcome: KnockOutcome,
    /// Whether the packet would have begun a knock, but the source has begun too many knocks.
    pub(crate) refused: bool,
    /// Whether the lists had no room for the progress.
    pub(crate) evicted: bool,
    /// Whether the packet is out of order: it is a later step than the next one. The next step may be at another
    /// worker.
    pub(crate) early: bool,
}

impl Knock {
    /// Evaluates the packet against a sequence and stores the result, under one lock.
    pub(crate) fn at(self, sequence: &Sequence, lists: &Lists, may_begin: impl FnOnce() -> bool) -> Knocked {
        let mut knocked = Knocked { outcome: KnockOutcome::Nothing, refused: false, evicted: false, early: false };
        let KnockSource { address, vlan } = self.source;
        let added = lists.in_vlan(vlan).with_hash(self.hash).progress(sequence.list, address, self.now, |stored| {
            knocked = self.decide(sequence.shape, stored, may_begin);
            match knocked.outcome {
                KnockOutcome::Stepped(progress) | KnockOutcome::StartedOver(Some(progress)) => ProgressChange::Set {
                    step: progress.steps,
                    peer_tag: progress.to,
                    begun: progress.begun,
                    level: sequence.level(progress.steps),
                    expiry: progress.deadline,
                },
                KnockOutcome::StartedOver(None) => ProgressChange::Clear,
                KnockOutcome::Opened if stored.is_some() => ProgressChange::Clear,
                KnockOutcome::Opened | KnockOutcome::Nothing | KnockOutcome::Repeated => ProgressChange::Keep,
            }
        });
        knocked.evicted = added == Some(AddOutcome::Refused);
        knocked
    }

    fn decide(self, shape: Shape, stored: Option<SequenceProgress>, may_begin: impl FnOnce() -> bool) -> Knocked {
        let Knock { to, fits, now, .. } = self;
        let outcome = |outcome| Knocked { outcome, refused: false, evicted: false, early: false };
        if let Some(at) = stored.filter(|at| at.is_ahead_of(now)) {
            let was_taken = at.peer_tag == to && (0..at.step).any(|step| fits.contains(step));
            let starts_over = shape.strict && !was_taken && at.begun <= now;
            return outcome(if starts_over { KnockOutcome::StartedOver(None) } else { KnockOutcome::Nothing });
        }
        let taken = stored.filter(|at| at.peer_tag == to).map_or(0, |at| at.step);
        let at =
            stored.map(|at| KnockProgress { steps: at.step, to: at.peer_tag, begun: at.begun, deadline: at.expiry });
        let mut knocked = outcome(progress::next(shape, at, fits, to, now));
        let goes_on =
            matches!(knocked.outcome, KnockOutcome::Stepped(_) | KnockOutcome::Opened | KnockOutcome::Repeated);
        if self.waits && !goes_on && (taken + 1..shape.steps).any(|step| fits.contains(step)) {
            (knocked.early, knocked.outcome) = (true, KnockOutcome::Nothing);
            return knocked;
        }
        if knocked.outcome.begins(shape) && !may_begin() {
            knocked.refused = true;
            knocked.outcome = knocked.outcome.without_beginning();
        }
        knocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_sources_are_those_that_were_stored() {
        assert_eq!(StoredSource::default().get(), None);
        for address in ["0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "2001:db8:1:2::"] {
            for bits in [0, 1, (1 << NETWORK_BITS) - 1] {
                let source = KnockSource { address: address.parse().unwrap(), vlan: Vlan::from_bits(bits) };
                assert_eq!(StoredSource::from(source).get(), Some(source));
            }
        }
    }

    #[test]
    fn a_source_has_another_tag_at_each_door() {
        let visitors = Visitors::new(1, [1, 2]);
        let visitor = visitors.visitor(KnockSource { address: [192, 0, 2, 1].into(), vlan: Vlan::NONE });
        let tags = (0..=u8::MAX).map(|list| visitor.at(ListId(list))).chain([visitor.tag]);
        assert_eq!(tags.collect::<std::collections::HashSet<_>>().len(), 257);
    }

    #[test]
    fn tried_ports_of_a_source_are_one_line() {
        assert_eq!(Keyed::<(StoredSource, Ports)>::SLOT_BYTES, 64);
    }
}
