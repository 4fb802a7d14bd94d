//! The receive mode: native or generic XDP, with or without a copy. This module checks the configured requirement, and
//! states the cost of a mode that is not the best.

use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_policy::packet::Side;
use knockplane_ring::{Buffers, CopyReason, Device, XdpFeatures, XdpMode, ZeroCopy};

use super::scope;
use crate::config::{Config, Require};

/// The cost of a mode, compared with native XDP and zero-copy; `None` for that mode. docs/doctor.md contains the
/// measurements.
pub(crate) fn cost(mode: XdpMode, zero_copy: bool) -> Option<&'static str> {
    match (mode, zero_copy) {
        (XdpMode::Generic, _) => Some(
            "generic XDP: the network stack makes a packet of every frame first; about 0.3 of the frames of native XDP are taken \
             in (docs/doctor.md)",
        ),
        (XdpMode::Native, false) => Some(
            "copy mode: the kernel copies every frame in and out; about 0.4 of the frames that XDP alone forwards on veth \
             (docs/doctor.md)",
        ),
        (XdpMode::Native, true) => None,
    }
}

/// The findings about the mode before the program is attached and sockets are bound: errors and warnings.
pub(crate) fn before(
    config: &Config,
    devices: [&Device; 2],
    features: [Option<XdpFeatures>; 2],
    buffers: &Buffers,
) -> Vec<HostFinding> {
    let mut findings = Vec::new();
    for side in Side::ALL {
        let Some(features) = features[side.index()] else { continue };
        let device = devices[side.index()];
        if !features.is_native() {
            findings.push(generic(config.require, side, device));
        } else if !features.has_zero_copy() && config.zero_copy == ZeroCopy::Force {
            let found = format!("cannot bind with zero-copy: {} has no zero-copy on this kernel", device.driver());
            let finding = HostFinding::ok(scope(side), "zero-copy", found);
            let finding = finding.because(Level::Error, "the configuration has zero-copy = \"force\"");
            findings.push(finding.change("set zero-copy = \"auto\""));
        } else if !features.has_zero_copy() && config.require == Require::ZeroCopy {
            findings.push(copied(device, side, &format!("{} has no zero-copy on this kernel", device.driver())));
        }
    }
    match buffers.copy_reason() {
        Some(reason) if config.require == Require::ZeroCopy && findings.is_empty() => {
            findings.push(HostFinding { scope: Scope::Wire, ..copied(devices[0], Side::Outside, &reason.to_string()) });
        }
        // The drivers support zero-copy and their buffers do not: the operator can change the buffers.
        Some(reason @ CopyReason::BufferTooSmall { .. }) => {
            let cost = cost(XdpMode::Native, false).unwrap_or_default();
            let finding = HostFinding::ok(Scope::Wire, "zero-copy", format!("copy mode: {reason}"));
            findings.push(finding.because(Level::Warning, cost));
        }
        _ => {}
    }
    findings
}

/// The finding if the actual mode is below the configured requirement.
pub(crate) fn is_required(
    require: Require,
    side: Side,
    device: &Device,
    mode: XdpMode,
    copy_reason: Option<&str>,
) -> Option<HostFinding> {
    match (mode, copy_reason) {
        (XdpMode::Generic, _) if require >= Require::Native => Some(generic(require, side, device)),
        (_, Some(reason)) if require == Require::ZeroCopy => Some(copied(device, side, reason)),
        _ => None,
    }
}

/// The finding of an interface whose driver does not run the program.
pub(crate) fn generic(require: Require, side: Side, device: &Device) -> HostFinding {
    let (name, driver) = (device.name(), device.driver());
    let driver = if driver.is_empty() { "its driver" } else { driver };
    let found = format!("XDP is generic on {name}: {driver} has no native XDP, or none with this MTU and kernel");
    let finding = HostFinding::ok(scope(side), "xdp", found);
    match require {
        Require::Any => finding.because(Level::Warning, cost(XdpMode::Generic, false).unwrap_or_default()),
        Require::Native | Require::ZeroCopy => {
            let wanted = if require == Require::Native { "native" } else { "zero-copy" };
            let change = "use an interface or a kernel whose driver has native XDP (docs/hardware.md), lower the MTU, or set \
                          require = \"any\"";
            finding.because(Level::Error, format!("the configuration has require = \"{wanted}\"")).change(change)
        }
    }
}

/// The finding of an interface with copied frames although zero-copy is required.
fn copied(device: &Device, side: Side, reason: &str) -> HostFinding {
    let found = format!("frames of {} are copied: {reason}", device.name());
    let finding = HostFinding::ok(scope(side), "zero-copy", found);
    let change =
        "use an interface or a kernel whose driver has zero-copy (docs/hardware.md), or set require = \"native\"";
    finding.because(Level::Error, "the configuration has require = \"zero-copy\"").change(change)
}
