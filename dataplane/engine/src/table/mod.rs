//! A rule set ready to run.
//!
//! [`Table::compile`] checks everything first and reports every problem, not the first; then it binds the lists; then
//! it emits a program per address family, in which nothing can fail any more. So a rule set that does not compile
//! changes nothing.
//!
//! Rules that are disabled are not run, and what only they refer to need not exist. A rule that nobody can run is
//! refused: it may be the one that was to drop. Everything that is counted or shown keeps the position in the declared
//! rules. A jump to a chain without rules matches, counts and goes on.

mod field;
mod index;
mod program;
mod question;
mod source;
mod state_test;

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashMap;
use knockplane_policy::door::exempt::Exempt;
use knockplane_policy::door::{self, Door};
use knockplane_policy::eval::{MAX_JUMP_DEPTH, tracking};
use knockplane_policy::event::Origin;
use knockplane_policy::level;
use knockplane_policy::packet::{Family, Vlan};
use knockplane_policy::rule::{
    self, Action, AddressSet, Condition, EntryAddress, Layer7Pattern, ListEntry, Rule, RuleId, RuleSet,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::MAX_NAMES;
use siphasher::sip::SipHasher13;

use crate::state::State;
use crate::state::doors::{CompiledDoor, CompiledExempt, DoorId, Sequence};
use crate::state::events::Cause;
use crate::state::layer7::{Listening, PatternError, Patterns};
use crate::state::lists::{ListId, ListSet, OPERATOR_LEVEL, TooManyListsError};
use crate::state::matchers::meters::{Meters, ScanWeights, Wanted};
use crate::state::matchers::reached::{MOST_MATCHERS, MatcherId, Reached};
use crate::state::server_name;
use crate::state::static_entries::{SingleTimed, StaticEntries};

pub(crate) use index::Candidates;
pub(crate) use program::{CompiledRule, Program, Span, Step};
pub(crate) use question::{About, View};
pub use source::{AddressMatcher, MatcherMemory};
pub(crate) use state_test::StateTest;

/// Rules that one packet may be held against: some milliseconds of a worker, which is far more than anyone wants.
const MAX_STEPS: u64 = 1_000_000;

/// See the module.
pub struct Table {
    rules: Arc<RuleSet>,
    settings: Settings,
    /// Of each family, by [`family_index`].
    raw: [Program; 2],
    filter: [Program; 2],
    listening: Listening,
    pub(crate) meters: Meters,
    /// If rules ask for it.
    pub(crate) reached: Option<Reached>,
    entries: StaticEntries,
    /// What [`Table::begin`] is still to put in the lists.
    single_timed: SingleTimed,
    doors: Box<[CompiledDoor]>,
    /// Whether connections are tracked.
    tracks: bool,
    number: u32,
    /// When the timeouts of the rules' own entries began.
    begun: Time,
}

impl Table {
    /// Compiles the rules, and makes their lists known. Timeouts of the lists' entries begin now. Nobody is in a list by
    /// these rules before they run: see [`Table::begin`].
    ///
    /// # Errors
    /// Everything that keeps the rules from running; then nothing changed.
    pub fn compile(rules: Arc<RuleSet>, settings: &Settings, state: &State, now: Time) -> Result<Table, CompileError> {
        Self::build(rules, settings, state, now)
    }

    /// Puts the rules' single addresses with a timeout in the lists, once: called when nothing keeps the rules from
    /// running any more.
    pub fn begin(&mut self, state: &State, now: Time) {
        for (list, address, expiry) in std::mem::take(&mut self.single_timed) {
            state.lists.in_vlan(Vlan::NONE).by(Cause::of(Origin::Rules)).add_for(list, address, 0, expiry, now);
        }
    }

    /// The same rules under other settings. The timeouts of the lists' entries go on, and nobody gets back in who was taken
    /// out of a list.
    ///
    /// # Errors
    /// As [`Table::compile`].
    pub fn with_settings(&self, settings: &Settings, state: &State) -> Result<Table, CompileError> {
        let mut rules = RuleSet::clone(&self.rules);
        rules.rules.retain(|rule| !rule.dynamic);
        let table = Self::build(Arc::new(rules), settings, state, self.begun)?;
        Ok(Table { single_timed: SingleTimed::new(), ..table })
    }

    fn build(rules: Arc<RuleSet>, settings: &Settings, state: &State, now: Time) -> Result<Table, CompileError> {
        let rules = match settings.doors.is_empty() {
            true => rules,
            false => Arc::new(door::rules(settings, Arc::unwrap_or_clone(rules))),
        };
        let mut problems = Vec::new();
        check_invalid(&rules, &mut problems);
        let menus = [rule::Table::Raw, rule::Table::Filter]
            .map(|table| [Family::Ipv4, Family::Ipv6].map(|family| Chains::of(&rules, table, family)));
        for chains in menus.iter().flatten() {
            chains.check_jumps(&mut problems);
            if problems.is_empty() {
                chains.check_steps(&mut problems);
            }
        }
        check_addresses(&rules, &mut problems);
        check_entries(&rules, settings, &mut problems);
        check_interfaces(&rules, settings, &mut problems);
        check_memories(&rules, &mut problems);
        let (listening, patterns, tls) = compile_patterns(&rules, &mut problems);
        if !problems.is_empty() {
            return Err(CompileError { problems });
        }

        let lists = bind_lists(&rules, settings, state)?;
        let doors = compile_doors(settings, &lists, state);
        let mut names = Names {
            doors: settings
                .doors
                .iter()
                .zip((0..).map(DoorId).zip(doors.iter().map(|door| door.open)))
                .map(|(door, ids)| (&*door.name, ids))
                .collect(),
            lists,
            patterns,
            tls,
            meters: Wanted::default(),
            connection_limits: 0,
        };
        let about = About { rules: &rules, settings };
        let [raw, filter] = menus.map(|families| families.map(|chains| Program::emit(&chains, &mut names, about)));
        let tracks = tracking::is_needed(&rules);
        if tracks {
            state.track(listening.id != 0);
        }
        let (entries, single_timed) = StaticEntries::build(&rules, &names.lists, now);
        static TABLES: AtomicU32 = AtomicU32::new(1);
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        Ok(Table {
            settings: settings.clone(),
            raw,
            filter,
            listening,
            meters: Meters::new(&names.meters, state.keys(), state.secret()),
            reached: (names.connection_limits > 0).then(|| Reached::new(number, state.keys(), state.secret())),
            entries,
            single_timed,
            doors,
            tracks,
            number,
            begun: now,
            rules: Arc::clone(&rules),
        })
    }

    /// The rules as they were declared, behind those of the doors.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// What decides besides the rules.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether connections are tracked.
    pub fn tracks(&self) -> bool {
        self.tracks
    }

    /// When the timeouts of the rules' own entries began.
    pub fn begun(&self) -> Time {
        self.begun
    }

    /// No two tables have the same.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The lists that the rules' own entries put an address in.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> ListSet {
        self.entries.find(address.into(), now).0
    }

    /// The door; none if it is another table's.
    pub(crate) fn door(&self, id: DoorId) -> Option<&CompiledDoor> {
        self.doors.get(usize::from(id.0))
    }

    /// Whether there are doors: their lists' entries count for one other end alone.
    pub(crate) fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    /// What lists hold from the start.
    pub(crate) fn entries(&self) -> &StaticEntries {
        &self.entries
    }

    /// What answers about headers depend on.
    pub(crate) fn about(&self) -> About<'_> {
        About { rules: &self.rules, settings: &self.settings }
    }

    pub(crate) fn raw(&self, family: Family) -> &Program {
        &self.raw[family_index(family)]
    }

    pub(crate) fn filter(&self, family: Family) -> &Program {
        &self.filter[family_index(family)]
    }

    /// What is listened for; none if nothing is.
    pub(crate) fn listening(&self) -> Option<&Listening> {
        (self.listening.id != 0).then_some(&self.listening)
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.listening.patterns
    }

    pub(crate) fn server_names(&self) -> &Patterns {
        &self.listening.names
    }
}

