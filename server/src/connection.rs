//! The state of one connection besides its socket: its client, its subscriptions, and its output.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::clients::Client;
use crate::config::Config;
use crate::observe::Monitoring;
use crate::protocol::{Encoder, Protocol};
use crate::push::{SubscriptionKind, Subscriptions};
use crate::refusal::Refusal;
use crate::shared::Shared;

/// One connection.
pub struct Connection {
    /// Its record in the list of connections.
    pub client: Arc<Client>,
    /// Replies and pushes that wait to be sent.
    pub out: Encoder,
    /// The common name in the certificate that it has shown.
    pub certificate_name: Option<Box<str>>,
    /// Whether it gave the password, or none is required.
    pub logged_in: bool,
    /// Its copy of the server's settings, at most one round old.
    pub config: Arc<Config>,
    /// Its subscriptions, and the timelines that its blocked command waits for.
    pub subscriptions: Subscriptions,
    /// Its lines, if it sees all commands.
    pub monitoring: Option<Monitoring>,
}

impl Connection {
    /// The state of a new connection.
    pub fn new(client: Arc<Client>, shared: &Shared) -> Connection {
        Connection {
            client,
            out: Encoder::default(),
            certificate_name: None,
            logged_in: !shared.password.is_set(),
            config: shared.config.now(),
            subscriptions: Subscriptions::new(
                Arc::clone(&shared.channels),
                shared.messaging.clone(),
            ),
            monitoring: None,
        }
    }

    /// Resets everything except the output that waits to be sent.
    pub fn reset(&mut self, shared: &Shared) {
        self.speak(Protocol::Resp2);
        self.rename(&[]);
        for flag in [&self.client.activity.no_evict, &self.client.activity.no_touch] {
            flag.store(false, Ordering::Relaxed);
        }
        self.logged_in = !shared.password.is_set();
        self.subscriptions.clear();
        self.monitoring = None;
        self.note_subscriptions();
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
