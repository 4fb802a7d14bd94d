//! Sections as doors: those that open, each with the one that closes the same again.
//!
//! knockd has one time for the whole sequence; a door has one for each step as well, which is made the same. Where knockd
//! leaves a door open for ever, a time ends it here. A command for one family alone makes a door for that family.

use knockplane_policy::door::{Door, MOST_STEPS, Opening, Step};
use knockplane_policy::time::LONGEST_TIMEOUT;
use serde::Deserialize;

use super::Told;
use super::conf::{Key, Section};
use super::opening::{self, Effect, effect};
use super::shell;

/// How long knockd gives a sequence, and how long it waits for `stop_command`, if nothing is said.
const SEQ_TIMEOUT_S: u64 = 25;
const CMD_TIMEOUT_S: u64 = 10;

/// How long a door is open of which knockd never closes.
const OPEN_FOR: &str = "1h";

/// Which families a command is for: IPv4, IPv6.
type Families = [bool; 2];

/// What the commands of a section do, taken together.
#[derive(Debug, PartialEq, Eq)]
enum Doing {
    Opens { what: Vec<String>, for_s: Option<u64> },
    Closes { what: Vec<String> },
}

/// What a configuration file says with a door in it: what is written is read again before anybody gets it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "door")]
    _door: [Door; 1],
}

/// A section that makes sense.
struct Part<'s> {
    section: &'s Section,
    steps: Vec<String>,
    total_s: u64,
    doing: Doing,
    families: Families,
}

/// The doors, each as text.
pub(super) fn doors(sections: &[Section], told: &mut Told) -> Vec<String> {
    let parts: Vec<Part<'_>> = sections.iter().filter_map(|section| part(section, told)).collect();
    let (opening, mut closing): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|part| matches!(part.doing, Doing::Opens { .. }));
    let doors = opening.iter().map(|part| {
        let closes = closing.iter().position(|other| closes(other, part) && is_called_alike(other, part, &opening));
        door(part, closes.map(|place| closing.remove(place)).as_ref(), told)
    });
    let doors: Vec<String> = doors.collect();
    for part in closing {
        let name = &part.section.name;
        told.error(part.section.line, format!("`{name}` closes what no section opens: let it take back the same rule"));
    }
    if told.errors.is_empty() {
        for (part, door) in opening.iter().zip(&doors) {
            if let Err(error) = toml::from_str::<File>(door) {
                told.error(part.section.line, error.message());
            }
        }
    }
    doors
}

fn closes(close: &Part<'_>, open: &Part<'_>) -> bool {
    match (&close.doing, &open.doing) {
        (Doing::Closes { what }, Doing::Opens { what: opened, .. }) => {
            what == opened && close.families == open.families
        }
        _ => false,
    }
}

/// Of several that open the same, the one that is called as the closing one is: `openSSH`, `closeSSH`.
fn is_called_alike(close: &Part<'_>, open: &Part<'_>, all: &[Part<'_>]) -> bool {
    let stem = |part: &Part<'_>| {
        let name = part.section.name.to_ascii_lowercase();
        name.replace("open", "").replace("close", "")
    };
    stem(close) == stem(open) || !all.iter().any(|other| closes(close, other) && stem(other) == stem(close))
}

fn part<'s>(section: &'s Section, told: &mut Told) -> Option<Part<'s>> {
    let before = told.errors.len();
    if let Some((line, _)) = section.get(Key::OneTimeSequences) {
        told.error(
            line,
            "sequences that are used once, from a file, are not there: write a `sequence` that stays, and a short \
             `cmd_timeout`, or steps with passphrases in the door",
        );
    }
    if let Some((line, _)) = section.get(Key::Target) {
        told.error(
            line,
            "a door is at every protected address, and opens the one that was knocked at: leave `target` out",
        );
    }
    let steps = steps(section, told);
    let total_s = seconds(section, Key::SeqTimeout, told).unwrap_or(SEQ_TIMEOUT_S);
    let of_family = [(Key::Start, Key::Stop), (Key::Start6, Key::Stop6)].map(|keys| doing(section, keys, told));
    let families = of_family.each_ref().map(Option::is_some);
    let doing = match of_family {
        [None, None] => {
            if told.errors.len() == before {
                told.error(section.line, format!("`{}` opens nothing: write `start_command = …`", section.name));
            }
            return None;
        }
        [Some(one), Some(other)] if one != other => {
            let line = section.get(Key::Start6).map_or(section.line, |(line, _)| line);
            told.error(line, "it opens something else for IPv6 than for IPv4: make two sections of this one");
            return None;
        }
        [one, other] => one.or(other)?,
    };
    (told.errors.len() == before).then_some(Part { section, steps, total_s, doing, families })
}

/// The packets of the sequence, as a door has them.
fn steps(section: &Section, told: &mut Told) -> Vec<String> {
    let Some((line, sequence)) = section.get(Key::Sequence) else {
        if section.get(Key::OneTimeSequences).is_none() {
            told.error(section.line, format!("`{}` has no sequence: write `sequence = 7000,8000:udp`", section.name));
        }
        return Vec::new();
    };
    let flags = section.get(Key::TcpFlags).map_or("", |(_, flags)| flags).to_ascii_lowercase();
    let mut steps = Vec::new();
    for hit in sequence.split(',').map(str::trim) {
        let (port, protocol) =
            hit.split_once(':').map_or((hit, "tcp"), |(port, protocol)| (port.trim(), protocol.trim()));
        let step = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => format!("tcp/{port} {flags}"),
            "udp" => format!("udp/{port}"),
            other => {
                told.error(line, format!("`{other}` is no protocol of a step: write `{port}:tcp` or `{port}:udp`"));
                continue;
            }
        };
        match step.parse::<Step>() {
            Ok(step) => steps.push(step.to_string()),
            Err(why) => told.error(line, why),
        }
    }
    if steps.len() > MOST_STEPS {
        told.error(line, format!("the sequence has {} steps: write at most {MOST_STEPS}", steps.len()));
    }
    steps
}

