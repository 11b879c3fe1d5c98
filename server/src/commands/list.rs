//! Listing timelines: TL.LIST.

use bytes::Bytes;
use strandline::MAX_NAME_BYTES;

use super::arguments::after_and_count;
use super::place::{FRAME_BYTES, elsewhere};
use super::row::{Class, Command, Context, Done, Flow, Run};
use super::scope::{Scope, Touch};
use crate::access::Account;
use crate::key::{find_store, split};
use crate::refusal::Refusal;

pub(super) static COMMANDS: &[Command] = &[Command::new(
    "TL.LIST",
    -2,
    Class::Read,
    Run::Now(list),
)
.touches(Scope::Of(&[Touch::Prefix(1)]))
.told(
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
    let sight = context.connection.identity.sight();
    Ok(elsewhere(count * (MAX_NAME_BYTES + FRAME_BYTES), move || {
        let page = |after: Option<&[u8]>| Ok(store.list(&prefix, after, count)?);
        let mut names = match start(&store_name, after.as_deref()) {
            ListStart::First => page(None)?,
            ListStart::Above(name) => page(Some(name))?,
            ListStart::Nowhere => Vec::new(),
        };
        if let Some(user) = &sight {
            names = matching(names, count, &store_name, user, page)?;
        }
        Ok(Done::Reply(Box::new(move |out| {
            out.array(names.len());
            for name in &names {
                out.bulk_of(&[&store_name, b":", name]);
            }
        })))
    }))
}

/// The names that match the patterns of a user, from as many pages as it takes. All begin with the
/// prefix, which matches too.
fn matching(
    mut names: Vec<Vec<u8>>,
    count: usize,
    store: &[u8],
    user: &Account,
    page: impl Fn(Option<&[u8]>) -> Result<Vec<Vec<u8>>, Refusal>,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut found = Vec::new();
    loop {
        let Some(last) = names.last().cloned() else { return Ok(found) };
        let is_whole = names.len() < count;
        let patterns = &user.rules().patterns;
        found.extend(
            names.into_iter().filter(|name| patterns.has_key(&[store, b":", name].concat())),
        );
        if is_whole || found.len() >= count {
            found.truncate(count);
            return Ok(found);
        }
        names = page(Some(&last))?;
    }
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
