//! Errors of the address lists.

use super::MAX_LISTS;

/// The lists cannot be created with this capacity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address lists for {capacity} entries need {bytes} bytes: {problem}")]
pub struct CapacityError {
    /// The requested capacity.
    pub capacity: usize,
    /// The memory that this capacity needs.
    pub bytes: u64,
    /// The cause and the remedy.
    pub problem: &'static str,
}

/// A configuration needs more list names than the maximum number of lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for the address list `{name}`: {MAX_LISTS} names were used since start, and a name is kept until \
     the dataplane restarts; use fewer lists, or restart to forget the old names"
)]
pub struct TooManyListsError {
    /// The first list without room.
    pub name: String,
}
