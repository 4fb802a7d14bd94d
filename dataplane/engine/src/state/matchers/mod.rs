//! What matchers remember.

pub(crate) mod connection_limits;
pub(crate) mod rate_limiters;
