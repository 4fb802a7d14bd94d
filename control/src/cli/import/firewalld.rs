//! `firewall-cmd`: rich rules, and sources that are put in the zone `trusted`. Source: firewall-cmd(1),
//! firewalld.richlanguage(5).

use super::opening::{Effect, Lets, USUAL, seconds};

/// The effect of a command.
///
/// # Errors
/// The part that is not understood, and the text to write instead.
pub(super) fn effect(words: &[&str]) -> Result<Effect, String> {
    let mut lets = Lets::default();
    let (mut zone, mut time, mut is_known, mut is_source) = ("", None, false, false);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let (option, value) = word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
        let mut value = || value.or_else(|| words.next()).ok_or_else(|| format!("nothing stands behind `{option}`"));
        match option {
            "--zone" => zone = value()?,
            "--timeout" => time = Some(timeout(value()?)?),
            "--add-rich-rule" | "--remove-rich-rule" => {
                rich_rule(value()?, &mut lets)?;
                (lets.deletes, is_known) = (option == "--remove-rich-rule", true);
            }
            "--add-source" | "--remove-source" => {
                lets.from(value()?)?;
                (lets.deletes, lets.accepts, is_known, is_source) = (option == "--remove-source", true, true, true);
            }
            "--quiet" | "-q" => {}
            "--reload" => return Ok(Effect::Nothing),
            "--permanent" => {
                return Err(format!("`--permanent` opens for ever, and a door closes: {USUAL}"));
            }
            other => return Err(format!("`{other}` of firewall-cmd has no counterpart in a door: {USUAL}")),
        }
    }
    if !is_known {
        return Err(format!("firewall-cmd does something else than open: {USUAL}"));
    }
    if is_source && zone != "trusted" {
        return Err(format!("the rules of the zone `{zone}` are not in this file: {USUAL}"));
    }
    Ok(match (lets.effect("the line")?, time) {
        (Effect::Opens(what), Some(seconds)) => Effect::OpensFor(what, seconds),
        (effect, _) => effect,
    })
}

/// A time: a number of seconds, or one with `s`, `m` or `h`.
fn timeout(text: &str) -> Result<u64, String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600)];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    seconds(number)?.checked_mul(factor).ok_or_else(|| format!("`{text}` is too long")).and_then(|time| {
        // The time must not exceed the maximum time of a door.
        seconds(&time.to_string())
    })
}

/// `rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept`.
fn rich_rule(rule: &str, lets: &mut Lets) -> Result<(), String> {
    let usual = r#"write `rule family="ipv4" source address="%IP%" port port="22" protocol="tcp" accept`"#;
    let mut element = "";
    for word in rule.split_whitespace() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let value = value.map(|value| value.trim_matches(['"', '\'']));
        match (element, name, value) {
            (_, "rule" | "source" | "port" | "protocol", None) => element = name,
            ("rule", "family", Some("ipv4" | "ipv6")) => {}
            ("rule", "priority", Some(_)) => {}
            ("source", "address", Some(address)) => lets.from(address)?,
            ("port", "port", Some(ports)) => lets.ports(ports)?,
            ("port", "protocol", Some(protocol)) | ("protocol", "value", Some(protocol)) => lets.protocol(protocol)?,
            (_, "accept", None) => lets.accepts = true,
            _ => return Err(format!("`{word}` of a rich rule has no counterpart in a door: {usual}")),
        }
    }
    Ok(())
}
