//! The client side of [`knockplane_policy::wire`]: one connection for each request and its answer, and one that repeats the
//! request for events.
//!
//! A connection for each request costs a few microseconds and keeps no state: a late answer cannot be mistaken for that of
//! another request, a slow apply delays no scrape, and a restart of the dataplane needs no reconnect. [`watch`] sends a request
//! every second, so that the log has the times at which the dataplane became unreachable and reachable.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use knockplane_policy::rule::{AddressSet, RuleId};
use knockplane_policy::wire::connection_filter::ConnectionFilter;
use knockplane_policy::wire::connections::{ConnectionCounts, ConnectionPage, ConnectionQuery};
use knockplane_policy::wire::events::{EventBatch, EventQuery};
use knockplane_policy::wire::frame_totals::FrameTotals;
use knockplane_policy::wire::history::{ApplyNote, History, RevisionRules};
use knockplane_policy::wire::sample::{SampleQuery, TrafficSample};
use knockplane_policy::wire::source::{SourceQuery, SourceReport};
use knockplane_policy::wire::source_rates::SourceRates;
use knockplane_policy::wire::trace::{TraceBegun, TraceQuery, TracedPackets};
use knockplane_policy::wire::{
    Added, ApplyRequest, DataplaneStatus, Doors, Greeting, KernelQuery, KernelVerdict, ListPage, ListQuery, MAX_LINE,
    MetricsReport, NameAnswer, NameState, NewEntry, Reloaded, Request, Response, RuleCounters, RunningRules, VERSION,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::socket;

/// Time limit for an answer. The manager of the dataplane reads its socket many times a second; without an answer for this long,
/// it hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Time limit for a change of rules or list entries. Ten thousand rules with large patterns take seconds, as do a million
/// entries.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);

/// Pause between two requests of [`watch`].
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A request to the dataplane without an answer, or refused.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// No process listens.
    #[error("the dataplane cannot be reached at {}: {source}; {}", .socket.display(), remedy(.source))]
    Unreachable {
        /// The path of the socket.
        socket: PathBuf,
        /// The error of connect().
        source: io::Error,
    },
    /// The dataplane listens but does not answer in time.
    #[error(
        "the dataplane did not answer within {} s: it is stopped, hangs, or is at work on a large change; see its log and \
         `systemctl status knockplane-dataplane`",
        .0.as_secs_f64()
    )]
    Silent(Duration),
    /// The dataplane ended the connection before the answer.
    #[error("the dataplane ended the connection before it answered ({0}); see its log")]
    Lost(io::Error),
    /// The dataplane listens, and refuses this connection.
    #[error("the dataplane refused the connection: {0}")]
    TurnedAway(String),
    /// The dataplane uses another version of the messages.
    #[error(
        "the dataplane (version {version}) speaks version {theirs} of the messages, this control process version \
         {VERSION}: install the same version of both and restart them"
    )]
    Version {
        /// Version of its messages.
        theirs: u32,
        /// Version of its package.
        version: String,
    },
    /// The peer sent data that is not a message.
    #[error("{} answers, but not as a dataplane does ({reason}); correct `socket` in [dataplane]", .socket.display())]
    Garbage {
        /// The path of its socket.
        socket: PathBuf,
        /// The error in the message.
        reason: String,
    },
    /// The request exceeds the length limit of a line.
    #[error("the request has {0} bytes, more than the {MAX_LINE} that the dataplane takes: split the file")]
    TooLong(usize),
    /// The request does not fit the state of the dataplane. Nothing changed.
    #[error("{0}")]
    Conflict(String),
    /// The entry does not exist, or not any more. Nothing changed.
    #[error("{0}")]
    NoEntry(String),
    /// The dataplane refused the request. Nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The dataplane failed to execute the request. The text contains the resulting state.
    #[error("{0}")]
    Failed(String),
}

/// The remedy for a failed connection.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "add the control process's user id to `socket-uids` in [dataplane]",
        _ => "start it (systemctl start knockplane-dataplane), or correct `socket` in [dataplane]",
    }
}

