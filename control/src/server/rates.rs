//! Limits on events in a time, for each key in a bounded table: failed authentications of an address, requests with a token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Maximum number of events of a key in a period.
    pub(crate) events: u32,
    /// The period, which begins with the first event.
    pub(crate) period: Duration,
}

/// The events of each key. When the table is full, a new key replaces a key whose period is over, or else the key whose period
/// is the oldest: a flood of keys shortens periods, and takes no memory.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    rate: Rate,
    capacity: usize,
    counted: Mutex<HashMap<K, Counted>>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    since: Instant,
    events: u32,
}

impl<K: Clone + Eq + Hash> Rates<K> {
    pub(crate) fn new(rate: Rate, capacity: usize) -> Self {
        Rates { rate, capacity, counted: Mutex::default() }
    }

    /// Counts an event of a key.
    ///
    /// # Errors
    /// The time to wait, if the key has had all events of its period.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Rate { events, period } = self.rate;
        if let Some(known) = counted.get_mut(&key) {
            let age = now.saturating_duration_since(known.since);
            if age >= period {
                *known = Counted { since: now, events: 0 };
            } else if known.events >= events {
                return Err(period - age);
            }
            known.events += 1;
            return Ok(());
        }
        if counted.len() >= self.capacity {
            counted.retain(|_, known| now.saturating_duration_since(known.since) < period);
        }
        if counted.len() >= self.capacity {
            let oldest = counted.iter().min_by_key(|(_, known)| known.since).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                counted.remove(&oldest);
            }
        }
        counted.insert(key, Counted { since: now, events: 1 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { events: 3, period: Duration::from_secs(60) };

    #[test]
    fn a_key_waits_for_the_end_of_its_period_and_others_do_not() {
        let rates = Rates::new(RATE, 10);
        let begin = Instant::now();
        for second in 0..3 {
            assert_eq!(rates.take(1, begin + Duration::from_secs(second)), Ok(()));
        }
        assert_eq!(rates.take(1, begin + Duration::from_secs(10)), Err(Duration::from_secs(50)));
        assert_eq!(rates.take(2, begin), Ok(()));
        assert_eq!(rates.take(1, begin + RATE.period), Ok(()));
        assert_eq!(rates.take(1, begin + RATE.period), Ok(()), "a new period has begun");
    }

    #[test]
    fn a_flood_of_keys_takes_no_memory() {
        let rates = Rates::new(RATE, 10);
        let begin = Instant::now();
        for key in 0..1_000 {
            rates.take(key, begin + Duration::from_millis(key)).unwrap();
        }
        let counted = rates.counted.lock().unwrap();
        assert_eq!(counted.len(), 10);
        assert!(counted.contains_key(&999) && !counted.contains_key(&0));
    }
}
