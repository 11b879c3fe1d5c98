//! Lists a user's conversations by their last activity, in pages: a new terminal needs one call for
//! its first screen.
//!
//! The order is that of the time of the first page. A conversation that gets activity between two
//! pages (a message, or the joining of the user) comes at the end, a second time if it was listed
//! before; so none is missed.
//!
//! 1. The first page looks up the end of each conversation, which gives an upper bound for the time
//!    of its last message. The conversations wait in the order of these bounds.
//! 2. When a conversation is next, its last message is read. If that is older than the bound, the
//!    conversation waits again, at the message's own time.
//! 3. When no conversation is waiting, those with new activity follow, in the order of the
//!    activity.
//!
//! The waiting conversations are kept in memory between pages, for as many lists as fit. A list
//! costs one lookup for each conversation when it begins and one when it ends, however many pages
//! it has. A list that was evicted or lost by a restart is begun again from its token, and
//! continues after the last item. Conversations with activity in the second before the first page
//! may then be listed twice.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use strandline::{Limit, Sequence, TimeMs};

use super::around::{none_if_hidden, piece_at};
use super::page::Shown;
use super::trouble::{Result, Trouble};
use super::user::{Membership, User};
use super::{Messaging, names};

/// Entries read at a time to find the last message.
const PAGE: Limit =
    Limit { entries: 8, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: true };

/// The memory that a conversation takes in a kept list, besides its id.
const WAITING_BYTES: usize = 200;

/// When a list is begun again, activity this long before the first page counts as new: commits in
/// progress at that time have earlier timestamps.
const MARGIN_MS: u64 = 1000;

/// One conversation of the list.
#[derive(Clone, Debug)]
pub struct Item {
    /// The conversation.
    pub conv: Bytes,
    /// The last message that the user may see; its sequence is 0 if there is none.
    pub last: Shown,
    /// The number of unread messages.
    pub unread: u64,
    /// The user's read mark.
    pub read: Sequence,
}

impl Item {
    /// The kind of the last message; empty if there is none.
    pub fn kind(&self) -> &'static str {
        if self.last.sequence == 0 && !self.last.is_damaged { "" } else { self.last.kind }
    }
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The token of the next page; empty if there is none.
    pub next: Vec<u8>,
    /// The conversations, those with the newest activity first.
    pub items: Vec<Item>,
}

/// The order of the list: newest first, then by id.
type Rank = (Reverse<TimeMs>, Bytes);

/// The last known end of a conversation, and the start of the user's current membership.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Looked {
    end: Sequence,
    since: Option<Sequence>,
}

/// A list that is not at its end.
struct List {
    user: Bytes,
    begun_ms: TimeMs,
    known: HashMap<Bytes, Looked>,
    waiting: BinaryHeap<Reverse<Rank>>,
    /// Conversations whose activity is known by time only.
    late: BTreeSet<Bytes>,
    /// The conversations that were listed, in order.
    listed: Vec<Bytes>,
    /// The token after which the list was begun again.
    resumed: Option<Token>,
}

#[derive(Clone)]
struct ByCount;

impl Weighter<u64, Arc<Mutex<List>>> for ByCount {
    fn weight(&self, _: &u64, list: &Arc<Mutex<List>>) -> u64 {
        // The list is not shared yet, so the lock is free.
        list.try_lock().map_or(1, |list| {
            list.known.keys().map(|conv| (conv.len() + WAITING_BYTES) as u64).sum::<u64>().max(1)
        })
    }
}

/// The unfinished lists, as many as fit.
pub struct Lists {
    kept: Cache<u64, Arc<Mutex<List>>, ByCount>,
    last_id: AtomicU64,
}

impl Lists {
    /// Lists that take at most `kept_bytes`. `seed` makes ids differ between starts, so that a
    /// token of another start matches no list of this one.
    pub fn new(kept_bytes: u64, seed: TimeMs) -> Lists {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(1000)
            .weight_capacity(kept_bytes)
            .build()
            .expect("all that must be given is given");
        let kept = Cache::with_options(
            options,
            ByCount,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Lists { kept, last_id: AtomicU64::new(seed << 16) }
    }

    #[cfg(test)]
    pub fn forget(&self) {
        self.kept.clear();
    }
}

/// The token of the next page: it names the list, and has enough to begin it again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    id: u64,
    begun_ms: TimeMs,
    /// The number of conversations listed so far.
    count: usize,
    /// Whether the last of them was listed for new activity.
    had_moved: bool,
    /// The time of the last of them in the order of the list.
    time_ms: TimeMs,
    conv: Bytes,
}

