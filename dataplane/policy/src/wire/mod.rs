//! The messages between the dataplane and the control process: one JSON value a line over a unix stream socket.
//!
//! The dataplane greets with [`Greeting`]; then every [`Request`] line is answered by one [`Response`] line, in order.
//! The dataplane checks the peer's credentials before it greets. A peer that it turns away gets a greeting that says
//! why, and the connection ends. A line longer than [`longest_line`] is answered with [`Response::Refused`], and the
//! connection ends too. `docs/limits.md` has the other limits.

use std::net::IpAddr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::door::Failure;
use crate::packet::{Side, Vlan};
use crate::reason::{Reason, Verdict};
use crate::rule::{AddressSet, RuleId, RuleNumber, RuleSet};
use crate::settings::Settings;
use crate::word::words;

pub mod connections;
pub mod names;
pub mod offload;
pub mod source;

pub use names::{HostName, MAX_NAME_ADDRESSES, MAX_NAMES, NameAnswer, NameOutcome, NameState};

/// Version of these messages. Both sides refuse another one.
pub const VERSION: u32 = 4;

/// Longest line in bytes: two million entries of lists, each with a comment.
pub const MAX_LINE: usize = 256 << 20;

/// Most list entries, or sources at doors, in one answer: as one line they fit [`MAX_LINE`] with room to spare, and a
/// fraction of a second finds them.
pub const MAX_ANSWER_ENTRIES: usize = 100_000;

/// Longest line in bytes of a request that carries neither rules nor entries of lists.
pub const MAX_SHORT_LINE: usize = 64 << 10;

/// The longest line in bytes that a request may be, by its first bytes: [`MAX_LINE`] for rules, entries of lists and answers
/// for host names, which begin with their tag, [`MAX_SHORT_LINE`] for all others.
pub fn longest_line(begin: &[u8]) -> usize {
    let mut rest = begin;
    for token in [&b"{"[..], b"\"request\"", b":"] {
        match rest.trim_ascii_start().strip_prefix(token) {
            Some(behind) => rest = behind,
            None => return MAX_SHORT_LINE,
        }
    }
    let rest = rest.trim_ascii_start();
    let long = [&b"\"apply\""[..], b"\"list-add\"", b"\"name-answers\""].iter().any(|tag| rest.starts_with(tag));
    if long { MAX_LINE } else { MAX_SHORT_LINE }
}

/// First line the dataplane sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`] of the dataplane.
    pub knockplane: u32,
    /// Version of the dataplane's package.
    pub version: String,
    /// Why the peer is turned away; the connection ends behind this line. `None` if requests are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What control asks.
// The content stands beside the tag: within it, a million entries would be kept a second time while they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
pub enum Request {
    /// Answered by [`Response::Status`].
    Status,
    /// Answered by [`Response::Rules`].
    Rules,
    /// Answered by [`Response::Lists`].
    Lists(ListQuery),
    /// Answered by [`Response::Doors`].
    Doors {
        /// Only this door.
        door: Option<String>,
        /// At most so many sources that knock, so many that a door is open for, and so many that are ignored.
        limit: usize,
    },
    /// Everything that is known of one source. Answered by [`Response::Source`].
    Source(source::SourceQuery),
    /// A part of the table of connections. Answered by [`Response::Connections`].
    Connections(connections::ConnectionQuery),
    /// Answered by [`Response::Metrics`].
    Metrics,
    /// Compile this rule set beside the workers, swap it in whole, keep lists and the counters of rules that stay.
    /// Answered by [`Response::Applied`] when every worker runs it, or [`Response::Refused`] and nothing changed.
    /// [`Response::Failed`] if the rules cannot be kept, and nothing changed; or if a worker hangs, and the others run
    /// the new rules.
    Apply {
        /// The rules.
        rules: Box<RuleSet>,
        /// Where they came from, for people: a file name.
        source: String,
        /// What the host names of their address lists resolve to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<NameAnswer>,
    },
    /// The host names in the address lists of the rules that run. Answered by [`Response::Names`].
    Names,
    /// What host names resolve to now. Names that no list holds are passed over. Answered by [`Response::Done`].
    NameAnswers(Vec<NameAnswer>),
    /// Read the configuration file again, and take over its doors and its `[policy]` as [`Request::Apply`] does with
    /// rules. Answered by [`Response::Reloaded`], or else as that.
    Reload,
    /// Put entries in lists, all or none. What the rules hold for good already stays as it is, and so does what is to
    /// get a timeout and is in for good already. Answered by [`Response::Added`], or [`Response::Refused`] if a single
    /// entry was to get a timeout and cannot.
    ListAdd {
        /// The entries.
        entries: Vec<NewEntry>,
    },
    /// Take an entry out of a list. Answered by [`Response::Done`], or [`Response::Refused`] if it was not there, or is
    /// one of the rules.
    ListRemove {
        /// The list.
        list: String,
        /// The address, prefix or range of the entry.
        #[serde(with = "as_text")]
        address: AddressSet,
    },
    /// Take every entry out of a list but those of the rules. Answered by [`Response::Flushed`].
    ListFlush {
        /// The list.
        list: String,
        /// Leave what operators put in for good.
        dynamic: bool,
    },
}

