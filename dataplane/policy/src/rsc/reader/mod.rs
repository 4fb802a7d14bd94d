//! Reads the commands of a rule file, one after the other, into the stores of their menus.

mod elsewhere;

use std::collections::HashMap;
use std::ops::Range;

use super::address_list::AddressLists;
use super::command::{Order, Verb};
use super::flaw::Flaw;
use super::incomplete::{Gap, Progress};
use super::kind::Kind;
use super::lexer::{self, Command, Lexer, Text, Word};
use super::local_address::LocalAddresses;
use super::menu::{Invocation, Line, Menu, Menus, Place};
use super::problem::{Complaint, Cursor, Problems, show};
use super::property::Add;
use super::rules::{Patterns, Rules};
use super::script::{self, Expansion};
use super::store::Store;
use super::work::Work;
use super::{Reading, SkippedMenu, check, filter, interface, layer7, tracking};
use crate::packet::Family;
use crate::rule::{ListEntry, RuleSet, Table, Tracking};

/// Maximum number of comments about missing menus that are stored. Rules depend on fewer menus than this number.
const MOST_GAPS: usize = 100;

/// The file is a script, which must be expanded before it can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct IsScriptError;

/// The supported menu to which the command adds an entry.
fn adds_to(line: &Line) -> Option<Menu> {
    match line {
        Line::Command(Invocation { place: Place::Understood(menu), verb: Some((verb, _)), .. }) if verb == "add" => {
            Some(*menu)
        }
        _ => None,
    }
}

/// The entries of any menu.
trait Entries {
    /// Whether entries have this property.
    fn knows(&self, name: &Text) -> bool;

    /// Executes a command.
    fn carry_out(&mut self, order: &Order<'_>, problems: &mut Problems, work: &Work);

    /// Assigns numbers to the entries, as `print` does.
    fn print(&mut self, _: &Work) {}

    /// Whether an indented line continues the `add` above it, whose `\` was lost. Such a line begins with a property of
    /// the menu, and has only `name=value` words. No command of RouterOS has this form.
    fn continues(&self, next: &Command) -> bool {
        next.hangs
            && next.words.first().is_some_and(|word| self.knows(&word.name))
            && next.words.iter().all(|word| word.value.is_some())
    }
}

impl<K: Kind> Entries for Store<K> {
    fn knows(&self, name: &Text) -> bool {
        self.kind.knows(name)
    }

    fn carry_out(&mut self, order: &Order<'_>, problems: &mut Problems, work: &Work) {
        Store::carry_out(self, order, problems, work);
    }

