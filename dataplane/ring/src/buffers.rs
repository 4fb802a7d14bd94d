//! Selects safe receive buffers, from the length of the buffer that a driver makes of a UMEM chunk, and from the
//! driver's treatment of a frame that does not fit.
//!
//! ```text
//!  chunk   | headroom 256 | buffer                                        |
//!  driver                 | usable: rounded down to the driver's unit |   |
//!  frame                  | time stamp | frame, shorter than the rest |
//! ```
//! In zero-copy mode the NIC writes directly into the chunks. A driver sets the length of a buffer in the NIC, rounded
//! down to the driver's unit. Some drivers let the NIC write a longer frame into several buffers, and deliver each part
//! as a separate frame. The sender of the frame then chooses every byte of the tail: its addresses, its ports. So
//! zero-copy is requested only if the usable buffer is longer than the longest frame, and only from drivers that this
//! table lists.
//!
//! In copy mode the kernel copies a whole frame into a chunk, or drops it (`xsk_rcv_check`, Linux `net/xdp/xsk.c`). But
//! the driver first receives a frame into its own buffers, and some NICs accept frames that are longer than these: igb
//! with an MTU above 1,510 accepts 9,728 bytes into buffers of 3,072. So the XDP program drops the frame after a frame
//! that is too long, unless the driver is known to keep frames whole (`bpf/filter.c`). This works in both modes,
//! because a buffer is always longer than the longest frame: the first part of a split frame is too long.

use crate::error::Error;

/// The bytes that the kernel keeps free in front of each frame (`XDP_PACKET_HEADROOM`).
pub(crate) const HEADROOM: u32 = 256;

/// The possible sizes of chunks, in bytes. The kernel accepts no chunk larger than a page.
const CHUNKS: [u32; 2] = [2048, 4096];

/// Ethernet header and two VLAN tags, in bytes: the difference between the longest frame and the MTU.
const FRAME_OVERHEAD: u32 = 22;

/// The configured use of zero-copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Uses zero-copy if this table lists both drivers without a known fault and their buffers hold the longest frame;
    /// otherwise the sockets use copy mode.
    #[default]
    Auto,
    /// Uses copy mode.
    Off,
    /// Uses zero-copy with any driver. If the driver's buffers cannot hold the longest frame, or the kernel refuses,
    /// the bind fails.
    Force,
}

/// The properties of a driver's reception in zero-copy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Driver {
    /// The name of the driver in the output of `ethtool -i`.
    name: &'static str,
    /// The unit of the buffer's length, in bytes: the rest of a chunk is not used.
    unit: u32,
    /// The maximum length of the NIC's data in front of a frame, in bytes.
    prefix: u32,
    /// The NIC accepts frames of this length, in bytes, with any MTU; 0 if the MTU limits them.
    accepts: u32,
    /// Whether the driver delivers frames a second time when it has no more buffers, although userspace already owns
    /// their chunks. Then a chunk has two owners, and a frame can change after its decision.
    repeats: bool,
}

