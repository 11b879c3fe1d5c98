//! Every command, by connections that may not run it: before login, with each user of a matrix of
//! rules, and with a terminal's token for another user. Each is refused with `NOAUTH` or `NOPERM`,
//! and changes nothing. The list of commands is the server's own: a command or subcommand without a
//! sample here fails.

use std::collections::BTreeMap;

use strandline_server::TokenSettings;

use crate::support::{Client, TestServer, Value, shared_key, token};

/// What a request touches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touches {
    /// It may be sent before login.
    Anyone,
    /// Nothing of anybody.
    Nothing,
    /// Something of `t2`.
    Other,
    /// Everything.
    Everything,
}

use Touches::{Anyone, Everything, Nothing, Other};

/// Name in rules, category, what the request touches, request.
type Sample = (&'static str, &'static str, Touches, &'static str);

const SAMPLES: &[Sample] = &[
    ("tl.append", "write", Other, "TL.APPEND messages:t2.x body"),
    ("tl.fanout", "write", Other, "TL.FANOUT body 2 messages:t1.x messages:t2.x"),
    ("tl.trim", "write", Other, "TL.TRIM messages:t2.a KEEP 0"),
    ("tl.del", "write", Other, "TL.DEL messages:t2.a 1"),
    ("tl.edit", "write", Other, "TL.EDIT messages:t2.a 1 other"),
    ("tl.drop", "write", Other, "TL.DROP messages:t2.a"),
    ("tl.get", "read", Other, "TL.GET messages:t2.a 1"),
    ("tl.last", "read", Other, "TL.LAST messages:t2.a"),
    ("tl.info", "read", Other, "TL.INFO messages:t2.a"),
    ("tl.seqat", "read", Other, "TL.SEQAT messages:t2.a 1"),
    ("tl.range", "read", Other, "TL.RANGE messages:t2.a - +"),
    ("tl.revrange", "read", Other, "TL.REVRANGE messages:t2.a + -"),
    ("tl.read", "read", Other, "TL.READ messages:t2.a AFTER 0"),
    ("tl.mread", "read", Other, "TL.MREAD 2 messages:t1.a messages:t2.a AFTER 0 0"),
    ("tl.list", "read", Other, "TL.LIST messages:t2."),
    ("tl.store", "write", Everything, "TL.STORE NONSENSE t2"),
    ("tl.store|list", "read", Everything, "TL.STORE LIST"),
    ("tl.store|info", "read", Other, "TL.STORE INFO t2"),
    ("tl.store|create", "write", Other, "TL.STORE CREATE t2new"),
    ("tl.store|ttl", "write", Other, "TL.STORE TTL t2 5"),
    ("tl.store|drop", "write", Other, "TL.STORE DROP t2 FORCE"),
    ("tl.flush", "admin", Everything, "TL.FLUSH"),
    ("tl.compact", "admin", Everything, "TL.COMPACT"),
    ("tl.verify", "admin", Everything, "TL.VERIFY"),
    ("tl.backup", "admin", Everything, "TL.BACKUP x"),
    ("tl.stats", "admin", Nothing, "TL.STATS"),
    ("im.create", "write", Other, "IM.CREATE t2.new MEMBERS t2.bob"),
    ("im.join", "write", Other, "IM.JOIN t2.room t2.eve"),
    ("im.leave", "write", Other, "IM.LEAVE t2.room t2.bob"),
    ("im.members", "read", Other, "IM.MEMBERS t2.room"),
    ("im.info", "read", Other, "IM.INFO t2.room"),
    ("im.send", "write", Other, "IM.SEND t2.room t2.bob forged"),
    ("im.sync", "read", Other, "IM.SYNC t2.bob 0"),
    ("im.follow", "pubsub", Other, "IM.FOLLOW t2.bob 0"),
    ("im.unfollow", "pubsub", Other, "IM.UNFOLLOW t2.bob"),
    ("im.tail", "read", Other, "IM.TAIL t2.bob"),
    ("im.history", "read", Other, "IM.HISTORY t2.room t2.bob"),
    ("im.conversations", "read", Other, "IM.CONVERSATIONS t2.bob"),
    ("im.read", "write", Other, "IM.READ t2.room t2.bob 1"),
    ("im.unread", "read", Other, "IM.UNREAD t2.bob t2.room"),
    ("im.recall", "write", Other, "IM.RECALL t2.room t2.bob 1"),
    ("im.edit", "write", Other, "IM.EDIT t2.room t2.bob 1 other"),
    ("im.hide", "write", Other, "IM.HIDE t2.room t2.bob 1"),
    ("tl.follow", "pubsub", Other, "TL.FOLLOW messages:t2.a AFTER 0"),
    ("tl.unfollow", "pubsub", Other, "TL.UNFOLLOW messages:t2.a"),
    ("subscribe", "pubsub", Other, "SUBSCRIBE im:{t2.bob}"),
    ("unsubscribe", "pubsub", Nothing, "UNSUBSCRIBE im:{t2.bob}"),
    ("ssubscribe", "pubsub", Other, "SSUBSCRIBE messages:t2.a"),
    ("sunsubscribe", "pubsub", Nothing, "SUNSUBSCRIBE messages:t2.a"),
    ("pubsub", "pubsub", Everything, "PUBSUB NONSENSE"),
    ("pubsub|numsub", "pubsub", Other, "PUBSUB NUMSUB messages:t2.a"),
    ("pubsub|help", "pubsub", Nothing, "PUBSUB HELP"),
    ("hello", "connection", Anyone, "HELLO 3"),
    ("auth", "connection", Anyone, "AUTH x"),
    ("ping", "connection", Nothing, "PING"),
    ("echo", "connection", Nothing, "ECHO x"),
    ("quit", "connection", Anyone, "QUIT"),
    ("reset", "connection", Anyone, "RESET"),
    ("select", "connection", Nothing, "SELECT 0"),
    ("readonly", "connection", Nothing, "READONLY"),
    ("client", "admin", Everything, "CLIENT NONSENSE"),
    ("client|help", "connection", Nothing, "CLIENT HELP"),
    ("client|setinfo", "connection", Nothing, "CLIENT SETINFO LIB-NAME x"),
    ("client|setname", "connection", Nothing, "CLIENT SETNAME x"),
    ("client|getname", "connection", Nothing, "CLIENT GETNAME"),
    ("client|id", "connection", Nothing, "CLIENT ID"),
    ("client|info", "connection", Nothing, "CLIENT INFO"),
    ("client|no-evict", "connection", Nothing, "CLIENT NO-EVICT on"),
    ("client|no-touch", "connection", Nothing, "CLIENT NO-TOUCH on"),
    ("client|list", "admin", Nothing, "CLIENT LIST"),
    ("client|kill", "admin", Nothing, "CLIENT KILL ID 1"),
    ("command", "connection", Nothing, "COMMAND COUNT"),
    ("acl", "admin", Everything, "ACL NONSENSE"),
    ("acl|help", "connection", Nothing, "ACL HELP"),
    ("acl|whoami", "connection", Nothing, "ACL WHOAMI"),
    ("acl|cat", "connection", Nothing, "ACL CAT"),
    ("acl|genpass", "connection", Nothing, "ACL GENPASS"),
    ("acl|setuser", "admin", Everything, "ACL SETUSER eve on nopass ~* +@all"),
    ("acl|getuser", "admin", Everything, "ACL GETUSER default"),
    ("acl|deluser", "admin", Everything, "ACL DELUSER tenant"),
    ("acl|list", "admin", Everything, "ACL LIST"),
    ("acl|users", "admin", Everything, "ACL USERS"),
    ("acl|load", "admin", Everything, "ACL LOAD"),
    ("info", "admin", Nothing, "INFO"),
    ("config", "admin", Everything, "CONFIG GET *"),
    ("slowlog", "admin", Everything, "SLOWLOG GET"),
    ("latency", "admin", Nothing, "LATENCY LATEST"),
    ("monitor", "admin", Everything, "MONITOR"),
    ("role", "admin", Nothing, "ROLE"),
    ("time", "connection", Nothing, "TIME"),
    ("shutdown", "admin", Everything, "SHUTDOWN"),
];

const CLASSES: &[&str] = &["connection", "read", "write", "pubsub", "admin"];

/// Whether a user may send a sample.
type May = Box<dyn Fn(&Sample) -> bool>;

/// The patterns of a tenant.
const OWN: &str = "~t1.* ~messages:t1.* ~t1:* ~t1new:*";

fn server() -> TestServer {
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.tokens = TokenSettings { keys: vec![shared_key("k")], ..TokenSettings::default() };
        config.limits.auth_seconds = 60;
    });
    let mut admin = logged_in(&server, "default", "secret");
    for tenant in ["t1", "t2"] {
        for line in [
            "TL.APPEND messages:?.a one",
            "TL.APPEND messages:?.a two",
            "TL.STORE CREATE ? TTL 1000000",
            "IM.CREATE ?.room MODE push MEMBERS ?.ann ?.bob",
            "IM.SEND ?.room ?.bob hello",
        ] {
            let reply = admin.line(&line.replace('?', tenant));
            assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
        }
    }
    server
}

