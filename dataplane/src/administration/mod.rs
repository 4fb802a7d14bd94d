//! The administration: the thread that executes all slow requests of control.
//!
//! It compiles rules, writes and syncs files, reads lists and connections, and reads and writes long messages. The
//! manager passes one job at a time to this thread, in the order of arrival, and continues to supervise workers. The
//! result is the bytes of an answer. A job therefore sees all changes of the jobs before it.
//!
//! | file             | owns |
//! |------------------|------|
//! | this             | the thread, jobs and their answers |
//! | `rules.rs`       | rule administration: apply, the swap of generations |
//! | `reload.rs`      | reloads of the configuration |
//! | `confirmation.rs` | applies and reloads that wait for a confirmation: confirm, rollback |
//! | `lists/`         | list administration: static entries, host names, comments; pages of lists |
//! | `doors.rs`       | answers to control about doors |
//! | `connections.rs` | answers to control about connections |
//! | `source/`        | answers to control about one source |
//! | `source_rates.rs` | the busiest sources between two looks |
//! | `sample.rs`      | answers to control about samples of traffic |
//! | `trace.rs`       | answers to control about traces of packets |
//! | `published.rs`   | the part that the manager reads while a job runs |
//!
//! A panic of this thread ends the process, like a panic of any other thread.

mod confirmation;
mod connections;
mod doors;
mod lists;
mod published;
mod reload;
mod rules;
mod sample;
mod source;
mod source_rates;
mod trace;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_engine::pipeline::history::History;
use knockplane_engine::state::lists::ListId;
use knockplane_policy::wire::events::{OwnAction, OwnChange};
use knockplane_policy::wire::history::{ApplyNote, RevisionOrigin};
use knockplane_policy::wire::{KernelQuery, Request, Response, VERSION};

pub(crate) use self::confirmation::Unconfirmed;
pub(crate) use self::doors::summaries as door_summaries;
pub(crate) use self::lists::ListAdministration;
pub(crate) use self::published::Published;
pub(crate) use self::rules::RuleAdministration;
use self::source::WatchedSource;
use self::source_rates::SourceLook;
use self::trace::TraceReader;
use crate::counters::WorkerCounters;
use crate::history::RevisionCause;
use crate::idle::Waker;
use crate::journal::Journal;
use crate::shared::Shared;

/// The interval at which expired entries of operators are removed while there is no job.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// The part of a worker that the administration uses.
pub(crate) struct WorkerView {
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) history: Arc<History>,
    pub(crate) waker: Arc<Waker>,
}

/// The task of a job.
#[derive(Debug)]
pub(crate) enum JobTask {
    /// A request that was parsed already.
    Request(Box<Request>),
    /// The line of a long request: parsing a million entries takes a second.
    Line(Vec<u8>),
    /// Restores the rules and settings before an apply or a reload that was not confirmed in time.
    RollBack,
}

/// A task for a connection; for no connection if a signal caused the task.
pub(crate) struct Job {
    pub(crate) connection: Option<u64>,
    pub(crate) work: JobTask,
}

/// The answer to a job: a line without its end.
pub(crate) struct AnswerLine {
    pub(crate) connection: Option<u64>,
    pub(crate) line: Vec<u8>,
}

/// The reason that a request failed: the request is invalid, does not fit the present state, names no entry, or another reason.
#[derive(Debug)]
pub(crate) enum RequestError {
    Conflict(String),
    NoEntry(String),
    Theirs(String),
    Ours(String),
}

impl From<RequestError> for Response {
    fn from(problem: RequestError) -> Response {
        match problem {
            RequestError::Conflict(error) => Response::Conflict { error },
            RequestError::NoEntry(error) => Response::NoEntry { error },
            RequestError::Theirs(error) => Response::Refused { error },
            RequestError::Ours(error) => Response::Failed { error },
        }
    }
}

/// All state of the thread.
pub(crate) struct Administration {
    pub(crate) shared: Arc<Shared>,
    journal: Arc<Journal>,
    pub(crate) published: Arc<Published>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) rules: RuleAdministration,
    pub(crate) lists: ListAdministration,
    watch: WatchedSource,
    look: SourceLook,
    /// The number of samples of traffic since start.
    samples: u64,
    trace_reader: TraceReader,
}

