//! How many cases property tests try.

use proptest::test_runner::Config;

/// A configuration for this many cases times KNOCKPLANE_SOAK; PROPTEST_CASES, if it is set, goes before.
pub(crate) fn cases(cases: u32) -> Config {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    Config { cases: cases * soak, failure_persistence: None, ..Config::default() }
}
