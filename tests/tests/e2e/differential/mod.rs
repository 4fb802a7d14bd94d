//! The differential test against nftables: the kernel's nftables decides the same packets under the same rules,
//! and both verdicts must be equal.
//!
//! Rules are parsed from text; the filter gets the text, nftables the translation by [`nft`]. Both are between two
//! hosts, see [`lanes`]. docs/nftables.md lists the known differences; rules and packets avoid them.
//!
//! | file           | contents |
//! |----------------|---------------|
//! | this           | the comparison |
//! | `sets.rs`      | handwritten rule sets |
//! | `anything.rs`  | random rule sets |
//! | `packets.rs`   | conversations |
//! | `tcp.rs`       | TCP segments of both ends, and their numbers |
//! | `bytes.rs`     | frames, byte by byte |
//! | `nft.rs`, `condition.rs` | translation of rules to nftables |
//! | `lanes.rs`     | frames at both ends |
//! | `random.rs`    | random numbers |

mod anything;
mod bytes;
mod condition;
mod lanes;
mod nft;
mod packets;
mod sets;
mod tcp;

use std::env;
use std::fs;

use anyhow::{Context as _, ensure};
use knockplane_policy::packet::Side;
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_tests::{Filter, FilterOptions, Topology};
use rustix::thread::{CpuSet, sched_setaffinity};

use self::lanes::{Arrived, Lane};
use self::packets::{Plan, Shot};
use self::tcp::Variations;
use crate::end::EXPERIMENTS_PASS;
use crate::random::Random;
use crate::scenario::with;

/// Number of random rule sets.
const RANDOM_SETS: usize = 60;
/// Number of runs of each set about windows.
const WINDOW_ROUNDS: usize = 4;
/// Frames for each set.
const FRAMES: u32 = 700;
/// Maximum number of frames between two reads of the other end, whose socket has room for some hundred.
const RUN: usize = 64;
/// Number of differences that are printed.
const TOLD: usize = 8;

/// The filter and nftables, with the numbers of comparisons.
struct Comparison<'a> {
    filter: &'a Filter<'a>,
    /// The namespace of nftables.
    bridge: &'a Topology,
    ours: Lane,
    theirs: Lane,
    /// Frame numbers, which are never reused.
    next: u32,
    sets: u8,
    frames: u32,
    forwarded: u32,
    differences: Vec<String>,
}

#[test]
fn the_filter_and_nftables_decide_alike_about_every_packet() {
    // The variable repeats a run. A failure prints its seed.
    let seed = env::var("DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x6b6e_6f63_6b21);
    let mut options = FilterOptions::from_rules("/ip firewall filter\nadd chain=input\n");
    options.sections = EXPERIMENTS_PASS.to_owned();
    with(&options, |topology, filter| {
        let bridge = Topology::new(1).expect("a second scene");
        lanes::bridge(&bridge).expect("a bridge");
        let (ours, theirs) = (Lane::open(topology).expect("sockets"), Lane::open(&bridge).expect("sockets"));
        stay_on_one_core();
        let differences = Vec::new();
        let mut comparison = Comparison {
            filter,
            bridge: &bridge,
            ours,
            theirs,
            next: 0,
            sets: 0,
            frames: 0,
            forwarded: 0,
            differences,
        };
        let mut random = Random(seed);
        for (name, rules) in sets::BY_HAND {
            comparison.try_set(name, rules, &mut random, packets::shots).expect(name);
        }
        for (name, rules) in sets::OF_FRAGMENTS {
            comparison.try_set(name, rules, &mut random, packets::fragments).expect(name);
        }
        for (name, rules) in sets::OF_WINDOWS.iter().cycle().take(sets::OF_WINDOWS.len() * WINDOW_ROUNDS) {
            comparison.try_set(name, rules, &mut random, packets::shots).expect(name);
        }
        for number in 0..RANDOM_SETS {
            let rules = anything::rules(&mut random);
            comparison.try_set(&format!("random set {number}"), &rules, &mut random, packets::shots).expect(&rules);
        }
        let Comparison { sets, frames, forwarded, differences, .. } = comparison;
        println!("seed {seed}: {sets} rule sets, {frames} packets, {forwarded} forwarded");
        let told = differences.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n\n");
        assert!(differences.is_empty(), "DIFFERENTIAL_SEED={seed}: {} differences\n{told}", differences.len());
        assert!(forwarded > frames / 5 && forwarded < frames / 5 * 4, "some frames pass and some are dropped");
    });
}

/// Pins the test to one core, because frames from one core arrive in the order in which they were sent.
fn stay_on_one_core() {
    let mut one = CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &one).expect("a core");
}

