//! A list that moves at most one piece when it grows.
//!
//! A list that grows by doubling moves all of its content now and then, while readers wait, and is
//! a quarter empty on average. This one grows by pieces of one length; only the first piece grows
//! by doubling, since a short list is not worth a piece.
//!
//! This file does not know what is in the list.

/// A list in pieces of `LEN` items.
#[derive(Debug)]
pub struct Pieces<T, const LEN: usize> {
    pieces: Vec<Vec<T>>,
}

impl<T, const LEN: usize> Default for Pieces<T, LEN> {
    fn default() -> Pieces<T, LEN> {
        Pieces { pieces: Vec::new() }
    }
}

impl<T, const LEN: usize> Pieces<T, LEN> {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * LEN + last.len())
    }

    /// Adds an item at the end. Returns the number of bytes by which its memory grew.
    pub fn push(&mut self, item: T) -> usize {
        if self.pieces.last().is_none_or(|last| last.len() == LEN) {
            self.pieces.push(Vec::new());
        }
        let is_first = self.pieces.len() == 1;
        let last = self.pieces.last_mut().expect("there is one now");
        let places = last.capacity();
        if places == 0 && !is_first {
            last.reserve_exact(LEN);
        }
        last.push(item);
        (last.capacity() - places) * size_of::<T>()
    }

    /// The item at an index below the length.
    pub fn at(&self, index: u32) -> &T {
        &self.pieces[index as usize / LEN][index as usize % LEN]
    }

    /// The item at an index below the length, to be changed.
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        &mut self.pieces[index as usize / LEN][index as usize % LEN]
    }

    /// The items in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_indexes_and_their_places() {
        let mut pieces = Pieces::<u32, 4>::default();
        let (mut places, mut grown) = (Vec::new(), 0);
        for item in 0..11 {
            assert_eq!(pieces.len(), item as usize);
            grown += pieces.push(item);
            places.push(std::ptr::from_ref(pieces.at(item)));
        }
        *pieces.at_mut(9) += 100;
        assert_eq!(
            pieces.iter().copied().collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 109, 10]
        );
        let now: Vec<_> = (4..11).map(|item| std::ptr::from_ref(pieces.at(item))).collect();
        assert_eq!(now, places[4..], "only the first piece moves");
        assert_eq!(grown, 3 * 4 * size_of::<u32>());
    }
}
