//! One connection on the control socket: reads and writes lines, never blocks, and uses bounded memory.
//!
//! The connection reads a request only after the peer has read the previous answer, so that at most one request and one
//! answer wait in a connection, and the requests of one peer run in order. A turn ends after a few pieces or at its
//! time limit, so that no peer can occupy the manager.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use knockplane_limits::admission::Activity;
use knockplane_limits::refusal::Refusal;
use knockplane_policy::wire::{Greeting, MAX_LINE, MAX_SHORT_LINE, Request, Response, VERSION, longest_line};
use mio::net::UnixStream;

use crate::administration::{self, JobTask};

/// The maximum number of pieces read and requests answered in one turn. Sixteen pieces are a mebibyte.
const STEPS_A_TURN: usize = 16;

/// The maximum number of bytes in one read.
const PIECE: usize = 64 << 10;

/// Longest time without a request. A person types requests slowly; control sends its only request at once.
const IDLE_WITHIN: Duration = Duration::from_secs(30);

/// Time without a request after which a peer is idle. Idle peers are evicted first.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Longest time for the arrival of a short request. A short request fits the socket's buffer: only a peer that sends it
/// in parts needs any time.
const SHORT_WITHIN: Duration = Duration::from_secs(10);

/// Longest time for the arrival of rules or entries, and for the read of any answer: 256 MiB at 4 MiB/s. Control waits
/// as long.
const TRANSFER_WITHIN: Duration = Duration::from_secs(60);

/// A connection after the greeting.
pub(super) struct ClientConnection {
    stream: UnixStream,
    received: Vec<u8>,
    /// The number of bytes of `received` that contain no end of a line.
    searched: usize,
    unsent: Vec<u8>,
    /// The number of bytes of `unsent` that are sent.
    sent: usize,
    /// The reason of a refusal. The connection reads nothing more, and ends when everything is sent.
    refused: Option<Refusal>,
    job: PeerJob,
    /// The number of answered requests.
    answered: u64,
    /// The number of bytes read and sent.
    passed: u64,
    wait: Wait,
    /// The time when the present wait began, and the number of answered requests at that time.
    since: (Duration, u64),
}

/// A request that the administration must answer.
#[derive(Debug)]
enum PeerJob {
    None,
    /// The job has not begun. Contains its memory in bytes.
    Waiting(JobTask, usize),
    /// The job is in progress. Contains its memory in bytes.
    Running(usize),
}

/// The outcome of a request.
pub(super) enum Asked {
    Answered(Box<Response>),
    /// The administration must answer the request.
    Job(JobTask),
}

/// The state in which a connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The connection waits for a request.
    Request,
    /// The connection waits for the rest of a request, with this maximum length.
    Rest(usize),
    /// The connection waits for the peer to read its answer.
    Reader,
    /// The connection waits for the administration, without a time limit.
    Answer,
}

/// The end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The connection has more to do.
    More,
    /// The connection waits for the peer.
    Waiting,
    /// The connection waits for the administration: there is a job.
    Asked,
    /// The connection has ended, possibly because of a limit.
    Over(Option<Refusal>),
}

/// The memory that a connection may use now, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Memory for a request, beyond [`MAX_SHORT_LINE`].
    pub(super) request: usize,
    /// Whether there is memory for long answers.
    pub(super) answer: bool,
}

/// The outcome of a read.
enum Fill {
    Some,
    Nothing,
    End,
    Refused(Refusal),
}

