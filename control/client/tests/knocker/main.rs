//! The real `knocker` binary, watched from outside. One binary for all of it; a new test goes into
//! - `packets`, if it asserts what leaves: bytes, lengths, order, number;
//! - `real_knock`, if it compares with Debian's `knock` client (package knockd);
//! - `messages`, if it asserts an exit code or a sentence;
//! - `profiles`, if it is about whose profiles are used;
//! - `afterwards`, if it is about waiting for the port and running the command.
//!
//! The tests run as root on Linux: each has a network namespace of its own (`lab`), which vanishes with it.
#![cfg(target_os = "linux")]

mod afterwards;
mod lab;
mod messages;
mod packets;
mod profiles;
mod real_knock;
