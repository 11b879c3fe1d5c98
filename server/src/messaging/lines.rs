//! Whether the log of pulled events is that of the conversations that are there.
//!
//! A line has the time of its event, since one batch writes both; a sync goes by that (`pulled`).
//! After an import it is not so: lines and events have the times of their imports, or lines are
//! missing. So a mark says for which history of the engine the log is whole: a restore and a
//! salvage give the engine another one, and an import takes the mark away. Without its mark the log
//! starts again after a line that is gone. Events that were pulled before are then found by the end
//! of each conversation, as after a week.
//!
//! The mark is written last: a start that was cut short does all again.

use bytes::Bytes;
use strandline::{Batch, Engine, Error, Limit, Store, Trim};

use super::event::{Event, Kind};
use super::names;

type Result<T> = std::result::Result<T, Error>;

/// Lines that are looked at where nothing can be written.
const LOOKED_AT: usize = 256;

/// Lets the log start again if it is not marked as that of this history.
pub fn check(engine: &Engine, [state, messages, pulled]: [&Store; 3]) -> Result<()> {
    match state.last(names::LINES_MARK) {
        Ok(Some(mark)) if mark.body == engine.epoch().as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(error) if error.is_damage() && has_its_times(messages, pulled) => return Ok(()),
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    let has_conversations = !messages.list(b"c/{", None, 1).is_ok_and(|names| names.is_empty());
    let checked = if has_conversations { start_again(engine, pulled) } else { Ok(()) };
    match checked.and_then(|()| mark_whole(engine, state)) {
        // Of a directory that is only read nothing can be changed.
        Err(Error::Closed { .. }) if has_its_times(messages, pulled) => Ok(()),
        // Damage is told to who meets it.
        Err(error) if error.is_damage() => Ok(()),
        // A start is what makes room: the next one tries again.
        Err(error) if error.is_shortage() => {
            tracing::warn!(%error, "pulled events from before an import are not shown yet: make room, and start again");
            Ok(())
        }
        checked => checked,
    }
}

fn mark_whole(engine: &Engine, state: &Store) -> Result<()> {
    let last = state.append(names::LINES_MARK, engine.epoch().as_bytes())?;
    state.trim(names::LINES_MARK, Trim::Before(last)).map(drop)
}

/// Whether a timeline is the mark: of another directory it says nothing here, so an import leaves
/// it out.
pub fn is_mark(store: &str, timeline: &[u8]) -> bool {
    store == names::STATE_STORE && timeline == names::LINES_MARK
}

/// Takes the mark away before an import: the next start lets the log start again.
pub fn forget(engine: &Engine) -> Result<()> {
    match engine.store(names::STATE_STORE) {
        Ok(state) => state.drop_timeline(names::LINES_MARK).map(drop),
        Err(Error::NoStore { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The log goes on after a line that is gone, so that all know that there was something.
pub fn start_again(engine: &Engine, pulled: &Store) -> Result<()> {
    let line = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new()).encode();
    let begun = engine.submit(Batch::new().append(pulled, names::PULLED_LOG, &line))?.wait()?;
    pulled.trim(names::PULLED_LOG, Trim::Before(begun.sequences[0] + 1)).map(drop)
}

/// Whether the newest lines that have their events have the events' times, as far as they can be
/// read.
fn has_its_times(messages: &Store, pulled: &Store) -> bool {
    let newest = pulled.range_back(names::PULLED_LOG, .., Limit::entries(LOOKED_AT));
    let lines = newest.map(|page| page.entries).unwrap_or_default();
    let is_told = |event: &Event| matches!(event.kind, Kind::Pulled | Kind::Pushed);
    let mut times = lines.iter().filter_map(|line| {
        let event = Event::decode(&line.body).filter(is_told)?;
        let entry = messages.get(&names::conversation(&event.conv), event.sequence).ok()??;
        Some((line.time_ms, entry.time_ms))
    });
    times.all(|(of_line, of_event)| of_line == of_event)
}