impl DataplaneError {
    /// The remedy at the end of the sentence, if there is one.
    pub fn remedy(&self) -> Option<String> {
        let remedy = match self {
            DataplaneError::Unreachable { source, .. } => remedy(source),
            DataplaneError::Silent(_) => "see its log",
            DataplaneError::Lost(_) => "see its log",
            DataplaneError::Version { .. } => "install the same version of both and restart them",
            DataplaneError::Garbage { .. } => "correct `socket` in [dataplane]",
            DataplaneError::TooLong(_) => "split the file",
            DataplaneError::TurnedAway(_)
            | DataplaneError::Conflict(_)
            | DataplaneError::NoEntry(_)
            | DataplaneError::Refused(_)
            | DataplaneError::Failed(_) => return None,
        };
        Some(remedy.to_owned())
    }

    /// The kind as a word of a closed set, for metrics and to detect changes.
    pub const fn kind(&self) -> &'static str {
        match self {
            DataplaneError::Unreachable { .. } => "unreachable",
            DataplaneError::Silent(_) => "silent",
            DataplaneError::Lost(_) => "lost",
            DataplaneError::TurnedAway(_) => "turned-away",
            DataplaneError::Version { .. } => "version",
            DataplaneError::Garbage { .. } => "garbage",
            DataplaneError::TooLong(_) => "too-long",
            DataplaneError::Conflict(_) => "conflict",
            DataplaneError::NoEntry(_) => "no-entry",
            DataplaneError::Refused(_) => "refused",
            DataplaneError::Failed(_) => "failed",
        }
    }

    /// The values of [`DataplaneError::kind`] that mean a missing answer; `conflict`, `no-entry`, `refused` and `failed` are one.
    pub const FAILURES: [&'static str; 7] =
        ["unreachable", "silent", "lost", "turned-away", "version", "garbage", "too-long"];
}

/// The client of the dataplane.
#[derive(Clone, Debug)]
pub struct Dataplane {
    socket: PathBuf,
    answer_within: Duration,
}

