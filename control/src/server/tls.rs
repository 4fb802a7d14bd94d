//! TLS of the API: the certificate with its key, and the authority of client certificates. All are read again when their files
//! change, without a restart. Files that are not valid change nothing, and are logged and counted.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use knockplane_limits::input::{self, InputError, Limit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::handshakes::HandshakeFailures;
use crate::settings::api::TlsFiles;

/// Interval at which the files are compared.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The longest PEM file: hundreds of certificates.
const PEM: Limit = Limit { bytes: 1 << 20, of: "PEM files", remedy: "check that this is the file that you mean" };

/// The state of a file. A replaced file has another time or another inode.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Failures of TLS since start.
#[derive(Debug, Default)]
pub(crate) struct TlsFailures {
    /// Changed files that were not valid.
    pub(crate) files: AtomicU64,
    pub(crate) handshakes: HandshakeFailures,
}

/// The certificate that is in use.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
    stamps: Mutex<Vec<Stamp>>,
    pub(super) failures: Arc<TlsFailures>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// The file that is not valid, the reason and the remedy.
    pub(crate) fn load(files: TlsFiles, failures: Arc<TlsFailures>) -> Result<Self, String> {
        let stamps = Mutex::new(stamps(&files));
        let config = RwLock::new(Arc::new(read(&files)?));
        Ok(Certificates { files, config, stamps, failures })
    }

    /// The acceptor with the present certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Reads the files again if they have changed.
    pub(crate) fn reload(&self) {
        let now = stamps(&self.files);
        {
            let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            if *known == now {
                return;
            }
            *known = now;
        }
        match read(&self.files) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                info!(certificate = %self.files.certificate.display(), "the certificate of the API was read again");
            }
            Err(problem) => {
                self.failures.files.fetch_add(1, Relaxed);
                warn!("the certificate of the API is not replaced, and the old one remains in use: {problem}");
            }
        }
    }

    /// Compares the files at intervals, without end.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let own = Arc::clone(&self);
            // A slow disk delays no request.
            let _ = tokio::task::spawn_blocking(move || own.reload()).await;
        }
    }
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
    };
    let TlsFiles { certificate, key, client_ca } = files;
    [Some(certificate), Some(key), client_ca.as_ref()].into_iter().flatten().map(|path| stamp(path)).collect()
}

fn read(files: &TlsFiles) -> Result<ServerConfig, String> {
    let TlsFiles { certificate, key, client_ca } = files;
    let chain = certificates(certificate)?;
    let private = {
        let bytes = input::read_trusted(key, &PEM).map_err(|error| format!("the key {} {error}", key.display()))?;
        // The text of the error could contain a part of the key.
        PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| format!("the key {} is no private key in PEM form: check the file", key.display()))?
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            // Whoever can change this file can sign client certificates.
            for authority in chain_of(path, input::read_trusted(path, &PEM))? {
                roots.add(authority).map_err(|error| {
                    format!("{} has a certificate that cannot be an authority: {error}", path.display())
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("{} cannot verify client certificates: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the certificate {certificate} does not belong to the key {key}: name the files of one pair")
            }
            error => format!("the certificate {certificate} with the key {key} cannot be used: {error}"),
        }
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    chain_of(path, input::read(path, &PEM))
}

/// The certificates in the content of a PEM file.
fn chain_of(path: &Path, content: Result<Vec<u8>, InputError>) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let bytes = content.map_err(|error| format!("the certificate {shown} {error}"))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|error| format!("the certificate {shown} cannot be read: {error}"))?;
    match read.is_empty() {
        true => Err(format!("{shown} has no certificate in PEM form: check the file")),
        false => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn pair(dir: &Path, name: &str) -> TlsFiles {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        TlsFiles { certificate, key, client_ca: None }
    }

    #[test]
    fn each_problem_names_its_file_and_no_part_of_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (pair(dir.path(), "one"), pair(dir.path(), "other"));
        assert!(read(&one).is_ok());
        let mixed = TlsFiles { key: other.key.clone(), ..one.clone() };
        let error = read(&mixed).unwrap_err();
        assert!(error.contains("one.pem") && error.contains("other.key") && error.contains("one pair"), "{error}");
        let error = read(&TlsFiles { certificate: one.key.clone(), ..one.clone() }).unwrap_err();
        assert!(error.contains("one.key has no certificate"), "{error}");
        let text = fs::read_to_string(&one.key).unwrap();
        fs::write(&one.key, &text[..text.len() / 2]).unwrap();
        let error = read(&one).unwrap_err();
        assert!(error.contains("one.key is no private key") && !error.contains(&text[40..60]), "{error}");
        let error = read(&TlsFiles { client_ca: Some("/nonexistent.pem".into()), ..other.clone() }).unwrap_err();
        assert!(error.contains("/nonexistent.pem"), "{error}");
        let with_authority = TlsFiles { client_ca: Some(one.certificate.clone()), ..other };
        assert!(read(&with_authority).is_ok());
        fs::set_permissions(&one.certificate, fs::Permissions::from_mode(0o666)).unwrap();
        let error = read(&with_authority).unwrap_err();
        assert!(error.contains("one.pem can be written by all users; run: chmod go-w "), "{error}");
    }

    #[test]
    fn a_changed_pair_is_used_and_an_invalid_one_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path(), "one");
        let failures = Arc::new(TlsFailures::default());
        let certificates = Certificates::load(files.clone(), Arc::clone(&failures)).unwrap();
        let present = || Arc::as_ptr(&*certificates.config.read().unwrap());
        let first = present();
        certificates.reload();
        assert_eq!((present(), failures.files.load(Relaxed)), (first, 0));
        fs::write(&files.certificate, "no certificate").unwrap();
        certificates.reload();
        certificates.reload();
        assert_eq!((present(), failures.files.load(Relaxed)), (first, 1), "once for each change");
        pair(dir.path(), "one");
        certificates.reload();
        assert_ne!(present(), first);
    }
}
