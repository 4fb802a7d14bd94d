//! Another process that holds what this one listens on: how long to wait for one that is exiting, and how to name one
//! that is not.

use std::net::SocketAddr;
use std::time::Duration;

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};
use tokio::time::Instant;

/// How long a process that is exiting may hold a socket or a port.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look again.
const RETRY: Duration = Duration::from_millis(5);

/// When waiting for another process ends. One value is shared by all that a start waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// 5 s from now.
    pub(crate) fn start() -> Deadline {
        Deadline(Instant::now() + PATIENCE)
    }

    /// A deadline that is over: look once.
    #[cfg(test)]
    pub(crate) fn over() -> Deadline {
        Deadline(Instant::now())
    }

    /// Waits a moment. False if the time is over.
    pub(crate) async fn wait(self) -> bool {
        if Instant::now() >= self.0 {
            return false;
        }
        tokio::time::sleep(RETRY).await;
        true
    }
}

/// A process for people: ` (process 4711, knockplane-control)`. Empty if nothing is known of it, as of one outside this
/// PID namespace, whose number is 0 here.
pub(crate) fn describe(pid: Option<i32>) -> String {
    let Some(pid) = pid.filter(|pid| *pid > 0) else { return String::new() };
    let process = Process::new(pid).ok();
    let command = process.as_ref().and_then(|process| process.cmdline().ok()?.into_iter().next());
    let command = command.map(|command| command.rsplit('/').next().unwrap_or_default().to_owned());
    match command.or_else(|| Some(process?.stat().ok()?.comm)) {
        Some(name) => format!(" (process {pid}, {})", name.escape_debug()),
        None => format!(" (process {pid})"),
    }
}

/// The process that listens on this address, or on all addresses with its port, if it can be found: one whose
/// descriptors this process may look at.
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
    fn a_process_that_is_not_known_is_not_named() {
        assert_eq!([None, Some(0)].map(describe), ["", ""]);
        assert_eq!(describe(Some(i32::MAX)), format!(" (process {})", i32::MAX));
    }

    #[test]
    fn the_process_behind_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pid = of_port(address);
        assert_eq!(pid, Some(std::process::id() as i32));
        assert!(describe(pid).starts_with(&format!(" (process {}, knockplane_control-", std::process::id())));
        drop(listener);
        assert_eq!(of_port(address), None);
    }
}
