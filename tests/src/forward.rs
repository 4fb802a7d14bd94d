//! A TCP port of this host that leads into a namespace, for programs that run outside, such as a person's browser.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::topology::{Namespace, enter};

/// Maximum number of connections at once. A browser opens six.
const MAX_CONNECTIONS: usize = 64;

/// Forwards the connections of a listener to its own address inside the namespace, until the process ends.
///
/// # Errors
/// If the namespace cannot be entered.
pub fn forward(listener: TcpListener, namespace: &Namespace) -> anyhow::Result<()> {
    let (name, address) = (namespace.name().to_owned(), listener.local_addr()?);
    let (outcome, entered) = mpsc::channel();
    // The sockets that this thread connects are in the namespace. Those that it accepts are where the listener is.
    thread::spawn(move || {
        let inside = enter(&name);
        let failed = inside.is_err();
        let _ = outcome.send(inside);
        if !failed {
            accept(&listener, address);
        }
    });
    entered.recv()?
}

fn accept(listener: &TcpListener, to: SocketAddr) {
    let open = Arc::new(());
    for client in listener.incoming().flatten() {
        if Arc::strong_count(&open) > 2 * MAX_CONNECTIONS {
            continue;
        }
        let connected = TcpStream::connect(to).and_then(|server| {
            let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
            Ok([(client, server), (from_server, to_client)])
        });
        for (from, to) in connected.into_iter().flatten() {
            let counted = Arc::clone(&open);
            thread::spawn(move || {
                let _counted = counted;
                copy(&from, &to);
            });
        }
    }
}

/// Copies until the end of one side, and ends the other one. A failure is an end.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