/// What the dataplane answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "with", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Rules`].
    Rules(Rules),
    /// To [`Request::Lists`].
    Lists(Lists),
    /// The host names in the address lists of the rules that run.
    Names(Vec<NameState>),
    /// To [`Request::Doors`].
    Doors(Doors),
    /// To [`Request::Source`].
    Source(Box<source::Source>),
    /// To [`Request::Connections`].
    Connections(connections::Connections),
    /// To [`Request::Metrics`].
    Metrics(Box<Metrics>),
    /// To [`Request::Apply`].
    Applied {
        /// The generation that runs now.
        generation: u64,
    },
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::ListAdd`].
    Added(Added),
    /// To [`Request::ListFlush`].
    Flushed {
        /// Entries that are gone.
        removed: u64,
    },
    /// It was done.
    Done,
    /// It could not be done, through no fault of the request.
    Failed {
        /// Why, what state things are in, and what to do.
        error: String,
    },
    /// It was not done, because it makes no sense, and nothing changed.
    Refused {
        /// Why, and what to do.
        error: String,
    },
}

/// The dataplane in a few lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the dataplane's package.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time since start.
    pub uptime: Duration,
    /// Rule sets applied since start, counted from 1.
    pub generation: u64,
    /// Time since that rule set was swapped in.
    pub generation_age: Duration,
    /// Where the rules came from.
    pub rules_source: String,
    /// How many rules run.
    pub rules: usize,
    /// What decides besides the rules.
    pub settings: Settings,
    /// The two interfaces, outside first.
    pub interfaces: Vec<Interface>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// What happens to frames when the dataplane is gone: `closed`.
    pub on_exit: String,
    /// What became of the dataplane's log lines.
    pub log: LogStatus,
    /// Frames dropped since start, by every reason that has dropped one, the most frequent first.
    #[serde(default)]
    pub drops: Vec<DropCount>,
    /// How full the table of connections is; `None` if no rule needs it.
    #[serde(default)]
    pub connections: Option<connections::ConnectionTable>,
    /// What senders have left to their interface, and no interface has done.
    #[serde(default)]
    pub offload: offload::Offload,
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropCount {
    /// The name of a [`Reason`], or of a loss at the rings as in [`RingDrops`].
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// What became of a process's log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogStatus {
    /// Lines lost since start, by every kind of line that there is.
    pub lost: Vec<LostLines>,
    /// Lines that wait to be written.
    pub waiting: u64,
    /// Why lines are not written now; `None` if they are.
    pub problem: Option<String>,
}

/// Lost lines of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LostLines {
    /// `door`, `list`, `operator`, `packet`, `other` or `debug`.
    pub kind: String,
    /// How many.
    pub lines: u64,
}

/// An interface as it was bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Which side it is.
    pub side: Side,
    /// Its name.
    pub name: String,
    /// `native` or `generic` XDP.
    pub xdp_mode: String,
    /// Whether frames are received and sent without a copy by the kernel.
    pub zero_copy: bool,
    /// The driver, as `ethtool -i` shows it; empty if it has none.
    #[serde(default)]
    pub driver: String,
    /// Why frames are copied, if they are.
    #[serde(default)]
    pub copy_reason: Option<String>,
    /// What the mode costs, compared with native XDP and zero-copy; none if it is both.
    #[serde(default)]
    pub cost: Option<String>,
    /// Receive queues, all of them bound.
    pub queues: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether the link is up.
    pub up: bool,
    /// Requirements that are not met now.
    #[serde(default)]
    pub drift: Vec<Drift>,
    /// Repairs since start, for each kind that the dataplane can repair.
    #[serde(default)]
    pub repairs: Vec<Repairs>,
    /// Frames that were counted at the interface.
    #[serde(default)]
    pub counters: InterfaceCounters,
}

/// A requirement of the filter that an interface or the host does not meet any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drift {
    /// The kind.
    pub kind: DriftKind,
    /// The present state, the required one, and the remedy.
    pub problem: String,
}

/// Repairs of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Repairs {
    /// What was repaired.
    pub kind: DriftKind,
    /// How often since start.
    pub times: u64,
}

words! {
    /// Kinds of drift that the filter survives. docs/drift.md has the reaction to each.
    DriftKind {
        /// The interface was set down.
        Down = "down",
        /// It has another name.
        Name = "name",
        /// The MTUs differ, or are larger than the frames that there is room for.
        Mtu = "mtu",
        /// The interfaces have different numbers of queues.
        Queues = "queues",
        /// Generic receive offload is on.
        Gro = "gro",
        /// Large receive offload is on.
        Lro = "lro",
        /// VLAN tags are taken out of frames.
        RxVlan = "rxvlan",
        /// It does not receive frames for all addresses.
        Promiscuous = "promiscuous",
        /// It, or a device on it, belongs to a bridge or bond.
        Master = "master",
        /// The host routes what arrives on it, or on a device on it.
        Forwarding = "forwarding",
        /// The host has an address on it, or on a device on it.
        Address = "address",
        /// The host's default route goes out by it, or by a device on it.
        DefaultRoute = "default-route",
        /// Frames arrive on a queue without a socket.
        NoSocket = "no-socket",
        /// Frames get past the XDP program.
        PastProgram = "past-program",
        /// The kernel does not say what the interface is like.
        Unverified = "unverified",
    }
}

/// Frames counted at one interface. Frames that arrive are `rx_packets`; of these the XDP program saw `arrived`, and
/// `past_program` got past it; of those that it saw, `no_socket` and `tails` were dropped, and the others are received
/// by a worker or counted among the losses at its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InterfaceCounters {
    /// Frames that the XDP program saw, since start.
    pub arrived: u64,
    /// Of these, dropped because no worker served their queue.
    pub no_socket: u64,
    /// Of these, dropped because they may be the rest of a frame that was too long and that the driver has split.
    pub tails: u64,
    /// Frames that got past the XDP program and were dropped behind it, since start; none if the kernel cannot drop
    /// there (before Linux 6.6).
    pub past_program: Option<u64>,
    /// The driver's counters, since the interface was made: frames that arrived.
    pub rx_packets: u64,
    /// Frames that were sent, those of the host included.
    pub tx_packets: u64,
    /// Frames that arrived damaged.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames that arrived and found no room, or no reader.
    pub rx_dropped: u64,
    /// Frames that were to be sent and found no room, or no receiver.
    pub tx_dropped: u64,
    /// Frames that the device itself had no room for.
    pub rx_missed: u64,
}

/// A worker now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number, the queue it serves on both sides.
    pub worker: u32,
    /// The core it is pinned to, if it is.
    pub core: Option<u32>,
    /// Time since it last said that it is alive; `None` if it was just started and has not said so yet.
    pub heartbeat_age: Option<Duration>,
    /// Generation of rules it runs.
    pub generation: u64,
    /// Frames it received on each side, outside first.
    pub received: [u64; 2],
    /// Frames it forwarded out of each side, outside first.
    pub sent: [u64; 2],
    /// Frames it dropped.
    pub dropped: u64,
    /// Frames handed to the kernel for sending that did not come back yet.
    pub in_flight: u64,
    /// Frames of its pool that are in none of the places they can be in. Always 0; a gauge for those who doubt it.
    pub lost: u64,
    /// Time spent working since start.
    pub busy: Duration,
}

/// The rules that run, with their counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Their generation.
    pub generation: u64,
    /// Where they came from.
    pub source: String,
    /// The declared form.
    pub rules: RuleSet,
    /// Packets and bytes of each rule of `rules.rules`, in its order.
    pub counters: Vec<Counter>,
    /// Packets and bytes that each chain's default decided about: input, forward, output.
    pub chain_defaults: [Counter; 3],
}

/// Packets and IP bytes. RouterOS counts the length of the IP packet, without Ethernet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// Address lists, or a part of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lists {
    /// The lists the dataplane knows of, with how many entries each has.
    pub lists: Vec<ListOverview>,
    /// Entries, ordered by list and address; at most as many as were asked for.
    pub entries: Vec<ListEntry>,
    /// The host names of these lists, in the first answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameState>,
    /// Whether there are more.
    pub truncated: bool,
    /// The last entry, if there are more: what to ask with for those behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<After>,
}

/// Which entries to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only this list.
    pub list: Option<String>,
    /// Only entries that share an address with this.
    #[serde(with = "perhaps_as_text")]
    pub address: Option<AddressSet>,
    /// Only dynamic ones, or only static ones.
    pub dynamic: Option<bool>,
    /// Only those that expire within so long.
    pub expires_within: Option<Duration>,
    /// Only those whose comment holds this.
    pub comment: Option<String>,
    /// Only those behind this one, in the order of the answer: list and address.
    pub after: Option<After>,
    /// At most so many entries.
    pub limit: usize,
}

/// Where an answer is to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// List of the last entry.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The VLAN that it counts in.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The tag of the other end that it counts for.
    #[serde(default)]
    pub tag: u32,
}

/// An entry that an operator puts in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// The list.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// How long. Without one the entry is static: no packet changes it, and it is kept for the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A list, and who fills it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListOverview {
    /// What is counted.
    #[serde(flatten)]
    pub summary: ListSummary,
    /// Whether a rule that runs adds to it.
    pub by_packets: bool,
    /// Entries that the rules hold for good.
    pub by_rules: u64,
    /// Entries that operators put in for good, and prefixes that they put in for a time.
    pub by_operators: u64,
}

/// One list in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListSummary {
    /// Its name.
    pub list: String,
    /// How many earlier proofs it takes to get in: 0 for a first step.
    pub level: u8,
    /// Dynamic entries now.
    pub entries: u64,
    /// Entries whose time was over, since start.
    pub expired: u64,
    /// Entries pushed out before their time since start, because the table was full.
    pub evicted: u64,
    /// Additions refused since start, because the table was full of higher levels, or a source prefix of first steps.
    pub refused: u64,
}

/// One entry of one list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The list.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The only VLAN that it counts in, in `vlan` and `pppoe`. Neither is there if it counts in all VLANs, or, of a door's
    /// entries, in none; where packets without a VLAN are to be told from all others, `vlan` is `untagged`.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The host name that resolves to the address, if that put it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only other end that it counts for; none if it counts for all. Of IPv6 ends only a tag is kept, so that `::`
    /// stands for one that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps of a knock that were taken, in a door's list of those who knock; 0 elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left; none if it does not expire.
    pub time_left: Option<Duration>,
    /// Whether a restart forgets it. What is static is of the rules, or an operator put it in for good.
    pub dynamic: bool,
    /// The line of the rule file that it stands on, if it is an entry of the rules; 0 if they came from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Addresses as people write them.
pub mod as_text {
    use super::*;

    /// As a string.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(address: &AddressSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    /// From a string.
    ///
    /// # Errors
    /// If it is no address, prefix or range.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AddressSet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// As [`as_text`], if there is one.
mod perhaps_as_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(address: &Option<AddressSet>, serializer: S) -> Result<S::Ok, S::Error> {
        address.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AddressSet>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

fn is_zero(steps: &u8) -> bool {
    *steps == 0
}

/// The doors, and who is at them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doors {
    /// The doors, in the order of the configuration.
    pub doors: Vec<DoorSummary>,
    /// Who has begun to knock, ordered by door and address; at most as many as were asked for.
    pub knocking: Vec<Visitor>,
    /// Whom doors are open for, in the same way.
    pub open: Vec<Visitor>,
    /// Whose knocks are ignored, in the same way; those that are ignored at all doors first.
    #[serde(default)]
    pub ignored: Vec<IgnoredSource>,
    /// Whether there are more of any of them.
    pub truncated: bool,
}

/// A source whose knocks are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredSource {
    /// The door; none for all doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The source; over IPv6 its /64.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// Its VLAN, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// `ports`, `held-off` or `attempts`.
    pub reason: Failure,
    /// Time left.
    pub time_left: Duration,
}

/// One door in one line. Counts are since start, and stay when the door changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorSummary {
    /// Its name.
    pub door: String,
    /// How often each step of its knock was taken, in order. The last one opens.
    pub steps: Vec<u64>,
    /// How often it was opened.
    pub opened: u64,
    /// How often it was closed by a knock.
    pub closed: u64,
    /// Steps and knocks that came to nothing, by every reason that there is.
    pub failed: Vec<FailureCount>,
    /// How many sources have begun to knock now.
    pub knocking: u64,
    /// For how many it is open now: sources, each with an address. What operators put in for good is not among them.
    pub open: u64,
}

/// What came to nothing at a door for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailureCount {
    /// Why.
    pub reason: Failure,
    /// How often.
    pub times: u64,
}

/// A source at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// The door.
    pub door: String,
    /// The source; a prefix or range if an operator let it in.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// Its VLAN, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// What it knocks at, or may connect to; as in [`ListEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps that it has taken; 0 for those who are in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left, for the next step or in all; none if it does not expire.
    pub time_left: Option<Duration>,
}

