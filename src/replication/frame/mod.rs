//! The frames of the replication protocol.
//!
//! A frame is one format version byte, one kind byte, and a body. The transport knows where a
//! frame ends, so nothing here carries its own length. Control frames are CBOR maps; vectors,
//! names and origins inside them are packed byte strings in ascending order. Entries are a fixed
//! layout with the raw change bytes in place, which are decoded without copying them.
//!
//! Decoding is strict: there is one encoding of every frame, and any other bytes are an error. It
//! never panics and never allocates more than the bytes at hand can fill.

mod batch;
mod control;
mod pack;

use anabranch_crdt::ids::{NameError, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

pub use batch::{Batch, encode_batch, encoded_entry_bytes};
pub use pack::{Compression, Packer, Packing, unpacked_bytes};

/// The first byte of every frame.
pub const FORMAT_VERSION: u8 = 1;

/// The most origins that a vector, a list of names or a set may hold: more than a cluster renews
/// in its lifetime, few enough to keep what a peer can make this node remember small.
pub const MAX_ORIGINS: usize = 16_384;

/// The most entries that one batch may hold, whatever the settings say.
pub const MAX_BATCH_ENTRIES: usize = 65_536;

/// The bytes that a batch has before its first entry.
pub const BATCH_HEADER_BYTES: usize = 2 + 16 + 8 + 4;

/// One message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Who I am and what I have: the first frame on a link.
    Hello(Hello),
    /// Entries of one origin.
    Entries(Batch),
    /// What is durable here, in answer to entries.
    Ack {
        /// Everything that is durable at the sender.
        vector: VersionVector,
    },
    /// What is durable here, sent regularly.
    Digest(Digest),
    /// A request for entries.
    Pull(Pull),
    /// The regions of origins.
    Names(Vec<(Origin, RegionName)>),
}

/// A kind of frame of which a later one says all that an earlier one says, so that of those which
/// wait for a slow link only the last need go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest(u8);

/// Returns the kind of a frame if only the newest of its kind counts.
#[must_use]
pub fn newest_counts(frame: &[u8]) -> Option<Newest> {
    match frame {
        [FORMAT_VERSION, kind @ (KIND_ACK | KIND_DIGEST), ..] => Some(Newest(*kind)),
        _ => None,
    }
}

/// Who a node is and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's region.
    pub region: RegionName,
    /// The sender's present origin.
    pub origin: Origin,
    /// Everything that is durable at the sender.
    pub vector: VersionVector,
    /// The regions of origins, as far as known, in the order of the origins.
    pub names: Vec<(Origin, RegionName)>,
    /// The origins of the nodes that the sender has a live link to, in order.
    pub direct: Vec<Origin>,
    /// Whether the sender has already got the receiver's hello.
    pub heard: bool,
}

/// What a node has, and how it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Everything that is durable at the sender.
    pub vector: VersionVector,
    /// The greatest admission time that the sender has given; zero if it has given none.
    pub clock: Timestamp,
    /// The origins of the nodes that the sender has a live link to, in order.
    pub direct: Vec<Origin>,
    /// Origins whose region the sender does not know, in order.
    pub unnamed: Vec<Origin>,
    /// What the sender's clocks show; a peer of an earlier release does not say it.
    pub reading: Option<Reading>,
}

/// What a node's clocks show when it sends, by which the receiver measures them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, uncorrected.
    pub wall: Timestamp,
    /// What the receiver is to send back.
    pub mark: u64,
    /// What the receiver has sent.
    pub echo: Option<Echo>,
}

/// A mark on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The last mark that came over the link.
    pub mark: u64,
    /// How long it was kept, in microseconds.
    pub held: u64,
}

/// A request for the entries that follow one.
///
/// To the origin itself it says where its stream has to go on; any other node answers with some
/// batches, of which the last is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Whose entries.
    pub origin: Origin,
    /// The entry before the first one wanted.
    pub after: Sequence,
    /// At most so many.
    pub entries: u32,
    /// At most so many bytes of changes, but at least one entry.
    pub bytes: u32,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is no CBOR of the expected shape.
    #[error("malformed control frame: {0}")]
    Cbor(#[from] serde_cbor::Error),
    /// A value is out of its range.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// The kind byte is not known.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A name breaks its rules.
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    /// The bytes are not the one encoding of what they say.
    #[error("{0} is not in its one form")]
    Form(&'static str),
    /// The bytes end early.
    #[error("frame ends early")]
    Short,
    /// The inside of a packed frame is damaged.
    #[error("a packed frame cannot be unpacked")]
    Packed,
    /// Bytes follow the end of the frame.
    #[error("bytes after the end of the frame")]
    Trailing,
    /// The frame has a format that this release does not know.
    #[error("unknown frame format {0}")]
    Version(u8),
}

impl Frame {
    /// Encodes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Hello(hello) => control::encode_hello(hello),
            Self::Entries(batch) => encode_batch(batch.origin, batch.first, batch.entries.iter()),
            Self::Ack { vector } => control::encode_ack(vector),
            Self::Digest(digest) => control::encode_digest(digest),
            Self::Pull(pull) => control::encode_pull(pull),
            Self::Names(names) => control::encode_names(names),
        }
    }

    /// Decodes a frame; changes of entries share its bytes. A packed one is unpacked if it is not
    /// longer than the default of [`Packing::longest`].
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, Packing::default().longest)
    }

    /// Decodes a frame; one that is packed may have `longest` bytes when it is unpacked.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode_within(bytes: &Bytes, longest: usize) -> Result<Self, DecodeError> {
        match bytes.as_ref() {
            [FORMAT_VERSION, KIND_PACKED, body @ ..] => {
                Self::decode_plain(&pack::unpack(body, longest)?)
            }
            _ => Self::decode_plain(bytes),
        }
    }

    fn decode_plain(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(DecodeError::Short)?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::Version(version));
        }
        let (&kind, body) = rest.split_first().ok_or(DecodeError::Short)?;
        match kind {
            KIND_HELLO => control::decode_hello(body).map(Self::Hello),
            KIND_ENTRIES => batch::decode_batch(bytes).map(Self::Entries),
            KIND_ACK => control::decode_ack(body),
            KIND_DIGEST => control::decode_digest(body).map(Self::Digest),
            KIND_PULL => control::decode_pull(body).map(Self::Pull),
            KIND_NAMES => control::decode_names(body).map(Self::Names),
            unknown => Err(DecodeError::Kind(unknown)),
        }
    }
}

const KIND_HELLO: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const KIND_ACK: u8 = 3;
const KIND_DIGEST: u8 = 4;
const KIND_PULL: u8 = 5;
const KIND_NAMES: u8 = 6;
const KIND_PACKED: u8 = 17;

#[cfg(test)]
mod tests;
