//! What the kernel says of an interface over rtnetlink, and that it changed: [`Reader`] asks, [`Changes`] listens.
//!
//! A notification only says that it is time to ask: what it holds is not read, so that one that was lost or that this
//! code does not know cannot mislead. Whoever listens asks now and then in any case. Sources: rtnetlink(7),
//! netlink(7), Linux `include/uapi/linux/if_link.h`, `Documentation/networking/ethtool-netlink.rst`.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use crate::error::Error;

/// Message types: `NLMSG_ERROR`, `NLMSG_DONE`, and rtnetlink's.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

/// Sizes of `struct ifinfomsg` and `struct ifaddrmsg`, which both have the interface's index at byte 4.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const INDEX: usize = 4;

/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// An interface as rtnetlink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name now.
    pub name: String,
    /// `IFF_` flags, netdevice(7).
    pub flags: u32,
    /// How many have asked for promiscuous mode. The flag for it is an operator's request alone.
    pub promiscuity: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge, bond or other device that it belongs to; 0 if it belongs to none.
    pub master: u32,
    /// Ids of the XDP programs that are attached to it, in whatever mode, each once.
    pub programs: Vec<u32>,
    /// Whether an XDP program runs in the driver; none if no program is attached, or several.
    pub is_native: Option<bool>,
    /// What it counted since it was made.
    pub counters: LinkCounters,
}

impl Link {
    /// Whether it was set up, with or without a carrier.
    pub const fn is_enabled(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Whether it receives frames for all addresses.
    pub const fn is_promiscuous(&self) -> bool {
        self.promiscuity > 0
    }
}

/// The driver's counters of an interface. Source: `struct rtnl_link_stats64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that arrived.
    pub rx_packets: u64,
    /// Frames that were sent, also by the host itself.
    pub tx_packets: u64,
    /// Frames that arrived damaged.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames that arrived and found no room, or no reader.
    pub rx_dropped: u64,
    /// Frames that were to be sent and found no room, or no receiver.
    pub tx_dropped: u64,
    /// Frames that the device itself had no room for.
    pub rx_missed: u64,
}

impl LinkCounters {
    fn parse(words: &[u8]) -> Self {
        let word = |number: usize| long(words, 8 * number);
        LinkCounters {
            rx_packets: word(0),
            tx_packets: word(1),
            rx_errors: word(4),
            tx_errors: word(5),
            rx_dropped: word(6),
            tx_dropped: word(7),
            rx_missed: word(14),
        }
    }
}

/// Asks the kernel about interfaces of this network namespace. Not for a thread that must not wait: the kernel answers
/// when whoever changes an interface is done, which may take seconds while a driver resets.
#[derive(Debug)]
pub struct Reader {
    socket: Socket,
    sequence: u32,
}

impl Reader {
    /// Opens a socket to ask with.
    ///
    /// # Errors
    /// If the kernel has no descriptors left.
    pub fn open() -> Result<Self, Error> {
        let socket = open(NETLINK_ROUTE).map_err(|error| Error::system("cannot open a netlink socket", error, ""))?;
        // Lets the kernel leave out other interfaces' addresses; an older one tells them all.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Reader { socket, sequence: 0 })
    }

    /// The interface with this index; none if there is none in this network namespace.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn link(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut request = [0; IFINFOMSG];
        request[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
        let mut link = None;
        let asked = self.ask(RTM_GETLINK, 0, &request, |kind, message| {
            if kind == RTM_NEWLINK && word(message, INDEX) == index {
                link = Some(parse_link(message));
            }
        });
        match asked {
            Ok(()) => Ok(link),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(Error::system(format!("cannot read interface {index}"), error, "")),
        }
    }

    /// The interface's addresses with their prefix lengths, as text and in order, without IPv6 addresses that are valid
    /// on the link alone: every interface with IPv6 has such.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<String>, Error> {
        let mut request = [0; IFADDRMSG];
        request[INDEX..].copy_from_slice(&index.to_ne_bytes());
        let mut addresses = Vec::new();
        let asked = self.ask(RTM_GETADDR, NLM_F_DUMP, &request, |kind, message| {
            if kind == RTM_NEWADDR && word(message, INDEX) == index {
                addresses.extend(parse_address(message));
            }
        });
        addresses.sort();
        match asked {
            Ok(()) => Ok(addresses),
            // What is gone has none.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            Err(error) => Err(Error::system(format!("cannot read the addresses of interface {index}"), error, "")),
        }
    }

    /// Sends a request and takes every message of its answer.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        take: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        ask(&self.socket, (kind, flags, self.sequence), payload, take)
    }
}

/// Listens for changes of interfaces: of links, addresses, forwarding, and what ethtool changes.
#[derive(Debug)]
pub struct Changes {
    sockets: Vec<Socket>,
    /// The interfaces of interest.
    indexes: [u32; 2],
}

