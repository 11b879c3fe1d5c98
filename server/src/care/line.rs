//! A line of a dump: one entry as a JSON object.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// A line. It has a text or its base64 form: the text if the bytes are UTF-8.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The name of the store.
    pub store: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeline_base64: Option<String>,
    /// The sequence of the entry.
    pub sequence: u64,
    /// When it was committed, Unix ms.
    #[serde(default)]
    pub time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Line {
    /// The line for an entry.
    pub fn new(store: &str, timeline: &[u8], sequence: u64, time: u64, body: &[u8]) -> Line {
        let (timeline, timeline_base64) = text_or_base64(timeline);
        let (body, body_base64) = text_or_base64(body);
        Line { store: store.into(), timeline, timeline_base64, sequence, time, body, body_base64 }
    }

    /// The name of the timeline.
    pub fn timeline(&self) -> anyhow::Result<Vec<u8>> {
        bytes("timeline", self.timeline.as_deref(), self.timeline_base64.as_deref())
    }

    /// The body of the entry.
    pub fn body(&self) -> anyhow::Result<Vec<u8>> {
        bytes("body", self.body.as_deref(), self.body_base64.as_deref())
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.into()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

fn bytes(field: &str, text: Option<&str>, base64: Option<&str>) -> anyhow::Result<Vec<u8>> {
    match (text, base64) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).with_context(|| format!("{field}_base64 is not base64"))
        }
        _ => anyhow::bail!("exactly one of {field} and {field}_base64 is required"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_read_back_from_a_line() {
        let all: Vec<u8> = (0..=255).collect();
        for (name, body) in
            [(b"c/1".as_slice(), all.as_slice()), (&[0xFF], b""), ("ü\n\"".as_bytes(), b"\0{}")]
        {
            let json =
                serde_json::to_string(&Line::new("messages", name, 7, 9, body)).expect("a line");
            assert!(!json.contains('\n'), "{json}");
            let line: Line = serde_json::from_str(&json).expect("it reads back");
            assert_eq!(line.timeline().expect("a name"), name);
            assert_eq!(line.body().expect("a body"), body);
            assert_eq!((line.sequence, line.time), (7, 9));
        }
    }

    #[test]
    fn a_line_with_both_forms_of_a_body_or_none_or_a_strange_field_is_refused() {
        let line = |rest: &str| {
            let json = format!(r#"{{"store":"s","timeline":"t","sequence":1{rest}}}"#);
            serde_json::from_str::<Line>(&json)
                .map_err(anyhow::Error::from)
                .and_then(|line| line.body())
        };
        assert!(line(r#","body":"x""#).is_ok());
        assert!(line("").is_err() && line(r#","body":"x","body_base64":"eA==""#).is_err());
        assert!(
            line(r#","body_base64":"!""#).is_err() && line(r#","body":"x","colour":1"#).is_err()
        );
    }
}
