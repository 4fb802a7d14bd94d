//! Sections as doors: each section that opens, paired with the section that closes the same targets.
//!
//! knockd has one time for the whole sequence. A door also has one for each step; the import sets both to knockd's
//! time. If knockd leaves a door open for ever, the import adds a time that ends it. A command for one family alone
//! makes a door for that family.

use knockplane_policy::door::{Door, KnockStep, MOST_STEPS, Opening};
use knockplane_policy::time::LONGEST_TIMEOUT;
use serde::Deserialize;

use super::Told;
use super::conf::{Key, Section};
use super::opening::{self, Effect, effect};
use super::shell::{self, Command, Runs};

/// knockd's default time for a sequence, and its default wait before `stop_command`.
const SEQ_TIMEOUT_S: u64 = 25;
const CMD_TIMEOUT_S: u64 = 10;

/// The time for a door that knockd never closes.
const OPEN_FOR: &str = "1h";

/// The families of a command: IPv4, IPv6.
type Families = [bool; 2];

/// The combined effect of the commands of a section.
#[derive(Debug, PartialEq, Eq)]
enum Doing {
    Opens { what: Vec<String>, for_s: Option<u64> },
    Closes { what: Vec<String> },
}

/// The part of a configuration file that has the doors: the import reads its own output again before it prints it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    door: [Door; 1],
}

/// The door that a section is converted to.
#[derive(Debug)]
pub(super) struct Imported {
    /// The line of the section.
    pub(super) line: u32,
    pub(super) door: Door,
    /// The text of the door in a configuration file.
    pub(super) text: String,
}

/// The results of all sections.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) imported: Vec<Imported>,
    /// Names and lines of the sections that neither become a door nor close one.
    pub(super) skipped: Vec<(String, u32)>,
}

/// A valid section.
struct Part<'s> {
    section: &'s Section,
    steps: Vec<String>,
    total_s: u64,
    doing: Doing,
    families: Families,
}

/// The doors. A section with a mistake is skipped, and its mistakes are reported.
pub(super) fn doors(sections: &[Section], told: &mut Told) -> Doors {
    let mut all = Doors::default();
    let mut skip = |section: &Section| all.skipped.push((section.name.clone(), section.line));
    let parts = sections.iter().filter_map(|section| {
        part(section, told).or_else(|| {
            skip(section);
            None
        })
    });
    let parts: Vec<Part<'_>> = parts.collect();
    let (opening, mut closing): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|part| matches!(part.doing, Doing::Opens { .. }));
    for part in &opening {
        let closes = closing.iter().position(|other| closes(other, part) && is_called_alike(other, part, &opening));
        let text = door(part, closes.map(|place| closing.remove(place)).as_ref(), told);
        match toml::from_str::<File>(&text) {
            Ok(File { door: [door] }) => all.imported.push(Imported { line: part.section.line, door, text }),
            Err(error) => {
                told.error(part.section.line, error.message());
                all.skipped.push((part.section.name.clone(), part.section.line));
            }
        }
    }
    for Part { section, .. } in closing {
        let name = &section.name;
        let remedy = "let it delete the rule that an imported section adds";
        told.error(section.line, format!("`{name}` closes what no imported section opens: {remedy}"));
        all.skipped.push((name.clone(), section.line));
    }
    all.skipped.sort_by_key(|(_, line)| *line);
    all
}

fn closes(close: &Part<'_>, open: &Part<'_>) -> bool {
    match (&close.doing, &open.doing) {
        (Doing::Closes { what }, Doing::Opens { what: opened, .. }) => {
            what == opened && close.families == open.families
        }
        _ => false,
    }
}

/// Whether the names of the two sections belong together, as `openSSH` and `closeSSH` do, or whether no other section
/// that `close` closes has such a name.
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
            "`one_time_sequences` is not supported: write a `sequence` that stays, and a short `cmd_timeout`, or steps \
             with passphrases in the door",
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
            if told.errors.len() == before && !section.is_broken {
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
    (told.errors.len() == before && !section.is_broken).then_some(Part { section, steps, total_s, doing, families })
}

