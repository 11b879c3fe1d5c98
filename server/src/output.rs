//! The output of a verb: lines on standard output. If the reader is gone, the verb does not fail:
//! the output remembers it, and the exit code reports it.

use std::fmt::{Arguments, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Standard output.
#[derive(Default)]
pub struct Output {
    is_unread: bool,
}

impl Output {
    /// Prints a line.
    pub fn line(&mut self, line: Arguments<'_>) {
        // All further lines would be lost too.
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

/// Reports a problem on standard error. It is not an error if nobody reads it.
pub fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "strandline: {what}");
}

/// Whether a verb ended because nobody reads its output.
pub fn is_unread(problem: &anyhow::Error) -> bool {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    problem.downcast_ref().is_some_and(is_broken_pipe)
}

/// The exit code of a verb that only prints. A problem is reported, and gives the code
/// `failure`. A reader of standard output that went away is no problem.
pub fn written(done: anyhow::Result<()>, failure: u8) -> ExitCode {
    match done {
        Err(problem) if !is_unread(&problem) => {
            complain(crate::chain_text(&problem));
            ExitCode::from(failure)
        }
        _ => ExitCode::SUCCESS,
    }
}