const fn family_index(family: Family) -> usize {
    match family {
        Family::Ipv4 => 0,
        Family::Ipv6 => 1,
    }
}

/// What names in rules stand for, and what matchers need to remember.
struct Names<'r> {
    lists: HashMap<String, ListId>,
    /// Positions among the patterns.
    patterns: HashMap<&'r str, usize>,
    tls: HashMap<&'r str, usize>,
    /// Each door, and its open list.
    doors: HashMap<&'r str, (DoorId, ListId)>,
    meters: Wanted,
    connection_limits: u32,
}

impl Names<'_> {
    fn connection_limit(&mut self) -> MatcherId {
        self.connection_limits += 1;
        MatcherId(self.connection_limits - 1)
    }
}

/// Everything that keeps a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CompileError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<TooManyListsError> for CompileError {
    fn from(error: TooManyListsError) -> Self {
        CompileError { problems: vec![error.into()] }
    }
}

/// One thing that keeps a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A jump that could lead back to its own chain.
    #[error("{rule}: the jump to `{target}` leads back to its own chain")]
    JumpCircle {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// A jump behind too many others.
    #[error("{rule}: the jump to `{target}` nests deeper than {MAX_JUMP_DEPTH} jumps")]
    JumpTooDeep {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// Jumps that multiply.
    #[error("chain `{chain}`: a packet could be held against {steps} rules, jumps included; {MAX_STEPS} is the most")]
    TooManySteps {
        /// The built-in chain.
        chain: &'static str,
        /// How many.
        steps: u64,
    },
    /// An address range whose ends are of different families.
    #[error("{rule}: an address range goes from IPv4 to IPv6 or back")]
    MixedRange {
        /// The rule.
        rule: Place,
    },
    /// `layer7-protocol` names nothing.
    #[error("{rule}: there is no layer-7 pattern `{pattern}`; add it, or disable the rule")]
    PatternMissing {
        /// The rule.
        rule: Place,
        /// What it names.
        pattern: String,
    },
    /// A layer-7 pattern cannot run.
    #[error("line {line}: layer-7 pattern `{pattern}`: {error}")]
    Pattern {
        /// Its name.
        pattern: String,
        /// Its line.
        line: u32,
        /// Why not.
        error: PatternError,
    },
    /// A rule that can be read and never be run.
    #[error("{rule}: it can never run: {reason}; disable it, or leave it out")]
    Invalid {
        /// The rule.
        rule: Place,
        /// Why not.
        reason: String,
    },
    /// An interface matcher names what no setting gives a side.
    #[error(
        "{rule}: nothing says which side of the filter `{name}` is; write it into `outside`, `inside` or, if it is \
         neither, `elsewhere` of [policy.interfaces]"
    )]
    Unmapped {
        /// The rule.
        rule: Place,
        /// What it names.
        name: String,
    },
    /// `tls-host` cannot run.
    #[error("{rule}: tls-host `{name}`: {error}")]
    TlsHost {
        /// The rule.
        rule: Place,
        /// What it asks for.
        name: String,
        /// Why not.
        error: PatternError,
    },
    /// `psd` would have to remember too many ports of each source.
    #[error(
        "{rule}: psd would have to remember {ports} ports of each source; lower its threshold or raise its weights"
    )]
    TooManyPorts {
        /// The rule.
        rule: Place,
        /// How many.
        ports: u32,
    },
    /// More rules count connections than a connection remembers.
    #[error("{rule}: at most {MOST_MATCHERS} rules can have a connection-limit, of all chains together")]
    TooManyConnectionLimits {
        /// The first one too many.
        rule: Place,
    },
    /// An entry of a list that only a door's knocks fill.
    #[error(
        "line {line}: `{list}` is a list of a door, which only its knocks fill; leave the entry out, or let the address in by a rule"
    )]
    DoorsList {
        /// Where it stands.
        line: u32,
        /// The list.
        list: String,
    },
    /// The lists hold more host names than are resolved.
    #[error(
        "line {line}: the lists hold more than {MAX_NAMES} host names: write addresses or prefixes for some of them"
    )]
    TooManyNames {
        /// The line of the first one too many.
        line: u32,
    },
    /// The rules use more lists than there is room for.
    #[error(transparent)]
    TooManyListsError(#[from] TooManyListsError),
}

