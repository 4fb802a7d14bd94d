//! Configuration: the file as it is written, and what is left of it once it has been checked.
//!
//! Unknown keys are refused. Every error names file, line, key and what to write instead. The file is shared with the
//! control process, whose section is skipped here; `configs/default.toml` is the manual.

mod metrics;
mod restart;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use knockplane_engine::state::lists::FirstStepSettings;
use knockplane_limits::input;
use knockplane_policy::door;
use knockplane_policy::settings::Settings;
use knockplane_ring::ZeroCopy;
use serde::Deserialize;
use toml::Spanned;

pub(crate) use self::metrics::{Metrics, RuleSeries};

/// The checked configuration of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where it was read.
    pub(crate) file: PathBuf,
    pub(crate) outside: String,
    pub(crate) inside: String,
    pub(crate) rules: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) socket_uids: Vec<u32>,
    pub(crate) state_dir: PathBuf,
    pub(crate) cores: Vec<usize>,
    pub(crate) busy_poll: bool,
    pub(crate) ring_size: u32,
    pub(crate) zero_copy: ZeroCopy,
    pub(crate) require: Require,
    /// Whether the interfaces may have addresses of the host, which it cannot be reached by.
    pub(crate) dedicated: bool,
    pub(crate) offloads: Offloads,
    pub(crate) list_capacity: usize,
    pub(crate) first_steps: FirstStepSettings,
    pub(crate) connection_capacity: usize,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
}

/// More connections than this are taken for a mistake: they would take some 40 GB.
const MAX_CONNECTIONS: usize = 100_000_000;

/// Bytes of an interface's name at most: `IFNAMSIZ` less the NUL at its end (netdevice(7)).
const LONGEST_INTERFACE: usize = 15;

/// Bytes of a socket's path at most: `sun_path` less the NUL at its end (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// What to do about receive offloads that are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Offloads {
    TurnOff,
    Refuse,
}

/// The slowest way of receiving that the filter may start with, the fastest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Require {
    /// Generic XDP, which every interface has.
    #[default]
    Any,
    /// Native XDP on both interfaces.
    Native,
    /// Native XDP and zero-copy on both interfaces.
    ZeroCopy,
}

/// Whether the drivers are asked for zero-copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ZeroCopyOption {
    Auto,
    Off,
    Force,
}

impl From<ZeroCopyOption> for ZeroCopy {
    fn from(option: ZeroCopyOption) -> Self {
        match option {
            ZeroCopyOption::Auto => ZeroCopy::Auto,
            ZeroCopyOption::Off => ZeroCopy::Off,
            ZeroCopyOption::Force => ZeroCopy::Force,
        }
    }
}

/// What an IPv6 source's first step is kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KeptBy {
    Address,
    Prefix,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    dataplane: Dataplane,
    #[serde(default)]
    policy: Settings,
    #[serde(default, rename = "door")]
    doors: Vec<Spanned<door::Written>>,
    #[serde(default)]
    metrics: Metrics,
    /// The control process's; it checks it.
    #[serde(default, rename = "control")]
    _control: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Dataplane {
    outside: Spanned<String>,
    inside: Spanned<String>,
    rules: PathBuf,
    #[serde(default = "default_socket")]
    socket: Spanned<PathBuf>,
    #[serde(default)]
    socket_uids: Vec<Spanned<u32>>,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    #[serde(default)]
    cores: Vec<Spanned<usize>>,
    #[serde(default)]
    busy_poll: bool,
    #[serde(default = "default_ring_size")]
    ring_size: Spanned<u32>,
    /// An older name of `zero-copy = "off"`.
    copy: Option<Spanned<bool>>,
    zero_copy: Option<ZeroCopyOption>,
    #[serde(default = "default_require")]
    require: Spanned<Require>,
    #[serde(default)]
    dedicated: bool,
    #[serde(default = "default_offloads")]
    offloads: Offloads,
    #[serde(default = "default_list_capacity")]
    list_capacity: Spanned<usize>,
    #[serde(default)]
    first_step_quota: u32,
    #[serde(default = "default_quota_prefix_v4")]
    quota_prefix_v4: Spanned<u8>,
    #[serde(default = "default_quota_prefix_v6")]
    quota_prefix_v6: Spanned<u8>,
    #[serde(default = "default_ipv6_first_steps")]
    ipv6_first_steps: KeptBy,
    #[serde(default = "default_connection_capacity")]
    connection_capacity: Spanned<usize>,
}

