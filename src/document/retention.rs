//! Retention: conflicts that were settled long ago, or that are too many, are dropped.
//!
//! An open conflict is never dropped. What is dropped is a row of this region's ledger alone: the
//! changes that it told of stay in the history of the document, and a change that arrives late and
//! collides with them makes the row anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::conflict::{ConflictId, ConflictState};
use anabranch_crdt::ids::{DocumentId, Timestamp};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Documents;
use super::listing::blocking;
use super::request::Request;
use crate::error::{Error, ErrorKind};
use crate::journal::{LedgerCount, LedgerPosition, SettledConflict};

/// How often the ledger is looked through.
pub const RETENTION_PERIOD: Duration = Duration::from_secs(3_600);

/// Drops settled conflicts of the documents of a node.
#[derive(Clone)]
pub struct Retention {
    documents: Documents,
    peers: Arc<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention").finish_non_exhaustive()
    }
}

impl Retention {
    /// Makes the retention of a node's documents, whose limits say what is kept. While there are
    /// `peers`, other regions, nothing is too old before their clocks have judged this node's: a machine
    /// that starts ten years ahead of the others would drop everything.
    #[must_use]
    pub fn new(documents: Documents, peers: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { documents, peers: Arc::new(peers) }
    }

    /// Looks through the ledger now, and again every [`RETENTION_PERIOD`], for ever; and for what
    /// is too old as soon as the time is known.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(TIME_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut known, mut next) = (false, None::<Instant>);
        loop {
            let tick = ticks.tick().await;
            if self.documents.settled().await.is_err() {
                continue;
            }
            let was_known = std::mem::replace(&mut known, self.now().is_some());
            let dropped = if next.is_none_or(|next| tick >= next) {
                next = Some(tick + RETENTION_PERIOD);
                self.once().await
            } else if known && !was_known {
                self.forget_old().await
            } else {
                continue;
            };
            match dropped {
                Ok(0) => {}
                Ok(rows) => info!(rows, "settled conflicts were dropped from the ledger"),
                Err(error) => warn!(%error, "the ledger was not looked through to its end"),
            }
        }
    }

    /// Drops what is too old, then what is too much; returns how many rows that were.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn once(&self) -> Result<u64, Error> {
        let old = self.forget_old().await?;
        let most = self.documents.setting.limits.conflict_rows;
        let excess = self.settled().await?.saturating_sub(most);
        Ok(old + self.forget(None, excess).await?)
    }

    /// Drops what is too old, if the time is known.
    async fn forget_old(&self) -> Result<u64, Error> {
        let Some(now) = self.now() else { return Ok(0) };
        let age = self.documents.setting.limits.conflict_age.as_micros();
        let age = u64::try_from(age).unwrap_or(u64::MAX);
        self.forget(Some(Timestamp(now.0.saturating_sub(age))), u64::MAX).await
    }

    /// The time, if it is known well enough to say what is old.
    fn now(&self) -> Option<Timestamp> {
        let clock = &self.documents.setting.clock;
        if (self.peers)() == 0 { Some(clock.wall()) } else { clock.judged() }
    }

    /// Drops the oldest settled rows, at most so many.
    async fn forget(&self, before: Option<Timestamp>, most: u64) -> Result<u64, Error> {
        let (mut forgotten, mut after) = (0, None);
        while forgotten < most {
            let limit = most.saturating_sub(forgotten).min(BATCH);
            let page = self.page(before, after, limit).await?;
            let Some(last) = page.last() else { break };
            // Rows that cannot be dropped are left behind, so that the others have their turn.
            after = Some(last.position);
            let mut of_documents: BTreeMap<DocumentId, Vec<ConflictId>> = BTreeMap::new();
            for SettledConflict { position, document } in page {
                of_documents.entry(document).or_default().push(position.conflict);
            }
            for (document, conflicts) in of_documents {
                forgotten += self.forget_of(document, conflicts).await?;
            }
        }
        Ok(forgotten)
    }

    async fn forget_of(&self, id: DocumentId, conflicts: Vec<ConflictId>) -> Result<u64, Error> {
        let ask = |reply| Request::Forget { document: id, conflicts, reply };
        match self.documents.ask(id, ask).await {
            Ok((forgotten, _)) => Ok(forgotten as u64),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                warn!(document = %id, %error, "its settled conflicts stay in the ledger");
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    async fn page(
        &self,
        before: Option<Timestamp>,
        after: Option<LedgerPosition>,
        limit: u64,
    ) -> Result<Vec<SettledConflict>, Error> {
        let journal = self.documents.setting.journal.clone();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        blocking(move || Ok(journal.settled_conflicts(before, after, limit)?)).await
    }

    async fn settled(&self) -> Result<u64, Error> {
        let journal = self.documents.setting.journal.clone();
        let counts = blocking(move || Ok(journal.conflict_counts()?)).await?;
        let settled = |count: &&LedgerCount| count.state != ConflictState::Open;
        Ok(counts.iter().filter(settled).map(|count| count.count).sum())
    }
}

/// How often a node that does not know the time looks whether it does now.
const TIME_PERIOD: Duration = Duration::from_secs(60);

/// Rows that are looked up at once, so that requests have their turn in between.
const BATCH: u64 = 256;
