//! The position of a terminal: the opaque string of IM.SYNC, at most 512 bytes.
//!
//! ```text
//!  cursor := hex of: 2, history: u64, user's digest: u32, sequence in the sync timeline, time,
//!            line, shape: u8, (length: u8, conversation, sequence) ×    plain numbers are varints
//! ```
//!
//! For pushed events the position is one number, a sequence of the user's sync timeline. Pulled
//! events are in many timelines and are ordered by their commit time, which never decreases from
//! one batch to the next. So the cursor has passed all pulled events of earlier times. Of the
//! events of its own time (a millisecond, or hours if the clock was set back) it has passed those
//! that one of these names:
//!
//! * *noted*: the events of these conversations up to these sequences. As many conversations as
//!   fit.
//! * *by id*: the events of all conversations with a lower id than this one, and those of this one
//!   up to this sequence. Only for times that are over.
//! * *by line*: the events whose lines in the ledger of pulled events are not after this line, and
//!   those noted.
//!
//! At the end of all events a cursor depends only on the user's own events (`pulled`): it is the
//! same for every terminal, and moves only when this user gets an event. The server keeps no
//! cursors, so the number of terminals costs nothing.
//!
//! Cursors of version 1 list all conversations of their time and have no line. They are read if
//! they fit into 512 bytes today; longer ones count as cursors of another history (EPOCH).

use std::collections::BTreeMap;

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

use super::event::{Parts, put_name, put_number};
use super::names::{MAX_ID_BYTES, digest};
use super::trouble::{Result, Trouble};

const VERSION: u8 = 2;
const VERSION_BEFORE: u8 = 1;

/// The longest cursor, as text.
pub const MAX_CURSOR_BYTES: usize = 512;

/// The most bytes that a number up to 2^63 - 1 takes.
const NUMBER_BYTES: usize = 9;

/// Version, history, user, three numbers and the shape.
const FIXED_BYTES: usize = 1 + 8 + 4 + 3 * NUMBER_BYTES + 1;

/// The bytes that are left for conversations and their sequences.
const NOTED_BYTES: usize = MAX_CURSOR_BYTES / 2 - FIXED_BYTES;

/// One conversation always fits, also one with the longest id.
const _: () = assert!(1 + MAX_ID_BYTES + 1 + NUMBER_BYTES <= NOTED_BYTES);

/// The shape of a cursor by id.
const BY_ID: u8 = 1;

/// A position in the sequence of all events of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last sequence of the sync timeline.
    pub inbox: Sequence,
    /// The pulled events that it has passed.
    pub pulled: Passed,
}

/// The pulled events of a user that a position has passed: see the heading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// All events of earlier times are passed.
    pub time_ms: TimeMs,
    /// The events of this time whose line is not after this one are passed; 0: no line is given.
    pub line: Sequence,
    /// The events of this time, of these conversations, up to these sequences are passed.
    pub noted: BTreeMap<Bytes, Sequence>,
    /// The events of this time, of all conversations with a lower id than the noted one, are
    /// passed.
    pub by_id: bool,
}

/// The cursor that a terminal sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// `0`: from the oldest event that is kept.
    Oldest,
    /// `$`: from now on.
    Newest,
    /// A cursor of another history.
    Foreign,
    /// A cursor that an earlier call returned.
    At(Position),
}

/// The bytes that a noted conversation takes in a cursor.
pub fn noted_bytes(conv: &[u8], sequence: Sequence) -> usize {
    let bits = (u64::BITS - sequence.leading_zeros()).max(1);
    1 + conv.len() + bits.div_ceil(7) as usize
}

/// The bytes that these noted conversations take together.
pub fn all_noted_bytes(noted: &BTreeMap<Bytes, Sequence>) -> usize {
    noted.iter().map(|(conv, sequence)| noted_bytes(conv, *sequence)).sum()
}

