//! Listings of documents and of conflicts.

use anabranch_crdt::conflict::{Conflict, ConflictId};
use anabranch_crdt::document::Ledger;
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentKey};
use bytes::Bytes;

use super::loaded::damaged;
use super::{ConflictFilter, Document, Documents, NamedConflict, resolve};
use crate::error::{Error, ErrorKind};

impl Documents {
    /// Lists live documents in key order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn list(
        &self,
        collection: &CollectionName,
        prefix: &str,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<(DocumentKey, Document)>, Error> {
        self.settle().await?;
        let listed = self.setting.journal.list(collection, prefix, after, limit)?;
        let shown = listed.into_iter().filter_map(|listed| {
            Some((listed.key, Document::from_row(listed.document, &listed.row)?))
        });
        Ok(shown.collect())
    }

    /// Counts the live documents of a collection whose key starts with `prefix`. Costs time with
    /// their number.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn count(&self, collection: &CollectionName, prefix: &str) -> Result<u64, Error> {
        let (journal, collection) = (self.setting.journal.clone(), collection.clone());
        let prefix = prefix.to_owned();
        let counting = tokio::task::spawn_blocking(move || journal.count(&collection, &prefix));
        let counted = counting.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "count_failed", "counting failed").with_source(error)
        })?;
        Ok(counted?)
    }

    /// Lists conflicts in a stable order.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn conflicts(&self, filter: ConflictFilter) -> Result<Vec<NamedConflict>, Error> {
        self.settle().await?;
        let mut found = Vec::new();
        let mut after = match filter.after {
            Some(id) => self.setting.journal.conflict_document(id)?.map(|document| (document, id)),
            None => None,
        };
        loop {
            let page = self.conflict_page(&filter, after)?;
            let Some((document, id, _)) = page.last() else { return Ok(found) };
            after = Some((*document, *id));
            let full = page.len() == CONFLICT_PAGE;
            for (document, _, row) in page {
                let conflict = read(document, &row)?;
                if filter.state.is_some_and(|state| state != conflict.state) {
                    continue;
                }
                let named = self.with_name(conflict)?;
                if self.matches(&named, &filter) {
                    found.push(named);
                }
                if found.len() >= filter.limit {
                    return Ok(found);
                }
            }
            if filter.document.is_some() || !full {
                return Ok(found);
            }
        }
    }

    /// Reads one conflict.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn conflict(&self, id: ConflictId) -> Result<NamedConflict, Error> {
        let document = self.setting.journal.conflict_document(id)?;
        let document = document.ok_or_else(|| resolve::not_found(id))?;
        let rows = self.setting.journal.conflicts_of(document)?;
        let row = rows.into_iter().find(|(found, _)| *found == id);
        let (_, row) = row.ok_or_else(|| resolve::not_found(id))?;
        self.with_name(read(document, &row)?)
    }

    /// Has entries of other regions applied that wait for it, so that a listing shows what a read
    /// would. While a region catches up there are too many, and listings lag behind reads.
    async fn settle(&self) -> Result<(), Error> {
        for document in self.setting.journal.pending(None, SETTLED_AT_ONCE)? {
            self.read_id(document).await?;
        }
        Ok(())
    }

    fn conflict_page(
        &self,
        filter: &ConflictFilter,
        after: Option<(DocumentId, ConflictId)>,
    ) -> Result<Vec<(DocumentId, ConflictId, Bytes)>, Error> {
        let journal = &self.setting.journal;
        let Some(name) = &filter.document else {
            return Ok(journal.conflicts(after, CONFLICT_PAGE)?);
        };
        let document = DocumentId::from(name);
        let later = |id: &ConflictId| after.is_none_or(|(_, last)| *id > last);
        let rows = journal.conflicts_of(document)?.into_iter();
        Ok(rows.filter(|(id, _)| later(id)).map(|(id, row)| (document, id, row)).collect())
    }

    fn with_name(&self, conflict: Conflict) -> Result<NamedConflict, Error> {
        let (row, _) = self.setting.journal.row(conflict.document)?;
        Ok(NamedConflict { name: row.and_then(|row| row.name), conflict })
    }

    fn matches(&self, named: &NamedConflict, filter: &ConflictFilter) -> bool {
        let collection = named.name.as_ref().map(|name| &name.collection);
        filter.collection.as_ref().is_none_or(|wanted| collection == Some(wanted))
    }
}

fn read(document: DocumentId, row: &Bytes) -> Result<Conflict, Error> {
    Ledger::read_conflict(row).map_err(|error| damaged(document, error))
}

/// Documents that a listing waits for; some milliseconds of their owners' time.
const SETTLED_AT_ONCE: usize = 64;

/// Ledger rows that are read at once.
const CONFLICT_PAGE: usize = 256;
