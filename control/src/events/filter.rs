//! The events that a reader wants.

use std::net::IpAddr;

use knockplane_policy::event::{EventKind, Origin};
use knockplane_policy::rule::{AddressSet, RuleId, RuleNumber};
use knockplane_policy::wire::events::PublishedEvent;
use knockplane_policy::word::Word as _;
use serde::Deserialize;

use super::{EventBody, LoggedRule};

/// The parameters of a request for events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// The id of the last event that the reader has, or its number in this start of the dataplane.
    pub since: Option<String>,
    /// Only events of this door.
    pub door: Option<String>,
    /// Only events of this list.
    pub list: Option<String>,
    /// Only events of sources that overlap this address, prefix or range.
    pub source: Option<String>,
    /// Only events of this rule, by its id or its number.
    pub rule: Option<String>,
    /// Only events of these kinds, separated by commas.
    pub kind: Option<String>,
}

/// A kind of event, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WantedKind {
    Entry(EventKind),
    Packet,
    Operator,
}

/// The words of all kinds that can be wanted.
pub(crate) fn kind_words() -> Vec<&'static str> {
    EventKind::ALL.iter().map(|kind| kind.name()).chain(["packet", "operator"]).collect()
}

impl WantedKind {
    fn read(word: &str) -> Result<WantedKind, String> {
        match word {
            "packet" => Ok(WantedKind::Packet),
            "operator" => Ok(WantedKind::Operator),
            _ => EventKind::from_name(word).map(WantedKind::Entry).ok_or_else(|| {
                format!("`kind`: there is no kind `{word}` of events; the kinds are {}", kind_words().join(", "))
            }),
        }
    }
}

/// A rule, by its id or its number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WantedRule {
    Id(RuleId),
    Number(RuleNumber),
}

impl WantedRule {
    fn read(text: &str) -> Result<WantedRule, String> {
        let (digits, repeated) = text.split_once('-').unwrap_or((text, "2"));
        let is_id = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id && repeated.bytes().all(|byte| byte.is_ascii_digit()) && !repeated.is_empty() {
            return Ok(WantedRule::Id(RuleId(text.to_owned())));
        }
        // A number alone is one of the first menu, as for `knockctl rule`.
        let whole = if text.parse::<u32>().is_ok() { format!("ip filter {text}") } else { text.to_owned() };
        serde_json::from_value(whole.into()).map(WantedRule::Number).map_err(|_| {
            format!(
                "`rule`: `{text}` is neither the id of a rule, as 0a1b2c3d, nor its number, as 3 or `ipv6 filter 3`: see \
                 `knockctl show rules`"
            )
        })
    }

    fn is(&self, id: Option<&RuleId>, number: Option<RuleNumber>) -> bool {
        match self {
            WantedRule::Id(wanted) => id == Some(wanted),
            WantedRule::Number(wanted) => number == Some(*wanted),
        }
    }
}

/// A filter of events.
#[derive(Clone, Debug)]
pub(crate) enum EventFilter {
    /// All conditions of an operator.
    Wanted(Box<WantedEvents>),
    /// The events of the audit file, with those that packets cause in these lists.
    Audit(Vec<String>),
}

/// The conditions of an operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedEvents {
    door: Option<String>,
    list: Option<String>,
    source: Option<AddressSet>,
    rule: Option<WantedRule>,
    kinds: Vec<WantedKind>,
}

impl WantedEvents {
    /// Parses the parameters.
    ///
    /// # Errors
    /// The first one that is invalid, with a remedy.
    pub(crate) fn read(query: &EventsQuery) -> Result<WantedEvents, String> {
        let kinds = query.kind.iter().flat_map(|kinds| kinds.split(','));
        let source = query.source.as_ref().map(|text| text.parse::<AddressSet>()).transpose();
        Ok(WantedEvents {
            door: query.door.clone(),
            list: query.list.clone(),
            source: source.map_err(|error| format!("`source`: {error}"))?,
            rule: query.rule.as_deref().map(WantedRule::read).transpose()?,
            kinds: kinds.map(|word| WantedKind::read(word.trim())).collect::<Result<_, _>>()?,
        })
    }

