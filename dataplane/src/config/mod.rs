//! The configuration: read from its file, and checked.
//!
//! Unknown keys are refused. Every error contains the file, the line, the key and the remedy. The control process uses
//! the same file; this module skips its section. `configs/default.toml` is the manual.

mod error;
mod file;
mod metrics;
mod restart;

use std::fs;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use knockplane_engine::state::lists::FirstStepSettings;
use knockplane_limits::input;
use knockplane_policy::door;
use knockplane_policy::settings::Settings;
use knockplane_ring::ZeroCopy;
use serde::Deserialize;
use toml::Spanned;

pub(crate) use self::error::ConfigError;
use self::error::{in_words, line_and_column, with_manual};
use self::file::{ConfigFile, FastPathOption, KeptBy};
pub(crate) use self::metrics::{MetricsConfig, RuleSeries};

/// The checked configuration of the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The path of the file.
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
    /// Whether the interfaces may have addresses of the host. The host cannot be reached by these addresses.
    pub(crate) dedicated: bool,
    pub(crate) offloads: Offloads,
    pub(crate) list_capacity: usize,
    pub(crate) first_steps: FirstStepSettings,
    pub(crate) connection_capacity: usize,
    /// The number of flows of each family that the kernel may carry; `None` if it carries none.
    pub(crate) fast_path_flows: Option<usize>,
    pub(crate) settings: Settings,
    pub(crate) metrics: MetricsConfig,
}

/// A larger number of connections is refused as a mistake: it would take some 40 GB.
const MAX_CONNECTIONS: usize = 100_000_000;

/// The number of flows of each family that the kernel may carry: at most 3 GiB for both.
const FAST_PATH_FLOWS: RangeInclusive<usize> = 1024..=1 << 24;

/// Maximum number of bytes of an interface's name: `IFNAMSIZ` less the NUL at its end (netdevice(7)).
const LONGEST_INTERFACE: usize = 15;

/// Maximum number of bytes of a socket's path: `sun_path` less the NUL at its end (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The treatment of receive offloads that are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Offloads {
    TurnOff,
    Refuse,
}

/// The slowest receive mode with which the filter may start; the fastest is last.
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

impl Config {
    /// Reads and checks a file. Warns about a file with a passphrase that all users can read.
    ///
    /// # Errors
    /// The first error in the file, or that other users can change it.
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
        let file: ConfigFile = toml::from_str(text).map_err(|error| at(error.span(), in_words(&error, text)))?;
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
            let message =
                "`list-capacity` is 0, so no source could knock; write the number of addresses that all lists may hold";
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
        let fast_path_flows = *raw.fast_path_flows.get_ref();
        if !FAST_PATH_FLOWS.contains(&fast_path_flows) {
            let (least, most) = FAST_PATH_FLOWS.into_inner();
            let message = format!(
                "`fast-path-flows` is {fast_path_flows}; write how many flows the kernel may carry, from {least} to {most}, or \
                 set fast-path = \"off\""
            );
            return Err(at(Some(raw.fast_path_flows.span()), message));
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
            fast_path_flows: (raw.fast_path == FastPathOption::Auto).then_some(fast_path_flows),
            settings: file.policy.with_doors(doors).map_err(|error| at(None, error.to_owned()))?,
            metrics: file.metrics,
        })
    }
}

/// The first core that occurs a second time, and its position.
fn first_repeated(cores: &[Spanned<usize>]) -> Option<(usize, Range<usize>)> {
    let is_repeated = |(place, core): &(usize, &Spanned<usize>)| {
        cores[..*place].iter().any(|earlier| earlier.get_ref() == core.get_ref())
    };
    cores.iter().enumerate().find(is_repeated).map(|(_, core)| (*core.get_ref(), core.span()))
}

/// Resolves a path that is not absolute relative to the folder of the file.
fn relative_to(file: &Path, path: PathBuf) -> PathBuf {
    match file.parent() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path,
    }
}

#[cfg(test)]
mod tests;
