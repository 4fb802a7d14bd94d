//! Rule sets that do not compile, and the check that a refused set changes no state.

use std::sync::Arc;

use knockplane_engine::state::State;
use knockplane_engine::state::lists::OPERATOR_LEVEL;
use knockplane_engine::table::{RuleSetError, RuleTable};
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{
    Action, AddressSet, Condition, ConnectionState, EntryAddress, Layer7Pattern, Rule, RuleFileEntry, RuleSet,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use crate::common::{add_src, door, rule, rule_set, seconds, src_list};

fn compile(rules: RuleSet, state: &State) -> Result<RuleTable, Vec<RuleSetError>> {
    RuleTable::compile(Arc::new(rules), &Settings::default(), state, Time::default()).map_err(|error| error.problems)
}

fn problems(rules: RuleSet) -> Vec<String> {
    let state = State::new(10, 10).unwrap();
    let problems = compile(rules, &state).err().unwrap_or_default();
    assert!(problems.is_empty() || state.lists.summaries().is_empty(), "a refused rule set made lists known");
    problems.iter().map(RuleSetError::to_string).collect()
}

fn jump(chain: &str, target: &str) -> Rule {
    rule(chain, vec![], Action::Jump(target.to_owned()))
}

fn layer7(pattern: &str) -> Rule {
    rule("input", vec![Condition::Layer7(pattern.to_owned())], Action::Accept)
}

fn pattern(name: &str, regexp: &str) -> Layer7Pattern {
    Layer7Pattern { name: name.to_owned(), regexp: regexp.to_owned(), comment: String::new(), line: 7 }
}

#[test]
fn jumps_in_a_circle_are_named() {
    let rules = rule_set(vec![jump("input", "a"), jump("a", "b"), jump("b", "a"), jump("c", "c")]);
    let (third, fourth) = (rules.rules[2].id.clone(), rules.rules[3].id.clone());
    assert_eq!(
        problems(rules),
        [
            format!("line 3: rule {third}: the jump to `a` leads back to its own chain"),
            format!("line 4: rule {fourth}: the jump to `c` leads back to its own chain"),
        ]
    );
}

#[test]
fn jumps_nest_32_deep_and_no_deeper() {
    let ladder = |jumps: usize| {
        let name = |step: usize| if step == 0 { "input".to_owned() } else { format!("step {step}") };
        let mut rules: Vec<Rule> = (0..jumps).map(|step| jump(&name(step), &name(step + 1))).collect();
        rules.push(rule(&name(jumps), vec![], Action::Accept));
        rule_set(rules)
    };
    assert_eq!(problems(ladder(32)), [""; 0]);
    let told = problems(ladder(33));
    assert!(told.len() == 1 && told[0].contains("deeper than 32"), "{told:?}");
    // The check finds the depth in any order of the chains, and a long ladder causes no stack overflow.
    let mut reversed = ladder(33);
    reversed.rules.reverse();
    assert!(!problems(reversed).is_empty());
    assert!(!problems(ladder(5_000)).is_empty());
}

#[test]
fn a_jump_into_nothing_is_no_problem() {
    assert_eq!(problems(rule_set(vec![jump("input", "nowhere"), jump("nowhere else", "input")])), [""; 0]);
}

#[test]
fn many_chains_that_jump_to_all_later_ones_compile_in_no_time() {
    let name = |chain: usize| format!("chain {chain}");
    let rules = (0..30).flat_map(|from| (from + 1..30).map(move |to| jump(&name(from), &name(to))));
    assert_eq!(problems(rule_set(rules.collect())), [""; 0]);
}

#[test]
fn patterns_that_are_missing_or_cannot_run_are_named_once() {
    let mut rules = rule_set(vec![layer7("none"), layer7("broken"), layer7("huge"), layer7("huge"), layer7("fine")]);
    rules.layer7 = vec![
        pattern("broken", "("),
        pattern("huge", "(a|b)*a(a|b){20}"),
        pattern("fine", "^a$"),
        pattern("unused", "("),
    ];
    let told = problems(rules);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("line 1: rule ") && told[0].contains("no layer-7 pattern `none`"));
    assert!(told[1].starts_with("line 7: layer-7 pattern `broken`"));
    assert!(told[2].contains("`huge`") && told[2].contains("1048576 bytes"));
}

