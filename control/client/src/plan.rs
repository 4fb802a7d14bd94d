//! The checked command line: the steps to send, the port to wait for and the command to run.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cli::Cli;
use crate::services::Services;
use crate::step::{self, KNOCK_PAYLOAD, KnockStep};
use crate::transport::Transport;

/// The command line is invalid: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The default of `--delay`.
const DEFAULT_DELAY_MS: u32 = 10;

/// All actions of the program, except for the address.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<KnockStep>,
    /// Pause between two steps.
    pub(crate) delay: Duration,
    /// Pause between the last step and the wait for the port, or the command.
    pub(crate) grace: Duration,
    pub(crate) wait_port: Option<u16>,
    /// Time limit of the wait for `wait_port`.
    pub(crate) wait: Duration,
    /// Program and arguments; empty if no command is to run.
    pub(crate) command: Vec<OsString>,
    /// Warnings about valid parts that are probably not intended.
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// Checks the whole command line, and reports all of its faults. `arguments` are its steps with their passphrases.
    pub(crate) fn new(cli: &Cli, arguments: &[Vec<u8>]) -> Result<Self, UsageError> {
        let services = Services::default();
        let unnamed = if cli.udp { Transport::Udp } else { Transport::Tcp };
        let mut faults = Vec::new();

        let mut steps = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.iter().enumerate() {
            match KnockStep::parse(argument, unnamed, &services) {
                Ok(step) => steps.push(step),
                Err(fault) => faults.push(format!("step {}: {fault}", index + 1)),
            }
        }
        let wait_port = cli.wait_port.as_deref().and_then(|text| {
            step::parse_port(text, Transport::Tcp, &services)
                .map_err(|problem| faults.push(format!("--wait-port: {problem}\n    {}", problem.expected())))
                .ok()
        });
        if !cli.rest.is_empty() && cli.then.is_empty() {
            faults.push(
                "the words after `--` are arguments of the profile's command, and the profile has none: give a command with --then".to_owned(),
            );
        }
        if !faults.is_empty() {
            return Err(UsageError(faults.join("\nerror: ")));
        }

        let warnings = if cli.udp { send_over_udp(&mut steps) } else { Vec::new() };
        Ok(Self {
            steps,
            delay: Duration::from_millis(cli.delay_ms.unwrap_or(DEFAULT_DELAY_MS).into()),
            grace: Duration::from_millis(cli.grace_ms.into()),
            wait_port,
            wait: Duration::from_secs(cli.wait_s.into()),
            command: cli.then.clone(),
            warnings,
        })
    }

    /// Checks the conditions that depend on the address family: the smallest size of an echo request.
    pub(crate) fn check_families(&self, doors: &[SocketAddr]) -> Result<(), UsageError> {
        for (door, (index, step)) in
            doors.iter().flat_map(|door| self.steps.iter().enumerate().map(move |step| (door, step)))
        {
            if let KnockStep::Echo { packet_len: Some(packet_len) } = step
                && step::echo_payload_len(Some(*packet_len), *door).is_none()
            {
                return Err(UsageError(format!(
                    "step {}: an echo request cannot have {packet_len} bytes over IPv6\n    \
                     {} is an IPv6 address, where the minimum is {} (headers of 40 + 8 bytes); or use -4",
                    index + 1,
                    door.ip(),
                    step::echo_overhead_len(*door),
                )));
            }
        }
        Ok(())
    }

    /// Whether a wait for a port or a command follows the steps.
    pub(crate) fn waits(&self) -> bool {
        self.wait_port.is_some() || !self.command.is_empty()
    }

    /// A description of the actions of the program, one action in each line.
    pub(crate) fn describe(&self, doors: &[SocketAddr]) -> String {
        let addresses: Vec<_> = doors.iter().map(|door| door.ip().to_string()).collect();
        let mut text = format!("to {}, {} ms between steps\n", addresses.join(" and "), self.delay.as_millis());
        for (index, step) in self.steps.iter().enumerate() {
            // An echo request without a size is longer over IPv6.
            let mut words: Vec<_> = doors.iter().map(|door| step.describe(*door)).collect();
            words.dedup();
            let _ = writeln!(text, "step {}: {}", index + 1, words.join("; "));
        }
        if self.waits() {
            let _ = writeln!(text, "then wait {} ms", self.grace.as_millis());
        }
        if let Some(port) = self.wait_port {
            let _ = writeln!(text, "then wait until tcp {port} answers, at most {} s", self.wait.as_secs());
        }
        if !self.command.is_empty() {
            let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
            let _ = writeln!(text, "then run: {}", words.join(" "));
        }
        text
    }
}

/// Turns the TCP steps into UDP steps, with a warning for each. `knock -u` does so even for steps with `:tcp`.
fn send_over_udp(steps: &mut [KnockStep]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, step) in steps.iter_mut().enumerate() {
        if let KnockStep::Tcp { port } = *step {
            warnings.push(format!("step {}: {port}:tcp is sent over UDP, because of -u", index + 1));
            *step = KnockStep::Udp { port, payload: KNOCK_PAYLOAD.to_vec() };
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(line: &str) -> Result<Plan, UsageError> {
        let cli = Cli::parse_from(std::iter::once("knocker").chain(line.split_whitespace()));
        Plan::new(&cli, &cli.arguments())
    }

    #[test]
    fn every_fault_is_reported() {
        let text = plan("gate 1:x 2 3:tcp=y --wait-port 0").unwrap_err().to_string();
        for part in ["step 1: unknown protocol", "step 3: a TCP step", "--wait-port: `0` is not a port"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn u_applies_to_all_steps() {
        let plan = plan("-u gate 1 2:tcp 3:udp=word icmp").unwrap();
        let datagram = |port, payload: &[u8]| KnockStep::Udp { port, payload: payload.to_vec() };
        assert_eq!(
            plan.steps,
            [datagram(1, &[0]), datagram(2, &[0]), datagram(3, b"word"), KnockStep::Echo { packet_len: None }]
        );
        assert_eq!(plan.warnings, ["step 2: 2:tcp is sent over UDP, because of -u"]);
    }

    #[test]
    fn small_echo_requests_fit_ipv4_only() {
        let plan = plan("gate icmp=28").unwrap();
        let (v4, v6) = ("192.0.2.1:0".parse().unwrap(), "[2001:db8::1]:0".parse().unwrap());
        assert!(plan.check_families(&[v4]).is_ok());
        let error = plan.check_families(&[v4, v6]).unwrap_err();
        assert!(error.to_string().contains("minimum is 48"), "{error}");
    }

    #[test]
    fn the_description_has_everything_but_the_passphrase() {
        let plan = plan("-d 5 gate 1 2:udp 3:udp=secret icmp=100 --wait-port 22 --wait 3 --then ssh gate").unwrap();
        assert_eq!(
            plan.describe(&["192.0.2.1:0".parse().unwrap()]),
            "to 192.0.2.1, 5 ms between steps\n\
             step 1: tcp 1, a SYN\n\
             step 2: udp 2, a datagram of one zero byte\n\
             step 3: udp 3, a passphrase of 6 bytes\n\
             step 4: icmp, an echo request in an IP packet of 100 bytes\n\
             then wait 200 ms\n\
             then wait until tcp 22 answers, at most 3 s\n\
             then run: ssh gate\n"
        );
    }
}
