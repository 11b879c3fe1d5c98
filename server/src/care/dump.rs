//! `strandline dump`: writes all entries as NDJSON, by store, timeline and sequence.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use strandline::{Error, Limit, Lost, Store};

use super::line::Line;
use super::{Outcome, Use, open};
use crate::output::complain;
use crate::progress;

/// Names and entries that are held in memory at once.
const PAGE_ENTRIES: usize = 1000;
const PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// The arguments of the verb.
#[derive(Args)]
pub struct DumpArguments {
    /// Directory of the data.
    dir: PathBuf,
    /// Only this store.
    #[arg(long)]
    store: Option<String>,
}

/// Dumps what can be read. Reports what cannot, and continues after it.
pub fn run(arguments: &DumpArguments) -> anyhow::Result<Outcome> {
    let engine =
        open(&arguments.dir, Use::Read, "stop it first, or restore a backup and dump that")?;
    let mut dump = Dump {
        out: BufWriter::new(io::stdout().lock()),
        bar: progress::count("dump"),
        damage: engine.damage().len(),
    };
    for error in engine.damage() {
        complain(error);
    }
    if let Some(name) = &arguments.store {
        let names: Vec<String> = engine.stores().into_iter().map(|store| store.name).collect();
        anyhow::ensure!(
            names.contains(name),
            "there is no store '{name}' in it: its stores are {}",
            names.join(", ")
        );
        dump.store(&engine.store(name)?)?;
    } else {
        // Ledgers of messaging come last: an import gives every entry the time of the import, and a
        // ledger refers to events before it.
        let mut stores = engine.stores();
        stores.sort_by_key(|store| store.name.starts_with("im."));
        for info in stores {
            dump.store(&engine.store(&info.name)?)?;
        }
    }
    dump.out.flush()?;
    dump.bar.finish_and_clear();
    if dump.damage > 0 {
        complain(
            "the dump lacks the entries named above: strandline repair, a backup or strandline \
             salvage may recover them",
        );
        return Ok(Outcome::Damaged);
    }
    Ok(Outcome::Fine)
}

/// Whether an entry's body is lost: then only its sequence is known.
fn is_lost(lost: &[Lost], sequence: u64) -> bool {
    lost.iter().any(|range| (range.first..=range.last).contains(&sequence))
}

struct Dump<W> {
    out: W,
    bar: ProgressBar,
    damage: usize,
}

impl<W: Write> Dump<W> {
    fn store(&mut self, store: &Store) -> anyhow::Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let names = match store.list(b"", after.as_deref(), PAGE_ENTRIES) {
                Ok(names) => names,
                Err(error) => return self.damage(error),
            };
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            for name in &names {
                self.timeline(store, name)?;
            }
        }
    }

    fn timeline(&mut self, store: &Store, name: &[u8]) -> anyhow::Result<()> {
        let mut first = 0;
        loop {
            // One damaged block must not hide the rest of its timeline.
            let limit = Limit::entries(PAGE_ENTRIES).body_bytes(PAGE_BYTES).around_damage();
            let page = match store.range(name, first.., limit) {
                Ok(page) => page,
                Err(error) => return self.damage(error),
            };
            for lost in &page.lost {
                self.lost(store, name, lost);
            }
            for entry in page.entries.iter().filter(|entry| !is_lost(&page.lost, entry.sequence)) {
                let line =
                    Line::new(store.name(), name, entry.sequence, entry.time_ms, &entry.body);
                serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            first = page.next.saturating_add(1);
            self.bar.inc(page.entries.len() as u64);
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Reports a range that cannot be read. The dump continues after it.
    fn lost(&mut self, store: &Store, name: &[u8], lost: &Lost) {
        self.damage += 1;
        complain(format_args!(
            "left out: {}:{}, sequences {} to {}: {}",
            store.name(),
            name.escape_ascii(),
            lost.first,
            lost.last,
            lost.error
        ));
    }

    /// Reports damage, after which the dump continues; any other error ends the dump.
    fn damage(&mut self, error: Error) -> anyhow::Result<()> {
        if !matches!(error, Error::Corrupt { .. }) {
            return Err(error.into());
        }
        self.damage += 1;
        complain(format_args!("left out: {error}"));
        Ok(())
    }
}