/// The drivers whose zero-copy mode is known. docs/hardware.md lists the drivers that `make vm` tests, and the drivers
/// that only a review of their source covers. Paths are below `drivers/net` of Linux 7.2. `xsk_pool_get_rx_frame_size`
/// itself rounds down to 128 bytes there.
const DRIVERS: &[Driver] = &[
    // `virtnet_add_recvbuf_xsk`: exact. A frame of several buffers is dropped (`virtnet_receive_xsk_merge`).
    Driver { name: "virtio_net", unit: 128, prefix: 0, accepts: 0, repeats: false },
    // `igb_setup_srrctl`: whole KiB. `igb_clean_rx_irq_zc` does not check for the end of a frame. `igb_set_rx_mode`
    // makes the NIC accept 1,536 bytes up to an MTU of 1,510. A time stamp of 16 bytes can precede a frame.
    // `igb_alloc_rx_buffers_zc` leaves the length of the next descriptor unchanged if the fill ring is empty before the
    // ring's end.
    Driver { name: "igb", unit: 1024, prefix: 16, accepts: 1536, repeats: true },
    // `igc_configure_rx_ring`, `igc_clean_rx_irq_zc`, `igc_set_rx_mode`: as igb, with 1,648 bytes.
    Driver { name: "igc", unit: 1024, prefix: 16, accepts: 1648, repeats: false },
    // `ixgbe_configure_srrctl`: whole KiB on 82599. A frame of several buffers is dropped (`ixgbe_clean_rx_irq_zc`).
    Driver { name: "ixgbe", unit: 1024, prefix: 0, accepts: 0, repeats: false },
    // `i40e_configure_rx_ring`: 128 bytes. The driver joins the buffers of a frame (`i40e_clean_rx_irq_zc`).
    Driver { name: "i40e", unit: 128, prefix: 0, accepts: 0, repeats: false },
    // `ice_setup_rx_ctx`, `ice_clean_rx_irq_zc`: as i40e.
    Driver { name: "ice", unit: 128, prefix: 0, accepts: 0, repeats: false },
    // `mlx5e_validate_xsk_param` refuses a chunk that does not hold the MTU. The NIC or
    // `mlx5e_xsk_skb_from_cqe_mpwrq_linear` drops a longer frame.
    Driver { name: "mlx5_core", unit: 128, prefix: 0, accepts: 0, repeats: false },
];

/// The assumption for a driver that is not listed: the worst value of each field.
const UNLISTED: Driver = Driver { name: "", unit: 1024, prefix: 16, accepts: 1648, repeats: false };

/// Drivers that never deliver a part of a frame as a frame: virtio_net drops or joins (`receive_mergeable`), veth joins
/// (`veth_convert_skb_to_xdp_buff`).
const WHOLE: &[&str] = &["virtio_net", "veth"];

/// Whether a frame that is too long may be the first part of a frame that the driver has split.
pub(crate) fn may_split(driver: &str) -> bool {
    !WHOLE.contains(&driver)
}

/// The largest MTU in bytes with which a driver accepts an XDP program without support for frames of several buffers,
/// and passes every frame to it, with pages of 4,096 bytes. With a larger MTU the driver refuses the program in native
/// mode, or loses frames. `None` if it is not known. For veth, the MTU of the peer device counts.
pub fn largest_native_mtu(driver: &str) -> Option<u32> {
    match driver {
        // `igb_xdp_setup`: a buffer of 3,072, less Ethernet, two VLAN tags and a checksum.
        "igb" => Some(3046),
        // `veth_xdp_set`: a page, less headroom, `skb_shared_info` and Ethernet.
        "veth" => Some(3506),
        _ => longest_shown(driver).map(|longest| longest - FRAME_OVERHEAD),
    }
}

/// The longest frame that a driver passes to the XDP program, in bytes, with Ethernet header and VLAN tags. The driver
/// also accepts the program with a larger MTU, and then loses longer frames.
const LONGEST_SHOWN: &[(&str, u32)] = &[
    // `vmxnet3_adjust_rx_ring_size`: a longer frame arrives in two buffers, and `vmxnet3_rq_rx_complete` shows only those in
    // one.
    ("vmxnet3", 3072),
    // `xdp_linearize_page` of Linux 6.1 and later: a page, less headroom, `skb_shared_info` and the virtio header of 12
    // bytes.
    ("virtio_net", 4096 - 256 - 320 - 12),
];

fn longest_shown(driver: &str) -> Option<u32> {
    LONGEST_SHOWN.iter().find(|(name, _)| *name == driver).map(|(_, longest)| *longest)
}

/// Refuses an MTU with which a driver would accept the program and lose frames.
fn check_losses(drivers: [&str; 2], max_frame: u32) -> Result<(), Error> {
    let lossy = drivers
        .iter()
        .find_map(|driver| Some((driver, longest_shown(driver)?)).filter(|(_, longest)| max_frame > *longest));
    let Some((driver, longest)) = lossy else { return Ok(()) };
    Err(Error::unfit(
        format!("{driver} does not show frames of more than {longest} bytes to XDP, and they would be lost"),
        format!("lower the MTU of both interfaces to {} at most", longest - FRAME_OVERHEAD),
    ))
}

