//! The answering side of a comparison. It keeps nothing: each question says all that it needs.

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::ids::DocumentId;

use super::fingerprint::{Fingerprint, RunId, Side};
use super::range::{DocumentDigest, successor};

/// A question: is this range the same at the receiver?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The range.
    pub range: IdRange,
    /// How many documents the asker has in it.
    pub count: u32,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
}

/// What the answer says of a part of the range; parts follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The first id behind the part; the first part begins where the range does.
    pub end: Option<DocumentId>,
    /// What is there.
    pub content: Content,
}

/// What a part of a range holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The same as at the asker. Only said of a whole range.
    Equal,
    /// A number of documents, with their fingerprint.
    Counted(u32, Fingerprint),
    /// These documents, in order.
    Listed(Vec<DocumentDigest>),
}

/// How many documents the answerer reads for a question: somewhat more than the asker has there,
/// so that a range which is the same is recognised at once; of a range where the asker has
/// nothing, as many as can be listed.
#[must_use]
pub(super) fn documents_to_read(ask: &Ask, listable: usize) -> usize {
    let count = usize::try_from(ask.count).unwrap_or(usize::MAX);
    let wanted = if count == 0 { listable } else { count.saturating_add(SPARE) };
    wanted.clamp(1, MAX_READ)
}

/// Answers a question from what was read of its range: `items` from the start of the range, and
/// whether more follow. At most `listable` documents are listed.
#[must_use]
pub(super) fn answer(
    ask: &Ask,
    items: &[DocumentDigest],
    more: bool,
    listable: usize,
    run: RunId,
) -> Vec<Part> {
    let whole = !more && items.len() == ask.count as usize;
    if whole && Fingerprint::of(items, Side::Answerer, run) == ask.fingerprint {
        return vec![Part { end: ask.range.end, content: Content::Equal }];
    }
    if ask.count == 0 || items.len() <= LISTED {
        return vec![list(ask, items, more, listable.max(1))];
    }
    split(ask, items, more, run)
}

fn list(ask: &Ask, items: &[DocumentDigest], more: bool, listable: usize) -> Part {
    let listed = items.get(..listable).unwrap_or(items);
    let cut = more || listed.len() < items.len();
    let end = if cut { listed.last().and_then(|last| successor(last.document)) } else { None };
    Part { end: if cut { end } else { ask.range.end }, content: Content::Listed(listed.to_vec()) }
}

fn split(ask: &Ask, items: &[DocumentDigest], more: bool, run: RunId) -> Vec<Part> {
    let size = items.len().div_ceil(PARTS).max(1);
    let pieces = items.chunks(size);
    let starts = items.chunks(size).skip(1).map(|next| next.first().map(|item| item.document));
    let behind = items.last().and_then(|last| successor(last.document));
    let last = if more { behind } else { ask.range.end };
    let content = |piece: &[DocumentDigest]| {
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        Content::Counted(count, Fingerprint::of(piece, Side::Answerer, run))
    };
    let ends = starts.chain([last]);
    pieces.zip(ends).map(|(piece, end)| Part { end, content: content(piece) }).collect()
}

/// Ranges of so few documents are listed: what a further round trip would cost more than.
pub(super) const LISTED: usize = 32;

/// Into how many parts a range is split whose fingerprint differs: two rounds take the largest
/// range that is read down to a list.
pub(super) const PARTS: usize = 16;

/// Documents that are read beyond those that the asker has.
const SPARE: usize = 1_024;

/// Documents that are read for one question at most: half a megabyte.
pub(super) const MAX_READ: usize = 16_384;
