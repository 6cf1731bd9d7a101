//! A document in an owner's memory: its CRDT, its ledger, and the row that reads are answered from.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_crdt::bug;
use anabranch_crdt::conflict::{Conflict, ConflictId};
use anabranch_crdt::document::{
    Admitted, ApplyError, Author, Change, Collisions, Document, Ledger,
};
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin, Timestamp};
use anabranch_crdt::json;
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::{Policies, PolicyVersion};
use bytes::Bytes;
use serde_json::Value;
use tracing::warn;

use super::clock::NodeClock;
use super::redecide::{Reach, Redecided};
use crate::error::{Error, ErrorKind};
use crate::journal::{
    ConflictSummary, DocumentRow, Draft, Journal, LedgerRow, ReadError, Row, StoredDocument,
};
use crate::settings::Limits;

/// One loaded document.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) id: DocumentId,
    pub(super) name: Option<DocumentName>,
    pub(super) document: Document,
    pub(super) ledger: Ledger,
    /// What shows, or `None` for a document that is not there.
    pub(super) value: Option<Value>,
    pub(super) row: DocumentRow,
    /// Entries that are applied here and still pending on disk, because the commit that says so
    /// is under way.
    applied: BTreeSet<Dot>,
    /// Entries that could not be applied; they stay pending, and are tried again with new ones.
    quarantined: BTreeSet<Dot>,
    /// Changes that were added since the last snapshot.
    pub(super) unsaved_changes: usize,
}

/// What a decision depends on besides the document.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) policies: &'a Policies,
    /// Whether this leader is the one to admit a resolution between these writers.
    pub(super) admits: &'a dyn Fn(&BTreeSet<Origin>) -> bool,
    pub(super) clock: &'a NodeClock,
    /// The origin under which changes are made; the commit is refused if it is renewed meanwhile.
    pub(super) origin: Origin,
    pub(super) limits: &'a Limits,
    pub(super) journal: &'a Journal,
}

impl Scene<'_> {
    /// Names the writer of a change that is made now.
    pub(super) fn author(&self, message: Message) -> Author {
        Author { origin: self.origin, at: self.clock.tick(), message }
    }
}

/// What a step on a document wants stored.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) drafts: Vec<Draft>,
    pub(super) rows: Vec<Row>,
}

impl Outcome {
    pub(super) fn extend(&mut self, later: Self) {
        self.drafts.extend(later.drafts);
        self.rows.extend(later.rows);
    }

    /// The documents that something is stored of.
    pub(super) fn documents(&self) -> Vec<DocumentId> {
        let drafts = self.drafts.iter().map(|draft| draft.document);
        let rows = self.rows.iter().filter_map(|row| match row {
            Row::Document(id, _) | Row::Applied(id, _) | Row::Snapshot { document: id, .. } => {
                Some(*id)
            }
            Row::Reached(..) | Row::Conflict(..) | Row::Redecided(..) => None,
        });
        let all: BTreeSet<DocumentId> = drafts.chain(rows).collect();
        all.into_iter().collect()
    }
}

impl Loaded {
    /// Builds a document from its stored parts; pending entries are left to [`Loaded::refresh`].
    pub(super) fn from_stored(
        id: DocumentId,
        stored: StoredDocument,
        ledger: &[Bytes],
        policies: &Policies,
    ) -> Result<Self, Error> {
        let document = match &stored.snapshot {
            Some(snapshot) => Document::load(snapshot).map_err(|error| damaged(id, error))?,
            None => Document::new(),
        };
        let ledger =
            Ledger::read(ledger.iter().map(AsRef::as_ref)).map_err(|error| damaged(id, error))?;
        let row = stored.row.unwrap_or_default();
        let mut loaded = Self {
            id,
            name: row.name.clone(),
            document,
            ledger,
            value: None,
            row,
            applied: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            unsaved_changes: stored.tail.len(),
        };
        let tail = admitted(&stored.tail);
        loaded.document.apply(&tail, policies).map_err(|error| damaged(id, error))?;
        loaded.value = loaded.document.value(policies);
        Ok(loaded)
    }

    /// Applies pending entries, settles what `lww` settles, and brings the row up to date.
    pub(super) fn refresh(
        &mut self,
        pending: Vec<Entry>,
        scene: Scene<'_>,
    ) -> Result<Outcome, ApplyError> {
        let waiting: BTreeSet<Dot> = pending.iter().map(Entry::dot).collect();
        self.applied.retain(|dot| waiting.contains(dot));
        let mut new: Vec<Entry> =
            pending.into_iter().filter(|entry| !self.applied.contains(&entry.dot())).collect();
        // Admission times follow causality as far as clocks do, so most entries come after what
        // they depend on.
        new.sort_by_key(|entry| (entry.admitted, entry.dot()));
        if new.is_empty() {
            return Ok(Outcome::default());
        }
        self.name = self.name.take().or_else(|| new.iter().find_map(|entry| entry.name.clone()));
        let (done, collisions) = self.apply_all(new, scene.policies)?;
        self.unsaved_changes = self.unsaved_changes.saturating_add(done.len());
        if done.is_empty() {
            return Ok(Outcome::default());
        }
        let mut outcome = Outcome::default();
        self.judge(&collisions, scene, &mut outcome)?;
        self.applied.extend(done.iter().copied());
        outcome.rows.push(Row::Applied(self.id, done));
        self.show(scene, &mut outcome);
        Ok(outcome)
    }

