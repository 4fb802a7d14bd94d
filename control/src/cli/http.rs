//! One HTTP request over the unix socket of the control process, and its errors as messages for operators.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use knockplane_policy::wire::MAX_LINE;
use serde::Deserialize;

use crate::dataplane::DataplaneError;
use crate::socket;

/// Time limit for an answer: longer than the limit of the control process for the dataplane, so that the control process reports
/// the problem.
const ANSWER_WITHIN: Duration = Duration::from_secs(70);

/// Limit in bytes for an answer: one line of the dataplane, and the additions of the control process.
const MAX_ANSWER: usize = MAX_LINE + (1 << 20);

/// A request without a usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No process listens, this user may not connect, or the connection was lost.
    #[error("{0}")]
    Unreachable(Reason),
    /// The control process refused the request, or failed.
    #[error("{1}")]
    Refused(StatusCode, Reason),
    /// Another program listens on the socket, or another version.
    #[error("{0}")]
    Stranger(Reason),
}

impl Trouble {
    /// The error of the request.
    pub(super) fn reason(self) -> Reason {
        let (Trouble::Unreachable(reason) | Trouble::Refused(_, reason) | Trouble::Stranger(reason)) = self;
        reason
    }
}

/// The problem and its remedy.
#[derive(Debug, Default, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct Reason {
    /// The whole message.
    pub(super) sentence: String,
    /// The remedy at the end of the sentence, if there is one.
    pub(super) remedy: Option<String>,
    /// The socket of the request.
    pub(super) socket: Option<PathBuf>,
}

/// A client of the control process.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Client { socket }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Trouble> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request with an optional JSON body. Returns the body of a successful answer.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, Trouble> {
        let length = body.as_ref().map_or(0, Vec::len);
        if length > MAX_LINE {
            // A client that is still sending when it is refused cannot read the reason.
            let error = DataplaneError::TooLong(length);
            let reason = Reason { sentence: error.to_string(), remedy: error.remedy(), socket: None };
            return Err(Trouble::Refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "knockplane")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.stranger(&error))?;
        match tokio::time::timeout(ANSWER_WITHIN, self.converse(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::Unreachable(self.reason(
                format!(
                    "knockplane-control at {} did not answer within {} s; ",
                    self.socket.display(),
                    ANSWER_WITHIN.as_secs()
                ),
                "see its log",
            ))),
        }
    }

    async fn converse(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Trouble> {
        let stream = socket::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.stranger(&error))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.stranger(&*error))?.to_bytes();
        connection.abort();
        if status.is_success() { Ok(body) } else { Err(Trouble::Refused(status, reason(status, &body))) }
    }

    fn unreachable(&self, error: &io::Error) -> Trouble {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "run knockctl as root or as a member of the socket's group",
            _ => "start it with `systemctl start knockplane-control`, or name its socket with --socket",
        };
        let sentence = format!("cannot reach knockplane-control at {} ({error}): ", self.socket.display());
        Trouble::Unreachable(self.reason(sentence, remedy))
    }

    /// The error for a request that was sent and not answered.
    fn broken(&self, error: &hyper::Error) -> Trouble {
        match error.is_parse() {
            true => self.stranger(error),
            false => Trouble::Unreachable(self.reason(
                format!(
                    "knockplane-control at {} ended the connection before it answered ({error}): it has too many \
                     connections, or stops; ",
                    self.socket.display()
                ),
                "try again, and see its log",
            )),
        }
    }

    fn stranger(&self, error: &dyn std::fmt::Display) -> Trouble {
        let sentence =
            format!("what listens on {} does not answer as knockplane-control does ({error}): ", self.socket.display());
        Trouble::Stranger(self.reason(sentence, "name its socket with --socket"))
    }

    /// A sentence about the socket, with its remedy.
    fn reason(&self, sentence: String, remedy: &str) -> Reason {
        Reason { sentence: sentence + remedy, remedy: Some(remedy.to_owned()), socket: Some(self.socket.clone()) }
    }
}

/// The sentence of a failure: the sentence of the API, or the text of the answer if it has none.
fn reason(status: StatusCode, body: &[u8]) -> Reason {
    #[derive(Deserialize)]
    struct Body {
        error: String,
        #[serde(default)]
        remedy: Option<String>,
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(Body { error, remedy }) => Reason { sentence: error, remedy, socket: None },
        Err(_) if body.is_empty() => Reason { sentence: status.to_string(), ..Reason::default() },
        Err(_) => Reason { sentence: String::from_utf8_lossy(body).trim().to_owned(), ..Reason::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_says_what_was_tried_and_what_to_do() {
        let client = Client::new("/nonexistent/control.sock".into());
        let trouble = client.get("/healthz").await.unwrap_err();
        assert!(matches!(trouble, Trouble::Unreachable(_)));
        let text = trouble.to_string();
        for part in ["/nonexistent/control.sock", "systemctl start knockplane-control", "--socket"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_told_and_not_sent() {
        let client = Client::new("/nonexistent/control.sock".into());
        let trouble = client.send(Method::POST, "/api/v1/lists", Some(vec![0; MAX_LINE + 1])).await.unwrap_err();
        assert!(matches!(trouble, Trouble::Refused(StatusCode::PAYLOAD_TOO_LARGE, _)));
        assert!(trouble.to_string().contains("268435457 bytes") && trouble.to_string().contains("split the file"));
    }

    #[test]
    fn the_reason_is_the_apis_sentence_or_the_plain_text() {
        let sentence = |status, body: &[u8]| reason(status, body).sentence;
        assert_eq!(sentence(StatusCode::CONFLICT, br#"{"error":"no"}"#), "no");
        assert_eq!(sentence(StatusCode::SERVICE_UNAVAILABLE, b"no worker runs\n"), "no worker runs");
        assert_eq!(sentence(StatusCode::NOT_FOUND, b""), "404 Not Found");
    }
}
