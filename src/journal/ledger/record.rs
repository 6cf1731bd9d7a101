//! The records of the ledger: a summary in front of each row, its short form in the index.

use anabranch_crdt::conflict::ConflictKind;
use anabranch_crdt::ids::{DocumentId, Origin, Timestamp};
use bytes::Bytes;

use super::keys::{kind_number, kind_of, state_number, state_of};
use super::{ConflictSummary, LedgerRow};
use crate::journal::ReadError;
use crate::journal::record::{Encoder, Fields};
use crate::journal::table::{CONFLICT_COUNTS, CONFLICT_INDEX, CONFLICTS};

impl Encoder {
    /// A row: its summary, then the bytes of its owner.
    pub(super) fn ledger_row(&mut self, key: &[u8], row: &LedgerRow) -> &[u8] {
        let LedgerRow { summary, bytes } = row;
        self.start();
        self.byte(state_number(summary.state));
        self.byte(kind_number(summary.kind));
        self.number(summary.at.0);
        self.time(summary.acted_at);
        self.name(summary.name.as_ref());
        self.leaders(&summary.leaders);
        self.long_text(&summary.path.to_string());
        self.bytes(bytes);
        self.seal(CONFLICTS.name, key)
    }

    /// What the index says of a row besides its key.
    pub(in crate::journal) fn index_entry(
        &mut self,
        key: &[u8],
        document: DocumentId,
        summary: &ConflictSummary,
    ) -> &[u8] {
        self.start();
        self.bytes(document.as_bytes());
        self.byte(kind_number(summary.kind));
        self.time(summary.acted_at);
        self.leaders(&summary.leaders);
        self.long_text(&summary.path.to_string());
        self.seal(CONFLICT_INDEX.name, key)
    }

    pub(super) fn count(&mut self, key: &[u8], count: u64) -> &[u8] {
        self.start();
        self.number(count);
        self.seal(CONFLICT_COUNTS.name, key)
    }

    /// No timestamp is as great as the number that stands for none.
    fn time(&mut self, time: Option<Timestamp>) {
        self.number(time.map_or(u64::MAX, |time| time.0.min(Timestamp::MAX.0)));
    }

    /// More leaders than a number of two bytes counts are left out; nobody has so many regions.
    fn leaders(&mut self, leaders: &[Origin]) {
        let count = u16::try_from(leaders.len()).unwrap_or(u16::MAX);
        self.bytes(&count.to_be_bytes());
        for leader in leaders.iter().take(usize::from(count)) {
            self.bytes(leader.as_bytes());
        }
    }
}

/// The summary of a stored row, and its owner's bytes.
pub(in crate::journal) fn row<'a>(
    key: &[u8],
    value: &'a [u8],
) -> Result<(ConflictSummary, &'a [u8]), ReadError> {
    let mut fields = Fields::unseal(CONFLICTS.name, key, value)?;
    let [state, kind] = fields.array()?;
    let state = state_of(state).ok_or_else(|| fields.damaged())?;
    let kind = kind_of(kind).ok_or_else(|| fields.damaged())?;
    let at = Timestamp(fields.number()?);
    let acted_at = time(&mut fields)?;
    let name = fields.name()?;
    let leaders = leaders(&mut fields)?.iter().copied().map(Origin::from_bytes).collect();
    let path = fields.long_text()?.parse().map_err(|_| fields.damaged())?;
    Ok((ConflictSummary { name, path, kind, state, at, leaders, acted_at }, fields.rest()))
}

/// A stored row with a copy of its bytes.
pub(in crate::journal) fn owned(key: &[u8], value: &[u8]) -> Result<LedgerRow, ReadError> {
    let (summary, bytes) = row(key, value)?;
    Ok(LedgerRow { summary, bytes: Bytes::copy_from_slice(bytes) })
}

/// What the index says of a row besides its key; nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(in crate::journal) struct IndexEntry<'a> {
    pub(in crate::journal) document: DocumentId,
    pub(super) kind: ConflictKind,
    pub(super) acted_at: Option<Timestamp>,
    leaders: &'a [[u8; 16]],
    /// A JSON pointer.
    pub(super) path: &'a str,
}

impl IndexEntry<'_> {
    pub(super) fn leaders(&self) -> impl Iterator<Item = Origin> {
        self.leaders.iter().copied().map(Origin::from_bytes)
    }
}

pub(in crate::journal) fn index_entry<'a>(
    key: &[u8],
    value: &'a [u8],
) -> Result<IndexEntry<'a>, ReadError> {
    let mut fields = Fields::unseal(CONFLICT_INDEX.name, key, value)?;
    let document = DocumentId::from_bytes(fields.array()?);
    let [kind] = fields.array()?;
    let kind = kind_of(kind).ok_or_else(|| fields.damaged())?;
    let acted_at = time(&mut fields)?;
    let leaders = leaders(&mut fields)?;
    Ok(IndexEntry { document, kind, acted_at, leaders, path: fields.long_text()? })
}

pub(in crate::journal) fn count(key: &[u8], value: &[u8]) -> Result<u64, ReadError> {
    Fields::unseal(CONFLICT_COUNTS.name, key, value)?.number()
}

fn time(fields: &mut Fields<'_>) -> Result<Option<Timestamp>, ReadError> {
    Ok(Some(fields.number()?).filter(|&number| number != u64::MAX).map(Timestamp))
}

fn leaders<'a>(fields: &mut Fields<'a>) -> Result<&'a [[u8; 16]], ReadError> {
    let count = u16::from_be_bytes(fields.array()?);
    let bytes = fields.take(usize::from(count) * 16)?;
    Ok(bytes.as_chunks().0)
}
