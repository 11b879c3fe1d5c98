//! Users, their rules and tokens, as clients see them.

#![allow(clippy::disallowed_methods, reason = "the tests write files and measure time")]

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use strandline_server::{Config, Server, TokenSettings, UserSettings};

use crate::support::{Client, SHARED, TestServer, Value, shared_key, token, token_with};

fn with_password() -> TestServer {
    TestServer::with(|config| config.password = Some("secret".into()))
}

fn with_tokens() -> TestServer {
    TestServer::with(|config| {
        config.password = Some("secret".into());
        config.tokens = TokenSettings { keys: vec![shared_key("k")], ..TokenSettings::default() };
    })
}

fn ok() -> Value {
    Value::Simple("OK".into())
}

fn logged_in(server: &TestServer, user: &str, password: &str) -> Client {
    let mut client = server.client();
    assert!(matches!(client.call(&["HELLO", "3", "AUTH", user, password]), Value::Map(_)));
    client
}

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

#[test]
fn users_are_made_listed_and_removed_as_in_redis() {
    let server = TestServer::start();
    let mut admin = server.client();
    assert_eq!(admin.line("ACL WHOAMI").text(), "default");
    assert_eq!(texts(&admin.line("ACL LIST")), ["user default on nopass ~* &* +@all"]);
    assert_eq!(admin.line("ACL SETUSER ann on >one ~t1.* &x +@read +im.send"), ok());
    assert_eq!(admin.line("ACL SETUSER bob"), ok());
    assert_eq!(texts(&admin.line("ACL USERS")), ["ann", "bob", "default"]);
    for mut client in [server.client(), server.client3()] {
        let ann = client.line("ACL GETUSER ann");
        assert_eq!(texts(&ann.get("flags")), ["on"]);
        let passwords = texts(&ann.get("passwords"));
        assert!(passwords.len() == 1 && passwords[0].starts_with("$argon2id$"), "{passwords:?}");
        let [commands, keys, channels] =
            ["commands", "keys", "channels"].map(|name| ann.get(name).text());
        assert_eq!([commands, keys, channels], ["-@all +@read +im.send", "~t1.*", "&x"]);
        assert_eq!(ann.get("selectors"), Value::Array(vec![]));
        assert_eq!(client.line("ACL GETUSER nobody"), Value::Null);
    }
    let bob = admin.line("ACL GETUSER bob");
    assert_eq!(
        (texts(&bob.get("flags")), bob.get("commands").text()),
        (vec!["off".into()], "-@all".into())
    );
    let categories = texts(&admin.line("ACL CAT"));
    assert_eq!(categories, ["connection", "read", "write", "pubsub", "admin", "rawevents"]);
    assert!(texts(&admin.line("ACL CAT write")).contains(&"tl.append".into()));
    assert_eq!(admin.line("ACL GENPASS 5").text().len(), 2);
    assert_eq!(admin.line("ACL DELUSER ann nobody").integer(), 1);
    for (line, word) in [
        ("ACL DELUSER default", "ERR"),
        ("ACL SETUSER eve +nope", "ERR"),
        ("ACL SETUSER", "ERR"),
        ("ACL GENPASS 0", "ERR"),
        ("ACL CAT nope", "ERR"),
        ("ACL LOAD", "ERR"),
        ("ACL NONSENSE", "ERR"),
        ("AUTH one", "ERR"),
        ("AUTH ann one", "WRONGPASS"),
        ("AUTH bob one", "WRONGPASS"),
    ] {
        assert_eq!(admin.line(line).word(), word, "{line}");
    }
    assert_eq!(texts(&admin.line("ACL USERS")), ["bob", "default"]);
    assert_eq!(admin.line("AUTH default anything"), ok(), "nopass takes any password");
}

