//! Serialization of addresses as text, and of step counts.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rule::AddressSet;

/// Addresses as text.
pub mod as_text {
    use super::*;

    /// Serializes as a string.
    ///
    /// # Errors
    /// The error of the serializer.
    pub fn serialize<S: Serializer>(address: &AddressSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    /// Deserializes from a string.
    ///
    /// # Errors
    /// If the text is not an address, prefix or range.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AddressSet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// As [`as_text`], for an optional address.
pub(super) mod perhaps_as_text {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(address: &Option<AddressSet>, serializer: S) -> Result<S::Ok, S::Error> {
        address.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AddressSet>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

pub(super) fn is_zero(steps: &u8) -> bool {
    *steps == 0
}
