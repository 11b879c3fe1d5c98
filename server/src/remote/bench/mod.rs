//! `strandline bench`: rates and latencies of a running server.
//!
//! Each workload runs twice: at full speed, where each connection sends its next commands when it
//! has all replies, and at a fixed rate, half of that unless it is given. At full speed a latency
//! says little about the server as its users know it, since nobody sends while it is slow. At a
//! fixed rate commands are sent when they are due, however many replies are missing, and a latency
//! counts from the time at which the command was due: a server that stops for a second delays all
//! that was due in it.
//!
//! ```text
//!  page
//!  report
//!  push  clients
//!  tally  workload
//!  plan
//! ```

mod clients;
mod page;
mod plan;
mod push;
mod report;
mod tally;
mod workload;

use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::RangedI64ValueParser;
use tokio::runtime::Builder;

use super::frame::Frame;
use super::link::Link;
use super::login::{Login, ServerArguments};
use crate::output::complain;
use crate::progress;
use plan::Plan;
use report::{Measurement, Report};
use workload::{STORE, Workload};

/// The arguments of the verb.
#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// What to measure; by default all of them, one after the other.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// Connections.
    #[arg(long, short = 'c', default_value_t = 50, value_parser = within(1..=10_000))]
    connections: u32,
    /// Commands that a connection sends at once.
    #[arg(long, short = 'p', default_value_t = 1, value_parser = within(1..=1_000))]
    pipeline: u32,
    /// Bytes of a body.
    #[arg(long, short = 'b', default_value_t = 256, value_parser = within(16..=1_000_000))]
    body: u32,
    /// Receivers of a fan-out.
    #[arg(long, default_value_t = 100, value_parser = within(1..=5_000))]
    members: u32,
    /// Seconds to measure, at full speed and again at the fixed rate.
    #[arg(long, short = 's', default_value_t = 10.0)]
    seconds: f64,
    /// Seconds to run before each measurement.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Commands a second of all connections together, for the fixed rate.
    #[arg(long, short = 'r')]
    rate: Option<f64>,
    /// Ask for replies when an entry is logged, before it is on the disk.
    #[arg(long)]
    relaxed: bool,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1, value_parser = within(1..=64))]
    threads: u32,
    /// Print a line of JSON for each measurement, not a table.
    #[arg(long)]
    json: bool,
    /// Also write a page with charts into this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Takes numbers of this range.
fn within(range: RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(range)
}

/// Runs the verb.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<()> {
    let seconds = |wanted: f64| {
        let duration = Duration::try_from_secs_f64(wanted).ok();
        duration
            .filter(|duration| *duration <= Duration::from_hours(24))
            .with_context(|| format!("{wanted} seconds: give a number from 0 to 86400"))
    };
    let (measured, warm_up) = (seconds(arguments.seconds)?, seconds(arguments.warm_up)?);
    anyhow::ensure!(!measured.is_zero(), "there is nothing to measure in 0 seconds");
    anyhow::ensure!(
        arguments.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
        "a rate is above 0"
    );
    let runtime = Builder::new_multi_thread()
        .worker_threads(arguments.threads as usize)
        .enable_all()
        .build()
        .context("cannot start the threads of the load generator")?;
    let mut login = arguments.server.clone().login()?;
    let plan = Plan {
        connections: arguments.connections,
        pipeline: arguments.pipeline,
        body: arguments.body as usize,
        members: arguments.members,
        relaxed: arguments.relaxed,
        warm_up,
        measured,
    };
    let report = runtime.block_on(measure(arguments, &mut login, plan))?;
    let mut out = io::stdout().lock();
    if !arguments.json {
        writeln!(out, "{}", report.table())?;
    }
    out.flush()?;
    if let Some(path) = &arguments.html {
        write_page(path, &page::render(&report))?;
        complain(format_args!("the charts are in {}", path.display()));
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the page is a file of the person's")]
fn write_page(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the workloads one after the other.
async fn measure(
    arguments: &BenchArguments,
    login: &mut Login,
    plan: Plan,
) -> anyhow::Result<Report> {
    let mut link = login.complete().await?;
    let mut report = Report::new(plan, facts(&mut link).await?);
    let login = Arc::new(login.clone());
    let workloads = if arguments.workloads.is_empty() {
        Workload::ALL.to_vec()
    } else {
        arguments.workloads.clone()
    };
    for workload in workloads {
        workload::prepare(workload, &plan, &mut link).await?;
        let full = one(workload, None, &login, plan).await?;
        // A server that is a little slower the second time would otherwise be overloaded.
        let rate = arguments.rate.unwrap_or_else(|| (full.rate() / 2.0).max(1.0));
        for measurement in [full, one(workload, Some(rate), &login, plan).await?] {
            if arguments.json {
                let mut out = io::stdout().lock();
                serde_json::to_writer(&mut out, &measurement.json(&report.plan))?;
                writeln!(out)?;
            }
            report.measurements.push(measurement);
        }
    }
    link.call(&["TL.STORE", "DROP", STORE, "FORCE"]).await?.or_error()?;
    Ok(report)
}

/// One measurement, with a bar on a terminal.
async fn one(
    workload: Workload,
    rate: Option<f64>,
    login: &Arc<Login>,
    plan: Plan,
) -> anyhow::Result<Measurement> {
    let speed = rate.map_or("full speed".to_owned(), |rate| format!("{rate:.0}/s"));
    let bar = progress::seconds(format!("{} at {speed}", workload.name()));
    bar.set_length((plan.warm_up + plan.measured).as_secs().max(1));
    let running = async {
        match workload {
            Workload::Push => push::run(login, plan, rate).await,
            _ => clients::run(workload, login, plan, rate).await,
        }
    };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
    };
    let tally = tokio::select! {
        done = running => done?,
        () = ticking => unreachable!("it ticks for ever"),
    };
    bar.finish_and_clear();
    if let Some(error) = &tally.first_error {
        anyhow::bail!(super::frame::Refused(format!(
            "{}: {} of {} replies were errors, the first: {error}",
            workload.name(),
            tally.errors,
            tally.replies
        )));
    }
    anyhow::ensure!(tally.replies > 0, "{}: no reply came in time", workload.name());
    Ok(Measurement { workload, rate, tally, time: plan.measured })
}

/// The server's version, for the report.
async fn facts(link: &mut Link) -> anyhow::Result<String> {
    let info = link.call(&["INFO", "server"]).await?;
    let text = match &info {
        // INFO may be forbidden to this user.
        Frame::Error(_) => String::new(),
        info => info.text(),
    };
    let version = text.lines().find_map(|line| line.strip_prefix("strandline_version:"));
    Ok(version.unwrap_or("unknown").trim().to_owned())
}
