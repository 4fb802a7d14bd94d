//! Service names for ports (`ssh` → 22), read from the system's services file.
//!
//! Source of the format: services(5). One line is `name port/protocol alias… # comment`; names are case-sensitive.
//! A reader of our own, because the standard library has no getservbyname and calling libc's needs `unsafe`.

use std::cell::OnceCell;
use std::env;
use std::path::PathBuf;

use knockplane_limits::input;

use crate::step::Transport;

/// The services file, read when the first name is looked up: most knocks name numbers only.
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

    /// The port of the service `name`. One registered for the other transport only is taken too, as `knock` does.
    pub(crate) fn port(&self, name: &str, transport: Transport) -> Option<u16> {
        // An unreadable file is an empty one: the caller reports an unknown name, and a number always works.
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

/// Where this system keeps its services.
pub(crate) fn path() -> PathBuf {
    if cfg!(windows) {
        let root = env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
        PathBuf::from(root).join(r"System32\drivers\etc\services")
    } else {
        PathBuf::from("/etc/services")
    }
}

/// Port and protocol of `line`, if it names `name`, as its name or as an alias.
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
    fn own_transport_wins_then_the_other() {
        assert_eq!(port("torn", Transport::Tcp), Some(514));
        assert_eq!(port("torn", Transport::Udp), Some(515));
        assert_eq!(port("tftp", Transport::Tcp), Some(69));
    }

    #[test]
    fn what_is_no_service_is_not_found() {
        for name in ["SSH", "WorldWideWeb", "comment", "#", "none", "stray", "zero", "large", ""] {
            assert_eq!(port(name, Transport::Tcp), None, "{name}");
        }
    }
}
