//! Time as a parameter. Nothing else in the engine asks the operating system what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::ids::TimeMs;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Wall time in Unix milliseconds. It may jump either way; the commit path keeps times from decreasing.
    fn now_ms(&self) -> TimeMs;

    /// Time since some fixed moment, which never goes back: for measuring, never for stamping.
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

/// Time that may destroy: never ahead of what the monotonic clock confirms (P8).
///
/// Physical deletion asks this. A wall clock that jumps forward, while the engine runs or while it was stopped, does not move it:
/// deletion waits until the wall clock has run evenly for an hour, so that a person has time to see the warning. Reads and stamps
/// use the wall clock as it is.
#[derive(Debug)]
pub struct SureTime {
    state: Mutex<SureState>,
}

#[derive(Debug)]
struct SureState {
    /// A wall time that was believed, and the monotonic time that went with it.
    base_ms: TimeMs,
    base: Duration,
    /// The wall clock is ahead of what is believed: what it showed when that was noticed, and the monotonic time of it.
    held: Option<(TimeMs, Duration)>,
}

/// How far ahead the wall clock may run: it is corrected now and then.
const SLACK_MS: u64 = 60_000;

/// How long an engine may have been stopped before its clock is doubted.
const STOPPED_MS: u64 = 24 * 3600 * 1000;

/// How long a doubted clock must run evenly before it is believed.
const TRUST: Duration = Duration::from_hours(1);

impl SureTime {
    /// Starts from the last time that an earlier life was sure of; 0: there was none.
    pub fn new(clock: &dyn Clock, seen_ms: TimeMs) -> SureTime {
        let now_ms = clock.now_ms();
        let believed = seen_ms == 0 || now_ms <= seen_ms.saturating_add(STOPPED_MS);
        let base_ms = if believed { now_ms } else { seen_ms };
        SureTime { state: Mutex::new(SureState { base_ms, base: clock.monotonic(), held: None }) }
    }

    /// The time that deletion may go by.
    pub fn now_ms(&self, clock: &dyn Clock) -> TimeMs {
        let (now_ms, now) = (clock.now_ms(), clock.monotonic());
        let mut state = self.state.lock();
        let elapsed_ms = now.saturating_sub(state.base).as_millis() as u64;
        let confirmed_ms = state.base_ms.saturating_add(elapsed_ms);
        if now_ms <= confirmed_ms.saturating_add(SLACK_MS) {
            state.held = None;
            return now_ms;
        }
        let runs_evenly = |(held_ms, since): &(TimeMs, Duration)| {
            let expected_ms = held_ms.saturating_add(now.saturating_sub(*since).as_millis() as u64);
            now_ms.abs_diff(expected_ms) <= SLACK_MS
        };
        let Some((_, since)) = state.held.filter(runs_evenly) else {
            tracing::warn!(
                now_ms,
                confirmed_ms,
                "the wall clock jumped forward: nothing is deleted by it for an hour"
            );
            state.held = Some((now_ms, now));
            return confirmed_ms;
        };
        if now.saturating_sub(since) < TRUST {
            return confirmed_ms;
        }
        tracing::warn!(now_ms, "the wall clock is believed again");
        (state.base_ms, state.base, state.held) = (now_ms, now, None);
        now_ms
    }

    /// Whether deletion waits because the clock is doubted.
    pub fn is_held(&self) -> bool {
        self.state.lock().held.is_some()
    }
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn at(now_ms: TimeMs) -> ManualClock {
        ManualClock { now_ms: AtomicU64::new(now_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall time, forwards or backwards: a jump, which the monotonic clock does not confirm.
    pub fn set(&self, now_ms: TimeMs) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimeMs {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    #[test]
    fn time_that_passes_is_believed_and_a_jump_is_not() {
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
    fn a_clock_that_was_put_right_is_believed_at_once() {
        let clock = ManualClock::at(1_000_000);
        let sure = SureTime::new(&clock, 0);
        clock.set(u64::MAX);
        assert_eq!(sure.now_ms(&clock), 1_000_000);
        clock.set(1_000_500);
        assert_eq!((sure.now_ms(&clock), sure.is_held()), (1_000_500, false));
    }

    #[test]
    fn a_jump_while_the_engine_was_stopped_is_doubted_and_a_short_stop_is_not() {
        let clock = ManualClock::at(5 * DAY_MS);
        assert_eq!(SureTime::new(&clock, 4 * DAY_MS).now_ms(&clock), 5 * DAY_MS);
        assert_eq!(SureTime::new(&clock, DAY_MS).now_ms(&clock), DAY_MS);
        assert_eq!(SureTime::new(&clock, 9 * DAY_MS).now_ms(&clock), 5 * DAY_MS);
    }
}
