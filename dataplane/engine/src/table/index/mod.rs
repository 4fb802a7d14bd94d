//! Which rules a packet could match.
//!
//! ```text
//! protocol ──► row  1 1 0 1 …  a bit for each rule that
//! ports    ──► row  1 0 0 1 …  this value does not rule out
//! addresses ─► row  1 1 1 1 …
//!              and  1 0 0 1 …  candidates, in order
//! ```
//!
//! A row begins with a summary, a bit for each of its words that is not zero, so that thousands of rules that cannot
//! match are passed over 4,096 at a time. For that, the bits of many rules stand in groups, by the fields that they ask
//! for: within a group one row is mostly zero, and its summary too. Each group yields its candidates in order, and the
//! first of all groups is next. What is found is a candidate only: its questions are asked all the same. So what is
//! negated, or no single field, need not be here, and a field whose rows would take too much memory is left out.
//!
//! Source: T. V. Lakshman and D. Stiliadis, "High-speed policy-based packet forwarding", SIGCOMM 1998; F. Baboescu and G.
//! Varghese, "Scalable packet classification", SIGCOMM 2001, for the summaries.

use knockplane_policy::packet::Family;

use super::field::{AddressField, Asked, PortField};
use super::question::{HeaderTest, Test, View};
use super::rows::{BITS, Row, RowBuilder};

/// What rows of one family may take, in words: 64 MiB. More is left to the questions of the rules.
const MOST_WORDS: usize = 8 << 20;

/// Fields of a packet that have rows.
const FIELDS: usize = 5;

/// So few rules are one group: to look at some words costs less than to look into several groups.
const FEW: usize = 256;

/// Groups at most: by whether ports and addresses are asked for, source and destination each.
const GROUPS: usize = 16;

/// See the module.
pub(super) struct Index {
    words: Box<[u64]>,
    /// Words of a row's summary, in front of the row's own.
    summary: usize,
    /// The rules by their bits.
    rules: Box<[u32]>,
    groups: Box<[Group]>,
    protocols: Box<[Row; 256]>,
    source_ports: Option<PortField>,
    destination_ports: Option<PortField>,
    addresses: Addresses,
    /// Of fields that no rule asks for: every rule.
    all: Row,
}

/// The ports that a question asks for.
type PortsOf = fn(&HeaderTest) -> Option<&[(u16, u16)]>;

/// Both addresses' fields, as the family has them.
enum Addresses {
    V4 { source: Option<AddressField<u32>>, destination: Option<AddressField<u32>> },
    V6 { source: Option<AddressField<u128>>, destination: Option<AddressField<u128>> },
}

/// Rules that ask for the same fields.
struct Group {
    /// Its bits, from the first to the one before the last.
    begin: u32,
    behind: u32,
    /// The fields that its rules ask for, as positions of rows: in the rows of others all its bits are set.
    fields: Box<[u8]>,
}

/// The rows of one packet, and the next candidate of each group. Made once: what is left from the packet before is not
/// looked at.
#[derive(Default)]
pub(crate) struct Candidates {
    rows: [Row; FIELDS],
    /// What was asked for last: heads are no earlier rules.
    from: u32,
    heads: [Head; GROUPS],
}

/// The next candidate of a group: its rule, and the candidates from it on in its word.
#[derive(Clone, Copy, Default)]
struct Head {
    rest: u64,
    word: u32,
    rule: u32,
}

/// No rule.
const NONE: u32 = u32::MAX;

impl Index {
    /// For rules with these questions, in order.
    pub(super) fn build(family: Family, rules: &[&[Test<HeaderTest>]]) -> Index {
        Index::within(MOST_WORDS, family, rules)
    }

