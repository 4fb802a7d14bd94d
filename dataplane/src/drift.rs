//! Watches the interfaces and the host for changes that prevent correct filtering, on a separate thread: the kernel
//! does not answer during a change of an interface, and neither packets nor operators may wait for that.
//!
//! After a notification of the kernel, or after a second without one, the watcher checks both interfaces. It repairs
//! the permitted changes, and publishes the remaining ones. The manager (`manager::supervisor::drift`) reports the
//! result, and ends the process if the filter cannot continue. Notifications only make a check earlier: some are lost,
//! and some changes send none.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Drift, DriftKind};
use knockplane_ring::{Device, Features, LinkChanges, LinkCounters, LinkReader};

use crate::clock::Clock;
use crate::config::Offloads;
use crate::fast_path::SharedFastPath;
use crate::requirements::{self, Observed, Unmet, wire};

/// Time between checks without a notification. The watcher detects a change within two seconds, including the check
/// itself.
const PERIOD: Duration = Duration::from_secs(1);

/// Time between a notification and the check, for related changes: a reset, or the same change of the other interface.
const SETTLE: Duration = Duration::from_millis(100);

/// Changes that the watcher can repair, in the order of [`Findings::repairs`].
pub(crate) const REPAIRABLE: [DriftKind; 4] =
    [DriftKind::Gro, DriftKind::Lro, DriftKind::RxVlan, DriftKind::Promiscuous];

/// One interface as it was at start.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) device: Arc<Device>,
    /// The kernel's id of the XDP program.
    pub(crate) program: u32,
    /// Whether the program runs in the driver.
    pub(crate) is_native: bool,
}

/// Both interfaces as they were at start, outside first.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    pub(crate) interfaces: [Attached; 2],
    /// Number of receive queues of each interface; every queue has a worker.
    pub(crate) queues: u32,
    pub(crate) mtu: u32,
    pub(crate) offloads: Offloads,
    /// Whether the host may have addresses and its default route on the interfaces.
    pub(crate) dedicated: bool,
}

/// The result of the last check.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    /// Time of the check.
    pub(crate) at: Time,
    /// Requirements that are not met, by side.
    pub(crate) drift: [Vec<Drift>; 2],
    /// The reason that the filter must end, if it must.
    pub(crate) end: Option<String>,
    pub(crate) mtu: [u32; 2],
    pub(crate) counters: [LinkCounters; 2],
    /// Repairs since start, by side, in the order of [`REPAIRABLE`].
    pub(crate) repairs: [[u64; REPAIRABLE.len()]; 2],
}

/// Checks the interfaces once, then on a separate thread, which publishes its findings in the returned pointer.
///
/// # Errors
/// If the kernel does not answer, or the interfaces have changed since they were read.
pub(crate) fn watch(
    baseline: Baseline,
    clock: Clock,
    fast_path: SharedFastPath,
) -> anyhow::Result<Arc<ArcSwap<Findings>>> {
    let changes = LinkChanges::listen([0, 1].map(|side: usize| baseline.interfaces[side].device.index()))?;
    let findings = Findings {
        at: clock.now(),
        drift: Default::default(),
        end: None,
        mtu: [baseline.mtu; 2],
        counters: Default::default(),
        repairs: Default::default(),
    };
    let features = Features::open();
    let mut watcher = Watcher { reader: LinkReader::open()?, features, fast_path, baseline, clock, findings };
    watcher.check();
    if let Some(end) = watcher.findings.end.take() {
        anyhow::bail!(end);
    }
    let shared = Arc::new(ArcSwap::from_pointee(watcher.findings.clone()));
    let publish = Arc::clone(&shared);
    let watch = move || {
        loop {
            if changes.wait(PERIOD) {
                thread::sleep(SETTLE);
                changes.take();
            }
            watcher.check();
            publish.store(Arc::new(watcher.findings.clone()));
        }
    };
    thread::Builder::new().name("drift".to_owned()).spawn(watch).context("cannot start a thread")?;
    Ok(shared)
}

struct Watcher {
    baseline: Baseline,
    clock: Clock,
    reader: LinkReader,
    /// `None` before Linux 6.3.
    features: Option<Features>,
    fast_path: SharedFastPath,
    findings: Findings,
}

