//! The queue of lines for the writer, with a bounded number of bytes for each kind.
//!
//! If the room of a kind is full, only new lines of this kind are lost. The lock is held for a push or a pop, never
//! during a write.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::kind::LogKind;
use crate::losses::{Loss, Losses, RuleName};

/// Number of bytes of waiting lines of one kind above which further lines are lost. It is room for more than a thousand
/// lines about doors, and four times the size of a pipe. All kinds together use at most 2 MiB.
pub(crate) const ROOM: usize = 256 << 10;

/// Maximum length of a line in bytes. Longer lines are truncated.
pub(crate) const MAX_LINE: usize = 64 << 10;

/// Time between two reports of losses.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Time after which the reader of a write in progress counts as stalled.
const STALLED: Duration = Duration::from_secs(1);

/// A formatted line with its line end.
#[derive(Debug)]
pub(crate) struct LogLine {
    pub(crate) kind: LogKind,
    /// The rule that logged the packet.
    pub(crate) rule: Option<RuleName>,
    pub(crate) text: Vec<u8>,
}

/// The state of a process's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    lost: [u64; LogKind::ALL.len()],
    /// Number of lines that wait for the writer.
    pub waiting: usize,
    /// The reason that lines are not written now; `None` if they are.
    pub problem: Option<String>,
}

impl LogState {
    /// Lines lost since start, by kind; all kinds are present.
    pub fn lost(&self) -> impl Iterator<Item = (LogKind, u64)> {
        LogKind::ALL.into_iter().zip(self.lost)
    }
}

/// The writer's next task.
#[derive(Debug)]
pub(crate) enum WriterTask {
    /// Write this line.
    Line(LogLine),
    /// Report these losses.
    Report(Losses),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct LineQueue {
    state: Mutex<QueueState>,
    /// Signals the writer that there is work.
    work: Condvar,
    /// Signals flushing threads that no line waits.
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<LogLine>,
    /// Bytes in `lines`.
    waiting: [usize; LogKind::ALL.len()],
    /// The time when the writer took the line that it is writing.
    writing: Option<Instant>,
    lost: [u64; LogKind::ALL.len()],
    unreported: Losses,
    /// The time of the last report of losses, or of the last attempt.
    reported: Option<Instant>,
    /// Set while a thread waits until everything is written. Losses are then reported at once.
    flush: Option<Flush>,
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Lines,
    /// Only the report remained, and the writer has attempted it.
    Reported,
}

impl LineQueue {
    /// Appends a line, or counts it as lost if its kind has no room.
    pub(crate) fn push(&self, mut line: LogLine) {
        if line.text.len() > MAX_LINE {
            let cut = line.text.len() - MAX_LINE;
            line.text.truncate(MAX_LINE);
            line.text.extend_from_slice(format!("… ({cut} bytes cut)\n").as_bytes());
        }
        let mut state = self.lock();
        if !state.has_room(line.kind) {
            state.lose(Loss { kind: line.kind, rule: line.rule.as_ref(), lines: 1 });
            drop(state);
            // The loss must be reported.
            self.work.notify_one();
            return;
        }
        state.append(line);
        drop(state);
        self.work.notify_one();
    }

    /// Appends text of any length, even if the queue is full.
    pub(crate) fn push_whole(&self, text: &str) {
        self.push_whole_into(self.lock(), text);
    }

    /// As [`LineQueue::push_whole`], but waits for the lock at most for the given time: for a panicking thread, which
    /// may hold the lock.
    pub(crate) fn push_whole_within(&self, within: Duration, text: &str) {
        if let Some(state) = self.lock_until(Some(Instant::now() + within)) {
            self.push_whole_into(state, text);
        }
    }

    fn push_whole_into(&self, mut state: MutexGuard<'_, QueueState>, text: &str) {
        state.append(LogLine { kind: LogKind::Other, rule: None, text: text.into() });
        drop(state);
        self.work.notify_one();
    }

    /// Whether there is room for another line of this kind.
    pub(crate) fn has_room(&self, kind: LogKind) -> bool {
        self.lock().has_room(kind)
    }

    /// Counts lines as lost.
    pub(crate) fn lose(&self, kind: LogKind, rule: Option<&RuleName>, lines: u64) {
        self.lock().lose(Loss { kind, rule, lines });
        self.work.notify_one();
    }

    /// The state of the log.
    pub(crate) fn status(&self) -> LogState {
        let state = self.lock();
        let stalled = state.writing.map(|since| since.elapsed()).filter(|stalled| *stalled > STALLED);
        LogState {
            lost: state.lost,
            waiting: state.lines.len() + usize::from(state.writing.is_some()),
            problem: match stalled {
                Some(stalled) => Some(format!("standard error has not been read for {} s", stalled.as_secs())),
                None => state.problem.clone(),
            },
        }
    }

