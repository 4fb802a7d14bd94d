//! Interfaces and their addresses, by rtnetlink.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{INDEX, ask, attributes, long, open, word};
use crate::error::Error;

/// Message types of rtnetlink.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// Sizes of `struct ifinfomsg` and `struct ifaddrmsg`.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// An interface as rtnetlink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The present name.
    pub name: String,
    /// `IFF_` flags, netdevice(7).
    pub flags: u32,
    /// Number of requests for promiscuous mode. The flag shows only an operator's request.
    pub promiscuity: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge, bond or other device that it belongs to; 0 if it belongs to none.
    pub master: u32,
    /// Ids of the XDP programs that are attached to the interface, in any mode, each once.
    pub programs: Vec<u32>,
    /// Whether an XDP program runs in the driver; `None` if no program is attached, or several.
    pub is_native: Option<bool>,
    /// The interface's counters since its creation.
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
    /// Frames that arrived and were dropped, because there was no room or no reader.
    pub rx_dropped: u64,
    /// Frames to be sent that were dropped, because there was no room or no receiver.
    pub tx_dropped: u64,
    /// Frames for which the device itself had no room.
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

/// Queries the kernel about interfaces of this network namespace. A thread that must not wait must not use it: the
/// kernel does not answer during a change of an interface, and a driver's reset may take seconds.
#[derive(Debug)]
pub struct Reader {
    socket: Socket,
    sequence: u32,
}

impl Reader {
    /// Opens a socket for the queries.
    ///
    /// # Errors
    /// If the kernel has no descriptors left.
    pub fn open() -> Result<Self, Error> {
        let socket = open(NETLINK_ROUTE).map_err(|error| Error::system("cannot open a netlink socket", error, ""))?;
        // The kernel then omits the addresses of other interfaces. An older kernel sends all of them.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Reader { socket, sequence: 0 })
    }

    /// The interface with this index; `None` if there is none in this network namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
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

    /// The interface's addresses with their prefix lengths, as text and in order, without link-local IPv6 addresses:
    /// every interface with IPv6 has one.
    ///
    /// # Errors
    /// If the kernel refuses.
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
            // An interface that does not exist has no addresses.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            Err(error) => Err(Error::system(format!("cannot read the addresses of interface {index}"), error, "")),
        }
    }

    /// Sends a request and takes every message of its answer.
    pub(super) fn ask(
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

pub(super) fn parse_link(message: &[u8]) -> Link {
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

pub(super) fn parse_address(message: &[u8]) -> Option<String> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let (prefix, scope) = (message.get(1)?, message.get(3)?);
    let all = || attributes(message.get(IFADDRMSG..).unwrap_or_default());
    let value = |wanted: u16| all().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // For a point-to-point link, `ADDRESS` is the address of the peer.
    let bytes = value(LOCAL).or_else(|| value(ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    (address.is_ipv4() || *scope != SCOPE_LINK).then(|| format!("{address}/{prefix}"))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer};

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
}
