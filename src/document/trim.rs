//! Trimming: the journal does not keep for ever what every region has.
//!
//! An entry goes once every region has it durably, snapshots of its document cover it, and it is
//! older than change feeds are promised to reach back. A region that is away holds entries back
//! for the others, but not for ever: from a certain age, or size of the journal, on it is left
//! behind, and is given documents instead of entries when it returns.
//!
//! It goes on in the background in small steps, each one transaction of the journal. Between two
//! steps it rests for longer than the step took.
//!
//! # Why small documents keep their entries
//!
//! Two snapshots of a document with one change take more room than that change. They are taken
//! only where they take less than what they stand in for. The floor moves all the same: what
//! stays below it is for its document alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_crdt::ids::{DocumentId, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Documents;
use super::listing::blocking;
use super::loaded::Outcome;
use super::owner::Owner;
use super::request::{Reply, Request, Whole};
use crate::error::Error;
use crate::journal::{Allowance, LogView, Row, Swept};
use crate::replication::ClusterView;

/// Drops entries that nobody needs.
#[derive(Debug)]
pub struct Trimmer {
    documents: Documents,
    cluster: watch::Receiver<Arc<ClusterView>>,
    /// Since when regions are away, as seen from here.
    away: BTreeMap<RegionName, Instant>,
    /// Regions that were left behind and have been told of.
    left_behind: BTreeSet<RegionName>,
    patience: Duration,
}

/// What trimming came to since the start.
#[derive(Debug, Default)]
pub(super) struct TrimFigures {
    left_behind: AtomicU64,
}

/// How much there is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalFigures {
    /// Entries of all origins above the floors: those that a peer can catch up by.
    pub entries: u64,
    /// Bytes of their changes.
    pub bytes: u64,
    /// Entries that were dropped since the start.
    pub dropped_entries: u64,
    /// Bytes of their records.
    pub dropped_bytes: u64,
    /// How often a region that was away was left behind since the start.
    pub left_behind: u64,
}

/// Up to where entries may go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Reach {
    /// What every region has.
    everywhere: VersionVector,
    /// What every region has but those that were given up.
    elsewhere: VersionVector,
}

impl Reach {
    /// Nothing may go of what a region may lack that has not said what it has.
    fn of(view: &ClusterView, given_up: &BTreeSet<RegionName>) -> Self {
        let mut present = view.clone();
        present.regions.retain(|region| !given_up.contains(&region.region));
        Self { everywhere: view.stable(), elsewhere: present.stable() }
    }

    fn allowance(&self, origin: Origin, ages: Ages, excess: u64) -> Allowance {
        Allowance {
            origin,
            everywhere: (self.everywhere.sequence(origin), ages.kept),
            elsewhere: (self.elsewhere.sequence(origin), ages.waited_for),
            excess,
        }
    }
}

/// The times that entries must have been admitted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ages {
    /// To go although feeds could still ask for them.
    kept: Timestamp,
    /// To go although a region that is away lacks them.
    waited_for: Timestamp,
}

impl Trimmer {
    /// Makes the trimmer of a node's journal; the limits of the documents say what is kept.
    #[must_use]
    pub fn new(documents: Documents, cluster: watch::Receiver<Arc<ClusterView>>) -> Self {
        let (away, left_behind) = (BTreeMap::new(), BTreeSet::new());
        Self { documents, cluster, away, left_behind, patience: PATIENCE }
    }

