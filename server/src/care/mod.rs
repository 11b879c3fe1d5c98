//! The verbs that maintain a directory from the command line while no server runs on it; one file
//! per verb.
//!
//! Exit codes: 0: success. 1: damage was found. 2: the verb failed, or the command line is wrong.
//! 3: success, but the output was not read completely, since the reader of standard output went
//! away. A dump ends then; all other verbs are completed. Findings go to standard output, one per
//! line; progress goes to standard error, and only to a terminal.
//!
//! It knows nothing of the network, nor of how the engine does the work.

mod backup;
mod dump;
mod import;
mod line;
mod rebuild;
mod repair;
mod restore;
mod salvage;
mod verify;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use strandline::{Engine, Error, Finding, is_empty_directory};
use strandline_server::Config;

use crate::output::{Output, complain, is_unread};

/// The verbs that maintain a directory.
#[derive(Subcommand)]
pub enum Care {
    /// Check every checksum of every file and every index against its data. Changes nothing.
    ///
    /// Prints one line for each finding: file, byte, what is wrong, and the timeline and sequences
    /// if they are known. While a server runs on the directory, use TL.VERIFY of the server
    /// instead.
    Verify(verify::VerifyArguments),
    /// Check everything as verify does, and repair what is damaged in one of two copies from the
    /// other.
    ///
    /// Stores that are kept twice have two copies of each file of a segment. Damage in both copies,
    /// or in files that are kept once, is printed and left as it is. Ends with 1 if damage was
    /// found, repaired or not. While a server runs on the directory, use TL.VERIFY of the server
    /// instead.
    Repair(repair::RepairArguments),
    /// Copy a directory into a new one, by hard links where the file system can.
    ///
    /// The copy holds everything that was acknowledged. While a server runs on the directory, use
    /// TL.BACKUP of the server instead. Hard links are quick and share their bytes with the
    /// original: copy the backup to another disk to survive the loss of this one.
    Backup(backup::BackupArguments),
    /// Make a new directory from a backup, for a server to run on.
    ///
    /// It gets another history: cursors of clients from before get the verdict EPOCH, and the
    /// clients read again.
    Restore(restore::RestoreArguments),
    /// Save what can be read of a damaged directory into a new one. The damaged one is not changed.
    ///
    /// For use when a server refuses to start, or a timeline cannot be read, and there is no
    /// backup. Works without the manifest, and around damage in segments and in the log. Prints
    /// what is damaged and what each timeline has lost. The new directory has another history:
    /// cursors of clients from before get the verdict EPOCH. Ids of retries are forgotten. Without
    /// the manifest, names of stores and TTLs are lost: stores are called messages, sync and
    /// store-N and keep entries without a TTL. Prints the conversations whose members are lost:
    /// `strandline rebuild-members` rebuilds these.
    Salvage(salvage::SalvageArguments),
    /// Rebuild the ledgers of conversations' members and users' conversations, where they are lost.
    ///
    /// For use when a salvage reports lost ledgers, or an IM command a ledger that cannot be read.
    /// Members come from the ledgers of the members, from the joins, leaves and senders in the
    /// conversation, and from the users who got copies of its events. Modes become auto; read marks
    /// and hidden messages that cannot be read are lost. Prints a line for each conversation and
    /// user.
    RebuildMembers(rebuild::RebuildArguments),
    /// Write all entries to standard output as NDJSON: one JSON object per line.
    ///
    /// Fields: store, timeline, sequence, time (Unix ms), body. A name or body that is not UTF-8 is
    /// given as base64 in `timeline_base64` or `body_base64` instead.
    Dump(dump::DumpArguments),
    /// Append the entries of a dump, read from standard input, with their sequences.
    ///
    /// Entries get the time of the import, since times never decrease within a timeline and expiry
    /// uses the server's clock; the field time is ignored. A store that is missing is created,
    /// without a TTL.
    Import(import::ImportArguments),
}

/// The exit code if the output was not read completely.
const UNREAD: u8 = 3;

/// The result of a verb.
pub enum Outcome {
    /// Success.
    Fine,
    /// Damage was found and reported.
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
    let done = match done {
        Ok(Outcome::Fine) => out.end().map(|()| Outcome::Fine),
        done => done,
    };
    match done {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged) => ExitCode::from(1),
        Err(problem) if is_unread(&problem) => ExitCode::from(UNREAD),
        Err(problem) => {
            complain(crate::chain_text(&problem));
            let damaged = matches!(problem.downcast_ref(), Some(Error::Corrupt { .. }));
            if damaged {
                complain(crate::AFTER_DAMAGE);
            }
            ExitCode::from(if damaged { 1 } else { 2 })
        }
    }
}

/// How a directory is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    /// The directory is created if it does not exist, or is empty.
    Fill,
}

/// Opens a directory. If another process has it open, the error includes `instead`: what the user
/// can do.
///
/// An existing directory without an engine is refused, so that a mistyped name does not create one.
fn open(dir: &Path, how: Use, instead: &str) -> anyhow::Result<Engine> {
    let options = Config::default()
        .engine_options()
        .create(how == Use::Fill && is_empty_directory(dir))
        .read_only(how == Use::Read);
    Engine::open(dir, options).map_err(|error| {
        let is_locked = matches!(error, Error::Locked { .. });
        let problem = anyhow::Error::from(error);
        if is_locked {
            problem.context(format!(
                "a server or another command is using {}: {instead}",
                dir.display()
            ))
        } else {
            problem
        }
    })
}

/// A finding as a line of text.
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
