//! The examples of `engine/examples` run, and do what they say.
#![allow(dead_code, reason = "`main` of an example is not called")]

#[path = "../../examples/comments.rs"]
mod comments;
#[path = "../../examples/feed.rs"]
mod feed;
#[path = "../../examples/import.rs"]
mod import;
#[path = "../../examples/outbox.rs"]
mod outbox;
#[path = "../../examples/room.rs"]
mod room;

use std::fs;
use std::path::Path;

fn lines<E: std::fmt::Debug>(run: impl FnOnce(&Path) -> Result<Vec<String>, E>) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    run(dir.path()).expect("runs")
}

#[test]
fn the_page_on_embedding_shows_the_room() {
    let text = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let page = text("../docs/embedding.md");
    let (_, from_block) = page.split_once("```rust\n").expect("a block of Rust");
    let (block, _) = from_block.split_once("```\n").expect("its end");
    assert_eq!(block, text("examples/room.rs"));
}

#[test]
fn a_room_shows_each_message_once() {
    assert_eq!(lines(room::run), ["1 ann: hello", "2 bob: hi ann"]);
}

#[test]
fn a_feed_reaches_its_followers() {
    assert_eq!(lines(feed::run), ["1 first post", "2 second post"]);
}

#[test]
fn comments_come_newest_first_and_keep_their_numbers() {
    assert_eq!(lines(comments::run), ["when?", "nice", "wow", "4 comments so far"]);
}

#[test]
fn an_outbox_continues_after_a_restart() {
    assert_eq!(lines(outbox::run), ["1 placed tea", "2 placed milk", "3 placed bread"]);
}

#[test]
fn an_import_that_is_repeated_stores_nothing_twice() {
    let lines = lines(|dir| import::run(dir, import::EXAMPLE));
    let expected =
        ["3 new", "0 new when it is imported again", "ann@example.org: 2", "bob@example.org: 1"];
    assert_eq!(lines, expected);
}
