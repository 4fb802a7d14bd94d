//! An index of rules. It finds the rules that a packet could match.
//!
//! ```text
//! protocol ──► row  1 1 0 1 …  a bit for each rule that
//! ports    ──► row  1 0 0 1 …  this value does not rule out
//! addresses ─► row  1 1 1 1 …
//!              and  1 0 0 1 …  candidates, in order
//! ```
//!
//! A row begins with a summary, which has a bit for each word of the row that is not zero. With the summary, a search
//! skips 4,096 rules that cannot match at a time. For this purpose, the bits of many rules are arranged in groups, by
//! the fields that the rules test: within a group, most words of one row are zero, and its summary too. Each group
//! yields its candidates in order, and the first of all groups is next. The result is only a candidate: all tests of
//! the rule run anyway. The index can therefore omit negated tests, tests of more than one field, and fields whose rows
//! would take too much memory.
//!
//! Source: T. V. Lakshman and D. Stiliadis, "High-speed policy-based packet forwarding", SIGCOMM 1998; F. Baboescu and
//! G. Varghese, "Scalable packet classification", SIGCOMM 2001, for the summaries.

use knockplane_policy::packet::Family;

use super::field::{AddressField, Asked, PortField};
use super::question::{HeaderTest, HeaderView, Test};
use super::rows::{BITS, Row, RowBuilder};

/// The maximum size of the rows of one family, in words: 64 MiB. Fields above the limit are left to the tests of the
/// rules.
const MOST_WORDS: usize = 8 << 20;

/// The number of packet fields that have rows.
const FIELDS: usize = 5;

/// The maximum number of rules in a single group: a read of some words costs less than a search in several groups.
const FEW: usize = 256;

/// The maximum number of groups: by whether the rules test ports and addresses, source and destination each.
const GROUPS: usize = 16;

/// An index of rules.
pub(super) struct Index {
    words: Box<[u64]>,
    /// The number of words of a row's summary, which precedes the row's own words.
    summary: usize,
    /// The rule of each bit.
    rules: Box<[u32]>,
    groups: Box<[Group]>,
    protocols: Box<[Row; 256]>,
    source_ports: Option<PortField>,
    destination_ports: Option<PortField>,
    addresses: Addresses,
    /// The row of fields that no rule tests: every rule.
    all: Row,
}

/// A function that returns the ports that a test matches.
type PortsOf = fn(&HeaderTest) -> Option<&[(u16, u16)]>;

/// The fields of both addresses, by family.
enum Addresses {
    V4 { source: Option<AddressField<u32>>, destination: Option<AddressField<u32>> },
    V6 { source: Option<AddressField<u128>>, destination: Option<AddressField<u128>> },
}

/// Rules that test the same fields.
struct Group {
    /// The first bit of the group; `end` is exclusive.
    begin: u32,
    behind: u32,
    /// The fields that its rules test, as positions of rows. In the rows of other fields, all bits of the group are
    /// set.
    fields: Box<[u8]>,
}

/// The rows of one packet, and the next candidate of each group. The value is reused: content from the previous packet
/// is ignored.
#[derive(Default)]
pub(crate) struct Candidates {
    rows: [Row; FIELDS],
    /// The rule from which the last search began. No head is an earlier rule.
    from: u32,
    heads: [Head; GROUPS],
}

/// The next candidate of a group: its rule, and the candidates from this rule on in its word.
#[derive(Clone, Copy, Default)]
struct Head {
    rest: u64,
    word: u32,
    rule: u32,
}

/// No rule.
const NONE: u32 = u32::MAX;

impl Index {
    /// Builds the index for rules with these tests, in order.
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

    /// Finds the rules that this packet could match.
    #[inline]
    pub(super) fn candidates(&self, view: &HeaderView<'_>, candidates: &mut Candidates) {
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
        // No search has begun.
        candidates.from = NONE;
        if let Some(group) = self.only_word() {
            candidates.heads[0].rest = self.common(&candidates.rows, group, self.summary);
        }
    }

    /// The only group, if the rules are so few that one word has a bit for each.
    #[inline]
    fn only_word(&self) -> Option<&Group> {
        self.groups.first().filter(|_| self.rules.len() <= BITS)
    }

    /// The first candidate from the rule `from` up to the rule `end`, exclusive.
    #[inline]
    pub(super) fn next(&self, candidates: &mut Candidates, from: usize, end: usize) -> Option<usize> {
        let Candidates { rows, from: before, heads } = candidates;
        if self.only_word().is_some() {
            // The bits of this group are the rules, in order.
            let bits = if from < BITS { heads[0].rest >> from << from } else { 0 };
            let first = bits.trailing_zeros() as usize;
            return (first < end.min(self.rules.len())).then_some(first);
        }
        let from = from as u32;
        // A search behind a jump may begin at an earlier rule than the last search.
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

    /// The first of the remaining candidates of a word, or of the words behind it.
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

    /// The first word from this one on that may contain a candidate; the end of the group if there is none.
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

    /// The bits of one word that all relevant rows of a group have in common.
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
    // A stable sort: within a group the rules stay in order.
    order.sort_by_key(but_protocol);
    let mut groups = Vec::new();
    let mut begin = 0;
    for members in order.chunk_by(|one, other| but_protocol(one) == but_protocol(other)) {
        groups.push(group(begin, members));
        begin += members.len() as u32;
    }
    (order, groups)
}

/// The values of a field that a rule matches; `None` if the rule has no test of the field that is not negated. The
/// first of several tests counts.
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