impl ClientConnection {
    /// Greets a peer that the manager serves.
    pub(super) fn greet(stream: UnixStream, now: Duration) -> Self {
        let mut connection = ClientConnection {
            stream,
            received: Vec::new(),
            searched: 0,
            unsent: Vec::new(),
            sent: 0,
            refused: None,
            job: PeerJob::None,
            answered: 0,
            passed: 0,
            wait: Wait::Request,
            since: (now, 0),
        };
        connection.queue(&greeting(None));
        // Sent at once, so that the peer can send a request. The first turn detects a closed connection.
        connection.flush();
        connection
    }

    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Sends bytes that the peer can take, reads available bytes, and answers whole lines. Calls `limit_hit` for a
    /// limit that does not end the connection.
    pub(super) fn turn(
        &mut self,
        room: Room,
        until: Instant,
        mut limit_hit: impl FnMut(Refusal),
        mut answer: impl FnMut(Request) -> Asked,
    ) -> Turn {
        for _ in 0..STEPS_A_TURN {
            if !self.flush() {
                return Turn::Over(self.refused);
            }
            if self.sent < self.unsent.len() {
                return Turn::Waiting;
            }
            if self.refused.is_some() {
                return Turn::Over(self.refused);
            }
            if self.has_job() {
                return Turn::Asked;
            }
            if Instant::now() >= until {
                return Turn::More;
            }
            let Some(line) = self.next_line() else {
                match self.fill(room) {
                    Fill::Some => continue,
                    Fill::Nothing => return Turn::Waiting,
                    Fill::End => return Turn::Over(None),
                    Fill::Refused(refusal) => {
                        self.refuse(refusal);
                        continue;
                    }
                }
            };
            let bytes = line.len();
            // This includes the end of the line.
            let asked = match bytes > MAX_SHORT_LINE + 1 {
                true => Asked::Job(JobTask::Line(line)),
                false => match administration::read(&line) {
                    Ok(request) if is_long(&request) && !room.answer => {
                        limit_hit(Refusal::Memory);
                        Asked::Answered(Response::Failed { error: Refusal::Memory.sentence().to_owned() }.into())
                    }
                    Ok(request) => answer(request),
                    Err(response) => Asked::Answered(response),
                },
            };
            match asked {
                Asked::Job(work) => self.job = PeerJob::Waiting(work, bytes),
                Asked::Answered(response) => {
                    self.answered += 1;
                    self.queue(&response);
                }
            }
        }
        Turn::More
    }

    fn has_job(&self) -> bool {
        !matches!(self.job, PeerJob::None)
    }

    /// Takes the job that waits, to begin it. If the answer may be long and there is no memory for it, the answer is
    /// the refusal.
    pub(super) fn begin_job(&mut self, room: Room, limit_hit: impl FnOnce(Refusal)) -> Option<JobTask> {
        let waiting = std::mem::replace(&mut self.job, PeerJob::None);
        let PeerJob::Waiting(work, bytes) = waiting else {
            self.job = waiting;
            return None;
        };
        if !room.answer && matches!(&work, JobTask::Request(request) if is_long(request)) {
            limit_hit(Refusal::Memory);
            self.answered += 1;
            self.queue(&Response::Failed { error: Refusal::Memory.sentence().to_owned() });
            return None;
        }
        self.job = PeerJob::Running(bytes);
        Some(work)
    }

    /// Stores the answer to the job.
    pub(super) fn end_job(&mut self, line: Vec<u8>) {
        self.job = PeerJob::None;
        self.answered += 1;
        // Nothing else is unsent: a job begins after the previous answer is sent.
        if self.unsent.is_empty() {
            self.unsent = line;
        } else {
            self.unsent.extend_from_slice(&line);
        }
        self.unsent.push(b'\n');
    }

    /// Updates the state in which the connection waits, at a time of the manager's clock.
    pub(super) fn note(&mut self, now: Duration) -> Activity {
        let wait = match (self.sent < self.unsent.len(), self.received.is_empty()) {
            (true, _) => Wait::Reader,
            (false, _) if self.has_job() => Wait::Answer,
            (false, false) => Wait::Rest(longest_line(&self.received)),
            (false, true) => Wait::Request,
        };
        if wait != self.wait || self.answered != self.since.1 {
            (self.wait, self.since) = (wait, (now, self.answered));
        }
        self.activity(now)
    }

