//! Documents with text that is rendered from the code, between `<!-- marker -->` and
//! `<!-- end -->`.
//!
//! `STRANDLINE_BLESS=1` writes the rendered text into a document instead of failing.
#![allow(clippy::disallowed_methods, reason = "a test of a document reads it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub const END: &str = "<!-- end -->\n";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the engine is a member of the workspace")
        .into()
}

/// The document with everything between markers as `rendered` returns it for the marker.
pub fn as_it_should_be(document: &str, rendered: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = document;
    while let Some((before, behind)) = rest.split_once("<!-- ") {
        let (marker, behind) = behind.split_once(" -->\n").expect("a marker ends on its line");
        if marker.ends_with(": begin") || marker.ends_with(": end") {
            // The server's tests render it.
            writeln!(out, "{before}<!-- {marker} -->").expect("a string takes all");
            rest = behind;
            continue;
        }
        let (_, after) = behind.split_once(END).unwrap_or_else(|| panic!("`{marker}` has no end"));
        write!(out, "{before}<!-- {marker} -->\n{}{END}", rendered(marker))
            .expect("a string takes all");
        rest = after;
    }
    out + rest
}

/// Fails with the first line of a document that is not as it should be.
pub fn check(name: &str, rendered: impl Fn(&str) -> String) {
    let path = root().join(name);
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let wanted = as_it_should_be(&document, rendered);
    if std::env::var("STRANDLINE_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, wanted).expect("the document can be written");
        return;
    }
    let differs =
        document.lines().zip(wanted.lines()).zip(1..).find(|((is, should), _)| is != should);
    if let Some(((is, should), line)) = differs {
        panic!(
            "{name}:{line} says\n  {is}\nthe code says\n  {should}\nSTRANDLINE_BLESS=1 rewrites it"
        );
    }
    assert_eq!(
        document.len(),
        wanted.len(),
        "{name} has lines too many or too few: STRANDLINE_BLESS=1"
    );
}
