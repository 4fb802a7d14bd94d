//! Answers to control about one source: all state of its address in the dataplane.
//!
//! | file         | owns |
//! |--------------|------|
//! | this         | the answer, with connections, quota and matchers |
//! | `lists.rs`   | the lists that contain the address |
//! | `doors.rs`   | the address at each door |
//! | `history.rs` | its drops and failed steps, and the watch |

mod doors;
mod history;
mod lists;

use std::net::IpAddr;

use ipnet::IpNet;
use knockplane_engine::state::connections::{AddressConnections, ConnectionInfo};
use knockplane_engine::state::doors::KnockSource;
use knockplane_engine::table;
use knockplane_policy::packet::Vlan;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::source::{
    LONGEST_WATCH, MAX_SOURCE_ITEMS, MatcherMemory, RuleRef, SourceConnection, SourceConnections, SourceList,
    SourceMatcher, SourcePorts, SourceQuery, SourceQuota, SourceReport,
};

pub(super) use self::history::WatchedSource;
use super::{Administration, RequestError, door_name};
use crate::generation::Generation;

impl Administration {
    /// All state of the address. A requested watch begins before the reads, so that no event is lost in between.
    pub(super) fn source(&mut self, query: &SourceQuery) -> Result<SourceReport, RequestError> {
        let address = query.address.to_canonical();
        let now = self.shared.clock.now();
        if let Some(time) = query.watch {
            if time.is_zero() || time > LONGEST_WATCH {
                let longest = LONGEST_WATCH.as_secs();
                return Err(RequestError::Theirs(format!("a source can be watched for 1 to {longest} s")));
            }
            self.watch.begin(address, now, now + time, &self.workers, &self.shared.fast_path);
        }
        let limit = query.limit.min(MAX_SOURCE_ITEMS);
        let generation = self.shared.generation.load_full();
        let state = &self.shared.state;
        let settings = generation.table.settings();
        let mut lists = self.lists_of(address, &generation, now);
        let vlans = self.vlans_of(address, &lists, &generation, now);
        let doors = vlans
            .iter()
            .flat_map(|vlan| self.doors_of(KnockSource { address, vlan: *vlan }, &lists, &generation, now))
            .collect();
        let lists_truncated = lists.len() > limit;
        lists.truncate(limit);
        let flows = state.connections().filter(|_| generation.table.tracks());
        Ok(SourceReport {
            address,
            protected: protected(settings, address),
            network: network(address),
            first_steps_by_network: self.rules.config.first_steps.v6_by_prefix,
            lists,
            lists_truncated,
            doors,
            ports: vlans
                .iter()
                .filter_map(|vlan| self.ports_of(KnockSource { address, vlan: *vlan }, &generation, now))
                .collect(),
            quota: state.lists.quota_of(address).map(|quota| SourceQuota {
                prefix: quota.prefix,
                used: quota.used,
                limit: quota.quota,
            }),
            connections: flows.map(|flows| self.source_connections(flows.of(address, limit.div_ceil(2), now), now)),
            matchers: matchers(address, &generation, now),
            drops: self.drops_of(address, &generation, limit, now),
            doors_remember: state.visitors().map_or(0, |visitors| visitors.capacity() as u64),
            uptime: self.shared.clock.uptime(),
        })
    }

    /// The networks in which doors can have state of the source: that of packets in no VLAN, and every network with
    /// state of the source.
    fn vlans_of(&self, address: IpAddr, lists: &[SourceList], generation: &Generation, now: Time) -> Vec<Vlan> {
        let settings = generation.table.settings();
        if settings.doors.is_empty() {
            return vec![Vlan::NONE];
        }
        let mut vlans: Vec<Vlan> = lists.iter().map(|list| list.entry.vlan).collect();
        vlans.extend(self.shared.state.visitors().iter().flat_map(|visitors| visitors.vlans_of(address, now)));
        vlans.extend(self.failures_of(address, now).iter().map(|failure| failure.failure.packet.vlan));
        let untagged = settings.vlans.of(Vlan::NONE);
        let mut vlans: Vec<Vlan> = vlans.into_iter().map(|vlan| settings.vlans.of(vlan)).collect();
        vlans.sort_unstable();
        vlans.dedup();
        vlans.retain(|vlan| *vlan != untagged);
        vlans.insert(0, untagged);
        vlans
    }