impl Token {
    fn decode(text: &[u8]) -> Result<Token> {
        let wrong = || Trouble::Usage("this is not a token of IM.CONVERSATIONS");
        let mut parts = text.splitn(6, |byte| *byte == b':');
        let mut number =
            || -> Option<u64> { std::str::from_utf8(parts.next()?).ok()?.parse().ok() };
        let numbers = [(); 5].map(|()| number());
        let [Some(id), Some(begun_ms), Some(count), Some(moved), Some(time_ms)] = numbers else {
            return Err(wrong());
        };
        let conv = Bytes::copy_from_slice(parts.next().ok_or_else(wrong)?);
        let count = usize::try_from(count).map_err(|_| wrong())?;
        Ok(Token { id, begun_ms, count, had_moved: moved > 0, time_ms, conv })
    }

    fn encode(&self) -> Vec<u8> {
        let Token { id, begun_ms, count, had_moved, time_ms, conv } = self;
        let moved = u8::from(*had_moved);
        [format!("{id}:{begun_ms}:{count}:{moved}:{time_ms}:").as_bytes(), conv].concat()
    }
}

/// The next conversation of a list.
struct Next {
    conv: Bytes,
    last: Shown,
    /// The time of its new activity, and its end then, if there was any.
    moved: Option<(TimeMs, Looked)>,
}

impl Messaging {
    /// The page after a token; an empty token requests the first page.
    pub fn conversations(&self, user: &[u8], token: &[u8], limit: Limit) -> Result<Listed> {
        // An invalid user id is a member of no conversation.
        let Ok(user) = names::valid(user) else {
            return Ok(Listed { next: Vec::new(), items: Vec::new() });
        };
        let token = if token.is_empty() { None } else { Some(Token::decode(token)?) };
        self.user(&user, |ledger| {
            let state = &ledger.state;
            let kept =
                token.as_ref().and_then(|token| Some((token.id, self.lists.kept.get(&token.id)?)));
            let is_it =
                |list: &List, token: &Token| list.user == user && list.begun_ms == token.begun_ms;
            let kept = kept
                .filter(|(_, list)| token.as_ref().is_some_and(|token| is_it(&list.lock(), token)));
            let from = token.as_ref().filter(|_| kept.is_some()).map_or(0, |token| token.count);
            let (id, list) = match kept {
                Some(kept) => kept,
                None => self.begin_list(&user, state, token)?,
            };
            let mut open = list.lock();
            let (items, next) = self.page_of(&mut open, state, from, limit)?;
            drop(open);
            let Some(next) = next else { return Ok(Listed { next: Vec::new(), items }) };
            if from == 0 {
                self.lists.kept.insert(id, list);
            }
            Ok(Listed { next: Token { id, ..next }.encode(), items })
        })
    }

    /// Step 1 of the heading.
    fn begin_list(
        &self,
        user: &Bytes,
        state: &User,
        token: Option<Token>,
    ) -> Result<(u64, Arc<Mutex<List>>)> {
        let id = self.lists.last_id.fetch_add(1, Ordering::Relaxed);
        let begun_ms = match &token {
            Some(token) => token.begun_ms,
            None => self.engine.now_ms().saturating_sub(MARGIN_MS),
        };
        let (mut known, mut waiting) = (HashMap::new(), Vec::new());
        for (conv, membership) in state.current() {
            let (looked, last_ms) = self.look_at(conv, membership)?;
            known.insert(conv.clone(), looked);
            waiting.push(Reverse((Reverse(last_ms.max(membership.created_ms)), conv.clone())));
        }
        let list = List {
            user: user.clone(),
            begun_ms,
            known,
            waiting: waiting.into(),
            late: BTreeSet::new(),
            listed: Vec::new(),
            resumed: token,
        };
        Ok((id, Arc::new(Mutex::new(list))))
    }

