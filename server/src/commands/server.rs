//! The server as a whole: INFO, ROLE, TIME, SHUTDOWN. They report what stock clients
//! and tools request when they connect.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::process;

use bytes::Bytes;

use super::connection::REDIS_VERSION;
use super::row::{Class, Command, Context, Flow, Run};
use super::scope::Scope;
use crate::figures;
use crate::refusal::Refusal;
use crate::shared::{Shared, StopReason};

pub(super) static COMMANDS: &[Command] = &[
    Command::new("INFO", -1, Class::Admin, Run::Now(info)).touches(Scope::Nothing).told(
        "[section ...]",
        "Facts as text, under headings: server, clients, memory, persistence, stats, replication, \
         stores, timelines; only on request or with all: commandstats, errorstats, latencystats; \
         only on request: busiest, the keys with the largest shares of the last writes, in \
         percent.",
    ),
    Command::new("ROLE", 1, Class::Admin, Run::Now(role))
        .touches(Scope::Nothing)
        .told("", "Array: master, 0, no replicas."),
    Command::new("TIME", 1, Class::Connection, Run::Now(time))
        .touches(Scope::Nothing)
        .told("", "Array: seconds and microseconds."),
    Command::new("SHUTDOWN", -1, Class::Admin, Run::Now(shutdown)).touches(Scope::Everything).told(
        "[NOSAVE | SAVE | NOW | FORCE]",
        "Stops the server gracefully; no reply. What was acknowledged is durable anyway.",
    ),
];

/// Keys that INFO shows as the busiest.
const SHOWN_BUSIEST: usize = 10;

fn info(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let wanted: Vec<String> =
        arguments.iter().map(|raw| String::from_utf8_lossy(raw).to_lowercase()).collect();
    let of_all = wanted.iter().any(|word| matches!(&word[..], "all" | "everything"));
    let of_default = of_all || wanted.is_empty() || wanted.iter().any(|word| word == "default");
    let mut text = String::new();
    let calls = call_sections(context).into_iter().map(|(name, facts)| (name, facts, of_all));
    let facts = sections(context.shared).into_iter().map(|(name, facts)| (name, facts, of_default));
    let busiest = wanted.iter().any(|word| word == "busiest");
    let busiest = busiest.then(|| ("Busiest", busiest_keys(context), true));
    for (name, facts, is_listed) in facts.chain(calls).chain(busiest) {
        if is_listed || wanted.iter().any(|word| word.eq_ignore_ascii_case(name)) {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            write!(text, "{gap}# {name}\r\n").expect("a string takes all that is written");
            for (fact, value) in facts {
                write!(text, "{fact}:{value}\r\n").expect("a string takes all that is written");
            }
        }
    }
    context.connection.out.bulk(text);
    Ok(Flow::Done)
}

/// The calls of each command that was called, their times, and error replies by their first word.
fn call_sections(context: &Context<'_>) -> Vec<(&'static str, Facts)> {
    let (mut calls, mut times) = (Facts::new(), Facts::new());
    for (_, command) in context.table.all() {
        let of_command = context.shared.calls.of(command.position);
        let (micros, name) = (of_command.micros.read(), command.lower_name());
        let (count, rejected) = (micros.count(), of_command.rejected.get());
        if count + rejected == 0 {
            continue;
        }
        let mean = micros.sum as f64 / count.max(1) as f64;
        let line = format!(
            "calls={count},usec={},usec_per_call={mean:.2},rejected_calls={rejected},\
             failed_calls={}",
            micros.sum,
            of_command.failed.get()
        );
        calls.push((format!("cmdstat_{name}").into(), line));
        if count > 0 {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| micros.percentile(share));
            let line = format!("p50={p50}.000,p99={p99}.000,p99.9={p999}.000");
            times.push((format!("latency_percentiles_usec_{name}").into(), line));
        }
    }
    let errors = context.shared.metrics.error_words.all();
    let errors =
        errors.map(|(word, count)| (format!("errorstat_{word}").into(), format!("count={count}")));
    vec![("Commandstats", calls), ("Errorstats", errors.collect()), ("Latencystats", times)]
}

