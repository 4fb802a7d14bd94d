//! Selects the connections that a listener keeps when more arrive than it has room for.
//!
//! A new connection is admitted while there is room. Without room, the peer with the most connections loses one: the
//! connection that has been idle longest, or, if none is idle, the one whose transfer is oldest. So a peer that opens
//! connections and sends no requests loses its own connections and blocks no other peer. A connection whose request is
//! being answered is never closed. If all connections are being answered, the new one is refused.
//!
//! This module uses no socket and no clock: the order of changes represents age.

use std::collections::BTreeMap;

use crate::refusal::Refusal;

/// Limits on the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Limit for all peers together.
    pub total: usize,
    /// Limit for one peer.
    pub per_peer: usize,
    /// The part of the total that is reserved for privileged peers.
    pub reserved: usize,
}

/// The activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// No request has arrived.
    Idle,
    /// A request is arriving, or an answer waits to be read.
    Transfer,
    /// The listener is answering its request.
    Work,
}

/// A new connection that is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Id of the new connection, which is idle.
    pub id: u64,
    /// The connection to close in its place; it is already removed from the table.
    pub evicted: Option<u64>,
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Admission<P> {
    limits: Limits,
    connections: BTreeMap<u64, Connection<P>>,
    /// The next number. Connections and their changes of activity have ascending numbers.
    next: u64,
}

#[derive(Debug)]
struct Connection<P> {
    peer: P,
    privileged: bool,
    activity: Activity,
    /// The number of its last change of activity.
    since: u64,
}

impl<P: Clone + Ord> Admission<P> {
    /// Creates an empty table.
    pub fn new(limits: Limits) -> Self {
        Admission { limits, connections: BTreeMap::new(), next: 0 }
    }

    /// Admits a new connection, if necessary in place of another one.
    ///
    /// # Errors
    /// If there is no room and every connection that could be closed is being answered.
    pub fn admit(&mut self, peer: P, privileged: bool) -> Result<Admitted, Refusal> {
        let Limits { total, per_peer, reserved } = self.limits;
        let own = self.count(|other| other.peer == peer);
        let common = self.count(|other| !other.privileged);
        let evicted = if own >= per_peer {
            Some(self.evict(own, &peer, |other| other.peer == peer).ok_or(Refusal::PeerLimit)?)
        } else if !privileged && common >= total - reserved {
            Some(self.evict(own, &peer, |other| !other.privileged).ok_or(Refusal::TotalLimit)?)
        } else if self.connections.len() >= total {
            Some(self.evict(own, &peer, |_| true).ok_or(Refusal::TotalLimit)?)
        } else {
            None
        };
        let id = self.number();
        self.connections.insert(id, Connection { peer, privileged, activity: Activity::Idle, since: id });
        Ok(Admitted { id, evicted })
    }

