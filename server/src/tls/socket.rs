//! A socket that is plain or encrypted. Reads and writes never wait, and have the meaning of those
//! of a `TcpStream`: `WouldBlock` means that [`Socket::ready`] wakes when it is worth trying again.
//!
//! The handshake is a part of reading: bytes of the peer advance it, and its answers are written
//! like any other output. Encrypted output that the kernel did not take is kept here, at most one
//! record of it: until it is sent, nothing more is taken. A handshake may have a limited number of
//! bytes, so that a stranger holds a limited amount of memory.

use std::io::{self, BufRead as _, ErrorKind, IoSlice, Read, Write};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest, Ready};
use tokio::net::TcpStream;

use super::name::subject_name;

/// The output that is encrypted at once: the largest record.
const RECORD_BYTES: usize = 16 * 1024;

/// The most bytes that the peer may send before the handshake is complete: a chain of a dozen
/// certificates fits.
const HANDSHAKE_BYTES: usize = 32 * 1024;

/// A socket of a connection.
pub enum Socket {
    /// It is not encrypted.
    Plain(TcpStream),
    /// TLS.
    Encrypted(Box<EncryptedSocket>),
}

/// A socket with TLS.
pub struct EncryptedSocket {
    socket: TcpStream,
    tls: ServerConnection,
    /// The bytes that came before the handshake was complete.
    handshake_bytes: usize,
    /// The decrypted bytes that were not read yet.
    unread: usize,
    /// The encrypted bytes that were not sent yet.
    unsent: usize,
}

/// Reads and writes of the TCP socket, for rustls.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// A socket with TLS, whose handshake has not begun.
    pub fn encrypted(socket: TcpStream, tls: ServerConnection) -> Socket {
        let handshake_bytes = 0;
        let encrypted = EncryptedSocket { socket, tls, handshake_bytes, unread: 0, unsent: 0 };
        Socket::Encrypted(Box::new(encrypted))
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(socket) => socket,
            Socket::Encrypted(encrypted) => &encrypted.socket,
        }
    }

    fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Socket::Plain(socket) => socket,
            Socket::Encrypted(encrypted) => &mut encrypted.socket,
        }
    }

    /// Reads into the free space of a buffer. 0: the input has ended.
    pub fn try_read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Socket::Plain(socket) => socket.try_read_buf(buffer),
            Socket::Encrypted(encrypted) => encrypted.read(buffer),
        }
    }

    /// Writes a part of the bytes.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(socket) => socket.try_write(bytes),
            Socket::Encrypted(encrypted) => encrypted.write(bytes),
        }
    }

    /// Sends encrypted output, as far as the kernel takes it. Returns whether it took any.
    pub fn try_flush(&mut self) -> io::Result<bool> {
        match self {
            Socket::Plain(_) => Ok(false),
            Socket::Encrypted(encrypted) => encrypted.flush(),
        }
    }

    /// Whether encrypted output is not sent yet.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Socket::Encrypted(encrypted) if encrypted.tls.wants_write())
    }

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Socket::Encrypted(encrypted) if encrypted.tls.is_handshaking())
    }

    /// The bytes of input and of output that are held here.
    pub fn held_bytes(&self) -> (usize, usize) {
        match self {
            Socket::Plain(_) => (0, 0),
            Socket::Encrypted(encrypted) if encrypted.tls.is_handshaking() => {
                (encrypted.handshake_bytes, encrypted.unsent)
            }
            Socket::Encrypted(encrypted) => (encrypted.unread, encrypted.unsent),
        }
    }

    /// The common name in the certificate that the peer has shown.
    pub fn peer_name(&self) -> Option<Box<str>> {
        match self {
            Socket::Plain(_) => None,
            Socket::Encrypted(encrypted) => {
                subject_name(encrypted.tls.peer_certificates()?.first()?)
            }
        }
    }

    /// Waits until one of these is possible.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if let Socket::Encrypted(encrypted) = self
            && encrypted.unread > 0
            && interest.is_readable()
        {
            return Ok(Ready::READABLE);
        }
        self.tcp().ready(interest).await
    }

    /// The error of the socket, if there is one.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.tcp().take_error()
    }

    /// Tells the peer that nothing more is sent, if that is possible at once.
    pub fn try_goodbye(&mut self) {
        if let Socket::Encrypted(encrypted) = self {
            encrypted.tls.send_close_notify();
            // The connection ends whether the socket takes it or not.
            let _ = encrypted.flush();
        }
    }

    /// Closes the sending half.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        if let Socket::Encrypted(encrypted) = self {
            encrypted.tls.send_close_notify();
            encrypted.flush()?;
            while encrypted.tls.wants_write() {
                encrypted.socket.writable().await?;
                encrypted.flush()?;
            }
        }
        self.tcp_mut().shutdown().await
    }

    /// Reads and drops input of a connection that is being closed. 0: it has ended.
    pub async fn discard(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let count = self.tcp_mut().read_buf(buffer).await?;
        buffer.clear();
        Ok(count)
    }
}

impl EncryptedSocket {
    fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok(chunk) => {
                    let count = chunk.len().min(buffer.capacity() - buffer.len());
                    buffer.extend_from_slice(&chunk[..count]);
                    reader.consume(count);
                    self.unread = self.unread.saturating_sub(count);
                    return Ok(count);
                }
                // Many clients close the connection without a word. A request that is cut off is
                // not complete, and does not run.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the TCP socket once, and answers as TLS demands.
    fn receive(&mut self) -> io::Result<()> {
        let was_handshaking = self.tls.is_handshaking();
        let count = self.tls.read_tls(&mut Raw(&self.socket))?;
        if let Err(problem) = self.tls.process_new_packets() {
            // The alert, for whoever looks at the client's log.
            let _ = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        if was_handshaking {
            self.handshake_bytes += count;
            if self.tls.is_handshaking() && self.handshake_bytes > HANDSHAKE_BYTES {
                let text = format!("the TLS handshake has more than {HANDSHAKE_BYTES} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
        }
        self.flush().map(drop)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.tls.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.tls.writer().write(&bytes[..bytes.len().min(RECORD_BYTES)])?;
        self.flush()?;
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut sent = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Raw(&self.socket)) {
                Ok(count) => sent |= count > 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // There is nothing new to process: this only counts. After an error nothing counts.
        if let Ok(state) = self.tls.process_new_packets() {
            self.unread = state.plaintext_bytes_to_read();
            self.unsent = state.tls_bytes_to_write();
        }
        Ok(sent)
    }
}
