//! Rule files, judged offline: what is wrong with them on standard error, pointed at; what they hold on standard output.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use knockplane_policy::rsc::{self, Problem, SkippedMenu};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use serde::Serialize;

use super::table::{count, printable};
use super::{Failed, color, pretty};
use crate::{Exit, rules};

/// What became of one file; as JSON, what `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Judgement {
    file: String,
    valid: bool,
    rules: usize,
    disabled: usize,
    patterns: usize,
    /// The lists that the rules name with their levels; `null` if only operators fill it.
    lists: BTreeMap<String, Option<u8>>,
    skipped: Vec<SkippedMenu>,
    problems: Vec<Problem>,
    /// Why it cannot be read at all, or cannot run although every line is right.
    errors: Vec<String>,
}

/// Judges all files. Every problem of every file is reported.
pub(super) fn run(files: &[PathBuf], json: bool) -> Result<String, Failed> {
    let settings = Settings::default();
    let judgements: Vec<_> = files.iter().map(|file| judge(file, Some(&settings), json).0).collect();
    let output = if json { pretty(&judgements)? } else { judgements.iter().filter_map(Judgement::summary).collect() };
    if judgements.iter().all(|judgement| judgement.valid) {
        return Ok(output);
    }
    let message = judgements.iter().map(Judgement::complaint).collect();
    Err(Failed { exit: Exit::Invalid, message, output })
}

/// The rules of a file that is to be applied or tried, if they are valid with these settings.
pub(super) fn one(file: &Path, settings: &Settings, json: bool) -> Result<RuleSet, Failed> {
    valid(judge(file, Some(settings), json), json)
}

/// The rules of a file without problems, whether they can run or not. What else the file says is told on standard error.
pub(super) fn read(file: &Path, json: bool) -> Result<RuleSet, Failed> {
    let (judgement, rules) = judge(file, None, json);
    if judgement.valid && !judgement.skipped.is_empty() {
        let (file, skipped) = (printable(&judgement.file), judgement.skipped().join(", "));
        eprintln!("knockctl: {file}: skipped menus (commands): {skipped}");
    }
    valid((judgement, rules), json)
}

fn valid((judgement, rules): (Judgement, RuleSet), json: bool) -> Result<RuleSet, Failed> {
    if judgement.valid {
        return Ok(rules);
    }
    let message = judgement.complaint();
    let output = if json { pretty(&[judgement])? } else { String::new() };
    Err(Failed { exit: Exit::Invalid, message, output })
}

/// Reads one file and points at its problems, unless they are told as JSON; and compiles it for these settings.
fn judge(file: &Path, settings: Option<&Settings>, json: bool) -> (Judgement, RuleSet) {
    let name = file.display().to_string();
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            let errors = vec![format!("it cannot be read: {error}")];
            return (Judgement { file: name, errors, ..Judgement::default() }, RuleSet::default());
        }
    };
    let reading = rsc::read(&text);
    if !json {
        eprint!("{}", rsc::report(&reading.problems, &name, &text, color()));
    }
    let settings = settings.filter(|_| reading.problems.is_empty());
    let compiled = settings.map_or(Ok(()), |settings| rules::compile(&reading.rules, settings));
    let judgement = Judgement {
        file: name,
        valid: reading.problems.is_empty() && compiled.is_ok(),
        rules: reading.rules.rules.len(),
        disabled: reading.rules.rules.iter().filter(|rule| rule.disabled).count(),
        patterns: reading.rules.layer7.len(),
        lists: rules::lists(&reading.rules),
        skipped: reading.skipped,
        problems: reading.problems,
        errors: compiled.err().unwrap_or_default(),
    };
    (judgement, reading.rules)
}

impl Judgement {
    /// What the file holds, if it is valid.
    fn summary(&self) -> Option<String> {
        if !self.valid {
            return None;
        }
        let disabled = if self.disabled > 0 { format!(" ({} disabled)", self.disabled) } else { String::new() };
        let rules = count(self.rules, "rule") + &disabled;
        let mut text = format!("{}: {rules}, {}\n", printable(&self.file), count(self.patterns, "pattern"));
        let lists = self.lists.iter().map(|(list, level)| match level {
            Some(level) => format!("{} (level {level})", printable(list)),
            None => format!("{} (filled by hand)", printable(list)),
        });
        for (title, items) in [("lists", lists.collect::<Vec<_>>()), ("skipped menus (commands)", self.skipped())] {
            if !items.is_empty() {
                text += &format!("  {title}: {}\n", items.join(", "));
            }
        }
        Some(text)
    }

    /// The menus that were passed over, each with how many commands it had.
    fn skipped(&self) -> Vec<String> {
        self.skipped.iter().map(|skipped| format!("{} ({})", printable(&skipped.menu), skipped.commands)).collect()
    }

    /// Why the file is not valid, as far as the report of its problems has not said it; a sentence a line.
    fn complaint(&self) -> String {
        let file = printable(&self.file);
        self.errors.iter().map(|error| format!("{file} is not valid: {error}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const KNOCK: &str = "\
/ip firewall filter
add chain=input protocol=tcp dst-port=1111 action=add-src-to-address-list address-list=knock1 \\
    address-list-timeout=10s
add chain=input protocol=tcp dst-port=2222 src-address-list=knock1 action=add-src-to-address-list \\
    address-list=trusted address-list-timeout=10m
add chain=input src-address-list=friends action=accept
add chain=input src-address-list=trusted action=accept disabled=yes
";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_valid_file_is_summed_up() {
        let file = file(KNOCK);
        let text = run(&[file.path().to_owned()], false).unwrap();
        let expected = format!(
            "{}: 4 rules (1 disabled), 0 patterns\n  lists: friends (filled by hand), knock1 (level 0), trusted (level 1)\n",
            file.path().display()
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn skipped_menus_are_named() {
        let file = file("/ip dns\nset servers=192.0.2.53\n/ip firewall filter\nadd chain=input action=drop\n");
        let text = run(&[file.path().to_owned()], false).unwrap();
        assert!(text.contains("skipped menus (commands): /ip dns (1)\n"), "{text}");
    }

    #[test]
    fn an_invalid_file_is_refused_whole_and_others_are_judged_too() {
        let (good, bad) = (file(KNOCK), file("/ip firewall filter\nadd chain=input dst-port=XX action=drop\n"));
        let failed = run(&[bad.path().to_owned(), good.path().to_owned()], true).unwrap_err();
        assert_eq!(failed.exit, Exit::Invalid);
        let judged: serde_json::Value = serde_json::from_str(&failed.output).unwrap();
        assert_eq!((&judged[0]["valid"], &judged[1]["valid"]), (&false.into(), &true.into()));
        assert_eq!(judged[0]["problems"][0]["line"], 2);
        assert!(one(bad.path(), &Settings::default(), true).is_err());
        assert_eq!(one(good.path(), &Settings::default(), true).unwrap().rules.len(), 4);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failed = run(&["/nonexistent/rules.rsc".into()], false).unwrap_err();
        assert_eq!(failed.exit, Exit::Invalid);
        assert!(failed.message.contains("/nonexistent/rules.rsc") && failed.output.is_empty(), "{failed:?}");
    }
}
