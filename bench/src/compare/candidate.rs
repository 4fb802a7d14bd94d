//! The candidates of the comparison, each of which can run between the two interfaces.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::knockplane::Knockplane;
use super::lab::Lab;
use super::nftables::Nftables;
use super::rules::LoadRules;
use super::smallest::{Library, Smallest};
use super::xdp::Xdp;

/// The kind of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// This project's dataplane and control process, as installed.
    Knockplane,
    /// The same, without the kernel's fast path.
    KnockplaneUserspace,
    /// The same as [`CandidateKind::Knockplane`], with a strict door instead of the rules of the knocks.
    KnockplaneDoor,
    /// The smallest AF_XDP program on the same rings, which sleeps in poll() without frames.
    Smallest,
    /// The smallest AF_XDP program, which spins while frames arrive.
    SmallestSpinning,
    /// The smallest AF_XDP program on the rings of the crate `xsk-rs`, which sleeps in poll() without frames.
    SmallestXskRs,
    /// nftables on a router, with the same rules.
    Nftables,
    /// nftables on a router, with received packets spread to the other core by RPS.
    NftablesRps,
    /// nftables on a bridge, with the same rules.
    NftablesBridge,
    /// An XDP program that redirects or drops every frame in the driver after reading its headers: the upper bound of
    /// programs that decide by them.
    XdpParse,
    /// An XDP program that redirects or drops every frame in the driver without reading it: the upper bound.
    Xdp,
}

impl CandidateKind {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            CandidateKind::Knockplane => "knockplane",
            CandidateKind::KnockplaneUserspace => "knockplane-userspace",
            CandidateKind::KnockplaneDoor => "knockplane-door",
            CandidateKind::Smallest => "smallest",
            CandidateKind::SmallestSpinning => "smallest-spinning",
            CandidateKind::SmallestXskRs => "smallest-xsk-rs",
            CandidateKind::Nftables => "nftables",
            CandidateKind::NftablesRps => "nftables-rps",
            CandidateKind::NftablesBridge => "nftables-bridge",
            CandidateKind::XdpParse => "xdp-parse",
            CandidateKind::Xdp => "xdp",
        }
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The action of a candidate without rules, for every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Forward to the other side.
    Forward,
    /// Drop.
    Drop,
}

/// Lost frames by place.
pub type Losses = BTreeMap<String, u64>;

/// A running candidate. It ends when dropped.
pub trait Candidate {
    /// Frames lost so far, before or after their decision, without intended drops. The counters are exact when none of
    /// them has changed for a fifth of a second.
    ///
    /// # Errors
    /// If the candidate does not answer, or has ended.
    fn losses(&self) -> Result<Losses>;
}

/// Starts a candidate in its lab, and returns when it forwards.
///
/// # Errors
/// If it does not start, with its output.
pub fn start<'lab>(
    kind: CandidateKind,
    lab: &'lab Lab,
    rules: &LoadRules,
    role: Role,
) -> Result<Box<dyn Candidate + 'lab>> {
    Ok(match kind {
        CandidateKind::Knockplane => Box::new(Knockplane::start(lab, rules, true)?),
        CandidateKind::KnockplaneUserspace => Box::new(Knockplane::start(lab, rules, false)?),
        CandidateKind::KnockplaneDoor => Box::new(Knockplane::start_with_door(lab, rules, true)?),
        CandidateKind::Smallest => Box::new(Smallest::start(lab, Library::Own, role, false)?),
        CandidateKind::SmallestSpinning => Box::new(Smallest::start(lab, Library::Own, role, true)?),
        CandidateKind::SmallestXskRs => Box::new(Smallest::start(lab, Library::XskRs, role, false)?),
        CandidateKind::Nftables | CandidateKind::NftablesRps | CandidateKind::NftablesBridge => {
            Box::new(Nftables::start(kind, lab, rules)?)
        }
        CandidateKind::XdpParse => Box::new(Xdp::start(lab, role, true)?),
        CandidateKind::Xdp => Box::new(Xdp::start(lab, role, false)?),
    })
}
