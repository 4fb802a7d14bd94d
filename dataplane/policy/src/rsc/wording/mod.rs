//! Writes rules in RouterOS's form: the values of properties, and their quotes.
//!
//! This module is the inverse of the parser, so its output reads as the same rule. Exports and all output for operators
//! use it, so matchers and actions have the same form everywhere.
//!
//! | module  | owns |
//! |---------|------|
//! | `value` | the values of matchers, addresses and times |
//! | `quote` | quotes and escapes |

mod quote;
mod value;

pub(super) use self::quote::{Alphabet, pieces};
pub(super) use self::value::{Value, entry_address};
use crate::rule::{Action, ListAdd, ListTimeout, Matcher, Rule};
use crate::time::format_duration;
use crate::word::Word as _;

/// A property and its written value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) name: String,
    /// The value, with quotes if it needs them.
    pub(super) value: String,
}

impl Property {
    pub(super) fn new(name: &str, value: &Value, alphabet: Alphabet) -> Self {
        Property { name: name.to_owned(), value: quote::written(false, value, alphabet) }
    }

    fn matcher(matcher: &Matcher, alphabet: Alphabet) -> Self {
        let value = value::of_condition(&matcher.condition);
        let name = matcher.condition.name().to_owned();
        Property { name, value: quote::written(matcher.negated, &value, alphabet) }
    }

