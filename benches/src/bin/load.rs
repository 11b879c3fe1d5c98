//! Loads a server over TCP and prints rates and latencies.
//!
//! ```sh
//! cargo run --release -p strandline-benches --bin load -- \
//!     --workload append --clients 50 --pipeline 16 --seconds 5
//! ```
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use strandline_benches::load::clients::{
    Plan, Seen, ask, check_server, fill, interval, run, set_up,
};
use strandline_benches::load::commands::{Shared, Target, Traffic};
use strandline_benches::workload::groups;

#[derive(Parser)]
#[command(about = "Loads a server that speaks RESP and prints rates and latencies.")]
struct Arguments {
    /// The server's host and port.
    #[arg(long, default_value = "127.0.0.1:7411")]
    address: String,
    /// The server whose commands to send.
    #[arg(long, value_enum, default_value = "strandline")]
    target: Target,
    /// The workload.
    #[arg(long, value_enum)]
    workload: Traffic,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// The number of commands that a client sends at once.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The time to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Commands a second of all clients together; 0: as many as the server answers.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// The time to run before measuring.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Members of a group, for the fan-out.
    #[arg(long, default_value_t = 500)]
    members: usize,
    /// Ask Strandline to answer when the entry is logged, before fsync. For Redis it is a setting
    /// of its server.
    #[arg(long)]
    relaxed: bool,
    /// Do not fill the timelines before reading them: an earlier run has filled them.
    #[arg(long)]
    filled: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1..=10_000).contains(&arguments.clients), "1 to 10000 clients");
    ensure!((1..=10_000).contains(&arguments.pipeline), "a pipeline of 1 to 10000");
    ensure!((1..=6_250).contains(&arguments.members), "1 to 6250 members");
    ensure!(arguments.target.can(arguments.workload), "this server has no such commands");
    check_server(&arguments.address, arguments.target)?;
    set_up(&arguments.address, arguments.target)?;
    let groups =
        if arguments.workload == Traffic::Fanout { groups(arguments.members) } else { Vec::new() };
    let shared =
        Arc::new(Shared::new(arguments.target, arguments.workload, arguments.relaxed, groups));
    if arguments.workload == Traffic::Latest && !arguments.filled {
        fill(&arguments.address, &shared)?;
    }
    let plan = Plan {
        address: arguments.address.clone(),
        clients: arguments.clients,
        pipeline: arguments.pipeline,
        threads: arguments.threads,
        warm_up: Duration::try_from_secs_f64(arguments.warm_up)?,
        measured: Duration::try_from_secs_f64(arguments.seconds)?,
        interval: interval(arguments.rate, arguments.clients, arguments.pipeline)?,
    };
    let seen = run(&plan, &shared)?;
    print_figures(&arguments, &seen, &durability(&arguments)?);
    seen.check()
}

/// The durability that a positive reply means: no figure is printed without it.
fn durability(arguments: &Arguments) -> Result<String> {
    Ok(match (arguments.target, arguments.relaxed) {
        (Target::Strandline, false) => "fdatasync before the reply".to_owned(),
        (Target::Strandline, true) => "write before the reply".to_owned(),
        (Target::Nats, _) => "as its sync_interval says".to_owned(),
        (Target::Redis, _) => {
            let append_only = ask(&arguments.address, &[b"CONFIG", b"GET", b"appendonly"])?;
            let fsync = ask(&arguments.address, &[b"CONFIG", b"GET", b"appendfsync"])?;
            let word = |reply: &str| reply.split(' ').next_back().unwrap_or("unknown").to_owned();
            format!("appendonly {}, appendfsync {}", word(&append_only), word(&fsync))
        }
    })
}

fn print_figures(arguments: &Arguments, seen: &Seen, durability: &str) {
    let rate = seen.replies as f64 / arguments.seconds;
    println!(
        "| target | workload | clients × pipeline | durability | replies/s | timeline-writes/s | \
         p50 µs | p99 µs | p99.9 µs | max µs | MB/s of replies |"
    );
    println!("|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|");
    let writes = match arguments.workload {
        Traffic::Append => format!("{rate:.0}"),
        Traffic::Fanout => format!("{:.0}", rate * (arguments.members + 1) as f64),
        Traffic::Latest => "–".to_owned(),
    };
    println!(
        "| {:?} | {:?} | {} × {} | {durability} | {rate:.0} | {writes} | {:.0} | {:.0} | {:.0} | \
         {:.0} | {:.1} |",
        arguments.target,
        arguments.workload,
        arguments.clients,
        arguments.pipeline,
        seen.latency_us(0.5),
        seen.latency_us(0.99),
        seen.latency_us(0.999),
        seen.latency.max() as f64 / 1000.0,
        seen.reply_bytes as f64 / arguments.seconds / 1e6,
    );
}
