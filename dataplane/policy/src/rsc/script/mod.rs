//! Scripts whose outcome is known from the file alone: variables, loops over literal arrays, conditions on known values.
//!
//! [`expand`] runs the script of a file and gives the text that is left: the commands that it carries out, in their
//! order, with the values of variables in them. That text is read like any other. Where its bytes came from is kept, so
//! that everything that is said of a rule is said of the place in the file, and of the values of the loops around it.
//!
//! ```text
//! /ip firewall filter                                    /ip firewall filter
//! :foreach port in={7001;7002} do={              ─►      add chain=input dst-port=7001 …
//!     add chain=input dst-port=$port …                   add chain=input dst-port=7002 …
//! }
//! ```
//!
//! What depends on the router (`[/system clock get time]`), and every other construct, is refused by its name. Running is
//! paid for from a budget, as looking for entries is, and the text that it makes has a limit.
//!
//! | module       | owns |
//! |--------------|------|
//! | `run`        | statements, blocks, and scopes of variables |
//! | `command`    | commands that are carried out, with values in place of variables |
//! | `expression` | operators, and how what they join is read |
//! | `operand`    | strings, variables, arrays, words |
//! | `call`       | commands in brackets that give values |
//! | `value`      | values |
//! | `map`        | where the bytes of the text came from |

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

/// Statements that may also be written without a `:`. No menu or command has such a name.
const PLAIN_STATEMENTS: &[&[u8]] = &[b"local", b"global", b"foreach", b"for", b"if", b"while", b"put"];

/// Whether a command that begins so is a script's: `:if`, `$x`, a block, or the end of one.
pub(super) fn begins(words: &[Word]) -> bool {
    let Some(first) = words.first() else { return false };
    let is_marked = matches!(first.name.bytes.first(), Some(b':' | b'$' | b'{' | b'}' | b'[' | b']' | b'(' | b')'));
    is_marked || (words.len() > 1 && first.value.is_none() && PLAIN_STATEMENTS.contains(&&first.name.bytes[..]))
}

#[cfg(test)]
mod tests;
