//! Measures address lists with ten million entries: memory, time of an operation, and the longest pause of a worker:
//! `make bench-lists`.
//!
//! First one thread runs alone: memory, lookups, additions. Then, for a minute, a worker adds addresses at full rate (IPv4
//! and IPv6, with timeouts of 1 to 10 s) while a manager sweeps ten times a second. Each addition is timed. Then a thread
//! that only reads the clock is timed in the same way. The machine causes the pauses that both threads have.

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use knockplane_bench::compare::results::Machine;
use knockplane_bench::report::{self, ResultTable};
use knockplane_engine::state::lists::{AddOutcome, ListId, Lists};
use knockplane_policy::time::Time;

/// Measures address lists at scale.
#[derive(Parser)]
#[command(name = "lists")]
struct Arguments {
    /// Capacity, in entries.
    #[arg(long, default_value_t = 10_000_000)]
    entries: usize,
    /// Seconds of timed additions.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Operations of each measurement on one thread.
const OPERATIONS: u64 = 2_000_000;

/// Interval of the manager's sweeps, and the part of the slots of a sweep: as in the dataplane.
const TICK: Duration = Duration::from_millis(100);
const TICKS_FOR_ALL: usize = 5;
const SWEEP_MARGIN: usize = 65_536;

fn main() -> anyhow::Result<()> {
    let Arguments { entries, seconds } = Arguments::parse();
    println!("{}\n", Machine::this());
    let before = resident()?;
    let lists = Lists::new(entries)?;
    let capacity = lists.capacity() as u64;
    let bytes = (resident()? - before) as f64 / capacity as f64;
    let columns = ["measurement", "value", "unit"];
    let mut single = ResultTable::new("lists", "Address lists, one thread", &columns).with_rows([
        vec!["capacity".to_owned(), capacity.to_string(), "entries".to_owned()],
        vec!["memory".to_owned(), format!("{bytes:.1}"), "bytes an entry".to_owned()],
    ]);

    let list = lists.bind("bench", 0)?;
    let far = Time::NEVER;
    // Not completely full, so that no shard is.
    let filled = capacity / 10 * 9;
    let begin = Instant::now();
    for number in 0..filled {
        ensure!(lists.add(list, address(number), far, Time::default()) == AddOutcome::New, "room for all");
    }
    single.rows.push(mean("add, with room", begin.elapsed(), filled));
    single.rows.extend([
        timed("lookup, hit", |number| lists.membership(address(number % filled), 0, Time::default()).contains(list)),
        timed("lookup, miss", |number| {
            !lists.membership(address(capacity + number), 0, Time::default()).contains(list)
        }),
        timed("add, full", |number| {
            lists.add(list, address(2 * capacity + number), far, Time::default()) == AddOutcome::New
        }),
    ]);
    for number in 0..3 * capacity {
        lists.remove(list, address(number), Time::default());
    }

    let duration = Duration::from_secs(seconds);
    let stop = AtomicBool::new(false);
    let (added, idle, swept) = thread::scope(|scope| {
        let sweeper = scope.spawn(|| sweep(&lists, &stop));
        let added = paced(duration, |number, now| add(&lists, list, number, now));
        stop.store(true, Ordering::Relaxed);
        let swept = sweeper.join().unwrap_or_default();
        let nothing = |number, now| {
            black_box((number, now));
        };
        (added, paced(duration, nothing), swept)
    });
    let columns = ["operation", "mean, ns", "50 % within", "99.9 % within", "99.9999 % within", "worst"];
    let mut pauses = ResultTable::new("lists-pauses", "Pauses of a worker", &columns)
        .with_rows([added.row("addition"), idle.row("reading the clock")]);
    pauses.notes.push(format!(
        "{seconds} s of additions at full rate, with timeouts of 1 to 10 s, while a manager sweeps. It swept {swept} \
         expired entries."
    ));
    report::publish(&[single, pauses], Path::new(report::FOLDER))
}

/// The n-th address. All addresses differ, half of them are IPv6, and their order makes caches ineffective.
fn address(number: u64) -> IpAddr {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if number.is_multiple_of(2) {
        Ipv4Addr::from_bits((number as u32 / 2).wrapping_mul(0x9e37_79b1)).into()
    } else {
        Ipv6Addr::from_bits(u128::from(0x2001_0db8_u32) << 96 | u128::from(spread)).into()
    }
}

fn add(lists: &Lists, list: ListId, number: u64, now: Time) {
    black_box(lists.add(list, address(number), now + Duration::from_millis(1000 + number % 9000), now));
}

/// Sweeps as the dataplane's manager does. Returns the number of expired entries.
fn sweep(lists: &Lists, stop: &AtomicBool) -> usize {
    let begin = Instant::now();
    let mut swept = 0;
    while !stop.load(Ordering::Relaxed) {
        swept += lists.sweep((lists.capacity() + SWEEP_MARGIN) / TICKS_FOR_ALL, since(begin));
        thread::sleep(TICK);
    }
    swept
}

/// Time of the lists' clock, which begins with the measurement.
fn since(begin: Instant) -> Time {
    Time::default() + begin.elapsed()
}

/// Durations of many operations.
struct Durations {
    /// Counts by powers of two of nanoseconds: of 1 to 2, 2 to 4, ….
    counts: [u64; 64],
    longest: Duration,
    duration: Duration,
}

/// Repeats an operation for a duration, and times each.
fn paced(duration: Duration, mut operation: impl FnMut(u64, Time)) -> Durations {
    let mut taken = Durations { counts: [0; 64], longest: Duration::ZERO, duration };
    let begin = Instant::now();
    let (mut number, mut last) = (0, Duration::ZERO);
    while last < duration {
        operation(number, Time::default() + last);
        let now = begin.elapsed();
        let time = now - last;
        taken.counts[time.as_nanos().max(1).ilog2() as usize] += 1;
        taken.longest = taken.longest.max(time);
        (number, last) = (number + 1, now);
    }
    taken
}

impl Durations {
    /// Upper bound of the durations of this part of all operations, rounded up to a power of two.
    fn within(&self, part: f64) -> Duration {
        let all: u64 = self.counts.iter().sum();
        let mut sum = 0;
        let place = self.counts.iter().position(|count| {
            sum += count;
            sum as f64 >= part * all as f64
        });
        Duration::from_nanos(2 << place.unwrap_or_default())
    }

