//! Maintenance of the engine: TL.FLUSH, TL.COMPACT, TL.VERIFY, TL.BACKUP, TL.STATS.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use strandline::{Finding, Verification};

use super::row::{Class, Command, Context, Done, Flow, Reply, Run};
use crate::figures;
use crate::key::find_store;
use crate::notices::NoticeKind;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.FLUSH", 1, Class::Admin, Run::Now(flush))
        .told("", "Writes the memtables to segments; OK when done."),
    Command::new("TL.COMPACT", -1, Class::Admin, Run::Now(compact)).told(
        "[store]",
        "Merges segments now; OK when done. The store must exist; all stores are considered.",
    ),
    Command::new("TL.VERIFY", 1, Class::Admin, Run::Now(verify)).told(
        "",
        "Checks every file, and repairs what is damaged in one of two copies; map of files, bytes, \
         timelines, entries, left_off, mended, and findings: an array of maps.",
    )
    .replies(Reply::Large),
    Command::new("TL.BACKUP", 2, Class::Admin, Run::Now(backup)).told(
        "dir",
        "Copies all data to a new or empty directory of the server's machine; map of files, bytes, \
         entries.",
    ),
    Command::new("TL.STATS", 1, Class::Admin, Run::Now(stats)).told(
        "",
        "Map of figures of the engine and the server: operations.md lists them. A name that is \
         listed there keeps its meaning; more may be added.",
    ),
];

fn flush(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let engine = context.shared.engine.clone();
    Ok(Flow::Long(Box::new(move || Ok(engine.flush().map(|()| Done::Ok)?))))
}

fn compact(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    match arguments {
        [] => {}
        [name] => {
            find_store(&context.shared.engine, name)?;
        }
        _ => return Err(Refusal::syntax()),
    }
    let engine = context.shared.engine.clone();
    Ok(Flow::Long(Box::new(move || Ok(engine.compact().map(|()| Done::Ok)?))))
}

fn verify(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let engine = context.shared.engine.clone();
    Ok(Flow::Long(Box::new(move || {
        let found = engine.verify(|_, _| ())?;
        Ok(Done::Reply(Box::new(move |out| write_verification(&found, out))))
    })))
}

fn write_verification(found: &Verification, out: &mut Encoder) {
    out.map(7);
    out.field("files", found.files);
    out.field("bytes", found.bytes);
    out.field("timelines", found.timelines);
    out.field("entries", found.entries);
    out.field("left_off", found.left_off);
    out.field("mended", found.mended.len() as u64);
    out.bulk("findings");
    out.array(found.findings.len());
    for finding in &found.findings {
        write_finding(finding, out);
    }
}

/// Writes a finding; parts that are not known are omitted.
fn write_finding(finding: &Finding, out: &mut Encoder) {
    let known = usize::from(finding.timeline.is_some()) + usize::from(finding.sequences.is_some());
    out.map(3 + 2 * known);
    out.bulk("file");
    out.bulk(finding.path.as_os_str().as_bytes());
    out.field("at", finding.at);
    out.bulk("what");
    out.bulk(&finding.what);
    if let Some((store, timeline)) = &finding.timeline {
        out.bulk("store");
        out.bulk(store);
        out.bulk("timeline");
        out.bulk(timeline);
    }
    if let Some((first, last)) = finding.sequences {
        out.field("first", first);
        out.field("last", last);
    }
}

fn backup(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let dir = PathBuf::from(OsStr::from_bytes(&arguments[0]));
    if !dir.is_absolute() {
        return Err(Refusal::usage(
            "the directory must be an absolute path on the server's machine",
        ));
    }
    let shared = Arc::clone(context.shared);
    Ok(Flow::Long(Box::new(move || {
        let made = match shared.engine.backup(&dir) {
            Ok(made) => made,
            Err(error) => {
                shared.note_server(NoticeKind::BackupFailed, &error);
                return Err(error.into());
            }
        };
        shared.note_server(
            NoticeKind::Backup,
            format_args!("{}: {} files, {} entries", dir.display(), made.files, made.entries),
        );
        Ok(Done::Reply(Box::new(move |out| {
            out.map(3);
            out.field("files", made.files);
            out.field("bytes", made.bytes);
            out.field("entries", made.entries);
        })))
    })))
}

fn stats(context: &mut Context<'_>, _: &[Bytes]) -> Result<Flow, Refusal> {
    let figures = figures::all(context.shared);
    let out = &mut context.connection.out;
    out.map(figures.len());
    for (name, value) in figures {
        out.field(&name, value);
    }
    Ok(Flow::Done)
}
