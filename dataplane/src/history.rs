//! The history: the rule sets that have run, in `history.state`.
//!
//! A revision is a record of the file, with its whole rule set. So each one can be read without the others, and damage
//! costs only the records that it hits. The revisions are also in memory, in their encoded form, so that reading them
//! needs no file.
//!
//! **Bounds**: [`MAX_REVISIONS`] revisions, and [`MAX_BYTES`] of records. When a new revision exceeds a bound, the oldest
//! ones are dropped and the file is written anew. A rule set that is too large for the file on its own is not kept; its
//! revision is.
//!
//! **Failures**: the history never prevents a start, an apply or a rollback. A file that cannot be read is kept aside, and the
//! history begins anew. A record that cannot be written is logged, and is written together with the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use knockplane_policy::rsc::RuleSetChanges;
use knockplane_policy::rule::{Rule, RuleId, RuleSet};
use knockplane_policy::wire::history::{ApplyNote, History, MAX_REVISIONS, Revision, RevisionOrigin, RevisionRules};
use serde::{Deserialize, Serialize};

use crate::generation::Generation;
use crate::state_dir::{
    ChangeLog, FileFormat, HISTORY, LogEnd, LogRecords, RECORD_HEADER, Record, StateDir, StoredFile,
};

/// The format of `history.state`: records of JSON, each a [`StoredRevision`].
const FORMAT: FileFormat = FileFormat { kind: "history", version: 1 };

/// Maximum number of bytes of all records: some 40,000 rules. It bounds the memory, and the time to write the file anew.
const MAX_BYTES: usize = 16 << 20;

/// A revision in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRevision {
    revision: Revision,
    /// `None` if they are too large to be kept.
    rules: Option<RuleSet>,
}

/// A revision in memory.
struct KeptRevision {
    revision: Revision,
    /// The encoded [`StoredRevision`].
    content: Vec<u8>,
}

/// The revisions, and their file.
pub(crate) struct RevisionHistory {
    log: ChangeLog,
    revisions: VecDeque<KeptRevision>,
    /// The rules of the last revision without lines, if they are kept.
    last_rules: Option<RuleSet>,
    /// The number of the revision that added each of these rules, or that changed it last.
    origins: HashMap<RuleId, u64>,
    damage: Option<String>,
    /// Whether the file lacks a revision.
    is_behind: bool,
}

/// A change of the running rules.
pub(crate) struct RevisionCause {
    pub(crate) origin: RevisionOrigin,
    pub(crate) note: ApplyNote,
    pub(crate) confirm_within: Option<Duration>,
}

impl RevisionCause {
    /// A cause without an operator.
    pub(crate) fn of(origin: RevisionOrigin) -> RevisionCause {
        RevisionCause { origin, note: ApplyNote::default(), confirm_within: None }
    }
}

impl RevisionHistory {
    /// Loads the revisions. A damaged file is logged; the intact revisions are kept.
    pub(crate) fn load(state: &Arc<StateDir>) -> RevisionHistory {
        let mut history = RevisionHistory {
            log: ChangeLog::new(Arc::clone(state), HISTORY, FORMAT),
            revisions: VecDeque::new(),
            last_rules: None,
            origins: HashMap::new(),
            damage: None,
            is_behind: false,
        };
        match state.read_log(HISTORY, FORMAT, None) {
            Ok(Some(StoredFile::Records(records))) => history.take(&records),
            Ok(Some(StoredFile::Whole(_)) | None) => {}
            Err(error) => {
                let (shown, cause) = (history.log.path(), error.root_cause());
                history.damage = Some(format!("{} is damaged: {cause}; the history begins anew", shown.display()));
            }
        }
        if let Some(damage) = &mut history.damage {
            *damage += &format!("; {}", state.keep_damaged(HISTORY));
            tracing::error!("{damage}");
            // So that the next start does not find the same damage.
            history.save(true);
        }
        history
    }

    /// Takes the intact records of the file.
    fn take(&mut self, records: &LogRecords) {
        let shown = self.log.path().display().to_string();
        let mut unreadable = 0;
        for Record { content, .. } in records.valid() {
            match decode(content) {
                Ok(StoredRevision { revision, rules }) => {
                    self.begin(revision.number, rules.map(RuleSet::without_lines));
                    self.revisions.push_back(KeptRevision { revision, content: content.to_vec() });
                }
                Err(_) => unreadable += 1,
            }
        }
        self.damage = match &records.end {
            LogEnd::Damaged(damage) => Some(format!("{shown} is damaged at byte {}: revisions are lost", damage.place)),
            _ if unreadable > 0 => Some(format!("{shown} is damaged: {unreadable} revisions cannot be read")),
            LogEnd::Whole | LogEnd::Torn(_) => None,
        };
        if self.damage.is_none()
            && let Err(error) = self.log.resume(records)
        {
            tracing::warn!("{shown} cannot be continued: {error}; it is written anew");
        }
        self.trim();
    }

