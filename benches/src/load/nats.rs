//! The part of the NATS protocol that a load generator needs: messages are published to a stream of
//! `JetStream`, which answers each with its sequence in the stream.

use anyhow::{Context, Result, bail};

use super::resp::Reply;

/// The name of the stream that all messages go to.
const TOPIC: &str = "T";

/// The first lines that a client sends. The server has sent one line before. Answers come to the
/// client's own inbox.
pub fn greeting(client: u64) -> Vec<u8> {
    let connect = "CONNECT {\"verbose\":false,\"pedantic\":false}";
    format!("{connect}\r\nSUB _INBOX.{client}.* 1\r\n").into_bytes()
}

/// Appends a client's message to a timeline.
pub fn write_publish(out: &mut Vec<u8>, client: u64, timeline: u32, body: &[u8]) {
    publish(out, client, &format!("t.{timeline:08}"), body);
}

/// Appends a client's request that creates the stream, in files.
pub fn write_create(out: &mut Vec<u8>, client: u64) {
    let what = format!(r#"{{"name":"{TOPIC}","subjects":["t.>"],"storage":"file"}}"#);
    publish(out, client, &format!("$JS.API.STREAM.CREATE.{TOPIC}"), what.as_bytes());
}

fn publish(out: &mut Vec<u8>, client: u64, subject: &str, payload: &[u8]) {
    let line = format!("PUB {subject} _INBOX.{client}.a {}\r\n", payload.len());
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// What is at the front of the bytes that a server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The answer to a message.
    Answer(Reply),
    /// A line of this length that asks for a sign of life.
    Ping(usize),
    /// A line of this length that needs no answer.
    Other(usize),
}

/// The frame at the front of `buffer`; `None` when it is not complete yet.
pub fn first_frame(buffer: &[u8]) -> Result<Option<Frame>> {
    let Some(length) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (line, after) = (&buffer[..length], length + 2);
    if line == b"PING" {
        return Ok(Some(Frame::Ping(after)));
    }
    if line.starts_with(b"-ERR") {
        bail!("the server says {}", line.escape_ascii());
    }
    if !line.starts_with(b"MSG ") {
        return Ok(Some(Frame::Other(after)));
    }
    let payload = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let payload: usize = std::str::from_utf8(payload)?.parse().context("the size of a message")?;
    let bytes = after + payload + 2;
    let Some(content) = buffer.get(after..bytes) else { return Ok(None) };
    let is_error = content.windows(8).any(|window| window == b"\"error\":");
    Ok(Some(Frame::Answer(Reply { bytes, is_error })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_pings_and_other_lines_are_told_apart() {
        let answer = b"MSG _INBOX.a.b 1 26\r\n{\"stream\":\"T\", \"seq\":1234}\r\nPING\r\n";
        let bytes = answer.len() - 6;
        let reply = Reply { bytes, is_error: false };
        assert_eq!(first_frame(answer).expect("is well-formed"), Some(Frame::Answer(reply)));
        for length in 0..bytes {
            assert_eq!(first_frame(&answer[..length]).expect("is well-formed"), None, "{length}");
        }
        let ping = first_frame(&answer[bytes..]).expect("is well-formed");
        assert_eq!(ping, Some(Frame::Ping(6)));
        assert_eq!(first_frame(b"INFO {}\r\n").expect("is well-formed"), Some(Frame::Other(9)));
        assert!(first_frame(b"-ERR 'Unknown'\r\n").is_err());
    }

    #[test]
    fn an_answer_that_is_an_error_is_seen() {
        let answer = b"MSG _INBOX.a.b 1 24\r\n{\"error\":{\"code\":503}}  \r\n";
        let Some(Frame::Answer(reply)) = first_frame(answer).expect("is well-formed") else {
            panic!("it is an answer")
        };
        assert!(reply.is_error);
    }

    #[test]
    fn a_message_says_its_length() {
        let mut out = Vec::new();
        write_publish(&mut out, 3, 7, b"hello");
        assert_eq!(out, b"PUB t.00000007 _INBOX.3.a 5\r\nhello\r\n");
    }
}
