//! The reasons for which a limit refuses or closes a connection. Answers, metrics and the log use the same set.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Minimum time between two log lines about refusals, so that a peer cannot fill the log with connections.
const LOG_EVERY: Duration = Duration::from_secs(10);

macro_rules! refusals {
    ($($(#[$about:meta])* $variant:ident = $name:literal, $sentence:literal;)+) => {
        /// The reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$about])* $variant,)+
        }

        impl Refusal {
            /// All reasons.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant),+];

            /// The reason as a label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $name,)+
                }
            }

            /// The reason as a sentence, with the remedy.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $sentence,)+
                }
            }
        }
    };
}

refusals! {
    /// The user of the peer may not connect.
    NotAllowed = "not-allowed", "this user may not connect: add its id to `socket-uids` in [dataplane]";
    /// The peer has as many connections as it may have, and all are being answered.
    PeerLimit = "peer-limit", "too many connections of one peer: close some of them, or try again";
    /// There are as many connections as allowed, and all are being answered.
    TotalLimit = "total-limit", "too many connections: try again";
    /// The connection was closed to make room for a newer one.
    Evicted = "evicted", "too many connections: this one sent no request and was closed for a newer one";
    /// The peer sent no request.
    Idle = "idle", "the connection sent no request for too long";
    /// The request did not arrive in time.
    SlowRequest = "slow-request", "the request did not arrive in time";
    /// The peer did not read the answer in time.
    SlowReader = "slow-reader", "the answer was not read in time";
    /// The request is too long.
    TooLong = "too-long", "the request is too long";
    /// Requests or answers of other connections use all the memory for them.
    Memory = "memory", "requests and answers of other connections use all the memory reserved for them: try again";
    /// The system has no descriptor or no memory for the connection.
    Accept = "accept", "the system cannot accept a connection: raise the limit of open files (LimitNOFILE=)";
}

/// Counts refusals by reason, since start.
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; Refusal::ALL.len()],
    log: Mutex<Log>,
}

/// State of the log lines about refusals.
#[derive(Debug)]
struct Log {
    last: Option<Instant>,
    /// The number of refusals since the last line, by reason: each line reports one reason.
    untold: [u64; Refusal::ALL.len()],
}

impl Default for Refusals {
    fn default() -> Self {
        let log = Mutex::new(Log { last: None, untold: Default::default() });
        Refusals { counts: std::array::from_fn(|_| AtomicU64::new(0)), log }
    }
}

impl Refusals {
    /// Counts one refusal. If the next log line is due, returns the number of refusals for this reason since the last
    /// line, this one included.
    pub fn count(&self, refusal: Refusal, now: Instant) -> Option<u64> {
        self.counts[refusal as usize].fetch_add(1, Relaxed);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.untold[refusal as usize] += 1;
        if log.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_EVERY) {
            return None;
        }
        log.last = Some(now);
        Some(std::mem::take(&mut log.untold[refusal as usize]))
    }

    /// Every reason and its count.
    pub fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.iter().map(|refusal| (*refusal, self.counts[*refusal as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_every_ten_seconds() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        assert_eq!(refusals.count(Refusal::Evicted, begin), Some(1));
        for _ in 0..2_000 {
            assert_eq!(refusals.count(Refusal::Evicted, begin + LOG_EVERY / 2), None);
        }
        assert_eq!(refusals.count(Refusal::Idle, begin + LOG_EVERY), Some(1), "of this reason");
        assert_eq!(refusals.count(Refusal::Evicted, begin + LOG_EVERY * 2), Some(2_001));
        let counts: Vec<_> = refusals.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Refusal::Evicted, 2_002), (Refusal::Idle, 1)]);
        assert_eq!(refusals.counts().count(), Refusal::ALL.len(), "reasons without refusals are among them");
    }
}
