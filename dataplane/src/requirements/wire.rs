//! The requirements of the filter on its interfaces. [`at_start`] checks all of them, before any change.

use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_policy::packet::Side;
use knockplane_policy::wire::DriftKind;
use knockplane_ring::{Buffers, Device, Features, NicOffload, XdpFeatures, largest_mtu};

use super::{Observed, Unmet, configured, mode, scope};
use crate::config::{Config, Offloads};
use crate::{fast_path, memory};

/// All requirements of a start on the two interfaces: errors and warnings.
pub(crate) struct AtStart {
    pub(crate) findings: Vec<HostFinding>,
    /// The buffers for the two drivers; `None` if no buffers suit them, which a finding reports.
    pub(crate) buffers: Option<Buffers>,
    /// The features that the drivers report; `None` before Linux 6.3.
    pub(crate) features: [Option<XdpFeatures>; 2],
}

/// Checks the interfaces. Changes nothing.
pub(crate) fn at_start(config: &Config, devices: [&Device; 2], observed: [&Observed; 2], max_frame: u32) -> AtStart {
    let kernel = Features::open();
    let features = devices.map(|device| kernel.as_ref().and_then(|kernel| kernel.of(device.index()).ok().flatten()));
    let mut findings = Vec::new();
    for side in Side::ALL {
        let (device, observed) = (devices[side.index()], observed[side.index()]);
        findings.extend(of_kind(side, device, features[side.index()]));
        findings.extend(of_each(observed).into_iter().map(|unmet| unmet.at(side)));
        let uses = observed.host_uses.iter().cloned().map(|unmet| unmet.at(side));
        findings.extend(uses.map(|finding| match config.dedicated {
            true => HostFinding { level: Level::Warning, ..finding }.change(""),
            false => finding,
        }));
        findings.extend(of_offloads(config, side, device, observed));
    }
    findings.extend(of_both(observed).into_iter().map(|(concerned, unmet)| match concerned {
        [true, false] => unmet.at(Side::Outside),
        [false, true] => unmet.at(Side::Inside),
        _ => unmet.finding,
    }));
    let drivers = devices.map(Device::driver);
    findings.extend(of_mtu(devices, observed));
    let queues = observed[0].queues.rx;
    findings.extend(configured::cores_for(config, queues, observed));
    let buffers = Buffers::choose(drivers, max_frame, config.zero_copy);
    match &buffers {
        Ok(buffers) => {
            findings.extend(mode::before(config, devices, features, buffers));
            let each = buffers.memory(config.ring_size);
            findings.extend(memory::check_rings(queues, each, config.ring_size).err().map(configured::lacks_memory));
            if let Ok(sizes) = fast_path::sizes(config, buffers) {
                let checked = memory::check_fast_path(sizes.flows[0], sizes.bytes(queues));
                findings.extend(checked.err().map(configured::lacks_memory));
            }
        }
        Err(error) => findings.push(HostFinding::ok(Scope::Wire, "mtu", error.to_string()).because(Level::Error, "")),
    }
    AtStart { findings, buffers: buffers.ok(), features }
}

/// Problems of an interface's kind and its driver.
fn of_kind(side: Side, device: &Device, features: Option<XdpFeatures>) -> Vec<HostFinding> {
    let mut problems = Vec::new();
    let name = device.name();
    if device.is_ethernet().is_ok_and(|is_ethernet| !is_ethernet) {
        let found = HostFinding::ok(scope(side), "ethernet", format!("{name} is no Ethernet interface"));
        let why = "its frames have no Ethernet header, by which the filter reads them";
        problems.push(found.because(Level::Error, why).change("name the Ethernet interface below it"));
    }
    if features.is_some_and(XdpFeatures::cannot_redirect) {
        let found = format!("{} runs XDP programs and cannot redirect frames to a socket", device.driver());
        let why = format!("no frame that arrives on {name} would reach the filter");
        let change = "use an interface with another driver: docs/hardware.md";
        problems.push(HostFinding::ok(scope(side), "xdp", found).because(Level::Error, why).change(change));
    }
    problems
}

/// Problems of one interface: it must be up, and only the filter may forward frames from it.
pub(crate) fn of_each(observed: &Observed) -> Vec<Unmet> {
    let name = &observed.link.name;
    let down = (!observed.link.is_enabled()).then(|| {
        Unmet::new(DriftKind::Down, format!("{name} is down"), "no frame arrives on it")
            .run(format!("ip link set dev {name} up"))
    });
    down.into_iter().chain(observed.way_past.iter().cloned()).collect()
}