/// Entries were put in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Entries that were left as they were: they are in for good already.
    pub left: u64,
    /// The lists among them that no rule that runs matches, in the order of names: entries have no effect there.
    pub unused: Vec<String>,
}

/// The configuration was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation that runs now.
    pub generation: u64,
    /// How many doors it has.
    pub doors: usize,
    /// Keys of `[dataplane]` that the file has changed and that wait for a restart.
    pub waiting: Vec<String>,
}

/// Everything that is counted, in one answer, so that a scrape is one look at the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// As in [`Request::Status`].
    pub status: Status,
    /// Per worker, in order.
    pub workers: Vec<WorkerMetrics>,
    /// When the dataplane started, since the Unix epoch. The same in every answer of one process.
    pub started: Duration,
    /// When the rules that run were swapped in, since the Unix epoch. The same in every answer about one generation.
    pub reloaded: Duration,
    /// What the dataplane's process uses; `None` if /proc does not say.
    pub process: Option<ProcessUsage>,
    /// Rules that run and have series of their own, in their order.
    pub rules: Vec<RuleMetrics>,
    /// What rules have counted while they had no series of their own, since start. Never less than before.
    pub rule_overflow: Counter,
    /// How many rules run and have no series of their own.
    pub rules_without_series: u64,
    /// As in [`Rules`].
    pub chain_defaults: [Counter; 3],
    /// As in [`Lists`].
    pub lists: Vec<ListSummary>,
    /// The host names of all lists.
    #[serde(default)]
    pub names: Vec<NameState>,
    /// As in [`Doors`].
    pub doors: Vec<DoorSummary>,
    /// How many entries all lists together can hold.
    pub list_capacity: u64,
    /// Connections that are known now, and packets that were invalid for want of room for their connection.
    pub connections: u64,
    /// See `connections`.
    pub connections_refused: u64,
    /// Rule sets and configurations applied and refused since start.
    pub applied: u64,
    /// See `applied`.
    pub refused: u64,
    /// Events for the manager that did not fit its queue.
    pub events_lost: u64,
    /// Connections to the dataplane's socket that a limit refused or closed since start, by every reason that there is.
    #[serde(default)]
    pub peers_refused: Vec<PeersRefused>,
}

