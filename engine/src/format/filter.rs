//! Which timelines may be in a segment: a Bloom filter whose bits for one name lie in one line of 64 bytes, so that asking
//! costs one page. Ten bits and six probes a name: about one name in eighty is said to be there though it is not.

use super::checksum::name_hash;

/// A line holds the bits of a name.
const LINE_BYTES: usize = 64;

/// What is read and checked as one block.
pub const PAGE_BYTES: usize = 4096;

const BITS_PER_NAME: usize = 10;
const PROBES: u64 = 6;

/// How many pages a filter for so many names has.
pub fn pages_for(names: usize) -> usize {
    (names * BITS_PER_NAME).div_ceil(PAGE_BYTES * 8).max(1)
}

/// The line of a name, as its page and its place in the page.
fn place(hash: u64, pages: usize) -> (usize, usize) {
    // A footer may claim so many pages that the product takes more than 64 bits.
    let lines = (pages as u128) * (PAGE_BYTES / LINE_BYTES) as u128;
    let line = (u128::from(hash >> 32) * lines) >> 32;
    let line = usize::try_from(line).unwrap_or(0);
    (line / (PAGE_BYTES / LINE_BYTES), line % (PAGE_BYTES / LINE_BYTES) * LINE_BYTES)
}

/// The bits of a name inside its line: double hashing over nine bits.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let (start, step) = (hash & 0x1FF, (hash >> 9) & 0x1FF | 1);
    (0..PROBES).map(move |probe| {
        let bit = (start + probe * step) & 0x1FF;
        ((bit / 8) as usize, 1 << (bit % 8))
    })
}

/// Builds the pages for all names of a segment.
#[derive(Debug, Default)]
pub struct FilterWriter {
    hashes: Vec<u64>,
}

impl FilterWriter {
    /// Adds a name.
    pub fn add(&mut self, name: &[u8]) {
        self.hashes.push(name_hash(name));
    }

    /// The pages.
    pub fn finish(self) -> Vec<Vec<u8>> {
        let mut pages = vec![vec![0; PAGE_BYTES]; pages_for(self.hashes.len())];
        for hash in self.hashes {
            let (page, line) = place(hash, pages.len());
            let page = pages.get_mut(page).expect("place stays below the number of pages");
            for (byte, bit) in bits(hash) {
                *page.get_mut(line + byte).expect("a line lies inside its page") |= bit;
            }
        }
        pages
    }
}

/// Which page to ask about a name.
pub fn page_of(name: &[u8], pages: usize) -> usize {
    place(name_hash(name), pages.max(1)).0
}

/// Whether the name may be there, by its page. A page of another size says yes: the index then knows better.
pub fn may_contain(page: &[u8], name: &[u8], pages: usize) -> bool {
    let hash = name_hash(name);
    let (_, line) = place(hash, pages.max(1));
    bits(hash).all(|(byte, bit)| page.get(line + byte).is_none_or(|found| found & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Vec<u8> {
        format!("u/{{user{number}}}").into_bytes()
    }

    #[test]
    fn every_name_is_found_and_few_others_are() {
        let mut writer = FilterWriter::default();
        (0..20_000).for_each(|number| writer.add(&name(number)));
        let pages = writer.finish();
        let asked =
            |number| may_contain(&pages[page_of(&name(number), pages.len())], &name(number), pages.len());
        assert!((0..20_000).all(asked));
        let wrong = (20_000..40_000).filter(|number| asked(*number)).count();
        assert!(wrong < 20_000 / 40, "{wrong} of 20,000 strangers");
    }
}
