//! The verb `hash-password`: reads a password from standard input, and prints its argon2 hash for
//! the configuration file or for ACL SETUSER.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use strandline_server::Hash;

/// Reads one line and prints its hash.
pub fn run() -> anyhow::Result<()> {
    let input = io::stdin();
    if input.is_terminal() {
        // The terminal shows what is typed: a pipe, or `read -s`, hides it.
        eprintln!("password (it is shown; use a pipe to hide it):");
    }
    let mut line = String::new();
    input.lock().read_line(&mut line).context("cannot read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "the password on standard input is empty");
    let hash = Hash::of(password.as_bytes()).map_err(anyhow::Error::msg)?;
    writeln!(io::stdout(), "{}", hash.text()).context("cannot print the hash")
}
