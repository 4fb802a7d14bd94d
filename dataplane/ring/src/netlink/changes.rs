//! Notifications of changes: of links, addresses and forwarding, and of settings that ethtool changes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};

use super::{INDEX, ask_for_family, attributes, messages, open, receive, word};
use crate::error::Error;

/// Message types of rtnetlink.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

/// Notifications about two interfaces: links, addresses, forwarding, and settings that ethtool changes.
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
    /// If the kernel refuses. A kernel without ethtool notifications (before Linux 5.6) is no error: queries find those
    /// changes.
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

    /// Waits until a state may have changed, or until `at_most` has passed, rounded down to milliseconds. Returns
    /// whether a state may have changed.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut descriptors: Vec<_> = self
            .sockets
            .iter()
            .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let at_most = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the vector lives across the call, which gets its length. After any result, the sockets are checked.
        unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, at_most) };
        self.take()
    }

    /// Reads the notifications that have arrived, and returns whether one may concern the two interfaces.
    pub fn take(&self) -> bool {
        /// The maximum number of messages that one call reads. The rest stays for the next call.
        const MOST: usize = 4096;
        let mut concerns = false;
        for socket in &self.sockets {
            for _ in 0..MOST {
                match receive(socket) {
                    Ok(bytes) => concerns |= messages(&bytes).any(|(kind, message)| self.concerns(kind, message)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Too many notifications arrived at once (ENOBUFS), and some are lost: any state may have changed.
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

/// A socket for ethtool's notifications: generic netlink, whose groups have other numbers on each host.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_can_be_listened_to() {
        let changes = Changes::listen([1, 2]).expect("a socket");
        assert_eq!(changes.sockets.len(), 2, "ethtool is heard too");
        changes.take();
    }
}
