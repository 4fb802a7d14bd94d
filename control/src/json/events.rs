//! Events: one document for each line of `monitor --json`, of `GET /api/v1/events`, and of the audit file.

use knockplane_policy::event::{EventId, GrantRecord};
use knockplane_policy::packet::Side;
use knockplane_policy::rule::RuleNumber;
use knockplane_policy::time::Time;
use knockplane_policy::wire::events::{PacketLine, PublishedEvent};
use knockplane_policy::word::Word as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NetworkJson, PeerJson, rfc_3339};
use crate::events::change::OperatorChange;
use crate::events::{EventBody, LoggedRule};

/// An event. It has the object of its kind: `entry`, `packet`, `omitted`, `gap`, `start` or `operator`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventJson {
    /// The id: the start of the dataplane and the number of the event; `null` for `omitted` and `gap`.
    pub(crate) id: Option<String>,
    /// The time, in the form of RFC 3339.
    pub(crate) time: String,
    /// `granted`, `listed`, `stepped`, `refreshed`, `removed`, `flushed`, `expired`, `evicted` or `bulk` for an entry of a list;
    /// `packet`, `omitted`, `gap`, `start` or `operator`.
    pub(crate) kind: String,
    /// The door; `null` if none is concerned.
    pub(crate) door: Option<String>,
    /// The list; `null` if none is concerned.
    pub(crate) list: Option<String>,
    /// The address, prefix or range of an entry, or the source of a packet; otherwise `null`.
    pub(crate) source: Option<String>,
    /// The rule that added an address or logged a packet; `null` if none did, or if it is not known any more.
    pub(crate) rule: Option<EventRuleJson>,
    /// The entry after the change; for an entry that ended, before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entry: Option<EventEntryJson>,
    /// A packet that a rule logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) packet: Option<LoggedPacketJson>,
    /// Packets that the rule logged and that have no event of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) omitted: Option<OmittedJson>,
    /// Events that the reader does not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gap: Option<GapJson>,
    /// A start of the dataplane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<StartJson>,
    /// A change by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator: Option<OperatorChange>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventRuleJson {
    /// The id.
    pub(crate) id: String,
    /// The number; `null` if it is not known.
    pub(crate) number: Option<RuleNumber>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventEntryJson {
    /// `packet`, `operator`, `rules`, `restore` or `peer`; `null` for `expired` and `evicted`.
    pub(crate) cause: Option<String>,
    /// The number of earlier packets that the entry required; `null` for an entry of an operator.
    pub(crate) level: Option<u8>,
    /// Whether it is an operator's entry that takes no room in the lists.
    #[serde(rename = "static")]
    pub(crate) is_static: bool,
    /// Whether it counts for the whole IPv6 /64.
    pub(crate) by_network: bool,
    /// The only network that it counts in.
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    /// The network of the knocking frame, also if lists are shared by all networks.
    pub(crate) arrived: NetworkJson,
    /// The only destination that it counts for; `null` if it counts for all.
    pub(crate) to: Option<PeerJson>,
    /// Steps of a knock; 0 for an entry that is no progress.
    pub(crate) steps: u8,
    /// The origin of the entry.
    pub(crate) origin: String,
    /// The time of the addition.
    pub(crate) since: String,
    /// The expiry; `null` if it never expires.
    pub(crate) expires: Option<String>,
    /// The user of the knock; `null`, because knocks do not contain a user yet.
    pub(crate) user: Option<String>,
}

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoggedPacketJson {
    /// The prefix of the rule.
    pub(crate) prefix: String,
    /// The chain.
    pub(crate) chain: String,
    /// The side on which it arrived.
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) network: NetworkJson,
    /// The protocol.
    pub(crate) protocol: String,
    /// The source port; `null` without ports.
    pub(crate) source_port: Option<u16>,
    /// The destination.
    pub(crate) destination: String,
    /// The destination port; `null` without ports.
    pub(crate) destination_port: Option<u16>,
    /// The number of packets that the rule has logged since the dataplane started, up to this one.
    pub(crate) total: u64,
    /// The line of the log.
    pub(crate) line: String,
}

/// Packets without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OmittedJson {
    /// Their number.
    pub(crate) lines: u64,
}

