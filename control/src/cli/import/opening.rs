//! One command of knockd: the target that it opens for the knocking source, or closes again.
//!
//! The usual lines of iptables and ip6tables, ufw, nft, firewalld and Debian's helper are recognised. Every word of
//! them must be recognised: an ignored word could be the one that narrows the opening.

use knockplane_policy::time::LONGEST_TIMEOUT;

use super::firewalld;

/// The effect of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The command opens these targets for the knocking source: `tcp/22`; an empty list means all targets.
    Opens(Vec<String>),
    /// The command opens these targets for this number of seconds.
    OpensFor(Vec<String>, u64),
    /// The command closes these targets again.
    Closes(Vec<String>),
    /// The command succeeds if these targets are open: `iptables -C`.
    Checks(Vec<String>),
    /// The command closes a target that it does not name, for example by a rule number.
    ClosesSomething,
    /// The command waits this number of seconds.
    Waits(u64),
    /// The command has no effect beyond those of a door.
    Nothing,
}

/// The commands that are recognised.
pub(super) const USUAL: &str = "write `iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT` with the ports that it opens, or write the door by hand";

/// The effect of a command.
///
/// # Errors
/// The part that is not understood, and the text to write instead.
pub(super) fn effect(words: &[String]) -> Result<Effect, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words =
        if matches!(words.first().map(|word| base(word)), Some("sudo" | "exec")) { &words[1..] } else { &words[..] };
    let Some((program, rest)) = words.split_first() else { return Err(format!("there is no command: {USUAL}")) };
    match base(program) {
        "iptables" | "ip6tables" | "iptables-legacy" | "iptables-nft" | "ip6tables-legacy" | "ip6tables-nft" => {
            iptables(rest)
        }
        "ufw" => ufw(rest),
        "firewall-cmd" => firewalld::effect(rest),
        "nft" => nft(rest),
        "knock_add" | "knock_helper_ipt.sh" => helper(rest),
        "sleep" => match rest {
            [time] => seconds(time).map(Effect::Waits),
            _ => Err("write `sleep` and a number of seconds".to_owned()),
        },
        "logger" | "echo" | "true" | ":" => Ok(Effect::Nothing),
        other => Err(format!("a door runs no program, and what `{other}` opens is not known: {USUAL}")),
    }
}

/// A time in the form of knockd and `sleep`, in the range that a door can be open for.
///
/// # Errors
/// The text to write instead.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=LONGEST_TIMEOUT.as_secs()).contains(seconds));
    let longest = LONGEST_TIMEOUT.as_secs();
    seconds.ok_or_else(|| format!("`{text}` is not a time: write whole seconds, from 1 to {longest}"))
}

pub(super) fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The target of a rule, while its words are read.
#[derive(Default)]
pub(super) struct Lets {
    pub(super) deletes: bool,
    checks: bool,
    knocker: bool,
    pub(super) accepts: bool,
    answers: bool,
    protocol: Option<&'static str>,
    ports: Vec<String>,
}

impl Lets {
    pub(super) fn effect(self, what: &str) -> Result<Effect, String> {
        if self.answers {
            // The door also forwards replies of connections to an open target.
            return Ok(Effect::Nothing);
        }
        if !self.knocker {
            return Err(format!("{what} is not restricted to the source that knocked: {USUAL}"));
        }
        if !self.accepts {
            return Err(format!("{what} does not say ACCEPT, and a door only opens: {USUAL}"));
        }
        let opens = match (self.protocol, &self.ports[..]) {
            (None, []) => Vec::new(),
            (Some(protocol), []) => vec![protocol.to_owned()],
            (Some(protocol @ ("tcp" | "udp")), ports) => {
                ports.chunks(16).map(|ports| format!("{protocol}/{}", ports.join(","))).collect()
            }
            _ => return Err(format!("{what} has ports without `tcp` or `udp`: {USUAL}")),
        };
        Ok(match self {
            Lets { deletes: true, .. } => Effect::Closes(opens),
            Lets { checks: true, .. } => Effect::Checks(opens),
            _ => Effect::Opens(opens),
        })
    }

    pub(super) fn from(&mut self, address: &str) -> Result<(), String> {
        let knocker = ["%IP%", "%IP%/32", "%IP%/128", "%IP%/255.255.255.255"].contains(&address);
        self.knocker = knocker;
        if knocker { Ok(()) } else { Err(format!("`{address}` is not the source that knocked: write `%IP%`")) }
    }

