//! The port for metrics and health: `/metrics` for Prometheus, `/livez` and `/readyz` for what
//! starts and stops servers.
//!
//! Promises: the event loops do not notice it. It has a thread of its own, which collects and
//! writes; each connection serves one request and ends after [`PATIENCE`]. There are at most
//! [`MOST_CONNECTIONS`]: a new one replaces the oldest, so that connections which send nothing, or
//! do not read, cannot keep a check out. It changes nothing in the server. It may have TLS.

mod families;
mod health;
mod page;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

pub use families::render as render_families;

use crate::shared::Shared;
use page::PageFormat;

/// The most connections at once: a scraper or two and the checks of an orchestrator, each of which
/// is done in milliseconds.
const MOST_CONNECTIONS: usize = 8;

/// The files of this port: its connections, its listener, and those of its event loop.
pub const DESCRIPTORS: u64 = MOST_CONNECTIONS as u64 + 4;

/// How long a connection may take: as long as Prometheus waits by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failed accept, mostly for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest head of a request.
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// The port, while it is open. Dropping it closes it.
pub struct Http {
    address: SocketAddr,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What a request is answered from.
struct Answers {
    shared: Arc<Shared>,
    loops: Vec<Handle>,
    has_tls: bool,
}

impl Http {
    /// Serves a bound port. The event loops are asked whether they live.
    pub fn start(
        listener: std::net::TcpListener,
        has_tls: bool,
        shared: &Arc<Shared>,
        loops: Vec<Handle>,
    ) -> io::Result<Http> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let answers = Arc::new(Answers { shared: Arc::clone(shared), loops, has_tls });
        let (running, ended) = oneshot::channel::<()>();
        let (made, starting) = mpsc::channel();
        let work = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async {
                // The caller waits for the result.
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return drop(made.send(Err(error))),
                };
                let _ = made.send(Ok(()));
                tokio::select! {
                    () = accept(listener, answers) => {}
                    // Nothing is ever sent: the other end is dropped.
                    _ = ended => {}
                }
            }),
            Err(error) => drop(made.send(Err(error))),
        };
        let thread = thread::Builder::new().name("strandline-http".into()).spawn(work)?;
        starting.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)))?;
        info!(%address, has_tls, "metrics and health");
        Ok(Http { address, thread: Some((running, thread)) })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let Some((running, thread)) = self.thread.take() else { return };
        drop(running);
        if thread.join().is_err() {
            error!("the thread of the http port panicked");
        }
    }
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "cannot accept a connection of the http port");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let serving = timeout(PATIENCE, greet(socket, Arc::clone(&answers)));
        open.push_back(tokio::spawn(serving).abort_handle());
        // The new connection runs before the next one can replace it.
        yield_now().await;
    }
}

/// Does the handshake of TLS, if the port has TLS, and serves one request.
async fn greet(socket: TcpStream, answers: Arc<Answers>) {
    match answers.shared.tls.as_ref().filter(|_| answers.has_tls) {
        None => serve(socket, answers).await,
        Some(tls) => match TlsAcceptor::from(tls.config()).accept(socket).await {
            Ok(socket) => serve(socket, answers).await,
            Err(problem) => debug!(%problem, "a TLS handshake of the http port failed"),
        },
    }
}

/// Serves one request.
async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, answers: Arc<Answers>) {
    let answering = service_fn(|request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(&request, &answers).await) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).max_buf_size(MOST_HEAD_BYTES);
    // A client that goes away harms only itself.
    let _ = server.serve_connection(TokioIo::new(socket), answering).await;
}

async fn answer(request: &Request<Incoming>, answers: &Answers) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, text, "only GET and HEAD\n".into());
        refused.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("it is a valid value"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let format = PageFormat::wanted_by(accepted.unwrap_or_default());
            let page = page::render(&answers.shared, format);
            reply(StatusCode::OK, format.content_type(), page)
        }
        "/livez" => health(health::liveness(&answers.loops).await, text),
        "/readyz" => health(health::readiness(&answers.shared), text),
        _ => reply(StatusCode::NOT_FOUND, text, "there are /metrics, /livez and /readyz\n".into()),
    }
}

fn health(outcome: Result<(), String>, content_type: &str) -> Response<Full<Bytes>> {
    match outcome {
        Ok(()) => reply(StatusCode::OK, content_type, "ok\n".into()),
        Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, content_type, why + "\n"),
    }
}

fn reply(status: StatusCode, content_type: &str, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(Bytes::from(body)))
        .expect("the headers are valid")
}
