//! Progress bars on a terminal. Shows nothing elsewhere, so that logs and pipes stay clean.

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

fn bar(what: &'static str, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(template).expect("the templates of this file are good");
    ProgressBar::new(0).with_prefix(what).with_style(style)
}