/// Connections that a limit refused or closed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersRefused {
    /// The reason, as `docs/limits.md` has it.
    pub reason: String,
    /// How many.
    pub connections: u64,
}

/// What one worker counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// Its number.
    pub worker: u32,
    /// Frames by verdict and reason. Pairs that cannot occur are absent, pairs that can are there from the start.
    pub frames: Vec<FrameCount>,
    /// Bytes received on each side, with Ethernet: outside, inside.
    pub received_bytes: [u64; 2],
    /// Bytes sent out of each side.
    pub sent_bytes: [u64; 2],
    /// Losses at the rings, by side and name.
    pub ring_drops: Vec<RingDrops>,
    /// Time spent working since start.
    pub busy: Duration,
    /// Time spent asleep since start.
    pub asleep: Duration,
}

/// Frames of one verdict and reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameCount {
    /// What happened to them.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub frames: u64,
}

/// Losses at the rings of one side. Source: struct xdp_statistics, Linux `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingDrops {
    /// Which side's socket.
    pub side: Side,
    /// `rx-dropped`, `rx-invalid-descriptors`, `rx-ring-full`, `fill-ring-empty` or `tx-invalid-descriptors`.
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// What one rule counted, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleMetrics {
    /// Its id.
    pub id: RuleId,
    /// Its number in `show rules`.
    pub number: RuleNumber,
    /// Its chain.
    pub chain: String,
    /// The name of its action.
    pub action: String,
    /// Its comment, cut to [`MAX_COMMENT`] characters; empty if the configuration keeps comments out of metrics.
    pub comment: String,
    /// Packets and bytes.
    pub counter: Counter,
}

