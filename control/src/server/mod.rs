//! The connections of the listeners: admission, time limits, and eviction when there is no room.
//!
//! - **A connection serves one request.** There is a time limit for its arrival, and one for reading the answer.
//! - **The number of connections is limited**, in total and for each peer: an address (an IPv6 /64) over TCP, a user on the unix
//!   socket. Without room, a connection without a request is closed for a new one; some room is reserved for loopback, and for
//!   root and the process's own user ([`knockplane_limits::admission`]).
//! - **Every connection is accepted at once**, so that idle connections do not fill the queue of the kernel.
//!
//! | file        | owns |
//! |-------------|------|
//! | `mod.rs`    | the accept loop, and one connection from its start to its end |
//! | `peer.rs`   | peers, and the limits on connections |
//! | `body.rs`   | bodies of requests, in bounded memory and time |
//! | `latest.rs` | one answer for all concurrent requests |
//! | `rates.rs`  | limits on events in a time, for each address or token |
//! | `tls.rs`    | certificates, read again when they change |
//! | `handshakes.rs` | failed handshakes: counts and lines |

pub(crate) mod body;
pub(crate) mod handshakes;
pub(crate) mod latest;
mod peer;
pub(crate) mod rates;
pub(crate) mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use knockplane_limits::admission::{Activity, Admission, Admitted};
use knockplane_limits::refusal::{Refusal, Refusals};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

use self::peer::{Caller, PeerGroup};
pub(crate) use self::peer::{Listen, Sizes};
use self::tls::Certificates;
use crate::api::failure::ApiError;

/// Pause after accept() has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Limit in bytes for the head of a request, and for the buffer of hyper.
const MAX_HEAD: usize = 64 << 10;

/// Maximum number of new connections that get a refusal at the same time. Further ones are closed without an answer.
const MAX_TOLD: usize = 32;

/// Time limit for such a refusal.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// Time limits of the parts of a connection. The work between them has its own limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Arrival of the request without its body.
    pub(crate) head: Duration,
    /// Reading of the answer by the peer.
    pub(crate) answer: Duration,
}

impl Times {
    /// The limits of metrics and health. The default timeout of Prometheus is 10 s.
    pub(crate) const METRICS: Times = Times { head: Duration::from_secs(5), answer: Duration::from_secs(15) };

    /// The limits of operators, whose answers may be long.
    pub(crate) const OPERATORS: Times = Times { head: Duration::from_secs(10), answer: Duration::from_secs(60) };
}

/// A listener with its limits.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// The listener, for the log.
    pub(crate) name: &'static str,
    pub(crate) limits: knockplane_limits::admission::Limits,
    pub(crate) times: Times,
    pub(crate) refusals: Arc<Refusals>,
    /// The certificate; `None` without TLS.
    pub(crate) tls: Option<Arc<Certificates>>,
}

/// The connections of a listener.
struct ListenerConnections {
    admission: Admission<PeerGroup>,
    /// The drop of a sender ends its connection.
    holds: HashMap<u64, oneshot::Sender<Infallible>>,
}

impl ListenerConnections {
    /// Ends the connections without a request. Returns whether no connection is left.
    fn end_idle(&mut self) -> bool {
        for id in self.admission.with(Activity::Idle) {
            self.holds.remove(&id);
        }
        self.admission.is_empty()
    }
}

/// The place of a connection in the table, released on drop.
pub(crate) struct ConnectionSlot {
    id: u64,
    peer: PeerGroup,
    privileged: bool,
    table: Arc<Mutex<ListenerConnections>>,
    refusals: Arc<Refusals>,
    listener: &'static str,
    is_stream: AtomicBool,
    /// The number of reads of a stream.
    reads: AtomicU64,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Work,
    Answer,
    /// The answer is a stream without an end.
    Stream,
}

