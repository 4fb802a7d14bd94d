//! Runs scripts whose result follows from the file alone: scripts with variables, loops over literal arrays, and
//! conditions on known values.
//!
//! [`expand`] runs the script of a file and returns the expansion: the commands that the script executes, in order,
//! with values in place of variables. The expansion is read like any other text. The origin of its bytes is stored, so
//! that every finding about a rule has a position in the file and the values of the loops around it.
//!
//! ```text
//! /ip firewall filter                                    /ip firewall filter
//! :foreach port in={7001;7002} do={              ─►      add chain=input dst-port=7001 …
//!     add chain=input dst-port=$port …                   add chain=input dst-port=7002 …
//! }
//! ```
//!
//! Values that depend on the router (`[/system clock get time]`) and all other constructs are refused by name. A run
//! spends a budget, as searches of entries do, and the expansion has a size limit.
//!
//! | module       | owns |
//! |--------------|------|
//! | `run`        | statements, blocks, and scopes of variables |
//! | `command`    | commands that are carried out, with values in place of variables |
//! | `expression` | operators and their operands |
//! | `operand`    | strings, variables, arrays, literal words |
//! | `call`       | commands in brackets that have a value |
//! | `value`      | values |
//! | `map`        | the origin of the expansion's bytes |

mod call;
mod command;
mod expression;
mod map;
mod operand;
mod run;
mod value;

pub(super) use self::map::Expansion;
pub(super) use self::run::expand;
use super::lexer::Word;

/// Statements that may have no leading `:`. No menu or command has such a name.
const PLAIN_STATEMENTS: &[&[u8]] = &[b"local", b"global", b"foreach", b"for", b"if", b"while", b"put"];

/// Whether a command with this beginning belongs to a script: `:if`, `$x`, a block, or the end of one.
pub(super) fn begins(words: &[Word]) -> bool {
    let Some(first) = words.first() else { return false };
    let is_marked = matches!(first.name.bytes.first(), Some(b':' | b'$' | b'{' | b'}' | b'[' | b']' | b'(' | b')'));
    is_marked || (words.len() > 1 && first.value.is_none() && PLAIN_STATEMENTS.contains(&&first.name.bytes[..]))
}

#[cfg(test)]
mod tests;
