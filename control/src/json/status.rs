//! The output of `show status` and `show workers`.

use ipnet::IpNet;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::offload;
use knockplane_policy::wire::{
    self, Drift, DropCount, FastPathMisses, FastPathStatus, InterfaceCounters, JournalStatus, LogStatus, Repairs,
    StoredCountersStatus, TableMemory, UnconfirmedChange,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::connections::ConnectionTableJson;
use super::{SidesJson, seconds};
use crate::api::messages;
use crate::audit::AuditStatus;
use crate::problems::{Problem, problems};
use crate::ready;

/// The state of both processes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusJson {
    /// Version of the dataplane's package.
    pub(crate) dataplane_version: String,
    /// Process id of the dataplane.
    pub(crate) pid: u32,
    /// Time since the dataplane started.
    pub(crate) uptime_seconds: f64,
    /// Whether the dataplane decides packets.
    pub(crate) ready: bool,
    /// The reason that the dataplane is not ready; `null` if it is.
    pub(crate) not_ready_because: Option<String>,
    /// Conditions that need an operator, although the dataplane decides packets.
    pub(crate) warnings: Vec<String>,
    /// What is not well, and what to do; the most severe first. Empty if all is well.
    pub(crate) problems: Vec<Problem>,
    /// Rule sets applied since the start, counted from 1.
    pub(crate) generation: u64,
    /// Time since the generation began to run.
    pub(crate) generation_age_seconds: f64,
    /// The rollback of the generation, unless `confirm` arrives; `null` if no confirmation is pending.
    pub(crate) confirmation: Option<ConfirmationJson>,
    /// The origin of the rules.
    pub(crate) rules_source: String,
    /// Number of running rules.
    pub(crate) rules: usize,
    /// The settings that determine the chain of a packet and the defaults of the chains.
    pub(crate) settings: ShownSettingsJson,
    /// The two interfaces, outside first.
    pub(crate) interfaces: Vec<InterfaceJson>,
    /// The workers, in order.
    pub(crate) workers: Vec<WorkerJson>,
    /// Frames dropped since the dataplane started, by each reason with a drop, the most frequent first.
    pub(crate) drops: Vec<DropCount>,
    /// The table of connections; `null` if connections are not tracked.
    pub(crate) connections: Option<ConnectionTableJson>,
    /// The kernel's fast path.
    pub(crate) fast_path: FastPathJson,
    /// Memory of the large tables: the lists, and connections if they are tracked.
    pub(crate) memory: Vec<TableMemory>,
    /// Checksums and segmentation that senders left to their interface.
    pub(crate) offload: OffloadJson,
    /// The treatment of frames when the dataplane does not run: `closed`.
    pub(crate) on_exit: String,
    /// The dataplane's log.
    pub(crate) log: LogStatus,
    /// The journal of grants and other entries with a timeout, which a restart of the dataplane restores.
    pub(crate) journal: JournalStatus,
    /// The file of the counters of rules, which a restart of the dataplane continues.
    pub(crate) stored_counters: StoredCountersStatus,
    /// The control process.
    pub(crate) control: ControlJson,
}

/// An apply or a reload that waits for its confirmation.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfirmationJson {
    /// `apply` or `reload`.
    pub(crate) change: UnconfirmedChange,
    /// The generation that waits for the confirmation.
    pub(crate) generation: u64,
    /// Time until the rollback.
    pub(crate) time_left_seconds: f64,
    /// The generation whose rules, doors and `[policy]` the rollback restores.
    pub(crate) back_to_generation: u64,
    /// The origin of those rules.
    pub(crate) back_to_source: String,
    /// The number of those rules.
    pub(crate) back_to_rules: usize,
}

impl From<wire::PendingConfirmation> for ConfirmationJson {
    fn from(pending: wire::PendingConfirmation) -> Self {
        let wire::PendingConfirmation { change, generation, time_left, back_to, back_to_source, back_to_rules } =
            pending;
        ConfirmationJson {
            change,
            generation,
            time_left_seconds: seconds(time_left),
            back_to_generation: back_to,
            back_to_source,
            back_to_rules,
        }
    }
}

/// Settings of the section `[policy]`. Doors are in `show doors`. No output contains their passphrases.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ShownSettingsJson {
    /// The addresses behind the filter.
    #[schemars(with = "Vec<String>")]
    pub(crate) protect: Vec<IpNet>,
    /// The verdict of each chain on a packet that no rule decides.
    pub(crate) chain_default: ChainVerdictsJson,
}

/// A verdict for each chain.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChainVerdictsJson {
    pub(crate) input: Verdict,
    pub(crate) forward: Verdict,
    pub(crate) output: Verdict,
}

