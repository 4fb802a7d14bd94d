//! Addresses of the host names in address lists.
//!
//! The dataplane resolves no name: the control process does, and sends the answers. An answer is valid until the next
//! one arrives, also after a restart of either process. `names.state` in the state directory therefore contains the
//! answers. Without this file, a list that blocks a source would not block it until the control process runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{RuleFileEntry, RuleSet};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{HostName, MAX_NAME_ADDRESSES, NameAnswer, NameOutcome, NameState};
use serde::{Deserialize, Serialize};

use crate::state_dir::{FileFormat, NAMES, StateDir, damage};
use crate::static_entries::NameEntry;

/// The format of `names.state`: JSON, an array of [`StoredName`].
const FORMAT: FileFormat = FileFormat { kind: "names", version: 1 };

/// A stored name with its addresses.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredName {
    name: HostName,
    addresses: Vec<IpAddr>,
}

/// The state of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolution {
    /// The addresses of the last answer, in order, each once.
    addresses: Vec<IpAddr>,
    /// The reason that the last attempt failed; `None` if it succeeded.
    failure: Option<String>,
    /// The arrival time of the last answer; `None` if it arrived before this start, or never.
    answered: Option<Time>,
}

/// The names and their addresses.
pub(crate) struct ResolvedNames {
    state: Arc<StateDir>,
    resolutions: BTreeMap<HostName, Resolution>,
    /// The entries of the running rules that are names. Requests for them arrive every second, so they are stored.
    running: Vec<RuleFileEntry>,
}

impl ResolvedNames {
    /// Loads the stored answers. No rules run yet.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read.
    pub(crate) fn load(state: &Arc<StateDir>) -> anyhow::Result<ResolvedNames> {
        let mut names = ResolvedNames { state: Arc::clone(state), resolutions: BTreeMap::new(), running: Vec::new() };
        let Some(content) = state.read(NAMES, FORMAT)? else { return Ok(names) };
        let context = || damage(&state.file(NAMES).display().to_string());
        let stored: Vec<StoredName> = serde_json::from_slice(&content).with_context(context)?;
        for StoredName { name, addresses } in stored {
            if addresses.iter().any(|address| Family::of(*address) != name.family) {
                bail!("{}: an address of {} is of another family", context(), name.name);
            }
            names.resolutions.insert(name, Resolution { addresses, ..Resolution::default() });
        }
        Ok(names)
    }

    /// The addresses that names add to the lists of these rules, whose timeouts began at `begun`.
    pub(crate) fn entries(&self, rules: &RuleSet, begun: Time) -> Vec<NameEntry> {
        let of_entry = |(entry, name): (&RuleFileEntry, HostName)| {
            let until = entry.timeout.map(|timeout| begun + timeout);
            let addresses = self.resolutions.get(&name).map_or(&[][..], |resolution| &resolution.addresses);
            let list = entry.list.clone();
            addresses
                .iter()
                .map(move |address| NameEntry { list: list.clone(), bounds: (*address, *address), until })
                .collect::<Vec<_>>()
        };
        of(rules).flat_map(of_entry).collect()
    }

    /// The addresses of an entry, if it is a name.
    pub(crate) fn addresses(&self, entry: &RuleFileEntry) -> &[IpAddr] {
        let resolution = HostName::of(entry).and_then(|name| self.resolutions.get(&name));
        resolution.map_or(&[], |resolution| &resolution.addresses)
    }

    /// Stores answers for names of the running rules. Returns whether an address changed.
    pub(crate) fn take(&mut self, answers: Vec<NameAnswer>, now: Time) -> bool {
        let wanted = self.running.iter().filter_map(HostName::of).collect();
        self.take_wanted(answers, &wanted, now)
    }

    /// As [`ResolvedNames::take`], for rules that are about to run.
    pub(crate) fn take_for(&mut self, answers: Vec<NameAnswer>, rules: &RuleSet, now: Time) -> bool {
        let wanted = of(rules).map(|(_, name)| name).collect();
        self.take_wanted(answers, &wanted, now)
    }

