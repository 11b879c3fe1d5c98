//! When the next scheduled backup is due: after an interval, or at a time of the day.
//!
//! The first backup is due at once, and so is one whose time passed while the server was stopped.
//! After a failure the backup is tried again soon. A wall clock that is set back delays the next
//! backup by at most one interval: times in the future count as now.
//!
//! It knows neither files nor the engine, and asks no clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
const DAY_MS: u64 = DAY_MINUTES * MINUTE_MS;

/// How long after a failure the backup is tried again.
const RETRY_MS: u64 = 10 * MINUTE_MS;

/// A year: a longer interval is a typing error.
const MOST_MINUTES: u64 = 366 * DAY_MINUTES;

/// When backups are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// This long after the last one.
    Every {
        /// The interval.
        minutes: u64,
    },
    /// Once a day.
    At {
        /// The minute of the day, in UTC.
        minute: u64,
    },
}

/// The text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a schedule: write an interval from 1m to 366d, such as \"30m\", \"6h\" or \
     \"1d\", or a time of the day in UTC, such as \"03:30\""
)]
pub struct ScheduleError(String);

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        parse(text).ok_or_else(|| ScheduleError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Schedule> {
    // `parse` alone accepts a sign.
    let number = |digits: &str| -> Option<u64> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    if let Some((hours, minutes)) = text.split_once(':') {
        let is_clock = hours.len() == 2 && minutes.len() == 2;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let is_time = is_clock && hours < 24 && minutes < 60;
        return is_time.then_some(Schedule::At { minute: hours * 60 + minutes });
    }
    let minutes_of_unit = match text.chars().last()? {
        'm' => 1,
        'h' => 60,
        'd' => DAY_MINUTES,
        _ => return None,
    };
    let minutes = number(&text[..text.len() - 1])?.checked_mul(minutes_of_unit)?;
    (1..=MOST_MINUTES).contains(&minutes).then_some(Schedule::Every { minutes })
}

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Schedule, ScheduleError> {
        text.parse()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Schedule::At { minute } => write!(out, "{:02}:{:02}", minute / 60, minute % 60),
            Schedule::Every { minutes } if minutes % 60 == 0 => write!(out, "{}h", minutes / 60),
            Schedule::Every { minutes } => write!(out, "{minutes}m"),
        }
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

impl Schedule {
    /// The time at which the next backup is due, if the last one was taken at `last_ms`.
    fn next_after(self, last_ms: u64) -> u64 {
        match self {
            Schedule::Every { minutes } => last_ms.saturating_add(minutes * MINUTE_MS),
            Schedule::At { minute } => {
                let at_ms = last_ms - last_ms % DAY_MS + minute * MINUTE_MS;
                if at_ms > last_ms { at_ms } else { at_ms.saturating_add(DAY_MS) }
            }
        }
    }
}

/// What is known of earlier backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupPlan {
    /// When the newest complete backup was started.
    pub last_ms: Option<u64>,
    /// When the last attempt failed, if it did.
    pub failed_ms: Option<u64>,
}

impl BackupPlan {
    /// Whether a backup is due.
    pub fn is_due(&mut self, schedule: Schedule, now_ms: u64) -> bool {
        for past_ms in [&mut self.last_ms, &mut self.failed_ms].into_iter().flatten() {
            *past_ms = now_ms.min(*past_ms);
        }
        let due_ms = match (self.failed_ms, self.last_ms) {
            (Some(failed_ms), _) => schedule.next_after(failed_ms).min(failed_ms + RETRY_MS),
            (None, Some(last_ms)) => schedule.next_after(last_ms),
            (None, None) => 0,
        };
        due_ms <= now_ms
    }
}

#[cfg(test)]
mod tests {
    use strandline::clock::{Clock as _, ManualClock};

    use super::*;

    /// 2026-12-01 00:00 UTC.
    const MIDNIGHT_MS: u64 = 1_796_083_200_000;

    fn schedule(text: &str) -> Schedule {
        text.parse().expect("a schedule")
    }

