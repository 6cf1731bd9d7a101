//! Closed epochs: which documents are closed and how, and the entries that were set aside.
//!
//! A closed document is never forgotten: its record says for ever that what is written under its
//! name belongs to the next epoch. What is needed with every look-up is kept in memory as well.

use std::collections::BTreeMap;
use std::ops::Bound;

use anabranch_crdt::document::ClosingKind;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Timestamp};
use redb::{ReadTransaction, ReadableTable};

use super::ReadError;
use super::reader::open;
use super::record::{self, DocumentRecord, Encoder, Fields};
use super::store::unreadable;
use super::table;

/// What is known of a closed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// How it was closed.
    pub kind: ClosingKind,
    /// When.
    pub at: Timestamp,
    /// Its name, if it has one.
    pub name: Option<DocumentName>,
    /// Changes that came late and are not in the next epoch.
    pub late: u32,
    /// Whether nothing is left of it but the change that closed it.
    pub emptied: bool,
}

/// What every look-up needs of a closed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// How it was closed.
    pub kind: ClosingKind,
    /// Changes that came late and are not in the next epoch.
    pub late: u32,
    /// Whether nothing is left of it but the change that closed it.
    pub emptied: bool,
}

impl From<&EpochRow> for Closed {
    fn from(row: &EpochRow) -> Self {
        Self { kind: row.kind, late: row.late, emptied: row.emptied }
    }
}

/// An entry that was set aside for good: it is kept and can be read, and nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The entry.
    pub entry: Entry,
    /// The name of its document, if it has one.
    pub name: Option<DocumentName>,
}

/// The number of documents in each state, and of entries that were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochCounts {
    /// Documents that were compacted.
    pub compacted: u64,
    /// Documents that were purged.
    pub purged: u64,
    /// Purged documents of which nothing is left but the change that purged them.
    pub emptied: u64,
    /// Changes that came late and are not in the next epoch.
    pub late: u64,
    /// Entries that were set aside.
    pub set_aside: u64,
}

/// Closed documents in memory.
pub(super) type ClosedDocuments = BTreeMap<DocumentId, Closed>;

/// Reads what is known of every closed document.
pub(super) fn closed(transaction: &ReadTransaction) -> Result<ClosedDocuments, ReadError> {
    let mut closed = ClosedDocuments::new();
    for pair in open(transaction, &table::EPOCHS)?.iter().map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        let row = read(key.value(), value.value())?;
        closed.insert(DocumentId::from_bytes(*key.value()), Closed::from(&row));
    }
    Ok(closed)
}

/// Reads what is known of one closed document.
pub(super) fn row(
    transaction: &ReadTransaction,
    document: DocumentId,
) -> Result<Option<EpochRow>, ReadError> {
    let key = document.as_bytes();
    let epochs = open(transaction, &table::EPOCHS)?;
    let value = epochs.get(key).map_err(unreadable)?;
    value.map(|value| read(key, value.value())).transpose()
}

/// Lists entries that were set aside, in the order of document and dot, after one.
pub(super) fn set_aside(
    transaction: &ReadTransaction,
    after: Option<(DocumentId, Dot)>,
    limit: usize,
) -> Result<Vec<SetAside>, ReadError> {
    let first = after.map(|(document, dot)| table::index_key(document, dot));
    let first = match &first {
        Some(key) => Bound::Excluded(key),
        None => Bound::Unbounded,
    };
    let quarantine = open(transaction, &table::QUARANTINE)?;
    let entries = open(transaction, &table::ENTRIES)?;
    let range = quarantine.range::<&[u8; 40]>((first, Bound::Unbounded));
    let mut found = Vec::new();
    for pair in range.map_err(unreadable)?.take(limit) {
        let (key, _) = pair.map_err(unreadable)?;
        let (document, dot) = table::index_parts(table::QUARANTINE.name, key.value())?;
        let key = table::entry_key(dot);
        let Some(value) = entries.get(&key).map_err(unreadable)? else { continue };
        let entry = record::entry(&key, dot, value.value())?;
        let name = row(transaction, document)?.and_then(|row| row.name);
        found.push(SetAside { name: name.or_else(|| entry.name.clone()), entry });
    }
    Ok(found)
}

