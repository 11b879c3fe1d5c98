//! Who is connected: one card a connection, for CLIENT LIST and CLIENT KILL, for the limit on
//! connections, and for telling all of them to end. And how many connections subscribe to each
//! channel, for PUBSUB NUMSUB.
//!
//! Knows nothing of sockets: a session looks at its own card.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Whether a connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It may.
    No,
    /// It finishes what it is at, sends what it has to send, and closes.
    Finish,
    /// It holds the most output while memory is short: it is told `SLOW`, and closes.
    Slow,
    /// It holds the most input while memory is short: it is told `LIMIT`, and closes.
    Full,
    /// It closes at once.
    Now,
}

/// One connection, as others see it.
#[derive(Debug)]
pub struct Client {
    /// Its number, never used twice while the server runs.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// When it came.
    pub since_ms: u64,
    /// What CLIENT SETNAME said.
    pub name: Mutex<Bytes>,
    /// What CLIENT SETINFO said of its library.
    pub library: Mutex<Library>,
    /// What it is at.
    pub activity: Activity,
    /// 2 or 3.
    pub protocol: AtomicU8,
    /// How many channels it subscribes to.
    pub channels: AtomicUsize,
    /// How many shard channels it subscribes to.
    pub shard_channels: AtomicUsize,
    /// Bytes of input that it holds above the floor; before login all that it holds.
    pub input_bytes: AtomicUsize,
    /// Bytes of output that it holds above the floor.
    pub output_bytes: AtomicUsize,
    /// Whether it is counted with those who have logged in.
    pub logged_in: AtomicBool,
    /// Bytes that moved in either direction so far.
    pub moved_bytes: AtomicU64,
    end: AtomicU8,
    told: Notify,
}

/// A client's library, by its own word.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Its name.
    pub name: Bytes,
    /// Its version.
    pub version: Bytes,
}

/// What a connection is at.
#[derive(Debug, Default)]
pub struct Activity {
    /// When its last command began, Unix ms.
    pub last_ms: AtomicU64,
    /// The name of its last command, in capitals; empty before the first.
    pub command: Mutex<&'static str>,
    /// Whether that command waits for its timelines.
    pub is_blocked: AtomicBool,
    /// What CLIENT NO-EVICT said.
    pub no_evict: AtomicBool,
    /// What CLIENT NO-TOUCH said.
    pub no_touch: AtomicBool,
}

impl Client {
    /// A command begins.
    pub fn begin(&self, command: &'static str, now_ms: u64) {
        self.activity.last_ms.store(now_ms, Ordering::Relaxed);
        *self.activity.command.lock() = command;
    }

    /// Whether it subscribes to anything.
    pub fn is_subscriber(&self) -> bool {
        self.channels.load(Ordering::Relaxed) + self.shard_channels.load(Ordering::Relaxed) > 0
    }

    /// Tells the connection to end. The stricter of two words holds.
    pub fn tell(&self, end: End) {
        self.end.fetch_max(end as u8, Ordering::SeqCst);
        self.told.notify_one();
    }

    /// What it was told.
    pub fn end(&self) -> End {
        match self.end.load(Ordering::SeqCst) {
            0 => End::No,
            1 => End::Finish,
            2 => End::Slow,
            3 => End::Full,
            _ => End::Now,
        }
    }

    /// Waits until it is told something. For its own session only: one word wakes one waiter.
    pub async fn told(&self) {
        self.told.notified().await;
    }
}

#[derive(Default)]
struct Connected {
    last_id: u64,
    stopping: bool,
    by_id: HashMap<u64, Arc<Client>>,
}

/// All connections.
#[derive(Default)]
pub struct Clients(Mutex<Connected>);

impl Clients {
    /// Lets a connection in, unless there are `most` already or the server is stopping.
    pub fn join(&self, address: SocketAddr, now_ms: u64, most: usize) -> Option<Arc<Client>> {
        let mut connected = self.0.lock();
        if connected.stopping || connected.by_id.len() >= most {
            return None;
        }
        connected.last_id += 1;
        let client = Arc::new(Client {
            id: connected.last_id,
            address,
            since_ms: now_ms,
            name: Mutex::default(),
            library: Mutex::default(),
            activity: Activity { last_ms: AtomicU64::new(now_ms), ..Activity::default() },
            protocol: AtomicU8::new(2),
            channels: AtomicUsize::new(0),
            shard_channels: AtomicUsize::new(0),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            logged_in: AtomicBool::new(false),
            moved_bytes: AtomicU64::new(0),
            end: AtomicU8::new(End::No as u8),
            told: Notify::new(),
        });
        connected.by_id.insert(client.id, Arc::clone(&client));
        Some(client)
    }

    /// The connection is gone.
    pub fn leave(&self, id: u64) {
        self.0.lock().by_id.remove(&id);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().by_id.len()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.0.lock().by_id.values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    /// Tells everybody to finish, and lets nobody in any more.
    pub fn finish_all(&self) {
        let mut connected = self.0.lock();
        connected.stopping = true;
        for client in connected.by_id.values() {
            client.tell(End::Finish);
        }
    }
}

/// How many connections subscribe to each channel (not: shard channel), and how many of
/// all kinds there are.
#[derive(Default)]
pub struct Channels {
    counts: Mutex<HashMap<Bytes, usize>>,
    total: AtomicUsize,
}

impl Channels {
    /// One more.
    pub fn enter(&self, channel: &Bytes) {
        *self.counts.lock().entry(channel.clone()).or_default() += 1;
    }

    /// One less.
    pub fn leave(&self, channel: &Bytes) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(channel) {
            *count -= 1;
            if *count == 0 {
                counts.remove(channel);
            }
        }
    }

    /// How many.
    pub fn count(&self, channel: &[u8]) -> usize {
        self.counts.lock().get(channel).copied().unwrap_or_default()
    }

    /// How many subscriptions, follows and keys that are waited for all connections have.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// A connection has another number of them than before.
    pub fn change_total(&self, before: usize, now: usize) {
        self.total.fetch_add(now, Ordering::Relaxed);
        self.total.fetch_sub(before, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    #[test]
    fn connections_are_counted_and_nobody_comes_in_over_the_limit_or_while_stopping() {
        let clients = Clients::default();
        let first = clients.join(address(), 0, 1).expect("there is room");
        assert!(clients.join(address(), 0, 1).is_none());
        clients.leave(first.id);
        let second = clients.join(address(), 0, 1).expect("there is room again");
        assert_ne!(first.id, second.id);
        clients.finish_all();
        assert_eq!((second.end(), clients.join(address(), 0, 9).is_none()), (End::Finish, true));
    }

    #[test]
    fn a_kill_is_not_softened_by_a_stop() {
        let clients = Clients::default();
        let client = clients.join(address(), 0, 1).expect("there is room");
        client.tell(End::Now);
        client.tell(End::Finish);
        assert_eq!(client.end(), End::Now);
    }

    #[test]
    fn channels_nobody_listens_to_are_forgotten() {
        let channels = Channels::default();
        let name = Bytes::from("sync:a");
        channels.enter(&name);
        channels.enter(&name);
        channels.leave(&name);
        assert_eq!(channels.count(b"sync:a"), 1);
        channels.leave(&name);
        assert!(channels.counts.lock().is_empty());
    }
}
