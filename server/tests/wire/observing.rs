//! What an operator asks a running server: slow commands, moments that took long, all commands as
//! they run, the calls of each command, the list of clients.

use crate::support::{Client, TestServer, Value, encoded};

/// A server for which every command is slow.
fn slow_server() -> TestServer {
    TestServer::with(|config| {
        config.slowlog.threshold_us = 0;
        config.slowlog.length = 3;
        config.password = Some("hunter2".into());
    })
}

fn logged_in(server: &TestServer) -> Client {
    let mut client = server.client();
    assert_eq!(client.line("AUTH hunter2"), Value::Simple("OK".into()));
    client
}

fn words(entry: &Value) -> Vec<String> {
    entry.items()[3].items().iter().map(Value::text).collect()
}

#[test]
fn slow_commands_are_kept_with_their_words_client_and_time() {
    let server = slow_server();
    let mut client = logged_in(&server);
    client.line("CLIENT SETNAME worker");
    client.line("TL.APPEND messages:a one");
    let long = "y".repeat(300);
    client.call(&["ECHO", &long]);
    let list = client.line("SLOWLOG GET -1");
    let [echo, append, name] = list.items() else { panic!("three: {list:?}") };
    assert_eq!(words(append), ["TL.APPEND", "messages:a", "one"]);
    assert_eq!(words(name), ["CLIENT", "SETNAME", "worker"]);
    assert!(words(echo)[1].ends_with("... (172 more bytes)"), "{echo:?}");
    assert!(append.items()[1].integer() > 1_700_000_000);
    assert!(append.items()[2].integer() > 0, "a commit takes more than a microsecond");
    let local = client.socket.local_addr().expect("it is connected").to_string();
    assert_eq!((append.items()[4].text(), append.items()[5].text()), (local, "worker".into()));
    assert_eq!(echo.items()[0].integer(), append.items()[0].integer() + 1);
    assert_eq!(client.line("SLOWLOG GET 1").items().len(), 1);
    assert_eq!(client.line("SLOWLOG LEN"), Value::Integer(3));
    assert_eq!(client.line("SLOWLOG RESET"), Value::Simple("OK".into()));
    // The reset itself was slow.
    assert_eq!(client.line("SLOWLOG LEN"), Value::Integer(1));
    assert_eq!(client.line("SLOWLOG GET -2").word(), "ERR");
    assert_eq!(client.line("SLOWLOG NOPE").word(), "ERR");
}

#[test]
fn neither_slow_commands_nor_monitors_show_a_password() {
    let server = slow_server();
    let mut monitor = logged_in(&server);
    assert_eq!(monitor.line("MONITOR"), Value::Simple("OK".into()));
    let mut client = server.client();
    client.line("AUTH wrong-hunter2");
    client.line("HELLO 2 AUTH default hunter2");
    let list = format!("{:?}", client.line("SLOWLOG GET"));
    let shown = |list: &str| String::from_utf8_lossy(list.as_bytes()).contains("hunter2");
    assert!(!shown(&list) && list.len() > 100);
    let lines: Vec<String> = (0..3).map(|_| monitor.receive().text()).collect();
    assert!(lines.iter().all(|line| !shown(line)), "{lines:?}");
    assert!(lines[0].ends_with("\"AUTH\" \"(redacted)\""), "{lines:?}");
}

#[test]
fn a_large_write_is_kept_by_its_name_and_a_short_list_keeps_none() {
    let server = TestServer::with(|config| config.slowlog.threshold_us = 0);
    let mut client = server.client();
    client.call(&["TL.APPEND", "messages:a", &"x".repeat(5000)]);
    assert_eq!(words(&client.line("SLOWLOG GET 1").items()[0]), ["TL.APPEND"]);
    let server = TestServer::with(|config| {
        config.slowlog.threshold_us = 0;
        config.slowlog.length = 0;
    });
    let mut client = server.client();
    client.line("PING");
    assert_eq!(client.line("SLOWLOG LEN"), Value::Integer(0));
}