/// Offloads that are on, and that the filter must not or cannot turn off.
fn of_offloads(config: &Config, side: Side, device: &Device, observed: &Observed) -> Vec<HostFinding> {
    let is_native = observed.link.is_native == Some(true);
    let harmful = observed.harmful_offloads(is_native).filter_map(|offload| {
        let unmet = offload_is_on(observed, offload).at(side);
        match config.offloads {
            _ if !device.can_turn_off(offload) => {
                let change = "the driver does not do without it; use an interface with another driver";
                Some(HostFinding { run: Vec::new(), ..unmet }.change(change))
            }
            Offloads::Refuse => Some(unmet),
            Offloads::TurnOff => None,
        }
    });
    harmful.collect()
}

/// The problem of an offload that is on.
pub(crate) fn offload_is_on(observed: &Observed, offload: NicOffload) -> Unmet {
    let kind = match offload {
        NicOffload::Gro => DriftKind::Gro,
        NicOffload::Lro => DriftKind::Lro,
        NicOffload::RxVlan => DriftKind::RxVlan,
    };
    let (name, offload) = (&observed.link.name, offload.name());
    Unmet::new(kind, format!("{name} has {offload} on"), "it changes frames before the filter sees them")
        .run(format!("ethtool -K {name} {offload} off"))
}

/// Problems of both interfaces together, each with the affected sides: they must have the same number of receive
/// queues, a transmit queue for each, and the same MTU.
pub(crate) fn of_both(observed: [&Observed; 2]) -> Vec<([bool; 2], Unmet)> {
    let mut problems = Vec::new();
    let names = observed.map(|side| side.link.name.as_str());
    let rx = observed.map(|side| side.queues.rx);
    if rx[0] != rx[1] {
        let (more, fewer) = if rx[0] > rx[1] { (0, rx[1]) } else { (1, rx[0]) };
        let found = format!("{} has {} receive queues and {} has {}", names[0], rx[0], names[1], rx[1]);
        let unmet = Unmet::new(DriftKind::Queues, found, "a queue without its counterpart would drop everything");
        problems.push(([true; 2], unmet.run(observed[more].queues.command(names[more], fewer))));
    }
    for (side, observed) in observed.into_iter().enumerate() {
        let (name, queues) = (&observed.link.name, observed.queues);
        let (rx, tx) = (queues.rx, queues.tx);
        if tx < rx {
            let found = format!("{name} has {rx} receive queues and only {tx} to send by");
            let unmet = Unmet::new(DriftKind::Queues, found, "the workers without one could not send");
            problems.push((only(side), unmet.run(queues.command(name, rx))));
        }
    }
    let mtu = observed.map(|side| side.link.mtu);
    if mtu[0] != mtu[1] {
        let (larger, smaller) = if mtu[0] > mtu[1] { (0, mtu[1]) } else { (1, mtu[0]) };
        let found = format!("{} has an MTU of {} and {} one of {}", names[0], mtu[0], names[1], mtu[1]);
        let unmet = Unmet::new(DriftKind::Mtu, found, "a wire has one MTU");
        problems.push(([true; 2], unmet.run(format!("ip link set dev {} mtu {smaller}", names[larger]))));
    }
    problems
}

/// An MTU that a driver is likely to refuse, according to its source. The kernel decides when the program is attached.
fn of_mtu(devices: [&Device; 2], observed: [&Observed; 2]) -> Option<HostFinding> {
    let drivers = devices.map(Device::driver);
    let (largest, mtu) = (largest_mtu(drivers), observed[0].link.mtu.max(observed[1].link.mtu));
    // For veth, the MTU of the peer device counts, which may be smaller.
    (mtu > largest).then(|| {
        let found = format!("the MTU is {mtu}, and {} takes {largest} at most with XDP", drivers.join(" or "));
        let mut finding = HostFinding::ok(Scope::Wire, "mtu", found)
            .because(Level::Warning, "the driver may refuse the XDP program, and the filter would not start");
        for device in devices {
            finding = finding.run(format!("ip link set dev {} mtu {largest}", device.name()));
        }
        finding
    })
}

/// Only this side.
fn only(side: usize) -> [bool; 2] {
    Side::ALL.map(|other| other.index() == side)
}