fn default_socket() -> Spanned<PathBuf> {
    Spanned::new(0..0, "/run/knockplane/dataplane.sock".into())
}

fn default_state_dir() -> PathBuf {
    "/var/lib/knockplane".into()
}

fn default_ring_size() -> Spanned<u32> {
    Spanned::new(0..0, 4096)
}

fn default_require() -> Spanned<Require> {
    Spanned::new(0..0, Require::Any)
}

fn default_offloads() -> Offloads {
    Offloads::TurnOff
}

fn default_quota_prefix_v4() -> Spanned<u8> {
    Spanned::new(0..0, FirstStepSettings::default().v4_length)
}

fn default_quota_prefix_v6() -> Spanned<u8> {
    Spanned::new(0..0, FirstStepSettings::default().v6_length)
}

fn default_ipv6_first_steps() -> KeptBy {
    KeptBy::Address
}

fn default_connection_capacity() -> Spanned<usize> {
    Spanned::new(0..0, 100_000)
}

fn default_list_capacity() -> Spanned<usize> {
    Spanned::new(0..0, 1_000_000)
}

/// What is wrong with the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    file: PathBuf,
    /// Line and column, counted from 1; none if the file as a whole is meant.
    place: Option<(usize, usize)>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file. Warns of one that tells everybody a passphrase.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or that others can change it.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = input::read_trusted_text(path, &input::CONFIGURATION).map_err(|error| {
            let remedy = if error.is_not_found() { "; name another one with --config" } else { "" };
            ConfigError { file: path.to_owned(), place: None, message: format!("{error}{remedy}") }
        })?;
        let config = Self::parse(path, &text)?;
        let mode = fs::metadata(path).map(|metadata| metadata.mode()).unwrap_or_default();
        if let Some(warning) = door::exposed(&config.settings.doors, path, mode) {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |span: Option<Range<usize>>, message: String| ConfigError {
            file: path.to_owned(),
            place: span.map(|span| line_and_column(text, span.start)),
            message,
        };
        let file: File = toml::from_str(text).map_err(|error| at(error.span(), in_words(&error, text)))?;
        let doors = file.doors.into_iter().map(|door| (door.span(), door.into_inner()));
        let doors = door::placed(doors).map_err(|(span, error)| at(Some(span), with_manual(&error)))?;
        let raw = file.dataplane;
        for (key, interface) in [("outside", &raw.outside), ("inside", &raw.inside)] {
            if interface.get_ref().is_empty() {
                let message = format!("`{key}` is empty; write the name of an interface (ip link)");
                return Err(at(Some(interface.span()), message));
            }
            if interface.get_ref().len() > LONGEST_INTERFACE {
                let message = format!(
                    "`{key}` has {} bytes, and no interface has a name of more than {LONGEST_INTERFACE}",
                    interface.get_ref().len()
                );
                return Err(at(Some(interface.span()), message));
            }
        }
        if raw.outside.get_ref() == raw.inside.get_ref() {
            let message = "`inside` is the same interface as `outside`; a wire has two ends".to_owned();
            return Err(at(Some(raw.inside.span()), message));
        }
        if let Some((core, span)) = first_repeated(&raw.cores) {
            let message = format!(
                "`cores` names core {core} twice; name each core once: with fewer cores than queues, workers share them in \
                 turn"
            );
            return Err(at(Some(span), message));
        }
        if let Some(uid) = raw.socket_uids.iter().find(|uid| *uid.get_ref() == u32::MAX) {
            let message = format!("`socket-uids` names {}, which is no user (chown(2))", u32::MAX);
            return Err(at(Some(uid.span()), message));
        }
        let socket = relative_to(path, raw.socket.get_ref().clone());
        if socket.as_os_str().len() > LONGEST_SOCKET || socket.file_name().is_none() {
            let message = format!(
                "`socket` is {}, of {} bytes; write the path of a file, of {LONGEST_SOCKET} bytes at most (unix(7))",
                socket.display(),
                socket.as_os_str().len()
            );
            return Err(at(Some(raw.socket.span()), message));
        }
        let ring_size = *raw.ring_size.get_ref();
        if !ring_size.is_power_of_two() || !(64..=32_768).contains(&ring_size) {
            let message =
                format!("`ring-size` is {ring_size}; it must be a power of two from 64 to 32768, for example 4096");
            return Err(at(Some(raw.ring_size.span()), message));
        }
        if *raw.list_capacity.get_ref() == 0 {
            let message = "`list-capacity` is 0; nobody could knock; write how many addresses all lists may hold";
            return Err(at(Some(raw.list_capacity.span()), message.to_owned()));
        }
        for (key, length, most, default) in
            [("quota-prefix-v4", &raw.quota_prefix_v4, 32, 24), ("quota-prefix-v6", &raw.quota_prefix_v6, 128, 64)]
        {
            if !(1..=most).contains(length.get_ref()) {
                let length_is = length.get_ref();
                let message =
                    format!("`{key}` is {length_is}; write a prefix length from 1 to {most}, such as {default}");
                return Err(at(Some(length.span()), message));
            }
        }
        let zero_copy = match (&raw.copy, raw.zero_copy) {
            (Some(copy), Some(_)) => {
                let message = "`copy` is an older name of `zero-copy = \"off\"`; leave `zero-copy` alone".to_owned();
                return Err(at(Some(copy.span()), message));
            }
            (Some(copy), None) if *copy.get_ref() => ZeroCopy::Off,
            (_, option) => option.map_or(ZeroCopy::Auto, ZeroCopy::from),
        };
        let require = *raw.require.get_ref();
        if require == Require::ZeroCopy && zero_copy == ZeroCopy::Off {
            let message = "`require` asks for zero-copy, and `zero-copy` is off; set one of them otherwise".to_owned();
            return Err(at(Some(raw.require.span()), message));
        }
        let connection_capacity = *raw.connection_capacity.get_ref();
        if !(1..=MAX_CONNECTIONS).contains(&connection_capacity) {
            let message = format!(
                "`connection-capacity` is {connection_capacity}; write how many connections may be known at once, from 1 to \
                 {MAX_CONNECTIONS}"
            );
            return Err(at(Some(raw.connection_capacity.span()), message));
        }
        Ok(Config {
            file: path.to_owned(),
            outside: raw.outside.into_inner(),
            inside: raw.inside.into_inner(),
            rules: relative_to(path, raw.rules),
            socket,
            socket_uids: raw.socket_uids.into_iter().map(Spanned::into_inner).collect(),
            state_dir: relative_to(path, raw.state_dir),
            cores: raw.cores.into_iter().map(Spanned::into_inner).collect(),
            busy_poll: raw.busy_poll,
            ring_size,
            zero_copy,
            require,
            dedicated: raw.dedicated,
            offloads: raw.offloads,
            list_capacity: raw.list_capacity.into_inner(),
            first_steps: FirstStepSettings {
                quota: raw.first_step_quota,
                v4_length: raw.quota_prefix_v4.into_inner(),
                v6_length: raw.quota_prefix_v6.into_inner(),
                v6_by_prefix: raw.ipv6_first_steps == KeptBy::Prefix,
            },
            connection_capacity,
            settings: file.policy.with_doors(doors).map_err(|error| at(None, error.to_owned()))?,
            metrics: file.metrics,
        })
    }
}