impl Driver {
    fn find(name: &str) -> Option<Self> {
        DRIVERS.iter().copied().find(|driver| driver.name == name)
    }

    /// The longest frame that a chunk of this size holds in zero-copy mode with one byte to spare. The spare byte makes
    /// the first part of a split frame longer than any permitted frame.
    const fn holds(&self, chunk: u32) -> u32 {
        let buffer = chunk - HEADROOM;
        (buffer - buffer % self.unit).saturating_sub(self.prefix + 1)
    }

    /// The smallest chunk that holds every frame of at most `max_frame` bytes, and every frame that the NIC accepts
    /// with any MTU.
    fn chunk(&self, max_frame: u32) -> Option<u32> {
        CHUNKS.into_iter().find(|chunk| max_frame.max(self.accepts) <= self.holds(*chunk))
    }
}

/// The chunk size of a worker's UMEM, and the mode in which its sockets are bound. One choice applies to both
/// interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub(crate) copy_chunk: u32,
    pub(crate) request: Request,
    reason: Option<CopyReason>,
}

/// The mode that is requested from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Copy,
    /// Zero-copy with chunks of this size if both drivers have it, else copy mode.
    IfPossible(u32),
    /// Zero-copy with chunks of this size, or a failure.
    Required(u32),
}

/// The reason why zero-copy is not requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyReason {
    /// The configuration requires copy mode.
    Configured,
    /// This driver is not known to keep long frames whole.
    UnknownDriver(String),
    /// This driver delivers frames twice when it runs out of buffers.
    RepeatsFrames(String),
    /// XDP is generic on this interface: it runs after the driver, which has no part in AF_XDP.
    GenericXdp(String),
    /// A chunk does not hold the longest frame as this driver uses it.
    BufferTooSmall {
        /// The driver.
        driver: String,
        /// The longest frame that the chunk holds, in bytes.
        holds: u32,
        /// The longest frame of the interfaces, in bytes.
        max_frame: u32,
    },
}

impl std::fmt::Display for CopyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CopyReason::Configured => write!(f, "zero-copy is off in the configuration"),
            CopyReason::UnknownDriver(driver) => {
                let driver = if driver.is_empty() { "the driver" } else { driver };
                write!(f, "{driver} is not known to keep long frames whole in zero-copy mode (docs/hardware.md)")
            }
            CopyReason::RepeatsFrames(driver) => {
                write!(
                    f,
                    "{driver} delivers frames twice in zero-copy mode when it runs out of buffers (docs/hardware.md)"
                )
            }
            CopyReason::GenericXdp(interface) => write!(f, "XDP is generic on {interface}"),
            CopyReason::BufferTooSmall { driver, holds, max_frame } => write!(
                f,
                "{driver} receives at most {holds} bytes into a buffer in zero-copy mode, and frames have up to {max_frame}; \
                 for zero-copy, lower the MTU of both interfaces to {} at most",
                holds.saturating_sub(FRAME_OVERHEAD)
            ),
        }
    }
}

impl Buffers {
    /// Chooses the buffers for two interfaces with these drivers (`ethtool -i`). Their frames have at most `max_frame`
    /// bytes, with Ethernet header and VLAN tags.
    ///
    /// # Errors
    /// If no chunk holds `max_frame` bytes, if a driver would lose frames of this length, or if zero-copy is required
    /// and a driver's buffer may not hold them.
    pub fn choose(drivers: [&str; 2], max_frame: u32, wanted: ZeroCopy) -> Result<Self, Error> {
        check_losses(drivers, max_frame)?;
        let copy_chunk = chunk_size(max_frame, drivers)?;
        let copy = |reason| Buffers { copy_chunk, request: Request::Copy, reason: Some(reason) };
        if wanted == ZeroCopy::Off {
            return Ok(copy(CopyReason::Configured));
        }
        let mut chunk = copy_chunk;
        for name in drivers {
            let driver = match (Driver::find(name), wanted) {
                (Some(driver), ZeroCopy::Auto) if driver.repeats => {
                    return Ok(copy(CopyReason::RepeatsFrames(name.to_owned())));
                }
                (Some(driver), _) => driver,
                (None, ZeroCopy::Force) => UNLISTED,
                (None, _) => return Ok(copy(CopyReason::UnknownDriver(name.to_owned()))),
            };
            match driver.chunk(max_frame) {
                Some(smallest) => chunk = chunk.max(smallest),
                None => {
                    let holds = driver.holds(CHUNKS[CHUNKS.len() - 1]);
                    let reason = CopyReason::BufferTooSmall { driver: name.to_owned(), holds, max_frame };
                    if wanted == ZeroCopy::Force {
                        return Err(Error::unfit(
                            format!("zero-copy = \"force\": {reason}"),
                            "or set zero-copy = \"auto\"",
                        ));
                    }
                    return Ok(copy(reason));
                }
            }
        }
        let request = if wanted == ZeroCopy::Force { Request::Required(chunk) } else { Request::IfPossible(chunk) };
        Ok(Buffers { copy_chunk, request, reason: None })
    }

