//! The process that holds a TCP port.

use std::net::SocketAddr;

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};

/// The process that listens on this address, or on all addresses with its port. `None` if this process may not read the
/// descriptors of that process.
pub(crate) fn of_port(address: SocketAddr) -> Option<i32> {
    let sockets = tcp().ok().into_iter().chain(tcp6().ok()).flatten();
    let listening = sockets.filter(|socket| {
        let at = socket.local_address;
        let same = at.ip() == address.ip() || at.ip().is_unspecified() || address.ip().is_unspecified();
        socket.state == TcpState::Listen && at.port() == address.port() && same
    });
    let inodes: Vec<u64> = listening.map(|socket| socket.inode).collect();
    let holds = |process: &Process| {
        let descriptors = process.fd().into_iter().flatten().flatten();
        descriptors.into_iter().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    };
    all_processes().ok()?.flatten().find(holds).map(|process| process.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(of_port(address), Some(std::process::id() as i32));
        drop(listener);
        assert_eq!(of_port(address), None);
    }
}
