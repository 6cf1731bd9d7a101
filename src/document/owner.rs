//! Owners: each document belongs to one of a few threads, which alone loads and edits it.
//!
//! An owner never waits for the disk. It hands each step to the journal as one commit and goes on
//! with the next; whoever asked is answered when the commit is durable. Commits of one owner reach
//! the disk in order. If one fails, those that were built on it must not follow: the lineage that
//! they share is broken, the journal refuses the rest of it, and the owner starts again from disk.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anabranch_crdt::bug;
use anabranch_crdt::document::ApplyError;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::cache::Cache;
use super::doorbell::{Bell, OwnerQueues};
use super::history::{self, Replica};
use super::in_flight::InFlight;
use super::loaded::{Loaded, Outcome, Scene, damaged};
use super::redecide::{Reach, Redecided};
use super::request::{Reply, Request};
use super::resolve::Order;
use super::{Document, Setting, admit, resolve, write};
use crate::error::{Error, ErrorKind};
use crate::journal::{Commit, CommitError, Lineage, Position, Row};

/// One owner thread.
pub(super) struct Owner {
    pub(super) setting: Arc<Setting>,
    number: usize,
    pub(super) cache: Cache,
    lineage: Lineage,
    in_flight: Arc<InFlight>,
    /// Entries on which automerge failed; they are never tried again while the process runs.
    poison: BTreeSet<Dot>,
    /// Rings when pending entries are to be looked up on disk.
    bell: Arc<Bell>,
    stopping: bool,
}

impl Owner {
    pub(super) fn new(setting: Arc<Setting>, number: usize, bell: Arc<Bell>) -> Self {
        let bytes = setting.limits.cache_bytes / setting.owners.max(1);
        Self {
            setting,
            number,
            cache: Cache::new(bytes),
            lineage: Lineage::default(),
            in_flight: Arc::default(),
            poison: BTreeSet::new(),
            bell,
            stopping: false,
        }
    }

