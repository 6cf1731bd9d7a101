//! The sweep: entries that every region has, and that both snapshots of their document cover, go.
//!
//! The log of an origin is swept from its start, a bounded number of entries in one transaction,
//! which moves the floor over them: nobody may rely on what is below. An entry that its document
//! still needs stays where it is, and goes with the transaction that writes the snapshot which
//! makes it needless. So a crash at any moment leaves either all of a step or nothing, and a step
//! that is done again does nothing.
//!
//! # Why an entry waits for two snapshots
//!
//! Raw changes are the truth, and a snapshot is a cache of them until they are gone. From then on
//! one rotten page would be a lost document. Therefore an entry goes only once the newest snapshot
//! and the one before both hold it, and both still match their hashes in that same transaction.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence, Timestamp};
use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::ReadError;
use super::apply::Dropped;
use super::reader::open;
use super::record::{self, DocumentRecord, Encoder, Fields, OriginRow};
use super::shared::Shared;
use super::store::unreadable;
use super::table::{self, Generation};

/// Which entries of an origin may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Whose entries.
    pub origin: Origin,
    /// Every region has the entries up to here; those that were admitted before that time may go.
    pub everywhere: (Sequence, Timestamp),
    /// All regions but those that were given up have the entries up to here; those that were
    /// admitted before that time may go.
    pub elsewhere: (Sequence, Timestamp),
    /// So many bytes of the latter may go whenever they were admitted.
    pub excess: u64,
}

/// What one step of a sweep came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Up to here the log is swept now.
    pub floor: Sequence,
    /// Entries that were looked at; with none, nothing more may go.
    pub seen: u64,
    /// Those of them that are gone.
    pub dropped: u64,
    /// Documents that still need some of the others, until snapshots of them are taken.
    pub pinned: Vec<DocumentId>,
}

/// How much is left of the log of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogView {
    /// Whose log.
    pub origin: Origin,
    /// Entries up to here may be gone.
    pub floor: Sequence,
    /// The sweep goes on behind this entry.
    pub swept: Sequence,
    /// Bytes of changes above the floor.
    pub bytes: u64,
}

impl Allowance {
    fn allows(&self, sequence: Sequence, admitted: Timestamp, taken: u64) -> bool {
        let (everywhere, old) = self.everywhere;
        let (elsewhere, too_old) = self.elsewhere;
        (sequence <= everywhere && admitted < old)
            || (sequence <= elsewhere && (admitted < too_old || taken < self.excess))
    }
}

/// Takes one step, and returns it with the row of the origin as it is then.
pub(super) fn sweep(
    transaction: &WriteTransaction,
    encoder: &mut Encoder,
    mut row: OriginRow,
    allowance: &Allowance,
) -> Result<(Swept, OriginRow, Dropped), redb::Error> {
    let origin = allowance.origin;
    let mut swept = Swept::default();
    let gone = look(transaction, &mut row, allowance, &mut swept)?;
    let mut dropped = Dropped::default();
    let mut entries = transaction.open_table(table::ENTRIES.definition)?;
    for dot in gone {
        if let Some(value) = entries.remove(&table::entry_key(dot))? {
            dropped.entries += 1;
            dropped.bytes += value.value().len() as u64;
        }
    }
    row.log.floor = row.log.floor.max(row.log.swept);
    (swept.floor, swept.dropped) = (row.log.floor, dropped.entries);
    let key = origin.as_bytes();
    let mut origins = transaction.open_table(table::ORIGINS.definition)?;
    origins.insert(key, encoder.origin(key, &row))?;
    Ok((swept, row, dropped))
}

/// Goes through the log as far as it may, and returns the entries that nobody needs.
fn look(
    transaction: &WriteTransaction,
    row: &mut OriginRow,
    allowance: &Allowance,
    swept: &mut Swept,
) -> Result<Vec<Dot>, redb::Error> {
    let origin = allowance.origin;
    let mut needs = Needs::open(transaction)?;
    let entries = transaction.open_table(table::ENTRIES.definition)?;
    let (mut gone, mut looked) = (Vec::new(), 0_u64);
    let from = table::entry_key(Dot { origin, sequence: row.log.swept.next() });
    let to = table::entry_key(Dot { origin, sequence: row.sequence });
    for pair in entries.range::<&[u8; 24]>(&from..=&to)? {
        let (key, value) = pair?;
        let read = table::entry_dot(key.value());
        let read = read.and_then(|dot| record::entry(key.value(), dot, value.value()));
        // Nobody can tell whose a damaged entry is, so it stays, and all behind it.
        let Ok(entry) = read else { return Ok(gone) };
        let below = entry.sequence <= row.log.floor;
        let full = swept.seen >= STEP_ENTRIES || looked >= STEP_BYTES;
        if full || !(below || allowance.allows(entry.sequence, entry.admitted, looked)) {
            return Ok(gone);
        }
        let bytes = entry.change.len() as u64;
        swept.seen += 1;
        looked += bytes;
        row.log.swept = entry.sequence;
        if !below {
            row.log.bytes = row.log.bytes.saturating_sub(bytes);
        }
        match needs.of(entry.document, entry.dot())? {
            Needed::No => gone.push(entry.dot()),
            Needed::UntilSnapshot if swept.pinned.contains(&entry.document) => {}
            Needed::UntilSnapshot => swept.pinned.push(entry.document),
            Needed::UntilApplied => {}
        }
    }
    // What came in a bundle never was an entry here.
    row.log.swept = row.log.swept.max(row.log.floor);
    Ok(gone)
}

