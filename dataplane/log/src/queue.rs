//! The queue of lines for the writer, with a bounded number of bytes for each kind.
//!
//! If the room of a kind is full, only new lines of this kind are lost. The lock is held for a push or a pop, never
//! during a write.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::kind::Kind;
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
pub(crate) struct Line {
    pub(crate) kind: Kind,
    /// The rule that logged the packet.
    pub(crate) rule: Option<RuleName>,
    pub(crate) text: Vec<u8>,
}

/// The state of a process's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    lost: [u64; Kind::ALL.len()],
    /// Number of lines that wait for the writer.
    pub waiting: usize,
    /// The reason that lines are not written now; `None` if they are.
    pub problem: Option<String>,
}

impl Status {
    /// Lines lost since start, by kind; all kinds are present.
    pub fn lost(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.lost)
    }
}

/// The writer's next task.
#[derive(Debug)]
pub(crate) enum Work {
    /// Write this line.
    Line(Line),
    /// Report these losses.
    Report(Losses),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Signals the writer that there is work.
    work: Condvar,
    /// Signals flushing threads that no line waits.
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// Bytes in `lines`.
    waiting: [usize; Kind::ALL.len()],
    /// The time when the writer took the line that it is writing.
    writing: Option<Instant>,
    lost: [u64; Kind::ALL.len()],
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

impl Queue {
    /// Appends a line, or counts it as lost if its kind has no room.
    pub(crate) fn push(&self, mut line: Line) {
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

    /// As [`Queue::push_whole`], but waits for the lock at most for the given time: for a panicking thread, which may
    /// hold the lock.
    pub(crate) fn push_whole_within(&self, within: Duration, text: &str) {
        if let Some(state) = self.lock_until(Some(Instant::now() + within)) {
            self.push_whole_into(state, text);
        }
    }

    fn push_whole_into(&self, mut state: MutexGuard<'_, State>, text: &str) {
        state.append(Line { kind: Kind::Other, rule: None, text: text.into() });
        drop(state);
        self.work.notify_one();
    }

    /// Whether there is room for another line of this kind.
    pub(crate) fn has_room(&self, kind: Kind) -> bool {
        self.lock().has_room(kind)
    }

    /// Counts lines as lost.
    pub(crate) fn lose(&self, kind: Kind, rule: Option<&RuleName>, lines: u64) {
        self.lock().lose(Loss { kind, rule, lines });
        self.work.notify_one();
    }

    /// The state of the log.
    pub(crate) fn status(&self) -> Status {
        let state = self.lock();
        let stalled = state.writing.map(|since| since.elapsed()).filter(|stalled| *stalled > STALLED);
        Status {
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
    pub(crate) fn next(&self) -> Work {
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
                    return Work::Report(state.unreported.clone());
                }
            }
            if let Some(line) = state.lines.pop_front() {
                state.waiting[line.kind as usize] -= line.text.len();
                state.writing = Some(Instant::now());
                return Work::Line(line);
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
    pub(crate) fn written(&self, line: &Line, problem: Option<String>) {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock; `None` if it is not free by this time.
    fn lock_until(&self, until: Option<Instant>) -> Option<MutexGuard<'_, State>> {
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

impl State {
    fn has_room(&self, kind: Kind) -> bool {
        self.waiting[kind as usize] < ROOM
    }

    fn append(&mut self, line: Line) {
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

    fn line(kind: Kind, text: &str) -> Line {
        Line { kind, rule: (kind == Kind::Packet).then(rule), text: text.into() }
    }

    fn lost(queue: &Queue, kind: Kind) -> u64 {
        queue.status().lost().find(|(of, _)| *of == kind).map_or(0, |(_, lines)| lines)
    }

    #[test]
    fn packet_lines_displace_no_others_and_the_order_stays() {
        let queue = Queue::default();
        let packet = "x".repeat(1023) + "\n";
        let packets = 2 * ROOM / packet.len();
        for _ in 0..packets {
            queue.push(line(Kind::Packet, &packet));
        }
        assert!(!queue.has_room(Kind::Packet) && queue.has_room(Kind::Door));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Packet) {
            queue.push(line(kind, kind.name()));
        }
        assert_eq!(lost(&queue, Kind::Packet), (packets - ROOM / packet.len()) as u64);
        assert_eq!(queue.status().lost().map(|(_, lines)| lines).sum::<u64>(), lost(&queue, Kind::Packet));
        let Work::Report(losses) = queue.next() else { panic!("losses are reported") };
        let reported: Vec<_> = losses.iter().collect();
        assert_eq!(reported, [Loss { kind: Kind::Packet, rule: Some(&rule()), lines: lost(&queue, Kind::Packet) }]);
        let mut kinds = Vec::new();
        while queue.status().waiting > 0 {
            let Work::Line(taken) = queue.next() else { continue };
            queue.written(&taken, None);
            kinds.push(taken.kind);
        }
        kinds.dedup();
        assert_eq!(kinds, [Kind::Packet, Kind::Door, Kind::List, Kind::Operator, Kind::Other, Kind::Debug]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_ends() {
        let queue = Queue::default();
        queue.push(line(Kind::Other, &("x".repeat(MAX_LINE) + "yy\n")));
        let Work::Line(cut) = queue.next() else { panic!("a line") };
        assert!(cut.text.ends_with("x… (3 bytes cut)\n".as_bytes()), "{}", cut.text.len());
        let whole = "x".repeat(2 * ROOM);
        queue.push_whole(&whole);
        queue.push_whole("the end");
        for expected in [&*whole, "the end"] {
            let Work::Line(line) = queue.next() else { panic!("a line") };
            assert_eq!(line.text, expected.as_bytes());
        }
    }

    #[test]
    fn a_flush_without_a_writer_ends_in_time() {
        let queue = Queue::default();
        assert!(queue.flush(Some(Duration::ZERO)), "nothing waits");
        queue.push(line(Kind::Other, "never written"));
        let began = Instant::now();
        assert!(!queue.flush(Some(Duration::from_millis(50))));
        assert!(began.elapsed() >= Duration::from_millis(50));
        let _held = queue.lock();
        assert!(!queue.flush(Some(Duration::from_millis(50))), "a flush that does not get the lock ends as well");
    }
}
