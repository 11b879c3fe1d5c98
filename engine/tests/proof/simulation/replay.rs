//! A failing state is kept as a folder: the files as the crash left them, and the known facts, so
//! that it can be judged again without the run that led to it.
//!
//! ```text
//!  <folder>/files/…      the disk
//!  <folder>/known.txt    one line per event: the facts that bind the judge
//!  <folder>/why.txt      the judge's report
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strandline::Durability;
use strandline::vfs::simulated::{Image, SimulatedDisk};

use super::Key;
use super::books::{Batch, Books, Sent, Sighting};
use super::judge::check_thoroughly;

/// Keeps a failing state, and returns its folder with the report.
pub fn keep(keys: &[Key], image: &Image, books: &Books, power: bool, what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("failing-state-{}-{number}", std::process::id()));
    match write(&folder, image, &known(keys, books, power), what) {
        Ok(()) => format!(
            "{what}\nkept: STRANDLINE_REPLAY={} cargo test -p strandline --test proof \
             a_kept_state -- --nocapture",
            folder.display()
        ),
        Err(error) => format!("{what}\n(it could not be kept in {}: {error})", folder.display()),
    }
}

#[allow(clippy::disallowed_methods, reason = "a kept state is files on the disk")]
fn write(folder: &Path, image: &Image, known: &str, what: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("files"))?;
    for (name, content) in &image.files {
        fs::write(folder.join("files").join(name), content)?;
    }
    fs::write(folder.join("known.txt"), known)?;
    fs::write(folder.join("why.txt"), what)
}

/// Judges a kept state again.
#[allow(clippy::disallowed_methods, reason = "a kept state is files on the disk")]
pub fn judge_again(folder: &Path) -> Result<(), String> {
    let mut image = Image::default();
    let folder = folder.canonicalize().unwrap_or_else(|error| {
        panic!(
            "STRANDLINE_REPLAY names no folder that can be read: {}: {error}. Give its full path.",
            folder.display()
        )
    });
    let files = fs::read_dir(folder.join("files")).map_err(|error| error.to_string())?;
    for file in files {
        let path: PathBuf = file.map_err(|error| error.to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a file has a name")?;
        image.files.insert(name.into(), fs::read(&path).map_err(|error| error.to_string())?);
    }
    let text = fs::read_to_string(folder.join("known.txt")).map_err(|error| error.to_string())?;
    let (keys, books, power) = parse(&text).ok_or("known.txt is not one of this harness")?;
    check_thoroughly(&SimulatedDisk::from_image(&image), &keys, &books, power)
}

/// The known facts as text. Timelines have names without spaces here.
fn known(keys: &[Key], books: &Books, power: bool) -> String {
    let mut lines = vec![format!("now {}", books.now_ms), format!("power {}", u8::from(power))];
    for (store, name) in keys {
        let default = super::books::Timeline::default();
        let timeline = books.timelines.get(&(*store, name.clone())).unwrap_or(&default);
        lines.push(format!(
            "timeline {store} {name} {} {}",
            timeline.trim_asked, timeline.trim_done
        ));
        lines.push(format!("batches {}", numbers(timeline.batches.iter())));
        lines.push(format!("asked {}", numbers(timeline.delete_asked.iter())));
        lines.push(format!("done {}", numbers(timeline.delete_done.iter())));
        for (sequence, edits) in &timeline.edits {
            lines.extend(
                edits
                    .iter()
                    .map(|(number, done)| format!("edit {sequence} {number} {}", u8::from(*done))),
            );
        }
    }
    for batch in books.batches.values() {
        let sent = &batch.sent;
        lines.push(format!(
            "batch {} {} {} {} {} {} {} {}",
            sent.number,
            sent.writer,
            u8::from(sent.durability == Durability::Disk),
            sent.filler,
            batch.time_ms,
            u8::from(batch.acknowledged),
            u8::from(batch.observed),
            u8::from(batch.settled),
        ));
        for ((store, name), sequence) in sent.targets.iter().zip(&batch.sequences) {
            lines.push(format!("at {store} {name} {sequence}"));
        }
    }
    lines.extend(books.epochs.iter().map(|(store, epoch)| format!("epoch {store} {epoch}")));
    lines.extend(books.sightings.iter().map(|sighting| {
        let Sighting { key: (store, name), sequence, number, epoch } = sighting;
        format!("sighting {store} {name} {sequence} {number} {epoch}")
    }));
    lines.join("\n")
}

fn numbers<'a>(numbers: impl Iterator<Item = &'a u64>) -> String {
    numbers.map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn parse(text: &str) -> Option<(Vec<Key>, Books, bool)> {
    let (mut keys, mut books, mut power) = (Vec::<Key>::new(), Books::default(), true);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| words.get(place)?.parse::<u64>().ok();
        let rest =
            || words[1..].iter().map(|word| word.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
        let store = || Some(if *words.get(1)? == "sync" { "sync" } else { "messages" });
        let key = || Some((store()?, (*words.get(2)?).to_string()));
        match *words.first()? {
            "now" => books.now_ms = number(1)?,
            "power" => power = number(1)? == 1,
            "timeline" => {
                let timeline = books.timelines.entry(key()?).or_default();
                (timeline.trim_asked, timeline.trim_done) = (number(3)?, number(4)?);
                keys.push(key()?);
            }
            "batches" => books.timelines.get_mut(keys.last()?)?.batches = rest()?,
            "asked" => {
                books.timelines.get_mut(keys.last()?)?.delete_asked = rest()?.into_iter().collect();
            }
            "done" => {
                books.timelines.get_mut(keys.last()?)?.delete_done = rest()?.into_iter().collect();
            }
            "edit" => {
                let edits = &mut books.timelines.get_mut(keys.last()?)?.edits;
                edits.entry(number(1)?).or_default().push((number(2)?, number(3)? == 1));
            }
            "batch" => {
                let durability = if number(3)? == 1 { Durability::Disk } else { Durability::Os };
                let sent = Sent {
                    number: number(1)?,
                    writer: number(2)?,
                    durability,
                    filler: number(4)? as usize,
                    targets: Vec::new(),
                };
                let batch = Batch {
                    sent: Arc::new(sent),
                    sequences: Vec::new(),
                    time_ms: number(5)?,
                    acknowledged: number(6)? == 1,
                    observed: number(7)? == 1,
                    settled: number(8)? == 1,
                };
                books.batches.insert(number(1)?, batch);
            }
            "at" => {
                let mut last = books.batches.last_entry()?;
                let batch = last.get_mut();
                batch.sequences.push(number(3)?);
                Arc::get_mut(&mut batch.sent)?.targets.push(key()?);
            }
            "epoch" => drop(books.epochs.insert(store()?, words.get(2)?.parse().ok()?)),
            "sighting" => books.sightings.push(Sighting {
                key: key()?,
                sequence: number(3)?,
                number: number(4)?,
                epoch: words.get(5)?.parse().ok()?,
            }),
            _ => return None,
        }
    }
    Some((keys, books, power))
}
