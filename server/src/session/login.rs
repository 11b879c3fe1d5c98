//! Logging in: waits after failures from the same address, then checks a token or a password.
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
        let address = self.connection.client.address.ip();
        let wait = self.shared.access.wait(address, self.shared.monotonic());
        if !wait.is_zero() {
            let until = Instant::now() + wait;
            if until > self.login_deadline && !self.connection.is_logged_in() {
                self.refused_logins += 1;
                let text = "too many failed logins from this address: try again later";
                return self.refuse(&Refusal::new("NOAUTH", text));
            }
            tokio::select! {
                () = sleep_until(until) => {}
                // If it is asked to end, it does so after this command.
                () = self.connection.client.asked_to_end() => {}
            }
        }
        let outcome = match self.checked(user, password).await {
            Ok(Ok(identity)) => {
                self.connection.log_in_as(identity, &self.shared);
                then(&mut context(&self.shared, &mut self.connection))
            }
            Ok(Err(error)) => {
                self.refused_logins += 1;
                self.shared.access.failures.note(address, self.shared.monotonic());
                Err(refused(error))
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = outcome {
            self.refuse(&refusal);
        }
    }

    async fn checked(
        &self,
        user: Bytes,
        password: Bytes,
    ) -> Result<Result<Identity, LoginError>, Refusal> {
        let access = &self.shared.access;
        if access.takes_token(&password) {
            let now_ms = self.shared.now_ms();
            return Ok(access.check_token(&user, &password, now_ms));
        }
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
