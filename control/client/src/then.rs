//! What comes after the knock: waiting for the port, and the command.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

/// How long the first try waits for an answer; each further one waits twice as long.
///
/// A try that the door drops is never answered, so a long first one would wait for nothing when the door opens a moment
/// later. But a try shorter than the path's round trip never succeeds either: so they grow, and suit every path.
const FIRST_TRY: Duration = Duration::from_millis(250);
/// Between a try that was refused and the next: often enough not to be felt, too seldom to be a burden.
const PAUSE: Duration = Duration::from_millis(100);

/// The port did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port} of {doors} did not open within {limit_s} s (last try: {last})\n  \
     the knock may be wrong, lost or too slow: check the steps, their order and --delay, or raise --wait; \
     no command was run"
)]
pub(crate) struct StillClosed {
    doors: String,
    port: u16,
    limit_s: u64,
    last: io::Error,
}

/// Connects to `port` of each of `doors` in turn until one answers, for at most `limit`. The connection is closed at once.
pub(crate) fn wait_for_port(doors: &[SocketAddr], port: u16, limit: Duration) -> Result<(), StillClosed> {
    let start = Instant::now();
    let mut patience = FIRST_TRY;
    for (number, door) in doors.iter().cycle().enumerate() {
        let mut address = *door;
        address.set_port(port);
        // Never zero, which connect_timeout refuses.
        let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
        let Err(last) = TcpStream::connect_timeout(&address, patience.min(left)) else {
            return Ok(());
        };
        // After a turn of all addresses.
        if (number + 1) % doors.len() == 0 {
            if last.kind() == io::ErrorKind::TimedOut {
                patience = patience.saturating_mul(2);
            } else {
                thread::sleep(PAUSE.min(limit.saturating_sub(start.elapsed())));
            }
        }
        if start.elapsed() >= limit {
            let doors: Vec<_> = doors.iter().map(|door| door.ip().to_string()).collect();
            return Err(StillClosed { doors: doors.join(" and "), port, limit_s: limit.as_secs(), last });
        }
    }
    Ok(())
}

/// Becomes the command: signals, terminal and exit code are its own, as if it had been typed. Returns only on failure.
#[cfg(unix)]
pub(crate) fn run(program: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(cannot_run(program, &Command::new(program).args(arguments).exec()))
}

/// Runs the command and takes over its exit code.
#[cfg(not(unix))]
pub(crate) fn run(program: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let status = Command::new(program).args(arguments).status().map_err(|error| cannot_run(program, &error))?;
    std::process::exit(status.code().unwrap_or(1))
}

fn cannot_run(program: &OsStr, error: &io::Error) -> anyhow::Error {
    anyhow!("the knock was sent, but `{}` cannot be run: {error}", program.display())
}
