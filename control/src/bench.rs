//! Evaluates rules on frames, one by one, with the clock of the caller. It sends no packet.
//!
//! The engine's reader parses the frames, and the reference evaluator of `policy` decides them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use knockplane_engine::headers;
use knockplane_policy::door::KnockStep;
use knockplane_policy::eval::recorded::Record;
use knockplane_policy::eval::{Evaluation, Evaluator, Explanation, ListedAddress, RuleOutcome, Tried};
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Packet, Side, Vlan};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rsc::wording;
use knockplane_policy::rule::{
    Action, AddressSet, BuiltinChain, Condition, EntryAddress, InterfaceKind, ListTimeout, Matcher, RuleFileEntry,
    RuleId, RuleNumber, RuleSet, numbers,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::json;
use crate::packet;
use crate::text::named;

/// The longest frame. There is no interface with an MTU, so this is the longest packet and its Ethernet header.
const MAX_FRAME: usize = headers::max_frame(u16::MAX as usize);

/// The seed of keyed hashes and random numbers. It is constant, so that the same input has the same result.
const SEED: u64 = 0;

/// The outcome of rules of the other family, which text output omits.
pub(crate) const OTHER_FAMILY: &str = "other-family";

/// Rules, their state and a clock.
pub(crate) struct Bench<'r> {
    rules: &'r RuleSet,
    numbers: Arc<[RuleNumber]>,
    settings: &'r Settings,
    evaluator: Evaluator<'r>,
    now: Time,
}

/// The result for a frame.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    /// Indices of the rules that matched.
    pub(crate) matched: Vec<usize>,
    /// The chain that the packet entered; `None` if rules do not evaluate the frame.
    pub(crate) chain: Option<BuiltinChain>,
    /// The length of the IP packet in bytes; 0 if rules do not evaluate the frame.
    pub(crate) ip_length: u32,
    /// The packet as a line of text; `None` if rules do not evaluate the frame.
    pub(crate) packet: Option<String>,
    pub(crate) from: Side,
}

/// The verdict on a frame, with its reason and the deciding rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    /// The deciding rule.
    pub(crate) rule: Option<RuleId>,
    /// The number in `show rules`.
    pub(crate) rule_number: Option<RuleNumber>,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
}

/// The verdict on a frame, with its reason and its evaluation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Explained {
    /// The packet in one line; absent if rules did not evaluate the frame.
    pub(crate) packet: Option<String>,
    pub(crate) from: Side,
    /// The chain that the packet entered.
    pub(crate) chain: Option<&'static str>,
    /// Every evaluated rule, in order.
    pub(crate) rules: Vec<RuleTrial>,
    /// The lines that rules log.
    pub(crate) logged: Vec<String>,
    /// The replies to the sender, each packet in one line.
    pub(crate) replies: Vec<String>,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    /// Position in `rules` of the deciding rule.
    pub(crate) decided_by: Option<usize>,
    /// Why the kernel cannot carry further packets of the flow.
    #[serde(skip)]
    pub(crate) workers_decide: Option<String>,
    /// What the kernel does with such frames now; absent without the running rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<KernelJson>,
}

impl Explained {
    /// A frame that no rule was seen to evaluate.
    pub(crate) fn unseen(from: Side, verdict: Verdict, reason: Reason) -> Explained {
        Explained {
            packet: None,
            from,
            chain: None,
            rules: Vec::new(),
            logged: Vec::new(),
            replies: Vec::new(),
            verdict,
            reason,
            decided_by: None,
            workers_decide: None,
            kernel: None,
        }
    }
}

/// What the kernel's fast path does now with frames like the given one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Kernel")]
pub(crate) struct KernelJson {
    pub(crate) verdict: KernelVerdictJson,
    /// The time for which it carries the flow if nothing changes; `null` without a limit.
    pub(crate) time_left_seconds: Option<f64>,
    /// Why workers decide about each packet of the flow, although it is forwarded.
    pub(crate) because: Option<String>,
}