    /// The end of a conversation and its time. If damage hides the end, the conversation comes
    /// first: it may be the newest.
    fn look_at(&self, conv: &Bytes, membership: &Membership) -> Result<(Looked, TimeMs)> {
        self.effort.add_look();
        let end = none_if_hidden(self.messages.end(names::conversation(conv)))?;
        let (end, last_ms) = end.unwrap_or((Sequence::MAX, TimeMs::MAX));
        Ok((Looked { end, since: membership.periods.start() }, last_ms))
    }

    /// The page after `from` items, and the token of the next one.
    fn page_of(
        &self,
        list: &mut List,
        state: &User,
        from: usize,
        limit: Limit,
    ) -> Result<(Vec<Item>, Option<Token>)> {
        let mut items: Vec<Item> = Vec::new();
        let (mut used_bytes, mut last_place, mut moved) = (0, None, None);
        let mut at = from.min(list.listed.len());
        loop {
            let is_again = at < list.listed.len();
            let next = if is_again {
                self.listed_again(list, state, at)?
            } else {
                self.next_in(list, state, &mut moved)?
            };
            let next = match next {
                Some(next) => next,
                None if is_again => {
                    at += 1;
                    continue;
                }
                None => return Ok((items, None)),
            };
            used_bytes += next.last.body.len() as u64;
            let fits = items.len() < limit.entries && used_bytes <= limit.body_bytes;
            if !(items.is_empty() || fits) {
                if !is_again {
                    list.put_back(next);
                }
                return Ok((items, last_place));
            }
            let Some(membership) = state.membership(&next.conv) else { continue };
            at += 1;
            last_place = Some(Token {
                id: 0,
                begun_ms: list.begun_ms,
                count: at,
                had_moved: next.moved.is_some(),
                time_ms: next.moved.map_or(next.last.time_ms, |(moved_ms, _)| moved_ms),
                conv: next.conv.clone(),
            });
            let unread = self.unread_in(&next.conv, &list.user, membership)?;
            if !is_again {
                list.take(&next);
            }
            items.push(Item { conv: next.conv, last: next.last, unread, read: membership.read });
        }
    }

    /// A conversation of a page that is requested again; `None` if the user has left the
    /// conversation since.
    fn listed_again(&self, list: &List, state: &User, at: usize) -> Result<Option<Next>> {
        let conv = list.listed[at].clone();
        let membership = state.membership(&conv).filter(|one| one.periods.is_member());
        let Some(membership) = membership else { return Ok(None) };
        let message = self.last_message(&conv, &list.user, membership)?;
        Ok(Some(Next { conv, last: message, moved: None }))
    }

    /// The next conversation of a list: steps 2 and 3 of the heading.
    fn next_in(
        &self,
        list: &mut List,
        state: &User,
        moved: &mut Option<VecDeque<Next>>,
    ) -> Result<Option<Next>> {
        while let Some(Reverse((bound, conv))) = list.waiting.pop() {
            let membership = state.membership(&conv).filter(|one| one.periods.is_member());
            let Some(membership) = membership else { continue };
            let message = self.last_message(&conv, &list.user, membership)?;
            if let Some(moved_ms) = self.moved_ms(list, &conv, &message, membership)? {
                if list
                    .resumed
                    .as_ref()
                    .is_none_or(|token| !token.had_moved || moved_ms >= token.time_ms)
                {
                    list.late.insert(conv);
                }
                continue;
            }
            let rank = (Reverse(message.time_ms), conv.clone());
            let is_later = list.waiting.peek().is_some_and(|Reverse(other)| *other < rank);
            if rank.0 != bound && is_later {
                list.waiting.push(Reverse(rank));
                continue;
            }
            let was_listed = list.resumed.as_ref().is_some_and(|token| {
                token.had_moved || rank <= (Reverse(token.time_ms), token.conv.clone())
            });
            if !was_listed {
                return Ok(Some(Next { conv, last: message, moved: None }));
            }
        }
        if moved.is_none() {
            *moved = Some(self.all_moved(list, state)?);
        }
        Ok(moved.as_mut().and_then(VecDeque::pop_front))
    }

