//! The connections on the control socket: which are accepted, served and closed.
//!
//! - **Connections are bounded**, in total and for each user; some are reserved for root and the dataplane's own user.
//!   A new connection replaces an idle one ([`knockplane_limits::admission`]).
//! - **Memory is bounded** over all connections: incomplete requests and unread answers. Root and the dataplane's own
//!   user have one limit, all other users another.
//! - **Time is bounded**: each pass of the manager has a maximum duration, and each peer has a maximum time to send a
//!   request and to read its answer. Time that the manager used for another request does not count.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knockplane_limits::admission::{Activity, Admission, Admitted, Limits};
use knockplane_limits::refusal::{Refusal, Refusals};
use knockplane_policy::wire::{MAX_LINE, Request};
use mio::{Interest, Registry, Token};

use super::connection::{Asked, ClientConnection, Room, Turn, turn_away};
use crate::administration::{AnswerLine, Job};
use crate::control_socket::{Caller, Listener};

/// The maximum numbers of connections: control has at most 20, one for each question, and people have tools.
const LIMITS: Limits = Limits { total: 64, per_peer: 32, reserved: 16 };

/// The maximum number of peers that one pass accepts or refuses. This is a quarter of the connections of one user, so
/// that each peer has some passes to send a request before it can be the oldest.
const CALLERS_A_PASS: usize = 8;

/// The duration of a pass after which no further turn begins. Housekeeping is due ten times a second.
const PASS: Duration = Duration::from_millis(50);

/// The maximum duration of one connection's turn in a pass, so that a peer with many requests delays the others little.
const TURN: Duration = Duration::from_millis(10);

/// The maximum time between two passes that counts for a peer. The manager used the time beyond it for other work.
const COUNTED_PASS: Duration = Duration::from_millis(250);

/// Maximum memory of incomplete requests, in each of the two classes of peers: the length of the longest request.
const REQUEST_MEMORY: usize = MAX_LINE;

/// Maximum memory of unread answers, in each of the two classes. Above this limit no long answer begins, so the total
/// can exceed the limit by one answer.
const ANSWER_MEMORY: usize = 64 << 20;

/// The connections, and the order in which they are served.
pub(super) struct ClientConnections {
    open: HashMap<u64, ServedClient>,
    admission: Admission<u32>,
    refusals: Arc<Refusals>,
    /// Connections that have work, in order.
    ready: VecDeque<u64>,
    /// Connections whose job waits, in order.
    waiting: VecDeque<u64>,
    /// Whether a peer may be waiting for an accept.
    callers: bool,
    /// The token of the connection with the number 0.
    first_token: usize,
    /// The manager's clock, which counts the time in which the manager checked peers.
    clock: Duration,
    last_pass: Instant,
}

struct ServedClient {
    connection: ClientConnection,
    privileged: bool,
    is_ready: bool,
    /// Whether the connection has a job that waits or is in progress.
    asks: bool,
}

impl ClientConnections {
    /// Creates the set without connections. The token of the first will follow `first_token`.
    pub(super) fn new(first_token: usize, refusals: Arc<Refusals>) -> Self {
        ClientConnections {
            open: HashMap::new(),
            admission: Admission::new(LIMITS),
            refusals,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            callers: false,
            first_token,
            clock: Duration::ZERO,
            last_pass: Instant::now(),
        }
    }

    /// Whether there is work without an event.
    pub(super) fn has_work(&self) -> bool {
        self.callers || !self.ready.is_empty()
    }

    /// Notes that a peer connects.
    pub(super) fn callers_wait(&mut self) {
        self.callers = true;
    }

    /// Notes an event on a connection.
    pub(super) fn wake(&mut self, token: Token) {
        self.make_ready((token.0 - self.first_token) as u64);
    }

