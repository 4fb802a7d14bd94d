//! One HTTP request to the control process, over its unix socket or its API on TCP, and its errors as messages for operators.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use knockplane_policy::wire::MAX_LINE;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::api::{Api, ApiStream};
use crate::api::answer::MESSAGES;
use crate::dataplane::DataplaneError;
use crate::socket;

/// Time limit for an answer: longer than the limit of the control process for the dataplane, so that the control process reports
/// the problem.
const ANSWER_WITHIN: Duration = Duration::from_secs(70);

/// Limit in bytes for an answer: one line of the dataplane, and the additions of the control process.
const MAX_ANSWER: usize = MAX_LINE + (1 << 20);

/// A request without a usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// No process listens, this user may not connect, or the connection was lost.
    #[error("{0}")]
    Unreachable(ErrorMessage),
    /// The control process refused the request, or failed.
    #[error("{1}")]
    Refused(StatusCode, ErrorMessage),
    /// Another program listens on the socket, or another version.
    #[error("{0}")]
    Stranger(ErrorMessage),
}

impl ControlError {
    /// The error of the request.
    pub(super) fn reason(self) -> ErrorMessage {
        let (ControlError::Unreachable(reason) | ControlError::Refused(_, reason) | ControlError::Stranger(reason)) =
            self;
        reason
    }
}

/// The problem and its remedy.
#[derive(Debug, Default, thiserror::Error)]
#[error("{sentence}")]
pub(super) struct ErrorMessage {
    /// The whole message.
    pub(super) sentence: String,
    /// The remedy at the end of the sentence, if there is one.
    pub(super) remedy: Option<String>,
    /// The socket or the URL of the request.
    pub(super) place: Option<String>,
}

/// A client of the control process.
#[derive(Clone, Debug)]
pub(super) struct Client {
    server: Server,
}

/// The listener of the control process.
#[derive(Clone, Debug)]
enum Server {
    Socket(PathBuf),
    Api(Arc<Api>),
}

impl Client {
    /// A client of the unix socket.
    pub(super) fn new(socket: PathBuf) -> Self {
        Client { server: Server::Socket(socket) }
    }

