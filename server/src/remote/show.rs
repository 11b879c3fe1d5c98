//! Replies as text for people.
//!
//! What is shown depends on the shape alone: a list that begins with a sequence and a time, or has
//! them after an id, is an entry, which gets a line; entries in a list are aligned. Maps are tables
//! of two columns. Times are shown in the local time zone.
//!
//! Control characters are escaped, so that a body cannot change the terminal.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::frame::Frame;
use super::paint::Paint;

/// Times in milliseconds between September 2001 and the year 2286 have thirteen digits. No
/// timeline that a person reads has a sequence of that size.
const TIMES: std::ops::Range<i64> = 1_000_000_000_000..10_000_000_000_000;

/// How a level is indented.
const INDENT: &str = "  ";

/// A frame as lines, without the last line's end.
pub fn lines(frame: &Frame, paint: Paint) -> String {
    match frame {
        Frame::Array(elements) if elements.is_empty() => paint.dim("(empty)"),
        Frame::Array(elements) if is_entry(elements) => entry(elements, paint).join(INDENT),
        Frame::Array(elements) | Frame::Push(elements) => list(elements, paint),
        Frame::Map(pairs) if pairs.is_empty() => paint.dim("(empty)"),
        Frame::Map(pairs) => table(pairs, paint),
        Frame::Error(text) => paint.error(&format!("(error) {}", escaped(text.as_bytes(), false))),
        // Text of several lines, such as that of INFO.
        Frame::Simple(bytes) | Frame::Bulk(bytes) => {
            escaped(bytes, true).trim_end_matches('\n').to_owned()
        }
        other => cell(other, paint),
    }
}

/// A push frame as one line.
pub fn push(elements: &[Frame], paint: Paint) -> String {
    let is_pushed_entry =
        elements.windows(2).any(|pair| matches!(pair[0], Frame::Integer(_)) && is_time(&pair[1]));
    let shown = if is_pushed_entry {
        entry(elements, paint)
    } else {
        elements.iter().map(|element| field(element, paint)).collect()
    };
    format!("{} {}", paint.dim("push"), shown.join(INDENT))
}

/// Milliseconds of Unix time as local time, in the form of ISO 8601.
pub fn local_time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => {
            let zoned = time.to_zoned_datetime(TimeZone::system());
            zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
        }
        Err(_) => ms.to_string(),
    }
}