impl Comparison<'_> {
    /// Applies the rules on both sides, and sends frames.
    fn try_set(
        &mut self,
        name: &str,
        rules: &str,
        random: &mut Random,
        shots: fn(&mut Random, Plan) -> Vec<Shot>,
    ) -> anyhow::Result<()> {
        self.sets += 1;
        let text = rules.replace("10.K.", &format!("10.{}.", self.sets)).replace(":K:", &format!(":{}:", self.sets));
        let reading = rsc::read(text.as_bytes());
        ensure!(reading.problems.is_empty(), "{:?}", reading.problems);
        self.apply(&text, &reading.rules)?;
        let is_known = sets::OF_WINDOWS.iter().any(|(of_windows, _)| name == *of_windows);
        let reuses = !text.contains("action=notrack");
        let tcp = Variations { is_known, reuses, strays: is_known && !reading.rules.tracking.loose_tcp };
        let shots = shots(random, Plan { set: self.sets, first: self.next, count: FRAMES, tcp });
        self.next += shots.len() as u32;
        self.frames += shots.len() as u32;
        let (mut sent, mut ours, mut theirs) = (0, Arrived::new(), Arrived::new());
        while let Some(first) = shots.get(sent) {
            let more = shots[sent..].iter().take(RUN).take_while(|shot| shot.from == first.from).count();
            self.shoot(first.from, &shots[sent..sent + more], &mut ours, &mut theirs)?;
            sent += more;
        }
        // The comparison is at the end, because the kernel may hold a fragment until it has all of them.
        let mut wrong = Vec::new();
        for Shot { number, from, .. } in &shots {
            let passed = (ours.contains(&(*from, *number)), theirs.contains(&(*from, *number)));
            self.forwarded += u32::from(passed.0 || passed.1);
            if passed.0 != passed.1 {
                wrong.push((*number, passed.0));
            }
        }
        if let Some((number, _)) = wrong.first() {
            self.differences.push(told(name, &text, &shots, &wrong, *number));
        }
        Ok(())
    }

    fn apply(&self, text: &str, rules: &RuleSet) -> anyhow::Result<()> {
        let file = self.filter.path("compared.rsc");
        fs::write(&file, text)?;
        let applied = self.filter.knockctl(&["apply", "--force", &file.display().to_string()])?;
        ensure!(applied.ok(), "knockctl apply: {}{}", applied.stdout, applied.stderr);
        let translated = nft::translate(rules)?;
        lanes::load(self.bridge, &translated, &self.filter.path("compared.nft"))?;
        let loose = if rules.tracking.loose_tcp { "1" } else { "0" };
        self.bridge.filter.set("net/netfilter/nf_conntrack_tcp_loose", loose)
    }

    /// Sends frames of one side through both, and collects those that arrived: through the filter, and through
    /// nftables.
    fn shoot(&mut self, from: Side, run: &[Shot], ours: &mut Arrived, theirs: &mut Arrived) -> anyhow::Result<()> {
        let last = u32::MAX - run[0].number;
        let end = bytes::end_mark(packets::mac((from, 0)), packets::mac((from.opposite(), 0)), last);
        for lane in [&self.ours, &self.theirs] {
            for shot in run {
                lane.send(from, &shot.frame).with_context(|| shot.says.clone())?;
            }
            lane.send(from, &end)?;
        }
        self.ours.arrivals(from, last, ours)?;
        self.theirs.arrivals(from, last, theirs)?;
        Ok(())
    }
}

/// The description of a difference: the rules, and the conversation up to the frame.
fn told(name: &str, text: &str, shots: &[Shot], wrong: &[(u32, bool)], number: u32) -> String {
    let conversation = shots.iter().find(|shot| shot.number == number).map(|shot| shot.conversation);
    let before: Vec<String> = shots
        .iter()
        .filter(|shot| shot.number <= number && Some(shot.conversation) == conversation)
        .map(|shot| match wrong.iter().find(|(number, _)| *number == shot.number) {
            Some((_, true)) => format!("{}  FORWARDED HERE, dropped by nftables", shot.says),
            Some((_, false)) => format!("{}  DROPPED HERE, forwarded by nftables", shot.says),
            None => shot.says.clone(),
        })
        .collect();
    let start = before.len().saturating_sub(40);
    format!(
        "\"{name}\", {} differences; under\n{text}\nthe first one is the last of\n{}",
        wrong.len(),
        before[start..].join("\n")
    )
}
