//! How many cases property tests try.

use proptest::test_runner::Config;

/// A configuration for this many cases, whatever PROPTEST_CASES says, times KNOCKPLANE_SOAK.
pub(crate) fn cases(cases: u32) -> Config {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    Config { cases: cases * soak, failure_persistence: None, ..Config::default() }
}
