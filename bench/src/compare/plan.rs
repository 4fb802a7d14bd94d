//! The loads, their candidates and the number of windows.
//!
//! The main loads, forwarding and dropping of the shortest frames, get the most windows. The other loads
//! show the effect of longer frames, knocks, rules and list entries.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::candidate::{CandidateKind, Role};
use super::results::{Arrangement, Counted, DROP, FIRST_KNOCKS, FORWARD, STRANGERS, Series};
use super::rules::LoadRules;
use super::throughput::{FILL, Load, WARM_UP_STEP};
use crate::generator::{Profile, Spec};

/// A load in an arrangement.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The frames.
    pub load: Load,
    /// The assignment of cores.
    pub arrangement: Arrangement,
    /// The candidates, which take turns.
    pub kinds: Vec<CandidateKind>,
    /// Number of windows, if there is time.
    pub windows: usize,
}

/// Measured seconds to start and end a candidate, and to take a window besides its load.
const START: f64 = 0.9;
const WINDOW_EXTRA: f64 = 0.35;

/// Maximum number of bytes of an entry: twice the largest measured value of all candidates.
const BYTES_AN_ENTRY: u64 = 400;

/// Frames a second that candidates forward while they warm up, approximately.
const WARM_UP_RATE: f64 = 1e6;

/// First knocks a second that fill lists without loss at any candidate while its table grows.
const fn fill_rate(arrangement: Arrangement) -> u64 {
    match arrangement {
        Arrangement::S => 300_000,
        Arrangement::T => 200_000,
    }
}

impl Planned {
    /// The name, by which a run can select measurements.
    pub fn name(&self) -> String {
        format!("{}, {:?}", self.load.name, self.arrangement)
    }

    /// Estimated seconds with windows of this length.
    pub fn seconds(&self, window: Duration) -> f64 {
        let windows = self.windows as f64 * (window.as_secs_f64() + WINDOW_EXTRA);
        let fill = self.load.first.as_ref().map_or(0.0, |first| {
            let count = first.count.unwrap_or_default() as f64;
            count / first.rate.map_or(f64::MAX, |rate| rate as f64) + WINDOW_EXTRA * (count / FILL as f64).ceil()
        });
        let frames = self.load.warm_up_frames() as f64;
        let warm_up = frames / WARM_UP_RATE + WINDOW_EXTRA * (frames / WARM_UP_STEP as f64).ceil();
        self.kinds.len() as f64 * (START + windows + fill + warm_up)
    }

    /// Bytes of memory needed.
    pub fn memory(&self) -> u64 {
        self.kinds.len() as u64 * self.load.rules.capacity as u64 * BYTES_AN_ENTRY
    }
}

/// The largest number of entries, as a power of two.
const MOST_ENTRIES: u8 = 23;

/// All loads, in the order in which they are shown. A quick run has fewer loads and fewer windows.
pub fn plan(quick: bool) -> Vec<Planned> {
    let often = if quick { 3 } else { 14 };
    let seldom = if quick { 2 } else { 3 };
    let some = if quick { 2 } else { 3 };
    let mut loads = vec![(forward(FORWARD, 60), often), (drop(), if quick { 2 } else { 10 })];
    if !quick {
        loads.push((forward("forward 1514 B", 1514), some));
    }
    loads.extend([(strangers(), if quick { 1 } else { some }), (knock(), some), (first_knocks(), some)]);
    if !quick {
        loads.push((mix(), some));
    }
    let in_front: &[usize] = if quick { &[1_000] } else { &[1, 100, 1_000, 10_000] };
    loads.extend(in_front.iter().map(|rules| (rules_in_front(*rules), seldom)));
    // Powers of two, because sources are those of a prefix.
    let listed: &[u8] = if quick { &[] } else { &[1, 14, 20, MOST_ENTRIES] };
    loads.extend(listed.iter().map(|bits| (entries(*bits), seldom)));

    let in_both = |(load, windows): (Load, usize)| {
        Arrangement::ALL.map(|arrangement| {
            let mut load = load.clone();
            if let (Some(Series::Entries(_)), Some(first)) = (load.series, &mut load.first) {
                first.rate = Some(fill_rate(arrangement));
            }
            Planned { kinds: kinds(&load, arrangement), load, arrangement, windows }
        })
    };
    let mut planned: Vec<Planned> = loads.into_iter().flat_map(in_both).collect();
    // The largest number in one arrangement only: filling the lists takes longer than measuring, and a cache miss costs the
    // same in both.
    planned.retain(|planned| {
        let most = Some(Series::Entries(1 << MOST_ENTRIES));
        planned.load.series != most || planned.arrangement == Arrangement::S
    });
    planned
}

