//! The answers of the manager itself: the status, the counters of rules, the totals of frames and the metrics. None waits for a job.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_limits::usage;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_policy::wire::frame_totals::FrameTotals;
use knockplane_policy::wire::{
    Counter, DataplaneStatus, DropCount, FastPathStatus, FrameCount, Interface, InterfaceCounters, ListSummary,
    LogStatus, LostLines, MetricsReport, PeersRefused, RuleCounters, TableMemory, WorkerMetrics, WorkerStatus,
};

use super::{Supervisor, WorkerHandle};
use crate::administration::door_summaries;
use crate::fast_path::{FastPathState, KernelFrames};
use crate::requirements::mode;

impl Supervisor {
    /// The status. It reads the page tables of the process, for the part of the memory that is in huge pages, and all flows
    /// of the fast path.
    pub(in crate::manager) fn status(&mut self) -> DataplaneStatus {
        let mut status = DataplaneStatus { memory: self.memory(), ..self.status_without_memory() };
        status.fast_path.flows = self.shared.fast_path.flows(self.shared.clock.now());
        status
    }

    fn status_without_memory(&mut self) -> DataplaneStatus {
        let mut counters = Side::ALL.map(|side| self.interface_counters(side));
        let fast_path = self.fast_path();
        for (counters, carried) in counters.iter_mut().zip(fast_path.carried) {
            counters.arrived += carried;
        }
        counters[Side::Outside.index()].arrived += fast_path.dropped;
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        DataplaneStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.shared.clock.uptime(),
            generation: generation.number,
            generation_age: now.since(generation.since),
            confirmation: self.published.unconfirmed.load().as_deref().map(|unconfirmed| unconfirmed.pending(now)),
            rules_source: generation.source.clone(),
            rules: generation.rules().rules.len(),
            settings: generation.table.settings().clone(),
            settings_differ_from_file: self.published.differs_from_file.load(Relaxed),
            interfaces: self.interfaces(counters),
            workers: self.workers(now),
            on_exit: "closed".to_owned(),
            log: log_status(),
            drops: self.drops(&fast_path.frames),
            connections: self.connection_table(now),
            offload: self.offload(now),
            fast_path,
            memory: Vec::new(),
            static_entries_damage: self.published.lists.load().damage.clone(),
            journal: self.journal.status(self.shared.state.lists.last_event()),
            stored_counters: self.counter_store.status(),
        }
    }

    /// The memory of the lists, and of connections if they are tracked.
    fn memory(&self) -> Vec<TableMemory> {
        let state = &self.shared.state;
        let connections = state.connections().map(|connections| ("connections", connections.regions()));
        let tables = [("lists", state.lists.regions())].into_iter().chain(connections);
        tables
            .map(|(table, regions)| TableMemory {
                table: table.to_owned(),
                bytes: regions.iter().map(|region| region.len() as u64).sum(),
                huge_page_bytes: usage::huge_page_bytes(&regions),
            })
            .collect()
    }

    /// The fast path, except the number of its flows.
    fn fast_path(&self) -> FastPathStatus {
        let fast_path = &self.shared.fast_path;
        let FastPathState { is_on, reason } = fast_path.state();
        let frames = self.kernel_frames();
        let [outside, inside] = Side::ALL.map(|side| self.drift.misses(side));
        FastPathStatus {
            configured: self.fast_path_configured,
            on: is_on,
            reason,
            traced: fast_path.is_traced(),
            flows: None,
            capacity: fast_path.tables().map_or([0, 0], |tables| tables.capacity()),
            stored: fast_path.written.load(Relaxed),
            full: fast_path.full.load(Relaxed),
            carried: Side::ALL.map(|side| frames.frames(Verdict::Forward, side)),
            carried_bytes: Side::ALL.map(|side| frames.bytes(Verdict::Forward, side)),
            dropped: frames.frames(Verdict::Drop, Side::Outside),
            dropped_bytes: frames.bytes(Verdict::Drop, Side::Outside),
            frames: kernel_counts(&frames),
            lost: Side::ALL.map(|side| fast_path.lost(side).frames),
            misses: outside + inside,
        }
    }

    /// Frames that the kernel has carried or dropped.
    fn kernel_frames(&self) -> KernelFrames {
        let ledger = self.published.ledger();
        ledger.book.kernel_frames(&self.shared.generation.load())
    }

    /// Notes whether the kernel has dropped frames.
    pub(super) fn watch_drops(&self) {
        let dropped = self.kernel_frames().frames(Verdict::Drop, Side::Outside);
        self.shared.fast_path.last_drop(dropped, self.shared.clock.now());
    }

    /// The frames since start. It reads no table, so a reader may request it each second.
    pub(in crate::manager) fn frame_totals(&self) -> FrameTotals {
        let by_kernel = self.kernel_frames();
        let carried: u64 = Side::ALL.iter().map(|side| by_kernel.frames(Verdict::Forward, *side)).sum();
        let workers = || self.workers.iter().map(|worker| &worker.counters);
        FrameTotals {
            started: self.shared.clock.started_since_epoch(),
            uptime: self.shared.clock.uptime(),
            forwarded: carried + workers().map(|counters| counters.total(Verdict::Forward)).sum::<u64>(),
            kernel: carried + by_kernel.frames(Verdict::Drop, Side::Outside),
            workers: workers().map(|counters| counters.received.iter().map(|side| side.frames.load()).sum()).collect(),
            drops: self.drops(&kernel_counts(&by_kernel)),
        }
    }

    /// Frames dropped by all workers and the kernel, by reason.
    fn drops(&self, by_kernel: &[FrameCount]) -> Vec<DropCount> {
        let mut frames = HashMap::<String, u64>::new();
        let by_kernel = by_kernel.iter().filter(|count| count.verdict == Verdict::Drop && count.frames > 0);
        frames.extend(by_kernel.map(|count| (count.reason.name().to_owned(), count.frames)));
        for WorkerHandle { counters, .. } in &self.workers {
            let decided = counters.frame_counts().into_iter().filter(|count| count.verdict == Verdict::Drop);
            let decided = decided.map(|count| (count.reason.name().to_owned(), count.frames));
            let lost = counters.ring_drops().into_iter().map(|lost| (lost.reason, lost.frames));
            for (reason, dropped) in decided.chain(lost).filter(|(_, dropped)| *dropped > 0) {
                *frames.entry(reason).or_default() += dropped;
            }
        }
        let mut drops: Vec<_> = frames.into_iter().map(|(reason, frames)| DropCount { reason, frames }).collect();
        drops.sort_by(|one, other| other.frames.cmp(&one.frames).then_with(|| one.reason.cmp(&other.reason)));
        drops
    }

    fn interfaces(&self, counters: [InterfaceCounters; 2]) -> Vec<Interface> {
        let sides = Side::ALL.iter().zip(&self.ports).zip(&self.programs);
        sides
            .map(|((side, port), program)| Interface {
                side: *side,
                name: port.device.name().to_owned(),
                xdp_mode: program.mode().name().to_owned(),
                zero_copy: port.zero_copy,
                driver: port.device.driver().to_owned(),
                copy_reason: port.copy_reason.clone(),
                cost: mode::cost(program.mode(), port.zero_copy).map(ToOwned::to_owned),
                queues: port.queues,
                mtu: self.drift.mtu(*side),
                up: self.shared.links[side.index()].load(Relaxed),
                drift: self.drift.of(*side),
                repairs: self.drift.repairs(*side),
                counters: counters[side.index()],
            })
            .collect()
    }

    fn workers(&self, now: Time) -> Vec<WorkerStatus> {
        let workers = self.workers.iter().enumerate();
        workers
            .map(|(number, worker)| WorkerStatus {
                worker: number as u32,
                core: worker.core.map(|core| core as u32),
                heartbeat_age: worker.counters.heartbeat().map(|beat| now.since(beat)),
                generation: worker.counters.generation.load(),
                received: [0, 1].map(|side: usize| worker.counters.received[side].frames.load()),
                sent: [0, 1].map(|side: usize| worker.counters.sent[side].frames.load()),
                dropped: worker.counters.total(Verdict::Drop),
                in_flight: worker.counters.in_flight.load(),
                lost: worker.counters.lost.load(),
                busy: Duration::from_nanos(worker.counters.busy.load()),
            })
            .collect()
    }

    /// The counters of the running rules, since their resets.
    pub(in crate::manager) fn rule_counters(&self) -> RuleCounters {
        let ledger = self.published.ledger();
        let generation = self.shared.generation.load_full();
        let counters = ledger.book.since_reset(&generation, &ledger.book.totals(&generation));
        let uptime = self.shared.clock.uptime();
        drop(ledger);
        let (packets, bytes) = counters.into_iter().map(|Counter { packets, bytes }| (packets, bytes)).unzip();
        RuleCounters { order: generation.order(), uptime, packets, bytes }
    }

    pub(in crate::manager) fn metrics(&mut self) -> MetricsReport {
        let mut status = self.status_without_memory();
        status.fast_path.flows = self.shared.fast_path.flows_in_sample(self.shared.clock.now());
        let ledger = self.published.ledger();
        let generation = self.shared.generation.load_full();
        let totals = ledger.book.totals(&generation);
        let rules = ledger.book.series(&generation, &totals, &ledger.metrics);
        let rule_overflow = ledger.book.overflow(&totals);
        drop(ledger);
        self.counter_store.want();
        let overview = self.published.lists.load();
        let mut lists = self.shared.state.lists.summaries();
        let doors = door_summaries(&self.shared, generation.table.settings().doors.iter(), &lists);
        // The engine keeps every list that existed since start.
        let exists = |list: &ListSummary| {
            list.entries > 0 || generation.lists.contains(&list.list) || overview.with_entries.contains(&list.list)
        };
        lists.retain(exists);
        MetricsReport {
            status,
            started: self.shared.clock.started_since_epoch(),
            reloaded: generation.since_epoch,
            process: usage::read(),
            workers: self.workers.iter().enumerate().map(|(number, worker)| worker_metrics(number, worker)).collect(),
            chain_defaults: totals.chain_defaults,
            rules_without_series: (generation.rules().rules.len() - rules.len()) as u64,
            rules,
            rule_overflow,
            grants: doors.iter().map(|door| self.event_log.grants().of(&door.door)).collect(),
            doors,
            lists,
            names: overview.names(&self.shared),
            list_capacity: self.shared.state.lists.capacity() as u64,
            connections: self.shared.state.connections().map_or(0, |flows| flows.count(self.shared.clock.now())),
            connections_refused: self.shared.state.connections().map_or(0, ConnectionTable::refused),
            applied: self.published.applied.load(Relaxed),
            refused: self.published.refused.load(Relaxed),
            events_lost: self.event_log.lost() + self.shared.logged.lost(),
            event_readers: vec![self.event_log.gaps(), self.journal.gaps()],
            clock_steps: self.wall_clock.steps(),
            clock_synchronised: knockplane_ring::is_clock_synchronised().ok(),
            peers_refused: (self.refusals.counts())
                .map(|(refusal, connections)| PeersRefused { reason: refusal.name().to_owned(), connections })
                .collect(),
        }
    }
}

