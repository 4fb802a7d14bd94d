//! The engine from outside, in one binary. Where a new test goes:
//!
//! | module        | what it asks |
//! |---------------|--------------|
//! | [`headers`]   | do the readers see what etherparse sees, and refuse what they promise to refuse? |
//! | [`neighbours`] | what of ARP and neighbour discovery is well-formed, and what happens to it? |
//! | [`pppoe`]     | what is read in a PPPoE session, and what is refused? |
//! | [`tails`]     | what passes of the parts of a frame that a driver has split? |
//! | [`lists`]     | do the address lists behave like the plain ones, full or not, from many threads? |
//! | [`ends`]      | what counts for one other end alone, and how do sequences of steps go on? |
//! | [`events`]    | which changes of entries are events, and what do subscribers that are too slow end up with? |
//! | [`table`]     | which rule sets are refused, and how does the refusal read? |
//! | [`second_look`] | who is let in by packets that overtook each other, on several queues? |
//! | [`stories`]   | do the two knock scripts do what people expect of them? |
//! | [`reference`] | does the engine decide as `policy::eval` does, whatever the rules and packets? |
//! | [`dependencies`] | does a decision say what it depended on, so that a cache can repeat it? |
//! | [`flood`]     | who gets in while a flood of first knocks fills the lists? |
//! | [`sources`]   | what is kept of one source, and what was dropped of it? |
//! | [`vlans`]     | does anything of one VLAN or PPPoE session count in another? |
//! | [`forged`]    | do idle sessions outlive whoever forges segments of theirs? |
//! | [`fuzz`]      | the same with frames that nobody would build, and with room for next to nothing |
//!
//! What two workers do at once is in `tests/model`, a binary of its own.
//!
//! [`common`] builds rules, and frames with etherparse; [`conversation`] makes up what the two ends of a TCP connection say. Set KNOCKPLANE_SOAK=20 to run the properties 20 times as long.

mod common;
mod conversation;
mod dependencies;
mod ends;
mod events;
mod flood;
mod forged;
mod fuzz;
mod headers;
mod lists;
mod neighbours;
mod pppoe;
mod reference;
mod second_look;
mod sources;
mod stories;
mod table;
mod tails;
mod vlans;
