//! Listing timelines: TL.LIST.

use std::sync::Arc;

use bytes::Bytes;
use strandline::{MAX_NAME_BYTES, Store};

use super::arguments::after_and_count;
use super::place::{FRAME_BYTES, STEPS};
use super::row::{Class, Command, Context, Done, Flow, Run, Sliced};
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
    let after = match start(store_name, after.as_deref()) {
        ListStart::First => None,
        ListStart::Above(name) => Some(name.to_vec()),
        ListStart::Nowhere => {
            context.connection.out.array(0);
            return Ok(Flow::Done);
        }
    };
    let sight = context.connection.identity.sight();
    let (store_name, prefix) = (store_name.to_vec(), prefix.to_vec());
    let mut listing = Listing { store, store_name, prefix, sight, count, after, found: Vec::new() };
    let bytes = count * (MAX_NAME_BYTES + FRAME_BYTES);
    Ok(Flow::Sliced(Sliced { bytes, slice: Box::new(move || listing.slice()) }))
}

/// A listing that is being made. Names are searched for in every segment.
struct Listing {
    store: Store,
    store_name: Vec<u8>,
    prefix: Vec<u8>,
    /// The user whose patterns the names must match. All begin with the prefix, which matches too.
    sight: Option<Arc<Account>>,
    count: usize,
    /// The last name that was read.
    after: Option<Vec<u8>>,
    found: Vec<Vec<u8>>,
}

impl Listing {
    /// Reads a page of names. Returns the reply when there are enough, or no more.
    fn slice(&mut self) -> Result<Option<Done>, Refusal> {
        // Of the names that patterns leave out there may be any number.
        let page = if self.sight.is_some() { STEPS } else { self.count };
        let mut names = self.store.list(&self.prefix, self.after.as_deref(), page)?;
        let is_last = names.len() < page;
        self.after = names.last().cloned();
        if let Some(user) = &self.sight {
            let patterns = &user.rules().patterns;
            names.retain(|name| patterns.has_key(&[&self.store_name, &b":"[..], name].concat()));
        }
        self.found.append(&mut names);
        if !is_last && self.found.len() < self.count {
            return Ok(None);
        }
        let (store, mut names) = (self.store_name.clone(), std::mem::take(&mut self.found));
        names.truncate(self.count);
        Ok(Some(Done::Reply(Box::new(move |out| {
            out.array(names.len());
            for name in &names {
                out.bulk_of(&[&store, b":", name]);
            }
        }))))
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
