//! Keeping the index and the counts in step with the rows, within one transaction.
//!
//! What a row replaces tells which entries of the index it had. Where that cannot be read any
//! more, or a count is damaged, both tables are made anew from the rows.

use std::collections::BTreeMap;

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::ids::DocumentId;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::keys::{Scope, count_parts};
use super::{ConflictSummary, LedgerPosition, LedgerRow, record};
use crate::journal::ReadError;
use crate::journal::apply::{Slot, opened};
use crate::journal::record::Encoder;
use crate::journal::store::unreadable;
use crate::journal::table::{self, CONFLICT_COUNTS, CONFLICT_DOCUMENTS, CONFLICT_INDEX, CONFLICTS};

/// The tables of the ledger in one write transaction; each is opened when it is first needed.
#[derive(Default)]
pub(in crate::journal) struct LedgerTables<'t> {
    rows: Slot<'t, &'static [u8; 32]>,
    documents: Slot<'t, &'static [u8; 16]>,
    index: Slot<'t, &'static [u8]>,
    /// By how much each count changes.
    changes: BTreeMap<Vec<u8>, i64>,
    /// Set when what was there cannot be read.
    damaged: bool,
}

impl<'t> LedgerTables<'t> {
    /// Writes a row, or removes it.
    pub(in crate::journal) fn write(
        &mut self,
        transaction: &'t WriteTransaction,
        encoder: &mut Encoder,
        place: (DocumentId, ConflictId),
        row: Option<&LedgerRow>,
    ) -> Result<(), redb::Error> {
        let (document, conflict) = place;
        let key = table::conflict_key(document, conflict);
        let rows = opened(&mut self.rows, transaction, &CONFLICTS)?;
        let documents = opened(&mut self.documents, transaction, &CONFLICT_DOCUMENTS)?;
        let old = match row {
            Some(row) => {
                let id = document.as_bytes();
                let record = encoder.blob(CONFLICT_DOCUMENTS.name, &conflict.0, id);
                documents.insert(&conflict.0, record)?;
                rows.insert(&key, encoder.ledger_row(&key, row))?
            }
            None => {
                documents.remove(&conflict.0)?;
                rows.remove(&key)?
            }
        };
        let old = old.map(|guard| record::row(&key, guard.value()).map(|(summary, _)| summary));
        let old = match old.transpose() {
            Ok(old) => old,
            Err(_) => {
                self.damaged = true;
                return Ok(());
            }
        };
        let new = row.map(|row| &row.summary);
        if old.as_ref() == new {
            return Ok(());
        }
        if let Some(old) = &old {
            self.unlist(transaction, conflict, old)?;
        }
        new.map_or(Ok(()), |new| self.list(transaction, encoder, place, new))
    }

    /// Writes the counts, or makes index and counts anew where they can no longer be trusted.
    pub(in crate::journal) fn finish(
        self,
        transaction: &'t WriteTransaction,
        encoder: &mut Encoder,
    ) -> Result<(), redb::Error> {
        // The tables are closed, as the making of new ones asks for.
        let Self { rows, documents, index, changes, damaged } = self;
        drop((rows, documents, index));
        if damaged || !counted(transaction, encoder, &changes)? {
            let rows = rebuild(transaction, encoder)?;
            tracing::warn!(rows, "the index of the ledger was damaged, and is made anew");
        }
        Ok(())
    }

    fn list(
        &mut self,
        transaction: &'t WriteTransaction,
        encoder: &mut Encoder,
        (document, conflict): (DocumentId, ConflictId),
        summary: &ConflictSummary,
    ) -> Result<(), redb::Error> {
        let index = opened(&mut self.index, transaction, &CONFLICT_INDEX)?;
        for key in index_keys(conflict, summary) {
            let entry = encoder.index_entry(&key, document, summary);
            index.insert(key.as_slice(), entry)?;
        }
        self.count(summary, 1);
        Ok(())
    }

    fn unlist(
        &mut self,
        transaction: &'t WriteTransaction,
        conflict: ConflictId,
        summary: &ConflictSummary,
    ) -> Result<(), redb::Error> {
        let index = opened(&mut self.index, transaction, &CONFLICT_INDEX)?;
        for key in index_keys(conflict, summary) {
            self.damaged |= index.remove(key.as_slice())?.is_none();
        }
        self.count(summary, -1);
        Ok(())
    }

