//! Logging in by a token or a password.
//!
//! Passwords from one address are looked at one after the other, and after failures each waits
//! before (`access/failures.rs`). Nobody guesses the signature of a token: a valid one does not
//! wait, since behind one address there may be many terminals, and one that is not valid is refused
//! with the reason, after a pause of this connection alone.
//!
//! A password that was verified before is recognised at once. Others are hashed on the pool, few at
//! a time, so that logins never take its threads from reads.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use super::Session;
use crate::access::{Identity, LoginError};
use crate::commands::{LogIn, context};
use crate::notices::NoticeKind;
use crate::refusal::Refusal;

/// How long a connection waits for the refusal of a token that is not valid.
const TOKEN_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// Checks a login. If it succeeds, does what follows it.
    pub(super) async fn log_in(&mut self, LogIn { user, password, then }: LogIn) {
        let outcome = match self.identified(user, password).await {
            Ok(identity) => {
                self.connection.log_in_as(identity, &self.shared);
                then(&mut context(&self.shared, &mut self.connection))
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.refuse(&refusal);
        }
    }

    /// Whom a token or a password is of.
    async fn identified(&mut self, user: Bytes, password: Bytes) -> Result<Identity, Refusal> {
        let shared = Arc::clone(&self.shared);
        let (access, failures) = (&shared.access, &shared.access.failures);
        if access.takes_token(&password) {
            let checked = access.check_token(&user, &password, shared.now_ms());
            if checked.is_err() {
                self.refused_logins += 1;
                self.pause(Instant::now() + TOKEN_PAUSE).await;
            }
            return checked.map_err(refused);
        }
        let address = self.connection.client.address.ip();
        let turn = failures.turn(address, shared.monotonic());
        let locked = tokio::select! {
            locked = timeout_at(self.login_deadline, turn.lock()) => locked.ok(),
            () = self.connection.client.asked_to_end() => None,
        };
        let Some(_turn) = locked else { return Err(self.refuse_to_look()) };
        let until = Instant::now() + failures.wait(address, shared.monotonic());
        if until > self.login_deadline {
            return Err(self.refuse_to_look());
        }
        self.pause(until).await;
        self.check_password(user, password).await?.map_err(|error| {
            self.refused_logins += 1;
            failures.note(address, shared.monotonic());
            refused(error)
        })
    }

    /// Waits, unless it is asked to end: it does so after this command.
    async fn pause(&self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.connection.client.asked_to_end() => {}
        }
    }

    fn refuse_to_look(&mut self) -> Refusal {
        self.refused_logins += 1;
        let text = "too many failed logins from this address: try again later";
        let refusal = Refusal::new("NOAUTH", text);
        self.shared.note(NoticeKind::FailedLogin, &self.connection.client, &refusal);
        refusal
    }

    async fn check_password(
        &self,
        user: Bytes,
        password: Bytes,
    ) -> Result<Result<Identity, LoginError>, Refusal> {
        let access = &self.shared.access;
        if let Some(identity) = access.recall(&user, &password) {
            return Ok(Ok(identity));
        }
        // However many wait, none waits longer than it may take to log in.
        let Ok(turn) = timeout_at(self.login_deadline, access.turns.acquire()).await else {
            let text = "the time to log in is over: too many logins at once, try again";
            return Err(Refusal::new("NOAUTH", text));
        };
        let _turn = turn.expect("the semaphore is never closed");
        let shared = Arc::clone(&self.shared);
        self.shared.pool.run(move || shared.access.check(&user, &password)).await
    }
}

fn refused(error: LoginError) -> Refusal {
    match error {
        LoginError::Wrong => {
            Refusal::new("WRONGPASS", "invalid username-password pair or user is disabled.")
        }
        LoginError::Token(why) => {
            Refusal::new("WRONGPASS", format!("the token is not valid: {why}"))
        }
    }
}