impl Administration {
    pub(crate) fn new(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        published: Arc<Published>,
        workers: Vec<WorkerView>,
        rules: RuleAdministration,
        lists: ListAdministration,
    ) -> Self {
        let mut administration = Administration {
            shared,
            journal,
            published,
            workers,
            rules,
            lists,
            watch: WatchedSource::default(),
            look: SourceLook::default(),
            samples: 0,
            trace_reader: TraceReader::default(),
        };
        administration.publish();
        administration.add_revision(RevisionCause::of(RevisionOrigin::Start));
        administration
    }

    /// Runs jobs until the manager ends. Calls `notify` after each answer.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, answers: &Sender<AnswerLine>, notify: impl Fn()) {
        loop {
            match jobs.recv_timeout(HOUSEKEEPING) {
                Ok(Job { connection, work }) => {
                    let own = own_action(connection, &work);
                    let answer = self.work(work);
                    if let Some(action) = own {
                        self.note_own(action, &answer);
                    }
                    let line = encode(&answer);
                    self.publish();
                    // The process ends when the manager has ended.
                    let _ = answers.send(AnswerLine { connection, line });
                    notify();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.lists.keep_house(&self.shared);
            self.end_silent_trace();
        }
    }

    /// Publishes a change that no connection requested.
    fn note_own(&self, action: OwnAction, answer: &Response) {
        let error = match answer {
            Response::Failed { error }
            | Response::Conflict { error }
            | Response::NoEntry { error }
            | Response::Refused { error } => Some(error.clone()),
            _ => None,
        };
        let time_ns = self.shared.clock.now().as_nanos().saturating_add_signed(self.shared.wall.load(Relaxed));
        let generation = self.shared.generation.load().number;
        self.published.add_own(OwnChange { number: 0, time_ns, action, generation, error });
    }

    fn work(&mut self, work: JobTask) -> Response {
        let request = match work {
            JobTask::Request(request) => *request,
            JobTask::Line(line) => match read(&line) {
                Ok(request) => request,
                Err(response) => return *response,
            },
            JobTask::RollBack => {
                return self.rolled_back(None);
            }
        };
        self.answer(request)
    }

    fn answer(&mut self, request: Request) -> Response {
        match request {
            // The manager answers these requests, because it has more recent data.
            Request::Status | Request::RuleCounters | Request::FrameTotals | Request::Metrics | Request::Events(_) => {
                Response::Failed { error: "the manager answers this: this is a defect".to_owned() }
            }
            Request::Rules => Response::Rules(Box::new(self.rules())),
            Request::Lists(query) => Response::Lists(self.lists(&query)),
            Request::Doors { door, limit } => Response::Doors(self.doors(door.as_deref(), limit)),
            Request::Source(query) => or_error(self.source(&query).map(|source| Response::Source(Box::new(source)))),
            Request::BeginSample(query) => {
                or_error(self.begin_sample(query).map(|sample| Response::SampleBegun { sample }))
            }
            Request::EndSample(id) => or_error(self.end_sample(id).map(Response::Sample)),
            Request::BeginTrace(query) => or_error(self.begin_trace(&query).map(Response::TraceBegun)),
            Request::ReadTrace(id) => or_error(self.read_trace(id).map(Response::Traced)),
            Request::EndTrace(id) => {
                self.end_trace(id);
                Response::Done
            }
            Request::Connections(query) => Response::Connections(self.connections(&query)),
            Request::CountConnections(query) => Response::ConnectionCounts(self.count_connections(&query)),
            Request::EndConnections(filter) => {
                let ended = self.end_connections(&filter);
                self.shared.fast_path.settle();
                Response::ConnectionsEnded { ended }
            }
            Request::SourceRates { limit } => Response::SourceRates(self.source_rates(limit)),
            Request::Kernel(KernelQuery { side, frame }) => {
                Response::Kernel(self.shared.fast_path.verdict(side, &frame, self.shared.clock.now()))
            }
            Request::Names => Response::Names(self.lists.name_states(self.shared.clock.now())),
            Request::NameAnswers(answers) => {
                or_error(self.lists.take_names(answers, &self.shared).map(|()| Response::Done))
            }
            Request::Apply(request) => {
                let applied = self.apply(*request).map(|generation| self.runs(generation));
                self.settled(self.applied(applied))
            }
            Request::ResetCounters(rules) => or_error(self.reset_counters(&rules).map(|()| Response::Done)),
            Request::Confirm => {
                let confirmed = self.confirm();
                self.settled(or_error(confirmed.map(|generation| Response::Confirmed { generation })))
            }
            Request::Cancel(note) => self.rolled_back(Some(note)),
            Request::Reload { uid, token, page, confirm_within } => {
                let operator = ApplyNote { uid, token, page, ..ApplyNote::default() };
                let reloaded = self.reload(operator, confirm_within);
                self.settled(self.applied(reloaded.map(Response::Reloaded)))
            }
            Request::History => Response::History(self.rules.history.overview()),
            Request::Revision(number) => {
                let revision = self.rules.history.revision(number).map_err(RequestError::Conflict);
                or_error(revision.map(|revision| Response::Revision(Box::new(revision))))
            }
            Request::ListAdd { entries } => {
                let added = self.lists.add(entries, &self.shared);
                self.settled(or_error(added.map(Response::Added)))
            }
            Request::ListRemove { list, address } => {
                let removed = self.lists.remove(&list, &address, &self.shared);
                self.settled(or_error(removed.map(|()| Response::Done)))
            }
            Request::ListFlush { list, dynamic } => {
                let flushed = self.lists.flush(&list, dynamic, &self.shared);
                self.settled(or_error(flushed.map(|removed| Response::Flushed { removed })))
            }
        }
    }

    /// The answer to an apply.
    fn rolled_back(&mut self, cancelled: Option<ApplyNote>) -> Response {
        let rolled_back = self.roll_back(cancelled).map(|generation| self.runs(generation));
        self.settled(self.applied(rolled_back))
    }

    fn runs(&self, generation: u64) -> Response {
        Response::Applied { generation, revision: self.rules.history.last() }
    }

    /// Returns the answer to a change when no frame passes any more as it did before the change, and no restart undoes
    /// the change.
    fn settled(&self, answer: Response) -> Response {
        let replaced = self.published.ledger().book.leaving().to_vec();
        self.shared.fast_path.settle();
        replaced.iter().for_each(|generation| generation.trails.note_quiet());
        if !self.journal.settle(self.shared.state.lists.last_event()) {
            tracing::warn!("the disk has not taken a change of an operator yet: a kill of this process may undo it");
        }
        answer
    }

    /// Whether all workers have noticed a change within a time, by their counters. Returns when they have.
    fn await_workers(&self, patience: Duration, has_noticed: impl Fn(&WorkerCounters) -> bool) -> bool {
        let until = Instant::now() + patience;
        while !self.workers.iter().all(|worker| has_noticed(&worker.counters)) {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Publishes the present lists and host names for the manager.
    fn publish(&self) {
        self.published.lists.store(Arc::new(self.lists.published(self.shared.clock.now())));
    }
}

/// The action of a job that no connection requested.
fn own_action(connection: Option<u64>, work: &JobTask) -> Option<OwnAction> {
    match (connection, work) {
        (None, JobTask::RollBack) => Some(OwnAction::RolledBack),
        (None, JobTask::Request(request)) if matches!(**request, Request::Reload { .. }) => Some(OwnAction::Reloaded),
        _ => None,
    }
}

/// The name of the door with this open list, even if the door does not run any more.
fn door_name(shared: &Shared, open: ListId) -> Option<String> {
    let list = shared.state.lists.name(open)?;
    Some(list.strip_prefix("door-").unwrap_or(&list).to_owned())
}

fn or_error(result: Result<Response, RequestError>) -> Response {
    result.unwrap_or_else(Response::from)
}

/// Parses a request.
///
/// # Errors
/// The answer to a line that is not a request.
pub(crate) fn read(line: &[u8]) -> Result<Request, Box<Response>> {
    serde_json::from_slice(line)
        .map_err(|error| Response::Refused { error: format!("not a request of version {VERSION}: {error}") }.into())
}

fn encode(response: &Response) -> Vec<u8> {
    serde_json::to_vec(response).expect("messages are plain data, and memory does not fail")
}