/// Characters of a rule's comment in metrics at most. A label is part of each series' identity.
pub const MAX_COMMENT: usize = 80;

/// Resources that a process uses now, and its limits. Source: proc(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Time on a processor, in user and system mode, since the process started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Soft limit of open file descriptors; `None` if there is none.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::Word as _;

    #[test]
    fn every_kind_of_drift_has_its_row_in_the_documentation_and_no_other_has() {
        let page = include_str!("../../../../docs/drift.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        let mut rows: Vec<_> =
            rows.flat_map(|(kinds, _)| kinds.trim_end_matches('`').split("`, `").collect::<Vec<_>>()).collect();
        rows.dedup();
        let mut kinds: Vec<_> = DriftKind::ALL.iter().map(|kind| kind.name()).collect();
        rows.sort_unstable();
        rows.dedup();
        kinds.sort_unstable();
        assert_eq!(rows, kinds);
    }

    #[test]
    fn a_status_of_a_dataplane_that_knows_no_drift_is_read() {
        let text = r#"{"side":"outside","name":"eth1","xdp_mode":"native","zero_copy":false,"queues":1,"mtu":1500,
            "up":true,"way_past":null}"#;
        let interface: Interface = serde_json::from_str(text).expect("what an older one says");
        assert!(interface.drift.is_empty() && interface.counters == InterfaceCounters::default());
    }

    #[test]
    fn only_rules_and_entries_may_be_long() {
        let long = [
            "{\"request\":\"apply\",\"with\":{",
            " { \"request\" :\t\"list-add\" }",
            &serde_json::to_string(&Request::ListAdd { entries: Vec::new() }).unwrap(),
            &serde_json::to_string(&Request::Apply { rules: Box::default(), source: String::new(), names: Vec::new() })
                .unwrap(),
        ];
        for begin in long {
            assert_eq!(longest_line(begin.as_bytes()), MAX_LINE, "{begin}");
        }
        let short = [
            "",
            "{",
            "aaaa",
            "{\"request\":\"status\"}",
            "{\"request\":\"list-flush\"",
            "{\"with\":{},\"request\":\"apply\"}",
            "{\"request\":\"apply",
        ];
        for begin in short {
            assert_eq!(longest_line(begin.as_bytes()), MAX_SHORT_LINE, "{begin}");
        }
    }
}
