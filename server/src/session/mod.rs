//! One connection's task. It alone touches its socket, buffers, subscriptions and blocked command,
//! so nothing here is locked.
//!
//! Each round: run the commands that have come, try the blocked one again, push, write, read; when
//! none of it moved anything, wait for whichever comes first: the socket, a watched timeline, a
//! deadline, a word from outside.
//!
//! ```text
//! socket ── read ──▶ decoder ── execute ──▶ commands ──▶ engine
//!    ▲                                         │            │ watcher
//!    └──── write ◀── output buffer ◀───────────┴── push ◀───┘
//! ```
//!
//! Promises: P9: above the high-water mark of its output a connection runs no command and is pushed
//! nothing, while its input is still taken, up to a bound, so that a client may send all it has
//! before it reads. While all connections together hold too much output, nothing large is made, and
//! one that holds some itself runs nothing; one that holds none still gets its small replies. One
//! that takes next to nothing for too long, or does not complete a request, is closed with `SLOW`.
//! A client that is gone ends its task at once, blocked command included.
//!
//! Each reason for which a connection stops has one thing that wakes it: a full output the socket,
//! a want of memory (`short_of`) the budget. The reason is noted where it stops, and never looked
//! for afterwards: by then it may be gone, and nothing would wake it.

mod execute;
mod pace;
mod slow;
mod wire;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clients::{Client, End};
use crate::commands::{Attempt, Waiting, context};
use crate::connection::Connection;
use crate::memory::{Budget, FLOOR_BYTES, Held, STRANGER_OUTPUT_BYTES};
use crate::notices::Kind;
use crate::protocol::{Decoder, Request};
use crate::refusal::Refusal;
use crate::shared::Shared;
use pace::Pace;
use slow::{Slices, elsewhere};
use wire::Reading;

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
    /// The command whose reply is made elsewhere, in slices. No other one runs meanwhile.
    slices: Option<Slices>,
    /// Bytes of output that are kept for the reply of `slices`.
    reserved: usize,
    /// A command that waits for memory.
    pending: Option<Request>,
    /// Bytes of output for which there was no room when this connection last wanted to go on: it
    /// goes on when there is.
    short_of: Option<usize>,
    /// Every complete request of the input has run.
    out_of_requests: bool,
    /// The client sends no more.
    input_ended: bool,
    /// No further command runs; what is written still goes out.
    closing: bool,
    /// When it must have logged in.
    login_deadline: Instant,
    /// When the last command ran.
    last_command: Instant,
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
            slices: None,
            reserved: 0,
            pending: None,
            short_of: None,
            out_of_requests: true,
            input_ended: false,
            closing: false,
            login_deadline: now + shared.limits.auth_timeout(),
            last_command: now,
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
            self.short_of = None;
            let mut moved = self.execute().await;
            moved |= self.one_slice().await;
            moved |= self.retry_blocked();
            moved |= self.push().await;
            moved |= self.beat();
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
        self.connection.out.len() >= self.high_water_bytes()
    }

    fn high_water_bytes(&self) -> usize {
        let most = self.shared.limits.output_high_water_bytes;
        if self.connection.logged_in { most } else { most.min(STRANGER_OUTPUT_BYTES) }
    }

    /// Whether a reply or frames may be made, for this connection's output and that of all. If it
    /// is the latter's fault that they may not, this connection goes on when there is room.
    fn may_make(&mut self, is_small: impl FnOnce() -> bool) -> bool {
        if self.is_full() {
            return false;
        }
        let may = !self.connection.logged_in
            || self.shared.memory.output.has_room(FLOOR_BYTES)
            || (self.held.output == 0 && is_small());
        if !may {
            self.short_of = Some(FLOOR_BYTES);
        }
        may
    }

    /// Who has closed the sending half waits for the replies to what was sent, but for nothing that
    /// may yet happen.
    fn is_finished(&self) -> bool {
        let ends =
            self.closing || (self.input_ended && (self.blocked.is_some() || self.out_of_requests));
        ends && self.slices.is_none() && self.connection.out.is_empty()
    }

    /// Tries the blocked command again when one of its timelines advanced or its time is over.
    fn retry_blocked(&mut self) -> bool {
        let woken = self.connection.subscriptions.collect();
        let Some(waiting) = &mut self.blocked else { return false };
        waiting.woken |= woken;
        let over = waiting.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if !(waiting.woken || over) || self.slices.is_some() || !self.may_make(|| false) {
            return false;
        }
        let Some(waiting) = &mut self.blocked else { return false };
        waiting.woken = false;
        let attempt = match &mut waiting.attempt {
            Attempt::Here(attempt) => attempt,
            Attempt::Elsewhere(attempt) => {
                self.slices = Some(Slices::new(attempt(over)));
                return true;
            }
        };
        let mut context = context(&self.shared, &mut self.connection);
        match attempt(&mut context, over) {
            Ok(false) => return false,
            Ok(true) => {}
            Err(refusal) => self.refuse(&refusal),
        }
        self.unblock();
        true
    }

    /// The blocked command is done.
    fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            self.connection.client.activity.is_blocked.store(false, Ordering::Relaxed);
            self.connection.subscriptions.unblock();
        }
    }

    /// Pushes to subscriptions that are behind, as far as there is room.
    async fn push(&mut self) -> bool {
        let mut moved = false;
        while !self.closing && self.connection.subscriptions.is_behind() && self.may_make(|| false)
        {
            let Some(turns) = self.connection.subscriptions.next_turns() else { break };
            moved = true;
            let taken =
                if turns.are_near() { Ok(turns.take()) } else { elsewhere(|| turns.take()).await };
            let Connection { subscriptions, out, .. } = &mut self.connection;
            let written =
                taken.and_then(|taken| subscriptions.write(taken, out, &self.shared.metrics));
            if let Err(refusal) = written {
                // A follower must not believe that it has seen everything.
                self.refuse(&refusal);
                self.closing = true;
            }
            self.note_memory();
        }
        moved
    }

    /// Writes the heartbeats that are due.
    fn beat(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.connection.subscriptions.next_heartbeat().is_some_and(|due| due <= now);
        if self.closing || !is_due || !self.may_make(|| true) {
            return false;
        }
        self.connection.subscriptions.beat(now, &mut self.connection.out)
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
                self.unblock();
                self.slices.take_if(|slices| !slices.has_begun());
                self.closing = true;
            }
            End::Slow => {
                return self.cut(&Refusal::new(
                    "SLOW",
                    "too much waits to be taken, by all clients together",
                ));
            }
            End::Full => {
                self.shared.metrics.memory_closed.one();
                let text = "all clients together hold more input than client_memory_bytes allows";
                return self.cut(&Refusal::new("LIMIT", text));
            }
            End::Now => {
                self.shared.note(Kind::Killed, &self.connection.client, "CLIENT KILL");
                return true;
            }
        }
        let now = Instant::now();
        if self.connection.logged_in {
            // Who logs out by RESET gets the whole time again; who never logged in does not,
            // whatever it sends.
            self.login_deadline = now + self.shared.limits.auth_timeout();
        }
        let (window, seconds) =
            (self.shared.limits.stall_timeout(), self.shared.limits.client_stall_seconds);
        let (output_waits, input_waits) = (self.output_waits(), self.input_waits());
        if self.output_pace.is_stalled(output_waits, now, window) {
            return self
                .cut(&Refusal::new("SLOW", format!("next to nothing was taken for {seconds} s")));
        }
        if self.input_pace.is_stalled(input_waits, now, window) {
            let text = format!(
                "a request is not complete, and next to nothing came of it for {seconds} s"
            );
            return self.cut(&Refusal::new("SLOW", text));
        }
        if self.idle_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.idle_closed.one();
            return true;
        }
        if self.login_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.auth_timeouts.one();
            return self.cut(&Refusal::new(
                "NOAUTH",
                "Authentication required: the time to log in is over",
            ));
        }
        false
    }

    /// Ends the connection. The error stands behind all that the client did not take: if it comes
    /// to read again, it learns why the rest is missing.
    fn cut(&mut self, refusal: &Refusal) -> bool {
        if refusal.word == "SLOW" {
            self.shared.metrics.slow_closed.one();
        }
        let kind = match refusal.word {
            "SLOW" => Kind::Slow,
            "NOAUTH" => Kind::NoLogin,
            _ => Kind::Memory,
        };
        self.shared.note(kind, &self.connection.client, refusal);
        self.reply_error(refusal);
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
        self.out_of_requests && !self.is_busy() && !self.closing && self.decoder.buffered() > 0
    }

    /// Whether a command has begun and is not done, so that no other may run.
    fn is_answering(&self) -> bool {
        self.blocked.is_some() || self.slices.is_some()
    }

    /// Whether a command has begun and is not done, or waits for memory.
    fn is_busy(&self) -> bool {
        self.is_answering() || self.pending.is_some()
    }

    /// When it has been idle for too long. Who listens or waits for something is not idle.
    fn idle_deadline(&self) -> Option<Instant> {
        let is_idle = !self.is_busy() && self.connection.subscriptions.total() == 0;
        self.shared
            .limits
            .idle_timeout()
            .filter(|_| is_idle)
            .map(|timeout| self.last_command + timeout)
    }

    fn login_deadline(&self) -> Option<Instant> {
        (self.shared.password.is_set() && !self.connection.logged_in).then_some(self.login_deadline)
    }

    /// The deadlines that end a wait.
    fn deadline(&self) -> Option<Instant> {
        let can_make = !self.is_full() && self.short_of.is_none();
        let block_deadline =
            self.blocked.as_ref().and_then(|waiting| waiting.deadline).filter(|_| can_make);
        let heartbeat = self.connection.subscriptions.next_heartbeat().filter(|_| can_make);
        let window = self.shared.limits.stall_timeout();
        let output_deadline = self.output_waits().then(|| self.output_pace.end(window));
        let input_deadline = self.input_waits().then(|| self.input_pace.end(window));
        let (login_deadline, idle_deadline) = (self.login_deadline(), self.idle_deadline());
        [block_deadline, heartbeat, output_deadline, input_deadline, login_deadline, idle_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    async fn wait(&self) -> io::Result<()> {
        // An error alone is asked for too: a connection that is reset is noticed while nothing may
        // be read.
        let mut interest = Interest::ERROR;
        let reading = self.reading();
        if reading == Reading::Yes {
            interest |= Interest::READABLE;
        }
        if !self.connection.out.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let deadline = self.deadline();
        let watching = self.connection.subscriptions.is_watching()
            && !self.is_full()
            && self.short_of.is_none();
        let (memory, id) = (&self.shared.memory, self.connection.client.id);
        let short_of = self.short_of.unwrap_or_default();
        tokio::select! {
            ready = self.socket.ready(interest) => {
                if ready?.is_error() {
                    return Err(self.socket.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
                }
            }
            () = poll_fn(|context| self.connection.subscriptions.poll_ready(context)), if watching => {}
            () = poll_fn(|context| self.poll_room(&memory.output, short_of, context)), if self.short_of.is_some() => {}
            () = poll_fn(|context| self.poll_room(&memory.input, 0, context)), if reading == Reading::NoRoom => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            () = self.connection.client.told() => {}
        }
        memory.output.stop_waiting(id);
        memory.input.stop_waiting(id);
        Ok(())
    }

    fn poll_room(
        &self,
        budget: &Budget,
        bytes: usize,
        context: &std::task::Context<'_>,
    ) -> Poll<()> {
        budget.poll_room(self.connection.client.id, bytes, context.waker())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.read_ahead_bytes.fetch_sub(self.read_ahead, Ordering::Relaxed);
        let (memory, id) = (&self.shared.memory, self.connection.client.id);
        memory.output.stop_waiting(id);
        memory.input.stop_waiting(id);
        memory.change(self.held, Held::default());
        memory.output.change(self.reserved, 0);
        self.shared.clients.leave(id);
    }
}
