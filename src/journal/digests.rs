//! Digests: what each document is, in a few bytes, to be compared with another region's.
//!
//! They are read off the rows of `documents-1`, which every write brings up to date anyway. A row
//! that is damaged has a digest like no document's, so the comparison finds it.

use std::collections::BTreeSet;
use std::ops::Bound;

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::DocumentId;
use anabranch_crdt::version::VersionVector;
use redb::ReadTransaction;

use super::ReadError;
use super::reader::open;
use super::record::{DocumentRecord, Fields};
use super::shared::Shared;
use super::store::unreadable;
use super::table;

/// One document of a comparison: its id, the digest of its heads, and whether pending entries wait
/// (then the digest is behind). The digest is [`NO_DIGEST`] where there is no row, or a damaged one.
pub type DocumentDigest = (DocumentId, [u8; 16], bool);

/// The digest of what has no row yet, and of a row that is damaged.
pub const NO_DIGEST: [u8; 16] = [0; 16];

pub(super) fn digests(
    shared: &Shared,
    range: IdRange,
    limit: usize,
) -> Result<Vec<DocumentDigest>, ReadError> {
    shared.store.read(|transaction| {
        let mut found = stored(transaction, range, limit)?;
        let last = found.last().map(|(id, ..)| *id).filter(|_| found.len() >= limit);
        let waiting = waiting(transaction, range, last, limit)?;
        let mut alone = waiting.clone();
        for (id, _, pending) in &mut found {
            *pending = waiting.contains(id);
            alone.remove(id);
        }
        if !alone.is_empty() {
            found.extend(alone.into_iter().map(|id| (id, NO_DIGEST, true)));
            found.sort_unstable();
            found.truncate(limit);
        }
        Ok(found)
    })
}

/// The last entry of each origin that a document reflects, or will once pending ones are applied.
pub(super) fn document_dots(shared: &Shared, document: DocumentId) -> Result<Vec<Dot>, ReadError> {
    shared.store.read(|transaction| {
        let key = document.as_bytes();
        let value = open(transaction, &table::DOCUMENTS)?.get(key).map_err(unreadable)?;
        let made_of =
            value.map(|value| DocumentRecord::unseal(key, value.value())?.made_of()).transpose()?;
        let mut tops: VersionVector = made_of.unwrap_or_default().tops;
        let (first, last) = table::index_bounds(document);
        let pending = open(transaction, &table::PENDING)?;
        for pair in pending.range::<&[u8; 40]>(&first..=&last).map_err(unreadable)? {
            let (key, _) = pair.map_err(unreadable)?;
            let (_, dot) = table::index_parts(table::PENDING.name, key.value())?;
            tops.raise(dot.origin, dot.sequence);
        }
        Ok(tops.iter().collect())
    })
}

/// The documents that have a record.
fn stored(
    transaction: &ReadTransaction,
    range: IdRange,
    limit: usize,
) -> Result<Vec<DocumentDigest>, ReadError> {
    let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_bytes()));
    let bounds = (Bound::Included(range.first.as_bytes()), end);
    let documents = open(transaction, &table::DOCUMENTS)?;
    let mut found = Vec::new();
    for pair in documents.range::<&[u8; 16]>(bounds).map_err(unreadable)?.take(limit) {
        let (key, value) = pair.map_err(unreadable)?;
        let record = DocumentRecord::unseal(key.value(), value.value());
        let digest = record.and_then(|record| record.digest()).ok().flatten();
        found.push((DocumentId::from_bytes(*key.value()), digest.unwrap_or(NO_DIGEST), false));
    }
    Ok(found)
}

/// The documents with pending entries, up to `last` if it is given.
fn waiting(
    transaction: &ReadTransaction,
    range: IdRange,
    last: Option<DocumentId>,
    limit: usize,
) -> Result<BTreeSet<DocumentId>, ReadError> {
    let pending = open(transaction, &table::PENDING)?;
    let mut found = BTreeSet::new();
    let mut left = Some(range);
    while let Some(range) = left.filter(|_| found.len() < limit) {
        let first = table::index_bounds(range.first).0;
        let bounds = (Bound::Included(&first), Bound::Unbounded);
        let Some(pair) = pending.range::<&[u8; 40]>(bounds).map_err(unreadable)?.next() else {
            break;
        };
        let (key, value) = pair.map_err(unreadable)?;
        Fields::unseal(table::PENDING.name, key.value(), value.value())?;
        let (document, _) = table::index_parts(table::PENDING.name, key.value())?;
        if !range.contains(document) || last.is_some_and(|last| document > last) {
            break;
        }
        found.insert(document);
        left = range.after(document);
    }
    Ok(found)
}