/// The packets of the sequence, in the form of a door's steps.
fn steps(section: &Section, told: &mut Told) -> Vec<String> {
    let Some((line, sequence)) = section.get(Key::Sequence) else {
        if section.get(Key::OneTimeSequences).is_none() && !section.is_broken {
            told.error(section.line, format!("`{}` has no sequence: write `sequence = 7000,8000:udp`", section.name));
        }
        return Vec::new();
    };
    let flags = flags(section, told);
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
        match step.parse::<KnockStep>() {
            Ok(step) => steps.push(step.to_string()),
            Err(why) => told.error(line, why),
        }
    }
    if steps.len() > MOST_STEPS {
        told.error(line, format!("the sequence has {} steps: write at most {MOST_STEPS}", steps.len()));
    }
    steps
}

/// The flags of the section's TCP steps; none if they are wrong, which is reported once.
fn flags(section: &Section, told: &mut Told) -> String {
    let Some((line, flags)) = section.get(Key::TcpFlags) else { return String::new() };
    let flags = flags.to_ascii_lowercase();
    match format!("tcp/1 {flags}").parse::<KnockStep>() {
        Ok(_) => flags,
        Err(why) => {
            told.error(line, why);
            String::new()
        }
    }
}

fn seconds(section: &Section, key: Key, told: &mut Told) -> Option<u64> {
    let (line, text) = section.get(key)?;
    opening::seconds(text).map_err(|why| told.error(line, why)).ok()
}

/// The effect of the commands for one family; `None` if there are no commands, or if they are not understood.
fn doing(section: &Section, (start, stop): (Key, Key), told: &mut Told) -> Option<Doing> {
    let (line, started) = section.get(start)?;
    let (mut opens, mut closes) = (Vec::new(), Vec::new());
    // The door is open from the first command that opens to the first later command that closes.
    let (mut open_s, mut closes_again) = (0, false);
    // The earliest end of an opening with a time limit.
    let mut ends_after_s = None;
    for effect in effects(line, started, told)? {
        let is_open = !opens.is_empty();
        match effect {
            Effect::Opens(what) => opens.push(what),
            Effect::OpensFor(what, seconds) => {
                opens.push(what);
                ends_after_s = Some(ends_after_s.map_or(seconds, |earlier| seconds.min(earlier)));
            }
            Effect::Closes(what) => {
                closes.push(what);
                closes_again |= is_open;
            }
            Effect::ClosesSomething => closes_again |= is_open,
            Effect::Waits(seconds) if is_open && !closes_again => open_s += seconds,
            Effect::Waits(_) | Effect::Checks(_) | Effect::Nothing => {}
        }
    }
    let stopped = section.get(stop);
    if let (None, Some((line, _))) = (stopped, section.get(Key::CmdTimeout)) {
        told.warn(line, "`cmd_timeout` has no effect without `stop_command`: knockd never closes this");
    }
    let stopped_after_s = stopped.map(|_| seconds(section, Key::CmdTimeout, told).unwrap_or(CMD_TIMEOUT_S));
    let for_s = [stopped_after_s, closes_again.then_some(open_s), ends_after_s].into_iter().flatten().min();
    let longest_s = LONGEST_TIMEOUT.as_secs();
    if for_s.is_some_and(|seconds| !(1..=longest_s).contains(&seconds)) {
        told.error(line, format!("it is open for no time, or too long: let all `sleep` between be 1 to {longest_s} s"));
        return None;
    }
    if opens.is_empty() {
        if closes.is_empty() {
            told.error(line, "the effect of the command is unknown: write a line that adds a rule");
            return None;
        }
        return Some(Doing::Closes { what: flat(closes) });
    }
    let opens = flat(opens);
    if let Some((line, stopped)) = stopped {
        for effect in effects(line, stopped, told)? {
            match effect {
                Effect::Closes(what) => closes.push(what),
                Effect::ClosesSomething | Effect::Checks(_) | Effect::Nothing => {}
                Effect::Opens(_) | Effect::OpensFor(..) | Effect::Waits(_) => {
                    told.error(
                        line,
                        "`stop_command` does more than close: let it only delete the rule that `start_command` adds",
                    );
                    return None;
                }
            }
        }
    }
    if !closes.is_empty() && flat(closes) != opens {
        told.error(line, "the deleted rule is not the added rule: add and delete the same rule");
        return None;
    }
    Some(Doing::Opens { what: opens, for_s })
}

