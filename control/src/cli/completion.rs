//! Completion in a shell of the names that the running filter has: lists, doors, rules, chains, and words of filters.
//!
//! The script of a shell runs `knockctl` with [`VARIABLE`] at each Tab. Names come from the control process, within
//! [`ANSWER_WITHIN`]; without an answer there are none.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use knockplane_policy::rule::{PROTOCOLS, numbers};
use knockplane_policy::wire::connection_filter::{FILTER_NAMES, state_words};
use knockplane_policy::wire::{Doors, ListPage, RunningRules};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::http::Client;
use super::table::printable;
use crate::settings::DEFAULT_SOCKET;

/// The environment variable with the name of the shell.
const VARIABLE: &str = "KNOCKCTL_COMPLETE";

/// Time limit for an answer: a person waits for it at the prompt.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Writes the words that complete a command line, and ends, if a shell asks for them.
pub(super) fn complete_and_exit() {
    CompleteEnv::with_factory(super::command).var(VARIABLE).complete();
}

/// The script that lets a shell ask `knockctl` for words.
///
/// # Errors
/// If the shell is not supported.
pub fn script(shell: &str) -> io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(|| io::Error::other(format!("no completion for {shell}")))?;
    let mut text = Vec::new();
    completer.write_registration(VARIABLE, "knockctl", "knockctl", "knockctl", &mut text)?;
    if shell == "zsh" {
        // zsh runs an installed file at the first Tab, as the function of its name.
        text.extend_from_slice(b"[ \"$funcstack[1]\" = _knockctl ] && _clap_dynamic_completer_knockctl \"$@\"\n");
    }
    Ok(text)
}

/// Names of lists.
pub(super) fn lists() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| beginning(current, list_names()))
}

/// Names of doors.
pub(super) fn doors() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| beginning(current, door_names()))
}

/// Numbers of the rules of `/ip firewall filter`, with their chains, actions and comments.
pub(super) fn rules() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| beginning(current, rule_numbers()))
}

/// The properties of a rule whose values the running filter has: chains, lists, and rules to place it before.
pub(super) fn properties() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        words(current, &["chain", "src-address-list", "dst-address-list", "address-list", "place-before"], |name| {
            match name {
                "chain" => chain_names(),
                "place-before" => rule_numbers(),
                _ => list_names(),
            }
        })
    })
}

/// The words of a filter for connections.
pub(super) fn filter_words() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        words(current, &FILTER_NAMES, |name| match name {
            "protocol" => PROTOCOLS.iter().map(|(name, _)| Name::from(*name)).collect(),
            "state" => state_words().into_iter().map(Name::from).collect(),
            "door" => door_names(),
            _ => Vec::new(),
        })
    })
}

/// A name, and what it is.
struct Name {
    name: String,
    about: Option<String>,
}

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name { name: name.to_owned(), about: None }
    }
}

/// The names that begin with the current word.
fn beginning(current: &OsStr, names: Vec<Name>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.name.starts_with(&*current)).map(candidate).collect()
}

fn candidate(Name { name, about }: Name) -> CompletionCandidate {
    CompletionCandidate::new(name).help(about.map(Into::into))
}

/// Words of the form `name=value`. Bash makes three words of one at its `=`, and completes the value alone.
fn words(current: &OsStr, names: &[&str], values: impl Fn(&str) -> Vec<Name>) -> Vec<CompletionCandidate> {
    let before = before_current();
    let split = match before.as_slice() {
        [.., name, equals] if equals == "=" => Some(name),
        [.., name] => Some(name),
        [] => None,
    };
    let split = split.filter(|_| env::var_os("_CLAP_COMPLETE_INDEX").is_some());
    if let Some(name) = split.filter(|name| names.contains(&name.as_str())) {
        return beginning(current, values(name));
    }
    let text = current.to_string_lossy();
    match text.split_once('=') {
        Some((name, value)) if names.contains(&name) => beginning(OsStr::new(value), values(name))
            .into_iter()
            .map(|candidate| candidate.add_prefix(format!("{name}=")))
            .collect(),
        Some(_) => Vec::new(),
        None => beginning(current, names.iter().map(|name| Name::from(&*format!("{name}="))).collect()),
    }
}

