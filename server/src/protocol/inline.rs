//! Inline commands: a line of words, as typed into a terminal, with the quoting rules of Redis.
//!
//! Between double quotes `\n \r \t \b \a \\ \"` and `\xHH` are escapes; between single quotes only
//! `\'` is. A closing quote ends the word.

use bytes::Bytes;

/// The words of a line, or `None` when a quote is not closed or is followed by something other than
/// a space.
pub fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let Some((_, behind)) = rest.split_first().filter(|(byte, _)| is_space(**byte)) {
            rest = behind;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, behind) = one_word(rest)?;
        words.push(Bytes::from(word));
        rest = behind;
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn one_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                let after = quoted(byte, behind, &mut word)?;
                return match after.first() {
                    Some(&next) if !is_space(next) => None,
                    _ => Some((word, after)),
                };
            }
            byte if is_space(byte) => break,
            byte => word.push(byte),
        }
        rest = behind;
    }
    Some((word, rest))
}

/// Reads up to the closing quote; returns the bytes after it.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            byte if byte == quote => return Some(rest),
            b'\\' if quote == b'"' => rest = escape(rest, word)?,
            b'\\' if rest.first() == Some(&b'\'') => {
                word.push(b'\'');
                rest = rest.get(1..)?;
            }
            byte => word.push(byte),
        }
    }
}

fn escape<'a>(rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    if let [b'x', high, low, behind @ ..] = rest
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        word.push(high << 4 | low);
        return Some(behind);
    }
    let (&byte, behind) = rest.split_first()?;
    word.push(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    });
    Some(behind)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        split(line.as_bytes()).map(|words| {
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        })
    }

    #[test]
    fn words_are_split_at_any_run_of_spaces() {
        assert_eq!(words("  PING \t hello  "), Some(vec!["PING".into(), "hello".into()]));
        assert_eq!(words("   "), Some(vec![]));
    }

    #[test]
    fn quotes_keep_spaces_and_escapes() {
        assert_eq!(
            words(r#"a "b c" 'd e' "" "#),
            Some(vec!["a".into(), "b c".into(), "d e".into(), String::new()])
        );
        assert_eq!(
            words(r#""\x41\n\"\\q" 'it\'s \n'"#),
            Some(vec!["A\n\"\\q".into(), "it's \\n".into()])
        );
    }

    #[test]
    fn a_quote_that_is_open_or_followed_by_text_is_refused() {
        for line in ["\"abc", "'abc", "\"abc\"d", "'a'b", "\"abc\\", "\"abc\\\""] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