#[test]
fn moments_that_took_long_have_a_history_by_kind() {
    let server = TestServer::with(|config| config.slowlog.threshold_us = 0);
    let mut client = server.client();
    client.line("TL.APPEND messages:a one");
    let latest = client.line("LATENCY LATEST");
    let names: Vec<String> = latest.items().iter().map(|one| one.items()[0].text()).collect();
    assert_eq!(names, ["command", "commit", "fsync"]);
    let [_, at, last, most] = latest.items()[1].items() else { panic!("four: {latest:?}") };
    assert!(at.integer() > 1_700_000_000 && last.integer() > 0 && most.integer() >= last.integer());
    assert_eq!(client.line("LATENCY HISTORY fork"), Value::Array(vec![]));
    let history = client.line("LATENCY HISTORY fsync");
    assert!(history.items().iter().all(|one| one.items().len() == 2), "{history:?}");
    assert!(client.line("LATENCY DOCTOR").text().contains("fsync: slow in "));
    assert_eq!(client.line("LATENCY RESET fsync commit"), Value::Integer(2));
    assert_eq!(client.line("LATENCY HISTORY fsync"), Value::Array(vec![]));
}

#[test]
fn the_times_of_each_command_are_a_histogram() {
    let server = TestServer::start();
    let mut client = server.client3();
    (0..7).for_each(|_| drop(client.line("PING")));
    let all = client.line("LATENCY HISTOGRAM ping tl.append nope");
    let Value::Map(pairs) = &all else { panic!("a map: {all:?}") };
    assert_eq!(pairs.len(), 1, "only what was called");
    let ping = all.get("ping");
    assert_eq!(ping.get("calls"), Value::Integer(7));
    let Value::Map(steps) = ping.get("histogram_usec") else { panic!("a map: {ping:?}") };
    assert_eq!(steps.last().map(|(_, count)| count.integer()), Some(7));
    assert!(steps.is_sorted_by(|one, next| one.0.integer() < next.0.integer()));
}

#[test]
fn calls_errors_and_times_are_in_info_and_start_again_on_request() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a one");
    client.line("TL.APPEND messages:a two SEQ 1");
    client.line("TL.APPEND");
    let info = client.line("INFO commandstats errorstats latencystats").text();
    let line = |name: &str| {
        let found = info.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
    };
    let append = line("cmdstat_tl.append:");
    assert!(append.starts_with("cmdstat_tl.append:calls=2,usec="), "{append}");
    assert!(append.ends_with(",rejected_calls=1,failed_calls=1"), "{append}");
    assert_eq!(line("errorstat_SEQORDER:"), "errorstat_SEQORDER:count=1");
    assert!(line("latency_percentiles_usec_tl.append:").contains(",p99.9="));
    assert!(!client.line("INFO").text().contains("cmdstat_"), "only on request");
    assert!(client.line("INFO everything").text().contains("cmdstat_info:"));
    assert_eq!(client.line("CONFIG RESETSTAT"), Value::Simple("OK".into()));
    let info = client.line("INFO all").text();
    assert!(!info.contains("cmdstat_tl.append") && !info.contains("errorstat_"), "{info}");
}

#[test]
fn the_wait_of_a_blocked_command_is_not_its_time() {
    let server = TestServer::with(|config| config.slowlog.threshold_us = 1_000_000);
    let (mut waiting, mut client) = (server.client(), server.client());
    waiting.send(&["TL.READ", "messages:a", "AFTER", "0", "BLOCK", "1500"]);
    waiting.receive();
    assert_eq!(client.line("SLOWLOG LEN"), Value::Integer(0));
    let info = client.line("INFO commandstats").text();
    assert!(info.contains("cmdstat_tl.read:calls=1,"), "{info}");
}

