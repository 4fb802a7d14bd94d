//! The kernel's fast path: which decisions it may apply, when it is on, and what it has carried.
//!
//! | module     | owns |
//! |------------|------|
//! | this       | the switch: suspension during changes, hanging workers, sides that cannot send |
//! | `trails`   | the numbers under which the kernel counts, and their counts |
//!
//! Workers hand flows to the kernel ([`crate::carrier`]). The tables and their conditions are those of
//! [`knockplane_ring::FastPath`]. A worker decides about each frame that comes up as without a fast path. In doubt a
//! frame comes up.

mod trails;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_policy::eval::tracking::{TcpState, timeout};
use knockplane_policy::packet::{Side, protocol};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::time::Time;
use knockplane_ring::{Buffers, Device, FastPath, FastPathSizes, LostFrames, RedirectLosses, XdpMode, XdpProgram};

use self::trails::TrailNumbers;
pub(crate) use self::trails::{CarriedFrames, GenerationTrails};
use crate::config::Config;

/// The number of epochs: 1 MiB. Addresses that share one end each other's verdicts, which only costs time.
pub(crate) const EPOCHS: usize = 1 << 18;

/// The fast path of one dataplane.
pub(crate) struct FastPathSwitch {
    /// `None` if there is no fast path.
    tables: Option<FastPath>,
    /// Counts frames that the kernel lost after it carried them.
    losses: OnceLock<RedirectLosses>,
    numbers: Mutex<TrailNumbers>,
    causes: Mutex<Causes>,
    /// Verdicts that were written.
    pub(crate) written: AtomicU64,
    /// Verdicts that found no place in the table.
    pub(crate) full: AtomicU64,
}

/// The causes that suspend the fast path. It is on while there are none.
#[derive(Debug, Default)]
struct Causes {
    /// Number of changes of rules or settings in progress.
    changes: u32,
    /// Whether a worker hangs. Operators are told that nothing passes on its queue.
    hangs: bool,
    /// The reason that it stays off, if it is.
    failure: Option<String>,
    /// For each side, the causes that no frames may leave there.
    sides: [SideCauses; 2],
}

/// The causes that no carried frames may leave on a side. They may while there are none.
#[derive(Debug, Default)]
struct SideCauses {
    link_is_down: bool,
    /// The reason that the interface cannot take redirected frames.
    unable: Option<String>,
    /// Whether the interface has refused frames since its link was last down or it was last unable.
    has_refused: bool,
    /// Refused frames, as of the last check.
    refused: u64,
    /// Whether frames may leave, as last written.
    may_send: bool,
}

impl SideCauses {
    /// The reason that no frames may leave.
    fn reason(&self, side: Side) -> Option<String> {
        if self.link_is_down {
            return Some(format!("the link on the {side} is down"));
        }
        let refusal = || format!("the kernel could not hand over frames that leave on the {side}");
        self.unable.clone().or_else(|| self.has_refused.then(refusal))
    }
}

impl Causes {
    fn is_on(&self) -> bool {
        self.changes == 0 && !self.hangs && self.failure.is_none()
    }
}

/// The state for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FastPathState {
    /// Whether verdicts count now.
    pub(crate) is_on: bool,
    /// The reason that it is off, or that frames cannot leave on a side.
    pub(crate) reason: Option<String>,
}

