//! The peers of connections, and the limits on connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use knockplane_limits::admission::Limits;
use knockplane_policy::door;
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Limit on connections for metrics and health. Each scraper and each probe needs one.
const METRICS: usize = 256;

/// Limit on connections of operators.
const OPERATORS: usize = 128;

/// Limit on connections of the API on TCP.
const API: usize = 128;

/// Limit on connections of the read-only socket.
const READERS: usize = 64;

/// Descriptors reserved for listeners, the event loop, the log and files.
const OTHER_DESCRIPTORS: u64 = 32;

/// The peers whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PeerGroup {
    /// This host: a local user may use any address of 127.0.0.0/8.
    Loopback,
    /// An IPv4 address, or the first address of an IPv6 /64: a host may use all addresses of its /64.
    Network(IpAddr),
    /// A user of this host.
    User(u32),
}

impl PeerGroup {
    /// The address of a peer over TCP; of loopback always the same.
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            PeerGroup::User(_) => None,
            PeerGroup::Loopback => Some(Ipv4Addr::LOCALHOST.into()),
            PeerGroup::Network(address) => Some(address),
        }
    }
}

/// The peer of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(super) peer: PeerGroup,
    /// Whether room is reserved for the peer.
    pub(super) privileged: bool,
}

impl Caller {
    fn from_network(address: IpAddr) -> Self {
        let address = address.to_canonical();
        match address.is_loopback() {
            true => Caller { peer: PeerGroup::Loopback, privileged: true },
            false => Caller { peer: PeerGroup::Network(door::visitor(address)), privileged: false },
        }
    }

    fn user(uid: u32) -> Self {
        Caller { peer: PeerGroup::User(uid), privileged: uid == 0 || uid == geteuid().as_raw() }
    }
}

/// A socket that peers connect to.
pub(crate) trait Listen {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and its peer.
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

/// The limits on connections of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) metrics: Limits,
    pub(crate) operators: Limits,
    pub(crate) api: Limits,
    pub(crate) readers: Limits,
}

impl Sizes {
    /// The limits for this number of descriptors: each connection needs one, and a connection of an operator or of the API needs a
    /// second one for its request to the dataplane. So a connection for metrics counts once, and the others twice.
    pub(crate) fn within(descriptors: u64) -> Self {
        let room = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
        let limits = |total: usize| {
            // At least four: one each for root, the process's own user and another user, and a spare one.
            let total = total.max(4);
            Limits { total, per_peer: (total / 4).max(2), reserved: total / 4 }
        };
        Sizes {
            metrics: limits(METRICS.min(room / 7 * 2)),
            operators: limits(OPERATORS.min(room / 7)),
            api: limits(API.min(room / 7)),
            readers: limits(READERS.min(room / 14)),
        }
    }

    /// Whether a higher limit on descriptors would allow more connections.
    pub(crate) fn are_reduced(&self) -> bool {
        self.metrics.total < METRICS
            || self.operators.total < OPERATORS
            || self.api.total < API
            || self.readers.total < READERS
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
    fn addresses_of_one_peer_count_together() {
        let peer = |address: &str| Caller::from_network(address.parse().unwrap());
        for address in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(peer(address), Caller { peer: PeerGroup::Loopback, privileged: true });
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
            let Sizes { metrics, operators, api, readers } = Sizes::within(descriptors);
            for limits in [metrics, operators, api, readers] {
                assert!(limits.per_peer + limits.reserved <= limits.total && limits.reserved > 0, "{limits:?}");
            }
            let with_requests = operators.total + api.total + readers.total;
            let taken = (metrics.total + 2 * with_requests) as u64 + OTHER_DESCRIPTORS;
            assert!(taken <= descriptors.max(64), "{descriptors}: {taken}");
        }
        assert!(Sizes::within(256).are_reduced() && !Sizes::within(1_024).are_reduced());
    }
}
