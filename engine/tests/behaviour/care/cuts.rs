//! A power cut during a backup, a restore or a salvage (P1, P5): the target is complete, or
//! refused.
//!
//! Each of the three is done once on a simulated disk. Then the power is cut after each of its
//! calls; with all its syncs, and with each of them left out, which must be noticed.
//!
//! It does not know: directories above the target. The unit tests of `vfs/disk.rs` check that those
//! are synced.

use std::collections::BTreeSet;

use strandline::vfs::Site;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};
use strandline::{restore_in, salvage_in};

use super::directory::{Entries, contents, dir, open, send, try_open};
use crate::two_stores;

/// How many random cuts each call gets.
const THROWS: u64 = 8;

/// A target that was filled: the calls that filled it, and its entries.
struct Filled {
    by: &'static str,
    log: Vec<Op>,
    expected: Entries,
}

/// The targets of a backup, of its restore, and of a salvage of the restored directory.
fn filled() -> [Filled; 3] {
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    (0..10).for_each(|number| send(&engine, number));
    let expected = contents(&engine);
    let [backup, restored, salvaged] = [(); 3].map(|()| SimulatedDisk::new());
    engine.backup_in(&dir(&backup)).expect("backs up");
    restore_in(&dir(&backup), &dir(&restored)).expect("restores");
    salvage_in(&dir(&restored), &dir(&salvaged), &two_stores::NAMES).expect("salvages");
    [("backup", backup), ("restore", restored), ("salvage", salvaged)].map(|(by, target)| {
        target.mark(1);
        Filled { by, log: target.log(), expected: expected.clone() }
    })
}

/// The entries that an engine and a restore find in a target. Both find the same.
fn found(image: &Image) -> Result<Entries, String> {
    let again = SimulatedDisk::new();
    restore_in(&dir(&SimulatedDisk::from_image(image)), &dir(&again))
        .map_err(|error| error.to_string())?;
    let of = |disk: &SimulatedDisk| try_open(disk, false).map(|engine| contents(&engine));
    let restored = of(&again).map_err(|error| error.to_string())?;
    let opened = of(&SimulatedDisk::from_image(image)).map_err(|error| error.to_string())?;
    if opened == restored {
        Ok(opened)
    } else {
        Err("a restore finds something else than an engine".into())
    }
}

/// Cuts the power after each call, the sync at `without` left out. Returns how many targets were
/// complete, or what is wrong.
fn cut(filled: &Filled, without: Option<Site>) -> Result<usize, String> {
    let (mut model, mut done, mut whole) = (Model::default(), false, 0);
    for (place, op) in filled.log.iter().enumerate() {
        model.apply(op, without);
        done |= matches!(op, Op::Mark(_));
        for cut in Cut::ALL {
            let throws = if cut == Cut::Dice { THROWS } else { 1 };
            for throw in 0..throws {
                let image = model.power_cut(cut, &mut Dice::new(place as u64 * THROWS + throw));
                let wrong =
                    |what: &str| Err(format!("{} cut after call {place}: {what}", filled.by));
                // A directory without manifest is refused as a backup without reading further.
                let has_manifest = image.files.keys().any(|name| name.starts_with("manifest-"));
                match found(&image) {
                    Ok(entries) if entries == filled.expected => whole += 1,
                    Ok(_) => return wrong("it holds something else"),
                    Err(error) if done || has_manifest => {
                        return wrong(&format!("with a manifest it is refused: {error}"));
                    }
                    Err(_) => {}
                }
            }
        }
    }
    Ok(whole)
}

#[test]
fn a_power_cut_leaves_a_backup_a_restore_or_a_salvage_that_is_complete_or_refused() {
    for filled in filled() {
        assert!(cut(&filled, None).expect("nothing is wrong") >= Cut::ALL.len(), "{}", filled.by);
    }
}

#[test]
fn a_completed_backup_restore_or_salvage_can_be_lost_without_any_one_of_its_syncs() {
    let site = |op: &Op| match op {
        Op::Sync { site, .. } | Op::SyncDir { site } => Some(*site),
        _ => None,
    };
    for filled in filled() {
        let sites: BTreeSet<Site> = filled.log.iter().filter_map(site).collect();
        assert!(sites.len() >= 4, "{}: {sites:?}", filled.by);
        for site in sites {
            let caught = cut(&filled, Some(site));
            let by = filled.by;
            assert!(
                caught.is_err(),
                "{by}: nothing is lost without {}:{}",
                site.file(),
                site.line()
            );
        }
    }
}
