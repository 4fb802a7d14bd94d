//! What would change if other rules replaced the present ones.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the plan, and the two rule sets that it compares |
//! | `changes.rs`  | changes of rules, other menus and lints |
//! | `known.rs`    | connections and sources of the dataplane whose verdict would change |
//! | `verdicts.rs` | packets of a capture or of live traffic whose verdict would change |
//! | `loss.rs`     | whether the last way in from outside would be lost |

pub(crate) mod changes;
pub(crate) mod known;
pub(crate) mod loss;
pub(crate) mod verdicts;

use knockplane_policy::lint::Lint;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::{ListEntry, ListPage};
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::changes::{Changes, Linted};
use self::known::{KnownVerdicts, Limits, RulesWithEntries};
use self::loss::loss;
use self::verdicts::{CaptureVerdicts, LiveVerdicts};
use crate::api::messages::Tracked;
use crate::running::{Running, for_bench, now};

/// What would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Plan {
    /// Whether a rule, another command of the rule file, a lint or a verdict would change. The exit code is 5 if so.
    pub(crate) would_change: bool,
    /// The origin of the old rules.
    pub(crate) old: String,
    /// The file with the new rules.
    pub(crate) new: String,
    #[serde(flatten)]
    pub(crate) changes: Changes,
    /// The packets of the capture whose verdict would change; `null` without a capture.
    pub(crate) verdicts: Option<CaptureVerdicts>,
    /// The packets of a sample of live traffic whose verdict would change; `null` without a sample.
    pub(crate) live: Option<LiveVerdicts>,
    /// The first packets of connections and sources of the dataplane whose verdict would change; `null` with a capture or a
    /// sample, or if the old rules come from a file.
    pub(crate) known: Option<KnownVerdicts>,
    /// The last way in from outside, or the last rule that runs, which the new rules would remove: `apply` asks before. `null` if
    /// there is no such loss, or if the old rules come from a file.
    pub(crate) loss: Option<String>,
}

/// The rules that are compared, and the settings of both.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) old_name: String,
    pub(crate) old: RuleSet,
    pub(crate) new_name: String,
    pub(crate) new: RuleSet,
    /// The lints about the new rules; `None` if they are not known yet.
    pub(crate) new_lints: Option<Vec<Lint>>,
    pub(crate) settings: Settings,
    /// The list entries of the dataplane; `None` if the old rules come from a file.
    pub(crate) lists: Option<ListPage>,
    /// What would be lost; `None` if the old rules come from a file.
    pub(crate) loss: Option<String>,
}

impl Plan {
    /// The plan without verdicts.
    pub(crate) fn new(compared: &Compared) -> Plan {
        let Compared { old_name, old, new_name, new, new_lints, settings, .. } = compared;
        let before = Linted::new(old_name, old, settings);
        let after = match new_lints {
            Some(lints) => Linted::with(new_name, new, lints.clone()),
            None => Linted::new(new_name, new, settings),
        };
        let changes = Changes::of(&before, &after);
        let (old, new, loss) = (old_name.clone(), new_name.clone(), compared.loss.clone());
        Plan { would_change: !changes.is_empty(), old, new, changes, verdicts: None, live: None, known: None, loss }
    }

    /// The plan with the verdicts on the connections and sources that the dataplane knows.
    pub(crate) fn of_running(compared: &Compared, tracked: &Tracked, limits: Limits) -> Plan {
        let plan = Plan { known: compared.known(tracked, limits), ..Plan::new(compared) };
        Plan { would_change: plan.changes_something(), ..plan }
    }

    pub(crate) fn changes_something(&self) -> bool {
        !self.changes.is_empty()
            || self.verdicts.as_ref().is_some_and(|verdicts| !verdicts.changed.is_empty())
            || self.live.as_ref().is_some_and(|live| !live.changed.is_empty())
            || self.known.as_ref().is_some_and(|known| !known.changed.is_empty())
    }
}

impl Compared {
    /// The running rules, and new ones.
    pub(crate) fn with_running(running: Running, new_name: String, new: RuleSet) -> Compared {
        let Running { source, rules: old, settings, lists } = running;
        let old_name = format!("the running rules, from {source}");
        let loss = loss(&source, &old, &new, &settings);
        Compared { old_name, old, new_name, new, new_lints: None, settings, lists: Some(lists), loss }
    }

    /// The comparison for the connections and sources that the dataplane knows; `None` if the old rules come from a file.
    pub(crate) fn known(&self, tracked: &Tracked, limits: Limits) -> Option<KnownVerdicts> {
        let lists = self.lists.as_ref()?;
        let [old, new] = self.for_benches();
        let stay = lists.entries.iter().filter(|entry| self.stays(entry));
        let sets = [RulesWithEntries::new(old, &lists.entries), RulesWithEntries::new(new, stay)];
        let verdicts = known::compare(&sets, &self.settings, now(), tracked, &lists.entries, limits);
        Some(KnownVerdicts { truncated: verdicts.truncated || lists.truncated, ..verdicts })
    }

    /// Both rule sets as benches need them.
    pub(crate) fn for_benches(&self) -> [RuleSet; 2] {
        let old = match &self.lists {
            Some(_) => for_bench(&self.old),
            None => self.old.clone(),
        };
        [old, self.new.clone()]
    }

    /// Whether the addresses of a host name in a list are among the entries of the dataplane.
    pub(crate) fn is_resolved(&self, list: &str, name: &str) -> bool {
        let names = self.lists.iter().flat_map(|lists| &lists.names);
        names.into_iter().any(|state| state.list == list && state.name.name == name)
    }

    /// Whether an entry of the dataplane would be in its list with the new rules. Addresses of a host name stay if the new rules
    /// have the name in the same list.
    pub(crate) fn stays(&self, entry: &ListEntry) -> bool {
        let Some(name) = &entry.name else { return true };
        let is_it = |address: &EntryAddress| matches!(address, EntryAddress::Name(other) if other == name);
        let entries = self.new.address_lists.iter().filter(|other| !other.disabled && other.list == entry.list);
        entries.into_iter().any(|other| is_it(&other.address))
    }
}
