//! The results of a run of the comparison. They are written as JSON, and all tables follow from them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The assignment of the kernel's receive side to the two cores. The generator is always on core 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arrangement {
    /// Two cores: the receive softirq runs on the generator's core, which is the default of veth. A candidate in userspace
    /// has core 1 to itself; a candidate in the kernel uses core 0 alone.
    S,
    /// One core: threaded NAPI on core 1, so that all of the filter's work is there.
    T,
}

impl Arrangement {
    /// Both arrangements.
    pub const ALL: [Arrangement; 2] = [Arrangement::S, Arrangement::T];
}

impl fmt::Display for Arrangement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The main load for forwarding: one flow of the shortest frames, which the rules accept.
pub const FORWARD: &str = "forward 60 B";
/// The main load for dropping: one flow of the shortest frames, which the rules drop.
pub const DROP: &str = "drop 60 B";
/// The name of the load of strangers.
pub const STRANGERS: &str = "drop, random sources";
/// The load of strangers that begin to knock, each of which evicts another one.
pub const FIRST_KNOCKS: &str = "spoofed first knocks, lists full";

/// The count of a window that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Frames that arrived at the server.
    Forwarded,
    /// Frames that the candidate decided.
    Decided,
}

/// The time of a core during a window, as parts of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreUse {
    /// In processes.
    pub user: f64,
    /// In the kernel on behalf of processes and its own threads.
    pub system: f64,
    /// In soft interrupts: the network stack outside processes.
    pub softirq: f64,
    /// The rest.
    pub idle: f64,
}

/// One window of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Seconds from the first frame to the last.
    pub seconds: f64,
    /// Frames that the generator made.
    pub offered: u64,
    /// Of these, frames that the candidate decided.
    pub decided: u64,
    /// Of these, frames that arrived at the server.
    pub forwarded: u64,
    /// Lost frames by place. `nowhere` has frames in no counter, or in two.
    pub lost: BTreeMap<String, u64>,
    /// The time of each core.
    pub cores: Vec<CoreUse>,
}

impl Window {
    /// Frames a second.
    pub fn rate(&self, counted: Counted) -> f64 {
        let frames = match counted {
            Counted::Forwarded => self.forwarded,
            Counted::Decided => self.decided,
        };
        if self.seconds > 0.0 { frames as f64 / self.seconds } else { 0.0 }
    }

    /// The part of the frames offered that was lost.
    pub fn loss(&self) -> f64 {
        let lost: u64 = self.lost.values().sum();
        if self.offered > 0 { lost as f64 / self.offered as f64 } else { 0.0 }
    }
}

/// A series of loads that differ in one number, and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Series {
    /// Rules that match nothing, in front of those of the knocks.
    Rules(u64),
    /// Entries of the list of admitted sources, whose frames come in turns.
    Entries(u64),
}

/// The windows of one candidate under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// The load, such as [`FORWARD`].
    pub load: String,
    /// The series of the load; `None` for a single load.
    #[serde(default)]
    pub series: Option<Series>,
    /// The assignment of cores.
    pub arrangement: Arrangement,
    /// The candidate.
    pub candidate: String,
    /// The compared count.
    pub counted: Counted,
    /// The windows in order of time. Candidates take turns, so the n-th windows of all candidates are within seconds.
    pub windows: Vec<Window>,
}

impl Throughput {
    /// Quantile of the windows' rates, in frames a second: 0.5 is the median.
    pub fn rate(&self, part: f64) -> f64 {
        let rates: Vec<f64> = self.windows.iter().map(|window| window.rate(self.counted)).collect();
        quantile(&rates, part)
    }

    /// Spread of the windows: p90 minus p10, as a part of the median.
    pub fn spread(&self) -> f64 {
        let median = self.rate(0.5);
        if median > 0.0 { (self.rate(0.9) - self.rate(0.1)) / median } else { 0.0 }
    }

    /// Lost parts of the offered frames of all windows, by place, the largest first.
    pub fn lost(&self) -> Vec<(&str, f64)> {
        let offered: u64 = self.windows.iter().map(|window| window.offered).sum();
        let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, frames) in self.windows.iter().flat_map(|window| &window.lost) {
            *lost.entry(name).or_default() += frames;
        }
        let mut lost: Vec<(&str, f64)> =
            lost.into_iter().map(|(name, frames)| (name, frames as f64 / offered.max(1) as f64)).collect();
        lost.sort_by(|one, other| other.1.total_cmp(&one.1));
        lost
    }

    /// Median of a figure of the windows.
    pub fn median(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        quantile(&self.windows.iter().map(figure).collect::<Vec<_>>(), 0.5)
    }
}

/// Loss of a forwarding candidate at each offered rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossCurve {
    /// The assignment of cores.
    pub arrangement: Arrangement,
    /// The candidate.
    pub candidate: String,
    /// The points, ascending by rate.
    pub points: Vec<LossPoint>,
    /// The highest rate, in frames a second, with a loss of at most a hundredth; 0 if there is none.
    pub loss_free: f64,
}