    /// The minutes after the start of the clock at which backups are taken, within `days`.
    fn taken(plan: &mut BackupPlan, text: &str, clock: &ManualClock, days: u64) -> Vec<u64> {
        let (start_ms, mut minutes) = (clock.now_ms(), Vec::new());
        for minute in 0..days * DAY_MINUTES {
            if plan.is_due(schedule(text), clock.now_ms()) {
                (plan.last_ms, plan.failed_ms) = (Some(clock.now_ms()), None);
                minutes.push(minute);
            }
            clock.pass(MINUTE_MS);
        }
        assert_eq!(clock.now_ms(), start_ms + days * DAY_MS);
        minutes
    }

    #[test]
    fn an_interval_or_a_time_of_the_day_is_a_schedule_and_nothing_else_is() {
        for (text, shown) in
            [("1m", "1m"), ("90m", "90m"), ("6h", "6h"), ("1d", "24h"), ("03:30", "03:30")]
        {
            assert_eq!(schedule(text).to_string(), shown);
            assert_eq!(schedule(shown), schedule(text));
        }
        for text in [
            "",
            "h",
            "0h",
            "-1h",
            "+1h",
            "1.5h",
            "1s",
            "6",
            "367d",
            "99999999999999999999d",
            "24:00",
            "3:30",
            "03:60",
            "03:3",
            "+3:30",
            "03:30:00",
            "daily",
            "1ü",
        ] {
            let refused = text.parse::<Schedule>().expect_err(text);
            assert!(refused.to_string().contains(&format!("{text:?}")), "{refused}");
        }
    }

    #[test]
    fn the_first_backup_is_taken_at_once_and_the_next_ones_after_the_interval() {
        let clock = ManualClock::at(MIDNIGHT_MS);
        assert_eq!(taken(&mut BackupPlan::default(), "8h", &clock, 1), [0, 8 * 60, 16 * 60]);
    }

    #[test]
    fn a_time_of_the_day_comes_once_a_day() {
        let clock = ManualClock::at(MIDNIGHT_MS + 60 * MINUTE_MS);
        let (daily, mut plan) = ("03:30", BackupPlan::default());
        assert_eq!(taken(&mut plan, daily, &clock, 2), [0, 150, 150 + DAY_MINUTES]);
        // The server was stopped over 03:30 of three days: one backup makes up for them.
        clock.pass(3 * DAY_MS);
        assert_eq!(taken(&mut plan, daily, &clock, 2), [0, 150, 150 + DAY_MINUTES]);
        // A backup in the very minute is not repeated.
        let mut plan = BackupPlan { last_ms: Some(MIDNIGHT_MS + 210 * MINUTE_MS), failed_ms: None };
        assert!(!plan.is_due(schedule(daily), MIDNIGHT_MS + 210 * MINUTE_MS));
        assert!(!plan.is_due(schedule(daily), MIDNIGHT_MS + DAY_MS));
    }

    #[test]
    fn a_failed_backup_is_tried_again_soon() {
        let mut plan = BackupPlan { last_ms: Some(MIDNIGHT_MS), failed_ms: Some(MIDNIGHT_MS) };
        assert!(!plan.is_due(schedule("1d"), MIDNIGHT_MS + RETRY_MS - 1));
        assert!(plan.is_due(schedule("1d"), MIDNIGHT_MS + RETRY_MS));
        assert!(!plan.is_due(schedule("2m"), MIDNIGHT_MS + 2 * MINUTE_MS - 1));
        assert!(plan.is_due(schedule("2m"), MIDNIGHT_MS + 2 * MINUTE_MS));
    }

    #[test]
    fn a_clock_that_is_set_back_delays_the_next_backup_by_at_most_an_interval() {
        let clock = ManualClock::at(MIDNIGHT_MS);
        let mut plan = BackupPlan { last_ms: Some(MIDNIGHT_MS + 400 * DAY_MS), failed_ms: None };
        assert_eq!(taken(&mut plan, "8h", &clock, 1), [8 * 60, 16 * 60]);
        let mut plan = BackupPlan { last_ms: None, failed_ms: Some(u64::MAX) };
        assert!(!plan.is_due(schedule("1d"), MIDNIGHT_MS));
        assert!(plan.is_due(schedule("1d"), MIDNIGHT_MS + RETRY_MS));
    }
}
