//! A server to talk to, and a plain blocking client that shows frames as they are.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use strandline::clock::{Clock as _, SystemClock};
use strandline::format::header::{FileHeader, file_header};
use strandline::format::manifest::{decode, encode};
use strandline::{BootId, StoreId};
use strandline_server::{
    Config, Server, ServerError, Sources, StopReason, TokenAlgorithm, TokenKeySettings,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Long enough for a busy machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it stops it.
pub struct TestServer {
    pub address: SocketAddr,
    config: Config,
    runtime: Runtime,
    server: Option<Server>,
    dir: TempDir,
}

impl TestServer {
    pub fn start() -> TestServer {
        TestServer::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> TestServer {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config { dir: dir.path().join("data"), port: 0, ..Config::default() };
        config.memory_budget_bytes = 32 << 20;
        config.limits.stop_seconds = 1;
        change(&mut config);
        let starting = Server::start(config.clone());
        TestServer::run(dir, config, starting)
    }

    /// A server with the settings of a file, which it can read again.
    pub fn of_file(file: &Path) -> TestServer {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data").display().to_string();
        let flags = [
            ("dir", data.as_str()),
            ("port", "0"),
            ("memory_budget_bytes", "33554432"),
            ("limits.stop_seconds", "1"),
        ];
        let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let sources = Sources { file: Some(file.to_path_buf()), flags, ..Sources::default() };
        let config = sources.load().expect("they are valid").config;
        let starting = Server::start_from(sources, config.clone());
        TestServer::run(dir, config, starting)
    }

    fn run(
        dir: TempDir,
        config: Config,
        starting: impl Future<Output = Result<Server, ServerError>>,
    ) -> TestServer {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = runtime.block_on(starting).expect("the server starts");
        TestServer { address: server.address(), config, runtime, server: Some(server), dir }
    }

    /// Stops it and starts it again on the same directory, at another address.
    pub fn restart(&mut self) {
        self.pause();
        self.resume();
    }

    /// Stops it and starts it again as after a power cut in a life in which these stores took
    /// entries of relaxed durability.
    #[allow(clippy::disallowed_methods, reason = "this is no file of the server's any more")]
    pub fn restart_after_power_cut(&mut self, stores: &[u32]) {
        let mut server = self.server.take().expect("it runs");
        server.stop();
        self.runtime.block_on(server.wait()).expect("it stops well");
        let files = std::fs::read_dir(&self.config.dir).expect("the files are there");
        let mut paths: Vec<_> = files.map(|entry| entry.expect("a file is there").path()).collect();
        paths.retain(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("manifest-"))
        });
        let path = paths.iter().max().expect("there is a manifest");
        let bytes = std::fs::read(path).expect("it is read");
        let header = FileHeader::decode(&bytes, path).expect("it has a header");
        let mut live = decode(&bytes[file_header::BYTES..], &header).expect("it is whole");
        live.relaxed.boot = BootId([7; 16]);
        live.relaxed.stores = stores.iter().map(|id| StoreId(*id)).collect();
        std::fs::write(path, encode(&live, header)).expect("it is written");
        let server =
            self.runtime.block_on(Server::start(self.config.clone())).expect("the server starts");
        self.address = server.address();
        self.server = Some(server);
    }

    /// Removes the files while the server runs.
    pub fn lose_files(&self) {
        // The engine may make a file, such as its next log, while the others are removed.
        while let Err(error) = std::fs::remove_dir_all(self.dir.path()) {
            assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty, "{error}");
        }
    }

    /// Flips a bit in the last block of a segment.
    #[allow(clippy::disallowed_methods, reason = "this is no file of the server's any more")]
    pub fn damage_a_segment(&self) {
        let files = std::fs::read_dir(self.dir.path().join("data")).expect("the files are there");
        let mut paths = files.map(|entry| entry.expect("a file is there").path());
        let path = paths.find(|path| path.extension().is_some_and(|ending| ending == "data"));
        let path = path.expect("there is a segment");
        let mut bytes = std::fs::read(&path).expect("it is read");
        *bytes.last_mut().expect("it is not empty") ^= 1;
        std::fs::write(&path, bytes).expect("it is written");
    }

    /// The address for TLS.
    pub fn tls_address(&self) -> SocketAddr {
        let server = self.server.as_ref().expect("it runs");
        server.tls_address().expect("it has TLS")
    }

    /// What SIGHUP does.
    pub fn reload(&self) {
        assert!(self.try_reload(), "the settings are valid");
    }

    /// The same. Returns whether the settings were valid.
    pub fn try_reload(&self) -> bool {
        let reloading = self.server.as_ref().expect("it runs").reload();
        self.runtime.block_on(reloading).is_ok()
    }

    /// The directory of the data.
    pub fn data(&self) -> PathBuf {
        self.config.dir.clone()
    }

    /// Stops it, so that its files can be changed; [`TestServer::resume`] starts it again.
    pub fn pause(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.stop();
        self.runtime.block_on(server.wait()).expect("it stops well");
    }

    /// Flips a bit of the last block of each data file of a store, in all copies, and starts the
    /// server again on them.
    #[allow(clippy::disallowed_methods, reason = "this is no file of the server's any more")]
    pub fn damage_store(&mut self, store: u8) {
        self.pause();
        let files = std::fs::read_dir(self.data()).expect("the files are there");
        let paths = files.map(|entry| entry.expect("a file is there").path());
        let mut count = 0;
        for path in paths.filter(|path| path.to_string_lossy().contains(".data")) {
            let mut bytes = std::fs::read(&path).expect("it is read");
            // The header of a segment file has the store at this position.
            if bytes[48] == store {
                *bytes.last_mut().expect("it is not empty") ^= 1;
                std::fs::write(&path, bytes).expect("it is written");
                count += 1;
            }
        }
        assert!(count > 0, "the store has files");
        self.resume();
    }

    /// Changes its settings for the next start.
    pub fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Starts it again after [`TestServer::pause`], at another address.
    pub fn resume(&mut self) {
        let server =
            self.runtime.block_on(Server::start(self.config.clone())).expect("the server starts");
        self.address = server.address();
        self.server = Some(server);
    }

    /// The answer of the http port to a GET, with these further lines of the head.
    pub fn get(&self, path: &str, head: &str) -> HttpAnswer {
        let server = self.server.as_ref().expect("it runs");
        let address = server.http_address().expect("it has an http port");
        HttpAnswer::to(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n"))
    }

    /// The address of the http port.
    pub fn http_address(&self) -> SocketAddr {
        self.server.as_ref().and_then(Server::http_address).expect("it runs, with an http port")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A client that speaks RESP3.
    pub fn client3(&self) -> Client {
        let mut client = self.client();
        assert!(matches!(client.call(&["HELLO", "3"]), Value::Map(_)));
        client
    }

    pub fn stop(mut self) -> StopReason {
        let mut server = self.server.take().expect("it is stopped once");
        server.stop();
        self.runtime.block_on(server.wait()).expect("it stops well")
    }

    pub fn wait(mut self) -> StopReason {
        let mut server = self.server.take().expect("it is waited for once");
        self.runtime.block_on(server.wait()).expect("it stops well")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.stop();
            let stopped = self.runtime.block_on(server.wait());
            if !std::thread::panicking() {
                stopped.expect("it stops well");
            }
        }
    }
}

