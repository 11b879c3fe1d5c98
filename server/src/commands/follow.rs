//! Push without gaps: TL.FOLLOW and TL.UNFOLLOW. The reply has the verdict on the cursor; then
//! frames are pushed from the cursor on, first older entries and then new ones in the same way (see
//! `push`).

use std::time::Duration;

use bytes::Bytes;
use strandline::{Limit, Page, Sequence, Verdict};

use super::arguments::{heartbeat, integer, keyword, options};
use super::place::{elsewhere, is_near};
use super::read::{Answer, TimelineCursor, is_foreign};
use super::reply::write_standing;
use super::row::{Class, Command, Context, Done, Flow, Run};
use super::scope::{Scope, Touch};
use crate::key::Key;
use crate::protocol::Protocol;
use crate::push::SubscriptionKind;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.FOLLOW", -4, Class::PubSub, Run::Now(follow))
        .touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told(
            "key AFTER seq [EPOCH e] [HEARTBEAT ms]",
            "Map as TL.READ without entries, then push frames [tl.entry, key, seq, time, body], \
         [tl.gap, key, verdict, first, last] and, when nothing was pushed for HEARTBEAT, \
         [tl.cursor, key, seq]. RESP3 only.",
        ),
    Command::new("TL.UNFOLLOW", 2, Class::PubSub, Run::Now(unfollow))
        .touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told("key", "1, or 0 when the key was not followed."),
];

fn follow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    if context.connection.out.protocol == Protocol::Resp2 {
        return Err(Refusal::usage("TL.FOLLOW needs HELLO 3; in RESP2 use TL.READ ... BLOCK"));
    }
    keyword(arguments, 1, "AFTER")?;
    let mut wanted = FollowArguments::default();
    options(&arguments[1..], |word, value| {
        match word {
            b"AFTER" => wanted.after = integer(value)?,
            b"EPOCH" => wanted.epoch = Some(value.to_vec()),
            b"HEARTBEAT" => wanted.heartbeat = Some(heartbeat(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    if !context.connection.subscriptions.contains(SubscriptionKind::Follow, &arguments[0]) {
        context.connection.check_room(context.shared, 1)?;
    }
    if is_near(&key, wanted.after.saturating_add(1), 1)? {
        let found = FollowStart::of(&key, &wanted)?;
        start(context, key, &wanted, found)?;
        return Ok(Flow::Done);
    }
    // A gap in a cold timeline is measured by `info`, which counts all its entries.
    let key = key.detached();
    Ok(elsewhere(0, move || {
        let found = FollowStart::of(&key, &wanted)?;
        Ok(Done::Then(Box::new(move |context| start(context, key, &wanted, found))))
    }))
}

/// The arguments of a follow.
#[derive(Default)]
struct FollowArguments {
    after: Sequence,
    epoch: Option<Vec<u8>>,
    heartbeat: Option<Duration>,
}

/// The start of a follow.
struct FollowStart {
    verdict: &'static str,
    /// Whether frames follow the reply.
    goes_on: bool,
    page: Page,
}

impl FollowStart {
    fn of(key: &Key, wanted: &FollowArguments) -> Result<FollowStart, Refusal> {
        let foreign = wanted.epoch.as_ref().is_some_and(|epoch| is_foreign(epoch, key));
        let Answer { verdict, mut page } =
            TimelineCursor { after: wanted.after, foreign }.read(key, Limit::NOTHING)?;
        if foreign {
            return Ok(FollowStart { verdict, goes_on: false, page });
        }
        // The frames start after the entries that are gone for good; the gap is in the reply.
        page.next = match page.verdict {
            Verdict::Future => page.next,
            // The limit excluded all entries that exist, so the page ends where the gap ends.
            Verdict::Trimmed if page.more => page.next,
            Verdict::Trimmed => key.store.info(key.name())?.trimmed_to.max(wanted.after),
            Verdict::Ok => wanted.after,
        };
        let goes_on = page.verdict != Verdict::Future;
        Ok(FollowStart { verdict, goes_on, page })
    }
}

fn start(
    context: &mut Context<'_>,
    key: Key,
    wanted: &FollowArguments,
    FollowStart { verdict, goes_on, page }: FollowStart,
) -> Result<(), Refusal> {
    let epoch = key.store.epoch();
    if goes_on {
        let engine = &context.shared.engine;
        context.connection.subscriptions.follow(engine, key, page.next, wanted.heartbeat)?;
    }
    write_standing(verdict, epoch, &page, 6, &mut context.connection.out);
    Ok(())
}

fn unfollow(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let was_there =
        context.connection.subscriptions.remove(SubscriptionKind::Follow, &arguments[0]);
    context.connection.out.integer(u64::from(was_there));
    Ok(Flow::Done)
}