    fn print(&mut self, work: &Work) {
        Store::print(self, work);
    }
}

/// A pair for IPv4 and IPv6.
type Both<T> = [T; 2];

/// The state of reading one file.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    /// The file and its expansion, if the file is a script. The text is then the expansion.
    script: Option<(&'a [u8], &'a Expansion)>,
    cursor: Cursor<'a>,
    menus: Menus,
    filter: Both<Store<Rules>>,
    raw: Both<Store<Rules>>,
    patterns: Store<Patterns>,
    address_lists: Both<Store<AddressLists>>,
    local_addresses: Both<Store<LocalAddresses>>,
    interface_lists: Store<interface::Lists>,
    interface_members: Store<interface::Members>,
    tracking: Tracking,
    work: Work,
    problems: Problems,
    warnings: Problems,
    /// The missing parts of the export, and its progress.
    gaps: Vec<Gap>,
    progress: Progress,
    skipped: Vec<SkippedMenu>,
    /// The index of each menu in `skipped`.
    skipped_at: HashMap<String, usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8], script: Option<(&'a [u8], &'a Expansion)>) -> Self {
        let both = [Family::Ipv4, Family::Ipv6];
        Reader {
            text,
            script,
            cursor: Cursor::new(text),
            menus: Menus::default(),
            filter: both.map(|family| Store::new(Rules(Table::Filter, family))),
            raw: both.map(|family| Store::new(Rules(Table::Raw, family))),
            patterns: Store::new(Patterns),
            address_lists: both.map(|family| Store::new(AddressLists::new(family))),
            local_addresses: both.map(|family| Store::new(LocalAddresses(family))),
            interface_lists: Store::new(interface::Lists),
            interface_members: Store::new(interface::Members),
            tracking: tracking::defaults(script.map_or(text, |(file, _)| file)),
            work: Work::new(text.len()),
            problems: Problems::default(),
            warnings: Problems::default(),
            gaps: Vec::new(),
            progress: Progress::default(),
            skipped: Vec::new(),
            skipped_at: HashMap::new(),
        }
    }

    /// Reads the text to its end, unless the text is a script without expansion.
    pub(super) fn read(mut self) -> Result<Reading, IsScriptError> {
        let mut lexer = Lexer::new(self.text);
        let mut upcoming = self.next(&mut lexer);
        while let Some(mut command) = upcoming.take().filter(|_| !self.problems.are_too_many()) {
            if self.script.is_none() && script::begins(&command.words) {
                return Err(IsScriptError);
            }
            let line = self.follow(&command);
            upcoming = self.next(&mut lexer);
            if let Some(menu) = line.as_ref().and_then(adds_to) {
                while let Some(lost) =
                    upcoming.take_if(|next| command.words.len() < lexer::MOST_WORDS && self.menu(menu).continues(next))
                {
                    command.words.extend(lost.words);
                    command.flaws.extend(lost.flaws);
                    command.span.end = lost.span.end;
                    upcoming = self.next(&mut lexer);
                }
            }
            if let Some(line) = line {
                self.carry_out(&command, line);
            }
        }
        Ok(self.finish())
    }

    /// The next command. Records comments about missing parts before it.
    fn next(&mut self, lexer: &mut Lexer<'_>) -> Option<Command> {
        let next = lexer.next(|words| self.menus.understands(words));
        let marks = std::mem::take(&mut lexer.marks).into_iter();
        let gaps = marks.filter_map(|mark| Gap::read(self.text, mark, &self.progress));
        self.gaps.extend(gaps);
        self.gaps.truncate(MOST_GAPS);
        next
    }

    /// The entries of a menu.
    fn menu(&mut self, menu: Menu) -> &mut dyn Entries {
        let place = |family: Family| usize::from(family == Family::Ipv6);
        match menu {
            Menu::Rules(Table::Filter, family) => &mut self.filter[place(family)],
            Menu::Rules(Table::Raw, family) => &mut self.raw[place(family)],
            Menu::Layer7 => &mut self.patterns,
            Menu::AddressList(family) => &mut self.address_lists[place(family)],
            Menu::LocalAddress(family) => &mut self.local_addresses[place(family)],
            Menu::InterfaceList => &mut self.interface_lists,
            Menu::InterfaceListMember => &mut self.interface_members,
            Menu::Tracking => &mut self.tracking,
        }
    }

    /// The kind of a line; `None` if the line is already handled.
    fn follow(&mut self, command: &Command) -> Option<Line> {
        match command.words.first() {
            Some(_) if !script::begins(&command.words) => {
                let line = self.menus.follow(&command.words);
                match &line {
                    Line::Enter => self.progress.reach(&self.menus.place()),
                    Line::Command(invocation) => self.progress.reach(&invocation.place),
                    Line::Wrong(..) => {}
                }
                return Some(line);
            }
            Some(first) => self.refuse_script(first),
            None => {}
        }
        self.report_flaws(&command.flaws, |flaw| flaw.kind.breaks_the_text());
        None
    }

    fn carry_out(&mut self, command: &Command, line: Line) {
        match line {
            Line::Command(Invocation { place: Place::Understood(menu), verb: Some(verb), arguments, .. }) => {
                self.order(command, menu, verb, arguments);
            }
            line => {
                self.report_flaws(&command.flaws, |flaw| flaw.kind.breaks_the_text());
                match line {
                    Line::Enter => {}
                    Line::Wrong(span, complaint) => self.problems.add(span, complaint),
                    Line::Command(invocation) => self.other(command, invocation),
                }
            }
        }
    }

    /// Handles a command of a supported menu.
    fn order(&mut self, command: &Command, menu: Menu, (name, at): (String, Range<usize>), head: usize) {
        let Some(verb) = Verb::from_name(&name).filter(|verb| menu != Menu::Tracking || *verb == Verb::Set) else {
            self.report_flaws(&command.flaws, |flaw| flaw.kind.breaks_the_text());
            match &*name {
                "print" => {
                    let work = std::mem::take(&mut self.work);
                    self.menu(menu).print(&work);
                    self.work = work;
                }
                _ if CHANGES_NOTHING.contains(&&*name) => {}
                _ => self.problems.add(at, no_such_verb(menu, &name)),
            }
            return;
        };
        let words = command.words.get(head..).unwrap_or_default();
        if verb == Verb::Add
            && let Some(complaint) = self.misplaced(menu, words)
        {
            self.report_flaws(&command.flaws, |flaw| flaw.kind.breaks_the_text());
            self.problems.add(at, complaint);
            return;
        }
        let line = self.line(command.span.start);
        let order = Order { text: self.text, command, verb, at, head, line };
        let told: Vec<_> = order.flaws().filter_map(|flaw| self.flaw_complaint(flaw)).collect();
        told.into_iter().for_each(|(span, complaint)| self.problems.add(span, complaint));
        // Takes the other fields first, because the entries of the menu borrow the reader.
        let (mut problems, work) = (std::mem::take(&mut self.problems), std::mem::take(&mut self.work));
        self.menu(menu).carry_out(&order, &mut problems, &work);
        (self.problems, self.work) = (problems, work);
    }

    /// The line on which a command begins.
    fn line(&mut self, start: usize) -> u32 {
        match self.script {
            Some((_, expansion)) => expansion.line(start),
            None => self.cursor.advance(start).0,
        }
    }

    /// The problem of a flaw. If a value is expected, this is the reason that the value is not known. `None` if the
    /// problem was already reported.
    fn flaw_complaint(&self, flaw: &Flaw) -> Option<(Range<usize>, Complaint)> {
        match self.script.and_then(|(_, expansion)| expansion.why(flaw.span.start)) {
            Some((span, complaint)) => Some((span, complaint?)),
            None => Some((flaw.span.clone(), flaw.kind.complaint())),
        }
    }

    fn refuse_script(&mut self, word: &Word) {
        let complaint = Complaint::new(format!("scripting is not supported: `{}`", show(&word.name.bytes)))
            .expected("a menu line or a command such as `add`")
            .help("write out the commands of the script, or export the rules from a router on which it ran");
        self.problems.add(word.span.clone(), complaint);
    }

    fn report_flaws(&mut self, flaws: &[Flaw], matters: impl Fn(&Flaw) -> bool) {
        for flaw in flaws.iter().filter(|flaw| matters(flaw)) {
            if let Some((span, complaint)) = self.flaw_complaint(flaw) {
                self.problems.add(span, complaint);
            }
        }
    }

    fn finish(mut self) -> Reading {
        let in_order = [self.filter, self.raw].into_iter().flatten().flat_map(Store::into_ordered);
        let mut rules: Vec<(usize, filter::RuleDraft)> = in_order.collect();
        rules.sort_by_key(|(place, _)| *place);
        let mut rules: Vec<filter::RuleDraft> = rules.into_iter().map(|(_, entry)| entry).collect();
        let mut patterns: Vec<layer7::PatternDraft> = self.patterns.into_entries().collect();
        check::check(&mut rules, &mut patterns, &mut self.problems);
        let [v4, v6] = self.address_lists.map(|store| store.into_entries().flatten());
        let mut address_lists: Vec<ListEntry> = v4.collect();
        address_lists.extend(v6);
        let (layer7, pattern_spans) =
            patterns.into_iter().filter_map(|entry| Some((entry.pattern?, entry.spans))).unzip();
        let (rules, rule_spans) = rules.into_iter().filter_map(|entry| Some((entry.rule?, entry.spans))).unzip();
        let mut rules = RuleSet {
            layer7,
            rules,
            address_lists,
            tracking: self.tracking,
            interface_lists: interface::finish(self.interface_lists, self.interface_members, &mut self.problems),
            local_addresses: self.local_addresses.into_iter().flat_map(Store::into_entries).flatten().collect(),
        };
        rules.assign_ids();
        for gap in self.gaps {
            gap.tell(&rules, &mut self.problems, &mut self.warnings);
        }
        let mut reading = Reading { rules, skipped: self.skipped, rule_spans, pattern_spans, ..Reading::default() };
        let Some((file, expansion)) = self.script else {
            reading.problems = self.problems.place(self.text);
            reading.warnings = self.warnings.place(self.text);
            return reading;
        };
        let place = |found: Problems, of_script: &Problems| {
            let mut all = expansion.locate(found);
            all.extend(of_script.clone());
            all.place(file)
        };
        reading.problems = place(self.problems, &expansion.problems);
        reading.warnings = place(self.warnings, &expansion.warnings);
        for spans in reading.rule_spans.iter_mut().chain(&mut reading.pattern_spans) {
            spans.relocate(|span| expansion.source(span));
        }
        reading
    }
}

