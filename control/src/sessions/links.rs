//! Links that sign a browser in once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;

use super::Rights;

/// The time for which a link is valid.
pub(crate) const LINK_VALID: Duration = Duration::from_secs(60);

/// Maximum number of links that were not used. A further one replaces the oldest.
pub(super) const MAX_LINKS: usize = 16;

struct Link {
    /// SHA-256 of the secret.
    hash: [u8; 32],
    rights: Rights,
    made: Instant,
}

/// The links that were not used, the oldest first.
#[derive(Default)]
pub(super) struct Links(VecDeque<Link>);

impl Links {
    pub(super) fn add(&mut self, hash: [u8; 32], rights: Rights, now: Instant) {
        self.expire(now);
        while self.0.len() >= MAX_LINKS {
            self.0.pop_front();
        }
        self.0.push_back(Link { hash, rights, made: now });
    }

    /// Uses a link up.
    pub(super) fn take(&mut self, hash: &[u8; 32], now: Instant) -> Option<Rights> {
        self.expire(now);
        // All hashes are compared, so that the time says nothing about them.
        let mut found = None;
        for (place, known) in self.0.iter().enumerate() {
            if bool::from(known.hash.ct_eq(hash)) {
                found = Some(place);
            }
        }
        Some(self.0.remove(found?)?.rights)
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|link| now.saturating_duration_since(link.made) < LINK_VALID);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Role;

    fn rights(uid: u32) -> Rights {
        Rights::User { uid, role: Role::Operate }
    }

    #[test]
    fn a_link_is_valid_once_and_for_a_minute() {
        let (mut links, made) = (Links::default(), Instant::now());
        links.add([1; 32], rights(1), made);
        links.add([2; 32], rights(2), made);
        links.add([3; 32], rights(3), made);
        let last = made + LINK_VALID - Duration::from_nanos(1);
        assert_eq!(links.take(&[4; 32], last), None, "another one");
        assert_eq!(links.take(&[2; 32], last), Some(rights(2)));
        assert_eq!(links.take(&[2; 32], last), None, "used");
        assert_eq!(links.take(&[3; 32], last), Some(rights(3)), "the others stay");
        assert_eq!(links.take(&[1; 32], made + LINK_VALID), None, "expired");
    }

    #[test]
    fn a_further_link_replaces_the_oldest() {
        let (mut links, made) = (Links::default(), Instant::now());
        for number in 0..=MAX_LINKS as u8 {
            links.add([number; 32], rights(number.into()), made);
        }
        assert_eq!(links.0.len(), MAX_LINKS);
        assert_eq!(links.take(&[0; 32], made), None);
        assert_eq!(links.take(&[1; 32], made), Some(rights(1)));
    }
}
