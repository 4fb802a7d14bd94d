//! The placement of frames: the distribution of frames over the queues of the NIC, and the cores that handle its
//! interrupts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use knockplane_policy::doctor::{HostFinding, Level};
use knockplane_ring::Rss;

use super::interface::Examined;
use crate::requirements::configured;

pub(crate) fn findings(examined: &Examined<'_>) -> Vec<HostFinding> {
    let cores: Vec<usize> =
        configured::cores(examined.config).unwrap_or_default().into_iter().map(|core| core.id).collect();
    let queues = examined.observed.queues.rx as usize;
    let workers: BTreeSet<usize> = cores.iter().copied().take(queues).collect();
    let all: BTreeSet<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    let interrupts = interrupts(examined.device.name());
    vec![of_rss(examined, examined.device.rss()), of_interrupts(examined, &interrupts, &workers, &all)]
}

/// Packets of one source should arrive on one queue, and every queue should receive its share.
fn of_rss(examined: &Examined<'_>, rss: Option<Rss>) -> HostFinding {
    let (name, queues) = (examined.device.name(), examined.observed.queues.rx);
    if queues == 1 {
        return examined.ok("rss", "one queue: there is nothing to spread");
    }
    let Some(rss) = rss else {
        return examined.ok("rss", "the driver does not tell how it spreads frames");
    };
    let used: BTreeSet<u32> = rss.indirection.iter().copied().filter(|queue| *queue < queues).collect();
    if !rss.indirection.is_empty() && used.len() < queues as usize {
        let found = format!("{name} spreads frames over {} of its {queues} queues", used.len());
        let finding =
            examined.ok("rss", found).because(Level::Warning, "the workers of the other queues get nothing to do");
        return finding.run(format!("ethtool -X {name} equal {queues}"));
    }
    let with_ports: Vec<_> = rss.fields.iter().filter(|fields| fields.ports).map(|fields| fields.flow).collect();
    // igb includes the ports of TCP in its hash, whatever its configuration (docs/hardware.md).
    let (fixed, changeable): (Vec<_>, Vec<_>) =
        with_ports.into_iter().partition(|flow| examined.device.driver() == "igb" && flow.starts_with("tcp"));
    if changeable.is_empty() {
        let fixed = if fixed.is_empty() { String::new() } else { format!("; always by ports: {}", fixed.join(", ")) };
        return examined.ok("rss", format!("spread over all {queues} queues by addresses{fixed}"));
    }
    let found = format!("{name} spreads {} over its queues by ports as well", changeable.join(", "));
    let why = "packets of one knock arrive on several queues; they are still taken in order, but a step may wait for a \
               millisecond";
    let finding = examined.ok("rss", found).because(Level::Warning, why);
    changeable
        .into_iter()
        .fold(finding, |finding, flow| finding.run(format!("ethtool -N {name} rx-flow-hash {flow} sd")))
}

/// An interrupt and the cores that may handle it.
#[derive(Debug, PartialEq, Eq)]
struct Interrupt {
    number: u32,
    cores: BTreeSet<usize>,
}

/// The interrupts of an interface's device; of virtio, those of the PCI device below.
fn interrupts(name: &str) -> Vec<Interrupt> {
    let device = fs::canonicalize(format!("/sys/class/net/{name}/device")).unwrap_or_default();
    let folder = device.ancestors().take(3).map(|folder| folder.join("msi_irqs")).find(|folder| folder.is_dir());
    let numbers = fs::read_dir(folder.unwrap_or_else(PathBuf::new)).into_iter().flatten().flatten();
    let mut interrupts: Vec<_> = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|number: u32| {
            let folder = Path::new("/proc/irq").join(number.to_string());
            // Without a handler there is no effective core.
            let cores = ["effective_affinity_list", "smp_affinity_list"]
                .iter()
                .filter_map(|file| fs::read_to_string(folder.join(file)).ok())
                .map(|text| parse_cores(&text))
                .find(|cores| !cores.is_empty())?;
            Some(Interrupt { number, cores })
        })
        .collect();
    interrupts.sort_by_key(|interrupt| interrupt.number);
    interrupts
}