/// An answer of the http port.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl HttpAnswer {
    pub fn to(address: SocketAddr, request: &str) -> HttpAnswer {
        let mut socket = TcpStream::connect(address).expect("the port is open");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of the socket");
        socket.write_all(request.as_bytes()).expect("it is sent");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let of_head = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        HttpAnswer {
            status: head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status"),
            content_type: of_head("content-type: "),
            body: body.to_owned(),
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Push(Vec<Value>),
}

impl Value {
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }

    /// The first word of an error.
    pub fn word(&self) -> &str {
        match self {
            Value::Error(text) => text.split(' ').next().unwrap_or_default(),
            other => panic!("not an error: {other:?}"),
        }
    }

    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(value) => *value,
            other => panic!("not an integer: {other:?}"),
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Push(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Simple(text) => text.clone(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The value of a key, of a map or of a flat array of pairs.
    pub fn get(&self, key: &str) -> Value {
        let key = Value::bulk(key);
        let found = match self {
            Value::Map(pairs) => {
                pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
            }
            Value::Array(flat) => {
                flat.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| &pair[1])
            }
            other => panic!("not a map: {other:?}"),
        };
        found.unwrap_or_else(|| panic!("no {key:?} in {self:?}")).clone()
    }

    /// The text of a field of a map, if there is one.
    pub fn text_of(&self, key: &str) -> Option<String> {
        let key = Value::bulk(key);
        match self {
            Value::Array(flat) => {
                flat.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1].text())
            }
            other => panic!("not a flat map: {other:?}"),
        }
    }

    /// Sequences and bodies of an array of entries.
    pub fn entries(&self) -> Vec<(i64, String)> {
        self.items()
            .iter()
            .map(|entry| (entry.items()[0].integer(), entry.items()[2].text()))
            .collect()
    }
}

