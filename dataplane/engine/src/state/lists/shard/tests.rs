//! Tests of one shard. They check its links after every addition.

use std::net::{IpAddr, Ipv4Addr};

use knockplane_policy::event::Origin;

use super::index::bucket_of;
use super::memory::buckets;
use super::queue::queue_of;
use super::*;
use crate::state::key::Secret;

const SECRET: Secret = Secret([1, 2]);
const CAUSE: Cause = Cause::of(Origin::Packet);

impl Shard {
    /// The entries of each bucket, with the right tag or in the overflow chain.
    fn buckets(&self) -> Vec<Vec<u32>> {
        let mut buckets = vec![Vec::new(); self.memory.index.len()];
        for slot in (0..self.fresh).filter(|slot| !self.entry(*slot).is_free()) {
            let hash = self.entry(slot).hash();
            let found = self.memory.candidates(hash.into()).filter(|(candidate, _)| *candidate == slot).count();
            assert_eq!(found, 1, "an entry is once in its bucket");
            buckets[bucket_of(hash, self.memory.index.len())].push(slot);
        }
        buckets
    }

    /// The number of entries in the fullest bucket.
    fn fullest_bucket(&self) -> usize {
        self.buckets().iter().map(Vec::len).max().unwrap_or_default()
    }

    /// Checks every link against every other.
    fn audit(&self) {
        let buckets = self.buckets();
        let used: usize = buckets.iter().map(Vec::len).sum();
        for (bucket, slots) in buckets.iter().enumerate() {
            assert_eq!(self.memory.len_of(bucket), slots.len(), "a bucket has no other entry");
        }
        let mut queued = 0;
        for (level, queue) in self.queues.iter().enumerate() {
            let (mut older, mut slot) = (NIL, queue.oldest);
            for _ in 0..queue.length {
                let entry = self.entry(slot);
                assert!(older == NIL || entry.older() == older);
                assert_eq!(queue_of(entry.level()), level);
                (older, slot) = (slot, entry.newer());
                queued += 1;
            }
            assert_eq!(queue.newest, older);
            assert_eq!(queue.length == 0, queue.oldest == NIL);
        }
        let full = self.fresh == self.slots && self.queues[0].oldest != NIL;
        assert_eq!(self.memory.victim(), if full { self.queues[0].oldest } else { NIL });
        let tallied: u64 = self.counts.iter().map(|counts| counts.entries).sum();
        assert_eq!((queued, tallied as usize), (used, used));
    }
}

fn key(number: u32) -> AddressKey {
    IpAddr::V4(Ipv4Addr::from_bits(number)).into()
}

fn at(seconds: u64) -> Time {
    Time::from_nanos(seconds * 1_000_000_000)
}

fn add(shard: &mut Shard, number: u32, level: u8, expiry: Time, now: Time) -> AddOutcome {
    let scope = EntryScope { list: ListId(level), peer_tag: 0 };
    let added =
        shard.add(SECRET.hash(key(number)), key(number), scope, EntryTerms { level, expiry, now, cause: &CAUSE });
    shard.audit();
    added
}

fn contains(shard: &Shard, number: u32, level: u8, now: Time) -> bool {
    let mut lookup = Lookup::EMPTY;
    shard.add_to_lookup(SECRET.hash(key(number)), key(number), 0, now, &mut lookup);
    lookup.membership.lists.contains(ListId(level))
}

