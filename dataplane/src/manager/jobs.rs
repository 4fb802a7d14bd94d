//! The manager's interface to the administration's thread: at most one job at a time.
//!
//! Requests wait in their connections, one in each. The number of connections therefore bounds the queue, and a request
//! whose connection closes before its turn does not run.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use mio::{Registry, Token, Waker};

use crate::administration::{Administration, AnswerLine, Job};

/// The manager's ends of the channels to the thread.
pub(super) struct Jobs {
    jobs: Sender<Job>,
    answers: Receiver<AnswerLine>,
    is_busy: bool,
    thread: JoinHandle<()>,
}

impl Jobs {
    /// Starts the thread. An event with this token indicates an answer.
    ///
    /// # Errors
    /// If the kernel provides no thread or descriptor.
    pub(super) fn start(administration: Administration, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let waker = Arc::new(Waker::new(registry, token).context("cannot make an event descriptor")?);
        let (jobs, received) = channel();
        let (sent, answers) = channel();
        let run = move || {
            // The manager also checks at every tick.
            administration.run(&received, &sent, || _ = waker.wake());
        };
        let thread = thread::Builder::new().name("administration".to_owned()).spawn(run);
        Ok(Jobs { jobs, answers, is_busy: false, thread: thread.context("cannot start a thread")? })
    }

    /// Whether a job is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Begins a job. The caller ensures that no job is in progress.
    pub(super) fn begin(&mut self, job: Job) {
        debug_assert!(!self.is_busy, "one job at a time");
        self.is_busy = self.jobs.send(job).is_ok();
    }

    /// The answer to the job; `None` while the job is in progress.
    pub(super) fn answer(&mut self) -> Option<AnswerLine> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.is_busy = false;
                Some(answer)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Ends the thread. A thread with a job in progress ends with the process, as in a kill.
    pub(super) fn end(self) {
        let Jobs { jobs, is_busy, thread, .. } = self;
        drop(jobs);
        if is_busy {
            tracing::error!("a change did not end in time, and may be lost");
        } else if thread.join().is_err() {
            // Not reached: a panic aborts the process.
            tracing::error!("the administration has panicked");
        }
    }
}
