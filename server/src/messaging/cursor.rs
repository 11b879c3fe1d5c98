//! How far a terminal has come: the opaque string of IM.SYNC.
//!
//! ```text
//!  cursor := hex of: 1, history: u64, user's digest: u32, sequence in the sync timeline,
//!            time of pulled events, (length: u8, conversation, sequence) × those of that very time
//! ```
//!
//! Pushed events have their place in the user's sync timeline, one number. Pulled events stand in many timelines; what orders them is
//! the commit time, which never decreases from one batch to the next. So "all before this time, and of this very millisecond these"
//! is exact, however many conversations a user is in, and grows only with what one millisecond brought. Nothing of it is kept on the
//! server: any number of terminals cost nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::event::{Parts, put_name, put_number};
use super::names::digest;
use super::trouble::{Result, Trouble};

const VERSION: u8 = 1;

/// A place in everything that ever was to reach a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last sequence of the sync timeline.
    pub inbox: Sequence,
    /// Pulled events of earlier times are behind it.
    pub time_ms: TimeMs,
    /// So are those of this time, up to these sequences.
    pub seen: BTreeMap<Bytes, Sequence>,
}

/// What a terminal passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// `0`: the oldest that is kept.
    Oldest,
    /// `$`: from now on.
    Newest,
    /// Of another history.
    Foreign,
    /// What an earlier call gave.
    At(Position),
}

impl Position {
    /// A pulled event is behind it now.
    pub fn pass(&mut self, conv: &Bytes, sequence: Sequence, time_ms: TimeMs) {
        self.reach(time_ms);
        self.seen.insert(conv.clone(), sequence);
    }

    /// All pulled events of earlier times are behind it.
    pub fn reach(&mut self, time_ms: TimeMs) {
        if time_ms > self.time_ms {
            self.time_ms = time_ms;
            self.seen.clear();
        }
    }

    /// The cursor that says so.
    pub fn encode(&self, history: u64, user: &[u8]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&history.to_le_bytes());
        bytes.extend_from_slice(&(digest(user) as u32).to_le_bytes());
        put_number(&mut bytes, self.inbox);
        put_number(&mut bytes, self.time_ms);
        for (conv, sequence) in &self.seen {
            put_name(&mut bytes, conv);
            put_number(&mut bytes, *sequence);
        }
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
        bytes.into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

impl Cursor {
    /// Reads what a terminal passes.
    pub fn decode(text: &[u8], history: u64, user: &[u8]) -> Result<Cursor> {
        match text {
            b"0" => return Ok(Cursor::Oldest),
            b"$" => return Ok(Cursor::Newest),
            _ => {}
        }
        let (known, owner, position) =
            parse(text).ok_or(Trouble::Usage("a cursor is 0, $, or what IM.SYNC gave"))?;
        if known != history {
            return Ok(Cursor::Foreign);
        }
        if owner != digest(user) as u32 {
            return Err(Trouble::Usage("this cursor is another user's"));
        }
        Ok(Cursor::At(position))
    }
}

fn parse(text: &[u8]) -> Option<(u64, u32, Position)> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|value| value as u8);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let mut parts = Parts::new(&pairs.collect::<Option<Vec<u8>>>()?.into());
    if parts.byte()? != VERSION {
        return None;
    }
    let history = u64::from_le_bytes(parts.take(8)?.as_ref().try_into().ok()?);
    let owner = u32::from_le_bytes(parts.take(4)?.as_ref().try_into().ok()?);
    let mut position =
        Position { inbox: parts.sequence()?, time_ms: parts.sequence()?, ..Position::default() };
    while !parts.is_empty() {
        position.seen.insert(parts.name()?, parts.sequence()?);
    }
    Some((history, owner, position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_reads_back_and_belongs_to_one_user_and_history() {
        let mut position = Position { inbox: 70, time_ms: 1_800_000_000_000, ..Position::default() };
        position.pass(&Bytes::from_static(b"c1"), 300, 1_800_000_000_001);
        let text = position.encode(7, b"ann");
        assert_eq!(Cursor::decode(&text, 7, b"ann").expect("a cursor"), Cursor::At(position));
        assert_eq!(Cursor::decode(&text, 8, b"ann").expect("a cursor"), Cursor::Foreign);
        assert!(Cursor::decode(&text, 7, b"bob").is_err());
    }

    #[test]
    fn a_later_time_forgets_what_the_earlier_one_brought() {
        let mut position = Position::default();
        let conv = Bytes::from_static(b"c");
        position.pass(&conv, 1, 5);
        position.reach(5);
        assert_eq!(position.seen.len(), 1);
        position.reach(6);
        assert!(position.seen.is_empty());
    }

    #[test]
    fn a_forged_sequence_is_no_cursor() {
        for position in [
            Position { inbox: u64::MAX, ..Position::default() },
            Position { seen: [(Bytes::from_static(b"c"), u64::MAX)].into(), ..Position::default() },
        ] {
            assert!(Cursor::decode(&position.encode(7, b"ann"), 7, b"ann").is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_or_not(text: Vec<u8>) {
            let _ = Cursor::decode(&text, 0, b"ann");
        }
    }
}