fn logged_in(server: &TestServer, user: &str, password: &str) -> Client {
    let mut client = server.client();
    assert!(matches!(client.call(&["HELLO", "3", "AUTH", user, password]), Value::Map(_)));
    client
}

/// Everything that a command could have changed.
fn dump(admin: &mut Client) -> String {
    let mut lines = vec!["TL.STORE LIST".to_owned(), "ACL LIST".into()];
    for store in ["messages", "sync", "t1", "t2"] {
        lines.push(format!("TL.STORE INFO {store}"));
        for key in admin.line(&format!("TL.LIST {store}:")).items() {
            lines.push(format!("TL.RANGE {} - +", key.text()));
        }
    }
    for tenant in ["t1", "t2"] {
        lines.push(format!("IM.INFO {tenant}.room"));
        lines.push(format!("IM.MEMBERS {tenant}.room"));
        for user in ["ann", "bob"] {
            lines.push(format!("IM.HISTORY {tenant}.room {tenant}.{user}"));
            lines.push(format!("IM.CONVERSATIONS {tenant}.{user}"));
            lines.push(format!("IM.TAIL {tenant}.{user}"));
        }
    }
    let lines = lines.iter().map(|line| format!("{line}: {:?}\n", admin.line(line)));
    lines.collect()
}