/// The text of the keys of [`shared_key`].
pub const SHARED: &str = "a shared key of at least thirty-two bytes";

/// A key of tokens for [`token`].
pub fn shared_key(id: &str) -> TokenKeySettings {
    let key = Some(SHARED.into());
    TokenKeySettings { id: id.into(), algorithm: TokenAlgorithm::Hs256, key, key_file: None }
}

/// A token of a user that is valid for some seconds.
pub fn token(key: &str, user: &str, seconds: u64) -> String {
    token_with(key, serde_json::json!({"sub": user}), seconds)
}

/// The same with claims.
pub fn token_with(key: &str, mut claims: serde_json::Value, seconds: u64) -> String {
    let now = SystemClock::new().now_ms();
    claims["exp"] = serde_json::json!((now as f64) / 1000.0 + seconds as f64);
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = serde_json::json!({"alg": "HS256", "typ": "JWT", "kid": key});
    let message = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SHARED.as_bytes());
    let tag = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

pub struct Client {
    pub socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_nodelay(true).expect("an option of the socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of the socket");
        let reader = BufReader::new(socket.try_clone().expect("a second handle"));
        Client { socket, reader }
    }

    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) {
        self.socket.write_all(&encoded(words)).expect("the server takes it");
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server takes it");
    }

    pub fn call(&mut self, words: &[impl AsRef<[u8]>]) -> Value {
        self.send(words);
        self.receive()
    }

    /// One command, given as the words of a line.
    pub fn line(&mut self, line: &str) -> Value {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    pub fn receive(&mut self) -> Value {
        self.frame().expect("a frame")
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub fn frame(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (sign, rest) = line.split_at(1);
        let count = || rest.parse::<usize>().unwrap_or_else(|_| panic!("a length in {line:?}"));
        Ok(match sign {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(rest.parse().expect("an integer")),
            "_" => Value::Null,
            "$" if rest == "-1" => Value::Null,
            "$" => {
                let mut bytes = vec![0; count() + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Value::Bulk(bytes)
            }
            "*" => Value::Array(self.frames(count())?),
            ">" => Value::Push(self.frames(count())?),
            "%" => {
                let flat = self.frames(count() * 2)?;
                Value::Map(
                    flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
                )
            }
            _ => panic!("not a frame: {line:?}"),
        })
    }

    fn frames(&mut self, count: usize) -> io::Result<Vec<Value>> {
        (0..count).map(|_| self.frame()).collect()
    }
}

pub fn encoded(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        bytes.extend_from_slice(word.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
