//! Applying a plan: which rows of which tables follow from its entries and cache rows.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentName, Origin};
use bytes::Bytes;
use redb::{Key, ReadableTable, ReadableTableMetadata, TableError, WriteTransaction};

use super::ledger::index::LedgerTables;
use super::record::{self, DocumentRecord, Encoder, MadeOf, OriginRow};
use super::table::{self, Generation, Table};
use super::{DocumentRow, ReadError, Row, Source};

/// What one transaction does to a document.
#[derive(Default)]
struct Touched<'p> {
    row: Option<&'p DocumentRow>,
    added: Vec<Dot>,
    /// What each new snapshot covers, in their order.
    covered: Vec<&'p [Dot]>,
    reached: Vec<Dot>,
}

impl Touched<'_> {
    /// Brings what a document is made of up to date.
    fn make(&self, made_of: &mut MadeOf) {
        let MadeOf { tail, kept, tops } = made_of;
        tail.extend(&self.added);
        for covers in &self.covered {
            // The newest snapshot becomes the one before, which lacks what the new one adds.
            *kept = covers.iter().copied().collect();
            tail.retain(|dot| !kept.contains(dot));
        }
        let covered = self.covered.iter().flat_map(|covers| covers.iter());
        for dot in tail.iter().chain(covered).chain(&self.reached) {
            tops.raise(dot.origin, dot.sequence);
        }
    }
}

/// What is stored of a document before that.
#[derive(Default)]
struct Stored {
    made_of: MadeOf,
    /// Only where no new row replaces it.
    row: Option<DocumentRow>,
    /// The name under which it is listed.
    name: Option<DocumentName>,
}

impl Stored {
    fn read(key: &[u8], value: &[u8], touched: &Touched<'_>) -> Result<Self, ReadError> {
        let record = DocumentRecord::unseal(key, value)?;
        let row = match touched.row {
            Some(_) => None,
            None => record.row()?,
        };
        Ok(Self { made_of: record.made_of()?, row, name: record.live_name()? })
    }
}

/// A table that may be open.
pub(super) type Slot<'t, K> = Option<redb::Table<'t, K, &'static [u8]>>;

/// The tables of one write transaction; each is opened once, when it is first needed.
pub(super) struct Tables<'t, 'p> {
    transaction: &'t WriteTransaction,
    encoder: &'t mut Encoder,
    key: Vec<u8>,
    touched: BTreeMap<DocumentId, Touched<'p>>,
    entries: Slot<'t, &'static [u8; 24]>,
    pending: Slot<'t, &'static [u8; 40]>,
    snapshots: Slot<'t, &'static [u8; 17]>,
    documents: Slot<'t, &'static [u8; 16]>,
    names: Slot<'t, &'static [u8]>,
    ledger: Option<LedgerTables<'t>>,
    origins: Slot<'t, &'static [u8; 16]>,
}

impl<'t, 'p> Tables<'t, 'p> {
    pub(super) fn new(transaction: &'t WriteTransaction, encoder: &'t mut Encoder) -> Self {
        Self {
            transaction,
            encoder,
            key: Vec::new(),
            touched: BTreeMap::new(),
            entries: None,
            pending: None,
            snapshots: None,
            documents: None,
            names: None,
            ledger: None,
            origins: None,
        }
    }

    /// Writes a new entry; a local one is in its document's row already, and so in its tail.
    pub(super) fn entry(&mut self, source: Source, entry: &Entry) -> Result<(), redb::Error> {
        let key = table::entry_key(entry.dot());
        let entries = opened(&mut self.entries, self.transaction, &table::ENTRIES)?;
        entries.insert(&key, self.encoder.entry(&key, entry))?;
        match source {
            Source::Local => {
                self.touched.entry(entry.document).or_default().added.push(entry.dot());
            }
            Source::Remote => {
                let key = table::index_key(entry.document, entry.dot());
                let pending = opened(&mut self.pending, self.transaction, &table::PENDING)?;
                pending.insert(&key, self.encoder.empty(table::PENDING.name, &key))?;
            }
        }
        Ok(())
    }