    /// Waits until no line and no report waits. Returns whether that was in time.
    pub(crate) fn flush(&self, within: Option<Duration>) -> bool {
        let until = within.map(|within| Instant::now() + within);
        let Some(mut state) = self.lock_until(until) else { return false };
        if state.writing.is_none() && state.lines.is_empty() && state.unreported.is_empty() {
            return true;
        }
        state.flush = Some(Flush::Lines);
        self.work.notify_one();
        while state.flush.is_some() {
            state = match until {
                None => self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.flushed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    /// For the writer: waits for work.
    pub(crate) fn next(&self) -> WriterTask {
        let mut state = self.lock();
        loop {
            let due = state.report_due();
            let is_due = due.is_some_and(|due| due.is_zero());
            if is_due || (state.flush == Some(Flush::Lines) && state.lines.is_empty()) {
                state.reported = Some(Instant::now());
                if state.flush.is_some() && state.lines.is_empty() {
                    state.flush = Some(Flush::Reported);
                }
                if !state.unreported.is_empty() {
                    return WriterTask::Report(state.unreported.clone());
                }
            }
            if let Some(line) = state.lines.pop_front() {
                state.waiting[line.kind as usize] -= line.text.len();
                state.writing = Some(Instant::now());
                return WriterTask::Line(line);
            }
            if state.flush == Some(Flush::Reported) {
                state.flush = None;
                self.flushed.notify_all();
                continue;
            }
            state = match due {
                Some(due) => self.work.wait_timeout(state, due).unwrap_or_else(PoisonError::into_inner).0,
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// For the writer: records that the line was written, or lost for this reason.
    pub(crate) fn written(&self, line: &LogLine, problem: Option<String>) {
        let mut state = self.lock();
        state.writing = None;
        if problem.is_some() {
            state.lose(Loss { kind: line.kind, rule: line.rule.as_ref(), lines: 1 });
        }
        state.problem = problem;
    }

    /// For the writer: records that a loss was reported, or cannot be reported yet for this reason.
    pub(crate) fn reported(&self, loss: Loss<'_>, problem: Option<String>) {
        let mut state = self.lock();
        if problem.is_none() {
            state.unreported.remove(loss);
        }
        state.problem = problem;
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock; `None` if it is not free by this time.
    fn lock_until(&self, until: Option<Instant>) -> Option<MutexGuard<'_, QueueState>> {
        let Some(until) = until else { return Some(self.lock()) };
        loop {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl QueueState {
    fn has_room(&self, kind: LogKind) -> bool {
        self.waiting[kind as usize] < ROOM
    }

    fn append(&mut self, line: LogLine) {
        self.waiting[line.kind as usize] += line.text.len();
        self.lines.push_back(line);
    }

    fn lose(&mut self, loss: Loss<'_>) {
        let lost = &mut self.lost[loss.kind as usize];
        *lost = lost.saturating_add(loss.lines);
        self.unreported.add(loss);
    }

    /// The time until the next report of losses; `None` if there are none.
    fn report_due(&self) -> Option<Duration> {
        if self.unreported.is_empty() {
            return None;
        }
        Some(self.reported.map_or(Duration::ZERO, |last| REPORT_EVERY.saturating_sub(last.elapsed())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> RuleName {
        RuleName { id: "a".into(), number: "ip filter 1".into() }
    }

    fn line(kind: LogKind, text: &str) -> LogLine {
        LogLine { kind, rule: (kind == LogKind::Packet).then(rule), text: text.into() }
    }

    fn lost(queue: &LineQueue, kind: LogKind) -> u64 {
        queue.status().lost().find(|(of, _)| *of == kind).map_or(0, |(_, lines)| lines)
    }

    #[test]
    fn packet_lines_displace_no_others_and_the_order_stays() {
        let queue = LineQueue::default();
        let packet = "x".repeat(1023) + "\n";
        let packets = 2 * ROOM / packet.len();
        for _ in 0..packets {
            queue.push(line(LogKind::Packet, &packet));
        }
        assert!(!queue.has_room(LogKind::Packet) && queue.has_room(LogKind::Door));
        for kind in LogKind::ALL.into_iter().filter(|kind| *kind != LogKind::Packet) {
            queue.push(line(kind, kind.name()));
        }
        assert_eq!(lost(&queue, LogKind::Packet), (packets - ROOM / packet.len()) as u64);
        assert_eq!(queue.status().lost().map(|(_, lines)| lines).sum::<u64>(), lost(&queue, LogKind::Packet));
        let WriterTask::Report(losses) = queue.next() else { panic!("losses are reported") };
        let reported: Vec<_> = losses.iter().collect();
        assert_eq!(
            reported,
            [Loss { kind: LogKind::Packet, rule: Some(&rule()), lines: lost(&queue, LogKind::Packet) }]
        );
        let mut kinds = Vec::new();
        while queue.status().waiting > 0 {
            let WriterTask::Line(taken) = queue.next() else { continue };
            queue.written(&taken, None);
            kinds.push(taken.kind);
        }
        kinds.dedup();
        assert_eq!(
            kinds,
            [LogKind::Packet, LogKind::Door, LogKind::List, LogKind::Operator, LogKind::Other, LogKind::Debug]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_ends() {
        let queue = LineQueue::default();
        queue.push(line(LogKind::Other, &("x".repeat(MAX_LINE) + "yy\n")));
        let WriterTask::Line(cut) = queue.next() else { panic!("a line") };
        assert!(cut.text.ends_with("x… (3 bytes cut)\n".as_bytes()), "{}", cut.text.len());
        let whole = "x".repeat(2 * ROOM);
        queue.push_whole(&whole);
        queue.push_whole("the end");
        for expected in [&*whole, "the end"] {
            let WriterTask::Line(line) = queue.next() else { panic!("a line") };
            assert_eq!(line.text, expected.as_bytes());
        }
    }

    #[test]
    fn a_flush_without_a_writer_ends_in_time() {
        let queue = LineQueue::default();
        assert!(queue.flush(Some(Duration::ZERO)), "nothing waits");
        queue.push(line(LogKind::Other, "never written"));
        let began = Instant::now();
        assert!(!queue.flush(Some(Duration::from_millis(50))));
        assert!(began.elapsed() >= Duration::from_millis(50));
        let _held = queue.lock();
        assert!(!queue.flush(Some(Duration::from_millis(50))), "a flush that does not get the lock ends as well");
    }
}
