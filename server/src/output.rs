//! The output of a verb: lines on standard output. If the reader is gone, the verb does not fail:
//! the output remembers it, and the exit code reports it. Any other error is one, such as a full
//! disk.

use std::fmt::{Arguments, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Standard output.
#[derive(Default)]
pub struct Output {
    failed: Option<io::Error>,
}

impl Output {
    /// Prints a line.
    pub fn line(&mut self, line: Arguments<'_>) {
        // All further lines would be lost too.
        if self.failed.is_none() {
            self.failed = writeln!(io::stdout(), "{line}").err();
        }
    }

    /// The reason why some line could not be written, if there is one.
    pub fn end(self) -> anyhow::Result<()> {
        let ended = self.failed.map_or_else(|| io::stdout().flush(), Err);
        ended.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => error.into(),
            _ => anyhow::Error::from(error).context("cannot write to standard output"),
        })
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