/// Whether conversations that take this many bytes can be noted.
pub fn can_be_noted(bytes: usize) -> bool {
    bytes <= NOTED_BYTES
}

impl Passed {
    /// Whether an event of its time is passed, as far as that is known without lines.
    pub fn has(&self, conv: &Bytes, sequence: Sequence) -> bool {
        let noted = self.noted.get(conv).is_some_and(|last| sequence <= *last);
        noted || (self.by_id && self.noted.keys().next().is_some_and(|last| conv < last))
    }

    /// Passes all events of times before `time_ms`.
    pub fn reach(&mut self, time_ms: TimeMs) {
        if time_ms > self.time_ms {
            *self = Passed { time_ms, ..Passed::default() };
        }
    }

    /// Whether no event of its time is passed.
    pub fn is_before_its_time(&self) -> bool {
        self.line == 0 && self.noted.is_empty()
    }

    /// Notes a conversation up to a sequence. Returns false, and changes nothing, if that does not
    /// fit.
    pub fn note(&mut self, conv: &Bytes, sequence: Sequence) -> bool {
        let before = self.noted.insert(conv.clone(), sequence);
        let fits = can_be_noted(all_noted_bytes(&self.noted));
        if !fits {
            match before {
                Some(before) => self.noted.insert(conv.clone(), before),
                None => self.noted.remove(conv),
            };
        }
        fits
    }
}

impl Position {
    /// The text of the cursor.
    pub fn encode(&self, history: u64, user: &[u8]) -> Vec<u8> {
        let Passed { time_ms, line, noted, by_id } = &self.pulled;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&history.to_le_bytes());
        bytes.extend_from_slice(&(digest(user) as u32).to_le_bytes());
        [self.inbox, *time_ms, *line].into_iter().for_each(|number| put_number(&mut bytes, number));
        bytes.push(if *by_id { BY_ID } else { 0 });
        for (conv, sequence) in noted {
            put_name(&mut bytes, conv);
            put_number(&mut bytes, *sequence);
        }
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
        bytes.into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

impl Cursor {
    /// Parses the cursor that a terminal sends.
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
            return Err(Trouble::Usage("this cursor belongs to another user"));
        }
        let is_short = can_be_noted(all_noted_bytes(&position.pulled.noted));
        Ok(if is_short { Cursor::At(position) } else { Cursor::Foreign })
    }
}

