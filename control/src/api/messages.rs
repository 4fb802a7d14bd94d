//! The bodies of API requests and answers that are no messages of the dataplane.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::rule::{AddressSet, RuleId, RuleSet};
use knockplane_policy::wire::connections::{Connection, ConnectionCount, ConnectionTableStatus};
use knockplane_policy::wire::history::RevisionOrigin;
use knockplane_policy::wire::{
    DataplaneStatus, FastPathStatus, HostName, LogStatus, NameAnswer, NameOutcome, NewEntry, WorkerStatus, as_text,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::AuditStatus;
use crate::edit::Menu;
use crate::tokens::{Role, TokenInfo, TokenName};

/// Default number of list entries, or sources at doors, in an answer.
pub const DEFAULT_LIMIT: usize = 1_000;

/// Default number of items of each kind in the answer about one source.
pub const DEFAULT_SOURCE_LIMIT: usize = 10;

/// Rules to run, as text of a rule file or in parsed form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Their origin for messages: a file name.
    pub source: String,
    /// The text of a rule file. The request must contain exactly one of `text` and `rules`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The rules in the form of `knockctl` of the same version. Their ids are computed again from their content.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub rules: Option<RuleSet>,
    /// The time within which they must be confirmed, in the syntax of RouterOS: `60s`. Otherwise they are rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<String>,
    /// Free text for the history.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The revision on which the rules are based: if another one runs, the answer is 409 and nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_on: Option<u64>,
    /// The origin for the history: `apply`, `rollback`, `edit`, `undo` or `redo`.
    #[serde(default)]
    pub origin: RevisionOrigin,
    /// The revision whose rules these are, for `rollback`, `undo` and `redo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
    /// The command of an `edit`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub edit: String,
    /// Whether the rules of `text` are applied although they remove the last way in from outside, or the last rule that runs: the
    /// `loss` of a plan. Otherwise the answer is 409 and nothing changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The rules whose counters are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleCountersQuery {
    /// `order` of `GET /api/v1/rules`: if other rules run, the answer is 409 with the code `other-rules`.
    pub(crate) order: String,
}

/// Commands that edit the running rules, all or none.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditRules {
    /// The revision that has the numbers and ids of the commands: if another one runs, the answer is 409 and nothing changes.
    pub(crate) base: u64,
    /// The commands in RouterOS's words: `add chain=input action=accept place-before=3`, `set 3 dst-port=22 !log`, `move 4 0`,
    /// `remove`, `enable` and `disable` with rules, `comment 3 "text"`. Rules are numbers or ids, separated by commas, or `[find …]`.
    pub(crate) commands: Vec<String>,
    /// The menu of new rules and of numbers; ids need none.
    #[serde(default)]
    pub(crate) menu: Menu,
    /// Whether the answer is the plan, and nothing changes.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// The time within which the change must be confirmed, in the syntax of RouterOS: `60s`. Otherwise it is rolled back.
    #[serde(default)]
    pub(crate) confirm_within: Option<String>,
    /// Free text for the history.
    #[serde(default)]
    pub(crate) comment: String,
    /// Whether the rules are also applied if no rule, or no way in from outside, would be left.
    #[serde(default)]
    pub(crate) force: bool,
}

/// A return to the rules of another revision.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReturnToRevision {
    /// The revision that must run: if another one does, the answer is 409 and nothing changes.
    #[serde(default)]
    pub(crate) base: Option<u64>,
    /// Whether the answer shows what would change, and nothing changes.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// The time within which the change must be confirmed, in the syntax of RouterOS: `60s`. Otherwise it is rolled back.
    #[serde(default)]
    pub(crate) confirm_within: Option<String>,
    /// Free text for the history.
    #[serde(default)]
    pub(crate) comment: String,
    /// Whether the rules are also applied if no rule, or no way in from outside, would be left.
    #[serde(default)]
    pub(crate) force: bool,
}

/// Rules that are compared with the running ones, or checked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CandidateRules {
    /// The text of a rule file.
    pub(crate) text: String,
    /// Its name for messages: a file name.
    #[serde(default = "default_source")]
    pub(crate) source: String,
    /// Whether rules that can never run are accepted, and disabled.
    #[serde(default)]
    pub(crate) allow_invalid: bool,
}

