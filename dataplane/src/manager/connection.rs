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
    unsent: Vec<u8>,
}

impl Connection {
    /// Takes the connection up; none if it is gone already.
    pub(super) fn greet(mut stream: UnixStream, registry: &Registry, token: Token) -> Option<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).ok()?;
        let mut connection = Connection { stream, received: Vec::new(), unsent: Vec::new() };
        connection.queue(&Greeting { knockplane: VERSION, version: env!("CARGO_PKG_VERSION").to_owned() });
        connection.flush().then_some(connection)
    }

    /// Reads what there is, answers each whole line, sends what the peer takes. False when the connection is over.
    pub(super) fn serve(&mut self, mut answer: impl FnMut(Request) -> Response) -> bool {
        let open = self.fill();
        let mut start = 0;
        while let Some(end) = self.received[start..].iter().position(|byte| *byte == b'\n') {
            let response = match serde_json::from_slice(&self.received[start..start + end]) {
                Ok(request) => answer(request),
                Err(error) => Response::Refused { error: format!("not a request of version {VERSION}: {error}") },
            };
            start += end + 1;
            self.queue(&response);
        }
        self.received.drain(..start);
        self.flush() && open && self.received.len() <= MAX_LINE && self.unsent.len() <= MAX_UNSENT
    }

    /// False at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.received.len() > MAX_LINE {
                return false;
            }
        }
    }

    fn queue(&mut self, message: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.unsent, message).expect("messages are plain data, and memory does not fail");
        self.unsent.push(b'\n');
    }

    /// False if the peer is gone.
    fn flush(&mut self) -> bool {
        let mut sent = 0;
        let alive = loop {
            if sent == self.unsent.len() {
                break true;
            }
            match self.stream.write(&self.unsent[sent..]) {
                Ok(0) => break false,
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.unsent.drain(..sent);
        alive
    }
}