#[test]
fn an_address_range_between_families_is_refused() {
    let ends = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
    let range = Condition::DstAddress(AddressSet::Range(ends[0], ends[1]));
    assert!(problems(rule_set(vec![rule("input", vec![range], Action::Drop)]))[0].contains("from IPv4 to IPv6"));
}

#[test]
fn disabled_rules_are_not_looked_at() {
    let mut rules = rule_set(vec![layer7("none"), jump("a", "a"), rule("input", vec![src_list("x")], Action::Drop)]);
    for rule in &mut rules.rules {
        rule.disabled = true;
    }
    let state = State::new(10, 10).unwrap();
    let table = compile(rules, &state).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!((table.rules().rules.len(), state.lists.summaries().len()), (3, 0));
}

#[test]
fn lists_get_their_levels_and_keep_their_ids() {
    let state = State::new(10, 10).unwrap();
    let level = |name: &str| state.lists.level(state.lists.id(name).unwrap());
    let ladder = || {
        vec![
            rule("input", vec![src_list("first"), src_list("friends")], add_src("second", 10)),
            rule("input", vec![], add_src("first", 10)),
        ]
    };
    assert!(compile(rule_set(ladder()), &state).is_ok());
    assert_eq!((level("first"), level("second"), level("friends")), (0, 1, OPERATOR_LEVEL));
    let ids = ["first", "second"].map(|name| state.lists.id(name));
    assert!(compile(rule_set(ladder()[1..].to_vec()), &state).is_ok());
    assert_eq!(["first", "second"].map(|name| state.lists.id(name)), ids);

    // 254 more do not fit, and then none of them is added.
    let many = (0..254).map(|list| rule("input", vec![], add_src(&format!("list {list}"), 1)));
    let Err(told) = compile(rule_set(many.collect()), &state) else { panic!("257 lists") };
    assert!(told[0].to_string().contains("no room for the address list"), "{told:?}");
    assert_eq!(state.lists.summaries().len(), 3);
}

#[test]
fn jumps_that_multiply_are_refused() {
    // Each chain jumps eight times to the next: a hundred rules, and 8 to the power of 12 steps for one packet.
    let name = |step: usize| if step == 0 { "input".to_owned() } else { format!("step {step}") };
    let ladder = |steps: usize| {
        let mut rules: Vec<Rule> =
            (0..steps).flat_map(|step| (0..8).map(move |_| jump(&name(step), &name(step + 1)))).collect();
        rules.push(rule(&name(steps), vec![], Action::Passthrough));
        rule_set(rules)
    };
    let told = problems(ladder(12));
    assert!(told.len() == 1 && told[0].contains("chain `input`") && told[0].contains("1000000"), "{told:?}");
    assert_eq!(problems(ladder(5)), [""; 0]);
}

#[test]
fn what_nobody_can_run_is_refused_and_what_does_not_run_is_not_looked_at() {
    let invalid = |disabled| {
        let rule = rule("input", vec![Condition::Random(5)], Action::Tarpit);
        Rule { invalid: Some("it asks for a mark".to_owned()), disabled, ..rule }
    };
    let mut rules = rule_set(vec![invalid(false), invalid(true)]);
    let entry = |address, disabled, line| RuleFileEntry {
        family: Family::Ipv4,
        list: "a".to_owned(),
        address,
        timeout: None,
        disabled,
        comment: String::new(),
        line,
    };
    let name = || EntryAddress::Name("example.com".to_owned());
    rules.address_lists = vec![entry(EntryAddress::None, false, 6), entry(name(), false, 7), entry(name(), true, 8)];
    let expected = [format!(
        "line 1: rule {}: it can never run: it asks for a mark; disable it, or leave it out",
        rules.rules[0].id
    )];
    assert_eq!(problems(rules.clone()), expected);
    rules.rules.clear();
    rules.address_lists = (0..=1_000).map(|line| entry(name(), false, line)).collect();
    let expected =
        "line 1000: the lists hold more than 1000 host names: write addresses or prefixes for some of them".to_owned();
    assert_eq!(problems(rules), [expected]);
}