    /// Sets how long a region has to be away before it may be left behind. Default 10 min: a region
    /// that is back after an outage of all is heard of within seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Trims now and then, for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.once().await {
                Ok(0) => {}
                Ok(entries) => info!(entries, "entries were dropped from the journal"),
                Err(error) => warn!(%error, "the journal was not trimmed to the end"),
            }
        }
    }

    /// Drops what may go now; returns how many entries that were.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn once(&mut self) -> Result<u64, Error> {
        let view = Arc::clone(&self.cluster.borrow_and_update());
        let given_up = self.given_up(&view);
        let reach = Reach::of(&view, &given_up);
        let before = self.documents.setting.journal.dropped().0;
        let mut exhausted = BTreeSet::new();
        while let Some(log) = self.next_log(&exhausted).await? {
            let started = Instant::now();
            let allowance = reach.allowance(log.origin, self.ages(), self.excess());
            let journal = self.documents.setting.journal.clone();
            let swept = blocking(move || Ok(journal.sweep(allowance)?)).await?;
            if swept.seen == 0 {
                exhausted.insert(log.origin);
                continue;
            }
            self.tell_of(&view, &given_up, log.origin, &swept);
            self.documents.save(swept.pinned).await?;
            tokio::time::sleep(started.elapsed().saturating_mul(REST)).await;
        }
        Ok(self.documents.setting.journal.dropped().0.saturating_sub(before))
    }

    /// The regions that have been away for so long that they may be left behind.
    fn given_up(&mut self, view: &ClusterView) -> BTreeSet<RegionName> {
        let away = view.voters().filter(|region| !region.connected);
        let names: BTreeSet<RegionName> = away.map(|region| region.region.clone()).collect();
        self.away.retain(|name, _| names.contains(name));
        self.left_behind.retain(|name| names.contains(name));
        let now = Instant::now();
        let since =
            names.into_iter().map(|name| (*self.away.entry(name.clone()).or_insert(now), name));
        let given_up = since.filter(|(since, _)| now.duration_since(*since) >= self.patience);
        given_up.map(|(_, name)| name).collect()
    }

    /// The log that goes back the furthest, of those of which more may go.
    async fn next_log(&self, exhausted: &BTreeSet<Origin>) -> Result<Option<LogView>, Error> {
        let journal = self.documents.setting.journal.clone();
        let mut logs = journal.logs();
        logs.retain(|log| !exhausted.contains(&log.origin));
        blocking(move || {
            let mut oldest: Option<(Timestamp, LogView)> = None;
            for log in logs {
                let Some(at) = journal.oldest(&log)? else { continue };
                if oldest.is_none_or(|(first, _)| at < first) {
                    oldest = Some((at, log));
                }
            }
            Ok(oldest.map(|(_, log)| log))
        })
        .await
    }

    /// By how many bytes the journal is too large.
    fn excess(&self) -> u64 {
        let logs = self.documents.setting.journal.logs();
        let bytes: u64 = logs.iter().map(|log| log.bytes).sum();
        bytes.saturating_sub(self.documents.setting.limits.journal_bytes)
    }

    /// While the time is not known well enough, nothing is old.
    fn ages(&self) -> Ages {
        let limits = &self.documents.setting.limits;
        let alone = self.cluster.borrow().regions.len() <= 1;
        let clock = &self.documents.setting.clock;
        let now = if alone { Some(clock.wall()) } else { clock.judged() };
        let Some(now) = now else { return Ages::default() };
        let before = |age: Duration| {
            let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            Timestamp(now.0.saturating_sub(age))
        };
        Ages { kept: before(limits.journal_keep), waited_for: before(limits.journal_age) }
    }

    /// Tells once of each region that entries went which it lacks.
    fn tell_of(
        &mut self,
        view: &ClusterView,
        given_up: &BTreeSet<RegionName>,
        origin: Origin,
        swept: &Swept,
    ) {
        for name in given_up {
            let held = view.region(name).map_or(Sequence::ZERO, |view| view.held.sequence(origin));
            if held < swept.floor && self.left_behind.insert(name.clone()) {
                self.documents.trimmed.left_behind.fetch_add(1, Ordering::Relaxed);
                warn!(
                    region = %name,
                    "a region that is away lacks entries that are dropped now: when it returns it \
                     is given whole documents, which takes longer"
                );
            }
        }
    }
}

impl Documents {
    /// Returns how much there is in the journal, and how much went from it.
    #[must_use]
    pub fn journal_figures(&self) -> JournalFigures {
        let journal = &self.setting.journal;
        let position = self.position();
        let (dropped_entries, dropped_bytes) = journal.dropped();
        JournalFigures {
            entries: journal.floors().behind(&position.vector),
            bytes: journal.logs().iter().map(|log| log.bytes).sum(),
            dropped_entries,
            dropped_bytes,
            left_behind: self.trimmed.left_behind.load(Ordering::Relaxed),
        }
    }

    /// Has snapshots taken of documents that need entries of the log, where that saves room.
    async fn save(&self, documents: Vec<DocumentId>) -> Result<(), Error> {
        for id in documents {
            let ask = |reply| Request::Whole(Whole::Save { id, reply });
            let saved = self.ask_patiently(id, ask).await;
            if let Err(error) = saved {
                warn!(document = %id, %error, "no snapshot was made; its entries stay");
            }
        }
        Ok(())
    }
}

