//! The defaults of the dataplane's options, from the file that states them.

use anyhow::{Context as _, Result};

const DEFAULTS: &str = include_str!("../../../configs/default.toml");

/// The default of a number in `[dataplane]`.
///
/// # Errors
/// If the file has no such number.
pub(super) fn dataplane<T: TryFrom<i64>>(key: &str) -> Result<T> {
    let defaults: toml::Table = DEFAULTS.parse()?;
    let number = defaults.get("dataplane").and_then(|options| options.get(key)).and_then(toml::Value::as_integer);
    number
        .and_then(|number| T::try_from(number).ok())
        .with_context(|| format!("configs/default.toml has no number `{key}`"))
}
