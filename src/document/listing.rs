//! Listings of documents and of conflicts.

use std::collections::BTreeSet;

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::document::Ledger;
use anabranch_crdt::ids::{CollectionName, DocumentKey, Origin, RegionName};

use super::loaded::damaged;
use super::{ConflictFilter, ConflictPage, Document, Documents, NamedConflict, resolve};
use crate::error::{Error, ErrorKind};
use crate::journal::{LedgerCount, LedgerFilter, LedgerRow, StoredConflict};

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
        self.apply_pending().await?;
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
        blocking(move || Ok(journal.count(&collection, &prefix)?)).await
    }

    /// Lists conflicts, newest first, and counts all that the filter passes.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn conflicts(&self, filter: ConflictFilter) -> Result<ConflictPage, Error> {
        self.apply_pending().await?;
        let wanted = self.ledger_filter(&filter);
        let journal = self.setting.journal.clone();
        let page =
            blocking(move || Ok(journal.conflicts(&wanted, filter.after, filter.limit)?)).await?;
        let conflicts: Result<Vec<_>, Error> = page.rows.iter().map(named).collect();
        Ok(ConflictPage { conflicts: conflicts?, total: page.total, next: page.next })
    }

    /// Counts the conflicts, by collection, state and kind; only those of one collection, if it is
    /// given.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn conflict_stats(
        &self,
        collection: Option<CollectionName>,
    ) -> Result<Vec<LedgerCount>, Error> {
        self.apply_pending().await?;
        let journal = self.setting.journal.clone();
        let mut counts = blocking(move || Ok(journal.conflict_counts()?)).await?;
        counts.retain(|count| collection.is_none() || count.collection == collection);
        Ok(counts)
    }

    /// Reads one conflict.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Unavailable`.
    pub async fn conflict(&self, id: ConflictId) -> Result<NamedConflict, Error> {
        let document = self.setting.journal.conflict_document(id)?;
        let document = document.ok_or_else(|| resolve::not_found(id))?;
        let row = self.setting.journal.conflict(document, id)?;
        let row = row.ok_or_else(|| resolve::not_found(id))?;
        named(&StoredConflict { document, conflict: id, row })
    }

    /// A filter in the journal's words, which knows no regions.
    pub(crate) fn ledger_filter(&self, filter: &ConflictFilter) -> LedgerFilter {
        let of = |region: &RegionName| -> BTreeSet<Origin> {
            let origins = self.setting.journal.origins().into_iter();
            origins
                .filter(|(_, of)| of.as_ref() == Some(region))
                .map(|(origin, _)| origin)
                .collect()
        };
        LedgerFilter {
            collection: filter.collection.clone(),
            documents: filter.document.as_ref().map(|name| self.epoch_ids(name)),
            path: filter.path.clone().filter(|path| !path.is_root()),
            kind: filter.kind,
            state: filter.state,
            leaders: filter.region.as_ref().map(of),
            since: filter.since,
            until: filter.until,
        }
    }

    /// Has entries of other regions applied that wait for it, so that a listing shows what a read
    /// would. While a region catches up there are too many, and listings lag behind reads.
    pub(super) async fn apply_pending(&self) -> Result<(), Error> {
        for document in self.setting.journal.pending(None, SETTLED_AT_ONCE)? {
            self.read_id(document).await?;
        }
        Ok(())
    }
}

/// Reads a stored row.
pub(crate) fn named(stored: &StoredConflict) -> Result<NamedConflict, Error> {
    let LedgerRow { summary, bytes } = &stored.row;
    let conflict = Ledger::read_conflict(bytes).map_err(|error| damaged(stored.document, error))?;
    Ok(NamedConflict { name: summary.name.clone(), conflict })
}

/// Runs what reads much of the disk, or waits for the journal, on a thread where that may be.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| {
        let message = "reading the journal failed";
        Err(Error::new(ErrorKind::Internal, "read_failed", message).with_source(error))
    })
}

/// Documents that a listing waits for; some milliseconds of their owners' time.
const SETTLED_AT_ONCE: usize = 64;
