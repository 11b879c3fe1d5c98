//! TLS: everything that holds for a plain connection holds for an encrypted one, and a handshake
//! that is not completed costs little and ends.

#![allow(clippy::disallowed_methods, reason = "the tests write certificates")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use strandline_server::{ClientCertificates, Config};
use tempfile::TempDir;

use crate::support::{Client, PATIENCE, TestServer, Value, encoded};

type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// An authority, and the certificates that it has signed.
struct Authority {
    folder: TempDir,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no hosts");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "the authority of this test");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).expect("it is written");
        let root = certificate.der().clone();
        let authority = Authority { folder, root, issuer: Issuer::new(parameters, key) };
        authority.renew_server();
        authority
    }

    fn signed(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).expect("a host");
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.signed_by(&key, &self.issuer).expect("it is signed"), key)
    }

    /// Writes a new certificate for the server.
    fn renew_server(&self) {
        let (certificate, key) = self.signed("server");
        std::fs::write(self.file("server.crt"), certificate.pem()).expect("it is written");
        std::fs::write(self.file("server.key"), key.serialize_pem()).expect("it is written");
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.signed(name);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::with(|config| {
            config.tls.port = Some(0);
            config.tls.certificate = Some(self.file("server.crt"));
            config.tls.key = Some(self.file("server.key"));
            change(config);
        })
    }

    /// A client's side of TLS, without a socket.
    fn tls(&self, identity: Option<Identity>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("it is a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).expect("they fit")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("it is configured")
    }

    /// A client whose handshake has not begun.
    fn client(&self, server: &TestServer, identity: Option<Identity>) -> TlsClient {
        let socket = TcpStream::connect(server.tls_address()).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of the socket");
        StreamOwned::new(self.tls(identity), socket)
    }
}

fn expect(client: &mut TlsClient, reply: &[u8]) {
    let mut found = vec![0; reply.len()];
    client.read_exact(&mut found).expect("the reply comes");
    assert!(found == reply, "{}", found.escape_ascii());
}

fn call(client: &mut TlsClient, words: &[&[u8]], reply: &[u8]) {
    client.write_all(&encoded(words)).expect("the server takes it");
    expect(client, reply);
}

/// Everything up to the end, which must be announced (`close_notify`).
fn rest(client: &mut TlsClient) -> String {
    let mut text = Vec::new();
    client.read_to_end(&mut text).expect("the end is announced");
    String::from_utf8(text).expect("it is text")
}

fn bulk(body: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat()
}

#[test]
fn commands_with_small_and_large_bodies_are_answered() {
    let authority = Authority::new();
    let server = authority.server(|_| {});
    let mut client = authority.client(&server, None);
    call(&mut client, &[b"PING"], b"+PONG\r\n");
    let large: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    call(&mut client, &[b"TL.APPEND", b"messages:a", &large], b":1\r\n");
    call(&mut client, &[b"ECHO", &large], &bulk(&large));
    // Writes of one pipeline that arrive in one piece.
    let append = encoded(&["TL.APPEND", "messages:a", "x"]);
    client.write_all(&append.repeat(100)).expect("the server takes it");
    for sequence in 2..=101 {
        expect(&mut client, format!(":{sequence}\r\n").as_bytes());
    }
    let mut plain = server.client();
    assert_eq!(plain.line("TL.LAST messages:a").items()[0], Value::Integer(101));
}

#[test]
fn a_client_that_does_not_read_is_not_sent_more_and_gets_everything_when_it_reads() {
    const REPLIES: usize = 30;
    let authority = Authority::new();
    let server = authority.server(|_| {});
    let mut client = authority.client(&server, None);
    let large = vec![b'x'; 1 << 20];
    call(&mut client, &[b"TL.APPEND", b"messages:a", &large], b":1\r\n");
    client.write_all(&encoded(&["ECHO", "first"])).expect("the server takes it");
    let ranges = encoded(&["TL.RANGE", "messages:a", "-", "+"]).repeat(REPLIES);
    client.write_all(&ranges).expect("the server takes it");
    let mut plain = server.client();
    let held = |plain: &mut Client| plain.line("TL.STATS").get("client_output_bytes").integer();
    // It is full: no command runs until the client reads.
    while held(&mut plain) < 1 << 19 {
        std::thread::yield_now();
    }
    assert!(held(&mut plain) <= 8 << 20, "{}", held(&mut plain));
    expect(&mut client, &bulk(b"first"));
    let mut count = 0;
    let mut buffer = vec![0; 1 << 16];
    while count < REPLIES * large.len() {
        count += client.read(&mut buffer).expect("it goes on");
    }
    client.conn.send_close_notify();
    client.flush().expect("the server takes it");
    assert!(rest(&mut client).len() < 100 * REPLIES, "the frames around the bodies");
}

#[test]
fn a_client_that_closes_its_half_gets_its_replies_and_an_announced_end() {
    let authority = Authority::new();
    let server = authority.server(|_| {});
    let mut client = authority.client(&server, None);
    let requests =
        [encoded(&["TL.APPEND", "messages:a", "x"]), encoded(&["ECHO", "last"])].concat();
    client.write_all(&requests).expect("the server takes it");
    client.conn.send_close_notify();
    client.flush().expect("the server takes it");
    client.sock.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(rest(&mut client), ":1\r\n$4\r\nlast\r\n");
}

#[test]
fn a_connection_that_the_server_ends_gets_the_reason_and_an_announced_end() {
    let authority = Authority::new();
    let server = authority.server(|config| {
        config.password = Some("sesame".into());
        config.limits.auth_seconds = 1;
    });
    let mut wrong = authority.client(&server, None);
    wrong.write_all(b"*1\r\n$x\r\n").expect("the server takes it");
    assert!(rest(&mut wrong).starts_with("-ERR Protocol error"));
    let mut silent = authority.client(&server, None);
    silent.write_all(&encoded(&["PING"])).expect("the server takes it");
    let text = rest(&mut silent);
    let replies: Vec<_> = text.lines().map(|line| &line[..8]).collect();
    assert_eq!(replies, ["-NOAUTH ", "-NOAUTH "], "to PING, and when the time is over");
}

