//! Compiles declared rules into a table: checks, names, programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashMap;
use knockplane_policy::door::exempt::Exempt;
use knockplane_policy::door::{self, Door};
use knockplane_policy::eval::tracking;
use knockplane_policy::level;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{self, Action, Condition, Rule, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use super::chains::Chains;
use super::checks::{check_addresses, check_entries, check_interfaces, check_invalid, check_memories};
use super::patterns::compile_patterns;
use super::{About, CompileError, Program, RuleNames, RuleTable, running};
use crate::state::State;
use crate::state::doors::{CompiledDoor, CompiledExempt, DoorId, Sequence};
use crate::state::lists::{ListId, OPERATOR_LEVEL, TooManyListsError};
use crate::state::matchers::connection_limits::ConnectionLimits;
use crate::state::matchers::rate_limiters::{LimiterCounts, RateLimiters};
use crate::state::static_entries::StaticEntries;

impl RuleTable {
    pub(super) fn build(
        rules: Arc<RuleSet>,
        settings: &Settings,
        state: &State,
        now: Time,
    ) -> Result<RuleTable, CompileError> {
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
        let (payload_matchers, patterns, tls) = compile_patterns(&rules, &mut problems);
        if !problems.is_empty() {
            return Err(CompileError { problems });
        }

        let lists = bind_lists(&rules, settings, state)?;
        let doors = compile_doors(settings, &lists, state);
        let mut names = RuleNames {
            doors: settings
                .doors
                .iter()
                .zip((0..).map(DoorId).zip(doors.iter().map(|door| door.open)))
                .map(|(door, ids)| (&*door.name, ids))
                .collect(),
            lists,
            patterns,
            tls,
            limiters: LimiterCounts::default(),
            connection_limits: 0,
        };
        let about = About { rules: &rules, settings };
        let [raw, filter] = menus.map(|families| families.map(|chains| Program::emit(&chains, &mut names, about)));
        let tracks = tracking::is_needed(&rules);
        if tracks {
            state.track(payload_matchers.id != 0);
        }
        let looks_up_sources = running(&rules).any(|(_, rule)| looks_up_sources(rule));
        let (entries, single_timed) = StaticEntries::build(&rules, &names.lists, now);
        static TABLES: AtomicU32 = AtomicU32::new(1);
        let number = TABLES.fetch_add(1, Ordering::Relaxed);
        Ok(RuleTable {
            settings: settings.clone(),
            raw,
            filter,
            payload_matchers,
            limiters: RateLimiters::new(&names.limiters, state.keys(), state.secret()),
            connection_limits: (names.connection_limits > 0)
                .then(|| ConnectionLimits::new(number, state.keys(), state.secret())),
            entries,
            single_timed,
            doors,
            tracks,
            looks_up_sources,
            number,
            begun: now,
            rules: Arc::clone(&rules),
        })
    }
}

/// Registers all lists of the rules. Only operators can fill lists that no rule fills.
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

/// Whether the rule looks up the source of a packet in the lists, or adds it.
fn looks_up_sources(rule: &Rule) -> bool {
    let asks = |condition: &Condition| matches!(condition, Condition::SrcAddressList(_));
    let adds = matches!(rule.action, Action::AddSrcToAddressList(_) | Action::Knock(_) | Action::AcceptDoor(_));
    adds || rule.matchers.iter().any(|matcher| asks(&matcher.condition))
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

/// Compiles the settings' doors. Their lists are registered before.
fn compile_doors(settings: &Settings, lists: &HashMap<String, ListId>, state: &State) -> Box<[CompiledDoor]> {
    let compile = |door: &Door| {
        let list = |name: String| lists.get(&name).copied();
        let exempt = Exempt::at(door, &settings.doors);
        let sequence = |list, shape, steps: &[door::KnockStep], before: u8| {
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
