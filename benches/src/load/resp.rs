//! The part of RESP that a load generator needs: commands are written, replies are measured and
//! dropped.

use anyhow::{Result, bail, ensure};

/// Nested deeper than this, a value cannot be a reply to these commands.
const DEEPEST: usize = 16;

/// Appends one command to `out`.
pub fn write_command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    begin_command(out, parts.len());
    for part in parts {
        write_part(out, part);
    }
}

/// Appends the head of a command of this many parts, which `write_part` must follow.
pub fn begin_command(out: &mut Vec<u8>, parts: usize) {
    out.extend_from_slice(format!("*{parts}\r\n").as_bytes());
}

/// Appends one part of a command.
pub fn write_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

/// A complete reply at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How long it is.
    pub bytes: usize,
    /// Whether it is an error.
    pub is_error: bool,
}

/// The reply at the front of `buffer`; `None` when it is not complete yet.
pub fn first_reply(buffer: &[u8]) -> Result<Option<Reply>> {
    let Some(bytes) = end_of_value(buffer, 0, 0)? else { return Ok(None) };
    let is_error = matches!(buffer.first(), Some(b'-' | b'!'));
    Ok(Some(Reply { bytes, is_error }))
}

/// Where the value that starts at `at` ends.
fn end_of_value(buffer: &[u8], at: usize, depth: usize) -> Result<Option<usize>> {
    ensure!(depth < DEEPEST, "a reply is nested deeper than {DEEPEST}");
    let Some(&kind) = buffer.get(at) else { return Ok(None) };
    let Some(line_length) = buffer[at..].windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = &buffer[at + 1..at + line_length];
    let after = at + line_length + 2;
    let values = match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return Ok(Some(after)),
        b'$' | b'!' | b'=' => {
            let end = usize::try_from(number(line)?).map_or(after, |length| after + length + 2);
            return Ok((end <= buffer.len()).then_some(end));
        }
        b'*' | b'~' | b'>' => number(line)?,
        b'%' => number(line)? * 2,
        other => bail!("no reply begins with {:?}", char::from(other)),
    };
    let mut end = after;
    for _ in 0..values {
        match end_of_value(buffer, end, depth + 1)? {
            Some(next) => end = next,
            None => return Ok(None),
        }
    }
    Ok(Some(end))
}

fn number(line: &[u8]) -> Result<i64> {
    let parsed: i64 = std::str::from_utf8(line)?.parse()?;
    ensure!((-1..=1 << 30).contains(&parsed), "a reply says it has {parsed} parts or bytes");
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length_of(reply: &[u8]) -> Option<usize> {
        first_reply(reply).expect("a well-formed reply").map(|reply| reply.bytes)
    }

    #[test]
    fn each_kind_of_reply_ends_where_it_ends() {
        let replies: [&[u8]; 9] = [
            b"+OK\r\n",
            b":12\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"*0\r\n",
            b"!3\r\nbad\r\n",
        ];
        for reply in replies {
            let followed = [reply, b"+next\r\n"].concat();
            assert_eq!(length_of(&followed), Some(reply.len()), "{}", reply.escape_ascii());
        }
    }

    #[test]
    fn no_prefix_of_a_reply_is_taken_for_a_whole_one() {
        let reply = b"*2\r\n*3\r\n:1\r\n:22\r\n$4\r\nbody\r\n$-1\r\n";
        for length in 0..reply.len() {
            assert_eq!(length_of(&reply[..length]), None, "the first {length} bytes");
        }
    }

    #[test]
    fn an_error_is_seen() {
        assert!(first_reply(b"-ERR no\r\n").expect("a reply").expect("a whole one").is_error);
        assert!(!first_reply(b"+OK\r\n").expect("a reply").expect("a whole one").is_error);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        assert!(first_reply(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(first_reply(b"$99999999999\r\n").is_err());
        assert!(first_reply(&b"*1\r\n".repeat(100)).is_err());
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"TL.LAST", b"messages:a"]);
        assert_eq!(out, b"*2\r\n$7\r\nTL.LAST\r\n$10\r\nmessages:a\r\n");
    }
}
