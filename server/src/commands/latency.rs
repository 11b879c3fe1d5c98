//! LATENCY: moments that took long, by kind, and the times of each command.

use bytes::Bytes;

use super::arguments::unknown_subcommand;
use super::reply::write_help;
use super::row::{Class, Command, Context, Flow, Reply, Run};
use super::scope::Scope;
use crate::observe::LatencyEvent;
use crate::refusal::Refusal;

/// The powers of two that HISTOGRAM shows: up to 2^25 µs, which is 34 s.
const LAST_POWER: u32 = 25;

pub(super) static COMMANDS: &[Command] =
    &[Command::new("LATENCY", -2, Class::Admin, Run::Now(latency))
        .touches(Scope::Nothing)
        .told(
            "LATEST | HISTORY event | RESET [event ...] | DOCTOR | HISTOGRAM [command ...]",
            "Moments that took at least slowlog.threshold_us. Events: command, commit, fsync. \
             LATEST: array of event, Unix seconds and ms of the last, and the longest in ms. \
             HISTORY: array of Unix seconds and ms. RESET: the number of events forgotten. DOCTOR: \
             a text. HISTOGRAM: map of commands to calls and histogram_usec.",
        )
        .replies(Reply::LargeWith("HISTOGRAM"))];

fn latency(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let word = arguments[0].to_ascii_uppercase();
    match (word.as_slice(), &arguments[1..]) {
        (b"HELP", []) => return write_help("LATENCY", context),
        (b"LATEST", []) => write_latest(context),
        (b"HISTORY", [event]) => write_history(context, event),
        (b"RESET", events) => {
            let is_meant = |event: &LatencyEvent| {
                events.is_empty()
                    || events.iter().any(|word| LatencyEvent::named(word) == Some(*event))
            };
            let meant = LatencyEvent::ALL.into_iter().filter(is_meant);
            let count = meant.filter(|event| context.shared.latency.reset(*event)).count();
            context.connection.out.integer(count as u64);
        }
        (b"DOCTOR", []) => {
            let report = report(context);
            context.connection.out.bulk(report);
        }
        (b"HISTOGRAM", names) => write_histograms(context, names),
        (b"HELP" | b"LATEST" | b"HISTORY" | b"DOCTOR", _) => {
            let word = String::from_utf8_lossy(&word).to_lowercase();
            let text = format!("wrong number of arguments for 'latency|{word}' command");
            return Err(Refusal::usage(text));
        }
        _ => return Err(unknown_subcommand("LATENCY", &arguments[0])),
    }
    Ok(Flow::Done)
}

fn milliseconds(micros: u64) -> u64 {
    micros.div_ceil(1000)
}

fn write_latest(context: &mut Context<'_>) {
    let latest = context.shared.latency.latest();
    let out = &mut context.connection.out;
    out.array(latest.len());
    for (event, last, most_micros) in latest {
        out.array(4);
        out.bulk(event.word());
        out.integer(last.at_seconds);
        out.integer(milliseconds(last.micros));
        out.integer(milliseconds(most_micros));
    }
}

/// An unknown event has no history, as in Redis.
fn write_history(context: &mut Context<'_>, event: &[u8]) {
    let event = LatencyEvent::named(event);
    let history = event.map(|event| context.shared.latency.history(event)).unwrap_or_default();
    let out = &mut context.connection.out;
    out.array(history.len());
    for spike in history {
        out.array(2);
        out.integer(spike.at_seconds);
        out.integer(milliseconds(spike.micros));
    }
}

fn report(context: &Context<'_>) -> String {
    let latest = context.shared.latency.latest();
    if latest.is_empty() {
        return "Nothing took longer than slowlog.threshold_us since the last reset.".into();
    }
    let advice = |event| match event {
        LatencyEvent::Command => "SLOWLOG GET shows the commands",
        LatencyEvent::Commit => "if fsync has the same peaks it is the disk, else the load",
        LatencyEvent::Fsync => "the disk is slow: see what else uses it",
    };
    let line = |(event, _, most_micros): &(LatencyEvent, _, u64)| {
        let seconds = context.shared.latency.history(*event).len();
        format!(
            "{}: slow in {seconds} seconds, at most {} ms: {}.\n",
            event.word(),
            milliseconds(*most_micros),
            advice(*event)
        )
    };
    latest.iter().map(line).collect()
}

/// Commands that were not called, and words that are no command, are left out, as in Redis.
fn write_histograms(context: &mut Context<'_>, names: &[Bytes]) {
    let all = context.table.all().map(|(_, command)| command);
    let is_meant = |command: &&Command| {
        names.is_empty()
            || names.iter().any(|name| name.eq_ignore_ascii_case(command.name.as_bytes()))
    };
    let read = |command: &'static Command| {
        (command.lower_name(), context.shared.calls.of(command.position).micros.read())
    };
    let found: Vec<_> =
        all.filter(is_meant).map(read).filter(|(_, times)| times.count() > 0).collect();
    let out = &mut context.connection.out;
    out.map(found.len());
    for (name, times) in found {
        out.bulk(name);
        out.map(2);
        out.field("calls", times.count());
        out.bulk("histogram_usec");
        // Only the powers at which the number grows.
        let mut before = 0;
        let grows = |(_, count): &(u64, u64)| std::mem::replace(&mut before, *count) < *count;
        let steps: Vec<_> = times.up_to_powers(0, LAST_POWER).filter(grows).collect();
        out.map(steps.len());
        for (most, count) in steps {
            out.integer(most);
            out.integer(count);
        }
    }
}
