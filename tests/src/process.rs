//! Commands that run to their end, and background processes that end with the value that owns them.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The output of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started. A failing command is not an error here; see [`Output::ok`].
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A background process. It is killed when this value is dropped, and by the kernel when the owning thread ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a command in a separate process group, so that it does not receive Ctrl-C of the terminal. Its output
    /// goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdout(log.try_clone()?);
        Self::start_with(name, command, log)
    }

    /// As [`Process::start`], with this standard error; the caller sets standard output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(name: &str, command: &mut Command, stderr: impl Into<Stdio>) -> anyhow::Result<Self> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child, name: name.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If the kernel refuses the query.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// CPU time of its present threads, to the nanosecond.
    ///
    /// # Errors
    /// If it has ended, or the kernel does not count (`CONFIG_SCHED_INFO`).
    pub fn on_core(&self) -> anyhow::Result<Duration> {
        let tasks = format!("/proc/{}/task", self.id());
        let mut total = Duration::ZERO;
        for task in fs::read_dir(&tasks).with_context(|| format!("{} has ended", self.name))? {
            // The fields are time on a core, time of waiting for a core, and number of turns: Linux
            // Documentation/scheduler/sched-stats.rst.
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
            total += Duration::from_nanos(nanos.with_context(|| format!("not a schedstat: {text}"))?);
        }
        Ok(total)
    }

    /// Kills it and waits until it has ended.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends this signal and waits for the end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a process has an id")?;
        if self.child.try_wait()?.is_none() {
            kill_process(pid, signal)?;
        }
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("{} did not end within 10 s of {signal:?}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
