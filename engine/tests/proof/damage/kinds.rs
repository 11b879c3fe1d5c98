//! The kinds of damage to the files of a shape.

use std::fmt;

use strandline::Error;
use strandline::vfs::simulated::{Image, SECTOR_BYTES};

use super::HEADER_BYTES;
use super::shapes::{Shape, kind};

/// Replacement bytes; a failure shows how many, not which.
#[derive(Clone)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes", self.0.len())
    }
}

/// A kind of damage to a shape's files.
#[derive(Clone, Debug)]
pub enum Damage {
    Byte {
        file: String,
        at: usize,
        to: u8,
    },
    /// A sector has other content: zeros, that of another sector, or its own at an earlier time.
    Sector {
        file: String,
        at: usize,
        #[allow(dead_code, reason = "a failure shows it")]
        how: &'static str,
        to: Content,
    },
    Swapped {
        file: String,
        one: usize,
        other: usize,
    },
    Cut {
        file: String,
        len: usize,
    },
    Missing {
        file: String,
    },
    ZeroHeader {
        file: String,
    },
    Exchanged {
        file: String,
        with: String,
    },
    /// The whole file is what it was at an earlier time, or what a removed file of its kind was.
    Older {
        file: String,
        copy: Content,
    },
}

impl Damage {
    /// The damaged file, the first one if there are two.
    pub fn file(&self) -> &str {
        match self {
            Damage::Byte { file, .. }
            | Damage::Sector { file, .. }
            | Damage::Swapped { file, .. }
            | Damage::Cut { file, .. }
            | Damage::Missing { file }
            | Damage::ZeroHeader { file }
            | Damage::Exchanged { file, .. }
            | Damage::Older { file, .. } => file,
        }
    }

    pub fn is_log(&self) -> bool {
        self.file().starts_with("wal-")
    }

    pub fn is_segment(&self) -> bool {
        self.file().starts_with("segment-")
    }

    /// Whether it exists once for every byte.
    pub fn is_of_many(&self) -> bool {
        matches!(self, Damage::Byte { .. } | Damage::Cut { .. })
    }

    /// How many sectors it touches, if it consists of sectors after the header.
    pub fn sectors(&self) -> Option<usize> {
        match self {
            Damage::Byte { at, .. } => (*at >= HEADER_BYTES).then_some(1),
            Damage::Sector { at, .. } => (*at > 0).then_some(1),
            Damage::Swapped { one, other, .. } => (*one > 0 && *other > 0).then_some(2),
            _ => None,
        }
    }

    pub fn apply(&self, image: &Image) -> Image {
        let mut image = image.clone();
        let bytes = image.files.get_mut(self.file()).expect("a file of the shape");
        match self {
            Damage::Byte { at, to, .. } => bytes[*at] = *to,
            Damage::Sector { at, to, .. } => {
                bytes[at * SECTOR_BYTES..][..to.0.len()].copy_from_slice(&to.0);
            }
            Damage::Swapped { one, other, .. } => {
                let (low, high) = bytes.split_at_mut(other * SECTOR_BYTES);
                low[one * SECTOR_BYTES..][..SECTOR_BYTES]
                    .swap_with_slice(&mut high[..SECTOR_BYTES]);
            }
            Damage::Cut { len, .. } => bytes.truncate(*len),
            Damage::Missing { file } => drop(image.files.remove(file)),
            Damage::ZeroHeader { .. } => bytes[..HEADER_BYTES].fill(0),
            Damage::Exchanged { file, with } => {
                let (one, other) = (image.files[file].clone(), image.files[with].clone());
                image.files.insert(file.clone(), other);
                image.files.insert(with.clone(), one);
            }
            Damage::Older { copy, .. } => bytes.clone_from(&copy.0),
        }
        image
    }

    /// Whether the error names the damaged file, or one of the two.
    pub fn is_named_by(&self, error: &Error) -> bool {
        let text = error.to_string();
        let with =
            if let Damage::Exchanged { with, .. } = self { text.contains(with) } else { false };
        // Without its manifest a directory does not have the name of the manifest.
        let manifest = self.file().starts_with("manifest") && text.contains("manifest");
        // Without one of its files the log breaks off in the one before, or begins in the next one.
        let gap = matches!(self, Damage::Missing { .. }) && self.is_log() && text.contains("wal-");
        with || manifest || gap || text.contains(self.file())
    }
}

/// Every kind of damage to every file; for bytes and lengths one in `every`.
pub fn damages(shape: &Shape, every: usize) -> Vec<Damage> {
    let mut all = Vec::new();
    for (number, (name, bytes)) in shape.image.files.iter().enumerate() {
        let file = || name.clone();
        for at in 0..bytes.len() {
            // Headers and ends contain what everything else depends on.
            let dense = at < HEADER_BYTES || at + HEADER_BYTES > bytes.len();
            let step = if dense { every.min(5) } else { every };
            for (kind, to) in [bytes[at] ^ (1 << (at % 8)), 0x00, 0xFF].into_iter().enumerate() {
                if (at + number + kind * step / 3).is_multiple_of(step) && to != bytes[at] {
                    all.push(Damage::Byte { file: file(), at, to });
                }
            }
        }
        let lengths =
            (1..bytes.len()).filter(|len| every == 1 || (len + number).is_multiple_of(every * 2));
        all.extend(
            lengths.chain([0, bytes.len() - 1]).map(|len| Damage::Cut { file: file(), len }),
        );
        all.extend([Damage::Missing { file: file() }, Damage::ZeroHeader { file: file() }]);
        let others = shape.image.files.keys();
        let others = others.filter(|other| *other > name && kind(other) == kind(name));
        all.extend(others.map(|other| Damage::Exchanged { file: file(), with: other.clone() }));
        let copies = shape.past.copies(name).filter(|copy| *copy != bytes);
        all.extend(copies.map(|copy| Damage::Older { file: file(), copy: Content(copy.clone()) }));
        let step = every.div_ceil(20);
        all.extend(sectors(shape, name, bytes).into_iter().skip(number % step).step_by(step));
    }
    all
}

/// Every kind of damage that replaces the content of sectors.
fn sectors(shape: &Shape, file: &str, bytes: &[u8]) -> Vec<Damage> {
    let sector = |at: usize| {
        bytes.get(at * SECTOR_BYTES..).map(|rest| &rest[..rest.len().min(SECTOR_BYTES)])
    };
    let mut all = Vec::new();
    let mut put = |at: usize, how, to: &[u8]| {
        let there = sector(at).expect("a sector of the file");
        let to = &to[..to.len().min(there.len())];
        if to != &there[..to.len()] {
            all.push(Damage::Sector { file: file.into(), at, how, to: Content(to.into()) });
        }
    };
    let count = bytes.len().div_ceil(SECTOR_BYTES);
    for at in 0..count {
        put(at, "zeros", &[0; SECTOR_BYTES]);
        for from in [at.wrapping_sub(5), at.wrapping_sub(1), at + 1, at + 9] {
            if let Some(from) = sector(from.min(count)) {
                put(at, "what stands in another one", from);
            }
        }
    }
    for (at, older) in shape.past.sectors(file) {
        put(*at, "what it held before", older);
    }
    let pairs = (0..count).flat_map(|one| [1, 2, 11].map(|far| (one, one + far)));
    let pairs = pairs.filter(|(one, other)| {
        (other + 1) * SECTOR_BYTES <= bytes.len() && sector(*one) != sector(*other)
    });
    all.extend(pairs.map(|(one, other)| Damage::Swapped { file: file.into(), one, other }));
    all
}