#[test]
fn a_full_shard_gives_up_the_expired_first() {
    let mut shard = Shard::new(3, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
    add(&mut shard, 1, 0, Time::NEVER, at(0));
    add(&mut shard, 2, 0, at(5), at(0));
    add(&mut shard, 3, 3, at(9), at(0));
    // 2 is not at the head of its queue, 3 has a higher level: both have expired, and are evicted before 1.
    assert_eq!(add(&mut shard, 4, 0, at(99), at(5)), AddOutcome::New);
    assert_eq!(add(&mut shard, 5, 0, at(99), at(9)), AddOutcome::New);
    assert!(contains(&shard, 1, 0, at(9)) && contains(&shard, 4, 0, at(9)) && contains(&shard, 5, 0, at(9)));
    assert_eq!(shard.counts.iter().map(|counts| counts.evicted).sum::<u64>(), 0);
}

#[test]
fn an_expired_entry_at_the_head_of_a_queue_is_found_wherever_it_is() {
    let mut shard = Shard::new(100, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
    for number in 0..100 {
        add(&mut shard, number, 0, at(if number == 50 { 5 } else { 99 }), at(0));
    }
    for number in (0..100).filter(|number| *number != 50) {
        add(&mut shard, number, 0, at(99), at(1));
    }
    assert_eq!(add(&mut shard, 100, 0, at(99), at(5)), AddOutcome::New);
    assert_eq!((shard.counts(ListId(0)).entries, shard.counts(ListId(0)).evicted), (100, 0));
}

#[test]
fn then_the_oldest_of_the_lowest_level_but_none_above_its_own() {
    let mut shard = Shard::new(4, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
    for (number, level) in [(1, 1), (2, 0), (3, 0), (4, 2)] {
        add(&mut shard, number, level, at(99), at(0));
    }
    // Refreshed, 2 is younger than 3.
    assert_eq!(add(&mut shard, 2, 0, at(99), at(1)), AddOutcome::Refreshed);
    assert_eq!(add(&mut shard, 5, 1, at(99), at(1)), AddOutcome::New);
    assert!(!contains(&shard, 3, 0, at(1)) && contains(&shard, 2, 0, at(1)));
    assert_eq!(add(&mut shard, 6, 1, at(99), at(1)), AddOutcome::New);
    assert!(!contains(&shard, 2, 0, at(1)));
    // Only levels 1, 1, 1 and 2 are left.
    assert_eq!(add(&mut shard, 7, 0, at(99), at(1)), AddOutcome::Refused);
    assert_eq!(add(&mut shard, 7, 1, at(99), at(1)), AddOutcome::New);
    assert!(!contains(&shard, 1, 1, at(1)) && contains(&shard, 4, 2, at(1)));
    let [zero, one] = [0, 1].map(|level| shard.counts(ListId(level)));
    assert_eq!((zero.entries, zero.evicted, zero.refused), (0, 2, 1));
    assert_eq!((one.entries, one.evicted, one.refused), (3, 1, 0));
}

#[test]
fn levels_above_the_last_queue_share_it() {
    let mut shard = Shard::new(1, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
    add(&mut shard, 1, 200, at(99), at(0));
    assert_eq!(add(&mut shard, 2, 2, at(99), at(0)), AddOutcome::Refused);
    assert_eq!(add(&mut shard, 2, 3, at(99), at(0)), AddOutcome::New);
}

#[test]
fn a_sweep_comes_round_and_gives_back_what_expired() {
    let mut shard = Shard::new(10, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
    for number in 0..10 {
        add(&mut shard, number, 0, at(u64::from(number)), at(0));
    }
    assert_eq!(shard.sweep(4, at(6)), 4);
    shard.audit();
    assert_eq!(shard.sweep(4, at(6)), 3);
    assert_eq!(shard.sweep(4, at(9)), 2);
    assert_eq!(shard.sweep(100, at(9)), 1);
    assert_eq!(shard.counts(ListId(0)).entries, 0);
    shard.audit();
}

#[test]
fn addresses_that_collide_under_one_secret_spread_under_another() {
    let mut seen = (0..).map(key).filter(|key| bucket_of(SECRET.hash(*key) as u32, buckets(1024)) == 7);
    let colliding: Vec<AddressKey> = seen.by_ref().take(512).collect();
    let fullest = |secret: Secret| {
        let mut shard = Shard::new(1024, Arc::new(EventRing::new(4).unwrap()), 4).unwrap();
        for key in &colliding {
            let terms = EntryTerms { level: 0, expiry: Time::NEVER, now: at(0), cause: &CAUSE };
            shard.add(secret.hash(*key), *key, EntryScope { list: ListId(0), peer_tag: 0 }, terms);
        }
        shard.fullest_bucket()
    };
    assert_eq!(fullest(SECRET), 512);
    assert!(fullest(Secret([3, 4])) < 20);
}