/// A packet to explain.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainPacket {
    /// The packet in the words of `knockctl explain`: `tcp 198.51.100.7:4000 > 203.0.113.5:22 syn`.
    pub(crate) packet: String,
    /// The side that it comes from; the outside, or that of its interface, if it is missing.
    #[serde(default)]
    pub(crate) from: Option<Side>,
}

/// Rules whose counters are set to zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetCounters {
    /// The ids of the rules; all rules if there are none.
    pub rules: Vec<RuleId>,
}

/// The answer to [`Apply`]: the rules run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that runs now.
    pub generation: u64,
    /// Its revision in the history.
    pub revision: u64,
    /// Number of rules of the generation.
    pub rules: usize,
    /// Number of layer-7 patterns of the generation.
    pub patterns: usize,
    /// The host names in the lists of the generation that could not be resolved before it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unresolved: Vec<Unresolved>,
}

/// A sample of live traffic to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginSample {
    /// Its time, in the syntax of RouterOS: `5s`.
    pub time: String,
    /// Maximum number of packets.
    pub packets: usize,
}

/// The answer to [`BeginSample`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SampleBegun {
    /// The id, which ends the sample.
    pub sample: u64,
}

/// A trace of packets to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginTrace {
    /// The packets that it shows, in the words of `knockctl trace`.
    pub filter: String,
    /// Its time, in the syntax of RouterOS: `30s`.
    pub time: String,
    /// Maximum number of packets in a second.
    pub rate: u32,
}

/// The query of a reload, as the parameters of a URI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReloadQuery {
    /// The time within which the doors and `[policy]` must be confirmed, as in [`Apply`].
    pub confirm_within: Option<String>,
}

/// The answer to a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The generation that runs, and that a restart does not replace any more.
    pub generation: u64,
}

/// The answer to a cancellation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// The generation that runs, with the rules before the change.
    pub generation: u64,
    /// Its revision.
    pub revision: u64,
}

/// A host name that could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// The name.
    #[serde(flatten)]
    pub name: HostName,
    /// Why.
    pub reason: String,
}

impl Unresolved {
    /// The name of a failed answer.
    pub fn of(answer: &NameAnswer) -> Option<Self> {
        match &answer.outcome {
            NameOutcome::Failed(reason) => Some(Unresolved { name: answer.name.clone(), reason: reason.clone() }),
            NameOutcome::Addresses(_) => None,
        }
    }
}

/// The state of both processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The dataplane.
    #[serde(flatten)]
    pub dataplane: DataplaneStatus,
    /// The control process.
    pub control: Control,
}

/// The state of the control process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The state of its log.
    pub log: LogStatus,
    /// The state of the audit file; `None` if there is none.
    #[serde(default)]
    pub audit: Option<AuditStatus>,
    /// The number of streams of events.
    #[serde(default)]
    pub event_streams: usize,
}

/// The workers now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// Time since the dataplane started. The times of the workers are parts of it.
    pub uptime: Duration,
    /// The workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// The kernel's fast path.
    pub fast_path: FastPathStatus,
}

/// The query for list entries, as the parameters of a URI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListQuery {
    /// Only this list.
    pub list: Option<String>,
    /// Only entries that overlap this address, prefix or range.
    pub address: Option<String>,
    /// Only dynamic entries, or only static ones.
    pub dynamic: Option<bool>,
    /// Only entries that expire within this time, in the form of RouterOS.
    pub expires_within: Option<String>,
    /// Only entries whose comment contains this text.
    pub comment: Option<String>,
    /// Only entries after an entry: the list of that entry.
    pub after_list: Option<String>,
    /// The address of that entry.
    pub after_address: Option<String>,
    /// The VLAN of that entry, as a number.
    #[serde(default)]
    pub after_vlan: u64,
    /// The peer tag of that entry.
    #[serde(default)]
    pub after_tag: u32,
    /// Maximum number.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// The query for doors and visitors.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoorQuery {
    /// Only this door.
    pub door: Option<String>,
    /// Maximum number of sources that knock, of sources that are admitted, and of sources that are ignored.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// The query for connections, as the parameters of a URI.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionQuery {
    /// Only connections from this address, prefix or range.
    pub source: Option<String>,
    /// Only these connections: the words of a filter with a blank between them.
    #[serde(default)]
    pub filter: String,
    /// Maximum number.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// The connections that are counted or ended, as the parameters of a URI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionWords {
    /// The words of a filter with a blank between them.
    #[serde(default)]
    pub filter: String,
}

