//! The requirements of a start on its configuration beyond the text: cores, the state directory, the socket, rules,
//! memory.

use std::sync::Arc;

use core_affinity::CoreId;
use knockplane_engine::state::{self, State};
use knockplane_engine::table::RuleTable;
use knockplane_limits::predecessor;
use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_policy::settings::Settings;

use super::Observed;
use crate::clock::Clock;
use crate::config::Config;
use crate::control_socket::Listener;
use crate::journal::StoredGrants;
use crate::memory::{self, ConnectionMemory, MemoryError};
use crate::names::ResolvedNames;
use crate::state_dir::{Examined, StateDir};
use crate::static_entries::StoredEntries;
use crate::stored_counters::StoredCounters;
use crate::stored_rules::{self, SourcedRules, StoredRules};
use crate::stored_settings::StoredSettings;

/// The results of the checks before interfaces and rules are read.
pub(crate) struct Early {
    pub(crate) findings: Vec<HostFinding>,
    /// The state directory, if it exists and can be read.
    pub(crate) state: Option<Arc<StateDir>>,
    /// The process id of the dataplane that uses the directory.
    pub(crate) running: Option<i32>,
}

/// Runs the fast checks, which a start runs first. Changes nothing.
pub(crate) fn early(config: &Config) -> Early {
    let mut findings = vec![match cores(config) {
        Ok(cores) => {
            let cores: Vec<_> = cores.iter().map(|core| core.id.to_string()).collect();
            let whose = if config.cores.is_empty() { "all that this process may use" } else { "as configured" };
            ok("cores", format!("workers are pinned to {} ({whose})", cores.join(", ")))
        }
        Err(finding) => *finding,
    }];
    let (finding, state, running) = state_dir(config);
    findings.push(finding);
    findings.push(match Listener::examine(&config.socket) {
        Ok(()) => ok("socket", config.socket.display().to_string()),
        Err(error) => invalid("socket", &error),
    });
    Early { findings, state, running }
}

/// The cores for workers, in order.
///
/// # Errors
/// If the configuration contains a core that this process may not use.
pub(crate) fn cores(config: &Config) -> Result<Vec<CoreId>, Box<HostFinding>> {
    let there = core_affinity::get_core_ids().unwrap_or_default();
    if config.cores.is_empty() {
        return Ok(there);
    }
    let wanted = config.cores.iter().map(|wanted| {
        there.iter().copied().find(|core| core.id == *wanted).ok_or_else(|| {
            let there: Vec<_> = there.iter().map(|core| core.id).collect();
            let found = format!("`cores` names core {wanted}, but this process may run on {there:?}");
            let why = "a worker cannot be pinned to a core that is not there";
            Box::new(
                ok("cores", found)
                    .because(Level::Invalid, why)
                    .change("name cores of these, or none")
                    .run("lscpu --extended=CPU,NODE,ONLINE"),
            )
        })
    });
    wanted.collect()
}

/// Checks whether each of the `queues` workers has a core without other work.
pub(crate) fn cores_for(config: &Config, queues: u32, observed: [&Observed; 2]) -> Option<HostFinding> {
    let cores = cores(config).ok()?.len() as u32;
    (cores != 0 && queues > cores).then(|| {
        let found = format!("{queues} workers, one for each queue, share {cores} cores");
        let why = if config.busy_poll {
            "with busy-poll = true, workers on one core take it from each other all the time"
        } else {
            "workers on one core wait for each other"
        };
        let change =
            if config.cores.is_empty() { "use fewer queues" } else { "name more `cores`, or use fewer queues" };
        let mut finding = HostFinding::ok(Scope::Wire, "cores", found).because(Level::Warning, why).change(change);
        for observed in observed {
            finding = finding.run(observed.queues.command(&observed.link.name, cores));
        }
        finding
    })
}

fn state_dir(config: &Config) -> (HostFinding, Option<Arc<StateDir>>, Option<i32>) {
    let shown = config.state_dir.display();
    match StateDir::examine(&config.state_dir) {
        Ok(Examined::Absent) => (ok("state-dir", format!("{shown} is made at the first start")), None, None),
        Ok(Examined::Free(state)) => (ok("state-dir", shown.to_string()), Some(Arc::new(state)), None),
        Ok(Examined::Held(state, pid)) => {
            let found = format!("{shown} is in use by {}", predecessor::describe(pid));
            (ok("state-dir", found), Some(Arc::new(state)), pid)
        }
        Ok(Examined::Denied) => {
            let finding = ok("state-dir", format!("{shown} cannot be read by this user"));
            (
                finding
                    .because(Level::Unknown, "what is stored there runs at a start")
                    .change("run this as root")
                    .run("sudo knockctl doctor"),
                None,
                None,
            )
        }
        Err(error) => (invalid("state-dir", &error), None, None),
    }
}