    /// The same buffers without zero-copy, because XDP is generic on this interface. Its driver could accept a
    /// zero-copy socket, and would then send no frame.
    ///
    /// # Errors
    /// If zero-copy is required.
    pub fn for_generic(self, interface: &str) -> Result<Self, Error> {
        let reason = CopyReason::GenericXdp(interface.to_owned());
        match self.request {
            Request::Required(_) => Err(Error::unfit(
                format!("zero-copy = \"force\", and {reason}"),
                "lower its MTU if the driver has native XDP, or set zero-copy = \"auto\"",
            )),
            _ => Ok(Buffers {
                request: Request::Copy,
                reason: self.reason.or(Some(reason)),
                copy_chunk: self.copy_chunk,
            }),
        }
    }

    /// The size of the chunks that are tried first, in bytes.
    pub(crate) const fn chunk(&self) -> u32 {
        match self.request {
            Request::Copy => self.copy_chunk,
            Request::IfPossible(chunk) | Request::Required(chunk) => chunk,
        }
    }

    /// The reason why zero-copy is not requested; `None` if it is.
    pub const fn copy_reason(&self) -> Option<&CopyReason> {
        self.reason.as_ref()
    }

    /// The size of the frames' memory of one worker with rings of this many descriptors, in bytes.
    pub fn memory(&self, ring_size: u32) -> u64 {
        u64::from(crate::rings::frames(ring_size)) * u64::from(self.chunk())
    }

    /// The first of these drivers that the table does not list and that uses zero-copy only because the configuration
    /// requires it.
    pub fn unlisted<'d>(&self, drivers: [&'d str; 2]) -> Option<&'d str> {
        let asked = self.request != Request::Copy;
        drivers.into_iter().find(|name| asked && Driver::find(name).is_none())
    }

    /// The first of these drivers that delivers frames twice and that uses zero-copy only because the configuration
    /// requires it.
    pub fn repeating<'d>(&self, drivers: [&'d str; 2]) -> Option<&'d str> {
        let asked = self.request != Request::Copy;
        drivers.into_iter().find(|name| asked && Driver::find(name).is_some_and(|driver| driver.repeats))
    }
}

/// The largest MTU in bytes of two interfaces with these drivers, as far as it is known: frames must fit a chunk, and
/// both drivers must accept the XDP program.
pub fn largest_mtu(drivers: [&str; 2]) -> u32 {
    let copied = CHUNKS[CHUNKS.len() - 1] - HEADROOM - FRAME_OVERHEAD;
    drivers.into_iter().filter_map(largest_native_mtu).fold(copied, u32::min)
}