    /// Notes that these rules run from this revision on: the origin of those that the revision before does not have.
    fn begin(&mut self, number: u64, rules: Option<RuleSet>) {
        let before = self.last_rules.take().map_or_else(Vec::new, |rules| rules.rules);
        let before: HashMap<&RuleId, &Rule> = before.iter().map(|rule| (&rule.id, rule)).collect();
        let origin = |rule: &Rule| {
            let is_same = before.get(&rule.id).is_some_and(|before| *before == rule);
            let origin = self.origins.get(&rule.id).filter(|_| is_same).copied();
            (rule.id.clone(), origin.unwrap_or(number))
        };
        let origins = rules.iter().flat_map(|rules| &rules.rules).map(origin).collect();
        self.origins = origins;
        self.last_rules = rules;
    }

    /// The number of the revision that added each of these rules, or that changed it last; `None` for the rules of doors.
    pub(crate) fn origins(&self, rules: &[Rule]) -> Vec<Option<u64>> {
        let oldest = self.revisions.front().map_or(0, |kept| kept.revision.number);
        let origin = |rule: &Rule| self.origins.get(&rule.id).map(|origin| *origin.max(&oldest));
        rules.iter().map(|rule| origin(rule).filter(|_| !rule.dynamic)).collect()
    }

    /// The number of the last revision; 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.revisions.back().map_or(0, |last| last.revision.number)
    }

    /// Adds a revision if the rules are others than those of the last one. An undo and a redo are always revisions, and
    /// so are their rollbacks, because the next undo continues from them.
    pub(crate) fn add(&mut self, cause: RevisionCause, generation: &Generation) {
        let rules = generation.rules().clone().without_lines();
        let cause = if cause.origin == RevisionOrigin::Start { self.cause_of_start(&rules) } else { cause };
        let RevisionCause { origin, note, confirm_within } = cause;
        let is_step = |origin| matches!(origin, RevisionOrigin::Undo | RevisionOrigin::Redo);
        let last_origin = self.revisions.back().map(|last| last.revision.origin);
        let ends_step = origin == RevisionOrigin::Unconfirmed && last_origin.is_some_and(is_step);
        if self.last_rules.as_ref() == Some(&rules) && !is_step(origin) && !ends_step {
            return;
        }
        let none = RuleSet::default();
        let mut revision = Revision {
            number: self.last() + 1,
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            origin,
            note,
            source: generation.source.clone(),
            rules: rules.rules.len(),
            changes: RuleSetChanges::of(self.last_rules.as_ref().unwrap_or(&none), &rules).counts(),
            confirm_within,
            has_rules: true,
        };
        let mut content = encode(&revision, Some(generation.rules()));
        if content.len() + RECORD_HEADER > MAX_BYTES {
            revision.has_rules = false;
            content = encode(&revision, None);
        }
        self.begin(revision.number, Some(rules));
        self.revisions.push_back(KeptRevision { revision, content });
        let is_trimmed = self.trim();
        self.save(is_trimmed);
    }

    /// The cause of a start's revision. A start with the rules before a change that waited for its confirmation rolls back this
    /// change, as the end of the time does.
    fn cause_of_start(&self, rules: &RuleSet) -> RevisionCause {
        let mut newest = self.revisions.iter().rev();
        let last = newest.next().filter(|last| last.revision.confirm_within.is_some());
        let before = newest.next().and_then(|before| decode(&before.content).ok()?.rules);
        match last
            .filter(|_| self.last_rules.as_ref() != Some(rules) && before.is_some_and(|b| b.without_lines() == *rules))
        {
            Some(last) => {
                let is_reload = last.revision.origin == RevisionOrigin::Reload;
                // The steps of `knockctl undo` ignore reloads, and therefore their rollbacks.
                let origin = if is_reload { RevisionOrigin::Reload } else { RevisionOrigin::Unconfirmed };
                let comment = "the dataplane started before it was confirmed".to_owned();
                RevisionCause { note: ApplyNote { comment, ..ApplyNote::default() }, ..RevisionCause::of(origin) }
            }
            None => RevisionCause::of(RevisionOrigin::Start),
        }
    }

    /// Drops the oldest revisions until the others are within the bounds. Returns whether there were any.
    fn trim(&mut self) -> bool {
        let mut bytes: usize = self.revisions.iter().map(|kept| kept.content.len() + RECORD_HEADER).sum();
        let mut is_trimmed = false;
        while self.revisions.len() > MAX_REVISIONS || bytes > MAX_BYTES {
            let Some(dropped) = self.revisions.pop_front() else { break };
            bytes -= dropped.content.len() + RECORD_HEADER;
            is_trimmed = true;
        }
        is_trimmed
    }

    /// Writes the last revision, or all of them. All of them are also written if the file lacks some.
    fn save(&mut self, is_whole: bool) {
        let record = |kept: &KeptRevision| Record { content: kept.content.clone(), only_adds: true };
        let written = match self.revisions.back() {
            Some(last) if !(is_whole || self.is_behind || self.log.is_broken()) => self.log.append(&record(last)),
            _ => self.log.replace(self.revisions.iter().map(record)),
        };
        self.is_behind = written.is_err();
        if let Err(error) = written {
            let path = self.log.path();
            tracing::warn!("cannot keep the history in {}: {error}; the rules run nevertheless", path.display());
        }
    }

    /// The revisions for operators.
    pub(crate) fn overview(&self) -> History {
        let revisions = self.revisions.iter().map(|kept| kept.revision.clone()).collect();
        History { revisions, damage: self.damage.clone() }
    }

    /// A revision with its rules.
    ///
    /// # Errors
    /// If there is no such revision, or if its rules are not kept.
    pub(crate) fn revision(&self, number: u64) -> Result<RevisionRules, String> {
        let Some(kept) = self.revisions.iter().find(|kept| kept.revision.number == number) else {
            let [first, last] =
                [self.revisions.front(), self.revisions.back()].map(|kept| kept.map_or(0, |kept| kept.revision.number));
            return Err(format!(
                "there is no revision {number}: `knockctl history` shows those from {first} to {last}"
            ));
        };
        let stored = decode(&kept.content).map_err(|error| format!("revision {number} cannot be read: {error}"))?;
        let rules = stored.rules.ok_or_else(|| {
            format!("the rules of revision {number} are not kept: they are larger than {} MiB", MAX_BYTES >> 20)
        })?;
        Ok(RevisionRules { revision: stored.revision, rules })
    }
}

