//! The reports of `--check` and `--doctor`: whether a start would succeed, and the properties of the host that slow the
//! filter down. Both change nothing and wait for no other process, so they can run beside a dataplane.
//!
//! Only [`crate::requirements`] defines the requirements of a start. This module adds met requirements, checks that
//! need an attempt (whether the kernel accepts the program), and properties that cost speed.
//!
//! | file           | looks at |
//! |----------------|----------|
//! | `host.rs`      | the kernel, and the permissions of this process |
//! | `interface.rs` | one interface |
//! | `placement.rs` | where frames of an interface arrive: receive side scaling, interrupts |

mod host;
mod interface;
mod placement;

use std::fs::File;
use std::io;
use std::path::Path;

use knockplane_engine::headers;
use knockplane_policy::doctor::{HostFinding, Level, Report, Scope};
use knockplane_policy::packet::Side;
use knockplane_ring::{Device, FastPath, FastPathSizes, LinkReader, LoadedProgram, raise_memlock_limit};

use self::interface::Examined;
use crate::config::Config;
use crate::requirements::configured::{self, Early};
use crate::requirements::wire::{self, AtStart};
use crate::requirements::{Observed, scope};

/// The report about this host, and about a start with this file, if there is one.
pub(crate) fn report(file: Option<&Path>) -> Report {
    let host = host::Host::read();
    let mut findings = host.findings();
    if let Some(file) = file {
        findings.extend(of_file(file, &host));
    }
    Report::new(env!("CARGO_PKG_VERSION"), findings)
}

fn of_file(file: &Path, host: &host::Host) -> Vec<HostFinding> {
    let shown = HostFinding::ok(Scope::Configuration, "configuration", file.display().to_string());
    if File::open(file).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        let found = format!("{} cannot be read by this user", file.display());
        let finding = HostFinding { found, ..shown }.because(Level::Unknown, "nothing can be said of a start with it");
        return vec![finding.change("run this as root").run("sudo knockctl doctor")];
    }
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return vec![HostFinding { found: error.to_string(), ..shown }.because(Level::Invalid, "")],
    };
    let early = configured::early(&config);
    let mut findings = vec![shown];
    findings.extend(early.findings.iter().cloned());
    findings.extend(configured::rules(&config, &early));
    let wire = Wire::open(&config);
    findings.extend(wire.problems.iter().cloned());
    findings.extend(wire.facts(&config, &early, host));
    findings.sort_by_key(|finding| finding.scope as u8);
    findings
}

/// The findings of a start with this configuration: errors, warnings, and some met requirements.
pub(crate) fn of_start(config: &Config) -> Vec<HostFinding> {
    let early = configured::early(config);
    let mut findings = configured::rules(config, &early);
    findings.splice(0..0, early.findings.iter().cloned());
    let wire = Wire::open(config);
    findings.extend(wire.problems.iter().cloned());
    findings.extend(wire.programs(&early));
    findings
}

/// Findings as one error with one line each; `None` if there are no findings.
pub(crate) fn as_error(findings: &[HostFinding]) -> Option<anyhow::Error> {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    (!lines.is_empty()).then(|| anyhow::Error::msg(lines.join("\nknockplane-dataplane: ")))
}

/// The two interfaces, if they exist.
struct Wire {
    sides: [Option<(Device, Observed)>; 2],
    at_start: Option<AtStart>,
    /// Errors and warnings of a start.
    problems: Vec<HostFinding>,
}

impl Wire {
    fn open(config: &Config) -> Wire {
        let mut problems = Vec::new();
        let sides = Side::ALL.map(|side| match open(config, side) {
            Ok(opened) => Some(opened),
            Err(finding) => {
                problems.push(*finding);
                None
            }
        });
        let at_start = match [&sides[0], &sides[1]] {
            [Some((outside, seen_outside)), Some((inside, seen_inside))] => {
                let max_frame = headers::max_frame(seen_outside.link.mtu as usize) as u32;
                let checked = wire::at_start(config, [outside, inside], [seen_outside, seen_inside], max_frame);
                problems.extend(checked.findings.iter().cloned());
                Some(checked)
            }
            _ => None,
        };
        Wire { sides, at_start, problems }
    }

    /// The existing interfaces.
    fn each(&self) -> impl Iterator<Item = (Side, &Device, &Observed)> {
        let sides = Side::ALL.into_iter().zip(&self.sides);
        sides.filter_map(|(side, opened)| opened.as_ref().map(|(device, observed)| (side, device, observed)))
    }

    /// The owners of the XDP programs on the interfaces.
    fn programs(&self, early: &Early) -> Vec<HostFinding> {
        self.each().map(|(side, device, observed)| interface::program(side, device, observed, early.running)).collect()
    }