type Facts = Vec<(Cow<'static, str>, String)>;

fn sections(shared: &Shared) -> Vec<(&'static str, Facts)> {
    let numbers = |fields: Vec<(&'static str, u64)>| -> Facts {
        fields.into_iter().map(|(name, value)| (name.into(), value.to_string())).collect()
    };
    let texts = |fields: Vec<(&'static str, String)>| -> Facts {
        fields.into_iter().map(|(name, value)| (name.into(), value)).collect()
    };
    let mut clients = numbers(figures::clients(shared));
    clients.push(("maxclients".into(), shared.config.now().limits.max_clients.to_string()));
    let uptime_seconds = shared.now_ms().saturating_sub(shared.since_ms) / 1000;
    let mut timelines: Facts = vec![("epoch".into(), shared.engine.epoch().to_string())];
    timelines.extend(numbers(shared.engine.stats().figures().collect()));
    let mut persistence = texts(vec![("loading", "0".to_owned())]);
    persistence.extend(numbers(shared.backups.figures(shared.now_ms()).to_vec()));
    let stores = figures::stores(shared)
        .into_iter()
        .map(|(name, value)| (name, value.to_string()))
        .collect();
    vec![
        (
            "Server",
            texts(vec![
                ("redis_version", REDIS_VERSION.to_owned()),
                ("redis_mode", "standalone".to_owned()),
                ("strandline_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("process_id", process::id().to_string()),
                ("tcp_port", shared.address.port().to_string()),
                ("uptime_in_seconds", uptime_seconds.to_string()),
            ]),
        ),
        ("Clients", clients),
        ("Memory", memory()),
        ("Persistence", persistence),
        ("Stats", numbers(shared.metrics.fields().to_vec())),
        (
            "Replication",
            texts(vec![("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]),
        ),
        ("Stores", stores),
        ("Timelines", timelines),
    ]
}

/// The keys that are written to most, with their share of the last writes, as far as the user may
/// see them. They are shown only on request, since they are names of the application's.
fn busiest_keys(context: &Context<'_>) -> Facts {
    let sight = context.connection.identity.sight();
    let shows = |key: &[u8]| sight.as_ref().is_none_or(|user| user.rules().patterns.has_key(key));
    let found = context.shared.busiest.shares(SHOWN_BUSIEST).into_iter();
    let found = found.filter(|(key, _)| shows(key)).enumerate();
    found
        .map(|(number, (key, share))| {
            let (whole, tenths) = (share / 10, share % 10);
            let fact = format!("share={whole}.{tenths},key={}", key.escape_ascii());
            (format!("busiest_{number}").into(), fact)
        })
        .collect()
}

/// The memory of the process, under our names and under those that tools for Redis look for.
fn memory() -> Facts {
    let mut facts = Facts::new();
    for (name, bytes) in figures::process() {
        let known: &[&'static str] = match name {
            "process_resident_bytes" => &["used_memory", "used_memory_rss"],
            "process_resident_peak_bytes" => &["used_memory_peak"],
            "machine_memory_bytes" => &["total_system_memory"],
            _ => &[],
        };
        let names = known.iter().copied().chain([name]);
        facts.extend(names.map(|name| (name.into(), bytes.to_string())));
    }
    facts.push(("maxmemory".into(), "0".into()));
    facts
}

fn role(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let out = &mut context.connection.out;
    out.array(3);
    out.bulk("master");
    out.integer(0);
    out.array(0);
    Ok(Flow::Done)
}

fn time(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let now_ms = context.shared.now_ms();
    let out = &mut context.connection.out;
    out.array(2);
    out.bulk((now_ms / 1000).to_string());
    out.bulk((now_ms % 1000 * 1000).to_string());
    Ok(Flow::Done)
}

fn shutdown(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    const WORDS: [&[u8]; 4] = [b"NOSAVE", b"SAVE", b"NOW", b"FORCE"];
    if !arguments.iter().all(|raw| WORDS.iter().any(|word| raw.eq_ignore_ascii_case(word))) {
        return Err(Refusal::syntax());
    }
    context.shared.stop(StopReason::Asked);
    Ok(Flow::Close)
}
