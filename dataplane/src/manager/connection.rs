//! One connection on the control socket: lines in, lines out, never blocking, in bounded memory.
//!
//! A request is read only after the answer before it has been taken, so that at most one request and one answer wait in a
//! connection, and the requests of one peer are carried out in order. A
//! turn ends after a few pieces or when its time is over, so that no peer keeps the manager to itself.

use std::io::{self, Read as _, Write as _};
use std::time::{Duration, Instant};

use knockplane_limits::admission::Activity;
use knockplane_limits::refusal::Refusal;
use knockplane_policy::wire::{Greeting, MAX_LINE, MAX_SHORT_LINE, Request, Response, VERSION, longest_line};
use mio::net::UnixStream;

use crate::administration::{self, Work};

/// Pieces read and requests answered in one turn. Sixteen pieces are a mebibyte.
const STEPS_A_TURN: usize = 16;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Longest time without a request. A person types requests slowly; control sends its one at once.
const IDLE_WITHIN: Duration = Duration::from_secs(30);

/// Time without a request after which a peer is idle, and the first to give way.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Longest time in which a short request arrives. It fits the socket's buffer: only a peer that sends it in parts needs any.
const SHORT_WITHIN: Duration = Duration::from_secs(10);

/// Longest time in which rules or entries arrive, and any answer is read: 256 MiB at 4 MiB/s. Control waits as long.
const TRANSFER_WITHIN: Duration = Duration::from_secs(60);

/// A peer that was greeted.
pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// How much of `received` has been searched for the end of a line.
    searched: usize,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
    /// Nothing is read any more, and the connection ends once everything is sent.
    refused: Option<Refusal>,
    job: PeerJob,
    /// Requests answered.
    answered: u64,
    /// Bytes read and sent.
    passed: u64,
    wait: Wait,
    /// When it began to wait for that, and requests answered then.
    since: (Duration, u64),
}

/// The request that the administration is to answer.
#[derive(Debug)]
enum PeerJob {
    None,
    /// Not begun. With the bytes of memory that it takes.
    Waiting(Work, usize),
    /// In progress. With the bytes of memory that it takes.
    Running(usize),
}

/// The outcome of a request.
pub(super) enum Asked {
    Answered(Box<Response>),
    /// The administration is to answer it.
    Job(Work),
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A request.
    Request,
    /// The rest of a request, which may be as long as this.
    Rest(usize),
    /// The peer, which has not read its answer.
    Reader,
    /// The administration, which has no limit.
    Answer,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more to do.
    More,
    /// The peer is waited for.
    Waiting,
    /// The administration is waited for: there is a job.
    Asked,
    /// The connection is over, perhaps because of a limit.
    Over(Option<Refusal>),
}

/// Memory that a connection may take now, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// For a request, beyond [`MAX_SHORT_LINE`].
    pub(super) request: usize,
    /// Whether there is any for long answers.
    pub(super) answer: bool,
}

/// The outcome of reading.
enum Fill {
    Some,
    Nothing,
    End,
    Refused(Refusal),
}