impl Problem {
    /// The rule that it is about; none if it is about more than one.
    pub const fn place(&self) -> Option<&Place> {
        match self {
            Problem::JumpCircle { rule, .. }
            | Problem::JumpTooDeep { rule, .. }
            | Problem::MixedRange { rule }
            | Problem::PatternMissing { rule, .. }
            | Problem::Invalid { rule, .. }
            | Problem::Unmapped { rule, .. }
            | Problem::TlsHost { rule, .. }
            | Problem::TooManyPorts { rule, .. }
            | Problem::TooManyConnectionLimits { rule } => Some(rule),
            _ => None,
        }
    }

    /// What it says of that rule, for whoever shows the rule itself.
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        let prefix = self.place().map(|place| format!("{place}: ")).unwrap_or_default();
        text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
    }
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: rule {id}")]
pub struct Place {
    /// Its id.
    pub id: RuleId,
    /// Its line.
    pub line: u32,
}

impl From<&Rule> for Place {
    fn from(rule: &Rule) -> Self {
        Place { id: rule.id.clone(), line: rule.line }
    }
}

/// The rules that run, each with its position among the declared ones.
fn running(rules: &RuleSet) -> impl Iterator<Item = (usize, &Rule)> {
    rules.rules.iter().enumerate().filter(|(_, rule)| rule.runs())
}

