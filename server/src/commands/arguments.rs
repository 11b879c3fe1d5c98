//! The syntax of arguments: numbers, options as pairs in any order, bounds, counted keys; and the
//! limit of bodies.
//!
//! A number is `-?(0|[1-9][0-9]{0,19})` and in range; anything else, and any unexpected word, is an
//! `ERR`.

use std::time::Duration;

use bytes::Bytes;
use strandline::{Durability, Limit, MAX_SEQUENCE};

use crate::limits::{LEAST_HEARTBEAT_MS, Limits};
use crate::refusal::Refusal;

/// Entries in a reply without COUNT.
const DEFAULT_COUNT: u64 = 100;

/// An unknown word is shown up to this length.
const SHOWN_BYTES: usize = 32;

/// The most entries in a reply.
const MAX_COUNT: u64 = 10_000;

/// A longer time means no limit: no connection lives for a year, and timers need not count further.
pub const LONGEST_BLOCK: Duration = Duration::from_hours(365 * 24);

/// A number from 0 to 2^63 − 1.
pub fn integer(raw: &[u8]) -> Result<u64, Refusal> {
    let digits = raw.strip_prefix(b"-").unwrap_or(raw);
    let negative = digits.len() < raw.len();
    let spelled = match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 20 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let out_of_range = || Refusal::usage("value is not an integer or out of range");
    if !spelled {
        return Err(out_of_range());
    }
    // Twenty digits stay below 10^20 < 2^67, so this does not overflow.
    let value = digits.iter().fold(0_u128, |value, digit| value * 10 + u128::from(digit - b'0'));
    if (negative && value > 0) || value > u128::from(MAX_SEQUENCE) {
        return Err(out_of_range());
    }
    Ok(value as u64)
}

/// A number from 1 to 2^63 − 1.
pub fn positive(raw: &[u8]) -> Result<u64, Refusal> {
    match integer(raw)? {
        0 => Err(Refusal::usage("value is not an integer or out of range")),
        value => Ok(value),
    }
}

/// Parses `disk` or `os`.
pub fn durability(raw: &[u8]) -> Result<Durability, Refusal> {
    if raw.eq_ignore_ascii_case(b"disk") {
        Ok(Durability::Disk)
    } else if raw.eq_ignore_ascii_case(b"os") {
        Ok(Durability::Os)
    } else {
        Err(Refusal::usage("syntax error: one of disk, os"))
    }
}

/// Refuses a body that is too large. Called before keys are looked up, to keep the contract's order
/// of errors.
pub fn check_body(body: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let limit = limits.max_body_bytes;
    if body.len() > limit { Err(Refusal::too_big("a body", limit)) } else { Ok(()) }
}

/// Parses the milliseconds of HEARTBEAT.
pub fn heartbeat(raw: &[u8]) -> Result<Duration, Refusal> {
    let ms = integer(raw)?;
    if ms < LEAST_HEARTBEAT_MS {
        return Err(Refusal::usage(format!("HEARTBEAT is at least {LEAST_HEARTBEAT_MS} ms")));
    }
    Ok(Duration::from_millis(ms).min(LONGEST_BLOCK))
}

/// Passes each `WORD value` pair to `take`, the word in capitals. `take` returns whether it knows
/// the word.
pub fn options(
    words: &[Bytes],
    mut take: impl FnMut(&[u8], &Bytes) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    for pair in words.chunks(2) {
        let word = pair[0].to_ascii_uppercase();
        let [_, value] = pair else {
            return Err(about(&word, "syntax error: its value is missing"));
        };
        match take(&word, value) {
            Ok(true) => {}
            Ok(false) => return Err(about(&word, "syntax error: not an option here")),
            Err(refusal) if refusal.word == "ERR" => return Err(about(&word, &refusal.sentence)),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(())
}

/// An error about an option, with its name.
fn about(word: &[u8], complaint: &str) -> Refusal {
    let shown = String::from_utf8_lossy(&word[..word.len().min(SHOWN_BYTES)]).into_owned();
    Refusal::usage(format!("{complaint} (option '{shown}')"))
}

/// The error for an unknown word after a command's name.
pub fn unknown_subcommand(command: &str, word: &[u8]) -> Refusal {
    Refusal::usage(format!("unknown subcommand '{}'. Try {command} HELP.", shown(word)))
}

/// An unknown word, shortened for an error text.
pub fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(128)]).into_owned()
}

/// Checks the word at a position.
pub fn keyword(words: &[Bytes], at: usize, word: &str) -> Result<(), Refusal> {
    match words.get(at) {
        Some(found) if found.eq_ignore_ascii_case(word.as_bytes()) => Ok(()),
        _ => Err(Refusal::usage(format!("syntax error: {word} is missing"))),
    }
}

/// Splits the words after the number of keys into the keys and the rest.
pub fn counted<'a>(count: &[u8], rest: &'a [Bytes]) -> Result<(&'a [Bytes], &'a [Bytes]), Refusal> {
    let count = positive(count)?;
    rest.split_at_checked(usize::try_from(count).unwrap_or(usize::MAX))
        .ok_or_else(|| Refusal::usage("syntax error: numkeys is above the number of keys"))
}

