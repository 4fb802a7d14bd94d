//! Settings beside the rules: protected addresses, sides of interfaces, chain defaults, time zone, frames that rules do
//! not evaluate, and doors.

mod frames;
mod interfaces;
mod unmapped;
mod vlans;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::frames::{FrameClasses, FrameRate, Padding, SideChoice};
pub use self::interfaces::Interfaces;
pub use self::unmapped::Unmapped;
pub use self::vlans::Vlans;
use crate::door::ports::PortBudget;
use crate::door::{self, Door};
use crate::packet::{Packet, Side};
use crate::reason::Verdict;
use crate::rule::BuiltinChain;
use crate::time::UtcOffset;

/// The part of the configuration that affects decisions about packets. Both processes use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The protected addresses, which have the role of the router's own addresses: they determine the chain that a
    /// packet enters.
    pub protect: Vec<IpNet>,
    /// The sides of the interfaces in rules.
    pub interfaces: Interfaces,
    /// Whether VLANs and PPPoE sessions are separate networks.
    pub vlans: Vlans,
    /// Offset from UTC of the clock of `time` matchers. It does not follow summer time.
    pub time_zone: UtcOffset,
    /// The verdict on a packet that no rule of its chain decides.
    pub chain_default: ChainDefaults,
    /// The verdict on frames that rules do not evaluate.
    pub frames: FrameClasses,
    /// The number of ports that a source may try before its knocks are ignored for some time.
    pub port_budget: PortBudget,
    /// The doors. In the configuration they are not a key of this section: each is a `[[door]]` beside it. The reader
    /// of the configuration refuses doors in this section, and adds those beside it.
    #[serde(deserialize_with = "door::distinct", skip_serializing_if = "Vec::is_empty")]
    pub doors: Vec<Door>,
}

impl Default for Settings {
    /// All addresses are protected. Only `output` accepts by default. Of the frames that rules do not evaluate, only
    /// those that resolve addresses pass. The names `outside` and `inside` mean the sides, and the time zone is UTC.
    fn default() -> Self {
        let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a literal prefix"));
        Settings {
            protect: everything.to_vec(),
            interfaces: Interfaces::default(),
            vlans: Vlans::default(),
            time_zone: UtcOffset::default(),
            chain_default: ChainDefaults::default(),
            frames: FrameClasses::default(),
            port_budget: PortBudget::default(),
            doors: Vec::new(),
        }
    }
}

impl Settings {
    /// Replaces the passphrases of the doors, for readers that must not learn them.
    pub fn hide_passphrases(&mut self) {
        for door in &mut self.doors {
            let steps = door.knock.iter_mut().chain(&mut door.close);
            // A knock and its closing knock that differ in their passphrases alone still differ.
            steps.enumerate().for_each(|(number, step)| step.hide_passphrase(number));
        }
    }

    /// These settings with the doors that are beside them in the configuration.
    ///
    /// # Errors
    /// If this section contains doors as well.
    pub fn with_doors(self, doors: Vec<Door>) -> Result<Settings, &'static str> {
        match self.doors.is_empty() {
            true => Ok(Settings { doors, ..self }),
            false => Err("`doors` is not a key of [policy]; write each door as its own `[[door]]`, outside of it"),
        }
    }

    /// The chain that a packet enters: `input` if its destination is protected, `output` if its source is, otherwise
    /// `forward`.
    pub fn chain(&self, packet: &Packet<'_>) -> BuiltinChain {
        match packet.side {
            Side::Outside if self.protects(packet.destination) => BuiltinChain::Input,
            Side::Inside if self.protects(packet.source) => BuiltinChain::Output,
            _ => BuiltinChain::Forward,
        }
    }

    fn protects(&self, address: IpAddr) -> bool {
        self.protect.iter().any(|net| net.contains(&address))
    }
}

/// A verdict in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Forward.
    Accept,
    /// Drop.
    Drop,
}

impl From<Choice> for Verdict {
    fn from(value: Choice) -> Verdict {
        match value {
            Choice::Accept => Verdict::Forward,
            Choice::Drop => Verdict::Drop,
        }
    }
}

/// The verdict of a built-in chain on packets that none of its rules decides.
///
/// RouterOS accepts in all chains. This filter accepts only in `output`: a rule set for IPv4 alone must not leave IPv6
/// open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChainDefaults {
    /// From outside to a protected address.
    pub input: Choice,
    /// Neither from nor to a protected address.
    pub forward: Choice,
    /// From a protected address to the outside.
    pub output: Choice,
}

impl Default for ChainDefaults {
    fn default() -> Self {
        ChainDefaults { input: Choice::Drop, forward: Choice::Drop, output: Choice::Accept }
    }
}

impl ChainDefaults {
    /// The default verdict of a chain.
    pub fn verdict(&self, chain: BuiltinChain) -> Verdict {
        match chain {
            BuiltinChain::Input => self.input,
            BuiltinChain::Forward => self.forward,
            BuiltinChain::Output => self.output,
        }
        .into()
    }
}
