//! Quotas: the maximum number of first steps of one source prefix in the lists at one time.
//!
//! A source that can use or forge all addresses of a prefix could fill the lists with first steps, and evict those of
//! all other sources. With a quota, only sources of the same prefix affect each other: above the quota, the lists
//! refuse first steps of the prefix until others of the prefix end. Later steps are not counted.
//!
//! A quota costs at most 4 bytes for each entry. It is approximate in two ways. First, a keyed hash selects the counter
//! of a prefix, so that two prefixes may share a quota, by chance alone. There are so many counters that a counter is
//! an eighth full on average when the lists are full, for quotas of 8 and more. Second, an expired entry counts until
//! the sweep removes it, which takes less than a second.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use crate::state::key::{AddressKey, Secret};
use crate::state::lists::{Lists, boxed};

/// Settings of first steps: entries of level 0, which any source can create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStepSettings {
    /// The maximum number of first steps of each source prefix; 0 for no limit.
    pub quota: u32,
    /// The length of the IPv4 prefixes.
    pub v4_length: u8,
    /// The length of the IPv6 prefixes.
    pub v6_length: u8,
    /// Whether the first step of an IPv6 address counts for its whole /64.
    pub v6_by_prefix: bool,
}

impl Default for FirstStepSettings {
    fn default() -> Self {
        FirstStepSettings { quota: 0, v4_length: 24, v6_length: 64, v6_by_prefix: false }
    }
}

/// When the lists are full, the average counter is at this fraction of the quota.
const SHARE: usize = 8;

/// The counters of first steps by source prefix.
pub(crate) struct PrefixQuota {
    secret: Secret,
    settings: FirstStepSettings,
    counters: Box<[AtomicU32]>,
}

impl PrefixQuota {
    /// Creates the counters for lists of this capacity; `None` if there is not enough memory.
    pub(crate) fn new(capacity: usize, settings: FirstStepSettings, secret: Secret) -> Option<PrefixQuota> {
        let counters = (capacity / (settings.quota as usize).max(1)).saturating_mul(SHARE).clamp(1, capacity.max(1));
        Some(PrefixQuota { secret, settings, counters: boxed(counters, || AtomicU32::new(0))? })
    }

    /// Counts one more first step of the address's prefix. Returns whether the quota allows it.
    pub(crate) fn take(&self, key: AddressKey) -> bool {
        let more = |count| (count < self.settings.quota).then_some(count + 1);
        self.counter(key).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one more first step, even above the quota.
    pub(crate) fn overdraw(&self, key: AddressKey) {
        self.counter(key).fetch_add(1, Ordering::Relaxed);
    }

    /// Removes one first step that was counted.
    pub(crate) fn give_back(&self, key: AddressKey) {
        self.counter(key).fetch_sub(1, Ordering::Relaxed);
    }

    /// The use of the quota by the address's prefix. `None` if the configured prefix length is not valid.
    pub(crate) fn used(&self, address: IpAddr) -> Option<QuotaUse> {
        let FirstStepSettings { quota, v4_length, v6_length, .. } = self.settings;
        let length = if address.is_ipv4() { v4_length } else { v6_length };
        let prefix = IpNet::new(address, length).ok()?.trunc();
        Some(QuotaUse { prefix, used: self.counter(address.into()).load(Ordering::Relaxed), quota })
    }

    fn counter(&self, key: AddressKey) -> &AtomicU32 {
        let prefix = key.prefix(self.settings.v4_length, self.settings.v6_length);
        &self.counters[((u128::from(self.secret.hash(prefix)) * self.counters.len() as u128) >> 64) as usize]
    }
}

/// First steps of a source prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The prefix.
    pub prefix: IpNet,
    /// The present number of entries that count for the prefix: its own entries, those that expired less than a second
    /// ago, and possibly those of another prefix.
    pub used: u32,
    /// The lists refuse first steps above this number.
    pub quota: u32,
}

impl Lists {
    /// The use of the quota by the address's prefix; `None` if there is no quota.
    pub fn quota_of(&self, address: IpAddr) -> Option<QuotaUse> {
        self.quota.as_ref()?.used(address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    pub(super) fn key(address: &str) -> AddressKey {
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
