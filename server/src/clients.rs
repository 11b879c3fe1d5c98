//! The list of connections: one record per connection, for CLIENT LIST and CLIENT KILL, for the
//! limit on connections, and for ending all of them. Also the number of connections that subscribe
//! to each channel, for PUBSUB NUMSUB.
//!
//! It knows nothing of sockets: each session checks its own record.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Whether a connection may continue, and if not, how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It may continue.
    No,
    /// It finishes its current command, sends its output, and closes.
    Finish,
    /// It holds the most output while memory is short: it gets the error `SLOW`, and closes.
    Slow,
    /// It holds the most input while memory is short: it gets the error `LIMIT`, and closes.
    Full,
    /// It closes at once.
    Now,
}

/// The shared record of a connection.
#[derive(Debug)]
pub struct Client {
    /// Its number, never reused while the server runs.
    pub id: u64,
    /// The address of the peer.
    pub address: SocketAddr,
    /// The address of the server that the peer connected to.
    pub local: SocketAddr,
    /// The number of its socket's file descriptor.
    pub descriptor: i32,
    /// When it connected, in milliseconds of the monotonic clock.
    pub since_ms: u64,
    /// The name set by CLIENT SETNAME.
    pub name: Mutex<Bytes>,
    /// The library set by CLIENT SETINFO.
    pub library: Mutex<Library>,
    /// The name of the user that it acts for; empty before login.
    pub user: Mutex<Bytes>,
    /// Whether a token logged it in.
    pub is_terminal: AtomicBool,
    /// Its current and last activity.
    pub activity: Activity,
    /// The RESP version: 2 or 3.
    pub protocol: AtomicU8,
    /// The number of channels that it subscribes to.
    pub channels: AtomicUsize,
    /// The number of shard channels that it subscribes to.
    pub shard_channels: AtomicUsize,
    /// The bytes of input that it holds above the floor; before login, all that it holds.
    pub input_bytes: AtomicUsize,
    /// The bytes of output that it holds above the floor.
    pub output_bytes: AtomicUsize,
    /// The memory of its input and of its output, all of it.
    pub held_bytes: [AtomicUsize; 2],
    /// The bytes of input that wait to run, and of output that wait for the peer.
    pub waiting_bytes: [AtomicUsize; 2],
    /// Whether its follows or subscriptions lack entries that it does not get now, since its
    /// client does not take its output.
    pub is_behind: AtomicBool,
    /// Whether it is counted with the connections that have logged in.
    pub logged_in: AtomicBool,
    /// The bytes that were read from it so far.
    pub received_bytes: AtomicU64,
    /// The bytes that were written to it so far.
    pub sent_bytes: AtomicU64,
    end: AtomicU8,
    asked: Notify,
}

/// The library of a client, as the client states it.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Its name.
    pub name: Bytes,
    /// Its version.
    pub version: Bytes,
}

/// The activity of a connection.
#[derive(Debug, Default)]
pub struct Activity {
    /// When its last command began, in milliseconds of the monotonic clock.
    pub last_ms: AtomicU64,
    /// The number of its commands.
    pub commands: AtomicU64,
    /// The name of its last command, in capitals; empty before the first.
    pub command: Mutex<&'static str>,
    /// Whether that command is blocked.
    pub is_blocked: AtomicBool,
    /// The flag set by CLIENT NO-EVICT.
    pub no_evict: AtomicBool,
    /// The flag set by CLIENT NO-TOUCH.
    pub no_touch: AtomicBool,
}

impl Client {
    /// The bytes that were read and written so far.
    pub fn moved_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed) + self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Notes the start of a command. For its own session only, so the number needs no lock.
    pub fn begin(&self, command: &'static str, now_ms: u64) {
        self.activity.last_ms.store(now_ms, Ordering::Relaxed);
        let before = self.activity.commands.load(Ordering::Relaxed);
        self.activity.commands.store(before + 1, Ordering::Relaxed);
        *self.activity.command.lock() = command;
    }

    /// Whether it subscribes to any channel.
    pub fn is_subscriber(&self) -> bool {
        self.channels.load(Ordering::Relaxed) + self.shard_channels.load(Ordering::Relaxed) > 0
    }

    /// Asks the connection to end. Of several requests the strictest holds.
    pub fn ask_to_end(&self, end: End) {
        self.end.fetch_max(end as u8, Ordering::SeqCst);
        self.asked.notify_one();
    }

    /// Asks the connection to look at its rights, since those of users have changed.
    pub fn look_again(&self) {
        self.asked.notify_one();
    }

    /// The strictest request so far.
    pub fn end(&self) -> End {
        match self.end.load(Ordering::SeqCst) {
            0 => End::No,
            1 => End::Finish,
            2 => End::Slow,
            3 => End::Full,
            _ => End::Now,
        }
    }

    /// Waits for a request to end, to look at its rights, or a wake-up for another reason. For its
    /// own session only: one request wakes one waiter.
    pub async fn asked_to_end(&self) {
        self.asked.notified().await;
    }
}

