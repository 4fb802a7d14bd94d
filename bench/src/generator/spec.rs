//! Addresses, duration and rate of a run, and their form on a command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::profile::Profile;
use super::streams;

/// Way of making frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Frames from a program in the kernel, which is fastest: millions a second. The peer of a veth must run an XDP
    /// program or have GRO on. Otherwise the frames are lost.
    Live,
    /// Frames from this process, through AF_XDP. This is slower without zero-copy of the driver, and suitable for every
    /// receiver.
    Xsk,
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "live" => Ok(Mode::Live),
            "xsk" => Ok(Mode::Xsk),
            _ => bail!("there is no mode {text}, but live, xsk"),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Live => "live",
            Mode::Xsk => "xsk",
        })
    }
}

/// The frames of a run. [`Spec::new`] has a default for everything except the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Kind of frames.
    pub profile: Profile,
    /// Way of making frames.
    pub mode: Mode,
    /// Frames a second; `None` is the highest possible rate.
    pub rate: Option<u64>,
    /// Bytes of each frame, without the checksum of Ethernet. `None` is 64, or more if the headers need more.
    pub frame_bytes: Option<usize>,
    /// Maximum number of frames.
    pub count: Option<u64>,
    /// Longest duration.
    pub duration: Duration,
    /// The address of frames with one source, and the prefix of varying sources. With an IPv6 prefix shorter than /64 the
    /// networks vary, otherwise the hosts.
    pub source: IpNet,
    /// Destination address of all frames, of the same family.
    pub destination: IpAddr,
    /// Source link address.
    pub source_mac: [u8; 6],
    /// Destination link address.
    pub destination_mac: [u8; 6],
    /// Destination port of flows, and of SYNs to a closed port.
    pub port: u16,
    /// Knock ports, in order; up to four.
    pub knock_ports: Vec<u16>,
}

/// The default sources: the lower half of 198.18.0.0/15, which is reserved for measurements (RFC 2544, appendix C.2.2).
pub(crate) const SOURCE: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 1), 16));
pub(crate) const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 0, 1));
/// The default sources for IPv6, in 2001:2::/48 (RFC 5180, section 8).
pub(crate) const SOURCE6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1), 64));
pub(crate) const DESTINATION6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1));

/// The shortest and the longest frame of Ethernet, without its checksum.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 60..=1514;

impl Spec {
    /// Ten seconds of the profile over IPv4, at the highest possible rate, between addresses that are reserved for measurements.
    pub fn new(profile: Profile) -> Self {
        Spec {
            profile,
            mode: Mode::Live,
            rate: None,
            frame_bytes: None,
            count: None,
            duration: Duration::from_secs(10),
            source: SOURCE,
            destination: DESTINATION,
            // Locally administered addresses of no host, so that a host drops the frames early.
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: [2, 0, 0, 0, 0, 1],
            port: 9,
            knock_ports: vec![1234, 4321],
        }
    }

    /// Sets source and destination. A missing one gets the default of the other's family.
    #[must_use]
    pub fn between(mut self, source: Option<IpNet>, destination: Option<IpAddr>) -> Self {
        let is_ipv6 = source.map_or_else(|| destination.is_some_and(|to| to.is_ipv6()), |from| from.addr().is_ipv6());
        let (default_source, default_destination) =
            if is_ipv6 { (SOURCE6, DESTINATION6) } else { (SOURCE, DESTINATION) };
        self.source = source.unwrap_or(default_source);
        self.destination = destination.unwrap_or(default_destination);
        self
    }

    /// The bytes of each frame, if the fields are consistent.
    ///
    /// # Errors
    /// The first inconsistency.
    pub fn checked_frame_bytes(&self) -> anyhow::Result<usize> {
        let is_ipv6 = self.source.addr().is_ipv6();
        ensure!(
            is_ipv6 == self.destination.is_ipv6(),
            "{} and {} are not of one family",
            self.source.addr(),
            self.destination
        );
        ensure!(
            !self.profile.varies_source() || self.source.prefix_len() < self.source.max_prefix_len(),
            "{} varies the source: it needs a prefix, such as {SOURCE} or {SOURCE6}",
            self.profile
        );
        ensure!(self.rate != Some(0), "a rate of 0 sends nothing");
        ensure!((1..=4).contains(&self.knock_ports.len()), "one to four knock ports");
        ensure!(self.port != 0 && !self.knock_ports.contains(&0), "port 0 is no port");
        let least = (*FRAME_BYTES.start()).max(streams::shortest_frame(is_ipv6, self.profile.has_tcp()));
        let frame_bytes = self.frame_bytes.unwrap_or(64.max(least));
        ensure!(
            (least..=*FRAME_BYTES.end()).contains(&frame_bytes),
            "frames of {} have {least} to {} bytes here",
            self.profile,
            FRAME_BYTES.end()
        );
        Ok(frame_bytes)
    }
}

