//! The state of one connection besides its socket: its client, whom it acts for, its subscriptions,
//! and its output.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::access::{Identity, Rate};
use crate::clients::Client;
use crate::config::Config;
use crate::observe::Monitoring;
use crate::protocol::{Encoder, Protocol};
use crate::push::{SubscriptionKind, Subscriptions};
use crate::refusal::Refusal;
use crate::shared::Shared;

/// No timer need count further than a year.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// One connection.
pub struct Connection {
    /// Its record in the list of connections.
    pub client: Arc<Client>,
    /// Replies and pushes that wait to be sent.
    pub out: Encoder,
    /// The common name in the certificate that it has shown.
    certificate_name: Option<Box<str>>,
    /// Its copy of the server's settings, at most one round old.
    pub config: Arc<Config>,
    /// Whom it acts for.
    pub identity: Identity,
    /// The version of the users that `identity` is from.
    version: u64,
    /// When the token expires.
    expires: Option<Instant>,
    /// The reason why it must end: its user lost rights that its subscriptions or its blocked
    /// command may need, or was removed.
    pub lost: Option<Refusal>,
    /// Its own limit on commands.
    rate: Option<Rate>,
    /// That of all connections of its user.
    user_rate: Option<Arc<Rate>>,
    /// Its subscriptions, and the timelines that its blocked command waits for.
    pub subscriptions: Subscriptions,
    /// Its lines, if it sees all commands.
    pub monitoring: Option<Monitoring>,
}

impl Connection {
    /// The state of a new connection.
    pub fn new(client: Arc<Client>, shared: &Shared) -> Connection {
        let subscriptions =
            Subscriptions::new(Arc::clone(&shared.channels), shared.messaging.clone());
        let mut connection = Connection {
            client,
            out: Encoder::default(),
            identity: Identity::Stranger,
            version: 0,
            expires: None,
            lost: None,
            rate: shared.access.connection_rate(),
            user_rate: None,
            certificate_name: None,
            config: shared.config.now(),
            subscriptions,
            monitoring: None,
        };
        connection.begin(shared);
        connection
    }

    /// Acts for whom a new connection acts for.
    fn begin(&mut self, shared: &Shared) {
        self.version = shared.access.version();
        let name = self.certificate_name.as_deref();
        let user = name.and_then(|name| shared.access.certificate_user(name));
        self.act_for(user.map_or_else(|| shared.access.newcomer(), Identity::User), shared);
    }

    /// Takes the name in the certificate that the client has shown, and acts for its user.
    pub fn show_certificate(&mut self, name: Box<str>, shared: &Shared) {
        self.certificate_name = Some(name);
        self.begin(shared);
    }

    /// Whether it has logged in, or need not.
    pub fn is_logged_in(&self) -> bool {
        self.identity.is_known()
    }

    /// Acts for a user who has logged in. What another user has begun ends.
    pub fn log_in_as(&mut self, identity: Identity, shared: &Shared) {
        if self.identity.is_known() && !self.identity.is_same(&identity) {
            self.subscriptions.clear();
            self.monitoring = None;
            self.note_subscriptions();
        }
        self.act_for(identity, shared);
    }

    /// Acts for a user from now on.
    pub fn act_for(&mut self, identity: Identity, shared: &Shared) {
        self.expires = identity.terminal().map(|terminal| {
            let left_ms = terminal.expires_ms.saturating_sub(shared.now_ms());
            Instant::now() + Duration::from_millis(left_ms).min(LONGEST)
        });
        self.user_rate = shared.access.user_rate(&identity, shared.monotonic());
        *self.client.user.lock() = Bytes::copy_from_slice(identity.name());
        self.client.is_terminal.store(identity.terminal().is_some(), Ordering::Relaxed);
        self.subscriptions.see(identity.sight());
        self.identity = identity;
    }

