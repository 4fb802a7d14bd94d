//! `docs/language.md` is what the code says of the language: this writes the page, and compares it.
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

/// What no table of the reader says.
const INTRODUCTION: &str = "\
# The rule language

Rules are read from exports of RouterOS 5 to 7 as they are, with every menu that rules depend on. This page is made from
the tables that read them.

- **Every bad line is reported**, with line, column, what was expected and a remedy. A file with a problem is not used at
  all: a rule without one of its matchers would let in more.
- **What cannot be honoured here is kept and never run.** Such a rule is no mistake of the file; it is shown with the reason.
  A file that has one is refused all the same, unless the rule is disabled or `--allow-invalid` is given.
- **Menus that are not listed here are skipped** and counted, if RouterOS has them. A menu that is not known is warned of, and a
  command that looks like one of the firewall's is refused there: no rule vanishes.
- **An export that says of itself that it is incomplete** (`#error exporting …`, `#interrupted`) is refused if its rules depend on
  what is missing.
- **Commands**: `add`, `set`, `remove`, `enable`, `disable`, `comment`, and for rules `move` and `place-before=`, for entries
  by number, `*1`, name, `[find …]`, or one of what that finds: `([find …]->0)`. `remove [find …]` may find nothing; `print`
  and the like change nothing.
- **Scripts** run if what they do follows from the file alone: `:local`, `:global`, `:set`, `$name`, `.` and other operators, `:if`,
  `:for`, `:foreach` over arrays such as `{7001;7002}`, `:do {…} on-error={…}`, `[:len …]`, `[:pick …]`, `[:tostr …]`, `[:tonum …]`,
  `[:toarray …]` and `[:typeof …]`. `:put`, `:log`, `:delay` and `:beep` are passed over. All else is refused by its name, and so
  is what only a router knows, such as `[/system clock get time]`. What goes wrong on the router within `:do … on-error` is
  refused here.
- **Names and comments** may have any encoding: a byte that is not UTF-8 is shown, and written in commands, as `\\E1`. Files may
  be UTF-16 with a byte order mark.
- **`!name`** unsets a property, as verbose exports do. **`!` before a value** negates all of it.
- All matchers of a rule must be true. Those that look at ports, flags or ICMP are false for packets that have none, negated
  or not.
- A rule that cannot be honoured here is kept and shown, but never run; the dataplane refuses it unless it is disabled.
  `knockctl check` says the same beforehand. What else it says of rules is in [lints.md](lints.md).

In the tables, `[…]` may be left out, `|` stands between choices, `…` for more of the same. What begins with **Here** is
different from RouterOS.
";

#[test]
fn the_page_is_what_the_code_says() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/language.md"));
    let page = page();
    if env::var_os("UPDATE").is_some() {
        fs::write(path, &page).expect("docs/language.md can be written");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(committed.lines()).find(|(said, there)| said != there);
    assert!(
        page == committed,
        "docs/language.md is not what the code says (first at {differs:?}): renew it with\n\
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
    page.push_str("\n### What a rule does\n");
    write_properties(page, &others);
    page.push_str("\n### Actions\n");
    write_actions(page, &menu.actions);
    for family in [Family::Ipv4, Family::Ipv6] {
        let answers = RejectWith::ALL.iter().filter(|answer| answer.exists_for(family));
        let answers = list(answers.map(|answer| answer.name()));
        let default = RejectWith::default_of(family).name();
        let _ = write!(page, "\n`reject-with` for {}: {answers}. `{default}` if nothing is said.\n", name(family));
    }
    page.push_str("\n### Matchers\n");
    write_properties(page, &matchers);
    let _ = write!(
        page,
        "\nThey are evaluated in this order until one is false. It matters for those with a memory, such as `limit`, which \
         learn only of packets that everything before them let through: {}.\n",
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

/// In a table, where a bare `|` would end the cell.
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