#[test]
fn a_monitor_sees_the_commands_of_all_until_a_reset() {
    let server = TestServer::start();
    let (mut monitor, mut client) = (server.client(), server.client());
    client.line("PING");
    monitor.line("MONITOR");
    client.line("TL.APPEND messages:a it\"s");
    client.line("NOPE x");
    client.line("PING");
    let address = client.socket.local_addr().expect("it is connected");
    let line = monitor.receive().text();
    let (time, rest) = line.split_once(' ').expect("a time");
    assert!(time.parse::<f64>().is_ok_and(|seconds| seconds > 1.7e9), "{line}");
    assert_eq!(rest, format!("[0 {address}] \"TL.APPEND\" \"messages:a\" \"it\\\"s\""));
    assert!(monitor.receive().text().ends_with("\"PING\""), "unknown commands do not run");
    monitor.send(&["RESET"]);
    assert_eq!(monitor.receive(), Value::Simple("RESET".into()));
    client.line("PING");
    assert_eq!(monitor.line("ECHO x"), Value::bulk("x"));
}

#[test]
fn a_monitor_that_does_not_read_is_closed_and_delays_nobody() {
    let server = TestServer::start();
    let (mut monitor, mut client) = (server.client(), server.client());
    monitor.line("MONITOR");
    let many = encoded(&["ECHO", &"x".repeat(1000)]).repeat(1000);
    // 20 MB of lines are more than the sockets, the output and the queue take.
    for _ in 0..20 {
        client.send_raw(&many);
        (0..1000).for_each(|_| drop(client.receive()));
    }
    while client.line("TL.STATS").get("slow_clients_closed").integer() == 0 {
        std::thread::yield_now();
    }
    // What its socket held is still read; then comes the end.
    while monitor.frame().is_ok() {}
    assert!(monitor.is_closed());
}

#[test]
fn only_eight_connections_monitor_at_once() {
    let server = TestServer::start();
    let mut monitors: Vec<Client> = (0..9).map(|_| server.client()).collect();
    let replies: Vec<Value> = monitors.iter_mut().map(|client| client.line("MONITOR")).collect();
    assert!(replies[..8].iter().all(|reply| *reply == Value::Simple("OK".into())));
    assert_eq!(replies[8].word(), "LIMIT");
}

#[test]
fn the_list_of_clients_has_addresses_memory_and_traffic() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("PING");
    let line = client.line("CLIENT LIST").text();
    let field = |name: &str| {
        let start = format!("{name}=");
        let mut fields = line.trim().split(' ');
        let found = fields.find_map(|field| field.strip_prefix(&start));
        found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    };
    assert_eq!(field("addr"), client.socket.local_addr().expect("an address").to_string());
    assert_eq!(field("laddr"), server.address.to_string());
    assert_eq!((field("tot-cmds"), field("cmd")), ("2".into(), "client".into()));
    let sent = encoded(&["PING"]).len() + encoded(&["CLIENT", "LIST"]).len();
    assert_eq!(field("tot-net-in"), sent.to_string());
    assert_eq!(field("tot-net-out"), "+PONG\r\n".len().to_string());
    let number = |name: &str| field(name).parse::<u64>().expect("a number");
    assert!(number("fd") > 2 && number("tot-mem") > 0 && number("tot-mem") >= number("omem"));
    assert!(number("qbuf") <= sent as u64);
    assert_eq!(field("events"), "r");
}

#[test]
fn a_follower_that_does_not_read_is_counted_as_behind() {
    let server = TestServer::start();
    let (mut follower, mut client) = (server.client3(), server.client());
    follower.line("TL.FOLLOW messages:a AFTER 0");
    let body = "x".repeat(1_000_000);
    let behind = |client: &mut Client| client.line("TL.STATS").get("behind_clients").integer();
    assert_eq!(behind(&mut client), 0);
    while behind(&mut client) == 0 {
        client.call(&["TL.APPEND", "messages:a", &body]);
    }
    follower.receive();
    drop(follower);
    while behind(&mut client) == 1 {
        std::thread::yield_now();
    }
}