impl Server {
    /// Serves until `stop` is ready, and then until all running requests have their answers.
    pub(crate) async fn run(self, listener: impl Listen, pages: Router, stop: impl Future<Output = ()>) {
        let table =
            Arc::new(Mutex::new(ListenerConnections { admission: Admission::new(self.limits), holds: HashMap::new() }));
        let told = Arc::new(Semaphore::new(MAX_TOLD));
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, caller)) => self.admit(&table, &told, stream, caller, &pages),
                    Err(error) => self.accept_failed(&table, &error).await,
                }
                // The request of the new connection may have arrived: it is read before another connection can evict this one.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop => {}
        }
        while !lock(&table).end_idle() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn admit<S>(
        &self,
        table: &Arc<Mutex<ListenerConnections>>,
        told: &Arc<Semaphore>,
        stream: S,
        caller: Caller,
        pages: &Router,
    ) where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Caller { peer, privileged } = caller;
        let mut locked = lock(table);
        let Admitted { id, evicted } = match locked.admission.admit(peer, privileged) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                drop(locked);
                tell(self.name, &self.refusals, refusal);
                // Without a permit, the stream is dropped and thereby closed; over TLS, a handshake would cost more than it tells.
                if let Some(permit) = Arc::clone(told).try_acquire_owned().ok().filter(|_| self.tls.is_none()) {
                    tokio::spawn(async move {
                        let _ = timeout(TELL_WITHIN, refuse(stream, refusal)).await;
                        drop(permit);
                    });
                }
                return;
            }
        };
        if let Some(evicted) = evicted {
            locked.holds.remove(&evicted);
        }
        let (hold, ended) = oneshot::channel();
        locked.holds.insert(id, hold);
        drop(locked);
        if evicted.is_some() {
            tell(self.name, &self.refusals, Refusal::Evicted);
        }
        let place = ConnectionSlot {
            id,
            peer,
            privileged,
            table: Arc::clone(table),
            refusals: Arc::clone(&self.refusals),
            listener: self.name,
            is_stream: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        };
        let serving = Serving { pages: pages.clone(), place: Arc::new(place), times: self.times, ended };
        match &self.tls {
            None => tokio::spawn(serving.serve(stream)),
            Some(certificates) => tokio::spawn(serving.secure(stream, Arc::clone(certificates))),
        };
    }

    /// There are no descriptors or memory, or the peer has closed the connection.
    async fn accept_failed(&self, table: &Arc<Mutex<ListenerConnections>>, error: &io::Error) {
        tell(self.name, &self.refusals, Refusal::Accept);
        if peer::is_exhausted(error) {
            let mut table = lock(table);
            if let Some(id) = table.admission.evict_any() {
                table.holds.remove(&id);
            }
        }
        sleep(PAUSE).await;
    }
}

/// What serves one connection.
struct Serving {
    pages: Router,
    place: Arc<ConnectionSlot>,
    times: Times,
    ended: oneshot::Receiver<Infallible>,
}

impl Serving {
    /// Serves a connection with TLS. The handshake has the time limit of a head.
    async fn secure<S>(mut self, stream: S, certificates: Arc<Certificates>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let secured = tokio::select! {
            secured = timeout(self.times.head, certificates.acceptor().accept(stream)) => secured,
            // The connection was evicted, which is counted at another place.
            _ = &mut self.ended => return,
        };
        match secured {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => {
                let ConnectionSlot { listener, peer, .. } = &*self.place;
                certificates.failures.handshakes.note(listener, *peer, &error);
            }
            Err(_) => self.place.refuse(Refusal::SlowRequest),
        }
    }

    /// Serves a connection, from its first byte to its end.
    async fn serve<S>(self, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { pages, place, times, ended } = self;
        serve(stream, pages, place, times, ended).await;
    }
}

