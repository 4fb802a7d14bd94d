//! A network interface: looked up once, checked, and prepared for being one side of a wire.
//!
//! Everything here is ioctl and setsockopt on a throwaway socket; nothing of it is on the packet's way. Sources:
//! netdevice(7), packet(7), Linux `include/uapi/linux/ethtool.h`.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// A receive offload that changes frames before XDP sees them, and so must be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Generic receive offload: frames are joined.
    Gro,
    /// Large receive offload: frames are joined in hardware.
    Lro,
    /// VLAN tags are taken out of the frame, and would be lost.
    RxVlan,
}

impl Offload {
    /// All three.
    pub const ALL: [Offload; 3] = [Offload::Gro, Offload::Lro, Offload::RxVlan];

    /// The name `ethtool -K` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Offload::Gro => "gro",
            Offload::Lro => "lro",
            Offload::RxVlan => "rxvlan",
        }
    }
}

/// Whether an offload is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadState {
    /// It is off.
    Off,
    /// It is on, as was asked for.
    On,
    /// It is on though it was not asked for: the driver cannot do without it, or not now.
    Forced,
}

/// Receive and transmit queues that are active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Those that frames arrive on.
    pub rx: u32,
    /// Those that frames leave by.
    pub tx: u32,
    /// Whether the driver counts them as pairs, for `ethtool -L NAME combined N`.
    pub combined: bool,
}

impl Queues {
    /// The command that sets this many receive and transmit queues.
    pub fn command(&self, name: &str, queues: u32) -> String {
        if self.combined {
            format!("ethtool -L {name} combined {queues}")
        } else {
            format!("ethtool -L {name} rx {queues} tx {queues}")
        }
    }
}

/// An interface, held in promiscuous mode as long as this value lives if [`Device::promiscuous`] was called.
/// It is known by its index: it stays the same when it is renamed.
#[derive(Debug)]
pub struct Device {
    name: String,
    index: u32,
    /// Empty if the interface has none that says its name.
    driver: String,
    control: OwnedFd,
    /// A packet socket that receives nothing, opened ahead for promiscuous mode.
    spare: Mutex<Option<OwnedFd>>,
    /// Holds the request for promiscuous mode.
    promiscuous: Mutex<Option<OwnedFd>>,
    /// Where GRO is among the features that the kernel knows.
    gro: Option<usize>,
}

impl Device {
    /// Looks the interface up.
    ///
    /// # Errors
    /// If there is none of this name in this network namespace.
    pub fn open(name: &str) -> Result<Self, Error> {
        let there_is = |source| {
            Error::system(
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
        let (spare, promiscuous) = (Mutex::new(None), Mutex::new(None));
        let (name, driver) = (name.to_owned(), String::new());
        let mut device = Device { name, index, driver, control, spare, promiscuous, gro: None };
        device.driver = device.driver_name();
        // Without it, GRO that is on counts as asked for.
        device.gro = device.feature("rx-gro").ok().flatten();
        Ok(device)
    }

    /// The name that the interface was looked up by.
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
    /// If the interface is gone.
    pub fn mtu(&self) -> Result<u32, Error> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFMTU, &mut request).map_err(|e| Error::system(self.about("MTU"), e, ""))?;
        // SAFETY: SIOCGIFMTU fills this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Whether the interface is up and has a carrier.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn is_up(&self) -> Result<bool, Error> {
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(self.flags()? & up == up)
    }

