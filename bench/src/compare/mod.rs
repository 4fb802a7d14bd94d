//! The comparison on the wire: knockplane and its peers between the same interfaces, in the same run.
//!
//! In the order of use:
//! 1. [`lab`]: client, filter and server, in one of two arrangements of cores. Each candidate has its own lab.
//! 2. [`candidate`]: the candidates between the interfaces, with the same `rules`: `knockplane`, `nftables`, `smallest`, `xdp`.
//! 3. [`window`]: a second of load, in which every frame is in exactly one counter.
//! 4. The measurements, for which candidates take turns: [`throughput`], [`loss`], and [`latency`], whose frames a `probe`
//!    times; [`deafness`] of listeners for knocks; and [`upkeep`] of knockplane alone. Seven measurements are programs of
//!    their own: [`applies`] of rules during traffic; [`crowd`], clients that knock during a flood; [`grants`] that are
//!    journalled; [`restart`], the outage of a restart; [`rings`], the size of the rings; [`tcp`], connections through a
//!    door; [`watching`] during a flood. `iperf` sends the streams of [`rings`] and [`tcp`], `steady` the frames of [`grants`],
//!    [`restart`] and [`watching`].
//! 5. [`plan`]: the loads, their candidates and the number of windows. [`run`]: all of it, within its time.
//! 6. [`results`]: the results of a run, with medians and ratios. [`tables`] and `targets`: their output.

pub mod applies;
pub mod candidate;
pub mod crowd;
pub mod deafness;
mod defaults;
pub mod grants;
mod iperf;
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
mod steady;
pub mod tables;
mod targets;
pub mod tcp;
pub mod throughput;
pub mod upkeep;
pub mod watching;
pub mod window;
mod xdp;