impl Watcher {
    /// Reads both interfaces, repairs permitted changes, and stores the remaining ones.
    fn check(&mut self) {
        let mut observed = self.observe();
        if let Ok(both) = &observed
            && self.repair(both)
        {
            observed = self.observe();
        }
        self.watch_targets();
        self.findings.at = self.clock.now();
        match observed {
            Ok(observed) => {
                for (side, observed) in observed.iter().enumerate() {
                    let Some(observed) = observed else { continue };
                    self.findings.mtu[side] = observed.link.mtu;
                    self.findings.counters[side] = observed.link.counters;
                }
                match compare(&self.baseline, [0, 1].map(|side: usize| observed[side].as_ref())) {
                    Ok(drift) => self.findings.drift = drift,
                    Err(end) => self.findings.end = Some(end),
                }
            }
            Err((side, error)) => {
                let name = self.baseline.interfaces[side].device.name();
                let problem = format!("the state of {name} is not known: {error}");
                self.findings.drift[side].retain(|drift| drift.kind != DriftKind::Unverified);
                self.findings.drift[side].push(Drift { kind: DriftKind::Unverified, problem });
            }
        }
    }

    /// Tells the fast path which interfaces can send redirected frames now. An interface that cannot would lose them
    /// without a counter. A veth interface can while its far end runs XDP or GRO.
    fn watch_targets(&self) {
        for (side, attached) in Side::ALL.into_iter().zip(&self.baseline.interfaces) {
            let device = &attached.device;
            let can_send = match &self.features {
                Some(features) => {
                    features.of(device.index()).is_ok_and(|found| found.is_some_and(|found| found.can_send()))
                }
                // Drivers of NICs that run XDP programs can, except on some queues: the kernel then refuses a frame.
                None => device.driver() != "veth",
            };
            let remedy = match device.driver() {
                "veth" => "; turn on GRO at the far end of the pair: `ethtool -K INTERFACE gro on`",
                _ => "",
            };
            let unable = || format!("{} cannot send frames that XDP redirects{remedy}", device.name());
            self.fast_path.watch_target(side, (!can_send).then(unable), self.clock.now());
        }
    }

    fn observe(&mut self) -> Result<[Option<Observed>; 2], (usize, knockplane_ring::RingError)> {
        let mut observed = [None, None];
        for (side, observed) in observed.iter_mut().enumerate() {
            let device = &self.baseline.interfaces[side].device;
            *observed = Observed::read(device, &mut self.reader).map_err(|error| (side, error))?;
        }
        Ok(observed)
    }

    /// Repairs permitted changes. Returns whether there was anything to repair.
    fn repair(&mut self, observed: &[Option<Observed>; 2]) -> bool {
        let mut tried = false;
        for (side, observed) in Side::ALL.into_iter().zip(observed) {
            let Some(observed) = observed else { continue };
            let attached = &self.baseline.interfaces[side.index()];
            let mut repaired = |kind: DriftKind, what: &str, result: Result<bool, knockplane_ring::RingError>| {
                tried = true;
                match result {
                    Ok(true) => {
                        let place =
                            REPAIRABLE.iter().position(|repairable| *repairable == kind).expect("it is one of them");
                        let times = &mut self.findings.repairs[side.index()][place];
                        *times += 1;
                        // A program that turns the offload on repeatedly must not fill the log.
                        if times.is_power_of_two() {
                            tracing::warn!(%side, interface = observed.link.name, times, "{what}");
                        }
                    }
                    // The check that follows reports it.
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%side, %error, "cannot be repaired"),
                }
            };
            if self.baseline.offloads == Offloads::TurnOff {
                for offload in observed.harmful_offloads(attached.is_native) {
                    let what = format!("{} was turned on, and was turned off again", offload.name());
                    let is_repaired = |state| !requirements::is_harmful(offload, state, attached.is_native);
                    let kind = wire::offload_is_on(observed, offload).kind;
                    repaired(kind, &what, attached.device.turn_off(offload).map(is_repaired));
                }
            }
            if !observed.link.is_promiscuous() {
                let what = "no longer received frames for all addresses, and was set to again";
                repaired(DriftKind::Promiscuous, what, attached.device.promiscuous().map(|()| true));
            }
        }
        tried
    }
}

