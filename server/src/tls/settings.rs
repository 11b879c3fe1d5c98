//! The settings of TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The section `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The port for TLS; 0: any free port. Without it there is no TLS.
    pub port: Option<u16>,
    /// The address to listen on for TLS, if it is not the one of the plain port.
    pub bind: Option<IpAddr>,
    /// The PEM file with the certificate of the server, and those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// The PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// The PEM file with the certificates of the authorities of clients.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// The oldest version of TLS that is accepted.
    pub minimum_version: TlsVersion,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    None,
    /// They may show one; it must be valid.
    Optional,
    /// They must show one.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

impl TlsSettings {
    /// Refuses settings that lack a file.
    pub fn check(&self) -> Result<(), String> {
        self.certificate()?;
        self.key()?;
        self.client_ca().map(drop)
    }

    /// The file of the certificate.
    pub(super) fn certificate(&self) -> Result<&Path, String> {
        file(self.certificate.as_ref(), "tls.certificate", "there is a port with TLS")
    }

    /// The file of the key.
    pub(super) fn key(&self) -> Result<&Path, String> {
        file(self.key.as_ref(), "tls.key", "there is a port with TLS")
    }

    /// The file of the authorities of clients, if clients are asked for certificates.
    pub(super) fn client_ca(&self) -> Result<Option<&Path>, String> {
        if self.client_certificates == ClientCertificates::None {
            return Ok(None);
        }
        let reason = "tls.client_certificates is not none";
        file(self.client_ca.as_ref(), "tls.client_ca", reason).map(Some)
    }
}

/// A file that must be given.
fn file<'a>(path: Option<&'a PathBuf>, name: &str, reason: &str) -> Result<&'a Path, String> {
    path.filter(|path| !path.as_os_str().is_empty())
        .map(PathBuf::as_path)
        .ok_or_else(|| format!("{name} is not set, and must be, since {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_needed_must_be_given() {
        let mut settings = TlsSettings::default();
        let needs = |settings: &TlsSettings| settings.check().expect_err("a file is missing");
        assert!(needs(&settings).starts_with("tls.certificate is not set"));
        settings.certificate = Some("certificate.pem".into());
        settings.key = Some(PathBuf::new());
        assert!(needs(&settings).starts_with("tls.key is not set"));
        settings.key = Some("key.pem".into());
        assert_eq!(settings.check(), Ok(()));
        settings.client_certificates = ClientCertificates::Optional;
        assert!(needs(&settings).starts_with("tls.client_ca is not set"));
    }
}
