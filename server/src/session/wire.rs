//! The socket of a session: reads and writes that never wait.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Session;
use crate::memory::{FLOOR_BYTES, Held, STRANGER_INPUT_BYTES, STRANGER_READ_BYTES};
use crate::notices::NoticeKind;

/// The minimum size of a read.
const READ_BYTES: usize = 16 * 1024;

/// The maximum size of a read: a large body arrives in fewer, larger pieces, in proportion to the
/// part that has arrived.
const MAX_READ_BYTES: usize = 256 * 1024;

/// How long, and for how many bytes, a connection that is being closed still reads.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Whether input is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is read.
    Yes,
    /// Not until there is memory for it.
    NoRoom,
    /// Not until the connection has made progress.
    No,
}

impl Session {
    /// Whether more input may be read. A little is always read, so that a client that is gone is
    /// noticed. While commands run, the limits are the decoder's own bounds and the memory of all
    /// connections. While they may not run, input is read ahead, up to a limit for this connection
    /// and one for all.
    pub(super) fn reading(&self) -> Reading {
        if self.input_ended || self.closing {
            return Reading::No;
        }
        if self.is_stranger() {
            return if self.decoder.buffered() < STRANGER_INPUT_BYTES {
                Reading::Yes
            } else {
                Reading::No
            };
        }
        if self.decoder.buffered() < FLOOR_BYTES {
            return Reading::Yes;
        }
        if !self.shared.memory.input.has_room(0) {
            return Reading::NoRoom;
        }
        if !self.reads_ahead() {
            return Reading::Yes;
        }
        let limits = self.limits();
        let may_read_ahead = self.decoder.buffered() < limits.read_ahead_bytes
            && self.shared.read_ahead_bytes.load(Ordering::Relaxed)
                < limits.shared_read_ahead_bytes();
        if may_read_ahead { Reading::Yes } else { Reading::No }
    }

    /// Whether commands that are read cannot run now.
    fn reads_ahead(&self) -> bool {
        self.is_busy() || self.is_full() || self.short_of.is_some()
    }

    /// Reads from the socket once. Returns whether anything arrived, including the end of the
    /// input.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        if self.reading() != Reading::Yes {
            return Ok(false);
        }
        let room = if self.is_stranger() {
            STRANGER_READ_BYTES
        } else {
            self.decoder.buffered().clamp(READ_BYTES, MAX_READ_BYTES)
        };
        let buffer = self.decoder.buffer();
        buffer.reserve(room);
        let was_handshaking = self.socket.is_handshaking();
        let outcome = self.socket.try_read_buf(buffer);
        if was_handshaking {
            self.note_handshake(&outcome);
        }
        match outcome {
            Ok(0) => {
                self.input_ended = true;
                Ok(true)
            }
            Ok(count) => {
                self.shared.metrics.input_bytes.add(count as u64);
                self.input_pace.add(count);
                self.connection.client.received_bytes.fetch_add(count as u64, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.decoder.rest();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes the end of the TLS handshake, or its failure.
    fn note_handshake(&mut self, outcome: &io::Result<usize>) {
        if !self.socket.is_handshaking()
            && let Some(name) = self.socket.peer_name()
        {
            self.connection.show_certificate(name, &self.shared);
        }
        match outcome {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                self.shared.note(NoticeKind::Handshake, &self.connection.client, error);
            }
            _ => {}
        }
    }

    /// Writes as much as the socket takes. Returns whether it took anything.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while !self.connection.out.is_empty() {
            match self.socket.try_write(self.connection.out.waiting()) {
                Ok(count) => {
                    self.connection.out.take(count);
                    self.output_pace.add(count);
                    self.connection.client.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
                    self.shared.metrics.output_bytes.add(count as u64);
                    moved |= count > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.socket.has_unsent() {
            moved |= self.socket.try_flush()?;
        }
        Ok(moved)
    }

    /// Closes the sending half, and waits for the client to do the same. Closing a socket with
    /// unread input resets the connection, and the reset may overtake the last reply, which is
    /// usually the error that explains the close.
    pub(super) async fn linger(&mut self) {
        let shut_down = timeout(LINGER, self.socket.shutdown()).await;
        if !matches!(shut_down, Ok(Ok(()))) || self.input_ended {
            return;
        }
        let mut unread = Vec::with_capacity(READ_BYTES);
        let mut left = LINGER_BYTES;
        let listening = async {
            while let Ok(count @ 1..) = self.socket.discard(&mut unread).await
                && count < left
            {
                left -= count;
            }
        };
        // The connection ends in either case.
        let _ = timeout(LINGER, listening).await;
    }

    /// Updates this connection's part of the memory of all connections.
    pub(super) fn note_memory(&mut self) {
        let pending: usize = self.pending.iter().flatten().map(Bytes::len).sum();
        let (socket_input, socket_output) = self.socket.held_bytes();
        let input = self.decoder.held_bytes() + pending + self.writing_bytes + socket_input;
        let output = self.connection.out.held_bytes() + socket_output;
        let client = &self.connection.client;
        let [held_in, held_out] = &client.held_bytes;
        held_in.store(input, Ordering::Relaxed);
        held_out.store(output, Ordering::Relaxed);
        let [waits_in, waits_out] = &client.waiting_bytes;
        waits_in.store(self.decoder.buffered(), Ordering::Relaxed);
        waits_out.store(self.connection.out.len(), Ordering::Relaxed);
        let is_known = !self.is_stranger();
        let held = Held::of(input, output, is_known);
        if held != self.held {
            self.shared.memory.change(self.held, held);
            self.held = held;
            let client = &self.connection.client;
            client.logged_in.store(is_known, Ordering::Relaxed);
            client.input_bytes.store(held.input + held.stranger, Ordering::Relaxed);
            client.output_bytes.store(held.output, Ordering::Relaxed);
        }
    }

    /// Updates this connection's part of the input that all connections have read ahead.
    pub(super) fn note_read_ahead(&mut self) {
        let ahead = if self.reads_ahead() { self.decoder.buffered() } else { 0 };
        if ahead != self.read_ahead {
            let sum = &self.shared.read_ahead_bytes;
            sum.fetch_add(ahead, Ordering::Relaxed);
            sum.fetch_sub(self.read_ahead, Ordering::Relaxed);
            self.read_ahead = ahead;
        }
    }
}
