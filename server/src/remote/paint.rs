//! Colours on a terminal; none elsewhere, with `NO_COLOR`, or on a terminal that has none.

use std::env;
use std::io::{self, IsTerminal as _};

/// Whether output is coloured.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// For standard output.
    pub fn for_stdout() -> Paint {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var("TERM").is_ok_and(|terminal| terminal == "dumb");
        Paint(io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb)
    }

    /// Without colours.
    #[cfg(test)]
    pub const NONE: Paint = Paint(false);

    /// With colours, wherever it goes.
    #[cfg(test)]
    pub const ALWAYS: Paint = Paint(true);

    /// Text of less importance.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// A name.
    pub fn name(self, text: &str) -> String {
        self.with("36", text)
    }

    /// An error.
    pub fn error(self, text: &str) -> String {
        self.with("31", text)
    }

    /// A heading.
    pub fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
