//! Tests of the engine through its public interface, in one binary. Where a new test goes:
//!
//! | module        | what it tests |
//! |---------------|---------------|
//! | [`headers`]   | the readers return what etherparse returns, and refuse what they promise to refuse |
//! | [`neighbours`] | which ARP and neighbour discovery frames are well-formed, and what happens to them |
//! | [`pppoe`]     | which frames of a PPPoE session are read, and which are refused |
//! | [`tails`]     | parts of a frame that a driver has split |
//! | [`lists`]     | the address lists against a plain model: with room, full, and from many threads |
//! | [`peers`]     | entries that count for one peer alone, and sequences of steps |
//! | [`events`]    | which changes of entries are events, and which entries a slow subscriber ends up with |
//! | [`table`]     | which rule sets are refused, and the text of the refusal |
//! | [`re_evaluation`] | packets that are decided out of order, on several queues |
//! | [`scenarios`] | the two knock scripts, step by step |
//! | [`reference`] | the engine decides as the reference evaluator `policy::eval` does, for any rules and packets |
//! | [`dependencies`] | a decision records its dependencies, so that a cache can repeat it |
//! | [`flood`]     | which sources are admitted while a flood of first knocks fills the lists |
//! | [`observed`]  | decisions with an observer, and their explanation from its records |
//! | [`sources`]   | the state of one source, and the record of its drops |
//! | [`vlans`]     | no state of one VLAN or PPPoE session counts in another |
//! | [`forged`]    | idle sessions outlive forged segments |
//! | [`fuzz`]      | the reference test with frames that no host builds, and with room for very few entries |
//!
//! `tests/model`, a separate binary, tests two workers at the same time.
//!
//! [`common`] builds rules, and frames with etherparse; [`conversation`] generates both ends of a TCP connection. Set
//! KNOCKPLANE_SOAK=20 to run the properties 20 times as long.

mod common;
mod conversation;
mod dependencies;
mod events;
mod flood;
mod forged;
mod fuzz;
mod headers;
mod lists;
mod neighbours;
mod observed;
mod peers;
mod pppoe;
mod re_evaluation;
mod reference;
mod scenarios;
mod sources;
mod table;
mod tails;
mod vlans;