/// Frames a second: a number, and `k` or `M`.
///
/// # Errors
/// If it is not such a number, or 0.
pub fn parse_rate(text: &str) -> anyhow::Result<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = digits.parse::<f64>().ok().map(|number| number * unit).filter(|rate| (1.0..=1e9).contains(rate));
    rate.map(|rate| rate as u64).context("frames a second, 1 to 1000M, such as 500, 100k or 1.5M")
}

/// An address with or without a prefix length.
///
/// # Errors
/// If it is neither of these.
pub fn parse_prefix(text: &str) -> anyhow::Result<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).context("an address, or a prefix such as 198.18.0.1/16")
}

/// A link address.
///
/// # Errors
/// If it is not six bytes in hexadecimal.
pub fn parse_mac(text: &str) -> anyhow::Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() <= 2)).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).context("a link address, such as 02:00:00:00:00:01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_read() {
        for (text, rate) in [("1", 1), ("100k", 100_000), ("1.5M", 1_500_000), ("1000M", 1_000_000_000)] {
            assert_eq!(parse_rate(text).expect(text), rate);
        }
        for wrong in ["", "k", "0", "-1", "1G", "NaN", "2000M", "1 k"] {
            parse_rate(wrong).expect_err(wrong);
        }
        assert_eq!(parse_mac("02:0:aa:FF:00:1").expect("an address"), [2, 0, 0xaa, 0xff, 0, 1]);
        for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:001", "02:00:00:00:00:01:02", "0g:00:00:00:00:01"] {
            parse_mac(wrong).expect_err(wrong);
        }
        assert_eq!(parse_prefix("10.0.0.7").expect("an address").prefix_len(), 32);
        assert_eq!(parse_prefix("fd77::7/64").expect("a prefix").addr().to_string(), "fd77::7");
    }

    #[test]
    fn families_follow_the_given_address() {
        let between = |from: Option<&str>, to: Option<&str>| {
            let spec = Spec::new(Profile::Mix).between(
                from.map(|text| parse_prefix(text).expect("a prefix")),
                to.map(|text| text.parse().expect("an address")),
            );
            spec.checked_frame_bytes().map(|_| (spec.source.to_string(), spec.destination.to_string()))
        };
        assert_eq!(between(None, None).expect("IPv4").0, "198.18.0.1/16");
        assert_eq!(between(None, Some("fd77::2")).expect("IPv6").0, "2001:2::1/64");
        assert_eq!(between(Some("fd77::1/64"), None).expect("IPv6").1, "2001:2:0:1::1");
        between(Some("fd77::1/64"), Some("10.0.0.1")).expect_err("both");
        between(Some("10.0.0.1"), None).expect_err("one source, for a profile that varies it");
    }

    #[test]
    fn frames_are_as_long_as_their_headers_need() {
        let bytes = |profile, destination: &str, frame_bytes| {
            let spec = Spec { frame_bytes, ..Spec::new(profile) };
            spec.between(None, Some(destination.parse().expect("an address"))).checked_frame_bytes()
        };
        assert_eq!(bytes(Profile::Flow, "10.0.0.1", None).expect("the default"), 64);
        assert_eq!(bytes(Profile::Knock, "10.0.0.1", Some(60)).expect("the shortest"), 60);
        assert_eq!(bytes(Profile::Knock, "10.0.0.1", Some(1514)).expect("the longest"), 1514);
        assert_eq!(bytes(Profile::Flow, "fd77::1", None).expect("the default"), 64);
        assert_eq!(bytes(Profile::Mix, "fd77::1", None).expect("the shortest"), 74);
        bytes(Profile::Mix, "fd77::1", Some(73)).expect_err("shorter than its headers");
        bytes(Profile::Flow, "10.0.0.1", Some(59)).expect_err("shorter than Ethernet's");
        bytes(Profile::Flow, "10.0.0.1", Some(1515)).expect_err("longer than Ethernet's");
    }
}