#[test]
fn other_settings_change_neither_rules_nor_times_nor_lists() {
    let state = State::new(10, 10).unwrap();
    let set = |text: &str| EntryAddress::Set(AddressSet::Prefix(text.parse().unwrap()));
    let entry = |address| RuleFileEntry {
        family: Family::Ipv4,
        list: "a".to_owned(),
        address,
        timeout: Some(seconds(10)),
        disabled: false,
        comment: String::new(),
        line: 2,
    };
    let mut rules = rule_set(vec![rule("input", vec![src_list("a")], Action::Accept)]);
    rules.address_lists = vec![entry(set("192.0.2.1/32")), entry(set("198.51.100.0/24"))];
    let mut table = compile(rules.clone(), &state).unwrap();
    let (list, [one, many]) =
        (state.lists.id("a").unwrap(), ["192.0.2.1", "198.51.100.7"].map(|ip| ip.parse().unwrap()));
    assert!(
        !state.lists.membership(one, 0, Time::default()).contains(list),
        "nobody is in by rules that do not run yet"
    );
    table.begin(&state, Time::default());
    assert!(state.lists.remove(list, one, Time::default()), "an operator has taken it out");

    let door = door("b", &["tcp/7"], &[]);
    let with_door = table.with_settings(&Settings { doors: vec![door], ..Settings::default() }, &state).unwrap();
    assert!(with_door.rules().rules.len() > 1);
    assert!(!state.lists.membership(one, 0, Time::default()).contains(list), "it does not come back");
    let is_in = |time| with_door.entries_of(many, Time::default() + seconds(time)).contains(list);
    assert!(is_in(9) && !is_in(10), "and no time begins anew");
    let without = with_door.with_settings(&Settings::default(), &state).unwrap();
    assert_eq!(**without.rules(), rules);
}

#[test]
fn what_connections_will_take_is_known_before() {
    let settings = Settings::default();
    let state = State::new(10, 100_000).unwrap();
    let tls = rule_set(vec![rule("input", vec![Condition::TlsHost("*.example.org".to_owned())], Action::Accept)]);
    let states = rule_set(vec![rule(
        "input",
        vec![Condition::ConnectionState([ConnectionState::Invalid].into_iter().collect())],
        Action::Drop,
    )]);
    let to_come = |rules: &RuleSet| state.connections_to_come(rules, &settings);
    assert_eq!(to_come(&rule_set(vec![layer7("a")])), 0, "a pattern alone tracks nothing");
    let (few, all) = (to_come(&states), to_come(&tls));
    assert!((300..700).contains(&(few / 100_000)), "some 350 bytes each, up to the next power of two: {few}");
    assert!((1_000..2_000).contains(&(all / 100_000)), "{all}");
    compile(states.clone(), &state).unwrap();
    assert_eq!((to_come(&states), to_come(&tls)), (0, all - few));
    compile(tls.clone(), &state).unwrap();
    assert_eq!(to_come(&tls), 0);
}

#[test]
fn what_matchers_remember_has_its_bounds() {
    let psd = |weight, low_weight, high_weight| {
        rule("input", vec![Condition::Psd { weight, delay: seconds(3), low_weight, high_weight }], Action::Drop)
    };
    assert_eq!(problems(rule_set(vec![psd(21, 3, 1), psd(64, 1, 1), psd(1_000, 0, 100)])), [""; 0]);
    let told = problems(rule_set(vec![psd(65, 3, 1)]));
    assert!(told.len() == 1 && told[0].contains("65 ports of each source"), "{told:?}");

    let limit = || rule("input", vec![Condition::ConnectionLimit { count: 1, prefix_length: 32 }], Action::Drop);
    assert_eq!(problems(rule_set(vec![limit(); 16])), [""; 0]);
    let told = problems(rule_set(vec![limit(); 18]));
    assert!(told.len() == 1 && told[0].starts_with("line 17") && told[0].contains("at most 16"), "{told:?}");
}

#[test]
fn server_names_that_cannot_run_are_named() {
    let name = "*a".repeat(300);
    let told = problems(rule_set(vec![rule("input", vec![Condition::TlsHost(name.clone())], Action::Drop)]));
    assert!(told.is_empty() || told[0].contains("tls-host"), "{told:?}");
}
