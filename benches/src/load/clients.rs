//! Clients that send a pipeline of commands, wait for all of its replies, and send the next.
//!
//! A thread runs many clients on one event loop: one thread per client would measure the scheduler.
//! A latency lasts from before the pipeline is written until the reply is complete in the client.
//! Commands that begin before the warm-up is over are not counted.
//!
//! At a fixed rate, a pipeline that is late because the one before it was slow is measured from the
//! time at which it was due: otherwise a server that stops for a second would delay one reply only.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::commands::{Commands, READ_ENTRIES, READ_TIMELINES, Shared, Target};
use super::nats::{self, Frame};
use super::resp::{Reply, first_reply, write_command};
use crate::drive::latency_histogram;

/// How the clients behave.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's host and port.
    pub address: String,
    /// Connections.
    pub clients: usize,
    /// Commands in one write.
    pub pipeline: usize,
    /// Threads that the clients are spread over.
    pub threads: usize,
    /// Time at the start that is not counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
    /// The time from one pipeline of a client to its next; `None`: as soon as it has all replies.
    pub interval: Option<Duration>,
}

/// The result of the clients.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Replies.
    pub replies: u64,
    /// Bytes of replies.
    pub reply_bytes: u64,
    /// Replies that are errors.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Nanoseconds to a reply.
    pub latency: Histogram<u64>,
}

impl Seen {
    fn new() -> Seen {
        let latency = latency_histogram();
        Seen { replies: 0, reply_bytes: 0, errors: 0, first_error: None, latency }
    }

    /// Microseconds to a reply.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// An error if a reply was one.
    pub fn check(&self) -> Result<()> {
        let Some(error) = &self.first_error else { return Ok(()) };
        bail!("{} of {} replies were errors, the first: {error}", self.errors, self.replies)
    }

    fn add(&mut self, other: Seen) -> Result<()> {
        self.replies += other.replies;
        self.reply_bytes += other.reply_bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(self.latency.add(&other.latency)?)
    }
}

/// The time from one pipeline of a client to its next, if all clients together send this many
/// commands a second; 0: as many as the server answers.
pub fn interval(rate: f64, clients: usize, pipeline: usize) -> Result<Option<Duration>> {
    if rate == 0.0 {
        return Ok(None);
    }
    Ok(Some(Duration::try_from_secs_f64((clients * pipeline) as f64 / rate)?))
}

/// Runs all clients for the time of the plan.
pub fn run(plan: &Plan, shared: &Arc<Shared>) -> Result<Seen> {
    let threads = plan.threads.clamp(1, plan.clients);
    let start = Instant::now();
    let parts: Vec<Result<Seen>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let clients =
                        (thread..plan.clients).step_by(threads).map(|client| client as u64);
                    event_loop()?.block_on(run_clients(
                        plan.clone(),
                        Arc::clone(shared),
                        clients.collect(),
                        start,
                    ))
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a client thread panicked")))
            })
            .collect()
    });
    let mut sum = Seen::new();
    for part in parts {
        sum.add(part?)?;
    }
    Ok(sum)
}

/// Fails if no server accepts a connection, with the command that starts one.
pub fn check_server(address: &str, target: Target) -> Result<()> {
    let opened = event_loop()?.block_on(Connection::open(address, target, 0));
    opened.map(drop).with_context(|| {
        let command = target.start_command(address);
        format!("no server accepts connections on {address}. To start one:\n\n    {command}\n")
    })
}

/// Fills the timelines that are read, over one connection; repeating it on the same server is
/// harmless.
pub fn fill(address: &str, shared: &Arc<Shared>) -> Result<()> {
    event_loop()?.block_on(async {
        let mut connection = Connection::open(address, shared.target, 0).await?;
        let mut commands = Commands::new(Arc::clone(shared), u64::MAX / 2);
        let mut seen = Seen::new();
        for timeline in 0..READ_TIMELINES {
            (0..READ_ENTRIES).for_each(|_| commands.write_append(&mut connection.output, timeline));
            let now = Instant::now();
            connection.exchange(READ_ENTRIES as usize, now, Some(&mut seen)).await?;
        }
        seen.check().context("filling")
    })
}

