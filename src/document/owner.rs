//! Owners: each document belongs to one of a few threads, which alone loads and edits it.
//!
//! An owner never waits for the disk. It hands each step to the journal as one commit and goes on
//! with the next; whoever asked is answered when the commit is durable. Commits of one owner reach
//! the disk in order. If one fails, those that were built on it must not follow: the lineage that
//! they share is broken, the journal refuses the rest of it, and the owner starts again from disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_crdt::document::ApplyError;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::ailments::Ailments;
use super::cache::Cache;
use super::history::{self, Replica};
use super::in_flight::InFlight;
use super::loaded::{Loaded, Outcome, Scene, damaged};
use super::redecide::{Reach, Redecided};
use super::request::{Reply, Request};
use super::resolve::Order;
use super::turns::{Turn, Turns};
use super::{Document, Setting, resolve, write};
use crate::error::{Error, ErrorKind};
use crate::journal::{Commit, CommitError, Lineage, Position, Row};

/// The document of a step.
pub(super) enum Target {
    /// This one.
    Id(DocumentId),
    /// This epoch of a document that has a name.
    Epoch(DocumentId, DocumentName),
    /// The epoch under which a name is written now.
    Newest(DocumentName),
}

/// One owner thread.
pub(super) struct Owner {
    pub(super) setting: Arc<Setting>,
    number: usize,
    pub(super) cache: Cache,
    lineage: Lineage,
    in_flight: Arc<InFlight>,
    pub(super) ailments: Arc<Ailments>,
    /// Entries on which automerge failed; they are never tried again while the process runs.
    poison: BTreeSet<Dot>,
    /// Documents that were closed here; the journal knows of them once that is durable.
    pub(super) closing: BTreeSet<DocumentId>,
    /// Set when a notice did not fit into the queue: pending entries are then looked up on disk.
    rescan: Arc<AtomicBool>,
    turns: Turns,
    stopping: bool,
}

impl Owner {
    /// Makes an owner that holds at most `waiting` requests beside those in its queue.
    pub(super) fn new(
        setting: Arc<Setting>,
        number: usize,
        rescan: Arc<AtomicBool>,
        (waiting, ailments): (usize, Arc<Ailments>),
    ) -> Self {
        let bytes = setting.limits.cache_bytes / setting.owners.max(1);
        Self {
            setting,
            number,
            cache: Cache::new(bytes),
            lineage: Lineage::default(),
            in_flight: Arc::default(),
            ailments,
            poison: BTreeSet::new(),
            closing: BTreeSet::new(),
            rescan,
            turns: Turns::new(waiting),
            stopping: false,
        }
    }

