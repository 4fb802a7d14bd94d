//! Tests of damaged files, without an external fuzzer: every machine runs the same numbered cases.
//!
//! `KNOCKPLANE_FUZZ_SECONDS=600` continues for this time; `KNOCKPLANE_FUZZ_FROM=123` begins with another case than the
//! first; `KNOCKPLANE_FUZZ_FILES=directory` also damages the files there.

use std::panic::catch_unwind;
use std::time::Instant;

use super::exports::EXPORTS;
use super::*;

/// Number of cases of a test run.
const CASES: u64 = 4_000;

/// Maximum time of a case. A slower case counts as hung, even on a slow machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Pieces of files, so that damaged files reach more of the reader.
const TOKENS: &[&str] = &[
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "\\\n    ",
    "\\\r\n",
    "\\",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "[find ",
    "[find]",
    " where ",
    "=",
    "~\"",
    "!",
    "$",
    ";",
    "#",
    "set ",
    "\nset [find] comment=x\n",
    "\nremove [find]\n",
    "remove ",
    "move 0 1\n",
    "comment 0 x\n",
    "enable 0\n",
    "disable [find]\n",
    "\nadd ",
    " place-before=0",
    "*1",
    "0,1",
    "..",
    " place-before=[find]",
    "/ip firewall filter\n",
    "/ip firewall raw\n",
    "/ipv6 firewall address-list\n",
    "/interface list member\n",
    "/ip address\n",
    "/ip firewall layer7-protocol\n",
    "/ip firewall connection tracking\n",
    "&&",
    "||",
    " or ",
    " and ",
    "\\E1",
    "\\_",
    "\\n",
    "numbers=",
    "destination=",
    "\nset 0 disabled=yes\n",
    ":if ",
    "/",
    "/ip/firewall/filter/add ",
    " action=jump jump-target=a",
    " chain=a",
    "-",
    ",",
    "0-0",
    "::/0",
    "0.0.0.0/0",
    "4294967296",
    "99999999999999999999",
    "35w3d13h13m56s",
    "\0",
    "\u{FEFF}",
    "é",
    "    protocol=tcp\n",
    "Flags: X\n",
];

/// A simple generator of random numbers.
struct Choice(u64);

impl Choice {
    fn new(case: u64) -> Self {
        let mut choice = Choice(case.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        choice.number();
        choice
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.number() >> 8) as usize % end.max(1)
    }

    /// Some bytes of a text, from any position.
    fn part<'t>(&mut self, text: &'t [u8], longest: usize) -> &'t [u8] {
        let start = self.below(text.len() + 1);
        let end = (start + self.below(longest)).min(text.len());
        &text[start..end]
    }

    /// Some lines of a text.
    fn lines<'t>(&mut self, text: &'t [u8], most: usize) -> &'t [u8] {
        let starts: Vec<usize> = (0..text.len()).filter(|at| *at == 0 || text[at - 1] == b'\n').collect();
        let first = self.below(starts.len());
        let end = starts.get(first + 1 + self.below(most)).copied().unwrap_or(text.len());
        &text[starts.get(first).copied().unwrap_or_default()..end]
    }
}

/// The file with this number: some lines of a real file under their menu, damaged in at most twelve places.
fn damaged(case: u64, files: &[Vec<u8>]) -> Vec<u8> {
    let mut choice = Choice::new(case);
    let file = &files[choice.below(files.len())];
    if choice.below(20) == 0 {
        return (0..choice.below(400)).map(|_| choice.number() as u8).collect();
    }
    let mut text = b"/ip firewall filter\n".to_vec();
    text.extend_from_slice(choice.lines(file, 40));
    for _ in 0..choice.below(13) {
        let at = choice.below(text.len() + 1);
        match choice.below(8) {
            0 if at < text.len() => text[at] = choice.number() as u8,
            1 if at < text.len() => text[at] ^= 1 << choice.below(8),
            2 => drop(text.drain(at..(at + choice.below(60)).min(text.len()))),
            3 => {
                let again = choice.part(&text, 300).to_vec();
                text.splice(at..at, again);
            }
            4 => {
                let from = choice.below(files.len());
                let other = choice.part(&files[from], 400).to_vec();
                text.splice(at..at, other);
            }
            5 => {
                let from = choice.below(files.len());
                let other = choice.lines(&files[from], 5).to_vec();
                let start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                text.splice(start..start, other);
            }
            _ => {
                let token = TOKENS[choice.below(TOKENS.len())];
                text.splice(at..at, token.bytes());
            }
        }
    }
    if choice.below(8) == 0 {
        text.truncate(choice.below(text.len() + 1));
    }
    text
}

/// Checks the properties of the result for any file.
fn check(text: &[u8], draws: bool) {
    let start = Instant::now();
    let reading = read(text);
    assert!(start.elapsed() < LONGEST, "took {:?}", start.elapsed());
    let lines = 1 + text.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() as u32;
    let mut last = 0;
    for Problem { span, line, column, message, .. } in &reading.problems {
        assert!(last <= span.start && span.start <= span.end && span.end <= text.len(), "{message}: {span:?}");
        assert!((1..=lines).contains(line) && (1..=text.len() as u32 + 1).contains(column), "{message}: {line}");
        last = span.start;
    }
    for rule in &reading.rules.rules {
        assert!(!rule.chain.is_empty() && !rule.id.0.is_empty() && rule.line <= lines, "{rule:?}");
    }
    if draws {
        let told = report(&reading.problems, "a.rsc", text, false);
        assert_eq!(told.is_empty(), reading.problems.is_empty());
    }
}

fn files() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = EXPORTS.iter().map(|(_, text)| text.to_vec()).collect();
    files.push(commands::COMMANDS.as_bytes().to_vec());
    files.push(PASSPHRASES.as_bytes().to_vec());
    if let Some(directory) = std::env::var_os("KNOCKPLANE_FUZZ_FILES") {
        let entries = std::fs::read_dir(directory).unwrap();
        files.extend(entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()));
    }
    files
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[test]
fn damaged_files_are_read() {
    let files = files();
    let first = number_from("KNOCKPLANE_FUZZ_FROM").unwrap_or_default();
    let end = number_from("KNOCKPLANE_FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut slowest, mut clean) = (Duration::ZERO, 0);
    let mut case = first;
    while end.map_or(case < first + CASES, |end| Instant::now() < end) {
        let text = damaged(case, &files);
        let start = Instant::now();
        let draws = case.is_multiple_of(16);
        if catch_unwind(|| check(&text, draws)).is_err() {
            panic!("case {case}: {}", text.escape_ascii());
        }
        slowest = slowest.max(start.elapsed());
        clean += u64::from(draws && read(&text).problems.is_empty());
        case += 1;
    }
    println!(
        "{} cases, the slowest took {slowest:?}; {clean} of {} without problems",
        case - first,
        (case - first) / 16
    );
}
