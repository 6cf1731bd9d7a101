//! The cleaner: purges what was deleted long ago, drops what is purged everywhere, and looks again
//! for late changes when the members of the cluster change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::document::ClosingKind;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, RegionName, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::passage::Passage;
use crate::document::request::{EpochRequest, Request};
use crate::document::{Documents, listing};
use crate::error::{Error, ErrorKind};
use crate::journal::{Closed, Commit, Row};
use crate::replication::ClusterView;

/// Cleans up behind deletes and purges, for ever.
#[derive(Debug)]
pub struct Cleaner {
    documents: Documents,
    cluster: watch::Receiver<Arc<ClusterView>>,
    members: BTreeSet<RegionName>,
    /// Purged documents that are dropped once every region knows.
    emptying: Option<(Passage, Vec<DocumentId>)>,
    /// Deleted documents that are purged once every region is past the delete.
    purging: Option<(Passage, Vec<DocumentId>)>,
    next_purge: Instant,
    /// Where the search for deleted documents goes on.
    searched: Option<DocumentId>,
    next_look: Instant,
    /// Where the search for what is left of dropped documents goes on; `None` when it is done.
    sweep: Option<Option<Dot>>,
}

impl Cleaner {
    /// Makes the cleaner of a node's documents.
    #[must_use]
    pub fn new(documents: Documents, cluster: watch::Receiver<Arc<ClusterView>>) -> Self {
        let now = Instant::now();
        Self {
            documents,
            cluster,
            members: BTreeSet::new(),
            emptying: None,
            purging: None,
            next_purge: now,
            searched: None,
            next_look: now,
            // What was left when the node stopped is not known.
            sweep: Some(None),
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.once().await {
                // An owner or the journal is busy, or at its end; the next tick tries again.
                warn!(%error, "cleaning up is put off");
            }
        }
    }

    /// Does what is due now.
    ///
    /// # Errors
    /// `Corrupt`, `Overloaded`, `Unavailable`; what is left is done the next time.
    pub(in crate::document) async fn once(&mut self) -> Result<(), Error> {
        self.look_again().await?;
        self.purge().await?;
        self.empty().await?;
        self.strip().await
    }

    /// Asks owners to look for late changes again: at once if other regions count now, and once in
    /// a while for what waits.
    async fn look_again(&mut self) -> Result<(), Error> {
        let view = Arc::clone(&self.cluster.borrow());
        let members: BTreeSet<_> = view.voters().map(|region| region.region.clone()).collect();
        let now = Instant::now();
        if members == self.members && now < self.next_look {
            return Ok(());
        }
        self.members = members;
        self.next_look = now + LOOK_PERIOD;
        for id in self.closed(|closed| closed.late > 0).await? {
            let ((), _) = self
                .documents
                .ask_patiently(id, |reply| Request::Epoch(EpochRequest::CarryOver { id, reply }))
                .await?;
        }
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), Error> {
        let age = self.documents.setting.limits.purge_age;
        let clock = &self.documents.setting.clock;
        if age.is_zero() || self.members.first() != Some(&self.documents.setting.region) {
            return Ok(());
        }
        let alone = self.members.len() < 2;
        let Some(now) = (if alone { Some(clock.wall()) } else { clock.judged() }) else {
            return Ok(());
        };
        if let Some((passage, ids)) = self.purging.take() {
            let Some(ids) = self.passed(passage, ids, |cleaner, left| cleaner.purging = Some(left))
            else {
                return Ok(());
            };
            return self.purge_all(ids, now, age).await;
        }
        if Instant::now() < self.next_purge {
            return Ok(());
        }
        let (journal, after) = (self.documents.setting.journal.clone(), self.searched);
        let search = listing::blocking(move || Ok(journal.deleted_documents(after, PAGE)?));
        let (deleted, next) = search.await?;
        self.searched = next;
        if next.is_none() {
            self.next_purge = Instant::now() + PURGE_PERIOD.min(age).max(TICK);
        }
        if !deleted.is_empty() {
            self.purging = Some((self.passage(), deleted));
        }
        Ok(())
    }

