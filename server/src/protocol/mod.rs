//! RESP2 and RESP3, the server's half: requests come out of bytes, replies go into bytes.
//!
//! Promises: decoding is total (any bytes give requests, "not yet", or one named error), costs time
//! in proportion to the bytes however they were split, and allocates in proportion to the bytes
//! that arrived, never to a length that a peer only announced. Knows nothing of sockets, commands
//! or timelines.

#![deny(clippy::indexing_slicing)]

mod decoder;
mod encoder;
mod inline;

pub use decoder::{Bounds, Decoder, ProtocolError, Request};
pub use encoder::{Encoder, Protocol};
