//! `/interface list` and `/interface list member`: parses the words of an `add` into an [`InterfaceList`].

use std::collections::HashMap;
use std::ops::Range;

use super::kind::Kind;
use super::lexer::Text;
use super::menu::Menu;
use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::store::Store;
use super::value::{self, Parsed};
use crate::rule::{InterfaceList, InterfaceMember};

type ListRow = Property<ListDraft>;
type MemberRow = Property<MemberDraft>;

/// Every property RouterOS has for lists. Source: RouterOS manual, Interface lists.
pub(super) const LIST_PROPERTIES: &[ListRow] = &[
    ListRow::fixed("name", |list, value| {
        list.name = Some(value::list_name(&value::text(value))?);
        Ok(())
    })
    .says("Its name in interface matchers; unique.", "name", "WAN")
    .differs("`[policy.interfaces]` of the configuration may map the list to a side of the filter."),
    ListRow::optional("include", |list, value| names(&mut list.include, value)).says(
        "Lists whose interfaces it includes; they must be in the file.",
        "name,…",
        "all",
    ),
    ListRow::optional("exclude", |list, value| names(&mut list.exclude, value)).says(
        "Lists whose interfaces it excludes from those.",
        "name,…",
        "none",
    ),
    ListRow::optional("comment", |list, value| {
        list.comment = value::comment(value);
        Ok(())
    })
    .says("Free text.", "text", "defconf"),
    ListRow::unsupported("copy-from"),
];

/// Every property RouterOS has for members.
pub(super) const MEMBER_PROPERTIES: &[MemberRow] = &[
    MemberRow::fixed("interface", |member, value| {
        member.interface = Some(value::name(&value::text(value), "interface")?);
        Ok(())
    })
    .says("The interface.", "name", "ether1")
    .differs("Interfaces without a side of the filter count as interfaces without packets."),
    MemberRow::fixed("list", |member, value| {
        member.list = Some(value::list_name(&value::text(value))?);
        Ok(())
    })
    .says("Its list, which must be in the file.", "name", "WAN"),
    MemberRow::optional("comment", |member, value| {
        member.comment = value::comment(value);
        Ok(())
    })
    .says("Free text.", "text", "defconf"),
    MemberRow::fixed("disabled", |member, value| {
        member.disabled = value::yes_no(&value::text(value))?;
        Ok(())
    })
    .says("Keeps the member but does not add it to the list.", "yes|no", "yes"),
    MemberRow::unsupported("copy-from"),
];

#[derive(Debug, Default)]
pub(super) struct ListDraft {
    name: Option<String>,
    include: Vec<String>,
    exclude: Vec<String>,
    comment: String,
}

#[derive(Debug, Default)]
pub(super) struct MemberDraft {
    interface: Option<String>,
    list: Option<String>,
    disabled: bool,
    comment: String,
}

/// Maximum number of lists that a list may include or exclude.
const MOST_NAMES: usize = 1_000;

/// `/interface list`.
#[derive(Debug)]
pub(super) struct Lists;

/// A list, with all parts that could be parsed.
#[derive(Debug)]
pub(super) struct ListEntry {
    list: InterfaceList,
    /// Whether the list has no errors.
    intact: bool,
    /// The position of the list's name; `None` if the list could not be parsed.
    name: Option<Range<usize>>,
    /// The position of the list's references to other lists.
    references: Range<usize>,
}

impl Kind for Lists {
    type Entry = ListEntry;
    const NAMED: bool = true;
    const BUILTIN: &'static [&'static str] = &["all", "none", "dynamic", "static"];

    fn path(&self) -> &'static str {
        Menu::InterfaceList.path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(LIST_PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> ListEntry {
        let before = problems.count();
        let mut draft = ListDraft::default();
        let given = property::read(LIST_PROPERTIES, None, add, &mut draft, problems);
        missing(given.is_missing("name"), "list", "name", add, problems);
        let references = given.read("include").or(given.read("exclude")).unwrap_or_else(|| add.verb.clone());
        let name = draft.name.as_ref().and_then(|_| given.read("name"));
        let list = InterfaceList {
            name: draft.name.unwrap_or_default(),
            include: draft.include,
            exclude: draft.exclude,
            members: Vec::new(),
            comment: draft.comment,
        };
        ListEntry { list, intact: problems.count() == before, name, references }
    }
}