/// The candidates of a load: those that do not read frames take no part in loads with knocks.
fn kinds(load: &Load, arrangement: Arrangement) -> Vec<CandidateKind> {
    let hears = matches!(load.spec.profile, Profile::Knock | Profile::FirstKnocks);
    let mut kinds = vec![CandidateKind::Knockplane];
    match load.series {
        Some(Series::Rules(_)) => kinds.extend([CandidateKind::Nftables, CandidateKind::NftablesBridge]),
        // To fill longer lists once more takes too long.
        Some(Series::Entries(..=16_384)) => {
            kinds.extend([CandidateKind::KnockplaneUserspace, CandidateKind::Nftables]);
        }
        Some(Series::Entries(_)) => kinds.push(CandidateKind::Nftables),
        None if load.name == STRANGERS => {
            kinds.extend([CandidateKind::Nftables, CandidateKind::Xdp]);
        }
        None if hears => {
            kinds.extend([CandidateKind::Nftables, CandidateKind::NftablesRps, CandidateKind::NftablesBridge])
        }
        None if load.spec.profile == Profile::Mix => {
            kinds.extend([
                CandidateKind::Smallest,
                CandidateKind::Nftables,
                CandidateKind::NftablesRps,
                CandidateKind::NftablesBridge,
            ]);
        }
        None => kinds.extend([
            CandidateKind::Smallest,
            CandidateKind::SmallestSpinning,
            CandidateKind::Nftables,
            CandidateKind::NftablesRps,
            CandidateKind::NftablesBridge,
            CandidateKind::Xdp,
        ]),
    }
    // These candidates show what the kernel's fast path brings, and its bound.
    if [FORWARD, DROP].contains(&load.name.as_str()) {
        kinds.push(CandidateKind::KnockplaneUserspace);
    }
    if load.name == FORWARD {
        kinds.push(CandidateKind::XdpParse);
    }
    if load.name == FIRST_KNOCKS {
        kinds.push(CandidateKind::KnockplaneDoor);
    }
    // The rings of the other library differ in the cost of a small frame. The run has no time for this candidate under
    // other loads.
    if arrangement == Arrangement::S && [FORWARD, DROP].contains(&load.name.as_str()) {
        kinds.push(CandidateKind::SmallestXskRs);
    }
    // In T there is no other core for RPS.
    kinds.retain(|kind| *kind != CandidateKind::NftablesRps || arrangement == Arrangement::S);
    kinds
}

/// One flow that the rules accept.
fn forward(name: &str, frame_bytes: usize) -> Load {
    Load {
        name: name.to_owned(),
        series: None,
        spec: Spec { frame_bytes: Some(frame_bytes), ..Spec::new(Profile::Flow) },
        counted: Counted::Forwarded,
        role: Role::Forward,
        rules: LoadRules::default(),
        first: None,
    }
}

/// One flow of a source that has not knocked.
fn drop() -> Load {
    let mut load = Load { counted: Counted::Decided, role: Role::Drop, ..forward(DROP, 60) };
    load.spec.source = prefix(Ipv4Addr::new(198, 18, 0, 2), 16);
    load
}

/// Packets from random sources to a closed port.
fn strangers() -> Load {
    let mut load =
        sent(Profile::SourcesRandom, Load { counted: Counted::Decided, role: Role::Drop, ..forward(STRANGERS, 60) });
    load.spec.source = prefix(LISTED, 8);
    load
}

/// All sources knock twice and are admitted; the lists have room for all.
fn knock() -> Load {
    sent(Profile::Knock, Load { counted: Counted::Decided, ..forward("knocks", 60) })
}

/// No source sends a second knock, and the lists are full: entries are evicted, or new ones refused.
fn first_knocks() -> Load {
    let rules = LoadRules { capacity: 1 << 16, ..LoadRules::default() };
    let mut load = sent(Profile::FirstKnocks, Load { counted: Counted::Decided, rules, ..forward(FIRST_KNOCKS, 60) });
    load.spec.source = prefix(LISTED, 8);
    // Both lists share one pool.
    load.first = Some(Spec { count: Some(1 << 18), ..load.spec.clone() });
    load
}

/// A flow that the rules accept, a scan by the same source, and first knocks.
fn mix() -> Load {
    sent(Profile::Mix, forward("mix", 60))
}

/// One flow that the rules accept, after rules that match nothing.
fn rules_in_front(in_front: usize) -> Load {
    let rules = if in_front == 1 { "rule" } else { "rules" };
    Load {
        series: Some(Series::Rules(in_front as u64)),
        rules: LoadRules { in_front, ..LoadRules::default() },
        ..forward(&format!("{} {rules} in front", grouped(in_front as u64)), 60)
    }
}

/// Frames of 2 to the power of `bits` random sources, all of which the rules accept.
fn entries(bits: u8) -> Load {
    let entries = 1 << bits;
    let mut load = sent(
        Profile::SourcesRandom,
        Load {
            series: Some(Series::Entries(entries)),
            // The list also has room for the source that needs no knock.
            rules: LoadRules { one_knock: true, capacity: entries as usize + 1024, ..LoadRules::default() },
            ..forward(&format!("{} entries", grouped(entries)), 60)
        },
    );
    load.spec.source = prefix(LISTED, 32 - bits);
    load.first = Some(Spec { profile: Profile::FirstKnocks, count: Some(entries), ..load.spec.clone() });
    load
}

/// The first source of floods and of long lists.
const LISTED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

fn sent(profile: Profile, load: Load) -> Load {
    Load { spec: Spec { profile, ..load.spec }, ..load }
}

/// A number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

fn prefix(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_filled_with_the_sources_of_frames() {
        for planned in plan(false).into_iter().chain(plan(true)) {
            let (Some(Series::Entries(entries)), Some(first)) = (planned.load.series, &planned.load.first) else {
                continue;
            };
            let IpNet::V4(sources) = planned.load.spec.source else { panic!("IPv4") };
            assert_eq!((sources.addr(), first.count), (sources.network(), Some(entries)));
            assert_eq!(1 << (32 - sources.prefix_len()), entries);
            assert_eq!(first.source, planned.load.spec.source);
            assert!(planned.load.rules.one_knock && planned.load.rules.capacity as u64 > entries);
        }
    }

    #[test]
    fn specs_fit_together() {
        for planned in plan(false).into_iter().chain(plan(true)) {
            for spec in [Some(&planned.load.spec), planned.load.first.as_ref()].into_iter().flatten() {
                spec.checked_frame_bytes().expect("frames that can be made");
            }
            assert!(planned.windows > 0);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = plan(false).iter().map(Planned::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