    fn take_wanted(&mut self, answers: Vec<NameAnswer>, wanted: &BTreeSet<HostName>, now: Time) -> bool {
        let mut changed = false;
        for NameAnswer { name, outcome } in answers {
            if !wanted.contains(&name) {
                continue;
            }
            let resolution = self.resolutions.entry(name.clone()).or_default();
            match outcome {
                NameOutcome::Addresses(addresses) => {
                    changed |= resolution.take(&name, addresses, now);
                }
                NameOutcome::Failed(failure) => resolution.failure = Some(failure),
            }
        }
        if changed {
            self.save();
        }
        changed
    }

    /// Begins to use these rules, and removes the names that neither they nor the rules of a possible rollback contain.
    pub(crate) fn run(&mut self, rules: &RuleSet, rollback: Option<&RuleSet>) {
        self.running = of(rules).map(|(entry, _)| entry.clone()).collect();
        let wanted: BTreeSet<HostName> =
            of(rules).chain(rollback.into_iter().flat_map(of)).map(|(_, name)| name).collect();
        let before = self.resolutions.len();
        self.resolutions.retain(|name, _| wanted.contains(name));
        if self.resolutions.len() != before {
            self.save();
        }
    }

    /// Every entry of the running rules that is a name, with its state.
    pub(crate) fn states(&self, now: Time) -> Vec<NameState> {
        let state = |(entry, name): (&RuleFileEntry, HostName)| {
            let Resolution { addresses, failure, answered } = self.resolutions.get(&name).cloned().unwrap_or_default();
            let answer_age = answered.map(|answered| now.since(answered));
            NameState { list: entry.list.clone(), line: entry.line, name, addresses, failure, answer_age }
        };
        self.running.iter().filter_map(|entry| Some((entry, HostName::of(entry)?))).map(state).collect()
    }

    /// Saves the answers. A failure is logged: the answers are valid until a restart.
    fn save(&self) {
        let stored: Vec<StoredName> = (self.resolutions.iter())
            .filter(|(_, resolution)| !resolution.addresses.is_empty())
            .map(|(name, resolution)| StoredName { name: name.clone(), addresses: resolution.addresses.clone() })
            .collect();
        let content = serde_json::to_vec(&stored).unwrap_or_default();
        if let Err(error) = self.state.write(NAMES, FORMAT, &content) {
            let path = self.state.file(NAMES);
            tracing::error!(
                "cannot keep the addresses of host names in {}: {error}; a restart goes by older ones until the names \
                 are resolved again",
                path.display()
            );
        }
    }
}

impl Resolution {
    /// Stores an answer. Returns whether the addresses changed.
    fn take(&mut self, name: &HostName, mut addresses: Vec<IpAddr>, now: Time) -> bool {
        (self.failure, self.answered) = (None, Some(now));
        addresses.retain(|address| Family::of(*address) == name.family);
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_NAME_ADDRESSES);
        if addresses == self.addresses {
            return false;
        }
        let before = std::mem::replace(&mut self.addresses, addresses);
        let [before, addresses] = [&before, &self.addresses]
            .map(|addresses| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        tracing::info!(name = name.name, before, addresses, "a host name has other addresses");
        true
    }
}

