//! Entries of lists as text: RouterOS's lines, for input and output, and for input also one plain entry a line.
//!
//! ```text
//! /ip firewall address-list                               friends 192.0.2.0/24       # the office
//! add address=192.0.2.0/24 comment="the office" \         knocked 198.51.100.7 10m
//!     list=friends                                        # lines like this one are comments
//! ```
//!
//! A file has one of the two forms, which its first line that is neither empty nor a comment determines. Every invalid
//! line is reported; then no entry is added.

use std::fmt::Write as _;
use std::time::Duration;

use knockplane_policy::rsc;
use knockplane_policy::rule::{self, AddressSet, EntryAddress, RuleSet};
use knockplane_policy::wire::{ListEntry, NewEntry};

use super::super::color;
use crate::rules;

/// Maximum number of reported invalid lines. A file with more is probably not a list.
const MOST_TOLD: usize = 10_000;

/// An error in a file.
#[derive(Debug)]
pub(super) struct Bad {
    /// All invalid lines, as text for output.
    pub(super) report: String,
    pub(super) problems: usize,
}

impl Bad {
    /// Adds an invalid line, counted from 1; 0 is the file as a whole.
    fn add(&mut self, file: &str, line: u32, sentence: &str) {
        self.problems += 1;
        if self.problems > MOST_TOLD {
            return;
        }
        // Writing to a string cannot fail.
        let _ = match line {
            0 => writeln!(self.report, "error: {file}: {sentence}"),
            _ => writeln!(self.report, "error: {file}:{line}: {sentence}"),
        };
        if self.problems == MOST_TOLD {
            let _ = writeln!(self.report, "error: {file}: further errors are counted and not shown");
        }
    }
}

/// The entries of a file.
///
/// # Errors
/// All errors of the file.
pub(super) fn read(file: &str, text: &[u8]) -> Result<Vec<NewEntry>, Bad> {
    let mut bad = Bad { report: String::new(), problems: 0 };
    let entries = if is_of_routeros(text) { exported(file, text, &mut bad) } else { bare(file, text, &mut bad) };
    if bad.problems == 0 { Ok(entries) } else { Err(bad) }
}

/// Entries in the form of RouterOS's exports. An entry without a timeout is static when it is read again. Entries that
/// count for a single peer or in a single VLAN are omitted, because they would count for all.
///
/// # Errors
/// The entry that RouterOS's language cannot express.
pub(super) fn write(entries: &[ListEntry]) -> Result<String, String> {
    let entry = |entry: &ListEntry| rule::ListEntry {
        family: entry.address.family(),
        list: entry.list.clone(),
        address: EntryAddress::Set(entry.address.clone()),
        // The text contains whole seconds.
        timeout: entry.time_left.map(whole_seconds),
        disabled: false,
        comment: entry.comment.clone(),
        line: 0,
    };
    let counts_for_all = |entry: &&ListEntry| entry.to.is_none() && entry.vlan.is_none();
    let for_all: Vec<_> = entries.iter().filter(counts_for_all).map(entry).collect();
    let left_out = match entries.len() - for_all.len() {
        0 => String::new(),
        number => format!("# left out, for they count for one other end or in one VLAN alone: {number}\n"),
    };
    let rules = RuleSet { address_lists: for_all, ..RuleSet::default() };
    rsc::export(&rules).map(|text| left_out + &text).map_err(|what| {
        let remedy = "`knockctl list show --json` writes everything as it is";
        format!("RouterOS's language has no form for {what}: {remedy}")
    })
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// Whether the first line that is neither empty nor a comment is a menu or a command.
fn is_of_routeros(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#") && *line != "\u{feff}".as_bytes());
    first.is_some_and(|line| {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        line.starts_with(b"/") || line.starts_with(b":") || line.starts_with(b"add ")
    })
}

fn exported(file: &str, text: &[u8], bad: &mut Bad) -> Vec<NewEntry> {
    let reading = rsc::read(text);
    if !reading.problems.is_empty() {
        bad.report += &rsc::report(&reading.problems, file, text, color());
        bad.problems += reading.problems.len();
    }
    let RuleSet { rules, layer7, address_lists, .. } = reading.rules;
    let first_rule = rules.iter().map(|rule| rule.line).chain(layer7.iter().map(|pattern| pattern.line)).min();
    if let Some(line) = first_rule {
        bad.add(file, line, "the file holds rules as well: `knockctl apply` runs those; leave them out here");
    }
    // An incomplete list admits, or blocks, the wrong sources.
    for warning in reading.warnings {
        bad.add(file, warning.line, &warning.message);
    }
    for menu in reading.skipped {
        let why = "holds no entries of lists: leave it out";
        bad.add(file, 0, &format!("the menu `{}` (commands: {}) {why}", menu.menu.escape_debug(), menu.commands));
    }
    let mut entries = Vec::with_capacity(address_lists.len());
    for entry in address_lists {
        let rule::ListEntry { list, address, timeout, disabled, comment, line, .. } = entry;
        match address {
            _ if disabled => bad.add(file, line, "the entry is disabled: leave it out, it would not be in the list"),
            EntryAddress::Set(address) => entries.push(NewEntry { list, address, timeout, comment }),
            EntryAddress::Name(name) => {
                bad.add(
                    file,
                    line,
                    &format!("`{name}` is a host name, which is not resolved here: write its addresses"),
                );
            }
            EntryAddress::None => bad.add(file, line, "the entry has no address: write `address=`, or leave it out"),
        }
    }
    entries
}

fn bare(file: &str, text: &[u8], bad: &mut Bad) -> Vec<NewEntry> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let Ok(line) = std::str::from_utf8(line) else {
            bad.add(file, number, "the line is not UTF-8");
            continue;
        };
        match entry(line.trim_start_matches('\u{feff}')) {
            Ok(None) => {}
            Ok(Some(entry)) => entries.push(entry),
            Err(why) => bad.add(file, number, &why),
        }
    }
    entries
}

