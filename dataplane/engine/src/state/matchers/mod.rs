//! What matchers remember.

pub(crate) mod meters;
pub(crate) mod reached;
