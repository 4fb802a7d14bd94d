//! The API on TCP as the way to the control process: `--api`, `--token-file`, `--ca`, and client certificates.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hyper::Uri;
use hyper::header::HeaderValue;
use knockplane_limits::input::{self, Limit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failed;
use crate::Exit;
use crate::server::tls::certificates;
use crate::tokens::is_token;

/// The port if the URL has none.
const PORT: u16 = 9480;

/// The longest token file.
const TOKEN: Limit = Limit { bytes: 4 << 10, of: "token files", remedy: "write the token alone, in one line" };

/// The longest file of a private key.
const KEY: Limit = Limit { bytes: 1 << 20, of: "PEM files", remedy: "check that this is the file that you mean" };

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Use the API on TCP at this URL instead of the socket: https://host:9480
    #[arg(long, global = true, value_name = "URL")]
    api: Option<Uri>,
    /// File with the token for --api, which only its owner can read
    #[arg(long, global = true, value_name = "FILE", env = "KNOCKCTL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Certificates in PEM form that may sign the certificate of --api; by default those of the system
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate in PEM form for --api, if it requires one; with --client-key
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Private key of the client certificate in PEM form
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

/// A way to the API.
pub(super) struct Api {
    url: String,
    /// Host and port.
    authority: String,
    host: String,
    port: u16,
    authorization: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        f.debug_struct("Api").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A connection.
pub(super) enum ApiStream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Arguments {
    /// Reads the files. `None` without `--api`.
    pub(super) fn read(&self) -> Result<Option<Api>, Failed> {
        let Some(url) = &self.api else { return Ok(None) };
        let usage = |what: &str| Failed::new(Exit::Usage, format!("--api {url} {what}"));
        let host =
            url.host().filter(|host| !host.is_empty()).ok_or_else(|| usage("has no host: write https://host:9480"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(usage("has a path: write only the scheme, the host and the port"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(PORT);
        let tls = match url.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| usage("has no valid host name"))?;
                Some((self.connector()?, name))
            }
            Some("http") if is_loopback(&host) => None,
            Some("http") => {
                return Err(usage("would send the token unencrypted over the network: write https://"));
            }
            _ => return Err(usage("is not a URL of http or https: write https://host:9480")),
        };
        let file = self.token_file.as_deref().ok_or_else(|| {
            Failed::new(Exit::Usage, "--api needs a token: name its file with --token-file or KNOCKCTL_TOKEN_FILE")
        })?;
        let token = read_token(file).map_err(|problem| Failed::new(Exit::Runtime, problem))?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failed::new(Exit::Runtime, format!("{} has no token", file.display())))?;
        authorization.set_sensitive(true);
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Some(Api { url: url.to_string(), authority, host, port, authorization, tls }))
    }

    fn connector(&self) -> Result<TlsConnector, Failed> {
        let failed = |problem: String| Failed::new(Exit::Runtime, problem);
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in certificates(file).map_err(failed)? {
                    let why =
                        |error| failed(format!("{} has a certificate that cannot be used: {error}", file.display()));
                    roots.add(certificate).map_err(why)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots);
        let config = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let (chain, key) = pair(certificate, key).map_err(failed)?;
                let why = |error| failed(format!("the client certificate {}: {error}", certificate.display()));
                builder.with_client_auth_cert(chain, key).map_err(why)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn pair(certificate: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let shown = key.display();
    let bytes = input::read(key, &KEY).map_err(|error| format!("the key {shown} {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| format!("the key {shown} is no private key in PEM form"))?;
    Ok((certificates(certificate)?, key))
}

/// Whether the host is this one, so that nobody else reads what is sent to it.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn read_token(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = input::read_text(file, &TOKEN).map_err(|error| format!("the token file {shown} {error}"))?;
    let mode =
        std::fs::metadata(file).map_err(|error| format!("the token file {shown} cannot be read: {error}"))?.mode();
    if mode & 0o077 != 0 {
        return Err(format!("the token file {shown} can be read by other users: run chmod 600 {shown}"));
    }
    let token = text.trim();
    match is_token(token) {
        true => Ok(token.to_owned()),
        false => Err(format!("{shown} has no token: write what `knockctl token new` printed, in one line")),
    }
}

impl Api {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Connects, with TLS if the URL has it.
    pub(super) async fn connect(&self) -> io::Result<ApiStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => {
                // `localhost` is whatever the resolver says.
                if !stream.peer_addr()?.ip().to_canonical().is_loopback() {
                    return Err(io::Error::other("the host is not this one, and the token would be sent unencrypted"));
                }
                Ok(ApiStream::Plain(stream))
            }
            Some((connector, name)) => Ok(ApiStream::Secure(Box::new(connector.connect(name.clone(), stream).await?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn arguments(url: &str, token_file: Option<&Path>) -> Arguments {
        Arguments {
            api: Some(url.parse().unwrap()),
            token_file: token_file.map(Path::to_owned),
            ca: None,
            client_certificate: None,
            client_key: None,
        }
    }

    #[test]
    fn a_token_is_sent_over_tls_or_to_this_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = format!("kp_{}", "A".repeat(43));
        fs::write(&file, format!("{token}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        for url in [
            "https://gate.example.net",
            "https://192.0.2.1:1",
            "http://127.0.0.1:9480",
            "http://[::1]/",
            "http://localhost:1",
        ] {
            let api = arguments(url, Some(&file)).read().unwrap().unwrap();
            assert_eq!(api.authorization, format!("Bearer {token}"));
            assert!(!format!("{api:?}").contains(&token));
        }
        assert_eq!(
            arguments("https://[2001:db8::1]", Some(&file)).read().unwrap().unwrap().authority,
            "[2001:db8::1]:9480"
        );
        for (url, said) in [
            ("http://192.0.2.1:9480", "unencrypted over the network: write https://"),
            ("http://gate.example.net", "unencrypted"),
            ("http://localhost.example.net", "unencrypted"),
            ("https://gate.example.net/api", "has a path"),
            ("ftp://127.0.0.1", "not a URL of http or https"),
        ] {
            let failed = arguments(url, Some(&file)).read().unwrap_err();
            assert!(failed.exit == Exit::Usage && failed.message.contains(said), "{url}: {}", failed.message);
        }
        let failed = arguments("http://127.0.0.1", None).read().unwrap_err();
        assert!(failed.message.contains("--token-file"), "{}", failed.message);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let failed = arguments("http://127.0.0.1", Some(&file)).read().unwrap_err();
        assert!(failed.message.contains("chmod 600"), "{}", failed.message);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "secret words").unwrap();
        let failed = arguments("http://127.0.0.1", Some(&file)).read().unwrap_err();
        assert!(failed.message.contains("has no token") && !failed.message.contains("secret"), "{}", failed.message);
    }
}
