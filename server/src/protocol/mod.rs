//! RESP2 and RESP3 on the server's side: decodes requests, encodes replies.
//!
//! Promises: decoding is total (any bytes give requests, "not yet", or one named error), takes time
//! in proportion to the bytes however they were split, and allocates in proportion to the bytes
//! that arrived, never to a length that a peer only announced. It knows nothing of sockets,
//! commands or timelines.

#![deny(clippy::indexing_slicing)]

mod decoder;
mod encoder;
mod inline;

pub use decoder::{Bounds, Decoder, ProtocolError, Request};
pub use encoder::{Encoder, Protocol};
pub use inline::split as split_words;
