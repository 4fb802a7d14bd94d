//! Filters for connections: the words of operators, such as `source=192.0.2.0/24 state=established`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::text::perhaps_as_text;
use crate::eval::tracking::TcpState;
use crate::packet::protocol;
use crate::rsc::range;
use crate::rule::{AddressSet, ConnectionState, PROTOCOLS, protocol_name, protocol_number};
use crate::word::Word as _;

/// The connections for which every given part matches; all connections if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// The originator is in this set.
    #[serde(default, with = "perhaps_as_text")]
    pub source: Option<AddressSet>,
    /// The responder is in this set.
    #[serde(default, with = "perhaps_as_text")]
    pub destination: Option<AddressSet>,
    /// The IP protocol.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// The port of an end is in this range, both ends included. ICMP has no ports.
    #[serde(default)]
    pub port: Option<(u16, u16)>,
    /// The shown state, as in [`state_word`].
    #[serde(default)]
    pub state: Option<String>,
    /// The door through which the connection began.
    #[serde(default)]
    pub door: Option<String>,
}

/// The names of the parts.
pub const FILTER_NAMES: [&str; 6] = ["source", "destination", "protocol", "port", "state", "door"];

/// The shown state of a connection: the TCP state if there is one, because it is more specific.
pub fn state_word(state: ConnectionState, tcp: Option<TcpState>) -> &'static str {
    tcp.map_or(state.name(), |tcp| tcp.name())
}

/// All shown states.
pub fn state_words() -> Vec<&'static str> {
    let mut words: Vec<_> = TcpState::ALL.iter().map(|state| state.name()).collect();
    let untracked = [ConnectionState::New, ConnectionState::Established].map(|state| state.name());
    words.extend(untracked.into_iter().filter(|word| TcpState::from_name(word).is_none()));
    words
}

/// The parts of a connection that a filter reads.
#[derive(Clone, Copy, Debug)]
pub struct FilteredConnection<'c> {
    /// The originator.
    pub source: (IpAddr, u16),
    /// The responder.
    pub destination: (IpAddr, u16),
    /// The IP protocol.
    pub protocol: u8,
    /// The state of tracking.
    pub state: ConnectionState,
    /// The TCP state.
    pub tcp: Option<TcpState>,
    /// The door.
    pub door: Option<&'c str>,
}

impl ConnectionFilter {
    /// Whether the filter has no part.
    pub fn is_empty(&self) -> bool {
        *self == ConnectionFilter::default()
    }

    /// Adds a part from its word, `name=value`.
    ///
    /// # Errors
    /// If the word has no such form, its name or value does not exist, or the part is given already; with the words that
    /// exist.
    pub fn add(&mut self, word: &str) -> Result<(), String> {
        let names = || format!("the words are {}", FILTER_NAMES.map(|name| format!("{name}=")).join(", "));
        let (name, value) =
            word.split_once('=').ok_or_else(|| format!("`{word}` is not a word of a filter: {}", names()))?;
        let addresses = || value.parse::<AddressSet>().map_err(|error| format!("{name}={value}: {error}"));
        let is_new = match name {
            "source" => self.source.replace(addresses()?).is_none(),
            "destination" => self.destination.replace(addresses()?).is_none(),
            "protocol" => {
                let number = protocol_number(value).ok_or_else(|| {
                    let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                    format!("there is no protocol `{value}`: write a number or one of {}", names.join(", "))
                })?;
                self.protocol.replace(number).is_none()
            }
            "port" => self.port.replace(ports(value)?).is_none(),
            "state" => {
                if !state_words().contains(&value) {
                    return Err(format!("there is no state `{value}`: write one of {}", state_words().join(", ")));
                }
                self.state.replace(value.to_owned()).is_none()
            }
            "door" if value.is_empty() => return Err("door= needs the name of a door".to_owned()),
            "door" => self.door.replace(value.to_owned()).is_none(),
            _ => return Err(format!("a filter has no word `{name}=`: {}", names())),
        };
        if is_new { Ok(()) } else { Err(format!("`{name}=` is given twice: a filter has each word once")) }
    }

