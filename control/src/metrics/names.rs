//! Host names in address lists: a series for each, of which there are at most
//! [`MAX_NAMES`](knockplane_policy::wire::MAX_NAMES).

use knockplane_policy::packet::Family;
use knockplane_policy::wire::NameState;

use super::sheet::{Sheet, flag};

/// Adds the host names' families.
pub(super) fn fill(sheet: &Sheet, names: &[NameState]) {
    let labels = ["list", "name", "family"];
    let resolved = sheet.gauge(
        "list_name_resolved",
        "Whether the last attempt to resolve a host name of an address list succeeded.",
        &labels,
    );
    let addresses = sheet.gauge("list_name_addresses", "Addresses that a host name put in an address list.", &labels);
    for state in names {
        let family = match state.name.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        let labels = [&*state.list, &*state.name.name, family];
        resolved.with_label_values(&labels).set(flag(state.state() == "resolved"));
        addresses.with_label_values(&labels).set(state.addresses.len() as f64);
    }
}