    pub(super) fn protocol(&mut self, name: &str) -> Result<(), String> {
        self.protocol = match name.to_ascii_lowercase().as_str() {
            "tcp" | "6" => Some("tcp"),
            "udp" | "17" => Some("udp"),
            "icmp" | "icmpv6" | "ipv6-icmp" | "1" | "58" => Some("icmp"),
            "all" | "any" | "0" => None,
            _ => return Err(format!("a door does not open the protocol `{name}`: write tcp, udp or icmp")),
        };
        Ok(())
    }

    pub(super) fn ports(&mut self, list: &str) -> Result<(), String> {
        for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once([':', '-']).unwrap_or((range, range));
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
            match port(first).zip(port(last)) {
                Some((first, last)) if first == last => self.ports.push(first.to_string()),
                Some((first, last)) if first < last => self.ports.push(format!("{first}-{last}")),
                _ => return Err(format!("`{range}` is not a port: write numbers, as 22 or 8000:8010")),
            }
        }
        Ok(())
    }
}

/// Source: iptables(8), iptables-extensions(8).
fn iptables(words: &[&str]) -> Result<Effect, String> {
    let mut lets = Lets::default();
    let mut words = words.iter().copied().peekable();
    let mut chain = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("nothing stands behind `{word}`: {USUAL}"));
        match word {
            "-A" | "--append" | "-I" | "--insert" | "-D" | "--delete" | "-C" | "--check" => {
                lets.deletes = matches!(word, "-D" | "--delete");
                lets.checks = matches!(word, "-C" | "--check");
                chain = true;
                lets.answers = value()? == "OUTPUT";
                if words.next_if(|place| place.parse::<u32>().is_ok()).is_some() && lets.deletes {
                    return Ok(Effect::ClosesSomething);
                }
            }
            "-s" | "--source" | "--src" => lets.from(value()?)?,
            "-p" | "--protocol" | "--proto" => lets.protocol(value()?)?,
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => lets.ports(value()?)?,
            "-j" | "--jump" => lets.accepts = value()? == "ACCEPT",
            "-m" | "--match" => match value()? {
                "tcp" | "udp" | "icmp" | "icmp6" | "state" | "conntrack" | "multiport" | "comment" => {}
                other => {
                    return Err(format!("`-m {other}` is a restriction that doors do not have: {USUAL}"));
                }
            },
            "--state" | "--ctstate" => {
                let states = value()?;
                if !states.split(',').any(|state| state == "NEW") {
                    return Err(format!("`{states}` opens nothing that begins: write NEW as well, or leave it out"));
                }
            }
            "-t" | "--table" => {
                let table = value()?;
                if table != "filter" {
                    return Err(format!("the table `{table}` is not about what passes: {USUAL}"));
                }
            }
            "-d" | "--destination" | "--dst" if lets.answers => _ = value()?,
            "-o" | "--out-interface" if lets.answers => _ = value()?,
            "--sport" | "--sports" | "--source-port" if lets.answers => _ = value()?,
            "-d" | "--destination" | "--dst" => {
                return Err(format!(
                    "`{word}` is for one address, and a door opens the one that was knocked at: leave it out"
                ));
            }
            // Knocks come from outside, so the name of the interface has no effect.
            "-i" | "--in-interface" | "--comment" => _ = value()?,
            "--syn" | "-n" => {}
            "-w" | "--wait" => _ = words.next_if(|time| time.parse::<u32>().is_ok()),
            other => return Err(format!("`{other}` of iptables has no counterpart in a door: {USUAL}")),
        }
    }
    if chain { lets.effect("the line") } else { Err(format!("the line adds and deletes nothing: {USUAL}")) }
}

/// Source: ufw(8).
fn ufw(words: &[&str]) -> Result<Effect, String> {
    let mut lets = Lets::default();
    let mut words = words.iter().copied().peekable();
    let mut of_destination = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("nothing stands behind `{word}` of ufw: {USUAL}"));
        match word {
            "--force" | "rule" | "in" => {}
            // Knocks come from outside, so the name of the interface has no effect.
            "insert" | "comment" | "on" => _ = value()?,
            "prepend" => {}
            "delete" => {
                lets.deletes = true;
                if words.peek().is_some_and(|place| place.parse::<u32>().is_ok()) {
                    return Ok(Effect::ClosesSomething);
                }
            }
            "allow" => lets.accepts = true,
            "from" => {
                of_destination = false;
                lets.from(value()?)?;
            }
            "to" => match value()? {
                "any" => of_destination = true,
                address => {
                    return Err(format!(
                        "`to {address}` is one address; a door opens the one that was knocked at: write `to any`"
                    ));
                }
            },
            "port" if of_destination => lets.ports(value()?)?,
            "port" => {
                return Err(
                    "`port` that is not behind `to` is a port of the source that knocked: write `from %IP% to any port 22`"
                        .to_owned(),
                );
            }
            "proto" => lets.protocol(value()?)?,
            other => {
                return Err(format!(
                    "`{other}` of ufw has no counterpart in a door: write `ufw allow from %IP% to any port 22 proto tcp`"
                ));
            }
        }
    }
    if lets.protocol.is_some() || lets.ports.is_empty() {
        return lets.effect("the line");
    }
    // Without a protocol, ufw opens the port for TCP and UDP.
    let both: Vec<String> = ["tcp", "udp"].iter().map(|name| format!("{name}/{}", lets.ports.join(","))).collect();
    lets.ports.clear();
    Ok(match lets.effect("the line")? {
        Effect::Opens(_) => Effect::Opens(both),
        Effect::Closes(_) => Effect::Closes(both),
        other => other,
    })
}

