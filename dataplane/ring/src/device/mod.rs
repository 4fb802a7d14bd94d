//! A network interface as one side of a wire: [`Device`] finds it, reads it and prepares it.
//!
//! This file finds an interface by name, and reads the facts of netdevice(7): MTU, flags, type. `ethtool`: queues and
//! receive offloads. `promiscuous`: promiscuous mode, which lasts as long as the value. `rss`: the distribution of
//! frames over receive queues.
//!
//! All operations are ioctl and setsockopt on a separate socket, before frames are forwarded or in parallel.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Mutex;

use crate::error::RingError;

mod ethtool;
mod promiscuous;
mod rss;

pub use ethtool::{NicOffload, OffloadState, Queues};
pub use rss::{HashFields, Rss};

/// An interface. After [`Device::promiscuous`] it stays in promiscuous mode until this value is dropped. The value
/// identifies the interface by its index, which a rename does not change.
#[derive(Debug)]
pub struct Device {
    name: String,
    index: u32,
    /// The driver's name; empty if no driver reports one.
    driver: String,
    control: OwnedFd,
    /// Holds the request for promiscuous mode.
    promiscuous: Mutex<Option<OwnedFd>>,
    /// The place of GRO among the features of the kernel.
    gro: Option<usize>,
}

impl Device {
    /// Finds the interface by its name.
    ///
    /// # Errors
    /// If no interface has this name in this network namespace.
    pub fn open(name: &str) -> Result<Self, RingError> {
        let there_is = |source| {
            RingError::system(
                format!("interface {name}"),
                source,
                "there must be an interface of this name in this network namespace (ip link)",
            )
        };
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(there_is(io::Error::from_raw_os_error(libc::ENODEV)));
        }
        let index = index_of(name);
        if index == 0 {
            return Err(there_is(io::Error::last_os_error()));
        }
        let control = socket(libc::AF_INET, libc::SOCK_DGRAM).map_err(there_is)?;
        let (name, driver) = (name.to_owned(), String::new());
        let mut device = Device { name, index, driver, control, promiscuous: Mutex::new(None), gro: None };
        device.driver = device.driver_name();
        // If the place is not known, GRO that is on counts as requested.
        device.gro = device.feature("rx-gro").ok().flatten();
        Ok(device)
    }

    /// The interface's name when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The name of its driver, as `ethtool -i` shows it; empty if it has none.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// MTU in bytes.
    ///
    /// # Errors
    /// If the interface has been removed.
    pub fn mtu(&self) -> Result<u32, RingError> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFMTU, &mut request).map_err(|e| RingError::system(self.about("MTU"), e, ""))?;
        // SAFETY: SIOCGIFMTU fills this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Whether the interface is up and has a carrier.
    ///
    /// # Errors
    /// If the interface has been removed.
    pub fn is_up(&self) -> Result<bool, RingError> {
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(self.flags()? & up == up)
    }

    /// Whether the interface's type is Ethernet. A tunnel or the loopback has another type.
    ///
    /// # Errors
    /// If the interface has been removed.
    pub fn is_ethernet(&self) -> Result<bool, RingError> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFHWADDR, &mut request).map_err(|e| RingError::system(self.about("type"), e, ""))?;
        // SAFETY: SIOCGIFHWADDR fills this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family } == libc::ARPHRD_ETHER)
    }

    /// `IFF_` flags, netdevice(7).
    fn flags(&self) -> Result<i32, RingError> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request).map_err(|e| RingError::system(self.about("flags"), e, ""))?;
        // SAFETY: SIOCGIFFLAGS fills this member of the union.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    fn about(&self, what: &str) -> String {
        format!("cannot read the {what} of {}", self.name)
    }

    /// Runs an ioctl about this interface. The index identifies the interface, whose name may have changed.
    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        let mut named = empty_request();
        named.ifr_ifru.ifru_ifindex = self.index as i32;
        self.raw_ioctl(libc::SIOCGIFNAME, &mut named)?;
        request.ifr_name = named.ifr_name;
        self.raw_ioctl(number, request)
    }

    fn raw_ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all numbers used here read and write an ifreq, which lives across the call.
        match unsafe { libc::ioctl(self.control.as_raw_fd(), number, request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all zeros is a valid value.
    unsafe { mem::zeroed() }
}

/// The index of the interface with this name; 0 if there is none.
fn index_of(name: &str) -> u32 {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the pointer is to a NUL-terminated string that lives across the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and valid, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_read() {
        let device = Device::open("lo").expect("every network namespace has a loopback");
        assert!(device.mtu().expect("loopback has an MTU") >= 1280);
        assert!(!device.is_ethernet().expect("loopback has a type"));
        assert_eq!(device.queues().expect("loopback has queues"), Queues { rx: 1, tx: 1, combined: false });
        assert_eq!(device.offload(NicOffload::Lro).expect("flags can be read"), OffloadState::Off);
        // The network stack turns on GRO for every interface, and reports it as requested.
        assert_eq!(device.offload(NicOffload::Gro).expect("features can be read"), OffloadState::On);
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        for name in ["no-such-if", "", "a-name-that-is-far-too-long"] {
            let error = Device::open(name).expect_err("there is no such interface").to_string();
            assert!(error.contains(&format!("interface {name}")), "{error}");
            assert!(error.contains("ip link"), "{error}");
        }
    }
}
