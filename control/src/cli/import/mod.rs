//! `knockctl import`: doors from a configuration of knockd.
//!
//! The import keeps the ports, times and flags of knockd's configuration. If knockd's shell command is one of the usual
//! lines, the import converts it into the target that the door opens. A section that cannot become a door is reported
//! with its mistakes and skipped; the others are written. The errors in knockd's counting of steps are not kept: doors
//! are strict.
//!
//! | file           | owns |
//! |----------------|------|
//! | `mod.rs`       | file in, doors out |
//! | `conf.rs`      | sections and keys, and their errors |
//! | `shell.rs`     | a command line as the commands and words that a shell would see |
//! | `opening.rs`   | one command: the target that it opens or closes |
//! | `firewalld.rs` | the same of `firewall-cmd` |
//! | `door.rs`      | sections as doors, those that open with those that close |

mod conf;
mod door;
mod firewalld;
mod opening;
mod shell;

use std::path::PathBuf;

use clap::Args;
use knockplane_limits::input::KNOCKD;
use knockplane_policy::door::Door;
use knockplane_policy::rsc::Severity;
use schemars::JsonSchema;
use serde::Serialize;

use self::door::Doors;
use super::output::complain;
use super::table::{count, printable};
use super::{Failed, document, input, sources};
use crate::Exit;

/// The differences from knockd.
const HEADER: &str = "\
# Unlike knockd's, these doors are strict: another packet of the source in between starts its knock over, so that a scan
# of all ports opens nothing. `strict = false` is as it was.

";

/// The command line.
///
/// Exit codes: 0 all doors of the file are written or exist, 1 some of them are not, 3 none of them is.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The configuration of knockd, such as /etc/knockd.conf; `-` is standard input
    file: PathBuf,
    /// Leave out doors that this configuration file has already, so that an import can be repeated
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
}

/// An error in a file, or a note about it.
#[derive(Debug, Serialize, JsonSchema)]
struct Remark {
    severity: Severity,
    /// The line, from 1.
    line: u32,
    message: String,
}

/// Errors in a file, and notes about it.
#[derive(Debug, Default)]
struct Told {
    errors: Vec<(u32, String)>,
    warnings: Vec<(u32, String)>,
}

impl Told {
    /// Adds an error, unless the line already has the same error.
    fn error(&mut self, line: u32, sentence: impl Into<String>) {
        let error = (line, sentence.into());
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn warn(&mut self, line: u32, sentence: impl Into<String>) {
        self.warnings.push((line, sentence.into()));
    }

    /// All remarks, in the order of the file.
    fn remarks(self) -> Vec<Remark> {
        let of = |severity| move |(line, message): (u32, String)| Remark { severity, line, message };
        let errors = self.errors.into_iter().map(of(Severity::Error));
        let mut all: Vec<_> = errors.chain(self.warnings.into_iter().map(of(Severity::Warning))).collect();
        all.sort_by_key(|remark| remark.line);
        all
    }
}

/// The result of an import.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImportedDoors {
    /// The doors that are written.
    doors: Vec<Written>,
    /// Names of doors that the configuration already contains, with the same content.
    existing: Vec<String>,
    /// Sections that did not become a door.
    skipped: Vec<Skipped>,
    /// Errors and warnings, in the order of the file.
    remarks: Vec<Remark>,
}

/// A door.
#[derive(Debug, Serialize, JsonSchema)]
struct Written {
    door: String,
    /// The line of the section, from 1.
    line: u32,
    /// The door as text of a configuration file.
    toml: String,
}

/// A section that did not become a door.
#[derive(Debug, Serialize, JsonSchema)]
struct Skipped {
    section: String,
    /// The line, from 1.
    line: u32,
}

/// The doors as text of a configuration file.
pub(super) fn run(import: &Import, json: bool) -> Result<String, Failed> {
    let existing = sources::settings_of(import.config.as_deref())?.doors;
    let (file, text) = input::read(&import.file, &KNOCKD);
    let text = text.map_err(|error| Failed::new(Exit::Invalid, format!("{file} {error}")).at(Some(file.clone())))?;
    let imported = read(&String::from_utf8_lossy(&text), &existing);
    if !json {
        complain(imported.report(&file));
    }
    let is_error = |remark: &&Remark| remark.severity == Severity::Error;
    let Some(first) = imported.remarks.iter().find(is_error) else {
        return if json { document(imported) } else { Ok(imported.text()) };
    };
    let exit = if imported.doors.is_empty() && imported.existing.is_empty() { Exit::Invalid } else { Exit::Runtime };
    let error = Failed::new(exit, format!("{file}: {}", imported.summary())).at(Some(format!("{file}:{}", first.line)));
    Err(if json { error.beside(imported) } else { error.with_output(imported.text()) })
}

/// The doors of a configuration of knockd, without those that already exist.
fn read(text: &str, existing: &[Door]) -> ImportedDoors {
    let mut told = Told::default();
    let sections = conf::read(text, &mut told);
    let Doors { imported, skipped } = door::doors(&sections, &mut told);
    if sections.is_empty() && told.errors.is_empty() {
        told.error(1, "there is no door in the file: a door is a `[section]` with `sequence` and `start_command`");
    }
    let skipped = skipped.into_iter().map(|(section, line)| Skipped { section, line }).collect();
    let mut all = ImportedDoors { doors: Vec::new(), existing: Vec::new(), skipped, remarks: Vec::new() };
    for door::Imported { line, door, text } in imported {
        match existing.iter().find(|other| other.name == door.name) {
            None => all.doors.push(Written { door: door.name.clone(), line, toml: text }),
            Some(other) if *other == door => all.existing.push(door.name.clone()),
            Some(_) => {
                let remedy = "remove one of them, or call this one something else";
                let name = &door.name;
                told.error(line, format!("the configuration has another door `{name}` already: {remedy}"));
                all.skipped.push(Skipped { section: name.clone(), line });
            }
        }
    }
    all.remarks = told.remarks();
    all
}

impl ImportedDoors {
    /// The doors as text of a configuration file; nothing if there are none.
    fn text(&self) -> String {
        let doors: Vec<_> = self.doors.iter().map(|door| door.toml.as_str()).collect();
        if doors.is_empty() { String::new() } else { HEADER.to_owned() + &doors.join("\n") }
    }

    /// A line for each remark, and for each door that exists.
    fn report(&self, file: &str) -> String {
        let line = |Remark { severity, line, message }: &Remark| {
            let kind = if *severity == Severity::Error { "error" } else { "warning" };
            format!("{kind}: {file}:{line}: {}\n", printable(message))
        };
        let existing = |door: &String| format!("note: {file}: the configuration has the door `{door}` already\n");
        let remarks: String = self.remarks.iter().map(line).collect();
        remarks + &self.existing.iter().map(existing).collect::<String>()
    }

    /// The number of written doors, and the names of the other sections.
    fn summary(&self) -> String {
        let written = match self.doors.len() {
            0 => "no door is written".to_owned(),
            1 => "1 door is written".to_owned(),
            doors => format!("{doors} doors are written"),
        };
        let skipped = |Skipped { section, line }: &Skipped| format!("{} (line {line})", printable(section));
        let skipped: Vec<_> = self.skipped.iter().map(skipped).collect();
        match skipped.len() {
            0 => format!("{written}, and the file has errors"),
            number => format!("{written}; {} skipped: {}", count(number, "section"), skipped.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
