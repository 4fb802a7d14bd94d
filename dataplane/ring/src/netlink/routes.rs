//! The interfaces of this host's default routes. Sources: rtnetlink(7), Linux
//! `include/uapi/linux/rtnetlink.h`.

use super::{LinkReader, attribute, attributes, word};
use crate::error::RingError;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Requests the route itself, not only the next hop of a packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// Size of `struct rtmsg`.
const RTMSG: usize = 12;

/// Destinations that no network uses (RFC 1112, class E; outside 2000::/3): only a default route has them.
const UNUSED: [(libc::c_int, &[u8]); 2] =
    [(libc::AF_INET, &[240, 0, 0, 1]), (libc::AF_INET6, &[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])];

impl LinkReader {
    /// The indexes of the interfaces of this network namespace's default routes, IPv4 and IPv6. The query is for one
    /// destination, not for all routes: a router has a million.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn default_routes(&mut self) -> Result<Vec<u32>, RingError> {
        const DST: u16 = 1;
        let mut indexes = Vec::new();
        for (family, destination) in UNUSED {
            let mut request = vec![0; RTMSG];
            (request[0], request[1]) = (family as u8, 8 * destination.len() as u8);
            request[8..RTMSG].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
            request.extend(attribute(DST, destination));
            let asked = self.ask(RTM_GETROUTE, 0, &request, |kind, message| {
                if kind == RTM_NEWROUTE && message.get(1) == Some(&0) {
                    indexes.extend(interfaces(message.get(RTMSG..).unwrap_or_default()));
                }
            });
            match asked {
                // If there is no route, or a family is turned off, the kernel refuses the query.
                Ok(()) => {}
                Err(error) if error.raw_os_error().is_some_and(is_no_route) => {}
                Err(error) => return Err(RingError::system("cannot read the default route", error, "")),
            }
        }
        indexes.sort_unstable();
        indexes.dedup();
        Ok(indexes)
    }
}

fn is_no_route(errno: i32) -> bool {
    [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EINVAL,
        libc::EACCES,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::ESRCH,
    ]
    .contains(&errno)
}

/// The interfaces of a route: several if it has several next hops.
fn interfaces(route: &[u8]) -> Vec<u32> {
    const OIF: u16 = 4;
    const MULTIPATH: u16 = 9;
    /// `struct rtnexthop`: length, flags, hops, index, then attributes.
    const NEXT_HOP: usize = 8;
    let mut indexes = Vec::new();
    for (kind, value) in attributes(route) {
        match kind {
            OIF => indexes.push(word(value, 0)),
            MULTIPATH => {
                let mut rest = value;
                while rest.len() >= NEXT_HOP {
                    indexes.push(word(rest, 4));
                    let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]])).max(NEXT_HOP);
                    rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    indexes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_read_as_the_kernel_lists_it() {
        let mut reader = LinkReader::open().expect("a socket");
        let indexes = reader.default_routes().expect("the kernel answers");
        // Source: proc_net(5), /proc/net/route: destination and mask are columns 2 and 8.
        let table = std::fs::read_to_string("/proc/net/route").expect("routes");
        let is_default = |line: &&str| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000")
        };
        assert!(table.lines().filter(is_default).count() == 0 || !indexes.is_empty(), "{table}");
    }

    #[test]
    fn every_next_hop_counts_and_any_bytes_are_read_to_their_end() {
        let hop = |index: u32| [&8_u16.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes()].concat();
        let route = attribute(9, &[hop(3), hop(5)].concat());
        assert_eq!(interfaces(&route), [3, 5]);
        assert_eq!(interfaces(&attribute(4, &7_u32.to_ne_bytes())), [7]);
        for length in 0..64_u8 {
            interfaces(&attribute(9, &[length; 37]));
        }
    }
}
