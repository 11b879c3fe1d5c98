//! Progress bars on a terminal. Shows nothing elsewhere, so that logs and pipes stay clean.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for a number of bytes.
pub fn bytes(what: &'static str) -> ProgressBar {
    bar(what, "{prefix} {wide_bar} {bytes} of {total_bytes}, {eta} left")
}

/// A counter without a known end.
pub fn count(what: &'static str) -> ProgressBar {
    bar(what, "{prefix} {spinner} {human_pos} entries, {per_sec}")
}

/// A bar for a number of seconds.
pub fn seconds(what: String) -> ProgressBar {
    bar(what, "{prefix} {wide_bar} {pos} of {len} s")
}

fn bar(what: impl Into<Cow<'static, str>>, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(template).expect("the templates of this file are good");
    ProgressBar::new(0).with_prefix(what).with_style(style)
}