/// Whether a document still needs one of its entries.
enum Needed {
    No,
    UntilApplied,
    UntilSnapshot,
}

/// Tells what documents need; what was found of one is remembered for the step.
struct Needs<'t> {
    pending: Table<'t, &'static [u8; 40], &'static [u8]>,
    documents: Table<'t, &'static [u8; 16], &'static [u8]>,
    snapshots: Table<'t, &'static [u8; 17], &'static [u8]>,
    /// `None` for a document of which nothing may go.
    known: BTreeMap<DocumentId, Option<BTreeSet<Dot>>>,
}

impl<'t> Needs<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            pending: transaction.open_table(table::PENDING.definition)?,
            documents: transaction.open_table(table::DOCUMENTS.definition)?,
            snapshots: transaction.open_table(table::SNAPSHOTS.definition)?,
            known: BTreeMap::new(),
        })
    }

    fn of(&mut self, document: DocumentId, dot: Dot) -> Result<Needed, redb::Error> {
        if self.pending.get(&table::index_key(document, dot))?.is_some() {
            return Ok(Needed::UntilApplied);
        }
        let needs = match self.known.get(&document) {
            Some(known) => known,
            None => {
                let found = self.find(document)?;
                self.known.entry(document).or_insert(found)
            }
        };
        Ok(match needs {
            Some(dots) if !dots.contains(&dot) => Needed::No,
            Some(_) | None => Needed::UntilSnapshot,
        })
    }

    fn find(&self, document: DocumentId) -> Result<Option<BTreeSet<Dot>>, redb::Error> {
        let key = document.as_bytes();
        let Some(value) = self.documents.get(key)? else { return Ok(None) };
        let made_of =
            DocumentRecord::unseal(key, value.value()).and_then(|record| record.made_of());
        let Some(made_of) = made_of.ok().filter(|made_of| made_of.told) else { return Ok(None) };
        for generation in [Generation::Newest, Generation::Before] {
            let key = table::snapshot_key(document, generation);
            let stored = self.snapshots.get(&key)?;
            let sound = |value: &[u8]| Fields::unseal(table::SNAPSHOTS.name, &key, value).is_ok();
            if !stored.is_some_and(|value| sound(value.value())) {
                return Ok(None);
            }
        }
        Ok(Some(made_of.tail.into_iter().chain(made_of.kept).collect()))
    }
}

/// What a snapshot of a document would be instead of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Entries that the document needs.
    pub entries: u64,
    /// Bytes of their records, and of the snapshots that there are.
    pub bytes: u64,
}

pub(super) fn weight(shared: &Shared, document: DocumentId) -> Result<Weight, ReadError> {
    shared.store.read(|transaction| {
        let key = document.as_bytes();
        let value = open(transaction, &table::DOCUMENTS)?.get(key).map_err(unreadable)?;
        let made_of =
            value.map(|value| DocumentRecord::unseal(key, value.value())?.made_of()).transpose()?;
        let made_of = made_of.unwrap_or_default();
        let entries = open(transaction, &table::ENTRIES)?;
        let mut weight = Weight::default();
        for dot in made_of.tail.union(&made_of.kept) {
            let value = entries.get(&table::entry_key(*dot)).map_err(unreadable)?;
            weight.entries += 1;
            weight.bytes += value.map_or(0, |value| value.value().len() as u64);
        }
        let snapshots = open(transaction, &table::SNAPSHOTS)?;
        for generation in [Generation::Newest, Generation::Before] {
            let key = table::snapshot_key(document, generation);
            let value = snapshots.get(&key).map_err(unreadable)?;
            weight.bytes += value.map_or(0, |value| value.value().len() as u64);
        }
        Ok(weight)
    })
}

/// The admission time of the first entry behind the sweep, if there is one.
pub(super) fn oldest(
    transaction: &ReadTransaction,
    origin: Origin,
    swept: Sequence,
) -> Result<Option<Timestamp>, ReadError> {
    let entries = open(transaction, &table::ENTRIES)?;
    let from = table::entry_key(Dot { origin, sequence: swept.next() });
    let to = table::entry_key(Dot { origin, sequence: Sequence(u64::MAX) });
    let first = entries.range::<&[u8; 24]>(&from..=&to).map_err(unreadable)?.next();
    let Some((key, value)) = first.transpose().map_err(unreadable)? else { return Ok(None) };
    let entry = record::entry(key.value(), table::entry_dot(key.value())?, value.value())?;
    Ok(Some(entry.admitted))
}

/// Entries of one step: a transaction of a few milliseconds, which is all that a write waits for.
const STEP_ENTRIES: u64 = 512;

/// Bytes of changes of one step, about.
const STEP_BYTES: u64 = 4 << 20;
