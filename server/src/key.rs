//! Keys: `<store>:<name>`. The first colon ends the store's name; the name may have any bytes.

use bytes::Bytes;
use strandline::{Engine, MAX_NAME_BYTES, Store, StoreKey};

use crate::refusal::{Refusal, is_store_name};

/// A key of an existing store.
#[derive(Clone)]
pub struct Key {
    /// The store.
    pub store: Store,
    /// The whole key.
    bytes: Bytes,
    /// The start of the name in `bytes`.
    name_at: usize,
}

impl Key {
    /// Finds the store of a key. The errors are, in this order: `ERR` for a key without a name,
    /// `NOSTORE` for an unknown store, `TOOBIG` for a long name.
    pub fn find(engine: &Engine, bytes: &Bytes) -> Result<Key, Refusal> {
        let (store, name) = parts(bytes)?;
        let name_at = bytes.len() - name.len();
        let found = find_store(engine, store)?;
        check_length(name)?;
        Ok(Key { store: found, bytes: bytes.clone(), name_at })
    }

    /// A timeline of a given store. It was not requested by a key, so its key is only its name.
    pub fn of(store: Store, name: Vec<u8>) -> Key {
        Key { store, bytes: name.into(), name_at: 0 }
    }

    /// The timeline's name in its store.
    pub fn name(&self) -> &[u8] {
        &self.bytes[self.name_at..]
    }

    /// The key as it was given; for [`Key::of`] only the name.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same key with a copy of its bytes. A slice of the input would keep the whole read buffer
    /// alive.
    #[must_use]
    pub fn detached(self) -> Key {
        Key { bytes: Bytes::copy_from_slice(&self.bytes), ..self }
    }
}

/// The stores and names of many keys, with the errors of [`Key::find`] for each. Neighbours of one
/// store look for it once.
pub fn targets<'k>(
    engine: &Engine,
    keys: &'k [Bytes],
) -> Result<Vec<(StoreKey, &'k [u8])>, Refusal> {
    let mut targets = Vec::with_capacity(keys.len());
    let mut last: Option<(&[u8], StoreKey)> = None;
    for key in keys {
        let (store, name) = parts(key)?;
        let found = match last {
            Some((same, found)) if same == store => found,
            _ => (&find_store(engine, store)?).into(),
        };
        last = Some((store, found));
        check_length(name)?;
        targets.push((found, name));
    }
    Ok(targets)
}

fn parts(key: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let found = split(key).filter(|(_, name)| !name.is_empty());
    found.ok_or_else(|| Refusal::usage("a key is <store>:<name>"))
}

fn check_length(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Refusal::too_big("a timeline's name", MAX_NAME_BYTES));
    }
    Ok(())
}

/// The parts before and after the first colon.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some((&bytes[..colon], &bytes[colon + 1..]))
}

/// The store of that name. Stores whose names cannot be created over the wire are internal, and
/// hidden.
pub fn find_store(engine: &Engine, name: &[u8]) -> Result<Store, Refusal> {
    match std::str::from_utf8(name) {
        Ok(text) if is_store_name(name) => Ok(engine.store(text)?),
        _ => Err(Refusal::no_store(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_ends_the_store() {
        assert_eq!(split(b"a:b:c"), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(split(b":"), Some((&b""[..], &b""[..])));
        assert_eq!(split(b"a"), None);
    }
}
