//! Queues, receive offloads and the driver's name, by ethtool. Source: Linux `include/uapi/linux/ethtool.h`.

use std::io;

use super::{Device, empty_request};
use crate::error::Error;

/// A receive offload that changes frames before the XDP program receives them, and so must be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Generic receive offload: frames are joined.
    Gro,
    /// Large receive offload: frames are joined in hardware.
    Lro,
    /// The interface removes VLAN tags from the frame, which would lose them.
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
    /// The offload is off.
    Off,
    /// The offload is on, as requested.
    On,
    /// The offload is on although it was not requested: the driver requires it, always or at present.
    Forced,
}

/// Receive and transmit queues that are active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Number of receive queues.
    pub rx: u32,
    /// Number of transmit queues.
    pub tx: u32,
    /// Whether the driver counts the queues as pairs, for `ethtool -L NAME combined N`.
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

impl Device {
    /// The name of the driver; empty if the driver does not report one. An empty name counts as an unknown driver.
    pub(super) fn driver_name(&self) -> String {
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

    /// The number of active queues.
    ///
    /// # Errors
    /// If the interface has been removed.
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

    /// Whether the offload is on. An offload that the driver does not have is off.
    ///
    /// # Errors
    /// If the interface has been removed.
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

    /// Whether the driver works without the offload. True if the kernel does not report it.
    pub fn can_turn_off(&self, offload: Offload) -> bool {
        let name = match offload {
            Offload::Gro => "rx-gro",
            Offload::Lro => "rx-lro",
            Offload::RxVlan => "rx-vlan-hw-parse",
        };
        let Ok(Some(place)) = self.feature(name) else { return true };
        self.feature_bits(place).map_or(true, |[can_be_changed, _]| can_be_changed)
    }

    /// Turns the offload off, and returns its state.
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

    /// The place of a feature among those of the kernel; `None` if the kernel does not have it.
    pub(super) fn feature(&self, name: &str) -> io::Result<Option<usize>> {
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

    /// Whether GRO was requested, independent of the driver's state. True if the kernel does not report it.
    fn gro_is_requested(&self) -> io::Result<bool> {
        let Some(gro) = self.gro else { return Ok(true) };
        Ok(self.feature_bits(gro)?[1])
    }

    /// Whether the feature at this place can be changed, and whether it was requested.
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

    /// Runs a command on a `struct ethtool_value`: command, data.
    fn ethtool_value(&self, command: u32, data: u32) -> io::Result<u32> {
        let mut value = [command, data];
        self.ethtool(&mut value)?;
        Ok(value[1])
    }

    /// Runs an ethtool command on its structure, whose size is a multiple of 32 bits; the first one is the command.
    pub(super) fn ethtool(&self, structure: &mut [u32]) -> io::Result<()> {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        let mut request = empty_request();
        request.ifr_ifru.ifru_data = structure.as_mut_ptr().cast();
        self.ioctl(SIOCETHTOOL, &mut request)
    }
}

/// Commands to read and write the flag word that contains the bit of an offload, and the bit.
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
