//! A document on its way to another region as a whole, or the part of it that is lacking there.
//!
//! A region that was away for longer than the journal reaches back, or whose copy is damaged,
//! is given documents instead of entries. A bundle says all that entries would have said: every
//! change, when and by which leader it was admitted, and up to which entries of each origin the
//! document goes.
//!
//! # Encoding
//!
//! Numbers are big-endian. There is one encoding of every bundle, and any other bytes are refused.
//!
//! ```text
//! format (1) | document (16) | name: length (2), collection '/' key
//! heads: count (4), each 32, ascending | dots: count (4), each origin (16) sequence (8), ascending
//! changes: count (4), each admission time (8) leader (16) length (4) bytes
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::entry::Dot;
use crate::ids::{
    ChangeHash, DocumentId, DocumentName, MAX_COLLECTION_BYTES, MAX_KEY_BYTES, Origin, Sequence,
    Timestamp,
};

/// The most heads of a bundle. A document has as many as writers who never heard of each other.
pub const MAX_BUNDLE_HEADS: usize = 65_536;

/// The most origins of a bundle: as many as one vector may name.
pub const MAX_BUNDLE_ORIGINS: usize = 16_384;

/// The most changes of a bundle; a longer history takes several.
pub const MAX_BUNDLE_CHANGES: usize = 65_536;

/// The changes of a document that someone lacks, in causal order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The document.
    pub document: DocumentId,
    /// Its name, if it has one.
    pub name: Option<DocumentName>,
    /// The heads of the whole document where it comes from, in ascending order. A receiver that
    /// has all of them has the document as it was there.
    pub heads: Vec<ChangeHash>,
    /// The changes; each follows those of its dependencies that are in the bundle. They may be
    /// only the first of those that lack, see [`Bundle::heads`].
    pub changes: Vec<BundledChange>,
    /// The last entry of each origin that the whole document reflects, in the order of the
    /// origins. They hold for whoever has all the heads.
    pub dots: Vec<Dot>,
}

/// One change, and how it was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledChange {
    /// The bytes of the change, uncompressed, exactly as hashed.
    pub change: Bytes,
    /// When it was admitted.
    pub admitted: Timestamp,
    /// The leader that admitted it.
    pub by: Origin,
}

/// Why bytes are no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end early.
    #[error("the bundle ends early")]
    Short,
    /// Bytes follow its end.
    #[error("bytes after the end of the bundle")]
    Trailing,
    /// It has a format that this release does not know.
    #[error("unknown bundle format {0}")]
    Format(u8),
    /// A value is out of its range.
    #[error("{0} of the bundle is out of range")]
    Range(&'static str),
    /// The bytes are not the one encoding of what they say.
    #[error("{0} of the bundle is not in its one form")]
    Form(&'static str),
}

impl Bundle {
    /// Counts the bytes that [`Bundle::encode`] writes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.to_string().len());
        let changes: usize =
            self.changes.iter().map(|change| CHANGE_BYTES + change.change.len()).sum();
        FIXED_BYTES + name + self.heads.len() * 32 + self.dots.len() * DOT_BYTES + changes
    }

    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.encoded_bytes());
        out.put_u8(FORMAT);
        out.put_slice(self.document.as_bytes());
        let name = self.name.as_ref().map(ToString::to_string).unwrap_or_default();
        out.put_u16(u16::try_from(name.len()).expect("names are bounded by their rules"));
        out.put_slice(name.as_bytes());
        put_count(out, self.heads.len());
        self.heads.iter().for_each(|head| out.put_slice(&head.0));
        put_count(out, self.dots.len());
        for dot in &self.dots {
            out.put_slice(dot.origin.as_bytes());
            out.put_u64(dot.sequence.0);
        }
        put_count(out, self.changes.len());
        for BundledChange { change, admitted, by } in &self.changes {
            out.put_u64(admitted.0);
            out.put_slice(by.as_bytes());
            put_count(out, change.len());
            out.put_slice(change);
        }
    }

    /// Decodes a bundle; its changes share the bytes.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn decode(bytes: &Bytes) -> Result<Self, BundleError> {
        let mut rest = bytes.clone();
        let bundle = Self::take(&mut rest)?;
        if rest.is_empty() { Ok(bundle) } else { Err(BundleError::Trailing) }
    }

    /// Decodes the bundle at the start of `rest`, and takes it off there.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn take(rest: &mut Bytes) -> Result<Self, BundleError> {
        let format = rest.try_get_u8().map_err(|_| BundleError::Short)?;
        if format != FORMAT {
            return Err(BundleError::Format(format));
        }
        let document = DocumentId::from_bytes(take_array(rest)?);
        let name = take_name(rest)?;
        let count = take_count(rest, "the count of heads", MAX_BUNDLE_HEADS, 32)?;
        let heads: Vec<ChangeHash> =
            (0..count).map(|_| take_array(rest).map(ChangeHash)).collect::<Result<_, _>>()?;
        if !heads.is_sorted_by(|one, next| one < next) {
            return Err(BundleError::Form("the order of heads"));
        }
        let count = take_count(rest, "the count of origins", MAX_BUNDLE_ORIGINS, DOT_BYTES)?;
        let dots: Vec<Dot> = (0..count).map(|_| take_dot(rest)).collect::<Result<_, _>>()?;
        if !dots.is_sorted_by(|one, next| one.origin < next.origin) {
            return Err(BundleError::Form("the order of origins"));
        }
        let count = take_count(rest, "the count of changes", MAX_BUNDLE_CHANGES, CHANGE_BYTES)?;
        let changes = (0..count).map(|_| take_change(rest)).collect::<Result<_, _>>()?;
        Ok(Self { document, name, heads, changes, dots })
    }
}

