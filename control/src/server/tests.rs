use axum::Extension;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream::poll_fn;
use knockplane_limits::admission::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMITS: Limits = Limits { total: 8, per_peer: 4, reserved: 4 };

/// Time limit of a test. It is much longer than the time limits under test, so that a test fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

const TIMES: Times = Times { head: Duration::from_millis(300), answer: Duration::from_millis(300) };

/// A server of these pages on a free port.
async fn served(times: Times, pages: Router) -> (std::net::SocketAddr, Arc<Refusals>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refusals = Arc::<Refusals>::default();
    let server = Server { name: "test", limits: LIMITS, times, refusals: Arc::clone(&refusals), tls: None };
    tokio::spawn(server.run(listener, pages, pending()));
    (address, refusals)
}

async fn get_page(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

fn count(refusals: &Refusals, refusal: Refusal) -> u64 {
    refusals.counts().find(|(other, _)| *other == refusal).unwrap().1
}

async fn eventually(refusals: &Refusals, refusal: Refusal, number: u64) {
    let counted = async {
        while count(refusals, refusal) < number {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{refusal:?}: {refusals:?}"));
}

fn here() -> Router {
    Router::new().route("/", get(|| async { "here" }))
}

#[tokio::test]
async fn connections_without_a_request_are_evicted_at_once() {
    let slow = Times { head: PATIENCE * 10, answer: PATIENCE * 10 };
    let (address, refusals) = served(slow, here()).await;
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let answer = get_page(address).await;
    assert!(answer.ends_with("here"), "{answer}");
    assert!(count(&refusals, Refusal::Evicted) > 90, "{refusals:?}");
}

#[tokio::test]
async fn a_missing_request_and_an_unread_answer_end_at_their_limits() {
    const PAGE_LEN: usize = 32 << 20;
    let pages = Router::new().route("/", get(|| async { vec![b'x'; PAGE_LEN] }));
    let (address, refusals) = served(TIMES, pages).await;
    let mut trickle = TcpStream::connect(address).await.unwrap();
    let trickling = async {
        // Writes until the connection ends, which a write reports.
        while trickle.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, trickling).await.expect("one byte at a time does not keep it");
    eventually(&refusals, Refusal::SlowRequest, 1).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    eventually(&refusals, Refusal::SlowReader, 1).await;
    let mut answer = Vec::new();
    // The connection ends by a reset or a FIN.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.len() < PAGE_LEN, "{}", answer.len());
}

#[tokio::test]
async fn a_new_connection_is_refused_while_all_others_have_requests() {
    let slow = Times { head: PATIENCE * 10, answer: PATIENCE * 10 };
    let (entered, mut at_work) = watch::channel(0);
    let work = move || {
        entered.send_modify(|number| *number += 1);
        pending::<&str>()
    };
    let (address, refusals) = served(slow, Router::new().route("/", get(work))).await;
    let mut working = Vec::new();
    for _ in 0..LIMITS.per_peer {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        working.push(stream);
    }
    timeout(PATIENCE, at_work.wait_for(|number| *number == LIMITS.per_peer)).await.unwrap().unwrap();
    let answer = get_page(address).await;
    assert!(answer.contains(" 503 ") && answer.contains("too many connections of one peer"), "{answer}");
    assert_eq!(count(&refusals, Refusal::PeerLimit), 1);
}

#[tokio::test]
async fn a_stop_waits_only_for_running_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, mut at_work) = watch::channel(false);
    let work = async move || {
        entered.send_replace(true);
        sleep(Duration::from_millis(300)).await;
        "here"
    };
    let pages = Router::new().route("/", get(work));
    let slow = Times { head: PATIENCE * 10, answer: PATIENCE * 10 };
    let server = Server { name: "test", limits: LIMITS, times: slow, refusals: Arc::default(), tls: None };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.run(listener, pages, async {
        let _ = stopped.await;
    }));
    let _idle = TcpStream::connect(address).await.unwrap();
    let asked = tokio::spawn(get_page(address));
    timeout(PATIENCE, at_work.wait_for(|is_at_work| *is_at_work)).await.unwrap().unwrap();
    drop(stop);
    timeout(PATIENCE, served).await.unwrap().unwrap();
    assert!(asked.await.unwrap().ends_with("here"));
}

#[tokio::test]
async fn a_stream_has_no_time_limit_while_its_peer_reads() {
    let endless = |Extension(slot): Extension<Arc<ConnectionSlot>>| async move {
        slot.begin_stream();
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let piece = Bytes::from(vec![b'x'; 64 << 10]);
        Body::from_stream(poll_fn(move |context| {
            slot.note_read();
            ticks.poll_tick(context).map(|_| Some(Ok::<_, Infallible>(piece.clone())))
        }))
    };
    let times = Times { head: PATIENCE, answer: Duration::from_secs(1) };
    let (address, refusals) = served(times, Router::new().route("/", get(endless))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (began, mut room) = (Instant::now(), vec![0; 64 << 10]);
    while began.elapsed() < 3 * times.answer {
        let length = timeout(PATIENCE, stream.read(&mut room)).await.unwrap().unwrap();
        assert!(length > 0, "the stream goes on");
    }
    assert_eq!(count(&refusals, Refusal::SlowReader), 0);
    // Now the peer does not read any more.
    eventually(&refusals, Refusal::SlowReader, 1).await;
}
