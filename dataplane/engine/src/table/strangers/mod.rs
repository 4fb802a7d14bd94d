//! The ports at which every frame of a stranger is dropped, and nothing is learnt from it.
//!
//! A stranger is a source without connections, without entries except those of first steps, outside the networks that rules
//! and static entries name ([`knockplane_policy::strangers`]). [`RuleTable::strangers`] follows the rules for each class of frames, with all ports at
//! once. A question whose answer depends on more than class and port leaves its ports to userspace, and so does every rule that
//! accepts, answers, logs or learns. What is left is dropped by a known trail of rules.
//!
//! | module    | owns |
//! |-----------|------|
//! | this      | the paths of frames through the rules |
//! | `answers` | the answers of tests about frames of a class |
//! | `ports`   | sets of ports |

mod answers;
mod ports;

use std::net::IpAddr;

use knockplane_policy::door::KnockStep;
use knockplane_policy::packet::{Family, protocol};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{BuiltinChain, EntryAddress};
use knockplane_policy::strangers::{CLASS_PORTS, CLASSES, PacketKind, class_index};

use self::answers::{Class, Matching};
use self::ports::PortSet;
use super::program::Span;
use super::{CompiledAction, CompiledRule, Program, RuleTable};
use crate::state::doors::CompiledDoor;
use crate::state::lists::Lists;

/// Maximum number of paths that are followed at once. Frames on further ones go up.
const MAX_PATHS: usize = 64;

/// Maximum number of rules that are looked at for a class, once for each path, so that rules with many jumps delay no start.
/// Frames of paths that are not followed go up.
const MAX_VISITS: usize = 100_000;

/// Maximum number of trails, which are numbered by a byte and share the numbers with those of flows.
const MAX_TRAILS: usize = 100;

/// Maximum number of rules on a trail.
const MAX_RULES: usize = 32;

/// What each dropped frame counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StrangerTrail {
    /// The rules that matched, by their position among the declared rules.
    pub rules: Box<[u32]>,
    /// Why the frame is dropped.
    pub reason: Reason,
    /// The built-in chain whose default decided.
    pub default_of: Option<BuiltinChain>,
}

/// The ports at which frames of strangers from outside are dropped.
pub struct StrangerClasses {
    /// By class ([`class_index`]) and port: 0, or the number of the trail.
    pub trails: Box<[u8]>,
    /// The networks that rules and static entries name: no source in them is a stranger.
    pub named: Vec<(IpAddr, IpAddr)>,
    /// Whether a source that tries many ports is recognised as a scan: then only a few of its ports may be dropped without
    /// userspace.
    pub counts_ports: bool,
}

/// The numbers of trails.
struct Numbers<F> {
    known: Vec<(StrangerTrail, u8)>,
    /// A number for a new trail, not 0. `None` if there are no more.
    next: F,
}

impl<F: FnMut(&StrangerTrail) -> Option<u8>> Numbers<F> {
    fn of(&mut self, trail: StrangerTrail) -> Option<u8> {
        if let Some((_, number)) = self.known.iter().find(|(known, _)| *known == trail) {
            return Some(*number);
        }
        let number = (self.known.len() < MAX_TRAILS).then(|| (self.next)(&trail)).flatten()?;
        self.known.push((trail, number));
        Some(number)
    }
}

/// Frames on the same way through the rules.
struct Path {
    ports: PortSet,
    /// The rules that matched.
    rules: Vec<u32>,
    /// Whether a `notrack` rule matched.
    untracked: bool,
}

impl Path {
    /// The part of the path with these ports, behind this rule.
    fn behind(&self, rule: &CompiledRule, ports: PortSet) -> Option<Path> {
        let rules: Vec<_> = self.rules.iter().copied().chain([rule.index]).collect();
        (rules.len() <= MAX_RULES && !ports.is_empty()).then_some(Path { ports, rules, untracked: self.untracked })
    }
}

/// The rules of one menu, for frames of one class.
struct Walk<'t> {
    table: &'t RuleTable,
    program: &'t Program,
    /// Whether the rules precede tracking, and accepted frames are not decided yet.
    is_raw: bool,
    class: Class,
    visits: usize,
    /// Paths that a rule of this menu accepted.
    accepted: Vec<Path>,
    /// Paths that a rule dropped.
    dropped: Vec<Path>,
}

impl RuleTable {
    /// The ports at which frames of strangers are dropped. `number` returns a number for a new trail, which is not 0, or `None` if
    /// there are no more: frames on this trail go up.
    pub fn strangers(&self, lists: &Lists, number: impl FnMut(&StrangerTrail) -> Option<u8>) -> StrangerClasses {
        let mut classes = StrangerClasses {
            trails: vec![0; CLASSES * CLASS_PORTS].into(),
            named: self.named_sources(),
            counts_ports: self.has_doors() && self.settings.port_budget.ports > 0,
        };
        // Then a dropped packet, too, is stored as a connection for a moment.
        if self.tracks && (self.payload_matchers().is_some() || self.connection_limits.is_some()) {
            return classes;
        }
        let noted = lists.noted();
        let mut numbers = Numbers { known: Vec::new(), next: number };
        for family in [Family::Ipv4, Family::Ipv6] {
            for kind in PacketKind::ALL {
                for is_protected in [true, false] {
                    let first = class_index(family, kind, is_protected) * CLASS_PORTS;
                    let places = &mut classes.trails[first..first + CLASS_PORTS];
                    for (trail, ports) in self.dropped(Class { family, kind, noted }, is_protected) {
                        if let Some(number) = numbers.of(trail) {
                            ports.fill(places, number);
                        }
                    }
                }
            }
        }
        classes
    }