    /// The activity of the connection. A connection that was just accepted or answered is not idle yet, because its
    /// peer needs a moment to send a request.
    pub(super) fn activity(&self, now: Duration) -> Activity {
        if self.wait == Wait::Answer {
            return Activity::Work;
        }
        let is_idle = self.wait == Wait::Request && now.saturating_sub(self.since.0) > IDLE_AFTER;
        if is_idle { Activity::Idle } else { Activity::Transfer }
    }

    /// The number of bytes that the connection has transferred, which shows progress.
    pub(super) fn progress(&self) -> u64 {
        self.passed
    }

    /// The time limit that the peer has exceeded, if any.
    pub(super) fn expired(&self, now: Duration) -> Option<Refusal> {
        let (within, refusal) = match self.wait {
            Wait::Request => (IDLE_WITHIN, Refusal::Idle),
            Wait::Rest(MAX_SHORT_LINE) => (SHORT_WITHIN, Refusal::SlowRequest),
            Wait::Rest(_) => (TRANSFER_WITHIN, Refusal::SlowRequest),
            Wait::Reader => (TRANSFER_WITHIN, Refusal::SlowReader),
            Wait::Answer => return None,
        };
        (now.saturating_sub(self.since.0) > within).then_some(refusal)
    }

    /// Sends the peer the reason that the connection ends, if the peer reads at all.
    pub(super) fn farewell(mut self, refusal: Refusal) {
        if self.sent == self.unsent.len() {
            self.refuse(refusal);
            self.flush();
        }
    }

    /// The memory of the connection in bytes: requests, answers.
    pub(super) fn memory(&self) -> [usize; 2] {
        let job = match self.job {
            PeerJob::None => 0,
            PeerJob::Waiting(_, bytes) | PeerJob::Running(bytes) => bytes,
        };
        [self.received.len() + job, self.unsent.len()]
    }

    /// Answers with the limit that the peer has exceeded, and discards all received bytes.
    fn refuse(&mut self, refusal: Refusal) {
        let error = match (refusal, longest_line(&self.received)) {
            (Refusal::TooLong, MAX_LINE) => format!("the request has more than {MAX_LINE} bytes: split the file"),
            (Refusal::TooLong, longest) => format!(
                "the request has more than {longest} bytes: only rules and entries may have more, in requests that begin \
                 with {{\"request\":\"apply\" or {{\"request\":\"list-add\""
            ),
            _ => refusal.sentence().to_owned(),
        };
        (self.received, self.searched, self.refused) = (Vec::new(), 0, Some(refusal));
        let response = match refusal {
            Refusal::TooLong => Response::Refused { error },
            _ => Response::Failed { error },
        };
        self.queue(&response);
    }

    /// Removes the next whole line from the received bytes.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.received.len();
            return None;
        };
        let rest = self.received.split_off(self.searched + end + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.received, rest))
    }

    /// Reads a piece, if one is available and there is memory for it.
    fn fill(&mut self, room: Room) -> Fill {
        let mut buffer = [0; PIECE];
        let read = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let piece = match read {
            Ok(0) => return Fill::End,
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fill::Nothing,
            Err(_) => return Fill::End,
        };
        // This piece may contain the end of the line: only the bytes before it belong to the same request.
        let line = self.received.len() + piece.iter().position(|byte| *byte == b'\n').unwrap_or(piece.len());
        self.received.extend_from_slice(piece);
        self.passed += piece.len() as u64;
        if line > longest_line(&self.received) {
            return Fill::Refused(Refusal::TooLong);
        }
        if line > MAX_SHORT_LINE && line - MAX_SHORT_LINE > room.request {
            return Fill::Refused(Refusal::Memory);
        }
        Fill::Some
    }

    fn queue(&mut self, message: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.unsent, message).expect("messages are plain data, and memory does not fail");
        self.unsent.push(b'\n');
    }

    /// Sends bytes. Returns false if the peer has closed the connection.
    fn flush(&mut self) -> bool {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => {
                    self.sent += count;
                    self.passed += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // Frees the memory of a long answer.
        (self.unsent, self.sent) = (Vec::new(), 0);
        true
    }
}

