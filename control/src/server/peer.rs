//! Who connects, and how many connections there may be.

use std::future::Future;
use std::io;
use std::net::IpAddr;

use knockplane_limits::admission::Limits;
use knockplane_policy::door;
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections for metrics and health at most. A few scrapers and probes need one each.
const METRICS: usize = 256;

/// Connections of operators at most.
const OPERATORS: usize = 128;

/// Descriptors for everything else: listeners, the event loop, the log, files.
const OTHER_DESCRIPTORS: u64 = 32;

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// This host, whichever address it uses: a local user may use any of 127.0.0.0/8.
    Loopback,
    /// An IPv4 address, or the first one of an IPv6 /64, of which a host has all.
    Network(IpAddr),
    /// A user of this host.
    User(u32),
}

/// A peer that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(super) peer: Peer,
    /// Room is kept for it.
    pub(super) privileged: bool,
}

impl Caller {
    fn from_network(address: IpAddr) -> Self {
        let address = address.to_canonical();
        match address.is_loopback() {
            true => Caller { peer: Peer::Loopback, privileged: true },
            false => Caller { peer: Peer::Network(door::visitor(address)), privileged: false },
        }
    }

    fn user(uid: u32) -> Self {
        Caller { peer: Peer::User(uid), privileged: uid == 0 || uid == geteuid().as_raw() }
    }
}

/// A socket that peers connect to.
pub(crate) trait Listen {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and who it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Caller)> {
        let (stream, address) = TcpListener::accept(self).await?;
        Ok((stream, Caller::from_network(address.ip())))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Caller)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, Caller::user(uid)))
    }
}

/// How many connections the listeners may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) metrics: Limits,
    pub(crate) operators: Limits,
}

impl Sizes {
    /// As many as so many descriptors have room for: one for each connection, and one more for the question to the
    /// dataplane that an operator's may lead to.
    pub(crate) fn within(descriptors: u64) -> Self {
        let room = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
        let limits = |total: usize| {
            // Four at least: one each for root, the process's own user and another one, and one to spare.
            let total = total.max(4);
            Limits { total, per_peer: (total / 4).max(2), reserved: total / 4 }
        };
        Sizes { metrics: limits(METRICS.min(room / 2)), operators: limits(OPERATORS.min(room / 4)) }
    }

    /// Whether there are fewer than there would be with more descriptors.
    pub(crate) fn are_reduced(&self) -> bool {
        self.metrics.total < METRICS || self.operators.total < OPERATORS
    }
}

/// Whether the system has no descriptor or memory left.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_peer_are_one() {
        let peer = |address: &str| Caller::from_network(address.parse().unwrap());
        for address in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(peer(address), Caller { peer: Peer::Loopback, privileged: true });
        }
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.2"), peer("192.0.2.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8::1"));
        assert!(Caller::user(0).privileged && Caller::user(geteuid().as_raw()).privileged);
        assert!(!Caller::user(4711).privileged);
    }

    #[test]
    fn connections_fit_the_descriptors() {
        for descriptors in [0, 40, 64, 100, 256, 1_024, u64::MAX] {
            let Sizes { metrics, operators } = Sizes::within(descriptors);
            for limits in [metrics, operators] {
                assert!(limits.per_peer + limits.reserved <= limits.total && limits.reserved > 0, "{limits:?}");
            }
            let taken = (metrics.total + 2 * operators.total) as u64 + OTHER_DESCRIPTORS;
            assert!(taken <= descriptors.max(48), "{descriptors}: {taken}");
        }
        assert!(Sizes::within(256).are_reduced() && !Sizes::within(1_024).are_reduced());
    }
}