    /// The time of a conversation's new activity since the list was begun, if there was any.
    fn moved_ms(
        &self,
        list: &List,
        conv: &Bytes,
        message: &Shown,
        membership: &Membership,
    ) -> Result<Option<TimeMs>> {
        let since = membership.periods.start();
        let known = list.known.get(conv);
        let has_joined = known.is_none_or(|known| known.since != since);
        let has_message = known.is_some_and(|known| message.sequence > known.end);
        let by_time = list.resumed.is_some() || list.late.contains(conv);
        if !(has_joined || has_message || by_time) {
            return Ok(None);
        }
        let joined = match since {
            Some(since) => piece_at(&self.messages, &names::conversation(conv), since)?,
            None => None,
        };
        // Members from the creation on did not join by an event.
        let joined_ms =
            joined.as_ref().and_then(|piece| piece.entry()).map_or(0, |entry| entry.time_ms);
        let moved_ms = message.time_ms.max(joined_ms);
        let is_new = has_joined || has_message || moved_ms >= list.begun_ms;
        Ok(is_new.then_some(moved_ms))
    }

    /// All conversations with new activity that was not listed yet, in the order of the activity.
    fn all_moved(&self, list: &mut List, state: &User) -> Result<VecDeque<Next>> {
        let mut moved = Vec::new();
        for (conv, membership) in state.current() {
            let (looked, _) = self.look_at(conv, membership)?;
            if list.known.get(conv) == Some(&looked) && !list.late.contains(conv) {
                continue;
            }
            let message = self.last_message(conv, &list.user, membership)?;
            match self.moved_ms(list, conv, &message, membership)? {
                Some(moved_ms) => {
                    moved.push(Next {
                        conv: conv.clone(),
                        last: message,
                        moved: Some((moved_ms, looked)),
                    });
                }
                // The new events are not messages.
                None => drop(list.known.insert(conv.clone(), looked)),
            }
        }
        moved.sort_by_key(|one: &Next| (one.moved.map(|(moved_ms, _)| moved_ms), one.conv.clone()));
        Ok(moved.into())
    }