    /// Serves requests until every handle is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while !self.stopping {
            if self.bell.rescan.swap(false, Ordering::AcqRel) {
                self.rescan(&mut requests);
            }
            match requests.blocking_recv() {
                Some(request) => self.serve(request),
                None => return,
            }
        }
    }

    /// Looks on disk if that is asked for, else serves one request; tells whether it did either.
    fn step_once(&mut self, requests: &mut mpsc::Receiver<Request>) -> bool {
        if self.bell.rescan.swap(false, Ordering::AcqRel) {
            self.rescan(requests);
            return true;
        }
        let request = requests.try_recv();
        let waited = request.is_ok();
        request.into_iter().for_each(|request| self.serve(request));
        waited
    }

    fn serve(&mut self, request: Request) {
        self.start_again_if_broken();
        match request {
            Request::Write { name, write, author, precondition, reply } => {
                let id = DocumentId::from(&name);
                let message = Message { author, ..Message::default() };
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    write::write(loaded, scene, write, &precondition, message)
                };
                self.step(id, Some(name), reply, step);
            }
            Request::Settle { document, conflict: id, settling, expected, note, author, reply } => {
                let (note, author) = (note.as_deref(), author.as_ref());
                let order = Order { id, settling: &settling, expected, note, author };
                let step =
                    |loaded: &mut Loaded, scene: Scene<'_>| resolve::settle(loaded, scene, &order);
                self.step(document, None, reply, step);
            }
            Request::SettleAll { document, conflicts, batch, reply } => {
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    resolve::settle_all(loaded, scene, &conflicts, &batch)
                };
                self.step(document, None, reply, step);
            }
            Request::Admit { name, changes, reply } => {
                let id = DocumentId::from(&name);
                let step =
                    |loaded: &mut Loaded, scene: Scene<'_>| admit::admit(loaded, scene, &changes);
                self.step(id, Some(name), reply, step);
            }
            Request::Read { id, reply } => {
                self.step(id, None, reply, |loaded, _| Ok((loaded.shown(), Outcome::default())));
            }
            Request::ChangesSince { id, heads, reply } => {
                self.step(id, None, reply, |loaded, _| {
                    Ok((loaded.document.changes_since(&heads), Outcome::default()))
                });
            }
            Request::Replica { id, reply } => {
                self.step(id, None, reply, |loaded, scene| {
                    Ok((Replica::of(loaded, scene.policies), Outcome::default()))
                });
            }
            Request::Revert { name, heads, message, precondition, reply } => {
                let id = DocumentId::from(&name);
                let step = |loaded: &mut Loaded, scene: Scene<'_>| {
                    history::revert(loaded, scene, &heads, &precondition, message)
                };
                self.step(id, Some(name), reply, step);
            }
            Request::Forget { document, conflicts, reply } => {
                self.step(document, None, reply, |loaded, _| Ok(loaded.forget(&conflicts)));
            }
            Request::Seed { name, change, reply } => {
                let id = DocumentId::from(&name);
                self.step(id, Some(name), reply, |loaded, scene| loaded.seed(change, scene));
            }
            Request::Export { id, have, reply } => self.export(id, &have, reply),
            Request::Heads { id, reply } => {
                self.look_at(id, reply, |loaded| loaded.document.heads());
            }
            Request::Adopt { bundles, reply } => self.adopt(&bundles, reply),
            Request::Redecide { documents, reach, reply } => {
                self.redecide_all(documents, reach, reply);
            }
            Request::Refresh { documents } => {
                documents.into_iter().for_each(|id| self.refresh_quietly(id));
            }
            Request::Stop => self.stopping = true,
        }
    }

    /// Drops what was built on a commit that failed.
    fn start_again_if_broken(&mut self) {
        if self.lineage.is_broken() && !bug!(ForgetLineage) {
            self.cache.clear();
            self.lineage = Lineage::default();
        }
    }

    fn redecide_all(&mut self, documents: Vec<DocumentId>, reach: Reach, reply: Reply<Redecided>) {
        let decided = documents.into_iter().map(|id| self.redecide(id, reach)).sum();
        // Commits reach the disk in order, so an empty one answers for all before it.
        let origin = self.setting.journal.origin();
        self.submit(Outcome::default(), origin, reply, decided);
    }

    /// Runs one step on a refreshed document, and answers when all of it is durable.
    fn step<T: Send + 'static>(
        &mut self,
        id: DocumentId,
        name: Option<DocumentName>,
        reply: Reply<T>,
        step: impl FnOnce(&mut Loaded, Scene<'_>) -> Result<(T, Outcome), Error>,
    ) {
        let origin = self.setting.journal.origin();
        let (mut loaded, mut outcome) = match self.up_to_date(id, name, origin) {
            Ok(refreshed) => refreshed,
            Err(error) => return answer(reply, Err(error)),
        };
        let before = loaded.row.digest;
        let setting = Arc::clone(&self.setting);
        let policies = setting.policies(loaded.name.as_ref());
        match setting.scene(&policies, origin, |scene| step(&mut loaded, scene)) {
            Ok((value, more)) => {
                outcome.extend(more);
                self.submit(outcome, origin, reply, value);
                self.keep(loaded);
            }
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

    fn refresh_quietly(&mut self, id: DocumentId) {
        let origin = self.setting.journal.origin();
        match self.up_to_date(id, None, origin) {
            Ok((loaded, outcome)) => {
                self.store(outcome, origin);
                self.keep(loaded);
            }
            Err(error) => warn!(document = %id, %error, "pending entries are not applied"),
        }
    }

    /// Decides a document by the settings that hold now. One that cannot be loaded is left behind.
    fn redecide(&mut self, id: DocumentId, reach: Reach) -> Redecided {
        let origin = self.setting.journal.origin();
        let redecided = self.refreshed(id, None, origin).and_then(|(mut loaded, outcome)| {
            self.store(outcome, origin);
            let setting = Arc::clone(&self.setting);
            let policies = setting.policies(loaded.name.as_ref());
            let redecide = |scene: Scene<'_>| loaded.redecide(reach, scene);
            let (decided, outcome) =
                setting.scene(&policies, origin, redecide).map_err(|error| damaged(id, error))?;
            self.store(outcome, origin);
            self.keep(loaded);
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
            Ok(outcome) => Ok((loaded, outcome)),
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

    /// Loads a document from disk: all that this owner has made of it has to be there first, or the
    /// next change would be another one under the same number.
    fn load(&self, id: DocumentId) -> Result<Loaded, Error> {
        let journal = &self.setting.journal;
        if self.in_flight.includes(id) && !bug!(LoadTooEarly) {
            journal.settle();
        }
        let stored = journal.load(id)?;
        let rows: Vec<_> = journal.conflicts_of(id)?.into_iter().map(|(_, row)| row).collect();
        let name = stored.row.as_ref().and_then(|row| row.name.clone());
        let policies = self.setting.policies(name.as_ref());
        Loaded::from_stored(id, stored, &rows, &policies)
    }

    /// Has an outcome stored that nobody waits for.
    fn store(&self, outcome: Outcome, origin: Origin) {
        if !outcome.rows.is_empty() || !outcome.drafts.is_empty() {
            let (reply, _) = oneshot::channel();
            self.submit(outcome, origin, reply, ());
        }
    }

    /// Hands an outcome to the journal, and answers once it is durable.
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
        let bell = Arc::clone(&self.bell);
        let done = move |committed: Result<Arc<Position>, CommitError>| {
            if committed.is_err() {
                lineage.break_off();
                bell.failed.store(!bug!(NoRetryAfterFault), Ordering::Release);
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
        let id = loaded.id;
        let bytes = loaded.document.save();
        let again = anabranch_crdt::document::Document::load(&bytes);
        let again = again.map_err(|error| damaged(id, error))?;
        if again.heads() != loaded.document.heads() {
            let message = format!("the snapshot of document {id} does not load back equal");
            return Err(Error::new(ErrorKind::Internal, "snapshot_differs", message));
        }
        let covers = self.setting.journal.tail_of(id)?;
        Ok(vec![Row::Snapshot { document: id, bytes: bytes.into(), covers }])
    }

    /// Applies every pending entry that is on disk, serving requests in between.
    fn rescan(&mut self, requests: &mut mpsc::Receiver<Request>) {
        let mut after = None;
        loop {
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
                while let Ok(request) = requests.try_recv() {
                    self.serve(request);
                }
                if self.stopping {
                    return;
                }
            }
            after = Some(last);
        }
    }
}

/// The owners without their threads: whoever holds them decides when they go on.
#[derive(Debug)]
pub struct HandOwners(Vec<(Owner, mpsc::Receiver<Request>)>);

impl HandOwners {
    pub(super) fn new(setting: &Arc<Setting>, queues: OwnerQueues) -> (Senders, Self) {
        let (senders, receivers) = queues.split();
        let owners = receivers.into_iter().enumerate().map(|(number, (requests, bell))| {
            (Owner::new(Arc::clone(setting), number, bell), requests)
        });
        (senders, Self(owners.collect()))
    }

    /// Tells whether no owner has anything to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let idle = |(owner, requests): &(Owner, mpsc::Receiver<Request>)| {
            requests.is_empty() && !owner.bell.rescan.load(Ordering::Acquire)
        };
        self.0.iter().all(idle)
    }

    /// Lets each owner serve one request, or look on disk for what is pending; tells whether there
    /// was anything. What they want stored waits in the queue of the journal.
    pub fn step(&mut self) -> bool {
        self.0
            .iter_mut()
            .map(|(owner, requests)| owner.step_once(requests))
            .fold(false, |a, b| a | b)
    }
}

/// The queues of all owners.
type Senders = Arc<[mpsc::Sender<Request>]>;

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("number", &self.number).finish_non_exhaustive()
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
        let own = &self.region;
        let region_of = |writer: &Origin| self.journal.region_of(*writer);
        let admits = |writers: &BTreeSet<Origin>| {
            let regions: Vec<_> = writers.iter().filter_map(region_of).collect();
            regions.is_empty() || regions.iter().any(|region| region == own)
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
            CommitError::Gap { .. } => (ErrorKind::Internal, "sequence_gap"),
        };
        Self::new(kind, code, error.to_string()).with_source(error)
    }
}

/// Changes after which a document is saved as a whole: loading a change by itself costs some four
/// times what it costs inside a snapshot, and a snapshot of a small document costs as much as four
/// edits.
const SNAPSHOT_EVERY: usize = 64;

/// Documents with pending entries that are listed at once.
const RESCAN_PAGE: usize = 256;
