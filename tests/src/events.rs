//! The lines of a monitor and of an audit file.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The documents of the whole lines of a file; none if it does not exist.
///
/// # Errors
/// If the file cannot be read, or if a line is no document.
pub fn json_lines(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The grants among events.
pub fn granted(events: &[Value]) -> Vec<Value> {
    events.iter().filter(|event| event["kind"] == "granted").cloned().collect()
}

/// The number of lines of packets, and of lines that were omitted.
pub fn shown_and_omitted(events: &[Value]) -> (u64, u64) {
    let shown = events.iter().filter(|event| event["kind"] == "packet").count() as u64;
    let omitted = events.iter().filter_map(|event| event["omitted"]["lines"].as_u64()).sum();
    (shown, omitted)
}