/// Checks the configured rules, the last applied rules, and the memory for them. This may take seconds.
pub(crate) fn rules(config: &Config, early: &Early) -> Vec<HostFinding> {
    let configured = stored_rules::read_rules(&config.rules).and_then(|stored| compile(&config.settings, stored));
    let mut findings = vec![match &configured {
        Ok(stored) => {
            let number = stored.rules.rules.len();
            ok("rules", format!("{}: {number} {}", stored.source, if number == 1 { "rule" } else { "rules" }))
        }
        Err(error) => invalid("rules", error),
    }];
    let mut runs = configured.ok();
    let mut settings = config.settings.clone();
    if let Some(state) = &early.state {
        match StoredSettings::new(Arc::clone(state)).peek() {
            Ok(Some(stored)) if stored != settings => {
                let found = "a start runs the doors and [policy] from before a reload that was not confirmed";
                findings.push(ok("stored-settings", found));
                settings = stored;
            }
            Ok(_) => {}
            Err(error) => findings.push(invalid("stored-settings", &error)),
        }
        match StoredRules::new(Arc::clone(state))
            .peek()
            .and_then(|stored| stored.map(|s| compile(&settings, s)).transpose())
        {
            Ok(None) => {}
            Ok(Some(stored)) => {
                let found = format!("a start runs those applied last, from {}", stored.source);
                findings.push(ok("stored-rules", found));
                runs = Some(stored);
            }
            Err(error) => findings.push(invalid("stored-rules", &error)),
        }
        let entries =
            StoredEntries::peek(state).and_then(|entries| entries.install(&State::new(1, 1)?.lists, &[], &[]));
        findings.extend(ResolvedNames::load(state).err().map(|error| invalid("stored-names", &error)));
        findings.extend(entries.err().map(|error| invalid("stored-entries", &error)));
        findings.extend(StoredGrants::peek(state).err().map(|error| invalid("stored-grants", &error)));
        findings.extend(StoredCounters::peek(state).err().map(|error| invalid("stored-counters", &error)));
    }
    findings.extend(runs.map(|stored| memory(config, &settings, &stored, early.running)));
    findings
}

fn compile(settings: &Settings, stored: SourcedRules) -> anyhow::Result<SourcedRules> {
    let table = RuleTable::compile(Arc::clone(&stored.rules), settings, &State::new(1, 1)?, Clock::start().now());
    table.map_err(|error| anyhow::Error::new(error).context(format!("rules of {}", stored.source)))?;
    Ok(stored)
}

fn memory(config: &Config, settings: &Settings, stored: &SourcedRules, running: Option<i32>) -> HostFinding {
    let capacity = config.connection_capacity;
    let bytes = state::connection_bytes(capacity, &stored.rules, settings);
    let lists = config.list_capacity as u64 * config.first_steps.entry_bytes() as u64;
    let found = format!("{} MB for lists and connections", (lists + bytes).div_ceil(1_000_000));
    if running.is_some() {
        return ok("memory", format!("{found}, which the dataplane that runs has taken"));
    }
    match memory::check(config.list_capacity, config.first_steps, ConnectionMemory { capacity, bytes }) {
        Ok(()) => ok("memory", found),
        Err(error) => lacks_memory(error),
    }
}

/// The finding of too little memory: now, or permanently.
pub(crate) fn lacks_memory(error: MemoryError) -> HostFinding {
    let level = if error.is_permanent { Level::Invalid } else { Level::Error };
    let why = "the kernel would end this process, or another one, once memory is used up";
    ok("memory", error.to_string()).because(level, why).run("free -m")
}

fn ok(check: &str, found: impl Into<String>) -> HostFinding {
    HostFinding::ok(Scope::Configuration, check, found)
}

fn invalid(check: &str, error: &anyhow::Error) -> HostFinding {
    ok(check, format!("{error:#}")).because(Level::Invalid, "")
}
