//! The actions after the knock: the wait for the port, and the command.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

/// Time limit of the first connection attempt; each further attempt has twice the limit.
///
/// An attempt whose SYN is dropped is never answered: after a long first attempt, the second one would begin long after
/// the door has opened. An attempt that is shorter than the round trip never succeeds, so the limits grow.
const FIRST_TRY: Duration = Duration::from_millis(250);
/// Pause after a refused attempt: short for a user, and a small load for the host.
const PAUSE: Duration = Duration::from_millis(100);

/// The port did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port} of {doors} did not open within {limit_s} s (last attempt: {last})\n  \
     the knock may be wrong, lost or too slow: check the steps, their order and --delay, or increase --wait; \
     no command was run"
)]
pub(crate) struct PortClosedError {
    doors: String,
    port: u16,
    limit_s: u64,
    last: io::Error,
}

/// Connects to `port` of each of `doors` in turn until one answers, for at most `limit`. The connection is closed at once.
pub(crate) fn wait_for_port(doors: &[SocketAddr], port: u16, limit: Duration) -> Result<(), PortClosedError> {
    let start = Instant::now();
    let mut patience = FIRST_TRY;
    for (number, door) in doors.iter().cycle().enumerate() {
        let mut address = *door;
        address.set_port(port);
        // connect_timeout refuses a timeout of zero.
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let Err(last) = TcpStream::connect_timeout(&address, patience.min(left)) else {
            return Ok(());
        };
        // After one attempt for each address.
        if (number + 1) % doors.len() == 0 {
            if last.kind() == io::ErrorKind::TimedOut {
                patience = patience.saturating_mul(2);
            } else {
                thread::sleep(PAUSE.min(limit.saturating_sub(start.elapsed())));
            }
        }
        if start.elapsed() >= limit {
            let doors: Vec<_> = doors.iter().map(|door| door.ip().to_string()).collect();
            return Err(PortClosedError { doors: doors.join(" and "), port, limit_s: limit.as_secs(), last });
        }
    }
    Ok(())
}

/// Replaces this process by the command, which gets its signals, terminal and exit code. Returns only on failure.
#[cfg(unix)]
pub(crate) fn run(program: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(cannot_run(program, &Command::new(program).args(arguments).exec()))
}

/// Runs the command, and ends with its exit code.
#[cfg(not(unix))]
pub(crate) fn run(program: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let status = Command::new(program).args(arguments).status().map_err(|error| cannot_run(program, &error))?;
    std::process::exit(status.code().unwrap_or(1))
}

fn cannot_run(program: &OsStr, error: &io::Error) -> anyhow::Error {
    anyhow!("the knock was sent, but `{}` cannot be run: {error}", program.display())
}
