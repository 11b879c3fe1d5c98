//! Fixed layouts, declared as tables: each field starts where the one before it ends, and
//! docs/format.md is rendered from the same table.

use std::ops::Range;

/// One field of a fixed layout, as the document shows it.
#[cfg(feature = "internals")]
#[derive(Debug)]
pub struct Field {
    /// Its name in the code.
    pub name: &'static str,
    /// The byte at which it starts.
    pub at: usize,
    /// Its length in bytes.
    pub size: usize,
    /// Its meaning.
    pub meaning: &'static str,
}

/// Declares a module of byte ranges, with `BYTES`, the total size, and `TABLE` for the document.
macro_rules! layout {
    ($(#[$about:meta])* $name:ident { $($field:ident: $size:literal, $meaning:literal;)* }) => {
        $(#[$about])*
        #[allow(missing_docs, reason = "the meanings stand in TABLE")]
        pub mod $name {
            $crate::format::layout::layout!(@fields 0usize; $($field: $size;)*);
            #[cfg(feature = "internals")]
            pub const TABLE: &[$crate::format::layout::Field] = &[$($crate::format::layout::Field {
                name: stringify!($field), at: $field.start, size: $size, meaning: $meaning,
            }),*];
        }
    };
    (@fields $at:expr; $field:ident: $size:literal; $($rest:tt)*) => {
        pub const $field: std::ops::Range<usize> = ($at)..($at + $size);
        $crate::format::layout::layout!(@fields $field.end; $($rest)*);
    };
    (@fields $at:expr;) => {
        pub const BYTES: usize = $at;
    };
}
pub(crate) use layout;

/// The little-endian number in a field; `None` if the bytes are too short.
pub fn get_u32(bytes: &[u8], field: Range<usize>) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(field)?.try_into().ok()?))
}

/// The little-endian number in a field; `None` if the bytes are too short.
pub fn get_u64(bytes: &[u8], field: Range<usize>) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(field)?.try_into().ok()?))
}

/// Writes a field of a buffer that the encoder made.
pub fn put(buffer: &mut [u8], field: Range<usize>, bytes: &[u8]) {
    buffer
        .get_mut(field)
        .expect("the encoder made the buffer of the layout's size")
        .copy_from_slice(bytes);
}

/// Renders a table for the document.
#[cfg(feature = "internals")]
pub fn markdown(table: &[Field]) -> String {
    let rows = table.iter().map(|field| {
        format!(
            "| {} | {} | `{}` | {} |\n",
            field.at,
            field.size,
            field.name.to_lowercase(),
            field.meaning
        )
    });
    format!("| at | bytes | field | meaning |\n|---:|---:|---|---|\n{}", rows.collect::<String>())
}
