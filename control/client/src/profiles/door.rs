//! Steps in the syntax of a server's `[[door]]`, so that its line can be copied: `tcp/7000 syn`, `udp/4321 "open sesame"`,
//! `icmp size=128`. Other steps are left unchanged: they are in the syntax of the command line.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Steps of either syntax, converted to that of the command line.
pub(super) fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let steps = Vec::<String>::deserialize(deserializer)?;
    if steps.is_empty() {
        return Err(D::Error::custom("there are no steps: write `steps = [\"1234\", \"4321:udp\"]`"));
    }
    steps.iter().map(|step| step_of(step).map_err(D::Error::custom)).collect()
}

fn step_of(text: &str) -> Result<String, String> {
    let (what, rest) = text.split_once(' ').map_or((text, ""), |(what, rest)| (what, rest.trim()));
    match what.split_once('/') {
        Some(("tcp", port)) => match rest {
            "" => Ok(format!("{port}:tcp")),
            flags if is_syn(flags) => Ok(format!("{port}:tcp")),
            flags => Err(format!("`{text}`: only a SYN can be sent, and a SYN does not have the flags `{flags}`")),
        },
        Some(("udp", port)) if rest.is_empty() => Ok(format!("{port}:udp")),
        Some(("udp", port)) => passphrase(rest)
            .map(|passphrase| format!("{port}:udp={passphrase}"))
            .ok_or_else(|| format!("`{what} …`: write the passphrase in quotes, with `\\\"` and `\\\\` in it")),
        _ if what == "icmp" && !rest.is_empty() => match rest.strip_prefix("size=") {
            Some(size) => Ok(format!("icmp={size}")),
            None => Err(format!("`{text}`: write `icmp size=128`")),
        },
        _ => Ok(text.to_owned()),
    }
}

/// Whether a SYN matches these flags: those after `!` are not set.
fn is_syn(flags: &str) -> bool {
    flags.split([',', ' ']).filter(|word| !word.is_empty()).all(|word| match word.strip_prefix('!') {
        Some(without) => without != "syn",
        None => word == "syn",
    })
}

fn passphrase(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let (mut said, mut chars) = (String::new(), inner.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => said.push(chars.next().filter(|char| matches!(char, '"' | '\\'))?),
            '"' => return None,
            char => said.push(char),
        }
    }
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_door_are_converted_to_the_command_line_syntax() {
        let cases = [
            ("tcp/7000", "7000:tcp"),
            ("tcp/7000 syn,!ack", "7000:tcp"),
            ("udp/4321", "4321:udp"),
            (r#"udp/4321 "open \"sesame\" \\ =:""#, r#"4321:udp=open "sesame" \ =:"#),
            ("icmp", "icmp"),
            ("icmp size=128", "icmp=128"),
            ("4321:udp=tcp/1 icmp", "4321:udp=tcp/1 icmp"),
            ("1234", "1234"),
        ];
        for (text, expected) in cases {
            assert_eq!(step_of(text).unwrap(), expected);
        }
        for text in ["tcp/7000 ack", "tcp/7000 !syn", "udp/1 word", r#"udp/1 """#, r#"udp/1 "a"b""#, "icmp 128"] {
            assert!(step_of(text).is_err(), "{text}");
        }
    }
}