impl FastPathSwitch {
    /// No fast path, for this reason.
    pub(crate) fn off(reason: String) -> FastPathSwitch {
        let causes = Causes { failure: Some(reason), ..Causes::default() };
        FastPathSwitch {
            tables: None,
            losses: OnceLock::new(),
            numbers: Mutex::default(),
            causes: Mutex::new(causes),
            written: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// A fast path with these tables, which is on. No frames may leave before [`FastPathSwitch::watch_target`].
    fn on(tables: FastPath) -> FastPathSwitch {
        let switch = FastPathSwitch {
            numbers: Mutex::new(TrailNumbers::all()),
            causes: Mutex::new(Causes {
                sides: [(); 2]
                    .map(|()| SideCauses { unable: Some("not checked yet".to_owned()), ..SideCauses::default() }),
                ..Causes::default()
            }),
            ..FastPathSwitch::off(String::new())
        };
        tables.resume();
        FastPathSwitch { tables: Some(tables), ..switch }
    }

    /// A fast path without a count of losses, for test runs of the program. Frames may leave on both sides.
    #[cfg(test)]
    pub(crate) fn for_tests(tables: FastPath) -> FastPathSwitch {
        Side::ALL.into_iter().for_each(|side| tables.set_may_send(side, true));
        tables.resume();
        FastPathSwitch {
            numbers: Mutex::new(TrailNumbers::all()),
            causes: Mutex::default(),
            tables: Some(tables),
            ..FastPathSwitch::off(String::new())
        }
    }

    fn causes(&self) -> MutexGuard<'_, Causes> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables, if there is a fast path.
    pub(crate) fn tables(&self) -> Option<&FastPath> {
        self.tables.as_ref()
    }

    /// The generation of verdicts that count now; `None` while the fast path is off. A worker reads it before the rules
    /// of a turn.
    #[inline]
    pub(crate) fn generation(&self) -> Option<u32> {
        self.tables.as_ref()?.generation()
    }

    /// The state.
    pub(crate) fn state(&self) -> FastPathState {
        let causes = self.causes();
        let reason = causes.failure.clone().or_else(|| {
            let blocked = Side::ALL.into_iter().filter_map(|side| causes.sides[side.index()].reason(side));
            causes.hangs.then(|| "a worker hangs".to_owned()).into_iter().chain(blocked).next()
        });
        FastPathState { is_on: causes.is_on(), reason }
    }

    /// Makes a change after which no earlier verdict counts: of rules or settings. While it lasts, all
    /// frames come up. When it begins, no program applies an earlier verdict any more.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let Some(tables) = &self.tables else { return change() };
        self.causes().changes += 1;
        tables.suspend();
        self.wait(tables);
        let changed = change();
        let mut causes = self.causes();
        causes.changes -= 1;
        self.resume(tables, &causes);
        changed
    }

    /// Sets the times after which connections expire under these rules. Called while the fast path is suspended, or before
    /// it carries flows.
    pub(crate) fn follow(&self, rules: &RuleSet) {
        if let Some(tables) = &self.tables {
            let of_tcp = timeout(&rules.tracking, protocol::TCP, Some(TcpState::Established), true);
            tables.set_timeouts([of_tcp, timeout(&rules.tracking, protocol::UDP, None, true)]);
        }
    }

    /// Returns when no frame passes any more by a verdict that ended before this call: when entries of lists were removed,
    /// for example.
    pub(crate) fn settle(&self) {
        if let Some(tables) = &self.tables {
            self.wait(tables);
        }
    }

    /// Counts carried frames that are lost, from now on. Called before frames may leave. If the kernel does not permit it,
    /// the fast path ends: a target that refuses frames would lose all of them without a trace.
    pub(crate) fn count_losses(&self, devices: [&Device; 2], programs: &[XdpProgram; 2]) {
        let Some(tables) = &self.tables else { return };
        // One program is attached to both interfaces.
        match RedirectLosses::attach(devices, &programs[0]) {
            Ok(losses) => _ = self.losses.set(losses),
            Err(error) => self.fail(tables, error.to_string()),
        }
    }

    /// Ends the fast path.
    fn fail(&self, tables: &FastPath, reason: String) {
        tracing::error!("the fast path is off: {reason}");
        tables.suspend();
        self.causes().failure = Some(reason);
    }

    /// Suspends the fast path while a worker hangs.
    pub(crate) fn watch_workers(&self, hangs: bool) {
        let Some(tables) = &self.tables else { return };
        let mut causes = self.causes();
        if std::mem::replace(&mut causes.hangs, hangs) == hangs {
            return;
        }
        if hangs {
            tables.suspend();
        } else {
            self.resume(tables, &causes);
        }
    }

    fn resume(&self, tables: &FastPath, causes: &Causes) {
        if causes.is_on() {
            tables.resume();
        }
    }

    /// Waits for the programs that run. If the kernel does not permit that, the fast path ends.
    fn wait(&self, tables: &FastPath) {
        let waited: io::Result<()> = tables.wait_for_programs();
        if let Err(error) = waited {
            self.fail(tables, format!("the kernel does not wait for running programs: {error}"));
        }
    }

    /// Notes whether a side's link is up.
    pub(crate) fn watch_link(&self, side: Side, is_up: bool) {
        self.watch_side(side, |causes| causes.link_is_down = !is_up);
    }

    /// Notes the reason that a side's interface cannot take redirected frames, if there is one.
    pub(crate) fn watch_target(&self, side: Side, unable: Option<String>) {
        self.watch_side(side, |causes| causes.unable = unable);
    }

    /// Permits frames to leave on a side, or forbids it. After a refused frame, it stays forbidden until the state of the
    /// link or of the interface has changed.
    fn watch_side(&self, side: Side, note: impl FnOnce(&mut SideCauses)) {
        let Some(tables) = &self.tables else { return };
        let refused = self.lost(side).errors;
        let mut causes = self.causes();
        let causes = &mut causes.sides[side.index()];
        let before = causes.reason(side);
        note(causes);
        causes.has_refused |= std::mem::replace(&mut causes.refused, refused) != refused;
        causes.has_refused &= !causes.link_is_down && causes.unable.is_none();
        let reason = causes.reason(side);
        // Only written on a change: the kernel forbids it at the first refused frame.
        if std::mem::replace(&mut causes.may_send, reason.is_none()) != reason.is_none() {
            tables.set_may_send(side, reason.is_none());
        }
        if reason != before {
            match &reason {
                Some(reason) => tracing::info!(%side, "the fast path sends no frames on this side: {reason}"),
                None => tracing::info!(%side, "the fast path may send frames on this side"),
            }
        }
    }

    /// The number of flows that the kernel carries now: IPv4, IPv6. `None` without a fast path. Reads the whole table.
    pub(crate) fn flows(&self, now: Time) -> Option<[u64; 2]> {
        self.tables.as_ref().map(|tables| tables.flows(now))
    }

    /// Carried frames that were lost on this side of departure.
    pub(crate) fn lost(&self, side: Side) -> LostFrames {
        self.losses.get().map(|losses| losses.of(side)).unwrap_or_default()
    }

    /// Counts the outcome of a verdict's write.
    pub(crate) fn count(&self, is_stored: bool) {
        let counter = if is_stored { &self.written } else { &self.full };
        counter.fetch_add(1, Relaxed);
    }

    fn numbers(&self) -> MutexGuard<'_, TrailNumbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sizes of the tables.
///
/// # Errors
/// The reason that there is no fast path, in words.
pub(crate) fn sizes(config: &Config, buffers: &Buffers) -> Result<FastPathSizes, String> {
    let flows = config.fast_path_flows.ok_or_else(|| "fast-path = \"off\" in the configuration".to_owned())?;
    if cfg!(not(target_arch = "x86_64")) {
        // The program reads a verdict while a worker may write it, and relies on the order of loads.
        return Err("it needs an x86-64 processor".to_owned());
    }
    if buffers.copy_reason().is_none() {
        return Err("the interfaces may use zero-copy, with which it has not been measured".to_owned());
    }
    Ok(FastPathSizes { flows: [flows; 2], epochs: EPOCHS, records: ConnectionTable::slots(config.connection_capacity) })
}

/// The fast path of a program that is attached to both interfaces. Logs the reason if there is none.
pub(crate) fn switch(tables: Result<FastPath, String>, programs: &[XdpProgram; 2]) -> FastPathSwitch {
    let is_native = programs.iter().all(|program| program.mode() == XdpMode::Native);
    let generic = || "an interface has generic XDP".to_owned();
    match tables.and_then(|tables| is_native.then_some(tables).ok_or_else(generic)) {
        Ok(tables) => FastPathSwitch::on(tables),
        Err(reason) => {
            tracing::info!("no fast path: {reason}");
            FastPathSwitch::off(reason)
        }
    }
}

/// The fast path that all threads share.
pub(crate) type SharedFastPath = Arc<FastPathSwitch>;
