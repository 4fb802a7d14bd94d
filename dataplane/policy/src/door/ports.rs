//! The port budget: the filter ignores the knocks of a source that tries too many different ports, because such a
//! source scans.
//!
//! A keyed hash maps ports to the bits of a bitmap, so that a flood needs no further memory. Two ports may share a bit,
//! so a source may reach the limit a few ports late, but never early. So it may if the kernel drops the first frames of a
//! stranger: `dataplane/src/fast_path/strangers.rs`.
//!
//! The filter ignores only knocks. An existing grant of the source remains, so a forged scan cannot lock out a client.

use std::hash::Hasher as _;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use siphasher::sip::SipHasher13;

use crate::packet::Packet;
use crate::time::{self, Time};

/// The maximum budget. Above it, too many ports share bits.
const MOST_PORTS: u8 = 100;

/// The section `[policy.port-budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortBudget {
    /// Maximum number of different TCP or UDP ports of protected addresses that a source may try; 0 for no limit.
    #[serde(deserialize_with = "ports")]
    pub ports: u8,
    /// The time for this number of ports. It begins with the first port.
    #[serde(with = "time::text")]
    pub within: Duration,
    /// The time for which knocks are then ignored.
    #[serde(with = "time::text")]
    pub ignore_for: Duration,
}

impl Default for PortBudget {
    /// The default is more than the ports of the longest knock and a second attempt, and far less than the ports of a
    /// scan.
    fn default() -> Self {
        PortBudget { ports: 32, within: Duration::from_secs(10), ignore_for: Duration::from_secs(60) }
    }
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let ports = u64::deserialize(deserializer)?;
    u8::try_from(ports).ok().filter(|ports| *ports <= MOST_PORTS).ok_or_else(|| {
        D::Error::custom(format!("`ports` is {ports}; write at most {MOST_PORTS}, such as 32, or 0 for no budget"))
    })
}

/// The ports that a source has tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// One bit for some of the ports.
    map: u128,
    /// The expiry of this record.
    until: Time,
    /// Whether the source exceeded the budget.
    ignored: bool,
}

impl Ports {
    /// Records a port, by its [`bit`]. Returns whether the source's knocks are ignored.
    pub fn ignores(&mut self, bit: u8, budget: &PortBudget, now: Time) -> bool {
        if now >= self.until {
            *self = Ports { map: 0, until: now + budget.within, ignored: false };
        }
        if !self.ignored {
            self.map |= 1 << (bit % 128);
            if budget.ports > 0 && self.map.count_ones() > u32::from(budget.ports) {
                *self = Ports { ignored: true, until: now + budget.ignore_for, ..*self };
            }
        }
        self.ignored
    }

    /// Whether the source's knocks are ignored. Called for a packet without ports.
    pub fn are_too_many(&self, now: Time) -> bool {
        self.ignored && now < self.until
    }

    /// The approximate number of ports: some share a bit.
    pub const fn count(&self) -> u32 {
        self.map.count_ones()
    }

    /// The expiry of this record.
    pub const fn until(&self) -> Time {
        self.until
    }
}

/// The bit of the packet's destination port, less than 128: SipHash-1-3 of its protocol and port. `None` if it has no
/// port.
pub fn bit(secret: [u64; 2], packet: &Packet<'_>) -> Option<u8> {
    let (_, port) = packet.ports?;
    let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
    hasher.write(&[packet.protocol]);
    hasher.write(&port.to_be_bytes());
    Some((hasher.finish() % 128) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: PortBudget =
        PortBudget { ports: 4, within: Duration::from_secs(10), ignore_for: Duration::from_secs(60) };

    fn seconds(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_source_over_budget_is_ignored_until_its_record_expires() {
        let mut ports = Ports::default();
        assert!([1, 2, 3, 4, 4, 1].iter().all(|bit| !ports.ignores(*bit, &BUDGET, seconds(1))));
        assert!(ports.ignores(5, &BUDGET, seconds(10)) && ports.are_too_many(seconds(69)));
        assert!(ports.ignores(1, &BUDGET, seconds(69)), "also at a port that was counted before");
        assert!(!ports.are_too_many(seconds(70)) && !ports.ignores(5, &BUDGET, seconds(70)));
    }

    #[test]
    fn expired_ports_do_not_count() {
        let mut ports = Ports::default();
        assert!((0..4).all(|bit| !ports.ignores(bit, &BUDGET, seconds(1))));
        assert!((4..8).all(|bit| !ports.ignores(bit, &BUDGET, seconds(11))));
    }

    #[test]
    fn without_a_budget_no_source_is_ignored() {
        let mut ports = Ports::default();
        assert!((0..128).all(|bit| !ports.ignores(bit, &PortBudget { ports: 0, ..BUDGET }, seconds(1))));
    }

    #[test]
    fn a_budget_that_the_bitmap_cannot_count_is_refused() {
        let read = |json: &str| serde_json::from_str::<PortBudget>(json);
        assert_eq!(read("{}").unwrap(), PortBudget::default());
        assert_eq!(read(r#"{"ports":100,"ignore-for":"1m30s"}"#).unwrap().ignore_for, Duration::from_secs(90));
        assert!(read(r#"{"ports":101}"#).unwrap_err().to_string().contains("`ports` is 101; write at most 100"));
        for wrong in [r#"{"within":"0s"}"#, r#"{"within":"soon"}"#, r#"{"ports":-1}"#, r#"{"port":3}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