    /// Serves requests until every handle is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while !self.stopping {
            if self.rescan.swap(false, Ordering::AcqRel) {
                self.rescan(&mut requests);
            }
            self.turns.fill(&mut requests);
            if !self.take_turn() {
                match requests.blocking_recv() {
                    Some(request) => self.turns.add(request),
                    None => return,
                }
            }
        }
    }

    /// Does what comes next; tells whether there was anything.
    fn take_turn(&mut self) -> bool {
        match self.turns.next() {
            Some(Turn::Serve(request)) => self.serve(request),
            Some(Turn::Refresh(id)) => self.serve(Request::Refresh { documents: vec![id] }),
            None => return false,
        }
        true
    }

    fn serve(&mut self, request: Request) {
        if self.lineage.is_broken() {
            self.cache.clear();
            self.closing.clear();
            self.lineage = Lineage::default();
        }
        match request {
            Request::Write { name, write, author, precondition, reply } => {
                let message = Message { author, ..Message::default() };
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    write::write(loaded, scene, write, &precondition, message)
                };
                self.step(Target::Newest(name), reply, step);
            }
            Request::Settle { document, conflict: id, settling, expected, note, author, reply } => {
                let (note, author) = (note.as_deref(), author.as_ref());
                let order = Order { id, settling: &settling, expected, note, author };
                let step =
                    |loaded: &mut Loaded, scene: Scene<'_>| resolve::settle(loaded, scene, &order);
                self.step(Target::Id(document), reply, step);
            }
            Request::SettleAll { document, conflicts, batch, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    resolve::settle_all(loaded, scene, &conflicts, &batch)
                };
                self.step(Target::Id(document), reply, step);
            }
            Request::Admit { name, changes, reply } => {
                self.admit_at_home(name, &changes, reply);
            }
            Request::Read { id, reply } => self.tell(id, reply, |loaded, _| loaded.shown()),
            Request::ChangesSince { id, heads, reply } => {
                self.tell(id, reply, |loaded, _| loaded.document.changes_since(&heads));
            }
            Request::Replica { id, reply } => {
                self.tell(id, reply, |loaded, scene| Replica::of(loaded, scene.policies));
            }
            Request::Revert { name, heads, message, precondition, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    history::revert(loaded, scene, &heads, &precondition, message)
                };
                self.step(Target::Newest(name), reply, step);
            }
            Request::Epoch(request) => self.serve_epoch(request),
            Request::Forget { document, conflicts, reply } => {
                self.step(Target::Id(document), reply, |loaded, _| Ok(loaded.forget(&conflicts)));
            }
            Request::Seed { name, change, reply } => {
                let target = Target::Newest(name);
                self.step(target, reply, |loaded, scene| loaded.seed(change, scene));
            }
            Request::Whole(request) => self.serve_whole(request),
            Request::Redecide { documents, reach, reply } => {
                self.redecide_all(documents, reach, reply);
            }
            Request::Refresh { documents } => self.refresh_all(documents),
            Request::Look => self.rescan.store(true, Ordering::Release),
            Request::Stop => self.stopping = true,
        }
    }

    /// Answers from a refreshed document.
    fn tell<T: Send + 'static>(
        &mut self,
        id: DocumentId,
        reply: Reply<T>,
        tell: impl FnOnce(&mut Loaded, Scene<'_>) -> T,
    ) {
        let step =
            |loaded: &mut Loaded, scene: Scene<'_>| Ok((tell(loaded, scene), Outcome::default()));
        self.step(Target::Id(id), reply, step);
    }

    /// Runs one step on a refreshed document, and answers when all of it is durable.
    pub(super) fn step<T: Send + 'static>(
        &mut self,
        target: Target,
        reply: Reply<T>,
        step: impl FnOnce(&mut Loaded, Scene<'_>) -> Result<(T, Outcome), Error>,
    ) {
        let settled = self.setting.journal.is_settled();
        let origin = self.setting.journal.origin();
        let (mut loaded, mut outcome) = match self.take_up(target, origin) {
            Ok(refreshed) => refreshed,
            Err(error) => return answer(reply, Err(error)),
        };
        let before = loaded.row.digest;
        let setting = Arc::clone(&self.setting);
        let policies = setting.policies(loaded.name.as_ref());
        match setting.scene(&policies, origin, |scene| step(&mut loaded, scene)) {
            Ok((value, more)) => {
                outcome.extend(more);
                if !settled {
                    return self.answer_unsettled(loaded, &outcome, reply, value);
                }
                let kept = self.carry_over(loaded, &mut outcome, origin);
                self.submit(outcome, origin, reply, value);
                kept.into_iter().for_each(|loaded| self.keep(loaded));
            }
            Err(error) if !settled => answer(reply, Err(error)),
            Err(error) => {
                answer(reply, Err(error));
                // A document that is ahead of the disk is dropped, and loaded again when it is
                // wanted; what the refresh found is on disk already, as pending entries.
                if loaded.document.digest() == before {
                    self.store(outcome, origin);
                    self.keep(loaded);
                }
            }
        }
    }

    /// Answers while this leader admits nothing: whatever was decided is for the answer alone.
    /// Nothing of it is stored, so pending entries stay pending until [`Request::Look`]; then they
    /// are applied again, together with the resolutions that this leader has to admit.
    pub(super) fn answer_unsettled<T>(
        &mut self,
        loaded: Loaded,
        outcome: &Outcome,
        reply: Reply<T>,
        value: T,
    ) {
        if !outcome.drafts.is_empty() {
            return answer(reply, Err(CommitError::Unsettled.into()));
        }
        let position = Arc::clone(&self.setting.journal.position().borrow());
        answer(reply, Ok((value, position)));
        if outcome.rows.is_empty() {
            self.cache.put(loaded);
        }
    }

    fn refresh_all(&mut self, ids: Vec<DocumentId>) {
        ids.into_iter().for_each(|id| self.refresh_quietly(id));
    }

    /// Takes the document of a step. What waits for the newest epoch of a name may close it.
    fn take_up(&mut self, target: Target, origin: Origin) -> Result<(Loaded, Outcome), Error> {
        let name = match target {
            Target::Id(id) => return self.up_to_date(id, None, origin),
            Target::Epoch(id, name) => return self.up_to_date(id, Some(name), origin),
            Target::Newest(name) => name,
        };
        loop {
            let id = self.newest(&name);
            let (loaded, mut outcome) = self.up_to_date(id, Some(name.clone()), origin)?;
            // While nothing is admitted, nothing is carried over: what is changed is refused later.
            if loaded.closed.is_none() || !self.setting.journal.is_settled() {
                return Ok((loaded, outcome));
            }
            let kept = self.carry_over(loaded, &mut outcome, origin);
            self.store(outcome, origin);
            kept.into_iter().for_each(|loaded| self.keep(loaded));
        }
    }

    fn refresh_quietly(&mut self, id: DocumentId) {
        if !self.setting.journal.is_settled() {
            return;
        }
        let origin = self.setting.journal.origin();
        match self.up_to_date(id, None, origin) {
            Ok((loaded, mut outcome)) => {
                let kept = self.carry_over(loaded, &mut outcome, origin);
                self.store(outcome, origin);
                kept.into_iter().for_each(|loaded| self.keep(loaded));
            }
            Err(error) => warn!(document = %id, %error, "pending entries are not applied"),
        }
    }

    /// Decides documents by the settings that hold now, once resolutions can be admitted.
    fn redecide_all(&mut self, documents: Vec<DocumentId>, reach: Reach, reply: Reply<Redecided>) {
        if !self.setting.journal.is_settled() {
            return answer(reply, Err(CommitError::Unsettled.into()));
        }
        let decided = documents.into_iter().map(|id| self.redecide(id, reach)).sum();
        // Commits reach the disk in order, so an empty one answers for all before it.
        let origin = self.setting.journal.origin();
        self.submit(Outcome::default(), origin, reply, decided);
    }

    /// Decides a document by the settings that hold now. One that cannot be loaded is left behind.
    fn redecide(&mut self, id: DocumentId, reach: Reach) -> Redecided {
        let origin = self.setting.journal.origin();
        let redecided = self.refreshed(id, None, origin).and_then(|(mut loaded, outcome)| {
            self.store(outcome, origin);
            let setting = Arc::clone(&self.setting);
            let policies = setting.policies(loaded.name.as_ref());
            let redecide = |scene: Scene<'_>| loaded.redecide(reach, scene);
            let (decided, mut outcome) =
                setting.scene(&policies, origin, redecide).map_err(|error| damaged(id, error))?;
            let kept = self.carry_over(loaded, &mut outcome, origin);
            self.store(outcome, origin);
            kept.into_iter().for_each(|loaded| self.keep(loaded));
            Ok(decided)
        });
        redecided.unwrap_or_else(|error| {
            warn!(document = %id, %error, "a document is not decided again");
            Redecided::default()
        })
    }

    /// Takes a document out of the cache or off the disk, with every pending entry applied, and
    /// decided by the settings that hold now: what a write changes must be what they show.
    pub(super) fn up_to_date(
        &mut self,
        id: DocumentId,
        name: Option<DocumentName>,
        origin: Origin,
    ) -> Result<(Loaded, Outcome), Error> {
        let (mut loaded, mut outcome) = self.refreshed(id, name, origin)?;
        let policies = self.setting.policies(loaded.name.as_ref());
        if loaded.is_decided_by(policies.version()) {
            return Ok((loaded, outcome));
        }
        let redecide = |scene: Scene<'_>| loaded.redecide(Reach::Rows, scene);
        let (_, more) =
            self.setting.scene(&policies, origin, redecide).map_err(|error| damaged(id, error))?;
        outcome.extend(more);
        Ok((loaded, outcome))
    }

    /// Takes a document out of the cache or off the disk, with every pending entry applied.
    fn refreshed(
        &mut self,
        id: DocumentId,
        name: Option<DocumentName>,
        origin: Origin,
    ) -> Result<(Loaded, Outcome), Error> {
        let mut loaded = match self.cache.take(id) {
            Some(loaded) => loaded,
            None => self.load(id)?,
        };
        let mut pending = self.setting.journal.pending_of(id)?;
        if !self.poison.is_empty() {
            pending.retain(|entry| !self.poison.contains(&entry.dot()));
        }
        if pending.is_empty() {
            loaded.name = loaded.name.or(name);
            return Ok((loaded, Outcome::default()));
        }
        loaded.name = loaded.name.or(name);
        let setting = Arc::clone(&self.setting);
        let known = loaded.name.clone().or_else(|| pending.iter().find_map(|e| e.name.clone()));
        let policies = setting.policies(known.as_ref());
        let refreshed =
            setting.scene(&policies, origin, |scene| loaded.refresh(pending.clone(), scene));
        match refreshed {
            Ok(outcome) => {
                self.note_quarantine(&loaded);
                Ok((loaded, outcome))
            }
            Err(ApplyError::Failed) if pending.len() == 1 => {
                self.condemn(id, pending.first().map(|entry| entry.dot()));
                self.refreshed(id, known, origin)
            }
            Err(ApplyError::Failed) => {
                self.find_poison(id, &pending, origin)?;
                self.refreshed(id, known, origin)
            }
            Err(error) => Err(damaged(id, error)),
        }
    }

    /// Tries entries one by one on a fresh copy each, because automerge failed on one of them.
    fn find_poison(
        &mut self,
        id: DocumentId,
        pending: &[Entry],
        origin: Origin,
    ) -> Result<(), Error> {
        let known = self.poison.len();
        let setting = Arc::clone(&self.setting);
        let mut loaded = self.load(id)?;
        for entry in pending {
            let alone = vec![entry.clone()];
            let policies = setting.policies(loaded.name.as_ref());
            let tried = setting.scene(&policies, origin, |scene| loaded.refresh(alone, scene));
            if matches!(tried, Err(ApplyError::Failed)) {
                self.condemn(id, Some(entry.dot()));
                loaded = self.load(id)?;
            }
        }
        if self.poison.len() == known {
            // They fail only together: without the last one the others may do.
            self.condemn(id, pending.last().map(Entry::dot));
        }
        Ok(())
    }

    fn condemn(&mut self, id: DocumentId, dot: Option<Dot>) {
        warn!(document = %id, ?dot, "automerge fails on an entry; it is set aside");
        self.poison.extend(dot);
    }

    /// Lists the entries of a document that cannot be applied, also those that are never tried.
    fn note_quarantine(&self, loaded: &Loaded) {
        let now = self.setting.clock.wall();
        self.ailments.note_quarantine(loaded.id, &loaded.quarantined, now);
    }

    fn load(&self, id: DocumentId) -> Result<Loaded, Error> {
        let loaded = self.try_load(id);
        match &loaded {
            Ok(_) => self.ailments.note_mended(id),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.ailments.note_damage(id, &error.to_string(), self.setting.clock.wall());
            }
            Err(_) => {}
        }
        loaded
    }

    fn try_load(&self, id: DocumentId) -> Result<Loaded, Error> {
        let journal = &self.setting.journal;
        self.in_flight.wait_for(id);
        let stored = journal.load(id)?;
        let rows: Vec<_> = journal.conflicts_of(id)?.into_iter().map(|(_, row)| row).collect();
        let name = stored.row.as_ref().and_then(|row| row.name.clone());
        let epoch = match journal.closed(id) {
            Some(_) => journal.epoch(id)?,
            None => None,
        };
        let name = name.or_else(|| epoch.as_ref().and_then(|epoch| epoch.name.clone()));
        let policies = self.setting.policies(name.as_ref());
        Loaded::from_stored(id, stored, &rows, epoch.as_ref(), &policies)
    }

    pub(super) fn durable(&self) -> Arc<Position> {
        Arc::clone(&self.setting.journal.position().borrow())
    }

    /// Has an outcome stored that nobody waits for.
    pub(super) fn store(&self, outcome: Outcome, origin: Origin) {
        if !outcome.rows.is_empty() || !outcome.drafts.is_empty() {
            let (reply, _) = oneshot::channel();
            self.submit(outcome, origin, reply, ());
        }
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        outcome: Outcome,
        origin: Origin,
        reply: Reply<T>,
        value: T,
    ) {
        let (lineage, in_flight) = (self.lineage.clone(), Arc::clone(&self.in_flight));
        let documents = outcome.documents();
        in_flight.start(&documents);
        let done = move |committed: Result<Arc<Position>, CommitError>| {
            if committed.is_err() {
                lineage.break_off();
            }
            in_flight.end(&documents);
            let answered = committed.map(|position| (value, position)).map_err(Error::from);
            answer(reply, answered);
        };
        let commit = Commit {
            drafts: outcome.drafts,
            origin: Some(origin),
            entries: Vec::new(),
            rows: outcome.rows,
            lineage: Some(self.lineage.clone()),
            done: Box::new(done),
        };
        if self.setting.journal.submit_blocking(commit).is_err() {
            debug!("the journal is closed; a step was refused");
        }
    }

    /// Puts a document back into the cache, and saves it where its tail has grown long.
    pub(super) fn keep(&mut self, mut loaded: Loaded) {
        if loaded.unsaved_changes >= SNAPSHOT_EVERY {
            match self.snapshot(&loaded) {
                Ok(rows) => {
                    loaded.unsaved_changes = 0;
                    let origin = self.setting.journal.origin();
                    self.store(Outcome { drafts: Vec::new(), rows }, origin);
                }
                Err(error) => warn!(document = %loaded.id, %error, "no snapshot was made"),
            }
        }
        self.cache.put(loaded);
    }

    /// Makes a snapshot that covers the tail that is on disk now, and checks that it loads.
    pub(super) fn snapshot(&self, loaded: &Loaded) -> Result<Vec<Row>, Error> {
        snapshot_of(loaded, self.setting.journal.tail_of(loaded.id)?)
    }

    /// Applies every pending entry that is on disk, serving requests in between.
    fn rescan(&mut self, requests: &mut mpsc::Receiver<Request>) {
        let mut after = None;
        // Otherwise they are looked up once it is.
        while self.setting.journal.is_settled() {
            let found = self.setting.journal.pending(after, RESCAN_PAGE);
            let page = match found {
                Ok(page) => page,
                Err(error) => {
                    warn!(%error, "pending entries cannot be listed");
                    return;
                }
            };
            let Some(&last) = page.last() else { return };
            for id in page {
                if self.setting.owner_of(id) == self.number {
                    self.refresh_quietly(id);
                }
                // In turn with requests, however many there are.
                self.turns.fill(requests);
                self.take_turn();
                if self.stopping {
                    return;
                }
            }
            after = Some(last);
        }
    }
}