    /// The newest message that the user may see. If there is none, the result has the time of the
    /// conversation's creation.
    fn last_message(&self, conv: &Bytes, user: &Bytes, membership: &Membership) -> Result<Shown> {
        let mut found = None;
        for range in membership.visible().into_iter().rev() {
            let walked = self.walk(conv, user, range, true, PAGE, |seen| {
                if seen.may_be_message() && !membership.hidden.contains(&seen.sequence) {
                    found = Some(seen.shown());
                }
                found.is_none()
            });
            match walked {
                Ok(true) => {}
                Ok(false) => break,
                Err(Trouble::Engine(error)) if error.is_damage() => {
                    found = Some(Shown::damaged(0, membership.created_ms));
                    break;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(found.unwrap_or_else(|| Shown::nothing(membership.created_ms)))
    }
}

impl List {
    /// The conversation is on a page.
    fn take(&mut self, next: &Next) {
        self.listed.push(next.conv.clone());
        if let Some((_, looked)) = next.moved {
            self.late.remove(&next.conv);
            self.known.insert(next.conv.clone(), looked);
        }
    }

    /// The conversation is for the next page.
    fn put_back(&mut self, next: Next) {
        if next.moved.is_none() {
            self.waiting.push(Reverse((Reverse(next.last.time_ms), next.conv)));
        }
    }
}

#[cfg(test)]
mod tests {
    use strandline::Limit;

    use super::super::Mode;
    use super::super::moments::Table;
    use super::*;

    fn room(number: usize) -> String {
        format!("room-{number:04}")
    }

    impl Table {
        /// Conversations of ann and bob, each with a message, one millisecond apart.
        fn rooms(count: usize) -> Table {
            let table = Table::new();
            for number in 0..count {
                table.create(&room(number), Mode::Push, &["ann", "bob"]);
                table.send(&room(number), "hello");
                table.clock.pass(1);
            }
            table
        }

        fn list(&self, token: &[u8], count: usize) -> (Vec<String>, Vec<u8>) {
            let page =
                self.messaging.conversations(b"bob", token, Limit::entries(count)).expect("lists");
            let named = |item: &Item| {
                let body = String::from_utf8_lossy(&item.last.body);
                format!("{} {} {}", String::from_utf8_lossy(&item.conv), body, item.unread)
            };
            (page.items.iter().map(named).collect(), page.next)
        }

        /// All pages after a token; `between` is called after each page but the last.
        fn list_all(
            &self,
            token: &[u8],
            count: usize,
            mut between: impl FnMut(usize),
        ) -> Vec<String> {
            let (mut all, mut token) = (Vec::new(), token.to_vec());
            for page in 0.. {
                let (items, next) = self.list(&token, count);
                all.extend(items);
                if next.is_empty() {
                    break;
                }
                between(page);
                token = next;
            }
            all
        }
    }

    fn newest_first(count: usize) -> Vec<String> {
        (0..count).rev().map(|number| format!("{} hello 1", room(number))).collect()
    }

    #[test]
    fn a_list_costs_the_same_in_many_pages_as_in_few() {
        const ROOMS: usize = 400;
        let table = Table::rooms(ROOMS);
        let looks = |count: usize| {
            let before = table.messaging.effort.so_far().1;
            assert_eq!(
                table.list_all(b"", count, |_| {}),
                newest_first(ROOMS),
                "in pages of {count}"
            );
            table.messaging.effort.so_far().1 - before
        };
        assert_eq!([looks(ROOMS), looks(50), looks(1)], [2 * ROOMS as u64; 3]);
    }

    #[test]
    fn conversations_that_move_between_two_pages_come_at_the_end() {
        for forgets in [false, true] {
            let table = Table::rooms(8);
            table.clock.pass(2 * MARGIN_MS);
            let all = table.list_all(b"", 2, |page| {
                match page {
                    0 => {
                        // One listed already, one not listed yet, and a new one.
                        [7, 3].into_iter().for_each(|number| {
                            table.clock.pass(1);
                            table.send(&room(number), "moved");
                        });
                        table.clock.pass(1);
                        table.create("new", Mode::Push, &["ann", "bob"]);
                        // A mark, which is not a message.
                        assert!(
                            table.messaging.read(room(1).as_bytes(), b"bob", 1).expect("a member")
                        );
                    }
                    1 => assert!(
                        table.messaging.leave(room(0).as_bytes(), &["bob".into()]).expect("left")
                            == 1
                    ),
                    // The time stands still: it was listed at the end, and gets activity again.
                    3 => table.send(&room(7), "again"),
                    _ => {}
                }
                if forgets {
                    table.messaging.lists.forget();
                }
            });
            let [seven, six, five, four, two] =
                [7, 6, 5, 4, 2].map(|number| format!("{} hello 1", room(number)));
            let mut expected = vec![seven, six, five, four, two, format!("{} hello 0", room(1))];
            expected.push(format!("{} moved 2", room(7)));
            expected.push(format!("{} moved 2", room(3)));
            expected.extend(["new  0".to_string(), format!("{} again 3", room(7))]);
            let order = |all: &[String]| {
                let mut known = Vec::new();
                all.iter().for_each(|item| {
                    if !known.contains(item) {
                        known.push(item.clone());
                    }
                });
                known
            };
            if forgets {
                // A conversation at the time where the list continues may come twice.
                assert_eq!(order(&all), expected);
            } else {
                assert_eq!(all, expected);
            }
        }
    }

    #[test]
    fn a_page_that_is_requested_again_is_the_same() {
        let table = Table::rooms(10);
        let (first, token) = table.list(b"", 3);
        let second = table.list(&token, 3);
        let third = table.list(&second.1, 3);
        assert_eq!(table.list(&token, 3).0, second.0);
        assert_eq!(table.list(&second.1, 3).0, third.0);
        assert_eq!([first, second.0, third.0].concat(), newest_first(10)[..9]);
        assert_eq!(table.list_all(&token, 100, |_| {}), newest_first(10)[3..]);
    }

    #[test]
    fn unfinished_lists_take_bounded_memory() {
        let table = Table::rooms(50);
        let lists = Lists::new(60_000, 1);
        for id in 0..100 {
            let list = table.messaging.user(b"bob", |ledger| {
                table.messaging.begin_list(&"bob".into(), &ledger.state, None)
            });
            lists.kept.insert(id, list.expect("begins").1);
        }
        assert!((1..=6).contains(&lists.kept.len()), "{} lists", lists.kept.len());
    }

    #[test]
    fn a_token_reads_back_and_other_text_is_refused() {
        let conv = Bytes::from_static(b"a:b");
        let token = Token { id: 7, begun_ms: 8, count: 9, had_moved: true, time_ms: 10, conv };
        assert_eq!(Token::decode(&token.encode()).expect("its own"), token);
        for text in ["", "x", "1:2", "1:2:3:4", "1:2:3:4:5", "-1:2:3:4:5:c", "1800000000000:c"] {
            assert!(Token::decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