    /// Met requirements, and properties that cost speed.
    fn facts(&self, config: &Config, early: &Early, host: &host::Host) -> Vec<HostFinding> {
        let mut facts = Vec::new();
        for (side, device, observed) in self.each() {
            let features = self.at_start.as_ref().and_then(|at_start| at_start.features[side.index()]);
            let examined = Examined { config, side, device, observed, features };
            facts.extend(examined.findings());
            facts.push(interface::program(side, device, observed, early.running));
            facts.extend(placement::findings(&examined));
        }
        facts.extend(self.both());
        // The finding of an unmet requirement replaces the fact.
        let is_told = |fact: &HostFinding| {
            self.problems.iter().any(|problem| (problem.scope, &problem.check) == (fact.scope, &fact.check))
        };
        facts.retain(|fact| fact.level > Level::Ok || !is_told(fact));
        if let Some(at_start) = &self.at_start {
            facts.extend(interface::zero_copy(at_start));
            facts.extend(self.loads(host));
            facts.extend(self.memlock(config, at_start, host));
        }
        facts
    }

    /// The facts about both interfaces together.
    fn both(&self) -> Vec<HostFinding> {
        let [Some((_, outside)), Some((_, inside))] = &self.sides else { return Vec::new() };
        let mut facts = Vec::new();
        if outside.link.mtu == inside.link.mtu {
            let largest = knockplane_ring::largest_mtu([0, 1].map(|side: usize| self.driver(side)));
            let found = format!("{} on both; these drivers take {largest} at most", outside.link.mtu);
            facts.push(HostFinding::ok(Scope::Wire, "mtu", found));
        }
        if outside.queues.rx == inside.queues.rx {
            let found = format!("{} on both, a worker for each", outside.queues.rx);
            facts.push(HostFinding::ok(Scope::Wire, "queues", found));
        }
        facts
    }

    fn driver(&self, side: usize) -> &str {
        self.sides[side].as_ref().map_or("", |(device, _)| device.driver())
    }

    /// Whether the kernel accepts the XDP program: loads the program, discards it, and attaches it to nothing.
    fn loads(&self, host: &host::Host) -> Option<HostFinding> {
        let [Some((outside, observed)), Some((inside, _))] = &self.sides else { return None };
        let finding = |found: String| HostFinding::ok(Scope::Wire, "program-load", found);
        if !host.may_load() {
            let finding = finding("the XDP program was not tried: this process may not load it".to_owned());
            let finding = finding.because(Level::Unknown, "an old kernel may refuse it");
            return Some(finding.change("run this as root").run("sudo knockctl doctor"));
        }
        /// The smallest tables: only the program matters.
        const SMALL: FastPathSizes = FastPathSizes { flows: [0, 0], epochs: 16, records: 0, sources: 64 };
        raise_memlock_limit();
        let max_frame = headers::max_frame(observed.link.mtu as usize) as u32;
        let queues = observed.queues.rx;
        let program = match LoadedProgram::load([outside, inside], queues, max_frame) {
            Ok(program) => program,
            Err(error) => {
                return Some(finding(error.to_string()).because(Level::Error, "the filter cannot start without it"));
            }
        };
        let tables = FastPath::create([outside, inside], &SMALL, queues, 0, max_frame);
        Some(match tables.and_then(|tables| program.with_fast_path(&tables)) {
            Ok(_) => finding("the kernel takes the XDP program (it was loaded, and attached to nothing)".to_owned()),
            Err(error) => finding(error.to_string()).because(Level::Warning, "the filter runs without its fast path"),
        })
    }

    /// Whether the process may lock the frames' memory.
    fn memlock(&self, config: &Config, at_start: &AtStart, host: &host::Host) -> Option<HostFinding> {
        let queues = self.sides[0].as_ref().map_or(1, |(_, observed)| observed.queues.rx);
        let needed = u64::from(queues) * at_start.buffers.as_ref()?.memory(config.ring_size);
        Some(host.memlock(needed))
    }
}

fn open(config: &Config, side: Side) -> Result<(Device, Observed), Box<HostFinding>> {
    let name = match side {
        Side::Outside => &config.outside,
        Side::Inside => &config.inside,
    };
    let missing = |found: String| {
        let finding = HostFinding::ok(scope(side), "interface", found);
        Box::new(finding.because(Level::Error, "the filter forwards between two interfaces").run("ip link"))
    };
    let device = Device::open(name).map_err(|error| missing(error.to_string()))?;
    let mut reader = LinkReader::open().map_err(|error| missing(error.to_string()))?;
    match Observed::read(&device, &mut reader) {
        Ok(Some(observed)) => Ok((device, observed)),
        Ok(None) => Err(missing(format!("interface {name} went away"))),
        Err(error) => Err(missing(error.to_string())),
    }
}