    /// Whether the filter includes the connection.
    pub fn includes(&self, connection: &FilteredConnection<'_>) -> bool {
        let FilteredConnection { source, destination, protocol, state, tcp, door } = *connection;
        let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        let has_port = |(first, last): (u16, u16)| {
            !is_icmp && [source.1, destination.1].iter().any(|port| (first..=last).contains(port))
        };
        self.source.as_ref().is_none_or(|set| set.contains(source.0))
            && self.destination.as_ref().is_none_or(|set| set.contains(destination.0))
            && self.protocol.is_none_or(|number| number == protocol)
            && self.port.is_none_or(has_port)
            && self.state.as_ref().is_none_or(|word| word == state_word(state, tcp))
            && self.door.as_ref().is_none_or(|name| door == Some(name))
    }
}

/// A port, or a range of ports.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{text}` is no port: write one from 1 to 65535, or a range such as 1000-2000");
    range(text).map(RangeInclusive::into_inner).filter(|(first, _)| *first > 0).ok_or_else(wrong)
}

impl fmt::Display for ConnectionFilter {
    /// The words of the filter, with a blank between them.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port =
            |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        let values = [
            self.source.as_ref().map(ToString::to_string),
            self.destination.as_ref().map(ToString::to_string),
            self.protocol.map(protocol_name),
            self.port.map(port),
            self.state.clone(),
            self.door.clone(),
        ];
        let words = FILTER_NAMES.iter().zip(values).filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        out.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(words: &[&str]) -> Result<ConnectionFilter, String> {
        let mut filter = ConnectionFilter::default();
        words.iter().try_for_each(|word| filter.add(word)).map(|()| filter)
    }

    #[test]
    fn each_word_excludes_connections() {
        let connection = FilteredConnection {
            source: ([192, 0, 2, 7].into(), 50_000),
            destination: ([203, 0, 113, 5].into(), 22),
            protocol: protocol::TCP,
            state: ConnectionState::Established,
            tcp: Some(TcpState::FinWait),
            door: Some("ssh"),
        };
        for (word, other) in [
            ("source=192.0.2.0/24", "source=203.0.113.5"),
            ("destination=203.0.113.5", "destination=192.0.2.7"),
            ("protocol=tcp", "protocol=17"),
            ("port=22", "port=23"),
            ("port=49999-50001", "port=1-21"),
            ("state=fin-wait", "state=established"),
            ("door=ssh", "door=web"),
        ] {
            assert!(filter(&[word]).unwrap().includes(&connection), "{word}");
            assert!(!filter(&[other]).unwrap().includes(&connection), "{other}");
        }
        let all = ["source=192.0.2.7", "protocol=tcp", "port=22", "state=fin-wait", "door=ssh"];
        let all = filter(&all).unwrap();
        assert!(all.includes(&connection) && !all.includes(&FilteredConnection { door: None, ..connection }));
        assert!(ConnectionFilter::default().includes(&connection));
        let ping = FilteredConnection { protocol: protocol::ICMP, tcp: None, ..connection };
        assert!(!filter(&["port=22"]).unwrap().includes(&ping), "an identifier is no port");
        assert!(filter(&["state=established"]).unwrap().includes(&ping));
    }

    #[test]
    fn the_words_of_a_filter_are_those_that_it_was_made_of() {
        let words =
            ["source=192.0.2.0/24", "destination=2001:db8::5", "protocol=udp", "port=1000-2000", "state=new", "door=a"];
        let filter = filter(&words).unwrap();
        assert_eq!(filter.to_string(), words.join(" "));
        assert_eq!(serde_json::from_str::<ConnectionFilter>(&serde_json::to_string(&filter).unwrap()).unwrap(), filter);
    }

    #[test]
    fn errors_name_the_words_that_exist() {
        for (word, told) in [
            ("192.0.2.1", "the words are source=, destination=, protocol=, port=, state=, door="),
            ("src=192.0.2.1", "a filter has no word `src=`: the words are source="),
            ("source=nobody", "source=nobody: "),
            ("protocol=tpc", "there is no protocol `tpc`: write a number or one of icmp, "),
            ("port=0", "from 1 to 65535"),
            ("port=9-7", "from 1 to 65535"),
            ("port=+22", "from 1 to 65535"),
            ("state=open", "there is no state `open`: write one of syn-sent, both-syn, "),
            ("door=", "needs the name"),
        ] {
            let error = filter(&[word]).unwrap_err();
            assert!(error.contains(told), "{word}: {error}");
        }
        assert!(filter(&["port=1", "port=2"]).unwrap_err().contains("given twice"));
    }
}
