//! Frames by which two nodes compare what they have and pass on whole documents: a fixed layout,
//! like that of batches.
//!
//! All integers are big-endian, and every list begins with its count (4). An id of a range's end
//! that may be missing follows one byte that says whether it is there.

use anabranch_crdt::bundle::{Bundle, IdRange, MAX_BUNDLE_HEADS};
use anabranch_crdt::ids::{ChangeHash, DocumentId, Origin, Sequence};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{DecodeError, FORMAT_VERSION, KIND_BUNDLES, KIND_FETCH, KIND_RANGES, KIND_TOO_OLD};
use crate::replication::reconcile::{
    Ask, AskNumber, BatchNumber, Content, DocumentDigest, Fingerprint, Part, RunId, Want,
};

/// An answer to a pull or a hello: the log of an origin does not go back to what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    /// Whose entries.
    pub origin: Origin,
    /// Entries up to here are gone from the sender's log.
    pub floor: Sequence,
}

/// A comparison of ranges of document ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// A question.
    Ask {
        /// The comparison that it belongs to.
        run: RunId,
        /// Which question of the comparison.
        number: AskNumber,
        /// The range.
        ask: Ask,
    },
    /// The answer.
    Answer {
        /// The comparison.
        run: RunId,
        /// The question.
        number: AskNumber,
        /// What the range holds, part by part, from its beginning on.
        parts: Vec<Part>,
    },
}

/// A request that concerns whole documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetch {
    /// Send the changes of documents that the sender does not have.
    Want {
        /// The comparison that it belongs to.
        run: RunId,
        /// Which request of the comparison.
        number: BatchNumber,
        /// How many bytes of bundles the answer may have, though it holds one change at least.
        bytes: u32,
        /// The documents.
        wants: Vec<Want>,
    },
    /// The receiver seems to lack something of these documents; it may look for itself.
    Offer {
        /// The documents.
        documents: Vec<DocumentId>,
    },
}

/// An answer to [`Fetch::Want`]: some of the documents, at least one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundles {
    /// The comparison.
    pub run: RunId,
    /// The request.
    pub number: BatchNumber,
    /// What was asked for.
    pub bundles: Vec<Bundle>,
    /// Documents that the sender does not have.
    pub absent: Vec<DocumentId>,
    /// Documents that the sender has, but cannot read.
    pub unreadable: Vec<DocumentId>,
}

pub(super) fn encode_too_old(too_old: &TooOld) -> Bytes {
    let mut out = start(KIND_TOO_OLD);
    out.put_slice(too_old.origin.as_bytes());
    out.put_u64(too_old.floor.0);
    out.freeze()
}

pub(super) fn decode_too_old(body: Bytes) -> Result<TooOld, DecodeError> {
    let mut body = Reader(body);
    let origin = Origin::from_bytes(body.array()?);
    let floor = Sequence(body.u64()?);
    if floor == Sequence::ZERO || floor.0 == u64::MAX {
        return Err(DecodeError::Range("floor"));
    }
    body.end(TooOld { origin, floor })
}

pub(super) fn encode_ranges(ranges: &Ranges) -> Bytes {
    let mut out = start(KIND_RANGES);
    match ranges {
        Ranges::Ask { run, number, ask } => {
            out.put_u8(0);
            out.put_u64(run.0);
            out.put_u32(number.0);
            out.put_slice(ask.range.first.as_bytes());
            put_end(&mut out, ask.range.end);
            out.put_u32(ask.count);
            out.put_slice(&ask.fingerprint.0);
        }
        Ranges::Answer { run, number, parts } => {
            out.put_u8(1);
            out.put_u64(run.0);
            out.put_u32(number.0);
            put_count(&mut out, parts.len());
            parts.iter().for_each(|part| put_part(&mut out, part));
        }
    }
    out.freeze()
}

pub(super) fn decode_ranges(body: Bytes) -> Result<Ranges, DecodeError> {
    let mut body = Reader(body);
    let role = body.u8()?;
    let (run, number) = (RunId(body.u64()?), AskNumber(body.u32()?));
    match role {
        0 => {
            let range = IdRange { first: body.id()?, end: body.optional_id()? };
            if range.end.is_some_and(|end| end <= range.first) {
                return Err(DecodeError::Range("range of documents"));
            }
            let (count, fingerprint) = (body.u32()?, Fingerprint(body.array()?));
            let ask = Ask { range, count, fingerprint };
            body.end(Ranges::Ask { run, number, ask })
        }
        1 => {
            let count = body.count("parts", MAX_PARTS, 2)?;
            let parts = (0..count).map(|_| body.part()).collect::<Result<_, _>>()?;
            body.end(Ranges::Answer { run, number, parts })
        }
        _ => Err(DecodeError::Range("role")),
    }
}

pub(super) fn encode_fetch(fetch: &Fetch) -> Bytes {
    let mut out = start(KIND_FETCH);
    match fetch {
        Fetch::Want { run, number, bytes, wants } => {
            out.put_u8(0);
            out.put_u64(run.0);
            out.put_u32(number.0);
            out.put_u32(*bytes);
            put_count(&mut out, wants.len());
            for want in wants {
                out.put_slice(want.document.as_bytes());
                put_count(&mut out, want.have.len());
                want.have.iter().for_each(|head| out.put_slice(&head.0));
            }
        }
        Fetch::Offer { documents } => {
            out.put_u8(1);
            put_ids(&mut out, documents);
        }
    }
    out.freeze()
}

