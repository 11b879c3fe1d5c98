//! TLS by rustls: the settings, the certificates that are in use, and a socket that is plain or
//! encrypted and is read and written in the same way.
//!
//! ```text
//! acceptor ── accept ──▶ socket ──▶ session
//!    ▲
//! settings, files
//! ```
//!
//! A certificate whose files change is loaded again; a bad new file leaves the old one in use. It
//! knows nothing of commands, users or the listener.

mod acceptor;
mod name;
mod settings;
mod socket;

pub use acceptor::{Acceptor, TlsError};
pub use settings::{ClientCertificates, TlsSettings, TlsVersion};
pub use socket::Socket;
