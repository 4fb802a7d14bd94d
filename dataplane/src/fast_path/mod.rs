//! The kernel's fast path: which decisions it may apply, when it is on, and what it has carried.
//!
//! | module     | owns |
//! |------------|------|
//! | this       | the switch: changes of rules, hanging workers |
//! | `departures` | whether frames may leave on a side |
//! | `trails`   | the numbers under which the kernel counts, and their counts |
//! | `strangers` | the drops of strangers under a generation of rules |
//! | `ticks`    | when frames that went up are decided |
//!
//! Workers hand flows to the kernel ([`crate::carrier`]). The tables and their conditions are those of
//! [`knockplane_ring::FastPath`]. A worker decides about each frame that comes up as without a fast path. In doubt a
//! frame comes up.

mod departures;
mod strangers;
mod sync;
mod ticks;
mod trails;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use knockplane_engine::state::connections::ConnectionTable;
use knockplane_engine::state::lists::Lists;
use knockplane_engine::table::RuleTable;
use knockplane_policy::eval::tracking::{TcpState, timeout};
use knockplane_policy::packet::{Side, protocol};
use knockplane_policy::time::Time;
use knockplane_policy::wire::KernelVerdict;
use knockplane_ring::{
    Buffers, Device, FastPath, FastPathSizes, Flow, LostFrames, RedirectLosses, XdpMode, XdpProgram,
};

use self::departures::Departures;
pub(crate) use self::strangers::GenerationStrangers;
use self::ticks::Ticks;
use self::trails::TrailNumbers;
pub(crate) use self::trails::{GenerationTrails, KernelFrames};
use crate::config::Config;

/// The number of epochs: 1 MiB. Addresses that share one end each other's verdicts, which only costs time.
pub(crate) const EPOCHS: usize = 1 << 18;

/// The number of places of each family in which a scrape counts flows: all places with the default size and two queues. It
/// takes some milliseconds.
const SAMPLED_PLACES: usize = 1 << 18;

/// The fewest and the most places of sources: a bit each. A larger table would not stay in a cache.
const SOURCES: (usize, usize) = (1 << 16, 1 << 21);

/// The fast path of one dataplane.
pub(crate) struct FastPathSwitch {
    /// `None` if there is no fast path.
    tables: Option<FastPath>,
    /// Counts frames that the kernel lost after it carried them.
    losses: OnceLock<RedirectLosses>,
    numbers: Mutex<TrailNumbers>,
    causes: Mutex<Causes>,
    ticks: Ticks,
    /// The interval of the port budget, in nanoseconds.
    port_interval: AtomicU64,
    /// The number of dropped frames at the last look, and the time of the look that found more than the one before.
    drops: Mutex<(u64, Time)>,
    /// The source of which every frame goes up.
    watched: Mutex<Option<IpAddr>>,
    /// The strangers whose frames go up because a trace shows them.
    traced: Mutex<Option<TracedStrangers>>,
    /// Verdicts that were written.
    pub(crate) written: AtomicU64,
    /// Verdicts that found no place in the table.
    pub(crate) full: AtomicU64,
}

/// The causes that suspend the fast path. It is on while there are none.
#[derive(Debug, Default)]
struct Causes {
    /// Whether the attached program has no fast path yet.
    is_loading: bool,
    /// Whether a worker hangs. Operators are told that nothing passes on its queue.
    hangs: bool,
    /// The reason that it stays off, if it is.
    failure: Option<String>,
    /// For each side, the causes that no frames may leave there.
    sides: [Departures; 2],
}

impl Causes {
    fn is_on(&self) -> bool {
        !self.is_loading && !self.hangs && self.failure.is_none()
    }
}

