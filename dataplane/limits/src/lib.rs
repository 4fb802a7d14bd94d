//! What the programs take in at most, stated once for all of them.
//!
//! | module          | owns |
//! |-----------------|------|
//! | [`input`]       | how many bytes of a file or of standard input are read |
//! | [`trust`]       | files that nobody else can change |
//! | [`admission`]   | which connections a listener keeps, and which one gives way |
//! | [`refusal`]     | why a connection was refused or closed, and how often |
//! | [`descriptors`] | how many files the process may have open |
//!
//! Reads files and asks the kernel for limits; opens no socket and has no clock. `docs/limits.md` is the manual.

pub mod admission;
#[cfg(unix)]
pub mod descriptors;
pub mod input;
pub mod refusal;
pub mod trust;