    /// Takes in what changes collided with, and drafts the resolutions that follow.
    pub(super) fn judge(
        &mut self,
        collisions: &Collisions,
        scene: Scene<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), ApplyError> {
        if collisions.is_empty() && self.ledger.is_empty() {
            return Ok(());
        }
        self.ledger.absorb(&self.document, self.id, scene.policies, collisions);
        self.decide(scene, outcome)
    }

    /// Decides what is in the ledger by the present settings; the row of the document is brought up
    /// to date where something follows from that.
    pub(super) fn redecide(
        &mut self,
        reach: Reach,
        scene: Scene<'_>,
    ) -> Result<(Redecided, Outcome), ApplyError> {
        let before = self.winners();
        let mut outcome = Outcome::default();
        if reach == Reach::Whole {
            self.ledger.rebuild(&self.document, self.id, scene.policies)?;
        }
        self.decide(scene, &mut outcome)?;
        let decided = outcome.rows.len() as u64;
        if !outcome.rows.is_empty() || !outcome.drafts.is_empty() {
            self.show(scene, &mut outcome);
        }
        let after = self.winners();
        let flipped = after
            .iter()
            .filter(|(id, winner)| before.get(*id).is_none_or(|before| before != *winner));
        let flipped = flipped.count() as u64;
        Ok((Redecided { documents: 1, conflicts: decided, flipped }, outcome))
    }

    /// Tells whether every conflict is decided by these settings.
    pub(super) fn is_decided_by(&self, version: PolicyVersion) -> bool {
        self.ledger.conflicts().all(|conflict| conflict.version == version)
    }

    /// The candidate that wins of each conflict that people have not settled.
    fn winners(&self) -> BTreeMap<ConflictId, Option<String>> {
        let winner = |conflict: &Conflict| {
            let candidate = conflict.winner.and_then(|winner| conflict.candidates.get(winner));
            (conflict.id, candidate.map(|candidate| candidate.id.clone()))
        };
        let undecided = |conflict: &&Conflict| conflict.settled.is_none();
        self.ledger.conflicts().filter(undecided).map(winner).collect()
    }

    /// Starts the document with a change that other regions make as well, unless it was started;
    /// answers whether it was.
    pub(super) fn seed(
        &mut self,
        change: Change,
        scene: Scene<'_>,
    ) -> Result<(bool, Outcome), Error> {
        if self.document.changes() > 0 {
            return Ok((false, Outcome::default()));
        }
        let id = self.id;
        let at = scene.clock.tick();
        let admitted = Admitted { change: change.bytes.clone(), at, by: Some(scene.origin) };
        self.document.apply(&[admitted], scene.policies).map_err(|error| damaged(id, error))?;
        let mut outcome = Outcome::default();
        let draft = self.draft(change, at);
        outcome.drafts.push(draft);
        self.show(scene, &mut outcome);
        Ok((true, outcome))
    }

    fn decide(&mut self, scene: Scene<'_>, outcome: &mut Outcome) -> Result<(), ApplyError> {
        let Self { document, ledger, id, .. } = self;
        let resolutions = document.resolutions(ledger, *id, scene.policies, scene.admits)?;
        for change in resolutions {
            outcome.drafts.push(self.draft(change, scene.clock.tick()));
        }
        self.record(outcome);
        Ok(())
    }

    /// Drops rows of the ledger that are settled, and returns how many.
    pub(super) fn forget(&mut self, conflicts: &[ConflictId]) -> (usize, Outcome) {
        let mut outcome = Outcome::default();
        let forgotten = self.ledger.forget(conflicts);
        self.record(&mut outcome);
        (forgotten, outcome)
    }

    /// Has the rows of the ledger stored that changed.
    fn record(&mut self, outcome: &mut Outcome) {
        for (id, row) in self.ledger.unsaved() {
            let row = row.map(|(bytes, conflict)| LedgerRow {
                summary: ConflictSummary::of(&conflict, self.name.clone()),
                bytes: Bytes::from(bytes),
            });
            if bug!(SkipLedgerRow, every 20) {
                continue;
            }
            outcome.rows.push(Row::Conflict(self.id, id, row));
        }
    }

    /// Brings the row up to date with the document, and has it stored.
    pub(super) fn show(&mut self, scene: Scene<'_>, outcome: &mut Outcome) {
        if bug!(StaleView, every 50) {
            return;
        }
        self.value = self.document.value(scene.policies);
        self.warn_of_history(scene.limits);
        self.row = DocumentRow {
            name: self.name.clone(),
            digest: self.document.digest(),
            conflicts: self.ledger.open(),
            changes: self.document.changes(),
            json: self.value.as_ref().map(|value| Bytes::from(json::canonical(value))),
        };
        outcome.rows.push(Row::Document(self.id, self.row.clone()));
    }

