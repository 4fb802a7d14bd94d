//! Real exports and scripts, of every version of RouterOS and in every form, and their results.

use std::fmt::Write as _;

use super::*;

/// A file of `exports` by its name.
macro_rules! export {
    ($name:literal) => {
        ($name, include_bytes!($name).as_slice())
    };
}

pub(super) const EXPORTS: &[(&str, &[u8])] = &[
    export!("defconf-v6.rsc"),
    export!("defconf-v7.rsc"),
    export!("v5.rsc"),
    export!("verbose-v6.rsc"),
    export!("terse-v7.rsc"),
    export!("first-and-advanced.rsc"),
    export!("knocks-and-ladders.rsc"),
    export!("floods.rsc"),
    export!("script.rsc"),
    export!("printed.rsc"),
];

/// A summary of a file's contents.
fn summary(name: &str, text: &[u8]) -> String {
    let Reading { rules, problems, skipped, .. } = read(text);
    let kept: Vec<&Rule> = rules.rules.iter().filter(|rule| rule.invalid.is_some()).collect();
    let mut summary = format!(
        "{name}: {} rules, {} of them kept and not run; {} entries, {} patterns, {} interface lists, {} addresses\n",
        rules.rules.len(),
        kept.len(),
        rules.address_lists.len(),
        rules.layer7.len(),
        rules.interface_lists.len(),
        rules.local_addresses.len(),
    );
    for rule in kept {
        let _ = writeln!(summary, "  kept {}: {}", rule.line, rule.invalid.as_deref().unwrap_or_default());
    }
    for Problem { line, column, message, help, span, .. } in problems {
        let (at, help) = (String::from_utf8_lossy(&text[span]), help.unwrap_or_default());
        let _ = writeln!(summary, "  {line}:{column} `{}`: {message} ({help})", at.escape_debug());
    }
    for SkippedMenu { menu, commands } in skipped {
        let _ = writeln!(summary, "  skipped {menu}: {commands}");
    }
    summary
}

#[test]
fn what_becomes_of_exports() {
    let summaries: Vec<String> = EXPORTS.iter().map(|(name, text)| summary(name, text)).collect();
    insta::assert_snapshot!(summaries.join("\n"));
}

#[test]
fn contents_of_old_exports_are_kept_byte_by_byte() {
    let (_, text) = EXPORTS.iter().find(|(name, _)| *name == "v5.rsc").unwrap();
    let said = read(text).rules;
    let comments: Vec<&str> = said.rules.iter().map(|rule| &*rule.comment).skip(3).take(2).collect();
    let [broken, escaped] = comments[..] else { panic!("{comments:?}") };
    assert_eq!(broken, "the word, and a comment that is broken where it should not be");
    assert_eq!(escaped, "\\E1 café, \"quoted\"; #   and \\ \n\ta second line");
    assert_eq!(said.layer7[0].regexp, "^open sesame\\?$");
    assert_eq!(said.tracking.udp, Duration::from_secs(10));
}

/// The contents of a file and its number of problems, without the lines.
fn said(text: &[u8]) -> (RuleSet, usize) {
    let Reading { mut rules, problems, .. } = read(text);
    rules.rules.iter_mut().for_each(|rule| rule.line = 0);
    rules.layer7.iter_mut().for_each(|pattern| pattern.line = 0);
    rules.interface_lists.iter_mut().flat_map(|list| &mut list.members).for_each(|member| member.line = 0);
    rules.address_lists.iter_mut().for_each(|entry| entry.line = 0);
    (rules, problems.len())
}

/// Breaks lines as exports do, but at every permitted position.
fn wrapped(text: &[u8], every: usize, line_end: &str) -> Vec<u8> {
    let mut wrapped = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let is_comment = line.trim_ascii_start().starts_with(b"#");
        let mut column = 0;
        for (at, byte) in line.iter().enumerate() {
            let escapes = line[..at].iter().rev().take(2).any(|before| *before == b'\\');
            let may_break = at > 0 && !is_comment && !escapes && !byte.is_ascii_whitespace() && *byte != b'\\';
            if may_break && column >= every {
                wrapped.extend_from_slice(b"\\");
                wrapped.extend_from_slice(line_end.as_bytes());
                wrapped.extend_from_slice(b"    ");
                column = 0;
            }
            wrapped.push(*byte);
            column += 1;
        }
    }
    wrapped
}

#[test]
fn line_breaks_do_not_change_the_contents() {
    // The words of a script cannot be joined again.
    for (name, text) in EXPORTS.iter().filter(|(name, _)| *name != "script.rsc") {
        for every in [1, 2, 7, 60] {
            assert_eq!(said(&wrapped(text, every, "\n")), said(text), "{name}, every {every}");
            assert_eq!(said(&wrapped(text, every, "\r\n")), said(text), "{name}, every {every}");
        }
        let text = String::from_utf8(text.to_vec()).unwrap();
        let crlf = format!("\u{FEFF}{}", text.replace('\n', "\r\n"));
        assert_eq!(said(crlf.as_bytes()), said(text.as_bytes()), "{name}");
    }
}

#[test]
fn bad_lines_of_real_files_are_reported_one_by_one() {
    let text = "/ip firewall filter\n\
        ****************************\n\
        add action=accept chain=input src-address=172.16.1.X\n\
        add action=accept chain=input dst-port=XXXXX protocol=tcp\n\
        add action=drop chain=input action=accept\n\
        add action=drop chain=input src-address-list=A,!B\n\
        add action=drop chain=Input src-address-list = A\n\
        add action=drop chain=input in-interface=\"$wan\"\n\
        add action=drop chain=input comment=\"as it should be\"\n";
    let lines: Vec<u32> = places(text).iter().map(|(_, line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 7, 7, 8]);
    assert_eq!(read(text.as_bytes()).rules.rules.len(), 1);
}

#[test]
fn a_file_may_first_remove_the_rules_of_its_last_run() {
    let removes =
        "/ip firewall filter remove [find where comment~\"^x\"]\n/ip firewall address-list\nremove [find list=x]\n";
    let adds = "/ip firewall address-list\nadd list=x address=192.0.2.1\n";
    assert_eq!(rules(&format!("{removes}{adds}")).address_lists.len(), 1);
    assert_eq!(rules(&format!("{adds}remove [find]\nremove [find list=x]\n{adds}")).address_lists.len(), 1);
    assert_eq!(rules(&format!("{adds}remove [find list=y]\n")).address_lists.len(), 1);
    assert_eq!(places("/ip firewall filter remove 0\n"), [("0".to_owned(), 1, 28)]);
    assert_eq!(places("/ip firewall filter set [find] disabled=yes\n"), [("[find]".to_owned(), 1, 25)]);
    assert_eq!(places("/ip firewall filter remove [find color=x]\n"), [("color".to_owned(), 1, 34)]);
}

#[test]
fn commands_that_could_change_rules_are_not_skipped() {
    assert_eq!(places("/ip dns set servers=192.0.2.1\n/import file-name=rules.rsc\n"), [("import".to_owned(), 2, 2)]);
    let text = "/ip dns\ndo {\n/ip firewall filter add chain=input\n} on-error={}\n";
    assert_eq!(places(text).iter().map(|(_, line, _)| *line).collect::<Vec<_>>(), [2]);
    assert_eq!(places("/ip dns {\n/ip firewall filter add chain=input\n}\n").len(), 1);
    assert_eq!(places("/certificate import file-name=x passphrase=\"\"\n"), []);
}