/// The strangers whose frames go up because a trace shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TracedStrangers {
    /// None: the trace shows no dropped packets.
    None,
    /// Those between these addresses.
    Between(Vec<(IpAddr, IpAddr)>),
    /// All.
    All,
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
            ticks: Ticks::new(0),
            port_interval: AtomicU64::new(u64::MAX),
            drops: Mutex::default(),
            watched: Mutex::default(),
            traced: Mutex::default(),
            written: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// A fast path with these tables, which [`FastPathSwitch::begin`] turns on. No frames may leave before
    /// [`FastPathSwitch::watch_target`].
    fn with(tables: FastPath, workers: usize) -> FastPathSwitch {
        FastPathSwitch {
            ticks: Ticks::new(workers),
            numbers: Mutex::new(TrailNumbers::all()),
            causes: Mutex::new(Causes {
                is_loading: true,
                sides: [(); 2].map(|()| Departures::unable("not checked yet")),
                ..Causes::default()
            }),
            tables: Some(tables),
            ..FastPathSwitch::off(String::new())
        }
    }

    /// A fast path without a count of losses, for test runs of the program. Frames may leave on both sides.
    #[cfg(test)]
    pub(crate) fn for_tests(tables: FastPath) -> FastPathSwitch {
        Side::ALL.into_iter().for_each(|side| tables.set_may_send(side, true));
        tables.resume();
        FastPathSwitch {
            ticks: Ticks::new(1),
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
            let loading = causes.is_loading.then(|| "its program is being loaded".to_owned());
            let hangs = causes.hangs.then(|| "a worker hangs".to_owned());
            loading.or(hangs).into_iter().chain(blocked).next()
        });
        FastPathState { is_on: causes.is_on(), reason }
    }

    /// Swaps the rules or settings for those of this table. After [`FastPathSwitch::settle`], no frame passes by a verdict of the
    /// rules before.
    ///
    /// Flows stay in the kernel meanwhile: their verdicts count until the swap is done, and a worker decides about the next packet
    /// of each. Strangers' frames come up until the workers have decided all that are on their way.
    pub(crate) fn change<T>(
        &self,
        table: &RuleTable,
        strangers: &GenerationStrangers,
        lists: &Lists,
        swap: impl FnOnce() -> T,
    ) -> T {
        let Some(tables) = &self.tables else { return swap() };
        if tables.strangers().set_on(false) {
            // The tables of the drops change in place, so that no program may drop meanwhile.
            self.wait(tables);
        }
        let drops = self.write_rules(tables, table, strangers, lists);
        let swapped = swap();
        // A worker reads the generation before the rules: verdicts of the next generation are by the new rules.
        self.resume(tables, &self.causes());
        tables.strangers().set_on(drops);
        swapped
    }

    /// Tells the kernel what it needs to know of the first rules. Called before it carries flows.
    pub(crate) fn follow(&self, table: &RuleTable, strangers: &GenerationStrangers, lists: &Lists) {
        let Some(tables) = &self.tables else { return };
        let drops = self.write_rules(tables, table, strangers, lists);
        tables.strangers().set_on(drops);
    }

    /// Writes what the kernel needs to know of the rules: the times after which connections expire, and the drops of
    /// strangers. Called while it drops no frames of strangers. Returns whether it may drop any.
    fn write_rules(
        &self,
        tables: &FastPath,
        table: &RuleTable,
        strangers: &GenerationStrangers,
        lists: &Lists,
    ) -> bool {
        let tracking = &table.rules().tracking;
        let of_tcp = timeout(tracking, protocol::TCP, Some(TcpState::Established), true);
        tables.set_timeouts([of_tcp, timeout(tracking, protocol::UDP, None, true)]);
        let interval = table.settings().port_budget.within.as_nanos();
        self.port_interval.store(interval.try_into().unwrap_or(u64::MAX).max(1), Relaxed);
        let drops = strangers.install(table, lists, tables.strangers());
        if let Some(source) = *self.watched.lock().unwrap_or_else(PoisonError::into_inner) {
            tables.strangers().networks().name(source, source);
        }
        match &*self.traced() {
            None | Some(TracedStrangers::None) => drops,
            Some(TracedStrangers::All) => false,
            Some(TracedStrangers::Between(ranges)) => {
                let networks = tables.strangers().networks();
                ranges.iter().for_each(|(first, last)| networks.name(*first, *last));
                drops
            }
        }
    }

    fn traced(&self) -> MutexGuard<'_, Option<TracedStrangers>> {
        self.traced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a trace lets flows and strangers go up.
    pub(crate) fn is_traced(&self) -> bool {
        self.tables.is_some() && self.traced().is_some()
    }

    /// Lets the frames of these strangers go up while a trace runs, or ends that. Returns when no frame passes by an earlier
    /// verdict any more: workers decide about each flow again, and do not hand over those that a trace shows.
    pub(crate) fn trace(
        &self,
        traced: Option<TracedStrangers>,
        (table, strangers, lists): (&RuleTable, &GenerationStrangers, &Lists),
    ) {
        *self.traced() = traced;
        self.change(table, strangers, lists, || {});
        self.settle();
    }

    /// Lets every frame of this source go up, instead of those of the source before. Returns when none is dropped any more.
    pub(crate) fn watch(&self, source: IpAddr) {
        let Some(tables) = &self.tables else { return };
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
        tables.strangers().networks().name(source, source);
        self.wait(tables);
    }

    /// A time after the last frame that the kernel dropped; 0 if it dropped none. `dropped` is their number now.
    pub(crate) fn last_drop(&self, dropped: u64, now: Time) -> Time {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if drops.0 < dropped {
            *drops = (dropped, now);
        }
        drops.1
    }

    /// The tick, which a worker reads before it receives the frames of a turn.
    #[inline]
    pub(crate) fn tick(&self) -> u32 {
        self.ticks.now()
    }

    /// Notes that a worker has decided all frames that went up before a tick.
    #[inline]
    pub(crate) fn report(&self, worker: usize, tick: u32, now: Time) {
        if let (Some(next), Some(tables)) = (self.ticks.report(worker, tick, now), &self.tables) {
            let interval = now.as_nanos() / self.port_interval.load(Relaxed);
            tables.strangers().begin_tick(next, interval as u32);
        }
    }

    /// Returns when no frame passes any more by a verdict that ended before this call: when entries of lists were removed,
    /// for example.
    pub(crate) fn settle(&self) {
        if let Some(tables) = &self.tables {
            self.wait(tables);
        }
    }

    /// Replaces the programs by one with the fast path, and turns the fast path on. Workers forward frames meanwhile: the kernel
    /// takes tens of milliseconds to verify that program. Counts carried frames that are lost, from now on: a target that
    /// refuses frames would lose all of them without a trace. If the kernel does not permit one of these, the fast path ends.
    pub(crate) fn begin(&self, devices: [&Device; 2], programs: &mut [XdpProgram; 2]) {
        let Some(tables) = &self.tables else { return };
        // One program is attached to both interfaces.
        let begun =
            XdpProgram::add_fast_path(programs, tables).and_then(|()| RedirectLosses::attach(devices, &programs[0]));
        match begun {
            Ok(losses) => {
                _ = self.losses.set(losses);
                let mut causes = self.causes();
                causes.is_loading = false;
                self.resume(tables, &causes);
            }
            Err(error) => self.fail(tables, error.to_string()),
        }
    }

    /// Ends the fast path.
    fn fail(&self, tables: &FastPath, reason: String) {
        tracing::error!("the fast path is off: {reason}");
        // Under the lock, so that nothing resumes in between.
        let mut causes = self.causes();
        causes.failure = Some(reason);
        causes.is_loading = false;
        tables.suspend();
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
    pub(crate) fn watch_link(&self, side: Side, is_up: bool, now: Time) {
        self.watch_side(side, now, |departures| departures.link_is_down = !is_up);
    }

    /// Notes the reason that a side's interface cannot take redirected frames, if there is one.
    pub(crate) fn watch_target(&self, side: Side, unable: Option<String>, now: Time) {
        self.watch_side(side, now, |departures| departures.unable = unable);
    }

    /// Permits frames to leave on a side, or forbids it.
    fn watch_side(&self, side: Side, now: Time, note: impl FnOnce(&mut Departures)) {
        let Some(tables) = &self.tables else { return };
        let refused = self.lost(side).errors;
        let mut causes = self.causes();
        let departures = &mut causes.sides[side.index()];
        let before = departures.reason(side);
        departures.note_refused(refused, now);
        note(departures);
        if let Some(may_leave) = departures.change(side, now) {
            tables.set_may_send(side, may_leave);
        }
        let reason = departures.reason(side);
        if reason != before {
            match &reason {
                Some(reason) => tracing::info!(%side, "the fast path sends no frames on this side: {reason}"),
                None => tracing::info!(%side, "the fast path may send frames on this side"),
            }
        }
    }

    /// What the kernel does now with frames like this one.
    pub(crate) fn verdict(&self, side: Side, frame: &[u8], now: Time) -> KernelVerdict {
        let Some(tables) = self.tables.as_ref().filter(|_| self.state().is_on) else { return KernelVerdict::Off };
        let Some(flow) = Flow::of(side, frame) else { return KernelVerdict::Passes };
        if let Some(until) = tables.carried_until(&flow, now) {
            return KernelVerdict::Carries((until != Time::NEVER).then(|| until.since(now)));
        }
        match side == Side::Outside && tables.strangers().drops(frame) {
            true => KernelVerdict::Drops,
            false => KernelVerdict::Passes,
        }
    }

    /// The number of flows that the kernel carries now: IPv4, IPv6. `None` without a fast path. Reads the whole table.
    pub(crate) fn flows(&self, now: Time) -> Option<[u64; 2]> {
        self.tables.as_ref().map(|tables| tables.flows(now))
    }

    /// As [`FastPathSwitch::flows`], for metrics: in a bounded time, from a part of a large table.
    pub(crate) fn flows_in_sample(&self, now: Time) -> Option<[u64; 2]> {
        self.tables.as_ref().map(|tables| tables.flows_in_sample(now, SAMPLED_PLACES))
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
    let sources = config.list_capacity.saturating_add(config.connection_capacity);
    Ok(FastPathSizes {
        flows: [flows; 2],
        epochs: EPOCHS,
        records: ConnectionTable::slots(config.connection_capacity),
        sources: sources.clamp(SOURCES.0, SOURCES.1).next_power_of_two(),
    })
}

/// The fast path for a program that is attached to both interfaces, not on yet. Logs the reason if there is none.
pub(crate) fn switch(tables: Result<FastPath, String>, programs: &[XdpProgram; 2], workers: usize) -> FastPathSwitch {
    let is_native = programs.iter().all(|program| program.mode() == XdpMode::Native);
    let generic = || "an interface has generic XDP".to_owned();
    match tables.and_then(|tables| is_native.then_some(tables).ok_or_else(generic)) {
        Ok(tables) => FastPathSwitch::with(tables, workers),
        Err(reason) => {
            tracing::info!("no fast path: {reason}");
            FastPathSwitch::off(reason)
        }
    }
}

/// The fast path that all threads share.
pub(crate) type SharedFastPath = Arc<FastPathSwitch>;