/// All targets that are opened, in order; an empty list if one opening covers all targets.
fn flat(all: Vec<Vec<String>>) -> Vec<String> {
    if all.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let mut flat: Vec<String> = all.into_iter().flatten().collect();
    flat.sort();
    flat.dedup();
    flat
}

/// The effects of the commands of a line, in order.
fn effects(line: u32, command: &str, told: &mut Told) -> Option<Vec<Effect>> {
    let commands = commands(command).map_err(|why| told.error(line, why)).ok()?;
    let before = told.errors.len();
    let (mut understood, mut negated) = (Vec::<Effect>::new(), false);
    for Command { mut runs, words } in commands {
        // A negated check inverts the result: a command that runs on success then runs if the check fails.
        let is_negated = words.first().is_some_and(|word| word == "!");
        let effect = effect(&words[usize::from(is_negated)..]).and_then(checked);
        if is_negated && !matches!(effect, Ok(Effect::Checks(_))) {
            told.error(line, "`!` that is not before `iptables -C` is for a shell: leave it out");
        }
        let before_it = understood.last();
        if std::mem::replace(&mut negated, is_negated) {
            runs = match runs {
                Runs::OnSuccess => Runs::OnFailure,
                Runs::OnFailure => Runs::OnSuccess,
                Runs::Always => Runs::Always,
            };
        }
        match effect.and_then(|effect| follows(runs, before_it, effect)) {
            Ok(effect) => understood.push(effect),
            Err(why) => told.error(line, why),
        }
    }
    (told.errors.len() == before).then_some(understood)
}

/// The commands of a line; `sh -c '…'` is replaced by its commands.
fn commands(line: &str) -> Result<Vec<Command>, String> {
    let commands = shell::commands(line)?;
    match &commands[..] {
        [Command { words, .. }] => match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [program, "-c", line] if matches!(opening::base(program), "sh" | "bash" | "dash") => shell::commands(line),
            _ => Ok(commands),
        },
        _ => Ok(commands),
    }
}

/// Adds a command that runs only if the one before it succeeds, or fails. That condition must not change which ports
/// are open.
///
/// # Errors
/// If the condition changes which ports are open.
fn follows(runs: Runs, before: Option<&Effect>, effect: Effect) -> Result<Effect, String> {
    let is_same = |checked: &Vec<String>, what: &Vec<String>| checked == what;
    match (runs, before, &effect) {
        // A check only decides whether to add a rule that does not exist yet, or to delete a rule that exists.
        (Runs::OnFailure, Some(Effect::Checks(checked)), Effect::Opens(what)) if is_same(checked, what) => Ok(effect),
        (Runs::OnSuccess, Some(Effect::Checks(checked)), Effect::Closes(what)) if is_same(checked, what) => Ok(effect),
        (
            Runs::OnSuccess | Runs::OnFailure,
            Some(Effect::Checks(_)),
            Effect::Opens(_) | Effect::OpensFor(..) | Effect::Closes(_),
        ) => Err(
            "`iptables -C` checks another rule than the one that is added or deleted behind it: let both be the same"
                .to_owned(),
        ),
        // `|| true`: the command before it runs in any case.
        (Runs::OnFailure, _, Effect::Nothing) => Ok(effect),
        (Runs::OnFailure, ..) => {
            Err("the effect of a command behind `||` is unknown, because it runs only if the command before it fails: write the line without `||`".to_owned())
        }
        _ => Ok(effect),
    }
}

/// Checks that a door can have every opening.
fn checked(effect: Effect) -> Result<Effect, String> {
    if let Effect::Opens(what) | Effect::OpensFor(what, _) | Effect::Closes(what) | Effect::Checks(what) = &effect {
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