/// Connections, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTotals {
    /// Whether connections are tracked.
    pub tracked: bool,
    /// The counts, the largest first.
    pub counts: Vec<ConnectionCount>,
}

/// The answer to the end of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsEnded {
    /// Number of ended connections.
    pub ended: u64,
}

/// Connections that are tracked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// The occupancy of the table; `None` if no rule needs the table.
    pub table: Option<ConnectionTableStatus>,
    /// The connections, ordered by source, destination and protocol.
    pub connections: Vec<Connection>,
    /// Whether there are more.
    pub truncated: bool,
}

/// The limit of the answer about the busiest sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RatedSources {
    /// Maximum number of sources by bytes, and by dropped packets.
    #[serde(default = "default_source_limit")]
    pub limit: usize,
}

/// The limit of the answer about one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceLimit {
    /// Maximum number of each kind.
    #[serde(default = "default_source_limit")]
    pub limit: usize,
}

/// The query for the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficQuery {
    /// Only samples after the one with this number.
    #[serde(default)]
    pub since: u64,
}

/// The duration of a watch of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchQuery {
    /// The time in the form of RouterOS, such as `30s`; at most an hour.
    pub time: String,
}

/// An entry for a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListAddition {
    /// The address, prefix or range.
    #[serde(with = "as_text")]
    #[schemars(with = "String")]
    pub address: AddressSet,
    /// Timeout in the syntax of RouterOS: `10m`; `None` if the entry is static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Entries for lists, all or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListImport {
    /// The entries.
    pub entries: Vec<NewEntry>,
}

/// The entries that a flush keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlushQuery {
    /// Whether static entries of operators remain.
    #[serde(default)]
    pub dynamic: bool,
}

/// The answer to a flush of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Number of removed entries.
    pub removed: u64,
}

/// A token to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name: letters, digits, `-`, `_` and `.`, a letter first.
    pub name: TokenName,
    /// Its role.
    pub role: Role,
    /// The time for which it is valid, in the syntax of RouterOS: `90d`.
    pub expires: String,
}

/// A sign-in at the web page: either with a token or with a link.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// A token.
    #[serde(default)]
    pub token: Option<String>,
    /// The secret of a link of `knockctl page`, which is used up.
    #[serde(default)]
    pub link: Option<String>,
}

/// A link that signs in at the web page once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// The role of the session; that of the socket if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// A new link. No later answer contains it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLink {
    /// The address of the web page.
    pub page: String,
    /// The secret.
    pub secret: String,
    /// The role of the session.
    pub role: Role,
    /// The user id of the operator, whose session it begins.
    pub uid: u32,
    /// The time at which it expires, in Unix time.
    pub expires: u64,
}

impl NewLink {
    /// The link for a browser, which does not send the part with the secret to a server.
    pub fn url(&self) -> String {
        format!("{}#link={}", self.page, self.secret)
    }
}

/// The answer to the end of the sessions that began with a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSessionsEnded {
    /// Their number.
    pub ended: usize,
}

/// The session of a browser, which is in the cookie.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SessionInfo {
    /// The name of the token; `user` and the user id after a sign-in with a link.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The value of the header `X-Knockplane-CSRF`, which each request of the session except GET needs.
    pub csrf: String,
    /// The time at which the session ends at the latest, in the form of RFC 3339.
    pub expires: String,
    /// The session ends after this time without a request of its user. A request with the header `X-Knockplane-Background` does
    /// not count.
    pub idle_seconds: u64,
}

/// The tokens, without their secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    /// The tokens, ordered by name.
    pub tokens: Vec<TokenInfo>,
}

const fn default_limit() -> usize {
    DEFAULT_LIMIT
}

const fn default_source_limit() -> usize {
    DEFAULT_SOURCE_LIMIT
}

fn default_source() -> String {
    "the new rules".to_owned()
}
