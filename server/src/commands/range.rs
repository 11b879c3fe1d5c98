//! Pages without a cursor: TL.RANGE in ascending order, TL.REVRANGE in descending order.

use bytes::Bytes;
use strandline::Entry;

use super::arguments::{Paging, lower_bound, options, upper_bound};
use super::place::{answer, is_near, page_bytes};
use super::reply::write_entries;
use super::row::{Class, Command, Context, Flow, Run};
use super::scope::{Scope, Touch};
use crate::key::Key;
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[
    Command::new("TL.RANGE", -4, Class::Read, Run::Now(range))
        .touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told(
            "key from to [COUNT n] [BYTES n]",
            "Array of entries, ascending. Bounds: -, +, n, or (n for exclusive.",
        ),
    Command::new("TL.REVRANGE", -4, Class::Read, Run::Now(range_back))
        .touches(Scope::Of(&[Touch::Key(1)]))
        .one_key()
        .told("key to from [COUNT n] [BYTES n]", "Array of entries, descending."),
];

fn range(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    page(context, arguments, &arguments[1], &arguments[2], false)
}

fn range_back(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    page(context, arguments, &arguments[2], &arguments[1], true)
}

fn page(
    context: &mut Context<'_>,
    arguments: &[Bytes],
    low: &[u8],
    high: &[u8],
    descending: bool,
) -> Result<Flow, Refusal> {
    let mut paging = Paging::default();
    options(&arguments[3..], |word, value| paging.take(word, value))?;
    let (low, high) = (lower_bound(low)?, upper_bound(high)?);
    let key = Key::find(&context.shared.engine, &arguments[0])?;
    let limit = paging.limit(context.limits());
    let place = (is_near(&key, low, limit.entries)?, page_bytes(limit));
    let read = move |key: &Key| {
        Ok(match high {
            Some(high) if low <= high && descending => {
                key.store.range_back(key.name(), low..=high, limit)?.entries
            }
            Some(high) if low <= high => key.store.range(key.name(), low..=high, limit)?.entries,
            _ => Vec::new(),
        })
    };
    answer(context, key, place, read, |entries: &Vec<Entry>, _, out| {
        out.array(entries.len());
        write_entries(entries, out);
    })
}