/// Lists entries that still hold a change of documents of which nothing should be left, by
/// reading entries from a place on, at most `limit`; and says where to go on.
pub(super) fn leftovers(
    transaction: &ReadTransaction,
    after: Option<Dot>,
    limit: usize,
    emptied: impl Fn(DocumentId) -> bool,
) -> Result<(Vec<Entry>, Option<Dot>), ReadError> {
    let first = after.map(table::entry_key);
    let first = match &first {
        Some(key) => Bound::Excluded(key),
        None => Bound::Unbounded,
    };
    let quarantine = open(transaction, &table::QUARANTINE)?;
    let entries = open(transaction, &table::ENTRIES)?;
    let range = entries.range::<&[u8; 24]>((first, Bound::Unbounded));
    let (mut found, mut read, mut last) = (Vec::new(), 0, None);
    for pair in range.map_err(unreadable)?.take(limit) {
        let (key, value) = pair.map_err(unreadable)?;
        let entry = record::entry(key.value(), table::entry_dot(key.value())?, value.value())?;
        read += 1;
        last = Some(entry.dot());
        if entry.change.is_empty() || !emptied(entry.document) {
            continue;
        }
        let aside = table::index_key(entry.document, entry.dot());
        if quarantine.get(&aside).map_err(unreadable)?.is_none() {
            found.push(entry);
        }
    }
    Ok((found, last.filter(|_| read == limit)))
}

/// Reads the rows of documents after one, at most `limit`; returns those documents that were
/// written and do not exist now, and where to go on.
pub(super) fn deleted(
    transaction: &ReadTransaction,
    after: Option<DocumentId>,
    limit: usize,
    wanted: impl Fn(DocumentId) -> bool,
) -> Result<(Vec<DocumentId>, Option<DocumentId>), ReadError> {
    let first = after.as_ref().map(DocumentId::as_bytes);
    let first = first.map_or(Bound::Unbounded, Bound::Excluded);
    let documents = open(transaction, &table::DOCUMENTS)?;
    let range = documents.range::<&[u8; 16]>((first, Bound::Unbounded));
    let (mut found, mut read, mut last) = (Vec::new(), 0, None);
    for pair in range.map_err(unreadable)?.take(limit) {
        let (key, value) = pair.map_err(unreadable)?;
        let document = DocumentId::from_bytes(*key.value());
        let record = DocumentRecord::unseal(key.value(), value.value())?;
        read += 1;
        last = Some(document);
        if record.is_deleted()? && wanted(document) {
            found.push(document);
        }
    }
    Ok((found, last.filter(|_| read == limit)))
}

/// Reads a record of `epochs-1`.
pub(super) fn read(key: &[u8], value: &[u8]) -> Result<EpochRow, ReadError> {
    let mut fields = Fields::unseal(table::EPOCHS.name, key, value)?;
    let [kind, emptied] = fields.array()?;
    let kind = match kind {
        COMPACT => ClosingKind::Compact,
        PURGE => ClosingKind::Purge,
        _ => return Err(fields.damaged()),
    };
    let at = Timestamp(fields.number()?);
    let late = u32::try_from(fields.number()?).map_err(|_| fields.damaged())?;
    Ok(EpochRow { kind, at, name: fields.name()?, late, emptied: emptied != 0 })
}

impl Encoder {
    pub(super) fn epoch(&mut self, key: &[u8], row: &EpochRow) -> &[u8] {
        self.start();
        self.byte(match row.kind {
            ClosingKind::Compact => COMPACT,
            ClosingKind::Purge => PURGE,
        });
        self.byte(u8::from(row.emptied));
        self.number(row.at.0);
        self.number(u64::from(row.late));
        self.name(row.name.as_ref());
        self.seal(table::EPOCHS.name, key)
    }
}

const COMPACT: u8 = 0;
const PURGE: u8 = 1;
