//! The state of matchers with memory, except connections.

pub(crate) mod connection_limits;
pub(crate) mod rate_limiters;
