//! One connection on the control socket: lines in, lines out, never blocking.

use std::io::{self, Read as _, Write as _};

use knockplane_policy::wire::{Greeting, MAX_LINE, Request, Response, VERSION};
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

/// Answers not yet taken by a peer that asks and does not read; beyond this it is closed.
const MAX_UNSENT: usize = 2 * MAX_LINE;

/// A peer that was greeted.
pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// How much of `received` has been searched for the end of a line.
    searched: usize,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
    /// The peer has said everything it will say.
    ended: bool,
}

impl Connection {
    /// Takes the connection up; none if it is gone already.
    pub(super) fn greet(mut stream: UnixStream, registry: &Registry, token: Token) -> Option<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).ok()?;
        let mut connection =
            Connection { stream, received: Vec::new(), searched: 0, unsent: Vec::new(), sent: 0, ended: false };
        connection.queue(&Greeting { knockplane: VERSION, version: env!("CARGO_PKG_VERSION").to_owned() });
        connection.flush().then_some(connection)
    }

    /// Reads what there is, answers each whole line, sends what the peer takes. False when the connection is over.
    pub(super) fn serve(&mut self, mut answer: impl FnMut(Request) -> Response) -> bool {
        loop {
            if !self.flush() {
                return false;
            }
            let Some(line) = self.next_line() else {
                let progress = self.received.len();
                if !self.fill() {
                    return false;
                }
                if self.received.len() == progress {
                    return !self.ended || self.sent < self.unsent.len();
                }
                continue;
            };
            if self.unsent.len() - self.sent > MAX_UNSENT {
                return false;
            }
            let response = match serde_json::from_slice(&line) {
                Ok(request) => answer(request),
                Err(error) => Response::Refused { error: format!("not a request of version {VERSION}: {error}") },
            };
            self.queue(&response);
        }
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

    /// Reads a piece, if there is one. False if the peer is gone or its line too long.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let read = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        self.received.len() <= MAX_LINE
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
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.unsent.clear();
        self.sent = 0;
        true
    }
}