impl Entries for Tracking {
    fn knows(&self, _: &Text) -> bool {
        false
    }

    fn carry_out(&mut self, order: &Order<'_>, problems: &mut Problems, _: &Work) {
        let intact = order.flaws().next().is_none();
        let add = Add { words: order.words(), verb: order.at.clone(), line: order.line, intact };
        tracking::set(self, &add, problems);
    }
}

/// Whether a word after a menu or a command begins a script.
fn is_script(first: &Word) -> bool {
    script::begins(std::slice::from_ref(first))
}

/// Commands of the supported menus that print or count, and change no entry.
const CHANGES_NOTHING: &[&str] = &["export", "find", "print", "reset-counters", "reset-counters-all"];

const PRINTED: &str = "this looks like the output of `print`: use the output of `export`";

fn expected_verb(menu: Menu) -> &'static str {
    match menu {
        Menu::Tracking => "`set`",
        _ => "`add`, `set` or `remove`",
    }
}

fn no_such_verb(menu: Menu, verb: &str) -> Complaint {
    let complaint = Complaint::new(format!("`{}` is not supported in `{}`", show(verb.as_bytes()), menu.path()))
        .expected(expected_verb(menu));
    match verb {
        "unset" => complaint.help("write `set`, and the property with a `!` before it"),
        "edit" => complaint.help("write `set`"),
        "get" | "reset" => complaint.help("leave the line out"),
        _ if verb.bytes().all(|byte| byte.is_ascii_digit()) => complaint.help(PRINTED),
        _ if menu == Menu::Tracking => complaint.help("`set` changes the settings"),
        _ => complaint
            .help("write each rule as a line that begins with `add`")
            .did_you_mean(verb, ["add", "set", "remove", "enable", "disable", "move", "comment"]),
    }
}
