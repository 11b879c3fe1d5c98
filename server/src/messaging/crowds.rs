//! Tests of cursors when many events have the same millisecond, when a clock stands still for
//! hours, and when a terminal returns after the lines of pulled events have expired (P9, P10): each
//! event arrives once, with short cursors, at a cost that depends only on what is new.

use std::collections::BTreeMap;

use strandline::vfs::simulated::Dice;

use super::moments::{Table, event_lines};
use super::stores::WEEK_MS;
use super::{Cursor, History, Messaging, Mode, Standing};

const LONGEST: usize = 512;

/// An id of a conversation, long enough for a few of them to fill a cursor.
fn room(number: usize) -> String {
    format!("{number:04}-{}", "x".repeat(60))
}

impl Table {
    /// Replaces messaging as a restart of the server does: the same stores, and nothing in memory.
    fn forget(&mut self) {
        self.messaging =
            Messaging::open(&self.engine, self.messaging.options.clone()).expect("they are there");
    }

    /// Sends a message to each of `rooms` conversations, all in one millisecond.
    fn burst(&self, rooms: usize, body: &str) {
        for number in 0..rooms {
            self.commit(self.batch(&room(number), body.to_owned(), 0));
        }
    }

    fn crowd(rooms: usize) -> Table {
        let table = Table::new();
        (0..rooms).for_each(|number| table.create(&room(number), Mode::Pull, &["ann", "bob"]));
        table.create("others", Mode::Pull, &["ann", "carl"]);
        table
    }

    /// Everything after a cursor in pages of `count` events, and the cursor at the end. Checks that
    /// no page has a long cursor.
    fn rest(&self, user: &str, from: &Cursor, count: usize) -> (Vec<String>, Vec<u8>) {
        let (mut all, mut cursor) = (Vec::new(), from.clone());
        loop {
            let page = self.sync(user, &cursor, count);
            assert_eq!(page.verdict, Standing::Ok);
            for delivery in &page.deliveries {
                let text = self.messaging.cursor_behind(user.as_bytes(), delivery);
                assert!(text.len() <= LONGEST, "{} bytes", text.len());
            }
            assert!(page.cursor.len() <= LONGEST && page.start.len() <= LONGEST);
            assert!(
                !page.more || !page.deliveries.is_empty(),
                "a page that is not the last brings something"
            );
            all.extend(event_lines(&page));
            cursor = self.messaging.cursor(user.as_bytes(), &page.cursor).expect("its own");
            if !page.more {
                return (all, page.cursor);
            }
        }
    }

    /// Checks that the cursor of each event gives the rest and nothing else, that the cursor at the
    /// end gives nothing, and that it is the tail.
    fn check_all_cursors(&mut self, user: &str, from: &Cursor) {
        let name = user.as_bytes();
        let page = self.sync(user, from, 10_000);
        let all = event_lines(&page);
        let cursors =
            page.deliveries.iter().map(|delivery| self.messaging.cursor_behind(name, delivery));
        let cursors: Vec<Vec<u8>> = std::iter::once(page.start.clone()).chain(cursors).collect();
        for (given, text) in cursors.iter().enumerate() {
            let cursor = self.messaging.cursor(name, text).expect("its own");
            if given % 5 == 0 {
                self.forget();
            }
            let (mut rest, end) = self.rest(user, &cursor, 1 + given % 17);
            assert_eq!(end, page.cursor, "behind {given} of {}", all.len());
            let mut left = all[given..].to_vec();
            rest.sort();
            left.sort();
            assert_eq!(rest, left, "behind {given} of {}", all.len());
        }
        self.forget();
        assert_eq!(self.messaging.tail(name).expect("reads"), page.cursor);
        assert_eq!(self.messaging.tail(name).expect("reads"), page.cursor, "as it was kept");
    }
}

#[test]
fn a_burst_into_hundreds_of_conversations_gives_short_cursors_and_each_event_once() {
    const ROOMS: usize = 60;
    let mut table = Table::crowd(ROOMS);
    table.burst(5, "before");
    let start = table.tail("bob");
    table.clock.pass(1);
    table.burst(ROOMS, "one");
    for from in [Cursor::Oldest, start.clone()] {
        table.check_all_cursors("bob", &from);
    }
    // The clock stands still, and more events come at this time than there were.
    let (_, middle) = table.rest("bob", &start, 20);
    let middle = table.messaging.cursor(b"bob", &middle).expect("its own");
    table.send("others", "for carl");
    table.burst(ROOMS, "two");
    table.check_all_cursors("bob", &middle);
    let half = table.sync("bob", &middle, ROOMS / 2);
    let half = table.messaging.cursor(b"bob", &half.cursor).expect("its own");
    table.burst(10, "three");
    table.check_all_cursors("bob", &half);
    // The time is over.
    table.clock.pass(1);
    table.burst(3, "later");
    for from in [Cursor::Oldest, start, middle, half] {
        table.check_all_cursors("bob", &from);
    }
}