    /// Whether its frames begin with an Ethernet header. Those of a tunnel or a loopback do not.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn is_ethernet(&self) -> Result<bool, Error> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFHWADDR, &mut request).map_err(|e| Error::system(self.about("type"), e, ""))?;
        // SAFETY: SIOCGIFHWADDR fills this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family } == libc::ARPHRD_ETHER)
    }

    /// A driver that does not say its name is treated as an unknown one.
    fn driver_name(&self) -> String {
        const ETHTOOL_GDRVINFO: u32 = 0x3;
        // struct ethtool_drvinfo: cmd, driver[32], version[32], fw_version[32], bus_info[32], erom_version[32],
        // reserved2[12], and five numbers.
        let mut information = [0_u32; 49];
        information[0] = ETHTOOL_GDRVINFO;
        if self.ethtool(&mut information).is_err() {
            return String::new();
        }
        let name = information[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0);
        String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned()
    }

    /// `IFF_` flags, netdevice(7).
    fn flags(&self) -> Result<i32, Error> {
        let mut request = empty_request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request).map_err(|e| Error::system(self.about("flags"), e, ""))?;
        // SAFETY: SIOCGIFFLAGS fills this member of the union.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// How many queues are active.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn queues(&self) -> Result<Queues, Error> {
        const ETHTOOL_GCHANNELS: u32 = 0x3c;
        // struct ethtool_channels: cmd, max_{rx,tx,other,combined}, {rx,tx,other,combined}_count.
        let mut channels = [0_u32; 9];
        channels[0] = ETHTOOL_GCHANNELS;
        match self.ethtool(&mut channels) {
            // A driver without channels has one queue.
            Ok(()) => Ok(Queues {
                rx: (channels[5] + channels[8]).max(1),
                tx: (channels[6] + channels[8]).max(1),
                combined: channels[4] > 0,
            }),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(Queues { rx: 1, tx: 1, combined: false })
            }
            Err(error) => Err(Error::system(self.about("queues"), error, "")),
        }
    }

    /// Whether the offload is on. A driver that does not know it has it off.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn offload(&self, offload: Offload) -> Result<OffloadState, Error> {
        let failed = |error| Error::system(self.about(offload.name()), error, "");
        let (read, _, bit) = legacy_ethtool(offload);
        match self.ethtool_value(read, 0) {
            Ok(value) if value & bit == 0 => Ok(OffloadState::Off),
            Ok(_) if offload == Offload::Gro && !self.gro_is_requested().map_err(failed)? => Ok(OffloadState::Forced),
            Ok(_) => Ok(OffloadState::On),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(OffloadState::Off),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether the driver can do without the offload. In doubt it can.
    pub fn can_turn_off(&self, offload: Offload) -> bool {
        let name = match offload {
            Offload::Gro => "rx-gro",
            Offload::Lro => "rx-lro",
            Offload::RxVlan => "rx-vlan-hw-parse",
        };
        let Ok(Some(place)) = self.feature(name) else { return true };
        self.feature_bits(place).map_or(true, |[can_be_changed, _]| can_be_changed)
    }

    /// Turns the offload off, and says what it is then.
    ///
    /// # Errors
    /// If the driver refuses, with the command that would do the same.
    pub fn turn_off(&self, offload: Offload) -> Result<OffloadState, Error> {
        let (read, write, bit) = legacy_ethtool(offload);
        let refused = |error| {
            Error::system(
                format!("cannot turn {} off on {}", offload.name(), self.name),
                error,
                format!("run: ethtool -K {} {} off", self.name, offload.name()),
            )
        };
        let value = self.ethtool_value(read, 0).map_err(refused)?;
        self.ethtool_value(write, value & !bit).map_err(refused)?;
        match self.offload(offload)? {
            OffloadState::On => Err(refused(io::Error::from_raw_os_error(libc::EOPNOTSUPP))),
            state => Ok(state),
        }
    }

    /// Makes the socket that [`Device::promiscuous`] needs, and changes nothing yet. The kernel closes the descriptors of a
    /// killed process from the last one that was opened to the first, and waits for a grace period of RCU at each packet
    /// socket: opened before what a restart waits for, these two do not delay it.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open_packet_socket(&self) -> Result<(), Error> {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.packet_socket()?);
        Ok(())
    }

    fn packet_socket(&self) -> Result<OwnedFd, Error> {
        // Protocol 0: the socket itself receives nothing.
        socket(libc::AF_PACKET, libc::SOCK_RAW).map_err(|error| self.not_promiscuous(error))
    }

    fn not_promiscuous(&self, error: io::Error) -> Error {
        Error::system(format!("promiscuous mode on {}", self.name), error, "run as root or with CAP_NET_RAW")
    }

    /// Lets the interface receive frames for all addresses, as a wire must. The kernel counts such requests: others'
    /// are not disturbed, and this one ends with the value or the process.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or if the interface is gone.
    pub fn promiscuous(&self) -> Result<(), Error> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let packet = spare.map_or_else(|| self.packet_socket(), Ok)?;
        let membership = libc::packet_mreq {
            mr_ifindex: self.index as i32,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option takes a packet_mreq of this size, which lives across the call.
        let result = unsafe {
            libc::setsockopt(
                packet.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                mem::size_of_val(&membership) as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(self.not_promiscuous(io::Error::last_os_error()));
        }
        // An earlier request ends after this one has begun.
        *self.promiscuous.lock().unwrap_or_else(PoisonError::into_inner) = Some(packet);
        Ok(())
    }

    pub(crate) fn about(&self, what: &str) -> String {
        format!("cannot read the {what} of {}", self.name)
    }

    /// Runs an ioctl about this interface, which is known by its index and may have another name now.
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

    /// Where the kernel has a feature among those it knows, if it knows it.
    fn feature(&self, name: &str) -> io::Result<Option<usize>> {
        const ETHTOOL_GSSET_INFO: u32 = 0x37;
        const ETHTOOL_GSTRINGS: u32 = 0x1b;
        const ETH_SS_FEATURES: u32 = 4;
        const NAME: usize = 32;
        // struct ethtool_sset_info: cmd, reserved, 64 bits of mask, the number of strings in each set of the mask.
        let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
        let half = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        let mut info = [ETHTOOL_GSSET_INFO, 0, half(&mask[..4]), half(&mask[4..]), 0];
        self.ethtool(&mut info)?;
        // struct ethtool_gstrings: cmd, string_set, len, then as many names as were announced.
        let mut strings = vec![0_u32; 3 + info[4] as usize * NAME / 4];
        strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
        self.ethtool(&mut strings)?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let is_wanted = |found: &[u8]| found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
        Ok(bytes.chunks(NAME).position(is_wanted))
    }

    /// Whether GRO was asked for, whatever the driver made of it. In doubt it was.
    fn gro_is_requested(&self) -> io::Result<bool> {
        let Some(gro) = self.gro else { return Ok(true) };
        Ok(self.feature_bits(gro)?[1])
    }

    /// Whether the feature at this place can be changed, and whether it was asked for.
    fn feature_bits(&self, place: usize) -> io::Result<[bool; 2]> {
        const ETHTOOL_GFEATURES: u32 = 0x3a;
        // struct ethtool_gfeatures: cmd, size, then for 32 features each: available, requested, active, never_changed.
        let blocks = place / 32 + 1;
        let mut features = vec![0_u32; 2 + 4 * blocks];
        features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
        self.ethtool(&mut features)?;
        let block = &features[2 + 4 * (place / 32)..];
        Ok([block[0], block[1]].map(|bits| bits & (1 << (place % 32)) != 0))
    }

    /// Commands on a `struct ethtool_value`: command, data.
    fn ethtool_value(&self, command: u32, data: u32) -> io::Result<u32> {
        let mut value = [command, data];
        self.ethtool(&mut value)?;
        Ok(value[1])
    }

    /// Runs an ethtool command on its structure, whose size is a multiple of 32 bits; the first one is the command.
    pub(crate) fn ethtool(&self, structure: &mut [u32]) -> io::Result<()> {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        let mut request = empty_request();
        request.ifr_ifru.ifru_data = structure.as_mut_ptr().cast();
        self.ioctl(SIOCETHTOOL, &mut request)
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all zeros is a valid value.
    unsafe { mem::zeroed() }
}

/// The index of the interface of this name, which has no NUL in it; 0 if there is none.
fn index_of(name: &str) -> u32 {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: the pointer is to a NUL-terminated string that lives across the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Commands to read and write the flag word that an offload is a bit of, and the bit.
const fn legacy_ethtool(offload: Offload) -> (u32, u32, u32) {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETHTOOL_SFLAGS: u32 = 0x26;
    const ETHTOOL_GGRO: u32 = 0x2b;
    const ETHTOOL_SGRO: u32 = 0x2c;
    const ETH_FLAG_RXVLAN: u32 = 1 << 8;
    const ETH_FLAG_LRO: u32 = 1 << 15;
    match offload {
        Offload::Gro => (ETHTOOL_GGRO, ETHTOOL_SGRO, 1),
        Offload::Lro => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_LRO),
        Offload::RxVlan => (ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_RXVLAN),
    }
}

fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before use.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, valid, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_read() {
        let device = Device::open("lo").expect("every network namespace has a loopback");
        assert!(device.mtu().expect("loopback has an MTU") >= 1280);
        assert_eq!(device.queues().expect("loopback has queues"), Queues { rx: 1, tx: 1, combined: false });
        assert!(!device.is_ethernet().expect("loopback has a type"));
        assert_eq!(device.offload(Offload::Lro).expect("flags can be read"), OffloadState::Off);
        // The stack turns GRO on for every interface, as if it was asked for.
        assert_eq!(device.offload(Offload::Gro).expect("features can be read"), OffloadState::On);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for name in ["no-such-if", "", "a-name-that-is-far-too-long"] {
            let error = Device::open(name).expect_err("there is no such interface").to_string();
            assert!(error.contains(&format!("interface {name}")), "{error}");
            assert!(error.contains("ip link"), "{error}");
        }
    }
}
