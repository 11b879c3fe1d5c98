//! A log entry in the form that raft-engine takes: a protobuf message, written by hand.
//!
//! `message Entry { uint64 index = 1; bytes body = 2; }`, with only the functions that encoding and
//! decoding need. Generated code does the same steps; generating it would need a protobuf compiler
//! on every machine that builds the benches.

use std::any::Any;
use std::sync::OnceLock;

use protobuf::reflect::MessageDescriptor;
use protobuf::rt::{bytes_size, tag_size, unknown_fields_size};
use protobuf::wire_format::WireType;
use protobuf::{
    CachedSize, Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields,
};

const INDEX: u32 = 1;
const BODY: u32 = 2;

/// A position and its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftEntry {
    pub index: u64,
    pub body: Vec<u8>,
    unknown: UnknownFields,
    size: CachedSize,
}

impl Clear for RaftEntry {
    fn clear(&mut self) {
        self.index = 0;
        self.body.clear();
        self.unknown.clear();
    }
}

impl Message for RaftEntry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("only reflection asks, and the engine does not use it")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            match input.read_tag_unpack()? {
                (INDEX, WireType::WireTypeVarint) => self.index = input.read_uint64()?,
                (BODY, WireType::WireTypeLengthDelimited) => {
                    input.read_bytes_into(&mut self.body)?;
                }
                (number, wire_type) => {
                    self.unknown.add_value(number, input.read_unknown(wire_type)?);
                }
            }
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_uint64(INDEX, self.index)?;
        output.write_bytes(BODY, &self.body)?;
        output.write_unknown_fields(&self.unknown)
    }

    fn compute_size(&self) -> u32 {
        let index = tag_size(INDEX) + protobuf::rt::compute_raw_varint64_size(self.index);
        let size = index + bytes_size(BODY, &self.body) + unknown_fields_size(&self.unknown);
        self.size.set(size);
        size
    }

    fn get_cached_size(&self) -> u32 {
        self.size.get()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> RaftEntry {
        RaftEntry::default()
    }

    fn default_instance() -> &'static RaftEntry {
        static DEFAULT: OnceLock<RaftEntry> = OnceLock::new();
        DEFAULT.get_or_init(RaftEntry::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_encoding() {
        let entry = RaftEntry { index: 300, body: b"a body".to_vec(), ..RaftEntry::default() };
        let bytes = entry.write_to_bytes().expect("encoding into memory");
        assert_eq!(bytes, [&[0x08, 0xAC, 0x02, 0x12, 0x06][..], b"a body"].concat());
        assert_eq!(RaftEntry::parse_from_bytes(&bytes).expect("its own bytes"), entry);
    }
}
