//! The certificates that are in use, and the start of TLS on a connection.

#![allow(clippy::disallowed_methods, reason = "certificates are no files of the engine's")]

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::settings::{ClientCertificates, TlsSettings, TlsVersion};
use super::socket::Socket;

/// The reason why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{setting}: cannot read {path}")]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file has nothing that can be used.
    #[error("{setting}: {path} has no {what} in PEM")]
    Empty {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What it must have.
        what: &'static str,
    },
    /// The files do not belong together, or have something that cannot be used.
    #[error("{path} cannot be used: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A setting is missing.
    #[error("{0}")]
    Setting(String),
}

/// Starts TLS on connections, with the certificates of its files.
pub struct Acceptor {
    settings: TlsSettings,
    used: Mutex<Used>,
}

/// What was read from the files.
struct Used {
    config: Arc<ServerConfig>,
    /// The files as they were before they were read.
    stamps: Vec<Stamp>,
}

/// What changes when a file is replaced or written; `None`: it cannot be found.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Acceptor {
    /// Reads the files.
    pub fn load(settings: &TlsSettings) -> Result<Acceptor, TlsError> {
        let stamps = stamps(settings);
        let config = read(settings)?;
        Ok(Acceptor { settings: settings.clone(), used: Mutex::new(Used { config, stamps }) })
    }

    /// The current settings of rustls, for one connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.used.lock().config)
    }

    /// Starts TLS on a connection that was accepted. Does not wait for the handshake, which is a
    /// part of reading.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Socket> {
        let connection = ServerConnection::new(self.config()).map_err(io::Error::other)?;
        Ok(Socket::encrypted(socket, connection))
    }

    /// Reads the files again, for new connections. With an error the old certificates stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.settings);
        let read = read(&self.settings);
        let mut used = self.used.lock();
        // A file that is bad is read again only when it has changed.
        used.stamps = stamps;
        used.config = read?;
        Ok(())
    }

    /// The same if a file has changed. Returns whether one has.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if stamps(&self.settings) == self.used.lock().stamps {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }
}

fn stamps(settings: &TlsSettings) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
    };
    let files = [&settings.certificate, &settings.key, &settings.client_ca];
    files.into_iter().flatten().map(stamp).collect()
}

fn read(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificate, key) = (settings.certificate(), settings.key());
    let certificate = certificate.map_err(TlsError::Setting)?;
    let unusable = |path: &Path, why: &dyn ToString| TlsError::Unusable {
        path: path.to_path_buf(),
        why: why.to_string(),
    };
    let versions: &[_] = match settings.minimum_version {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(certificate, &error))?;
    let builder = match settings.client_ca().map_err(TlsError::Setting)? {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates("tls.client_ca", path)? {
                roots.add(root).map_err(|error| unusable(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match settings.client_certificates {
                ClientCertificates::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| unusable(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = key.map_err(TlsError::Setting)?;
    let config = builder
        .with_single_cert(certificates("tls.certificate", certificate)?, private_key(key)?)
        .map_err(|error| unusable(certificate, &format!("{error} (key: {})", key.display())))?;
    Ok(Arc::new(config))
}

fn bytes_of(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unread = |source| TlsError::Read { setting, path: path.to_path_buf(), source };
    std::fs::read(path).map_err(unread)
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes_of(setting, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if found.is_empty() {
        return Err(TlsError::Empty { setting, path: path.to_path_buf(), what: "certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let setting = "tls.key";
    let empty = || TlsError::Empty { setting, path: path.to_path_buf(), what: "private key" };
    // The error does not repeat any of the text, which is a secret.
    PrivateKeyDer::from_pem_slice(&bytes_of(setting, path)?).map_err(|_| empty())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// Files with a new certificate, and another number for each.
    fn write(folder: &TempDir, names: &[&str]) {
        let made = generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let CertifiedKey { cert, signing_key } = made;
        for name in names {
            let text = if *name == "key" { signing_key.serialize_pem() } else { cert.pem() };
            std::fs::write(folder.path().join(name), text).expect("it is written");
        }
    }

    fn settings(folder: &TempDir) -> TlsSettings {
        TlsSettings {
            port: Some(0),
            certificate: Some(folder.path().join("certificate")),
            key: Some(folder.path().join("key")),
            ..TlsSettings::default()
        }
    }

    #[test]
    fn changed_files_are_read_again_and_bad_ones_leave_the_old_in_use() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        write(&folder, &["certificate", "key"]);
        let acceptor = Acceptor::load(&settings(&folder)).expect("they belong together");
        let first = acceptor.config();
        let is_first = |acceptor: &Acceptor| Arc::ptr_eq(&first, &acceptor.config());
        assert!(acceptor.reload_if_changed().is_ok_and(|changed| !changed));
        // The key of another certificate.
        write(&folder, &["key"]);
        let wrong = acceptor.reload_if_changed().expect_err("they do not belong together");
        assert!(wrong.to_string().contains("key"), "{wrong}");
        assert!(acceptor.reload_if_changed().is_ok_and(|changed| !changed), "reported once");
        assert!(acceptor.reload().is_err() && is_first(&acceptor));
        write(&folder, &["certificate", "key"]);
        assert!(acceptor.reload_if_changed().is_ok_and(|changed| changed));
        assert!(!is_first(&acceptor));
    }

    #[test]
    fn errors_name_the_file_and_never_its_text() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let error = || {
            let error = Acceptor::load(&settings(&folder)).err().expect("it is refused");
            format!("{:#}", anyhow::Error::from(error))
        };
        assert!(error().starts_with("tls.certificate: cannot read "), "{}", error());
        assert!(error().contains("certificate: No such file"), "{}", error());
        write(&folder, &["certificate"]);
        std::fs::write(folder.path().join("key"), "open sesame").expect("it is written");
        let text = error();
        assert!(text.ends_with("key has no private key in PEM"), "{text}");
        write(&folder, &["key"]);
        assert!(error().contains("cannot be used"), "{}", error());
        std::fs::write(folder.path().join("certificate"), "").expect("it is written");
        assert!(error().ends_with("certificate has no certificate in PEM"), "{}", error());
    }
}