/// Bytes as text. What is not printable is escaped as in a quoted word of the prompt.
pub fn escaped(bytes: &[u8], with_lines: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' if with_lines => text.push('\n'),
                '\r' if with_lines => {}
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                letter if letter.is_control() => {
                    for byte in letter.to_string().bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn is_time(frame: &Frame) -> bool {
    matches!(frame, Frame::Integer(number) if TIMES.contains(number))
}

fn is_entry(elements: &[Frame]) -> bool {
    let has_both = |position: usize| {
        matches!(elements.get(position), Some(Frame::Integer(_)))
            && elements.get(position + 1).is_some_and(is_time)
    };
    elements.len() > 2 && (has_both(0) || has_both(1))
}

/// The fields of an entry.
fn entry(elements: &[Frame], paint: Paint) -> Vec<String> {
    let has_passed_time = elements.iter().scan(false, |passed, element| {
        let before = *passed;
        *passed |= is_time(element);
        Some(before)
    });
    let parts = elements.iter().zip(has_passed_time);
    parts
        .map(|(element, after_time)| match element {
            Frame::Integer(ms) if !after_time && is_time(element) => paint.dim(&local_time(*ms)),
            Frame::Integer(_) if !after_time => paint.name(&field(element, paint)),
            other => field(other, paint),
        })
        .collect()
}

/// A value in one line, between others: an empty string is visible.
fn field(frame: &Frame, paint: Paint) -> String {
    match frame {
        Frame::Simple(bytes) | Frame::Bulk(bytes) if bytes.is_empty() => paint.dim("\"\""),
        other => cell(other, paint),
    }
}

/// A value in one line.
fn cell(frame: &Frame, paint: Paint) -> String {
    match frame {
        Frame::Simple(bytes) | Frame::Bulk(bytes) => escaped(bytes, false),
        Frame::Error(text) => paint.error(&escaped(text.as_bytes(), false)),
        Frame::Integer(number) => number.to_string(),
        Frame::Null => paint.dim("(null)"),
        Frame::Array(elements) | Frame::Push(elements) => {
            let shown: Vec<String> = elements.iter().map(|element| cell(element, paint)).collect();
            format!("[{}]", shown.join(", "))
        }
        Frame::Map(pairs) => {
            let shown: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}: {}", cell(key, paint), cell(value, paint)))
                .collect();
            format!("{{{}}}", shown.join(", "))
        }
    }
}

fn is_flat(frame: &Frame) -> bool {
    match frame {
        Frame::Array(elements) => elements.is_empty(),
        Frame::Map(pairs) => pairs.is_empty(),
        _ => true,
    }
}

fn list(elements: &[Frame], paint: Paint) -> String {
    if elements.iter().all(|element| is_entry(element.elements())) {
        let rows = elements.iter().map(|element| entry(element.elements(), paint));
        return aligned(&rows.collect::<Vec<_>>());
    }
    if elements.iter().all(is_flat) {
        let shown: Vec<String> = elements.iter().map(|element| field(element, paint)).collect();
        return shown.join("\n");
    }
    let shown: Vec<String> = (1..)
        .zip(elements)
        .map(|(number, element)| {
            let head = format!("{number})");
            let text = indented(&lines(element, paint), head.len() + 1);
            format!("{} {}", paint.dim(&head), text)
        })
        .collect();
    shown.join("\n")
}

fn table(pairs: &[(Frame, Frame)], paint: Paint) -> String {
    let names: Vec<String> = pairs.iter().map(|(key, _)| cell(key, paint)).collect();
    let widest = names.iter().map(|name| width(name)).max().unwrap_or_default();
    let shown: Vec<String> = names
        .iter()
        .zip(pairs)
        .map(|(name, (_, value))| {
            let gap = " ".repeat(widest - width(name));
            let shown = match value {
                Frame::Integer(ms) if is_time(value) && names_a_time(name) => {
                    format!("{ms} {}", paint.dim(&format!("({})", local_time(*ms))))
                }
                value if is_flat(value) => field(value, paint),
                Frame::Array(elements) if elements.iter().all(is_flat) && !is_entry(elements) => {
                    cell(value, paint)
                }
                value => {
                    let below = format!("{INDENT}{}", lines(value, paint));
                    return format!("{}\n{}", paint.name(name), indented(&below, INDENT.len()));
                }
            };
            format!("{}{gap}{INDENT}{shown}", paint.name(name))
        })
        .collect();
    shown.join("\n")
}

fn names_a_time(name: &str) -> bool {
    name == "time" || name == "created" || name.ends_with("_time") || name.ends_with("_ms")
}

/// Lines with the second and all further ones indented.
fn indented(text: &str, columns: usize) -> String {
    text.replace('\n', &format!("\n{}", " ".repeat(columns)))
}

/// Rows in columns; the last column is not filled up.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (known, cell) in widths.iter_mut().zip(row) {
            *known = (*known).max(width(cell));
        }
    }
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (position, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if position + 1 < row.len() {
                line.push_str(&" ".repeat(widths[position] - width(cell) + INDENT.len()));
            }
        }
        line
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The columns that a text takes on a terminal, without its colours.
fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn bulk(text: &str) -> Frame {
        Frame::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn shown(frame: &Frame) -> String {
        lines(frame, Paint::NONE)
    }

    fn stored(sequence: i64, body: &str) -> Frame {
        Frame::Array(vec![Frame::Integer(sequence), Frame::Integer(1_700_000_000_000), bulk(body)])
    }

    #[test]
    fn entries_are_aligned_lines_of_sequence_time_and_body() {
        let time = local_time(1_700_000_000_000);
        assert!(time.starts_with("2023-11-1") && time.len() == 29, "{time}");
        let frame = Frame::Array(vec![stored(9, "a\nb"), stored(10, "")]);
        assert_eq!(shown(&frame), format!("9   {time}  a\\nb\n10  {time}  \"\""));
        assert_eq!(shown(&stored(9, "x")), format!("9  {time}  x"));
    }

    #[test]
    fn push_frames_are_one_line_with_the_time_of_their_entry() {
        let time = local_time(1_700_000_000_000);
        let mut elements = vec![bulk("tl.entry"), bulk("messages:a")];
        elements.extend_from_slice(stored(9, "x\ny").elements());
        assert_eq!(
            push(&elements, Paint::NONE),
            format!("push tl.entry  messages:a  9  {time}  x\\ny")
        );
        let elements = [bulk("message"), bulk("a"), bulk("")];
        assert_eq!(push(&elements, Paint::NONE), "push message  a  \"\"");
    }

    #[test]
    fn maps_are_tables_and_lists_in_them_are_indented() {
        let frame = Frame::Map(vec![
            (bulk("verdict"), bulk("OK")),
            (bulk("last"), Frame::Integer(2)),
            (bulk("first_time"), Frame::Integer(1_700_000_000_000)),
            (bulk("entries"), Frame::Array(vec![stored(1, "x"), stored(2, "y")])),
        ]);
        let time = local_time(1_700_000_000_000);
        assert_eq!(
            shown(&frame),
            format!(
                "verdict     OK\nlast        2\nfirst_time  1700000000000 ({time})\n\
                 entries\n  1  {time}  x\n  2  {time}  y"
            )
        );
    }

    #[test]
    fn other_lists_have_a_line_for_each_element_and_numbers_if_these_are_lists() {
        assert_eq!(shown(&Frame::Array(vec![bulk("a"), Frame::Null])), "a\n(null)");
        let nested = Frame::Array(vec![bulk("a"), Frame::Array(vec![bulk("b"), bulk("c")])]);
        assert_eq!(shown(&nested), "1) a\n2) b\n   c");
        assert_eq!(shown(&Frame::Array(vec![])), "(empty)");
    }

    #[test]
    fn no_body_can_send_control_characters_to_the_terminal() {
        let evil = Frame::Bulk(Bytes::from_static(b"\x1b[2J\xff\xc2\x9b\r\nline"));
        assert_eq!(shown(&evil), "\\x1b[2J\\xff\\xc2\\x9b\nline");
        let entry = Frame::Array(vec![Frame::Integer(1), Frame::Integer(1_700_000_000_000), evil]);
        assert!(shown(&entry).ends_with("\\x1b[2J\\xff\\xc2\\x9b\\r\\nline"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let plain = shown(&Frame::Array(vec![stored(9, "a"), stored(10, "b")]));
        let frame = Frame::Array(vec![stored(9, "a"), stored(10, "b")]);
        let coloured = lines(&frame, Paint::ALWAYS);
        assert!(coloured.contains("\x1b["), "{coloured:?}");
        assert_eq!(console::strip_ansi_codes(&coloured), plain);
    }
}