#[test]
fn a_terminal_that_comes_back_after_the_lines_have_expired_gets_each_event_once() {
    const ROOMS: usize = 30;
    let mut table = Table::crowd(ROOMS);
    for (rooms, body) in [(ROOMS, "one"), (2, "two"), (ROOMS, "three")] {
        table.burst(rooms, body);
        table.clock.pass(1);
    }
    table.send("others", "the last time is over");
    let page = table.sync("bob", &Cursor::Oldest, 1000);
    let all = event_lines(&page);
    let behind = |delivery| table.messaging.cursor_behind(b"bob", delivery);
    let cursors: Vec<Vec<u8>> = page.deliveries.iter().map(behind).collect();
    for lines_expire in [WEEK_MS + 1, WEEK_MS + 1] {
        table.clock.pass(lines_expire);
        table.burst(2, "much later");
        table.forget();
        let more = event_lines(&table.sync("bob", &Cursor::Oldest, 1000));
        assert_eq!(more[..all.len()], all);
        for (given, text) in cursors.iter().enumerate() {
            let cursor = table.messaging.cursor(b"bob", text).expect("its own");
            for count in [1, 1000] {
                assert_eq!(
                    table.rest("bob", &cursor, count).0,
                    more[given + 1..],
                    "behind {given}"
                );
            }
        }
        table.check_all_cursors("bob", &Cursor::Oldest);
    }
}

/// More conversations have events in the newest millisecond than a cursor can note, more of them
/// get events in the same millisecond after the terminal has read it, and the terminal stays away
/// for a week: it gets the verdict TRIMMED.
#[test]
fn events_that_cannot_be_distinguished_after_a_week_are_reported_as_trimmed() {
    const ROOMS: usize = 30;
    let mut table = Table::crowd(ROOMS);
    table.burst(ROOMS, "one");
    let cursor = table.tail("bob");
    table.burst(ROOMS, "two");
    assert_eq!(table.rest("bob", &cursor, 7).0.len(), ROOMS);
    table.clock.pass(WEEK_MS + 1);
    table.send(&room(0), "three");
    table.forget();
    let page = table.sync("bob", &cursor, 100);
    assert_eq!(
        (page.verdict, event_lines(&page)),
        (Standing::Trimmed, vec![format!("{} 3 message three", room(0))])
    );
    let next = table.messaging.cursor(b"bob", &page.cursor).expect("its own");
    assert_eq!(table.rest("bob", &next, 100).0.len(), 0, "reported once");
}

#[test]
fn the_cost_of_a_sync_depends_on_what_is_new_also_when_the_clock_stands_still() {
    const MUCH: usize = 40_000;
    for forgets in [true, false] {
        let mut table = Table::crowd(3);
        table.burst(3, "before");
        let start = table.tail("bob");
        let ready = |_| table.batch("others", "", 0);
        let tickets = table.engine.submit_all((0..MUCH).map(ready).collect());
        tickets
            .into_iter()
            .for_each(|ticket| drop(ticket.expect("queued").wait().expect("committed")));
        table.burst(3, "after");
        if forgets {
            table.forget();
        }
        let before = table.messaging.effort.so_far();
        assert_eq!(table.rest("bob", &Cursor::Oldest, 1).0.len(), 6);
        assert_eq!(table.rest("bob", &start, 1).0.len(), 3);
        let tail = table.tail("bob");
        table.send("others", "for carl");
        assert_eq!(table.tail("bob"), tail);
        table.send(&room(0), "more");
        assert_eq!(table.rest("bob", &tail, 10).0.len(), 1);
        let now = table.messaging.effort.so_far();
        let (lines, looks) = (now.0 - before.0, now.1 - before.1);
        assert!(lines < 100 && looks < 100, "{lines} lines and {looks} looks");
    }
}

#[test]
fn the_tail_moves_only_for_events_that_its_user_gets() {
    let mut table = Table::with(2);
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.create("others", Mode::Pull, &["ann", "carl"]);
    table.create("both", Mode::Auto, &["ann", "bob"]);
    table.send("both", "pushed");
    let mut tail = table.tail("bob");
    let mut check = |table: &mut Table, moves: bool, what: &str| {
        let at_end = |table: &Table, from: &Cursor| {
            let (_, end) = table.rest("bob", from, 1);
            table.messaging.cursor(b"bob", &end).expect("its own")
        };
        let now = table.tail("bob");
        assert_eq!(now != tail, moves, "{what}");
        assert_eq!(at_end(table, &tail), now, "{what}");
        table.forget();
        assert_eq!(at_end(table, &Cursor::Oldest), now, "{what}");
        table.forget();
        assert_eq!(table.tail("bob"), now, "{what}");
        tail = now;
    };
    for pass_ms in [0, 1, 0, 7] {
        table.clock.pass(pass_ms);
        table.send("others", "for carl");
        check(&mut table, false, "a message for others");
        table.send("room", "for bob");
        check(&mut table, true, "a message in a pulled conversation");
        assert!(table.messaging.join(b"both", &["dora".into()]).expect("there is room") == 1);
        check(&mut table, true, "a pulled joining");
        assert!(table.messaging.leave(b"both", &["dora".into()]).expect("it was there") == 1);
        check(&mut table, true, "a pulled leaving");
        table.send("both", "pushed again");
        check(&mut table, true, "a pushed message in a conversation that has pulled ones");
        table.commit(table.batch("room", "soon gone", 1));
        table.clock.pass(1);
        check(&mut table, true, "a message that has expired since");
        table.messaging.leave(b"room", &["bob".into()]).expect("it was there");
        check(&mut table, true, "leaving");
        table.send("room", "not for bob");
        check(&mut table, false, "a message after leaving");
        table.messaging.join(b"room", &["bob".into()]).expect("there is room");
        check(&mut table, true, "joining");
    }
}

