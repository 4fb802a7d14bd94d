//! The XDP features that a driver declares. Source: Linux `include/uapi/linux/netdev.h`, `Documentation/netlink/specs/netdev.yaml`.

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{ask, ask_for_family, attribute, attributes, long, open};

/// Queries the kernel for the XDP features of drivers (Linux 6.3 and newer).
#[derive(Debug)]
pub struct Features {
    socket: Socket,
    family: u16,
}

/// XDP features of one driver. A driver may change them, for example when queues are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    bits: u64,
    metadata: u64,
}

impl XdpFeatures {
    /// Bits of `enum netdev_xdp_act` and their names.
    const NAMES: [(u64, &'static str); 7] = [
        (Self::BASIC, "native"),
        (Self::REDIRECT, "redirect"),
        (Self::XMIT, "xmit"),
        (Self::ZERO_COPY, "zero-copy"),
        (1 << 4, "hw-offload"),
        (1 << 5, "rx-sg"),
        (1 << 6, "xmit-sg"),
    ];
    const BASIC: u64 = 1;
    const REDIRECT: u64 = 1 << 1;
    const XMIT: u64 = 1 << 2;
    const ZERO_COPY: u64 = 1 << 3;
    /// Bits of `enum netdev_xdp_rx_metadata` and their names.
    const METADATA: [(u64, &'static str); 3] = [(1, "timestamp"), (1 << 1, "hash"), (1 << 2, "vlan-tag")];

    /// Whether the driver runs XDP programs itself, and redirects frames to sockets.
    pub const fn is_native(self) -> bool {
        self.bits & (Self::BASIC | Self::REDIRECT) == Self::BASIC | Self::REDIRECT
    }

    /// Whether the driver runs XDP programs itself but cannot redirect frames: then no frame reaches a socket.
    pub const fn cannot_redirect(self) -> bool {
        self.bits & (Self::BASIC | Self::REDIRECT) == Self::BASIC
    }

    /// Whether the interface can send frames that an XDP program redirects to it.
    pub const fn can_send(self) -> bool {
        self.bits & Self::XMIT != 0
    }

    /// Whether the driver has zero-copy for AF_XDP sockets.
    pub const fn has_zero_copy(self) -> bool {
        self.bits & Self::ZERO_COPY != 0
    }

    /// The names of all its features.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(bit, _)| self.bits & bit != 0).map(|(_, name)| *name).collect()
    }

    /// The metadata of a frame that the NIC passes to the program.
    pub fn metadata(self) -> Vec<&'static str> {
        Self::METADATA.iter().filter(|(bit, _)| self.metadata & bit != 0).map(|(_, name)| *name).collect()
    }
}

impl Features {
    /// Opens a socket for the queries; `None` if the kernel does not support them (before Linux 6.3).
    pub fn open() -> Option<Self> {
        const FAMILY_ID: u16 = 1;
        let socket = open(NETLINK_GENERIC).ok()?;
        let mut family = None;
        ask_for_family(&socket, "netdev", |description| {
            let id = attributes(description).find(|(kind, _)| *kind == FAMILY_ID);
            family = id.and_then(|(_, value)| value.try_into().ok()).map(u16::from_ne_bytes);
        })
        .ok()?;
        Some(Features { socket, family: family? })
    }

    /// The features of the driver of the interface with this index; `None` if there is no such interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn of(&self, index: u32) -> io::Result<Option<XdpFeatures>> {
        const DEV_GET: u8 = 1;
        const IFINDEX: u16 = 1;
        const XDP_FEATURES: u16 = 3;
        const XDP_RX_METADATA: u16 = 5;
        let request = [&[DEV_GET, 1, 0, 0][..], &attribute(IFINDEX, &index.to_ne_bytes())].concat();
        let mut features = None;
        let asked = ask(&self.socket, (self.family, 0, 2), &request, |_, message| {
            let all = || attributes(message.get(4..).unwrap_or_default());
            let value = |wanted: u16| all().find(|(kind, _)| *kind == wanted).map_or(0, |(_, value)| long(value, 0));
            features = Some(XdpFeatures { bits: value(XDP_FEATURES), metadata: value(XDP_RX_METADATA) });
        });
        match asked {
            Ok(()) => Ok(features),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_native_xdp() {
        // A kernel before Linux 6.3 does not support the query.
        let Some(features) = Features::open() else { return };
        let lo = features.of(1).expect("the kernel answers").expect("every network namespace has a loopback");
        assert!(!lo.is_native() && !lo.has_zero_copy() && lo.names().is_empty(), "{lo:?}");
        assert_eq!(features.of(u32::MAX >> 1).expect("the kernel answers"), None);
    }

    #[test]
    fn a_driver_without_redirect_is_not_native() {
        let features = XdpFeatures { bits: 0b1001, metadata: 0b11 };
        assert!(features.cannot_redirect() && !features.is_native());
        assert_eq!((features.names(), features.metadata()), (vec!["native", "zero-copy"], vec!["timestamp", "hash"]));
    }
}
