//! Logging in by a token or a password.
//!
//! After failures from an address, the next attempts from it wait before they are looked at. A valid
//! token does not: nobody guesses its signature, and behind one address there may be many terminals.
//!
//! A password that was verified before is recognised at once. Others are hashed on the pool, few at
//! a time, so that logins never take its threads from reads.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Session;
use crate::access::{Identity, LoginError};
use crate::commands::{LogIn, context};
use crate::refusal::Refusal;

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
        let access = &self.shared.access;
        let token = access
            .takes_token(&password)
            .then(|| access.check_token(&user, &password, self.shared.now_ms()));
        if let Some(Ok(terminal)) = token {
            return Ok(terminal);
        }
        self.wait_after_failures().await?;
        let checked = match token {
            Some(invalid) => invalid,
            None => self.check_password(user, password).await?,
        };
        checked.map_err(|error| {
            self.refused_logins += 1;
            let address = self.connection.client.address.ip();
            self.shared.access.failures.note(address, self.shared.monotonic());
            refused(error)
        })
    }

    async fn wait_after_failures(&mut self) -> Result<(), Refusal> {
        let address = self.connection.client.address.ip();
        let wait = self.shared.access.wait(address, self.shared.monotonic());
        if wait.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + wait;
        if until > self.login_deadline && !self.connection.is_logged_in() {
            self.refused_logins += 1;
            let text = "too many failed logins from this address: try again later";
            return Err(Refusal::new("NOAUTH", text));
        }
        tokio::select! {
            () = sleep_until(until) => {}
            // If it is asked to end, it does so after this command.
            () = self.connection.client.asked_to_end() => {}
        }
        Ok(())
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
