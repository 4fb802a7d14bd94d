//! The number of cases of property tests.

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};

/// Seeds of cases that failed in the past. Tests try them before all others. The path is relative to the package's
/// folder, which is the working directory of tests.
const REGRESSIONS: &str = "tests/regressions.txt";

/// A configuration for this many cases times KNOCKPLANE_SOAK; PROPTEST_CASES takes precedence.
pub(crate) fn cases(cases: u32) -> Config {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let failure_persistence =
        Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS)) as Box<dyn FailurePersistence>);
    Config { cases: cases * soak, failure_persistence, ..Config::default() }
}
