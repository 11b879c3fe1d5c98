//! The latency of pushes: from the time at which an append was due on one connection until the
//! entry has arrived on another one, which follows its timeline.
//!
//! The body begins with that time, in microseconds since the start.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::clients::{DueTimes, drive};
use super::plan::Plan;
use super::tally::Tally;
use super::workload::{Dice, STORE};
use crate::remote::frame::{Frame, Refused};
use crate::remote::link::{Link, write_command};
use crate::remote::login::Login;

/// The digits of the time at the beginning of a body.
const TIME_DIGITS: usize = 16;

/// How long the last entries may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the workload: half of the connections append, each to its own timeline, and the others
/// follow these.
pub async fn run(login: &Arc<Login>, plan: Plan, rate: Option<f64>) -> anyhow::Result<Tally> {
    let pairs = plan.connections.div_ceil(2);
    let plan = Plan { connections: pairs, ..plan };
    let mut opened = Vec::new();
    for number in 0..pairs {
        let key = format!("{STORE}:p/{number}");
        let (writer, mut reader) = (login.open().await?, login.open().await?);
        let info = reader.call(&["TL.INFO", &key]).await?.or_error()?;
        let last = info.get("last").map(Frame::text).unwrap_or_default();
        reader.call(&["TL.FOLLOW", &key, "AFTER", &last]).await?.or_error()?;
        opened.push((number, key, writer, reader));
    }
    let tally = Arc::new(Mutex::new(Tally::new()));
    let start = Instant::now();
    let mut running = JoinSet::new();
    for (number, key, writer, reader) in opened {
        let schedule = DueTimes::new(start, number, &plan, rate);
        let tally = Arc::clone(&tally);
        running.spawn(async move {
            let (sent, counted) = tokio::sync::watch::channel(None);
            let appending = async {
                let count = append(writer, key, schedule, start, plan).await?;
                sent.send_replace(Some(count));
                anyhow::Ok(())
            };
            let following = follow(reader, counted, start, plan, &tally);
            tokio::try_join!(appending, following).map(drop)
        });
    }
    while let Some(pair) = running.join_next().await {
        pair??;
    }
    let tally = tally.lock().clone();
    Ok(tally)
}

/// Appends until the time is over. Returns the number of entries.
async fn append(
    mut link: Link,
    key: String,
    schedule: DueTimes,
    start: Instant,
    plan: Plan,
) -> anyhow::Result<u64> {
    let mut body = Dice::new(0).body(plan.body.max(TIME_DIGITS));
    let durability: &[&[u8]] = if plan.relaxed { &[b"DURABILITY", b"os"] } else { &[] };
    let (mut count, mut refused) = (0, None);
    let write = |since: Instant, out: &mut Vec<u8>| {
        let time = format!("{:0TIME_DIGITS$}", (since - start).as_micros());
        body[..TIME_DIGITS].copy_from_slice(time.as_bytes());
        let words = [b"TL.APPEND", key.as_bytes(), &body];
        write_command(out, &[&words, durability].concat());
    };
    let seen = |_, error: Option<String>| {
        count += 1;
        refused = refused.take().or(error);
    };
    let end = start + plan.warm_up + plan.measured;
    drive(&mut link, schedule, plan.pipeline, end, write, seen).await?;
    match refused {
        Some(text) => Err(Refused(text).into()),
        None => Ok(count),
    }
}

/// Receives entries until all that were sent have arrived.
async fn follow(
    mut link: Link,
    mut sent: tokio::sync::watch::Receiver<Option<u64>>,
    start: Instant,
    plan: Plan,
    tally: &Mutex<Tally>,
) -> anyhow::Result<()> {
    let counted = start + plan.warm_up;
    let mut arrived = 0;
    loop {
        let wanted = *sent.borrow_and_update();
        if wanted.is_some_and(|wanted| arrived >= wanted) {
            return Ok(());
        }
        let frame = tokio::select! {
            frame = timeout(PATIENCE, link.next()) => {
                frame.with_context(|| format!("no push came for {} s", PATIENCE.as_secs()))??
            }
            changed = sent.changed(), if wanted.is_none() => {
                changed.context("the connection that appends failed")?;
                continue;
            }
        };
        let now = Instant::now();
        let elements = match &frame {
            Frame::Push(elements) => elements,
            other => return other.clone().or_error().map(drop).map_err(anyhow::Error::from),
        };
        if elements.first().map(Frame::text).as_deref() != Some("tl.entry") {
            continue;
        }
        arrived += 1;
        let time = elements.get(4).map(Frame::bytes).unwrap_or_default();
        let digits = time.get(..TIME_DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        let micros = digits.and_then(|digits| digits.parse().ok());
        let since = start + Duration::from_micros(micros.context("another client appends there")?);
        if since >= counted {
            tally.lock().add(now - counted, now - since, None);
        }
    }
}