pub(super) fn decode_fetch(body: Bytes) -> Result<Fetch, DecodeError> {
    let mut body = Reader(body);
    match body.u8()? {
        0 => {
            let (run, number) = (RunId(body.u64()?), BatchNumber(body.u32()?));
            let bytes = body.u32()?;
            let count = body.count("documents", MAX_DOCUMENTS, 16 + 4)?;
            let wants = (0..count).map(|_| body.want()).collect::<Result<_, _>>()?;
            body.end(Fetch::Want { run, number, bytes, wants })
        }
        1 => {
            let documents = body.ids()?;
            body.end(Fetch::Offer { documents })
        }
        _ => Err(DecodeError::Range("role")),
    }
}

pub(super) fn encode_bundles(bundles: &Bundles) -> Bytes {
    let mut out = start(KIND_BUNDLES);
    out.put_u64(bundles.run.0);
    out.put_u32(bundles.number.0);
    put_ids(&mut out, &bundles.absent);
    put_ids(&mut out, &bundles.unreadable);
    put_count(&mut out, bundles.bundles.len());
    bundles.bundles.iter().for_each(|bundle| bundle.encode(&mut out));
    out.freeze()
}

/// Decodes a body; changes share its bytes.
pub(super) fn decode_bundles(body: Bytes) -> Result<Bundles, DecodeError> {
    let mut body = Reader(body);
    let (run, number) = (RunId(body.u64()?), BatchNumber(body.u32()?));
    let (absent, unreadable) = (body.ids()?, body.ids()?);
    let count = body.count("bundles", MAX_DOCUMENTS, 16)?;
    let bundles = (0..count).map(|_| body.bundle()).collect::<Result<_, _>>()?;
    body.end(Bundles { run, number, bundles, absent, unreadable })
}

fn start(kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[FORMAT_VERSION, kind]);
    out
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("lists in frames are bounded far below 2^32"));
}

fn put_ids(out: &mut BytesMut, ids: &[DocumentId]) {
    put_count(out, ids.len());
    ids.iter().for_each(|id| out.put_slice(id.as_bytes()));
}

fn put_end(out: &mut BytesMut, end: Option<DocumentId>) {
    out.put_u8(u8::from(end.is_some()));
    if let Some(end) = end {
        out.put_slice(end.as_bytes());
    }
}

fn put_part(out: &mut BytesMut, part: &Part) {
    put_end(out, part.end);
    match &part.content {
        Content::Equal => out.put_u8(0),
        Content::Counted(count, fingerprint) => {
            out.put_u8(1);
            out.put_u32(*count);
            out.put_slice(&fingerprint.0);
        }
        Content::Listed(items) => {
            out.put_u8(2);
            put_count(out, items.len());
            for item in items {
                out.put_slice(item.document.as_bytes());
                out.put_slice(&item.digest);
                out.put_u8(u8::from(item.pending));
            }
        }
    }
}

/// Takes fields off the start of a body.
struct Reader(Bytes);

impl Reader {
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::Short)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.0.try_get_u32().map_err(|_| DecodeError::Short)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.0.try_get_u64().map_err(|_| DecodeError::Short)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Range("flag")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        self.0.try_copy_to_slice(&mut array).map_err(|_| DecodeError::Short)?;
        Ok(array)
    }

    fn id(&mut self) -> Result<DocumentId, DecodeError> {
        self.array().map(DocumentId::from_bytes)
    }

    fn optional_id(&mut self) -> Result<Option<DocumentId>, DecodeError> {
        if self.flag()? { self.id().map(Some) } else { Ok(None) }
    }

    /// Reads a count, which what is left must be able to fill.
    fn count(
        &mut self,
        what: &'static str,
        most: usize,
        each: usize,
    ) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > most {
            return Err(DecodeError::Range(what));
        }
        if count > self.0.len() / each {
            return Err(DecodeError::Short);
        }
        Ok(count)
    }

    fn ids(&mut self) -> Result<Vec<DocumentId>, DecodeError> {
        let count = self.count("documents", MAX_DOCUMENTS, 16)?;
        (0..count).map(|_| self.id()).collect()
    }

    fn want(&mut self) -> Result<Want, DecodeError> {
        let document = self.id()?;
        let count = self.count("heads", MAX_BUNDLE_HEADS, 32)?;
        let have = (0..count).map(|_| self.array().map(ChangeHash)).collect::<Result<_, _>>()?;
        Ok(Want { document, have })
    }

    fn bundle(&mut self) -> Result<Bundle, DecodeError> {
        Ok(Bundle::take(&mut self.0)?)
    }

    fn part(&mut self) -> Result<Part, DecodeError> {
        let end = self.optional_id()?;
        let content = match self.u8()? {
            0 => Content::Equal,
            1 => Content::Counted(self.u32()?, Fingerprint(self.array()?)),
            2 => {
                let count = self.count("listed documents", MAX_LISTED, ITEM_BYTES)?;
                Content::Listed((0..count).map(|_| self.item()).collect::<Result<_, _>>()?)
            }
            _ => return Err(DecodeError::Range("content of a part")),
        };
        Ok(Part { end, content })
    }

    fn item(&mut self) -> Result<DocumentDigest, DecodeError> {
        Ok(DocumentDigest { document: self.id()?, digest: self.array()?, pending: self.flag()? })
    }

    fn end<T>(self, value: T) -> Result<T, DecodeError> {
        if self.0.is_empty() { Ok(value) } else { Err(DecodeError::Trailing) }
    }
}

/// The most parts of an answer; honest peers send [`crate::replication::reconcile`]'s sixteen.
const MAX_PARTS: usize = 64;

/// The most documents that one part may list.
pub const MAX_LISTED: usize = 16_384;

/// The most documents of one request, or of one answer.
pub const MAX_DOCUMENTS: usize = 1_024;

/// The bytes that a document takes in a list.
pub const ITEM_BYTES: usize = 16 + 16 + 1;