#[test]
fn changed_rules_hold_for_connections_that_are_open() {
    let server = with_password();
    let mut admin = logged_in(&server, "default", "secret");
    admin.line("ACL SETUSER ann on >one ~a:* ~messages:* +@read +@pubsub");
    let [mut reader, mut idle] = [(); 2].map(|()| logged_in(&server, "ann", "one"));
    let mut follower = logged_in(&server, "ann", "one");
    assert_eq!(reader.line("TL.LAST messages:x"), Value::Null);
    assert!(matches!(follower.line("SUBSCRIBE messages:x"), Value::Push(_)));
    admin.line("ACL SETUSER ann -tl.last");
    assert_eq!(reader.line("TL.LAST messages:x").word(), "NOPERM");
    assert_eq!(reader.line("TL.GET messages:x 1"), Value::Null);
    assert_eq!(follower.receive().word(), "NOPERM", "its subscription may not be allowed now");
    assert!(follower.is_closed());
    admin.line("ACL SETUSER ann off");
    assert_eq!(idle.receive().word(), "NOAUTH");
    assert!(idle.is_closed());
    assert_eq!(reader.receive().word(), "NOAUTH");
    admin.line("ACL SETUSER bob on nopass ~* +@all");
    let mut bob = logged_in(&server, "bob", "x");
    admin.send_raw(b"ACL DELUSER bob\r\nACL SETUSER bob on nopass ~* +@all\r\n");
    assert_eq!((admin.receive(), admin.receive()), (Value::Integer(1), ok()));
    assert_eq!(bob.receive().word(), "NOAUTH", "the new bob is another user");
    assert!(bob.is_closed());
}

#[test]
fn a_user_may_change_its_own_rules_and_they_hold_at_once() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send_raw(b"ACL SETUSER default -ping\r\nPING\r\nACL SETUSER default +ping\r\nPING\r\n");
    assert_eq!((client.receive(), client.receive().word()), (ok(), "NOPERM"));
    assert_eq!((client.receive(), client.receive()), (ok(), Value::Simple("PONG".into())));
}

