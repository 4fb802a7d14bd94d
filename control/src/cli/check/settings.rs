//! The settings for the check of files: those of a configuration, overridden by those of the command line.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use knockplane_policy::door;
use knockplane_policy::settings::Settings;

use super::super::Failed;
use super::super::sources::settings_of;
use crate::Exit;

/// The options that override the settings of the configuration.
#[derive(Debug, Default, Args)]
pub(super) struct Given {
    /// Configuration file, of which [policy] and the doors are read; the defaults without one. `knockctl doctor` checks the rest
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// Interfaces and interface lists of the rules that are the outside, besides those of the configuration
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    outside: Vec<String>,
    /// Interfaces and interface lists of the rules that are the inside, besides those of the configuration
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    inside: Vec<String>,
    /// Interfaces and interface lists of the rules that are neither, such as tunnels that end at the router: a rule that
    /// asks for one never matches
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    elsewhere: Vec<String>,
    /// The addresses behind the filter, in place of those of the configuration
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', value_parser = prefix)]
    protect: Vec<IpNet>,
}

impl Given {
    /// A warning if all users can read a passphrase in the configuration.
    pub(super) fn warning(&self, settings: &Settings) -> Option<String> {
        let file = self.config.as_ref()?;
        door::exposed(&settings.doors, file, fs::metadata(file).ok()?.mode())
    }

    pub(super) fn settings(&self) -> Result<Settings, Failed> {
        let mut settings = settings_of(self.config.as_deref())?;
        let sides = &mut settings.interfaces;
        let given = [&self.outside, &self.inside, &self.elsewhere];
        if let Some(name) = self.elsewhere.iter().find(|name| self.outside.contains(name) || self.inside.contains(name))
        {
            let message = format!("`{name}` cannot be both `--elsewhere` and on a side: `--elsewhere` means neither");
            return Err(Failed::new(Exit::Usage, message));
        }
        // An interface that is assigned again loses its old role.
        for names in [&mut sides.outside, &mut sides.inside, &mut sides.elsewhere] {
            names.retain(|name| !given.iter().any(|given| given.contains(name)));
        }
        sides.outside.extend(self.outside.iter().cloned());
        sides.inside.extend(self.inside.iter().cloned());
        sides.elsewhere.extend(self.elsewhere.iter().cloned());
        if !self.protect.is_empty() {
            settings.protect.clone_from(&self.protect);
        }
        Ok(settings)
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("`{text}` is no prefix: write one as `203.0.113.0/24`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_adds_names_and_replaces_prefixes() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let given = Given {
            outside: names(&["ether1", "both"]),
            inside: names(&["outside", "both"]),
            elsewhere: names(&["inside"]),
            protect: vec![prefix("192.0.2.1").unwrap()],
            ..Given::default()
        };
        let settings = given.settings().unwrap();
        assert_eq!(settings.interfaces.outside, ["ether1", "both"]);
        assert_eq!(settings.interfaces.inside, ["outside", "both"]);
        assert_eq!(settings.interfaces.elsewhere, ["inside"]);
        let twice = Given { outside: names(&["wg0"]), elsewhere: names(&["wg0"]), ..Given::default() };
        assert_eq!(twice.settings().unwrap_err().exit, Exit::Usage);
        assert_eq!(settings.protect, ["192.0.2.1/32".parse().unwrap()]);
        assert_eq!(Given::default().settings().unwrap(), Settings::default());
        assert!(prefix("192.0.2.0/33").is_err() && prefix("ether1").is_err());
    }
}