/// The entries of these rules that are names and not disabled.
fn of(rules: &RuleSet) -> impl Iterator<Item = (&RuleFileEntry, HostName)> {
    rules.address_lists.iter().filter_map(|entry| Some((entry, HostName::of(entry)?)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use knockplane_policy::rsc;

    use super::*;
    use knockplane_limits::predecessor::Deadline;

    const RULES: &str = "/ip firewall address-list
add list=friends address=dyn.example.net
add list=friends address=old.example.net disabled=yes
add list=guests address=dyn.example.net timeout=1m
/ipv6 firewall address-list
add list=friends address=dyn.example.net
";

    fn rules(text: &str) -> RuleSet {
        let reading = rsc::read(text.as_bytes());
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        reading.rules
    }

    fn open(folder: &tempfile::TempDir) -> Arc<StateDir> {
        Arc::new(StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap())
    }

    fn answer(family: Family, name: &str, addresses: &[&str]) -> NameAnswer {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        NameAnswer { name: HostName { family, name: name.to_owned() }, outcome: NameOutcome::Addresses(addresses) }
    }

    fn shown(names: &ResolvedNames, rules: &RuleSet) -> Vec<String> {
        let entries = names.entries(rules, Time::default());
        entries.iter().map(|entry| format!("{} {}", entry.list, entry.bounds.0)).collect()
    }

    #[test]
    fn addresses_of_a_name_are_in_its_lists_by_family_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (state, rules) = (open(&folder), rules(RULES));
        let mut names = ResolvedNames::load(&state).unwrap();
        assert!(shown(&names, &rules).is_empty());
        let answers = || {
            vec![
                answer(Family::Ipv4, "dyn.example.net", &["192.0.2.9", "192.0.2.7", "192.0.2.7", "2001:db8::1"]),
                answer(Family::Ipv6, "dyn.example.net", &["2001:db8::7"]),
                answer(Family::Ipv4, "old.example.net", &["192.0.2.1"]),
                answer(Family::Ipv4, "other.example.net", &["192.0.2.2"]),
            ]
        };
        names.run(&rules, None);
        assert!(names.take(answers(), Time::from_nanos(5)));
        let expected =
            ["friends 192.0.2.7", "friends 192.0.2.9", "guests 192.0.2.7", "guests 192.0.2.9", "friends 2001:db8::7"];
        assert_eq!(shown(&names, &rules), expected);
        assert!(!names.take(answers(), Time::from_nanos(6)), "the same answers change nothing");
        assert_eq!(shown(&ResolvedNames::load(&state).unwrap(), &rules), expected);

        let others = super::tests::rules("/ipv6 firewall address-list\nadd list=a address=dyn.example.net\n");
        names.run(&others, Some(&rules));
        assert_eq!(shown(&ResolvedNames::load(&state).unwrap(), &rules), expected, "kept for a rollback");
        names.run(&others, None);
        assert_eq!(shown(&ResolvedNames::load(&state).unwrap(), &rules), ["friends 2001:db8::7"]);
    }

    #[test]
    fn a_failure_keeps_the_last_answer() {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules(RULES);
        let mut names = ResolvedNames::load(&open(&folder)).unwrap();
        names.take_for(vec![answer(Family::Ipv4, "dyn.example.net", &["192.0.2.7"])], &rules, Time::from_nanos(5));
        names.run(&rules, None);
        let name = HostName { family: Family::Ipv4, name: "dyn.example.net".to_owned() };
        let failed = NameAnswer { name, outcome: NameOutcome::Failed("no answer".to_owned()) };
        assert!(!names.take(vec![failed], Time::from_nanos(6)));
        assert_eq!(shown(&names, &rules), ["friends 192.0.2.7", "guests 192.0.2.7"]);
        let states = names.states(Time::from_nanos(7));
        assert_eq!(states[0].failure.as_deref(), Some("no answer"));
        assert_eq!(states[0].answer_age, Some(std::time::Duration::from_nanos(2)));
        assert_eq!((states.len(), states[2].failure.as_deref()), (3, None), "the other family is asked by itself");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let other_family = r#"[{"name":{"family":"ipv4","name":"a"},"addresses":["2001:db8::1"]}]"#;
        for content in [&b"no json"[..], other_family.as_bytes()] {
            state.write(NAMES, FORMAT, content).unwrap();
            let error = format!("{:#}", ResolvedNames::load(&state).err().expect("damage"));
            assert!(error.contains("names.state is damaged"), "{error}");
        }
        fs::write(state.file(NAMES), "[]").unwrap();
        assert!(ResolvedNames::load(&state).is_err(), "without checksums");
    }
}
