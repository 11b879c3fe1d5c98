//! A command that waits for the disk delays no other client: all connections are served by one
//! thread here, the disk blocks while a command reads, and another client gets its reply. (Appends
//! are tested elsewhere: `submission.rs` in the server's source.)

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use strandline::clock::SystemClock;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::vfs::{Dir, RawDirectory, RawFile};
use strandline::{Engine, World};
use strandline_server::{Config, Server};
use tokio::runtime::Runtime;

use super::disks::as_the_disk;
use super::support::{Client, PATIENCE, Value};

/// A disk whose segments cannot be read while it is blocked.
#[derive(Clone)]
struct GatedDisk {
    disk: SimulatedDisk,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    waiting: usize,
}

struct GatedFile {
    file: Arc<dyn RawFile>,
    gate: Arc<Gate>,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_closed = is_closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.is_closed).expect("no panic");
        state.waiting -= 1;
    }

    /// Whether a reader starts to wait for it.
    fn is_reached(&self) -> bool {
        let state = self.state.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting == 0);
        waited.expect("no panic").0.waiting > 0
    }
}

/// Unblocks the disk at the end, so that a failed test ends.
struct Opened<'a>(&'a Gate);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl RawFile for GatedFile {
    as_the_disk!(file len, write_at, set_len, sync);

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.gate.pass();
        self.file.read_at(offset, buffer)
    }
}

impl RawDirectory for GatedDisk {
    as_the_disk!(path, lock, list, create, rename, remove, sync);

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = self.disk.open(name)?;
        if !name.starts_with("segment-") {
            return Ok(file);
        }
        Ok(Arc::new(GatedFile { file, gate: Arc::clone(&self.gate) }))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl GatedDisk {
    /// A server on it that keeps no block in memory, while `talk` talks to it. All data is in
    /// segments afterwards.
    fn serve(&self, talk: impl FnOnce(&mut dyn FnMut() -> Client)) {
        let world =
            World { dir: Dir::new(Arc::new(self.clone())), clock: Arc::new(SystemClock::new()) };
        let options = Config::default().engine_options().memory_budget_bytes(1);
        let engine = Engine::open_in(world, options).expect("opens");
        let mut config = Config { port: 0, ..Config::default() };
        config.limits.stop_seconds = 1;
        let runtime = runtime();
        let mut server =
            runtime.block_on(Server::start_on(engine, config)).expect("the server starts");
        let address = server.address();
        talk(&mut || Client::connect(address));
        server.stop();
        runtime.block_on(server.wait()).expect("it stops well");
    }
}

/// The commands that may read the disk.
const COMMANDS: &[&str] = &[
    "IM.SYNC ann 0",
    "IM.SYNC ann $",
    "IM.SYNC ann 0 BLOCK 1000",
    "IM.SYNC ann $ BLOCK 1",
    "IM.TAIL ann",
    "IM.FOLLOW ann 0",
    "IM.UNREAD ann",
    "IM.CONVERSATIONS ann",
    "IM.HISTORY pulled ann",
    "IM.MEMBERS pushed",
    "IM.INFO pulled",
    "IM.SEND pushed ann new",
    "IM.READ pushed ann 1",
    "IM.HIDE pushed ann 1",
    "IM.EDIT pushed ann 1 new",
    "IM.RECALL pushed ann 1",
    "IM.JOIN pushed ann",
    "IM.LEAVE pushed carl",
    "IM.CREATE pushed MODE push MEMBERS ann bob",
    "SUBSCRIBE im:{ann}",
    "SUBSCRIBE messages:t",
    "SSUBSCRIBE sync:u/{ann} messages:t",
    "TL.FOLLOW messages:t AFTER 0",
    "TL.READ messages:t AFTER 0",
    "TL.READ messages:t AFTER 0 BLOCK 1000",
    "TL.MREAD 2 messages:t messages:u AFTER 0 0",
    "TL.GET messages:t 1",
    "TL.RANGE messages:t - +",
    "TL.REVRANGE messages:t + -",
    "TL.LAST messages:t",
    "TL.INFO messages:t",
    "TL.SEQAT messages:t 1",
    "TL.LIST messages:",
    "TL.EDIT messages:t 1 new",
    "TL.DEL messages:t 1",
    "TL.TRIM messages:t BEFORE 2",
];

#[test]
fn a_command_that_waits_for_the_disk_delays_no_other_client() {
    let disk = GatedDisk { disk: SimulatedDisk::new(), gate: Arc::default() };
    disk.serve(|client| {
        let mut client = client();
        for (conv, mode) in [("pushed", "push"), ("pulled", "pull")] {
            client.call(&["IM.CREATE", conv, "MODE", mode, "MEMBERS", "ann", "bob"]);
            client.call(&["IM.SEND", conv, "ann", "one"]);
            client.call(&["IM.SEND", conv, "bob", "two"]);
            client.call(&["IM.EDIT", conv, "ann", "1", "uno"]);
        }
        client.call(&["TL.APPEND", "messages:t", "one"]);
        client.call(&["TL.APPEND", "messages:t", "two"]);
        client.call(&["TL.FLUSH"]);
    });
    for command in COMMANDS {
        let image = disk.disk.contents();
        let disk = GatedDisk { disk: SimulatedDisk::from_image(&image), gate: Arc::default() };
        disk.serve(|client| {
            let _opened_at_last = Opened(&disk.gate);
            let (mut reader, mut other) = (client(), client());
            assert!(matches!(reader.call(&["HELLO", "3"]), Value::Map(_)));
            assert_eq!(other.call(&["PING"]), Value::Simple("PONG".into()));
            disk.gate.set(true);
            reader.send(&command.split(' ').collect::<Vec<_>>());
            assert!(disk.gate.is_reached(), "{command}: it reads from the disk");
            assert_eq!(other.call(&["PING"]), Value::Simple("PONG".into()), "{command}");
            disk.gate.set(false);
            let reply = reader.receive();
            assert!(!matches!(reply, Value::Error(_)), "{command}: {reply:?}");
            if command.contains("FOLLOW") {
                assert!(matches!(reader.receive(), Value::Push(_)), "{command}");
            }
        });
    }
}