/// `/interface list member`.
#[derive(Debug)]
pub(super) struct Members;

/// A member that could be parsed.
#[derive(Debug)]
pub(super) struct Member {
    member: InterfaceMember,
    list: String,
    /// The position of that.
    span: Range<usize>,
}

impl Kind for Members {
    type Entry = Option<Member>;

    fn path(&self) -> &'static str {
        Menu::InterfaceListMember.path()
    }

    fn knows(&self, name: &Text) -> bool {
        property::knows(MEMBER_PROPERTIES, name)
    }

    fn read(&self, add: &Add<'_>, problems: &mut Problems) -> Option<Member> {
        let before = problems.count();
        let mut draft = MemberDraft::default();
        let given = property::read(MEMBER_PROPERTIES, None, add, &mut draft, problems);
        missing(given.is_missing("interface"), "member", "interface", add, problems);
        missing(given.is_missing("list"), "member", "list", add, problems);
        let span = given.read("list").filter(|_| problems.count() == before)?;
        let MemberDraft { interface, list, disabled, comment } = draft;
        let member = InterfaceMember { interface: interface?, disabled, comment, line: add.line };
        Some(Member { member, list: list?, span })
    }
}

fn missing(is_missing: bool, what: &str, name: &str, add: &Add<'_>, problems: &mut Problems) {
    if is_missing {
        let complaint = Complaint::new(format!("the {what} has no `{name}`"))
            .expected(format!("`{name}=`"))
            .help(format!("add `{name}=` and a name"));
        problems.add(add.verb.clone(), complaint);
    }
}

/// Names separated by commas; may be empty.
fn names(place: &mut Vec<String>, value: &[u8]) -> Parsed<()> {
    let text = &*value::text(value);
    if text.split(',').nth(MOST_NAMES).is_some() {
        return Err(Complaint::new(format!("more than {MOST_NAMES} lists")).expected("the names of some lists"));
    }
    *place = match text {
        "" => Vec::new(),
        _ => text.split(',').map(|name| value::name(name, "list")).collect::<Parsed<_>>()?,
    };
    Ok(())
}

/// Adds the members to their lists. Referenced lists must exist.
pub(super) fn finish(lists: Store<Lists>, members: Store<Members>, problems: &mut Problems) -> Vec<InterfaceList> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut found: Vec<ListEntry> = Vec::new();
    for entry in lists.into_entries() {
        let Some(span) = entry.name.clone() else { continue };
        let there = places.insert(entry.list.name.clone(), found.len());
        if there.is_some() {
            let complaint =
                Complaint::new(format!("a list named `{}` exists already", show(entry.list.name.as_bytes())))
                    .expected("a unique name")
                    .help("remove one of the two; `all`, `none`, `dynamic` and `static` are lists of RouterOS");
            problems.add(span, complaint);
        }
        found.push(entry);
    }
    for entry in &found {
        let unknown = entry.list.include.iter().chain(&entry.list.exclude).find(|name| !places.contains_key(*name));
        if let Some(name) = unknown {
            problems.add(entry.references.clone(), no_such_list(name));
        }
    }
    for member in members.into_entries().flatten() {
        match places.get(&member.list) {
            None => problems.add(member.span, no_such_list(&member.list)),
            Some(place) => found[*place].list.members.push(member.member),
        }
    }
    let says_something = |list: &InterfaceList| !list.comment.is_empty() || !is_builtin(&list.name);
    found.into_iter().filter(|entry| entry.intact && says_something(&entry.list)).map(|entry| entry.list).collect()
}

/// Whether this is the name of a predefined list of RouterOS.
pub(super) fn is_builtin(name: &str) -> bool {
    Lists::BUILTIN.contains(&name)
}

fn no_such_list(name: &str) -> Complaint {
    Complaint::new(format!("no interface list is named `{}`", show(name.as_bytes())))
        .expected("the name of a list of `/interface list`")
        .help("add the list to this file")
}