/// Creates what a server needs for the commands: the stream of NATS.
pub fn set_up(address: &str, target: Target) -> Result<()> {
    if target != Target::Nats {
        return Ok(());
    }
    event_loop()?.block_on(async {
        let mut connection = Connection::open(address, target, 0).await?;
        nats::write_create(&mut connection.output, 0);
        let mut seen = Seen::new();
        connection.exchange(1, Instant::now(), Some(&mut seen)).await?;
        seen.check().context("creating the stream")
    })
}

/// The reply to one command in RESP, as text.
pub fn ask(address: &str, parts: &[&[u8]]) -> Result<String> {
    event_loop()?.block_on(async {
        let mut connection = Connection::open(address, Target::Redis, 0).await?;
        write_command(&mut connection.output, parts);
        connection.exchange(1, Instant::now(), None).await
    })
}

fn event_loop() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn run_clients(
    plan: Plan,
    shared: Arc<Shared>,
    clients: Vec<u64>,
    start: Instant,
) -> Result<Seen> {
    let mut tasks = JoinSet::new();
    for client in clients {
        let commands = Commands::new(Arc::clone(&shared), client);
        tasks.spawn(run_client(plan.clone(), commands, start));
    }
    let mut sum = Seen::new();
    while let Some(task) = tasks.join_next().await {
        sum.add(task??)?;
    }
    Ok(sum)
}

async fn run_client(plan: Plan, mut commands: Commands, start: Instant) -> Result<Seen> {
    let mut connection =
        Connection::open(&plan.address, commands.target(), commands.client()).await?;
    let mut seen = Seen::new();
    let mut due = start;
    while start.elapsed() < plan.warm_up + plan.measured {
        let since = match plan.interval {
            Some(interval) => {
                due += interval;
                turn(due).await
            }
            None => Instant::now(),
        };
        (0..plan.pipeline).for_each(|_| commands.write_next(&mut connection.output));
        let counts = start.elapsed() >= plan.warm_up;
        connection.exchange(plan.pipeline, since, counts.then_some(&mut seen)).await?;
    }
    Ok(seen)
}

/// Waits for a pipeline's turn. Returns the time from which it is measured.
async fn turn(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    // The timer may be late, which is not the server's fault.
    Instant::now()
}

/// A connection with its buffers.
struct Connection {
    socket: TcpStream,
    target: Target,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    async fn open(address: &str, target: Target, client: u64) -> Result<Connection> {
        let socket = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        let output = if target == Target::Nats { nats::greeting(client) } else { Vec::new() };
        Ok(Connection { socket, target, output, input: Vec::with_capacity(64 * 1024) })
    }

    /// The reply at `front` of the input, if it is complete. Other lines are answered if they need
    /// it, and skipped.
    async fn reply_at(&mut self, front: &mut usize) -> Result<Option<Reply>> {
        if self.target != Target::Nats {
            return first_reply(&self.input[*front..]);
        }
        loop {
            match nats::first_frame(&self.input[*front..])? {
                Some(Frame::Answer(reply)) => return Ok(Some(reply)),
                Some(Frame::Ping(bytes)) => {
                    self.socket.write_all(b"PONG\r\n").await?;
                    *front += bytes;
                }
                Some(Frame::Other(bytes)) => *front += bytes,
                None => return Ok(None),
            }
        }
    }