impl From<&Settings> for ChainVerdictsJson {
    fn from(settings: &Settings) -> Self {
        let [input, forward, output] = [BuiltinChain::Input, BuiltinChain::Forward, BuiltinChain::Output]
            .map(|chain| settings.chain_default.verdict(chain));
        ChainVerdictsJson { input, forward, output }
    }
}

/// Packets and frames since the dataplane started for which a sender left work to its interface.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OffloadJson {
    /// Packets from each side without a computed TCP or UDP checksum. The dataplane checks only first packets of
    /// accepted connections, knocks that opened a door, and packets that added an address to a list.
    pub(crate) checksums: SidesJson,
    /// Frames that were dropped because they are longer than the MTU allows.
    pub(crate) too_long: u64,
    /// Time since the last such packet or frame; `null` if there was none.
    pub(crate) last_ago_seconds: Option<f64>,
}

impl From<offload::Offload> for OffloadJson {
    fn from(offload::Offload { checksums, too_long, last }: offload::Offload) -> Self {
        OffloadJson { checksums: checksums.into(), too_long, last_ago_seconds: last.map(seconds) }
    }
}

/// The kernel's fast path. Counters are those since the dataplane started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FastPathJson {
    /// Whether the kernel carries flows now.
    pub(crate) on: bool,
    /// The reason that it carries none, or none in one direction; `null` if it carries flows in both.
    pub(crate) reason: Option<String>,
    /// Whether a trace runs: workers then decide about the flows and strangers that it shows.
    pub(crate) traced: bool,
    /// Flows that it carries now; `null` without a fast path.
    pub(crate) flows: Option<FamiliesJson>,
    /// The maximum number of flows.
    pub(crate) capacity: FamiliesJson,
    /// Flows that were handed to the kernel; a flow can be handed over more than once.
    pub(crate) stored: u64,
    /// Flows that stayed in userspace because their part of the table was full.
    pub(crate) full: u64,
    /// Carried frames, by the side of arrival.
    pub(crate) carried: SidesJson,
    /// Bytes of these frames, with Ethernet headers.
    pub(crate) carried_bytes: SidesJson,
    /// Frames of strangers from outside that it has dropped.
    pub(crate) dropped: u64,
    /// Bytes of these frames.
    pub(crate) dropped_bytes: u64,
    /// Carried frames that the other interface did not take, by the side of departure.
    pub(crate) lost: SidesJson,
    /// Frames that came up to userspace while the fast path was on.
    pub(crate) misses: FastPathMisses,
}

/// A number for each address family.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FamiliesJson {
    pub(crate) ipv4: u64,
    pub(crate) ipv6: u64,
}

impl From<[u64; 2]> for FamiliesJson {
    fn from([ipv4, ipv6]: [u64; 2]) -> Self {
        FamiliesJson { ipv4, ipv6 }
    }
}

impl From<FastPathStatus> for FastPathJson {
    fn from(fast_path: FastPathStatus) -> Self {
        // The metrics have the frames by reason. `reason` tells whether the configuration turns it off.
        let FastPathStatus {
            configured: _,
            on,
            reason,
            traced,
            flows,
            capacity,
            stored,
            full,
            carried,
            carried_bytes,
            dropped,
            dropped_bytes,
            frames: _,
            lost,
            misses,
        } = fast_path;
        FastPathJson {
            on,
            reason,
            traced,
            flows: flows.map(FamiliesJson::from),
            capacity: capacity.into(),
            stored,
            full,
            carried: carried.into(),
            carried_bytes: carried_bytes.into(),
            dropped,
            dropped_bytes,
            lost: lost.into(),
            misses,
        }
    }
}

/// The control process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ControlJson {
    /// The log of the control process.
    pub(crate) log: LogStatus,
    /// The audit file; `null` if there is none.
    pub(crate) audit: Option<AuditStatus>,
    /// The number of streams of events, such as `monitor`.
    pub(crate) event_streams: usize,
}

/// An interface.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InterfaceJson {
    pub(crate) side: Side,
    pub(crate) name: String,
    /// `native` or `generic` XDP.
    pub(crate) xdp_mode: String,
    /// Whether frames are received and sent without a copy by the kernel.
    pub(crate) zero_copy: bool,
    /// The reason that frames are copied; `null` if they are not, or if the reason is not known.
    pub(crate) copy_reason: Option<String>,
    /// The cost of copy mode or generic XDP; `null` if the interface has neither.
    pub(crate) cost: Option<String>,
    /// The driver, as in the output of `ethtool -i`; `null` if there is none.
    pub(crate) driver: Option<String>,
    /// Number of receive queues.
    pub(crate) queues: u32,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Whether the link is up.
    pub(crate) up: bool,
    /// Requirements that are not met now.
    pub(crate) drift: Vec<Drift>,
    /// Repairs since the dataplane started.
    pub(crate) repairs: Vec<Repairs>,
    pub(crate) counters: InterfaceCounters,
}

