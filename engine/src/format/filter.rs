//! A small Bloom filter over the keys of a page. It is stored beside the page's position in the
//! table above, so that checking it costs no read of its own. Ten bits and six probes a key give
//! about one false positive in a hundred keys.

use super::checksum::name_hash;

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 6;

/// The bits of a key: double hashing, with each sum scaled to the filter's size.
fn bits(key: &[u8], filter_bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let (hash, bits) = (name_hash(key), filter_bytes as u64 * 8);
    let (start, step) = (hash as u32, (hash >> 32) as u32 | 1);
    (0..PROBES).map(move |probe| {
        let sum = start.wrapping_add(step.wrapping_mul(probe));
        // Below `bits` if `bits` is below 2^32, as in every filter that was written.
        let bit = (u64::from(sum).saturating_mul(bits)) >> 32;
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

/// The filter of a page with these keys.
pub fn filter<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut filter = vec![0; (keys.len() * BITS_PER_KEY).div_ceil(8)];
    for key in keys {
        for (byte, bit) in bits(key, filter.len()) {
            *filter.get_mut(byte).expect("the sums are scaled to the filter's size") |= bit;
        }
    }
    filter
}

/// Whether a key may be in the page of a filter. An empty filter answers yes.
pub fn may_contain(filter: &[u8], key: &[u8]) -> bool {
    filter.is_empty()
        || bits(key, filter.len())
            .all(|(byte, bit)| filter.get(byte).is_none_or(|found| found & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Vec<u8> {
        format!("u/{{user{number}}}").into_bytes()
    }

    #[test]
    fn every_key_is_found_and_few_others_are() {
        let mut wrong = 0;
        for page in 0..200 {
            let keys: Vec<Vec<u8>> = (page * 150..page * 150 + 150).map(name).collect();
            let filter = filter(keys.iter().map(Vec::as_slice));
            assert_eq!(filter.len(), 188);
            assert!(keys.iter().all(|key| may_contain(&filter, key)));
            wrong +=
                (100_000..100_100).filter(|number| may_contain(&filter, &name(*number))).count();
        }
        assert!(wrong < 20_000 / 60, "{wrong} of 20,000 strangers");
    }
}
