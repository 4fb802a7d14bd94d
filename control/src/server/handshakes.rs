//! Failed TLS handshakes: counted by the class of the peer's address and by cause, and logged at most once a minute for each
//! class and cause, so that a flood of them is one line.
//!
//! A peer that closes the connection during the handshake is counted and not logged: probes of a load balancer do so.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::peer::PeerGroup;

/// The minimum time between two lines about the same class and cause.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The class of a peer's address, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressClass {
    Loopback,
    Ipv4,
    Ipv6,
}

/// The cause of a failure, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The peer has closed the connection.
    Closed,
    /// The client has no certificate, or one that is not valid.
    Certificate,
    /// The client refuses the certificate of the server, or another part of the handshake.
    Rejected,
    /// The peer does not speak TLS, or no version that the server has.
    Protocol,
}

/// The failures since start.
#[derive(Debug, Default)]
pub(crate) struct HandshakeFailures([[Mutex<FailureCount>; HandshakeFailure::ALL.len()]; AddressClass::ALL.len()]);

/// The failures of a class and cause.
#[derive(Debug, Default)]
struct FailureCount {
    total: u64,
    /// Those since the last line.
    untold: u64,
    last_line: Option<Instant>,
}

impl AddressClass {
    pub(crate) const ALL: [AddressClass; 3] = [AddressClass::Loopback, AddressClass::Ipv4, AddressClass::Ipv6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            AddressClass::Loopback => "loopback",
            AddressClass::Ipv4 => "ipv4",
            AddressClass::Ipv6 => "ipv6",
        }
    }

    const fn of(peer: PeerGroup) -> AddressClass {
        match peer {
            // A user of this host is at a unix socket, which has no TLS.
            PeerGroup::Loopback | PeerGroup::User(_) => AddressClass::Loopback,
            PeerGroup::Network(IpAddr::V4(_)) => AddressClass::Ipv4,
            PeerGroup::Network(IpAddr::V6(_)) => AddressClass::Ipv6,
        }
    }
}

impl HandshakeFailure {
    pub(crate) const ALL: [HandshakeFailure; 4] = [
        HandshakeFailure::Closed,
        HandshakeFailure::Certificate,
        HandshakeFailure::Rejected,
        HandshakeFailure::Protocol,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            HandshakeFailure::Closed => "closed",
            HandshakeFailure::Certificate => "certificate",
            HandshakeFailure::Rejected => "rejected",
            HandshakeFailure::Protocol => "protocol",
        }
    }

    fn of(error: &io::Error) -> HandshakeFailure {
        use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(NoCertificatesPresented | InvalidCertificate(_)) => HandshakeFailure::Certificate,
            Some(AlertReceived(_)) => HandshakeFailure::Rejected,
            Some(_) => HandshakeFailure::Protocol,
            // The system's errors of a connection: its end, a reset.
            None => HandshakeFailure::Closed,
        }
    }
}

impl HandshakeFailures {
    /// Counts a failure, and logs it unless a line was logged a short time ago.
    pub(super) fn note(&self, listener: &str, peer: PeerGroup, error: &io::Error) {
        let (class, failure) = (AddressClass::of(peer), HandshakeFailure::of(error));
        let (peer_class, reason) = (class.name(), failure.name());
        let Some(handshakes) = self.count(class, failure, Instant::now()) else { return };
        match failure {
            HandshakeFailure::Closed => {
                debug!(listener, peer = peer_class, reason, handshakes, "TLS handshakes failed: {error}")
            }
            _ => warn!(
                listener,
                peer = peer_class,
                reason,
                handshakes,
                source = peer.address().map(tracing::field::display),
                "TLS handshakes failed, the last one of this source: {error}"
            ),
        }
    }

    /// Returns the number of failures since the last line, this one included, if a line is due.
    fn count(&self, class: AddressClass, failure: HandshakeFailure, now: Instant) -> Option<u64> {
        let count = &self.0[class as usize][failure as usize];
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        count.total += 1;
        count.untold += 1;
        if count.last_line.is_some_and(|last| now.saturating_duration_since(last) < LOG_EVERY) {
            return None;
        }
        count.last_line = Some(now);
        Some(std::mem::take(&mut count.untold))
    }

    /// Every class and cause with its number.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (AddressClass, HandshakeFailure, u64)> {
        let total = |class: AddressClass, failure: HandshakeFailure| {
            self.0[class as usize][failure as usize].lock().unwrap_or_else(PoisonError::into_inner).total
        };
        AddressClass::ALL.into_iter().flat_map(move |class| {
            HandshakeFailure::ALL.into_iter().map(move |failure| (class, failure, total(class, failure)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_minute_for_each_class_and_cause() {
        use AddressClass::{Ipv4, Ipv6};
        use HandshakeFailure::{Certificate, Protocol};
        let (failures, begin) = (HandshakeFailures::default(), Instant::now());
        assert_eq!(failures.count(Ipv4, Protocol, begin), Some(1));
        for _ in 0..2_000 {
            assert_eq!(failures.count(Ipv4, Protocol, begin + LOG_EVERY / 2), None);
        }
        assert_eq!(failures.count(Ipv6, Protocol, begin), Some(1), "of another class");
        assert_eq!(failures.count(Ipv4, Certificate, begin), Some(1), "of another cause");
        assert_eq!(failures.count(Ipv4, Protocol, begin + LOG_EVERY), Some(2_001));
        let counts: Vec<_> = failures.counts().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(counts, [(Ipv4, Certificate, 1), (Ipv4, Protocol, 2_002), (Ipv6, Protocol, 1)]);
        assert_eq!(failures.counts().count(), 12, "those without failures are among them");
    }

    #[test]
    fn the_end_of_a_connection_is_no_failure_of_tls() {
        let of = |error: io::Error| HandshakeFailure::of(&error);
        assert_eq!(of(io::ErrorKind::UnexpectedEof.into()), HandshakeFailure::Closed);
        assert_eq!(of(io::Error::other(rustls::Error::NoCertificatesPresented)), HandshakeFailure::Certificate);
        assert_eq!(of(io::Error::other(rustls::Error::DecryptError)), HandshakeFailure::Protocol);
    }
}
