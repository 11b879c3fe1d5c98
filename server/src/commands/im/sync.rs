//! The events that a terminal lacks: IM.SYNC with BLOCK, IM.FOLLOW, IM.UNFOLLOW, IM.TAIL.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use strandline::Limit;

use super::{detached, messaging, reading};
use crate::access::Account;
use crate::commands::arguments::{heartbeat, options, paging_and_block};
use crate::commands::place::{elsewhere, in_one_slice, page_bytes};
use crate::commands::row::{Attempt, Class, Command, Context, Done, Flow, Run, Sliced};
use crate::commands::scope::{Scope, TokenRule, Touch};
use crate::commands::wait::waiting;
use crate::messaging::{Cursor, MAX_ID_BYTES, Messaging, Standing, SyncPage};
use crate::protocol::{Encoder, Protocol};
use crate::push::{SubscriptionKind, shown_parts, watched_keys, write_shown};
use crate::refusal::Refusal;

pub(in crate::commands) static COMMANDS: &[Command] = &[
    Command::new("IM.SYNC", -3, Class::Read, Run::Now(sync))
.touches(Scope::Of(&[Touch::User(1)])).by_token(TokenRule::AsItself(1)).one_key().told(
        "user cursor [COUNT n] [BYTES n] [BLOCK ms]",
        "Map: verdict, cursor (for next time, at most 512 bytes), more, entries: array of [conv, \
         seq, time, sender, kind, body(, attributes)].",
    ),
    Command::new("IM.FOLLOW", -3, Class::PubSub, Run::Now(follow))
.touches(Scope::Of(&[Touch::User(1)])).by_token(TokenRule::AsItself(1)).one_key().told(
        "user cursor [HEARTBEAT ms]",
        "Map: verdict, cursor (the position before the first frame), more; then push frames \
         [im.entry, user, cursor, conv, seq, time, sender, kind, body(, attributes)], \
         [im.gap, user, verdict, cursor], and [im.cursor, user, cursor] when the position moves \
         without an entry or nothing was pushed for HEARTBEAT. RESP3 only.",
    ),
    Command::new("IM.UNFOLLOW", 2, Class::PubSub, Run::Now(unfollow))
.touches(Scope::Of(&[Touch::User(1)])).by_token(TokenRule::AsItself(1))
        .one_key()
        .told("user", "1, or 0 when the user was not followed."),
    Command::new("IM.TAIL", 2, Class::Read, Run::Now(tail))
.touches(Scope::Of(&[Touch::User(1)])).by_token(TokenRule::AsItself(1)).one_key().told(
        "user",
        "The newest cursor, the one at the end of IM.SYNC; it moves only with what reaches this \
         user.",
    ),
];

fn sync(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (paging, block) = paging_and_block(&arguments[2..])?;
    let limit = paging.limit(context.limits());
    let messaging = Arc::clone(messaging(context.shared)?);
    let user = Bytes::copy_from_slice(&arguments[0]);
    let cursor = messaging.cursor(&user, &arguments[1])?;
    // Most pages are short: memory for a long page is reserved only when one is needed.
    let short =
        Limit { body_bytes: limit.body_bytes.min(context.limits().max_body_bytes as u64), ..limit };
    let sight = context.connection.identity.sight();
    let lack = Arc::new(Mutex::new(Lack { messaging, user, cursor, short, limit, sight }));
    Ok(match block {
        None => Flow::Sliced(Lack::answer(&lack, true)),
        Some(block_ms) => {
            let attempt = move |last| Lack::answer(&lack, last);
            waiting(block_ms, Attempt::Elsewhere(Box::new(attempt)))
        }
    })
}

/// The sync of a terminal.
struct Lack {
    messaging: Arc<Messaging>,
    user: Bytes,
    cursor: Cursor,
    /// The limit of the first attempt.
    short: Limit,
    limit: Limit,
    /// The user whose patterns the conversations must match.
    sight: Option<Arc<Account>>,
}

impl Lack {
    /// Reads a short page, and a long one if the short one does not have everything.
    fn answer(lack: &Arc<Mutex<Lack>>, last: bool) -> Sliced {
        let lack = Arc::clone(lack);
        let Lack { short, limit, .. } = *lack.lock();
        in_one_slice(reply_bytes(short), move || {
            if let Some(done) = lack.lock().look(last, short)? {
                return Ok(done);
            }
            let look =
                move || Ok(lack.lock().look(last, limit)?.expect("it may be as long as this"));
            Ok(Done::Larger(in_one_slice(reply_bytes(limit), look)))
        })
    }

