//! Which server a verb talks to, and as whom: the options that all of these verbs have.
//!
//! A password never comes from the command line, since other users of the machine can read that: it
//! comes from `STRANDLINE_PASSWORD`, from a file, or from a person at a terminal.

use std::env;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use console::Term;

use super::address::Address;
use super::frame::Frame;
use super::link::{Link, LinkError};
use super::tls::{self, ClientTls, TlsArguments};

/// Where the password is read from.
const PASSWORD_VARIABLE: &str = "STRANDLINE_PASSWORD";

/// The server, and the user.
#[derive(Args, Clone)]
pub struct ServerArguments {
    /// The server: HOST:PORT, or strandline://USER@HOST:PORT; strandlines:// for TLS.
    ///
    /// `redis://` and `rediss://` mean the same. The password is read from the environment
    /// variable `STRANDLINE_PASSWORD`.
    #[arg(long, short = 'a', value_name = "ADDR", default_value = "127.0.0.1:7411")]
    address: Address,
    /// The user to log in as.
    #[arg(long, short = 'u', value_name = "NAME")]
    login: Option<String>,
    /// A file whose first line is the password, or a terminal's token.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArguments,
}

impl ServerArguments {
    /// The same with another address, if one is given.
    pub fn at(mut self, address: Option<Address>) -> ServerArguments {
        self.address = address.unwrap_or(self.address);
        self
    }

    /// Reads what is needed for a login.
    pub fn login(self) -> anyhow::Result<Login> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the password of {}", path.display()))?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            None => env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()),
        };
        let is_secure = self.address.is_secure || self.tls.is_wanted();
        let tls = is_secure.then(|| tls::settings(&self.tls)).transpose()?;
        let user = self.login.or_else(|| self.address.user.clone());
        Ok(Login { address: self.address, user, password, tls: tls.map(Arc::new) })
    }
}

/// All that is needed to connect, again and again.
#[derive(Clone)]
pub struct Login {
    /// The server.
    pub address: Address,
    user: Option<String>,
    password: Option<String>,
    tls: Option<Arc<ClientTls>>,
}

/// The reason why there is no connection that is logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginProblem {
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The server wants a password.
    #[error("the server wants a password: set {PASSWORD_VARIABLE}, or use --password-file")]
    NoPassword,
    /// The server refused it.
    #[error("the login was refused: {0}")]
    Refused(String),
}

impl LoginProblem {
    /// Whether it may help to try again later.
    pub fn may_pass(&self) -> bool {
        matches!(self, LoginProblem::Link(LinkError::Connect { .. } | LinkError::Lost(_)))
    }
}

impl Login {
    /// Asks a person for the password, if the server wants one and none is known.
    pub async fn complete(&mut self) -> Result<Link, LoginProblem> {
        match self.open().await {
            Err(LoginProblem::NoPassword) if io::stdin().is_terminal() => {
                let terminal = Term::stderr();
                let asked = terminal.write_str(&format!("Password for {}: ", self.address));
                let answer = asked.and_then(|()| terminal.read_secure_line());
                let Some(password) = answer.ok().filter(|password| !password.is_empty()) else {
                    return Err(LoginProblem::NoPassword);
                };
                self.password = Some(password);
                self.open().await
            }
            opened => opened,
        }
    }

    /// Connects, logs in, and chooses RESP3.
    pub async fn open(&self) -> Result<Link, LoginProblem> {
        let mut link = Link::connect(&self.address, self.tls.as_deref()).await?;
        self.greet(&mut link).await?;
        Ok(link)
    }

    async fn greet(&self, link: &mut Link) -> Result<(), LoginProblem> {
        if let Some(password) = &self.password {
            let words = match &self.user {
                Some(user) => vec!["AUTH", user, password],
                None => vec!["AUTH", password],
            };
            match link.call(&words).await? {
                // No user has a password: there is nothing to prove.
                Frame::Error(text) if self.user.is_none() && is_open(&text) => {}
                Frame::Error(text) => return Err(LoginProblem::Refused(text)),
                _ => {}
            }
        }
        match link.call(&["HELLO", "3"]).await? {
            Frame::Error(text) if text.starts_with("NOAUTH") && self.password.is_none() => {
                Err(LoginProblem::NoPassword)
            }
            Frame::Error(text) => Err(LoginProblem::Refused(text)),
            _ => Ok(()),
        }
    }
}

/// Whether AUTH was refused since the server has no password, in the words of Redis.
fn is_open(text: &str) -> bool {
    text.contains("without any password configured")
}
