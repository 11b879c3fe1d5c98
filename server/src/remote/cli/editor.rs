//! The line editor of the prompt: history, completion, hints.
//!
//! The history is a file of the person's, `$XDG_STATE_HOME/strandline/history`. Lines that contain
//! a password or begin with a space are not kept.

use std::borrow::Cow;
use std::env;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter as _};

use super::vocabulary::Vocabulary;
use crate::remote::paint::Paint;

/// Lines that are kept.
const KEPT_LINES: usize = 1_000;

/// Prints text above the prompt.
pub type Above = Box<dyn FnMut(String) + Send>;

/// The editor.
pub struct LineEditor {
    editor: Editor<Typist, FileHistory>,
    history: Option<PathBuf>,
}

impl LineEditor {
    /// An editor with the history of earlier calls.
    pub fn new(vocabulary: Vocabulary, paint: Paint) -> anyhow::Result<LineEditor> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .auto_add_history(false)
            .history_ignore_space(true)
            .max_history_size(KEPT_LINES)?
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Typist { vocabulary, paint }));
        let history = history_file();
        if let Some(path) = &history {
            // A first call has no file.
            let _ = editor.load_history(path);
        }
        Ok(LineEditor { editor, history })
    }

    /// A function that prints above the prompt while a line is edited.
    pub fn above(&mut self) -> Above {
        match self.editor.create_external_printer() {
            Ok(mut printer) => Box::new(move |text| {
                let _ = printer.print(text);
            }),
            Err(_) => Box::new(|text| print!("{text}")),
        }
    }

    /// The next line; `None` at the end of the input. Ctrl-C empties the line.
    pub fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>> {
        loop {
            match self.editor.readline(prompt) {
                Ok(line) => {
                    self.keep(&line);
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(problem) => return Err(problem.into()),
            }
        }
    }

    /// The known commands.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.editor.helper().expect("it is set when the editor is made").vocabulary
    }

    fn keep(&mut self, line: &str) {
        if has_secret(line) || !self.editor.add_history_entry(line).unwrap_or(false) {
            return;
        }
        if let Some(path) = &self.history {
            // The prompt works without a history.
            let _ = self.editor.append_history(path);
        }
    }
}

/// Whether a line may contain a password.
fn has_secret(line: &str) -> bool {
    let mut words = line.split_whitespace().map(str::to_ascii_uppercase);
    match words.next().as_deref() {
        Some("AUTH") => true,
        Some("HELLO") => words.any(|word| word == "AUTH"),
        Some("ACL") => words.next().is_some_and(|word| word == "SETUSER"),
        Some("CONFIG") => words.next().is_some_and(|word| word == "SET"),
        _ => false,
    }
}

/// The file of the history, in a folder that exists.
#[allow(clippy::disallowed_methods, reason = "the history is a file of the person's")]
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    let folder = state.filter(|path| path.is_absolute()).or_else(home)?.join("strandline");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Completes and hints while a person types.
struct Typist {
    vocabulary: Vocabulary,
    paint: Paint,
}

impl rustyline::Helper for Typist {}

impl Validator for Typist {}

impl Completer for Typist {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.vocabulary.completions(&line[..position]))
    }
}

impl Hinter for Typist {
    type Hint = Usage;

    fn hint(&self, line: &str, position: usize, _: &rustyline::Context<'_>) -> Option<Usage> {
        if position < line.len() {
            return None;
        }
        self.vocabulary.hint(line).map(Usage)
    }
}

impl Highlighter for Typist {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.paint.dim(hint))
    }
}

/// A hint that is shown only: it names arguments, which cannot be taken over.
struct Usage(String);

impl rustyline::hint::Hint for Usage {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_passwords_are_not_kept() {
        for line in ["AUTH x", "auth ann x", "HELLO 3 AUTH ann x", "ACL SETUSER ann >x"] {
            assert!(has_secret(line), "{line}");
        }
        for line in ["HELLO 3", "ACL LIST", "TL.APPEND messages:a AUTH", ""] {
            assert!(!has_secret(line), "{line}");
        }
    }
}
