//! A profile as one line that needs no quotes in chats and shells:
//!
//! ```text
//! knocker://NAME@HOST/STEP/STEP/…/+delay=10ms/+wait-port=22/+both/CHECKSUM
//! ```
//!
//! Each byte that is not a letter, a digit or one of `-._:=` is written as `%` and two hexadecimal digits. The checksum covers
//! everything before it. It detects a line that was cut or changed by a chat program, and is no protection against forgery.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Delay, Profile};

const SCHEME: &str = "knocker://";

/// The characters that are escaped in a part of the line.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':').remove(b'=');

/// The profile as a line.
pub(super) fn line(name: &str, profile: &Profile) -> String {
    let part = |text: &str| utf8_percent_encode(text, PART).to_string();
    let mut line = format!("{SCHEME}{name}@{}/", part(&profile.host));
    for step in &profile.steps {
        line += &format!("{}/", part(step));
    }
    if let Some(delay) = profile.delay {
        line += &format!("+delay={}/", String::from(delay));
    }
    if let Some(port) = &profile.wait_port {
        line += &format!("+wait-port={}/", part(port));
    }
    if profile.both {
        line += "+both/";
    }
    with_sum(&line)
}

/// The line with its checksum appended.
pub(super) fn with_sum(line: &str) -> String {
    format!("{line}{:08x}", crc32(line.as_bytes()))
}

/// Parses a line: the name and the profile.
///
/// # Errors
/// If the line is incomplete, or not the line of a profile.
pub(super) fn read(line: &str) -> Result<(String, Profile), String> {
    let line = line.trim();
    let rest = line
        .strip_prefix(SCHEME)
        .ok_or("this is not a line of `knocker --share`: such a line begins with `knocker://`")?;
    let cut =
        "the line differs from the printed one: its end is missing, or a part was changed; copy the whole line again";
    let (said, sum) = line.rsplit_once('/').ok_or(cut)?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16) != Ok(crc32(format!("{said}/").as_bytes())) {
        return Err(cut.to_owned());
    }
    let mut parts = rest.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev();
    let (name, host) = parts.next().and_then(|part| part.split_once('@')).ok_or(cut)?;
    let text = |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| cut.to_owned());
    let mut profile =
        Profile { host: text(host)?, steps: Vec::new(), delay: None, wait_port: None, then: None, both: false };
    for part in parts {
        // No step begins with a literal `+`: in steps it is escaped.
        let option = part.strip_prefix('+').map(|option| option.split_once('=').unwrap_or((option, "")));
        match option {
            Some(("delay", delay)) => profile.delay = Some(Delay::try_from(text(delay)?)?),
            Some(("wait-port", port)) => profile.wait_port = Some(text(port)?),
            Some(("both", "")) => profile.both = true,
            // The knock may depend on an option of a later version.
            Some((option, _)) => {
                let option = option.escape_debug();
                return Err(format!("this version does not know the option `{option}`: install a newer knocker"));
            }
            None => profile.steps.push(text(part)?),
        }
    }
    Ok((name.to_owned(), profile))
}

/// CRC-32 as in Ethernet and zip. Source: ISO 3309, polynomial 0xEDB88320 reflected.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_line_needs_no_quotes() {
        let profile = Profile {
            host: "fe80::1%eth0".to_owned(),
            steps: vec!["1234".to_owned(), "4321:udp=open 'sesame' $5/%".to_owned(), "icmp=128".to_owned()],
            delay: Some(Delay(10)),
            wait_port: Some("ssh".to_owned()),
            then: None,
            both: true,
        };
        let said = line("home", &profile);
        assert_eq!(
            said,
            "knocker://home@fe80::1%25eth0/1234/4321:udp=open%20%27sesame%27%20%245%2F%25/icmp=128/+delay=10ms/+wait-port=ssh/+both/8bee2cf8"
        );
        assert_eq!(read(&format!("  {said}\n")), Ok(("home".to_owned(), profile)));
        for (wrong, part) in [("ssh gate", "begins with"), (&said[..said.len() - 1], "its end is missing")] {
            assert!(read(wrong).unwrap_err().contains(part), "{wrong}");
        }
        for later in ["knocker://a@b/1/+hmac=x/", "knocker://a@b/1/+hmac/"] {
            let error = read(&with_sum(later)).unwrap_err();
            assert!(error.contains("`hmac`: install a newer"), "{error}");
        }
    }

    fn profile() -> impl Strategy<Value = Profile> {
        let steps = prop::collection::vec("\\PC{1,20}", 1..6);
        let port = prop::option::of("[a-z0-9]{1,6}");
        let both = any::<bool>();
        ("\\PC{1,20}", steps, prop::option::of(any::<u32>()), port, both).prop_map(
            |(host, steps, delay, wait_port, both)| Profile {
                host,
                steps,
                delay: delay.map(Delay),
                wait_port,
                then: None,
                both,
            },
        )
    }

    proptest! {
        #[test]
        fn a_shared_profile_parses_as_it_was(name in "[a-zA-Z0-9_][a-zA-Z0-9_-]{0,20}", profile in profile()) {
            let said = line(&name, &profile);
            prop_assert!(said.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:=%/@+".contains(&byte)), "{}", said);
            prop_assert_eq!(read(&said), Ok((name, profile)));
        }

        #[test]
        fn a_cut_or_changed_line_is_refused(profile in profile(), at: prop::sample::Index, to in "[a-z0-9/%]") {
            let said = line("a", &profile);
            let at = at.index(said.len());
            prop_assert!(read(&said[..at]).is_err());
            let changed = format!("{}{to}{}", &said[..at], &said[at + 1..]);
            prop_assert!(changed == said || read(&changed).is_err(), "{}", changed);
        }
    }
}
