//! `knockctl import`: doors from a configuration of knockd.
//!
//! What it says of ports, times and flags is kept. What knockd runs as a shell command becomes what a door opens, where
//! it is one of the usual lines; anything else is told, and then nothing is written. What is wrong with knockd's way of
//! counting steps is not kept: doors are strict.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | file in, doors out |
//! | `conf.rs`    | sections and keys, and what is wrong with them |
//! | `shell.rs`   | a command line as the commands and words that a shell would see |
//! | `opening.rs` | one command: what it opens or closes |
//! | `door.rs`    | sections as doors, those that open with those that close |

mod conf;
mod door;
mod opening;
mod shell;

use std::path::PathBuf;

use clap::Args;
use knockplane_limits::input::KNOCKD;

use super::output::complain;
use super::table::{count, printable};
use super::{Failed, input};
use crate::Exit;

/// What is not as it was.
const HEADER: &str = "\
# Unlike knockd's, these doors are strict: another packet of the source in between starts its knock over, so that a scan
# of all ports opens nothing. `strict = false` is as it was.

";

/// The command line.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The configuration of knockd, such as /etc/knockd.conf; `-` is standard input
    file: PathBuf,
}

/// What is wrong with a file, or worth knowing.
#[derive(Debug, Default)]
struct Told {
    errors: Vec<(u32, String)>,
    warnings: Vec<(u32, String)>,
}

impl Told {
    fn error(&mut self, line: u32, sentence: impl Into<String>) {
        self.errors.push((line, sentence.into()));
    }

    fn warn(&mut self, line: u32, sentence: impl Into<String>) {
        self.warnings.push((line, sentence.into()));
    }

    /// A line each, in the order of the file.
    fn report(&self, file: &str) -> String {
        let errors = self.errors.iter().map(|(line, sentence)| (line, "error", sentence));
        let mut all: Vec<_> = errors.chain(self.warnings.iter().map(|(line, what)| (line, "warning", what))).collect();
        all.sort_by_key(|(line, ..)| **line);
        all.iter().map(|(line, kind, sentence)| format!("{kind}: {file}:{line}: {}\n", printable(sentence))).collect()
    }
}

/// The doors as text of a configuration file.
pub(super) fn run(import: &Import) -> Result<String, Failed> {
    let (file, text) = input::read(&import.file, &KNOCKD);
    let text = text.map_err(|error| Failed::new(Exit::Invalid, format!("{file} {error}")))?;
    let (doors, told) = read(&String::from_utf8_lossy(&text));
    complain(told.report(&file));
    match told.errors.len() {
        0 => Ok(doors),
        errors => Err(Failed::new(Exit::Invalid, format!("{file}: {}; no door is written", count(errors, "error")))),
    }
}

/// The doors of a configuration, which are to be used only if there are no errors.
fn read(text: &str) -> (String, Told) {
    let mut told = Told::default();
    let sections = conf::read(text, &mut told);
    let doors = door::doors(&sections, &mut told);
    if doors.is_empty() && told.errors.is_empty() {
        told.error(1, "there is no door in the file: a door is a `[section]` with `sequence` and `start_command`");
    }
    (HEADER.to_owned() + &doors.join("\n"), told)
}

#[cfg(test)]
mod tests;
