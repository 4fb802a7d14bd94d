//! The command line as typed. `Plan` is its checked form.
//!
//! This program accepts every command line of Debian's `knock` client, `knock [-u] [-d ms] [-v] [-4|-6] host port[:proto]…`,
//! with the same meaning, so that a script needs only another program name. There is one exception: `knock` treats every
//! protocol word other than `udp` as TCP, and `1234:upd` is an error here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};

use crate::host::{Families, Family};
use crate::profiles::Profile;

const STEPS: &str = "\
Steps, sent in the order given, one packet each:
  1234                 TCP: one SYN, then the socket is closed (UDP with -u)
  1234:tcp             the same, with its protocol
  4321:udp             UDP: a datagram of one zero byte
  4321:udp=PASSPHRASE  UDP: a datagram of exactly these bytes, which may include `:` and `=`
  icmp                 an echo request of 84 bytes over IPv4, 104 over IPv6, as `ping` sends
  icmp=SIZE            an echo request whose whole IP packet has SIZE bytes, headers included:
                       28 to 65535 over IPv4, 48 to 65535 over IPv6. This is the length that
                       `packet-size` matches; `ping -s N` makes it N+28. Keep it below the
                       path's MTU (often 1500): a fragment does not open a door.
  4321:udp=            with --passphrase-stdin: its passphrase is the next line of standard input
A port may be a service name (`ssh`, `domain:udp`). Other users of this machine can read a passphrase
from the command line in the process list, but not a passphrase from a profile or from
--passphrase-stdin. Every machine on the network path can read both.

Profiles: `knocker NAME` knocks as the section [NAME] of ~/.config/knocker/profiles.toml says:
  [ssh-home]
  host = \"gate.example.org\"
  steps = [\"1234\", \"4321:udp=open sesame\"]  # as above, or as in the server's [[door]]
  delay = \"10ms\"                             # this key and those below are optional
  wait-port = \"22\"
  then = \"ssh gate.example.org\"
  both = true                                # like --both
Options on the command line override the profile. Words after `--` are added to the command.
The file is refused if other users can write to it or to a directory of its path: it names a command.

Examples:
  knocker gate.example.org 7000 8000:udp 9000
  knocker -d 100 gate.example.org 1234 icmp=128 '4321:udp=open sesame'
  knocker gate.example.org 1234 4321:udp --wait-port ssh --then ssh gate.example.org
  knocker ssh-home -- -L 8080:localhost:80

Exit codes: 0 done, 1 failed (no such host, cannot send, port not open in time), 2 invalid command line or
profile. With --then, the exit code is that of the command.";

/// Knock at a door: send each step to HOST in order, then optionally wait for a port and run a command
#[derive(Debug, Parser)]
#[command(name = "knocker", version, args_override_self = true, after_help = STEPS)]
#[command(
    override_usage = "knocker [OPTIONS] HOST STEP... [--then CMD...]\n       knocker [OPTIONS] PROFILE [-- ARGUMENT...]\n       knocker --list | --share PROFILE | --add LINE"
)]
#[command(group(ArgGroup::new("afterwards").multiple(true)))]
#[command(group(ArgGroup::new("instead").args(["list", "share", "add"])))]
pub(crate) struct Cli {
    /// Host name or address; a name is resolved once, and the first address is used. Without STEPs, the name of a profile
    #[arg(value_name = "HOST", required_unless_present_any = ["instead", "rest"], conflicts_with = "instead")]
    pub(crate) host: Option<String>,

    /// Steps to send, see below
    #[arg(value_name = "STEP")]
    pub(crate) steps: Vec<OsString>,

    /// Words after `--`: STEPs, or arguments of the command of a profile
    #[arg(last = true, hide = true, conflicts_with = "instead")]
    pub(crate) rest: Vec<OsString>,

    /// Send every TCP step as UDP, including steps with `:tcp`
    #[arg(short = 'u', long)]
    pub(crate) udp: bool,

    /// Milliseconds between steps. Without a pause, steps can arrive in another order, or two workers can decide them at the
    /// same time; `knock` itself makes no pause [default: 10]
    #[arg(short = 'd', long = "delay", value_name = "MS")]
    pub(crate) delay_ms: Option<u32>,

    /// Use IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,

