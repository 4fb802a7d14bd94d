//! What the filter needs of its two interfaces and of the host, each requirement stated once. `start` refuses what does
//! not meet them; `drift` compares them with the kernel's state while the filter runs. docs/drift.md has the reaction to
//! each one that is not met.

use std::fs;
use std::path::Path;

use knockplane_policy::packet::Side;
use knockplane_policy::wire::{Drift, DriftKind};
use knockplane_ring::{Device, Error, Link, Offload, OffloadState, Queues, Reader};

/// The state of an interface at one moment, and what the host would do with its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) link: Link,
    pub(crate) queues: Queues,
    /// In the order of [`Offload::ALL`].
    pub(crate) offloads: [OffloadState; Offload::ALL.len()],
    /// With their prefix lengths, in order.
    pub(crate) addresses: Vec<String>,
    /// Ways in which the host would forward past the filter.
    pub(crate) way_past: Vec<Drift>,
}

impl Observed {
    /// Reads all of it; none if the interface is gone.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub(crate) fn read(device: &Device, reader: &mut Reader) -> Result<Option<Self>, Error> {
        let rest = |reader: &mut Reader, link: Link| -> Result<Observed, Error> {
            let mut offloads = [OffloadState::Off; Offload::ALL.len()];
            for (state, offload) in offloads.iter_mut().zip(Offload::ALL) {
                *state = device.offload(offload)?;
            }
            Ok(Observed {
                queues: device.queues()?,
                offloads,
                addresses: reader.addresses(device.index())?,
                way_past: way_past(&link),
                link,
            })
        };
        let Some(link) = reader.link(device.index())? else { return Ok(None) };
        match rest(reader, link) {
            Ok(observed) => Ok(Some(observed)),
            // An interface that is deleted between two questions is no error.
            Err(error) => {
                if reader.link(device.index())?.is_none() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Offloads that are on and must not be.
    pub(crate) fn harmful_offloads(&self, is_native: bool) -> impl Iterator<Item = Offload> {
        let states = self.offloads.into_iter().zip(Offload::ALL);
        states.filter_map(move |(state, offload)| is_harmful(offload, state, is_native).then_some(offload))
    }
}

/// Whether an offload in this state changes frames. A driver may turn GRO on by itself for a native XDP program: there it
/// comes behind the program, which sees frames as they arrived.
pub(crate) fn is_harmful(offload: Offload, state: OffloadState, is_native: bool) -> bool {
    match state {
        OffloadState::Off => false,
        OffloadState::Forced => !is_native || offload != Offload::Gro,
        OffloadState::On => true,
    }
}

/// Problems of one interface: it must be up, and nothing but the filter may forward what arrives on it.
pub(crate) fn of_each(observed: &Observed) -> Vec<Drift> {
    let name = &observed.link.name;
    let down = (!observed.link.is_enabled())
        .then(|| unmet(DriftKind::Down, format!("{name} is down; run: ip link set dev {name} up")));
    down.into_iter().chain(observed.way_past.iter().cloned()).collect()
}

/// The problem of an offload that is on.
pub(crate) fn offload_is_on(observed: &Observed, offload: Offload) -> Drift {
    let kind = match offload {
        Offload::Gro => DriftKind::Gro,
        Offload::Lro => DriftKind::Lro,
        Offload::RxVlan => DriftKind::RxVlan,
    };
    let (name, offload) = (&observed.link.name, offload.name());
    unmet(kind, format!("{name} has {offload} on, which changes frames; run: ethtool -K {name} {offload} off"))
}

/// Problems of both interfaces together, each with the sides that it concerns: they must have the same number of receive
/// queues, a transmit queue for each, and the same MTU.
pub(crate) fn of_both(observed: [&Observed; 2]) -> Vec<([bool; 2], Drift)> {
    let [outside, inside] = observed;
    let mut problems = Vec::new();
    let names = observed.map(|side| side.link.name.as_str());
    let rx = observed.map(|side| side.queues.rx);
    if rx[0] != rx[1] {
        let fewer = rx[0].min(rx[1]);
        let more = if rx[0] > rx[1] { names[0] } else { names[1] };
        problems.push(([true; 2], unmet(DriftKind::Queues, format!(
            "{} has {} receive queues and {} has {}; a queue without its counterpart would drop everything; run: \
             ethtool -L {more} combined {fewer} (or rx {fewer} tx {fewer}, as the driver has it)",
            names[0], rx[0], names[1], rx[1],
        ))));
    }
    for (side, observed) in [outside, inside].into_iter().enumerate() {
        let (name, Queues { rx, tx }) = (&observed.link.name, observed.queues);
        if tx < rx {
            problems.push((only(side), unmet(DriftKind::Queues, format!(
                "{name} has {rx} receive queues and only {tx} to send by; the workers without one could not send; run: \
                 ethtool -L {name} combined {rx} (or tx {rx}, as the driver has it)"
            ))));
        }
    }
    let mtu = observed.map(|side| side.link.mtu);
    if mtu[0] != mtu[1] {
        problems.push((
            [true; 2],
            unmet(
                DriftKind::Mtu,
                format!(
                    "{} has an MTU of {} and {} one of {}; a wire has one MTU; run: ip link set dev NAME mtu NUMBER",
                    names[0], mtu[0], names[1], mtu[1],
                ),
            ),
        ));
    }
    problems
}

/// How the host would forward what arrives on an interface, or on a device on it such as a VLAN, once the program is
/// gone, and the remedy; empty if it would not.
fn way_past(link: &Link) -> Vec<Drift> {
    ways_past(&link.name, &link.name, link.master != 0, MAX_STACKED)
}

/// Devices stacked on one another that are followed at most.
const MAX_STACKED: usize = 4;

/// The same for one device, which is the interface itself or stands on it. `has_master` is what rtnetlink says of it.
fn ways_past(interface: &str, device: &str, has_master: bool, depth: usize) -> Vec<Drift> {
    let folder = Path::new("/sys/class/net").join(device);
    let who = if device == interface { device.to_owned() } else { format!("{device}, on {interface},") };
    let mut ways = Vec::new();
    if has_master || folder.join("master").exists() {
        ways.push(unmet(
            DriftKind::Master,
            format!(
                "{who} belongs to a bridge or bond, which would forward past the filter; run: \
             ip link set dev {device} nomaster"
            ),
        ));
    }
    for family in ["ipv4", "ipv6"] {
        let setting = fs::read_to_string(format!("/proc/sys/net/{family}/conf/{device}/forwarding"));
        if setting.is_ok_and(|setting| setting.trim() == "1") {
            ways.push(unmet(
                DriftKind::Forwarding,
                format!(
                    "this host routes what arrives on {who} past the filter once it is gone; run: \
                 sysctl -w net.{family}.conf.{device}.forwarding=0"
                ),
            ));
        }
    }
    let master = fs::read_link(folder.join("master")).ok();
    let master = master.as_deref().and_then(Path::file_name);
    // Devices on this one: `upper_NAME`, Linux Documentation/ABI/testing/sysfs-class-net.
    let above = fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_prefix("upper_")?.to_owned();
        (master.is_none_or(|master| *master != *name)).then_some(name)
    });
    if depth > 0 {
        ways.extend(above.flat_map(|above| ways_past(interface, &above, false, depth - 1)));
    }
    ways
}

/// Concerns this side alone.
fn only(side: usize) -> [bool; 2] {
    Side::ALL.map(|other| other.index() == side)
}

pub(crate) fn unmet(kind: DriftKind, problem: String) -> Drift {
    Drift { kind, problem }
}