    /// Records the activity of a connection.
    pub fn set(&mut self, id: u64, activity: Activity) {
        let since = self.number();
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.activity != activity) {
            (connection.activity, connection.since) = (activity, since);
        }
    }

    /// Makes a connection the youngest of its activity, because its transfer made progress.
    pub fn renew(&mut self, id: u64) {
        let since = self.number();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.since = since;
        }
    }

    /// Removes a connection that has ended.
    pub fn remove(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Removes the connection that would be closed first, so that the system has room for another one.
    pub fn evict_any(&mut self) -> Option<u64> {
        let peers = self.connections.values().map(|connection| connection.peer.clone());
        let anyone = peers.min()?;
        self.evict(0, &anyone, |_| true)
    }

    /// The connections with this activity.
    pub fn with(&self, activity: Activity) -> Vec<u64> {
        let those = self.connections.iter().filter(|(_, connection)| connection.activity == activity);
        those.map(|(id, _)| *id).collect()
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Removes the connection that makes room for a new one whose peer already has `own` connections. Only connections
    /// for which `may` is true are candidates. The connection is of the peer with the most connections, and never of a
    /// peer with fewer connections than the new one's.
    fn evict(&mut self, own: usize, newcomer: &P, may: impl Fn(&Connection<P>) -> bool) -> Option<u64> {
        let mut counts = BTreeMap::<&P, usize>::new();
        self.connections.values().for_each(|connection| *counts.entry(&connection.peer).or_default() += 1);
        let candidates = self.connections.iter().filter(|(_, connection)| {
            let count = counts[&connection.peer];
            may(connection) && connection.activity != Activity::Work && (count > own || connection.peer == *newcomer)
        });
        let order = |connection: &Connection<P>| {
            let count = counts[&connection.peer];
            (std::cmp::Reverse(count), connection.activity == Activity::Transfer, connection.since)
        };
        let (id, _) = candidates.min_by_key(|(_, connection)| order(connection))?;
        let id = *id;
        self.connections.remove(&id);
        Some(id)
    }

    fn count(&self, is_counted: impl Fn(&Connection<P>) -> bool) -> usize {
        self.connections.values().filter(|connection| is_counted(connection)).count()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { total: 8, per_peer: 4, reserved: 2 };

    fn admission(peers: &[u32]) -> Admission<u32> {
        let mut admission = Admission::new(LIMITS);
        for peer in peers {
            admission.admit(*peer, *peer == 0).unwrap();
        }
        admission
    }

    fn evicted(admission: &mut Admission<u32>, peer: u32) -> Option<u64> {
        admission.admit(peer, peer == 0).unwrap().evicted
    }

    #[test]
    fn a_peer_at_its_limit_replaces_its_own_idle_connection() {
        let mut admission = admission(&[1, 1, 1, 1]);
        admission.set(1, Activity::Transfer);
        assert_eq!(evicted(&mut admission, 1), Some(2));
        for id in [3, 4, 6] {
            admission.set(id, Activity::Work);
        }
        assert_eq!(evicted(&mut admission, 1), Some(1), "no connection is idle");
        admission.set(10, Activity::Work);
        assert_eq!(admission.admit(1, false), Err(Refusal::PeerLimit), "{admission:?}");
        assert_eq!(evicted(&mut admission, 2), None);
    }

    #[test]
    fn the_peer_with_the_most_gives_way_and_room_is_reserved() {
        let mut admission = admission(&[1, 2, 2, 3, 3, 3]);
        assert_eq!(evicted(&mut admission, 4), Some(4), "the oldest of peer 3, for two places are reserved");
        assert_eq!((evicted(&mut admission, 0), evicted(&mut admission, 0)), (None, None));
        assert_eq!(admission.len(), 8);
        assert_eq!(evicted(&mut admission, 0), Some(8), "its own, as no other peer has more");
    }

    #[test]
    fn a_connection_that_asked_again_is_the_youngest() {
        let mut admission = admission(&[1, 1, 1, 1]);
        admission.set(1, Activity::Work);
        admission.set(1, Activity::Idle);
        assert_eq!(evicted(&mut admission, 1), Some(2));
        assert_eq!(admission.evict_any(), Some(3));
    }

    proptest! {
        #[test]
        fn limits_hold_and_a_peer_without_connections_is_refused_only_if_all_are_being_answered(
            events in prop::collection::vec((0..6_u32, 0..4_u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut admission = Admission::new(LIMITS);
            for (peer, what, index) in events {
                let ids: Vec<u64> = admission.connections.keys().copied().collect();
                let own = admission.count(|other| other.peer == peer);
                let working = admission.count(|other| other.activity == Activity::Work);
                match (what, ids.is_empty()) {
                    (1, false) => admission.set(*index.get(&ids), Activity::Work),
                    (2, false) => admission.set(*index.get(&ids), Activity::Transfer),
                    (3, false) => admission.remove(*index.get(&ids)),
                    _ => {
                        let before = admission.len();
                        match admission.admit(peer, peer == 0) {
                            Ok(Admitted { evicted, .. }) => {
                                prop_assert_eq!(admission.len(), before + 1 - usize::from(evicted.is_some()));
                            }
                            Err(_) => prop_assert!(own > 0 || working > 0),
                        }
                    }
                }
                prop_assert!(admission.len() <= LIMITS.total);
                prop_assert!(admission.count(|other| !other.privileged) <= LIMITS.total - LIMITS.reserved);
                for peer in 0..6 {
                    prop_assert!(admission.count(|other| other.peer == peer) <= LIMITS.per_peer);
                }
            }
        }
    }
}
