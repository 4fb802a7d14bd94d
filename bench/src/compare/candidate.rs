//! What can stand between the two interfaces.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::knockplane::Knockplane;
use super::lab::Lab;
use super::nftables::Nftables;
use super::rules::Rules;
use super::smallest::Smallest;
use super::xdp::Xdp;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// This project's dataplane and control process, as installed.
    Knockplane,
    /// The smallest AF_XDP program on the same rings, which sleeps in poll() without frames.
    Smallest,
    /// The same, which spins as long as frames come.
    SmallestSpinning,
    /// nftables on a router, with the same rules.
    Nftables,
    /// The same, whose packets are spread to the other core by RPS after they were received.
    NftablesRps,
    /// nftables on a bridge, with the same rules.
    NftablesBridge,
    /// An XDP program that redirects or drops in the driver, without looking: the bound of all.
    Xdp,
}

impl Kind {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Knockplane => "knockplane",
            Kind::Smallest => "smallest",
            Kind::SmallestSpinning => "smallest-spinning",
            Kind::Nftables => "nftables",
            Kind::NftablesRps => "nftables-rps",
            Kind::NftablesBridge => "nftables-bridge",
            Kind::Xdp => "xdp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a candidate without rules does with every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It goes out of the other side.
    Forward,
    /// It ends there.
    Drop,
}

/// Frames by name.
pub type Losses = BTreeMap<String, u64>;

/// A running candidate. It ends when dropped.
pub trait Candidate {
    /// Frames that were lost so far before or after they were decided about, and not because they were to be. The
    /// counters are right once nothing has moved for a fifth of a second.
    ///
    /// # Errors
    /// If it does not answer, or has ended.
    fn losses(&self) -> Result<Losses>;
}

/// Starts a candidate in its lab. It forwards when this returns.
///
/// # Errors
/// If it does not start, with what it said.
pub fn start<'lab>(kind: Kind, lab: &'lab Lab, rules: &Rules, role: Role) -> Result<Box<dyn Candidate + 'lab>> {
    Ok(match kind {
        Kind::Knockplane => Box::new(Knockplane::start(lab, rules)?),
        Kind::Smallest => Box::new(Smallest::start(lab, role, false)?),
        Kind::SmallestSpinning => Box::new(Smallest::start(lab, role, true)?),
        Kind::Nftables | Kind::NftablesRps | Kind::NftablesBridge => Box::new(Nftables::start(kind, lab, rules)?),
        Kind::Xdp => Box::new(Xdp::start(lab, role)?),
    })
}
