//! Answers of a dataplane for tests: two workers, two rules, two lists, two doors.

use std::time::Duration;

use knockplane_policy::door::Failure;
use knockplane_policy::eval::tracking::TcpState;
use knockplane_policy::packet::{Family, Side, Vlan, protocol};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{
    Action, ConnectionState, ListAdd, ListTimeout, Rule, RuleChangeCounts, RuleId, RuleSet, numbers,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::connections::{Connection, ConnectionTableStatus};
use knockplane_policy::wire::grants::{DoorGrants, GrantChange, GrantChangeCount};
use knockplane_policy::wire::history::{ApplyNote, History, Revision, RevisionOrigin};
use knockplane_policy::wire::offload::Offload;
use knockplane_policy::wire::source_rates::{SourceRate, SourceRates};
use knockplane_policy::wire::{
    Counter, DataplaneStatus, DoorSummary, Doors, DriftKind, DropCount, EventReader, FailureCount, FastPathMisses,
    FastPathStatus, FrameCount, HostName, IgnoredSource, Interface, InterfaceCounters, JournalStatus, ListEntry,
    ListOverview, ListPage, ListSummary, LogStatus, LostLines, MetricsReport, NameState, PeersRefused,
    PendingConfirmation, ProcessUsage, Repairs, RestoreReport, RingDrops, RuleMetrics, RunningRules,
    StoredCountersStatus, TableMemory, UnconfirmedChange, Visitor, WorkerMetrics, WorkerStatus,
};
use knockplane_policy::word::Word;

use crate::api::messages::{Control, Overview, Tracked};

pub(crate) fn status() -> DataplaneStatus {
    DataplaneStatus {
        version: "0.1.0".into(),
        pid: 4242,
        uptime: Duration::from_secs(90),
        generation: 3,
        generation_age: Duration::from_secs(30),
        confirmation: None,
        rules_source: "/etc/knockplane/rules.rsc".into(),
        rules: 2,
        settings: Settings::default(),
        settings_differ_from_file: false,
        interfaces: vec![interface(Side::Outside, "kp-out"), interface(Side::Inside, "kp-in")],
        workers: vec![worker(0), worker(1)],
        on_exit: "closed".into(),
        log: log(4_310),
        drops: [("chain-default", 1_233_567), ("ipv4-malformed", 31), ("rx-ring-full", 9)]
            .map(|(reason, frames)| DropCount { reason: reason.into(), frames })
            .into(),
        connections: Some(ConnectionTableStatus { known: 21, capacity: 100_000, refused: 0, last_refused: None }),
        offload: Offload::default(),
        memory: vec![
            TableMemory { table: "lists".into(), bytes: 72_351_744, huge_page_bytes: Some(69_206_016) },
            TableMemory { table: "connections".into(), bytes: 41_943_040, huge_page_bytes: Some(0) },
        ],
        fast_path: fast_path(),
        static_entries_damage: None,
        journal: JournalStatus {
            bytes: 4_096,
            waiting: 3,
            failures: 2,
            problem: None,
            delay_ms: 4,
            restore: RestoreReport { restored: 40, expired: 7, ..RestoreReport::default() },
        },
        stored_counters: StoredCountersStatus { failures: 1, ..StoredCountersStatus::default() },
    }
}

/// An apply that waits for its confirmation.
fn confirmation() -> PendingConfirmation {
    PendingConfirmation {
        change: UnconfirmedChange::Apply,
        generation: 3,
        time_left: Duration::from_millis(44_100),
        back_to: 2,
        back_to_source: "/etc/knockplane/old.rsc".into(),
        back_to_rules: 5,
    }
}

/// A fast path that carries flows.
fn fast_path() -> FastPathStatus {
    FastPathStatus {
        configured: true,
        on: true,
        reason: None,
        traced: false,
        flows: Some([1_204, 12]),
        capacity: [131_072, 131_072],
        stored: 41_007,
        full: 3,
        carried: [7_200_431, 6_900_118],
        carried_bytes: [910_000_000, 8_100_000_000],
        dropped: 2_310,
        dropped_bytes: 138_600,
        frames: vec![
            FrameCount { verdict: Verdict::Forward, reason: Reason::Rule, frames: 14_100_549 },
            FrameCount { verdict: Verdict::Drop, reason: Reason::ChainDefault, frames: 2_310 },
        ],
        lost: [0, 17],
        misses: FastPathMisses { unfit: 31, unknown: 1_250_000, ended: 5_100, blocked: 0, tracked: 902 },
    }
}

/// A full table of connections, and some of its connections.
pub(crate) fn tracked() -> Tracked {
    let seconds = Duration::from_secs;
    let table = ConnectionTableStatus { known: 2_040, capacity: 1_024, refused: 191, last_refused: Some(seconds(3)) };
    let of = |source: &str, port, destination: &str, to| Connection {
        vlan: Vlan::NONE,
        protocol: protocol::TCP,
        source: (source.parse().expect("an address"), port),
        destination: (destination.parse().expect("an address"), to),
        side: Side::Outside,
        state: ConnectionState::Established,
        tcp: Some(TcpState::Established),
        fasttracked: false,
        door: Some("ssh".into()),
        grant_left: Some(seconds(90)),
        bytes: 4_096,
        time_left: seconds(86_399),
    };
    let connections = vec![
        of("192.0.2.7", 50_000, "203.0.113.5", 22),
        Connection {
            vlan: "10/20".parse().expect("VLANs"),
            tcp: Some(TcpState::FinWait),
            grant_left: None,
            ..of("2001:db8::7", 50_001, "2001:db8:1::5", 22)
        },
        Connection {
            protocol: protocol::ICMP,
            side: Side::Inside,
            state: ConnectionState::New,
            tcp: None,
            door: None,
            grant_left: None,
            time_left: seconds(9),
            fasttracked: true,
            ..of("203.0.113.5", 7, "192.0.2.9", 7)
        },
    ];
    Tracked { table: Some(table), connections, truncated: true }
}

/// The log of a process that lost packet lines.
pub(crate) fn log(packet_lines: u64) -> LogStatus {
    let lost = [("door", 0), ("packet", packet_lines)].map(|(kind, lines)| LostLines { kind: kind.into(), lines });
    LogStatus { lost: lost.into(), waiting: 0, problem: None }
}

pub(crate) fn overview() -> Overview {
    Overview { dataplane: status(), control: Control { log: log(0), audit: None, event_streams: 0 } }
}

fn interface(side: Side, name: &str) -> Interface {
    Interface {
        side,
        name: name.into(),
        xdp_mode: "native".into(),
        zero_copy: false,
        driver: "igb".into(),
        copy_reason: Some("zero-copy is off in the configuration".into()),
        cost: Some("copy mode: the kernel copies every frame".into()),
        queues: 2,
        mtu: 1500,
        up: true,
        drift: Vec::new(),
        repairs: vec![Repairs { kind: DriftKind::Gro, times: 1 }],
        counters: InterfaceCounters {
            arrived: 1_234_600,
            no_socket: if side == Side::Outside { 6 } else { 0 },
            tails: if side == Side::Outside { 11 } else { 0 },
            past_program: Some(3),
            rx_packets: 1_234_603,
            tx_packets: 1_089,
            rx_dropped: 9,
            tx_dropped: 2,
            ..InterfaceCounters::default()
        },
    }
}

fn worker(worker: u32) -> WorkerStatus {
    WorkerStatus {
        worker,
        core: (worker == 0).then_some(2),
        heartbeat_age: Some(Duration::from_millis(5)),
        generation: 3,
        received: [1_234_567, 89],
        sent: [89, 1_000],
        dropped: 1_233_567,
        in_flight: 4,
        lost: 0,
        busy: Duration::from_secs(45),
    }
}

pub(crate) fn rules() -> RunningRules {
    let knock = Action::AddSrcToAddressList(ListAdd {
        list: "knock1".into(),
        timeout: ListTimeout::After(Duration::from_secs(10)),
    });
    RunningRules {
        generation: 3,
        revision: 2,
        order: "3-179a2c9f0e1d8000".into(),
        source: "/etc/knockplane/rules.rsc".into(),
        configuration: "/etc/knockplane/knockplane.toml".into(),
        rules: RuleSet {
            rules: vec![rule("0a1b2c3d", knock, false, "first knock"), rule("0a1b2c3d-2", Action::Drop, true, "")],
            ..RuleSet::default()
        },
        origins: vec![Some(1), Some(2)],
        counters: vec![Counter { packets: 3, bytes: 144 }, Counter { packets: 1_234_567, bytes: 98_765_432_100 }],
        chain_defaults: [Counter { packets: 7, bytes: 700 }, Counter::default(), Counter::default()],
    }
}

/// A start, and an edit of its rules.
pub(crate) fn history() -> History {
    let revision = |number, origin, edit: &str| Revision {
        number,
        time: Duration::from_secs(1_700_000_000 + number),
        origin,
        note: ApplyNote { edit: edit.to_owned(), ..ApplyNote::default() },
        source: "/etc/knockplane/rules.rsc".into(),
        rules: 2,
        changes: RuleChangeCounts::default(),
        confirm_within: None,
        has_rules: true,
    };
    let revisions = vec![revision(1, RevisionOrigin::Start, ""), revision(2, RevisionOrigin::Edit, "rule disable 1")];
    History { revisions, damage: None }
}

pub(crate) fn rule(id: &str, action: Action, disabled: bool, comment: &str) -> Rule {
    Rule {
        id: RuleId(id.into()),
        disabled,
        comment: comment.into(),
        line: 1,
        ..Rule::new(Family::Ipv4, "input", action)
    }
}

pub(crate) fn lists() -> ListPage {
    let overview = |summary: ListSummary| {
        let by_hand = u64::from(summary.level);
        ListOverview { summary, by_packets: true, by_rules: 2 * by_hand, by_operators: by_hand }
    };
    ListPage {
        lists: list_summaries().into_iter().map(overview).collect(),
        entries: vec![
            ListEntry {
                list: "knock1".into(),
                address: "192.0.2.7".parse().unwrap(),
                vlan: Vlan::NONE,
                name: None,
                to: None,
                steps: 0,
                time_left: Some(Duration::from_millis(8_200)),
                dynamic: true,
                line: None,
                comment: String::new(),
            },
            ListEntry {
                list: "trusted".into(),
                address: "2001:db8::7".parse().unwrap(),
                vlan: Vlan::NONE,
                name: None,
                to: None,
                steps: 0,
                time_left: None,
                dynamic: false,
                line: None,
                comment: "the office".into(),
            },
        ],
        names: Vec::new(),
        truncated: false,
        next: None,
    }
}

fn list_summaries() -> Vec<ListSummary> {
    vec![
        ListSummary { list: "knock1".into(), level: 0, entries: 1, expired: 8, evicted: 5, refused: 0 },
        ListSummary { list: "trusted".into(), level: 1, entries: 12_345, expired: 0, evicted: 0, refused: 2 },
    ]
}

pub(crate) fn doors() -> Doors {
    let visitor = |door: &str, address: &str, to: Option<&str>, steps, time_left| Visitor {
        door: door.into(),
        address: address.parse().unwrap(),
        vlan: Vlan::NONE,
        to: to.map(|to| to.parse().unwrap()),
        steps,
        time_left,
    };
    let soon = Some(Duration::from_millis(8_200));
    Doors {
        doors: vec![
            door("ssh", &[1_204, 37, 12], [340, 21, 5, 0, 0, 1_900, 0]),
            DoorSummary {
                closed: 1,
                knocking: 0,
                close: vec!["icmp size=128".into()],
                ..door("office", &[3], [0; Failure::ALL.len()])
            },
        ],
        knocking: vec![
            visitor("ssh", "192.0.2.7", Some("203.0.113.5"), 2, soon),
            visitor("ssh", "2001:db8::7", Some("::"), 1, soon),
        ],
        open: vec![
            visitor("office", "198.51.100.7", None, 0, None),
            visitor("ssh", "198.51.100.7", Some("203.0.113.5"), 0, Some(Duration::from_secs(1_790))),
            Visitor {
                vlan: "10/20".parse().unwrap(),
                ..visitor("ssh", "198.51.100.7", Some("203.0.113.5"), 0, Some(Duration::from_secs(30)))
            },
        ],
        ignored: vec![
            ignored(None, "192.0.2.9", Failure::Ports, 41),
            ignored(Some("office"), "2001:db8::/64", Failure::Attempts, 7),
            ignored(Some("ssh"), "198.51.100.7", Failure::HeldOff, 4),
        ],
        truncated: false,
    }
}

fn ignored(door: Option<&str>, address: &str, reason: Failure, seconds: u64) -> IgnoredSource {
    let address = address.parse().unwrap();
    let (door, time_left) = (door.map(str::to_owned), Duration::from_secs(seconds));
    IgnoredSource { door, address, vlan: Vlan::NONE, reason, time_left }
}

fn door(name: &str, steps: &[u64], failed: [u64; Failure::ALL.len()]) -> DoorSummary {
    let failed = Failure::ALL.iter().zip(failed).map(|(reason, times)| FailureCount { reason: *reason, times });
    DoorSummary {
        door: name.into(),
        knock: (1..steps.len())
            .map(|step| format!("tcp/{step}000 syn"))
            .chain(["udp/4321 with its passphrase".into()])
            .collect(),
        close: Vec::new(),
        opens: vec!["tcp/22".into()],
        steps: steps.to_vec(),
        opened: steps.last().copied().unwrap_or_default(),
        closed: 0,
        failed: failed.collect(),
        knocking: 2,
        open: 1,
    }
}

pub(crate) fn metrics() -> MetricsReport {
    let rules = rules();
    MetricsReport {
        status: DataplaneStatus { confirmation: Some(confirmation()), ..status() },
        workers: vec![worker_metrics(0), worker_metrics(1)],
        started: Duration::from_secs(910),
        reloaded: Duration::from_secs(970),
        process: Some(ProcessUsage {
            cpu: Duration::from_millis(12_500),
            resident_bytes: 100 << 20,
            virtual_bytes: 300 << 20,
            open_fds: 40,
            max_fds: Some(1_024),
            threads: 4,
        }),
        rules: rule_metrics(&rules),
        rule_overflow: Counter { packets: 20, bytes: 960 },
        rules_without_series: 2,
        chain_defaults: rules.chain_defaults,
        lists: list_summaries(),
        names: vec![name_state()],
        doors: doors().doors,
        grants: vec![door_grants("ssh", [12, 1, 9, 0, 1, 1, 0]), door_grants("office", [0; GrantChange::ALL.len()])],
        list_capacity: 1 << 20,
        connections: 21,
        connections_refused: 4,
        applied: 3,
        refused: 1,
        events_lost: 2,
        event_readers: [("log", 1, 300), ("journal", 0, 0)]
            .map(|(reader, gaps, missed)| EventReader { reader: reader.into(), gaps, missed })
            .into(),
        clock_steps: 1,
        clock_synchronised: Some(true),
        peers_refused: [("evicted", 3), ("idle", 0)]
            .map(|(reason, connections)| PeersRefused { reason: reason.into(), connections })
            .into(),
    }
}

fn door_grants(door: &str, times: [u64; GrantChange::ALL.len()]) -> DoorGrants {
    let changes = GrantChange::ALL.iter().zip(times).map(|(change, times)| GrantChangeCount { change: *change, times });
    DoorGrants { door: door.into(), changes: changes.collect() }
}

/// A host name whose last answer is two minutes old, and whose name server has failed since.
pub(crate) fn name_state() -> NameState {
    NameState {
        list: "trusted".into(),
        line: 7,
        name: HostName { family: Family::Ipv4, name: "dyn.example.net".into() },
        addresses: vec![[192, 0, 2, 7].into(), [192, 0, 2, 9].into()],
        failure: Some("no answer within 5 s".into()),
        answer_age: Some(Duration::from_secs(120)),
    }
}

/// Two sources: one with a connection, and one whose packets are dropped.
pub(crate) fn source_rates() -> SourceRates {
    let source = |address: &str, connections, bytes, dropped| SourceRate {
        address: address.parse().expect("an address"),
        connections,
        total_bytes: 10 * bytes,
        bytes,
        total_dropped: 3 * dropped,
        dropped,
        reason: (dropped > 0).then_some(Reason::ChainDefault),
    };
    let sources = vec![source("192.0.2.7", 2, 4_096, 0), source("2001:db8:1234:5678:9abc:def0:1234:5678", 0, 0, 7)];
    SourceRates { interval: Some(Duration::from_secs(2)), sources, found: 5, is_partial: false }
}

fn rule_metrics(rules: &RunningRules) -> Vec<RuleMetrics> {
    let declared = &rules.rules.rules;
    let numbered = declared.iter().zip(numbers(declared)).zip(&rules.counters);
    let series = numbered.map(|((rule, number), counter)| RuleMetrics {
        id: rule.id.clone(),
        number,
        chain: rule.chain.clone(),
        action: rule.action.name().to_owned(),
        comment: rule.comment.clone(),
        counter: *counter,
    });
    series.collect()
}

fn worker_metrics(worker: u32) -> WorkerMetrics {
    let ring = |side, reason: &str, frames| RingDrops { side, reason: reason.into(), frames };
    WorkerMetrics {
        worker,
        frames: vec![
            FrameCount { verdict: Verdict::Forward, reason: Reason::Rule, frames: 1_000 },
            FrameCount { verdict: Verdict::Drop, reason: Reason::ChainDefault, frames: 1_233_567 },
            FrameCount { verdict: Verdict::Drop, reason: Reason::Ipv4Malformed, frames: 0 },
        ],
        received_bytes: [74_074_020, 5_340],
        sent_bytes: [5_340, 60_000],
        ring_drops: vec![ring(Side::Outside, "rx-ring-full", 9), ring(Side::Inside, "fill-ring-empty", 0)],
        busy: Duration::from_secs(45),
        asleep: Duration::from_millis(44_500),
    }
}
