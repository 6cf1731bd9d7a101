//! Batches of entries: a fixed layout around raw change bytes.
//!
//! All integers are big-endian. Header: origin (16), sequence of the first entry (8), count (4).
//! Each entry: document (16), admission time (8), length of the name (2; zero for none), name,
//! length of the change (4), change. Sequences follow from the place in the batch.

use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{
    DocumentId, DocumentName, MAX_COLLECTION_BYTES, MAX_KEY_BYTES, Origin, Sequence, Timestamp,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BATCH_HEADER_BYTES, DecodeError, FORMAT_VERSION, KIND_ENTRIES, MAX_BATCH_ENTRIES};

/// Entries of one origin, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Whose entries.
    pub origin: Origin,
    /// The sequence of the first one, also of an empty batch.
    pub first: Sequence,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// Counts the bytes that an entry takes in a batch.
#[must_use]
pub fn encoded_entry_bytes(entry: &Entry) -> usize {
    let name = entry.name.as_ref().map_or(0, name_bytes);
    ENTRY_FIXED_BYTES + name + entry.change.len()
}

/// Encodes consecutive entries of one origin.
#[must_use]
pub fn encode_batch<'a>(
    origin: Origin,
    first: Sequence,
    entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
) -> Bytes {
    let size = BATCH_HEADER_BYTES + entries.clone().map(encoded_entry_bytes).sum::<usize>();
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(&[FORMAT_VERSION, KIND_ENTRIES]);
    out.put_slice(origin.as_bytes());
    out.put_u64(first.0);
    out.put_u32(u32::try_from(entries.len()).expect("batches are bounded far below 2^32"));
    entries.for_each(|entry| put_entry(&mut out, entry));
    out.freeze()
}

/// Decodes a whole frame that is known to be a batch.
pub(super) fn decode_batch(frame: &Bytes) -> Result<Batch, DecodeError> {
    let mut rest = frame.clone();
    take(&mut rest, 2)?;
    let origin = Origin::from_bytes(take_id(&mut rest)?);
    let first = Sequence(rest.try_get_u64().map_err(|_| DecodeError::Short)?);
    let count = rest.try_get_u32().map_err(|_| DecodeError::Short)? as usize;
    if first == Sequence::ZERO || first.0.checked_add(count as u64).is_none() {
        return Err(DecodeError::Range("sequence"));
    }
    if count > MAX_BATCH_ENTRIES {
        return Err(DecodeError::Range("count of entries"));
    }
    if count > rest.len() / ENTRY_FIXED_BYTES {
        return Err(DecodeError::Short);
    }
    let entries = (first.0..)
        .take(count)
        .map(|sequence| take_entry(&mut rest, origin, Sequence(sequence)))
        .collect::<Result<Vec<_>, _>>()?;
    match rest.is_empty() {
        true => Ok(Batch { origin, first, entries }),
        false => Err(DecodeError::Trailing),
    }
}

fn put_entry(out: &mut BytesMut, entry: &Entry) {
    out.put_slice(entry.document.as_bytes());
    out.put_u64(entry.admitted.0);
    match &entry.name {
        None => out.put_u16(0),
        Some(name) => {
            out.put_u16(u16::try_from(name_bytes(name)).expect("names are bounded by their rules"));
            out.put_slice(name.collection.as_str().as_bytes());
            out.put_u8(b'/');
            out.put_slice(name.key.as_str().as_bytes());
        }
    }
    out.put_u32(u32::try_from(entry.change.len()).expect("changes are bounded far below 2^32"));
    out.put_slice(&entry.change);
}

fn take_entry(rest: &mut Bytes, origin: Origin, sequence: Sequence) -> Result<Entry, DecodeError> {
    let document = DocumentId::from_bytes(take_id(rest)?);
    let admitted = Timestamp(rest.try_get_u64().map_err(|_| DecodeError::Short)?);
    if admitted > Timestamp::MAX {
        return Err(DecodeError::Range("admission time"));
    }
    let name_length = rest.try_get_u16().map_err(|_| DecodeError::Short)?;
    let name = match usize::from(name_length) {
        0 => None,
        length if length > MAX_NAME_BYTES => return Err(DecodeError::Range("length of a name")),
        length => Some(parse_name(&take(rest, length)?)?),
    };
    let length = rest.try_get_u32().map_err(|_| DecodeError::Short)? as usize;
    let change = take(rest, length)?;
    Ok(Entry { origin, sequence, document, name, admitted, change })
}

fn parse_name(bytes: &[u8]) -> Result<DocumentName, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Form("name"))?;
    Ok(text.parse()?)
}

fn take_id(rest: &mut Bytes) -> Result<[u8; 16], DecodeError> {
    let mut id = [0; 16];
    rest.try_copy_to_slice(&mut id).map_err(|_| DecodeError::Short)?;
    Ok(id)
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, DecodeError> {
    if length > rest.len() {
        return Err(DecodeError::Short);
    }
    Ok(rest.split_to(length))
}

fn name_bytes(name: &DocumentName) -> usize {
    name.collection.as_str().len() + 1 + name.key.as_str().len()
}

const ENTRY_FIXED_BYTES: usize = 16 + 8 + 2 + 4;

const MAX_NAME_BYTES: usize = MAX_COLLECTION_BYTES + 1 + MAX_KEY_BYTES;
