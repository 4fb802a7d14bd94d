//! What the benchmarks share: the packet generator, in [`generator`].

pub mod generator;
