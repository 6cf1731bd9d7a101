//! The scrub: reads every record once, and reports what bits have rotted.
//!
//! Besides the hash of each record it checks what a hash cannot tell: that a table has as many
//! rows as it says, that each row is found by its key, that the entries of an origin have no gap,
//! and that tables which refer to each other agree. Rows that a rotted page hides are noticed so.

use std::collections::BTreeMap;

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::Sequence;
use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::ReadError;
use super::ledger;
use super::reader::{self, open};
use super::record::{self, DocumentRecord, Encoder, Fields};
use super::store::{Store, unreadable};
use super::table::{self, Table};

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Records that were read.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Tables in which something is wrong, each with the number of finds.
    pub damaged: Vec<(&'static str, u64)>,
}

impl ScrubReport {
    /// Tells whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
    }

    fn note(&mut self, table: &'static str, finds: u64) {
        match self.damaged.iter_mut().find(|(name, _)| *name == table) {
            Some((_, known)) => *known += finds,
            None => self.damaged.push((table, finds)),
        }
    }
}

pub(super) fn scrub(store: &Store) -> Result<ScrubReport, ReadError> {
    let report = store.read_long(scrub_snapshot);
    if !report.as_ref().is_ok_and(ScrubReport::is_clean) {
        store.distrust();
    }
    report
}

fn scrub_snapshot(snapshot: &ReadTransaction) -> Result<ScrubReport, ReadError> {
    let mut report = ScrubReport::default();
    scrub_entries(snapshot, &mut report)?;
    scrub_index(snapshot, &mut report, &table::PENDING)?;
    scrub_documents(snapshot, &mut report)?;
    scrub_names(snapshot, &mut report)?;
    scrub_table(snapshot, &mut report, &table::SNAPSHOTS, |key, value| {
        Fields::unseal(table::SNAPSHOTS.name, key, value).map(|_| true)
    })?;
    scrub_ledger(snapshot, &mut report)?;
    scrub_table(snapshot, &mut report, &table::ORIGINS, |key, value| {
        record::origin(key, value).map(|_| true)
    })?;
    scrub_table(snapshot, &mut report, &table::META, |key, value| {
        Fields::unseal(table::META.name, key, value).map(|_| true)
    })?;
    Ok(report)
}

fn scrub_entries(snapshot: &ReadTransaction, report: &mut ScrubReport) -> Result<(), ReadError> {
    let mut before: Option<Dot> = None;
    let mut floor = Sequence::ZERO;
    scrub_table(snapshot, report, &table::ENTRIES, |key, value| {
        let dot = table::entry_dot(key)?;
        record::entry(key, dot, value)?;
        let same = before.replace(dot).filter(|before| before.origin == dot.origin);
        if same.is_none() {
            floor = reader::floor(snapshot, dot.origin)?;
        }
        let expected = same.map_or(Sequence::ZERO, |before| before.sequence).max(floor).next();
        Ok(dot.sequence <= floor || dot.sequence == expected)
    })
}

fn scrub_index(
    snapshot: &ReadTransaction,
    report: &mut ScrubReport,
    index: &Table<&'static [u8; 40]>,
) -> Result<(), ReadError> {
    let entries = open(snapshot, &table::ENTRIES)?;
    scrub_table(snapshot, report, index, |key, value| {
        Fields::unseal(index.name, key, value)?;
        let (document, dot) = table::index_parts(index.name, key)?;
        let key = table::entry_key(dot);
        let entry = entries.get(&key).map_err(unreadable)?;
        let entry = entry.map(|value| record::entry(&key, dot, value.value())).transpose()?;
        Ok(entry.is_some_and(|entry| entry.document == document))
    })
}

fn scrub_documents(snapshot: &ReadTransaction, report: &mut ScrubReport) -> Result<(), ReadError> {
    let names = open(snapshot, &table::NAMES)?;
    let entries = open(snapshot, &table::ENTRIES)?;
    let mut name_key = Vec::new();
    scrub_table(snapshot, report, &table::DOCUMENTS, |key, value| {
        let record = DocumentRecord::unseal(key, value)?;
        let made_of = record.made_of()?;
        for &dot in made_of.tail.union(&made_of.kept) {
            let found = entries.get(&table::entry_key(dot)).map_err(unreadable)?;
            if found.is_none() {
                return Ok(false);
            }
        }
        let Some(name) = record.live_name()? else { return Ok(true) };
        table::name_key(&mut name_key, &name.collection, name.key.as_str());
        Ok(names.get(name_key.as_slice()).map_err(unreadable)?.is_some())
    })
}

