//! Identifiers: numbers and names that the whole engine uses. They have no behaviour beyond their
//! arithmetic and text form.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A dense position in a timeline: 1, 2, 3, …. Zero means "none": the cursor of a reader that has
/// seen nothing.
pub type Sequence = u64;

/// The highest sequence that can be given: 2^63 − 1, which fits a signed 64-bit integer.
/// JavaScript's numbers are exact up to 2^53 only: do not choose higher sequences for such clients.
pub const MAX_SEQUENCE: Sequence = i64::MAX as u64;

/// Unix milliseconds, from the engine's clock.
pub type TimeMs = u64;

/// A duration in whole milliseconds: a fraction is rounded up, and more than `u64::MAX` are that
/// many.
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A TTL or a lifetime in the form of the interface, from that of files and the engine: in
/// milliseconds, 0 for none. `options::limit_ms` is the inverse.
pub fn limit_of(limit_ms: u64) -> Option<Duration> {
    (limit_ms != 0).then(|| Duration::from_millis(limit_ms))
}

/// The number in a file's name. Numbers increase and are never reused in a directory.
pub type FileNumber = u64;

/// The id of the engine that a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EngineId(pub [u8; 16]);

/// The id of a boot of the machine, which is the lifetime of the page cache. Zeros: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BootId(pub [u8; 16]);

/// The id of a store in records and segments. The manifest maps it to its name and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// The open engine that a handle belongs to. Every open draws another random value; it is not
/// stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instance(pub u64);

/// A store of one open engine, from a [`Store`](crate::Store) handle; batches and watchers take it.
/// Store ids repeat in every engine, so an id alone could refer to an unrelated store of another
/// engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey {
    pub(crate) instance: Instance,
    pub(crate) id: StoreId,
}

/// A byte position in the WAL, counted from the first byte ever logged. It continues across files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `bytes` further on.
    pub fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lsn {}", self.0)
    }
}

/// The place of a committed change or body: the lsn of its group, plus its number among the changes
/// and bodies of the group, from 1 on. A group has more bytes than changes and bodies, so each
/// place is unique, lies inside its group, and increases from commit to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitPlace(pub u64);

/// The body of a fan-out in an open engine, which all its entries share; from
/// [`Store::body_of`](crate::Store::body_of).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyKey {
    pub(crate) instance: Instance,
    pub(crate) place: CommitPlace,
}

/// The epoch of a store: the lifetime of its sequences. A cursor of another epoch has no meaning;
/// see [`Store::epoch`](crate::Store::epoch).
///
/// Its text is the history as 16 hex digits, and, if the number is not 0, `-` and the number.
///
/// ```
/// let epoch: strandline::Epoch = "00000000075bcd15-2".parse()?;
/// assert_eq!((epoch.history(), epoch.number()), (123_456_789, 2));
/// assert_eq!(epoch.to_string(), "00000000075bcd15-2");
/// # Ok::<(), strandline::ParseEpochError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    pub(crate) history: u64,
    pub(crate) number: u64,
}

impl Epoch {
    /// The random number of the engine's history, which all its stores share. It changes when an
    /// older state is restored.
    pub fn history(self) -> u64 {
        self.history
    }

    /// The number of the epoch in the history of its store.
    pub fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(out, "{:016x}", self.history),
            number => write!(out, "{:016x}-{number}", self.history),
        }
    }
}

/// The text is not that of an [`Epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 16 hex digits, and `-` with a number unless that is 0")]
#[non_exhaustive]
pub struct ParseEpochError;

/// Accepts exactly what `Display` writes, so that two texts of one epoch are equal.
impl FromStr for Epoch {
    type Err = ParseEpochError;

    fn from_str(text: &str) -> Result<Epoch, ParseEpochError> {
        let (history, number) = text.split_once('-').unwrap_or((text, "0"));
        let parsed = u64::from_str_radix(history, 16).ok().zip(number.parse().ok());
        parsed
            .map(|(history, number)| Epoch { history, number })
            .filter(|epoch| epoch.to_string() == text)
            .ok_or(ParseEpochError)
    }
}

/// The name under which changes of shared bodies are stored, beside the timelines of a store. No
/// timeline has the empty name.
pub const BODIES: &[u8] = b"";

/// A timeline: its store and the bytes of its name. Ordered as keys in a segment: by store, then by
/// bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineRef<'a> {
    /// The store that holds it.
    pub store: StoreId,
    /// Its name inside the store: 1 to [`MAX_NAME_BYTES`] arbitrary bytes.
    pub name: &'a [u8],
}

/// The maximum number of stores of an engine: each store has segments of its own in every flush
/// that contains its data.
pub const MAX_STORES: usize = 1000;

/// The maximum length of a client's id of a batch.
pub const MAX_ID_BYTES: usize = 255;

/// The maximum length of a timeline's name.
pub const MAX_NAME_BYTES: usize = 255;

impl fmt::Debug for TimelineRef<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.store.0, self.name.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_from_its_own_text_only() {
        for (history, number) in [(0, 0), (u64::MAX, 0), (0xab, 1), (1, u64::MAX)] {
            let epoch = Epoch { history, number };
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }
        let hex = "00000000000000ab";
        let with = |end: &str| format!("{hex}{end}");
        for wrong in ["", "-", "ab", "00000000000000AB", "+0000000000000ab", "-1"] {
            assert_eq!(wrong.parse::<Epoch>(), Err(ParseEpochError), "{wrong}");
        }
        for end in ["-", "-0", "-01", "-+1", "-1-1", "-18446744073709551616", " "] {
            assert_eq!(with(end).parse::<Epoch>(), Err(ParseEpochError), "{end}");
        }
    }
}
