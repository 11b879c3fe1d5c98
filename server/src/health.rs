//! `strandline health`: asks a server whether it serves, for supervisors of containers. The image
//! of a container has no other program.
//!
//! Exit codes: 0 if the server answered, and 1 otherwise.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::output::complain;

/// The most bytes of an answer that are read.
const MOST_BYTES: u64 = 1024;

/// The beginning of an alert of TLS, with which a server refuses bytes that are no TLS.
const TLS_ALERT: &str = "\u{15}\u{3}";

/// The arguments of the verb.
#[derive(Args)]
pub struct HealthArguments {
    /// Host and port of the server [default: 127.0.0.1:7411, and 127.0.0.1:7412 with --http].
    address: Option<String>,
    /// Ask the HTTP port for /readyz instead of sending PING.
    #[arg(long)]
    http: bool,
    /// Seconds after which a server that does not answer is not healthy.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl HealthArguments {
    fn address(&self) -> &str {
        let default = if self.http { "127.0.0.1:7412" } else { "127.0.0.1:7411" };
        self.address.as_deref().unwrap_or(default)
    }
}

/// Runs the verb.
pub fn run(arguments: &HealthArguments) -> ExitCode {
    match ask(arguments) {
        Ok(answer) => {
            // It is not an error if nobody reads it.
            let _ = writeln!(io::stdout(), "{} serves: {answer}", arguments.address());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(crate::chain_text(&problem));
            ExitCode::FAILURE
        }
    }
}

/// The first line of the answer, if it is that of a server that serves.
fn ask(arguments: &HealthArguments) -> anyhow::Result<String> {
    let address = arguments.address();
    let found = address.to_socket_addrs();
    let found = found.map_err(|problem| match problem.kind() {
        io::ErrorKind::InvalidInput => anyhow::anyhow!("{address} is no address: use HOST:PORT"),
        _ => anyhow::Error::from(problem).context(format!("cannot find {address}")),
    })?;
    let line = exchange(arguments, found).with_context(|| format!("{address} does not answer"))?;
    let is_healthy = if arguments.http {
        line.split(' ').nth(1) == Some("200")
    } else {
        // A server that asks for a login serves, and so does one that has all its connections: a
        // restart would only cut them.
        line == "+PONG" || line.starts_with("-NOAUTH ") || line.starts_with("-LIMIT ")
    };
    anyhow::ensure!(
        !line.starts_with(TLS_ALERT),
        "{address} speaks TLS: ask the plain port, or the one for metrics and health with --http"
    );
    anyhow::ensure!(is_healthy, "{address} answers {line:?}");
    Ok(line)
}

fn exchange(
    arguments: &HealthArguments,
    mut found: impl Iterator<Item = SocketAddr>,
) -> io::Result<String> {
    let timeout = Duration::from_secs(arguments.timeout);
    let address = found.next().ok_or(io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let request: &[u8] = if arguments.http {
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    } else {
        b"*1\r\n$4\r\nPING\r\n"
    };
    socket.write_all(request)?;
    let mut line = String::new();
    BufReader::new(io::Read::take(socket, MOST_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
