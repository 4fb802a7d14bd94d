//! The command line, as typed. `Plan` turns it into what is done.
//!
//! Everything that Debian's `knock` client accepts, `knock [-u] [-d ms] [-v] [-4|-6] host port[:proto]…`, is accepted here
//! with the same meaning, so that a script only changes the program's name. The one exception is deliberate: `knock`
//! takes every protocol word other than `udp` as TCP, and `1234:upd` is an error here.

use std::ffi::OsString;

use clap::{ArgGroup, Parser};

use crate::host::Family;

const STEPS: &str = "\
Steps, sent in the order given, one packet each:
  1234                 TCP: one SYN, then the socket is closed (UDP with -u)
  1234:tcp             the same, said in full
  4321:udp             UDP: a datagram of one zero byte
  4321:udp=PASSPHRASE  UDP: a datagram of exactly these bytes; `:` and `=` may be among them
  icmp                 an echo request of 84 bytes over IPv4, 104 over IPv6, as `ping` sends
  icmp=SIZE            an echo request whose whole IP packet has SIZE bytes, headers included:
                       28 to 65535 over IPv4, 48 to 65535 over IPv6. This is the length that
                       `packet-size` matches; `ping -s N` makes it N+28. Keep it below the
                       path's MTU (often 1500): a fragment does not open a door.
A port may be a service name (`ssh`, `domain:udp`). A passphrase is seen by this machine's other
users in the process list, and by everybody on the path.

Examples:
  knocker gate.example.org 7000 8000:udp 9000
  knocker -d 100 gate.example.org 1234 icmp=128 '4321:udp=open sesame'
  knocker gate.example.org 1234 4321:udp --wait-port ssh --then ssh gate.example.org

Exit codes: 0 done, 1 something failed (no such host, cannot send, port not open in time), 2 wrong usage.
With --then, the exit code is the command's own.";

/// Knocks at a door: sends each step to HOST, in order, then may wait for a port and run a command
#[derive(Debug, Parser)]
#[command(name = "knocker", version, args_override_self = true, after_help = STEPS)]
#[command(override_usage = "knocker [OPTIONS] HOST STEP... [--then CMD...]")]
#[command(group(ArgGroup::new("afterwards").multiple(true)))]
pub(crate) struct Cli {
    /// Name or address to knock at; resolved once, the resolver's first address is used
    #[arg(value_name = "HOST")]
    pub(crate) host: String,

    /// Knocks to send, see below
    #[arg(value_name = "STEP", required = true)]
    pub(crate) steps: Vec<OsString>,

    /// Send every TCP step as UDP, also those that say `:tcp`
    #[arg(short = 'u', long)]
    pub(crate) udp: bool,

    /// Milliseconds to wait between steps. Steps that follow each other at once can be swapped on the way, or be decided
    /// by workers side by side; `knock` itself waits for none
    #[arg(short = 'd', long = "delay", value_name = "MS", default_value_t = 10)]
    pub(crate) delay_ms: u32,

    /// Use IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,

    /// Say on standard error which address is used and what is sent (never a passphrase)
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,

    /// Print what would be sent, and send nothing (HOST is still looked up)
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// After the steps, connect to this TCP port of HOST until it answers; exit with 1 if it does not
    #[arg(long, value_name = "PORT", group = "afterwards")]
    pub(crate) wait_port: Option<String>,

    /// Seconds that --wait-port waits at most
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 10, requires = "wait_port")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) wait_s: u32,

    /// Milliseconds from the last step to the first try of --wait-port, or to CMD without it
    // Not zero, because packets sent back to back can overtake each other: a try that arrives before the last step is
    // a wrong knock, and a strict door starts the source over.
    #[arg(long = "grace", value_name = "MS", default_value_t = 200, requires = "afterwards")]
    pub(crate) grace_ms: u32,

    /// Run CMD once the door is open; everything after --then is CMD and its arguments, no shell
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, group = "afterwards")]
    pub(crate) then: Vec<OsString>,
}

impl Cli {
    pub(crate) fn family(&self) -> Option<Family> {
        match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        }
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
    fn options_of_knock_stand_anywhere() {
        let cli = parse("-u -d 100 gate 1234 -v 4321:udp -4 9000").unwrap();
        assert_eq!(cli.host, "gate");
        assert_eq!(strings(&cli.steps), ["1234", "4321:udp", "9000"]);
        assert!(cli.udp && cli.verbose && cli.ipv4 && !cli.ipv6);
        assert_eq!(cli.delay_ms, 100);
    }

    #[test]
    fn repeated_options_are_no_error() {
        let cli = parse("-v -v -d 1 -d 2 gate 1").unwrap();
        assert_eq!(cli.delay_ms, 2);
    }

    #[test]
    fn then_takes_everything_after_it() {
        let cli = parse("gate 1 --then ssh -v -6 --help -- --then --wait x -Vq").unwrap();
        assert_eq!(strings(&cli.then), ["ssh", "-v", "-6", "--help", "--", "--then", "--wait", "x", "-Vq"]);
        assert!(!cli.verbose && !cli.ipv6);
    }

    #[test]
    fn options_that_need_another_say_so() {
        for line in ["gate 1 --wait 3", "gate 1 --grace 3"] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{line}");
        }
        assert!(parse("gate 1 --grace 3 --wait-port 22").is_ok());
        assert!(parse("gate 1 --grace 3 --then true").is_ok());
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        for line in ["-4 -6 gate 1", "gate", "", "gate 1 --then", "gate 1 --wait-port 22 --wait 0", "-d x gate 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