    /// The ports that the source has tried in this network, if there is a limit.
    fn ports_of(&self, source: KnockSource, generation: &Generation, now: Time) -> Option<SourcePorts> {
        let settings = generation.table.settings();
        let budget = Some(settings.port_budget).filter(|budget| budget.ports > 0 && !settings.doors.is_empty())?;
        let tried = self.shared.state.visitors().and_then(|visitors| visitors.ports_of(source, now));
        let tried = tried.unwrap_or_default();
        Some(SourcePorts {
            vlan: source.vlan,
            tried: tried.count(),
            budget: budget.ports,
            within: budget.within,
            ignore_for: budget.ignore_for,
            ignored: tried.are_too_many(now),
            time_left: tried.until().since(now),
        })
    }

    fn source_connections(
        &self,
        AddressConnections { count, oldest, newest }: AddressConnections,
        now: Time,
    ) -> SourceConnections {
        let shown = |flows: Vec<ConnectionInfo>| flows.into_iter().map(|flow| self.connection(flow, now)).collect();
        SourceConnections { count, oldest: shown(oldest), newest: shown(newest) }
    }

    fn connection(&self, flow: ConnectionInfo, now: Time) -> SourceConnection {
        SourceConnection {
            vlan: flow.vlan,
            protocol: flow.protocol,
            from: flow.originator,
            to: flow.responder,
            state: flow.state,
            closed: flow.is_closed,
            fasttracked: flow.fasttracked,
            door: flow.door.and_then(|open| door_name(&self.shared, open)),
            bytes: flow.bytes,
            time_left: flow.expiry.since(now),
        }
    }
}

/// The protected prefix that contains the address; `None` if all addresses of its family are protected.
fn protected(settings: &Settings, address: IpAddr) -> Option<IpNet> {
    let around = |net: &&IpNet| net.contains(&address);
    let mut around = settings.protect.iter().filter(around);
    let first = around.next()?;
    let everything = first.prefix_len() == 0 || around.any(|net| net.prefix_len() == 0);
    (!everything).then_some(*first)
}

/// The /64 of an IPv6 address.
pub(super) fn network(address: IpAddr) -> Option<IpNet> {
    IpNet::new(address, 64).ok().filter(|_| address.is_ipv6()).map(|net| net.trunc())
}

/// A rule by its position among the declared ones.
fn rule_ref(generation: &Generation, position: usize) -> Option<RuleRef> {
    let rule = generation.rules().rules.get(position)?;
    let number = *generation.numbers.get(position)?;
    let (id, chain, comment) = (rule.id.clone(), rule.chain.clone(), rule.comment.clone());
    Some(RuleRef { id, number, line: rule.line, chain, comment })
}

fn matchers(address: IpAddr, generation: &Generation, now: Time) -> Vec<SourceMatcher> {
    let matcher = |matcher: table::AddressMatcher| {
        let memory = match matcher.memory {
            table::MatcherMemory::Psd { weight, threshold, until } => {
                MatcherMemory::Psd { weight, threshold, time_left: until.since(now) }
            }
            table::MatcherMemory::DstLimit { tokens, burst, until } => {
                MatcherMemory::DstLimit { tokens, burst, time_left: until.since(now) }
            }
            table::MatcherMemory::ConnectionLimit { connections, limit, prefix_length } => {
                MatcherMemory::ConnectionLimit { connections, limit, prefix_length }
            }
        };
        Some(SourceMatcher { rule: rule_ref(generation, matcher.rule)?, memory })
    };
    generation.table.matchers_of(address, now).into_iter().filter_map(matcher).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protects_everything_says_nothing_of_an_address() {
        let settings = |nets: &[&str]| Settings {
            protect: nets.iter().map(|net| net.parse().expect("a prefix")).collect(),
            ..Settings::default()
        };
        let of = |nets: &[&str]| {
            protected(&settings(nets), [203, 0, 113, 5].into()).map(|net| net.to_string()).unwrap_or_default()
        };
        assert_eq!(of(&["203.0.113.0/24", "::/0"]), "203.0.113.0/24");
        assert_eq!(
            (of(&["0.0.0.0/0"]), of(&["203.0.113.0/24", "0.0.0.0/0"]), of(&["192.0.2.0/24"])),
            Default::default()
        );
    }

    #[test]
    fn the_network_is_an_ipv6_addresss_alone() {
        assert_eq!(network([203, 0, 113, 5].into()), None);
        let network = network("2001:db8:0:1:2::3".parse().expect("an address"));
        assert_eq!(network.expect("a network").to_string(), "2001:db8:0:1::/64");
    }
}
