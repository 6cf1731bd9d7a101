//! Deciding again: when the settings of a collection change, every document of it that has
//! conflicts is decided by the new ones, here as in every other region.
//!
//! It goes on in the background, a few documents at a time, so that requests have their turn. What
//! a collection was completely decided by is remembered in the journal, and compared at the start:
//! a node that stopped in the middle goes on, and skips the rows that it had done. A document that
//! is written in the meantime is decided by the way.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;
use std::time::Duration;

use anabranch_crdt::document::Ledger;
use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentKey};
use anabranch_crdt::json::canonical;
use anabranch_crdt::policy::{Policies, PolicyVersion};
use bytes::Bytes;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::listing::blocking;
use super::loaded::damaged;
use super::request::Request;
use super::{Documents, settings, shutting_down};
use crate::error::Error;
use crate::journal::{Commit, LedgerFilter, LedgerPosition, Row};

/// How much of a document is decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reach {
    /// The rows of its ledger.
    Rows,
    /// All of its history, because other containers count as one value than before.
    Whole,
}

/// What deciding again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redecided {
    /// Documents that were decided again.
    pub documents: u64,
    /// Rows of the ledger that changed.
    pub conflicts: u64,
    /// Conflicts of which another value shows than before.
    pub flipped: u64,
}

impl Sum for Redecided {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            documents: sum.documents.saturating_add(one.documents),
            conflicts: sum.conflicts.saturating_add(one.conflicts),
            flipped: sum.flipped.saturating_add(one.flipped),
        })
    }
}

/// How far a collection is decided by its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// The settings by which all of it is decided; `None` while it is decided again.
    pub(super) decided_by: Option<PolicyVersion>,
    /// Documents that are left.
    pub(super) left: u64,
    /// How often all of it was decided since the start.
    pub(super) rounds: u64,
    /// What the last time came to.
    pub(super) last: Redecided,
}

impl Default for Progress {
    fn default() -> Self {
        let decided_by = Some(PolicyVersion::default());
        Self { decided_by, left: 0, rounds: 0, last: Redecided::default() }
    }
}

/// Decides collections again when their settings change.
#[derive(Debug, Clone)]
pub struct Redecider {
    documents: Documents,
}

impl Redecider {
    /// Makes the one that decides the documents of a node again.
    #[must_use]
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// Decides what is due now, and again whenever settings change, for ever.
    pub async fn run(self) {
        let mut changes = self.documents.setting.collections.changes();
        let mut records = None;
        loop {
            changes.borrow_and_update();
            // Resolutions can be admitted only then. Whoever settles it ends the wait, or the node.
            if self.documents.settled().await.is_err() {
                continue;
            }
            let Err(error) = self.all(&mut records).await else {
                // The sender lives as long as the documents that are held here.
                drop(changes.changed().await);
                continue;
            };
            warn!(%error, "a collection is not decided again to its end: trying again");
            drop(tokio::time::timeout(RETRY, changes.changed()).await);
        }
    }

    /// Decides what is due now.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn once(&self) -> Result<(), Error> {
        self.all(&mut None).await
    }

    /// Decides every collection that is not decided by its present settings.
    async fn all(&self, kept: &mut Option<BTreeMap<CollectionName, Record>>) -> Result<(), Error> {
        let records = match kept {
            Some(records) => records,
            None => kept.insert(self.recall().await?),
        };
        let collections = &self.documents.setting.collections;
        let mut names: BTreeSet<CollectionName> = collections.named().into_iter().collect();
        names.extend(collections.touched());
        names.extend(records.keys().cloned());
        for name in names {
            let record = records.entry(name.clone()).or_default();
            // Settings may change again while documents are decided by them.
            while (Pass { documents: &self.documents, name: &name, record }).run().await? {}
        }
        Ok(())
    }

    /// Reads what was completely decided before the start.
    async fn recall(&self) -> Result<BTreeMap<CollectionName, Record>, Error> {
        let journal = self.documents.setting.journal.clone();
        let stored = blocking(move || Ok(journal.redecided()?)).await?;
        let records: BTreeMap<_, _> =
            stored.into_iter().map(|(name, bytes)| (name, Record::read(&bytes))).collect();
        self.documents.setting.collections.progress().send_modify(|progress| {
            for (name, record) in &records {
                let decided_by = record.due.is_none().then(|| record.decided_by.version());
                progress.entry(name.clone()).or_default().decided_by = decided_by;
            }
        });
        Ok(records)
    }
}