    fn within(most_words: usize, family: Family, rules: &[&[Test<HeaderTest>]]) -> Index {
        let (order, groups) = groups(rules);
        let rules: Vec<&[Test<HeaderTest>]> = order.iter().map(|rule| rules[*rule as usize]).collect();
        let mut rows = RowBuilder::new(rules.len(), most_words);
        let all = rows.row(rules.iter().map(|_| true));
        let asks = |wanted: fn(&HeaderTest) -> bool| {
            rules.iter().any(|tests| tests.iter().any(|test| !test.negated && wanted(&test.question)))
        };
        let protocol: Vec<Option<u8>> = rules.iter().map(|tests| asked(tests, protocol)).collect();
        let mut protocols = Box::new([all; 256]);
        for (number, row) in protocols.iter_mut().enumerate() {
            *row = rows.row(protocol.iter().map(|asked| asked.is_none_or(|asked| usize::from(asked) == number)));
        }
        let mut ports = |of: PortsOf| {
            let asked: Vec<Asked<'_, u16>> = rules.iter().map(|tests| asked(tests, of)).collect();
            asked.iter().any(Option::is_some).then(|| PortField::build(&asked, &mut rows)).flatten()
        };
        let (source_ports, destination_ports) = (ports(source_port), ports(destination_port));
        let (by_source, by_destination) =
            (asks(|test| source(test).is_some()), asks(|test| destination(test).is_some()));
        let addresses = match family {
            Family::Ipv4 => {
                let narrow = |(first, last): (u128, u128)| vec![(first as u32, last as u32)];
                let mut field = |of: fn(&HeaderTest) -> Option<(u128, u128)>| {
                    let asked: Vec<_> = rules.iter().map(|tests| asked(tests, of).map(narrow)).collect();
                    AddressField::build(&asked, &mut rows)
                };
                Addresses::V4 {
                    source: by_source.then(|| field(source)).flatten(),
                    destination: by_destination.then(|| field(destination)).flatten(),
                }
            }
            Family::Ipv6 => {
                let mut field = |of: fn(&HeaderTest) -> Option<(u128, u128)>| {
                    let asked: Vec<_> = rules.iter().map(|tests| asked(tests, of).map(|range| vec![range])).collect();
                    AddressField::build(&asked, &mut rows)
                };
                Addresses::V6 {
                    source: by_source.then(|| field(source)).flatten(),
                    destination: by_destination.then(|| field(destination)).flatten(),
                }
            }
        };
        let RowBuilder { words, summary, .. } = rows;
        Index {
            words: words.into(),
            summary,
            rules: order.into(),
            groups: groups.into(),
            protocols,
            source_ports,
            destination_ports,
            addresses,
            all,
        }
    }

    /// The rules that this packet could match.
    #[inline]
    pub(super) fn candidates(&self, view: &View<'_>, candidates: &mut Candidates) {
        let (all, packet) = (self.all, view.packet);
        let (source_port, destination_port) = packet.ports.unzip();
        let (source, destination) = (view.source.bits, view.destination.bits);
        let [source, destination] = match &self.addresses {
            Addresses::V4 { source: by_source, destination: by_destination } => [
                by_source.as_ref().map_or(all, |field| field.row(source as u32)),
                by_destination.as_ref().map_or(all, |field| field.row(destination as u32)),
            ],
            Addresses::V6 { source: by_source, destination: by_destination } => [
                by_source.as_ref().map_or(all, |field| field.row(source)),
                by_destination.as_ref().map_or(all, |field| field.row(destination)),
            ],
        };
        candidates.rows = [
            self.protocols[usize::from(packet.protocol)],
            self.source_ports.as_ref().map_or(all, |field| field.row(source_port)),
            self.destination_ports.as_ref().map_or(all, |field| field.row(destination_port)),
            source,
            destination,
        ];
        // Not looked for yet.
        candidates.from = NONE;
        if let Some(group) = self.only_word() {
            candidates.heads[0].rest = self.common(&candidates.rows, group, self.summary);
        }
    }

    /// The group of rules that are so few that one word has a bit for each.
    #[inline]
    fn only_word(&self) -> Option<&Group> {
        self.groups.first().filter(|_| self.rules.len() <= BITS)
    }

    /// The first candidate from one rule to the one before another.
    #[inline]
    pub(super) fn next(&self, candidates: &mut Candidates, from: usize, end: usize) -> Option<usize> {
        let Candidates { rows, from: before, heads } = candidates;
        if self.only_word().is_some() {
            // Its bits are the rules, in order.
            let bits = if from < BITS { heads[0].rest >> from << from } else { 0 };
            let first = bits.trailing_zeros() as usize;
            return (first < end.min(self.rules.len())).then_some(first);
        }
        let from = from as u32;
        // Behind a jump it may go on earlier than where it was.
        let anew = from < *before;
        *before = from;
        let mut first = NONE;
        for (group, head) in self.groups.iter().zip(heads) {
            if anew || head.rule < from {
                *head = match *head {
                    Head { rest, word, rule } if !anew && rule + 1 == from => {
                        self.head(rows, group, word, rest & (rest - 1))
                    }
                    _ => self.seek(rows, group, from),
                };
            }
            first = first.min(head.rule);
        }
        (first < end as u32).then_some(first as usize)
    }