    /// Send each step over IPv4 and over IPv6, if HOST has addresses of both families: a later connection may use either. The
    /// knock succeeds if the whole sequence was sent over one of them
    #[arg(long, conflicts_with_all = ["ipv4", "ipv6"])]
    pub(crate) both: bool,

    /// Read the passphrases of steps that end in `=` from standard input, one line each, so that they appear neither in the
    /// process list nor in the history of the shell. On a terminal, prompt for them without echo
    #[arg(long)]
    pub(crate) passphrase_stdin: bool,

    /// Print the address and each step to standard error (never a passphrase)
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,

    /// Print what would be sent, and send nothing (HOST is still resolved)
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// After the steps, try to connect to this TCP port of HOST until it answers; exit with 1 if it does not
    #[arg(long, value_name = "PORT", group = "afterwards")]
    pub(crate) wait_port: Option<String>,

    /// Time limit of --wait-port in seconds
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 10, requires = "wait_port")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) wait_s: u32,

    /// Milliseconds between the last step and the first attempt of --wait-port, or CMD without it
    // Not zero, because packets sent back to back can overtake each other: an attempt that arrives before the last step is a
    // wrong knock, and a strict door resets the progress of the source.
    #[arg(long = "grace", value_name = "MS", default_value_t = 200, requires = "afterwards")]
    pub(crate) grace_ms: u32,

    /// Run CMD once the door is open; all words after --then are CMD and its arguments, without a shell
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, group = "afterwards")]
    pub(crate) then: Vec<OsString>,

    /// File of profiles, instead of ~/.config/knocker/profiles.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,

    /// Print the names of all profiles
    #[arg(long)]
    pub(crate) list: bool,

    /// Print a profile as one line, which another user can --add. It has all steps with their passphrases, but no CMD
    #[arg(long, value_name = "PROFILE")]
    pub(crate) share: Option<String>,

    /// Add a shared profile to the file. With `-`, read the line from standard input, so that it appears neither in the process
    /// list nor in the history of the shell
    #[arg(long, value_name = "LINE")]
    pub(crate) add: Option<String>,
}

/// The target of a knock as the command line names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `HOST STEP…`.
    Host,
    /// One word: the name of a profile.
    Profile(String),
}

impl Cli {
    /// Whether the command line names a host or a profile. Moves the words after `--` to the steps if it names a host:
    /// `knocker gate -- 1234` is a host with steps, as for `knock`, unless `gate` is a profile.
    pub(crate) fn target(&mut self, is_profile: impl FnOnce(&str) -> bool) -> Target {
        if self.host.is_none() && !self.rest.is_empty() {
            self.host = Some(self.rest.remove(0).to_string_lossy().into_owned());
        }
        let host = self.host.clone().unwrap_or_default();
        if self.steps.is_empty() && (self.rest.is_empty() || is_profile(&host)) {
            return Target::Profile(host);
        }
        self.steps.append(&mut self.rest);
        Target::Host
    }

    /// Sets the options that the command line omits from the profile.
    pub(crate) fn fill(&mut self, profile: &Profile) {
        self.host = Some(profile.host.clone());
        self.steps = profile.steps.iter().map(OsString::from).collect();
        self.delay_ms = self.delay_ms.or(profile.delay.map(|delay| delay.0));
        self.wait_port = self.wait_port.take().or_else(|| profile.wait_port.clone());
        if self.then.is_empty() {
            self.then = profile.then.as_ref().map(|then| then.words()).unwrap_or_default();
        }
        if !self.then.is_empty() {
            self.then.append(&mut self.rest);
        }
        self.both |= profile.both && !self.ipv4 && !self.ipv6;
    }

    pub(crate) fn families(&self) -> Families {
        match (self.both, self.ipv4, self.ipv6) {
            (true, _, _) => Families::Both,
            (_, true, _) => Families::Only(Family::V4),
            (_, _, true) => Families::Only(Family::V6),
            _ => Families::First,
        }
    }

    /// The steps as they were given, as bytes.
    pub(crate) fn arguments(&self) -> Vec<Vec<u8>> {
        self.steps.iter().map(|step| step.as_encoded_bytes().to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("knocker").chain(line.split_whitespace()))
    }

