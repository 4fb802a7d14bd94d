//! knockd's configuration: `[section]`, `key = value`, and `#` at the beginning of a line. Source: knockd 0.8, run.

use super::Told;

/// A `[section]` other than `[options]`.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) line: u32,
    /// Whether a line of the section has an error.
    pub(super) is_broken: bool,
    keys: Vec<(Key, u32, String)>,
}

/// A key of a section. knockd has two names for most keys, and ignores upper and lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Sequence,
    OneTimeSequences,
    SeqTimeout,
    TcpFlags,
    Start,
    Start6,
    CmdTimeout,
    Stop,
    Stop6,
    Target,
}

const KEYS: &[(&str, Key)] = &[
    ("sequence", Key::Sequence),
    ("one_time_sequences", Key::OneTimeSequences),
    ("seq_timeout", Key::SeqTimeout),
    ("timeout", Key::SeqTimeout),
    ("tcpflags", Key::TcpFlags),
    ("start_command", Key::Start),
    ("command", Key::Start),
    ("start_command_6", Key::Start6),
    ("command_6", Key::Start6),
    ("cmd_timeout", Key::CmdTimeout),
    ("stop_command", Key::Stop),
    ("stop_command_6", Key::Stop6),
    ("target", Key::Target),
];

/// These keys configure knockd's process and have no effect on doors.
const OPTIONS: &[&str] = &["usesyslog", "logfile", "pidfile", "interface"];

impl Section {
    /// The value of a key, and its line.
    pub(super) fn get(&self, key: Key) -> Option<(u32, &str)> {
        self.keys.iter().find(|(other, ..)| *other == key).map(|(_, line, value)| (*line, value.as_str()))
    }
}

/// The sections, in order.
pub(super) fn read(text: &str, told: &mut Told) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut in_options = false;
    // Keys below an invalid title belong to no section.
    let mut in_nothing = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else {
                told.error(number, format!("`{line}` is no title: write `[NAME]`"));
                in_nothing = true;
                continue;
            };
            (in_options, in_nothing) = (name.eq_ignore_ascii_case("options"), false);
            if !in_options {
                let before = told.errors.len();
                check_name(name, number, &sections, told);
                let is_broken = told.errors.len() > before;
                sections.push(Section { name: name.to_owned(), line: number, is_broken, keys: Vec::new() });
            }
            continue;
        }
        if in_nothing {
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        let lower = key.to_ascii_lowercase();
        if in_options {
            if !OPTIONS.contains(&lower.as_str()) {
                told.error(number, unknown(key, &lower, "[options]", OPTIONS));
            }
            continue;
        }
        let Some(section) = sections.last_mut() else {
            told.error(number, format!("`{key}` stands in no section: write `[NAME]` above it"));
            continue;
        };
        let before = told.errors.len();
        match KEYS.iter().find(|(name, _)| *name == lower) {
            None => {
                let names: Vec<_> = KEYS.iter().map(|(name, _)| *name).collect();
                told.error(number, unknown(key, &lower, "a door", &names));
            }
            Some((_, known)) => {
                if let Some((line, _)) = section.get(*known) {
                    told.error(number, format!("`{key}` repeats line {line}: remove one of the two lines"));
                } else if value.is_empty() {
                    told.error(number, format!("`{key}` has no value: write `{key} = …`, or remove the line"));
                } else {
                    section.keys.push((*known, number, value.to_owned()));
                }
            }
        }
        section.is_broken |= told.errors.len() > before;
    }
    sections
}

fn unknown(key: &str, lower: &str, place: &str, names: &[&str]) -> String {
    let near = names.iter().map(|name| (strsim::osa_distance(name, lower), name)).min();
    match near.filter(|(distance, _)| *distance <= 2) {
        Some((_, name)) => format!("`{key}` is no key of {place}: did you mean `{name}`?"),
        None => format!("`{key}` is no key of {place}: leave it out; there are {}", names.join(", ")),
    }
}

/// A door gets the name of its section, so that name must be valid for a door.
fn check_name(name: &str, line: u32, before: &[Section], told: &mut Told) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if ["-knocking", "-closing"].iter().any(|end| name.ends_with(end)) {
        told.error(line, format!("`{name}` would be a list of another door: call it something else"));
    } else if !(1..=32).contains(&name.len()) || !name.bytes().all(fits) {
        told.error(line, format!("`{name}` is no name of a door: write 1 to 32 letters, digits, `-` and `_`"));
    }
    if let Some(other) = before.iter().find(|section| section.name == name) {
        told.error(
            line,
            format!("there is a door `{name}` in line {} already: call this one something else", other.line),
        );
    }
}