/// Compares the interfaces with those at start. Returns the unmet requirements by side, or the reason that the filter
/// must end.
fn compare(baseline: &Baseline, observed: [Option<&Observed>; 2]) -> Result<[Vec<Drift>; 2], String> {
    let mut both = Vec::new();
    for (side, (observed, attached)) in Side::ALL.into_iter().zip(observed.into_iter().zip(&baseline.interfaces)) {
        let observed = observed.ok_or_else(|| gone(side, attached.device.name()))?;
        check_program(side, attached, observed)?;
        both.push(observed);
    }
    let both = [both[0], both[1]];
    let mut drift = [0, 1].map(|side: usize| by_itself(baseline, side, both[side]));
    let problems = wire::of_both(both);
    let queues = both.map(|observed| observed.queues.rx);
    if queues != [baseline.queues; 2] && problems.iter().all(|(_, problem)| problem.kind != DriftKind::Queues) {
        return Err(format!(
            "{} and {} have {} receive queues now and had {} when the filter started, which serves these alone; start \
             again, so that all of them are served",
            both[0].link.name, both[1].link.name, queues[0], baseline.queues
        ));
    }
    for (concerned, problem) in problems {
        let changed = both.map(|observed| match problem.kind {
            DriftKind::Queues => observed.queues.rx != baseline.queues || observed.queues.tx < observed.queues.rx,
            _ => observed.link.mtu != baseline.mtu,
        });
        for side in 0..2 {
            if concerned[side] && changed[side] {
                drift[side].push(problem.clone().into());
            }
        }
    }
    if both.iter().all(|observed| observed.link.mtu == both[0].link.mtu) && both[0].link.mtu > baseline.mtu {
        for (drift, observed) in drift.iter_mut().zip(both) {
            drift.push(too_large(&observed.link.name, observed.link.mtu, baseline.mtu).into());
        }
    }
    Ok(drift)
}

/// The requirements that one interface does not meet, independent of the other one.
fn by_itself(baseline: &Baseline, side: usize, observed: &Observed) -> Vec<Drift> {
    let attached = &baseline.interfaces[side];
    let (name, now) = (attached.device.name(), observed.link.name.as_str());
    let mut drift = wire::of_each(observed);
    if now != name {
        let found = format!("{name} is called {now} now");
        let unmet = Unmet::new(DriftKind::Name, found, "a restart would not find it");
        drift.push(unmet.run(format!("ip link set dev {now} name {name}")));
    }
    drift.extend(observed.harmful_offloads(attached.is_native).map(|offload| wire::offload_is_on(observed, offload)));
    if !observed.link.is_promiscuous() {
        let unmet = Unmet::new(DriftKind::Promiscuous, format!("{now} receives frames for its own address alone"), "");
        drift.push(unmet.run(format!("ip link set dev {now} promisc on")));
    }
    if !baseline.dedicated {
        drift.extend(observed.host_uses.iter().cloned());
    }
    drift.into_iter().map(Drift::from).collect()
}

/// Checks that the filter's program, and no other, is attached to the interface.
fn check_program(side: Side, attached: &Attached, observed: &Observed) -> Result<(), String> {
    let name = &observed.link.name;
    let others: Vec<_> = observed.link.programs.iter().filter(|id| **id != attached.program).collect();
    match (observed.link.programs.contains(&attached.program), others.first()) {
        (true, None) => Ok(()),
        (_, Some(other)) => Err(format!(
            "another XDP program, with id {other}, is attached to {name} ({side}); remove it with \
             `ip link set dev {name} xdp off`, and start again"
        )),
        (false, None) => Err(format!(
            "the filter's XDP program is no longer attached to {name} ({side}): it was detached, or the interface was made \
             anew; start again"
        )),
    }
}

fn gone(side: Side, name: &str) -> String {
    format!(
        "interface {name} ({side}) is gone: it was deleted, made anew or moved to another network namespace, and the \
         filter's end of the wire went with it; start again once it is back"
    )
}

fn too_large(name: &str, mtu: u32, most: u32) -> Unmet {
    let found = format!(
        "{name} has an MTU of {mtu}, and the filter has room for frames of an MTU of {most}, which it had at start"
    );
    Unmet::new(DriftKind::Mtu, found, "longer ones may be dropped")
        .change("start the dataplane again with the new one, or set the old one")
        .run(format!("ip link set dev {name} mtu {most}"))
}

#[cfg(test)]
mod tests {
    use knockplane_ring::{Link, OffloadState, Queues};

    use super::*;

    // Loopback only provides its name: these tests do not use the kernel.
    fn baseline() -> Baseline {
        let device = Arc::new(Device::open("lo").expect("every network namespace has a loopback"));
        let attached = || Attached { device: Arc::clone(&device), program: 7, is_native: true };
        let offloads = Offloads::Refuse;
        Baseline { interfaces: [attached(), attached()], queues: 2, mtu: 1500, offloads, dedicated: false }
    }

    fn observed() -> Observed {
        let mut link = Link { name: "lo".into(), mtu: 1500, programs: vec![7], ..Link::default() };
        (link.flags, link.promiscuity) = (1, 1);
        Observed {
            link,
            queues: Queues { rx: 2, tx: 2, combined: false },
            offloads: [OffloadState::Off; 3],
            host_uses: Vec::new(),
            way_past: Vec::new(),
        }
    }