fn seconds(section: &Section, key: Key, told: &mut Told) -> Option<u64> {
    let (line, text) = section.get(key)?;
    opening::seconds(text).map_err(|why| told.error(line, why)).ok()
}

/// What the commands for one family do; nothing if there are none, or if they are not understood.
fn doing(section: &Section, (start, stop): (Key, Key), told: &mut Told) -> Option<Doing> {
    let (line, started) = section.get(start)?;
    let (mut opens, mut closes) = (Vec::new(), Vec::new());
    // It is open from the first line that opens to the first one behind it that closes.
    let (mut open_s, mut closes_again) = (0, false);
    for effect in effects(line, started, told)? {
        let is_open = !opens.is_empty();
        match effect {
            Effect::Opens(what) => opens.push(what),
            Effect::Closes(what) => {
                closes.push(what);
                closes_again |= is_open;
            }
            Effect::ClosesSomething => closes_again |= is_open,
            Effect::Waits(seconds) if is_open && !closes_again => open_s += seconds,
            Effect::Waits(_) | Effect::Nothing => {}
        }
    }
    let stopped = section.get(stop);
    if let (None, Some((line, _))) = (stopped, section.get(Key::CmdTimeout)) {
        told.warn(line, "`cmd_timeout` says nothing without `stop_command`: knockd never closes this");
    }
    let stopped_after_s = stopped.map(|_| seconds(section, Key::CmdTimeout, told).unwrap_or(CMD_TIMEOUT_S));
    let for_s = [stopped_after_s, closes_again.then_some(open_s)].into_iter().flatten().min();
    let longest_s = LONGEST_TIMEOUT.as_secs();
    if for_s.is_some_and(|seconds| !(1..=longest_s).contains(&seconds)) {
        told.error(line, format!("it is open for no time, or too long: let all `sleep` between be 1 to {longest_s} s"));
        return None;
    }
    if opens.is_empty() {
        if closes.is_empty() {
            told.error(line, "the command opens nothing that can be told: write a line that adds a rule");
            return None;
        }
        return Some(Doing::Closes { what: flat(closes) });
    }
    let opens = flat(opens);
    if let Some((line, stopped)) = stopped {
        for effect in effects(line, stopped, told)? {
            match effect {
                Effect::Closes(what) => closes.push(what),
                Effect::ClosesSomething | Effect::Nothing => {}
                Effect::Opens(_) | Effect::Waits(_) => {
                    told.error(line, "`stop_command` does more than close: let it take back what was opened");
                    return None;
                }
            }
        }
    }
    if !closes.is_empty() && flat(closes) != opens {
        told.error(line, "what is closed is not what was opened: let the same rule be added and deleted");
        return None;
    }
    Some(Doing::Opens { what: opens, for_s })
}

/// Everything that is opened, in order; nothing if one of them is everything.
fn flat(all: Vec<Vec<String>>) -> Vec<String> {
    if all.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let mut flat: Vec<String> = all.into_iter().flatten().collect();
    flat.sort();
    flat.dedup();
    flat
}

fn effects(line: u32, command: &str, told: &mut Told) -> Option<Vec<Effect>> {
    let commands = shell::commands(command).map_err(|why| told.error(line, why)).ok()?;
    let effects: Vec<_> = commands.iter().map(|words| effect(words)).collect();
    let before = told.errors.len();
    let mut understood = Vec::new();
    for effect in effects {
        match effect.and_then(checked) {
            Ok(effect) => understood.push(effect),
            Err(why) => told.error(line, why),
        }
    }
    (told.errors.len() == before).then_some(understood)
}

/// Every opening is one that a door can have.
fn checked(effect: Effect) -> Result<Effect, String> {
    if let Effect::Opens(what) | Effect::Closes(what) = &effect {
        what.iter().try_for_each(|opening| opening.parse::<Opening>().map(|_| ()))?;
    }
    Ok(effect)
}

fn door(part: &Part<'_>, close: Option<&Part<'_>>, told: &mut Told) -> String {
    let Part { section, steps, total_s, doing, families } = part;
    let Doing::Opens { what, for_s } = doing else { return String::new() };
    if let Some(close) = close.filter(|close| close.total_s != *total_s) {
        let line = close.section.line;
        told.warn(
            line,
            format!("`{}` has another time than `{}`, whose is kept for both", close.section.name, section.name),
        );
    }
    let open_for = for_s.map_or_else(|| OPEN_FOR.to_owned(), |seconds| format!("{seconds}s"));
    if for_s.is_none() {
        let line = section.line;
        told.warn(
            line,
            format!(
                "knockd never closes `{}` by itself: it is closed after {OPEN_FOR}, or write another `for`",
                section.name
            ),
        );
    }
    let list = |items: &[String]| toml::Value::from(items.to_vec()).to_string();
    let mut text = format!("[[door]]\nname = \"{}\"\nknock = {}\n", section.name, list(steps));
    if let Some(close) = close {
        text += &format!("close = {}\n", list(&close.steps));
    }
    text += &format!("within = \"{total_s}s\"\ntotal = \"{total_s}s\"\n");
    if !what.is_empty() {
        text += &format!("opens = {}\n", list(what));
    }
    text += &format!("for = \"{open_for}\"\n");
    match families {
        [true, false] => text += "sources = [\"0.0.0.0/0\"]\n",
        [false, true] => text += "sources = [\"::/0\"]\n",
        _ => {}
    }
    text
}
