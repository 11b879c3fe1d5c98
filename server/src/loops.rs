//! The event loops. Each has its own connections: a session stays on its loop. The first loop is
//! the runtime in which the server was started, which also accepts connections; each of the others
//! is a thread.
//!
//! A loop never waits for the disk; what may wait runs on the [pool](crate::pool). So there are as
//! many loops as cores, and their number is constant.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::error;

use crate::shared::Shared;
use crate::submitter::Submitter;

/// The event loops of a server. Dropping them ends their threads.
pub struct Loops {
    loops: Vec<EventLoop>,
}

/// One event loop.
pub struct EventLoop {
    /// For starting tasks on it.
    pub handle: Handle,
    submitter: Arc<Submitter>,
    /// Each connection of it has a clone.
    connections: Arc<()>,
    submitting: AbortHandle,
    /// The thread, and what is dropped to end it.
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// The place of one connection in its loop, which counts as long as this exists.
pub struct Seat {
    _connection: Arc<()>,
    submitter: Arc<Submitter>,
}

impl Seat {
    /// The path of the connection's writes.
    pub fn submitter(&self) -> Arc<Submitter> {
        Arc::clone(&self.submitter)
    }
}

impl Loops {
    /// Starts `count` loops, of which the first is the runtime of the caller.
    pub fn start(count: usize, shared: &Shared) -> io::Result<Loops> {
        let mut loops = vec![EventLoop::on(Handle::current(), None, shared)];
        for number in 1..count {
            loops.push(EventLoop::start(number, shared)?);
        }
        Ok(Loops { loops })
    }

    /// For starting tasks on each of the loops.
    pub fn handles(&self) -> Vec<Handle> {
        self.loops.iter().map(|event_loop| event_loop.handle.clone()).collect()
    }

    /// The loop with the fewest connections.
    pub fn calmest(&self) -> &EventLoop {
        let connections = |event_loop: &&EventLoop| Arc::strong_count(&event_loop.connections);
        self.loops.iter().min_by_key(connections).expect("there is at least one loop")
    }
}

impl EventLoop {
    fn start(number: usize, shared: &Shared) -> io::Result<EventLoop> {
        let (running, ended) = oneshot::channel::<()>();
        let (made, starting) = mpsc::channel();
        // The runtime is made and dropped on its own thread: it must not be dropped in a task.
        let work = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                // The caller waits for the result.
                let _ = made.send(Ok(runtime.handle().clone()));
                // Nothing is ever sent: the other end is dropped.
                let _ = runtime.block_on(ended);
            }
            Err(error) => drop(made.send(Err(error))),
        };
        let thread =
            thread::Builder::new().name(format!("strandline-loop-{number}")).spawn(work)?;
        let handle = starting.recv().map_err(io::Error::other)??;
        Ok(EventLoop::on(handle, Some((running, thread)), shared))
    }

    fn on(
        handle: Handle,
        thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
        shared: &Shared,
    ) -> EventLoop {
        let submitter = Arc::new(Submitter::new());
        let submitting =
            Arc::clone(&submitter).run(shared.engine.clone(), Arc::clone(&shared.pool));
        let submitting = handle.spawn(submitting).abort_handle();
        EventLoop { handle, submitter, connections: Arc::default(), submitting, thread }
    }

    /// A place for one more connection.
    pub fn seat(&self) -> Seat {
        Seat { _connection: Arc::clone(&self.connections), submitter: Arc::clone(&self.submitter) }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.submitting.abort();
        let Some((running, thread)) = self.thread.take() else { return };
        drop(running);
        if thread.join().is_err() {
            error!("an event loop panicked");
        }
    }
}
