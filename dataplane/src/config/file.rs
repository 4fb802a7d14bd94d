//! The configuration file in its written form, with its defaults. Unknown keys are refused.

use std::path::PathBuf;

use knockplane_engine::state::lists::FirstStepSettings;
use knockplane_policy::door;
use knockplane_policy::settings::Settings;
use knockplane_ring::ZeroCopy;
use serde::Deserialize;
use toml::Spanned;

use super::{MetricsConfig, Offloads, Require};

/// Whether the filter requests zero-copy from the drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ZeroCopyOption {
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

/// Whether the kernel carries flows that are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FastPathOption {
    Auto,
    Off,
}

/// The key of the first step of an IPv6 source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KeptBy {
    Address,
    Prefix,
}

/// The file in its written form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ConfigFile {
    pub(super) dataplane: DataplaneSection,
    #[serde(default)]
    pub(super) policy: Settings,
    #[serde(default, rename = "door")]
    pub(super) doors: Vec<Spanned<door::Written>>,
    #[serde(default)]
    pub(super) metrics: MetricsConfig,
    /// The section of the control process, which checks it.
    #[serde(default, rename = "control")]
    _control: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DataplaneSection {
    pub(super) outside: Spanned<String>,
    pub(super) inside: Spanned<String>,
    pub(super) rules: PathBuf,
    #[serde(default = "default_socket")]
    pub(super) socket: Spanned<PathBuf>,
    #[serde(default)]
    pub(super) socket_uids: Vec<Spanned<u32>>,
    #[serde(default = "default_state_dir")]
    pub(super) state_dir: PathBuf,
    #[serde(default)]
    pub(super) cores: Vec<Spanned<usize>>,
    #[serde(default)]
    pub(super) busy_poll: bool,
    #[serde(default = "default_ring_size")]
    pub(super) ring_size: Spanned<u32>,
    /// An older name of `zero-copy = "off"`.
    pub(super) copy: Option<Spanned<bool>>,
    pub(super) zero_copy: Option<ZeroCopyOption>,
    #[serde(default = "default_require")]
    pub(super) require: Spanned<Require>,
    #[serde(default)]
    pub(super) dedicated: bool,
    #[serde(default = "default_offloads")]
    pub(super) offloads: Offloads,
    #[serde(default = "default_list_capacity")]
    pub(super) list_capacity: Spanned<usize>,
    #[serde(default)]
    pub(super) first_step_quota: u32,
    #[serde(default = "default_quota_prefix_v4")]
    pub(super) quota_prefix_v4: Spanned<u8>,
    #[serde(default = "default_quota_prefix_v6")]
    pub(super) quota_prefix_v6: Spanned<u8>,
    #[serde(default = "default_ipv6_first_steps")]
    pub(super) ipv6_first_steps: KeptBy,
    #[serde(default = "default_connection_capacity")]
    pub(super) connection_capacity: Spanned<usize>,
    #[serde(default = "default_fast_path")]
    pub(super) fast_path: FastPathOption,
    #[serde(default = "default_fast_path_flows")]
    pub(super) fast_path_flows: Spanned<usize>,
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

fn default_fast_path() -> FastPathOption {
    FastPathOption::Auto
}

fn default_fast_path_flows() -> Spanned<usize> {
    // 8 MiB for IPv4 and 16 MiB for IPv6.
    Spanned::new(0..0, 131_072)
}

fn default_connection_capacity() -> Spanned<usize> {
    Spanned::new(0..0, 100_000)
}

fn default_list_capacity() -> Spanned<usize> {
    Spanned::new(0..0, 1_000_000)
}
