//! The comparison on the wire: knockplane and what one would take instead, between the same interfaces, in the same run.
//!
//! In the order of use:
//! 1. [`lab`]: client, filter and server, in one of two arrangements of cores, for each candidate its own.
//! 2. [`candidate`]: what stands between the interfaces: `knockplane`, `nftables`, `smallest`, `xdp`; with the same `rules`.
//! 3. [`window`]: a second of load, and every frame of it accounted for once it is over.
//! 4. The measurements: [`throughput`], [`loss`] and [`latency`], whose frames a `probe` times, for which candidates take
//!    turns; [`deafness`] of what listens for knocks; and [`upkeep`] of knockplane alone.
//!    [`crowd`], which is a run of its own, is about those who knock during a flood; [`restart`] and [`rings`] are others, about
//!    the outage of a restart and about the size of the rings.
//! 5. [`plan`]: the loads, who meets which, and how often. [`run`]: all of it, within its time.
//! 6. [`results`]: what a run measured, and how medians and ratios are taken. [`tables`] and `targets`: how results are shown.

pub mod candidate;
pub mod crowd;
pub mod deafness;
mod knockplane;
pub mod lab;
pub mod latency;
mod listener;
pub mod loss;
mod machine;
mod nftables;
pub mod plan;
mod probe;
pub mod restart;
pub mod results;
pub mod rings;
pub mod rules;
pub mod run;
mod smallest;
pub mod tables;
mod targets;
pub mod throughput;
pub mod upkeep;
pub mod window;
mod xdp;