/// The frames of the kernel by verdict and reason, with the pairs that can occur.
fn kernel_counts(frames: &KernelFrames) -> Vec<FrameCount> {
    let forwarded = Reason::ALL.iter().filter(|reason| reason.may_forward()).map(|reason| (Verdict::Forward, *reason));
    // The reasons for which strangers are dropped.
    let dropped = [Reason::Rule, Reason::ChainDefault].map(|reason| (Verdict::Drop, reason));
    let count = |(verdict, reason)| FrameCount { verdict, reason, frames: frames.for_reason(verdict, reason) };
    forwarded.chain(dropped).map(count).collect()
}

fn log_status() -> LogStatus {
    let status = knockplane_log::status();
    let lost = status.lost().map(|(kind, lines)| LostLines { kind: kind.name().to_owned(), lines }).collect();
    LogStatus { lost, waiting: status.waiting as u64, problem: status.problem }
}

fn worker_metrics(number: usize, worker: &super::WorkerHandle) -> WorkerMetrics {
    let counters = &worker.counters;
    WorkerMetrics {
        worker: number as u32,
        frames: counters.frame_counts(),
        received_bytes: [0, 1].map(|side: usize| counters.received[side].bytes.load()),
        sent_bytes: [0, 1].map(|side: usize| counters.sent[side].bytes.load()),
        ring_drops: counters.ring_drops(),
        busy: Duration::from_nanos(counters.busy.load()),
        asleep: Duration::from_nanos(counters.asleep.load()),
    }
}