/// The words of the command line, from its first one on.
fn line() -> Vec<String> {
    env::args_os().skip_while(|word| word != "--").skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The words before the current one.
fn before_current() -> Vec<String> {
    let mut line = line();
    let index = env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    line.truncate(index.unwrap_or_else(|| line.len().saturating_sub(1)));
    line
}

/// The socket that the command line names, or the default.
fn socket(line: &[String]) -> PathBuf {
    let named = line.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--socket") {
        // Bash makes three words of `--socket=PATH`.
        Some("") => line.get(at + 1).filter(|next| *next != "=").or_else(|| line.get(at + 2)).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    named.map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

/// The answer of the control process; `None` without one.
fn ask<T: DeserializeOwned>(path: &str) -> Option<T> {
    // The names of another filter would mislead, and completion reads no token.
    if line().iter().any(|word| word == "--api" || word.starts_with("--api=")) {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(socket(&line()));
    let answer = runtime.block_on(async { timeout(ANSWER_WITHIN, client.get(path)).await });
    serde_json::from_slice(&answer.ok()?.ok()?).ok()
}

fn list_names() -> Vec<Name> {
    let page: Option<ListPage> = ask("/api/v1/lists?limit=1");
    let lists = page.into_iter().flat_map(|page| page.lists);
    lists
        .map(|list| Name { about: Some(format!("{} entries", list.summary.entries)), name: list.summary.list })
        .collect()
}

fn door_names() -> Vec<Name> {
    let doors: Option<Doors> = ask("/api/v1/doors?limit=1");
    doors.into_iter().flat_map(|doors| doors.doors).map(|door| Name::from(door.door.as_str())).collect()
}

fn rule_numbers() -> Vec<Name> {
    let Some(running) = ask::<RunningRules>("/api/v1/rules") else { return Vec::new() };
    let declared = &running.rules.rules;
    let numbered = declared.iter().zip(numbers(declared)).filter(|(_, number)| number.menu() == "ip filter");
    let name = |(rule, number): (&knockplane_policy::rule::Rule, knockplane_policy::rule::RuleNumber)| Name {
        name: number.number().to_string(),
        about: Some(format!("{} {} {}", rule.chain, rule.action.name(), printable(&rule.comment))),
    };
    numbered.map(name).collect()
}

fn chain_names() -> Vec<Name> {
    let mut chains = ["forward", "input", "output"].map(str::to_owned).to_vec();
    let running: Option<RunningRules> = ask("/api/v1/rules");
    chains.extend(running.into_iter().flat_map(|running| running.rules.rules).map(|rule| rule.chain));
    chains.sort();
    chains.dedup();
    chains.iter().map(|chain| Name::from(chain.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(current: &str) -> Vec<String> {
        let values = |name: &str| match name {
            "door" => vec![Name::from("ssh"), Name::from("web")],
            _ => Vec::new(),
        };
        let candidates = words(OsStr::new(current), &["door", "state"], values);
        candidates.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn words_are_completed_name_by_name_and_then_value_by_value() {
        assert_eq!(completed(""), ["door=", "state="]);
        assert_eq!(completed("d"), ["door="]);
        assert_eq!(completed("door="), ["door=ssh", "door=web"]);
        assert_eq!(completed("door=w"), ["door=web"]);
        assert_eq!((completed("other=x"), completed("state=x")), (Vec::<String>::new(), Vec::new()));
    }

    #[test]
    fn the_socket_is_the_one_of_the_command_line() {
        let of = |line: &[&str]| socket(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["knockctl", "--socket", "/a", "show"]), PathBuf::from("/a"));
        assert_eq!(of(&["knockctl", "show", "--socket=/b"]), PathBuf::from("/b"));
        assert_eq!(of(&["knockctl", "--socket", "=", "/c"]), PathBuf::from("/c"));
        assert_eq!(of(&["knockctl", "show"]), PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn nobody_there_is_no_name() {
        assert!(ask::<Doors>("/api/v1/doors?limit=1").is_none());
    }

    #[test]
    fn each_shell_has_a_script() {
        for shell in ["bash", "zsh", "fish"] {
            let text = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(text.contains(VARIABLE) && text.contains("knockctl"), "{text}");
        }
        assert!(script("csh").is_err());
    }
}
