//! A feed, fanned out when it is written: a post is stored once, and each follower's inbox has an
//! entry for it. All of it is one batch: it is in every inbox or in none.
//!
//! `cargo run -p strandline --example feed`

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use strandline::{Batch, Engine, Limit, NewStore, Options, TargetList, Verdict};

const WEEK: Duration = Duration::from_hours(7 * 24);

/// An author posts twice. Returns what a follower's device shows.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    // Posts are kept for ever, entries of inboxes for a week.
    let stores = [NewStore::new("posts", None), NewStore::new("inboxes", Some(WEEK))];
    let engine = Engine::open(dir, Options::default().stores(stores))?;
    let (posts, inboxes) = (engine.store("posts")?, engine.store("inboxes")?);

    // The list of followers is made once, and used for each post until it changes.
    let followers = (1..=1000).map(|number| format!("user/{number}"));
    let followers: TargetList = engine.target_list(followers.map(|name| (&inboxes, name)))?;
    for text in ["first post", "second post"] {
        let post = Batch::new().fan_out_to_list(text, [(&posts, "author/eve")], &followers);
        let receipt = engine.commit(post)?;
        assert_eq!(receipt.sequences.len(), 1001);
    }

    // A device of a follower has a cursor of its own, and pulls what it lacks.
    let (mut cursor, mut lines) = (0, Vec::new());
    loop {
        let page = inboxes.read_after("user/77", cursor, Limit::entries(100))?;
        if page.verdict == Verdict::Trimmed {
            lines.push("older posts have expired".to_string());
        }
        for entry in &page.entries {
            lines.push(format!("{} {}", entry.sequence, String::from_utf8_lossy(&entry.body)));
        }
        cursor = page.next;
        if !page.more {
            break;
        }
    }
    engine.close()?;
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    run(dir.path())?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
