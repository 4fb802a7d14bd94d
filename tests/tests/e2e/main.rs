//! End-to-end tests: the real processes, on real interfaces, with real clients. They need root.
//!
//! Where a new test goes:
//!
//! | file           | what is tested there |
//! |----------------|----------------------|
//! | `knocks.rs`    | which knocks open and which do not |
//! | `doors.rs`     | what opens a door and what does not: real knocks, real scans; what is told of doors; reloads |
//! | `answers.rs`   | what rules do besides letting pass and dropping: answers, tarpits, connections, the log |
//! | `forged.rs`    | what forged segments do to sessions of others: nothing |
//! | `wire.rs`      | what passes through an open door, and what passes always; every frame accounted for |
//! | `processes.rs` | starting, stopping, killing, restarting; what is refused at start |
//! | `operator.rs`  | rules applied live, tables, lists, metrics |
//! | `judge/`       | the same packets under the same rules, judged by the kernel's nftables |
//! | `nonsense.rs`  | frames that nobody would build, from both sides |
//! | `scene.rs`     | what they share |
//! | `end.rs`       | a wire's far end, past the network stack |
//! | `dice.rs`      | numbers that look random |

mod answers;
mod dice;
mod doors;
mod end;
mod forged;
mod judge;
mod knocks;
mod nonsense;
mod operator;
mod processes;
mod scene;
mod wire;
