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
//! Promises: P9: above the high-water mark of its output, or while all connections together hold too much of it, a connection runs no
//! command and is pushed nothing, while its input is still taken, up to a bound, so that a client may send all it has before it
//! reads. One that takes next to nothing for too long, or does not complete a request, is closed with `SLOW`. A client that is gone
//! ends its task at once, blocked command included.

mod execute;
mod pace;
mod wire;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clients::{Client, End};
use crate::commands::{Context, Waiting};
use crate::connection::Connection;
use crate::memory::Held;
use crate::protocol::Decoder;
use crate::refusal::Refusal;
use crate::shared::Shared;
use pace::Pace;

/// How often a connection looks whether there is memory again.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

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
    /// How fast the client sends, counted while a request is not complete.
    input_pace: Pace,
    /// How fast the client takes, counted while it is waited for.
    output_pace: Pace,
    /// What this connection is counted with in the memory of all.
    held: Held,
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
            input_pace: Pace::new(now),
            output_pace: Pace::new(now),
            held: Held::default(),
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
            self.note_memory();
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

    /// Whether a command may run and a frame may be pushed, for this connection's output and that of all.
    fn has_room(&self) -> bool {
        !self.is_full() && self.shared.memory.has_room_for_output()
    }

    /// Who has closed the sending half waits for the replies to what was sent, but for nothing that may yet happen.
    fn is_finished(&self) -> bool {
        let ends = self.closing || (self.input_ended && (self.blocked.is_some() || self.out_of_requests));
        ends && self.connection.out.is_empty()
    }

    /// Tries the blocked command again when one of its timelines advanced or its time is over.
    fn retry_blocked(&mut self) -> bool {
        if !self.shared.memory.has_room_for_output() {
            // The wake-up is kept by the watcher for later.
            return false;
        }
        let woken = self.connection.subscriptions.collect();
        let Some(waiting) = &mut self.blocked else { return false };
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
        self.connection.client.activity.is_blocked.store(false, Ordering::Relaxed);
        self.connection.subscriptions.unblock();
        true
    }

    /// Pushes to subscriptions that are behind, as far as there is room.
    fn push(&mut self) -> bool {
        if self.closing || !self.connection.subscriptions.is_behind() || !self.has_room() {
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
        let end = match self.connection.client.end() {
            // What it follows or waits for does not come any more.
            End::No if self.connection.subscriptions.is_closed() => End::Finish,
            end => end,
        };
        match end {
            End::No => {}
            End::Finish => {
                if self.blocked.take().is_some() {
                    self.connection.subscriptions.unblock();
                }
                self.closing = true;
            }
            End::Slow => {
                return self
                    .cut(&Refusal::new("SLOW", "too much waits to be taken, by all clients together"));
            }
            End::Full => {
                self.shared.metrics.memory_closed.one();
                let text = "all clients together hold more input than client_memory_bytes allows";
                return self.cut(&Refusal::new("LIMIT", text));
            }
            End::Now => return true,
        }
        let now = Instant::now();
        if self.connection.logged_in {
            // Who logs out by RESET gets the whole time again; who never logged in does not, whatever it sends.
            self.login_deadline = now + self.shared.limits.auth_timeout();
        }
        let (window, seconds) = (self.shared.limits.stall_timeout(), self.shared.limits.client_stall_seconds);
        let (output_waits, input_waits) = (self.output_waits(), self.input_waits());
        if self.output_pace.is_stalled(output_waits, now, window) {
            return self.cut(&Refusal::new("SLOW", format!("next to nothing was taken for {seconds} s")));
        }
        if self.input_pace.is_stalled(input_waits, now, window) {
            let text = format!("a request is not complete, and next to nothing came of it for {seconds} s");
            return self.cut(&Refusal::new("SLOW", text));
        }
        if self.login_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.auth_timeouts.one();
            return self.cut(&Refusal::new("NOAUTH", "Authentication required: the time to log in is over"));
        }
        false
    }

    /// Ends the connection. The error stands behind all that the client did not take: if it comes to read again, it learns why the
    /// rest is missing.
    fn cut(&mut self, refusal: &Refusal) -> bool {
        if refusal.word == "SLOW" {
            self.shared.metrics.slow_closed.one();
        }
        self.refuse(refusal);
        // It is over, whether the socket takes it or not.
        let _ = self.write();
        true
    }

    /// Whether the client is waited for to take something.
    fn output_waits(&self) -> bool {
        self.is_full() || ((self.closing || self.input_ended) && !self.connection.out.is_empty())
    }

    /// Whether the client is waited for to complete a request.
    fn input_waits(&self) -> bool {
        self.out_of_requests && self.blocked.is_none() && !self.closing && self.decoder.buffered() > 0
    }

    /// When memory is to be looked at again, if the want of it is what keeps this connection from going on.
    fn memory_retry(&self) -> Option<Instant> {
        let memory = &self.shared.memory;
        let is_behind = self.connection.subscriptions.is_behind();
        let cannot_run =
            !memory.has_room_for_output() && (!self.out_of_requests || self.blocked.is_some() || is_behind);
        let cannot_read = !memory.has_room_for_input() && !self.may_read() && !self.input_ended;
        (cannot_run || cannot_read).then(|| Instant::now() + MEMORY_PAUSE)
    }

    fn login_deadline(&self) -> Option<Instant> {
        (self.shared.password.is_set() && !self.connection.logged_in).then_some(self.login_deadline)
    }

    async fn wait(&self) -> io::Result<()> {
        // An error alone is asked for too: a connection that is reset is noticed while nothing may be read.
        let mut interest = Interest::ERROR;
        if self.may_read() {
            interest |= Interest::READABLE;
        }
        if !self.connection.out.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let has_room = self.has_room();
        let block_deadline = self.blocked.as_ref().and_then(|waiting| waiting.deadline).filter(|_| has_room);
        let window = self.shared.limits.stall_timeout();
        let output_deadline = self.output_waits().then(|| self.output_pace.end(window));
        let input_deadline = self.input_waits().then(|| self.input_pace.end(window));
        let deadline =
            [block_deadline, output_deadline, input_deadline, self.login_deadline(), self.memory_retry()]
                .into_iter()
                .flatten()
                .min();
        // While there is no room a wake-up for pushes could not be served: it is kept by the watcher for later.
        let watching = self.connection.subscriptions.is_watching() && has_room;
        tokio::select! {
            ready = self.socket.ready(interest) => {
                if ready?.is_error() {
                    return Err(self.socket.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
                }
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
        self.shared.memory.change(self.held, Held::default());
        self.shared.clients.leave(self.connection.client.id);
    }
}
