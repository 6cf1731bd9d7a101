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
mod hearsay;
mod identity;
mod pack;
mod reconcile;

use anabranch_crdt::bundle::BundleError;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{NameError, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use super::members::{self, Member, MemberDecodeError};

pub use batch::{Batch, encode_batch, encoded_entry_bytes};
pub use hearsay::{Knowledge, KnownRow, MAX_ROWS, Probe, ProbeAnswer, ProbeId};
pub use identity::{Claim, Judgement, Verdict};
pub use pack::{Compression, Packer, Packing, unpacked_bytes};
pub use reconcile::{Bundles, Fetch, ITEM_BYTES, MAX_DOCUMENTS, MAX_LISTED, Ranges, TooOld};

use super::knowledge::Stamp;

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
        /// Everything that is durable at the sender, in its short form.
        vector: VersionVector,
    },
    /// What is durable here, sent regularly.
    Digest(Digest),
    /// A request for entries.
    Pull(Pull),
    /// The regions of origins, and what stands before them.
    Names(Vec<Named>),
    /// What regions have that the receiver has no link to.
    Knowledge(Knowledge),
    /// A question to every region.
    Probe(Probe),
    /// What one region answers.
    ProbeAnswer(ProbeAnswer),
    /// Records of the member table, in the order of the regions.
    Members(Vec<Member>),
    /// Who the sender is, to be confirmed.
    Claim(Claim),
    /// Whether the receiver is who it claims to be.
    Verdict(Verdict),
    /// The log does not go back to what the receiver lacks.
    TooOld(TooOld),
    /// A comparison of ranges of documents.
    Ranges(Ranges),
    /// A request for whole documents.
    Fetch(Fetch),
    /// Whole documents, or what of them was lacking.
    Bundles(Bundles),
}

/// What is told of an origin besides its entries; it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The origin.
    pub origin: Origin,
    /// Its region; `None` says that the sender has entries of it, and knows no more either.
    pub region: Option<RegionName>,
    /// What whoever has an entry of it has of the region's earlier origins, in the order of their
    /// ids; at most [`MAX_AFTER`](anabranch_crdt::chain::MAX_AFTER).
    pub after: Vec<Dot>,
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
    /// Everything that is durable at the sender, in its short form.
    pub vector: VersionVector,
    /// The sender's origin and those of the vector, as far as known, in the order of the origins.
    pub names: Vec<Named>,
    /// The origins of the nodes that the sender has a live link to, in order.
    pub direct: Vec<Origin>,
    /// Whether the sender has already got the receiver's hello.
    pub heard: bool,
    /// Of the run of the sender's process.
    pub stamp: Stamp,
    /// The digest of the sender's member table; 0 from a peer of an earlier release.
    pub members: u64,
}

/// What a node has, and how it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Everything that is durable at the sender, in its short form.
    pub vector: VersionVector,
    /// The greatest admission time that the sender has given; zero if it has given none.
    pub clock: Timestamp,
    /// The origins of the nodes that the sender has a live link to, in order.
    pub direct: Vec<Origin>,
    /// Origins whose region the sender does not know, in order.
    pub unnamed: Vec<Origin>,
    /// What the sender's clocks show; a peer of an earlier release does not say it.
    pub reading: Option<Reading>,
    /// The digest of the sender's member table; 0 from a peer of an earlier release.
    pub members: u64,
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
    /// A record of a member breaks its rules.
    #[error("{0}")]
    Member(#[from] MemberDecodeError),
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
    /// A bundle in the frame is none.
    #[error("{0}")]
    Bundle(#[from] BundleError),
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
            Self::Knowledge(knowledge) => hearsay::encode_knowledge(knowledge),
            Self::Probe(probe) => hearsay::encode_probe(*probe),
            Self::ProbeAnswer(answer) => hearsay::encode_answer(answer),
            Self::Members(members) => control::encode_members(members),
            Self::Claim(claim) => identity::encode_claim(claim),
            Self::Verdict(verdict) => identity::encode_verdict(verdict),
            Self::TooOld(too_old) => reconcile::encode_too_old(too_old),
            Self::Ranges(ranges) => reconcile::encode_ranges(ranges),
            Self::Fetch(fetch) => reconcile::encode_fetch(fetch),
            Self::Bundles(bundles) => reconcile::encode_bundles(bundles),
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
            KIND_KNOWLEDGE => hearsay::decode_knowledge(body).map(Self::Knowledge),
            KIND_PROBE => hearsay::decode_probe(body).map(Self::Probe),
            KIND_PROBE_ANSWER => hearsay::decode_answer(body).map(Self::ProbeAnswer),
            KIND_MEMBERS => Ok(Self::Members(members::decode_members(body)?)),
            KIND_CLAIM => identity::decode_claim(body).map(Self::Claim),
            KIND_VERDICT => identity::decode_verdict(body).map(Self::Verdict),
            KIND_TOO_OLD => reconcile::decode_too_old(bytes.slice(2..)).map(Self::TooOld),
            KIND_RANGES => reconcile::decode_ranges(bytes.slice(2..)).map(Self::Ranges),
            KIND_FETCH => reconcile::decode_fetch(bytes.slice(2..)).map(Self::Fetch),
            KIND_BUNDLES => reconcile::decode_bundles(bytes.slice(2..)).map(Self::Bundles),
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
const KIND_KNOWLEDGE: u8 = 7;
const KIND_PROBE: u8 = 8;
const KIND_PROBE_ANSWER: u8 = 9;
const KIND_MEMBERS: u8 = 10;
const KIND_CLAIM: u8 = 11;
const KIND_VERDICT: u8 = 12;
const KIND_TOO_OLD: u8 = 13;
const KIND_RANGES: u8 = 14;
const KIND_FETCH: u8 = 15;
const KIND_BUNDLES: u8 = 16;
const KIND_PACKED: u8 = 17;

#[cfg(test)]
mod tests;