/// Sends requests that must all be refused with this word, and looks that nothing has changed.
fn all_refused<'s>(
    server: &TestServer,
    who: &str,
    client: &mut Client,
    word: &str,
    samples: impl Iterator<Item = &'s Sample>,
) {
    let mut admin = logged_in(server, "default", "secret");
    let before = dump(&mut admin);
    let mut count = 0;
    for (_, _, _, line) in samples {
        match client.line(line) {
            Value::Error(text) => assert!(text.starts_with(word), "{who}: {line}: {text}"),
            other => panic!("{who}: {line}: {other:?}"),
        }
        count += 1;
    }
    assert!(count > 0, "{who}: something is refused");
    assert_eq!(dump(&mut admin), before, "{who}");
}

#[test]
fn every_command_has_a_sample_with_its_category() {
    let server = server();
    let mut admin = logged_in(&server, "default", "secret");
    let mut classes = BTreeMap::new();
    for class in CLASSES {
        for name in admin.call(&["ACL", "CAT", class]).items() {
            classes.insert(name.text(), (*class).to_owned());
        }
    }
    let samples: BTreeMap<String, String> =
        SAMPLES.iter().map(|(name, class, ..)| ((*name).to_owned(), (*class).to_owned())).collect();
    assert_eq!(samples, classes, "each command and subcommand needs a sample here");
    for name in admin.line("COMMAND LIST").items() {
        assert!(samples.contains_key(&name.text()), "{name:?}");
    }
}

#[test]
fn before_login_every_command_is_refused() {
    let server = server();
    let samples = SAMPLES.iter().filter(|(_, _, touches, _)| *touches != Anyone);
    all_refused(&server, "a stranger", &mut server.client(), "NOAUTH ", samples);
}

