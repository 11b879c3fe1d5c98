//! Maintenance of the engine: TL.FLUSH, TL.COMPACT, TL.VERIFY, TL.BACKUP, TL.STATS.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strandline::{Finding, Verification};

use super::row::{Class, Command, Context, Done, Flow, Reply, Run};
use super::scope::Scope;
use crate::figures;
use crate::key::find_store;
use crate::notices::NoticeKind;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.FLUSH", 1, Class::Admin, Run::Now(flush))
.touches(Scope::Everything)
        .told("", "Writes the memtables to segments; OK when done."),
    Command::new("TL.COMPACT", -1, Class::Admin, Run::Now(compact))
.touches(Scope::Everything).told(
        "[store]",
        "Merges segments now; OK when done. The store must exist; all stores are considered.",
    ),
    Command::new("TL.VERIFY", 1, Class::Admin, Run::Now(verify))
.touches(Scope::Everything).told(
        "",
        "Checks every file, and repairs what is damaged in one of two copies; map of files, bytes, \
         timelines, entries, left_off, mended, and findings: an array of maps.",
    )
    .replies(Reply::Large),
    Command::new("TL.BACKUP", 2, Class::Admin, Run::Now(backup))
.touches(Scope::Everything).told(
        "dir",
        "Copies all data to a new or empty directory of the server's machine; map of files, bytes, \
         entries.",
    ),
    Command::new("TL.STATS", 1, Class::Admin, Run::Now(stats))
.touches(Scope::Nothing).told(
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
    let wanted = PathBuf::from(OsStr::from_bytes(&arguments[0]));
    let shared = Arc::clone(context.shared);
    Ok(Flow::Long(Box::new(move || {
        let dir = below(shared.config.now().backup_dir.as_deref(), &wanted)?;
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

/// The directory for a backup: it is below `backup_dir`, and no symbolic link leads out of it.
fn below(backup_dir: Option<&Path>, wanted: &Path) -> Result<PathBuf, Refusal> {
    let Some(backup_dir) = backup_dir else {
        let text = "TL.BACKUP writes below the directory of the setting backup_dir: set it";
        return Err(Refusal::usage(text));
    };
    let outside = || Refusal::usage(format!("a backup is written below {}", backup_dir.display()));
    let unreadable = |path: &Path, error: &io::Error| {
        Refusal::usage(format!("cannot find {}: {error}: make it first", path.display()))
    };
    let root = backup_dir.canonicalize().map_err(|error| unreadable(backup_dir, &error))?;
    let path = backup_dir.join(wanted);
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(outside());
    };
    if !wanted.components().all(is_plain) {
        return Err(outside());
    }
    let parent = parent.canonicalize().map_err(|error| {
        // What is elsewhere would not help if it were made.
        let is_inside = path.starts_with(backup_dir) || path.starts_with(&root);
        if is_inside { unreadable(parent, &error) } else { outside() }
    })?;
    let target = parent.join(name);
    // An empty directory may exist; a link may not lead elsewhere.
    let is_link = target.symlink_metadata().is_ok_and(|found| found.is_symlink());
    if !parent.starts_with(&root) || is_link {
        return Err(outside());
    }
    Ok(target)
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