#[test]
fn errors_name_the_command_or_the_key() {
    let server = TestServer::start();
    let mut admin = server.client();
    admin.line("ACL SETUSER ann on nopass ~t1.* +@read");
    let mut ann = server.client();
    ann.line("AUTH ann x");
    for (line, name) in [
        ("TL.APPEND messages:x body", "'tl.append'"),
        ("CLIENT LIST", "'client|list'"),
        ("TL.LAST messages:x", "key 'messages:x'"),
        ("TL.LIST messages:", "prefix 'messages:'"),
        ("IM.INFO t2.room", "conversation 't2.room'"),
        ("IM.TAIL t2.ann", "user 't2.ann'"),
    ] {
        match ann.line(line) {
            Value::Error(text) => {
                assert!(text.starts_with("NOPERM ") && text.contains(name), "{line}: {text}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn lists_show_only_what_matches() {
    let server = TestServer::start();
    let mut admin = server.client3();
    for conv in ["t1.own", "t2.other"] {
        admin.line(&format!("IM.CREATE {conv} MEMBERS t1.ann t1.bob"));
        admin.line(&format!("IM.SEND {conv} t1.bob hello"));
    }
    for name in ["t1.a.x", "t1.b.y", "t1.c.x", "t1.d.x"] {
        admin.line(&format!("TL.APPEND messages:{name} body"));
    }
    let rules = "on nopass +@all -@rawevents ~t1.* ~messages:t1. ~messages:t1.*.x";
    admin.line(&format!("ACL SETUSER tenant {rules}"));
    let mut tenant = server.client();
    assert!(matches!(tenant.line("HELLO 3 AUTH tenant x"), Value::Map(_)));
    let keys = texts(&tenant.line("TL.LIST messages:t1. COUNT 2"));
    assert_eq!(keys, ["messages:t1.a.x", "messages:t1.c.x"]);
    let keys = texts(&tenant.line("TL.LIST messages:t1. AFTER messages:t1.c.x COUNT 2"));
    assert_eq!(keys, ["messages:t1.d.x"]);
    let items = tenant.line("IM.CONVERSATIONS t1.ann").get("items");
    let convs: Vec<String> = items.items().iter().map(|item| item.get("conv").text()).collect();
    assert_eq!(convs, ["t1.own"]);
    let of_page = |page: &Value| -> Vec<String> {
        page.get("entries").items().iter().map(|entry| entry.items()[0].text()).collect()
    };
    assert_eq!(of_page(&tenant.line("IM.SYNC t1.ann 0")), ["t1.own"]);
    assert_eq!(of_page(&tenant.line("IM.SYNC t1.ann 0 COUNT 1")), ["t1.own"]);
    assert_eq!(of_page(&admin.line("IM.SYNC t1.ann 0")).len(), 2);
    let Value::Map(unread) = tenant.line("IM.UNREAD t1.ann") else { panic!("a map") };
    assert_eq!(unread, [(Value::bulk("t1.own"), Value::Integer(1))]);
    assert_eq!(tenant.line("IM.UNREAD t1.ann t2.other").word(), "NOPERM");
}

#[test]
fn pushes_and_waits_leave_out_what_does_not_match() {
    let server = TestServer::start();
    let mut admin = server.client3();
    for conv in ["t1.own", "t2.other"] {
        admin.line(&format!("IM.CREATE {conv} MEMBERS t1.ann t1.bob"));
    }
    admin.line("ACL SETUSER tenant on nopass ~t1.* +@all");
    let [mut follower, mut subscriber, mut waiter] = [(); 3].map(|()| {
        let mut client = server.client();
        assert!(matches!(client.line("HELLO 3 AUTH tenant x"), Value::Map(_)));
        client
    });
    assert_eq!(follower.line("IM.FOLLOW t1.ann $").get("verdict").text(), "OK");
    assert!(matches!(subscriber.line("SUBSCRIBE im:{t1.ann}"), Value::Push(_)));
    waiter.send(&["IM.SYNC", "t1.ann", "$", "BLOCK", "0"]);
    while admin.line("TL.STATS").get("blocked_clients").integer() == 0 {
        std::thread::yield_now();
    }
    admin.line("IM.SEND t2.other t1.bob hidden");
    admin.line("IM.SEND t1.own t1.bob shown");
    let frame = loop {
        let frame = follower.receive();
        if frame.items()[0] == Value::bulk("im.entry") {
            break frame;
        }
    };
    assert_eq!(frame.items()[3], Value::bulk("t1.own"));
    assert!(subscriber.receive().items()[2].text().starts_with("t1.own "));
    let page = waiter.receive();
    let entries = page.get("entries");
    assert_eq!(entries.items().len(), 1);
    assert_eq!(entries.items()[0].items()[0], Value::bulk("t1.own"));
}

#[test]
fn a_tenant_sees_and_closes_only_its_own_connections() {
    let server = with_tokens();
    let mut admin = logged_in(&server, "default", "secret");
    admin.line("ACL SETUSER tenant on nopass ~t1.* +@all");
    let mut tenant = logged_in(&server, "tenant", "x");
    let _own = logged_in(&server, "default", &token("k", "t1.ann", 60));
    let mut other = logged_in(&server, "default", &token("k", "t2.ann", 60));
    let list = tenant.line("CLIENT LIST").text();
    let users: Vec<&str> = list
        .lines()
        .map(|line| line.split_once(" user=").expect("a user").1.split(' ').next().expect("a word"))
        .collect();
    assert_eq!(users, ["tenant", "t1.ann"]);
    assert_eq!(admin.line("CLIENT LIST").text().lines().count(), 4);
    let id = other.line("CLIENT ID").integer();
    assert_eq!(tenant.line(&format!("CLIENT KILL ID {id}")).integer(), 0);
    let address = other.socket.local_addr().expect("an address");
    assert_eq!(tenant.line(&format!("CLIENT KILL {address}")).word(), "ERR");
    assert_eq!(other.line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn a_token_logs_in_by_each_form_and_only_as_its_user() {
    let server = with_tokens();
    let jwt = token("k", "ann", 60);
    for words in [
        vec!["AUTH", &jwt],
        vec!["AUTH", "ann", &jwt],
        vec!["AUTH", "default", &jwt],
        vec!["HELLO", "3", "AUTH", "ann", &jwt],
    ] {
        let mut client = server.client();
        let reply = client.call(&words);
        assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
        assert_eq!(client.line("ACL WHOAMI").text(), "ann");
    }
    let mut client = server.client();
    for (user, jwt) in [
        ("bob", jwt.clone()),
        ("ann", token("other", "ann", 60)),
        ("ann", token("k", "ann", 0)),
        ("ann", format!("{jwt}x")),
    ] {
        assert_eq!(client.call(&["AUTH", user, &jwt]).word(), "WRONGPASS");
        assert_eq!(client.line("PING").word(), "NOAUTH");
    }
}

#[test]
fn a_connection_ends_when_its_token_expires() {
    let server = with_tokens();
    let mut idle = logged_in(&server, "ann", &token("k", "ann", 1));
    let mut blocked = logged_in(&server, "ann", &token("k", "ann", 1));
    blocked.send(&["IM.SYNC", "ann", "$", "BLOCK", "0"]);
    for client in [&mut idle, &mut blocked] {
        let reply = client.receive();
        assert!(matches!(&reply, Value::Error(text) if text.contains("expired")), "{reply:?}");
        assert_eq!(reply.word(), "NOAUTH");
        assert!(client.is_closed());
    }
}

#[test]
fn claims_add_rights() {
    let server = with_tokens();
    let claims = json!({"sub": "ann", "create": ["t1."], "join": ["open."]});
    let mut admin = logged_in(&server, "default", "secret");
    admin.line("IM.CREATE open.door MEMBERS bob");
    admin.line("IM.CREATE t1.door MEMBERS bob");
    let mut ann = logged_in(&server, "ann", &token_with("k", claims, 60));
    for (line, may) in [
        ("IM.CREATE t1.room MEMBERS ann bob", true),
        ("IM.CREATE t2.room MEMBERS ann bob", false),
        ("IM.JOIN open.door ann", true),
        ("IM.JOIN open.door carl", false),
        ("IM.JOIN open.door ann carl", false),
        ("IM.JOIN t1.door ann", false),
    ] {
        let reply = ann.line(line);
        assert_eq!(may, reply == Value::Integer(1), "{line}: {reply:?}");
        assert!(may || reply.word() == "NOPERM", "{line}");
    }
}

#[test]
fn users_of_the_file_are_loaded_and_loaded_again() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let hash = strandline_server::Hash::of(b"pass").expect("a hash");
    let user = format!(
        "[users.ann]\nrules = \"+@read ~messages:*\"\ncertificate = \"ann.example\"\n\
         password_hash = \"{}\"\n",
        hash.text()
    );
    let write = |text: &str| std::fs::write(&file, text).expect("writes");
    write(&format!("password = \"secret\"\n{user}"));
    let server = TestServer::of_file(&file);
    let mut admin = logged_in(&server, "default", "secret");
    let mut ann = logged_in(&server, "ann", "pass");
    assert_eq!(admin.line("ACL GETUSER ann").get("certificate").text(), "ann.example");
    assert_eq!(ann.line("TL.LAST messages:x"), Value::Null);
    assert_eq!(ann.line("TL.APPEND messages:x y").word(), "NOPERM");
    admin.line("ACL SETUSER eve on nopass");
    write(&format!("{}[users.bob]\nrules = \"+nope\"\n", user.replace("+@read", "+@write")));
    assert_eq!(admin.line("ACL LOAD").word(), "ERR");
    assert_eq!(texts(&admin.line("ACL USERS")), ["ann", "default", "eve"]);
    write(&user.replace("+@read", "+@write"));
    assert_eq!(admin.line("ACL LOAD"), ok());
    assert_eq!(texts(&admin.line("ACL USERS")), ["ann", "default"]);
    assert_eq!(ann.line("TL.LAST messages:x").word(), "NOPERM");
    assert_eq!(ann.line("TL.APPEND messages:x y"), Value::Integer(1));
    assert_eq!(admin.line("PING"), Value::Simple("PONG".into()), "its password stays");
}

fn started_on(address: &str, change: impl FnOnce(&mut Config)) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bind: IpAddr = address.parse().expect("an address");
    let mut config = Config { dir: dir.path().join("data"), bind, port: 0, ..Config::default() };
    change(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut server = Server::start(config).await.map_err(|error| error.to_string())?;
        server.stop();
        server.wait().await.map(drop).map_err(|error| error.to_string())
    })
}

#[test]
fn a_server_that_anybody_could_use_listens_on_loopback_only() {
    let refused = started_on("0.0.0.0", |_| {}).expect_err("it is open to everybody");
    for word in ["0.0.0.0", "password", "users", "tokens", "127.0.0.1", "allow_unprotected"] {
        assert!(refused.contains(word), "{refused}");
    }
    let empty = started_on("0.0.0.0", |config| config.password = Some("".into()));
    assert!(empty.is_err(), "an empty password is none");
    assert_eq!(started_on("127.0.0.2", |_| {}), Ok(()));
    assert_eq!(started_on("0.0.0.0", |config| config.allow_unprotected = true), Ok(()));
    assert_eq!(started_on("0.0.0.0", |config| config.password = Some("p".into())), Ok(()));
    let key = |config: &mut Config| config.tokens.keys = vec![shared_key("k")];
    assert_eq!(started_on("0.0.0.0", key), Ok(()));
    let open = |config: &mut Config| {
        let rules = "reset on nopass +@all ~*".into();
        config.users.insert("default".into(), UserSettings { rules, ..UserSettings::default() });
    };
    assert!(started_on("0.0.0.0", open).is_err_and(|error| error.contains("bind is 0.0.0.0")));
}

#[test]
fn commands_over_the_rate_wait_and_none_is_lost() {
    let server = TestServer::with(|config| {
        (config.rates.connection_per_second, config.rates.connection_burst) = (50, 1);
    });
    let mut client = server.client();
    let begun = Instant::now();
    client.send_raw(&b"TL.APPEND messages:a x\r\n".repeat(6));
    for sequence in 1..=6 {
        assert_eq!(client.receive(), Value::Integer(sequence));
    }
    // The first at once, and five more, a fiftieth of a second each.
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    let mut other = server.client();
    assert_eq!(other.line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn the_connections_of_a_user_share_its_rate() {
    let server = TestServer::with(|config| {
        (config.rates.user_per_second, config.rates.user_burst) = (50, 1);
    });
    let begun = Instant::now();
    let mut clients = [(); 6].map(|()| server.client());
    clients.iter_mut().for_each(|client| client.send(&["PING"]));
    for client in &mut clients {
        assert_eq!(client.receive(), Value::Simple("PONG".into()));
    }
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[test]
fn backups_are_written_below_their_directory_only() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (below, outside) = (folder.path().join("backups"), folder.path().join("outside"));
    for dir in [&below, &outside] {
        std::fs::create_dir_all(dir).expect("a directory");
    }
    std::os::unix::fs::symlink(&outside, below.join("link")).expect("a link");
    let server = TestServer::with(|config| config.backup_dir = Some(below.clone()));
    let mut client = server.client();
    let mut backup = |path: &Path| client.call(&["TL.BACKUP", path.to_str().expect("a name")]);
    for wrong in [
        Path::new("../outside/x"),
        Path::new("link"),
        Path::new("link/x"),
        Path::new("."),
        Path::new(".."),
        Path::new(""),
        Path::new("/"),
        Path::new("missing/x"),
        &outside.join("x"),
        &below.join("../outside/x"),
        &below,
    ] {
        assert_eq!(backup(wrong).word(), "ERR", "{}", wrong.display());
    }
    let told = format!("{:?}", backup(&outside.join("missing/x")));
    assert!(told.contains("a backup is written below"), "{told}");
    assert!(std::fs::read_dir(&outside).expect("it is there").next().is_none());
    for right in [Path::new("one"), &below.join("two")] {
        assert!(backup(right).get("files").integer() > 0, "{}", right.display());
    }
    assert!(below.join("one").is_dir() && below.join("two").is_dir());
    let without = TestServer::start();
    let target = outside.join("x").to_str().expect("a name").to_owned();
    match without.client().call(&["TL.BACKUP", &target]) {
        Value::Error(text) => assert!(text.contains("backup_dir"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let server = with_tokens();
    let jwt = token("k", "ann", 60);
    let mut admin = logged_in(&server, "default", "secret");
    let _terminal = logged_in(&server, "ann", &jwt);
    admin.line("ACL SETUSER bob on >hidden");
    let mut shown = String::new();
    for line in [
        "CONFIG GET *",
        "CLIENT LIST",
        "ACL LIST",
        "ACL GETUSER bob",
        "INFO",
        "TL.STATS",
        "ACL SETUSER bob <other",
        "ACL SETUSER bob #hidden",
        "AUTH bob hidden2",
    ] {
        shown += &format!("{line}: {:?}\n", admin.line(line)).replace(line, "");
    }
    let config = Config { password: Some("secret".into()), ..Config::default() };
    shown += &serde_json::to_string(&config).expect("settings are plain values");
    for secret in ["secret\"", "hidden", jwt.as_str(), "thirty-two"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

/// A server whose user `default` may do everything, and one more user.
fn with_user(rules: &str) -> (TestServer, Client) {
    let server = TestServer::with(|config| config.password = Some("secret".into()));
    let mut admin = logged_in(&server, "default", "secret");
    assert_eq!(admin.line(&format!("ACL SETUSER ann on >pass {rules}")), ok());
    (server, admin)
}

#[test]
fn logins_that_are_refused_do_not_hold_a_connection_whose_client_is_gone() {
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.limits.auth_seconds = 1;
    });
    let mut admin = logged_in(&server, "default", "secret");
    for _ in 0..10 {
        // Each of them would wait for seconds.
        server.client().send_raw(&b"AUTH a\r\n".repeat(400));
    }
    while admin.line("CLIENT LIST").text().lines().count() > 1 {
        std::thread::yield_now();
    }
}

#[test]
fn a_valid_token_does_not_wait_for_others_that_failed_from_its_address() {
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.tokens.keys = vec![shared_key("k")];
        config.limits.auth_seconds = 1;
    });
    let fails = |word: &str| server.client().line(&format!("AUTH default {word}"));
    // Until the next attempt would wait for longer than it may take to log in.
    while fails("guessed").word() == "WRONGPASS" {}
    assert_eq!(fails("secret").word(), "NOAUTH");
    assert_eq!(server.client().line(&format!("AUTH {}", token("k", "ann", 60))), ok());
    assert_eq!(fails(&token("other", "ann", 60)).word(), "WRONGPASS", "with the reason");
}

#[test]
fn passwords_from_one_address_are_looked_at_one_after_the_other() {
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.limits.auth_seconds = 1;
    });
    let mut clients: Vec<_> = (0..40).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send_raw(b"AUTH default guessed\r\n"));
    let replies = clients.iter_mut().map(|client| client.receive().word().to_owned());
    let looked_at = replies.filter(|word| word == "WRONGPASS").count();
    // Four at once, and then the waits of 100, 200, 400 ms, and perhaps one more, fill the second.
    assert!((4..=8).contains(&looked_at), "{looked_at}");
}

#[test]
fn a_listing_passes_over_any_number_of_names_that_do_not_match() {
    let (server, mut admin) = with_user("+@all ~messages: ~messages:z.*");
    let names: Vec<String> = (0..2500).map(|number| format!("messages:a{number}")).collect();
    let shown: Vec<String> = (0..5).map(|number| format!("messages:z.{number}")).collect();
    let mut words = vec!["TL.FANOUT", "body", "2505"];
    words.extend(names.iter().chain(&shown).map(String::as_str));
    assert_eq!(admin.call(&words).items().len(), 2505);
    let mut ann = logged_in(&server, "ann", "pass");
    assert_eq!(texts(&ann.line("TL.LIST messages:")), shown);
    assert_eq!(texts(&ann.line("TL.LIST messages: COUNT 2")), shown[..2]);
    assert_eq!(texts(&ann.line("TL.LIST messages: AFTER messages:z.2 COUNT 10")), shown[3..]);
    assert_eq!(texts(&ann.line("TL.LIST messages: AFTER messages:{")), Vec::<String>::new());
    assert_eq!(texts(&admin.line("TL.LIST messages: COUNT 1")), ["messages:a0"]);
}

#[test]
fn a_terminal_ends_when_the_key_of_its_token_is_removed() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let write = |keys: &[&str]| {
        let key = |id| {
            format!("[[tokens.keys]]\nid = \"{id}\"\nalgorithm = \"HS256\"\nkey = \"{SHARED}\"\n")
        };
        let keys: String = keys.iter().map(key).collect();
        std::fs::write(&file, format!("password = \"secret\"\n{keys}")).expect("writes");
    };
    write(&["k", "other"]);
    let server = TestServer::of_file(&file);
    let mut admin = logged_in(&server, "default", "secret");
    let mut removed = logged_in(&server, "ann", &token("k", "ann", 60));
    let mut kept = logged_in(&server, "ann", &token("other", "ann", 60));
    write(&["other"]);
    assert_eq!(admin.line("ACL LOAD"), ok());
    assert_eq!(removed.receive().word(), "NOAUTH");
    assert_eq!(kept.line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn rates_that_are_set_hold_for_open_connections() {
    let server = TestServer::start();
    let (mut admin, mut client) = (server.client(), server.client());
    assert_eq!(client.line("PING"), Value::Simple("PONG".into()));
    let set = "CONFIG SET rates.connection_per_second 1 rates.connection_burst 2";
    assert_eq!(admin.line(set), ok());
    client.send_raw(&b"PING\r\n".repeat(3));
    (0..2).for_each(|_| assert_eq!(client.receive(), Value::Simple("PONG".into())));
    client.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("an option");
    assert!(client.socket.peek(&mut [0]).is_err(), "the third waits for most of a second");
}

#[test]
fn what_one_user_has_begun_ends_when_another_logs_in() {
    let (server, mut admin) = with_user("+@all ~*");
    assert_eq!(admin.line("ACL SETUSER eve on >pass +ping"), ok());
    let mut client = logged_in(&server, "ann", "pass");
    client.line("SUBSCRIBE messages:x");
    let numbers = |admin: &mut Client| admin.line("PUBSUB NUMSUB messages:x");
    let before = numbers(&mut admin);
    client.line("AUTH eve pass");
    assert_ne!(numbers(&mut admin), before);
}

#[test]
fn monitoring_ends_with_the_rights_for_it() {
    let (server, mut admin) = with_user("+@all ~*");
    let mut client = logged_in(&server, "ann", "pass");
    assert_eq!(client.line("MONITOR"), ok());
    assert_eq!(admin.line("ACL SETUSER ann -@all resetkeys +ping"), ok());
    while admin.line("CLIENT LIST").text().contains("user=ann") {
        std::thread::yield_now();
    }
}

#[test]
fn ids_open_no_inbox_as_a_key_and_the_prefix_of_a_store_no_store() {
    let (server, mut admin) = with_user("+@all -@rawevents ~t1.* ~messages: ~shop:*");
    for line in [
        "IM.CREATE t2.room MEMBERS t1.ann t2.bob",
        "IM.SEND t2.room t2.bob confidential",
        "TL.STORE CREATE shop TTL 1000000",
    ] {
        admin.line(line);
    }
    let mut client = logged_in(&server, "ann", "pass");
    for line in [
        "TL.READ sync:u/{t1.ann} AFTER 0",
        "TL.RANGE sync:u/{t1.ann} - +",
        "SSUBSCRIBE sync:u/{t1.ann}",
        "TL.STORE TTL messages 1000000",
        "TL.STORE DROP messages FORCE",
    ] {
        assert_eq!(client.line(line).word(), "NOPERM", "{line}");
    }
    assert_eq!(client.line("IM.SYNC t1.ann 0").get("entries"), Value::Array(Vec::new()));
    assert_eq!(client.line("TL.STORE TTL shop 2000000"), ok());
    admin.line("TL.APPEND messages:secret x");
    assert!(!client.line("INFO busiest").text().contains("secret"));
}

#[test]
fn a_file_that_is_loaded_again_does_not_open_a_server_that_was_not() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let hash = strandline_server::Hash::of(b"pass").expect("a hash");
    let write = |text: &str| std::fs::write(&file, text).expect("writes");
    write(&format!("[users.ops]\nrules = \"+@all ~*\"\npassword_hash = \"{}\"\n", hash.text()));
    let server = TestServer::of_file(&file);
    let mut ops = logged_in(&server, "ops", "pass");
    write("password = \"new\"\n");
    assert_eq!(ops.line("ACL LOAD"), ok());
    assert_eq!(server.client().line("PING").word(), "NOAUTH");
}

#[test]
fn a_reload_takes_settings_and_users_together_or_neither() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("writes");
    write("password = \"secret\"\n");
    let server = TestServer::of_file(&file);
    let mut admin = logged_in(&server, "default", "secret");
    for (text, is_valid) in [
        ("[slowlog]\nlength = 7\n[users.ann]\nrules = \"+@reed\"\n", false),
        ("[slowlog]\nlength = 7\n[users.ann]\nrules = \"+@read\"\n", true),
    ] {
        write(&format!("password = \"secret\"\n{text}"));
        assert_eq!(server.try_reload(), is_valid);
        let length = admin.line("CONFIG GET slowlog.length").get("slowlog.length");
        assert_eq!(length == Value::bulk("7"), is_valid);
        assert_eq!(texts(&admin.line("ACL USERS")).contains(&"ann".to_owned()), is_valid);
    }
}
