//! Profiles: named knocks in a file of the user.
//!
//! ```toml
//! [ssh-home]
//! host = "gate.example.org"
//! steps = ["1234", "4321:udp=open sesame", "icmp=128"]  # as on the command line, or as in the server's [[door]]
//! delay = "10ms"
//! wait-port = "22"
//! then = "ssh gate.example.org"
//! both = true
//! ```
//!
//! | file       | owns |
//! |------------|------|
//! | `mod.rs`   | the file: its path, its content, additions |
//! | `add.rs`   | the checks of a shared profile, and the write of the file |
//! | `door.rs`  | steps in the syntax of a server's configuration |
//! | `share.rs` | a profile as one line |

mod add;
mod door;
mod share;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use knockplane_limits::input;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A profile. Its steps are in the syntax of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Profile {
    #[serde(deserialize_with = "host")]
    pub(crate) host: String,
    #[serde(deserialize_with = "door::steps")]
    pub(crate) steps: Vec<String>,
    /// `10ms` or `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<Delay>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wait_port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) then: Option<Then>,
    /// Whether to knock over IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) both: bool,
}

/// Pause between two steps in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Delay(pub(crate) u32);

impl TryFrom<String> for Delay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (text.strip_suffix('s').unwrap_or_default(), 1000),
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let ms = number.parse::<u32>().ok().filter(|_| digits).and_then(|number| number.checked_mul(unit));
        ms.map(Delay).ok_or_else(|| format!("`{}` is not a delay: write `10ms` or `1s`", text.escape_debug()))
    }
}

impl From<Delay> for String {
    fn from(delay: Delay) -> String {
        format!("{}ms", delay.0)
    }
}

/// A command: a list of words, or a line that is split at white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Then {
    Line(String),
    Words(Vec<String>),
}

impl Then {
    pub(crate) fn words(&self) -> Vec<OsString> {
        match self {
            Then::Line(line) => line.split_whitespace().map(OsString::from).collect(),
            Then::Words(words) => words.iter().map(OsString::from).collect(),
        }
    }
}

/// A profile cannot be used. The text has the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProfileError(String);

/// The file of profiles; without a file, no profiles.
#[derive(Debug)]
pub(crate) struct Profiles {
    path: PathBuf,
    profiles: BTreeMap<String, Profile>,
    /// Warnings about valid parts that the user should change.
    pub(crate) warnings: Vec<String>,
}

impl Profiles {
    /// Reads the file with this name, or else the default file of the user, which need not exist.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, ProfileError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => own_file().ok_or_else(|| {
                ProfileError("there is no home directory for profiles: name a file with --profiles".to_owned())
            })?,
        };
        let shown = path.display();
        let profiles: BTreeMap<String, Profile> = toml::from_str(&text_of(&path)?)
            .map_err(|error| ProfileError(format!("the profiles in {shown}: {error}")))?;
        for name in profiles.keys() {
            check_name(name).map_err(|why| ProfileError(format!("the profiles in {shown}: {why}")))?;
        }
        let warnings = readable_by_others(&path)
            .then(|| format!("{shown} can be read by other users, who can then knock; run: chmod 600 {shown}"));
        Ok(Profiles { path, profiles, warnings: warnings.into_iter().collect() })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Profile> {
        self.profiles.get(name)
    }

    /// The profile of this name; otherwise an error with the names of all profiles.
    pub(crate) fn find(&self, name: &str) -> Result<&Profile, ProfileError> {
        self.get(name).ok_or_else(|| {
            let path = self.path.display();
            let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
            ProfileError(format!(
                "`{name}` is not a profile in {path} ({known})\n    write `knocker HOST STEP...`, or add a section `[{name}]` there"
            ))
        })
    }

    /// All names with their hosts, without secrets.
    pub(crate) fn list(&self) -> String {
        let width = self.profiles.keys().map(String::len).max().unwrap_or_default();
        self.profiles.iter().fold(String::new(), |mut text, (name, Profile { host, steps, .. })| {
            let plural = if steps.len() == 1 { "" } else { "s" };
            let _ = writeln!(text, "{name:<width$}  {host}, {} step{plural}", steps.len());
            text
        })
    }

    /// The profile as one line for another user, without its command: the command of another user should not be run.
    pub(crate) fn share(&self, name: &str) -> Result<String, ProfileError> {
        Ok(share::line(name, self.find(name)?))
    }

    /// Appends a shared profile to the file, which is created if it does not exist. Returns a message with its name.
    pub(crate) fn add(&self, line: &str) -> Result<String, ProfileError> {
        let (name, profile) = share::read(line).map_err(ProfileError)?;
        check_name(&name).map_err(ProfileError)?;
        add::check(&profile).map_err(ProfileError)?;
        let path = self.path.display();
        if self.profiles.contains_key(&name) {
            return Err(ProfileError(format!("{path} has a profile `{name}` already: rename that one first")));
        }
        let wrong = |why: &str| ProfileError(format!("the profile cannot be added to {path}: {why}"));
        let section =
            toml::to_string(&BTreeMap::from([(&name, &profile)])).map_err(|error| wrong(&error.to_string()))?;
        let before = text_of(&self.path)?;
        let text = if before.is_empty() { section } else { format!("{before}\n{section}") };
        // The file must stay valid, and the profile in it must be the shared one.
        let read: BTreeMap<String, Profile> = toml::from_str(&text).map_err(|error| wrong(error.message()))?;
        if read.get(&name) != Some(&profile) {
            return Err(wrong("in the file it would differ from the shared one"));
        }
        add::write(&self.path, &text).map_err(|error| ProfileError(format!("cannot write to {path}: {error}")))?;
        Ok(format!("added {name} to {path}\n"))
    }
}

/// Checks a name: it must need no quotes in the file, in a shell and in a chat.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && !name.starts_with('-') && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("`{}` is not a valid name of a profile: write letters, digits, `-` and `_`", name.escape_debug()))
}

/// A host of printable characters only.
fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let host = String::deserialize(deserializer)?;
    let fits = |char: char| char.is_ascii_graphic() || char.is_alphanumeric();
    if !host.is_empty() && host.chars().all(fits) {
        return Ok(host);
    }
    Err(D::Error::custom(format!("`{}` is not a host: write a name or an address", host.escape_debug())))
}

/// The text of the file; empty if there is none. The file names a command that the user runs and a host that gets the
/// passphrases of the user: a file that other users can change is refused.
fn text_of(path: &Path) -> Result<String, ProfileError> {
    // Without a file, its directories need no check.
    if fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(String::new());
    }
    let text = input::read_trusted_text(path, &input::PROFILES);
    text.map_err(|error| ProfileError(format!("the file of profiles {} {error}", path.display())))
}

/// `~/.config/knocker/profiles.toml`, or the same in `$XDG_CONFIG_HOME`.
fn own_file() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = given("XDG_CONFIG_HOME").or_else(|| given("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("knocker").join("profiles.toml"))
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests;
