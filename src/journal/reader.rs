//! Reads: each one is answered from one snapshot of the database, and checks every hash it meets.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use anabranch_crdt::bug;
use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentKey, Origin, Sequence};
use bytes::Bytes;
use redb::{Key, ReadOnlyTable, ReadTransaction};

use super::ledger;
use super::record::{self, DocumentRecord, Fields};
use super::shared::Shared;
use super::store::unreadable;
use super::table::{self, Generation, Table};
use super::{DocumentRow, Listed, ReadError, StoredConflict, StoredDocument};

type Opened<K> = ReadOnlyTable<K, &'static [u8]>;

pub(super) fn row(
    shared: &Shared,
    document: DocumentId,
) -> Result<(Option<DocumentRow>, bool), ReadError> {
    // Counted before the snapshot is taken: an entry that is durable by now is counted.
    let any_pending = shared.pending.load(Ordering::Acquire) > 0;
    shared.store.read(|transaction| {
        let row = row_of(&open(transaction, &table::DOCUMENTS)?, document)?;
        let pending = any_pending && has_pending(transaction, document)?;
        Ok((row, pending && !bug!(ReadStaleRow)))
    })
}

pub(super) fn load(shared: &Shared, document: DocumentId) -> Result<StoredDocument, ReadError> {
    shared.store.read(|transaction| {
        let key = document.as_bytes();
        let documents = open(transaction, &table::DOCUMENTS)?;
        let stored = documents.get(key).map_err(unreadable)?;
        let (row, tail) = match &stored {
            Some(value) => {
                let record = DocumentRecord::unseal(key, value.value())?;
                (record.row()?, record.tail()?)
            }
            None => (None, BTreeSet::new()),
        };
        Ok(StoredDocument {
            row,
            snapshot: snapshot(transaction, document, Generation::Newest)?,
            tail: entries_at(transaction, tail)?,
            pending: pending_entries(transaction, document)?,
        })
    })
}

pub(super) fn pending_of(shared: &Shared, document: DocumentId) -> Result<Vec<Entry>, ReadError> {
    if shared.pending.load(Ordering::Acquire) == 0 {
        return Ok(Vec::new());
    }
    shared.store.read(|transaction| pending_entries(transaction, document))
}

pub(super) fn tail_of(shared: &Shared, document: DocumentId) -> Result<Vec<Dot>, ReadError> {
    shared.store.read(|transaction| {
        let key = document.as_bytes();
        let value = open(transaction, &table::DOCUMENTS)?.get(key).map_err(unreadable)?;
        let tail =
            value.map(|value| DocumentRecord::unseal(key, value.value())?.tail()).transpose()?;
        Ok(tail.unwrap_or_default().into_iter().collect())
    })
}

pub(super) fn conflict_document(
    shared: &Shared,
    conflict: ConflictId,
) -> Result<Option<DocumentId>, ReadError> {
    let name = table::CONFLICT_DOCUMENTS.name;
    shared.store.read(|transaction| {
        let documents = open(transaction, &table::CONFLICT_DOCUMENTS)?;
        let value = documents.get(&conflict.0).map_err(unreadable)?;
        let unsealed = |value: &[u8]| {
            let fields = Fields::unseal(name, &conflict.0, value)?;
            let id = fields.rest().try_into().map_err(|_| ReadError::Corrupt { table: name })?;
            Ok(DocumentId::from_bytes(id))
        };
        value.map(|value| unsealed(value.value())).transpose()
    })
}

pub(super) fn snapshot_before(
    shared: &Shared,
    document: DocumentId,
) -> Result<Option<Bytes>, ReadError> {
    shared.store.read(|transaction| snapshot(transaction, document, Generation::Before))
}