    /// The kinds that are reported for each side after `change`, or the reason that the filter ends.
    fn reported(change: impl FnOnce(&mut Observed, &mut Observed)) -> Result<[Vec<DriftKind>; 2], String> {
        let mut both = [observed(), observed()];
        let [outside, inside] = &mut both;
        change(outside, inside);
        let found = compare(&baseline(), [Some(&both[0]), Some(&both[1])])?;
        Ok(found.map(|drift| drift.into_iter().map(|drift| drift.kind).collect()))
    }

    #[test]
    fn each_change_is_reported_of_its_side_and_no_change_is_no_drift() {
        use DriftKind::*;
        assert_eq!(reported(|_, _| {}), Ok([vec![], vec![]]));
        assert_eq!(reported(|outside, _| outside.link.flags = 0), Ok([vec![Down], vec![]]));
        assert_eq!(reported(|_, inside| inside.link.promiscuity = 0), Ok([vec![], vec![Promiscuous]]));
        assert_eq!(reported(|_, inside| inside.link.name = "eth7".into()), Ok([vec![], vec![Name]]));
        for kind in [Address, DefaultRoute] {
            let used = |outside: &mut Observed, _: &mut Observed| outside.host_uses.push(Unmet::new(kind, "lo", ""));
            assert_eq!(reported(used), Ok([vec![kind], vec![]]));
            let mut both = [observed(), observed()];
            both[1].host_uses.push(Unmet::new(kind, "lo", ""));
            let dedicated = Baseline { dedicated: true, ..baseline() };
            assert_eq!(compare(&dedicated, [Some(&both[0]), Some(&both[1])]), Ok([vec![], vec![]]));
        }
        for (place, kind) in [Gro, Lro, RxVlan].into_iter().enumerate() {
            assert_eq!(reported(|outside, _| outside.offloads[place] = OffloadState::On), Ok([vec![kind], vec![]]));
        }
        let forced = |outside: &mut Observed, inside: &mut Observed| {
            outside.offloads[0] = OffloadState::Forced;
            inside.offloads[2] = OffloadState::Forced;
        };
        assert_eq!(reported(forced), Ok([vec![], vec![RxVlan]]), "GRO behind a native program changes nothing");
    }

    #[test]
    fn mtus_may_only_shrink_together() {
        use DriftKind::Mtu;
        let mtus = |outside_mtu, inside_mtu| {
            reported(|outside, inside| {
                outside.link.mtu = outside_mtu;
                inside.link.mtu = inside_mtu;
            })
        };
        assert_eq!(mtus(1400, 1400), Ok([vec![], vec![]]));
        assert_eq!(mtus(1400, 1500), Ok([vec![Mtu], vec![]]));
        assert_eq!(mtus(1500, 9000), Ok([vec![], vec![Mtu]]));
        assert_eq!(mtus(1400, 1300), Ok([vec![Mtu], vec![Mtu]]));
        assert_eq!(mtus(1501, 1501), Ok([vec![Mtu], vec![Mtu]]));
    }

    #[test]
    fn different_queues_are_reported_and_a_new_number_on_both_sides_ends_the_filter() {
        use DriftKind::Queues as Kind;
        let queues = |outside_queues: (u32, u32), inside_queues: (u32, u32)| {
            let queues = |(rx, tx)| Queues { rx, tx, combined: false };
            reported(|outside, inside| {
                outside.queues = queues(outside_queues);
                inside.queues = queues(inside_queues);
            })
        };
        assert_eq!(queues((3, 3), (2, 2)), Ok([vec![Kind], vec![]]));
        assert_eq!(queues((2, 2), (1, 2)), Ok([vec![], vec![Kind]]));
        assert_eq!(queues((2, 1), (2, 2)), Ok([vec![Kind], vec![]]), "a worker could not send");
        assert_eq!(queues((2, 3), (2, 2)), Ok([vec![], vec![]]), "more to send by are no harm");
        assert_eq!(queues((3, 3), (3, 2)), Ok([vec![], vec![Kind]]), "which would be refused at start");
        for number in [1, 3] {
            let end = queues((number, 3), (number, 3)).expect_err("it ends");
            assert!(end.contains(&format!("have {number} receive queues now and had 2")), "{end}");
        }
    }

    #[test]
    fn an_interface_without_the_program_ends_the_filter() {
        let end =
            |programs: &[u32]| reported(|_, inside| inside.link.programs = programs.to_vec()).expect_err("it ends");
        assert!(end(&[]).contains("no longer attached to lo (inside)"), "{}", end(&[]));
        assert!(end(&[8]).contains("another XDP program, with id 8"), "{}", end(&[8]));
        assert!(end(&[7, 8]).contains("another XDP program, with id 8"), "{}", end(&[7, 8]));
        let gone = compare(&baseline(), [None, Some(&observed())]).expect_err("it ends");
        assert!(gone.contains("interface lo (outside) is gone"), "{gone}");
    }
}
