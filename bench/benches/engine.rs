//! Measures the time of the engine in memory, without a kernel: `make bench-memory`. Times are for one operation of a
//! workload: a packet, a lookup, an addition, a slot of a sweep.
//!
//! `QUICK=1` omits the ten million entries and measures for a shorter time. Words after `--` select workloads by name.

use std::env;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use knockplane_bench::compare::results::Machine;

#[path = "../src/workload/mod.rs"]
mod workload;

use workload::{Size, Work, Workload};

fn main() {
    let quick = env::var("QUICK").is_ok_and(|value| !matches!(&*value, "" | "0"));
    println!("{}\n", Machine::this());
    let sizes = Size::all();
    let sizes = if quick { &sizes[..sizes.len() - 1] } else { &sizes };
    let (warm_up, measurement) = if quick { (100, 400) } else { (500, 1500) };
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measurement))
        .sample_size(20)
        .nresamples(10_000)
        .configure_from_args();
    for workload in workload::all(sizes) {
        measure(&mut criterion, &workload);
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, workload: &Workload<'_>) {
    let (group, name) = workload.name.split_once('/').unwrap_or(("engine", &workload.name));
    let mut group = criterion.benchmark_group(group);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    let mut prepared = None;
    group.bench_function(name, |bencher| {
        let work = prepared.get_or_insert_with(|| workload.prepare());
        bencher.iter_custom(|operations| time(workload, &mut **work, operations));
    });
}

/// The time of `operations` operations. The function measures whole runs, and subtracts the excess in proportion.
fn time(workload: &Workload<'_>, work: &mut dyn Work, operations: u64) -> Duration {
    let all = operations.div_ceil(workload.operations.into());
    let mut left = all;
    let mut taken = Duration::ZERO;
    while left > 0 {
        let runs = left.min(workload.runs.into());
        let begin = Instant::now();
        for _ in 0..runs {
            work.run();
        }
        taken += begin.elapsed();
        work.reset();
        left -= runs;
    }
    taken.mul_f64(operations as f64 / (all * u64::from(workload.operations)) as f64)
}