/// The first core that is named a second time, and where.
fn first_repeated(cores: &[Spanned<usize>]) -> Option<(usize, Range<usize>)> {
    let is_repeated = |(place, core): &(usize, &Spanned<usize>)| {
        cores[..*place].iter().any(|earlier| earlier.get_ref() == core.get_ref())
    };
    cores.iter().enumerate().find(is_repeated).map(|(_, core)| (*core.get_ref(), core.span()))
}

/// A path in the file that is not absolute is meant from where the file is.
fn relative_to(file: &Path, path: PathBuf) -> PathBuf {
    match file.parent() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path,
    }
}

/// The reader's message, with the key it stumbled over if it does not name it, and a remedy.
fn in_words(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim_end();
    let key = error
        .span()
        .map(|span| line_of(text, span.start))
        .and_then(|line| line.split_once('='))
        .map(|(key, _)| key.trim().trim_matches('"'))
        .filter(|key| !key.is_empty() && !message.contains(&format!("`{key}`")));
    let key = key.map(|key| format!("`{key}`: ")).unwrap_or_default();
    with_manual(&format!("{key}{message}"))
}

fn with_manual(message: &str) -> String {
    format!("{message}; configs/default.toml explains every key")
}

fn line_of(text: &str, offset: usize) -> &str {
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default()
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[dataplane]\noutside = \"eth1\"\ninside = \"eth2\"\nrules = \"rules.rsc\"\n";

    const DOOR: &str = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7\"]\n";

    fn error(text: &str) -> String {
        Config::parse(Path::new("/etc/k.toml"), text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_default_file_is_the_manual_and_states_the_defaults() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/default.toml"));
        let text = fs::read_to_string(path).expect("configs/default.toml is there");
        let written = Config::parse(path, &text).expect("configs/default.toml is valid");
        let minimal = format!(
            "[dataplane]\noutside = \"{}\"\ninside = \"{}\"\nrules = \"{}\"\n",
            written.outside,
            written.inside,
            written.rules.display()
        );
        assert_eq!(Config::parse(path, &minimal).expect("the minimal file is valid"), written);
    }

    #[test]
    fn the_door_of_the_default_file_has_every_key() {
        let text = include_str!("../../../configs/default.toml");
        let example: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != "# [[door]]")
            .take_while(|line| !line.is_empty())
            .map(|line| line.strip_prefix("# ").expect("it is a comment"))
            .collect();
        let config = Config::parse(Path::new("k.toml"), &format!("{MINIMAL}{}", example.join("\n"))).expect("a door");
        let [door] = &config.settings.doors[..] else { panic!("one door") };
        let written: toml::Table = toml::from_str::<toml::Table>(&example.join("\n")).expect("a door")["door"][0]
            .as_table()
            .expect("a door is a table")
            .clone();
        let keys = toml::Table::try_from(door).expect("a door can be written");
        assert_eq!(written.keys().collect::<Vec<_>>(), keys.keys().collect::<Vec<_>>());
        assert_eq!(written, keys, "what it says is in the form that is written");
    }

    #[test]
    fn the_older_name_of_zero_copy_is_understood() {
        let zero_copy =
            |line: &str| Config::parse(Path::new("k.toml"), &format!("{MINIMAL}{line}\n")).expect("valid").zero_copy;
        assert_eq!(zero_copy(""), ZeroCopy::Auto);
        assert_eq!(zero_copy("copy = false"), ZeroCopy::Auto);
        assert_eq!(zero_copy("copy = true"), ZeroCopy::Off);
        assert_eq!(zero_copy("zero-copy = \"off\""), ZeroCopy::Off);
        assert_eq!(zero_copy("zero-copy = \"force\""), ZeroCopy::Force);
    }

    #[test]
    fn relative_rules_are_found_beside_the_file() {
        let config = Config::parse(Path::new("/etc/knockplane/k.toml"), MINIMAL).expect("valid");
        assert_eq!(config.rules, Path::new("/etc/knockplane/rules.rsc"));
    }

    #[test]
    fn every_error_says_file_line_key_and_remedy() {
        let cases = [
            (format!("{MINIMAL}busy-pol = true\n"), "/etc/k.toml:5:1: unknown field `busy-pol`, expected one of"),
            (format!("{MINIMAL}busy-poll = 3\n"), "/etc/k.toml:5:13: `busy-poll`: invalid type: integer `3`"),
            (
                format!("{MINIMAL}ring-size = 1000\n"),
                "/etc/k.toml:5:13: `ring-size` is 1000; it must be a power of two",
            ),
            (
                format!("{MINIMAL}copy = true\nzero-copy = \"auto\"\n"),
                "/etc/k.toml:5:8: `copy` is an older name of `zero-copy = \"off\"`",
            ),
            (format!("{MINIMAL}zero-copy = \"on\"\n"), "unknown variant `on`, expected one of `auto`, `off`, `force`"),
            (
                format!("{MINIMAL}cores = [3, 1, 3]\n"),
                "/etc/k.toml:5:16: `cores` names core 3 twice; name each core once",
            ),
            (format!("{MINIMAL}socket-uids = [0, 4294967295]\n"), "/etc/k.toml:5:19: `socket-uids` names 4294967295"),
            (format!("{MINIMAL}socket = \"/{}\"\n", "s".repeat(107)), "/etc/k.toml:5:10: `socket` is /sss"),
            (
                format!("{MINIMAL}socket = \"..\"\n"),
                "/etc/k.toml:5:10: `socket` is /etc/.., of 7 bytes; write the path",
            ),
            (MINIMAL.replace("eth1", "wan-interface-of-the-site"), "/etc/k.toml:2:11: `outside` has 25 bytes"),
            (
                format!("{MINIMAL}zero-copy = \"off\"\nrequire = \"zero-copy\"\n"),
                "/etc/k.toml:6:11: `require` asks for zero-copy, and `zero-copy` is off",
            ),
            (
                format!("{MINIMAL}require = \"generic\"\n"),
                "unknown variant `generic`, expected one of `any`, `native`, `zero-copy`",
            ),
            (format!("{MINIMAL}list-capacity = 0\n"), "/etc/k.toml:5:17: `list-capacity` is 0"),
            (
                format!("{MINIMAL}quota-prefix-v4 = 33\n"),
                "/etc/k.toml:5:19: `quota-prefix-v4` is 33; write a prefix length from 1 to 32, such as 24",
            ),
            (format!("{MINIMAL}ipv6-first-steps = \"net\"\n"), "unknown variant `net`, expected `address` or `prefix`"),
            (MINIMAL.replace("eth2", "eth1"), "/etc/k.toml:3:10: `inside` is the same interface"),
            (MINIMAL.replace("inside = \"eth2\"\n", ""), "missing field `inside`"),
            (format!("{MINIMAL}[policy]\nprotect = [\"10.0.0.0/33\"]\n"), "/etc/k.toml:6:12: `protect`: invalid"),
            (format!("{MINIMAL}[polcy]\n"), "/etc/k.toml:5:2: unknown field `polcy`"),
            (
                format!("{MINIMAL}[[door]]\nname = \"ssh\"\nknock = [\"tcp/7-9\"]\n"),
                "/etc/k.toml:5:1: door `ssh`: `knock`: step 1: `7-9` is not a port",
            ),
            (
                format!("{MINIMAL}{DOOR}{}", DOOR.replace("/7", "/x").replace("ssh", "b")),
                "/etc/k.toml:8:1: door `b`: `knock`: step 1: `x` is not a port",
            ),
            (format!("{MINIMAL}{DOOR}\n{DOOR}"), "/etc/k.toml:9:1: door `ssh`: `name`: there are two"),
            (format!("{MINIMAL}[[policy.doors]]\nname = \"a\"\nknock = [\"tcp/7\"]\n"), "no key of [policy]"),
            (
                format!("{MINIMAL}[policy.frames]\narp = \"pass\"\n"),
                "unknown variant `pass`, expected `accept` or `drop`",
            ),
            (
                format!("{MINIMAL}[metrics]\nrules = \"some\"\n"),
                "/etc/k.toml:6:9: `rules`: `some` is no choice of rules",
            ),
            (
                format!("{MINIMAL}[metrics]\nrules = [\"port=7\"]\n"),
                "/etc/k.toml:6:9: `rules`: `port=7` chooses no rules",
            ),
        ];
        for (text, expected) in cases {
            let error = error(&text);
            assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        }
    }

    #[test]
    fn first_steps_are_kept_as_the_file_says() {
        let text = format!(
            "{MINIMAL}first-step-quota = 9\nquota-prefix-v4 = 16\nquota-prefix-v6 = 48\nipv6-first-steps = \"prefix\"\n"
        );
        let config = Config::parse(Path::new("k"), &text).expect("valid");
        assert_eq!(
            config.first_steps,
            FirstStepSettings { quota: 9, v4_length: 16, v6_length: 48, v6_by_prefix: true }
        );
    }

    #[test]
    fn control_section_is_left_to_control() {
        assert!(Config::parse(Path::new("k"), &format!("{MINIMAL}[control]\nlisten = 7\n")).is_ok());
    }
}