pub(super) fn entries(
    shared: &Shared,
    origin: Origin,
    after: Sequence,
    most: usize,
    most_bytes: usize,
) -> Result<Vec<Entry>, ReadError> {
    let first = table::entry_key(Dot { origin, sequence: after });
    let last = table::entry_key(Dot { origin, sequence: Sequence(u64::MAX) });
    shared.store.read(|transaction| {
        let floor = floor(transaction, origin)?;
        if after < floor {
            return Err(ReadError::TooOld { origin, floor });
        }
        let table = open(transaction, &table::ENTRIES)?;
        let (mut found, mut bytes) = (Vec::<Entry>::new(), 0);
        let bounds = (Bound::Excluded(&first), Bound::Included(&last));
        for pair in table.range::<&[u8; 24]>(bounds).map_err(unreadable)? {
            let (key, value) = pair.map_err(unreadable)?;
            let entry = record::entry(key.value(), table::entry_dot(key.value())?, value.value())?;
            let gap = found.last().is_some_and(|last| last.sequence.next() != entry.sequence);
            if gap {
                return Err(ReadError::Corrupt { table: table::ENTRIES.name });
            }
            bytes += entry.change.len();
            if !found.is_empty() && (found.len() >= most || bytes > most_bytes) {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    })
}

/// The last entry of an origin that may be gone.
pub(super) fn floor(transaction: &ReadTransaction, origin: Origin) -> Result<Sequence, ReadError> {
    let key = origin.as_bytes();
    let value = open(transaction, &table::ORIGINS)?.get(key).map_err(unreadable)?;
    let row = value.map(|value| record::origin(key, value.value())).transpose()?;
    Ok(row.unwrap_or_default().log.floor)
}

pub(super) fn list(
    shared: &Shared,
    collection: &CollectionName,
    prefix: &str,
    after: Option<&DocumentKey>,
    limit: usize,
) -> Result<Vec<Listed>, ReadError> {
    let (mut start, mut cursor) = (Vec::new(), Vec::new());
    table::name_key(&mut start, collection, prefix);
    if let Some(after) = after {
        table::name_key(&mut cursor, collection, after.as_str());
    }
    let first = match after {
        Some(_) if cursor >= start => Bound::Excluded(cursor.as_slice()),
        _ => Bound::Included(start.as_slice()),
    };
    shared.store.read(|transaction| {
        let names = open(transaction, &table::NAMES)?;
        let documents = open(transaction, &table::DOCUMENTS)?;
        let mut found = Vec::new();
        for pair in names.range::<&[u8]>((first, Bound::Unbounded)).map_err(unreadable)?.take(limit)
        {
            let (key, value) = pair.map_err(unreadable)?;
            if !key.value().starts_with(&start) {
                break;
            }
            found.push(listed(&documents, key.value(), value.value())?);
        }
        Ok(found)
    })
}

pub(super) fn count(
    shared: &Shared,
    collection: &CollectionName,
    prefix: &str,
) -> Result<u64, ReadError> {
    let mut start = Vec::new();
    table::name_key(&mut start, collection, prefix);
    shared.store.read(|transaction| {
        let names = open(transaction, &table::NAMES)?;
        let mut found = 0;
        for pair in names.range::<&[u8]>(start.as_slice()..).map_err(unreadable)? {
            let (key, _) = pair.map_err(unreadable)?;
            if !key.value().starts_with(&start) {
                break;
            }
            found += 1;
        }
        Ok(found)
    })
}

/// The names of all collections that have a live document, those after `after`.
pub(super) fn collections(
    shared: &Shared,
    after: Option<&CollectionName>,
    limit: usize,
) -> Result<Vec<CollectionName>, ReadError> {
    let damaged = || ReadError::Corrupt { table: table::NAMES.name };
    // No name of a collection holds a byte that is as small as the one behind it in a key.
    let behind = |collection: &str| [collection.as_bytes(), &[1]].concat();
    let mut start = after.map_or_else(Vec::new, |after| behind(after.as_str()));
    shared.store.read(|transaction| {
        let names = open(transaction, &table::NAMES)?;
        let mut found = Vec::new();
        while found.len() < limit {
            let mut range = names.range::<&[u8]>(start.as_slice()..).map_err(unreadable)?;
            let Some(pair) = range.next() else { break };
            let (key, _) = pair.map_err(unreadable)?;
            let name = key.value().split(|&byte| byte == 0).next().unwrap_or_default();
            let name = std::str::from_utf8(name).map_err(|_| damaged())?;
            start = behind(name);
            found.push(name.parse().map_err(|_| damaged())?);
        }
        Ok(found)
    })
}

/// What is remembered of how far each collection is decided.
pub(super) fn redecided(shared: &Shared) -> Result<Vec<(CollectionName, Bytes)>, ReadError> {
    let name = table::META.name;
    shared.store.read(|transaction| {
        let mut found = Vec::new();
        let meta = open(transaction, &table::META)?;
        for pair in meta.range::<&str>(table::REDECIDED..).map_err(unreadable)? {
            let (key, value) = pair.map_err(unreadable)?;
            let Some(collection) = key.value().strip_prefix(table::REDECIDED) else { break };
            let collection = collection.parse().map_err(|_| ReadError::Corrupt { table: name })?;
            let fields = Fields::unseal(name, key.value().as_bytes(), value.value())?;
            found.push((collection, Bytes::copy_from_slice(fields.rest())));
        }
        Ok(found)
    })
}

pub(super) fn pending(
    shared: &Shared,
    after: Option<DocumentId>,
    limit: usize,
) -> Result<Vec<DocumentId>, ReadError> {
    if shared.pending.load(Ordering::Acquire) == 0 {
        return Ok(Vec::new());
    }
    shared.store.read(|transaction| {
        let table = open(transaction, &table::PENDING)?;
        let mut found = Vec::new();
        let mut cursor = after;
        while found.len() < limit {
            let last = cursor.map(|document| table::index_bounds(document).1);
            let first = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut range =
                table.range::<&[u8; 40]>((first, Bound::Unbounded)).map_err(unreadable)?;
            let Some(pair) = range.next() else { break };
            let (key, value) = pair.map_err(unreadable)?;
            Fields::unseal(table::PENDING.name, key.value(), value.value())?;
            let (document, _) = table::index_parts(table::PENDING.name, key.value())?;
            found.push(document);
            cursor = Some(document);
        }
        Ok(found)
    })
}

pub(super) fn conflicts_of(
    shared: &Shared,
    document: DocumentId,
) -> Result<Vec<(ConflictId, Bytes)>, ReadError> {
    if !shared.any_conflicts.load(Ordering::Acquire) {
        return Ok(Vec::new());
    }
    let (first, last) = table::conflict_bounds(document);
    let range = (Bound::Included(&first), Bound::Included(&last));
    let rows =
        shared.store.read(|transaction| ledger::read::rows(transaction, range, usize::MAX))?;
    Ok(rows.into_iter().map(|stored| (stored.conflict, stored.row.bytes)).collect())
}

pub(super) fn ledger(
    shared: &Shared,
    after: Option<(DocumentId, ConflictId)>,
    limit: usize,
) -> Result<Vec<StoredConflict>, ReadError> {
    let cursor = after.map(|(document, conflict)| table::conflict_key(document, conflict));
    let first = cursor.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    shared
        .store
        .read(|transaction| ledger::read::rows(transaction, (first, Bound::Unbounded), limit))
}

pub(super) fn open<K: Key + 'static>(
    transaction: &ReadTransaction,
    table: &Table<K>,
) -> Result<Opened<K>, ReadError> {
    transaction.open_table(table.definition).map_err(unreadable)
}

fn row_of(
    documents: &Opened<&'static [u8; 16]>,
    document: DocumentId,
) -> Result<Option<DocumentRow>, ReadError> {
    let key = document.as_bytes();
    let value = documents.get(key).map_err(unreadable)?;
    let row = value.map(|value| DocumentRecord::unseal(key, value.value())?.row()).transpose()?;
    Ok(row.flatten())
}

fn has_pending(transaction: &ReadTransaction, document: DocumentId) -> Result<bool, ReadError> {
    let (first, last) = table::index_bounds(document);
    let table = open(transaction, &table::PENDING)?;
    let Some(pair) = table.range::<&[u8; 40]>(&first..=&last).map_err(unreadable)?.next() else {
        return Ok(false);
    };
    let (key, value) = pair.map_err(unreadable)?;
    Fields::unseal(table::PENDING.name, key.value(), value.value()).map(|_| true)
}

fn snapshot(
    transaction: &ReadTransaction,
    document: DocumentId,
    generation: Generation,
) -> Result<Option<Bytes>, ReadError> {
    let name = table::SNAPSHOTS.name;
    let key = table::snapshot_key(document, generation);
    let value = open(transaction, &table::SNAPSHOTS)?.get(&key).map_err(unreadable)?;
    let unsealed = |value: &[u8]| {
        let fields = Fields::unseal(name, &key, value)?;
        Ok(Bytes::copy_from_slice(fields.rest()))
    };
    value.map(|value| unsealed(value.value())).transpose()
}

/// The entries that `pending-1` has of a document.
fn pending_entries(
    transaction: &ReadTransaction,
    document: DocumentId,
) -> Result<Vec<Entry>, ReadError> {
    let (first, last) = table::index_bounds(document);
    let name = table::PENDING.name;
    let mut dots = BTreeSet::new();
    let rows = open(transaction, &table::PENDING)?;
    for pair in rows.range::<&[u8; 40]>(&first..=&last).map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        Fields::unseal(name, key.value(), value.value())?;
        dots.insert(table::index_parts(name, key.value())?.1);
    }
    entries_at(transaction, dots)
}

