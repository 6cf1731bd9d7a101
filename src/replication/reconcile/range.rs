//! Ranges of document ids, and what a node says of one document in them.

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::ids::DocumentId;

/// What a node has of one document, in as few bytes as it can be compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentDigest {
    /// The document.
    pub document: DocumentId,
    /// The digest of its heads.
    pub digest: [u8; 16],
    /// Whether entries wait that the digest does not reflect.
    pub pending: bool,
}

/// Returns the part of a range from `first` on; `None` if that is empty.
#[must_use]
pub(super) fn rest(range: IdRange, first: Option<DocumentId>) -> Option<IdRange> {
    let first = first?;
    range.end.is_none_or(|end| first < end).then_some(IdRange { first, end: range.end })
}

/// Returns the documents of a range among those of a list in the order of the ids.
#[must_use]
pub(super) fn within(range: IdRange, items: &[DocumentDigest]) -> &[DocumentDigest] {
    let first = items.partition_point(|item| item.document < range.first);
    let behind = items.get(first..).unwrap_or_default();
    let last = behind.partition_point(|item| range.contains(item.document));
    behind.get(..last).unwrap_or_default()
}

/// Returns the id that follows, if there is one.
#[must_use]
pub(super) fn successor(document: DocumentId) -> Option<DocumentId> {
    let next = u128::from_be_bytes(*document.as_bytes()).checked_add(1)?;
    Some(DocumentId::from_bytes(next.to_be_bytes()))
}

/// Returns how far into the space of ids a document lies, from 0 to 1. Ids are hashes or random,
/// so that is also the share of documents in front of it.
#[must_use]
pub(super) fn share_before(document: DocumentId) -> f64 {
    u128::from_be_bytes(*document.as_bytes()) as f64 / u128::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> DocumentId {
        DocumentId::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn a_range_finds_its_documents_in_a_list() {
        let item =
            |number| DocumentDigest { document: id(number), digest: [0; 16], pending: false };
        let items: Vec<_> = [2, 4, 6, 8].map(item).to_vec();
        let found = |first, end: Option<u128>| {
            let range = IdRange { first: id(first), end: end.map(id) };
            within(range, &items).iter().map(|item| item.document).collect::<Vec<_>>()
        };
        assert_eq!(found(0, None), [id(2), id(4), id(6), id(8)]);
        assert_eq!(found(4, Some(8)), [id(4), id(6)]);
        assert_eq!(found(5, Some(6)), []);
        assert_eq!(found(9, None), []);
    }
}
