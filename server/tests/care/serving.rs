//! The binary as a server: its log, its start and its descriptors.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;

#[test]
fn rust_log_chooses_what_is_logged() {
    let (_folder, dir) = made();
    let lock = Engine::open(&dir, Config::default().engine_options()).expect("opens");
    let refused = |levels: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
        let output = command
            .args(["serve", "--port", "0", "--dir"])
            .arg(&dir)
            .env("RUST_LOG", levels)
            .output();
        ends_with(&output.expect("the binary starts"), 1).1
    };
    assert!(refused("error").contains("is locked"));
    // The reason why it ends is not part of the log.
    let reason = refused("off");
    assert!(reason.starts_with("strandline: cannot serve") && reason.contains("is locked"));
    assert!(refused("strandline=loud").contains("RUST_LOG is invalid"));
    lock.close().expect("closes");
}

#[test]
fn the_log_is_json_with_the_lines_that_the_filter_chooses() {
    let (_folder, dir) = made();
    let logged = |settings: &str| {
        let (mut process, address, log) = served(&dir, settings);
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(b"SHUTDOWN\r\n").expect("it is sent");
        let lines: Vec<String> = log.collect();
        assert!(process.wait().expect("it ends").success());
        lines
    };
    let lines = logged("[log]\nformat = \"json\"\n");
    let last: serde_json::Value =
        serde_json::from_str(lines.last().expect("a line")).expect("JSON");
    assert_eq!((&last["level"], &last["message"]), (&"INFO".into(), &"stopped".into()));
    assert_eq!(last["target"], "strandline_server::listener");
    assert!(lines.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let lines = logged("[log]\nfilter = \"warn,strandline_server::listener=info\"\n");
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.contains("::listener: ")),
        "{lines:?}"
    );
    let file = dir.with_extension("toml");
    std::fs::write(&file, "[log]\nfilter = \"strandline=loud\"\n").expect("writes");
    let refused = run(&[Path::new("serve"), Path::new("--config"), &file]);
    let (_, text) = ends_with(&refused, 1);
    assert!(text.contains("log.filter") && text.contains("strandline=loud"), "{text}");
}

/// A server of the binary's, its address, and the lines of its log.
fn served(dir: &Path, config: &str) -> (Child, std::net::SocketAddr, impl Iterator<Item = String>) {
    let file = dir.with_extension("toml");
    std::fs::write(&file, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.args(["serve", "--port", "0", "--config"]).arg(&file).arg("--dir").arg(dir);
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut announced = String::new();
    BufReader::new(process.stdout.take().expect("it is piped"))
        .read_line(&mut announced)
        .expect("reads");
    let address = announced.trim().strip_prefix("listening on ").expect("an announcement").parse();
    let log = BufReader::new(process.stderr.take().expect("it is piped"));
    (process, address.expect("an address"), log.lines().map(|line| line.expect("reads")))
}

#[test]
fn the_log_names_failed_logins_and_disconnected_clients_once_a_minute_each() {
    let (_folder, dir) = made();
    let (mut process, address, mut log) = served(&dir, "password = \"secret\"\n");
    let mut client = std::net::TcpStream::connect(address).expect("connects");
    let from = client.local_addr().expect("an address");
    client.write_all(&b"AUTH wrong\r\n".repeat(5)).expect("writes");
    client.write_all(b"AUTH secret\r\nCLIENT SETNAME ann\r\n").expect("writes");
    let mut replies = BufReader::new(&client).lines().map(|line| line.expect("reads"));
    let answers: Vec<String> = replies.by_ref().take(7).collect();
    assert_eq!(
        answers.iter().filter(|line| line.starts_with("-WRONGPASS")).count(),
        5,
        "{answers:?}"
    );
    let mut other = std::net::TcpStream::connect(address).expect("connects");
    other.write_all(b"AUTH secret\r\nCLIENT KILL ID 1\r\n").expect("writes");
    assert_eq!(replies.count(), 0, "the connection is closed");
    other.write_all(b"SHUTDOWN\r\n").expect("writes");
    let lines: Vec<String> = log.by_ref().collect();
    assert!(process.wait().expect("ends").success());
    let with = |text: &str| lines.iter().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let (logins, disconnected) = (with("a login failed"), with("a client was disconnected"));
    assert_eq!((logins.len(), disconnected.len()), (1, 1), "{lines:#?}");
    assert!(logins[0].contains(&from.to_string()) && logins[0].contains("WRONGPASS"), "{logins:?}");
    assert!(
        lines.iter().all(|line| !line.contains("secret") && !line.contains("wrong")),
        "{lines:?}"
    );
    let line = disconnected[0];
    assert!(
        line.contains(&from.to_string()) && line.contains("ann") && line.contains("CLIENT KILL"),
        "{line}"
    );
}

#[test]
fn a_server_with_a_damaged_manifest_says_what_to_do_next_also_when_read_only() {
    let (_folder, dir) = made();
    let files = std::fs::read_dir(&dir).expect("lists").map(|entry| entry.expect("lists").path());
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("manifest-");
    let path = files.filter(is_manifest).max().expect("there is a manifest");
    let mut bytes = std::fs::read(&path).expect("reads");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let serve: [&Path; 4] =
        [Path::new("serve"), Path::new("--read-only"), Path::new("--dir"), &dir];
    for arguments in [&serve[..], &[serve[0], serve[2], serve[3]]] {
        let (_, err) = ends_with(&run(arguments), 1);
        assert!(err.contains("is damaged at byte") && err.contains("strandline salvage"), "{err}");
    }
}

/// A server whose standard output and standard error are these, and where it is to listen.
fn serve(dir: &Path, out: impl Into<Stdio>, err: impl Into<Stdio>) -> (Child, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.arg("serve").arg("--dir").arg(dir).args(["--port", &free.port().to_string()]);
    (command.stdout(out).stderr(err).spawn().expect("the binary starts"), free)
}

/// Sends lines, and gives all that comes until the connection is closed.
fn talk(server: &mut Child, address: SocketAddr, lines: &str) -> String {
    let mut socket = loop {
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(_) => {
                assert!(
                    server.try_wait().expect("it is a child").is_none(),
                    "the server has ended"
                );
            }
        }
    };
    socket.write_all(lines.as_bytes()).expect("the server takes it");
    let mut replies = String::new();
    let _ = socket.read_to_string(&mut replies);
    replies
}

