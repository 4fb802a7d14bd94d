//! One interface: the met requirements, and the expected mode of the filter.

use std::fs;

use knockplane_limits::predecessor;
use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_policy::packet::Side;
use knockplane_ring::{Device, NicOffload, OffloadState, XdpFeatures};
use rustix::process::geteuid;

use crate::config::{Config, Require};
use crate::holder;
use crate::requirements::wire::AtStart;
use crate::requirements::{Observed, mode, scope};

/// The interface to examine.
pub(crate) struct Examined<'e> {
    pub(crate) config: &'e Config,
    pub(crate) side: Side,
    pub(crate) device: &'e Device,
    pub(crate) observed: &'e Observed,
    pub(crate) features: Option<XdpFeatures>,
}

impl Examined<'_> {
    pub(crate) fn ok(&self, check: &str, found: impl Into<String>) -> HostFinding {
        HostFinding::ok(scope(self.side), check, found)
    }

    pub(crate) fn findings(&self) -> Vec<HostFinding> {
        let name = self.device.name();
        let driver = if self.device.driver().is_empty() { "none that is known" } else { self.device.driver() };
        let mut findings = vec![
            self.ok("interface", format!("{name}, driver {driver}")),
            self.carrier(),
            self.ok("address", "no address of this host"),
            self.ok("default-route", "not by this interface"),
            self.ok("master", "in no bridge or bond"),
            self.ok("forwarding", "this host forwards nothing that arrives here"),
        ];
        findings.extend(self.observed.offloads.into_iter().zip(NicOffload::ALL).map(|(state, offload)| {
            let found = match state {
                OffloadState::Off => "off",
                OffloadState::Forced => "on behind the program, which changes nothing",
                OffloadState::On => "on; the dataplane turns it off when it starts",
            };
            self.ok(offload.name(), found)
        }));
        findings.push(self.xdp());
        findings
    }

    fn carrier(&self) -> HostFinding {
        let name = self.device.name();
        match self.device.is_up() {
            Ok(true) => self.ok("carrier", "the link is up"),
            Ok(false) if !self.observed.link.is_enabled() => self.ok("carrier", "the interface is down"),
            Ok(false) => self
                .ok("carrier", format!("{name} has no link"))
                .because(Level::Warning, "nothing passes until its cable or its other end is there")
                .run(format!("ethtool {name}")),
            Err(error) => self.ok("carrier", error.to_string()).because(Level::Unknown, ""),
        }
    }

    /// The mode of XDP: the actual one, or the expected one.
    fn xdp(&self) -> HostFinding {
        let require = self.config.require;
        match (self.observed.link.is_native, self.features) {
            (Some(false), _) => mode::generic(require, self.side, self.device),
            (Some(true), _) => self.ok("xdp", format!("native{}", self.abilities())),
            (None, Some(features)) if features.is_native() => {
                self.ok("xdp", format!("native is expected{}", self.abilities()))
            }
            (None, Some(_)) => mode::generic(require, self.side, self.device),
            (None, None) => {
                let finding = self.ok(
                    "xdp",
                    "this kernel does not tell (Linux 6.3 does); `knockctl show status` does once the \
                                              filter runs",
                );
                match require {
                    Require::Any => finding,
                    _ => finding.because(Level::Unknown, "the start decides whether `require` is met"),
                }
            }
        }
    }

    fn abilities(&self) -> String {
        let Some(features) = self.features else { return String::new() };
        let metadata = features.metadata();
        let metadata = if metadata.is_empty() { "none".to_owned() } else { metadata.join(", ") };
        format!(" (driver: {}; metadata: {metadata})", features.names().join(", "))
    }
}

/// Whether frames will be copied, as far as this is known before a start.
pub(crate) fn zero_copy(at_start: &AtStart) -> Option<HostFinding> {
    if at_start.findings.iter().any(|finding| finding.check == "zero-copy") {
        return None;
    }
    let ok = |found: String| Some(HostFinding::ok(Scope::Wire, "zero-copy", found));
    if let Some(reason) = at_start.buffers.as_ref()?.copy_reason() {
        return ok(format!("frames are copied: {reason}"));
    }
    match at_start.features {
        [Some(outside), Some(inside)] if outside.has_zero_copy() && inside.has_zero_copy() => {
            ok("zero-copy is expected: both drivers have it".to_owned())
        }
        [Some(_), Some(_)] => ok("frames are copied: a driver has no zero-copy on this kernel".to_owned()),
        _ => ok("the start decides: this kernel does not tell (Linux 6.3 does)".to_owned()),
    }
}

/// The owner of the XDP program on the interface. A start waits for an exiting process, and otherwise fails.
pub(crate) fn program(side: Side, device: &Device, observed: &Observed, running: Option<i32>) -> HostFinding {
    let ok = |found: String| HostFinding::ok(scope(side), "program", found);
    let name = device.name();
    let Some(id) = observed.link.programs.first() else { return ok("no other XDP program".to_owned()) };
    let why = "only one program can be on an interface: the filter could not attach its own";
    match holder::of_xdp_link(device.index()) {
        Some(pid) if running == Some(pid) => {
            ok(format!("that of the dataplane that runs, {}", predecessor::describe(Some(pid))))
        }
        Some(pid) => {
            let found = format!("the XDP program {id} of {} is attached to {name}", predecessor::describe(Some(pid)));
            ok(found).because(Level::Error, why).change("stop that process").run(format!("ps -o pid,args -p {pid}"))
        }
        None if !geteuid().is_root() || !fs::exists("/proc/1").unwrap_or(false) => {
            let found = format!("the XDP program {id} is attached to {name}; whose it is, this user cannot see");
            ok(found).because(Level::Unknown, why).change("run this as root").run("sudo knockctl doctor")
        }
        None => {
            let found = format!(
                "the XDP program {id} is attached to {name}, and no process of this network namespace holds it"
            );
            let finding = ok(found).because(Level::Error, why);
            finding.change("if no service attached it, remove it").run(format!("ip link set dev {name} xdp off"))
        }
    }
}