impl From<wire::Interface> for InterfaceJson {
    fn from(interface: wire::Interface) -> Self {
        let wire::Interface {
            side,
            name,
            xdp_mode,
            zero_copy,
            driver,
            copy_reason,
            cost,
            queues,
            mtu,
            up,
            drift,
            repairs,
            counters,
        } = interface;
        let driver = Some(driver).filter(|driver| !driver.is_empty());
        InterfaceJson {
            side,
            name,
            xdp_mode,
            zero_copy,
            copy_reason,
            cost,
            driver,
            queues,
            mtu,
            up,
            drift,
            repairs,
            counters,
        }
    }
}

/// A worker.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WorkerJson {
    /// The number of the worker, which is also the number of its queue on both sides.
    pub(crate) worker: u32,
    /// The core to which the worker is pinned; `null` if it is not pinned.
    pub(crate) core: Option<u32>,
    /// Time since the last heartbeat; `null` before the first one.
    pub(crate) heartbeat_age_seconds: Option<f64>,
    /// The generation of rules that the worker runs.
    pub(crate) generation: u64,
    /// Frames received on each side.
    pub(crate) received: SidesJson,
    /// Frames sent on each side.
    pub(crate) sent: SidesJson,
    /// Frames dropped.
    pub(crate) dropped: u64,
    /// Frames that the kernel has for transmission and has not completed.
    pub(crate) in_flight: u64,
    /// Frames of the worker's UMEM that are in no known place; always 0.
    pub(crate) lost: u64,
    /// Time spent working since the dataplane started.
    pub(crate) busy_seconds: f64,
}

impl From<wire::WorkerStatus> for WorkerJson {
    fn from(worker: wire::WorkerStatus) -> Self {
        let wire::WorkerStatus {
            worker,
            core,
            heartbeat_age,
            generation,
            received,
            sent,
            dropped,
            in_flight,
            lost,
            busy,
        } = worker;
        WorkerJson {
            worker,
            core,
            heartbeat_age_seconds: heartbeat_age.map(seconds),
            generation,
            received: received.into(),
            sent: sent.into(),
            dropped,
            in_flight,
            lost,
            busy_seconds: seconds(busy),
        }
    }
}

/// All workers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WorkersJson {
    /// Time since the dataplane started; `busy_seconds` is a part of it.
    pub(crate) uptime_seconds: f64,
    /// The workers, in order.
    pub(crate) workers: Vec<WorkerJson>,
    /// The kernel's fast path, which carries and drops frames without a worker.
    pub(crate) fast_path: FastPathJson,
}

impl From<messages::Workers> for WorkersJson {
    fn from(messages::Workers { uptime, workers, fast_path }: messages::Workers) -> Self {
        WorkersJson {
            uptime_seconds: seconds(uptime),
            workers: workers.into_iter().map(WorkerJson::from).collect(),
            fast_path: fast_path.into(),
        }
    }
}

impl StatusJson {
    /// The state of both processes. `ready` contains the reason if the dataplane is not ready.
    pub(crate) fn new(overview: messages::Overview, ready: Result<(), String>) -> StatusJson {
        let messages::Overview { dataplane, control } = overview;
        let (warnings, problems) = (ready::warnings(&dataplane), problems(&dataplane, &control));
        let messages::Control { log: own_log, audit, event_streams } = control;
        let wire::DataplaneStatus {
            version,
            pid,
            uptime,
            generation,
            generation_age,
            confirmation,
            rules_source,
            rules,
            settings,
            interfaces,
            workers,
            on_exit,
            log,
            journal,
            stored_counters,
            drops,
            connections,
            offload,
            memory,
            fast_path,
            // The warnings contain these fields.
            static_entries_damage: _,
            settings_differ_from_file: _,
        } = dataplane;
        StatusJson {
            dataplane_version: version,
            pid,
            uptime_seconds: seconds(uptime),
            ready: ready.is_ok(),
            not_ready_because: ready.err(),
            warnings,
            problems,
            generation,
            generation_age_seconds: seconds(generation_age),
            confirmation: confirmation.map(ConfirmationJson::from),
            rules_source,
            rules,
            settings: ShownSettingsJson { chain_default: (&settings).into(), protect: settings.protect },
            interfaces: interfaces.into_iter().map(InterfaceJson::from).collect(),
            workers: workers.into_iter().map(WorkerJson::from).collect(),
            drops,
            connections: connections.map(ConnectionTableJson::from),
            fast_path: fast_path.into(),
            memory,
            offload: offload.into(),
            on_exit,
            log,
            journal,
            stored_counters,
            control: ControlJson { log: own_log, audit, event_streams },
        }
    }
}
