//! The task of one connection. Only this task uses its socket, buffers, subscriptions and blocked
//! command, so they need no locks.
//!
//! Each round: run the commands that have arrived, do a slice of a reply, try the blocked command
//! again, push, write heartbeats that are due, write, read. If none of these moved anything, wait
//! for whichever comes first: the socket, a watched timeline, memory, a deadline, a request to end.
//!
//! ```text
//! socket ── read ──▶ decoder ── execute ──▶ commands ──▶ engine
//!    ▲                                         │            │ watcher
//!    └──── write ◀── output buffer ◀───────────┴── push ◀───┘
//! ```
//!
//! Promises: P9: above the high-water mark of its output a connection runs no command and gets no
//! pushes, while its input is still read, up to a limit, so that a client may send everything
//! before it reads. While all connections together hold too much output, no large reply is made,
//! and a connection that holds some output itself runs nothing; one that holds none still gets its
//! small replies. A client that takes next to nothing for too long, or does not complete a request,
//! is closed with `SLOW`. If a client is gone, its task ends at once, even with a blocked command.
//!
//! Each reason for which a connection stops has one source of wake-ups: for a full output it is the
//! socket, for a lack of memory (`short_of`) the budget. The reason is recorded where the
//! connection stops, and not determined later: by then it may be gone, and nothing would wake the
//! connection.

mod ending;
mod execute;
mod login;
mod pace;
mod running;
mod slow;
mod wire;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::io::Interest;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::clients::Client;
use crate::commands::{Attempt, Waiting, context};
use crate::connection::Connection;
use crate::limits::Limits;
use crate::memory::{Budget, FLOOR_BYTES, Held, STRANGER_OUTPUT_BYTES};
use crate::protocol::{Decoder, Request};
use crate::shared::Shared;
use crate::submitter::Submitter;
use crate::tls::Socket;
use pace::Pace;
use running::Measuring;
use slow::Slices;
use wire::Reading;

/// How a connection ends.
enum Parting {
    /// Everything was sent.
    Friendly,
    /// The client is gone, or must not be waited for.
    Sudden,
}

/// A connection that is being served.
pub struct Session {
    socket: Socket,
    shared: Arc<Shared>,
    /// The path of its writes.
    submitter: Arc<Submitter>,
    connection: Connection,
    decoder: Decoder,
    /// The command that waits for its timelines. No other command runs meanwhile.
    blocked: Option<Waiting>,
    /// The command whose reply is made elsewhere, in slices. No other command runs meanwhile.
    slices: Option<Slices>,
    /// What is measured of its commands.
    measuring: Measuring,
    /// The bytes of output that are reserved for the reply of `slices`.
    reserved: usize,
    /// The bytes of the requests whose writes are not committed yet.
    writing_bytes: usize,
    /// A command that waits for memory for its reply.
    pending: Option<Request>,
    /// When the limits on commands allow the pending one.
    paced_until: Option<Instant>,
    /// The bytes of output for which there was no space when this connection last tried to
    /// continue. It continues when there is space.
    short_of: Option<usize>,
    /// The logins in this round: no more than one.
    logins: u32,
    /// The logins that were refused.
    refused_logins: u32,
    /// Every complete request of the input has run.
    out_of_requests: bool,
    /// The client has closed its sending half.
    input_ended: bool,
    /// No further command runs; the output is still sent.
    closing: bool,
    /// The deadline for logging in.
    login_deadline: Instant,
    /// When the last command ran.
    last_command: Instant,
    /// The rate at which the client sends, measured while a request is not complete.
    input_pace: Pace,
    /// The rate at which the client takes output, measured while it is waited for.
    output_pace: Pace,
    /// The part of this connection in the memory of all connections.
    held: Held,
    /// The part of this connection in the input that all connections have read ahead.
    read_ahead: usize,
}

impl Session {
    /// Serves a client until the client or the server ends the connection.
    pub async fn serve(
        socket: Socket,
        client: Arc<Client>,
        submitter: Arc<Submitter>,
        shared: Arc<Shared>,
    ) {
        let now = Instant::now();
        let connection = Connection::new(client, &shared);
        let mut session = Session {
            login_deadline: now + connection.config.limits.auth_timeout(),
            connection,
            socket,
            submitter,
            decoder: Decoder::default(),
            blocked: None,
            slices: None,
            measuring: Measuring::default(),
            reserved: 0,
            writing_bytes: 0,
            pending: None,
            paced_until: None,
            short_of: None,
            logins: 0,
            refused_logins: 0,
            out_of_requests: true,
            input_ended: false,
            closing: false,
            last_command: now,
            input_pace: Pace::new(now),
            output_pace: Pace::new(now),
            held: Held::default(),
            read_ahead: 0,
            shared,
        };
        match session.run().await {
            Ok(Parting::Friendly) => session.linger().await,
            Ok(Parting::Sudden) => session.socket.try_goodbye(),
            Err(error) => debug!(client = session.connection.client.id, %error, "connection lost"),
        }
    }

    async fn run(&mut self) -> io::Result<Parting> {
        loop {
            self.shared.config.refresh(&mut self.connection.config);
            self.short_of = None;
            let mut moved = self.execute().await;
            moved |= self.one_slice().await;
            moved |= self.retry_blocked();
            moved |= self.push().await;
            moved |= self.show_commands();
            moved |= self.beat();
            moved |= self.write()?;
            if self.is_finished() {
                return Ok(Parting::Friendly);
            }
            moved |= self.read()?;
            self.note_read_ahead();
            self.note_memory();
            if moved {
                // A busy connection yields to the others of its loop.
                consume_budget().await;
            } else {
                self.wait().await?;
            }
            if self.must_end() {
                return Ok(Parting::Sudden);
            }
        }
    }

