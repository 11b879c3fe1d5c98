//! Replies and push frames as values: RESP2 and RESP3 on the client's side.
//!
//! Promises: any bytes give a frame, "not yet", or an error. Memory is allocated in proportion to
//! the bytes that arrived, never to a length that the peer only announced.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// Frames that are nested deeper are refused.
const DEEPEST: usize = 32;

/// The longest string, and the most elements of a frame. The server's own limits are lower.
const LARGEST: u64 = 1 << 30;

/// The longest line: a simple string or an error.
const LONGEST_LINE: usize = 1 << 20;

/// The peer's bytes are not RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is not RESP: is this a Strandline server?")]
pub struct NotResp;

/// One unit of RESP.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A simple string, or a number in a form that is kept as it came.
    Simple(Bytes),
    /// An error: a word, then a sentence.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A string of any bytes.
    Bulk(Bytes),
    /// Null.
    Null,
    /// A list.
    Array(Vec<Frame>),
    /// Pairs.
    Map(Vec<(Frame, Frame)>),
    /// A frame that answers no command.
    Push(Vec<Frame>),
}

/// The first line of a frame, and what follows it.
enum Head<'a> {
    Line(u8, &'a [u8]),
    Blob(u8, usize),
    Null,
    Many(u8, usize),
}

impl Frame {
    /// The length of the frame at the front of the bytes; `None` if it is not complete.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, NotResp> {
        let (mut position, mut missing) = (0, 1_u64);
        while missing > 0 {
            let Some((head, end)) = head(bytes, position)? else { return Ok(None) };
            missing -= 1;
            position = end;
            match head {
                Head::Blob(_, length) => position += length + 2,
                Head::Many(kind, count) => {
                    missing += count as u64 * if kind == b'%' { 2 } else { 1 };
                }
                Head::Line(..) | Head::Null => {}
            }
            if position > bytes.len() {
                return Ok(None);
            }
        }
        Ok(Some(position))
    }

    /// The frame of these bytes, which are complete.
    pub fn decode(bytes: &Bytes) -> Result<Frame, NotResp> {
        decode_at(bytes, &mut 0, 0)
    }

    /// The text of a string or an integer; empty for anything else.
    pub fn text(&self) -> String {
        match self {
            Frame::Simple(bytes) | Frame::Bulk(bytes) => String::from_utf8_lossy(bytes).into(),
            Frame::Error(text) => text.clone(),
            Frame::Integer(number) => number.to_string(),
            _ => String::new(),
        }
    }

    /// The bytes of a string; empty for anything else.
    pub fn bytes(&self) -> Bytes {
        match self {
            Frame::Simple(bytes) | Frame::Bulk(bytes) => bytes.clone(),
            _ => Bytes::new(),
        }
    }

    /// An integer, or digits in a string.
    pub fn number(&self) -> Option<i64> {
        match self {
            Frame::Integer(number) => Some(*number),
            _ => self.text().parse().ok(),
        }
    }

    /// The value of a map at this key.
    pub fn get(&self, key: &str) -> Option<&Frame> {
        let Frame::Map(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name.bytes() == key.as_bytes()).map(|(_, value)| value)
    }

    /// The elements of a list or a push frame; none of anything else.
    pub fn elements(&self) -> &[Frame] {
        match self {
            Frame::Array(elements) | Frame::Push(elements) => elements,
            _ => &[],
        }
    }

    /// The reply, or the error that it is.
    pub fn or_error(self) -> Result<Frame, Refused> {
        match self {
            Frame::Error(text) => Err(Refused(text)),
            other => Ok(other),
        }
    }
}

/// The server refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

