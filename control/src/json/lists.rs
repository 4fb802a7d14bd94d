//! The output of `show lists` and `list show`, which `explain --lists` and `replay --lists` can read.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use knockplane_engine::state::lists::OPERATOR_LEVEL;
use knockplane_policy::packet::Family;
use knockplane_policy::wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NetworkJson, PeerJson, line, seconds};

/// Address lists, or a part of them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ListsJson {
    /// The lists.
    pub(crate) lists: Vec<ListJson>,
    /// Entries, ordered by list and address, at most `--limit`.
    pub(crate) entries: Vec<ListEntryJson>,
    /// The host names in the lists.
    pub(crate) names: Vec<HostNameJson>,
    /// Whether there are more entries.
    pub(crate) truncated: bool,
}

/// A host name in a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HostNameJson {
    pub(crate) list: String,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
    /// The family of the addresses.
    pub(crate) family: Family,
    pub(crate) name: String,
    /// `resolved`, `failing` (the last attempt failed, the addresses are from before), `stored` (the addresses are from
    /// before the start) or `unresolved`.
    pub(crate) state: String,
    /// The addresses in the last answer.
    pub(crate) addresses: Vec<IpAddr>,
    /// The reason that the last attempt failed; `null` if it did not fail.
    pub(crate) failure: Option<String>,
    /// Time since the last answer; `null` if there was none since the dataplane started.
    pub(crate) answer_age_seconds: Option<f64>,
}

impl From<wire::NameState> for HostNameJson {
    fn from(state: wire::NameState) -> Self {
        let word = state.state().to_owned();
        let wire::NameState { list, line: at, name, addresses, failure, answer_age } = state;
        let wire::HostName { family, name } = name;
        let answer_age_seconds = answer_age.map(seconds);
        HostNameJson { list, line: line(at), family, name, state: word, addresses, failure, answer_age_seconds }
    }
}

/// One list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ListJson {
    pub(crate) list: String,
    /// The number of packets that an addition needs, less one; `null` if only operators fill the list.
    pub(crate) level: Option<u8>,
    /// Number of dynamic entries now.
    pub(crate) entries: u64,
    /// Entries that have expired since the dataplane started.
    pub(crate) expired: u64,
    /// Entries that were evicted before they expired since the dataplane started, because the table was full.
    pub(crate) evicted: u64,
    /// Additions that were refused since the dataplane started, because the table or a quota was full.
    pub(crate) refused: u64,
    /// Whether a running rule adds to the list.
    pub(crate) by_packets: bool,
    /// Static entries of the rules.
    pub(crate) by_rules: u64,
    /// Static entries, and prefixes with a timeout, of operators.
    pub(crate) by_operators: u64,
}

impl From<wire::ListOverview> for ListJson {
    fn from(overview: wire::ListOverview) -> Self {
        let wire::ListOverview { summary, by_packets, by_rules, by_operators } = overview;
        let wire::ListSummary { list, level, entries, expired, evicted, refused } = summary;
        let level = Some(level).filter(|level| *level != OPERATOR_LEVEL);
        ListJson { list, level, entries, expired, evicted, refused, by_packets, by_rules, by_operators }
    }
}

/// One entry of one list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Entry")]
pub(crate) struct ListEntryJson {
    pub(crate) list: String,
    /// The address, prefix or range.
    pub(crate) address: String,
    /// The only network in which the entry counts; `null` if it counts in all networks, or, for an entry of a door,
    /// outside all networks.
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    /// The only address behind the filter for which the entry counts; `null` if it counts for all.
    pub(crate) to: Option<PeerJson>,
    /// Number of steps of a knock that were taken; `null` if the list does not contain the knocks of a door.
    pub(crate) steps: Option<u8>,
    /// Time left; `null` if the entry does not expire.
    pub(crate) time_left_seconds: Option<f64>,
    /// Whether the entry has a timeout, or a packet added it.
    pub(crate) dynamic: bool,
    /// Whether the entry is in the rule file.
    pub(crate) of_rules: bool,
    /// The line in the rule file, if it is known.
    pub(crate) line: Option<u32>,
    /// The host name that resolves to the address; `null` if the entry does not come from a host name.
    pub(crate) name: Option<String>,
    pub(crate) comment: String,
}

impl From<wire::ListEntry> for ListEntryJson {
    fn from(entry: wire::ListEntry) -> Self {
        let wire::ListEntry { list, address, vlan, to, steps, time_left, dynamic, line: of_line, name, comment } =
            entry;
        ListEntryJson {
            list,
            address: address.to_string(),
            network: vlan.into(),
            to: to.map(PeerJson::from),
            steps: Some(steps).filter(|steps| *steps > 0),
            time_left_seconds: time_left.map(seconds),
            dynamic,
            of_rules: of_line.is_some(),
            line: of_line.and_then(line),
            name,
            comment,
        }
    }
}

impl From<wire::ListPage> for ListsJson {
    fn from(wire::ListPage { lists, entries, names, truncated, next: _ }: wire::ListPage) -> Self {
        ListsJson {
            lists: lists.into_iter().map(ListJson::from).collect(),
            entries: entries.into_iter().map(ListEntryJson::from).collect(),
            names: names.into_iter().map(HostNameJson::from).collect(),
            truncated,
        }
    }
}

impl TryFrom<ListEntryJson> for wire::ListEntry {
    type Error = String;

    fn try_from(entry: ListEntryJson) -> Result<Self, String> {
        let ListEntryJson {
            list,
            address,
            network,
            to,
            steps,
            time_left_seconds,
            dynamic,
            of_rules,
            line,
            name,
            comment,
        } = entry;
        let unknown = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let time_left = time_left_seconds.map(Duration::try_from_secs_f64).transpose();
        Ok(wire::ListEntry {
            list,
            address: address.parse()?,
            vlan: network.try_into().map_err(|error| format!("`vlan` of {address}: {error}"))?,
            to: to.map(|to| to.address.unwrap_or(unknown)),
            steps: steps.unwrap_or_default(),
            time_left: time_left.map_err(|error| format!("`time_left_seconds` of {address}: {error}"))?,
            dynamic,
            line: of_rules.then(|| line.unwrap_or_default()),
            name,
            comment,
        })
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Vlan;

    use super::*;
    use crate::sample;

    #[test]
    fn entries_are_read_as_what_they_were() {
        let mut entries = sample::lists().entries;
        entries[0].to = Some("203.0.113.5".parse().unwrap());
        entries[0].steps = 2;
        entries[1].to = Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        entries[1].line = Some(0);
        entries[1].vlan = Vlan::UNTAGGED;
        let tagged = wire::ListEntry { vlan: Vlan::labelled(Some("10/20"), Some(7)).unwrap(), ..entries[0].clone() };
        entries.push(tagged);
        for entry in entries {
            let text = serde_json::to_string(&ListEntryJson::from(entry.clone())).unwrap();
            let read: ListEntryJson = serde_json::from_str(&text).unwrap();
            assert_eq!(wire::ListEntry::try_from(read).unwrap(), entry, "{text}");
        }
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        let mut entry = ListEntryJson::from(sample::lists().entries[0].clone());
        entry.network.vlan = Some("4096".to_owned());
        assert!(wire::ListEntry::try_from(entry).unwrap_err().starts_with("`vlan` of 192.0.2.7: expected a VLAN"));
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for time in [-1.0, f64::NAN, 1e300] {
            let mut entry = ListEntryJson::from(sample::lists().entries[0].clone());
            entry.time_left_seconds = Some(time);
            assert!(wire::ListEntry::try_from(entry).unwrap_err().contains("192.0.2.7"));
        }
    }
}