impl Connection {
    /// Greets a peer whose requests will be answered.
    pub(super) fn greet(stream: UnixStream, now: Duration) -> Self {
        let mut connection = Connection {
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
        // At once, so that the peer can ask. A peer that is gone is noticed in its first turn.
        connection.flush();
        connection
    }

    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Sends what the peer takes, reads what there is, answers whole lines. `limit_hit` is told of a limit that does not
    /// end the connection.
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
            // With the end of the line.
            let asked = match bytes > MAX_SHORT_LINE + 1 {
                true => Asked::Job(Work::Line(line)),
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

    /// Takes the job that waits, to begin it. If its answer may be long and there is no memory for that, the refusal is the
    /// answer.
    pub(super) fn begin_job(&mut self, room: Room, limit_hit: impl FnOnce(Refusal)) -> Option<Work> {
        let waiting = std::mem::replace(&mut self.job, PeerJob::None);
        let PeerJob::Waiting(work, bytes) = waiting else {
            self.job = waiting;
            return None;
        };
        if !room.answer && matches!(&work, Work::Request(request) if is_long(request)) {
            limit_hit(Refusal::Memory);
            self.answered += 1;
            self.queue(&Response::Failed { error: Refusal::Memory.sentence().to_owned() });
            return None;
        }
        self.job = PeerJob::Running(bytes);
        Some(work)
    }

    /// Takes over the answer to the job.
    pub(super) fn end_job(&mut self, line: Vec<u8>) {
        self.job = PeerJob::None;
        self.answered += 1;
        // Nothing else is unsent: a job is begun behind the last answer.
        if self.unsent.is_empty() {
            self.unsent = line;
        } else {
            self.unsent.extend_from_slice(&line);
        }
        self.unsent.push(b'\n');
    }

    /// Notes what the connection waits for, at a time of the manager's clock.
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

    /// What the connection does. One that has just been let in, or answered, is not idle yet: its peer needs a moment to ask.
    pub(super) fn activity(&self, now: Duration) -> Activity {
        if self.wait == Wait::Answer {
            return Activity::Work;
        }
        let is_idle = self.wait == Wait::Request && now.saturating_sub(self.since.0) > IDLE_AFTER;
        if is_idle { Activity::Idle } else { Activity::Transfer }
    }

    /// Bytes that went through the connection: whether it gets on.
    pub(super) fn progress(&self) -> u64 {
        self.passed
    }

    /// The limit on time that the peer has exceeded, if it has.
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

    /// Tells the peer why the connection ends now, if it reads at all.
    pub(super) fn farewell(mut self, refusal: Refusal) {
        if self.sent == self.unsent.len() {
            self.refuse(refusal);
            self.flush();
        }
    }

    /// Bytes of memory that it takes: requests, answers.
    pub(super) fn memory(&self) -> [usize; 2] {
        let job = match self.job {
            PeerJob::None => 0,
            PeerJob::Waiting(_, bytes) | PeerJob::Running(bytes) => bytes,
        };
        [self.received.len() + job, self.unsent.len()]
    }

    /// Answers with the limit that the peer has hit. What it has sent is forgotten.
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

    /// Takes the next whole line off what was received.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.received.len();
            return None;
        };
        let rest = self.received.split_off(self.searched + end + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.received, rest))
    }

    /// Reads a piece, if there is one and it may be kept.
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
        // The end of the line may be in this piece: only what stands before it is one request.
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

    /// False if the peer is gone.
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

/// Tells a peer that it is turned away.
pub(super) fn turn_away(mut stream: UnixStream, refusal: Refusal) {
    if let Ok(mut line) = serde_json::to_vec(&greeting(Some(refusal.sentence().to_owned()))) {
        line.push(b'\n');
        // A new socket has room for a line; a peer that is gone does not read it.
        let _ = stream.write(&line);
    }
}

fn greeting(refused: Option<String>) -> Greeting {
    Greeting { knockplane: VERSION, version: env!("CARGO_PKG_VERSION").to_owned(), refused }
}

/// Whether the answer may be long: it grows with what is known.
fn is_long(request: &Request) -> bool {
    matches!(request, Request::Rules | Request::Lists(_) | Request::Doors { .. } | Request::Metrics)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    const ROOM: Room = Room { request: usize::MAX, answer: true };

    /// A connection and its peer.
    fn pair() -> (Connection, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("set");
        theirs.set_nonblocking(true).expect("set");
        (Connection::greet(UnixStream::from_std(ours), Duration::ZERO), theirs)
    }

    fn turn(connection: &mut Connection, room: Room) -> Turn {
        let until = Instant::now() + Duration::from_secs(60);
        connection.turn(
            room,
            until,
            |_| {},
            |_| Asked::Answered(Response::Failed { error: "x".repeat(8 << 20) }.into()),
        )
    }

    /// When a connection that had its turn at this time has taken too long, in seconds, and for what.
    fn limit(connection: &mut Connection, now: Duration) -> (u64, Option<Refusal>) {
        connection.note(now);
        let expired = |seconds| connection.expired(now + Duration::from_secs(seconds));
        (0..1_000).find_map(|seconds| expired(seconds).map(|refusal| (seconds, Some(refusal)))).unwrap_or_default()
    }

    fn told(mut peer: StdUnixStream) -> String {
        let mut told = Vec::new();
        // It ends, or has nothing more to say.
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
        peer.write_all(b"{\"request\":\"reload\"}\n{\"request\":\"status\"}\n").expect("taken");
        let turn = |connection: &mut Connection| {
            let until = Instant::now() + Duration::from_secs(60);
            connection.turn(
                ROOM,
                until,
                |_| {},
                |request| match request {
                    Request::Reload => Asked::Job(Work::Request(Box::new(request))),
                    _ => Asked::Answered(Response::Done.into()),
                },
            )
        };
        assert_eq!(turn(&mut connection), Turn::Asked);
        assert!(connection.memory()[0] > 20, "the request takes memory");
        assert_eq!((turn(&mut connection), connection.answered), (Turn::Asked, 0), "it has not begun");
        assert!(matches!(connection.begin_job(ROOM, |_| {}), Some(Work::Request(_))));
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