    /// A client of the API on TCP.
    pub(super) fn of_api(api: Api) -> Self {
        Client { server: Server::Api(Arc::new(api)) }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes, ControlError> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request with an optional JSON body. Returns the body of a successful answer.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, ControlError> {
        let length = body.as_ref().map_or(0, Vec::len);
        if length > MAX_LINE {
            // A client that is still sending when it is refused cannot read the reason.
            let error = DataplaneError::TooLong(length);
            let reason = ErrorMessage { sentence: error.to_string(), remedy: error.remedy(), place: None };
            return Err(ControlError::Refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, MESSAGES)
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.stranger(&error))?;
        match tokio::time::timeout(ANSWER_WITHIN, self.converse(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ControlError::Unreachable(self.reason(
                format!("knockplane-control at {} did not answer within {} s; ", self.place(), ANSWER_WITHIN.as_secs()),
                "see its log",
            ))),
        }
    }

    /// Sends a request whose answer is a stream without an end. Returns its body.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, ControlError> {
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, self.host())
            .header(header::ACCEPT, "text/event-stream")
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.stranger(&error))?;
        let opened = tokio::time::timeout(ANSWER_WITHIN, self.open(request)).await;
        let (status, body, _) = opened.map_err(|_| self.ended("does not answer"))??;
        if status.is_success() {
            return Ok(body);
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| self.stranger(&*error))?.to_bytes();
        Err(ControlError::Refused(status, reason(status, &body)))
    }

    /// The error for a stream that the control process has ended.
    pub(super) fn ended(&self, how: &str) -> ControlError {
        let sentence = format!("knockplane-control at {} {how}; ", self.place());
        ControlError::Unreachable(self.reason(sentence, "see its log"))
    }

    /// Sends a request. Returns the status and the body of the answer, and the task of the connection, which ends with the body.
    async fn open(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Incoming, tokio::task::AbortHandle), ControlError> {
        match &self.server {
            Server::Socket(path) => {
                let stream = socket::connect(path).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, request).await
            }
            Server::Api(api) => {
                request.headers_mut().insert(header::AUTHORIZATION, api.authorization());
                let stream = api.connect().await.map_err(|error| self.unreachable(&error))?;
                match stream {
                    ApiStream::Plain(stream) => self.exchange(stream, request).await,
                    ApiStream::Secure(stream) => self.exchange(stream, request).await,
                }
            }
        }
    }

    async fn converse(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ControlError> {
        let (status, body, connection) = self.open(request).await?;
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.stranger(&*error))?.to_bytes();
        connection.abort();
        if status.is_success() { Ok(body) } else { Err(ControlError::Refused(status, reason(status, &body))) }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Incoming, tokio::task::AbortHandle), ControlError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.stranger(&error))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        Ok((answer.status(), answer.into_body(), connection.abort_handle()))
    }

    fn unreachable(&self, error: &io::Error) -> ControlError {
        let remedy = match (&self.server, error.kind()) {
            (Server::Api(_), io::ErrorKind::InvalidData) => "name the authority of its certificate with --ca",
            (Server::Api(_), _) => "set `listen` in [control.api] there, or correct --api",
            (_, io::ErrorKind::PermissionDenied) => "run knockctl as root or as a member of the socket's group",
            _ => "start it with `systemctl start knockplane-control`, or name its socket with --socket",
        };
        let sentence = format!("cannot reach knockplane-control at {} ({error}): ", self.place());
        ControlError::Unreachable(self.reason(sentence, remedy))
    }

    /// The error for a request that was sent and not answered.
    fn broken(&self, error: &hyper::Error) -> ControlError {
        match error.is_parse() {
            true => self.stranger(error),
            false => ControlError::Unreachable(self.reason(
                format!(
                    "knockplane-control at {} ended the connection before it answered ({error}): it has too many \
                     connections, or stops; ",
                    self.place()
                ),
                "try again, and see its log",
            )),
        }
    }

    fn stranger(&self, error: &dyn std::fmt::Display) -> ControlError {
        let sentence =
            format!("what listens on {} does not answer as knockplane-control does ({error}): ", self.place());
        let remedy = match &self.server {
            Server::Socket(_) => "name its socket with --socket",
            Server::Api(_) => "correct --api",
        };
        ControlError::Stranger(self.reason(sentence, remedy))
    }

    /// The socket or the URL.
    fn place(&self) -> String {
        match &self.server {
            Server::Socket(path) => path.display().to_string(),
            Server::Api(api) => api.url().to_owned(),
        }
    }

    fn host(&self) -> &str {
        match &self.server {
            Server::Socket(_) => "knockplane",
            Server::Api(api) => api.authority(),
        }
    }

    /// A sentence about the socket, with its remedy.
    fn reason(&self, sentence: String, remedy: &str) -> ErrorMessage {
        ErrorMessage { sentence: sentence + remedy, remedy: Some(remedy.to_owned()), place: Some(self.place()) }
    }
}

/// The sentence of a failure: the sentence of the API, or the text of the answer if it has none.
fn reason(status: StatusCode, body: &[u8]) -> ErrorMessage {
    #[derive(Deserialize)]
    struct Body {
        message: String,
        #[serde(default)]
        remedy: Option<String>,
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(Body { message, remedy }) => ErrorMessage { sentence: message, remedy, place: None },
        Err(_) if body.is_empty() => ErrorMessage { sentence: status.to_string(), ..ErrorMessage::default() },
        Err(_) => ErrorMessage { sentence: String::from_utf8_lossy(body).trim().to_owned(), ..ErrorMessage::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_says_what_was_tried_and_what_to_do() {
        let client = Client::new("/nonexistent/control.sock".into());
        let error = client.get("/healthz").await.unwrap_err();
        assert!(matches!(error, ControlError::Unreachable(_)));
        let text = error.to_string();
        for part in ["/nonexistent/control.sock", "systemctl start knockplane-control", "--socket"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_told_and_not_sent() {
        let client = Client::new("/nonexistent/control.sock".into());
        let error = client.send(Method::POST, "/api/v1/lists", Some(vec![0; MAX_LINE + 1])).await.unwrap_err();
        assert!(matches!(error, ControlError::Refused(StatusCode::PAYLOAD_TOO_LARGE, _)));
        assert!(error.to_string().contains("268435457 bytes") && error.to_string().contains("split the file"));
    }

    #[test]
    fn the_reason_is_the_apis_sentence_or_the_plain_text() {
        let sentence = |status, body: &[u8]| reason(status, body).sentence;
        assert_eq!(sentence(StatusCode::CONFLICT, br#"{"code":"conflict","message":"no","remedy":null}"#), "no");
        assert_eq!(sentence(StatusCode::SERVICE_UNAVAILABLE, b"no worker runs\n"), "no worker runs");
        assert_eq!(sentence(StatusCode::NOT_FOUND, b""), "404 Not Found");
    }
}
