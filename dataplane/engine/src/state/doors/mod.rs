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

use std::hash::Hasher as _;
use std::net::IpAddr;
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
    /// The number of knocks that a source has begun at a door.
    attempts: Keyed<(Whom, u64, Time)>,
    ports: Keyed<(Option<KnockSource>, Ports)>,
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
type Whom = Option<(KnockSource, ListId)>;

impl Visitors {
    pub(crate) fn new(keys: usize, secret: [u64; 2]) -> Visitors {
        Visitors {
            secret,
            held: Keyed::new(keys),
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

    /// Records the port of the packet. Returns whether its source in this network has tried too many ports.
    pub(crate) fn scans(&self, packet: &Packet<'_>, vlan: Vlan, budget: &PortBudget, now: Time) -> bool {
        if budget.ports == 0 {
            return false;
        }
        let whom = KnockSource { address: packet.source, vlan };
        let tag = self.source(whom);
        match ports::bit(self.secret, packet) {
            Some(bit) => self.ports.with(tag, now, |(source, ports)| {
                source.get_or_insert_with(|| visitor_of(whom));
                (ports.ignores(bit, budget, now), ports.until())
            }),
            None => self.ports.get(tag, now).is_some_and(|(_, ports)| ports.are_too_many(now)),
        }
    }

    pub(crate) fn are_held(&self, door: &CompiledDoor, source: KnockSource, now: Time) -> bool {
        !door.door.hold_off.is_zero() && self.held.get(self.visitor(door.open, source), now).is_some()
    }

    pub(crate) fn hold(&self, door: &CompiledDoor, source: KnockSource, now: Time) {
        if !door.door.hold_off.is_zero() {
            self.held.with(self.visitor(door.open, source), now, |whom| {
                *whom = Some((visitor_of(source), door.open));
                ((), now + door.door.hold_off)
            });
        }
    }

    /// Whether the source may begin another knock.
    fn attempt(&self, door: &CompiledDoor, source: KnockSource, most: Attempts, now: Time) -> bool {
        self.attempts.with(self.visitor(door.open, source), now, |(whom, begun, until)| {
            *whom = Some((visitor_of(source), door.open));
            if now >= *until {
                (*begun, *until) = (0, now + most.per);
            }
            *begun += 1;
            (*begun <= u64::from(most.count), *until)
        })
    }

    /// The tag of a source at all doors.
    fn source(&self, source: KnockSource) -> Tag {
        tag(self.secret, |hasher| {
            write_address(hasher, door::visitor(source.address));
            write_vlan(hasher, source.vlan);
        })
    }

    /// The tag of a source at the door with this open list.
    fn visitor(&self, open: ListId, source: KnockSource) -> Tag {
        tag(self.secret, |hasher| {
            hasher.write_u8(open.0);
            write_address(hasher, door::visitor(source.address));
            write_vlan(hasher, source.vlan);
        })
    }
}

/// The source under which the tables store an address.
fn visitor_of(source: KnockSource) -> KnockSource {
    KnockSource { address: door::visitor(source.address), ..source }
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

impl CompiledDoor {
    /// Evaluates a packet against the knock that opens.
    pub(crate) fn knock(&self, knock: Knock, lists: &Lists, visitors: &Visitors) -> Knocked {
        let may_begin = || match self.door.max_attempts {
            Some(most) => visitors.attempt(self, knock.source, most, knock.now),
            None => true,
        };
        knock.at(&self.opening, lists, may_begin)
    }
}
