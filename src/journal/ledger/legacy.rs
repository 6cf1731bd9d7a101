//! The ledger of format 1, whose rows had no summary.
//!
//! This is the one place where the journal looks into a row: nobody else is there yet that could
//! sum it up when the file is opened.

use anabranch_crdt::document::Ledger;
use anabranch_crdt::ids::{DocumentId, DocumentName};
use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};

use super::{ConflictSummary, LedgerRow, index};
use crate::journal::record::{DocumentRecord, Encoder, Fields};
use crate::journal::table::{self, CONFLICTS, CONFLICTS_1, DOCUMENTS};

/// What was converted.
pub(in crate::journal) struct Converted {
    /// Rows that are in the ledger.
    pub(in crate::journal) rows: u64,
    /// Rows that could not be read, and are gone: with one of them, a document does not load.
    pub(in crate::journal) unreadable: u64,
}

/// Moves the rows to `conflicts-2`, and makes their index.
pub(in crate::journal) fn convert(
    transaction: &WriteTransaction,
) -> Result<Converted, redb::Error> {
    let mut encoder = Encoder::default();
    let mut unreadable = 0;
    {
        let old = transaction.open_table(CONFLICTS_1.definition)?;
        let documents = transaction.open_table(DOCUMENTS.definition)?;
        let mut rows = transaction.open_table(CONFLICTS.definition)?;
        for pair in old.iter()? {
            let (key, value) = pair?;
            let key = key.value();
            let Some((document, bytes, conflict)) = read(key, value.value()) else {
                unreadable += 1;
                continue;
            };
            let record = documents.get(document.as_bytes())?;
            let name = record.and_then(|record| name(document, record.value()));
            let summary = ConflictSummary::of(&conflict, name);
            rows.insert(key, encoder.ledger_row(key, &LedgerRow { summary, bytes }))?;
        }
    }
    transaction.delete_table(CONFLICTS_1.definition)?;
    Ok(Converted { rows: index::rebuild(transaction, &mut encoder)?, unreadable })
}

fn read(
    key: &[u8; 32],
    value: &[u8],
) -> Option<(DocumentId, Bytes, anabranch_crdt::conflict::Conflict)> {
    let (document, _) = table::conflict_parts(key).ok()?;
    let bytes = Fields::unseal(CONFLICTS_1.name, key, value).ok()?.rest();
    let conflict = Ledger::read_conflict(bytes).ok()?;
    Some((document, Bytes::copy_from_slice(bytes), conflict))
}

fn name(document: DocumentId, record: &[u8]) -> Option<DocumentName> {
    let row = DocumentRecord::unseal(document.as_bytes(), record).ok()?.row().ok()?;
    row.and_then(|row| row.name)
}
