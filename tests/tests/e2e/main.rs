//! End-to-end tests: the real processes, on real interfaces, with real clients. They need root.
//!
//! Where a new test goes:
//!
//! | file           | what is tested there |
//! |----------------|----------------------|
//! | `knocks.rs`    | which knocks open and which do not |
//! | `doors.rs`     | what opens a door and what does not: real knocks, real scans; what is told of doors; reloads |
//! | `sources.rs`   | what is told of one source, and why its knocks do not count |
//! | `answers.rs`   | what rules do besides letting pass and dropping: answers, tarpits, connections, the log |
//! | `forged.rs`    | what forged segments do to sessions of others: nothing |
//! | `wire.rs`      | what passes through an open door, and what passes always; every frame accounted for |
//! | `mtu.rs`       | path MTU discovery through the filter |
//! | `frames.rs`    | what passes without a rule: ARP, neighbour discovery, router advertisements |
//! | `offload.rs`   | senders that leave checksums to their interface are told of |
//! | `vlans.rs`     | what a knock and a session in one VLAN or PPPoE session are in another: nothing |
//! | `processes.rs` | starting, stopping, killing, restarting; what is refused at start |
//! | `doctor.rs`    | `knockctl doctor` and `--check`, which agree with a start |
//! | `one_nic.rs`   | the arrangement of configs/one-nic |
//! | `log.rs`       | the log: what cannot be written costs lines and nothing else, and no kind displaces another |
//! | `names.rs`     | host names in address lists, with a real name server |
//! | `drift.rs`     | what changes under a running filter: interfaces, their settings, the host's; every frame accounted for |
//! | `restart.rs`   | restarts right after a kill, a second dataplane, state files that are damaged or cannot be written |
//! | `operator.rs`  | rules applied live, tables, lists, metrics |
//! | `install.rs`   | what a newcomer does first: the configuration of the README, and `make install` |
//! | `json.rs`      | what `knockctl --json` prints, held against its schemas; what is shown again and again |
//! | `metrics.rs`   | what a scrape says over applies, reloads and restarts; of a dataplane that hangs |
//! | `limits.rs`    | peers of the listeners that ask nothing, slowly, too much, or do not read |
//! | `judge/`       | the same packets under the same rules, judged by the kernel's nftables |
//! | `nonsense.rs`  | frames that nobody would build, from both sides |
//! | `scene.rs`     | what they share |
//! | `end.rs`       | a wire's far end, past the network stack |
//! | `tags.rs`      | hosts that speak in VLANs, or in a PPPoE session |
//! | `dice.rs`      | numbers that look random |

mod answers;
mod dice;
mod doctor;
mod doors;
mod drift;
mod end;
mod forged;
mod frames;
mod install;
mod json;
mod judge;
mod knocks;
mod limits;
mod log;
mod metrics;
mod mtu;
mod names;
mod nonsense;
mod offload;
mod one_nic;
mod operator;
mod processes;
mod restart;
mod scene;
mod sources;
mod tags;
mod vlans;
mod wire;