    fn make_ready(&mut self, id: u64) {
        if let Some(peer) = self.open.get_mut(&id).filter(|peer| !peer.is_ready) {
            peer.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// Serves the connections that have work, in order and each once. No turn begins after the duration of a pass; the
    /// next pass begins with the connections that this pass did not reach.
    pub(super) fn serve(&mut self, mut answer: impl FnMut(Request) -> Asked) {
        let begin = Instant::now();
        self.clock += begin.saturating_duration_since(self.last_pass).min(COUNTED_PASS);
        self.last_pass = begin;
        for _ in 0..self.ready.len() {
            let now = Instant::now();
            if now >= begin + PASS {
                return;
            }
            let Some(id) = self.ready.pop_front() else { return };
            let Some(room) = self.room(id) else { continue };
            let Some(peer) = self.open.get_mut(&id) else { continue };
            peer.is_ready = false;
            let before = peer.connection.progress();
            let refusals = &self.refusals;
            let turn = peer.connection.turn(room, now + TURN, |refusal| tell(refusals, refusal, None), &mut answer);
            match turn {
                Turn::Over(refusal) => {
                    self.close(id);
                    refusal.into_iter().for_each(|refusal| tell(&self.refusals, refusal, None));
                    continue;
                }
                Turn::More => self.make_ready(id),
                Turn::Asked if !peer.asks => {
                    peer.asks = true;
                    self.waiting.push_back(id);
                }
                Turn::Asked | Turn::Waiting => {}
            }
            if let Some(peer) = self.open.get_mut(&id) {
                let activity = peer.connection.note(self.clock);
                self.admission.set(id, if turn == Turn::More { Activity::Transfer } else { activity });
                if peer.connection.progress() > before {
                    self.admission.renew(id);
                }
            }
        }
    }

    /// Takes the next job that waits, in order.
    pub(super) fn next_job(&mut self) -> Option<Job> {
        while let Some(id) = self.waiting.pop_front() {
            // `None` if the connection is closed meanwhile.
            let Some(room) = self.room(id) else { continue };
            let Some(peer) = self.open.get_mut(&id) else { continue };
            let refusals = &self.refusals;
            if let Some(work) = peer.connection.begin_job(room, |refusal| tell(refusals, refusal, None)) {
                return Some(Job { connection: Some(id), work });
            }
            peer.asks = false;
            self.make_ready(id);
        }
        None
    }

    /// Passes the answer to a job to its connection, which sends it in the next pass. The connection may be closed
    /// meanwhile.
    pub(super) fn answer(&mut self, AnswerLine { connection, line }: AnswerLine) {
        let Some(id) = connection else { return };
        if let Some(peer) = self.open.get_mut(&id) {
            peer.asks = false;
            peer.connection.end_job(line);
            self.make_ready(id);
        }
    }

    /// Accepts or refuses waiting peers: a few, so that they cannot occupy the manager. Tries again at every tick,
    /// because an event occurs only once.
    pub(super) fn accept(&mut self, listener: &Listener, registry: &Registry, tick: bool) {
        self.callers |= tick;
        for _ in 0..CALLERS_A_PASS {
            if !self.callers {
                return;
            }
            match listener.accept() {
                Ok(Some(caller)) => self.admit(caller, registry),
                Ok(None) => self.callers = false,
                Err(error) => {
                    // If there is no descriptor for a new connection, an idle connection is evicted.
                    tell(&self.refusals, Refusal::Accept, Some(&error));
                    self.callers = false;
                    if is_exhausted(&error)
                        && let Some(id) = self.admission.evict_any()
                    {
                        self.evict(id);
                        self.callers = true;
                    }
                }
            }
        }
    }

    fn admit(&mut self, caller: Caller, registry: &Registry) {
        let Caller { stream, uid, pid, allowed, privileged } = caller;
        let admitted = match allowed {
            true => self.admission.admit(uid.as_raw(), privileged),
            false => Err(Refusal::NotAllowed),
        };
        let Admitted { id, evicted } = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if let Some(connections) = self.refusals.count(refusal, Instant::now()) {
                    let (uid, reason) = (uid.as_raw(), refusal.name());
                    tracing::warn!(uid, pid, connections, reason, "turned away from the control socket");
                }
                return turn_away(stream, refusal);
            }
        };
        evicted.into_iter().for_each(|id| self.evict(id));
        let mut connection = ClientConnection::greet(stream, self.clock);
        let token = Token(self.first_token + id as usize);
        if registry.register(connection.stream(), token, Interest::READABLE | Interest::WRITABLE).is_err() {
            self.admission.remove(id);
            return;
        }
        self.open.insert(id, ServedClient { connection, privileged, is_ready: false, asks: false });
        self.admission.set(id, Activity::Transfer);
        self.make_ready(id);
    }

