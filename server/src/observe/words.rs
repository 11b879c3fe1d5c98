//! The words of a request as SLOWLOG and MONITOR show them: cut to a bounded size, and without
//! secrets.

use std::fmt::Write as _;

use bytes::Bytes;

/// The most words of a request that the list of slow commands keeps, and the most bytes of one.
const KEPT_WORDS: usize = 32;
const KEPT_BYTES: usize = 128;

/// The same for a line of MONITOR: 64 words of 1 KiB.
const SHOWN_WORDS: usize = 64;
const SHOWN_BYTES: usize = 1024;

/// What stands for the words of a command that may contain a secret.
const HIDDEN: &[u8] = b"(redacted)";

/// The words that the list of slow commands keeps. `is_secret`: only the name may be shown.
pub(super) fn kept_words(request: &[Bytes], is_secret: bool) -> Vec<Vec<u8>> {
    cut(request, is_secret, KEPT_WORDS, KEPT_BYTES)
}

/// The words of a request as a line of MONITOR, each in quotes.
pub fn shown_line(request: &[Bytes], is_secret: bool) -> String {
    let mut line = String::new();
    for word in cut(request, is_secret, SHOWN_WORDS, SHOWN_BYTES) {
        line.push_str(if line.is_empty() { "\"" } else { " \"" });
        for byte in word {
            match byte {
                b'"' => line.push_str("\\\""),
                // Redis does not escape it.
                b'\'' => line.push('\''),
                _ => write!(line, "{}", byte.escape_ascii()).expect("a string takes everything"),
            }
        }
        line.push('"');
    }
    line
}

/// At most `words` words of at most `bytes` bytes; what is left off is counted, as in Redis.
fn cut(request: &[Bytes], is_secret: bool, words: usize, bytes: usize) -> Vec<Vec<u8>> {
    let is_long = request.len() > words;
    let taken = if is_long { words - 1 } else { request.len() };
    let one = |(position, word): (usize, &Bytes)| match word.get(..bytes) {
        _ if is_secret && position > 0 => HIDDEN.to_vec(),
        Some(head) if word.len() > bytes => {
            let more = format!("... ({} more bytes)", word.len() - bytes);
            [head, more.as_bytes()].concat()
        }
        _ => word.to_vec(),
    };
    let mut kept: Vec<Vec<u8>> = request.iter().take(taken).enumerate().map(one).collect();
    if is_long {
        kept.push(format!("... ({} more arguments)", request.len() - taken).into_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Vec<Bytes> {
        words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn long_words_and_long_requests_are_cut_with_a_count() {
        let kept = kept_words(&request(&["X", &"y".repeat(130)]), false);
        assert_eq!(kept[1], format!("{}... (2 more bytes)", "y".repeat(128)).into_bytes());
        let kept = kept_words(&request(&["z"; 40]), false);
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[31], b"... (9 more arguments)");
        assert_eq!(kept_words(&request(&["z"; 32]), false).len(), 32);
    }

    #[test]
    fn of_a_secret_command_only_the_name_is_left() {
        let words = request(&["AUTH", "ann", "hunter2"]);
        assert_eq!(shown_line(&words, true), r#""AUTH" "(redacted)" "(redacted)""#);
        assert!(kept_words(&words, true).iter().all(|word| !word.ends_with(b"hunter2")));
    }

    #[test]
    fn a_line_has_no_control_characters() {
        let words = request(&["a\r\n", "it's \"so\"", "\u{1b}[2J"]);
        assert_eq!(shown_line(&words, false), r#""a\r\n" "it's \"so\"" "\x1b[2J""#);
    }
}
