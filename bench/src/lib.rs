//! What the benchmarks share: the packet generator, in [`generator`], and the comparison with others, in [`compare`].

pub mod compare;
pub mod generator;