    /// Returns the page, or the timelines to wait for. Returns `None` if `limit` cut the page
    /// short, but the full limit allows more.
    fn look(&mut self, last: bool, limit: Limit) -> Result<Option<Done>, Refusal> {
        let Lack { messaging, user, sight, .. } = self;
        if self.cursor == Cursor::Newest {
            // "Now" is the time of the call, also if the call blocks: not the time of the answer.
            self.cursor = messaging.cursor(user, &messaging.tail(user)?)?;
        }
        // Determined before the page is read: if these timelines are being watched already, any
        // event after the page causes a wake-up.
        let keys = if last { Vec::new() } else { watched_keys(messaging, user)? };
        let mut page = messaging.sync(user, &self.cursor, limit)?;
        if page.more
            && page.deliveries.len() < limit.entries
            && limit.body_bytes < self.limit.body_bytes
        {
            return Ok(None);
        }
        if let Some(sight) = sight {
            page.deliveries.retain(|one| sight.rules().patterns.has_conversation(&one.conv));
        }
        // With more to come, all of the page was left out, and the client continues after it.
        let was_left_out = page.more && sight.is_some();
        if !last && page.deliveries.is_empty() && !was_left_out && page.verdict == Standing::Ok {
            // Events for others are not read again. (`Oldest` remains, since it never gets the
            // verdict TRIMMED.)
            if self.cursor != Cursor::Oldest {
                self.cursor = messaging.cursor(user, &page.cursor)?;
            }
            return Ok(Some(Done::NotYetOn(keys)));
        }
        Ok(Some(Done::Reply(Box::new(move |out| write_page(&page, out)))))
    }
}

/// The most that a reply with such a page takes: each entry has a conversation and a sender.
fn reply_bytes(limit: Limit) -> usize {
    page_bytes(limit).saturating_add(limit.entries.saturating_mul(2 * MAX_ID_BYTES))
}

fn write_page(page: &SyncPage, out: &mut Encoder) {
    out.map(4);
    write_standing(page, out);
    out.bulk("entries");
    out.array(page.deliveries.len());
    for delivery in &page.deliveries {
        out.array(1 + shown_parts(&delivery.shown));
        out.bulk(&delivery.conv);
        write_shown(&delivery.shown, out);
    }
}

/// Writes the first three pairs.
fn write_standing(page: &SyncPage, out: &mut Encoder) {
    out.bulk("verdict");
    out.bulk(page.verdict.word());
    out.bulk("cursor");
    out.bulk(&page.cursor);
    out.field("more", u64::from(page.more));
}

fn follow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    if context.connection.out.protocol == Protocol::Resp2 {
        return Err(Refusal::usage("IM.FOLLOW needs HELLO 3; in RESP2 use IM.SYNC ... BLOCK"));
    }
    let mut pause = None;
    options(&arguments[2..], |word, value| {
        let is_known = word == b"HEARTBEAT";
        if is_known {
            pause = Some(heartbeat(value)?);
        }
        Ok(is_known)
    })?;
    let user = Bytes::copy_from_slice(&arguments[0]);
    let messaging = Arc::clone(messaging(context.shared)?);
    let cursor = messaging.cursor(&user, &arguments[1])?;
    Ok(elsewhere(0, move || {
        // One event is enough to determine the verdict. It is not in the reply, but in the frames.
        let page = messaging.sync(&user, &cursor, Limit::entries(1))?;
        Ok(Done::Then(Box::new(move |context| begin(context, user, page, pause))))
    }))
}

fn begin(
    context: &mut Context<'_>,
    user: Bytes,
    page: SyncPage,
    pause: Option<Duration>,
) -> Result<(), Refusal> {
    let start = page.start.clone();
    if !context.connection.subscriptions.contains(SubscriptionKind::UserFollow, &user) {
        context.connection.check_room(context.shared, 1)?;
    }
    if page.verdict.goes_on() {
        let gap_reported = page.verdict != Standing::Ok;
        context.connection.subscriptions.follow_user(
            &context.shared.engine,
            user,
            start.clone(),
            gap_reported,
            pause,
        )?;
    }
    let out = &mut context.connection.out;
    out.map(3);
    write_standing(&SyncPage { cursor: start, more: !page.deliveries.is_empty(), ..page }, out);
    Ok(())
}

fn unfollow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let was_there =
        context.connection.subscriptions.remove(SubscriptionKind::UserFollow, &arguments[0]);
    context.connection.out.integer(u64::from(was_there));
    Ok(Flow::Done)
}

fn tail(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let words = detached(arguments);
    reading(context, 0, move |messaging| messaging.tail(&words[0]), |cursor, out| out.bulk(cursor))
}