    fn row(&self, operation: &str) -> Vec<String> {
        let all: u64 = self.counts.iter().sum();
        let mean = self.duration.as_nanos() as f64 / all as f64;
        let [half, most, nearly_all] = [0.5, 0.999, 0.999_999].map(|part| self.within(part));
        let durations = [half, most, nearly_all, self.longest].map(|duration| format!("{duration:?}"));
        [operation.to_owned(), format!("{mean:.1}")].into_iter().chain(durations).collect()
    }
}

/// The row of an operation that runs many times on one thread. The operation returns whether its result was right.
fn timed(operation_name: &str, mut operation: impl FnMut(u64) -> bool) -> Vec<String> {
    let begin = Instant::now();
    let done = (0..OPERATIONS).filter(|number| operation(number * 7)).count() as u64;
    let row = mean(operation_name, begin.elapsed(), OPERATIONS);
    assert_eq!(done, OPERATIONS, "{operation_name}");
    row
}

fn mean(operation: &str, taken: Duration, operations: u64) -> Vec<String> {
    vec![operation.to_owned(), format!("{:.1}", taken.as_nanos() as f64 / operations as f64), "ns".to_owned()]
}

/// Resident memory of this process. Source: proc(5), `/proc/[pid]/status`.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS as a number")?;
    Ok(kilobytes * 1024)
}