#[test]
fn each_user_of_the_matrix_is_refused_what_its_rules_do_not_allow() {
    let server = server();
    let mut admin = logged_in(&server, "default", "secret");
    let touches_nothing: fn(&Sample) -> bool =
        |(_, _, touches, _)| matches!(touches, Anyone | Nothing);
    let mut matrix: Vec<(String, String, May)> = vec![
        ("nobody".into(), "~* &*".into(), Box::new(|sample| sample.2 == Anyone)),
        ("tenant".into(), format!("+@all {OWN}"), Box::new(touches_nothing)),
        ("keyless".into(), "+@all".into(), Box::new(touches_nothing)),
        (
            "without".into(),
            "~* +@all -tl.drop -client|kill -@pubsub -acl|setuser".into(),
            Box::new(|(name, class, touches, _)| {
                let is_left_out = ["tl.drop", "client|kill", "acl|setuser"].contains(name);
                *touches == Anyone || !is_left_out && *class != "pubsub"
            }),
        ),
    ];
    for class in CLASSES {
        let may = move |sample: &Sample| sample.2 == Anyone || sample.1 == *class;
        matrix.push(((*class).into(), format!("~* +@{class}"), Box::new(may)));
    }
    for (name, rules, may) in &matrix {
        let rules = format!("ACL SETUSER {name} on >pass {rules}");
        assert_eq!(admin.line(&rules), Value::Simple("OK".into()), "{rules}");
        let mut client = server.client();
        // Not by HELLO: its reply is a map in RESP3, and the connection need not speak that.
        assert_eq!(client.call(&["AUTH", name, "pass"]), Value::Simple("OK".into()));
        all_refused(&server, name, &mut client, "NOPERM ", SAMPLES.iter().filter(|one| !may(one)));
    }
}

/// Requests that name something of the tenant first, and then something of another.
const MIXED: &[Sample] = &[
    ("tl.fanout", "write", Other, "TL.FANOUT body 2 messages:t1.a messages:t2.a"),
    ("tl.mread", "read", Other, "TL.MREAD 2 messages:t1.a messages:t2.a AFTER 0 0"),
    ("im.create", "write", Other, "IM.CREATE t1.new MEMBERS t1.ann t2.bob"),
    ("im.create", "write", Other, "IM.CREATE t1.new HISTORY joined MEMBERS t2.bob"),
    ("im.join", "write", Other, "IM.JOIN t1.room t1.eve t2.eve"),
    ("im.leave", "write", Other, "IM.LEAVE t1.room t1.bob t2.bob"),
    ("im.send", "write", Other, "IM.SEND t1.room t2.bob forged"),
    ("im.history", "read", Other, "IM.HISTORY t1.room t2.bob"),
    ("im.read", "write", Other, "IM.READ t1.room t2.bob 1"),
    ("im.recall", "write", Other, "IM.RECALL t1.room t2.bob 1"),
    ("im.edit", "write", Other, "IM.EDIT t1.room t2.bob 1 other"),
    ("im.hide", "write", Other, "IM.HIDE t1.room t2.bob 1"),
    ("im.unread", "read", Other, "IM.UNREAD t1.ann t1.room t2.room"),
    ("subscribe", "pubsub", Other, "SUBSCRIBE messages:t1.a messages:t2.a"),
    ("ssubscribe", "pubsub", Other, "SSUBSCRIBE im:{t1.ann} im:{t2.ann}"),
    ("pubsub|numsub", "pubsub", Other, "PUBSUB NUMSUB messages:t1.a messages:t2.a"),
];

#[test]
fn every_name_of_a_request_must_match() {
    let server = server();
    let mut admin = logged_in(&server, "default", "secret");
    admin.line(&format!("ACL SETUSER tenant on >pass +@all {OWN}"));
    let mut tenant = logged_in(&server, "tenant", "pass");
    all_refused(&server, "a tenant", &mut tenant, "NOPERM ", MIXED.iter());
}

#[test]
fn a_tenant_may_do_everything_with_what_is_its_own() {
    let server = server();
    let mut admin = logged_in(&server, "default", "secret");
    admin.line(&format!("ACL SETUSER tenant on >pass +@all {OWN}"));
    for (_, _, touches, line) in SAMPLES {
        let mut client = logged_in(&server, "tenant", "pass");
        let reply = client.line(&line.replace("t2", "t1"));
        // A command may be refused for another reason, such as a user who has left.
        let is_refused =
            matches!(&reply, Value::Error(text) if text.contains("has no permissions"));
        assert_eq!(is_refused, *touches == Everything, "{line}: {reply:?}");
    }
}