impl Changes {
    /// Listens from now on for changes of these two interfaces.
    ///
    /// # Errors
    /// If the kernel refuses. That it knows no ethtool messages (before Linux 5.6) is no error: what they would say is
    /// found by asking.
    pub fn listen(indexes: [u32; 2]) -> Result<Self, Error> {
        /// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV6_IFADDR`, `_IPV4_NETCONF` and `_IPV6_NETCONF`.
        const GROUPS: [u32; 5] = [1, 5, 9, 24, 25];
        let failed = |error| Error::system("cannot listen for changes of interfaces", error, "");
        let route = open(NETLINK_ROUTE).map_err(failed)?;
        for group in GROUPS {
            route.add_membership(group).map_err(failed)?;
        }
        let ethtool = ethtool().inspect_err(|error| tracing::debug!(%error, "no notifications of ethtool")).ok();
        Ok(Changes { sockets: std::iter::once(route).chain(ethtool).collect(), indexes })
    }

    /// Waits until something may have changed, or the time, of which only whole milliseconds count, is over. Returns
    /// whether something may have.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut descriptors: Vec<_> = self
            .sockets
            .iter()
            .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let at_most = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the vector lives across the call, which is told its length. However it ends, the sockets are looked at.
        unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, at_most) };
        self.take()
    }

    /// Takes what is there, and says whether it may concern the two interfaces.
    pub fn take(&self) -> bool {
        /// Messages taken at most; what is left is there the next time.
        const MOST: usize = 4096;
        let mut concerns = false;
        for socket in &self.sockets {
            for _ in 0..MOST {
                match receive(socket) {
                    Ok(bytes) => concerns |= messages(&bytes).any(|(kind, message)| self.concerns(kind, message)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Too many came at once (ENOBUFS), and some are lost: anything may have changed.
                    Err(_) => concerns = true,
                }
            }
        }
        concerns
    }

    fn concerns(&self, kind: u16, message: &[u8]) -> bool {
        match kind {
            RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => self.indexes.contains(&word(message, INDEX)),
            _ => true,
        }
    }
}

pub(crate) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// A socket that hears what ethtool changes: generic netlink, whose groups have numbers of their own on each host.
fn ethtool() -> io::Result<Socket> {
    const GROUPS: u16 = 7;
    const GROUP_NAME: u16 = 1;
    const GROUP_ID: u16 = 2;
    let socket = open(NETLINK_GENERIC)?;
    let mut group = None;
    ask_for_family(&socket, "ethtool", |family| {
        let groups = attributes(family).find(|(kind, _)| *kind == GROUPS);
        for (_, entry) in attributes(groups.map_or(&[][..], |(_, groups)| groups)) {
            let value = |wanted: u16| attributes(entry).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
            if value(GROUP_NAME) == Some(&b"monitor\0"[..]) {
                group = value(GROUP_ID).map(|id| word(id, 0));
            }
        }
    })?;
    socket.add_membership(group.ok_or(io::ErrorKind::NotFound)?)?;
    Ok(socket)
}

/// Asks for the description of a family of generic netlink, and takes its attributes.
pub(crate) fn ask_for_family(socket: &Socket, name: &str, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    const CONTROL: u16 = 0x10;
    const GET_FAMILY: u8 = 3;
    const FAMILY_NAME: u16 = 2;
    let name = [name.as_bytes(), b"\0"].concat();
    let request = [&[GET_FAMILY, 1, 0, 0][..], &attribute(FAMILY_NAME, &name)].concat();
    ask(socket, (CONTROL, 0, 1), &request, |_, message| take(message.get(4..).unwrap_or_default()))
}

/// An attribute, padded to its alignment.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&(4 + value.len() as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a request of a kind, with flags and a sequence number, and takes every message of its answer. The kernel
/// answers within the call that asks: there is nothing to wait for.
pub(crate) fn ask(
    socket: &Socket,
    (kind, flags, sequence): (u16, u16, u32),
    payload: &[u8],
    mut take: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let mut request = vec![0; 16 + payload.len()];
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(16 + payload.len() as u32);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | flags);
    header.set_sequence_number(sequence);
    request[16..].copy_from_slice(payload);
    socket.send(&request, 0)?;
    loop {
        let bytes = receive(socket)?;
        let mut answered = false;
        for (kind, message) in messages_to(&bytes, sequence) {
            answered = true;
            match kind {
                DONE => return Ok(()),
                ERROR => match word(message, 0).cast_signed() {
                    0 => return Ok(()),
                    error => return Err(io::Error::from_raw_os_error(-error)),
                },
                _ => take(kind, message),
            }
        }
        // What is left of an answer that was given up is passed over.
        if answered && flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// The next datagram. The kernel makes none that is longer than this for what is asked here.
fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    const LONGEST: usize = 1 << 17;
    let mut bytes = Vec::with_capacity(LONGEST);
    let length = socket.recv(&mut bytes, libc::MSG_TRUNC)?;
    if length > bytes.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a netlink message of {length} bytes")));
    }
    Ok(bytes)
}

/// The messages of a datagram: kind and payload.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    numbered(bytes).map(|(_, kind, message)| (kind, message))
}