    /// Follows all frames of a class through the rules. Returns the dropped ones: their trails and ports.
    fn dropped(&self, class: Class, is_protected: bool) -> impl Iterator<Item = (StrangerTrail, PortSet)> {
        let chain = if is_protected { BuiltinChain::Input } else { BuiltinChain::Forward };
        let all = Path { ports: PortSet::all(), rules: Vec::new(), untracked: false };
        let mut raw = Walk::new(self, class, true);
        let mut paths = raw.run(raw.program.chain(chain), vec![all]);
        paths.append(&mut raw.accepted);
        let mut filter = Walk { visits: raw.visits, ..Walk::new(self, class, false) };
        let mut undecided = filter.run(filter.program.chain(chain), paths);
        if self.settings.chain_default.verdict(chain) != Verdict::Drop {
            undecided.clear();
        }
        let by_rules = raw.dropped.into_iter().chain(filter.dropped).map(|path| (path, None));
        by_rules.chain(undecided.into_iter().map(move |path| (path, Some(chain)))).map(|(path, default_of)| {
            let reason = if default_of.is_some() { Reason::ChainDefault } else { Reason::Rule };
            (StrangerTrail { rules: path.rules.into(), reason, default_of }, path.ports)
        })
    }

    /// The networks that rules and their entries name.
    fn named_sources(&self) -> Vec<(IpAddr, IpAddr)> {
        let by_rules = [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|family| {
            let rules = self.raw(family).rules().iter().chain(self.filter(family).rules());
            rules.flat_map(move |rule| rule.named_sources(family))
        });
        let entries = self.rules.address_lists.iter().filter(|entry| !entry.disabled);
        let by_entries = entries.filter_map(|entry| match &entry.address {
            EntryAddress::Set(set) => Some(set.bounds()),
            _ => None,
        });
        by_rules.chain(by_entries).collect()
    }
}

impl<'t> Walk<'t> {
    fn new(table: &'t RuleTable, class: Class, is_raw: bool) -> Walk<'t> {
        let program = if is_raw { table.raw(class.family) } else { table.filter(class.family) };
        Walk { table, program, is_raw, class, visits: 0, accepted: Vec::new(), dropped: Vec::new() }
    }

    /// Follows these paths through a chain. Returns those about which it decides nothing.
    fn run(&mut self, span: Span, mut paths: Vec<Path>) -> Vec<Path> {
        let mut returned = Vec::new();
        for rule in self.program.rules_of(span) {
            let mut left = Vec::new();
            for path in paths {
                self.visits += 1;
                if self.visits <= MAX_VISITS && left.len() < MAX_PATHS {
                    self.pass(rule, path, &mut left, &mut returned);
                }
            }
            paths = left;
        }
        paths.append(&mut returned);
        paths
    }

    /// Takes a path past a rule. Frames that this loses go up.
    fn pass(&mut self, rule: &CompiledRule, mut path: Path, left: &mut Vec<Path>, returned: &mut Vec<Path>) {
        let states = (!self.is_raw).then(|| self.class.states(self.table, path.untracked));
        let Some(Matching { mut ports, open }) = rule.matching(self.class, states, &path.ports) else {
            left.push(path);
            return;
        };
        path.ports.remove_all(&open);
        path.ports.remove_all(&ports);
        if let CompiledAction::Knock(door) = rule.action {
            match self.table.door(door) {
                Some(door) => ports.remove_all(&steps(door, self.class)),
                None => ports = PortSet::none(),
            }
        }
        if let Some(behind) = path.behind(rule, ports).filter(|_| !rule.logs) {
            match rule.action {
                CompiledAction::Drop => self.dropped.push(behind),
                CompiledAction::Passthrough | CompiledAction::Knock(_) => left.push(behind),
                CompiledAction::Notrack => left.push(Path { untracked: true, ..behind }),
                CompiledAction::Jump(target) => left.extend(self.run(target, vec![behind])),
                CompiledAction::Return => returned.push(behind),
                CompiledAction::Accept if self.is_raw => self.accepted.push(behind),
                _ => {}
            }
        }
        if !path.ports.is_empty() {
            left.push(path);
        }
    }
}

/// The ports at which a packet of the class may be a step of a door's knocks.
fn steps(door: &CompiledDoor, class: Class) -> PortSet {
    let steps = door.door.knock.iter().chain(&door.door.close);
    let ports = steps.filter_map(|step| match step {
        KnockStep::Tcp { port, .. } if class.protocol() == protocol::TCP => Some((*port, *port)),
        KnockStep::Udp { port, .. } if class.protocol() == protocol::UDP => Some((*port, *port)),
        _ => None,
    });
    PortSet::of(&ports.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
