//! The section `[control.api]`: the API on TCP.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::{SettingsReader, entry, unknown_key};

/// Default of `tokens`.
const DEFAULT_TOKENS: &str = "/var/lib/knockplane-control/tokens.json";

/// Keys of `[control.api]`.
pub(super) const KEYS: [&str; 6] = ["certificate", "client-ca", "key", "listen", "page", "tokens"];

/// The address with `page = true` and without `listen`.
const PAGE_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_480);

/// The API on TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// Its address.
    pub listen: SocketAddr,
    /// The files of TLS; `None` without TLS, which only loopback permits.
    pub tls: Option<TlsFiles>,
    /// The state file with the tokens.
    pub tokens: PathBuf,
    /// Whether the listener serves the web page.
    pub page: bool,
}

/// The files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain in PEM form, the certificate of the server first.
    pub certificate: PathBuf,
    /// Its private key in PEM form.
    pub key: PathBuf,
    /// The authorities of client certificates; without them, clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl ApiSettings {
    /// The address of the web page for browsers. If the listener is on all addresses, it has the name of this host.
    pub fn page_address(&self) -> String {
        let (ip, port) = (self.listen.ip().to_canonical(), self.listen.port());
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let name = || fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        match name().filter(|name| ip.is_unspecified() && !name.is_empty()) {
            Some(name) => format!("{scheme}://{name}:{port}/"),
            None => format!("{scheme}://{}/", SocketAddr::new(ip, port)),
        }
    }
}

impl SettingsReader<'_> {
    /// Reads the section. `None` if it does not switch the API on.
    pub(super) fn api(&mut self, section: &DeTable<'_>) -> Option<ApiSettings> {
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let (mut listen, mut files) = (None, [None, None, None]);
        let mut tokens = PathBuf::from(DEFAULT_TOKENS);
        let mut page = false;
        for (key, value) in section {
            let path = || value.get_ref().as_str().filter(|text| !text.is_empty()).map(|text| folder.join(text));
            let name = key.get_ref().as_ref();
            match name {
                "listen" => match value.get_ref().as_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
                    Some(address) => listen = Some((address, value.span())),
                    None => {
                        self.problem(value.span(), "`listen` is an address and a port in quotes, as \"127.0.0.1:9480\"")
                    }
                },
                "certificate" | "key" | "client-ca" | "tokens" => match path() {
                    None => self.problem(value.span(), format_args!("`{name}` is the path of a file in quotes")),
                    Some(path) => match name {
                        "certificate" => files[0] = Some(path),
                        "key" => files[1] = Some(path),
                        "client-ca" => files[2] = Some(path),
                        _ => tokens = path,
                    },
                },
                "page" => match value.get_ref().as_bool() {
                    Some(on) => page = on,
                    None => self.problem(value.span(), "`page` is true or false"),
                },
                unknown => self.problem(key.span(), unknown_key("control.api", &KEYS, unknown)),
            }
        }
        let span = |name: &str| entry(section, name).map_or(0..0, |(_, value)| value.span());
        let tls = match files {
            [Some(certificate), Some(key), client_ca] => Some(TlsFiles { certificate, key, client_ca }),
            [None, None, None] => None,
            [Some(_), None, _] => {
                self.problem(
                    span("certificate"),
                    "`certificate` needs the file of its private key: write `key` as well",
                );
                return None;
            }
            [None, Some(_), _] => {
                self.problem(span("key"), "`key` needs the file of its certificate: write `certificate` as well");
                return None;
            }
            [None, None, Some(_)] => {
                self.problem(span("client-ca"), "`client-ca` needs TLS: write `certificate` and `key` as well");
                return None;
            }
        };
        let (listen, place) = listen.or_else(|| page.then(|| (PAGE_ADDRESS, span("page"))))?;
        if tls.is_none() && !listen.ip().to_canonical().is_loopback() {
            self.problem(
                place,
                format_args!(
                    "without TLS the API listens on loopback only, because tokens would be readable on the network: write \
                     `certificate` and `key`, or listen = \"127.0.0.1:{}\"",
                    listen.port()
                ),
            );
            return None;
        }
        Some(ApiSettings { listen, tls, tokens, page })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ControlSettings, SettingsError};
    use super::*;

    fn api(text: &str) -> Result<Option<ApiSettings>, SettingsError> {
        let text = format!("[control.api]\n{text}");
        ControlSettings::parse(&text, Path::new("/etc/knockplane/k.toml")).map(|settings| settings.api)
    }

    #[test]
    fn the_api_is_off_unless_it_has_an_address() {
        assert_eq!(api(""), Ok(None));
        assert_eq!(api("tokens = '/t'"), Ok(None));
        assert_eq!(api("page = false"), Ok(None));
        let read = api("page = true").unwrap().unwrap();
        assert_eq!((read.listen.to_string().as_str(), read.page), ("127.0.0.1:9480", true));
        let read = api("page = true\nlisten = '127.0.0.1:7'").unwrap().unwrap();
        assert_eq!((read.listen.port(), read.page), (7, true));
        let read = api("listen = '[::1]:1'").unwrap().unwrap();
        assert_eq!((read.tls, read.tokens), (None, DEFAULT_TOKENS.into()));
        let read =
            api("listen = '0.0.0.0:1'\ncertificate = 'tls/c.pem'\nkey = '/k.pem'\nclient-ca = 'ca.pem'").unwrap();
        let tls = read.unwrap().tls.unwrap();
        assert_eq!(tls.certificate, Path::new("/etc/knockplane/tls/c.pem"));
        assert_eq!((tls.key, tls.client_ca), ("/k.pem".into(), Some("/etc/knockplane/ca.pem".into())));
    }

    #[test]
    fn the_address_for_browsers_has_scheme_and_port() {
        let address = |text: &str| api(&format!("page = true\n{text}")).unwrap().unwrap().page_address();
        assert_eq!(address(""), "http://127.0.0.1:9480/");
        assert_eq!(address("listen = '[::1]:7'"), "http://[::1]:7/");
        assert_eq!(address("listen = '[::ffff:127.0.0.1]:7'"), "http://127.0.0.1:7/");
        let tls = "certificate = 'c'\nkey = 'k'";
        assert_eq!(address(&format!("listen = '192.0.2.1:7'\n{tls}")), "https://192.0.2.1:7/");
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(address(&format!("listen = '0.0.0.0:7'\n{tls}")), format!("https://{}:7/", own.trim()));
    }

    #[test]
    fn each_problem_has_its_line_and_a_remedy() {
        for (text, line, said) in [
            ("listen = '0.0.0.0:9480'", 2, "write `certificate` and `key`, or listen = \"127.0.0.1:9480\""),
            ("listen = '192.0.2.1:9480'", 2, "loopback only"),
            ("listen = '[::ffff:192.0.2.1]:9480'", 2, "loopback only"),
            ("listen = '9480'", 2, "in quotes, as \"127.0.0.1:9480\""),
            ("\ncertificate = 'c'", 3, "write `key` as well"),
            ("key = 'k'", 2, "write `certificate` as well"),
            ("client-ca = 'k'", 2, "needs TLS"),
            ("listen = '127.0.0.1:9479'", 2, "the address of `listen` in [control]"),
            ("page = 'on'", 2, "`page` is true or false"),
            ("tokens = 7", 2, "`tokens` is the path of a file"),
            ("listn = '127.0.0.1:1'", 2, "[control.api] has no key `listn`: did you mean `listen`?"),
        ] {
            let error = api(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("/etc/knockplane/k.toml:{line}: ")) && error.contains(said), "{error}");
        }
    }
}