#[test]
fn a_token_for_another_user_is_refused_everything_but_its_own_connection() {
    let server = server();
    let mut client = logged_in(&server, "default", &token("k", "t1.ann", 60));
    let samples = SAMPLES.iter().filter(|(name, class, touches, _)| {
        *class != "connection" && *touches != Anyone && *name != "unsubscribe"
    });
    all_refused(&server, "a token", &mut client, "NOPERM ", samples);
    for (_, class, touches, line) in SAMPLES {
        if *class == "connection" && *touches == Nothing {
            let reply = client.line(line);
            assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
        }
    }
}

/// What a token may do for its own user, `t1.ann`.
const AS_ITSELF: &[&str] = &[
    "IM.SYNC t1.ann 0",
    "IM.FOLLOW t1.ann $",
    "IM.UNFOLLOW t1.ann",
    "IM.TAIL t1.ann",
    "IM.CONVERSATIONS t1.ann",
    "IM.UNREAD t1.ann",
    "IM.UNREAD t1.ann t1.room",
    "IM.HISTORY t1.room t1.ann",
    "IM.READ t1.room t1.ann 1",
    "IM.SEND t1.room t1.ann mine",
    "IM.EDIT t1.room t1.ann 2 other",
    "IM.HIDE t1.room t1.ann 2",
    "IM.RECALL t1.room t1.ann 2",
    "IM.INFO t1.room",
    "IM.MEMBERS t1.room",
    "SUBSCRIBE im:{t1.ann}",
    "UNSUBSCRIBE im:{t1.ann}",
    "IM.LEAVE t1.room t1.ann",
];

/// What it may not do, though the user is its own.
const NEVER: &[&str] = &[
    "TL.RANGE sync:u/{t1.ann} - +",
    "TL.RANGE messages:c/{t1.room} - +",
    "IM.JOIN t1.room t1.ann",
    "IM.CREATE t1.new MEMBERS t1.ann",
    "IM.LEAVE t1.room t1.ann t1.bob",
    "IM.LEAVE t1.room t1.bob",
    "IM.SEND t1.room t1.bob forged",
    "IM.HISTORY t1.room t1.bob",
    "IM.INFO t2.room",
    "IM.MEMBERS t2.room",
    "IM.INFO nowhere",
    "SUBSCRIBE im:{t1.ann} im:{t1.bob}",
    "SUBSCRIBE messages:c/{t1.room}",
    "SUBSCRIBE im.online:{t1.ann}",
    "SSUBSCRIBE im:{t1.ann}",
];

#[test]
fn a_token_acts_as_its_own_user() {
    let server = server();
    let mut client = logged_in(&server, "t1.ann", &token("k", "t1.ann", 60));
    for line in NEVER {
        assert_eq!(client.line(line).word(), "NOPERM", "{line}");
    }
    for line in AS_ITSELF {
        let reply = client.line(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    assert_eq!(client.line("IM.INFO t1.room").word(), "NOPERM", "it has left");
}

#[test]
fn events_are_written_as_bodies_only_with_the_right_to_it() {
    let server = server();
    let mut admin = logged_in(&server, "default", "secret");
    admin.line("ACL SETUSER writer on >pass ~* +@write");
    let mut writer = logged_in(&server, "writer", "pass");
    let lines = [
        "TL.APPEND messages:c/{t1.room} forged",
        "TL.FANOUT forged 2 messages:t1.a sync:u/{t1.ann}",
        "TL.EDIT messages:c/{t1.room} 1 forged",
    ];
    let before = dump(&mut admin);
    for line in lines {
        assert_eq!(writer.line(line).word(), "NOPERM", "{line}");
    }
    assert_eq!(dump(&mut admin), before);
    assert!(writer.line("TL.APPEND messages:t1.a three").integer() > 0);
    admin.line("ACL SETUSER writer +@rawevents");
    for line in lines {
        let reply = writer.line(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
}