    /// Takes in a cache row, and returns how many entries it took out of `pending-1`.
    pub(super) fn row(&mut self, row: &'p Row) -> Result<u64, redb::Error> {
        match row {
            Row::Document(document, row) => {
                self.touched.entry(*document).or_default().row = Some(row);
                Ok(0)
            }
            Row::Applied(document, dots) => self.applied(*document, dots),
            Row::Snapshot { document, bytes, covers } => {
                self.snapshot(*document, bytes)?;
                self.covered(*document, covers)
            }
            Row::Reached(document, dots) => {
                let touched = self.touched.entry(*document).or_default();
                touched.reached.extend_from_slice(dots);
                Ok(0)
            }
            Row::Conflict(document, conflict, row) => {
                let ledger = self.ledger.get_or_insert_default();
                let place = (*document, *conflict);
                ledger.write(self.transaction, self.encoder, place, row.as_ref()).map(|()| 0)
            }
            Row::Redecided(collection, record) => self.redecided(collection, record).map(|()| 0),
        }
    }

    /// Writes each document that was touched, once, however many commits touched it.
    pub(super) fn documents(&mut self) -> Result<(), redb::Error> {
        for (document, touched) in std::mem::take(&mut self.touched) {
            self.document(document, touched)?;
        }
        Ok(())
    }

    /// Brings the index of the ledger in step with its rows, if there were any.
    pub(super) fn ledger(&mut self) -> Result<(), redb::Error> {
        match self.ledger.take() {
            Some(ledger) => ledger.finish(self.transaction, self.encoder),
            None => Ok(()),
        }
    }

    pub(super) fn origin(&mut self, origin: Origin, row: &OriginRow) -> Result<(), redb::Error> {
        let key = origin.as_bytes();
        let origins = opened(&mut self.origins, self.transaction, &table::ORIGINS)?;
        origins.insert(key, self.encoder.origin(key, row))?;
        Ok(())
    }

    fn redecided(
        &mut self,
        collection: &CollectionName,
        record: &Bytes,
    ) -> Result<(), redb::Error> {
        let key = format!("{}{collection}", table::REDECIDED);
        let mut meta = self.transaction.open_table(table::META.definition)?;
        let record = self.encoder.blob(table::META.name, key.as_bytes(), record);
        meta.insert(key.as_str(), record)?;
        Ok(())
    }

    fn applied(&mut self, document: DocumentId, dots: &[Dot]) -> Result<u64, redb::Error> {
        let mut moved = 0;
        for dot in dots {
            if self.no_longer_pending(document, *dot)? {
                self.touched.entry(document).or_default().added.push(*dot);
                moved += 1;
            }
        }
        Ok(moved)
    }

    fn covered(&mut self, document: DocumentId, covers: &'p [Dot]) -> Result<u64, redb::Error> {
        self.touched.entry(document).or_default().covered.push(covers);
        let mut moved = 0;
        for dot in covers {
            moved += u64::from(self.no_longer_pending(document, *dot)?);
        }
        Ok(moved)
    }

    fn no_longer_pending(&mut self, document: DocumentId, dot: Dot) -> Result<bool, redb::Error> {
        let pending = opened(&mut self.pending, self.transaction, &table::PENDING)?;
        if pending.is_empty()? {
            return Ok(false);
        }
        Ok(pending.remove(&table::index_key(document, dot))?.is_some())
    }

    /// Makes the newest snapshot the one before, and writes a new one. Bytes that rotted are not
    /// kept as the one before: they would be no use there.
    fn snapshot(&mut self, document: DocumentId, bytes: &Bytes) -> Result<(), redb::Error> {
        let name = table::SNAPSHOTS.name;
        let newest = table::snapshot_key(document, Generation::Newest);
        let before = table::snapshot_key(document, Generation::Before);
        let snapshots = opened(&mut self.snapshots, self.transaction, &table::SNAPSHOTS)?;
        let old = match snapshots.insert(&newest, self.encoder.blob(name, &newest, bytes))? {
            Some(guard) => record::Fields::unseal(name, &newest, guard.value())
                .ok()
                .map(|fields| fields.rest().to_vec()),
            None => None,
        };
        if let Some(old) = old {
            snapshots.insert(&before, self.encoder.blob(name, &before, &old))?;
        }
        Ok(())
    }