fn encode(revision: &Revision, rules: Option<&RuleSet>) -> Vec<u8> {
    let stored = StoredRevision { revision: revision.clone(), rules: rules.cloned() };
    serde_json::to_vec(&stored).expect("revisions are plain data, and memory does not fail")
}

fn decode(content: &[u8]) -> serde_json::Result<StoredRevision> {
    serde_json::from_slice(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use knockplane_engine::state::State;
    use knockplane_engine::table::RuleTable;
    use knockplane_limits::predecessor::Deadline;
    use knockplane_policy::rsc;
    use knockplane_policy::rule::RuleChangeCounts;
    use knockplane_policy::settings::Settings;
    use knockplane_policy::time::Time;
    use tempfile::TempDir;

    use super::*;

    fn generation(rules: &str) -> Generation {
        let rules = rsc::read(format!("/ip firewall filter\n{rules}").as_bytes()).rules;
        let state = State::new(16, 16).expect("a small state");
        let table = RuleTable::compile(Arc::new(rules), &Settings::default(), &state, Time::default());
        Generation::new(1, Time::default(), "a.rsc".to_owned(), table.expect("valid rules"), 1)
    }

    fn of_port(port: usize) -> Generation {
        generation(&format!("add chain=input protocol=tcp dst-port={port}\nadd chain=input action=drop\n"))
    }

    struct House {
        state: Arc<StateDir>,
        folder: TempDir,
    }

    impl House {
        fn new() -> House {
            let folder = tempfile::tempdir().expect("a folder");
            let state = StateDir::open(&folder.path().join("state"), Deadline::over()).expect("a state directory");
            House { state: Arc::new(state), folder }
        }

        fn load(&self) -> RevisionHistory {
            RevisionHistory::load(&self.state)
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("state/history.state")
        }
    }

    fn apply() -> RevisionCause {
        RevisionCause::of(RevisionOrigin::Apply)
    }

    fn numbers(history: &RevisionHistory) -> Vec<u64> {
        history.overview().revisions.iter().map(|revision| revision.number).collect()
    }

    #[test]
    fn each_change_of_rules_is_a_revision_and_survives_a_restart() {
        let house = House::new();
        let mut history = house.load();
        assert!(history.overview().revisions.is_empty());
        let note = ApplyNote { uid: Some(7), comment: "why".to_owned(), ..ApplyNote::default() };
        history.add(RevisionCause::of(RevisionOrigin::Start), &of_port(1));
        history.add(RevisionCause { note, confirm_within: Some(Duration::from_secs(60)), ..apply() }, &of_port(2));
        history.add(apply(), &generation("\n\nadd chain=input protocol=tcp dst-port=2\nadd chain=input action=drop\n"));
        for history in [history, house.load()] {
            let overview = history.overview();
            assert_eq!((numbers(&history), &overview.damage), (vec![1, 2], &None), "other lines are no change");
            let second = &overview.revisions[1];
            let changes = RuleChangeCounts { added: 1, removed: 1, ..RuleChangeCounts::default() };
            assert_eq!((second.rules, second.changes, second.origin), (2, changes, RevisionOrigin::Apply));
            assert_eq!((second.note.uid, &*second.note.comment), (Some(7), "why"));
            assert_eq!(history.revision(2).expect("kept").rules, *of_port(2).rules());
            let error = history.revision(3).expect_err("no such revision");
            assert!(error.contains("there is no revision 3") && error.contains("from 1 to 2"), "{error}");
        }
        let mut history = house.load();
        history.add(apply(), &of_port(2));
        assert_eq!(numbers(&history), [1, 2], "the rules that ran before a restart");
    }

    #[test]
    fn a_rule_has_the_revision_that_added_or_changed_it() {
        let house = House::new();
        let mut history = house.load();
        let rules = |first: &str| {
            generation(&format!("{first}add chain=input protocol=tcp dst-port=2\nadd chain=input action=drop\n"))
        };
        let steps = [
            (rules(""), vec![1, 1]),
            (rules("add chain=input protocol=icmp\n"), vec![2, 1, 1]),
            (rules("\n\nadd chain=input protocol=icmp\n"), vec![2, 1, 1]),
            (rules("add chain=input protocol=icmp comment=x\n"), vec![3, 1, 1]),
            (generation("add chain=input action=drop\nadd chain=input protocol=icmp comment=x\n"), vec![1, 3]),
            (rules(""), vec![5, 1]),
        ];
        for (generation, expected) in steps {
            history.add(apply(), &generation);
            let expected: Vec<_> = expected.into_iter().map(Some).collect();
            let rules = &generation.rules().rules;
            assert_eq!(history.origins(rules), expected);
            assert_eq!(house.load().origins(rules), expected, "after a restart");
            let of_door = Rule { dynamic: true, ..rules[0].clone() };
            assert_eq!(history.origins(&[of_door]), [None]);
        }
        // Older revisions than the oldest one that is kept are not known.
        (1..=MAX_REVISIONS).for_each(|port| {
            history.add(
                apply(),
                &generation(&format!("add chain=input protocol=tcp dst-port={port}\nadd chain=input action=drop\n")),
            );
        });
        let oldest = numbers(&history)[0];
        let last = generation("add chain=input action=drop\n");
        assert!(oldest > 1);
        for history in [history, house.load()] {
            assert_eq!(history.origins(&last.rules().rules), [Some(oldest)]);
        }
    }

    #[test]
    fn an_undo_is_a_revision_even_if_the_rules_stay() {
        let house = House::new();
        let mut history = house.load();
        for (origin, expected) in [
            (RevisionOrigin::Start, 1),
            (RevisionOrigin::Edit, 1),
            (RevisionOrigin::Unconfirmed, 1),
            (RevisionOrigin::Undo, 2),
            (RevisionOrigin::Unconfirmed, 3),
            (RevisionOrigin::Unconfirmed, 3),
            (RevisionOrigin::Redo, 4),
        ] {
            history.add(RevisionCause::of(origin), &of_port(1));
            assert_eq!(history.last(), expected, "{origin:?}");
        }
    }

    #[test]
    fn a_start_rolls_back_what_was_not_confirmed() {
        use RevisionOrigin::{Apply, Edit, Reload, Start, Unconfirmed};
        for (change, confirm, rules_at_start, expected) in [
            (Apply, true, 1, Some(Unconfirmed)),
            (Edit, true, 1, Some(Unconfirmed)),
            (Reload, true, 1, Some(Reload)),
            // Confirmed, so its rules run again.
            (Apply, true, 2, None),
            // Other rules than those before: another configured file, for example.
            (Apply, true, 3, Some(Start)),
            (Apply, false, 1, Some(Start)),
        ] {
            let house = House::new();
            let mut history = house.load();
            history.add(RevisionCause::of(Start), &of_port(1));
            let confirm_within = confirm.then_some(Duration::from_secs(60));
            history.add(RevisionCause { confirm_within, ..RevisionCause::of(change) }, &of_port(2));
            let mut history = house.load();
            history.add(RevisionCause::of(Start), &of_port(rules_at_start));
            let third = house.load().overview().revisions.get(2).map(|revision| revision.origin);
            assert_eq!(third, expected, "{change:?}, {confirm}, {rules_at_start}");
        }
    }

    #[test]
    fn the_oldest_revisions_are_dropped() {
        let house = House::new();
        let mut history = house.load();
        (1..=MAX_REVISIONS + 5).for_each(|port| history.add(apply(), &of_port(port)));
        for history in [history, house.load()] {
            let kept = numbers(&history);
            assert_eq!((kept.len(), kept[0], kept[MAX_REVISIONS - 1]), (MAX_REVISIONS, 6, MAX_REVISIONS as u64 + 5));
        }
        // A comment of 300 KiB in each of two rules: the file has room for some 27 revisions.
        let mut history = house.load();
        let large = "x".repeat(300 << 10);
        for port in 1..=60 {
            let rules = format!(
                "add chain=input protocol=udp dst-port={port} comment={large}\nadd chain=input comment={large}\n"
            );
            history.add(apply(), &generation(&rules));
            assert!(fs::metadata(house.file()).expect("a file").len() <= MAX_BYTES as u64 + 64);
        }
        let kept = numbers(&house.load());
        assert!((20..30).contains(&kept.len()) && kept.last() == Some(&(MAX_REVISIONS as u64 + 65)), "{kept:?}");
    }

    #[test]
    fn rules_that_are_larger_than_the_file_are_not_kept() {
        let house = House::new();
        let mut history = house.load();
        history.add(apply(), &of_port(1));
        let large = "x".repeat(4 << 20);
        let rules: String =
            (1..=5).map(|port| format!("add chain=input protocol=tcp dst-port={port} comment={large}\n")).collect();
        history.add(apply(), &generation(&rules));
        history.add(apply(), &of_port(2));
        for history in [history, house.load()] {
            assert_eq!(numbers(&history), [1, 2, 3]);
            assert!(history.revision(2).expect_err("not kept").contains("larger than 16 MiB"));
            assert!(history.revision(1).is_ok() && history.revision(3).is_ok());
        }
    }

    /// Damage of any byte and any cut leave a history that works, and the file is kept aside.
    #[test]
    fn damage_costs_revisions_and_nothing_else() {
        let house = House::new();
        let mut history = house.load();
        (1..=3).for_each(|port| history.add(apply(), &of_port(port)));
        let intact = fs::read(house.file()).expect("a file");
        for place in (0..intact.len()).step_by(7) {
            let mut damaged = intact.clone();
            damaged[place] ^= 0x10;
            fs::write(house.file(), &damaged).expect("written");
            let mut history = house.load();
            let damage = history.overview().damage.expect("reported");
            assert!(damage.contains("history.state is damaged") && damage.contains(".aside-"), "{place}: {damage}");
            history.add(apply(), &of_port(9));
            assert!(history.overview().revisions.len() <= 3, "{place}");
            let again = house.load();
            assert_eq!((numbers(&again), again.overview().damage), (numbers(&history), None), "{place}");
            assert!(again.revision(*numbers(&again).last().expect("one")).is_ok(), "{place}");
        }
        for length in (0..intact.len()).step_by(11) {
            fs::write(house.file(), &intact[..length]).expect("written");
            let mut history = house.load();
            history.add(apply(), &of_port(9));
            assert_eq!(numbers(&house.load()), numbers(&history), "{length} bytes");
        }
        // A directory in place of the file.
        fs::remove_file(house.file()).expect("removed");
        fs::create_dir(house.file()).expect("a folder");
        let mut history = house.load();
        history.add(apply(), &of_port(1));
        assert_eq!(numbers(&history), [1]);
        fs::remove_dir(house.file()).expect("removed");
        history.add(apply(), &of_port(2));
        assert_eq!(numbers(&house.load()), [1, 2], "both are written as soon as it is possible");
    }
}
