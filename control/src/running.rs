//! The state of the dataplane by which packets are evaluated outside it: rules, settings and list entries.

use std::time::{SystemTime, UNIX_EPOCH};

use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListPage;

/// The first line of an export. It has no time, generation or file name, so that the same rules have the same text.
pub(crate) const EXPORT_HEADER: &str = concat!("# by knockplane ", env!("CARGO_PKG_VERSION"), "\n");

/// The running rules, settings and list entries.
#[derive(Debug)]
pub(crate) struct Running {
    /// The origin of the rules.
    pub(crate) source: String,
    pub(crate) rules: RuleSet,
    pub(crate) settings: Settings,
    pub(crate) lists: ListPage,
}

/// Running rules without their entries with a timeout, which are among the list entries unless they have expired.
pub(crate) fn for_bench(running: &RuleSet) -> RuleSet {
    let mut rules = running.clone();
    rules.address_lists.retain(|entry| entry.timeout.is_none());
    rules
}

/// The wall clock, for rules with a time of day.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or_default())
}
