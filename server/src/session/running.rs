//! Measures commands: notes the time of each call, keeps the slow ones, and shows each command to
//! the connections that monitor.
//!
//! The clock is read once for each command: the end of one is the start of the next. Consecutive
//! writes begin together and end with their commit, so that they need one reading for all of them.

use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::commands::Command;
use crate::observe::{LatencyEvent, Monitoring, shown_line};
use crate::protocol::Request;

/// The most bytes of a write that is kept until its commit, for the list of slow commands: the
/// batch has its bytes too. Of a larger one only the name is kept.
const KEPT_BYTES: usize = 1024;

/// A command that has begun and whose reply is not made yet.
pub(super) struct Running {
    command: &'static Command,
    began: Duration,
    request: Request,
    /// Its time was noted: it is blocked.
    is_noted: bool,
}

/// What a session measures of its commands.
#[derive(Default)]
pub(super) struct Measuring {
    /// The last reading of the monotonic clock.
    pub now: Duration,
    /// An error was replied since the last command began.
    pub has_failed: bool,
    /// The command that is blocked, or whose reply is made in slices.
    running: Option<Running>,
}

impl Running {
    /// A command that began at this time of the monotonic clock.
    pub(super) fn new(command: &'static Command, began: Duration, request: Request) -> Running {
        Running { command, began, request, is_noted: false }
    }

    /// Keeps no more of a write's words than may wait for its commit.
    pub(super) fn lightened(mut self, bytes: usize) -> Running {
        if bytes > KEPT_BYTES {
            self.request.truncate(1);
        }
        self
    }
}

impl Session {
    /// Notes the start of a command, and shows it to the connections that monitor.
    pub(super) fn begin(&mut self, command: &'static Command, request: &[Bytes]) {
        self.measuring.has_failed = false;
        let client = &self.connection.client;
        client.begin(command.name, crate::shared::milliseconds(self.measuring.now));
        if self.shared.monitors.any() {
            let (now_ms, address) = (self.shared.now_ms(), client.address);
            let words = shown_line(request, command.is_secret);
            let (seconds, millis) = (now_ms / 1000, now_ms % 1000);
            self.shared
                .monitors
                .pass_on(&format!("{seconds}.{millis:03}000 [0 {address}] {words}"));
        }
    }

    /// Reads the clock.
    pub(super) fn tick(&mut self) {
        self.measuring.now = self.shared.monotonic();
    }

    /// Notes the end of a command, at the last reading of the clock.
    pub(super) fn end(&mut self, running: &Running) {
        let failed = std::mem::take(&mut self.measuring.has_failed);
        let calls = self.shared.calls.of(running.command.position);
        if failed {
            calls.failed.one();
        }
        if running.is_noted {
            return;
        }
        let took = self.measuring.now.saturating_sub(running.began);
        let micros = took.as_secs() * 1_000_000 + u64::from(took.subsec_micros());
        calls.micros.add(micros);
        if self.shared.slowlog.is_slow(micros) {
            self.note_slow(running, micros);
        }
    }

    #[cold]
    fn note_slow(&self, running: &Running, micros: u64) {
        self.shared.latency.note(LatencyEvent::Command, micros);
        if self.shared.slowlog.is_on() {
            let client = &self.connection.client;
            self.shared.slowlog.add(
                (&running.request, running.command.is_secret),
                (self.shared.now_ms() / 1000, micros),
                (client.address, client.name.lock().clone()),
            );
        }
    }

    /// Keeps a command whose reply is not made yet. The time of one that waits for its timelines
    /// is that until here; what it waits is not counted.
    pub(super) fn keep_running(&mut self, mut running: Running) {
        if self.blocked.is_some() {
            self.tick();
            self.end(&running);
            running.is_noted = true;
            running.request.clear();
        }
        self.measuring.running = Some(running);
    }

    /// Notes the end of the command that was kept, if there is one.
    pub(super) fn end_running(&mut self) {
        if let Some(running) = self.measuring.running.take() {
            self.tick();
            self.end(&running);
        }
    }

    /// Writes the lines of other commands, if this connection monitors.
    pub(super) fn show_commands(&mut self) -> bool {
        let mut moved = false;
        while self.connection.monitoring.is_some() && self.may_make(|| false) {
            let line = self.connection.monitoring.as_ref().and_then(Monitoring::next);
            let Some(line) = line else { break };
            self.connection.out.simple(&line);
            moved = true;
        }
        moved
    }
}