/// Source: nft(8).
fn nft(words: &[&str]) -> Result<Effect, String> {
    // The shell's quotes have no meaning for nft: one word and many words are the same.
    let joined = words.join(" ").replace('{', " { ").replace('}', " } ").replace(',', " , ");
    let words: Vec<&str> = joined.split_whitespace().collect();
    let usual = "write `nft add rule inet filter input ip saddr %IP% tcp dport 22 accept`";
    let rest = match &words[..] {
        ["delete", ..] => return Ok(Effect::ClosesSomething),
        ["add" | "insert", "element", ..] => {
            return Err(format!("the rules of the set are not in this file: {usual} for each port that it opens"));
        }
        ["add" | "insert", "rule", "inet" | "ip" | "ip6", table, chain, rest @ ..]
        | ["add" | "insert", "rule", table, chain, rest @ ..] => {
            if !is_for_input(table, chain) {
                return Err(format!("the chain `{chain}` of `{table}` is not about what arrives here: {usual}"));
            }
            rest
        }
        _ => return Err(format!("nft does something else than open: {usual}")),
    };
    let mut lets = Lets::default();
    let mut words = rest.iter().copied().peekable();
    while let Some(word) = words.next() {
        match (word, words.peek().copied()) {
            ("position" | "handle" | "index" | "comment", Some(_)) => _ = words.next(),
            ("ip" | "ip6", Some("saddr")) => {
                words.next();
                lets.from(words.next().unwrap_or_default())?;
            }
            ("tcp" | "udp" | "th", Some("dport")) if word != "th" => {
                words.next();
                lets.protocol(word)?;
                let list: String = match words.next() {
                    Some("{") => words.by_ref().take_while(|word| *word != "}").collect::<Vec<_>>().join(""),
                    port => port.unwrap_or_default().to_owned(),
                };
                lets.ports(&list)?;
            }
            ("meta", Some("l4proto")) | ("ip", Some("protocol")) => {
                words.next();
                lets.protocol(words.next().unwrap_or_default())?;
            }
            ("ct", Some("state")) => {
                words.next();
                if words.next() != Some("new") {
                    return Err(format!("only `ct state new` opens what begins: {usual}"));
                }
            }
            ("counter", _) => {}
            ("accept", _) => lets.accepts = true,
            (other, _) => return Err(format!("`{other}` of nft has no counterpart in a door: {usual}")),
        }
    }
    lets.effect("the line")
}

/// Whether a chain of nft filters incoming packets. Its hook is declared elsewhere, so its name must show it.
fn is_for_input(table: &str, chain: &str) -> bool {
    let (table, chain) = (table.to_ascii_lowercase(), chain.to_ascii_lowercase());
    let is_of_another_kind = ["nat", "mangle", "raw", "route", "security"].iter().any(|kind| table.contains(kind));
    chain.contains("input") && !is_of_another_kind
}

/// The helper in Debian's package, and its name in the package's configuration. Source: its usage.
fn helper(words: &[&str]) -> Result<Effect, String> {
    let mut lets = Lets { accepts: true, protocol: Some("tcp"), ..Lets::default() };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("nothing stands behind `{word}`: {USUAL}"));
        match word {
            "-a" | "--append" | "-i" | "--insert" => {}
            "-x" | "--delete" => lets.deletes = true,
            "-f" | "--srcaddr" => lets.from(value()?)?,
            "-d" | "--dstport" => lets.ports(value()?)?,
            "-p" | "--proto" => lets.protocol(value()?)?,
            "-c" | "--chain" | "-m" | "--comment" => _ = value()?,
            "-v" | "--verbose" => {}
            other => return Err(format!("`{other}` of the helper has no counterpart in a door: {USUAL}")),
        }
    }
    lets.effect("the line")
}