impl Loaded {
    /// The document as a read answers it.
    pub(super) fn shown(&self) -> Option<Document> {
        Document::from_row(self.id, &self.row)
    }
}

impl Setting {
    /// Calls `run` with what decisions about a document depend on.
    pub(super) fn scene<T>(
        &self,
        policies: &Policies,
        origin: Origin,
        run: impl FnOnce(Scene<'_>) -> T,
    ) -> T {
        let (own, settled) = (&self.region, self.journal.is_settled());
        let region_of = |writer: &Origin| self.journal.region_of(*writer);
        let admits = |writers: &BTreeSet<Origin>| {
            let regions: Vec<_> = writers.iter().filter_map(region_of).collect();
            settled && (regions.is_empty() || regions.iter().any(|region| region == own))
        };
        run(Scene {
            policies,
            admits: &admits,
            clock: &self.clock,
            origin,
            limits: &self.limits,
            journal: &self.journal,
        })
    }

    pub(super) fn policies(&self, name: Option<&DocumentName>) -> Arc<Policies> {
        self.collections.of(name.map(|name| &name.collection))
    }
}

/// Makes a snapshot of a document, and checks that it loads.
pub(super) fn snapshot_of(loaded: &Loaded, covers: Vec<Dot>) -> Result<Vec<Row>, Error> {
    let id = loaded.id;
    let bytes = loaded.document.save();
    let again = anabranch_crdt::document::Document::load(&bytes);
    let again = again.map_err(|error| damaged(id, error))?;
    if again.heads() != loaded.document.heads() {
        let message = format!("the snapshot of document {id} does not load back equal");
        return Err(Error::new(ErrorKind::Internal, "snapshot_differs", message));
    }
    Ok(vec![Row::Snapshot { document: id, bytes: bytes.into(), covers }])
}

pub(super) fn answer<T>(reply: Reply<T>, answer: Result<(T, Arc<Position>), Error>) {
    // Nobody may be waiting any more, and that is fine: what was committed stays committed.
    drop(reply.send(answer));
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        let (kind, code) = match &error {
            CommitError::Storage(_) => (ErrorKind::Unavailable, "journal_cannot_write"),
            CommitError::Closed => (ErrorKind::Unavailable, "shutting_down"),
            CommitError::Superseded => (ErrorKind::Unavailable, "write_interrupted"),
            CommitError::Unsettled => (ErrorKind::Unavailable, SETTLING),
            CommitError::Gap { .. } => (ErrorKind::Internal, "sequence_gap"),
        };
        Self::new(kind, code, error.to_string()).with_source(error)
    }
}

/// The code of the error of [`CommitError::Unsettled`].
pub(super) const SETTLING: &str = "settling";

/// Changes after which a document is saved as a whole: loading a change by itself costs some four
/// times what it costs inside a snapshot, and a snapshot of a small document costs as much as four
/// edits.
const SNAPSHOT_EVERY: usize = 64;

/// Documents with pending entries that are listed at once.
const RESCAN_PAGE: usize = 256;
