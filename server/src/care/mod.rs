//! Looking after a directory from the command line, while no server runs on it: one file a verb.
//!
//! Exit codes: 0 all is well; 1 damage was found; 2 it could not be done, or not that way; 3 all is
//! well as far as it was done, but not all of what it printed was read: the reader of standard
//! output went away. A dump ends there; all else is done to its end. What was found goes to
//! standard output, one line each; progress goes to standard error, and only to a terminal.
//!
//! It does not know: the network, or how the engine does it.

mod backup;
mod dump;
mod import;
mod line;
mod output;
mod progress;
mod rebuild;
mod repair;
mod restore;
mod salvage;
mod verify;

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use output::{Output, complain};
use strandline::{Engine, Error, Finding, Options, is_empty_directory};

/// What can be done to a directory.
#[derive(Subcommand)]
pub enum Care {
    /// Check every checksum of every file and every index against its data. Changes nothing.
    ///
    /// Prints one line for each finding: file, byte, what is wrong, and the timeline and sequences
    /// where they are known. Of a directory that a server runs on, ask the server: TL.VERIFY.
    Verify(verify::Arguments),
    /// Check everything as verify does, and mend what is damaged in one of two copies from the
    /// other.
    ///
    /// Stores that are kept twice have two copies of each file of a segment. What is damaged in
    /// both, or is kept once, is printed and left as it is. Ends with 1 when damage was found,
    /// mended or not. Of a directory that a server runs on, ask the server: TL.VERIFY.
    Repair(repair::Arguments),
    /// Copy a directory into a new one, by hard links where the file system can.
    ///
    /// The copy holds everything that was acknowledged. Of a directory that a server runs on, ask
    /// the server: TL.BACKUP. Hard links are quick and share their bytes with the original: copy
    /// the backup to another disk to survive the loss of this one.
    Backup(backup::Arguments),
    /// Make a new directory from a backup, for a server to run on.
    ///
    /// It gets another history: clients' cursors from before are answered with EPOCH, and they read
    /// again.
    Restore(restore::Arguments),
    /// Save what can be read of a damaged directory into a new one. The damaged one is not changed.
    ///
    /// For when a server refuses to start, or a timeline cannot be read, and there is no backup.
    /// Works without the manifest, and around damage in segments and in the log. Prints what is
    /// damaged and what each timeline has lost. The new directory has another history: clients'
    /// cursors from before are answered with EPOCH. Ids of retries are forgotten. Without the
    /// manifest, names of stores and TTLs are lost: stores are called messages, sync and store-N
    /// and keep entries for ever. Prints of which conversations the members are lost:
    /// `strandline rebuild-members` makes them again.
    Salvage(salvage::Arguments),
    /// Make the ledgers of conversations' members and users' conversations again, where they are
    /// lost.
    ///
    /// For when a salvage reports lost ledgers, or an IM command a ledger that cannot be read.
    /// Members come from the ledgers of the members, from the joins, leaves and senders in the
    /// conversation, and from those who got copies of its events. Modes become auto; read marks and
    /// hidden messages that cannot be read are lost. Prints a line for each conversation and user.
    RebuildMembers(rebuild::Arguments),
    /// Write all entries to standard output as NDJSON: one JSON object a line.
    ///
    /// Fields: store, timeline, sequence, time (Unix ms), body. A name or body that is not UTF-8 is
    /// given as base64 in `timeline_base64` or `body_base64` instead.
    Dump(dump::Arguments),
    /// Append the entries of a dump, read from standard input, with their sequences.
    ///
    /// Entries get the time of the import, since times never fall inside a timeline and deletion by
    /// age goes by the server's clock; the field time is not used. A store that is missing is made,
    /// without TTL.
    Import(import::Arguments),
}

/// The exit code when not all that was printed was read.
const UNREAD: u8 = 3;

/// How it ended.
pub enum Outcome {
    /// All is well.
    Fine,
    /// Damage was found, and told.
    Damaged,
}

/// Runs a verb.
pub fn run(care: Care) -> ExitCode {
    let mut out = Output::default();
    let done = match care {
        Care::Verify(arguments) => verify::run(&arguments, &mut out),
        Care::Repair(arguments) => repair::run(&arguments, &mut out),
        Care::Backup(arguments) => backup::run(&arguments, &mut out),
        Care::Restore(arguments) => restore::run(&arguments, &mut out),
        Care::Salvage(arguments) => salvage::run(&arguments, &mut out),
        Care::RebuildMembers(arguments) => rebuild::run(&arguments, &mut out),
        Care::Dump(arguments) => dump::run(&arguments),
        Care::Import(arguments) => import::run(&arguments, &mut out),
    };
    match done {
        Ok(Outcome::Fine) if out.is_unread() => ExitCode::from(UNREAD),
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged) => ExitCode::from(1),
        Err(problem) if is_unread(&problem) => ExitCode::from(UNREAD),
        Err(problem) => {
            complain(crate::told_once(&problem));
            let damaged = matches!(problem.downcast_ref(), Some(Error::Corrupt { .. }));
            if damaged {
                complain(crate::AFTER_DAMAGE);
            }
            ExitCode::from(if damaged { 1 } else { 2 })
        }
    }
}

/// Whether a verb ended because nobody reads what it writes.
fn is_unread(problem: &anyhow::Error) -> bool {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    problem.downcast_ref().is_some_and(is_broken_pipe)
}

/// What is done with a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    /// It is made if there is none, or it is empty.
    Fill,
}

/// Opens a directory. When another has it, `instead` says what to do: if that is a server, what to
/// ask it.
///
/// An existing directory without an engine is refused, so that a mistyped name does not create one.
fn open(dir: &Path, how: Use, instead: &str) -> anyhow::Result<Engine> {
    let options = Options {
        create: how == Use::Fill && is_empty_directory(dir),
        read_only: how == Use::Read,
        max_body_bytes: strandline::MAX_BODY_BYTES,
        ..Options::default()
    };
    Engine::open(dir, options).map_err(|error| {
        let is_locked = matches!(error, Error::Locked { .. });
        let problem = anyhow::Error::from(error);
        if is_locked {
            problem.context(format!(
                "a server or another command is at work on {}: {instead}",
                dir.display()
            ))
        } else {
            problem
        }
    })
}

/// A finding, in a line.
fn finding_line(finding: &Finding) -> String {
    let mut line = if finding.path.as_os_str().is_empty() {
        finding.what.clone()
    } else {
        format!("{} at byte {}: {}", finding.path.display(), finding.at, finding.what)
    };
    if let Some((store, timeline)) = &finding.timeline {
        let _ = write!(line, "; timeline {store}:{}", timeline.escape_ascii());
    }
    if let Some((first, last)) = finding.sequences {
        let _ = write!(line, ", sequences {first} to {last}");
    }
    line
}
