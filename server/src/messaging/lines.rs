//! Whether the log of pulled events is that of the conversations that are there.
//!
//! A line has the time of its event, since both are written by one batch; a sync goes by that (`pulled`). After an import neither
//! holds: lines and events have the times of their imports, or lines are missing. Then the log begins anew, behind a line that is gone:
//! what was pulled before is found as after a week, by where each conversation ends.

use bytes::Bytes;
use strandline::{Batch, Engine, Error, Limit, Store, Trim};

use super::event::{Event, Kind};
use super::names;

type Result<T> = std::result::Result<T, Error>;

/// Lines that are looked at; the events of the newest may have expired.
const LOOKED_AT: usize = 256;

/// Lets the log begin anew if it is not that of these conversations: it was made just now, or its times are not theirs.
pub fn check(engine: &Engine, messages: &Store, pulled: &Store, is_new: bool) -> Result<()> {
    let is_another = if is_new {
        !messages.list(b"c/{", None, 1).unwrap_or_default().is_empty()
    } else {
        !has_its_times(messages, pulled)
    };
    if is_another {
        begin_anew(engine, pulled)?;
        tracing::info!("the log of pulled events is not that of the conversations: it begins anew");
    }
    Ok(())
}

/// Whether the newest line that has its event has the event's time. What is damaged tells nothing.
fn has_its_times(messages: &Store, pulled: &Store) -> bool {
    let newest = pulled.range_back(names::PULLED_LOG, .., Limit::entries(LOOKED_AT));
    let lines = newest.map(|page| page.entries).unwrap_or_default();
    let times = lines.iter().filter_map(|line| {
        let event =
            Event::decode(&line.body).filter(|event| matches!(event.kind, Kind::Pulled | Kind::Pushed))?;
        let entry = messages.get(&names::conversation(&event.conv), event.sequence).ok()??;
        Some((line.time_ms, entry.time_ms))
    });
    times.into_iter().next().is_none_or(|(of_line, of_event)| of_line == of_event)
}

/// The log goes on behind a line that is gone, and of which all know that there was something.
pub fn begin_anew(engine: &Engine, pulled: &Store) -> Result<()> {
    let line = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new()).encode();
    let begun = engine.submit(Batch::new().append(pulled, names::PULLED_LOG, &line))?.wait()?;
    pulled.trim(names::PULLED_LOG, Trim::Before(begun.sequences[0] + 1)).map(drop)
}
