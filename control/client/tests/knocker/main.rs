//! Tests of the `knocker` program through its packets, output and exit codes, in one test binary. A new test belongs into
//! - `packets`, if it asserts the packets: bytes, lengths, order, number;
//! - `real_knock`, if it compares with Debian's `knock` client (package knockd);
//! - `messages`, if it asserts an exit code or a message;
//! - `profiles`, if it tests the trust in files of profiles;
//! - `afterwards`, if it tests the wait for the port or the command.
//!
//! The tests run as root on Linux. Each has its own network namespace (`lab`), which the kernel removes after the test.
#![cfg(target_os = "linux")]

mod afterwards;
mod lab;
mod messages;
mod packets;
mod profiles;
mod real_knock;