/// Cores as the kernel lists them: `0-3,8`.
fn parse_cores(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// A worker that shares its core with interrupts waits for them, although other cores could handle the interrupts.
fn of_interrupts(
    examined: &Examined<'_>,
    interrupts: &[Interrupt],
    workers: &BTreeSet<usize>,
    all: &BTreeSet<usize>,
) -> HostFinding {
    if interrupts.is_empty() {
        return examined.ok("interrupts", "none of its own");
    }
    let shared: Vec<_> = interrupts.iter().filter(|interrupt| !interrupt.cores.is_disjoint(workers)).collect();
    let free: Vec<usize> = all.difference(workers).copied().collect();
    if shared.is_empty() {
        return examined.ok("interrupts", format!("{}, on other cores than the workers", interrupts.len()));
    }
    let found = format!("{} of {} interrupts may come to a worker's core", shared.len(), interrupts.len());
    if free.is_empty() {
        return examined.ok("interrupts", format!("{found}: there is no other core"));
    }
    let mut finding = examined
        .ok("interrupts", found)
        .because(Level::Warning, "a worker waits while its core handles them")
        .change("irqbalance moves interrupts: stop it first")
        .run("systemctl stop irqbalance");
    for (interrupt, core) in shared.iter().zip(free.iter().cycle()) {
        finding = finding.run(format!("echo {core} > /proc/irq/{}/smp_affinity_list", interrupt.number));
    }
    finding
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Side;
    use knockplane_ring::{Device, HashFields, LinkReader, Queues};

    use super::*;
    use crate::config::Config;
    use crate::requirements::Observed;

    /// The finding about an interface with this many queues. Loopback only provides its name.
    fn examined(queues: u32, say: impl FnOnce(&Examined<'_>) -> HostFinding) -> HostFinding {
        let config = include_str!("../../../configs/default.toml");
        let config = Config::parse(Path::new("k.toml"), config).expect("the default configuration");
        let device = Device::open("lo").expect("every network namespace has a loopback");
        let mut reader = LinkReader::open().expect("a socket");
        let mut observed = Observed::read(&device, &mut reader).expect("the kernel answers").expect("a loopback");
        observed.queues = Queues { rx: queues, tx: queues, combined: true };
        let side = Side::Inside;
        say(&Examined { config: &config, side, device: &device, observed: &observed, features: None })
    }

    #[test]
    fn frames_are_to_reach_every_queue_and_those_of_a_source_one() {
        let rss = |indirection: &[u32], ports: bool| {
            let fields = ["tcp4", "udp4"].map(|flow| HashFields { flow, ports }).to_vec();
            Some(Rss { indirection: indirection.to_vec(), fields })
        };
        let said = |queues, rss| examined(queues, |examined| of_rss(examined, rss));
        assert_eq!(said(4, rss(&[0, 1, 2, 3, 0, 1], false)).level, Level::Ok);
        assert_eq!(said(1, rss(&[0, 0], true)).level, Level::Ok, "with one queue nothing is spread");
        assert_eq!(said(4, None).level, Level::Ok, "a driver without hardware does not tell");
        let uneven = said(4, rss(&[0, 1, 0, 1, 7], false));
        assert_eq!((uneven.level, &uneven.run[..]), (Level::Warning, &["ethtool -X lo equal 4".to_owned()][..]));
        assert!(uneven.found.contains("over 2 of its 4 queues"), "{uneven}");
        let by_ports = said(2, rss(&[0, 1], true));
        let commands = ["tcp4", "udp4"].map(|flow| format!("ethtool -N lo rx-flow-hash {flow} sd"));
        assert_eq!((by_ports.level, &by_ports.run[..]), (Level::Warning, &commands[..]));
    }

    #[test]
    fn interrupts_are_to_leave_workers_alone_where_there_are_other_cores() {
        let cores = |cores: &[usize]| cores.iter().copied().collect::<BTreeSet<_>>();
        let interrupts =
            [(40, &[0, 1][..]), (41, &[2]), (42, &[1])].map(|(number, on)| Interrupt { number, cores: cores(on) });
        let said = |workers: &[usize], all: &[usize]| {
            examined(2, |examined| of_interrupts(examined, &interrupts, &cores(workers), &cores(all)))
        };
        assert_eq!(said(&[3], &[0, 1, 2, 3]).level, Level::Ok);
        assert_eq!(said(&[0, 1, 2], &[0, 1, 2]).level, Level::Ok, "there is no other core");
        let shared = said(&[0, 1], &[0, 1, 2, 3]);
        assert_eq!(shared.level, Level::Warning);
        assert!(shared.found.starts_with("2 of 3 interrupts"), "{shared}");
        let commands = ["echo 2 > /proc/irq/40/smp_affinity_list", "echo 3 > /proc/irq/42/smp_affinity_list"];
        assert_eq!(shared.run[1..], commands);
    }

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        let cores = |text| parse_cores(text).into_iter().collect::<Vec<_>>();
        assert_eq!(cores("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(cores("5"), [5]);
        assert_eq!((cores(""), cores("x-2")), (vec![], vec![]));
    }
}