#[test]
fn handshakes_that_stop_halfway_count_and_end_with_the_time_to_log_in() {
    let authority = Authority::new();
    let server = authority.server(|config| {
        config.limits.auth_seconds = 2;
        config.limits.max_clients = 5;
    });
    let mut plain = server.client();
    assert_eq!(plain.line("PING"), Value::Simple("PONG".into()));
    let mut halves: Vec<_> = (0..4)
        .map(|number| {
            let mut whole = Vec::new();
            authority.tls(None).write_tls(&mut whole).expect("a vector takes it");
            // One sends nothing at all.
            let mut half = Client::connect(server.tls_address());
            half.send_raw(&whole[..whole.len() * number / 4]);
            half
        })
        .collect();
    let held = |plain: &mut Client| plain.line("TL.STATS").get("client_stranger_bytes").integer();
    while held(&mut plain) == 0 || plain.line("CLIENT LIST").text().lines().count() < 5 {
        std::thread::yield_now();
    }
    assert!(held(&mut plain) < 4 * 64 * 1024, "{}", held(&mut plain));
    let mut refused = server.client();
    assert_eq!(refused.receive().word(), "LIMIT");
    for half in &mut halves {
        assert!(ends(half));
    }
    assert!(plain.line("TL.STATS").get("auth_timeouts").integer() >= 4);
    let mut client = authority.client(&server, None);
    call(&mut client, &[b"PING"], b"+PONG\r\n");
}

#[test]
fn a_handshake_without_an_end_is_refused_before_it_takes_much_memory() {
    let authority = Authority::new();
    let server = authority.server(|_| {});
    let mut client = Client::connect(server.tls_address());
    // A ClientHello of 65,532 bytes, in records of 16,384 bytes, that never ends.
    let mut records = Vec::new();
    for number in 0..3 {
        records.extend([22, 3, 1, 0x40, 0]);
        let mut part = vec![0; 0x4000];
        if number == 0 {
            part[..4].copy_from_slice(&[1, 0, 0xff, 0xfc]);
        }
        records.extend(part);
    }
    // The server may have closed the connection before it has taken all of them.
    let _ = client.socket.write_all(&records);
    assert!(ends(&mut client));
    let mut plain = Client::connect(server.tls_address());
    plain.send_raw(b"PING\r\n");
    assert!(ends(&mut plain), "RESP without TLS");
}

/// Whether the server ends the connection, after an alert of TLS or none.
fn ends(client: &mut Client) -> bool {
    let mut rest = Vec::new();
    match client.socket.read_to_end(&mut rest) {
        Ok(_) => rest.len() < 100,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn clients_show_certificates_of_the_authority_if_they_must() {
    let authority = Authority::new();
    let with = |wanted| {
        authority.server(|config| {
            config.tls.client_certificates = wanted;
            config.tls.client_ca = Some(authority.file("ca.crt"));
        })
    };
    let ping = |server: &TestServer, identity| -> io::Result<Vec<u8>> {
        let mut client = authority.client(server, identity);
        client.write_all(&encoded(&["PING"]))?;
        let mut reply = vec![0; 7];
        client.read_exact(&mut reply)?;
        Ok(reply)
    };
    let stranger = Authority::new().identity("ann");
    let copy = |identity: &Identity| (identity.0.clone(), identity.1.clone_key());
    for (wanted, without) in
        [(ClientCertificates::Required, false), (ClientCertificates::Optional, true)]
    {
        let server = with(wanted);
        let own = ping(&server, Some(authority.identity("ann"))).expect("it is signed");
        assert_eq!(own, b"+PONG\r\n");
        assert_eq!(ping(&server, None).is_ok(), without, "{wanted:?}");
        assert!(ping(&server, Some(copy(&stranger))).is_err(), "{wanted:?}");
    }
}

#[test]
fn the_http_port_has_tls_if_it_is_wanted_and_asks_for_certificates_likewise() {
    let authority = Authority::new();
    let server = authority.server(|config| {
        (config.http.port, config.http.tls, config.tls.port) = (Some(0), true, None);
        config.tls.client_certificates = ClientCertificates::Required;
        config.tls.client_ca = Some(authority.file("ca.crt"));
    });
    let asked = |identity| -> io::Result<String> {
        let socket = TcpStream::connect(server.http_address())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = StreamOwned::new(authority.tls(identity), socket);
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        client.read_to_string(&mut text)?;
        Ok(text)
    };
    let told = asked(Some(authority.identity("monitor"))).expect("the end is announced");
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(asked(None).is_err());
    let mut plain = Client::connect(server.http_address());
    plain.send_raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(ends(&mut plain), "HTTP without TLS");
}

#[test]
fn a_renewed_certificate_is_used_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let server = authority.server(|_| {});
    let shown = || {
        let mut client = authority.client(&server, None);
        call(&mut client, &[b"PING"], b"+PONG\r\n");
        client.conn.peer_certificates().expect("it has shown one")[0].clone()
    };
    let mut open = authority.client(&server, None);
    call(&mut open, &[b"PING"], b"+PONG\r\n");
    let first = shown();
    std::fs::write(authority.file("server.crt"), "").expect("it is written");
    server.reload();
    assert_eq!(shown(), first);
    authority.renew_server();
    server.reload();
    assert_ne!(shown(), first);
    call(&mut open, &[b"PING"], b"+PONG\r\n");
}