/// What the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "KernelVerdict")]
pub(crate) enum KernelVerdictJson {
    /// The fast path is off.
    Off,
    /// It carries the flow.
    Carries,
    /// It drops such frames of a stranger while many arrive.
    Drops,
    /// It passes such frames to workers.
    Passes,
}

/// The evaluation of one rule.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Step")]
pub(crate) struct RuleTrial {
    /// The number in `show rules`.
    pub(crate) number: RuleNumber,
    /// The rule's line in its file; `null` if the rule is in no file.
    #[serde(serialize_with = "line_of_file")]
    #[schemars(with = "Option<u32>")]
    pub(crate) line: u32,
    pub(crate) id: RuleId,
    pub(crate) chain: String,
    /// Number of jumps that led to the rule.
    pub(crate) depth: usize,
    pub(crate) action: String,
    pub(crate) comment: String,
    pub(crate) outcome: &'static str,
    /// The reason that the rule did not match, or its effect on the lists.
    pub(crate) because: Option<String>,
}

/// An address in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub(crate) struct Held {
    pub(crate) list: String,
    pub(crate) address: IpAddr,
    /// The only network in which the entry counts; `null` if it counts in all.
    #[serde(flatten, serialize_with = "network")]
    #[schemars(with = "json::NetworkJson")]
    pub(crate) vlan: Vlan,
    /// The time left; `null` if the entry does not expire.
    #[serde(rename = "time_left_seconds", serialize_with = "in_seconds")]
    #[schemars(with = "Option<f64>")]
    pub(crate) time_left: Option<Duration>,
}

fn line_of_file<S: Serializer>(line: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    json::line(*line).serialize(serializer)
}

fn network<S: Serializer>(vlan: &Vlan, serializer: S) -> Result<S::Ok, S::Error> {
    json::NetworkJson::from(*vlan).serialize(serializer)
}

fn in_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(json::seconds).serialize(serializer)
}

/// Adds entries of the dataplane to the lists of a bench.
pub(crate) fn put_all<'e>(entries: impl IntoIterator<Item = &'e wire::ListEntry>, bench: &mut Bench<'_>) {
    for entry in entries {
        put(entry, bench);
    }
}

/// Adds an entry that is not in the rules. Omits static entries of the rules, except for addresses of host names.
pub(crate) fn put(entry: &wire::ListEntry, bench: &mut Bench<'_>) {
    match entry.to {
        _ if !entry.dynamic && entry.line.is_some() && entry.name.is_none() => {}
        None if entry.vlan.is_none() => bench.put(&entry.list, &entry.address, entry.time_left),
        to => bench.put_for(entry, to),
    }
}

impl<'r> Bench<'r> {
    /// A bench without state, whose rules are applied at this time, in nanoseconds since 1970.
    pub(crate) fn new(rules: &'r RuleSet, settings: &'r Settings, now: Time) -> Self {
        let since_1970 = Duration::from_nanos(now.as_nanos());
        let evaluator = Evaluator::new(rules, settings, SEED).at_wall(now, since_1970);
        Bench { rules, numbers: numbers(&rules.rules).into(), settings, evaluator, now }
    }

    /// A bench of the same rules without state, at the same time. It does not examine each rule again.
    pub(crate) fn anew(&self) -> Self {
        self.anew_at(self.now)
    }

    /// As [`Bench::anew`], at another time.
    pub(crate) fn anew_at(&self, now: Time) -> Self {
        let Bench { rules, settings, .. } = *self;
        let evaluator = self.evaluator.anew().at_wall(now, Duration::from_nanos(now.as_nanos()));
        Bench { rules, numbers: Arc::clone(&self.numbers), settings, evaluator, now }
    }