    fn text(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

/// The value of a property as an operator typed it, in which `,` and `!` have their meaning. With quotes if it needs them.
pub fn typed(value: &[u8]) -> String {
    quote::written(false, &Value::Code(value.to_vec()), Alphabet::Ascii)
}

/// A text as the value of a property, with quotes if it needs them.
pub fn quoted(text: &[u8]) -> String {
    quote::written(false, &Value::Text(text.to_vec()), Alphabet::Ascii)
}

/// A matcher, for output: `dst-port=!22`.
pub fn matcher(matcher: &Matcher) -> String {
    Property::matcher(matcher, Alphabet::Any).text()
}

/// An action with its arguments, for output: `add-src-to-address-list temporary 10s`, `jump knock`.
pub fn action(action: &Action) -> String {
    let name = action.name();
    match action {
        Action::AddSrcToAddressList(ListAdd { list, timeout })
        | Action::AddDstToAddressList(ListAdd { list, timeout }) => match timeout {
            ListTimeout::After(time) => format!("{name} {list} {}", format_duration(*time)),
            ListTimeout::NoneDynamic | ListTimeout::NoneStatic => format!("{name} {list}"),
        },
        Action::Jump(target) => format!("{name} {target}"),
        Action::Reject(with) => format!("{name} {}", with.name()),
        Action::Knock(door) | Action::AcceptDoor(door) => format!("{name} door={door}"),
        _ => name.to_owned(),
    }
}

/// A rule in the form of `print`, property by property: chain and action, the action's arguments, the matchers in order
/// of evaluation, and the log. The comment and the states disabled and invalid are omitted.
pub fn rule(rule: &Rule) -> Vec<String> {
    let text = |name: &str, value: &str| Property::new(name, &Value::text(value), Alphabet::Any);
    let mut properties = vec![text("chain", &rule.chain), text("action", rule.action.name())];
    properties.extend(arguments(&rule.action, Alphabet::Any));
    properties.extend(matchers(rule, Alphabet::Any));
    properties.extend(log(rule, Alphabet::Any));
    properties.iter().map(Property::text).collect()
}

/// A rule as the command of an export, in one line.
pub fn command(rule: &Rule) -> String {
    one_line("add".to_owned(), &properties(rule))
}

/// A command in one line.
pub(super) fn one_line(verb: String, properties: &[Property]) -> String {
    properties.iter().fold(verb, |text, property| text + " " + &property.text())
}

/// All properties of a rule, as in an export: the action, then the rest by name. The action is always written, as in
/// RouterOS since version 6.36, and so are the defaults of an action. Other defaults are omitted.
pub(super) fn properties(rule: &Rule) -> Vec<Property> {
    let alphabet = Alphabet::Ascii;
    let text = |name: &str, value: &str| Property::new(name, &Value::text(value), alphabet);
    let mut properties = vec![text("chain", &rule.chain)];
    if !rule.comment.is_empty() {
        properties.push(text("comment", &rule.comment));
    }
    if rule.disabled {
        properties.push(text("disabled", "yes"));
    }
    properties.extend(arguments(&rule.action, alphabet));
    properties.extend(matchers(rule, alphabet));
    properties.extend(log(rule, alphabet));
    properties.extend(rule.inert.iter().map(|(name, value)| text(name, value)));
    properties.sort_by(|one, other| one.name.cmp(&other.name));
    properties.insert(0, text("action", rule.action.name()));
    properties
}

fn matchers(rule: &Rule, alphabet: Alphabet) -> impl Iterator<Item = Property> {
    rule.matchers.iter().map(move |matcher| Property::matcher(matcher, alphabet))
}

/// The arguments of the action.
fn arguments(action: &Action, alphabet: Alphabet) -> Vec<Property> {
    let text = |name: &str, value: &str| Property::new(name, &Value::text(value), alphabet);
    match action {
        Action::AddSrcToAddressList(ListAdd { list, timeout })
        | Action::AddDstToAddressList(ListAdd { list, timeout }) => {
            vec![text("address-list", list), text("address-list-timeout", &value::list_timeout(*timeout))]
        }
        Action::Jump(target) => vec![text("jump-target", target)],
        Action::Reject(with) => vec![text("reject-with", with.name())],
        Action::Knock(door) | Action::AcceptDoor(door) => vec![text("door", door)],
        _ => Vec::new(),
    }
}

/// `log=yes`, unless the action implies it, and the prefix.
fn log(rule: &Rule, alphabet: Alphabet) -> Vec<Property> {
    let Some(log) = &rule.log else { return Vec::new() };
    let text = |name: &str, value: &str| Property::new(name, &Value::text(value), alphabet);
    let yes = (rule.action != Action::Log).then(|| text("log", "yes"));
    let prefix = (!log.prefix.is_empty()).then(|| text("log-prefix", &log.prefix));
    yes.into_iter().chain(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsc;

    #[test]
    fn the_text_of_matchers_and_actions_reads_as_the_same() {
        let text = "/ip firewall filter\nadd action=add-src-to-address-list address-list=seen address-list-timeout=1m30s \
                    chain=input dst-port=!22,80-90 protocol=tcp src-address=192.0.2.0/24 dst-address=!192.0.2.1 \
                    src-address-list=!friends packet-size=40-1500\n\
                    add chain=input protocol=icmp icmp-options=8:0 action=jump jump-target=ping\nadd chain=ping\n";
        let reading = rsc::read(text.as_bytes());
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        let mut written: Vec<_> = reading.rules.rules[0].matchers.iter().map(matcher).collect();
        written.sort();
        assert_eq!(
            written,
            [
                "dst-address=!192.0.2.1",
                "dst-port=!22,80-90",
                "packet-size=40-1500",
                "protocol=tcp",
                "src-address-list=!friends",
                "src-address=192.0.2.0/24"
            ]
        );
        assert_eq!(action(&reading.rules.rules[0].action), "add-src-to-address-list seen 1m30s");
        assert_eq!(matcher(&reading.rules.rules[1].matchers[1]), "icmp-options=8:0");
        assert_eq!(action(&reading.rules.rules[1].action), "jump ping");
    }

    #[test]
    fn a_rule_is_printed_with_chain_and_action_first() {
        let text = "/ip firewall filter\n\
            add action=reject chain=input comment=a disabled=yes log=yes log-prefix=\"a b\" protocol=udp \
            src-address-list=\"!caf\\C3\\A9 1\"\n\
            add action=log chain=input log-prefix=x\nadd chain=input action=add-dst-to-address-list address-list=a\n";
        let reading = rsc::read(text.as_bytes());
        assert_eq!(reading.problems, []);
        let printed: Vec<_> = reading.rules.rules.iter().map(|it| rule(it).join(" ")).collect();
        assert_eq!(
            printed,
            [
                "chain=input action=reject reject-with=icmp-network-unreachable protocol=udp \
                 src-address-list=\"!café 1\" log=yes log-prefix=\"a b\"",
                "chain=input action=log log-prefix=x",
                "chain=input action=add-dst-to-address-list address-list=a address-list-timeout=none-dynamic",
            ]
        );
    }
}