    /// Warns each time that the history has grown by as much as the limit says.
    fn warn_of_history(&self, limits: &Limits) {
        let changes = self.document.changes();
        let times = |changes: u64| changes / limits.changes_warning.max(1);
        if times(changes) > times(self.row.changes) {
            warn!(
                document = %self.id,
                changes,
                "a document has a long history: each load and each remote change costs with it"
            );
        }
    }

    /// Makes an entry of a change; one without dependencies carries the document's name.
    pub(super) fn draft(&mut self, change: Change, admitted: Timestamp) -> Draft {
        self.unsaved_changes = self.unsaved_changes.saturating_add(1);
        let first = self.document.starts(change.hash);
        let name = self.name.clone().filter(|_| first);
        Draft { document: self.id, name, admitted, change: change.bytes }
    }

    /// Estimates the memory that the document holds: measured for automerge 0.12, a small
    /// document takes 17 KB, and each change of its history some 180 bytes.
    pub(super) fn weight(&self) -> usize {
        let changes = usize::try_from(self.row.changes).unwrap_or(usize::MAX);
        let json = self.row.json.as_ref().map_or(0, Bytes::len);
        changes.saturating_mul(180).saturating_add(json.saturating_mul(6)).saturating_add(17_000)
    }

    /// Applies entries in batches, and those that wait for others again while that helps.
    fn apply_all(
        &mut self,
        new: Vec<Entry>,
        policies: &Policies,
    ) -> Result<(Vec<Dot>, Collisions), ApplyError> {
        let (mut dots, mut collisions) = (Vec::new(), Collisions::default());
        let mut left = new;
        loop {
            let before = dots.len();
            for batch in left.chunks(BATCH) {
                let (applied, collided) = self.apply(batch, policies)?;
                dots.extend(applied);
                collisions.extend(collided);
            }
            let done: BTreeSet<Dot> = dots.iter().copied().collect();
            left.retain(|entry| !done.contains(&entry.dot()));
            if left.is_empty() || dots.len() == before {
                return Ok((dots, collisions));
            }
        }
    }

    /// Applies entries, each alone if together they fail; returns those that are in the history
    /// now. What waits for dependencies or cannot be applied stays pending.
    fn apply(
        &mut self,
        new: &[Entry],
        policies: &Policies,
    ) -> Result<(Vec<Dot>, Collisions), ApplyError> {
        match self.document.apply(&admitted(new), policies) {
            Ok(applied) => {
                let mut waiting: BTreeSet<usize> = applied.waiting.into_iter().collect();
                if bug!(ApplyWithoutDependency) {
                    waiting.clear();
                }
                let dots = new.iter().enumerate().filter(|(index, _)| !waiting.contains(index));
                Ok((dots.map(|(_, entry)| entry.dot()).collect(), applied.collisions))
            }
            Err(ApplyError::Failed) => Err(ApplyError::Failed),
            Err(error) if new.len() == 1 => {
                self.quarantine(new, &error);
                Ok((Vec::new(), Collisions::default()))
            }
            Err(_) => self.apply_each(new, policies),
        }
    }

    fn apply_each(
        &mut self,
        new: &[Entry],
        policies: &Policies,
    ) -> Result<(Vec<Dot>, Collisions), ApplyError> {
        let (mut dots, mut collisions) = (Vec::new(), Collisions::default());
        for entry in new {
            let (applied, collided) = self.apply(std::slice::from_ref(entry), policies)?;
            dots.extend(applied);
            collisions.extend(collided);
        }
        Ok((dots, collisions))
    }

    fn quarantine(&mut self, entries: &[Entry], error: &ApplyError) {
        for entry in entries.iter().filter(|entry| self.quarantined.insert(entry.dot())) {
            warn!(
                document = %self.id,
                origin = %entry.origin,
                sequence = %entry.sequence,
                %error,
                "an entry cannot be applied and is set aside; replication goes on"
            );
        }
    }
}

fn admitted(entries: &[Entry]) -> Vec<Admitted> {
    let admitted = |entry: &Entry| Admitted {
        change: entry.change.clone(),
        at: entry.admitted,
        by: Some(entry.origin),
    };
    entries.iter().map(admitted).collect()
}

/// Stored bytes of a document that cannot be read back.
pub(super) fn damaged(
    id: DocumentId,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let message = format!("document {id} cannot be loaded from the journal: {error}");
    Error::new(ErrorKind::Corrupt, "document_damaged", message).with_source(error)
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        let (kind, code) = match &error {
            ReadError::Corrupt { .. } => (ErrorKind::Corrupt, "record_damaged"),
            ReadError::TooOld { .. } => (ErrorKind::Gone, "history_gone"),
            ReadError::Storage(_) => (ErrorKind::Unavailable, "journal_unreadable"),
        };
        Self::new(kind, code, error.to_string()).with_source(error)
    }
}

/// Entries that are applied at once: automerge's cost per change has levelled off by then, and
/// what is noted about the causality within a batch grows with its square.
const BATCH: usize = 512;