async fn serve<S>(
    stream: S,
    pages: Router,
    place: Arc<ConnectionSlot>,
    times: Times,
    ended: oneshot::Receiver<Infallible>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (phase, phases) = watch::channel(Phase::Head);
    let phase = Arc::new(phase);
    let pages = TowerToHyperService::new(pages);
    let service = {
        let place = Arc::clone(&place);
        service_fn(move |mut request: Request<Incoming>| {
            let (place, phase) = (Arc::clone(&place), Arc::clone(&phase));
            place.set(Activity::Work);
            phase.send_replace(Phase::Work);
            request.extensions_mut().insert(Arc::clone(&place));
            let answer = pages.call(request);
            async move {
                let answer = answer.await;
                // A stream is never evicted. Its number is limited elsewhere.
                let is_stream = place.is_stream.load(Relaxed);
                place.set(if is_stream { Activity::Work } else { Activity::Transfer });
                phase.send_replace(if is_stream { Phase::Stream } else { Phase::Answer });
                answer
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let refusal = tokio::select! {
        done = connection => match done {
            Err(error) if error.is_timeout() => Refusal::SlowRequest,
            // Other errors of a connection are not logged.
            _ => return,
        },
        // The connection was evicted, which is counted at another place.
        _ = ended => return,
        refusal = times.exceeded(phases, &place) => refusal,
    };
    place.refuse(refusal);
}

impl Times {
    /// Waits until the connection exceeds its time limit.
    async fn exceeded(self, mut phases: watch::Receiver<Phase>, place: &ConnectionSlot) -> Refusal {
        let arrived = async { phases.wait_for(|phase| *phase != Phase::Head).await.is_ok() };
        match timeout(self.head, arrived).await {
            Err(_) => return Refusal::SlowRequest,
            // The connection has ended.
            Ok(false) => pending().await,
            Ok(true) => {}
        }
        let answered = phases.wait_for(|phase| matches!(phase, Phase::Answer | Phase::Stream)).await;
        match answered.map(|phase| *phase) {
            Ok(Phase::Stream) => {
                // A stream is read again at least for each comment, unless its peer does not read.
                let mut before = None;
                while before != Some(place.reads.load(Relaxed)) {
                    before = Some(place.reads.load(Relaxed));
                    sleep(self.answer).await;
                }
            }
            Ok(_) => sleep(self.answer).await,
            Err(_) => pending().await,
        }
        Refusal::SlowReader
    }
}

/// Answers a new connection that there is no room.
async fn refuse<S>(stream: S, refusal: Refusal)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |_: Request<Incoming>| async move {
        Ok::<_, Infallible>(ApiError::refused(refusal).into_response())
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TELL_WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl ConnectionSlot {
    /// The user of the peer; `None` for a peer over TCP.
    pub(crate) fn uid(&self) -> Option<u32> {
        match self.peer {
            PeerGroup::User(uid) => Some(uid),
            PeerGroup::Loopback | PeerGroup::Network(_) => None,
        }
    }

    /// The address of a peer over TCP, as peers are counted: of IPv6 that of the /64, of loopback always the same.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.peer.address()
    }

    /// Whether room is reserved for the peer of the connection.
    pub(crate) fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// Marks the answer as a stream, which has no time limit as long as the peer reads.
    pub(crate) fn begin_stream(&self) {
        self.is_stream.store(true, Relaxed);
    }

    /// Notes that the stream was read, so that its peer has taken what was sent before, except for the buffers.
    pub(crate) fn note_read(&self) {
        self.reads.fetch_add(1, Relaxed);
    }

    /// Records the new state of the connection.
    pub(crate) fn set(&self, activity: Activity) {
        lock(&self.table).admission.set(self.id, activity);
    }

    /// Counts and logs that the connection has reached a limit.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        tell(self.listener, &self.refusals, refusal);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        table.admission.remove(self.id);
        table.holds.remove(&self.id);
    }
}

fn lock(table: &Mutex<ListenerConnections>) -> MutexGuard<'_, ListenerConnections> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(listener: &str, refusals: &Refusals, refusal: Refusal) {
    if let Some(connections) = refusals.count(refusal, Instant::now()) {
        warn!(listener, connections, reason = refusal.name(), "connections refused or closed: {}", refusal.sentence());
    }
}

#[cfg(test)]
mod tests;