/// The chains of one menu.
struct Chains<'r> {
    table: rule::Table,
    family: Family,
    /// Their names in the order of first appearance.
    order: Vec<&'r str>,
    rules: HashMap<&'r str, Vec<(usize, &'r Rule)>>,
}

impl<'r> Chains<'r> {
    fn of(rules: &'r RuleSet, table: rule::Table, family: Family) -> Chains<'r> {
        let mut chains = Chains { table, family, order: Vec::new(), rules: HashMap::new() };
        for (index, rule) in running(rules).filter(|(_, rule)| rule.table == table && rule.family == family) {
            let of_chain = chains.rules.entry(rule.chain.as_str()).or_default();
            if of_chain.is_empty() {
                chains.order.push(&rule.chain);
            }
            of_chain.push((index, rule));
        }
        chains
    }

    fn check_jumps(&self, problems: &mut Vec<Problem>) {
        let mut heights = HashMap::new();
        for chain in &self.order {
            self.height(&mut vec![chain], &mut heights, problems);
        }
    }

    /// How many jumps nest in the last chain of the path of jumps. Never follows a path longer than the limit, and each
    /// chain only once.
    fn height<'c>(
        &'c self,
        path: &mut Vec<&'c str>,
        heights: &mut HashMap<&'c str, usize>,
        problems: &mut Vec<Problem>,
    ) -> usize {
        let chain = path[path.len() - 1];
        if let Some(height) = heights.get(chain) {
            return *height;
        }
        let mut height = 0;
        for (_, rule) in self.rules.get(chain).into_iter().flatten() {
            let Action::Jump(target) = &rule.action else { continue };
            if path.contains(&target.as_str()) {
                problems.push(Problem::JumpCircle { rule: (*rule).into(), target: target.clone() });
                continue;
            }
            let jumps = path.len();
            let mut below = 0;
            if jumps <= MAX_JUMP_DEPTH {
                path.push(target);
                below = self.height(path, heights, problems);
                path.pop();
            }
            if jumps + below > MAX_JUMP_DEPTH {
                problems.push(Problem::JumpTooDeep { rule: (*rule).into(), target: target.clone() });
            } else {
                height = height.max(below + 1);
            }
        }
        heights.insert(chain, height);
        height
    }
}

