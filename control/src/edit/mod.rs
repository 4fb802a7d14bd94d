//! Edits of the running rules, in RouterOS's words.
//!
//! Edits are commands behind the export of the running rules. The reader of rule files executes them, so that they have the
//! meaning that they have on a router, and the result is checked as a rule file. Numbers are those of the running rules in all
//! commands of one edit.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | commands, and the rules after them |
//! | `select.rs`  | the rules that a command names, by number or by id |
//! | `rewrite.rs` | the text with the commands, and what unchanged rules keep |

mod rewrite;
mod select;
#[cfg(test)]
mod tests;

use knockplane_policy::rsc::{self, CommandWord, Problem};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::RunningRules;
use knockplane_policy::wire::history::MAX_APPLY_COMMENT;

use self::rewrite::Written;
pub(crate) use self::rewrite::with_file_lines;
use self::select::Selection;
pub(crate) use self::select::{Menu, ids};
use crate::check::{CheckedFile, Judgement};

/// Maximum number of commands of one edit.
pub(crate) const MAX_COMMANDS: usize = 1_000;

/// The commands that edit rules.
const VERBS: [&str; 7] = ["add", "set", "remove", "move", "enable", "disable", "comment"];

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// The menu of new rules and of numbers; ids need none.
    pub(crate) menu: Menu,
    /// The command: `set 3 dst-port=22`.
    pub(crate) command: String,
}

/// An edit is not possible; nothing changed.
#[derive(Debug)]
pub(crate) enum EditError {
    /// A command is not one that edits rules.
    Usage(Refusal),
    /// The commands do not fit the running rules.
    Conflict(Refusal),
    /// A text is no command. The line is its number, from 1.
    Syntax(Vec<Problem>),
    /// The rules with the edit are invalid.
    Invalid(Box<InvalidEdit>),
}

/// The reason of a refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The message. It ends with the remedy, if there is one.
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
    /// The configuration file, if the rule comes from it.
    pub(crate) place: Option<String>,
}

/// Rules with an edit that are invalid.
#[derive(Debug)]
pub(crate) struct InvalidEdit {
    /// The export with the commands.
    pub(crate) text: CheckedFile,
    pub(crate) judgement: Judgement,
    /// The line of each command.
    lines: Vec<u32>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), remedy: None, place: None }
    }

    /// A message that ends with its remedy.
    fn with_remedy(message: &str, remedy: &str) -> Refusal {
        Refusal { remedy: Some(remedy.to_owned()), ..Refusal::new(format!("{message}: {remedy}")) }
    }
}

impl InvalidEdit {
    /// The problems. Line and column are the number of the command, from 1, and the character of the command; 0 if a problem is in
    /// no command.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let problem = |problem: Problem| match self.lines.iter().position(|line| *line == problem.line) {
            Some(place) => Problem { line: place as u32 + 1, ..problem },
            None => Problem { line: 0, column: 0, span: 0..0, ..problem },
        };
        self.judgement.problems().into_iter().map(problem).collect()
    }
}

/// The running rules after these commands, with the rules of doors, if they are valid.
///
/// # Errors
/// The reason that the edit is not possible.
pub(crate) fn edited(running: &RunningRules, edits: &[Edit], settings: &Settings) -> Result<RuleSet, EditError> {
    let written = edits.iter().enumerate().map(|(place, edit)| {
        let of_command = |problem: Problem| Problem { line: place as u32 + 1, ..problem };
        edit.written(running).map_err(|error| match error {
            EditError::Syntax(problems) => EditError::Syntax(problems.into_iter().map(of_command).collect()),
            error => error,
        })
    });
    let written = written.collect::<Result<Vec<_>, _>>()?;
    rewrite::edited(&running.rules, &written, settings)
}

/// The commands for the history.
pub(crate) fn summary(edits: &[Edit]) -> String {
    let one = |Edit { menu, command }: &Edit| match menu {
        Menu::IpFilter => format!("rule {command}"),
        menu => format!("rule {command} --menu {}", menu.name()),
    };
    let mut text = edits.iter().map(one).collect::<Vec<_>>().join("; ");
    let end = (0..=MAX_APPLY_COMMENT).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

impl Edit {
    /// The command for the export of the running rules: its numbers and ids are replaced by positions in the export.
    fn written(&self, running: &RunningRules) -> Result<Written, EditError> {
        let words = rsc::command_words(&self.command).map_err(EditError::Syntax)?;
        let [verb, rest @ ..] = &words[..] else { return Err(self.unknown()) };
        if !VERBS.contains(&verb.text) {
            return Err(self.unknown());
        }
        let mut unnamed = 0;
        let named: Vec<(&CommandWord<'_>, bool)> =
            rest.iter().map(|word| (word, selects(verb.text, word, &mut unnamed))).collect();
        let selectors = named.iter().filter(|(_, selects)| *selects).map(|(word, _)| word.value);
        let (menu, selections) = Selection::read(running, self.menu, selectors)?;
        let mut selections = selections.into_iter().map(Selection::written);
        let word = |(word, selects): &(&CommandWord<'_>, bool)| match (selects, word.name) {
            (false, _) => Some(word.text.to_owned()),
            (true, None) => selections.next(),
            (true, Some(name)) => selections.next().map(|rules| format!("{name}={rules}")),
        };
        let rest: Vec<String> = named.iter().filter_map(word).collect();
        Ok(Written { menu, command: format!("{} {}", verb.text, rest.join(" ")) })
    }

    fn unknown(&self) -> EditError {
        let message = format!("`{}` is no command that edits rules", self.command.escape_debug());
        EditError::Usage(Refusal::with_remedy(&message, &format!("there are {}", VERBS.join(", "))))
    }
}

/// Whether a word of a command names rules. `unnamed` counts the words before it without a name.
fn selects(verb: &str, word: &CommandWord<'_>, unnamed: &mut usize) -> bool {
    match (verb, word.name) {
        ("add", Some("place-before")) | ("move", Some("numbers" | "destination")) => true,
        ("add", _) => false,
        (_, Some(name)) => name == "numbers",
        (_, None) if word.text.starts_with('!') => false,
        (verb, None) => {
            *unnamed += 1;
            *unnamed == 1 || verb == "move" && *unnamed == 2
        }
    }
}
