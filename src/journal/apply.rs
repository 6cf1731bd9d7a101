//! Applying a plan: which rows of which tables follow from its entries and cache rows.

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin};
use bytes::Bytes;
use redb::{Key, ReadableTable, TableError, WriteTransaction};

use super::record::{self, Encoder, OriginRow};
use super::table::{self, Generation, Table};
use super::{DocumentRow, Row, Source};

type Slot<'t, K> = Option<redb::Table<'t, K, &'static [u8]>>;

/// The tables of one write transaction; each is opened once, when it is first needed.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    encoder: &'t mut Encoder,
    key: Vec<u8>,
    entries: Slot<'t, &'static [u8; 24]>,
    pending: Slot<'t, &'static [u8; 40]>,
    tails: Slot<'t, &'static [u8; 40]>,
    snapshots: Slot<'t, &'static [u8; 17]>,
    documents: Slot<'t, &'static [u8; 16]>,
    names: Slot<'t, &'static [u8]>,
    conflicts: Slot<'t, &'static [u8; 32]>,
    origins: Slot<'t, &'static [u8; 16]>,
}

impl<'t> Tables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction, encoder: &'t mut Encoder) -> Self {
        Self {
            transaction,
            encoder,
            key: Vec::new(),
            entries: None,
            pending: None,
            tails: None,
            snapshots: None,
            documents: None,
            names: None,
            conflicts: None,
            origins: None,
        }
    }

    /// Writes a new entry, and where it stands: a local one is in its row already.
    pub(super) fn entry(&mut self, source: Source, entry: &Entry) -> Result<(), redb::Error> {
        let key = table::entry_key(entry.dot());
        let entries = opened(&mut self.entries, self.transaction, &table::ENTRIES)?;
        entries.insert(&key, self.encoder.entry(&key, entry))?;
        let key = table::index_key(entry.document, entry.dot());
        match source {
            Source::Local => self.tail(&key),
            Source::Remote => {
                let pending = opened(&mut self.pending, self.transaction, &table::PENDING)?;
                pending.insert(&key, self.encoder.empty(table::PENDING.name, &key))?;
                Ok(())
            }
        }
    }

    /// Writes a cache row, and returns how many entries it took out of `pending-1`.
    pub(super) fn row(&mut self, row: &Row) -> Result<u64, redb::Error> {
        match row {
            Row::Document(document, row) => self.document(*document, row).map(|()| 0),
            Row::Applied(document, dots) => self.applied(*document, dots),
            Row::Snapshot { document, bytes, covers } => {
                self.snapshot(*document, bytes)?;
                self.covered(*document, covers)
            }
            Row::Conflict(document, conflict, bytes) => {
                self.conflict(*document, *conflict, bytes.as_ref()).map(|()| 0)
            }
        }
    }

    pub(super) fn origin(&mut self, origin: Origin, row: &OriginRow) -> Result<(), redb::Error> {
        let key = origin.as_bytes();
        let origins = opened(&mut self.origins, self.transaction, &table::ORIGINS)?;
        origins.insert(key, self.encoder.origin(key, row))?;
        Ok(())
    }

    fn tail(&mut self, key: &[u8; 40]) -> Result<(), redb::Error> {
        let tails = opened(&mut self.tails, self.transaction, &table::TAILS)?;
        tails.insert(key, self.encoder.empty(table::TAILS.name, key))?;
        Ok(())
    }

    fn applied(&mut self, document: DocumentId, dots: &[Dot]) -> Result<u64, redb::Error> {
        let mut moved = 0;
        for dot in dots {
            let key = table::index_key(document, *dot);
            if self.no_longer_pending(&key)? {
                self.tail(&key)?;
                moved += 1;
            }
        }
        Ok(moved)
    }

    fn covered(&mut self, document: DocumentId, covers: &[Dot]) -> Result<u64, redb::Error> {
        let mut moved = 0;
        for dot in covers {
            let key = table::index_key(document, *dot);
            let tails = opened(&mut self.tails, self.transaction, &table::TAILS)?;
            let tailed = tails.remove(&key)?.is_some();
            moved += u64::from(!tailed && self.no_longer_pending(&key)?);
        }
        Ok(moved)
    }

    fn no_longer_pending(&mut self, key: &[u8; 40]) -> Result<bool, redb::Error> {
        let pending = opened(&mut self.pending, self.transaction, &table::PENDING)?;
        Ok(pending.remove(key)?.is_some())
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

    fn document(&mut self, document: DocumentId, row: &DocumentRow) -> Result<(), redb::Error> {
        let key = document.as_bytes();
        let documents = opened(&mut self.documents, self.transaction, &table::DOCUMENTS)?;
        let old = documents.insert(key, self.encoder.row(key, row))?;
        // A damaged row told nobody its name any more; the new row heals it.
        let old = old.and_then(|guard| record::live_name(key, guard.value()).ok().flatten());
        let new = row.name.as_ref().filter(|_| row.json.is_some());
        if old.as_ref() == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.unlist(document, &old)?;
        }
        new.map_or(Ok(()), |new| self.list(document, new))
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

    fn conflict(
        &mut self,
        document: DocumentId,
        conflict: ConflictId,
        bytes: Option<&Bytes>,
    ) -> Result<(), redb::Error> {
        let key = table::conflict_key(document, conflict);
        let conflicts = opened(&mut self.conflicts, self.transaction, &table::CONFLICTS)?;
        match bytes {
            Some(bytes) => {
                conflicts.insert(&key, self.encoder.blob(table::CONFLICTS.name, &key, bytes))?;
            }
            None => {
                conflicts.remove(&key)?;
            }
        }
        Ok(())
    }
}

/// Makes every table, so that a reader never meets one that is not there.
pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(table::ENTRIES.definition)?;
    transaction.open_table(table::PENDING.definition)?;
    transaction.open_table(table::TAILS.definition)?;
    transaction.open_table(table::SNAPSHOTS.definition)?;
    transaction.open_table(table::DOCUMENTS.definition)?;
    transaction.open_table(table::NAMES.definition)?;
    transaction.open_table(table::CONFLICTS.definition)?;
    transaction.open_table(table::ORIGINS.definition)?;
    transaction.open_table(table::META.definition)?;
    Ok(())
}

fn opened<'a, 't, K: Key + 'static>(
    slot: &'a mut Slot<'t, K>,
    transaction: &'t WriteTransaction,
    table: &Table<K>,
) -> Result<&'a mut redb::Table<'t, K, &'static [u8]>, TableError> {
    match slot {
        Some(table) => Ok(table),
        None => Ok(slot.insert(transaction.open_table(table.definition)?)),
    }
}