/// What is remembered of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
struct Record {
    /// The settings by which all of it is decided.
    decided_by: Policies,
    /// What is due since other settings came, although they may have gone again.
    due: Option<Reach>,
    /// How far all of the documents' history was gone through, and by which settings.
    reached: Option<(PolicyVersion, DocumentKey)>,
}

impl Record {
    fn read(bytes: &[u8]) -> Self {
        let Ok(stored) = serde_json::from_slice::<Stored>(bytes) else {
            // It is a cache: what cannot be read is found out by deciding everything again.
            return Self { due: Some(Reach::Whole), ..Self::default() };
        };
        let reached = stored
            .reached
            .and_then(|(version, key)| Some((version.parse().ok()?, key.parse().ok()?)));
        let (decided_by, _) = settings::read(&stored.decided_by);
        Self { decided_by, due: stored.due, reached }
    }

    /// What other settings than those that all is decided by ask for.
    fn differs_from(&self, wanted: &Policies) -> Option<Reach> {
        let rows = self.decided_by.version() != wanted.version();
        let whole = !self.decided_by.same_wholes(wanted);
        if whole { Some(Reach::Whole) } else { rows.then_some(Reach::Rows) }
    }

    fn to_bytes(&self) -> Bytes {
        let reached = self.reached.as_ref();
        let reached = reached.map(|(version, key)| (version.to_string(), key.to_string()));
        let decided_by = self.decided_by.to_json();
        let stored = Stored { decided_by, due: self.due, reached };
        let value = serde_json::to_value(stored).expect("a record is made of text");
        canonical(&value).into()
    }
}

/// A [`Record`] on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    decided_by: Value,
    due: Option<Reach>,
    reached: Option<(String, String)>,
}

/// One collection on its way to being decided by its present settings.
struct Pass<'a> {
    documents: &'a Documents,
    name: &'a CollectionName,
    record: &'a mut Record,
}

