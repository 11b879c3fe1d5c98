//! A connection to a server: sends commands, receives replies and push frames.
//!
//! Receiving can be cancelled and tried again without a loss: bytes stay in the buffer until a
//! frame is complete.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Address;
use super::frame::{Frame, NotResp};
use super::tls::{self, ClientTls, TlsProblem, certificate_wanted};

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Room for the bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// The beginning of an alert of TLS, with which a server refuses bytes that are no TLS.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];

/// A socket, with or without TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// The connection cannot be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing accepts connections.
    #[error(
        "cannot connect to {address}: {problem}; is the server running there? \
         (strandline serve --port {port})"
    )]
    Connect {
        /// The host and port.
        address: String,
        /// The port alone.
        port: u16,
        /// The error of the operating system.
        problem: io::Error,
    },
    /// The connection ended or broke.
    #[error("the connection to the server is lost: {0}")]
    Lost(io::Error),
    /// The peer is no server of this kind.
    #[error(transparent)]
    NotResp(#[from] NotResp),
    /// The server answers with a message of TLS.
    #[error("this port speaks TLS: add --tls (and --cacert)")]
    NeedsTls,
    /// The handshake of TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
}

/// A connection.
pub struct Link {
    wire: Box<dyn Wire>,
    input: BytesMut,
    /// Push frames that arrived before a reply.
    pushed: VecDeque<Frame>,
}

impl Link {
    /// Connects.
    pub async fn connect(address: &Address, tls: Option<&ClientTls>) -> Result<Link, LinkError> {
        let failed = |problem| LinkError::Connect {
            address: address.to_string(),
            port: address.port,
            problem,
        };
        let target = (address.host.as_str(), address.port);
        let connected = timeout(CONNECT_PATIENCE, TcpStream::connect(target)).await;
        let socket =
            connected.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        socket.set_nodelay(true).map_err(LinkError::Lost)?;
        let wire: Box<dyn Wire> = match tls {
            None => Box::new(socket),
            Some(settings) => {
                let secured = tls::secure(settings, &address.host, socket);
                let secured = timeout(CONNECT_PATIENCE, secured).await;
                Box::new(secured.map_err(|_| failed(io::ErrorKind::TimedOut.into()))??)
            }
        };
        Ok(Link { wire, input: BytesMut::new(), pushed: VecDeque::new() })
    }

    /// Sends a command.
    pub async fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<(), LinkError> {
        let mut out = Vec::new();
        write_command(&mut out, words);
        self.send_bytes(&out).await
    }

    /// Sends commands that are written already.
    pub async fn send_bytes(&mut self, commands: &[u8]) -> Result<(), LinkError> {
        let sent = async {
            self.wire.write_all(commands).await?;
            self.wire.flush().await
        };
        sent.await.map_err(LinkError::Lost)
    }

    /// The next frame, of any kind.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        if let Some(frame) = self.pushed.pop_front() {
            return Ok(frame);
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Frame, LinkError> {
        let length = self.arrived().await?;
        Ok(Frame::decode(&self.input.split_to(length).freeze())?)
    }

    /// Receives a reply without its value; returns whether it is an error, as text.
    pub async fn pass(&mut self) -> Result<Option<String>, LinkError> {
        let length = self.arrived().await?;
        if matches!(self.input.first(), Some(b'-' | b'!')) {
            return Ok(Some(Frame::decode(&self.input.split_to(length).freeze())?.text()));
        }
        drop(self.input.split_to(length));
        Ok(None)
    }

    /// Waits for a complete frame; returns its length.
    async fn arrived(&mut self) -> Result<usize, LinkError> {
        loop {
            if self.input.starts_with(&TLS_ALERT) {
                return Err(LinkError::NeedsTls);
            }
            if let Some(length) = Frame::length(&self.input)? {
                return Ok(length);
            }
            self.input.reserve(READ_BYTES);
            let lost =
                |problem| certificate_wanted(&problem).map_or(LinkError::Lost(problem), Into::into);
            if self.wire.read_buf(&mut self.input).await.map_err(lost)? == 0 {
                return Err(LinkError::Lost(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed it",
                )));
            }
        }
    }

    /// Whether a frame can be returned without waiting.
    pub fn has_frame(&self) -> bool {
        !self.pushed.is_empty() || !matches!(Frame::length(&self.input), Ok(None))
    }

    /// Sends a command and waits for its reply. Push frames that come before it are kept.
    pub async fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Frame, LinkError> {
        self.send(words).await?;
        loop {
            match self.receive().await? {
                push @ Frame::Push(_) => self.pushed.push_back(push),
                reply => return Ok(reply),
            }
        }
    }
}

/// Appends a command to `out`.
pub fn write_command<W: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[W]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"TL.LAST".as_slice(), b"messages:\r\n"]);
        assert_eq!(out, b"*2\r\n$7\r\nTL.LAST\r\n$11\r\nmessages:\r\n\r\n");
    }
}
