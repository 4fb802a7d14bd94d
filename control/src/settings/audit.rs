//! The keys of the audit file in `[control]`.

use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::{SettingsReader, entry};
use crate::audit::{AuditSettings, DEFAULT_FILE_BYTES, DEFAULT_FILES};

/// The lengths that a file may have: at least a few hundred lines.
const FILE_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 40;

/// The numbers of files that there may be.
const FILES: RangeInclusive<u64> = 1..=1_000;

/// Parses the keys; `None` if there is no `audit`.
pub(super) fn read(reader: &mut SettingsReader<'_>, section: &DeTable<'_>) -> Option<AuditSettings> {
    let file_bytes = number(reader, section, "audit-file-bytes", FILE_BYTES).unwrap_or(DEFAULT_FILE_BYTES);
    let files = number(reader, section, "audit-files", FILES).and_then(|files| usize::try_from(files).ok());
    let lists = lists(reader, section);
    let (_, value) = entry(section, "audit")?;
    match value.get_ref().as_str() {
        Some(path) if path.starts_with('/') => {
            Some(AuditSettings { path: path.into(), file_bytes, files: files.unwrap_or(DEFAULT_FILES), lists })
        }
        _ => {
            reader.problem(
                value.span(),
                "`audit` is an absolute path in quotes, as \"/var/log/knockplane/audit.jsonl\"; without it, there is no audit file",
            );
            None
        }
    }
}

fn number(
    reader: &mut SettingsReader<'_>,
    section: &DeTable<'_>,
    key: &str,
    within: RangeInclusive<u64>,
) -> Option<u64> {
    let (_, value) = entry(section, key)?;
    let number = value.get_ref().as_integer();
    let number = number.and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
    let number = number.filter(|number| within.contains(number));
    if number.is_none() {
        reader.problem(value.span(), format_args!("`{key}` is a number from {} to {}", within.start(), within.end()));
    }
    number
}

fn lists(reader: &mut SettingsReader<'_>, section: &DeTable<'_>) -> Vec<String> {
    let Some((_, value)) = entry(section, "audit-lists") else { return Vec::new() };
    let names = match value.get_ref() {
        DeValue::Array(names) => names.iter().map(|name| name.get_ref().as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    names.unwrap_or_else(|| {
        reader.problem(value.span(), "`audit-lists` are names of address lists in quotes, as [\"secured\"]");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::ControlSettings;

    fn parse(text: &str) -> Result<Option<AuditSettings>, Vec<String>> {
        let read = ControlSettings::parse(&format!("[control]\n{text}"), Path::new("knockplane.toml"));
        read.map(|settings| settings.audit).map_err(|error| error.problems)
    }

    #[test]
    fn the_audit_file_has_limits_and_lists() {
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("audit = \"/a\""), Ok(Some(AuditSettings::at("/a".into()))));
        let all = "audit = \"/a\"\naudit-file-bytes = 1_000_000\naudit-files = 2\naudit-lists = [\"secured\"]";
        let expected = AuditSettings {
            file_bytes: 1_000_000,
            files: 2,
            lists: vec!["secured".to_owned()],
            ..AuditSettings::at("/a".into())
        };
        assert_eq!(parse(all), Ok(Some(expected)));
    }

    #[test]
    fn wrong_values_are_told_with_their_lines() {
        let problems =
            parse("audit = \"here\"\naudit-file-bytes = 1\naudit-files = 0\naudit-lists = \"a\"").unwrap_err();
        let starts = ["knockplane.toml:2: `audit` is", "knockplane.toml:3: `audit-file-bytes` is a number from 65536"];
        let more =
            ["knockplane.toml:4: `audit-files` is a number from 1 to 1000", "knockplane.toml:5: `audit-lists` are"];
        for (problem, start) in problems.iter().zip(starts.iter().chain(&more)) {
            assert!(problem.starts_with(start), "{problems:?}");
        }
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