/// Document ids from one on, up to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRange {
    /// The first id.
    pub first: DocumentId,
    /// The id behind the last one; `None` for no end.
    pub end: Option<DocumentId>,
}

impl IdRange {
    /// Every id there can be.
    #[must_use]
    pub fn all() -> Self {
        Self { first: DocumentId::from_bytes([0; 16]), end: None }
    }

    /// Tells whether an id is in the range.
    #[must_use]
    pub fn contains(&self, id: DocumentId) -> bool {
        id >= self.first && self.end.is_none_or(|end| id < end)
    }

    /// Returns the part of the range behind an id; `None` if nothing is left.
    #[must_use]
    pub fn after(&self, id: DocumentId) -> Option<Self> {
        let next = u128::from_be_bytes(*id.as_bytes()).checked_add(1)?;
        let first = DocumentId::from_bytes(next.to_be_bytes()).max(self.first);
        self.end.is_none_or(|end| first < end).then_some(Self { first, end: self.end })
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("counts and lengths are bounded far below 2^32"));
}

/// Reads a count, which what is left must be able to fill.
fn take_count(
    rest: &mut Bytes,
    what: &'static str,
    most: usize,
    each: usize,
) -> Result<usize, BundleError> {
    let count = rest.try_get_u32().map_err(|_| BundleError::Short)? as usize;
    if count > most {
        return Err(BundleError::Range(what));
    }
    if count > rest.len() / each {
        return Err(BundleError::Short);
    }
    Ok(count)
}

fn take_array<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], BundleError> {
    let mut array = [0; N];
    rest.try_copy_to_slice(&mut array).map_err(|_| BundleError::Short)?;
    Ok(array)
}

fn take_bytes(rest: &mut Bytes, length: usize) -> Result<Bytes, BundleError> {
    if length > rest.len() {
        return Err(BundleError::Short);
    }
    Ok(rest.split_to(length))
}

fn take_name(rest: &mut Bytes) -> Result<Option<DocumentName>, BundleError> {
    let length = usize::from(rest.try_get_u16().map_err(|_| BundleError::Short)?);
    if length == 0 {
        return Ok(None);
    }
    if length > MAX_COLLECTION_BYTES + 1 + MAX_KEY_BYTES {
        return Err(BundleError::Range("the length of the name"));
    }
    let bytes = take_bytes(rest, length)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| BundleError::Form("the name"))?;
    text.parse().map(Some).map_err(|_| BundleError::Form("the name"))
}

fn take_dot(rest: &mut Bytes) -> Result<Dot, BundleError> {
    let origin = Origin::from_bytes(take_array(rest)?);
    let sequence = Sequence(rest.try_get_u64().map_err(|_| BundleError::Short)?);
    if sequence == Sequence::ZERO {
        return Err(BundleError::Range("a sequence"));
    }
    Ok(Dot { origin, sequence })
}

fn take_change(rest: &mut Bytes) -> Result<BundledChange, BundleError> {
    let admitted = Timestamp(rest.try_get_u64().map_err(|_| BundleError::Short)?);
    if admitted > Timestamp::MAX {
        return Err(BundleError::Range("an admission time"));
    }
    let by = Origin::from_bytes(take_array(rest)?);
    let length = rest.try_get_u32().map_err(|_| BundleError::Short)? as usize;
    if length == 0 {
        return Err(BundleError::Range("the length of a change"));
    }
    let change = take_bytes(rest, length)?;
    Ok(BundledChange { change, admitted, by })
}

const FORMAT: u8 = 1;

/// Format, document, length of the name, and three counts.
const FIXED_BYTES: usize = 1 + 16 + 2 + 3 * 4;

const DOT_BYTES: usize = 16 + 8;

/// Bytes of a change beside its own.
const CHANGE_BYTES: usize = 8 + 16 + 4;

#[cfg(test)]
mod tests;