#[test]
fn a_server_whose_log_nobody_reads_starts_serves_and_stops() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let closed = || std::io::pipe().expect("a pipe").1;
    // Nothing more fits into this one, and whoever writes to it waits.
    let (_nobody_reads, mut full) = std::io::pipe().expect("a pipe");
    full.write_all(&vec![b'x'; 65_536]).expect("that much fits");
    let kinds: [(&str, Stdio, Stdio); 4] = [
        ("closed standard output", closed().into(), Stdio::null()),
        ("closed standard error", Stdio::null(), closed().into()),
        ("full standard error", Stdio::null(), full.try_clone().expect("a second handle").into()),
        ("full standard output", full.into(), Stdio::null()),
    ];
    for (kind, out, err) in kinds {
        let (mut server, address) = serve(&folder.path().join("data"), out, err);
        // Each is a line of the log.
        for _ in 0..3 {
            assert_eq!(talk(&mut server, address, "POST / HTTP/1.1\r\n"), "", "{kind}");
        }
        let replies = talk(&mut server, address, "TL.APPEND messages:a x\r\nPING\r\nQUIT\r\n");
        assert!(
            replies.ends_with("+PONG\r\n+OK\r\n") && replies.starts_with(':'),
            "{kind}: {replies}"
        );
        assert_eq!(talk(&mut server, address, "SHUTDOWN\r\n"), "", "{kind}");
        assert_eq!(server.wait().expect("it ends").code(), Some(0), "{kind}");
    }
}

#[test]
fn fifty_clients_that_write_read_and_change_start_no_threads() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (mut server, address) = serve(&folder.path().join("data"), Stdio::null(), Stdio::null());
    let names = |server: &Child| -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("it runs");
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.expect("a thread").path().join("comm")).expect("a name")
        };
        tasks.map(|task| name(task).trim().to_owned()).collect()
    };
    talk(&mut server, address, "IM.CREATE room MEMBERS a b\r\nQUIT\r\n");
    let work = |client: usize| {
        format!(
            "TL.APPEND messages:{client} x\r\nTL.READ messages:{client} AFTER 0\r\n\
             IM.SEND room a hello\r\nIM.READ room b {client}\r\nIM.HISTORY room a\r\n\
             TL.EDIT messages:{client} 1 y\r\nTL.FLUSH\r\n"
        )
    };
    let mut sockets: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(address).expect("connects")).collect();
    let mut most = 0;
    for _round in 0..3 {
        for (client, socket) in sockets.iter_mut().enumerate() {
            socket.write_all(work(client).as_bytes()).expect("the server takes it");
        }
        most = most.max(names(&server).len());
    }
    for socket in &mut sockets {
        socket.write_all(b"QUIT\r\n").expect("the server takes it");
        let mut replies = String::new();
        socket.read_to_string(&mut replies).expect("reads");
        assert!(replies.ends_with("+OK\r\n+OK\r\n") && !replies.contains('-'), "{replies}");
        most = most.max(names(&server).len());
    }
    let cores = std::thread::available_parallelism().expect("is known").get();
    let allowed = (2 * cores).max(4) + 8;
    assert!(most <= allowed, "{most} threads on {cores} cores: {:?}", names(&server));
    let unnamed: Vec<String> =
        names(&server).into_iter().filter(|name| !name.starts_with("strandline")).collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    assert_eq!(talk(&mut server, address, "SHUTDOWN\r\n"), "");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
}

#[test]
fn with_few_descriptors_most_of_the_remaining_ones_serve_clients() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let binary = env!("CARGO_BIN_EXE_strandline");
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "threads = 2\n").expect("writes");
    let script = format!(
        "ulimit -n 64; exec {binary} serve --dir {} --port {} --config {}",
        folder.path().join("data").display(),
        free.port(),
        config.display()
    );
    let mut server = Command::new("bash").args(["-c", &script]).spawn().expect("bash starts");
    assert_eq!(talk(&mut server, free, "PING\r\nQUIT\r\n"), "+PONG\r\n+OK\r\n");
    let mut clients: Vec<TcpStream> =
        (0..23).map(|_| TcpStream::connect(free).expect("the server listens")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client
            .write_all(format!("TL.APPEND messages:{number} x\r\n").as_bytes())
            .expect("it takes it");
        let mut reply = [0; 4];
        client.read_exact(&mut reply).expect("it answers");
        assert_eq!(&reply, b":1\r\n", "client {number}");
    }
    clients.truncate(20);
    assert_eq!(talk(&mut server, free, "TL.FLUSH\r\nSHUTDOWN\r\n"), "+OK\r\n");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
}