/// The smallest chunk that holds a frame of this many bytes and its headroom in copy mode.
fn chunk_size(max_frame: u32, drivers: [&str; 2]) -> Result<u32, Error> {
    let largest = CHUNKS[CHUNKS.len() - 1];
    CHUNKS.into_iter().find(|size| max_frame <= size - HEADROOM).ok_or_else(|| {
        Error::unfit(
            format!("frames of {max_frame} bytes do not fit a chunk of {largest} bytes with its headroom"),
            format!("lower the MTU of both interfaces to {} at most", largest_mtu(drivers)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(drivers: [&str; 2], max_frame: u32, wanted: ZeroCopy) -> Request {
        Buffers::choose(drivers, max_frame, wanted).expect("frames fit").request
    }

    #[test]
    fn copied_frames_need_their_headroom_alone() {
        let chunk_size = |max_frame| chunk_size(max_frame, ["e1000e", "e1000e"]);
        assert_eq!(chunk_size(1522).expect("an ordinary MTU"), 2048);
        assert_eq!(chunk_size(1792).expect("the most that fits"), 2048);
        assert_eq!(chunk_size(1793).expect("the next size"), 4096);
        let error = chunk_size(9022).expect_err("a jumbo frame").to_string();
        assert!(error.contains("9022") && error.contains("MTU of both interfaces to 3818"), "{error}");
    }

    #[test]
    fn the_largest_mtu_is_the_one_that_both_drivers_take() {
        assert_eq!(largest_mtu(["e1000e", "e1000e"]), 3818);
        assert_eq!(largest_mtu(["e1000e", "vmxnet3"]), 3050);
        assert_eq!(largest_mtu(["virtio_net", "igb"]), 3046);
        let error = Buffers::choose(["virtio_net", "e1000e"], 9022, ZeroCopy::Off).expect_err("too long").to_string();
        assert!(error.contains("MTU of both interfaces to 3486 at most"), "{error}");
    }

    #[test]
    fn a_driver_that_counts_in_kibibytes_gets_larger_chunks() {
        // 2,048 - 256 is 1,792, of which igc uses 1,024.
        assert_eq!(chosen(["igc", "igc"], 1522, ZeroCopy::Auto), Request::IfPossible(4096));
        assert_eq!(chosen(["ixgbe", "ixgbe"], 1023, ZeroCopy::Auto), Request::IfPossible(2048));
        assert_eq!(chosen(["ixgbe", "ixgbe"], 1024, ZeroCopy::Auto), Request::IfPossible(4096));
        // The NIC accepts 1,648 bytes with any MTU.
        assert_eq!(chosen(["igc", "igc"], 600, ZeroCopy::Auto), Request::IfPossible(4096));
        assert_eq!(chosen(["virtio_net", "virtio_net"], 1522, ZeroCopy::Auto), Request::IfPossible(2048));
        assert_eq!(chosen(["i40e", "ice"], 1522, ZeroCopy::Auto), Request::IfPossible(2048));
        // Both sides use the same chunks.
        assert_eq!(chosen(["virtio_net", "igc"], 1522, ZeroCopy::Auto), Request::IfPossible(4096));
        assert_eq!(chosen(["igc", "virtio_net"], 1522, ZeroCopy::Auto), Request::IfPossible(4096));
    }

    #[test]
    fn no_listed_driver_ever_gets_a_frame_longer_than_its_buffer() {
        for driver in DRIVERS {
            for max_frame in 60..=longest_shown(driver.name).unwrap_or(3840) {
                let buffers = Buffers::choose([driver.name; 2], max_frame, ZeroCopy::Auto).expect("frames fit");
                match buffers.request {
                    Request::IfPossible(chunk) => {
                        let used = (chunk - 256) / driver.unit * driver.unit;
                        let longest = max_frame.max(driver.accepts);
                        assert!(longest + driver.prefix < used, "{}: {max_frame} in {used}", driver.name);
                    }
                    Request::Copy => {
                        assert!(driver.repeats || max_frame > driver.holds(4096), "{}: {max_frame}", driver.name);
                    }
                    Request::Required(_) => panic!("zero-copy was not demanded"),
                }
                assert!(max_frame <= buffers.copy_chunk - HEADROOM);
            }
        }
    }

    #[test]
    fn a_frame_that_no_buffer_holds_is_copied_or_refused() {
        let buffers = Buffers::choose(["virtio_net", "igc"], 3056, ZeroCopy::Auto).expect("copied");
        assert_eq!(buffers.request, Request::Copy);
        let reason = buffers.copy_reason().expect("a reason").to_string();
        assert!(reason.starts_with("igc receives at most 3055 bytes"), "{reason}");
        assert!(reason.contains("up to 3056") && reason.contains("to 3033 at most"), "{reason}");
        let error = Buffers::choose(["virtio_net", "igc"], 3056, ZeroCopy::Force).expect_err("refused").to_string();
        assert!(error.contains("igc receives at most 3055 bytes") && error.contains("zero-copy = \"auto\""), "{error}");
    }

    #[test]
    fn a_driver_that_delivers_frames_twice_copies_unless_zero_copy_is_demanded() {
        for drivers in [["igb", "igb"], ["igb", "virtio_net"], ["ice", "igb"]] {
            let buffers = Buffers::choose(drivers, 1522, ZeroCopy::Auto).expect("copied");
            assert_eq!(buffers.request, Request::Copy);
            let reason = buffers.copy_reason().expect("a reason").to_string();
            assert!(reason.starts_with("igb delivers frames twice in zero-copy mode"), "{reason}");
            let demanded = Buffers::choose(drivers, 1522, ZeroCopy::Force).expect("frames fit");
            assert_eq!(demanded.request, Request::Required(4096));
            assert_eq!(demanded.repeating(drivers), Some("igb"));
        }
        let buffers = Buffers::choose(["ice", "igc"], 1522, ZeroCopy::Auto).expect("frames fit");
        assert_eq!(buffers.repeating(["ice", "igc"]), None);
    }

    #[test]
    fn an_mtu_with_which_a_driver_loses_frames_is_refused() {
        for drivers in [["vmxnet3", "vmxnet3"], ["igb", "vmxnet3"], ["vmxnet3", "e1000e"]] {
            Buffers::choose(drivers, 3050 + 22, ZeroCopy::Auto).expect("frames arrive in one buffer");
            let error = Buffers::choose(drivers, 3051 + 22, ZeroCopy::Auto).expect_err("refused").to_string();
            assert!(error.contains("more than 3072 bytes") && error.contains("interfaces to 3050 at most"), "{error}");
        }
        Buffers::choose(["e1000e", "virtio_net"], 3486 + 22, ZeroCopy::Auto).expect("frames arrive in one page");
        let error =
            Buffers::choose(["e1000e", "virtio_net"], 3487 + 22, ZeroCopy::Auto).expect_err("refused").to_string();
        assert!(error.contains("more than 3508 bytes") && error.contains("interfaces to 3486 at most"), "{error}");
    }

    #[test]
    fn generic_xdp_is_copied_or_refused() {
        let choose = |wanted| Buffers::choose(["igc", "igc"], 1822, wanted).expect("frames fit").for_generic("eth1");
        let buffers = choose(ZeroCopy::Auto).expect("copied");
        assert_eq!(buffers.request, Request::Copy);
        assert_eq!(buffers.copy_reason().map(ToString::to_string).as_deref(), Some("XDP is generic on eth1"));
        let error = choose(ZeroCopy::Force).expect_err("refused").to_string();
        assert!(error.contains("XDP is generic on eth1; lower its MTU"), "{error}");
    }

    #[test]
    fn an_unknown_driver_is_copied_unless_zero_copy_is_demanded() {
        let buffers = Buffers::choose(["igc", "dpaa2-eth"], 1522, ZeroCopy::Auto).expect("frames fit");
        assert_eq!(buffers.request, Request::Copy);
        let reason = buffers.copy_reason().expect("a reason").to_string();
        assert!(reason.contains("dpaa2-eth is not known"), "{reason}");
        let demanded = Buffers::choose(["igc", "dpaa2-eth"], 1522, ZeroCopy::Force).expect("frames fit");
        assert_eq!(demanded.request, Request::Required(4096));
        assert_eq!(demanded.unlisted(["igc", "dpaa2-eth"]), Some("dpaa2-eth"));
        assert_eq!(demanded.unlisted(["igc", "igc"]), None);
        assert_eq!(chosen(["igc", "igc"], 1522, ZeroCopy::Off), Request::Copy);
    }
}