/// The lower bound of a range. It may be above all sequences.
pub fn lower_bound(raw: &[u8]) -> Result<u64, Refusal> {
    match raw {
        b"-" => Ok(0),
        b"+" => Ok(MAX_SEQUENCE),
        [b'(', rest @ ..] => Ok(integer(rest)? + 1),
        _ => integer(raw),
    }
}

/// The upper bound of a range. `None` is below all sequences.
pub fn upper_bound(raw: &[u8]) -> Result<Option<u64>, Refusal> {
    match raw {
        b"-" => Ok(Some(0)),
        b"+" => Ok(Some(MAX_SEQUENCE)),
        [b'(', rest @ ..] => Ok(integer(rest)?.checked_sub(1)),
        _ => integer(raw).map(Some),
    }
}

/// Limits COUNT: 0 becomes 1, and a value above the maximum becomes the maximum.
pub fn bounded_count(count: Option<u64>) -> usize {
    count.unwrap_or(DEFAULT_COUNT).clamp(1, MAX_COUNT) as usize
}

/// The options COUNT and BYTES.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    count: Option<u64>,
    bytes: Option<u64>,
}

impl Paging {
    /// Takes COUNT or BYTES. False for another word.
    pub fn take(&mut self, word: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        match word {
            b"COUNT" => self.count = Some(integer(value)?),
            b"BYTES" => self.bytes = Some(integer(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The limit of one reply. Its bodies are limited even without BYTES.
    pub fn limit(self, limits: &Limits) -> Limit {
        let bytes = self.bytes.unwrap_or(u64::MAX).min(limits.reply_bytes);
        Limit::entries(bounded_count(self.count)).body_bytes(bytes)
    }
}

/// The options of a command that returns pages of entries and may wait for them: COUNT, BYTES, and
/// the milliseconds of BLOCK.
pub fn paging_and_block(words: &[Bytes]) -> Result<(Paging, Option<u64>), Refusal> {
    let (mut paging, mut block_ms) = (Paging::default(), None);
    options(words, |word, value| {
        if word != b"BLOCK" {
            return paging.take(word, value);
        }
        block_ms = Some(integer(value)?);
        Ok(true)
    })?;
    Ok((paging, block_ms))
}

/// The options of a command that returns pages of names: the name to continue after, and the
/// number.
pub fn after_and_count(words: &[Bytes]) -> Result<(Option<Bytes>, usize), Refusal> {
    let (mut after, mut count) = (None, None);
    options(words, |word, value| {
        match word {
            b"AFTER" => after = Some(value.clone()),
            b"COUNT" => count = Some(integer(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((after, bounded_count(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Bytes> {
        text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn numbers_are_decimal_and_in_range() {
        for (raw, value) in [("0", 0), ("-0", 0), ("7", 7), ("9223372036854775807", MAX_SEQUENCE)] {
            assert_eq!(integer(raw.as_bytes()), Ok(value));
        }
        for raw in [
            "",
            "-",
            "-1",
            "+1",
            "007",
            "1.0",
            "x",
            " 1",
            "9223372036854775808",
            "18446744073709551616",
        ] {
            assert!(integer(raw.as_bytes()).is_err(), "{raw}");
        }
        assert!(integer("9".repeat(200).as_bytes()).is_err() && positive(b"0").is_err());
    }

    #[test]
    fn bounds_may_leave_the_range_of_sequences_on_either_side() {
        assert_eq!(lower_bound(b"(9223372036854775807"), Ok(MAX_SEQUENCE + 1));
        assert_eq!(upper_bound(b"(0"), Ok(None));
        assert_eq!((lower_bound(b"+"), upper_bound(b"-")), (Ok(MAX_SEQUENCE), Ok(Some(0))));
        assert!(lower_bound(b"(").is_err() && upper_bound(b"(x").is_err());
    }

    #[test]
    fn options_come_in_pairs_of_known_words() {
        let mut paging = Paging::default();
        assert_eq!(
            options(&words("bytes 5 count 3"), |word, value| paging.take(word, value)),
            Ok(())
        );
        assert_eq!(paging, Paging { count: Some(3), bytes: Some(5) });
        for wrong in ["COUNT", "COUNT 1 BYTES", "SIDEWAYS 1", "COUNT x"] {
            let refused = options(&words(wrong), |word, value| paging.take(word, value));
            let named =
                wrong.split(' ').next_back().filter(|word| word.len() > 2).unwrap_or(&wrong[..5]);
            assert!(refused.is_err_and(|refusal| refusal.sentence.contains(named)), "{wrong}");
        }
    }

    #[test]
    fn counts_are_clamped() {
        assert_eq!([None, Some(0), Some(10_u64.pow(12))].map(bounded_count), [100, 1, 10_000]);
        let unlimited = Paging::default().limit(&Limits::default());
        assert_eq!(unlimited.body_bytes, Limits::default().reply_bytes);
        assert!(unlimited.first_always);
    }

    #[test]
    fn counted_keys_must_be_there() {
        let all = words("a b c");
        assert_eq!(counted(b"2", &all), Ok((&all[..2], &all[2..])));
        for count in ["0", "4", "9223372036854775807", "x"] {
            assert!(counted(count.as_bytes(), &all).is_err(), "{count}");
        }
    }
}