impl Pass<'_> {
    /// Decides every document, and tells whether anything was due. Gives up, without a word, where
    /// the settings change meanwhile.
    async fn run(mut self) -> Result<bool, Error> {
        let collections = &self.documents.setting.collections;
        let touched = collections.take_touched(self.name);
        let wanted = collections.of(Some(self.name));
        if touched.is_some() {
            // Other settings held in between, also for documents that were gone through already.
            self.record.reached = None;
        }
        self.record.due = self.record.due.max(touched).max(self.record.differs_from(&wanted));
        let Some(due) = self.record.due else { return Ok(false) };
        self.show(|progress| progress.decided_by = None);
        self.remember().await?;
        // A step that began under the old settings must be over before its rows are looked for.
        self.ask(&[], Reach::Rows, true).await?;
        let mut sum = Redecided::default();
        if due == Reach::Whole {
            sum = [sum, self.wholes(&wanted).await?].into_iter().sum();
        }
        sum = [sum, self.rows(&wanted).await?].into_iter().sum();
        if self.superseded(&wanted) {
            return Ok(true);
        }
        *self.record = Record { decided_by: Policies::clone(&wanted), ..Record::default() };
        self.remember().await?;
        self.show(|progress| {
            let rounds = progress.rounds.wrapping_add(1);
            let decided_by = Some(wanted.version());
            *progress = Progress { decided_by, left: 0, rounds, last: sum };
        });
        let Redecided { documents, conflicts, flipped } = sum;
        let (collection, version) = (self.name, wanted.version());
        info!(%collection, %version, documents, conflicts, flipped, "decided by new settings");
        Ok(true)
    }

    /// Decides all documents that there are, in the order of their keys.
    async fn wholes(&mut self, wanted: &Policies) -> Result<Redecided, Error> {
        let journal = &self.documents.setting.journal;
        let version = wanted.version();
        let reached = self.record.reached.take().filter(|(reached, _)| *reached == version);
        let mut after = reached.map(|(_, key)| key);
        let (counted, name) = (journal.clone(), self.name.clone());
        let total = blocking(move || Ok(counted.count(&name, "")?)).await?;
        info!(collection = %self.name, %version, documents = total, "deciding all documents again");
        let (mut sum, mut left) = (Redecided::default(), total);
        while !self.superseded(wanted) {
            let (listed, name, from) = (journal.clone(), self.name.clone(), after.clone());
            let page = blocking(move || Ok(listed.list(&name, "", from.as_ref(), PAGE)?)).await?;
            let Some(last) = page.last() else { break };
            let key = last.key.clone();
            let ids: Vec<DocumentId> = page.iter().map(|listed| listed.document).collect();
            for some in ids.chunks(BATCH) {
                sum = [sum, self.ask(some, Reach::Whole, false).await?].into_iter().sum();
                left = left.saturating_sub(some.len() as u64);
                self.show(|progress| progress.left = left);
            }
            self.record.reached = Some((version, key.clone()));
            self.remember().await?;
            after = Some(key);
        }
        Ok(sum)
    }

    /// Decides the documents of which the ledger has rows that other settings decided.
    async fn rows(&self, wanted: &Policies) -> Result<Redecided, Error> {
        let (documents, name) = (self.documents.clone(), self.name.clone());
        let version = wanted.version();
        let stale = blocking(move || documents.decided_otherwise(&name, version)).await?;
        let stale: Vec<DocumentId> = stale.into_iter().collect();
        let (mut sum, mut left) = (Redecided::default(), stale.len() as u64);
        if left > 0 {
            info!(collection = %self.name, %version, documents = left, "deciding again");
        }
        for some in stale.chunks(BATCH) {
            if self.superseded(wanted) {
                break;
            }
            self.show(|progress| progress.left = left);
            sum = [sum, self.ask(some, Reach::Rows, false).await?].into_iter().sum();
            left = left.saturating_sub(some.len() as u64);
        }
        Ok(sum)
    }

    /// Has the owners of documents decide them, and waits until that is durable; `all` asks also
    /// the owners of none of them.
    async fn ask(&self, ids: &[DocumentId], reach: Reach, all: bool) -> Result<Redecided, Error> {
        let mut of_owners = vec![Vec::new(); self.documents.queues.len()];
        for id in ids {
            if let Some(of) = of_owners.get_mut(self.documents.setting.owner_of(*id)) {
                of.push(*id);
            }
        }
        let asked = self.documents.queues.iter().zip(of_owners);
        let asked = asked.filter(|(_, documents)| all || !documents.is_empty());
        let answers = try_join_all(asked.map(async |(queue, documents)| {
            let (reply, answer) = oneshot::channel();
            // It waits while the queue is full: requests come first.
            let request = Request::Redecide { documents, reach, reply };
            queue.send(request).await.map_err(|_| shutting_down())?;
            let (decided, _) = answer.await.unwrap_or_else(|_| Err(shutting_down()))?;
            Ok::<_, Error>(decided)
        }));
        Ok(answers.await?.into_iter().sum())
    }

    fn superseded(&self, wanted: &Policies) -> bool {
        self.documents.setting.collections.of(Some(self.name)).version() != wanted.version()
    }

    fn show(&self, change: impl FnOnce(&mut Progress)) {
        let progress = self.documents.setting.collections.progress();
        progress.send_modify(|progress| change(progress.entry(self.name.clone()).or_default()));
    }

    /// Has the record stored.
    async fn remember(&self) -> Result<(), Error> {
        let (done, durable) = oneshot::channel();
        let mut commit = Commit::of_entries(Vec::new(), move |committed| {
            // Nobody waits any more when the node stops.
            drop(done.send(committed));
        });
        commit.rows.push(Row::Redecided(self.name.clone(), self.record.to_bytes()));
        self.documents.setting.journal.submit(commit).await?;
        durable.await.map_err(|_| shutting_down())??;
        Ok(())
    }
}

