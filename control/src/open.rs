//! The listener that is open to everyone who can connect: metrics and health.
//!
//! Strangers may hold connections without asking anything, or without reading the answer. There are so many at most, and
//! each has so little time for its one request, that they cannot take the descriptors which operators and the dataplane
//! need. How often they ask the dataplane is bounded in [`crate::api`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at once. A few scrapers and probes need one each.
const MAX_CONNECTIONS: usize = 64;

/// How long a request may take to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may take in all, until its answer has been read. Prometheus gives up after 10 s by default.
const CONNECTION_WITHIN: Duration = Duration::from_secs(20);

/// What is waited before a listener that has just failed is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` comes. Connections beyond the most there can be wait until another one ends.
pub(crate) async fn serve(listener: TcpListener, pages: Router, stop: impl Future<Output = ()>) {
    serve_each(CONNECTION_WITHIN, listener, pages, stop).await;
}

async fn serve_each(within: Duration, listener: TcpListener, pages: Router, stop: impl Future<Output = ()>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        loop {
            let place = Arc::clone(&free).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, or the peer is gone again.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let service = TowerToHyperService::new(pages.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_WITHIN)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // How a stranger's connection ends is no news.
                let _ = timeout(within, connection).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_nothing_give_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve(listener, pages, std::future::pending()));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 5 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            silent.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(4 * REQUEST_WITHIN, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn those_who_do_not_read_give_way() {
        const PAGE_LEN: usize = 32 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Router::new().route("/", get(|| async { vec![b'x'; PAGE_LEN] }));
        let within = Duration::from_millis(300);
        tokio::spawn(serve_each(within, listener, pages, std::future::pending()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(4 * within).await;
        let mut answer = Vec::new();
        // Its end is a reset, or just the end.
        let _ = timeout(REQUEST_WITHIN, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() < PAGE_LEN, "{}", answer.len());
    }
}
