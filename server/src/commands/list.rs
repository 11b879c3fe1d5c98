//! Listing timelines: TL.LIST.

use bytes::Bytes;
use strandline::MAX_NAME_BYTES;

use super::arguments::after_and_count;
use super::place::{FRAME_BYTES, elsewhere};
use super::row::{Class, Command, Context, Done, Flow, Run};
use crate::key::{find_store, split};
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] =
    &[Command::new("TL.LIST", -2, Class::Read, Run::Now(list)).told(
        "prefix [AFTER key] [COUNT n]",
        "Array of the keys with readable entries, in byte order. The prefix includes the store.",
    )];

fn list(context: &mut Context<'_>, arguments: &[Bytes]) -> Result<Flow, Refusal> {
    let (after, count) = after_and_count(&arguments[1..])?;
    let (store_name, prefix) = split(&arguments[0])
        .ok_or_else(|| Refusal::usage("a prefix is <store>:[start of a name]"))?;
    let store = find_store(&context.shared.engine, store_name)?;
    let (store_name, prefix) = (store_name.to_vec(), prefix.to_vec());
    let after = after.map(|after| after.to_vec());
    // Names are searched for in every segment.
    Ok(elsewhere(count * (MAX_NAME_BYTES + FRAME_BYTES), move || {
        let names = match start(&store_name, after.as_deref()) {
            ListStart::First => store.list(&prefix, None, count)?,
            ListStart::Above(name) => store.list(&prefix, Some(name), count)?,
            ListStart::Nowhere => Vec::new(),
        };
        Ok(Done::Reply(Box::new(move |out| {
            out.array(names.len());
            for name in &names {
                out.bulk_of(&[&store_name, b":", name]);
            }
        })))
    }))
}

#[derive(Debug, PartialEq, Eq)]
enum ListStart<'a> {
    First,
    Above(&'a [u8]),
    Nowhere,
}

/// Where the listing of a store starts. AFTER is compared as a whole key, so it may name any store,
/// or none.
fn start<'a>(store: &[u8], after: Option<&'a [u8]>) -> ListStart<'a> {
    let Some(after) = after else { return ListStart::First };
    match after.strip_prefix(store).and_then(|rest| rest.strip_prefix(b":")) {
        Some([]) => ListStart::First,
        Some(name) => ListStart::Above(name),
        None if after < [store, b":"].concat().as_slice() => ListStart::First,
        None => ListStart::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_is_compared_as_a_whole_key() {
        assert_eq!(start(b"b", None), ListStart::First);
        assert_eq!(start(b"b", Some(b"b:x")), ListStart::Above(b"x"));
        for below in ["", "a:zzz", "b", "b:"] {
            assert_eq!(start(b"b", Some(below.as_bytes())), ListStart::First, "{below}");
        }
        for above in ["b;", "ba:a", "c:a"] {
            assert_eq!(start(b"b", Some(above.as_bytes())), ListStart::Nowhere, "{above}");
        }
    }
}