impl Documents {
    /// The documents of a collection of which the ledger has rows that other settings decided. So
    /// many ids are held at once as documents have conflicts: 16 bytes each. Blocks.
    pub(super) fn decided_otherwise(
        &self,
        collection: &CollectionName,
        version: PolicyVersion,
    ) -> Result<BTreeSet<DocumentId>, Error> {
        let mut found = BTreeSet::new();
        self.each_row(collection, |id, bytes| {
            let conflict = Ledger::read_conflict(bytes).map_err(|error| damaged(id, error))?;
            if conflict.version != version {
                found.insert(id);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` for every row of the ledger that a collection has. Blocks.
    pub(super) fn each_row(
        &self,
        collection: &CollectionName,
        mut each: impl FnMut(DocumentId, &Bytes) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let collection = Some(collection.clone());
        let filter = LedgerFilter { collection, ..LedgerFilter::default() };
        let mut after: Option<LedgerPosition> = None;
        loop {
            let page = self.setting.journal.conflicts(&filter, after, PAGE)?;
            page.rows.iter().try_for_each(|stored| each(stored.document, &stored.row.bytes))?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Waits until a collection is decided by its present settings, and returns what that came to
    /// since `rounds`.
    ///
    /// # Errors
    /// How many documents are left, after `limit`.
    pub(super) async fn redecided(
        &self,
        collection: &CollectionName,
        rounds: u64,
        limit: Duration,
    ) -> Result<Redecided, u64> {
        let collections = &self.setting.collections;
        let mut progress = collections.progress().subscribe();
        let of = |all: &BTreeMap<CollectionName, Progress>| {
            all.get(collection).copied().unwrap_or_default()
        };
        let decided = progress
            .wait_for(|all| of(all).decided_by == Some(collections.of(Some(collection)).version()));
        match tokio::time::timeout(limit, decided).await {
            Ok(Ok(all)) => {
                let progress = of(&all);
                Ok(if progress.rounds == rounds { Redecided::default() } else { progress.last })
            }
            Ok(Err(_)) | Err(_) => Err(of(&collections.progress().borrow()).left),
        }
    }

    /// How often a collection was decided by new settings since the start, and how many documents
    /// are left of the time that is under way.
    pub(super) fn redeciding(&self, collection: &CollectionName) -> (u64, Option<u64>) {
        let collections = &self.setting.collections;
        let progress = collections.progress().borrow().get(collection).copied();
        let progress = progress.unwrap_or_default();
        let due = progress.decided_by != Some(collections.of(Some(collection)).version());
        (progress.rounds, due.then_some(progress.left))
    }
}

/// Documents that are decided at once: some milliseconds of their owners' time.
const BATCH: usize = 32;

/// Rows, or names, that are read at once.
const PAGE: usize = 256;

/// How long a pass that failed, for instance because the disk is full, waits for the next try.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let decided_by = Policies::read(&json!({
            "policy": "region-priority", "regions": ["eu", "us"],
            "paths": {"/a": {"policy": "lww", "whole": true}},
        }));
        let decided_by = decided_by.unwrap();
        let reached = Some((decided_by.version(), "a/b \"c\"".parse().unwrap()));
        for due in [None, Some(Reach::Rows), Some(Reach::Whole)] {
            let record = Record { decided_by: decided_by.clone(), due, reached: reached.clone() };
            assert_eq!(Record::read(&record.to_bytes()), record);
        }
        assert_eq!(Record::read(&Record::default().to_bytes()), Record::default());
        for damaged in ["", "{}", "[1]"] {
            assert_eq!(Record::read(damaged.as_bytes()).due, Some(Reach::Whole), "{damaged}");
        }
    }

    #[test]
    fn other_wholes_ask_for_more_than_other_policies() {
        let policies = |settings| Policies::read(&settings).unwrap();
        let record = Record { decided_by: policies(json!({"policy": "lww"})), ..Record::default() };
        assert_eq!(record.differs_from(&policies(json!({"policy": "lww"}))), None);
        assert_eq!(record.differs_from(&Policies::default()), Some(Reach::Rows));
        let whole = policies(json!({"paths": {"/a": {"policy": "lww", "whole": true}}}));
        assert_eq!(record.differs_from(&whole), Some(Reach::Whole));
    }
}
