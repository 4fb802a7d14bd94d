//! Offline checks of rules, before the dataplane gets them.
//!
//! `policy::rsc` parses the language, and the engine decides whether the rules can run. The dataplane checks them again with
//! its own settings, and its decision counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knockplane_engine::state::State;
use knockplane_engine::state::lists::CapacityError;
use knockplane_engine::table::{CompileError, RuleTable};
use knockplane_policy::level;
use knockplane_policy::rule::{Condition, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::{Time, is_timeout, parse_duration};
use knockplane_policy::wire::check_confirm_within;

/// The rules cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The problems of the rules.
    #[error(transparent)]
    Rules(#[from] CompileError),
    /// There is not enough memory to compile them.
    #[error(transparent)]
    Room(#[from] CapacityError),
}

/// Whether the engine can run these rules with these settings.
///
/// # Errors
/// All reasons that the engine cannot run the rules.
pub fn compile(rules: &RuleSet, settings: &Settings) -> Result<(), RulesError> {
    RuleTable::compile(Arc::new(rules.clone()), settings, &State::new(1, 1)?, Time::default())?;
    Ok(())
}

/// All lists that the rules name, with their levels; `None` for a list to which no rule adds, which only operators fill.
pub fn lists(rules: &RuleSet, settings: &Settings) -> BTreeMap<String, Option<u8>> {
    let read = rules.rules.iter().flat_map(|rule| &rule.matchers).filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some((list.clone(), None)),
        _ => None,
    });
    let added = level::levels(rules, &settings.doors).into_iter().map(|(list, level)| (list, Some(level)));
    read.chain(added).collect()
}

/// Parses a time in the syntax of the timeouts of list entries in RouterOS.
///
/// # Errors
/// The text is not such a time; the message has examples.
pub fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|timeout| is_timeout(*timeout))
        .ok_or_else(|| format!("`{text}` is not a time: write `10m`, `1d2h` or `00:10:00`, at most `35w3d13h13m56s`"))
}

/// Parses the time within which an apply or a reload must be confirmed.
///
/// # Errors
/// The text is not a time, or the time is too short or too long.
pub fn confirm_within(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).ok_or_else(|| format!("`{text}` is not a time: write `60s` or `5m`"))?;
    check_confirm_within(time)
}

#[cfg(test)]
mod tests {
    use knockplane_policy::rsc;
    use knockplane_policy::rule::Action;

    use super::*;
    use crate::sample;

    #[test]
    fn times_have_the_syntax_of_rules() {
        for (text, seconds) in [("10m", 600), ("1d2h", 93_600), ("00:10:00", 600), ("1d00:00:00", 86_400), ("5", 5)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "0s", "36w", "none-static", "10m comment=x", "10m\nadd", "\"10m\""] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_confirmation_has_a_bounded_time() {
        for (text, seconds) in [("5s", 5), ("60s", 60), ("90", 90), ("1h", 3_600)] {
            assert_eq!(confirm_within(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "4s", "1h1s", "0"] {
            assert!(confirm_within(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_that_no_rule_fills_have_no_level() {
        let text = "/ip firewall filter\nadd chain=input src-address-list=friends action=add-src-to-address-list \
                    address-list=seen\n";
        let lists = lists(&rsc::read(text.as_bytes()).rules, &Settings::default());
        assert_eq!(lists.into_iter().collect::<Vec<_>>(), [("friends".to_owned(), None), ("seen".to_owned(), Some(0))]);
    }

    #[test]
    fn rules_that_cannot_run_are_found_offline() {
        let circle = sample::rule("0a1b2c3d", Action::Jump("input".into()), false, "");
        let error = compile(&RuleSet { rules: vec![circle], ..RuleSet::default() }, &Settings::default()).unwrap_err();
        let RulesError::Rules(error) = error else { panic!("{error}") };
        let [problem] = &error.problems[..] else { panic!("{error}") };
        assert_eq!(problem.place().map(|place| place.id.0.as_str()), Some("0a1b2c3d"));
        assert_eq!(problem.sentence(), "the jump to `input` leads back to its own chain");
        assert!(compile(&RuleSet::default(), &Settings::default()).is_ok());
    }
}