    /// The limits that hold in this round.
    fn limits(&self) -> &Limits {
        &self.connection.config.limits
    }

    /// Whether nothing may be added to the output.
    fn is_full(&self) -> bool {
        self.connection.out.len() >= self.high_water_bytes()
    }

    fn high_water_bytes(&self) -> usize {
        let most = self.limits().output_high_water_bytes;
        if self.connection.is_logged_in() { most } else { most.min(STRANGER_OUTPUT_BYTES) }
    }

    /// Whether a reply or frames may be made, given the output of this connection and of all
    /// connections. If the output of all is the obstacle, this connection continues when there is
    /// space.
    fn may_make(&mut self, is_small: impl FnOnce() -> bool) -> bool {
        if self.is_full() {
            return false;
        }
        let may = !self.connection.is_logged_in()
            || self.shared.memory.output.has_room(FLOOR_BYTES)
            || (self.held.output == 0 && is_small());
        if !may {
            self.short_of = Some(FLOOR_BYTES);
        }
        may
    }

    /// Whether everything was sent and the connection is over. A client that has closed its sending
    /// half still gets the replies to its requests, but no command waits for future events.
    fn is_finished(&self) -> bool {
        let ends =
            self.closing || (self.input_ended && (self.blocked.is_some() || self.out_of_requests));
        ends && self.slices.is_none() && self.is_all_sent()
    }

    /// Whether the kernel has taken all output.
    fn is_all_sent(&self) -> bool {
        self.connection.out.is_empty() && !self.socket.has_unsent()
    }

    /// Tries the blocked command again if one of its timelines has advanced or its time is over.
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

    /// Ends the blocked command.
    fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            self.connection.client.activity.is_blocked.store(false, Ordering::Relaxed);
            self.connection.subscriptions.unblock();
        }
        self.end_running();
    }

    /// Pushes to subscriptions that are behind, as far as there is space.
    async fn push(&mut self) -> bool {
        let mut moved = false;
        while !self.closing && self.connection.subscriptions.is_behind() && self.may_make(|| false)
        {
            let Some(turns) = self.connection.subscriptions.next_turns() else { break };
            moved = true;
            let taken = if turns.are_near() {
                Ok(turns.take())
            } else {
                self.shared.pool.run(|| turns.take()).await
            };
            let Connection { subscriptions, out, .. } = &mut self.connection;
            let written =
                taken.and_then(|taken| subscriptions.write(taken, out, &self.shared.metrics));
            if let Err(refusal) = written {
                // A follower must not assume that it has seen everything.
                self.refuse(&refusal);
                self.closing = true;
            }
            self.note_memory();
        }
        let is_behind = self.connection.subscriptions.is_behind();
        self.connection.client.is_behind.store(is_behind, Ordering::Relaxed);
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

    /// Whether the client must take some output.
    fn output_waits(&self) -> bool {
        self.is_full() || ((self.closing || self.input_ended) && !self.is_all_sent())
    }

    /// Whether the client must complete a request.
    fn input_waits(&self) -> bool {
        self.out_of_requests && !self.is_busy() && !self.closing && self.decoder.buffered() > 0
    }

    /// Whether a command has begun and has not ended, so that no other may run.
    fn is_answering(&self) -> bool {
        self.blocked.is_some() || self.slices.is_some()
    }

    /// Whether a command has begun and has not ended, or waits for memory.
    fn is_busy(&self) -> bool {
        self.is_answering() || self.pending.is_some()
    }

    /// The earliest deadline that ends a wait.
    fn deadline(&self) -> Option<Instant> {
        let can_make = !self.is_full() && self.short_of.is_none();
        let block_deadline =
            self.blocked.as_ref().and_then(|waiting| waiting.deadline).filter(|_| can_make);
        let heartbeat = self.connection.subscriptions.next_heartbeat().filter(|_| can_make);
        let window = self.limits().stall_timeout();
        let output_deadline = self.output_waits().then(|| self.output_pace.end(window));
        let input_deadline = self.input_waits().then(|| self.input_pace.end(window));
        let (login_deadline, idle_deadline) = (self.login_deadline(), self.idle_deadline());
        let (expires, paced) = (self.connection.expires(), self.paced_until);
        [block_deadline, heartbeat, output_deadline, input_deadline]
            .into_iter()
            .chain([login_deadline, idle_deadline, expires, paced])
            .flatten()
            .min()
    }

    async fn wait(&self) -> io::Result<()> {
        // Errors are always included: a reset of the connection is noticed while nothing may be
        // read.
        let mut interest = Interest::ERROR;
        let reading = self.reading();
        if reading == Reading::Yes {
            interest |= Interest::READABLE;
        }
        if !self.is_all_sent() {
            interest |= Interest::WRITABLE;
        }
        let deadline = self.deadline();
        let watching = self.connection.subscriptions.is_watching()
            && !self.is_full()
            && self.short_of.is_none();
        let (memory, id) = (&self.shared.memory, self.connection.client.id);
        let short_of = self.short_of.unwrap_or_default();
        let may_show = !self.is_full() && self.short_of.is_none();
        tokio::select! {
            ready = self.socket.ready(interest) => {
                if ready?.is_error() {
                    let reset = || io::ErrorKind::ConnectionReset.into();
                    return Err(self.socket.take_error()?.unwrap_or_else(reset));
                }
            }
            () = poll_fn(|context| self.connection.subscriptions.poll_ready(context)),
                if watching => {}
            () = poll_fn(|context| self.poll_room(&memory.output, short_of, context)),
                if self.short_of.is_some() => {}
            () = poll_fn(|context| self.poll_room(&memory.input, 0, context)),
                if reading == Reading::NoRoom => {}
            () = self.connection.line_arrived(), if may_show => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            () = self.connection.client.asked_to_end() => {}
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