#[derive(Default)]
struct Connected {
    last_id: u64,
    stopping: bool,
    by_id: HashMap<u64, Arc<Client>>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The address of the peer.
    pub peer: SocketAddr,
    /// The address of the server that the peer connected to.
    pub local: SocketAddr,
    /// The number of the file descriptor.
    pub descriptor: i32,
}

/// All connections.
#[derive(Default)]
pub struct Clients(Mutex<Connected>);

impl Clients {
    /// Adds a connection, unless there are `most` already or the server is stopping.
    pub fn join(&self, ends: Ends, now_ms: u64, most: usize) -> Option<Arc<Client>> {
        let mut connected = self.0.lock();
        if connected.stopping || connected.by_id.len() >= most {
            return None;
        }
        connected.last_id += 1;
        let client = Arc::new(Client {
            id: connected.last_id,
            address: ends.peer,
            local: ends.local,
            descriptor: ends.descriptor,
            since_ms: now_ms,
            name: Mutex::default(),
            library: Mutex::default(),
            user: Mutex::default(),
            is_terminal: AtomicBool::new(false),
            activity: Activity { last_ms: AtomicU64::new(now_ms), ..Activity::default() },
            protocol: AtomicU8::new(2),
            channels: AtomicUsize::new(0),
            shard_channels: AtomicUsize::new(0),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            held_bytes: Default::default(),
            waiting_bytes: Default::default(),
            is_behind: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            end: AtomicU8::new(End::No as u8),
            asked: Notify::new(),
        });
        connected.by_id.insert(client.id, Arc::clone(&client));
        Some(client)
    }

    /// Removes a connection.
    pub fn leave(&self, id: u64) {
        self.0.lock().by_id.remove(&id);
    }

    /// The number of connections.
    pub fn count(&self) -> usize {
        self.0.lock().by_id.len()
    }

    /// All connections, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.0.lock().by_id.values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    /// Wakes all connections, so that each looks at its deadlines again.
    pub fn wake_all(&self) {
        for client in self.0.lock().by_id.values() {
            client.asked.notify_one();
        }
    }

    /// Asks all connections to finish, and refuses new ones.
    pub fn finish_all(&self) {
        let mut connected = self.0.lock();
        connected.stopping = true;
        for client in connected.by_id.values() {
            client.ask_to_end(End::Finish);
        }
    }
}

/// The number of connections that subscribe to each channel (not: shard channel), and the total of
/// subscriptions of all kinds.
#[derive(Default)]
pub struct Channels {
    counts: Mutex<HashMap<Bytes, usize>>,
    total: AtomicUsize,
}

impl Channels {
    /// Adds a subscriber.
    pub fn enter(&self, channel: &Bytes) {
        *self.counts.lock().entry(channel.clone()).or_default() += 1;
    }

    /// Removes a subscriber.
    pub fn leave(&self, channel: &Bytes) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(channel) {
            *count -= 1;
            if *count == 0 {
                counts.remove(channel);
            }
        }
    }

    /// The number of subscribers.
    pub fn count(&self, channel: &[u8]) -> usize {
        self.counts.lock().get(channel).copied().unwrap_or_default()
    }

    /// The number of subscriptions, follows and keys of blocked commands, of all connections
    /// together.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Replaces the part of a connection in the total.
    pub fn change_total(&self, before: usize, now: usize) {
        self.total.fetch_add(now, Ordering::Relaxed);
        self.total.fetch_sub(before, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        let [peer, local] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Ends { peer, local, descriptor: 7 }
    }

    #[test]
    fn connections_are_counted_and_refused_over_the_limit_and_while_stopping() {
        let clients = Clients::default();
        let first = clients.join(ends(), 0, 1).expect("there is room");
        assert!(clients.join(ends(), 0, 1).is_none());
        clients.leave(first.id);
        let second = clients.join(ends(), 0, 1).expect("there is room again");
        assert_ne!(first.id, second.id);
        clients.finish_all();
        assert_eq!((second.end(), clients.join(ends(), 0, 9).is_none()), (End::Finish, true));
    }

    #[test]
    fn a_kill_is_not_softened_by_a_stop() {
        let clients = Clients::default();
        let client = clients.join(ends(), 0, 1).expect("there is room");
        client.ask_to_end(End::Now);
        client.ask_to_end(End::Finish);
        assert_eq!(client.end(), End::Now);
    }

    #[test]
    fn channels_without_subscribers_are_forgotten() {
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
