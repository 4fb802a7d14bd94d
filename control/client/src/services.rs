//! Service names for ports (`ssh` → 22), read from the system's services file.
//!
//! Source of the format: services(5). One line is `name port/protocol alias… # comment`; names are case-sensitive.
//! This module reads the file itself, because the standard library has no getservbyname, and a call of that of libc needs
//! `unsafe`.

use std::cell::OnceCell;
use std::env;
use std::path::PathBuf;

use knockplane_limits::input;

use crate::transport::Transport;

/// The services file, read at the first lookup: most knocks have only port numbers.
#[derive(Debug, Default)]
pub(crate) struct Services {
    text: OnceCell<String>,
}

impl Services {
    /// The services of `text`, in the format of services(5).
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        Self { text: OnceCell::from(text.to_owned()) }
    }

    /// The port of the service `name`. If the service is registered for the other transport only, its port there, as for
    /// `knock`.
    pub(crate) fn port(&self, name: &str, transport: Transport) -> Option<u16> {
        // An unreadable file counts as empty: the caller reports the name as unknown.
        let text = self.text.get_or_init(|| {
            input::read(&path(), &input::SERVICES)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        });
        let mut other = None;
        for (port, protocol) in text.lines().filter_map(|line| entry_named(line, name)) {
            if protocol == transport.word() {
                return Some(port);
            }
            if Transport::from_word(protocol).is_some() {
                other = other.or(Some(port));
            }
        }
        other
    }
}

/// The path of the services file on this system.
pub(crate) fn path() -> PathBuf {
    if cfg!(windows) {
        let root = env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
        PathBuf::from(root).join(r"System32\drivers\etc\services")
    } else {
        PathBuf::from("/etc/services")
    }
}

/// Port and protocol of `line`, if `name` is its name or an alias.
fn entry_named<'a>(line: &'a str, name: &str) -> Option<(u16, &'a str)> {
    let line = line.split('#').next()?;
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    let (port, protocol) = words.next()?.split_once('/')?;
    if first != name && !words.any(|alias| alias == name) {
        return None;
    }
    Some((port.parse().ok().filter(|&port| port != 0)?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# comment ssh 1/tcp
ssh\t\t22/tcp\t\t\t# Secure Shell remote
domain 53/tcp
domain 53/udp
tftp 69/udp
http 80/tcp www # WorldWideWeb http
torn 514/tcp
torn 515/udp
stray 132/sctp
none
zero 0/tcp
large 70000/tcp
";

    fn port(name: &str, transport: Transport) -> Option<u16> {
        Services::from_text(TEXT).port(name, transport)
    }

    #[test]
    fn names_and_aliases() {
        assert_eq!(port("ssh", Transport::Tcp), Some(22));
        assert_eq!(port("domain", Transport::Udp), Some(53));
        assert_eq!(port("www", Transport::Tcp), Some(80));
    }

    #[test]
    fn the_wanted_transport_is_preferred() {
        assert_eq!(port("torn", Transport::Tcp), Some(514));
        assert_eq!(port("torn", Transport::Udp), Some(515));
        assert_eq!(port("tftp", Transport::Tcp), Some(69));
    }

    #[test]
    fn other_words_of_the_file_are_not_names_of_services() {
        for name in ["SSH", "WorldWideWeb", "comment", "#", "none", "stray", "zero", "large", ""] {
            assert_eq!(port(name, Transport::Tcp), None, "{name}");
        }
    }
}
