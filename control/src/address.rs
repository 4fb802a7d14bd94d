//! Parsing of a single address.

use std::net::IpAddr;

use knockplane_policy::rule::AddressSet;

/// Parses an address. An IPv4-mapped IPv6 address becomes IPv4, and a prefix with one address becomes that address.
///
/// # Errors
/// If the text is not an address, or several addresses.
pub fn single(text: &str) -> Result<IpAddr, String> {
    let Ok(set) = text.parse::<AddressSet>() else {
        return Err(format!("`{text}` is not an address: write one, as `198.51.100.7` or `2001:db8::7`"));
    };
    set.single().map(|address| address.to_canonical()).ok_or_else(|| {
        format!(
            "`{set}` is more than one address: give one of them; `knockctl list show --address {set}` shows the list \
             entries in it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notation_of_one_address_parses() {
        let address = |text: &str| single(text).unwrap().to_string();
        assert_eq!(
            (address("198.51.100.7"), address("198.51.100.7/32")),
            ("198.51.100.7".into(), "198.51.100.7".into())
        );
        for mapped in ["::ffff:198.51.100.7", "::ffff:c633:6407", "::ffff:198.51.100.7/128"] {
            assert_eq!(address(mapped), "198.51.100.7", "{mapped}");
        }
        assert_eq!(address("2001:DB8::7"), "2001:db8::7");
        assert_eq!(address("::198.51.100.7"), "::c633:6407", "another address than the mapped one");
    }

    #[test]
    fn several_addresses_and_other_text_are_refused() {
        for several in ["198.51.100.0/24", "2001:db8::/64", "198.51.100.7-198.51.100.9"] {
            let error = single(several).unwrap_err();
            assert!(error.contains("more than one") && error.contains(&format!("--address {several}")), "{error}");
        }
        for none in ["", "gate.example.net", "198.51.100", "198.51.100.7:22", "fe80::1%eth0"] {
            assert!(single(none).unwrap_err().contains("not an address"), "{none}");
        }
    }
}
