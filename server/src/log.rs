//! The log: lines are written to standard error by a thread of its own. Code that logs does not
//! wait for the reader of the log, and does not fail with it.
//!
//! A line is lost if the queue is full, since nobody reads, or if it cannot be written. Nothing
//! else is lost.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// The most lines that wait: a burst, and a few hundred KB.
const MOST_LINES: usize = 4096;

/// How long the end of the process waits for the remaining lines.
const PATIENCE: Duration = Duration::from_secs(1);

enum LogItem {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Mark(SyncSender<()>),
}

/// The writing end. Each write is one line.
#[derive(Clone)]
pub struct Log(SyncSender<LogItem>);

impl Log {
    /// A log to `sink`, which may block and fail.
    pub fn to(sink: impl Write + Send + 'static) -> Log {
        let (lines, items) = sync_channel(MOST_LINES);
        // If the thread cannot be started, all lines are lost.
        let _ = thread::Builder::new()
            .name("strandline-log".into())
            .spawn(move || write_all(&items, sink));
        Log(lines)
    }

    /// Waits until all lines are written, but not longer than `PATIENCE`.
    pub fn finish(&self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(LogItem::Mark(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

fn write_all(items: &Receiver<LogItem>, mut sink: impl Write) {
    for item in items {
        match item {
            LogItem::Line(line) => drop(sink.write_all(&line)),
            LogItem::Mark(done) => drop(done.try_send(())),
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.try_send(LogItem::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Passes on what is written, or blocks like a pipe that nobody reads, or fails like one whose
    /// reader is gone.
    enum Pipe {
        Read(Sender<Vec<u8>>),
        Unread(Receiver<()>),
        Closed,
    }

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self {
                Pipe::Read(reader) => reader.send(line.to_vec()).expect("the test reads"),
                Pipe::Unread(until) => drop(until.recv()),
                Pipe::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_in_order_and_all_of_them_before_the_end() {
        let (reader, lines) = channel();
        let mut log = Log::to(Pipe::Read(reader));
        (0..100_u8).for_each(|line| log.write_all(&[line]).expect("it never fails"));
        log.finish();
        assert_eq!(lines.try_iter().flatten().collect::<Vec<u8>>(), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn nobody_waits_or_fails_when_nobody_reads() {
        let (_held, until) = channel();
        for pipe in [Pipe::Closed, Pipe::Unread(until)] {
            let mut log = Log::to(pipe);
            for _ in 0..3 * MOST_LINES {
                log.write_all(b"line").expect("it never fails");
            }
        }
    }
}