/// Sends a peer the reason that its connection is refused.
pub(super) fn turn_away(mut stream: UnixStream, refusal: Refusal) {
    if let Ok(mut line) = serde_json::to_vec(&greeting(Some(refusal.sentence().to_owned()))) {
        line.push(b'\n');
        // A new socket has room for a line. A peer that has closed the connection does not read it.
        let _ = stream.write(&line);
    }
}

fn greeting(refused: Option<String>) -> Greeting {
    Greeting { knockplane: VERSION, version: env!("CARGO_PKG_VERSION").to_owned(), refused }
}

/// Whether the answer may be long: its length grows with the state.
fn is_long(request: &Request) -> bool {
    matches!(
        request,
        Request::Rules
            | Request::Revision(_)
            | Request::Lists(_)
            | Request::Doors { .. }
            | Request::Metrics
            | Request::Events(_)
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    const ROOM: Room = Room { request: usize::MAX, answer: true };

    /// A connection and its peer.
    fn pair() -> (ClientConnection, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("set");
        theirs.set_nonblocking(true).expect("set");
        (ClientConnection::greet(UnixStream::from_std(ours), Duration::ZERO), theirs)
    }

    fn turn(connection: &mut ClientConnection, room: Room) -> Turn {
        let until = Instant::now() + Duration::from_secs(60);
        connection.turn(
            room,
            until,
            |_| {},
            |_| Asked::Answered(Response::Failed { error: "x".repeat(8 << 20) }.into()),
        )
    }

    /// The time at which a connection that had its turn at `now` exceeds a limit, in seconds, and the limit.
    fn limit(connection: &mut ClientConnection, now: Duration) -> (u64, Option<Refusal>) {
        connection.note(now);
        let expired = |seconds| connection.expired(now + Duration::from_secs(seconds));
        (0..1_000).find_map(|seconds| expired(seconds).map(|refusal| (seconds, Some(refusal)))).unwrap_or_default()
    }

    fn told(mut peer: StdUnixStream) -> String {
        let mut told = Vec::new();
        // The connection ends, or has nothing more to send.
        let _ = peer.read_to_end(&mut told);
        String::from_utf8(told).expect("text").lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_peer_has_so_long_for_what_it_does_and_a_byte_now_and_then_gains_nothing() {
        let now = Duration::from_secs(100);
        let (mut connection, mut peer) = pair();
        assert_eq!(turn(&mut connection, ROOM), Turn::Waiting);
        assert_eq!(limit(&mut connection, Duration::ZERO), (31, Some(Refusal::Idle)));

        peer.write_all(b"{\"request\":").expect("taken");
        assert_eq!(turn(&mut connection, ROOM), Turn::Waiting);
        assert_eq!(limit(&mut connection, now), (11, Some(Refusal::SlowRequest)));
        for second in 1..=11 {
            peer.write_all(b" ").expect("taken");
            assert_eq!(turn(&mut connection, ROOM), Turn::Waiting);
            connection.note(now + Duration::from_secs(second));
        }
        assert_eq!(connection.expired(now + Duration::from_secs(11)), Some(Refusal::SlowRequest));

        let (mut connection, mut peer) = pair();
        peer.write_all(b"{\"request\":\"apply\",").expect("taken");
        assert_eq!(turn(&mut connection, ROOM), Turn::Waiting);
        assert_eq!(limit(&mut connection, now), (61, Some(Refusal::SlowRequest)), "rules have longer");

        let (mut connection, mut peer) = pair();
        peer.write_all(b"{\"request\":\"status\"}\n{\"request\":\"status\"}\n").expect("taken");
        assert_eq!(turn(&mut connection, ROOM), Turn::Waiting, "the answer does not fit the socket");
        assert_eq!(connection.answered, 1, "the second waits for the first answer to be read");
        assert_eq!(limit(&mut connection, now), (61, Some(Refusal::SlowReader)));
    }

    #[test]
    fn a_limit_is_told_before_the_connection_ends() {
        let (mut connection, peer) = pair();
        assert_eq!(turn(&mut connection, ROOM), Turn::Waiting);
        connection.farewell(Refusal::Idle);
        assert!(told(peer).contains("the connection sent no request for too long"));

        let (mut connection, mut peer) = pair();
        peer.write_all(&[b'a'; MAX_SHORT_LINE + 1]).expect("taken");
        assert_eq!(turn(&mut connection, ROOM), Turn::Over(Some(Refusal::TooLong)));
        drop(connection);
        assert!(told(peer).contains("has more than 65536 bytes"));

        let (mut connection, mut peer) = pair();
        peer.write_all(b"{\"request\":\"apply\",").and_then(|()| peer.write_all(&[b'a'; 2 * PIECE])).expect("taken");
        let room = Room { request: MAX_SHORT_LINE / 2, answer: true };
        assert_eq!(turn(&mut connection, room), Turn::Over(Some(Refusal::Memory)));

        let (mut connection, mut peer) = pair();
        peer.write_all(b"{\"request\":\"rules\"}\n").expect("taken");
        assert_eq!(turn(&mut connection, Room { request: 0, answer: false }), Turn::Waiting);
        drop(connection);
        assert!(told(peer).contains("use all the memory"), "no long answer is begun");
    }

    #[test]
    fn the_next_request_of_a_peer_waits_for_the_answer_to_its_job() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"{\"request\":\"reload\",\"with\":{}}\n{\"request\":\"status\"}\n").expect("taken");
        let turn = |connection: &mut ClientConnection| {
            let until = Instant::now() + Duration::from_secs(60);
            connection.turn(
                ROOM,
                until,
                |_| {},
                |request| match request {
                    Request::Reload { .. } => Asked::Job(JobTask::Request(Box::new(request))),
                    _ => Asked::Answered(Response::Done.into()),
                },
            )
        };
        assert_eq!(turn(&mut connection), Turn::Asked);
        assert!(connection.memory()[0] > 20, "the request takes memory");
        assert_eq!((turn(&mut connection), connection.answered), (Turn::Asked, 0), "it has not begun");
        assert!(matches!(connection.begin_job(ROOM, |_| {}), Some(JobTask::Request(_))));
        assert!(connection.begin_job(ROOM, |_| {}).is_none(), "once");
        assert_eq!((turn(&mut connection), connection.answered), (Turn::Asked, 0), "it is in progress");
        let day = Duration::from_secs(86_400);
        assert_eq!((connection.note(Duration::ZERO), connection.expired(day)), (Activity::Work, None));
        connection.end_job(b"\"reloaded\"".to_vec());
        assert_eq!((turn(&mut connection), connection.answered), (Turn::Waiting, 2));
        drop(connection);
        let mut told = String::new();
        let _ = peer.read_to_string(&mut told);
        let lines: Vec<&str> = told.lines().skip(1).collect();
        assert!(lines.len() == 2 && lines[0] == "\"reloaded\"" && lines[1].contains("done"), "{told}");
    }

    #[test]
    fn a_request_of_the_longest_is_read() {
        let (mut connection, mut peer) = pair();
        let mut line = vec![b' '; MAX_SHORT_LINE];
        let request = b"{\"request\":\"status\"}";
        line[..request.len()].copy_from_slice(request);
        line.push(b'\n');
        peer.write_all(&line).expect("taken");
        turn(&mut connection, ROOM);
        assert_eq!(connection.answered, 1);
    }
}
