//! Accepts connections up to the limit, gives each a session, and ends all sessions when the server
//! stops.
//!
//! Stopping: no connection is accepted any more; sessions finish their current work, within a short
//! time; the remaining ones are cut; then the engine is closed. Everything that was acknowledged
//! has been durable since (P1), so a stuck client costs nothing.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use strandline::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::clients::Ends;
use crate::loops::Loops;
use crate::notices::NoticeKind;
use crate::session::Session;
use crate::shared::{Shared, StopReason};
use crate::tls::Socket;
use crate::watch::{MemoryWatch, back_up_by_schedule, look_at_engine};

/// After a failed accept, mostly for lack of file descriptors: trying again at once would only use
/// up a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the engine is checked for being poisoned. A failure of a background thread is reported
/// to no client.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// The most output of a connection that the kernel takes beyond what the peer has space for.
/// Without a limit it takes megabytes in large steps. They would not be counted anywhere, and a
/// client that reads steadily would seem to make no progress in between.
const UNSENT_BYTES: u32 = 128 * 1024;

/// The number of unanswered probes, a third of the interval apart, after which the peer is gone.
const KEEPALIVE_PROBES: u32 = 3;

/// How often the memory of connections is checked.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// How often it is checked whether the files of the certificates have changed.
const CERTIFICATES_PAUSE: Duration = Duration::from_secs(2);

/// Where connections come from.
pub struct Listeners {
    /// The plain port.
    pub plain: TcpListener,
    /// The port for TLS.
    pub encrypted: Option<TcpListener>,
}

impl Listeners {
    /// The next connection, and whether it is encrypted.
    async fn accept(&self) -> (io::Result<TcpStream>, bool) {
        let of = |accepted: io::Result<(TcpStream, _)>| accepted.map(|(socket, _)| socket);
        match &self.encrypted {
            None => (of(self.plain.accept().await), false),
            Some(encrypted) => tokio::select! {
                accepted = self.plain.accept() => (of(accepted), false),
                accepted = encrypted.accept() => (of(accepted), true),
            },
        }
    }
}

/// Accepts connections until the server is asked to stop, then stops it. Returns the reason, or the
/// error if the engine did not close.
pub async fn run(
    listeners: Listeners,
    loops: Loops,
    shared: Arc<Shared>,
) -> Result<StopReason, Error> {
    let mut sessions = JoinSet::new();
    let backing_up = tokio::spawn(back_up_by_schedule(Arc::clone(&shared)));
    let mut memory_watch = MemoryWatch::default();
    let (mut engine_tick, mut memory_tick) = (interval(ENGINE_PAUSE), interval(MEMORY_PAUSE));
    let mut certificates_tick = interval(CERTIFICATES_PAUSE);
    certificates_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    engine_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    memory_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reason = loop {
        tokio::select! {
            reason = shared.stopped() => break reason,
            (accepted, is_encrypted) = listeners.accept() => match accepted {
                Ok(socket) => admit((socket, is_encrypted), &loops, &shared, &mut sessions),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a session ended unexpectedly");
                }
            }
            _ = engine_tick.tick() => look_at_engine(&shared),
            _ = memory_tick.tick() => memory_watch.look(&shared),
            _ = certificates_tick.tick(), if shared.tls.is_some() => {
                let looking = Arc::clone(&shared);
                shared.pool.spawn(move || looking.look_at_certificates());
            }
        }
    };
    drop(listeners);
    // A backup that runs is not waited for: the next one removes what it leaves.
    backing_up.abort();
    info!(?reason, clients = shared.clients.count(), "stopping");
    shared.clients.finish_all();
    let all_ended = async { while sessions.join_next().await.is_some() {} };
    if timeout(shared.config.now().limits.stop_timeout(), all_ended).await.is_err() {
        warn!(clients = sessions.len(), "closing the connections that did not finish in time");
        sessions.shutdown().await;
    }
    drop(loops);
    close(&shared, reason).await
}

/// Closes the engine. A failure that loses nothing is not returned.
async fn close(shared: &Shared, reason: StopReason) -> Result<StopReason, Error> {
    let engine = shared.engine.clone();
    match shared.pool.spawn(move || engine.close()).await {
        Ok(Ok(())) => info!("stopped"),
        Ok(Err(Error::DiskFull { path })) => {
            warn!(
                path = %path.display(),
                "the disk is full, so memory was not written to segments. Nothing is lost: the log \
                 has it, and the next start replays it"
            );
        }
        Ok(Err(problem @ Error::Poisoned { .. })) => {
            error!(%problem, "stopped without a flush");
            return Ok(StopReason::Poisoned);
        }
        Ok(Err(problem)) => return Err(problem),
        // A panic is a broken invariant: the caller must not take it for a graceful stop.
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => warn!(%cancelled, "the runtime ended before the engine was closed"),
        },
    }
    Ok(reason)
}

fn prepare(socket: &TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    // Replies are small and written as a whole: waiting for more data to send with them costs 40 ms
    // and gains nothing.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    if let Some(time) = keepalive {
        let probes = TcpKeepalive::new()
            .with_time(time)
            .with_interval((time / 3).max(Duration::from_secs(1)))
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&probes)?;
    }
    Ok(())
}

fn admit(
    (socket, is_encrypted): (TcpStream, bool),
    loops: &Loops,
    shared: &Arc<Shared>,
    sessions: &mut JoinSet<()>,
) {
    let (Ok(address), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else { return };
    let ends = Ends { peer: address, local, descriptor: socket.as_raw_fd() };
    let config = shared.config.now();
    let limits = &config.limits;
    if let Err(error) = prepare(&socket, limits.keepalive()) {
        warn!(%error, "cannot set the options of a socket");
    }
    let most = limits.max_clients;
    let Some(client) = shared.clients.join(ends, shared.monotonic_ms(), most) else {
        shared.metrics.connections_refused.one();
        shared.note_server(
            NoticeKind::Refused,
            format_args!("{address}: there are {most} connections already"),
        );
        // The buffer of a new socket is empty, so this does not wait. If it fails, the client only
        // sees the close, as it does if it waits for a handshake.
        if !is_encrypted {
            let text = format!("-LIMIT the server has {most} connections already\r\n");
            let _ = socket.try_write(text.as_bytes());
        }
        return;
    };
    shared.metrics.connections.one();
    let (event_loop, id, shared) = (loops.calmest(), client.id, Arc::clone(shared));
    let seat = event_loop.seat();
    let serving = async move {
        // The socket belongs to the loop from here on.
        let socket = socket.into_std().and_then(TcpStream::from_std);
        let socket = socket.and_then(|socket| match &shared.tls {
            Some(tls) if is_encrypted => tls.accept(socket),
            _ => Ok(Socket::Plain(socket)),
        });
        match socket {
            Ok(socket) => Session::serve(socket, client, seat.submitter(), shared).await,
            Err(error) => {
                warn!(%error, "cannot serve a connection");
                shared.clients.leave(id);
            }
        }
    };
    sessions.spawn_on(serving, &event_loop.handle);
}