    fn document(&mut self, document: DocumentId, touched: Touched<'p>) -> Result<(), redb::Error> {
        let key = document.as_bytes();
        let documents = opened(&mut self.documents, self.transaction, &table::DOCUMENTS)?;
        let old = documents.get(key)?.map(|guard| Stored::read(key, guard.value(), &touched));
        let old = match old {
            Some(Ok(stored)) => stored,
            // A damaged record told nobody its row any more, and the new one heals it; its tail is
            // found again among the entries.
            Some(Err(_)) => {
                let tail = self.entries_of(document)?;
                Stored { made_of: MadeOf { tail, ..MadeOf::default() }, ..Stored::default() }
            }
            None => Stored::default(),
        };
        let Stored { mut made_of, row, name } = old;
        touched.make(&mut made_of);
        let row = touched.row.or(row.as_ref());
        let documents = opened(&mut self.documents, self.transaction, &table::DOCUMENTS)?;
        documents.insert(key, self.encoder.document(key, row, &made_of))?;
        let live = row.filter(|row| row.json.is_some()).and_then(|row| row.name.as_ref());
        if name.as_ref() == live {
            return Ok(());
        }
        if let Some(old) = name {
            self.unlist(document, &old)?;
        }
        live.map_or(Ok(()), |new| self.list(document, new))
    }

    /// Every entry of a document, by reading all there are.
    fn entries_of(&mut self, document: DocumentId) -> Result<BTreeSet<Dot>, redb::Error> {
        let entries = opened(&mut self.entries, self.transaction, &table::ENTRIES)?;
        let mut found = BTreeSet::new();
        for pair in entries.iter()? {
            let (key, value) = pair?;
            let entry = table::entry_dot(key.value())
                .and_then(|dot| record::entry(key.value(), dot, value.value()));
            found.extend(entry.ok().filter(|entry| entry.document == document).map(|e| e.dot()));
        }
        Ok(found)
    }

    fn list(&mut self, document: DocumentId, name: &DocumentName) -> Result<(), redb::Error> {
        table::name_key(&mut self.key, &name.collection, name.key.as_str());
        let names = opened(&mut self.names, self.transaction, &table::NAMES)?;
        names.insert(self.key.as_slice(), self.encoder.name_row(&self.key, document))?;
        Ok(())
    }

    /// Takes a document out of the listing, unless another one has its name now.
    fn unlist(&mut self, document: DocumentId, name: &DocumentName) -> Result<(), redb::Error> {
        table::name_key(&mut self.key, &name.collection, name.key.as_str());
        let key = self.key.as_slice();
        let names = opened(&mut self.names, self.transaction, &table::NAMES)?;
        let listed = names.get(key)?.map(|guard| record::name_row(key, guard.value()));
        if listed.is_some_and(|listed| listed.map_or(true, |listed| listed == document)) {
            names.remove(key)?;
        }
        Ok(())
    }
}

/// Makes every table, so that a reader never meets one that is not there.
pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(table::ENTRIES.definition)?;
    transaction.open_table(table::PENDING.definition)?;
    transaction.open_table(table::SNAPSHOTS.definition)?;
    transaction.open_table(table::DOCUMENTS.definition)?;
    transaction.open_table(table::NAMES.definition)?;
    transaction.open_table(table::CONFLICTS.definition)?;
    transaction.open_table(table::CONFLICT_INDEX.definition)?;
    transaction.open_table(table::CONFLICT_COUNTS.definition)?;
    transaction.open_table(table::CONFLICT_DOCUMENTS.definition)?;
    transaction.open_table(table::ORIGINS.definition)?;
    transaction.open_table(table::META.definition)?;
    Ok(())
}

/// Opens a table unless it is open.
pub(super) fn opened<'a, 't, K: Key + 'static>(
    slot: &'a mut Slot<'t, K>,
    transaction: &'t WriteTransaction,
    table: &Table<K>,
) -> Result<&'a mut redb::Table<'t, K, &'static [u8]>, TableError> {
    match slot {
        Some(table) => Ok(table),
        None => Ok(slot.insert(transaction.open_table(table.definition)?)),
    }
}