    /// When its token expires.
    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Looks whether its token has expired or its key is gone, and whether the rules of its user or
    /// the rates have changed. Subscriptions and a blocked command were checked by the rules that
    /// held when they began, so the connection ends if it has any.
    pub fn look_at_rights(&mut self, shared: &Shared, is_answering: bool) {
        if self.expires.is_some_and(|expires| expires <= Instant::now()) {
            self.lost = Some(Refusal::new("NOAUTH", "the token has expired: log in again"));
            self.act_for(Identity::Stranger, shared);
        }
        let version = shared.access.version();
        if version == self.version {
            return;
        }
        self.version = version;
        self.rate = shared.access.connection_rate();
        self.user_rate = shared.access.user_rate(&self.identity, shared.monotonic());
        if let Some(terminal) = self.identity.terminal()
            && !shared.access.has_key_of(terminal)
        {
            let text = "the key of the token was removed: log in again with another token";
            self.lost = Some(Refusal::new("NOAUTH", text));
            self.act_for(Identity::Stranger, shared);
        }
        let Identity::User(user) = &self.identity else { return };
        match shared.access.as_now(user) {
            Some(now) if Arc::ptr_eq(&now, user) => {}
            Some(now) => {
                let has_begun = is_answering
                    || self.monitoring.is_some()
                    || self.subscriptions.total() + self.subscriptions.blocked_on() > 0;
                self.lost = has_begun.then(|| {
                    Refusal::new("NOPERM", "the rules of the user were changed: connect again")
                });
                self.act_for(Identity::User(now), shared);
            }
            None => {
                let text = "the user was removed or turned off";
                self.lost = Some(Refusal::new("NOAUTH", text));
                self.act_for(Identity::Stranger, shared);
            }
        }
    }

    /// Takes the right to run one command, at a time of the server's monotonic clock. Otherwise
    /// returns how long to wait.
    pub fn take_turn(&self, now: impl FnOnce() -> Duration) -> Result<(), Duration> {
        if self.rate.is_none() && self.user_rate.is_none() {
            return Ok(());
        }
        let now = now();
        self.rate.iter().try_for_each(|rate| rate.take(now))?;
        self.user_rate.iter().try_for_each(|rate| rate.take(now)).inspect_err(|_| {
            self.rate.iter().for_each(Rate::give_back);
        })
    }

    /// Resets everything except the output that waits to be sent.
    pub fn reset(&mut self, shared: &Shared) {
        self.speak(Protocol::Resp2);
        self.rename(&[]);
        for flag in [&self.client.activity.no_evict, &self.client.activity.no_touch] {
            flag.store(false, Ordering::Relaxed);
        }
        self.subscriptions.clear();
        self.monitoring = None;
        self.note_subscriptions();
        self.begin(shared);
    }

    /// Changes the protocol version.
    pub fn speak(&mut self, protocol: Protocol) {
        self.out.protocol = protocol;
        self.client.protocol.store(protocol.number(), Ordering::Relaxed);
    }

    /// Changes the name of the client.
    pub fn rename(&mut self, name: &[u8]) {
        *self.client.name.lock() = Bytes::copy_from_slice(name);
    }

    /// Whether only the commands of a subscriber are allowed: in RESP2 a reply cannot be
    /// distinguished from a message.
    pub fn is_subscriber_only(&self) -> bool {
        self.out.protocol == Protocol::Resp2
            && self.subscriptions.count(SubscriptionKind::Message)
                + self.subscriptions.count(SubscriptionKind::ShardMessage)
                > 0
    }

    /// Waits for a line of MONITOR; for ever if it does not monitor.
    pub async fn line_arrived(&self) {
        match &self.monitoring {
            Some(monitoring) => monitoring.arrived().await,
            None => std::future::pending().await,
        }
    }

    /// Refuses `more` subscriptions if they exceed a limit.
    pub fn check_room(&self, shared: &Shared, more: usize) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        for (whose, has, most) in [
            ("a connection has", self.subscriptions.total(), limits.max_subscriptions),
            ("all connections have", shared.channels.total(), limits.max_total_subscriptions),
        ] {
            if has + more > most {
                let text = format!(
                    "{whose} at most {most} subscriptions, follows and keys of blocked commands"
                );
                return Err(Refusal::new("LIMIT", text));
            }
        }
        Ok(())
    }

    /// Updates the numbers of subscriptions in the record.
    pub fn note_subscriptions(&self) {
        self.client
            .channels
            .store(self.subscriptions.count(SubscriptionKind::Message), Ordering::Relaxed);
        self.client
            .shard_channels
            .store(self.subscriptions.count(SubscriptionKind::ShardMessage), Ordering::Relaxed);
    }
}