impl Chains<'_> {
    /// Checks that no packet can be held against more rules than a worker has time for: a few chains that each jump to
    /// the next several times multiply.
    fn check_steps(&self, problems: &mut Vec<Problem>) {
        let mut known = HashMap::new();
        for chain in self.table.builtin_chains() {
            let steps = self.steps(chain, &mut known);
            if steps > MAX_STEPS {
                problems.push(Problem::TooManySteps { chain, steps });
            }
        }
    }

    /// Rules of a chain and of the chains that it jumps to, as often as it does. There are no circles.
    fn steps<'s>(&'s self, chain: &'s str, known: &mut HashMap<&'s str, u64>) -> u64 {
        if let Some(steps) = known.get(chain) {
            return *steps;
        }
        let mut steps = 0_u64;
        for (_, rule) in self.rules.get(chain).into_iter().flatten() {
            steps = steps.saturating_add(1);
            if let Action::Jump(target) = &rule.action {
                steps = steps.saturating_add(self.steps(target, known));
            }
        }
        known.insert(chain, steps);
        steps
    }
}

fn check_addresses(rules: &RuleSet, problems: &mut Vec<Problem>) {
    let mixed = |condition: &Condition| match condition {
        Condition::SrcAddress(AddressSet::Range(first, last))
        | Condition::DstAddress(AddressSet::Range(first, last)) => Family::of(*first) != Family::of(*last),
        _ => false,
    };
    for (_, rule) in running(rules) {
        if rule.matchers.iter().any(|matcher| mixed(&matcher.condition)) {
            problems.push(Problem::MixedRange { rule: rule.into() });
        }
    }
}

/// A rule that nobody can run is refused, unless it is disabled: it may be the one that was to drop.
fn check_invalid(rules: &RuleSet, problems: &mut Vec<Problem>) {
    for rule in rules.rules.iter().filter(|rule| !rule.disabled) {
        if let Some(reason) = &rule.invalid {
            problems.push(Problem::Invalid { rule: rule.into(), reason: reason.clone() });
        }
    }
}

/// Lists of doors are filled by knocks alone, and the control process resolves a limited number of host names.
fn check_entries(rules: &RuleSet, settings: &Settings, problems: &mut Vec<Problem>) {
    let of_doors: Vec<String> = door::levels(&settings.doors).map(|(list, _)| list).collect();
    for entry in rules.address_lists.iter().filter(|entry| !entry.disabled) {
        if of_doors.contains(&entry.list) {
            problems.push(Problem::DoorsList { line: entry.line, list: entry.list.clone() });
        }
    }
    let is_name = |entry: &&ListEntry| !entry.disabled && matches!(entry.address, EntryAddress::Name(_));
    if let Some(entry) = rules.address_lists.iter().filter(is_name).nth(MAX_NAMES) {
        problems.push(Problem::TooManyNames { line: entry.line });
    }
}

/// A matcher about an interface without a side would be false: also where it is to keep someone out.
fn check_interfaces(rules: &RuleSet, settings: &Settings, problems: &mut Vec<Problem>) {
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            if let Condition::Interface { name, .. } = &matcher.condition
                && settings.interfaces.leave_open(matcher, &rules.interface_lists)
            {
                problems.push(Problem::Unmapped { rule: rule.into(), name: name.clone() });
            }
        }
    }
}

/// What matchers remember has its bounds.
fn check_memories(rules: &RuleSet, problems: &mut Vec<Problem>) {
    let mut connection_limits = 0;
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            match matcher.condition {
                Condition::Psd { weight, delay, low_weight, high_weight } => {
                    let weights = ScanWeights { threshold: weight, delay, low: low_weight, high: high_weight };
                    if let Some(ports) = weights.too_many_ports() {
                        problems.push(Problem::TooManyPorts { rule: rule.into(), ports });
                    }
                }
                Condition::ConnectionLimit { .. } => {
                    connection_limits += 1;
                    if connection_limits == MOST_MATCHERS + 1 {
                        problems.push(Problem::TooManyConnectionLimits { rule: rule.into() });
                    }
                }
                _ => {}
            }
        }
    }
}

/// Positions by name.
type Positions<'r> = HashMap<&'r str, usize>;

