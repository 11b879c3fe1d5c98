//! What a verb prints: lines on standard output for whoever reads them. That nobody reads any more
//! is no failure of the verb: it is remembered, and told by the exit code.

use std::fmt::{Arguments, Display};
use std::io::{self, Write as _};

/// Standard output.
#[derive(Default)]
pub struct Output {
    is_unread: bool,
}

impl Output {
    /// Prints a line.
    pub fn line(&mut self, line: Arguments<'_>) {
        // The rest would be lost, too.
        if !self.is_unread {
            self.is_unread = writeln!(io::stdout(), "{line}").is_err();
        }
    }

    /// Whether some line could not be written.
    pub fn is_unread(&mut self) -> bool {
        self.is_unread |= io::stdout().flush().is_err();
        self.is_unread
    }
}

/// Says what is wrong on standard error, if anybody reads it.
pub fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "strandline: {what}");
}
