//! A server under test: a process in a fresh directory on a free port, and what it costs.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::disk::call_bytes_of;
use crate::load::clients::check_server;
use crate::load::commands::{REDIS_SYNCED, Target};

/// The time in which a server must accept connections.
const START: Duration = Duration::from_secs(20);

/// Ticks in a second of the times in `/proc`, on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// The make of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// This project's server.
    Strandline,
    /// Redis.
    Redis,
    /// Valkey, which descends from Redis.
    Valkey,
    /// NATS with `JetStream`, which syncs each message.
    Nats,
    /// NATS with `JetStream` as it is by default: it syncs every two minutes.
    NatsUnsynced,
}

const MAKES: [Make; 5] =
    [Make::Strandline, Make::Redis, Make::Valkey, Make::Nats, Make::NatsUnsynced];

impl Make {
    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Make::Strandline => "strandline",
            Make::Redis => "redis",
            Make::Valkey => "valkey",
            Make::Nats => "nats",
            Make::NatsUnsynced => "nats-unsynced",
        }
    }

    /// The commands that it takes.
    pub fn target(self) -> Target {
        match self {
            Make::Strandline => Target::Strandline,
            Make::Redis | Make::Valkey => Target::Redis,
            Make::Nats | Make::NatsUnsynced => Target::Nats,
        }
    }

    /// The arguments with which each write is synced before its reply, unless the make says
    /// otherwise.
    fn arguments(self, dir: &Path, port: u16) -> Result<Vec<String>> {
        let (settings, port) = (dir.join("conf"), port.to_string());
        let dir = dir.display().to_string();
        if matches!(self, Make::Nats | Make::NatsUnsynced) {
            let sync = if self == Make::Nats { "sync_interval: always" } else { "" };
            fs::write(&settings, format!("jetstream {{ store_dir: {dir:?}\n {sync} }}\n"))?;
        }
        let settings = settings.display().to_string();
        let words: Vec<&str> = match self {
            Make::Strandline => vec!["serve", "--dir", &dir, "--port", &port],
            Make::Redis | Make::Valkey => {
                let place = ["--dir", &dir, "--port", &port, "--bind", "127.0.0.1"];
                place.into_iter().chain(REDIS_SYNCED).collect()
            }
            Make::Nats | Make::NatsUnsynced => {
                vec!["--config", &settings, "--addr", "127.0.0.1", "--port", &port]
            }
        };
        Ok(words.into_iter().map(str::to_owned).collect())
    }
}

/// A make, and the program to start: `redis=/usr/bin/redis-server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its make.
    pub make: Make,
    /// Its path, or its name if the search path has it.
    pub path: PathBuf,
}

impl FromStr for Program {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Program> {
        let (name, path) = text.split_once('=').context("a server is given as make=program")?;
        let make = MAKES.into_iter().find(|make| make.name() == name);
        let make = make.with_context(|| {
            let known: Vec<&str> = MAKES.map(Make::name).into();
            format!("{name} is none of {}", known.join(", "))
        })?;
        Ok(Program { make, path: path.into() })
    }
}

/// A running server. It is killed when this is dropped.
pub struct Server {
    process: Child,
    /// Its host and port.
    pub address: String,
    _dir: TempDir,
}

/// The cost of a server so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Seconds of processor time.
    pub processor: f64,
    /// Bytes passed to write calls, to sockets too.
    pub call_bytes: u64,
}

impl Server {
    /// Starts a server in an empty directory.
    pub fn start(program: &Program, dir: TempDir) -> Result<Server> {
        // The port is free now; nothing else on the machine is expected to take it meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(&program.path)
            .args(program.make.arguments(dir.path(), port)?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.path.display()))?;
        let address = format!("127.0.0.1:{port}");
        let mut server = Server { process, address, _dir: dir };
        server.wait_until_it_accepts(program)?;
        Ok(server)
    }

    fn wait_until_it_accepts(&mut self, program: &Program) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = check_server(&self.address, program.make.target()) {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at its start: {status}", program.path.display());
            }
            ensure!(start.elapsed() < START, "{}: {error:#}", program.path.display());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its cost so far.
    pub fn cost(&self) -> Result<Cost> {
        let id = self.process.id();
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let processor = ticks(&stat).context("the times of the server's process")? as f64 / TICKS;
        Ok(Cost { processor, call_bytes: call_bytes_of(id)? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The user and system time in `/proc/…/stat`: the fields 14 and 15. The second one, the name, may
/// contain spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_a_make_that_is_known() {
        let program: Program = "valkey=/opt/valkey-server".parse().expect("a program");
        assert_eq!(program, Program { make: Make::Valkey, path: "/opt/valkey-server".into() });
        for wrong in ["redis", "etcd=etcd"] {
            assert!(wrong.parse::<Program>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_times_of_a_process_are_found_behind_its_name() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 5 0 999";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn a_program_that_ends_at_its_start_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = Program { make: Make::Redis, path: "/bin/false".into() };
        let error = Server::start(&program, dir).err().expect("it is no server");
        assert!(error.to_string().contains("/bin/false ended at its start"), "{error}");
    }
}