    /// Sends the content of `output` and takes this many replies, whose latencies count from
    /// `since`; returns the last one's first bytes.
    async fn exchange(
        &mut self,
        replies: usize,
        since: Instant,
        mut seen: Option<&mut Seen>,
    ) -> Result<String> {
        self.socket.write_all(&self.output).await?;
        self.output.clear();
        let mut last = String::new();
        let (mut taken, mut front) = (0, 0);
        while taken < replies {
            let Some(reply) = self.reply_at(&mut front).await? else {
                self.input.drain(..front);
                front = 0;
                let read = self.socket.read_buf(&mut self.input).await?;
                anyhow::ensure!(
                    read > 0,
                    "the server closed the connection after {taken} of {replies} replies"
                );
                continue;
            };
            let bytes = &self.input[front..front + reply.bytes];
            if let Some(seen) = seen.as_deref_mut() {
                seen.replies += 1;
                seen.reply_bytes += reply.bytes as u64;
                seen.latency.saturating_record(since.elapsed().as_nanos() as u64);
                if reply.is_error {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| shown(bytes));
                }
            }
            taken += 1;
            if taken == replies {
                last = shown(bytes);
            }
            front += reply.bytes;
        }
        self.input.drain(..front);
        Ok(last)
    }
}

/// The first bytes of a reply, as readable text.
fn shown(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reply[..reply.len().min(200)]);
    text.split("\r\n").collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::commands::Traffic;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers each `*` that begins a line with `answer`, in pieces, until the client closes.
    fn server_that_says(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.expect("a client");
                thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = socket.read(&mut buffer) {
                        let commands = buffer[..read].split(|&byte| byte == b'*').count() - 1;
                        for piece in answer.repeat(commands).chunks(7) {
                            if socket.write_all(piece).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    /// What three clients with pipelines of four have seen: twelve replies at least.
    fn seen_at(address: &str) -> Seen {
        let shared = Arc::new(Shared::new(Target::Strandline, Traffic::Latest, false, Vec::new()));
        // On a busy machine the clients may not start within the shorter times.
        for milliseconds in [50, 500, 5_000, 50_000] {
            let plan = Plan {
                address: address.to_owned(),
                clients: 3,
                pipeline: 4,
                threads: 2,
                warm_up: Duration::ZERO,
                measured: Duration::from_millis(milliseconds),
                interval: None,
            };
            let seen = run(&plan, &shared).expect("a run");
            if seen.replies >= 12 {
                return seen;
            }
        }
        panic!("the clients did not get their replies within fifty seconds");
    }

    #[test]
    fn the_rate_of_all_clients_is_shared_by_them() {
        let interval = |rate, pipeline| interval(rate, 50, pipeline).expect("a time");
        assert_eq!(interval(10_000.0, 1), Some(Duration::from_millis(5)));
        assert_eq!(interval(10_000.0, 16), Some(Duration::from_millis(80)));
        assert_eq!(interval(0.0, 1), None);
    }

    #[test]
    fn every_reply_of_every_client_is_counted() {
        let seen = seen_at(&server_that_says(b"*1\r\n*3\r\n:1\r\n:2\r\n$4\r\nbody\r\n"));
        assert!(seen.replies.is_multiple_of(4), "{}", seen.replies);
        assert_eq!(seen.latency.len(), seen.replies);
        assert_eq!(seen.errors, 0);
    }

    #[test]
    fn errors_are_counted_and_the_first_is_kept() {
        let seen = seen_at(&server_that_says(b"-NOSTORE no such store\r\n"));
        assert_eq!(seen.errors, seen.replies);
        assert_eq!(seen.first_error.as_deref(), Some("-NOSTORE no such store"));
    }

    #[test]
    fn a_missing_server_is_reported_with_the_command_that_starts_it() {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        check_server(&address, Target::Strandline).expect("something listens");
        drop(listener);
        let error = check_server(&address, Target::Strandline).expect_err("nothing listens");
        let text = format!("{error:#}");
        assert!(text.contains(&format!("no server accepts connections on {address}")), "{text}");
        assert!(text.contains(&Target::Strandline.start_command(&address)), "{text}");
    }
}
