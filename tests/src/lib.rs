//! The base of the end-to-end tests, the demo and the benchmarks: real interfaces in network namespaces, the real
//! processes between them, and real clients.
//!
//! ```text
//!   client namespace          filter namespace           server namespace
//!   eth0 10.77.0.1  ═══════ outside ▓ inside ═══════  eth0 10.77.0.2
//! ```
//! Everything that a [`Topology`] or a [`Filter`] creates is removed when it is dropped. Names are unique for each run
//! and each topology, so that runs can be parallel.

mod events;
mod filter;
mod forward;
mod process;
mod terminal;
mod topology;

pub use events::{granted, json_lines, shown_and_omitted};
pub use filter::{Filter, FilterOptions, Folder, binary};
pub use forward::forward;
pub use process::{Output, Process, run};
pub use terminal::{Terminal, key, masked};
pub use topology::{CLIENT, CLIENT6, FAR, FAR6, Namespace, SERVER, SERVER6, Topology, VISITOR};