fn head(bytes: &[u8], position: usize) -> Result<Option<(Head<'_>, usize)>, NotResp> {
    let Some((&kind, rest)) = bytes.get(position..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    if !b"+-:(,#_$!=*~>%".contains(&kind) {
        return Err(NotResp);
    }
    let searched = &rest[..rest.len().min(LONGEST_LINE)];
    let Some(length) = searched.windows(2).position(|pair| pair == b"\r\n") else {
        return if rest.len() < LONGEST_LINE { Ok(None) } else { Err(NotResp) };
    };
    let (line, end) = (&rest[..length], position + 1 + length + 2);
    let head = match kind {
        b'_' => Head::Null,
        b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' if line == b"-1" => Head::Null,
        b'$' | b'!' | b'=' => Head::Blob(kind, announced(line)?),
        b'*' | b'~' | b'>' | b'%' => Head::Many(kind, announced(line)?),
        _ => Head::Line(kind, line),
    };
    Ok(Some((head, end)))
}

/// The length that a line announces: digits.
fn announced(line: &[u8]) -> Result<usize, NotResp> {
    let digits = std::str::from_utf8(line).ok().filter(|_| line.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    number.filter(|number| *number <= LARGEST).map(|number| number as usize).ok_or(NotResp)
}

fn decode_at(bytes: &Bytes, position: &mut usize, depth: usize) -> Result<Frame, NotResp> {
    if depth > DEEPEST {
        return Err(NotResp);
    }
    let (head, end) = head(bytes, *position)?.ok_or(NotResp)?;
    let line_start = *position + 1;
    *position = end;
    let mut next = || decode_at(bytes, position, depth + 1);
    Ok(match head {
        Head::Null => Frame::Null,
        Head::Line(kind, line) => {
            let text = std::str::from_utf8(line);
            match kind {
                b'-' => Frame::Error(String::from_utf8_lossy(line).into()),
                b':' => {
                    Frame::Integer(text.ok().and_then(|text| text.parse().ok()).ok_or(NotResp)?)
                }
                b'#' => Frame::Integer(i64::from(line == b"t")),
                _ => Frame::Simple(bytes.slice(line_start..line_start + line.len())),
            }
        }
        Head::Blob(kind, length) => {
            let end = *position + length;
            if end + 2 > bytes.len() {
                return Err(NotResp);
            }
            let blob = bytes.slice(*position..end);
            *position = end + 2;
            match kind {
                b'!' => Frame::Error(String::from_utf8_lossy(&blob).into()),
                // A verbatim string begins with its format: `txt:`.
                b'=' if length >= 4 => Frame::Bulk(blob.slice(4..)),
                _ => Frame::Bulk(blob),
            }
        }
        Head::Many(kind @ (b'*' | b'~' | b'>'), count) => {
            let elements = (0..count).map(|_| next()).collect::<Result<Vec<Frame>, NotResp>>()?;
            if kind == b'>' { Frame::Push(elements) } else { Frame::Array(elements) }
        }
        Head::Many(_, count) => {
            let pairs = (0..count).map(|_| Ok((next()?, next()?)));
            Frame::Map(pairs.collect::<Result<_, NotResp>>()?)
        }
    })
}

/// JSON: strings that are not UTF-8 become `{"base64": …}`, errors `{"error": …}`, push frames
/// `{"push": […]}`.
impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Frame::Simple(bytes) | Frame::Bulk(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => one_field(serializer, "base64", &base64_text(bytes)),
            },
            Frame::Error(text) => one_field(serializer, "error", text),
            Frame::Integer(number) => serializer.serialize_i64(*number),
            Frame::Null => serializer.serialize_none(),
            Frame::Array(elements) => serializer.collect_seq(elements),
            Frame::Push(elements) => one_field(serializer, "push", elements),
            Frame::Map(pairs) => {
                let named = pairs.iter().map(|(key, value)| (key.text(), value));
                serializer.collect_map(named)
            }
        }
    }
}

fn one_field<S: Serializer>(
    serializer: S,
    name: &str,
    value: &(impl Serialize + ?Sized),
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}

/// Bytes as base64, as dumps have them.
pub fn base64_text(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &'static [u8]) -> Frame {
        assert_eq!(Frame::length(bytes), Ok(Some(bytes.len())), "{}", bytes.escape_ascii());
        Frame::decode(&Bytes::from_static(bytes)).expect("a frame")
    }

    fn bulk(text: &'static str) -> Frame {
        Frame::Bulk(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn each_kind_of_frame_is_decoded() {
        assert_eq!(decoded(b"+OK\r\n"), Frame::Simple(Bytes::from_static(b"OK")));
        assert_eq!(decoded(b"-ERR no\r\n"), Frame::Error("ERR no".into()));
        assert_eq!(decoded(b":-7\r\n"), Frame::Integer(-7));
        assert_eq!(decoded(b"#t\r\n"), Frame::Integer(1));
        assert_eq!(decoded(b"$4\r\na\r\nb\r\n"), bulk("a\r\nb"));
        assert_eq!(decoded(b"=6\r\ntxt:hi\r\n"), bulk("hi"));
        for null in [b"_\r\n".as_slice(), b"$-1\r\n", b"*-1\r\n"] {
            assert_eq!(decoded(null), Frame::Null);
        }
        assert_eq!(
            decoded(b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n"),
            Frame::Map(vec![(
                bulk("a"),
                Frame::Array(vec![Frame::Integer(1), Frame::Array(vec![])])
            )])
        );
        assert_eq!(decoded(b">1\r\n$1\r\na\r\n"), Frame::Push(vec![bulk("a")]));
    }

    #[test]
    fn no_beginning_of_a_frame_is_taken_for_a_whole_one() {
        let bytes = b"%1\r\n$1\r\na\r\n*3\r\n:1\r\n:22\r\n$4\r\nbody\r\n";
        for length in 0..bytes.len() {
            assert_eq!(Frame::length(&bytes[..length]), Ok(None), "the first {length} bytes");
        }
    }

    #[test]
    fn bytes_that_are_no_resp_are_refused_without_memory_for_what_they_announce() {
        for bytes in [&b"HTTP/1.1 200 OK\r\n"[..], b"$99999999999\r\n", b"*x\r\n", b"$+1\r\nx"] {
            assert_eq!(Frame::length(bytes), Err(NotResp), "{}", bytes.escape_ascii());
        }
        assert_eq!(Frame::length(b"*1000000000\r\n"), Ok(None));
        let deep = Bytes::from([b"*1\r\n".repeat(100).as_slice(), b":1\r\n"].concat());
        assert_eq!(Frame::length(&deep), Ok(Some(deep.len())));
        assert_eq!(Frame::decode(&deep), Err(NotResp));
    }

    #[test]
    fn json_keeps_the_order_of_maps_and_all_bytes() {
        let frame = Frame::Map(vec![
            (bulk("z"), Frame::Integer(1)),
            (bulk("a"), Frame::Bulk(Bytes::from_static(&[0xFF]))),
            (bulk("n"), Frame::Array(vec![Frame::Null, Frame::Error("ERR x".into())])),
        ]);
        assert_eq!(
            serde_json::to_string(&frame).expect("it is JSON"),
            r#"{"z":1,"a":{"base64":"/w=="},"n":[null,{"error":"ERR x"}]}"#
        );
    }
}
