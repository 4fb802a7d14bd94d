//! Address lists at scale: what ten million entries take, and how long a worker ever waits: `make bench-lists`.
//!
//! First one thread by itself: memory, lookups, additions. Then as in earnest for a minute: a worker that adds at full
//! rate, IPv4 and IPv6, with timeouts of 1 to 10 s, and a manager that sweeps ten times a second. Each addition is timed.
//! So is a thread that does nothing but read the clock, in the same way and for as long: a pause that it has as well is
//! the machine's.

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use knockplane_engine::state::lists::{AddOutcome, ListId, Lists};
use knockplane_policy::time::Time;

/// Measures address lists at scale.
#[derive(Parser)]
#[command(name = "lists")]
struct Arguments {
    /// How many entries there is room for.
    #[arg(long, default_value_t = 10_000_000)]
    entries: usize,
    /// How long additions are timed.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Operations of the measurements on one thread.
const OPERATIONS: u64 = 2_000_000;

/// How often the manager sweeps, and the part of the slots it looks at each time: as in the dataplane.
const TICK: Duration = Duration::from_millis(100);
const TICKS_FOR_ALL: usize = 5;
const SWEEP_MARGIN: usize = 65_536;

fn main() -> anyhow::Result<()> {
    let Arguments { entries, seconds } = Arguments::parse();
    let before = resident()?;
    let lists = Lists::new(entries)?;
    let capacity = lists.capacity() as u64;
    println!("{capacity} entries");
    println!("memory            {:>10.1} bytes an entry", (resident()? - before) as f64 / capacity as f64);

    let list = lists.bind("bench", 0)?;
    let far = Time::NEVER;
    // Almost full: no shard is.
    let filled = capacity / 10 * 9;
    let begin = Instant::now();
    for number in 0..filled {
        ensure!(lists.add(list, address(number), far, Time::default()) == AddOutcome::New, "room for all");
    }
    told("add, with room", begin.elapsed(), filled);
    told_of("lookup, hit", |number| lists.membership(address(number % filled), 0, Time::default()).contains(list));
    told_of("lookup, miss", |number| !lists.membership(address(capacity + number), 0, Time::default()).contains(list));
    told_of("add, full", |number| {
        lists.add(list, address(2 * capacity + number), far, Time::default()) == AddOutcome::New
    });
    for number in 0..3 * capacity {
        lists.remove(list, address(number), Time::default());
    }

    let duration = Duration::from_secs(seconds);
    println!("\n{seconds} s of additions at full rate, 1 to 10 s each, while a manager sweeps");
    let stop = AtomicBool::new(false);
    let (added, idle) = thread::scope(|scope| {
        let sweeper = scope.spawn(|| sweep(&lists, &stop));
        let added = paced(duration, |number, now| add(&lists, list, number, now));
        stop.store(true, Ordering::Relaxed);
        let swept = sweeper.join().unwrap_or_default();
        println!("swept             {swept:>10} expired entries");
        let nothing = |number, now| {
            black_box((number, now));
        };
        (added, paced(duration, nothing))
    });
    added.tell("an addition");
    idle.tell("nothing at all");
    Ok(())
}

/// The n-th address, all of them different and half of them IPv6, in an order that no cache knows.
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

/// Sweeps as the dataplane's manager does; returns how many entries had expired.
fn sweep(lists: &Lists, stop: &AtomicBool) -> usize {
    let begin = Instant::now();
    let mut swept = 0;
    while !stop.load(Ordering::Relaxed) {
        swept += lists.sweep((lists.capacity() + SWEEP_MARGIN) / TICKS_FOR_ALL, since(begin));
        thread::sleep(TICK);
    }
    swept
}

/// The lists' clock, which begins with the measurement.
fn since(begin: Instant) -> Time {
    Time::default() + begin.elapsed()
}

/// How long each of many operations took.
struct Taken {
    /// By powers of two of nanoseconds: of 1 to 2, 2 to 4, ….
    counts: [u64; 64],
    longest: Duration,
    duration: Duration,
}

/// Does one operation after the other, for so long.
fn paced(duration: Duration, mut operation: impl FnMut(u64, Time)) -> Taken {
    let mut taken = Taken { counts: [0; 64], longest: Duration::ZERO, duration };
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

impl Taken {
    /// Within how much so large a part of all were done; to the next power of two.
    fn within(&self, part: f64) -> Duration {
        let all: u64 = self.counts.iter().sum();
        let mut sum = 0;
        let place = self.counts.iter().position(|count| {
            sum += count;
            sum as f64 >= part * all as f64
        });
        Duration::from_nanos(2 << place.unwrap_or_default())
    }

    fn tell(&self, what: &str) {
        let all: u64 = self.counts.iter().sum();
        let mean = self.duration.as_nanos() as f64 / all as f64;
        let [half, most, nearly_all] = [0.5, 0.999, 0.999_999].map(|part| self.within(part));
        println!(
            "{what:<18}{mean:>10.1} ns; 50 % within {half:?}, 99.9 % within {most:?}, 99.9999 % within {nearly_all:?}, worst \
             {:?}",
            self.longest
        );
    }
}

/// Measures an operation on one thread. It says whether it did what it was to do.
fn told_of(what: &str, mut operation: impl FnMut(u64) -> bool) {
    let begin = Instant::now();
    let done = (0..OPERATIONS).filter(|number| operation(number * 7)).count() as u64;
    told(what, begin.elapsed(), OPERATIONS);
    assert_eq!(done, OPERATIONS, "{what}");
}

fn told(what: &str, taken: Duration, operations: u64) {
    println!("{what:<18}{:>10.1} ns", taken.as_nanos() as f64 / operations as f64);
}

/// What this process has of memory. Source: proc(5), `/proc/[pid]/status`.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS as a number")?;
    Ok(kilobytes * 1024)
}