fn parse(text: &[u8]) -> Option<(u64, u32, Position)> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|value| value as u8);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let mut parts = Parts::new(&pairs.collect::<Option<Vec<u8>>>()?.into());
    let version = parts.byte()?;
    if !matches!(version, VERSION | VERSION_BEFORE) {
        return None;
    }
    let history = u64::from_le_bytes(parts.take(8)?.as_ref().try_into().ok()?);
    let owner = u32::from_le_bytes(parts.take(4)?.as_ref().try_into().ok()?);
    let inbox = parts.sequence()?;
    let mut pulled = Passed { time_ms: parts.sequence()?, ..Passed::default() };
    if version == VERSION {
        pulled.line = parts.sequence()?;
        pulled.by_id = match parts.byte()? {
            0 => false,
            BY_ID => true,
            _ => return None,
        };
    }
    while !parts.is_empty() {
        pulled.noted.insert(parts.name()?, parts.sequence()?);
    }
    if pulled.by_id && (pulled.noted.len() != 1 || pulled.line > 0) {
        return None;
    }
    Some((history, owner, Position { inbox, pulled }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strandline::MAX_SEQUENCE;

    fn noting(conv: &[u8], sequence: Sequence) -> Position {
        let noted = [(Bytes::copy_from_slice(conv), sequence)].into();
        let pulled = Passed { time_ms: 1_800_000_000_001, noted, ..Passed::default() };
        Position { inbox: 70, pulled }
    }

    #[test]
    fn a_cursor_reads_back_and_belongs_to_one_user_and_history() {
        let noted = noting(b"c1", 300);
        let by_id = Position { pulled: Passed { by_id: true, ..noted.pulled.clone() }, ..noted };
        let by_line = Position { pulled: Passed { line: 900, ..noted.pulled.clone() }, ..noted };
        for position in [noted, by_id, by_line] {
            let text = position.encode(7, b"ann");
            assert_eq!(Cursor::decode(&text, 7, b"ann").expect("a cursor"), Cursor::At(position));
            assert_eq!(Cursor::decode(&text, 8, b"ann").expect("a cursor"), Cursor::Foreign);
            assert!(Cursor::decode(&text, 7, b"bob").is_err());
        }
    }

    #[test]
    fn the_longest_cursor_has_512_bytes() {
        let longest = [b'c'; MAX_ID_BYTES];
        let full = |noted| Position {
            inbox: MAX_SEQUENCE,
            pulled: Passed { time_ms: MAX_SEQUENCE, line: MAX_SEQUENCE, noted, by_id: false },
        };
        let one = BTreeMap::from([(Bytes::copy_from_slice(&longest), MAX_SEQUENCE)]);
        assert!(can_be_noted(all_noted_bytes(&one)));
        assert!(full(one).encode(u64::MAX, b"ann").len() <= MAX_CURSOR_BYTES);
        let many: BTreeMap<Bytes, Sequence> =
            (0..43).map(|number| (Bytes::from(format!("c{number:02}")), 1)).collect();
        assert!(can_be_noted(all_noted_bytes(&many)));
        assert_eq!(full(many).encode(0, b"ann").len(), MAX_CURSOR_BYTES);
    }

    #[test]
    fn a_note_takes_the_bytes_that_are_counted_for_it() {
        for sequence in [0, 1, 127, 128, 16_383, 16_384, MAX_SEQUENCE] {
            let mut bytes = Vec::new();
            put_name(&mut bytes, b"room");
            put_number(&mut bytes, sequence);
            assert_eq!(noted_bytes(b"room", sequence), bytes.len(), "{sequence}");
        }
    }

    #[test]
    fn a_cursor_of_version_1_is_read_if_it_is_short() {
        let before = |convs: usize| {
            let mut bytes = vec![VERSION_BEFORE];
            bytes.extend_from_slice(&7u64.to_le_bytes());
            bytes.extend_from_slice(&(digest(b"ann") as u32).to_le_bytes());
            put_number(&mut bytes, 70);
            put_number(&mut bytes, 1_800_000_000_001);
            for conv in 0..convs {
                put_name(&mut bytes, format!("c{conv}").as_bytes());
                put_number(&mut bytes, 300);
            }
            let digit = |value: u8| char::from_digit(value.into(), 16).expect("below 16");
            let text: String =
                bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
            Cursor::decode(text.as_bytes(), 7, b"ann").expect("a cursor")
        };
        let mut position = noting(b"c0", 300);
        assert_eq!(before(1), Cursor::At(position.clone()));
        position.pulled.noted.clear();
        assert_eq!(before(0), Cursor::At(position));
        assert_eq!(before(400), Cursor::Foreign);
    }

    #[test]
    fn a_later_time_forgets_the_notes_of_the_earlier_one() {
        let mut passed = noting(b"c", 1).pulled;
        let time_ms = passed.time_ms;
        passed.reach(time_ms);
        assert!(passed.has(&"c".into(), 1) && !passed.has(&"c".into(), 2));
        passed.reach(time_ms + 1);
        assert!(passed.is_before_its_time());
    }

    #[test]
    fn a_forged_sequence_is_refused() {
        let text = |position: Position| position.encode(7, b"ann");
        let ahead = Position { inbox: u64::MAX, ..Position::default() };
        for text in [text(ahead), text(noting(b"c", u64::MAX))] {
            assert!(Cursor::decode(&text, 7, b"ann").is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_or_refused(text: Vec<u8>) {
            let _ = Cursor::decode(&text, 0, b"ann");
        }
    }
}
