//! What control asks, and what it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_engine::table::{CompileError, Table};
use knockplane_limits::usage;
use knockplane_log::target;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{
    DropCount, Interface, InterfaceCounters, LogStatus, LostLines, Metrics, NameAnswer, PeersRefused, Request,
    Response, Rules, Status, Worker, WorkerMetrics,
};

use super::{Manager, WorkerHandle};
use crate::generation::Generation;
use crate::memory::{self, Connections};
use crate::requirements::mode;
use crate::store::Stored;

/// How long an apply waits until every worker runs the new rules. They notice within a turn once they are woken.
const APPLY_PATIENCE: Duration = Duration::from_secs(2);

/// Why something was not done as it should be: because the request makes no sense, or not.
#[derive(Debug)]
pub(super) enum Problem {
    Theirs(String),
    Ours(String),
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Response {
        match problem {
            Problem::Theirs(error) => Response::Refused { error },
            Problem::Ours(error) => Response::Failed { error },
        }
    }
}

impl Manager {
    pub(super) fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(self.status()),
            Request::Rules => Response::Rules(self.rules()),
            Request::Lists(query) => Response::Lists(self.lists(&query)),
            Request::Doors { door, limit } => Response::Doors(self.doors(door.as_deref(), limit)),
            Request::Source(query) => or_problem(self.source(&query).map(|source| Response::Source(Box::new(source)))),
            Request::Connections(query) => Response::Connections(self.tracked(&query)),
            Request::Metrics => Response::Metrics(Box::new(self.metrics())),
            Request::Names => Response::Names(self.names()),
            Request::NameAnswers(answers) => or_problem(self.take_names(answers).map(|()| Response::Done)),
            Request::Apply { rules, source, names } => {
                let applied = self.apply(*rules, source, names);
                self.applied(applied.map(|generation| Response::Applied { generation }))
            }
            Request::Reload => {
                let reloaded = self.reload();
                self.applied(reloaded.map(Response::Reloaded))
            }
            Request::ListAdd { entries } => or_problem(self.list_add(entries).map(Response::Added)),
            Request::ListRemove { list, address } => {
                or_problem(self.list_remove(&list, &address).map(|()| Response::Done))
            }
            Request::ListFlush { list, dynamic } => {
                or_problem(self.list_flush(&list, dynamic).map(|removed| Response::Flushed { removed }))
            }
        }
    }

    /// Counts what came of an apply or a reload, and says it.
    fn applied(&mut self, result: Result<Response, Problem>) -> Response {
        match &result {
            Ok(_) => self.applied += 1,
            Err(Problem::Theirs(error) | Problem::Ours(error)) => {
                self.refused += 1;
                tracing::warn!(target: target!("operator"), error, "not applied as it should be");
            }
        }
        or_problem(result)
    }

    /// Compiles beside the workers, keeps the rules for the next start, then swaps: a failure changes nothing.
    fn apply(&mut self, mut rules: RuleSet, source: String, names: Vec<NameAnswer>) -> Result<u64, Problem> {
        // The doors' are made anew from the configuration, and are not kept.
        rules.rules.retain(|rule| !rule.dynamic);
        // A start refuses stored rules with other ids.
        rules.assign_ids();
        self.check_memory(&rules, &self.config.settings)?;
        let rules = Arc::new(rules);
        let mut table = self.compile(Arc::clone(&rules)).map_err(|error| Problem::Theirs(error.to_string()))?;
        let stored = Stored { source, rules };
        let running = self.shared.generation.load_full();
        if let Err(error) = self.store.save(&stored) {
            // Compiling has given the lists their new levels: back to those of the rules that go on running.
            let again = running.table.with_settings(&self.config.settings, &self.shared.state);
            debug_assert!(again.is_ok(), "what runs can be compiled");
            let kept = self.store.path();
            return Err(Problem::Ours(format!(
                "cannot keep the rules in {}: {error}; nothing changed",
                kept.display()
            )));
        }
        tracing::info!(
            target: target!("operator"),
            generation = running.number + 1,
            rules = table.rules().rules.len(),
            source = stored.source,
            "apply"
        );
        let now = self.shared.clock.now();
        self.names.take_for(names, &stored.rules, now);
        // Until every worker has left the old rules, the names of both count.
        self.install_names(&[(running.rules(), running.table.begun()), (&stored.rules, now)])?;
        table.begin(&self.shared.state, now);
        let generation = self.swap(table, stored.source)?;
        self.names.run(&stored.rules);
        self.install_names(&[(&stored.rules, now)])?;
        Ok(generation)
    }

    /// Has every worker run this table, and waits until they do.
    pub(super) fn swap(&mut self, table: Table, source: String) -> Result<u64, Problem> {
        let number = self.shared.generation.load().number + 1;
        let generation = Arc::new(Generation::new(number, self.shared.clock.now(), source, table, self.workers.len()));
        let replaced = self.shared.generation.swap(Arc::clone(&generation));
        self.book.replaced(replaced, &generation, &self.config.metrics);
        for worker in &self.workers {
            // A worker that cannot be woken wakes by itself, a little later.
            worker.waker.wake();
        }
        let patience = Instant::now() + APPLY_PATIENCE;
        let mut oldest = self.oldest_generation();
        while oldest < number && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
            oldest = self.oldest_generation();
        }
        // What the replaced rules logged is said while it is known what they were. A worker that leaves them only now may
        // log in between: they are settled later.
        self.log_events(self.shared.clock.now());
        self.book.settle(oldest, &generation);
        if oldest < number {
            return Err(Problem::Ours(format!(
                "generation {number} is in place, but a worker hangs and has not taken it: see `knockctl show workers`"
            )));
        }
        Ok(number)
    }

    /// Whether there is memory for the connections that these rules track.
    pub(super) fn check_memory(&self, rules: &RuleSet, settings: &Settings) -> Result<(), Problem> {
        let bytes = self.shared.state.connections_to_come(rules, settings);
        memory::check_connections(Connections { capacity: self.config.connection_capacity, bytes })
            .map_err(|error| Problem::Theirs(format!("{error}; nothing changed")))
    }

    fn compile(&self, rules: Arc<RuleSet>) -> Result<Table, CompileError> {
        Table::compile(rules, &self.config.settings, &self.shared.state, self.shared.clock.now())
    }

    fn status(&mut self) -> Status {
        let counters = Side::ALL.map(|side| self.interface_counters(side));
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.shared.clock.uptime(),
            generation: generation.number,
            generation_age: now.since(generation.since),
            rules_source: generation.source.clone(),
            rules: generation.rules().rules.len(),
            settings: self.config.settings.clone(),
            interfaces: self.interfaces(counters),
            workers: self.workers(now),
            on_exit: "closed".to_owned(),
            log: log_status(),
            drops: self.drops(),
            connections: self.connection_table(now),
            offload: self.offload(now),
        }
    }

    /// Frames dropped by all workers, by reason.
    fn drops(&self) -> Vec<DropCount> {
        let mut frames = HashMap::<String, u64>::new();
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

    fn workers(&self, now: Time) -> Vec<Worker> {
        let workers = self.workers.iter().enumerate();
        workers
            .map(|(number, worker)| Worker {
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

    fn rules(&self) -> Rules {
        let generation = self.shared.generation.load();
        let totals = self.book.totals(&generation);
        Rules {
            generation: generation.number,
            source: generation.source.clone(),
            rules: generation.rules().clone(),
            counters: generation.rules().rules.iter().map(|rule| totals.rule(&rule.id)).collect(),
            chain_defaults: totals.chain_defaults,
        }
    }

    fn metrics(&mut self) -> Metrics {
        let status = self.status();
        let generation = self.shared.generation.load();
        let totals = self.book.totals(&generation);
        let rules = self.book.series(&generation, &totals, &self.config.metrics);
        let mut lists = self.shared.state.lists.summaries();
        let doors = self.door_summaries(&lists);
        let places = self.places(&generation);
        lists.retain(|list| places.exists(list));
        Metrics {
            status,
            started: self.shared.clock.started_since_epoch(),
            reloaded: generation.since_epoch,
            process: usage::read(),
            workers: self.workers.iter().enumerate().map(|(number, worker)| worker_metrics(number, worker)).collect(),
            chain_defaults: totals.chain_defaults,
            rules_without_series: (generation.rules().rules.len() - rules.len()) as u64,
            rules,
            rule_overflow: self.book.overflow(&totals),
            doors,
            lists,
            names: self.names(),
            list_capacity: self.shared.state.lists.capacity() as u64,
            connections: self.shared.state.connections().map_or(0, |flows| flows.count(self.shared.clock.now())),
            connections_refused: self.shared.state.connections().map_or(0, ConnectionTable::refused),
            applied: self.applied,
            refused: self.refused,
            events_lost: self.event_log.lost() + self.shared.logged.lost(),
            peers_refused: (self.listener.refusals.counts())
                .map(|(refusal, connections)| PeersRefused { reason: refusal.name().to_owned(), connections })
                .collect(),
        }
    }
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

fn or_problem(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(Response::from)
}
