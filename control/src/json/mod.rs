//! The output of `knockctl --json`, which is stable for scripts. `docs/json.md` describes it. `docs/schema/` contains a
//! JSON Schema of each document, which is generated from the types.
//!
//! The messages between the processes have other types, because these messages can change with every version. A
//! conversion names every field of a message, so that a new field is either part of the output or omitted deliberately.
//! Their names end in `Json`, and those of whole documents in `Document`. The schemas have the names without `Json`.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the document around every answer, errors, and how times and sides are written |
//! | `changes.rs` | answers of commands that change something |
//! | `connections.rs` | connections that are tracked |
//! | `doctor.rs`  | findings about the host |
//! | `doors.rs`   | doors and the sources at them |
//! | `edits.rs`   | edits by the API, and lints of the running rules |
//! | `events.rs`  | events |
//! | `history.rs` | revisions and their differences |
//! | `links.rs`   | links that sign in at the web page |
//! | `lists.rs`   | address lists and their entries |
//! | `rules.rs`   | rules, with and without counters |
//! | `source.rs`  | one source |
//! | `status.rs`  | the dataplane, its interfaces and workers |
//! | `tokens.rs`  | tokens of the API |
//! | `top.rs`     | live rates |
//! | `traffic.rs` | the traffic of the last ten minutes |
//! | `schema.rs`  | the schemas, and the test that they are those in `docs/schema/` |

pub(crate) mod changes;
pub(crate) mod connections;
pub(crate) mod doctor;
pub(crate) mod doors;
pub(crate) mod edits;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod links;
pub(crate) mod lists;
pub(crate) mod rules;
#[cfg(test)]
pub(crate) mod schema;
pub(crate) mod source;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod top;
pub(crate) mod traffic;

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use knockplane_policy::packet::{Side, Vlan};
pub(crate) use knockplane_policy::time::rfc_3339;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Exit;

/// Version of all documents. It changes when a field is removed or gets another meaning.
const VERSION: u32 = 1;

/// A value that is always [`VERSION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            VERSION => Ok(Version),
            other => Err(D::Error::custom(format!("version {other} of it is not known, only version {VERSION}"))),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": VERSION, "description": "Version of this document." })
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Document<T> {
    pub(crate) version: Version,
    /// The failure of a command that has an answer nevertheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorJson>,
    #[serde(flatten)]
    pub(crate) content: T,
}

impl<T> Document<T> {
    /// Creates a document with this answer.
    pub(crate) const fn new(content: T) -> Self {
        Document { version: Version, error: None, content }
    }
}

/// The whole document of a command that failed without an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorDocument {
    pub(crate) version: Version,
    /// The failure.
    pub(crate) error: ErrorJson,
}

/// The failure of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ErrorJson {
    /// The kind of failure.
    pub(crate) code: ErrorCodeJson,
    /// The message, which may have several lines.
    pub(crate) message: String,
    /// The place of the failure: the file with line and column, the argument, or the socket; `null` if there is none.
    #[serde(rename = "where")]
    pub(crate) place: Option<String>,
    /// The remedy; `null` if the message contains it.
    pub(crate) remedy: Option<String>,
}

/// The kinds of failure. Each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Code")]
pub(crate) enum ErrorCodeJson {
    /// Exit code 1: the command failed.
    Failed,
    /// Exit code 2: the command line is invalid.
    Usage,
    /// Exit code 3: a configuration or rule file is invalid.
    Invalid,
    /// Exit code 4: the control process or the dataplane does not answer.
    Unreachable,
    /// Exit code 5: the operator has not confirmed the change.
    Unconfirmed,
    /// Exit code 6: the command does not fit the present state.
    Conflict,
}

impl From<Exit> for ErrorCodeJson {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Usage => ErrorCodeJson::Usage,
            Exit::Invalid => ErrorCodeJson::Invalid,
            Exit::Unreachable => ErrorCodeJson::Unreachable,
            Exit::Unconfirmed => ErrorCodeJson::Unconfirmed,
            Exit::Conflict => ErrorCodeJson::Conflict,
            _ => ErrorCodeJson::Failed,
        }
    }
}

/// A number for each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SidesJson {
    pub(crate) outside: u64,
    pub(crate) inside: u64,
}

impl From<[u64; 2]> for SidesJson {
    fn from(numbers: [u64; 2]) -> Self {
        let [outside, inside] = Side::ALL.map(|side| numbers[side.index()]);
        SidesJson { outside, inside }
    }
}

/// The only address behind the filter for which an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PeerJson {
    /// The address; `null` for an IPv6 address, of which only a hash is stored.
    pub(crate) address: Option<IpAddr>,
}

impl From<IpAddr> for PeerJson {
    fn from(address: IpAddr) -> Self {
        PeerJson { address: Some(address).filter(|address| !address.is_unspecified()) }
    }
}

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NetworkJson {
    /// The VLAN: `10`, or `10/20` for two tags, the outer one first; a tag of an unusual type is written `10@88a8`.
    /// `untagged` represents frames without a tag if they must be distinguished from all frames. `null` means no VLAN,
    /// or all VLANs.
    #[serde(default)]
    pub(crate) vlan: Option<String>,
    /// The PPPoE session; `null` means no session, or all sessions.
    #[serde(default)]
    pub(crate) pppoe: Option<u16>,
}

impl From<Vlan> for NetworkJson {
    fn from(vlan: Vlan) -> Self {
        NetworkJson { vlan: vlan.label(), pppoe: vlan.session() }
    }
}

impl TryFrom<NetworkJson> for Vlan {
    type Error = &'static str;

    fn try_from(NetworkJson { vlan, pppoe }: NetworkJson) -> Result<Self, Self::Error> {
        Vlan::labelled(vlan.as_deref(), pppoe)
    }
}

/// A time in seconds.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A line of a file; `None` without a file.
pub(crate) const fn line(line: u32) -> Option<u32> {
    if line == 0 { None } else { Some(line) }
}

#[cfg(test)]
mod tests;