    /// Adds an address, prefix or range to a list, as an operator does.
    pub(crate) fn put(&mut self, list: &str, address: &AddressSet, timeout: Option<Duration>) {
        let entry = RuleFileEntry {
            family: address.family(),
            list: list.to_owned(),
            address: EntryAddress::Set(address.clone()),
            timeout,
            disabled: false,
            comment: String::new(),
            line: 0,
        };
        self.evaluator.lists_mut().add_entry(&entry, self.now);
    }

    /// Adds an entry of a dataplane's list that counts for one VLAN or for one peer only.
    pub(crate) fn put_for(&mut self, entry: &wire::ListEntry, other: Option<IpAddr>) {
        let wire::ListEntry { list, vlan, steps, time_left, .. } = entry;
        match (entry.address.single(), other) {
            (None, _) => {}
            (Some(address), Some(other)) => {
                self.evaluator.put_for(list, (*vlan, address), other, *steps, *time_left, self.now);
            }
            (Some(address), None) => {
                let timeout = time_left.map_or(ListTimeout::NoneDynamic, ListTimeout::After);
                self.evaluator.lists_mut().add_within(*vlan, list, address, timeout, self.now);
            }
        }
    }

    /// Sets the clock, which never goes back.
    pub(crate) fn at(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Advances the clock.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Decides about a frame.
    pub(crate) fn judge(&mut self, frame: &[u8], from: impl Fn(Option<&Packet<'_>>) -> Side) -> Judged {
        match read(frame, &from) {
            Ok(packet) => {
                let Evaluation { verdict, reason, matched, .. } = self.evaluator.evaluate(&packet, self.now);
                let (ip_length, from) = (packet.ip_length, packet.side);
                let chain = Some(self.settings.chain(&packet));
                Judged { verdict, reason, matched, chain, ip_length, packet: Some(packet::summary(&packet)), from }
            }
            Err(reason) => {
                let (from, matched) = (from(None), Vec::new());
                let (verdict, reason) = self.unseen(from, reason, frame);
                Judged { verdict, reason, matched, chain: None, ip_length: 0, packet: None, from }
            }
        }
    }

    /// Decides about a packet whose payload is not known. Also returns the rule that may decide otherwise because of it, in
    /// words.
    pub(crate) fn judge_by_headers(&mut self, frame: &[u8], from: Side) -> (Judged, Option<String>) {
        let Ok(packet) = read(frame, &|_| from) else { return (self.judge(frame, |_| from), None) };
        let Explanation { evaluation, tried, .. } = self.evaluator.explain(&packet, self.now);
        let reads = tried.iter().find(|tried| !packet.payload.is_empty() && self.reads_payload(tried, &packet));
        let reads = reads.map(|tried| self.named(tried.rule));
        let Evaluation { verdict, reason, matched, .. } = evaluation;
        let (ip_length, chain) = (packet.ip_length, Some(self.settings.chain(&packet)));
        let packet = Some(packet::summary(&packet));
        (Judged { verdict, reason, matched, chain, ip_length, packet, from }, reads)
    }

    /// Whether the outcome of a rule depends on the payload of the packet.
    fn reads_payload(&self, tried: &Tried, packet: &Packet<'_>) -> bool {
        let rule = &self.rules.rules[tried.rule];
        let is_read = |matcher: &Matcher| {
            matches!(matcher.condition, Condition::Content(_) | Condition::Layer7(_) | Condition::TlsHost(_))
        };
        match &tried.outcome {
            RuleOutcome::Missed { matcher, .. } => rule.matchers.get(*matcher).is_some_and(is_read),
            RuleOutcome::Matched { .. } => {
                let is_secret = |step: &KnockStep| step.is_secret() && packet.ports.map(|ports| ports.1) == step.port();
                let door = |name: &String| self.settings.doors.iter().find(|door| door.name == *name);
                let knock = match &rule.action {
                    Action::Knock(name) => door(name).map(|door| door.knock.iter().chain(&door.close)),
                    _ => None,
                };
                rule.matchers.iter().any(is_read) || knock.into_iter().flatten().any(is_secret)
            }
            _ => false,
        }
    }

    /// A rule, in words.
    fn named(&self, index: usize) -> String {
        let rule = &self.rules.rules[index];
        named(self.numbers[index], rule.line, &rule.comment)
    }

    /// A result with the deciding rule.
    pub(crate) fn decision(&self, judged: &Judged) -> Decision {
        let index = judged.decided_by();
        let rule = index.map(|index| &self.rules.rules[index]);
        Decision {
            verdict: judged.verdict,
            reason: judged.reason,
            rule: rule.map(|rule| rule.id.clone()),
            rule_number: index.map(|index| self.numbers[index]),
            line: rule.and_then(|rule| json::line(rule.line)),
        }
    }

    /// A result in words.
    pub(crate) fn conclusion(&self, judged: &Judged) -> String {
        conclusion(judged.verdict, judged.reason, judged.decided_by().map(|index| self.named(index)))
    }

    /// Decides about a frame, and explains the decision.
    pub(crate) fn explain(&mut self, frame: &[u8], from: impl Fn(Option<&Packet<'_>>) -> Side) -> Explained {
        let packet = match read(frame, &from) {
            Ok(packet) => packet,
            Err(reason) => {
                let from = from(None);
                let (verdict, reason) = self.unseen(from, reason, frame);
                return Explained::unseen(from, verdict, reason);
            }
        };
        let explanation = self.evaluator.explain(&packet, self.now);
        let workers_decide = explanation.workers_decide(self.rules, &packet).map(|(rule, reason)| {
            let Some(index) = rule else { return reason };
            format!("{}: {reason}", self.named(index))
        });
        self.explained(&packet, explanation, workers_decide)
    }

    /// An explanation in words.
    fn explained(&self, packet: &Packet<'_>, explanation: Explanation, workers_decide: Option<String>) -> Explained {
        let Evaluation { verdict, reason, matched, replies, logged, .. } = explanation.evaluation;
        let last = matched.last().filter(|_| reason == Reason::Rule);
        let decided_by = last.and_then(|last| explanation.tried.iter().rposition(|tried| tried.rule == *last));
        Explained {
            packet: Some(packet::summary(packet)),
            from: packet.side,
            chain: Some(explanation.chain.name()),
            rules: explanation.tried.into_iter().map(|tried| self.step(tried)).collect(),
            logged: logged.into_iter().map(|logged| logged.text).collect(),
            replies: replies.iter().map(|reply| summary_of_ip(reply)).collect(),
            verdict,
            reason,
            decided_by,
            workers_decide,
            kernel: None,
        }
    }

    /// Explains a decision that a worker made, for a new bench. Also returns the number of rules of which the record has
    /// another outcome than its facts explain. `None` if the frame cannot be read.
    pub(crate) fn explain_recorded(&mut self, frame: &[u8], from: Side, record: &Record) -> Option<(Explained, usize)> {
        let packet = read(frame, &|_| from).ok()?;
        let explanation = self.evaluator.explain_recorded(&packet, self.now, record);
        let contradicted = explanation.contradicted;
        Some((self.explained(&packet, explanation, None), contradicted))
    }

    /// The entries of all lists.
    pub(crate) fn lists(&self) -> Vec<Held> {
        let live = self.evaluator.listed(self.now).into_iter();
        live.map(|ListedAddress { list, address, vlan, time_left }| Held { list, address, vlan, time_left }).collect()
    }

    /// Decides about a frame that rules do not evaluate, for this reason.
    fn unseen(&mut self, side: Side, reason: Reason, frame: &[u8]) -> (Verdict, Reason) {
        match FrameClass::of(reason) {
            Some(class) => self.evaluator.evaluate_frame(&headers::class_frame(side, class, frame), self.now),
            None => (Verdict::Drop, reason),
        }
    }

    fn step(&self, tried: Tried) -> RuleTrial {
        let rule = &self.rules.rules[tried.rule];
        let (outcome, because) = match tried.outcome {
            RuleOutcome::Disabled => ("disabled", None),
            RuleOutcome::Invalid(why) => ("invalid", Some(why)),
            RuleOutcome::Missed { matcher, observed, .. } => {
                let matcher = rule.matchers.get(matcher).map(wording::matcher).unwrap_or_default();
                ("missed", Some(if observed.is_empty() { matcher } else { format!("{matcher}, but {observed}") }))
            }
            RuleOutcome::Unexplained { matcher } => {
                let matcher = matcher.and_then(|matcher| rule.matchers.get(matcher)).map(wording::matcher);
                let because = match matcher {
                    Some(matcher) => format!("{matcher}, by state that only the dataplane has"),
                    None => "the worker saw other state than the trace shows".to_owned(),
                };
                ("missed", Some(because))
            }
            RuleOutcome::OtherFamily => (OTHER_FAMILY, None),
            RuleOutcome::NotForFragments => {
                ("missed", Some("a fragment behind the first meets only rules with fragment=yes".to_owned()))
            }
            RuleOutcome::Matched { effect } => ("matched", effect),
        };
        RuleTrial {
            number: self.numbers[tried.rule],
            line: rule.line,
            id: rule.id.clone(),
            chain: rule.chain.clone(),
            depth: tried.depth,
            action: wording::action(&rule.action),
            comment: rule.comment.clone(),
            outcome,
            because,
        }
    }
}

impl Judged {
    /// The index of the deciding rule.
    fn decided_by(&self) -> Option<usize> {
        self.matched.last().copied().filter(|_| self.reason == Reason::Rule)
    }
}

/// `drop: a rule decided, ip filter 4, line 5 (comment)`.
pub(crate) fn conclusion(verdict: Verdict, reason: Reason, rule: Option<String>) -> String {
    let rule = rule.map(|rule| format!(", {rule}")).unwrap_or_default();
    format!("{verdict}: {}{rule}", reason.sentence())
}

fn read<'f>(frame: &'f [u8], from: &impl Fn(Option<&Packet<'_>>) -> Side) -> Result<Packet<'f>, Reason> {
    let mut packet = headers::read(Side::Outside, frame, MAX_FRAME)?;
    packet.side = from(Some(&packet));
    Ok(packet)
}

/// The packet of a frame, if rules evaluate it.
pub(crate) fn parse(frame: &[u8]) -> Option<Packet<'_>> {
    headers::read(Side::Outside, frame, MAX_FRAME).ok()
}

/// An IP packet as a line of text.
fn summary_of_ip(packet: &[u8]) -> String {
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
    let frame = [&[0; 12][..], &ethertype, packet].concat();
    headers::read(Side::Inside, &frame, MAX_FRAME)
        .map_or_else(|reason| reason.sentence().to_owned(), |packet| packet::summary(&packet))
}

/// The side that a packet comes from: the given side, or that of the interface in its description; by default the outside.
///
/// # Errors
/// If the interface means no side, both sides, or another side than the given one.
pub(crate) fn side(said: Option<Side>, interface: Option<&str>, settings: &Settings) -> Result<Side, String> {
    let Some(interface) = interface else { return Ok(said.unwrap_or(Side::Outside)) };
    let sides: Vec<_> = settings
        .interfaces
        .sides(InterfaceKind::Interface, interface, &[])
        .map(|sides| sides.iter().collect())
        .unwrap_or_default();
    match (said, &sides[..]) {
        (Some(said), [side]) if said != *side => {
            Err(format!("the packet is given as from {said}, but the side of `{interface}` is {side}"))
        }
        (_, [side]) => Ok(*side),
        (_, []) => {
            Err(format!("`{interface}` is no interface that means a side: `[policy.interfaces]` names those that do"))
        }
        _ => Err(format!("`{interface}` means both sides: write `outside` or `inside`")),
    }
}
