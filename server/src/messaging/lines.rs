//! Checks that the log of pulled events belongs to the conversations in the engine.
//!
//! A line has the same time as its event, since one batch writes both, and a sync depends on that
//! (`pulled`). After an import it is not so: lines and events have the times of their imports, or
//! lines are missing. So a mark names the history of the engine for which the log is complete. A
//! restore or a salvage gives the engine another history, and an import removes the mark. If the
//! mark does not match, the log is restarted: it then begins after a line that is gone. Events that
//! were pulled before that are found by the ends of the conversations, as after a week.
//!
//! The mark is written last: after an interrupted start, the next one repeats everything.

use bytes::Bytes;
use strandline::{Batch, Engine, Error, Limit, Store, Trim};

use super::event::{Event, Kind};
use super::names;

/// The number of lines that are checked when nothing can be written.
const LOOKED_AT: usize = 256;

/// Restarts the log if its mark does not name this history.
pub fn check(engine: &Engine, [state, messages, pulled]: [&Store; 3]) -> Result<(), Error> {
    match state.last(names::LINES_MARK) {
        Ok(Some(mark)) if mark.body == engine.epoch().to_string().as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(error) if error.is_damage() && has_its_times(messages, pulled) => return Ok(()),
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    let has_conversations = !messages.list(b"c/{", None, 1).is_ok_and(|names| names.is_empty());
    let checked = if has_conversations { start_again(engine, pulled) } else { Ok(()) };
    match checked.and_then(|()| mark_whole(engine, state)) {
        // A directory that is open read-only cannot be changed.
        Err(Error::ReadOnly) if has_its_times(messages, pulled) => Ok(()),
        // The commands that meet the damage report it.
        Err(error) if error.is_damage() => Ok(()),
        // The start must go on, since it is what frees space. The next start tries again.
        Err(error) if error.is_shortage() => {
            tracing::warn!(
                %error,
                "pulled events from before an import are not shown yet: make room, then restart"
            );
            Ok(())
        }
        checked => checked,
    }
}

fn mark_whole(engine: &Engine, state: &Store) -> Result<(), Error> {
    let last = state.append(names::LINES_MARK, engine.epoch().to_string().as_bytes())?;
    state.trim(names::LINES_MARK, Trim::Before(last)).map(drop)
}

/// Whether a timeline is the mark. An import skips it: the mark of another directory is meaningless
/// here.
pub fn is_mark(store: &str, timeline: &[u8]) -> bool {
    store == names::STATE_STORE && timeline == names::LINES_MARK
}

/// Removes the mark before an import, so that the next start restarts the log.
pub fn forget(engine: &Engine) -> Result<(), Error> {
    match engine.store(names::STATE_STORE) {
        Ok(state) => state.drop_timeline(names::LINES_MARK).map(drop),
        Err(Error::NoStore { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Restarts the log: appends a line and trims all lines including this one, so that readers know
/// that there were lines.
pub fn start_again(engine: &Engine, pulled: &Store) -> Result<(), Error> {
    let line = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new()).encode();
    let begun = engine.commit(Batch::new().append(pulled, names::PULLED_LOG, &line))?;
    pulled.trim(names::PULLED_LOG, Trim::Before(begun.sequences[0] + 1)).map(drop)
}

/// Whether the newest lines have the times of their events, as far as both can be read. Lines
/// without an event do not count.
fn has_its_times(messages: &Store, pulled: &Store) -> bool {
    let newest = pulled.range_back(names::PULLED_LOG, .., Limit::entries(LOOKED_AT));
    let lines = newest.map(|page| page.entries).unwrap_or_default();
    let names_event = |event: &Event| matches!(event.kind, Kind::Pulled | Kind::Pushed);
    let mut times = lines.iter().filter_map(|line| {
        let event = Event::decode(&line.body).filter(names_event)?;
        let entry = messages.get(names::conversation(&event.conv), event.sequence).ok()??;
        Some((line.time_ms, entry.time_ms))
    });
    times.all(|(of_line, of_event)| of_line == of_event)
}