/// Compiles the patterns and server names that are used, each once.
fn compile_patterns<'r>(rules: &'r RuleSet, problems: &mut Vec<Problem>) -> (Listening, Positions<'r>, Positions<'r>) {
    let (mut patterns, mut names) = (Positions::new(), Positions::new());
    let (mut used, mut asked) = (Vec::new(), Vec::new());
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            match &matcher.condition {
                Condition::Layer7(name) => match rules.pattern(name) {
                    None => problems.push(Problem::PatternMissing { rule: rule.into(), pattern: name.clone() }),
                    Some(pattern) => {
                        patterns.entry(name).or_insert_with(|| {
                            used.push(pattern);
                            used.len() - 1
                        });
                    }
                },
                Condition::TlsHost(name) => {
                    names.entry(name).or_insert_with(|| {
                        asked.push((rule, name.as_str()));
                        asked.len() - 1
                    });
                }
                _ => {}
            }
        }
    }
    let mut id = SipHasher13::new();
    let mut listening = Listening::default();
    let regexps: Vec<&str> = used.iter().map(|pattern| pattern.regexp.as_str()).collect();
    match Patterns::compile(&regexps) {
        Ok(patterns) => listening.patterns = patterns,
        Err(errors) => problems.extend(errors.into_iter().map(|(position, error)| {
            let Layer7Pattern { name: pattern, line, .. } = used[position].clone();
            Problem::Pattern { pattern, line, error }
        })),
    }
    let globs: Vec<&str> = asked.iter().map(|(_, name)| *name).collect();
    match server_name::compile(&globs) {
        Ok(names) => listening.names = names,
        Err(errors) => problems.extend(errors.into_iter().map(|(position, error)| {
            let (rule, name) = asked[position];
            Problem::TlsHost { rule: rule.into(), name: name.to_owned(), error }
        })),
    }
    for text in regexps.into_iter().chain(["\0"]).chain(globs) {
        id.write(text.as_bytes());
        id.write_u8(0xff);
    }
    if !used.is_empty() || !asked.is_empty() {
        listening.id = id.finish() | 1;
    }
    (listening, patterns, names)
}

/// Makes all lists of the rules known. Lists that no rule fills can be filled by operators alone.
fn bind_lists(
    rules: &RuleSet,
    settings: &Settings,
    state: &State,
) -> Result<HashMap<String, ListId>, TooManyListsError> {
    let levels = level::levels(rules, &settings.doors);
    let entries = rules.address_lists.iter().filter(|entry| !entry.disabled).map(|entry| entry.list.as_str());
    let of_doors: Vec<String> = door::levels(&settings.doors).map(|(list, _)| list).collect();
    let of_rules = running(rules).flat_map(|(_, rule)| rule_lists(rule));
    let mut names: Vec<&str> = of_rules.chain(entries).chain(of_doors.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let wanted: Vec<(&str, u8)> =
        names.iter().map(|name| (*name, levels.get(*name).copied().unwrap_or(OPERATOR_LEVEL))).collect();
    let ids = state.lists.bind_all(&wanted)?;
    Ok(names.into_iter().map(str::to_owned).zip(ids).collect())
}

/// The lists that a rule reads and adds to.
fn rule_lists(rule: &Rule) -> impl Iterator<Item = &str> {
    let read = rule.matchers.iter().filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    });
    let added = match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(add.list.as_str()),
        _ => None,
    };
    read.chain(added)
}

/// The settings' doors, whose lists are known by now.
fn compile_doors(settings: &Settings, lists: &HashMap<String, ListId>, state: &State) -> Box<[CompiledDoor]> {
    let compile = |door: &Door| {
        let list = |name: String| lists.get(&name).copied();
        let exempt = Exempt::at(door, &settings.doors);
        let sequence = |list, shape, steps: &[door::Step], before: u8| {
            let levels = (0..=steps.len()).map(|taken| before + door::proofs(&steps[..taken])).collect();
            Sequence { list, shape, levels }
        };
        let closing = door.closing_shape().zip(list(door.closing_list()));
        Some(CompiledDoor {
            open: list(door.open_list())?,
            opening: sequence(list(door.knocking_list())?, door.shape(), &door.knock, 0),
            closing: closing.map(|(shape, list)| sequence(list, shape, &door.close, door::proofs(&door.knock))),
            exempt: CompiledExempt::new(exempt, |name| lists.get(name).copied()),
            counts: state.open_doors().counts(&door.name),
            door: door.clone(),
        })
    };
    settings.doors.iter().filter_map(compile).collect()
}