    /// The first candidate of a group from this rule on.
    fn seek(&self, rows: &[Row; FIELDS], group: &Group, rule: u32) -> Head {
        let rules = &self.rules[group.begin as usize..group.behind as usize];
        let before = if rules.first().is_some_and(|first| rule <= *first) {
            0
        } else {
            rules.partition_point(|its| *its < rule)
        };
        let bit = group.begin as usize + before;
        if before == rules.len() {
            return Head { rest: 0, word: 0, rule: NONE };
        }
        let rest = self.common(rows, group, self.summary + bit / BITS) & (!0 << (bit % BITS));
        self.head(rows, group, (bit / BITS) as u32, rest)
    }

    /// The first of the rest of a word's candidates, or else of the words behind.
    #[inline]
    fn head(&self, rows: &[Row; FIELDS], group: &Group, word: u32, rest: u64) -> Head {
        let (mut word, mut rest) = (word as usize, rest);
        while rest == 0 {
            word = self.next_word(rows, group, word + 1);
            if word * BITS >= group.behind as usize {
                break;
            }
            rest = self.common(rows, group, self.summary + word);
        }
        let bit = word * BITS + rest.trailing_zeros() as usize;
        let found = if bit < group.behind as usize { self.rules.get(bit) } else { None };
        Head { rest, word: word as u32, rule: found.copied().unwrap_or(NONE) }
    }

    /// The first word from this one on that may hold a candidate; behind all if none may.
    fn next_word(&self, rows: &[Row; FIELDS], group: &Group, from: usize) -> usize {
        let mut place = from / BITS;
        let mut mask = !0 << (from % BITS);
        while place < self.summary {
            let bits = self.common(rows, group, place) & mask;
            if bits != 0 {
                return place * BITS + bits.trailing_zeros() as usize;
            }
            place += 1;
            mask = !0;
        }
        self.summary * BITS
    }

    /// What the rows that matter to a group have in common in one word.
    #[inline]
    fn common(&self, rows: &[Row; FIELDS], group: &Group, word: usize) -> u64 {
        let words = group.fields.iter().filter_map(|field| {
            let row = rows.get(usize::from(*field))?;
            self.words.get(*row as usize + word)
        });
        words.fold(!0, |common, word| common & word)
    }
}

/// The rules in the order of their bits, and their groups.
fn groups(rules: &[&[Test<HeaderTest>]]) -> (Vec<u32>, Vec<Group>) {
    let asks = |rule: &u32| {
        let tests = rules[*rule as usize];
        // In the order of a packet's rows.
        [
            asked(tests, protocol).is_some(),
            asked(tests, source_port).is_some(),
            asked(tests, destination_port).is_some(),
            asked(tests, source).is_some(),
            asked(tests, destination).is_some(),
        ]
    };
    let group = |begin: u32, members: &[u32]| {
        let fields = (0..FIELDS).filter(|field| members.iter().any(|rule| asks(rule)[*field]));
        Group { begin, behind: begin + members.len() as u32, fields: fields.map(|field| field as u8).collect() }
    };
    let mut order: Vec<u32> = (0..rules.len() as u32).collect();
    if order.len() <= FEW {
        let all = group(0, &order);
        return (order, vec![all]);
    }
    let but_protocol = |rule: &u32| <[bool; FIELDS - 1]>::try_from(&asks(rule)[1..]).unwrap_or_default();
    // Stable: within a group the rules stay in order.
    order.sort_by_key(but_protocol);
    let mut groups = Vec::new();
    let mut begin = 0;
    for members in order.chunk_by(|one, other| but_protocol(one) == but_protocol(other)) {
        groups.push(group(begin, members));
        begin += members.len() as u32;
    }
    (order, groups)
}

/// What a rule asks of a field; none if nothing that is not negated. Of several questions the first one counts.
fn asked<'r, T>(tests: &'r [Test<HeaderTest>], of: impl Fn(&'r HeaderTest) -> Option<T>) -> Option<T> {
    tests.iter().filter(|test| !test.negated).find_map(|test| of(&test.question))
}

fn protocol(test: &HeaderTest) -> Option<u8> {
    if let HeaderTest::Protocol(number) = test { Some(*number) } else { None }
}

fn source_port(test: &HeaderTest) -> Option<&[(u16, u16)]> {
    if let HeaderTest::SourcePort(ports) = test { Some(&ports.0) } else { None }
}

fn destination_port(test: &HeaderTest) -> Option<&[(u16, u16)]> {
    if let HeaderTest::DestinationPort(ports) = test { Some(&ports.0) } else { None }
}

fn source(test: &HeaderTest) -> Option<(u128, u128)> {
    if let HeaderTest::Source(first, last) = test { Some((*first, *last)) } else { None }
}

fn destination(test: &HeaderTest) -> Option<(u128, u128)> {
    if let HeaderTest::Destination(first, last) = test { Some((*first, *last)) } else { None }
}

#[cfg(test)]
mod tests;
