//! What is wrong in a TOML file, and where. The errors of the parsers repeat the line, and those of
//! types the value, which may be secrets: this text has neither.

use std::ops::Range;

/// The text of an error, from its message and the part of `file` that it is about.
pub fn mistake(file: &str, message: &str, part: Option<Range<usize>>) -> String {
    let what = match message.rsplit_once(", expected ") {
        // "invalid type: string "…", expected …"
        Some((found, needed)) if found.starts_with("invalid ") => format!("expected {needed}"),
        _ => message.trim_end().replace('\n', ", "),
    };
    let before = part.and_then(|part| file.get(..part.start));
    let Some(before) = before else { return what };
    let line = before.split('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_place_is_named_and_nothing_of_the_line_is_repeated() {
        for (file, line, needed) in [
            ("password = sesame", "line 1, column 12: ", "quoted"),
            ("port = 1\npassword \"sesame\"", "line 2, column 10: ", "expected `=`"),
            ("password = \"sesame\" x", "line 1, column 21: ", "expected newline"),
            ("password = \"sesame", "line 1, column ", "expected `\"`"),
            ("users = \"sesame\"", "line 1, column 9: ", "expected a map"),
            ("[users]\nann = \"a, expected sesame\"", "line 2, column 7: ", "UserSettings"),
            ("prot = \"sesame\"", "line 1, column 1: ", "unknown field `prot`"),
        ] {
            let error = toml::from_str::<Config>(file).err().expect("it is refused");
            let text = mistake(file, error.message(), error.span());
            assert!(text.starts_with(line) && text.contains(needed), "{file}: {text}");
            assert!(!text.contains("sesame") && !text.contains('\n'), "{text}");
        }
    }
}
