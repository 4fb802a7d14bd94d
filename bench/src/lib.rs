//! Benchmarks of knockplane: the packet generator ([`generator`]), the comparison with peers ([`compare`]), and the
//! tables of results of every benchmark program ([`report`]).

pub mod compare;
pub mod generator;
pub mod report;