fn scrub_names(snapshot: &ReadTransaction, report: &mut ScrubReport) -> Result<(), ReadError> {
    let documents = open(snapshot, &table::DOCUMENTS)?;
    let mut name_key = Vec::new();
    scrub_table(snapshot, report, &table::NAMES, |key, value| {
        let document = record::name_row(key, value)?;
        let row = documents.get(document.as_bytes()).map_err(unreadable)?;
        let live = |value: &[u8]| DocumentRecord::unseal(document.as_bytes(), value)?.live_name();
        let name = row.map(|row| live(row.value())).transpose()?;
        let Some(name) = name.flatten() else { return Ok(false) };
        table::name_key(&mut name_key, &name.collection, name.key.as_str());
        Ok(name_key == key)
    })
}

fn scrub_ledger(snapshot: &ReadTransaction, report: &mut ScrubReport) -> Result<(), ReadError> {
    let index = open(snapshot, &table::CONFLICT_INDEX)?;
    let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    scrub_table(snapshot, report, &table::CONFLICTS, |key, value| {
        let (summary, _) = ledger::record::row(key, value)?;
        let (_, conflict) = table::conflict_parts(key)?;
        for key in ledger::index::count_keys(&summary) {
            *expected.entry(key).or_default() += 1;
        }
        for key in ledger::index::index_keys(conflict, &summary) {
            if index.get(key.as_slice()).map_err(unreadable)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    scrub_table(snapshot, report, &table::CONFLICT_DOCUMENTS, |key, value| {
        Fields::unseal(table::CONFLICT_DOCUMENTS.name, key, value).map(|_| true)
    })?;
    scrub_ledger_index(snapshot, report)?;
    let mut counted = 0;
    scrub_table(snapshot, report, &table::CONFLICT_COUNTS, |key, value| {
        counted += 1;
        let count = ledger::record::count(key, value)?;
        Ok(expected.get(key) == Some(&count))
    })?;
    if counted != expected.len() {
        report.note(table::CONFLICT_COUNTS.name, 1);
    }
    Ok(())
}

/// Each entry must be what its row asks for, key and value.
fn scrub_ledger_index(
    snapshot: &ReadTransaction,
    report: &mut ScrubReport,
) -> Result<(), ReadError> {
    let rows = open(snapshot, &table::CONFLICTS)?;
    let mut encoder = Encoder::default();
    scrub_table(snapshot, report, &table::CONFLICT_INDEX, |key, value| {
        let document = ledger::record::index_entry(key, value)?.document;
        let conflict = ledger::keys::position(table::CONFLICT_INDEX.name, key)?.conflict;
        let row_key = table::conflict_key(document, conflict);
        let Some(row) = rows.get(&row_key).map_err(unreadable)? else { return Ok(false) };
        let (summary, _) = ledger::record::row(&row_key, row.value())?;
        let listed = ledger::index::index_keys(conflict, &summary).any(|wanted| wanted == key);
        Ok(listed && encoder.index_entry(key, document, &summary) == value)
    })
}

/// Reads a table to its end. `sound` tells whether a record is as it should be.
fn scrub_table<K: Key + 'static>(
    snapshot: &ReadTransaction,
    report: &mut ScrubReport,
    table: &Table<K>,
    mut sound: impl FnMut(&[u8], &[u8]) -> Result<bool, ReadError>,
) -> Result<(), ReadError> {
    let rows: ReadOnlyTable<K, &'static [u8]> = open(snapshot, table)?;
    let expected = rows.len().map_err(unreadable)?;
    let mut seen = 0;
    for pair in rows.iter().map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        let found = rows.get(key.value()).map_err(unreadable)?;
        let found = found.is_some_and(|found| found.value() == value.value());
        let key = key.value();
        let key = K::as_bytes(&key);
        report.records += 1;
        report.bytes += (key.as_ref().len() + value.value().len()) as u64;
        match sound(key.as_ref(), value.value()) {
            Ok(true) if found => {}
            Ok(_) | Err(ReadError::Corrupt { .. }) => report.note(table.name, 1),
            Err(error @ (ReadError::Storage(_) | ReadError::TooOld { .. })) => return Err(error),
        }
        seen += 1;
        // A page that points back to itself would be read for ever.
        if seen > expected {
            break;
        }
    }
    if seen != expected {
        report.note(table.name, seen.abs_diff(expected));
    }
    Ok(())
}
