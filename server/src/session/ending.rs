//! The reasons for which a connection ends before its client ends it: a request from outside, lost
//! rights, deadlines.

use tokio::time::Instant;

use super::Session;
use crate::clients::End;
use crate::notices::NoticeKind;
use crate::observe::Monitoring;
use crate::refusal::Refusal;

impl Session {
    /// Whether a request from outside, or a deadline, ends the connection now.
    pub(super) fn must_end(&mut self) -> bool {
        let end = match self.connection.client.end() {
            // The timelines that it follows or waits for do not advance any more.
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
                    "all clients together hold more output than client_memory_bytes allows",
                ));
            }
            End::Full => {
                self.shared.metrics.memory_closed.one();
                let text = "all clients together hold more input than client_memory_bytes allows";
                return self.cut(&Refusal::new("LIMIT", text));
            }
            End::Now => {
                self.shared.note(NoticeKind::Killed, &self.connection.client, "CLIENT KILL");
                return true;
            }
        }
        if self.input_ended && self.is_stranger() && self.refused_logins > 0 {
            // A client that guesses passwords, and has gone, is not waited for.
            return true;
        }
        self.has_lost_rights() || self.is_too_late(Instant::now())
    }

    /// Whether its user lost rights that it needs, or its token has expired.
    fn has_lost_rights(&mut self) -> bool {
        let is_answering = self.is_answering();
        self.connection.look_at_rights(&self.shared, is_answering);
        let lost = self.connection.lost.take();
        lost.is_some_and(|lost| self.cut(&lost))
    }

    /// Whether a deadline is over.
    fn is_too_late(&mut self, now: Instant) -> bool {
        if !self.is_stranger() {
            // A client that logs out by RESET gets the whole time again. A client that never logged
            // in does not, whatever it sends.
            self.login_deadline = now + self.limits().auth_timeout();
        }
        let (window, seconds) = (self.limits().stall_timeout(), self.limits().client_stall_seconds);
        let (output_waits, input_waits) = (self.output_waits(), self.input_waits());
        if self.output_pace.is_stalled(output_waits, now, window) {
            let text = format!("the client took next to nothing for {seconds} s");
            return self.cut(&Refusal::new("SLOW", text));
        }
        if self.input_pace.is_stalled(input_waits, now, window) {
            let text = format!(
                "a request is incomplete, and next to nothing of it arrived for {seconds} s"
            );
            return self.cut(&Refusal::new("SLOW", text));
        }
        if self.connection.monitoring.as_ref().is_some_and(Monitoring::is_lost) {
            let text = "the client does not take the lines of MONITOR as fast as commands run";
            return self.cut(&Refusal::new("SLOW", text));
        }
        if self.idle_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.idle_closed.one();
            return true;
        }
        if self.login_deadline().is_some_and(|deadline| deadline <= now) {
            self.shared.metrics.auth_timeouts.one();
            if self.socket.is_handshaking() {
                let why = "the time for the TLS handshake is over";
                self.shared.note(NoticeKind::NoLogin, &self.connection.client, why);
                return true;
            }
            return self.cut(&Refusal::new(
                "NOAUTH",
                "Authentication required: the time to log in is over",
            ));
        }
        false
    }

    /// Ends the connection. The error comes after all output that the client has not taken: if the
    /// client reads again, it learns why the rest is missing.
    fn cut(&mut self, refusal: &Refusal) -> bool {
        if refusal.word == "SLOW" {
            self.shared.metrics.slow_closed.one();
        }
        let kind = match refusal.word {
            "SLOW" => NoticeKind::Slow,
            "NOAUTH" | "NOPERM" => NoticeKind::NoLogin,
            _ => NoticeKind::Memory,
        };
        self.shared.note(kind, &self.connection.client, refusal);
        self.reply_error(refusal);
        // The connection ends whether the socket takes it or not.
        let _ = self.write();
        true
    }

    /// When it has been idle for too long. A connection with subscriptions or a blocked command is
    /// not idle.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let is_idle = !self.is_busy()
            && self.connection.subscriptions.total() == 0
            && self.connection.monitoring.is_none();
        self.limits().idle_timeout().filter(|_| is_idle).map(|timeout| self.last_command + timeout)
    }

    /// Whether the client has not logged in, or cannot even speak yet.
    pub(super) fn is_stranger(&self) -> bool {
        self.socket.is_handshaking() || !self.connection.is_logged_in()
    }

    pub(super) fn login_deadline(&self) -> Option<Instant> {
        let must_log_in = self.socket.is_handshaking() || !self.connection.is_logged_in();
        must_log_in.then_some(self.login_deadline)
    }
}
