//! Connections that send commands and wait for their replies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::plan::Plan;
use super::tally::Tally;
use super::workload::{Commands, Workload};
use crate::remote::link::{Link, LinkError};
use crate::remote::login::Login;

/// Commands of one connection at a fixed rate that may wait for replies.
const MOST_SENT: usize = 4_096;

/// When a connection sends.
pub struct DueTimes {
    /// The time from one send to the next; `None`: at once.
    interval: Option<Duration>,
    due: Instant,
    /// The load generator itself was late until then, not the server.
    awake: Instant,
}

impl DueTimes {
    /// The schedule of connection `number`. The connections take turns, so that they do not send
    /// all at once.
    pub fn new(start: Instant, number: u32, plan: &Plan, rate: Option<f64>) -> DueTimes {
        let interval = rate.map(|rate| {
            let sends = rate / f64::from(plan.connections) / f64::from(plan.pipeline);
            Duration::from_secs_f64(1.0 / sends)
        });
        let offset = interval.unwrap_or_default() * number / plan.connections;
        DueTimes { interval, due: start + offset, awake: start }
    }

    /// Waits for the next turn. Returns the time from which its latency counts.
    pub async fn turn(&mut self) -> Instant {
        let Some(interval) = self.interval else { return Instant::now() };
        if Instant::now() < self.due {
            sleep_until(self.due).await;
            self.awake = Instant::now();
        }
        let since = self.due.max(self.awake);
        self.due += interval;
        since
    }
}

/// Sends on a connection until the time `end`, and receives all replies. Calls `write` for each
/// command with the time from which it counts, and `seen` with that time for each reply.
///
/// At full speed it waits for all replies before it sends again; at a fixed rate it does not.
pub async fn drive(
    link: &mut Link,
    mut schedule: DueTimes,
    pipeline: u32,
    end: Instant,
    mut write: impl FnMut(Instant, &mut Vec<u8>),
    mut seen: impl FnMut(Instant, Option<String>),
) -> Result<(), LinkError> {
    let (mut sent, mut out) = (VecDeque::new(), Vec::new());
    let most_sent = if schedule.interval.is_some() { MOST_SENT } else { 1 };
    let mut is_over = false;
    while !is_over || !sent.is_empty() {
        tokio::select! {
            since = schedule.turn(), if !is_over && sent.len() < most_sent => {
                if since >= end {
                    is_over = true;
                    continue;
                }
                out.clear();
                for _ in 0..pipeline {
                    write(since, &mut out);
                    sent.push_back(since);
                }
                link.send_bytes(&out).await?;
            }
            reply = link.pass(), if !sent.is_empty() => {
                let error = reply?;
                let since = sent.pop_front().expect("a reply is awaited only after a command");
                seen(since, error);
            }
        }
    }
    Ok(())
}

/// Runs a workload on all connections.
pub async fn run(
    workload: Workload,
    login: &Arc<Login>,
    plan: Plan,
    rate: Option<f64>,
) -> anyhow::Result<Tally> {
    let tally = Arc::new(Mutex::new(Tally::new()));
    let mut opened = JoinSet::new();
    for number in 0..plan.connections {
        let login = Arc::clone(login);
        opened.spawn(async move {
            let mut link = login.open().await?;
            let commands = Commands::new(workload, plan, number, &mut link).await?;
            anyhow::Ok((number, link, commands))
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = opened.join_next().await {
        clients.push(client??);
    }
    // No connection sends before all of them are there.
    let start = Instant::now();
    let counted = start + plan.warm_up;
    let mut running = JoinSet::new();
    for (number, mut link, mut commands) in clients {
        let tally = Arc::clone(&tally);
        running.spawn(async move {
            let schedule = DueTimes::new(start, number, &plan, rate);
            let write = |_, out: &mut Vec<u8>| commands.write_next(out);
            let seen = |since, error| {
                let now = Instant::now();
                if since >= counted {
                    tally.lock().add(now - counted, now - since, error);
                }
            };
            drive(&mut link, schedule, plan.pipeline, counted + plan.measured, write, seen).await
        });
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    let tally = tally.lock().clone();
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        connections: 4,
        pipeline: 2,
        body: 16,
        members: 1,
        relaxed: false,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(1),
    };

    fn in_loop(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn connections_share_a_rate_and_take_turns() {
        in_loop(async {
            let start = Instant::now();
            let schedule = |number| DueTimes::new(start, number, &PLAN, Some(80.0));
            assert_eq!(schedule(0).interval, Some(Duration::from_millis(100)));
            let offsets: Vec<Duration> =
                (0..4).map(|number| schedule(number).due - start).collect();
            assert_eq!(offsets, [0, 25, 50, 75].map(Duration::from_millis));
            assert_eq!(DueTimes::new(start, 3, &PLAN, None).due, start);
        });
    }

    #[test]
    fn turns_that_a_slow_server_delayed_count_from_when_they_were_due() {
        in_loop(async {
            let start = Instant::now() - Duration::from_secs(10);
            let mut schedule = DueTimes::new(start, 0, &PLAN, Some(80.0));
            for number in 0..50 {
                let since = schedule.turn().await;
                assert_eq!(since - start, Duration::from_millis(100) * number);
            }
        });
    }

    #[test]
    fn turns_that_the_timer_delayed_count_from_the_wake() {
        in_loop(async {
            let start = Instant::now() + Duration::from_millis(5);
            // A turn each microsecond: the timer wakes after many of them were due.
            let mut schedule = DueTimes::new(start, 0, &PLAN, Some(8e6));
            let first = schedule.turn().await;
            assert!(first >= start);
            let second = schedule.turn().await;
            assert!(second >= first, "the first turns count from the wake");
        });
    }
}