    fn count(&mut self, summary: &ConflictSummary, by: i64) {
        for key in count_keys(summary) {
            *self.changes.entry(key).or_default() += by;
        }
    }
}

/// The keys under which the index has a row.
pub(in crate::journal) fn index_keys(
    conflict: ConflictId,
    summary: &ConflictSummary,
) -> impl Iterator<Item = Vec<u8>> {
    let position = LedgerPosition { at: summary.at, conflict };
    let scopes = [Some(Scope::All), summary.collection().map(Scope::Collection)];
    scopes.into_iter().flatten().map(move |scope| scope.row(summary.state, position))
}

/// The keys under which a row is counted.
pub(in crate::journal) fn count_keys(summary: &ConflictSummary) -> [Vec<u8>; 2] {
    [Scope::All, Scope::own(summary)].map(|scope| scope.count(summary.state, summary.kind))
}

/// Makes the index and the counts from the rows; returns how many there are. Damaged rows are
/// passed over: they are reported when their document is loaded.
pub(in crate::journal) fn rebuild(
    transaction: &WriteTransaction,
    encoder: &mut Encoder,
) -> Result<u64, redb::Error> {
    transaction.delete_table(CONFLICT_INDEX.definition)?;
    transaction.delete_table(CONFLICT_COUNTS.definition)?;
    let rows = transaction.open_table(CONFLICTS.definition)?;
    let mut index = transaction.open_table(CONFLICT_INDEX.definition)?;
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut found = 0;
    for pair in rows.iter()? {
        let (key, value) = pair?;
        let Ok((summary, _)) = record::row(key.value(), value.value()) else { continue };
        let Ok((document, conflict)) = table::conflict_parts(key.value()) else { continue };
        for key in index_keys(conflict, &summary) {
            let entry = encoder.index_entry(&key, document, &summary);
            index.insert(key.as_slice(), entry)?;
        }
        for key in count_keys(&summary) {
            *counts.entry(key).or_default() += 1;
        }
        found += 1;
    }
    let mut table = transaction.open_table(CONFLICT_COUNTS.definition)?;
    for (key, count) in &counts {
        table.insert(key.as_slice(), encoder.count(key, *count))?;
    }
    Ok(found)
}

/// Tells whether index and counts are as large as the rows say. It costs no look at each of them.
pub(in crate::journal) fn in_step(transaction: &redb::ReadTransaction) -> Result<bool, ReadError> {
    let rows = transaction.open_table(CONFLICTS.definition).map_err(unreadable)?;
    let index = transaction.open_table(CONFLICT_INDEX.definition).map_err(unreadable)?;
    let counts = transaction.open_table(CONFLICT_COUNTS.definition).map_err(unreadable)?;
    let (mut all, mut named, mut unnamed) = (0_u64, 0_u64, 0_u64);
    for pair in counts.iter().map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        let part = count_parts(key.value()).and_then(|part| {
            let count = record::count(key.value(), value.value())?;
            Ok((part.scope, count))
        });
        match part {
            Ok((None, count)) => all = all.saturating_add(count),
            Ok((Some(Some(_)), count)) => named = named.saturating_add(count),
            Ok((Some(None), count)) => unnamed = unnamed.saturating_add(count),
            Err(_) => return Ok(false),
        }
    }
    let rows = rows.len().map_err(unreadable)?;
    let index = index.len().map_err(unreadable)?;
    Ok(all == rows
        && named.checked_add(unnamed) == Some(rows)
        && all.checked_add(named) == Some(index))
}

/// Changes the counts; `false` if one of them cannot be as it is stored.
fn counted(
    transaction: &WriteTransaction,
    encoder: &mut Encoder,
    changes: &BTreeMap<Vec<u8>, i64>,
) -> Result<bool, redb::Error> {
    let mut changes = changes.iter().filter(|(_, by)| **by != 0).peekable();
    if changes.peek().is_none() {
        return Ok(true);
    }
    let mut counts = transaction.open_table(CONFLICT_COUNTS.definition)?;
    for (key, by) in changes {
        let key = key.as_slice();
        let stored = counts.get(key)?.map(|guard| record::count(key, guard.value())).transpose();
        let changed = stored.ok().and_then(|count| count.unwrap_or(0).checked_add_signed(*by));
        match changed {
            Some(0) => drop(counts.remove(key)?),
            Some(count) => drop(counts.insert(key, encoder.count(key, count))?),
            None => return Ok(false),
        }
    }
    Ok(true)
}