fn entries_at(transaction: &ReadTransaction, dots: BTreeSet<Dot>) -> Result<Vec<Entry>, ReadError> {
    let entries = open(transaction, &table::ENTRIES)?;
    let mut found = Vec::with_capacity(dots.len());
    for dot in dots {
        let key = table::entry_key(dot);
        let value = entries.get(&key).map_err(unreadable)?;
        let lost = ReadError::Corrupt { table: table::ENTRIES.name };
        found.push(record::entry(&key, dot, value.ok_or(lost)?.value())?);
    }
    Ok(found)
}

fn listed(
    documents: &Opened<&'static [u8; 16]>,
    key: &[u8],
    value: &[u8],
) -> Result<Listed, ReadError> {
    let document = record::name_row(key, value)?;
    let damaged = |table: &'static str| ReadError::Corrupt { table };
    // The two tables are written together, so a name without its row is damage.
    let row = row_of(documents, document)?.filter(|row| row.json.is_some());
    let row = row.ok_or_else(|| damaged(table::DOCUMENTS.name))?;
    let text = key.splitn(2, |&byte| byte == 0).nth(1).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| damaged(table::NAMES.name))?;
    let key = text.parse().map_err(|_| damaged(table::NAMES.name))?;
    Ok(Listed { key, document, row })
}