/// `LIST ADDRESS [TIMEOUT] [# comment]`; `None` if the line is empty.
fn entry(line: &str) -> Result<Option<NewEntry>, String> {
    let (said, comment) = line.split_once('#').unwrap_or((line, ""));
    let mut words = said.split_whitespace();
    let Some(list) = words.next() else { return Ok(None) };
    let form = "write `LIST ADDRESS [TIMEOUT] [# comment]`";
    let address =
        words.next().ok_or_else(|| format!("there is no address behind `{}`: {form}", list.escape_debug()))?;
    let address: AddressSet = address.parse()?;
    if matches!(address, AddressSet::Range(first, _) if first.is_ipv6()) {
        return Err(format!("{address} is a range, and ranges exist for IPv4 only: write prefixes"));
    }
    let timeout = words.next().map(rules::timeout).transpose()?;
    if let Some(more) = words.next() {
        return Err(format!("`{}` is one word too many: {form}", more.escape_debug()));
    }
    Ok(Some(NewEntry { list: list.to_owned(), address, timeout, comment: comment.trim().to_owned() }))
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Vlan;

    use super::*;

    fn shown(list: &str, address: &str, left: Option<u64>, comment: &str) -> ListEntry {
        ListEntry {
            list: list.to_owned(),
            address: address.parse().unwrap(),
            vlan: Vlan::NONE,
            name: None,
            time_left: left.map(Duration::from_millis),
            dynamic: left.is_some(),
            line: None,
            to: None,
            steps: 0,
            comment: comment.to_owned(),
        }
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        let entries = [
            shown("a list", "192.0.2.0/24", None, "the \"office\", $5\nüber"),
            shown("b", "192.0.2.1-192.0.2.9", Some(90_000), ""),
            shown("b", "198.51.100.7", Some(8_200), ""),
            shown("b", "2001:db8::/32", None, ""),
        ];
        let text = write(&entries).unwrap();
        insta::assert_snapshot!(text);
        let read = read("x", text.as_bytes()).unwrap();
        for (entry, read) in entries.iter().zip(&read) {
            assert_eq!((&entry.list, &entry.address, &entry.comment), (&read.list, &read.address, &read.comment));
        }
        let timeouts: Vec<_> = read.iter().map(|entry| entry.timeout.map(|timeout| timeout.as_secs())).collect();
        assert_eq!(timeouts, [None, Some(90), Some(9), None]);
        assert_eq!(write(&[]).unwrap(), "");
        let granted = ListEntry { to: Some([192, 0, 2, 1].into()), ..shown("door-ssh", "198.51.100.7", Some(1), "") };
        let in_vlan = ListEntry { vlan: "10".parse().unwrap(), ..shown("secured", "198.51.100.7", Some(1), "") };
        let left_out = "# left out, for they count for one other end or in one VLAN alone: 2\n";
        assert_eq!(write(&[granted, in_vlan]).unwrap(), left_out);
    }

    #[test]
    fn lines_without_ceremony_are_read() {
        let text = "\u{feff}# friends\n\nfriends 192.0.2.7\r\n  knocked\t2001:db8::/32 1h30m#until noon\n#x\nb 10.0.0.1-10.0.0.9 # y # z";
        let read = read("x", text.as_bytes()).unwrap();
        let told: Vec<_> = read
            .iter()
            .map(|entry| format!("{} {} {:?} {}", entry.list, entry.address, entry.timeout, entry.comment))
            .collect();
        assert_eq!(
            told,
            [
                "friends 192.0.2.7 None ",
                "knocked 2001:db8::/32 Some(5400s) until noon",
                "b 10.0.0.1-10.0.0.9 None y # z"
            ]
        );
        assert!(super::read("x", b"").unwrap().is_empty());
    }

    #[test]
    fn every_bad_line_is_told() {
        let bare =
            b"friends\nfriends 192.0.2.300\nfriends 192.0.2.1 soon\nfriends 192.0.2.1 1m 2m\n\xff\nfriends ::1-::2\n";
        let bad = read("friends.txt", bare).unwrap_err();
        assert_eq!(bad.problems, 6);
        let exported = b"/ip firewall address-list\nadd list=a address=host.example.org\nadd list=a disabled=yes address=192.0.2.1\n\
            add list=a\n/ip firewall filter\nadd chain=input action=drop\n/ip dns\nset servers=192.0.2.53\n";
        let others = read("export.rsc", exported).unwrap_err();
        let reader =
            read("bad.rsc", b"/ip firewall address-list\nadd list=a address=192.0.2.X\nadd adress=::\n").unwrap_err();
        let many = super::read("x", "a b\n".repeat(20_000).as_bytes()).unwrap_err();
        assert_eq!((many.problems, many.report.lines().count()), (20_000, MOST_TOLD + 1));
        insta::assert_snapshot!(bad.report + &others.report + &reader.report);
    }
}
