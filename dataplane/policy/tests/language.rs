//! Generates `docs/language.md` from the tables of the reader, and compares it.
//!
//! `UPDATE=1 cargo test -p knockplane-policy --test language` renews it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use knockplane_policy::packet::Family;
use knockplane_policy::rsc::{ActionReference, MenuReference, PropertyReference, reference};
use knockplane_policy::rule::{MATCHERS, PROTOCOLS, RejectWith, Table};
use knockplane_policy::word::Word;

/// The text before the tables.
const INTRODUCTION: &str = "\
# The rule language

The reader takes exports of RouterOS 5 to 7 unchanged, with every menu on which rules depend. This page is generated from the
tables of the reader.

- **Every bad line is reported**, with line, column, the expected text and a remedy. A file with a problem is not used at all,
  because a rule without one of its matchers would accept more packets.
- **A valid rule that cannot run here is kept, shown with the reason, and never run.** The dataplane refuses a file with such a
  rule, unless the rule is disabled or `--allow-invalid` is given. `knockctl check` reports the same beforehand, and the
  [lints](lints.md).
- **Menus that are not listed here are skipped** and counted, if RouterOS has them. The reader warns of an unknown menu, and
  refuses commands in it that look like firewall commands, so that no rule is lost.
- **An export that reports itself as incomplete** (`#error exporting …`, `#interrupted`) is refused if its rules depend on the
  missing parts.
- **Commands**: `add`, `set`, `remove`, `enable`, `disable`, `comment`, and for rules `move` and `place-before=`, for entries
  by number, `*1`, name, `[find …]`, or one of its results: `([find …]->0)`. `remove [find …]` may find no entry. `print` and
  similar commands change nothing.
- **Scripts** run if their effect follows from the file alone: `:local`, `:global`, `:set`, `$name`, `.` and other operators, `:if`,
  `:for`, `:foreach` over arrays such as `{7001;7002}`, `:do {…} on-error={…}`, `[:len …]`, `[:pick …]`, `[:tostr …]`, `[:tonum …]`,
  `[:toarray …]` and `[:typeof …]`. `:put`, `:log`, `:delay` and `:beep` are skipped. Other commands are refused by
  name, and so are values that only a router knows, such as `[/system clock get time]`. An error that a router would catch by
  `:do … on-error` is refused here.
- **Names and comments** may have any encoding: a byte that is not UTF-8 is shown, and written in commands, as `\\E1`. Files may
  be UTF-16 with a byte order mark.
- **`!name`** unsets a property, as verbose exports do. **`!` before a value** negates all of it.
- A rule matches if all its matchers are true. Matchers of ports, flags or ICMP are false for packets without these fields,
  negated or not.

In the tables, `[…]` is optional, `|` separates choices, and `…` means repetition. **Here** marks a difference from RouterOS.
";

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/language.md"));
    let page = page();
    if env::var_os("UPDATE").is_some() {
        fs::write(path, &page).expect("docs/language.md can be written");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(committed.lines()).find(|(said, there)| said != there);
    assert!(
        page == committed,
        "docs/language.md is not up to date (first difference at {differs:?}): renew it with\n\
         UPDATE=1 cargo test -p knockplane-policy --test language"
    );
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for menu in reference() {
        write_menu(&mut page, &menu);
    }
    page
}

fn write_menu(page: &mut String, menu: &MenuReference) {
    let paths: Vec<String> = menu.menus.iter().map(|path| format!("`{path}`")).collect();
    let _ = write!(page, "\n## {}\n\n{}\n", paths.join(", "), menu.meaning);
    let (matchers, others): (Vec<_>, Vec<_>) = menu.properties.iter().partition(|property| property.is_matcher);
    if matchers.is_empty() {
        return write_properties(page, &others);
    }
    page.push_str("\n### Properties of a rule\n");
    write_properties(page, &others);
    page.push_str("\n### Actions\n");
    write_actions(page, &menu.actions);
    for family in [Family::Ipv4, Family::Ipv6] {
        let answers = RejectWith::ALL.iter().filter(|answer| answer.exists_for(family));
        let answers = list(answers.map(|answer| answer.name()));
        let default = RejectWith::default_of(family).name();
        let _ = write!(page, "\n`reject-with` for {}: {answers}. `{default}` is the default.\n", name(family));
    }
    page.push_str("\n### Matchers\n");
    write_properties(page, &matchers);
    let _ = write!(
        page,
        "\nThey are evaluated in this order until one is false. The order matters for matchers with state, such as `limit`, which \
         see only packets for which all earlier matchers are true: {}.\n",
        list(MATCHERS.iter().copied())
    );
    let names = list(PROTOCOLS.iter().map(|(name, _)| *name));
    let _ = write!(page, "\nProtocols by name: {names}.\n");
}

fn write_properties(page: &mut String, properties: &[&PropertyReference]) {
    page.push_str("\n| property | value | example | meaning |\n|---|---|---|---|\n");
    for property in properties {
        let PropertyReference { name, grammar, example, meaning, differs, family, table, .. } = property;
        let meaning = sentences(meaning, differs, *family, *table);
        let _ = writeln!(page, "| `{name}` | {} | {} | {meaning} |", code(grammar), code(example));
    }
}

fn write_actions(page: &mut String, actions: &[ActionReference]) {
    page.push_str("\n| action | meaning |\n|---|---|\n");
    for ActionReference { name, meaning, differs, family, table } in actions {
        let _ = writeln!(page, "| `{name}` | {} |", sentences(meaning, differs, *family, *table));
    }
}

fn sentences(meaning: &str, differs: &str, family: Option<Family>, table: Option<Table>) -> String {
    let mut text = meaning.to_owned();
    let only: Vec<String> =
        family.map(|it| name(it).to_owned()).into_iter().chain(table.map(|it| format!("`{}`", it.name()))).collect();
    if !only.is_empty() {
        let _ = write!(text, " For {} only.", only.join(" and "));
    }
    if !differs.is_empty() {
        let _ = write!(text, " **Here:** {differs}");
    }
    text
}

/// Code in a table, in which `|` must be escaped.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}
