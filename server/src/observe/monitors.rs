//! The connections that see all commands as they run (MONITOR).
//!
//! A session that runs a command writes its line into the queue of each monitor, and never waits.
//! A queue is bounded: a monitor that does not take its lines fast enough loses the rest, and its
//! session closes it as it closes any slow reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most monitors at once. Each line is copied for each of them.
const MOST_MONITORS: usize = 8;

/// The most bytes of lines that wait in one queue: with eight monitors 2 MiB.
const MOST_QUEUED_BYTES: usize = 256 * 1024;

/// All monitors.
#[derive(Debug, Default)]
pub struct Monitors {
    /// The number of monitors, so that a command looks at one number while there are none.
    count: AtomicUsize,
    queues: Mutex<Vec<Arc<MonitorQueue>>>,
}

#[derive(Debug, Default)]
struct MonitorQueue {
    lines: Mutex<QueuedLines>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct QueuedLines {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    is_lost: bool,
}

/// The part of one connection: its lines. Dropping it ends the monitoring.
#[derive(Debug)]
pub struct Monitoring {
    queue: Arc<MonitorQueue>,
    all: Arc<Monitors>,
}

impl Monitors {
    /// Whether anybody monitors.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Passes a line to all monitors.
    pub fn pass_on(&self, line: &str) {
        let line: Arc<str> = line.into();
        for queue in self.queues.lock().iter() {
            let mut lines = queue.lines.lock();
            if lines.bytes + line.len() > MOST_QUEUED_BYTES {
                lines.is_lost = true;
            }
            if !lines.is_lost {
                lines.bytes += line.len();
                lines.lines.push_back(Arc::clone(&line));
            }
            drop(lines);
            queue.arrived.notify_one();
        }
    }

    /// Adds a monitor; `None` if there are too many.
    pub fn join(self: &Arc<Self>) -> Option<Monitoring> {
        let mut queues = self.queues.lock();
        if queues.len() >= MOST_MONITORS {
            return None;
        }
        let queue = Arc::<MonitorQueue>::default();
        queues.push(Arc::clone(&queue));
        self.count.store(queues.len(), Ordering::Relaxed);
        Some(Monitoring { queue, all: Arc::clone(self) })
    }

    /// The most monitors at once.
    pub fn most() -> usize {
        MOST_MONITORS
    }
}

impl Monitoring {
    /// The next line, if there is one.
    pub fn next(&self) -> Option<Arc<str>> {
        let mut lines = self.queue.lines.lock();
        let line = lines.lines.pop_front()?;
        lines.bytes -= line.len();
        Some(line)
    }

    /// Whether lines are missing, since they were not taken in time.
    pub fn is_lost(&self) -> bool {
        self.queue.lines.lock().is_lost
    }

    /// Waits for a line. For its own session only: one line wakes one waiter.
    pub async fn arrived(&self) {
        self.queue.arrived.notified().await;
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        let mut queues = self.all.queues.lock();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.all.count.store(queues.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_monitor_gets_each_line_and_one_that_takes_none_loses_some() {
        let monitors = Arc::new(Monitors::default());
        assert!(!monitors.any());
        let (fast, slow) = (monitors.join().expect("room"), monitors.join().expect("room"));
        assert!(monitors.any());
        let line = "x".repeat(1024);
        for _ in 0..MOST_QUEUED_BYTES / 1024 {
            monitors.pass_on(&line);
            assert_eq!(fast.next().as_deref(), Some(&*line));
        }
        assert!(!slow.is_lost(), "it is full");
        monitors.pass_on("y");
        assert!(slow.is_lost() && !fast.is_lost());
        assert_eq!(std::iter::from_fn(|| slow.next()).count(), MOST_QUEUED_BYTES / 1024);
        drop((fast, slow));
        assert!(!monitors.any());
    }

    #[test]
    fn there_are_no_more_than_eight() {
        let monitors = Arc::new(Monitors::default());
        let all: Vec<_> = std::iter::from_fn(|| monitors.join()).take(99).collect();
        assert_eq!(all.len(), Monitors::most());
        drop(all);
        assert!(monitors.join().is_some());
    }
}
