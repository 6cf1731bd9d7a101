//! Every table of the journal, and how its keys are made.
//!
//! Keys are fixed-size byte strings with numbers in big-endian, so that the order of the keys is
//! the order of the entries of an origin. Only names and meta rows have keys of other lengths.
//! Values are records, see `record`. A change of a table's layout takes a new suffix.

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{CollectionName, DocumentId, Origin, Sequence};
use redb::{Key, TableDefinition};

use super::ReadError;
use super::record::Fields;

/// A table, and the name that errors give.
pub(super) struct Table<K: Key + 'static> {
    pub(super) name: &'static str,
    pub(super) definition: TableDefinition<'static, K, &'static [u8]>,
}

impl<K: Key + 'static> Table<K> {
    const fn new(name: &'static str) -> Self {
        Self { name, definition: TableDefinition::new(name) }
    }
}

/// Key: origin (16), sequence (8).
/// Value: document, admission time, name, change bytes.
pub(super) const ENTRIES: Table<&[u8; 24]> = Table::new("entries-1");

/// Key: document (16), origin (16), sequence (8), of an entry that the row does not reflect yet.
/// Value: nothing; the entry is in `entries-1`.
pub(super) const PENDING: Table<&[u8; 40]> = Table::new("pending-1");

/// Key: document (16), generation (1): 0 is the newest, 1 the one before.
/// Value: `save()` bytes.
pub(super) const SNAPSHOTS: Table<&[u8; 17]> = Table::new("snapshots-1");

/// Key: document (16).
/// Value: the tail (entries that are in the row and not in the snapshot; they are in `entries-1`),
/// where it does not follow from that the entries that the snapshot before lacks and the last entry
/// of each origin, then the row, if there is one yet: digest, open conflicts, changes, name,
/// canonical JSON.
pub(super) const DOCUMENTS: Table<&[u8; 16]> = Table::new("documents-1");

/// Key: collection, NUL, key; only of live documents. Neither part can hold a NUL.
/// Value: document.
pub(super) const NAMES: Table<&[u8]> = Table::new("names-1");

/// Key: document (16), conflict (16).
/// Value: the summary of the row of the ledger, then the row as its owner encoded it.
pub(super) const CONFLICTS: Table<&[u8; 32]> = Table::new("conflicts-2");

/// Key: scope, state (1), inverted time (8), conflict (16); see `ledger::keys`. Each row is in the
/// scope of the whole store, and in that of its collection.
/// Value: document, and what else a filter asks for.
pub(super) const CONFLICT_INDEX: Table<&[u8]> = Table::new("conflict-index-1");

/// Key: scope, state (1), kind (1); see `ledger::keys`.
/// Value: how many rows, never 0.
pub(super) const CONFLICT_COUNTS: Table<&[u8]> = Table::new("conflict-counts-1");

/// The ledger of format 1: rows without a summary. It is converted when it is opened.
/// Key: document (16), conflict (16).
/// Value: the row of the ledger as its owner encoded it.
pub(super) const CONFLICTS_1: Table<&[u8; 32]> = Table::new("conflicts-1");

/// Key: conflict (16).
/// Value: document.
pub(super) const CONFLICT_DOCUMENTS: Table<&[u8; 16]> = Table::new("conflict-documents-1");

/// Key: origin (16).
/// Value: highest contiguous sequence, greatest admission time, region; then what is left of its
/// log, if that is not all.
pub(super) const ORIGINS: Table<&[u8; 16]> = Table::new("origins-1");

/// Key: a text.
/// Value: whatever the text names: `format`, `identity`, `fingerprint`, `redecided/COLLECTION`.
pub(super) const META: Table<&str> = Table::new("meta-1");

pub(super) fn entry_key(dot: Dot) -> [u8; 24] {
    let mut key = [0; 24];
    let (origin, sequence) = key.split_at_mut(16);
    origin.copy_from_slice(dot.origin.as_bytes());
    sequence.copy_from_slice(&dot.sequence.0.to_be_bytes());
    key
}

pub(super) fn entry_dot(key: &[u8]) -> Result<Dot, ReadError> {
    let mut fields = Fields::of(ENTRIES.name, key);
    let origin = Origin::from_bytes(fields.array()?);
    Ok(Dot { origin, sequence: Sequence(fields.number()?) })
}

/// The key of an entry in `pending-1`.
pub(super) fn index_key(document: DocumentId, dot: Dot) -> [u8; 40] {
    let mut key = [0; 40];
    let (first, rest) = key.split_at_mut(16);
    first.copy_from_slice(document.as_bytes());
    rest.copy_from_slice(&entry_key(dot));
    key
}

/// The first and the last key that a document can have in `pending-1`.
pub(super) fn index_bounds(document: DocumentId) -> ([u8; 40], [u8; 40]) {
    let dot = |byte: u8, sequence| Dot { origin: Origin::from_bytes([byte; 16]), sequence };
    let first = index_key(document, dot(0, Sequence::ZERO));
    (first, index_key(document, dot(u8::MAX, Sequence(u64::MAX))))
}

pub(super) fn index_parts(table: &'static str, key: &[u8]) -> Result<(DocumentId, Dot), ReadError> {
    let mut fields = Fields::of(table, key);
    let document = DocumentId::from_bytes(fields.array()?);
    let origin = Origin::from_bytes(fields.array()?);
    Ok((document, Dot { origin, sequence: Sequence(fields.number()?) }))
}

/// Which of the two snapshots of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    Newest,
    Before,
}

pub(super) fn snapshot_key(document: DocumentId, generation: Generation) -> [u8; 17] {
    let mut key = [0; 17];
    let (first, last) = key.split_at_mut(16);
    first.copy_from_slice(document.as_bytes());
    last.fill(match generation {
        Generation::Newest => 0,
        Generation::Before => 1,
    });
    key
}

/// What stands before the name of a collection in `meta-1`.
pub(super) const REDECIDED: &str = "redecided/";

/// Writes the key of a name into `key`; `rest` is a document key or the start of one.
pub(super) fn name_key(key: &mut Vec<u8>, collection: &CollectionName, rest: &str) {
    key.clear();
    key.extend_from_slice(collection.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(rest.as_bytes());
}

pub(super) fn conflict_key(document: DocumentId, conflict: ConflictId) -> [u8; 32] {
    let mut key = [0; 32];
    let (first, last) = key.split_at_mut(16);
    first.copy_from_slice(document.as_bytes());
    last.copy_from_slice(&conflict.0);
    key
}

/// The first and the last key that a document can have in `conflicts-2`.
pub(super) fn conflict_bounds(document: DocumentId) -> ([u8; 32], [u8; 32]) {
    let key = |byte| conflict_key(document, ConflictId([byte; 16]));
    (key(0), key(u8::MAX))
}

pub(super) fn conflict_parts(key: &[u8]) -> Result<(DocumentId, ConflictId), ReadError> {
    let mut fields = Fields::of(CONFLICTS.name, key);
    Ok((DocumentId::from_bytes(fields.array()?), ConflictId(fields.array()?)))
}
