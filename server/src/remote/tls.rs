//! TLS on the client's side, by rustls.
//!
//! The server's certificate is always checked: against the certificates of a file, or against those
//! that the operating system trusts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error, RootCertStore};

/// A handshake failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsProblem(String);

/// How TLS is used.
#[derive(Args, Clone)]
pub struct TlsArguments {
    /// Connect by TLS.
    #[arg(long)]
    tls: bool,
    /// Trust the certificates in this PEM file, not those of the operating system. Implies --tls.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Show the certificate in this PEM file to the server.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of --cert, a PEM file.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArguments {
    /// Whether an option asks for TLS.
    pub fn is_wanted(&self) -> bool {
        self.tls || self.cacert.is_some() || self.cert.is_some()
    }
}

/// The trusted certificates, and the own one.
pub struct ClientTls(Arc<ClientConfig>);

/// Reads the files.
pub fn settings(arguments: &TlsArguments) -> anyhow::Result<ClientTls> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &arguments.cacert {
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| in_file(path))?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    anyhow::ensure!(!roots.is_empty(), "no certificate is trusted: name a file with --cacert");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .with_root_certificates(roots);
    let config = match (&arguments.cert, &arguments.key) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).with_context(|| in_file(key))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .with_context(|| in_file(certificate))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(ClientTls(Arc::new(config)))
}

fn in_file(path: &Path) -> String {
    format!("cannot use {} for TLS", path.display())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.with_context(|| in_file(path))?;
    anyhow::ensure!(!found.is_empty(), "{}: there is no certificate in it", in_file(path));
    Ok(found)
}

/// The problem that the server wants a certificate of the client's, if it is that. In TLS 1.3 it
/// says so after the handshake.
pub fn certificate_wanted(problem: &io::Error) -> Option<TlsProblem> {
    let of_tls = problem.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let is_wanted =
        matches!(of_tls, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
    is_wanted.then(|| TlsProblem("the server wants a certificate: --cert and --key".into()))
}

/// Does the handshake.
pub async fn secure(
    settings: &ClientTls,
    host: &str,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsProblem> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| TlsProblem(format!("{host} is no name that a certificate can have")))?;
    let connector = TlsConnector::from(Arc::clone(&settings.0));
    connector.connect(name, socket).await.map_err(|problem| {
        if let Some(refused) = certificate_wanted(&problem) {
            return refused;
        }
        TlsProblem(format!(
            "the TLS handshake failed: {problem}; does this port speak TLS, and is the server's \
             certificate signed by one in --cacert?"
        ))
    })
}