impl Dataplane {
    /// Creates the client of a dataplane that listens on this unix socket. Opens no connection.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Dataplane { socket: socket.into(), answer_within: ANSWER_WITHIN }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The status.
    ///
    /// # Errors
    /// See [`DataplaneError`]. The other requests have the same errors.
    pub async fn status(&self) -> Result<DataplaneStatus, DataplaneError> {
        match self.ask(&Request::Status).await? {
            Response::Status(status) => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The running rules.
    pub async fn rules(&self) -> Result<RunningRules, DataplaneError> {
        match self.ask(&Request::Rules).await? {
            Response::Rules(rules) => Ok(*rules),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The counters of the running rules.
    pub async fn rule_counters(&self) -> Result<RuleCounters, DataplaneError> {
        match self.ask(&Request::RuleCounters).await? {
            Response::RuleCounters(counters) => Ok(counters),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The lists, and some of their entries.
    pub async fn lists(&self, query: ListQuery) -> Result<ListPage, DataplaneError> {
        match self.ask(&Request::Lists(query)).await? {
            Response::Lists(lists) => Ok(lists),
            other => Err(self.unexpected(&other)),
        }
    }

    /// At most `limit` sources at one door or at all doors.
    pub async fn doors(&self, door: Option<String>, limit: usize) -> Result<Doors, DataplaneError> {
        match self.ask(&Request::Doors { door, limit }).await? {
            Response::Doors(doors) => Ok(doors),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The state of one source. Begins a watch of the source if the query requests it.
    pub async fn source(&self, query: SourceQuery) -> Result<SourceReport, DataplaneError> {
        match self.ask(&Request::Source(query)).await? {
            Response::Source(source) => Ok(*source),
            other => Err(self.unexpected(&other)),
        }
    }

    /// What the kernel does now with frames like this one.
    pub async fn kernel(&self, query: KernelQuery) -> Result<KernelVerdict, DataplaneError> {
        match self.ask(&Request::Kernel(query)).await? {
            Response::Kernel(verdict) => Ok(verdict),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Begins a sample of traffic. Returns its id.
    pub async fn begin_sample(&self, query: SampleQuery) -> Result<u64, DataplaneError> {
        match self.ask(&Request::BeginSample(query)).await? {
            Response::SampleBegun { sample } => Ok(sample),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends a sample of traffic.
    pub async fn end_sample(&self, sample: u64) -> Result<TrafficSample, DataplaneError> {
        match self.ask(&Request::EndSample(sample)).await? {
            Response::Sample(sample) => Ok(sample),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Begins a trace of packets.
    pub async fn begin_trace(&self, query: TraceQuery) -> Result<TraceBegun, DataplaneError> {
        match self.ask(&Request::BeginTrace(query)).await? {
            Response::TraceBegun(begun) => Ok(begun),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The packets of a trace since the last read.
    pub async fn read_trace(&self, trace: u64) -> Result<TracedPackets, DataplaneError> {
        match self.ask(&Request::ReadTrace(trace)).await? {
            Response::Traced(packets) => Ok(packets),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends a trace of packets.
    pub async fn end_trace(&self, trace: u64) -> Result<(), DataplaneError> {
        match self.ask(&Request::EndTrace(trace)).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// A part of its connections.
    pub async fn connections(&self, query: ConnectionQuery) -> Result<ConnectionPage, DataplaneError> {
        match self.ask(&Request::Connections(query)).await? {
            Response::Connections(connections) => Ok(connections),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Counts of a part of its connections.
    pub async fn count_connections(&self, query: ConnectionQuery) -> Result<ConnectionCounts, DataplaneError> {
        match self.ask(&Request::CountConnections(query)).await? {
            Response::ConnectionCounts(counts) => Ok(counts),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends connections. Returns their number.
    pub async fn end_connections(&self, filter: ConnectionFilter) -> Result<u64, DataplaneError> {
        match self.ask(&Request::EndConnections(filter)).await? {
            Response::ConnectionsEnded { ended } => Ok(ended),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The busiest sources since the last such request.
    pub async fn source_rates(&self, limit: usize) -> Result<SourceRates, DataplaneError> {
        match self.ask(&Request::SourceRates { limit }).await? {
            Response::SourceRates(rates) => Ok(rates),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The frames since the dataplane started.
    pub(crate) async fn frame_totals(&self) -> Result<FrameTotals, DataplaneError> {
        match self.ask(&Request::FrameTotals).await? {
            Response::FrameTotals(totals) => Ok(totals),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The counters.
    pub async fn metrics(&self) -> Result<MetricsReport, DataplaneError> {
        match self.ask(&Request::Metrics).await? {
            Response::Metrics(metrics) => Ok(*metrics),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends rules to run. Returns their generation and their revision once every worker runs them.
    /// With a time, the dataplane rolls them back unless [`Dataplane::confirm`] is called within that time, or earlier by
    /// [`Dataplane::cancel`].
    pub async fn apply(&self, request: ApplyRequest) -> Result<(u64, u64), DataplaneError> {
        match self.ask(&Request::Apply(Box::new(request))).await? {
            Response::Applied { generation, revision } => Ok((generation, revision)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sets the counters of these rules to zero, or those of all rules if none is named.
    pub async fn reset_counters(&self, rules: Vec<RuleId>) -> Result<(), DataplaneError> {
        match self.ask(&Request::ResetCounters(rules)).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Confirms the apply or the reload that waits for it. Returns its generation.
    pub async fn confirm(&self) -> Result<u64, DataplaneError> {
        match self.ask(&Request::Confirm).await? {
            Response::Confirmed { generation } => Ok(generation),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Rolls the apply or the reload back that waits for a confirmation. Returns the generation and the revision that run then.
    pub async fn cancel(&self, operator: ApplyNote) -> Result<(u64, u64), DataplaneError> {
        match self.ask(&Request::Cancel(operator)).await? {
            Response::Applied { generation, revision } => Ok((generation, revision)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The host names in the address lists of the running rules.
    pub async fn names(&self) -> Result<Vec<NameState>, DataplaneError> {
        match self.ask(&Request::Names).await? {
            Response::Names(names) => Ok(names),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends the addresses of host names.
    pub async fn answer_names(&self, answers: Vec<NameAnswer>) -> Result<(), DataplaneError> {
        match self.ask(&Request::NameAnswers(answers)).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Reloads its configuration. Returns once every worker runs it.
    /// The note has the operator. With a time, the dataplane rolls it back as [`Dataplane::apply`] does.
    pub async fn reload(
        &self,
        ApplyNote { uid, token, page, .. }: ApplyNote,
        confirm_within: Option<Duration>,
    ) -> Result<Reloaded, DataplaneError> {
        match self.ask(&Request::Reload { uid, token, page, confirm_within }).await? {
            Response::Reloaded(reloaded) => Ok(reloaded),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The rule sets that have run.
    pub async fn history(&self) -> Result<History, DataplaneError> {
        match self.ask(&Request::History).await? {
            Response::History(history) => Ok(history),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The rule set with this number.
    pub async fn revision(&self, number: u64) -> Result<RevisionRules, DataplaneError> {
        match self.ask(&Request::Revision(number)).await? {
            Response::Revision(revision) => Ok(*revision),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Adds entries to lists, all or none; an entry without a timeout is static. Returns the number of entries that
    /// were static already and did not change, and the lists that no rule matches.
    pub async fn list_add(&self, entries: Vec<NewEntry>) -> Result<Added, DataplaneError> {
        match self.ask(&Request::ListAdd { entries }).await? {
            Response::Added(added) => Ok(added),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Removes an entry from a list.
    pub async fn list_remove(&self, list: String, address: AddressSet) -> Result<(), DataplaneError> {
        match self.ask(&Request::ListRemove { list, address }).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Removes all entries from a list except those of the rules, or only dynamic ones. Returns their number.
    pub async fn list_flush(&self, list: String, dynamic: bool) -> Result<u64, DataplaneError> {
        match self.ask(&Request::ListFlush { list, dynamic }).await? {
            Response::Flushed { removed } => Ok(removed),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, DataplaneError> {
        let line = self.line(request)?;
        let within = self.answer_within(request);
        match timeout(within, self.converse(&line)).await {
            Ok(Ok(Response::Conflict { error })) => Err(DataplaneError::Conflict(error)),
            Ok(Ok(Response::NoEntry { error })) => Err(DataplaneError::NoEntry(error)),
            Ok(Ok(Response::Refused { error })) => Err(DataplaneError::Refused(error)),
            Ok(Ok(Response::Failed { error })) => Err(DataplaneError::Failed(error)),
            Ok(answer) => answer,
            Err(_) => Err(DataplaneError::Silent(within)),
        }
    }

    /// Time limit for the answer: changes write to disk.
    fn answer_within(&self, request: &Request) -> Duration {
        match request {
            Request::Apply(_)
            | Request::ResetCounters(_)
            | Request::Confirm
            | Request::Cancel(_)
            | Request::NameAnswers(_)
            | Request::Reload { .. }
            | Request::ListAdd { .. }
            | Request::ListRemove { .. }
            | Request::ListFlush { .. }
            | Request::EndConnections(_) => CHANGE_WITHIN,
            Request::Status
            | Request::Rules
            | Request::RuleCounters
            | Request::Lists(_)
            | Request::Doors { .. }
            | Request::History
            | Request::Revision(_)
            | Request::Names
            | Request::Source(_)
            | Request::BeginSample(_)
            | Request::EndSample(_)
            | Request::BeginTrace(_)
            | Request::ReadTrace(_)
            | Request::EndTrace(_)
            | Request::Connections(_)
            | Request::CountConnections(_)
            | Request::SourceRates { .. }
            | Request::Kernel(_)
            | Request::FrameTotals
            | Request::Metrics
            | Request::Events(_) => self.answer_within,
        }
    }

    fn line(&self, request: &Request) -> Result<Vec<u8>, DataplaneError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.garbage(&error))?;
        line.push(b'\n');
        if line.len() > MAX_LINE { Err(DataplaneError::TooLong(line.len())) } else { Ok(line) }
    }

    async fn converse(&self, line: &[u8]) -> Result<Response, DataplaneError> {
        let mut connection = self.connect().await?;
        match connection.stream.get_mut().write_all(line).await {
            Ok(()) => self.read(&mut connection.stream).await,
            // The dataplane may have sent the reason before it ended the connection.
            Err(error) => self.read(&mut connection.stream).await.map_err(|_| DataplaneError::Lost(error)),
        }
    }

    /// Opens a connection for several requests, for a reader of events.
    ///
    /// # Errors
    /// See [`DataplaneError`].
    pub(crate) async fn connect(&self) -> Result<DataplaneConnection, DataplaneError> {
        let stream = socket::connect(&self.socket)
            .await
            .map_err(|source| DataplaneError::Unreachable { socket: self.socket.clone(), source })?;
        let mut stream = BufReader::new(stream);
        // A dataplane that hangs is detected here, also for a request with a long time limit.
        let greeting = timeout(self.answer_within, self.read(&mut stream)).await;
        let greeting: Greeting = greeting.map_err(|_| DataplaneError::Silent(self.answer_within))??;
        if greeting.knockplane != VERSION {
            return Err(DataplaneError::Version { theirs: greeting.knockplane, version: greeting.version });
        }
        match greeting.refused {
            Some(reason) => Err(DataplaneError::TurnedAway(reason)),
            None => Ok(DataplaneConnection { dataplane: self.clone(), stream }),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        stream: &mut BufReader<UnixStream>,
    ) -> Result<T, DataplaneError> {
        let mut line = Vec::new();
        stream.take(MAX_LINE as u64).read_until(b'\n', &mut line).await.map_err(DataplaneError::Lost)?;
        match line.last() {
            Some(b'\n') => serde_json::from_slice(&line).map_err(|error| self.garbage(&error)),
            _ if line.len() == MAX_LINE => Err(self.garbage(&"a line without an end")),
            _ => Err(DataplaneError::Lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn unexpected(&self, answer: &Response) -> DataplaneError {
        let name = match answer {
            Response::Status(_) => "status",
            Response::Rules(_) => "rules",
            Response::RuleCounters(_) => "rule-counters",
            Response::Lists(_) => "lists",
            Response::Names(_) => "names",
            Response::Doors(_) => "doors",
            Response::Source(_) => "source",
            Response::SampleBegun { .. } => "sample-begun",
            Response::Sample(_) => "sample",
            Response::TraceBegun(_) => "trace-begun",
            Response::Traced(_) => "traced",
            Response::Connections(_) => "connections",
            Response::ConnectionCounts(_) => "connection-counts",
            Response::ConnectionsEnded { .. } => "connections-ended",
            Response::SourceRates(_) => "source-rates",
            Response::FrameTotals(_) => "frame-totals",
            Response::Metrics(_) => "metrics",
            Response::Events(_) => "events",
            Response::Kernel(_) => "kernel",
            Response::Applied { .. } => "applied",
            Response::Confirmed { .. } => "confirmed",
            Response::Reloaded(_) => "reloaded",
            Response::History(_) => "history",
            Response::Revision(_) => "revision",
            Response::Added(_) => "added",
            Response::Done => "done",
            Response::Flushed { .. } => "flushed",
            Response::Conflict { .. } => "conflict",
            Response::NoEntry { .. } => "no-entry",
            Response::Refused { .. } => "refused",
            Response::Failed { .. } => "failed",
        };
        self.garbage(&format_args!("an answer to another question, `{name}`"))
    }

    fn garbage(&self, reason: &dyn std::fmt::Display) -> DataplaneError {
        DataplaneError::Garbage { socket: self.socket.clone(), reason: reason.to_string() }
    }
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub(crate) struct DataplaneConnection {
    dataplane: Dataplane,
    stream: BufReader<UnixStream>,
}

impl DataplaneConnection {
    /// The events after a position.
    ///
    /// # Errors
    /// See [`DataplaneError`]. The connection cannot be used after an error.
    pub(crate) async fn events(&mut self, query: EventQuery) -> Result<EventBatch, DataplaneError> {
        let DataplaneConnection { dataplane, stream } = self;
        let line = dataplane.line(&Request::Events(query))?;
        let within = dataplane.answer_within;
        let asked = async {
            stream.get_mut().write_all(&line).await.map_err(DataplaneError::Lost)?;
            dataplane.read(stream).await
        };
        match timeout(within, asked).await.map_err(|_| DataplaneError::Silent(within))?? {
            Response::Events(batch) => Ok(*batch),
            Response::Failed { error } => Err(DataplaneError::Failed(error)),
            Response::Refused { error } => Err(DataplaneError::Refused(error)),
            other => Err(dataplane.unexpected(&other)),
        }
    }
}

/// Watches the dataplane until the process ends, and logs each time at which it is reached, restarted or unreachable.
pub async fn watch(dataplane: Dataplane) {
    let mut seen = None;
    loop {
        let answer = dataplane.status().await;
        let now = Some(answer.as_ref().map(|status| status.pid).map_err(DataplaneError::kind));
        if now != seen {
            log_change(&answer);
            seen = now;
        }
        sleep(WATCH_EVERY).await;
    }
}

fn log_change(answer: &Result<DataplaneStatus, DataplaneError>) {
    match answer {
        Ok(status) => info!(
            pid = status.pid,
            version = status.version,
            generation = status.generation,
            rules = status.rules,
            source = status.rules_source,
            "dataplane reached"
        ),
        Err(error) => warn!("dataplane away: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tempfile::TempDir;
    use tokio::net::UnixListener;

    use super::*;

    const GREETING: &str = "{\"knockplane\":8,\"version\":\"0.1.0\"}\n";

    /// A peer that sends these bytes to one client. With `stay`, it then keeps the connection open.
    fn peer(says: &[&str], stay: bool) -> (TempDir, Dataplane) {
        let says = says.concat();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("dataplane.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says.as_bytes()).await.unwrap();
            if stay {
                std::future::pending::<()>().await;
            }
        });
        let dataplane = Dataplane { answer_within: Duration::from_millis(100), ..Dataplane::new(socket) };
        (dir, dataplane)
    }

    async fn failure(says: &[&str], stay: bool) -> DataplaneError {
        let (_dir, dataplane) = peer(says, stay);
        dataplane.status().await.unwrap_err()
    }

    #[tokio::test]
    async fn without_a_process_the_error_names_the_socket_and_the_remedy() {
        let error = Dataplane::new("/nonexistent/d.sock").status().await.unwrap_err();
        assert_eq!(error.kind(), "unreachable");
        let text = error.to_string();
        assert!(text.contains("/nonexistent/d.sock") && text.contains("systemctl start"), "{text}");
    }

    #[tokio::test]
    async fn another_version_is_refused() {
        let error = failure(&["{\"knockplane\":9,\"version\":\"9.0.0\"}\n"], true).await;
        assert!(matches!(&error, DataplaneError::Version { theirs: 9, version } if version == "9.0.0"), "{error}");
    }

    #[tokio::test]
    async fn another_program_on_the_socket_is_garbage() {
        assert_eq!(failure(&["HTTP/1.1 400 Bad Request\r\n"], true).await.kind(), "garbage");
    }

    #[tokio::test]
    async fn an_answer_to_another_question_is_garbage() {
        let says = &[GREETING, "{\"response\":\"applied\",\"with\":{\"generation\":1,\"revision\":1}}\n"];
        let error = failure(says, true).await;
        assert!(error.to_string().contains("`applied`"), "{error}");
    }

    #[tokio::test]
    async fn silence_before_and_after_the_greeting_ends_in_time() {
        assert_eq!(failure(&[], true).await.kind(), "silent");
        assert_eq!(failure(&[GREETING], true).await.kind(), "silent");
    }

    #[tokio::test]
    async fn a_change_without_a_greeting_ends_at_the_short_limit() {
        let (_dir, dataplane) = peer(&[], true);
        let changed = timeout(CHANGE_WITHIN / 2, dataplane.reload(ApplyNote::default(), None))
            .await
            .expect("it ends long before a change may");
        assert_eq!(changed.unwrap_err().kind(), "silent");
    }

    #[tokio::test]
    async fn half_an_answer_is_a_lost_connection() {
        assert_eq!(failure(&[GREETING, "{\"response\":"], false).await.kind(), "lost");
        assert_eq!(failure(&[], false).await.kind(), "lost");
    }

    #[tokio::test]
    async fn a_refusal_keeps_the_message_of_the_dataplane() {
        let says = &[GREETING, "{\"response\":\"refused\",\"with\":{\"error\":\"it is not in the list\"}}\n"];
        let error = failure(says, true).await;
        assert!(matches!(&error, DataplaneError::Refused(_)), "{error:?}");
        assert_eq!(error.to_string(), "it is not in the list");
    }

    #[tokio::test]
    async fn a_refused_connection_has_a_reason() {
        let says = &["{\"knockplane\":8,\"version\":\"0.1.0\",\"refused\":\"too many connections: try again\"}\n"];
        let error = failure(says, false).await;
        assert_eq!(error.kind(), "turned-away");
        assert_eq!(error.to_string(), "the dataplane refused the connection: too many connections: try again");
    }

    #[tokio::test]
    async fn an_answer_before_the_end_of_the_request_is_returned() {
        let says = &[GREETING, "{\"response\":\"failed\",\"with\":{\"error\":\"it takes too much memory\"}}\n"];
        let (_dir, dataplane) = peer(says, false);
        let entry = NewEntry {
            list: "a".into(),
            address: AddressSet::from(IpAddr::from([192, 0, 2, 1])),
            timeout: None,
            comment: "x".repeat(8 << 20),
        };
        let error = dataplane.list_add(vec![entry]).await.unwrap_err();
        assert_eq!(error.to_string(), "it takes too much memory", "{error:?}");
    }

    #[tokio::test]
    async fn done_is_done() {
        let (_dir, dataplane) = peer(&[GREETING, "{\"response\":\"done\"}\n"], true);
        dataplane.list_remove("knocked".into(), AddressSet::from(IpAddr::from([192, 0, 2, 1]))).await.unwrap();
        let (_dir, dataplane) =
            peer(&[GREETING, "{\"response\":\"added\",\"with\":{\"left\":2,\"unused\":[\"a\"]}}\n"], true);
        let added = Added { left: 2, unused: vec!["a".into()] };
        assert_eq!(dataplane.list_add(Vec::new()).await.unwrap(), added);
    }

    #[test]
    fn changes_have_the_long_limit() {
        let dataplane = Dataplane::new("/x");
        let removal = Request::ListRemove { list: "a".into(), address: IpAddr::from([192, 0, 2, 1]).into() };
        assert_eq!(dataplane.answer_within(&removal), CHANGE_WITHIN);
        assert_eq!(dataplane.answer_within(&Request::Status), ANSWER_WITHIN);
    }

    #[test]
    fn a_request_that_is_too_long_is_not_sent() {
        let source = "x".repeat(MAX_LINE);
        let request = ApplyRequest { source, ..ApplyRequest::default() };
        assert_eq!(Dataplane::new("/x").line(&Request::Apply(Box::new(request))).unwrap_err().kind(), "too-long");
    }
}
