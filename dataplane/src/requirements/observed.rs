//! The state of an interface at one moment, and the effect of the host on its frames.

use std::fs;
use std::path::Path;

use knockplane_policy::wire::DriftKind;
use knockplane_ring::{Device, Error, Link, Offload, OffloadState, Queues, Reader};

use super::Unmet;

/// An interface in the kernel's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) link: Link,
    pub(crate) queues: Queues,
    /// In the order of [`Offload::ALL`].
    pub(crate) offloads: [OffloadState; Offload::ALL.len()],
    /// The uses of the interface, or of a device on it, by the host: addresses and the default route.
    pub(crate) host_uses: Vec<Unmet>,
    /// Configurations with which the host would forward frames past the filter.
    pub(crate) way_past: Vec<Unmet>,
}

impl Observed {
    /// Reads the state; `None` if the interface does not exist any more.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub(crate) fn read(device: &Device, reader: &mut Reader) -> Result<Option<Self>, Error> {
        let rest = |reader: &mut Reader, link: Link| -> Result<Observed, Error> {
            let mut offloads = [OffloadState::Off; Offload::ALL.len()];
            for (state, offload) in offloads.iter_mut().zip(Offload::ALL) {
                *state = device.offload(offload)?;
            }
            let stack = stack(&link, device.index());
            Ok(Observed {
                queues: device.queues()?,
                offloads,
                host_uses: host_uses(&link.name, &stack, reader)?,
                way_past: stack.iter().flat_map(|stacked| ways_past(&link.name, stacked)).collect(),
                link,
            })
        };
        let Some(link) = reader.link(device.index())? else { return Ok(None) };
        match rest(reader, link) {
            Ok(observed) => Ok(Some(observed)),
            // An interface that is deleted between two requests is no error.
            Err(error) => {
                if reader.link(device.index())?.is_none() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Offloads that are on and must be off.
    pub(crate) fn harmful_offloads(&self, is_native: bool) -> impl Iterator<Item = Offload> {
        let states = self.offloads.into_iter().zip(Offload::ALL);
        states.filter_map(move |(state, offload)| is_harmful(offload, state, is_native).then_some(offload))
    }
}

/// Whether an offload in this state changes frames. A driver may turn on GRO for a native XDP program. This is
/// harmless: GRO then runs after the program, which receives frames as they arrived.
pub(crate) fn is_harmful(offload: Offload, state: OffloadState, is_native: bool) -> bool {
    match state {
        OffloadState::Off => false,
        OffloadState::Forced => !is_native || offload != Offload::Gro,
        OffloadState::On => true,
    }
}

/// Maximum number of stacked devices that the search follows.
const MAX_STACKED: usize = 4;

/// The interface, or a device on it such as a VLAN.
struct Stacked {
    name: String,
    /// 0 if the device is in another network namespace.
    index: u32,
    has_master: bool,
}

/// The interface and the devices on it.
fn stack(link: &Link, index: u32) -> Vec<Stacked> {
    let mut stack = Vec::new();
    let base = Stacked { name: link.name.clone(), index, has_master: link.master != 0 };
    add_stacked(base, MAX_STACKED, &mut stack);
    stack
}

fn add_stacked(device: Stacked, depth: usize, stack: &mut Vec<Stacked>) {
    let folder = Path::new("/sys/class/net").join(&device.name);
    let master = fs::read_link(folder.join("master")).ok();
    let master = master.as_deref().and_then(Path::file_name);
    // Devices on this one: `upper_NAME`, Linux Documentation/ABI/testing/sysfs-class-net.
    let above = fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_prefix("upper_")?.to_owned();
        (master.is_none_or(|master| *master != *name)).then_some(name)
    });
    let above: Vec<_> = if depth > 0 { above.collect() } else { Vec::new() };
    let has_master = device.has_master || master.is_some();
    stack.push(Stacked { has_master, ..device });
    for name in above {
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok();
        let index = index.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        add_stacked(Stacked { name, index, has_master: false }, depth - 1, stack);
    }
}

/// The name of a device of the stack in messages.
fn called(interface: &str, device: &str) -> String {
    if device == interface { device.to_owned() } else { format!("{device} (on {interface})") }
}

/// The addresses and the default route of the host on the interface. The filter takes every frame that arrives there.
fn host_uses(interface: &str, stack: &[Stacked], reader: &mut Reader) -> Result<Vec<Unmet>, Error> {
    const ONE_NIC: &str = "move it to another interface (a host with one NIC: see configs/one-nic), or set dedicated = true if \
                           the host does not need it";
    let mut uses = Vec::new();
    let default_routes = reader.default_routes()?;
    for device in stack.iter().filter(|device| device.index != 0) {
        let found = reader.addresses(device.index)?;
        let who = called(interface, &device.name);
        if !found.is_empty() {
            let plural = if found.len() == 1 { "the address" } else { "the addresses" };
            let mut unmet = Unmet::new(
                DriftKind::Address,
                format!("{who} has {plural} {}", found.join(", ")),
                "the filter takes all frames that arrive there, so the host cannot be reached by it, and what the host sends \
                 goes past the filter",
            )
            .change(ONE_NIC);
            for address in &found {
                unmet = unmet.run(format!("ip addr del {address} dev {}", device.name));
            }
            uses.push(unmet);
        }
        if default_routes.contains(&device.index) {
            let unmet = Unmet::new(
                DriftKind::DefaultRoute,
                format!("this host's default route goes out by {who}"),
                "the filter takes all frames that arrive there, so the host would be cut off",
            );
            uses.push(unmet.change(ONE_NIC).run(format!("ip route del default dev {}", device.name)));
        }
    }
    Ok(uses)
}

/// The ways in which the host would forward frames from a device of the stack after the removal of the program, with
/// the remedies; empty if there are none.
fn ways_past(interface: &str, device: &Stacked) -> Vec<Unmet> {
    let who = called(interface, &device.name);
    let device_name = &device.name;
    let mut ways = Vec::new();
    if device.has_master {
        let unmet = Unmet::new(
            DriftKind::Master,
            format!("{who} belongs to a bridge or bond"),
            "it would forward past the filter",
        );
        ways.push(unmet.run(format!("ip link set dev {device_name} nomaster")));
    }
    for family in ["ipv4", "ipv6"] {
        let setting = fs::read_to_string(format!("/proc/sys/net/{family}/conf/{device_name}/forwarding"));
        if setting.is_ok_and(|setting| setting.trim() == "1") {
            let unmet = Unmet::new(
                DriftKind::Forwarding,
                format!("this host forwards {family} packets that arrive on {who}"),
                "they would pass after the filter ends",
            );
            ways.push(unmet.run(format!("sysctl -w net.{family}.conf.{device_name}.forwarding=0")));
        }
    }
    ways
}
