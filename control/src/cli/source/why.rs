//! The causes that keep a source out, in sentences, each with its remedy.

use std::time::Duration;

use knockplane_policy::door::{Failure, open_list};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::source::{IgnoredFor, Source, SourceDoor, SourceFailure, SourcePorts};
use knockplane_policy::word::Word;

use super::text::{last_packet, short};
use crate::cli::table::{count, printable};

/// The page with more details.
const PAGE: &str = "docs/doors.md, \"Several clients behind one address\"";

/// The age after which a failed step is no longer a cause.
const RECENTLY: Duration = Duration::from_secs(600);

/// A cause that keeps a source out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The finding, its cause and its end.
    pub(super) what: String,
    /// The remedy; empty if there is none.
    pub(super) remedy: String,
}

impl Finding {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { what: what.into(), remedy: remedy.into() }
    }
}

/// All findings; those that concern all doors come first.
pub(super) fn findings(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(protected) = source.protected {
        findings.push(Finding::new(
            format!(
                "It is a protected address ({protected} in `protect`): it is behind the filter. Its packets come from \
                 inside, enter chain output, and are no knocks."
            ),
            "",
        ));
    }
    findings.extend(source.ports.iter().filter(|ports| ports.ignored).map(|ports| too_many_ports(source, ports)));
    if let Some(quota) = source.quota.filter(|quota| quota.is_used_up()) {
        findings.push(Finding::new(
            format!(
                "First steps of {} are refused: {} of {} are in use, by this source or its neighbours.",
                quota.prefix, quota.used, quota.limit
            ),
            "`first-step-quota` in [dataplane] sets how many there may be; a change takes a restart.",
        ));
    }
    for door in &source.doors {
        let ignored = door.ignored.iter().filter(|ignored| ignored.reason != Failure::Ports);
        findings.extend(ignored.filter_map(|ignored| at_door(door, ignored)));
        findings.extend(door.failures.iter().filter_map(|failure| failed(door, failure)));
    }
    findings
}

fn too_many_ports(source: &Source, ports: &SourcePorts) -> Finding {
    let whose = source.network.map_or_else(|| "this address".to_owned(), |network| format!("its network {network}"));
    let door = source.doors.first().map_or("NAME", |door| &door.door);
    Finding::new(
        format!(
            "Its knocks are ignored at all doors{} for another {} ({}): from {whose}, more than {} different ports were \
             tried within {}. If several hosts share the address, one of them may be scanning.",
            in_vlan(ports.vlan),
            short(ports.time_left),
            Failure::Ports.name(),
            ports.budget,
            format_duration(ports.within)
        ),
        format!(
            "[policy.port-budget] sets `ports`, `within` and `ignore-for`; `knockctl reload` takes them over. `knockctl \
             list add {} {} --timeout 10m` lets the address in without a knock. See {PAGE}.",
            printable(&open_list(door)),
            source.address
        ),
    )
}

/// The reason why a door ignores the source.
fn at_door(door: &SourceDoor, IgnoredFor { reason, time_left }: &IgnoredFor) -> Option<Finding> {
    let (name, why) = (at(door), reason.name());
    let left = time_left.map(short).unwrap_or_default();
    Some(match reason {
        Failure::HeldOff => Finding::new(
            format!("At door {name}, its knocks are ignored for another {left} ({why}): it has just opened the door."),
            "The door's `hold-off` sets for how long.",
        ),
        Failure::Attempts => {
            let attempts = door.attempts?;
            let (limit, per) = (attempts.limit, format_duration(attempts.per));
            Finding::new(
                format!(
                    "At door {name}, its first steps are refused for another {left} ({why}): it has begun {}, and \
                     {limit} in {per} count.",
                    count(usize::try_from(attempts.used).unwrap_or(usize::MAX), "knock")
                ),
                "The door's `max-attempts` sets how many count, of all hosts that share the address.",
            )
        }
        Failure::Source => {
            Finding::new(format!("At door {name}, it may not knock ({why}): the door's `sources` leave it out."), "")
        }
        Failure::StartedOver | Failure::TimedOut | Failure::Evicted | Failure::Ports => return None,
    })
}

/// The failed steps of the source at this door, if they are recent, the source has no grant, and the reason that the
/// source is ignored does not already explain them.
fn failed(door: &SourceDoor, failure: &SourceFailure) -> Option<Finding> {
    if !door.grants.is_empty() || failure.last_ago > RECENTLY {
        return None;
    }
    let (name, why) = (at(door), failure.reason.name());
    let last = format!("last {} ago", short(failure.last_ago));
    match failure.reason {
        Failure::StartedOver if door.strict => Some(Finding::new(
            format!(
                "At door {name}, its knock started over {}, {last} by a packet to {} ({why}): the door is strict. If \
                 several hosts share the address, packets of the others come in between.",
                times(failure.times),
                last_packet(&failure.packet)
            ),
            if door.has_passphrase {
                format!("With `strict = false` at this door, a port scan still lacks the passphrase. See {PAGE}.")
            } else {
                format!("Give a step of the knock a passphrase before you set `strict = false`. See {PAGE}.")
            },
        )),
        Failure::Evicted => Some(Finding::new(
            format!("At door {name}, {} of its steps found no room in the lists, {last} ({why}).", failure.times),
            "`list-capacity` in [dataplane] sets the room, `first-step-quota` what one prefix may have of it.",
        )),
        _ => None,
    }
}

/// `ssh`, `ssh in vlan 10`.
fn at(door: &SourceDoor) -> String {
    format!("{}{}", printable(&door.door), in_vlan(door.vlan))
}

/// ` in vlan 10`; empty without a VLAN.
fn in_vlan(vlan: Vlan) -> String {
    let name = vlan.to_string();
    if name.is_empty() { name } else { format!(" in {name}") }
}

/// `once`, `17 times`.
fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}
