//! One connection's task. It alone touches its socket, buffers, subscriptions and blocked command, so nothing here is locked.
//!
//! Each round: run the commands that have come, try the blocked one again, push, write, read; when none of it moved anything, wait
//! for whichever comes first: the socket, a watched timeline, a deadline, a word from outside.
//!
//! ```text
//! socket ── read ──▶ decoder ── execute ──▶ commands ──▶ engine
//!    ▲                                         │            │ watcher
//!    └──── write ◀── output buffer ◀───────────┴── push ◀───┘
//! ```
//!
//! Promises: P9: above the high-water mark of its output a connection runs no command and is pushed nothing, while its input is
//! still taken, up to a bound, so that a client may send all it has before it reads; one that takes nothing for too long is closed
//! with `SLOW`. A client that is gone ends its task at once, blocked command included.

mod execute;
mod wire;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clients::{Client, End};
use crate::commands::{Context, Waiting};
use crate::connection::Connection;
use crate::protocol::Decoder;
use crate::refusal::Refusal;
use crate::shared::Shared;

/// How a connection ends.
enum Parting {
    /// All was said, and sent.
    Friendly,
    /// Nobody listens any more, or nobody is to be listened to.
    Sudden,
}

/// A connection that is being served.
pub struct Session {
    socket: TcpStream,
    shared: Arc<Shared>,
    connection: Connection,
    decoder: Decoder,
    /// The command that waits for its timelines. No other one runs meanwhile.
    blocked: Option<Waiting>,
    /// Every complete request of the input has run.
    out_of_requests: bool,
    /// The client sends no more.
    input_ended: bool,
    /// No further command runs; what is written still goes out.
    closing: bool,
    /// When it must have logged in.
    login_deadline: Instant,
    /// When the client last took something, or had nothing to take.
    last_taken: Instant,
    /// What this connection has added to the sum of what all have read ahead.
    read_ahead: usize,
}

impl Session {
    /// Serves a client until one of the two is done with the other.
    pub async fn serve(socket: TcpStream, client: Arc<Client>, shared: Arc<Shared>) {
        let now = Instant::now();
        let mut session = Session {
            connection: Connection::new(client, &shared),
            socket,
            decoder: Decoder::default(),
            blocked: None,
            out_of_requests: true,
            input_ended: false,
            closing: false,
            login_deadline: now + shared.limits.auth_timeout(),
            last_taken: now,
            read_ahead: 0,
            shared,
        };
        match session.run().await {
            Ok(Parting::Friendly) => session.linger().await,
            Ok(Parting::Sudden) => {}
            Err(error) => debug!(client = session.connection.client.id, %error, "connection lost"),
        }
    }

    async fn run(&mut self) -> io::Result<Parting> {
        loop {
            let mut moved = self.execute().await;
            moved |= self.retry_blocked();
            moved |= self.push();
            moved |= self.write()?;
            if self.is_finished() {
                return Ok(Parting::Friendly);
            }
            moved |= self.read()?;
            self.note_read_ahead();
            if moved {
                // A busy connection lets the others of its thread have their turn.
                consume_budget().await;
            } else {
                self.wait().await?;
            }
            if self.must_end() {
                return Ok(Parting::Sudden);
            }
        }
    }

    /// Whether the output has so much that nothing may be added.
    fn is_full(&self) -> bool {
        self.connection.out.len() >= self.shared.limits.output_high_water_bytes
    }

    /// Who has closed the sending half waits for the replies to what was sent, but for nothing that may yet happen.
    fn is_finished(&self) -> bool {
        let sent = self.connection.out.is_empty();
        (self.closing && sent)
            || (self.input_ended && (self.blocked.is_some() || (self.out_of_requests && sent)))
    }

    /// Tries the blocked command again when one of its timelines advanced or its time is over.
    fn retry_blocked(&mut self) -> bool {
        let woken = self.connection.subscriptions.collect();
        let Some(waiting) = &self.blocked else { return false };
        let over = waiting.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if !woken && !over {
            return false;
        }
        let mut context = Context { shared: &self.shared, connection: &mut self.connection };
        match (waiting.attempt)(&mut context, over) {
            Ok(false) => return false,
            Ok(true) => {}
            Err(refusal) => self.refuse(&refusal),
        }
        self.blocked = None;
        self.connection.subscriptions.unblock();
        true
    }

    /// Pushes to subscriptions that are behind, as far as there is room.
    fn push(&mut self) -> bool {
        if self.closing || !self.connection.subscriptions.is_behind() {
            return false;
        }
        let high_water = self.shared.limits.output_high_water_bytes;
        let Connection { subscriptions, out, .. } = &mut self.connection;
        match subscriptions.pump(out, high_water, &self.shared.metrics) {
            Ok(moved) => moved,
            Err(refusal) => {
                // A follower must not believe that it has seen everything.
                self.refuse(&refusal);
                self.closing = true;
                true
            }
        }
    }

    /// Whether something from outside, or a deadline, ends the connection now.
    fn must_end(&mut self) -> bool {
        match self.connection.client.end() {
            End::No => {}
            End::Finish => {
                if self.blocked.take().is_some() {
                    self.connection.subscriptions.unblock();
                }
                self.closing = true;
            }
            End::Now => return true,
        }
        let now = Instant::now();
        if self.connection.logged_in {
            // Who logs out by RESET gets the whole time again; who never logged in does not, whatever it sends.
            self.login_deadline = now + self.shared.limits.auth_timeout();
        }
        if self.stall_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.slow_closed.one();
            // Behind all that the client did not take: if it comes to read again, it learns why the rest is missing.
            let seconds = self.shared.limits.client_stall_seconds;
            self.refuse(&Refusal::new("SLOW", format!("nothing was taken for {seconds} s")));
            let _ = self.write();
            return true;
        }
        if self.login_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.auth_timeouts.one();
            self.refuse(&Refusal::new("NOAUTH", "Authentication required: the time to log in is over"));
            let _ = self.write();
            return true;
        }
        false
    }

    fn stall_deadline(&self) -> Option<Instant> {
        let waits = self.is_full() || ((self.closing || self.input_ended) && !self.connection.out.is_empty());
        waits.then(|| self.last_taken + self.shared.limits.stall_timeout())
    }

    fn login_deadline(&self) -> Option<Instant> {
        (self.shared.password.is_set() && !self.connection.logged_in).then_some(self.login_deadline)
    }

    async fn wait(&self) -> io::Result<()> {
        let mut interest: Option<Interest> = self.may_read().then_some(Interest::READABLE);
        if !self.connection.out.is_empty() {
            interest = Some(interest.map_or(Interest::WRITABLE, |interest| interest | Interest::WRITABLE));
        }
        let block_deadline = self.blocked.as_ref().and_then(|waiting| waiting.deadline);
        let deadline =
            [block_deadline, self.stall_deadline(), self.login_deadline()].into_iter().flatten().min();
        // While the output is full a wake-up for pushes could not be served: it is kept by the watcher for later.
        let watching = self.connection.subscriptions.is_watching() && !self.is_full();
        tokio::select! {
            ready = self.socket.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => {
                ready?;
            }
            () = poll_fn(|context| self.connection.subscriptions.poll_ready(context)), if watching => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            () = self.connection.client.told() => {}
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.read_ahead_bytes.fetch_sub(self.read_ahead, Ordering::Relaxed);
        self.shared.clients.leave(self.connection.client.id);
    }
}