impl Owner {
    /// Takes two snapshots of a document, so that its entries can go, if that saves room; answers
    /// whether it does.
    pub(super) fn save(&mut self, id: DocumentId, reply: Reply<bool>) {
        let origin = self.setting.journal.origin();
        let held = self.cache.holds(id);
        let (mut loaded, mut outcome) = match self.up_to_date(id, None, origin) {
            Ok(loaded) => loaded,
            Err(error) => return super::owner::answer(reply, Err(error)),
        };
        let weight = self.setting.journal.weight(id).unwrap_or_default();
        let mut saves = false;
        if weight.entries >= FEWEST_ENTRIES {
            match self.snapshot(&loaded) {
                Ok(rows) => {
                    saves = GENERATIONS * snapshot_bytes(&rows) < weight.bytes;
                    if saves {
                        let again = rows.iter().map(without_cover).collect();
                        outcome.extend(Outcome { drafts: Vec::new(), rows });
                        outcome.extend(Outcome { drafts: Vec::new(), rows: again });
                        loaded.unsaved_changes = 0;
                    }
                }
                Err(error) => warn!(document = %id, %error, "no snapshot was made"),
            }
        }
        let changed = !outcome.rows.is_empty();
        self.submit(outcome, origin, reply, saves);
        if held || changed {
            self.keep(loaded);
        }
    }
}

/// The same snapshot once more, for the other generation.
fn without_cover(row: &Row) -> Row {
    let mut row = row.clone();
    if let Row::Snapshot { covers, .. } = &mut row {
        covers.clear();
    }
    row
}

fn snapshot_bytes(rows: &[Row]) -> u64 {
    let mut total = 0;
    for row in rows {
        if let Row::Snapshot { bytes, .. } = row {
            total += bytes.len() as u64;
        }
    }
    total
}

/// How often it is looked whether something may go.
const PERIOD: Duration = Duration::from_secs(30);

/// How many times as long as a step took it rests after it.
const REST: u32 = 3;

/// See [`Trimmer::patience`].
const PATIENCE: Duration = Duration::from_secs(600);

/// With fewer entries, two snapshots are never smaller; then nothing is loaded to find that out.
const FEWEST_ENTRIES: u64 = 3;

/// Snapshots that are kept of each document.
const GENERATIONS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::views;
    use crate::replication::{MemberState, RegionView};

    fn region(name: &str, state: MemberState, held: &[(u8, u64)]) -> RegionView {
        views::region(name, state, views::vector(held))
    }

    #[test]
    fn a_region_holds_back_what_it_lacks_until_it_is_given_up() {
        let view = ClusterView {
            regions: vec![
                region("eu-west", MemberState::Active, &[(1, 9), (2, 9)]),
                region("us-east", MemberState::Draining, &[(1, 7), (2, 9)]),
                region("ap-south", MemberState::Active, &[(1, 3)]),
                region("gone", MemberState::Forgotten, &[]),
            ],
        };
        let reach = Reach::of(&view, &BTreeSet::new());
        let [one, two] = [1, 2].map(|byte| Origin::from_bytes([byte; 16]));
        let ages = Ages { kept: Timestamp(50), waited_for: Timestamp(5) };
        let upto = |reach: &Reach, origin| {
            let allowance = reach.allowance(origin, ages, 11);
            assert_eq!((allowance.origin, allowance.excess), (origin, 11));
            assert_eq!(
                (allowance.everywhere.1, allowance.elsewhere.1),
                (Timestamp(50), Timestamp(5))
            );
            (allowance.everywhere.0.0, allowance.elsewhere.0.0)
        };
        assert_eq!((upto(&reach, one), upto(&reach, two)), ((3, 3), (0, 0)));
        let reach = Reach::of(&view, &["ap-south".parse().unwrap()].into());
        assert_eq!((upto(&reach, one), upto(&reach, two)), ((3, 7), (0, 9)));
        let nothing = Reach::of(&ClusterView::default(), &BTreeSet::new());
        assert_eq!(upto(&nothing, one), (0, 0), "nothing is known");
    }
}