/// Terminals of one user sync at any time, in pages of any size, while conversations switch between
/// push and pull, members join and leave, the clock stands or moves, and the server forgets its
/// state in memory.
#[test]
fn terminals_get_each_event_once_whatever_happens_at_the_same_time() {
    const ROOMS: u64 = 12;
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let mut table = Table::with(2);
        let modes = [Mode::Pull, Mode::Auto, Mode::Push];
        for number in 0..ROOMS {
            let mode = modes[dice.below(3) as usize];
            table.create(&room(number as usize), mode, &["ann", "bob"]);
        }
        let mut due: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut terminals = vec![Terminal { cursor: Cursor::Oldest, got: BTreeMap::new() }; 4];
        let mut away = [false; ROOMS as usize];
        for _ in 0..150 {
            let number = dice.below(ROOMS) as usize;
            let conv = room(number);
            let last =
                |table: &Table| table.messaging.info(conv.as_bytes()).expect("it is there").last;
            let (before, mut is_for_bob) = (last(&table), !away[number]);
            match dice.below(12) {
                0 => table.clock.pass(dice.below(3)),
                1 => {
                    table.messaging.join(conv.as_bytes(), &["dora".into()]).expect("there is room");
                }
                2 => {
                    table.messaging.leave(conv.as_bytes(), &["dora".into()]).expect("leaves");
                }
                3 if away[number] => {
                    table.messaging.join(conv.as_bytes(), &["bob".into()]).expect("there is room");
                    (away[number], is_for_bob) = (false, true);
                }
                3 => {
                    table.messaging.leave(conv.as_bytes(), &["bob".into()]).expect("it was there");
                    away[number] = true;
                }
                4 => table.forget(),
                which @ 5..=7 => {
                    let count = if which == 7 { 10_000 } else { 1 + dice.below(9) as usize };
                    terminals[dice.below(4) as usize].take(&table, count, seed);
                }
                _ => table.commit(table.batch(&conv, "m", 0)),
            }
            let now = last(&table);
            if is_for_bob && now > before {
                due.entry(conv.clone()).or_default().push(now);
            }
        }
        for terminal in &mut terminals {
            while !terminal.take(&table, 1 + dice.below(9) as usize, seed) {}
            assert_eq!(terminal.got, due, "seed {seed}");
        }
    }
}

/// A terminal of bob's: its cursor, and the sequences that it has of each conversation.
#[derive(Clone)]
struct Terminal {
    cursor: Cursor,
    got: BTreeMap<String, Vec<u64>>,
}

impl Terminal {
    /// Takes a page of `count` events. Returns whether the terminal is at the end.
    fn take(&mut self, table: &Table, count: usize, seed: u64) -> bool {
        let page = table.sync("bob", &self.cursor, count);
        assert_eq!(page.verdict, Standing::Ok);
        assert!(page.cursor.len() <= LONGEST);
        for delivery in &page.deliveries {
            let conv = String::from_utf8_lossy(&delivery.conv).into_owned();
            self.got.entry(conv).or_default().push(delivery.shown.sequence);
        }
        self.cursor = table.messaging.cursor(b"bob", &page.cursor).expect("its own");
        assert!(page.more || table.tail("bob") == self.cursor, "seed {seed}: the end is the tail");
        !page.more
    }
}

#[test]
fn the_tail_does_not_move_for_changes_of_messages_that_its_user_may_not_see() {
    for mode in [Mode::Pull, Mode::Push] {
        let mut table = Table::new();
        table.create_with("room", mode, History::Joined, &["ann", "carl"]);
        table.send("room", "before bob");
        table.messaging.join(b"room", &["bob".into()]).expect("there is room");
        table.send("room", "for bob");
        let tail = table.tail("bob");
        for pass_ms in [0, 1] {
            table.clock.pass(pass_ms);
            table.messaging.edit(b"room", b"ann", 1, &"not for bob".into()).expect("it is ann's");
            for _ in 0..2 {
                assert_eq!(table.tail("bob"), tail, "{mode:?}");
                let (all, end) = table.rest("bob", &Cursor::Oldest, 1);
                assert_eq!(all.len(), 2);
                assert_eq!(
                    table.messaging.cursor(b"bob", &end).expect("its own"),
                    tail,
                    "{mode:?}"
                );
                table.forget();
            }
        }
        table.messaging.edit(b"room", b"ann", 3, &"for bob, too".into()).expect("it is ann's");
        assert_ne!(table.tail("bob"), tail);
        table.check_all_cursors("bob", &tail);
    }
}