/// A point of a [`LossCurve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Requested frames a second.
    pub rate: f64,
    /// Offered frames a second; median.
    pub offered: f64,
    /// Forwarded frames a second; median.
    pub forwarded: f64,
    /// Lost part; median.
    pub loss: f64,
}

/// Time of frames from one end to the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The assignment of cores.
    pub arrangement: Arrangement,
    /// Candidate; `wire` is a pair of interfaces without a candidate.
    pub candidate: String,
    /// Direction and rate.
    pub probe: Probe,
    /// Frames sent a second; for round trips, the achieved rate.
    pub rate: f64,
    /// The part of the frames that did not arrive.
    pub loss: f64,
    /// Microseconds, the median of the windows' medians.
    pub p50: f64,
    /// Microseconds, the median of the windows' 99th percentiles.
    pub p99: f64,
}

/// The kind of a latency measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// One way, at 100,000 frames a second.
    OneWay,
    /// One way, at half of the candidate's loss-free rate.
    OneWayHalfLoad,
    /// Round trip, one frame at a time.
    RoundTrip,
}

/// Resources of knockplane besides packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Seconds from the start of the dataplane's process to the first frame forwarded.
    pub start_seconds: f64,
    /// The part of a core that the idle dataplane takes.
    pub idle: f64,
    /// Resident bytes, directly after the start.
    pub resident_bytes: u64,
    /// Of these, list entries and their index.
    pub table_bytes: u64,
}

/// Real knocks heard during a flood of first knocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deafness {
    /// The listener.
    pub candidate: String,
    /// First knocks a second, each from another source; 0 without a flood.
    pub flood: f64,
    /// Real knocks sent.
    pub knocks: u32,
    /// Of these, those that opened the door.
    pub heard: u32,
    /// The part of a core that the listener's processes used; `None` if the kernel listens.
    pub cpu: Option<f64>,
}

/// Properties of the machine on which results depend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub cpu: String,
    /// Number of processors.
    pub cores: usize,
    /// Caches of the first processor, without those of instructions, from the smallest to the largest; empty if unknown.
    #[serde(default)]
    pub caches: Vec<Cache>,
    /// `uname -r`.
    pub kernel: String,
    /// Bytes of memory.
    pub memory: u64,
    /// The Rust compiler and profile.
    pub compiler: String,
    /// `nft --version`.
    pub nftables: String,
}

/// A cache of a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// `L1d`, `L2`, `L3`.
    pub name: String,
    /// The size.
    pub bytes: u64,
    /// Number of processors that share it.
    pub cores: usize,
}

/// All results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The machine.
    pub machine: Machine,
    /// Whether it was the short run.
    pub quick: bool,
    /// Duration of the run in seconds.
    pub took: f64,
    /// Rates under loads, in the order in which they are shown.
    pub throughput: Vec<Throughput>,
    /// Loss over rate.
    pub loss: Vec<LossCurve>,
    /// Latencies.
    pub latency: Vec<Latency>,
    /// Floods of first knocks.
    pub deafness: Vec<Deafness>,
    /// Start, idle CPU time and memory.
    pub upkeep: Option<Upkeep>,
    /// Measurements that were left out, and the reasons.
    pub left_out: Vec<String>,
}

impl Results {
    /// The p90 of a candidate's rates under a load, in frames a second.
    pub fn rate(&self, load: &str, arrangement: Arrangement, candidate: &str) -> Option<f64> {
        let is_it =
            |row: &&Throughput| row.load == load && row.arrangement == arrangement && row.candidate == candidate;
        self.throughput.iter().find(is_it).map(|row| row.rate(0.9))
    }
}

/// The value at this part of the way from the smallest to the largest of these values; 0 without values.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * part).round() as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.9), 3.0);
    }

    #[test]
    fn losses_are_of_all_windows() {
        let window = |link, full| Window {
            seconds: 1.0,
            offered: 100,
            decided: 0,
            forwarded: 0,
            lost: [("link".to_owned(), link), ("tx-full".to_owned(), full)].into(),
            cores: Vec::new(),
        };
        let row = Throughput {
            load: FORWARD.to_owned(),
            series: None,
            arrangement: Arrangement::S,
            candidate: "smallest".to_owned(),
            counted: Counted::Forwarded,
            windows: vec![window(5, 20), window(5, 40)],
        };
        assert_eq!(row.lost(), [("tx-full", 0.3), ("link", 0.05)]);
    }

    #[test]
    fn a_window_knows_its_loss() {
        let window = Window {
            seconds: 2.0,
            offered: 100,
            decided: 80,
            forwarded: 60,
            lost: [("link".to_owned(), 15), ("tx-full".to_owned(), 5)].into(),
            cores: Vec::new(),
        };
        assert_eq!(window.rate(Counted::Decided), 40.0);
        assert_eq!(window.rate(Counted::Forwarded), 30.0);
        assert_eq!(window.loss(), 0.2);
    }
}