    /// Closes connections that exceed a time limit, and notes which are idle.
    pub(super) fn expire(&mut self) {
        for (id, peer) in &self.open {
            // A connection with work that no pass has reached yet is not idle.
            let activity = match peer.connection.activity(self.clock) {
                Activity::Idle if peer.is_ready => Activity::Transfer,
                activity => activity,
            };
            self.admission.set(*id, activity);
        }
        let expired = self.open.iter().filter(|(_, peer)| !peer.is_ready);
        let expired = expired.filter_map(|(id, peer)| Some((*id, peer.connection.expired(self.clock)?)));
        for (id, refusal) in expired.collect::<Vec<_>>() {
            tell(&self.refusals, refusal, None);
            if let Some(peer) = self.close(id) {
                peer.connection.farewell(refusal);
            }
        }
    }

    /// Closes a connection that the admission has removed already.
    fn evict(&mut self, id: u64) {
        tell(&self.refusals, Refusal::Evicted, None);
        if let Some(peer) = self.open.remove(&id) {
            peer.connection.farewell(Refusal::Evicted);
        }
    }

    fn close(&mut self, id: u64) -> Option<ServedClient> {
        self.admission.remove(id);
        self.open.remove(&id)
    }

    /// The memory that the other connections of the same class leave for a connection; `None` if the connection does
    /// not exist.
    fn room(&self, id: u64) -> Option<Room> {
        let privileged = self.open.get(&id)?.privileged;
        let others = self.open.iter().filter(|(other, peer)| **other != id && peer.privileged == privileged);
        let [requests, answers] = others
            .map(|(_, peer)| peer.connection.memory())
            .fold([0, 0], |sum, memory| [sum[0] + memory[0], sum[1] + memory[1]]);
        Some(Room { request: REQUEST_MEMORY.saturating_sub(requests), answer: answers < ANSWER_MEMORY })
    }
}

/// Counts a connection that a limit refused or closed, and logs it occasionally.
fn tell(refusals: &Refusals, refusal: Refusal, error: Option<&io::Error>) {
    if let Some(connections) = refusals.count(refusal, Instant::now()) {
        let (reason, error) = (refusal.name(), error.map(tracing::field::display));
        tracing::warn!(connections, reason, error, "control socket: {}", refusal.sentence());
    }
}

/// Whether the system has no descriptor or memory left.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use knockplane_policy::wire::Response;
    use mio::Poll;

    use super::*;

    /// Opens a connection and sends this number of requests.
    fn peer(connections: &mut ClientConnections, registry: &Registry, requests: usize) -> UnixStream {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let uid = rustix::process::Uid::ROOT;
        let stream = mio::net::UnixStream::from_std(theirs);
        connections.admit(Caller { stream, uid, pid: 0, allowed: true, privileged: true }, registry);
        ours.write_all("{\"request\":\"metrics\"}\n".repeat(requests).as_bytes()).unwrap();
        ours.set_nonblocking(true).unwrap();
        ours
    }

    /// The number of lines that have arrived.
    fn lines(stream: &mut UnixStream) -> usize {
        let mut text = Vec::new();
        _ = stream.read_to_end(&mut text);
        text.iter().filter(|byte| **byte == b'\n').count()
    }

    #[test]
    fn peers_whose_requests_take_whole_passes_take_turns() {
        let poll = Poll::new().unwrap();
        let mut connections = ClientConnections::new(0, Arc::default());
        let mut peers: Vec<UnixStream> = (0..3).map(|_| peer(&mut connections, poll.registry(), 20)).collect();
        let slow = |_: Request| {
            std::thread::sleep(PASS);
            Asked::Answered(Response::Failed { error: "a test".to_owned() }.into())
        };
        assert_eq!(peers.iter_mut().map(lines).collect::<Vec<_>>(), [1, 1, 1], "greetings");
        for answers in [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]] {
            connections.serve(slow);
            assert_eq!(peers.iter_mut().map(lines).collect::<Vec<_>>(), answers);
        }
    }
}
