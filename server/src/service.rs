//! What systemd learns of the server: that it is ready, that it stops, and that it is alive.
//!
//! The protocol is one datagram for each fact, to the socket that `NOTIFY_SOCKET` names: a path, or
//! `@` and a name in the abstract name space of Linux. Without the variable nothing is sent. A
//! datagram that cannot be sent is logged and changes nothing: the service is then restarted by
//! systemd, which reports the timeout.

use std::env;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use tracing::warn;

/// The connection to systemd, if it started the process.
#[derive(Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the environment says.
    pub fn from_environment() -> Systemd {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else { return Systemd::default() };
        let watchdog = interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), process::id());
        match connect(&name) {
            Ok(socket) => Systemd { socket: Some(socket), watchdog },
            Err(error) => {
                warn!(%error, name, "cannot reach systemd by NOTIFY_SOCKET");
                Systemd::default()
            }
        }
    }

    /// How often [`Systemd::is_alive`] must be called; none: never.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Clients are served from now on.
    pub fn is_ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The event loop runs.
    pub fn is_alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The server stops.
    pub fn is_stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, facts: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(facts.as_bytes()) {
            warn!(%error, facts, "cannot notify systemd");
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A full queue must not stop the event loop.
    socket.set_nonblocking(true)?;
    match name.strip_prefix('@') {
        Some(name) => socket.connect_addr(&abstract_address(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Half of the time after which systemd takes the process for dead, if it watches this process.
fn interval(usec: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    let is_own = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 1)?;
    is_own.then(|| Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a datagram comes");
        String::from_utf8_lossy(&bytes[..length]).into()
    }

    #[test]
    fn facts_are_sent_to_a_path_and_to_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("it is bound");
        let mut places = vec![(by_path, path.to_str().expect("it is text").to_owned())];
        #[cfg(target_os = "linux")]
        {
            let name = format!("strandline-test-{}", process::id());
            let address = abstract_address(&name).expect("a name");
            let by_name = UnixDatagram::bind_addr(&address).expect("it is bound");
            places.push((by_name, format!("@{name}")));
        }
        for (socket, name) in places {
            let service = Systemd { socket: Some(connect(&name).expect(&name)), watchdog: None };
            service.is_ready("listening");
            service.is_alive();
            service.is_stopping();
            assert_eq!(received(&socket), "READY=1\nSTATUS=listening");
            assert_eq!(received(&socket), "WATCHDOG=1");
            assert_eq!(received(&socket), "STOPPING=1");
        }
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let interval = |usec: &str, pid: Option<&str>| {
            super::interval(Some(usec.into()), pid.map(Into::into), 7)
        };
        let half = Some(Duration::from_secs(15));
        assert_eq!((interval("30000000", None), interval("30000000", Some("7"))), (half, half));
        assert_eq!((interval("30000000", Some("8")), interval("30000000", Some(""))), (None, None));
        assert_eq!((interval("0", None), interval("soon", None)), (None, None));
        assert_eq!(super::interval(None, None, 7), None);
    }
}