    fn strings(values: &[OsString]) -> Vec<&str> {
        values.iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_knock_may_be_anywhere() {
        let cli = parse("-u -d 100 gate 1234 -v 4321:udp -4 9000").unwrap();
        assert_eq!(cli.host.as_deref(), Some("gate"));
        assert_eq!(strings(&cli.steps), ["1234", "4321:udp", "9000"]);
        assert!(cli.udp && cli.verbose && cli.ipv4 && !cli.ipv6);
        assert_eq!(cli.delay_ms, Some(100));
    }

    #[test]
    fn a_repeated_option_overrides_the_first() {
        let cli = parse("-v -v -d 1 -d 2 gate 1").unwrap();
        assert_eq!(cli.delay_ms, Some(2));
    }

    #[test]
    fn then_takes_everything_after_it() {
        let cli = parse("gate 1 --then ssh -v -6 --help -- --then --wait x -Vq").unwrap();
        assert_eq!(strings(&cli.then), ["ssh", "-v", "-6", "--help", "--", "--then", "--wait", "x", "-Vq"]);
        assert!(!cli.verbose && !cli.ipv6);
    }

    #[test]
    fn options_that_require_another_are_refused_alone() {
        for line in ["gate 1 --wait 3", "gate 1 --grace 3"] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{line}");
        }
        assert!(parse("gate 1 --grace 3 --wait-port 22").is_ok());
        assert!(parse("gate 1 --grace 3 --then true").is_ok());
    }

    #[test]
    fn one_word_is_a_profile_and_several_are_a_host_with_steps() {
        let target = |line: &str, profiles: &[&str]| {
            let mut cli = parse(line).unwrap();
            let target = cli.target(|name| profiles.contains(&name));
            (target, cli)
        };
        let profile = |name: &str| Target::Profile(name.to_owned());
        assert_eq!(target("home", &[]).0, profile("home"));
        assert_eq!(target("home 1", &["home"]).0, Target::Host);
        assert_eq!(target("home -- -v", &["home"]).0, profile("home"));
        for line in ["gate 1 2", "gate -- 1 2", "gate 1 -- 2", "-- gate 1 2"] {
            let (target, cli) = target(line, &["home"]);
            assert_eq!((target, cli.host.as_deref()), (Target::Host, Some("gate")), "{line}");
            assert_eq!(strings(&cli.steps), ["1", "2"], "{line}");
        }
    }

    #[test]
    fn the_command_line_overrides_the_profile() {
        let profile: Profile = toml::from_str(
            "host = 'gate'\nsteps = ['1', '2:udp']\ndelay = '1s'\nwait-port = 'ssh'\nthen = 'ssh gate'\n",
        )
        .unwrap();
        let filled = |line: &str| {
            let mut cli = parse(line).unwrap();
            cli.fill(&profile);
            cli
        };
        let cli = filled("home -- -v x");
        assert_eq!(
            (cli.host.as_deref(), cli.delay_ms, cli.wait_port.as_deref()),
            (Some("gate"), Some(1000), Some("ssh"))
        );
        assert_eq!((strings(&cli.steps), strings(&cli.then)), (vec!["1", "2:udp"], vec!["ssh", "gate", "-v", "x"]));
        let cli = filled("home -d 5 --wait-port 80 --then curl gate");
        assert_eq!((cli.delay_ms, cli.wait_port.as_deref()), (Some(5), Some("80")));
        assert_eq!(strings(&cli.then), ["curl", "gate"]);
    }

    #[test]
    fn a_family_on_the_command_line_overrides_both_of_a_profile() {
        let profile: Profile = toml::from_str("host = 'gate'\nsteps = ['1']\nboth = true\n").unwrap();
        for (line, families) in [
            ("home", Families::Both),
            ("home --both", Families::Both),
            ("home -4", Families::Only(Family::V4)),
            ("home -6", Families::Only(Family::V6)),
        ] {
            let mut cli = parse(line).unwrap();
            cli.fill(&profile);
            assert_eq!(cli.families(), families, "{line}");
        }
    }

    #[test]
    fn contradictory_and_incomplete_command_lines_are_refused() {
        for line in [
            "-4 -6 gate 1",
            "--both -4 gate 1",
            "--both -6 gate 1",
            "",
            "--list gate",
            "--list --share a",
            "--add x -- 1",
            "gate 1 --then",
            "gate 1 --wait-port 22 --wait 0",
            "-d x gate 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
