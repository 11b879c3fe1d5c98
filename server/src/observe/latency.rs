//! Moments that took long, by kind, for LATENCY: of each second that had any, the longest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use strandline::clock::{Clock as _, SystemClock};

/// As many as Redis keeps of each kind.
const MOST_SPIKES: usize = 160;

/// A kind of work whose time is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyEvent {
    /// A command, from its start to its reply.
    Command,
    /// The commit of a group: write, fsync, publication.
    Commit,
    /// An fsync of the log.
    Fsync,
}

impl LatencyEvent {
    /// All kinds.
    pub const ALL: [LatencyEvent; 3] =
        [LatencyEvent::Command, LatencyEvent::Commit, LatencyEvent::Fsync];

    /// The word for it in LATENCY.
    pub fn word(self) -> &'static str {
        match self {
            LatencyEvent::Command => "command",
            LatencyEvent::Commit => "commit",
            LatencyEvent::Fsync => "fsync",
        }
    }

    /// The kind of a word, in any case.
    pub fn named(word: &[u8]) -> Option<LatencyEvent> {
        let is_it = |event: &LatencyEvent| word.eq_ignore_ascii_case(event.word().as_bytes());
        LatencyEvent::ALL.into_iter().find(is_it)
    }
}

/// The longest moment of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// The second, in Unix time.
    pub at_seconds: u64,
    /// The longest time, in microseconds.
    pub micros: u64,
}

#[derive(Debug, Default)]
struct Spikes {
    /// The oldest first.
    spikes: VecDeque<Spike>,
    most_micros: u64,
}

/// The moments of all kinds that took at least a threshold.
#[derive(Debug)]
pub struct LatencyEvents {
    threshold_us: AtomicU64,
    clock: SystemClock,
    by_event: [Mutex<Spikes>; LatencyEvent::ALL.len()],
}

impl LatencyEvents {
    /// No moments yet.
    pub fn new(threshold_us: u64) -> LatencyEvents {
        LatencyEvents {
            threshold_us: AtomicU64::new(threshold_us),
            clock: SystemClock::new(),
            by_event: Default::default(),
        }
    }

    /// Changes the threshold while the server runs.
    #[allow(dead_code, reason = "for CONFIG SET")]
    pub fn set_threshold(&self, threshold_us: u64) {
        self.threshold_us.store(threshold_us, Ordering::Relaxed);
    }

    /// Notes a moment that has just ended, if it took at least the threshold.
    pub fn note(&self, event: LatencyEvent, micros: u64) {
        if micros >= self.threshold_us.load(Ordering::Relaxed) {
            self.add(event, Spike { at_seconds: self.clock.now_ms() / 1000, micros });
        }
    }

    fn add(&self, event: LatencyEvent, spike: Spike) {
        let mut of_event = self.by_event[event as usize].lock();
        of_event.most_micros = of_event.most_micros.max(spike.micros);
        match of_event.spikes.back_mut() {
            Some(last) if last.at_seconds == spike.at_seconds => {
                last.micros = last.micros.max(spike.micros);
            }
            _ => {
                if of_event.spikes.len() == MOST_SPIKES {
                    of_event.spikes.pop_front();
                }
                of_event.spikes.push_back(spike);
            }
        }
    }

    /// The moments of a kind, oldest first.
    pub fn history(&self, event: LatencyEvent) -> Vec<Spike> {
        self.by_event[event as usize].lock().spikes.iter().copied().collect()
    }

    /// The last moment of each kind that has one, with the longest time of the kind in
    /// microseconds.
    pub fn latest(&self) -> Vec<(LatencyEvent, Spike, u64)> {
        let latest = |event: LatencyEvent| {
            let of_event = self.by_event[event as usize].lock();
            of_event.spikes.back().map(|last| (event, *last, of_event.most_micros))
        };
        LatencyEvent::ALL.into_iter().filter_map(latest).collect()
    }

    /// Forgets the moments of a kind. Returns whether there were any.
    pub fn reset(&self, event: LatencyEvent) -> bool {
        !std::mem::take(&mut *self.by_event[event as usize].lock()).spikes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_moment_and_old_ones_leave() {
        let events = LatencyEvents::new(10);
        let add = |at_seconds, micros| {
            events.add(LatencyEvent::Commit, Spike { at_seconds, micros });
        };
        add(1, 900);
        (2..=200).for_each(|second| add(second, 20));
        add(200, 50);
        add(200, 30);
        let history = events.history(LatencyEvent::Commit);
        assert_eq!(history.len(), MOST_SPIKES);
        let last = Spike { at_seconds: 200, micros: 50 };
        assert_eq!(history.last(), Some(&last));
        assert_eq!(events.latest(), [(LatencyEvent::Commit, last, 900)]);
        assert!(events.reset(LatencyEvent::Commit) && !events.reset(LatencyEvent::Commit));
        assert!(events.latest().is_empty());
    }

    #[test]
    fn moments_below_the_threshold_are_not_noted() {
        let events = LatencyEvents::new(10);
        events.note(LatencyEvent::Fsync, 9);
        assert!(events.latest().is_empty());
        events.note(LatencyEvent::Fsync, 10);
        events.set_threshold(11);
        events.note(LatencyEvent::Fsync, 10);
        assert_eq!(events.latest().len(), 1);
        assert_eq!(LatencyEvent::named(b"FSync"), Some(LatencyEvent::Fsync));
        assert_eq!(LatencyEvent::named(b"fork"), None);
    }
}
