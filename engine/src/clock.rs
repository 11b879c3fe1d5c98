//! Time, as a parameter of the engine. No other file of the engine asks the operating system for
//! the time.

#[cfg(any(test, feature = "simulation"))]
mod manual;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::ids::TimeMs;
#[cfg(any(test, feature = "simulation"))]
pub use manual::ManualClock;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Wall time in Unix milliseconds. It may jump in both directions; the commit path keeps
    /// timestamps from decreasing.
    fn now_ms(&self) -> TimeMs;

    /// Time since some fixed moment, which never decreases: for measurements, never for timestamps.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

#[allow(clippy::disallowed_methods, reason = "this is the room that asks")]
impl SystemClock {
    /// The machine's clock.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the room that asks")]
impl Clock for SystemClock {
    fn now_ms(&self) -> TimeMs {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Sure time: the time that the monotonic clock confirms, counted from the last time that an
/// earlier run of the engine was sure of (P8).
///
/// | decision | clock |
/// |---|---|
/// | timestamp of an entry | wall clock, never below the last timestamp |
/// | start of a lifetime or of an id's or change window | [`SureTime::at_latest_ms`] at commit |
/// | visibility of an entry (TTL, own lifetime) | [`SureTime::at_latest_ms`] at read |
/// | deletion, forgetting an id, refusal of a change, removal by a trim | [`SureTime::now_ms`] |
/// | the time in the manifest | [`SureTime::now_ms`] |
///
/// Sure time never decreases. A wall clock that jumps forward, while the engine runs or while it
/// was stopped, does not move it: decisions by sure time wait until the wall clock has run evenly
/// for an hour, so that an operator has time to see the warning. A wall clock that is set back, or
/// is behind after a start, does not move it either: lifetimes continue as the monotonic clock
/// counts.
#[derive(Debug)]
pub struct SureTime {
    state: Mutex<SureState>,
}

#[derive(Debug)]
struct SureState {
    /// A trusted time, and the monotonic time at that moment.
    base_ms: TimeMs,
    base: Duration,
    /// The highest time given so far: the wall clock may be slightly ahead of the confirmed time,
    /// and then fall back.
    highest_ms: TimeMs,
    /// Set if the wall clock is ahead of the trusted time: its value when that was noticed, and the
    /// monotonic time of that moment.
    held: Option<(TimeMs, Duration)>,
}

/// How far ahead the wall clock may be: it is corrected now and then.
pub(crate) const SLACK_MS: u64 = 60_000;

/// How long an engine may have been stopped before its clock is doubted.
const STOPPED_MS: u64 = 24 * 3600 * 1000;

/// How long a doubted clock must run evenly before it is trusted.
const TRUST: Duration = Duration::from_hours(1);

impl SureTime {
    /// Starts from the last time that an earlier run of the engine was sure of; 0: there was none.
    pub fn new(clock: &dyn Clock, seen_ms: TimeMs) -> SureTime {
        let now_ms = clock.now_ms();
        let believed =
            seen_ms == 0 || (seen_ms..=seen_ms.saturating_add(STOPPED_MS)).contains(&now_ms);
        let base_ms = if believed { now_ms } else { seen_ms };
        let (base, highest_ms) = (clock.monotonic(), base_ms);
        SureTime { state: Mutex::new(SureState { base_ms, base, highest_ms, held: None }) }
    }

    /// The time of the wall clock, and sure time at that moment: each clock is read once.
    pub fn moment(&self, clock: &dyn Clock) -> (TimeMs, TimeMs) {
        let mut state = self.state.lock();
        // In this order, and under the lock: where the clocks agree, sure time is not later.
        let now = clock.monotonic();
        let now_ms = clock.now_ms();
        state.highest_ms = state.highest_ms.max(state.believed_ms(now_ms, now));
        (now_ms, state.highest_ms)
    }

    /// The time that deletion, forgetting and refusal use.
    pub fn now_ms(&self, clock: &dyn Clock) -> TimeMs {
        self.moment(clock).1
    }

    /// The time at which a lifetime starts, and by which a read judges it: the wall clock or sure
    /// time, whichever is later. So a new entry gets a correct lifetime even if the clock was ahead
    /// once, is behind, or the engine starts after a long stop.
    pub fn at_latest_ms(&self, clock: &dyn Clock) -> TimeMs {
        let (now_ms, sure_ms) = self.moment(clock);
        now_ms.max(sure_ms)
    }

    /// Whether deletion waits because the clock is doubted.
    pub fn is_held(&self) -> bool {
        self.state.lock().held.is_some()
    }
}

impl SureState {
    fn believed_ms(&mut self, now_ms: TimeMs, now: Duration) -> TimeMs {
        let elapsed_ms = now.saturating_sub(self.base).as_millis() as u64;
        let confirmed_ms = self.base_ms.saturating_add(elapsed_ms);
        if now_ms <= confirmed_ms.saturating_add(SLACK_MS) {
            self.held = None;
            return now_ms.max(confirmed_ms);
        }
        let runs_evenly = |(held_ms, since): &(TimeMs, Duration)| {
            let expected_ms = held_ms.saturating_add(now.saturating_sub(*since).as_millis() as u64);
            now_ms.abs_diff(expected_ms) <= SLACK_MS
        };
        let Some((_, since)) = self.held.filter(runs_evenly) else {
            tracing::warn!(
                now_ms,
                confirmed_ms,
                "the wall clock jumped forward: it expires nothing for an hour"
            );
            self.held = Some((now_ms, now));
            return confirmed_ms;
        };
        if now.saturating_sub(since) < TRUST {
            return confirmed_ms;
        }
        tracing::warn!(now_ms, "the wall clock is trusted again");
        (self.base_ms, self.base, self.held) = (now_ms, now, None);
        now_ms
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    /// A clock of which each reading of the monotonic time is late.
    struct LateClock {
        clock: ManualClock,
        late_ms: AtomicU64,
    }

    impl Clock for LateClock {
        fn now_ms(&self) -> TimeMs {
            self.clock.now_ms()
        }

        fn monotonic(&self) -> Duration {
            self.clock.pass(self.late_ms.load(Ordering::SeqCst));
            self.clock.monotonic()
        }
    }

    #[test]
    fn sure_time_is_not_the_later_one_though_time_passes_between_the_readings() {
        let clock = LateClock { clock: ManualClock::at(100 * DAY_MS), late_ms: AtomicU64::new(0) };
        let sure = SureTime::new(&clock, 0);
        clock.late_ms.store(5, Ordering::SeqCst);
        let (wall_ms, sure_ms) = sure.moment(&clock);
        assert_eq!((wall_ms, sure_ms), (100 * DAY_MS + 5, 100 * DAY_MS + 5));
    }

    #[test]
    fn elapsed_time_is_trusted_and_a_jump_is_not() {
        let clock = ManualClock::at(1_000_000);
        let sure = SureTime::new(&clock, 0);
        clock.pass(10 * DAY_MS);
        assert_eq!(sure.now_ms(&clock), 1_000_000 + 10 * DAY_MS);
        clock.set(clock.now_ms() + 3650 * DAY_MS);
        assert_eq!((sure.now_ms(&clock), sure.is_held()), (1_000_000 + 10 * DAY_MS, true));
        clock.pass(2 * 3600 * 1000);
        assert_eq!(
            (sure.now_ms(&clock), sure.is_held()),
            (clock.now_ms(), false),
            "it ran evenly for an hour"
        );
    }

    #[test]
    fn a_corrected_clock_is_trusted_at_once() {
        let clock = ManualClock::at(1_000_000);
        let sure = SureTime::new(&clock, 0);
        clock.set(u64::MAX);
        assert_eq!(sure.now_ms(&clock), 1_000_000);
        clock.set(1_000_500);
        assert_eq!((sure.now_ms(&clock), sure.is_held()), (1_000_500, false));
    }

    #[test]
    fn a_jump_while_the_engine_was_stopped_is_not_trusted_and_a_short_stop_is() {
        let clock = ManualClock::at(5 * DAY_MS);
        assert_eq!(SureTime::new(&clock, 4 * DAY_MS).now_ms(&clock), 5 * DAY_MS);
        assert_eq!(SureTime::new(&clock, DAY_MS).now_ms(&clock), DAY_MS);
    }

    #[test]
    fn sure_time_never_decreases_and_advances_while_the_wall_clock_is_behind() {
        let clock = ManualClock::at(5 * DAY_MS);
        let sure = SureTime::new(&clock, 9 * DAY_MS);
        assert_eq!(sure.now_ms(&clock), 9 * DAY_MS, "an earlier life was sure of it");
        clock.pass(1000);
        assert_eq!((sure.now_ms(&clock), sure.is_held()), (9 * DAY_MS + 1000, false));
        clock.set(9 * DAY_MS + 31_000);
        assert_eq!(sure.now_ms(&clock), 9 * DAY_MS + 31_000, "a little ahead");
        clock.set(9 * DAY_MS + 1000);
        assert_eq!(sure.now_ms(&clock), 9 * DAY_MS + 31_000);
    }

    #[test]
    fn a_lifetime_follows_the_later_of_the_two_clocks() {
        let clock = ManualClock::at(10 * DAY_MS);
        let sure = SureTime::new(&clock, 7 * DAY_MS);
        assert_eq!(
            (sure.now_ms(&clock), sure.at_latest_ms(&clock)),
            (7 * DAY_MS, 10 * DAY_MS),
            "a long stop"
        );
        clock.set(DAY_MS);
        assert_eq!(sure.at_latest_ms(&clock), 7 * DAY_MS, "a clock that is behind");
    }
}
