//! How many first steps one source prefix may have in the lists at once.
//!
//! Whoever can send from a whole prefix, or forge it, could fill the lists with first steps, and push out those of
//! everybody else. With a quota, only neighbours get in each other's way: beyond it, first steps of the prefix are
//! refused until others of it are over. Later steps are not counted.
//!
//! It costs 4 bytes an entry at most, and is approximate in two ways. Prefixes are counted by a keyed hash, so that two
//! may share a quota, by chance alone: there are so many counters that one is an eighth full on average when the lists
//! are, for quotas of 8 and more. And what expired counts until it is swept, which is within a second.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use crate::state::key::{Key, Secret};
use crate::state::lists::{Lists, boxed};

/// How the lists keep first steps: entries of level 0, which any stranger can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStepSettings {
    /// How many of each source prefix there may be at once; 0 for any number.
    pub quota: u32,
    /// The length of these prefixes of IPv4.
    pub v4_length: u8,
    /// And of IPv6.
    pub v6_length: u8,
    /// An IPv6 address's first step is that of its whole /64.
    pub v6_by_prefix: bool,
}

impl Default for FirstStepSettings {
    fn default() -> Self {
        FirstStepSettings { quota: 0, v4_length: 24, v6_length: 64, v6_by_prefix: false }
    }
}

/// How full counters are on average when the lists are full: this part of the quota.
const SHARE: usize = 8;

/// See the module.
pub(crate) struct PrefixQuota {
    secret: Secret,
    settings: FirstStepSettings,
    counters: Box<[AtomicU32]>,
}

impl PrefixQuota {
    /// For lists of so many entries; none if there is no memory for it.
    pub(crate) fn new(capacity: usize, settings: FirstStepSettings, secret: Secret) -> Option<PrefixQuota> {
        let counters = (capacity / (settings.quota as usize).max(1)).saturating_mul(SHARE).clamp(1, capacity.max(1));
        Some(PrefixQuota { secret, settings, counters: boxed(counters, || AtomicU32::new(0))? })
    }

    /// Counts one more of the address's prefix. Whether it may have one.
    pub(crate) fn take(&self, key: Key) -> bool {
        let more = |count| (count < self.settings.quota).then_some(count + 1);
        self.counter(key).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one more, whether it may have one or not.
    pub(crate) fn overdraw(&self, key: Key) {
        self.counter(key).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less. It was counted.
    pub(crate) fn give_back(&self, key: Key) {
        self.counter(key).fetch_sub(1, Ordering::Relaxed);
    }

    /// What the address's prefix has used. None if the configured prefix length is none.
    pub(crate) fn used(&self, address: IpAddr) -> Option<QuotaUse> {
        let FirstStepSettings { quota, v4_length, v6_length, .. } = self.settings;
        let length = if address.is_ipv4() { v4_length } else { v6_length };
        let prefix = IpNet::new(address, length).ok()?.trunc();
        Some(QuotaUse { prefix, used: self.counter(address.into()).load(Ordering::Relaxed), quota })
    }

    fn counter(&self, key: Key) -> &AtomicU32 {
        let prefix = key.prefix(self.settings.v4_length, self.settings.v6_length);
        &self.counters[((u128::from(self.secret.hash(prefix)) * self.counters.len() as u128) >> 64) as usize]
    }
}

/// First steps of a source prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The prefix.
    pub prefix: IpNet,
    /// Entries that count for it now: its own, those that expired less than a second ago, and perhaps those of another
    /// prefix.
    pub used: u32,
    /// Beyond so many, first steps are refused.
    pub quota: u32,
}

impl Lists {
    /// What the address's prefix has used of its quota; none if there is no quota.
    pub fn quota_of(&self, address: IpAddr) -> Option<QuotaUse> {
        self.quota.as_ref()?.used(address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    pub(super) fn key(address: &str) -> Key {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_prefix_has_so_many_and_gets_back_what_it_gave() {
        let settings = FirstStepSettings { quota: 2, ..FirstStepSettings::default() };
        let quota = PrefixQuota::new(10_000, settings, Secret([1, 2])).unwrap();
        for prefix in ["192.0.2.", "2001:db8::"] {
            let [one, other, third] = [1, 2, 3].map(|number| key(&format!("{prefix}{number}")));
            assert_eq!([one, other, third].map(|key| quota.take(key)), [true, true, false], "{prefix}");
            quota.give_back(one);
            assert_eq!([third, one].map(|key| quota.take(key)), [true, false], "{prefix}");
        }
        assert!(quota.take(key("192.0.3.1")) && quota.take(key("2001:db8:0:1::1")));
        let used = quota.used("192.0.2.200".parse().unwrap()).unwrap();
        assert_eq!((used.prefix.to_string().as_str(), used.used, used.quota), ("192.0.2.0/24", 2, 2));
        assert_eq!(quota.used("198.51.100.1".parse().unwrap()).unwrap().used, 0);
    }

    #[test]
    fn a_flood_from_everywhere_seldom_reaches_a_quota() {
        let settings = FirstStepSettings { quota: 8, ..FirstStepSettings::default() };
        let quota = PrefixQuota::new(100_000, settings, Secret([1, 2])).unwrap();
        let refused = (0..100_000_u32).filter(|number| !quota.take(IpAddr::from((number << 8).to_be_bytes()).into()));
        assert!(refused.count() < 10);
    }
}