    fn takes(&self, body: &EventBody) -> bool {
        match body {
            EventBody::Gap(_) | EventBody::Start { .. } => true,
            EventBody::Entry(published) => self.takes_entry(published),
            EventBody::Packet { rule, line, .. } => {
                // Lines that are not there have no source.
                let source = line.as_ref().is_none_or(|line| self.has_source(&line.source.into()));
                let LoggedRule { id, number } = rule;
                self.has_kind(WantedKind::Packet)
                    && self.door.is_none()
                    && self.list.is_none()
                    && source
                    && self.rule.as_ref().is_none_or(|rule| rule.is(id.as_ref(), *number))
            }
            EventBody::Operator(change) => {
                let door = |door: &String| change.list.as_ref().is_some_and(|list| *list == format!("door-{door}"));
                self.has_kind(WantedKind::Operator)
                    && self.rule.is_none()
                    && self.door.as_ref().is_none_or(door)
                    && self.list.as_ref().is_none_or(|list| change.list.as_ref() == Some(list))
                    && (self.source.is_none()
                        || change.address.as_ref().is_some_and(|address| self.has_source(address)))
            }
        }
    }

    fn takes_entry(&self, PublishedEvent { event, rule_number }: &PublishedEvent) -> bool {
        self.has_kind(WantedKind::Entry(event.kind))
            && self.door.as_ref().is_none_or(|door| event.door.as_ref() == Some(door))
            && self.list.as_ref().is_none_or(|list| event.record.list == *list)
            && self.has_source(&event.record.addresses())
            && self.rule.as_ref().is_none_or(|rule| rule.is(event.rule.as_ref(), *rule_number))
    }

    fn has_kind(&self, kind: WantedKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn has_source(&self, addresses: &AddressSet) -> bool {
        self.source.as_ref().is_none_or(|wanted| overlap(wanted.bounds(), addresses.bounds()))
    }
}

/// Whether two ranges share an address.
fn overlap((a, b): (IpAddr, IpAddr), (c, d): (IpAddr, IpAddr)) -> bool {
    a.is_ipv4() == c.is_ipv4() && a <= d && c <= b
}

impl EventFilter {
    /// Whether the reader wants the event.
    pub(super) fn takes(&self, body: &EventBody) -> bool {
        match (self, body) {
            (EventFilter::Wanted(wanted), _) => wanted.takes(body),
            (EventFilter::Audit(_), EventBody::Packet { .. }) => false,
            (EventFilter::Audit(_), EventBody::Gap(_) | EventBody::Start { .. } | EventBody::Operator(_)) => true,
            (EventFilter::Audit(lists), EventBody::Entry(published)) => {
                let event = &published.event;
                // Progress of a knock is no grant.
                if event.kind == EventKind::Stepped || event.record.steps > 0 {
                    return false;
                }
                event.door.is_some()
                    || event.kind == EventKind::Granted
                    || event.origin == Some(Origin::Operator)
                    || event.record.origin == Origin::Operator
                    || lists.contains(&event.record.list)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_filter_is_told_with_the_values_that_are_valid() {
        let query = |set: fn(&mut EventsQuery)| {
            let mut query = EventsQuery::default();
            set(&mut query);
            WantedEvents::read(&query).map(|_| ()).unwrap_err()
        };
        let kind = query(|query| query.kind = Some("granted,opened".to_owned()));
        assert!(
            kind.contains("`opened`") && kind.contains("granted, listed, stepped") && kind.contains("packet"),
            "{kind}"
        );
        let source = query(|query| query.source = Some("nobody".to_owned()));
        assert!(source.starts_with("`source`: `nobody` is not an address, prefix or range"), "{source}");
        let rule = query(|query| query.rule = Some("web".to_owned()));
        assert!(rule.contains("`web` is neither the id of a rule") && rule.contains("knockctl show rules"), "{rule}");
    }

    #[test]
    fn a_rule_has_an_id_or_a_number_of_a_menu() {
        let id = WantedRule::read("0a1b2c3d-2").unwrap();
        assert!(
            id.is(Some(&RuleId("0a1b2c3d-2".to_owned())), None) && !id.is(Some(&RuleId("0a1b2c3d".to_owned())), None)
        );
        let number = |text: &str| match WantedRule::read(text).unwrap() {
            WantedRule::Number(number) => number.to_string(),
            WantedRule::Id(id) => id.to_string(),
        };
        assert_eq!(["7", "ipv6 raw 2", "12345678"].map(number), ["ip filter 7", "ipv6 raw 2", "12345678"]);
    }

    #[test]
    fn ranges_of_one_family_overlap() {
        let bounds = |text: &str| text.parse::<AddressSet>().unwrap().bounds();
        assert!(overlap(bounds("192.0.2.0/24"), bounds("192.0.2.255")));
        assert!(!overlap(bounds("192.0.2.0/24"), bounds("192.0.3.0")));
        assert!(!overlap(bounds("0.0.0.0/0"), bounds("::/0")));
    }
}
