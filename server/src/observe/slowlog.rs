//! The last commands that took long, for SLOWLOG.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::settings::SlowlogSettings;
use super::words::kept_words;

/// A command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowCommand {
    /// Its number; never given twice while the server runs.
    pub id: u64,
    /// When it ended, Unix seconds.
    pub at_seconds: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Its words, cut and without secrets.
    pub words: Vec<Vec<u8>>,
    /// The address of its client.
    pub address: SocketAddr,
    /// The name of its client.
    pub name: Bytes,
}

/// The list of slow commands.
#[derive(Debug)]
pub struct Slowlog {
    threshold_us: AtomicU64,
    length: AtomicUsize,
    list: Mutex<SlowList>,
}

#[derive(Debug, Default)]
struct SlowList {
    next_id: u64,
    /// The newest first.
    commands: VecDeque<SlowCommand>,
}

impl Slowlog {
    /// An empty list.
    pub fn new(settings: &SlowlogSettings) -> Slowlog {
        Slowlog {
            threshold_us: AtomicU64::new(settings.threshold_us),
            length: AtomicUsize::new(settings.length),
            list: Mutex::default(),
        }
    }

    /// Changes the settings while the server runs.
    #[allow(dead_code, reason = "for CONFIG SET")]
    pub fn set(&self, settings: &SlowlogSettings) {
        self.threshold_us.store(settings.threshold_us, Ordering::Relaxed);
        self.length.store(settings.length, Ordering::Relaxed);
        self.list.lock().commands.truncate(settings.length);
    }

    /// Whether slow commands are kept.
    pub fn is_on(&self) -> bool {
        self.length.load(Ordering::Relaxed) > 0
    }

    /// Whether a command that took this long is slow.
    pub fn is_slow(&self, micros: u64) -> bool {
        micros >= self.threshold_us.load(Ordering::Relaxed)
    }

    /// Adds a slow command; the oldest leaves if there are too many. `is_secret`: of its words only
    /// the name may be kept.
    pub fn add(
        &self,
        (request, is_secret): (&[Bytes], bool),
        (at_seconds, micros): (u64, u64),
        (address, name): (SocketAddr, Bytes),
    ) {
        let words = kept_words(request, is_secret);
        let most = self.length.load(Ordering::Relaxed);
        let mut list = self.list.lock();
        let id = list.next_id;
        list.next_id += 1;
        list.commands.push_front(SlowCommand { id, at_seconds, micros, words, address, name });
        list.commands.truncate(most);
    }

    /// The newest `most` slow commands, newest first.
    pub fn newest(&self, most: usize) -> Vec<SlowCommand> {
        self.list.lock().commands.iter().take(most).cloned().collect()
    }

    /// The number of slow commands that are kept.
    pub fn count(&self) -> usize {
        self.list.lock().commands.len()
    }

    /// Forgets all. Numbers go on.
    pub fn reset(&self) {
        self.list.lock().commands.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_numbers_go_on_after_a_reset() {
        let log = Slowlog::new(&SlowlogSettings { threshold_us: 5, length: 2 });
        assert!(log.is_slow(5) && !log.is_slow(4));
        let add = |word: &'static str| {
            let client = (SocketAddr::from(([127, 0, 0, 1], 1)), Bytes::new());
            log.add((&[Bytes::from_static(word.as_bytes())], false), (7, 9), client);
        };
        ["a", "b", "c"].into_iter().for_each(add);
        let ids = |most| log.newest(most).iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!((ids(9), ids(1), log.count()), (vec![2, 1], vec![2], 2));
        log.reset();
        add("d");
        assert_eq!(ids(9), [3]);
        log.set(&SlowlogSettings { threshold_us: 0, length: 0 });
        assert!(!log.is_on() && log.count() == 0 && log.is_slow(0));
    }
}