/// Of these the ones that answer the request with this sequence number.
fn messages_to(bytes: &[u8], sequence: u32) -> impl Iterator<Item = (u16, &[u8])> {
    numbered(bytes).filter(move |(number, ..)| *number == sequence).map(|(_, kind, message)| (kind, message))
}

/// Sequence number, kind and payload. Ends where the messages make no sense any more.
fn numbered(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u16, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let found = (message.sequence_number(), message.message_type(), message.payload());
        let next = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
        Some(found)
    })
}

/// The attributes in these bytes: kind and value. Ends where they make no sense any more.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, &attribute.into_inner()[4..length])
    })
}

fn parse_link(message: &[u8]) -> Link {
    const IFNAME: u16 = 3;
    const MTU: u16 = 4;
    const MASTER: u16 = 10;
    const STATS64: u16 = 23;
    const PROMISCUITY: u16 = 30;
    const XDP: u16 = 43;
    /// `IFLA_XDP_PROG_ID`, and the same for each mode if there are several.
    const PROGRAM_IDS: std::ops::RangeInclusive<u16> = 4..=7;
    /// `IFLA_XDP_ATTACHED`, and its values `XDP_ATTACHED_DRV` and `_SKB`.
    const ATTACHED: u16 = 2;
    const DRIVER: u8 = 1;
    const GENERIC: u8 = 2;
    let mut link = Link { flags: word(message, 8), ..Link::default() };
    for (kind, value) in attributes(message.get(IFINFOMSG..).unwrap_or_default()) {
        match kind {
            IFNAME => link.name = String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned(),
            MTU => link.mtu = word(value, 0),
            MASTER => link.master = word(value, 0),
            PROMISCUITY => link.promiscuity = word(value, 0),
            STATS64 => link.counters = LinkCounters::parse(value),
            XDP => {
                let attached = attributes(value).find(|(kind, _)| *kind == ATTACHED);
                link.is_native = match attached.and_then(|(_, value)| value.first()) {
                    Some(&DRIVER) => Some(true),
                    Some(&GENERIC) => Some(false),
                    _ => None,
                };
                link.programs = attributes(value)
                    .filter(|(kind, _)| PROGRAM_IDS.contains(kind))
                    .map(|(_, id)| word(id, 0))
                    .collect();
            }
            _ => {}
        }
    }
    link.programs.sort_unstable();
    link.programs.dedup();
    link
}

fn parse_address(message: &[u8]) -> Option<String> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let (prefix, scope) = (message.get(1)?, message.get(3)?);
    let all = || attributes(message.get(IFADDRMSG..).unwrap_or_default());
    let value = |wanted: u16| all().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // With a peer, the address of a point-to-point link is the peer's.
    let bytes = value(LOCAL).or_else(|| value(ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    (address.is_ipv4() || *scope != SCOPE_LINK).then(|| format!("{address}/{prefix}"))
}

/// The 32 bits there; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes).unwrap_or_default()
}

/// The 64 bits there; 0 beyond the end.
pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_read() {
        let mut reader = Reader::open().expect("a socket");
        let lo = reader.link(1).expect("the kernel answers").expect("every network namespace has a loopback");
        assert_eq!((lo.name.as_str(), &lo.programs[..]), ("lo", &[][..]));
        assert!(lo.mtu >= 1280 && !lo.is_promiscuous(), "{lo:?}");
        let addresses = reader.addresses(1).expect("the kernel answers");
        assert!(!lo.is_enabled() || addresses.contains(&"127.0.0.1/8".to_owned()), "{addresses:?}");
        assert_eq!(reader.link(u32::MAX >> 1).expect("the kernel answers"), None);
        assert_eq!(reader.addresses(u32::MAX >> 1).expect("the kernel answers"), [""; 0]);
    }

    #[test]
    fn the_rest_of_an_answer_that_was_given_up_is_no_answer() {
        let mut reader = Reader::open().expect("a socket");
        let mut request = vec![0; 16 + IFADDRMSG];
        let mut header = NetlinkBuffer::new(&mut request);
        header.set_length((16 + IFADDRMSG) as u32);
        header.set_message_type(RTM_GETADDR);
        header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
        header.set_sequence_number(4711);
        reader.socket.send(&request, 0).expect("the kernel takes it");
        let lo = reader.link(1).expect("the kernel answers");
        assert!(lo.is_some_and(|lo| lo.name == "lo"));
    }

    #[test]
    fn the_kernel_can_be_listened_to() {
        let changes = Changes::listen([1, 2]).expect("a socket");
        assert_eq!(changes.sockets.len(), 2, "ethtool is heard too");
        changes.take();
    }

    #[test]
    fn answers_of_any_bytes_are_read_to_their_end() {
        // Lengths that are too short, too long, or cut an attribute: nothing is read beyond the end.
        for length in 0..64_u8 {
            let bytes: Vec<u8> = (0..64).map(|at| if at % 8 == 0 { length } else { at }).collect();
            for end in 0..bytes.len() {
                let bytes = &bytes[..end];
                parse_link(bytes);
                parse_address(bytes);
                assert!(messages(bytes).count() <= bytes.len() && attributes(bytes).count() <= bytes.len());
            }
        }
    }
}