    async fn purge_all(
        &mut self,
        ids: Vec<DocumentId>,
        now: Timestamp,
        age: Duration,
    ) -> Result<(), Error> {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let before = Some(Timestamp(now.0.saturating_sub(age)));
        let mut purged = 0_u32;
        for id in ids {
            let ask = |reply| {
                Request::Epoch(EpochRequest::Purge {
                    document: id,
                    by: (None, None),
                    before,
                    reply,
                })
            };
            match self.documents.ask_patiently(id, ask).await {
                Ok((done, _)) => purged += u32::from(done),
                // It was written again meanwhile, or somebody has to decide about it first.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                }
                Err(error) => return Err(error),
            }
        }
        if purged > 0 {
            info!(documents = purged, "documents that were deleted long ago are purged");
        }
        Ok(())
    }

    async fn empty(&mut self) -> Result<(), Error> {
        let Some((passage, ids)) = self.emptying.take() else {
            let due = |closed: Closed| {
                closed.kind == ClosingKind::Purge && !closed.emptied && closed.late == 0
            };
            let ids = self.closed(due).await?;
            if !ids.is_empty() {
                self.emptying = Some((self.passage(), ids));
            }
            return Ok(());
        };
        let Some(ids) = self.passed(passage, ids, |cleaner, left| cleaner.emptying = Some(left))
        else {
            return Ok(());
        };
        let mut emptied = 0_u32;
        for id in ids {
            let ask = |reply| Request::Epoch(EpochRequest::Empty { document: id, reply });
            emptied += u32::from(self.documents.ask_patiently(id, ask).await?.0);
        }
        if emptied > 0 {
            info!(documents = emptied, "purged documents are dropped");
            self.sweep = Some(None);
        }
        Ok(())
    }

    /// Drops what is left in the log of documents that are dropped, some entries at a time.
    async fn strip(&mut self) -> Result<(), Error> {
        let Some(after) = self.sweep else { return Ok(()) };
        if self.closed(|closed| closed.emptied).await?.is_empty() {
            self.sweep = None;
            return Ok(());
        }
        let journal = self.documents.setting.journal.clone();
        let found = listing::blocking(move || Ok(journal.leftovers(after, SWEEP_PAGE)?));
        let (left, next) = found.await?;
        let bare = |entry: &Entry| {
            let summary = anabranch_crdt::document::inspect(&entry.change);
            summary.is_ok_and(|change| anabranch_crdt::document::closes(&change).is_none())
        };
        let dots: Vec<Dot> = left.iter().filter(|entry| bare(entry)).map(Entry::dot).collect();
        if !dots.is_empty() {
            let mut commit = Commit::of_entries(Vec::new(), |_| {});
            commit.rows.push(Row::Stripped(dots));
            self.documents.setting.journal.submit(commit).await.map_err(Error::from)?;
        }
        self.sweep = next.map(Some);
        Ok(())
    }

    /// Starts to wait until every region has what is durable here now.
    fn passage(&self) -> Passage {
        Passage::new(self.documents.position().vector.clone())
    }

    /// Returns the documents if every region is past them, and puts them back if not.
    fn passed(
        &mut self,
        mut passage: Passage,
        ids: Vec<DocumentId>,
        back: impl FnOnce(&mut Self, (Passage, Vec<DocumentId>)),
    ) -> Option<Vec<DocumentId>> {
        let view = Arc::clone(&self.cluster.borrow());
        match passage.look(&view, &self.documents.position().vector) {
            Ok(()) => Some(ids),
            Err(_) => {
                back(self, (passage, ids));
                None
            }
        }
    }

    /// Closed documents of a kind, at most so many at once.
    async fn closed(&self, wanted: fn(Closed) -> bool) -> Result<Vec<DocumentId>, Error> {
        let (mut found, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.documents.setting.journal.closed_documents(after, PAGE);
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            found.extend(page.into_iter().filter(|(_, closed)| wanted(*closed)));
            if found.len() >= PURGED_AT_ONCE {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(found.into_keys().collect())
    }
}

/// How often the cleaner looks whether there is something to do.
const TICK: Duration = Duration::from_secs(1);

/// How often late changes that wait for something are looked at again.
const LOOK_PERIOD: Duration = Duration::from_secs(60);

/// How often deleted documents are looked for that are old enough.
const PURGE_PERIOD: Duration = Duration::from_secs(3_600);

/// Documents that are purged or dropped in one round, so that a round stays short.
const PURGED_AT_ONCE: usize = 4_096;

/// Closed documents that are looked at while none can be added.
const PAGE: usize = 4_096;

/// Entries that are read at once in search of what is left: some milliseconds of reading.
const SWEEP_PAGE: usize = 4_096;