/// Events that the reader does not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GapJson {
    /// The start of the dataplane to which the numbers belong.
    pub(crate) start: String,
    /// The first missed number.
    pub(crate) first: u64,
    /// The last missed number; `null` if that start has ended, so that the number is not known.
    pub(crate) last: Option<u64>,
    /// The number of events behind the gap that the lists still had, with numbers within the gap.
    pub(crate) found: u64,
    /// Missed changes by operators. If there are some, no numbers are missed.
    pub(crate) operator_changes: u64,
}

/// A start of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StartJson {
    /// Its id.
    pub(crate) start: String,
    /// The number of events of entries that it restored. They follow.
    pub(crate) restored: u64,
}

impl EventJson {
    /// The event; `None` for packets without a line and without a number.
    pub(crate) fn new(id: Option<EventId>, time_ns: u64, body: &EventBody) -> Option<EventJson> {
        let mut event = EventJson {
            id: id.map(|id| id.to_string()),
            time: time(time_ns),
            kind: String::new(),
            door: None,
            list: None,
            source: None,
            rule: None,
            entry: None,
            packet: None,
            omitted: None,
            gap: None,
            start: None,
            operator: None,
        };
        match body {
            EventBody::Entry(published) => event.fill_entry(published),
            EventBody::Packet { rule, total, line: None, .. } => {
                event.kind = "omitted".to_owned();
                let LoggedRule { id, number } = rule;
                event.rule = id.as_ref().map(|id| EventRuleJson { id: id.to_string(), number: *number });
                event.omitted = Some(OmittedJson { lines: *total }).filter(|omitted| omitted.lines > 0);
                event.omitted.as_ref()?;
            }
            EventBody::Packet { line: Some(line), .. } => event.fill_packet(line),
            EventBody::Gap(missed) => {
                event.kind = "gap".to_owned();
                event.gap = Some(GapJson {
                    start: missed.start.to_string(),
                    first: missed.first,
                    last: missed.last,
                    found: missed.found,
                    operator_changes: missed.operator_changes,
                });
            }
            EventBody::Start { start, restored, .. } => {
                event.kind = "start".to_owned();
                event.start = Some(StartJson { start: start.to_string(), restored: *restored });
            }
            EventBody::Operator(change) => {
                event.kind = "operator".to_owned();
                event.list.clone_from(&change.list);
                event.source = change.address.as_ref().map(ToString::to_string);
                event.operator = Some((**change).clone());
            }
        }
        Some(event)
    }

    fn fill_entry(&mut self, PublishedEvent { event, rule_number }: &PublishedEvent) {
        let GrantRecord {
            list,
            level,
            is_static,
            by_network,
            network,
            destination,
            steps,
            origin,
            since_ns,
            expires_ns,
            ..
        } = &event.record;
        self.kind = event.kind.name().to_owned();
        self.door.clone_from(&event.door);
        self.list = Some(list.clone());
        self.source = Some(event.record.addresses().to_string());
        self.rule = event.rule.as_ref().map(|id| EventRuleJson { id: id.to_string(), number: *rule_number });
        self.entry = Some(EventEntryJson {
            cause: event.origin.map(|origin| origin.name().to_owned()),
            level: Some(*level).filter(|level| *level != u8::MAX),
            is_static: *is_static,
            by_network: *by_network,
            network: (*network).into(),
            arrived: event.arrived.into(),
            to: destination.map(|destination| PeerJson { address: destination.address }),
            steps: *steps,
            origin: origin.name().to_owned(),
            since: time(*since_ns),
            expires: expires_ns.map(time),
            user: event.user.clone(),
        });
    }

    fn fill_packet(&mut self, line: &PacketLine) {
        self.kind = "packet".to_owned();
        self.source = Some(line.source.to_string());
        self.rule = Some(EventRuleJson { id: line.rule.to_string(), number: Some(line.rule_number) });
        self.packet = Some(LoggedPacketJson {
            prefix: line.prefix.clone(),
            chain: line.chain.clone(),
            side: line.side,
            network: line.network.into(),
            protocol: line.protocol.clone(),
            source_port: line.source_port,
            destination: line.destination.to_string(),
            destination_port: line.destination_port,
            total: line.total,
            line: line.line.clone(),
        });
    }
}

fn time(nanoseconds: u64) -> String {
    rfc_3339(Time::from_nanos(nanoseconds))
}
