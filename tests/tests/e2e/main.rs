//! End-to-end tests: the real processes, on real interfaces, with real clients. They need root.
//!
//! Where a new test goes:
//!
//! | file           | subject |
//! |----------------|----------------------|
//! | `knocks.rs`    | knocks that open, and knocks that do not |
//! | `doors.rs`     | doors: real knocks, real scans; the state of doors; reloads |
//! | `sources.rs`   | the state of one source, and why its knocks are ignored |
//! | `answers.rs`   | effects of rules besides forwarding and dropping: answers, tarpits, connections, the log |
//! | `forged.rs`    | forged segments, which have no effect on sessions of others |
//! | `wire.rs`      | traffic through an open door, and traffic that always passes; the balance of frames |
//! | `mtu.rs`       | path MTU discovery through the filter |
//! | `frames.rs`    | frames that pass without a rule: ARP, neighbour discovery, router advertisements |
//! | `offload.rs`   | warnings about senders that leave checksums to their interface |
//! | `vlans.rs`     | separate VLANs and PPPoE sessions: knocks and sessions of one do not count in another |
//! | `processes.rs` | start, stop, kill, restart; refused starts |
//! | `doctor.rs`    | `knockctl doctor` and `--check` agree with a start |
//! | `one_nic.rs`   | the arrangement of configs/one-nic |
//! | `log.rs`       | the log: lost lines cost nothing else, and no kind displaces another |
//! | `monitor.rs`   | the stream of events and the audit file |
//! | `names.rs`     | host names in address lists, with a real name server |
//! | `fast_path.rs` | flows that the kernel carries |
//! | `trace.rs`     | live packets with the rules that they met |
//! | `revocations.rs` | no frame passes by a verdict of the kernel that has ended |
//! | `drift.rs`     | changes of interfaces and host under a running filter; the balance of frames |
//! | `restart.rs`   | restarts right after a kill, a second dataplane, damaged or unwritable state files |
//! | `durable.rs`   | grants outlive kills, full disks and the sessions with them |
//! | `confirm.rs`   | applies that an operator must confirm, and their rollback |
//! | `reload.rs`    | reloads that an operator must confirm, and their rollback |
//! | `history.rs`   | revisions of the rules: shown, compared and restored |
//! | `edits.rs`     | edits of single rules, editors at the same time, undo and redo, the editor |
//! | `api.rs`       | the API on TCP and the read-only socket: roles, tokens, certificates, limits, the OpenAPI document |
//! | `api_edits.rs` | edits, plans, checks and explanations of rules through the API |
//! | `page.rs`      | the web page, in a browser |
//! | `page_changes.rs` | changes of rules in the web page, and requests of other pages |
//! | `page_doors.rs` | the doors and the lists in the web page |
//! | `page_live.rs` | events, traces and the traffic in the web page |
//! | `page_load.rs` | a measurement: the load of the page and its main thread with many rules |
//! | `page_sign_in.rs` | sign-in at the web page with a link, and the end of sessions |
//! | `page_views.rs` | every view of the web page: accessibility, and the pictures in docs/images/page |
//! | `pictures.rs`  | these pictures |
//! | `browser.rs`   | this browser |
//! | `rule_counters.rs` | counters of rules in columns, in the API and in the web page |
//! | `connections.rs` | connections: filtered, counted and ended |
//! | `completion.rs` | completion in bash, zsh and fish |
//! | `top.rs`       | `knockctl top` in a terminal, and without one |
//! | `screens.rs`   | the screens in docs/screens.md |
//! | `operator.rs`  | rules applied live, tables, lists, metrics |
//! | `install.rs`   | the first steps of a new user: the configuration of the README, and `make install` |
//! | `jobs.rs`      | answers during large changes |
//! | `json.rs`      | the output of `knockctl --json`, checked with its schemas; repeated output |
//! | `alerts.rs`    | the rules and dashboards of `configs`, in a real Prometheus that scrapes a filter |
//! | `prometheus.rs` | this Prometheus |
//! | `metrics.rs`   | scrapes over applies, reloads and restarts, and with a hanging dataplane |
//! | `limits.rs`    | peers of the listeners that send nothing, send slowly, request too much, or do not read |
//! | `differential/` | the differential test against the kernel's nftables |
//! | `malformed.rs` | malformed frames from both sides |
//! | `scenario.rs`  | shared set-up and queries |
//! | `end.rs`       | a host's interface, below its network stack |
//! | `tags.rs`      | hosts in VLANs or in a PPPoE session |
//! | `random.rs`    | pseudo-random numbers |

mod alerts;
mod answers;
mod api;
mod api_edits;
mod browser;
mod completion;
mod confirm;
mod connections;
mod differential;
mod doctor;
mod doors;
mod drift;
mod durable;
mod edits;
mod end;
mod fast_path;
mod forged;
mod frames;
mod history;
mod install;
mod jobs;
mod json;
mod knocks;
mod limits;
mod log;
mod malformed;
mod metrics;
mod monitor;
mod mtu;
mod names;
mod offload;
mod one_nic;
mod operator;
mod page;
mod page_changes;
mod page_doors;
mod page_live;
mod page_load;
mod page_sign_in;
mod page_views;
mod pictures;
mod processes;
mod prometheus;
mod random;
mod reload;
mod restart;
mod revocations;
mod rule_counters;
mod scenario;
mod screens;
mod sources;
mod strangers;
mod tags;
mod top;
mod trace;
mod vlans;
mod wire;
