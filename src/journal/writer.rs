//! The writer thread: takes what is queued, makes it durable in one transaction, and only then
//! tells anyone.
//!
//! # Group commit
//!
//! While one transaction is synced, more commits queue up; the next transaction takes them all,
//! up to a bound. Nobody waits for company: a lone commit is written at once.
//!
//! # Faults
//!
//! If a transaction fails, all of its commits are told so and nothing is published. The database
//! is then opened again at once, and writes go on; while faults repeat, for instance because the
//! disk is full, writes are refused for growing pauses in between. A failed transaction may have
//! reached the disk all the same. If it did, its entries are published after the reopening, so
//! that what is in the journal is known, although their callers were told that it is uncertain.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anabranch_crdt::bug;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence};
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use redb::WriteTransaction;
use tokio::sync::{mpsc, watch};

use super::apply::Tables;
use super::ledger::LedgerChange;
use super::ledger::index::rebuild;
use super::plan::Plan;
use super::record::{Encoder, LogRow, OriginRow};
use super::recovery::{fresh_origin, recover, write_identity};
use super::shared::{Known, Shared};
use super::store::guarded;
use super::{Commit, CommitBatch, CommitError, DocumentRow, Identity, Position, Publish, Row};

/// What the handles ask of the writer thread.
pub(super) enum Order {
    Commit(Commit),
    Renew(SyncSender<Result<Identity, CommitError>>),
    Mend(SyncSender<Result<(), CommitError>>),
    Raise(VersionVector, SyncSender<Result<Arc<Position>, CommitError>>),
}

/// Owns everything that only the writer thread touches.
pub(super) struct Writer {
    shared: Arc<Shared>,
    position: watch::Sender<Arc<Position>>,
    publish: Publish,
    new_origin: Box<dyn FnMut() -> Origin + Send>,
    own: Origin,
    encoder: Encoder,
    monotonic: Monotonic,
    outage: Option<Outage>,
}

/// Reads a clock that never goes back; only differences count.
pub(super) type Monotonic = Box<dyn Fn() -> Duration + Send>;

/// Set while writes fail.
struct Outage {
    reason: String,
    /// Faults in a row.
    faults: u32,
    /// Until then writes are refused without trying.
    retry_at: Duration,
    /// The transaction that failed, until the database is open again and tells what became of it.
    doubtful: Option<Plan>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        position: watch::Sender<Arc<Position>>,
        publish: Publish,
        new_origin: Box<dyn FnMut() -> Origin + Send>,
    ) -> Self {
        let own = shared.origin();
        let (encoder, began) = (Encoder::default(), Instant::now());
        let monotonic: Monotonic = Box::new(move || began.elapsed());
        Self { shared, position, publish, new_origin, own, encoder, monotonic, outage: None }
    }

    /// Takes the time from another clock than this machine's.
    pub(super) fn timed_by(mut self, monotonic: Monotonic) -> Self {
        self.monotonic = monotonic;
        self
    }

    /// Serves orders until every handle has let go of the queue.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut next = orders.blocking_recv();
        while let Some(order) = next.take() {
            next = self.serve(order, &mut orders).or_else(|| orders.blocking_recv());
        }
        self.finish();
    }

    /// Serves one order and those that share its transaction; returns one that cannot.
    pub(super) fn serve(
        &mut self,
        order: Order,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Order> {
        match order {
            Order::Commit(first) => return self.gather(first, orders),
            // Nobody may be waiting for the answer any more, and that is fine.
            Order::Renew(answer) => drop(answer.send(self.renew())),
            Order::Mend(answer) => drop(answer.send(self.mend())),
            Order::Raise(vector, answer) => drop(answer.send(self.raise(&vector))),
        }
        None
    }

    /// Saves what waits for the next commit, and closes the file.
    fn finish(mut self) {
        if !self.shared.origins().unsaved.is_empty() && self.writable().is_ok() {
            let plan = Plan::after(&self.durable().vector);
            self.commit(plan);
        }
        self.shared.store.close();
    }

    /// Commits what is queued together; returns an order that cannot be part of it.
    fn gather(&mut self, first: Commit, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
        // Before the plan is made: opening again may find that more is durable than was known.
        if let Err(reason) = self.writable() {
            (first.done)(Err(CommitError::Storage(reason)));
            return None;
        }
        let mut plan = Plan::after(&self.durable().vector);
        let (mut commits, mut bytes) = (1, weight(&first));
        plan.add(self.own, first);
        let mut other = None;
        while commits < GROUP_COMMITS && bytes < GROUP_BYTES {
            match orders.try_recv() {
                Ok(Order::Commit(commit)) => {
                    commits += 1;
                    bytes += weight(&commit);
                    plan.add(self.own, commit);
                }
                Ok(order @ (Order::Renew(_) | Order::Mend(_) | Order::Raise(..))) => {
                    other = Some(order);
                    break;
                }
                Err(_) => break,
            }
        }
        if plan.is_empty() {
            let waiting = mem::take(&mut plan.waiting);
            answer(waiting, &Ok(self.durable()));
        } else {
            self.commit(plan);
        }
        other
    }

    fn commit(&mut self, mut plan: Plan) {
        let waiting = mem::take(&mut plan.waiting);
        if bug!(AcknowledgeBeforeWrite) {
            answer(waiting, &Ok(encoded(plan.vector.clone())));
            drop(self.write(plan));
            return;
        }
        let outcome = self.write(plan);
        answer(waiting, &outcome);
    }

    fn write(&mut self, plan: Plan) -> Result<Arc<Position>, CommitError> {
        let remote = plan.remote();
        if plan.rows.iter().any(|row| matches!(row, Row::Conflict(_, _, Some(_)))) {
            self.shared.any_conflicts.store(true, Ordering::Release);
        }
        self.shared.pending.fetch_add(remote, Ordering::AcqRel);
        let origins = self.origin_rows(&plan);
        let Self { shared, encoder, .. } = self;
        let written =
            shared.store.write(|transaction| apply(transaction, encoder, &plan, &origins));
        match written {
            Ok(moved) => {
                self.shared.pending.fetch_sub(moved, Ordering::AcqRel);
                self.shared.note_logs(&origins);
                self.recovered();
                Ok(self.announce(plan))
            }
            Err(reason) => {
                self.shared.pending.fetch_sub(remote, Ordering::AcqRel);
                self.shared.origins().unsaved.extend(origins.iter().map(|(origin, _)| *origin));
                Err(CommitError::Storage(self.fault(reason, Some(plan))))
            }
        }
    }

    /// The rows of all origins that have new entries or a new name.
    fn origin_rows(&self, plan: &Plan) -> Vec<(Origin, OriginRow)> {
        let mut origins = self.shared.origins();
        for (origin, latest) in &plan.touched {
            let known = origins.known.entry(*origin).or_default();
            known.latest = known.latest.max(*latest);
        }
        let mut changed = mem::take(&mut origins.unsaved);
        changed.extend(plan.touched.keys());
        let mut added: BTreeMap<Origin, u64> = BTreeMap::new();
        for (_, entry) in &plan.entries {
            *added.entry(entry.origin).or_default() += entry.change.len() as u64;
        }
        let row = |origin: Origin| {
            let Known { region, latest, mut log } =
                origins.known.get(&origin).cloned().unwrap_or_default();
            log.bytes += added.get(&origin).copied().unwrap_or_default();
            (origin, OriginRow { sequence: plan.vector.sequence(origin), latest, region, log })
        };
        changed.into_iter().map(row).collect()
    }

    /// Tells the world what is durable now: first whoever publishes, then who waits for it.
    fn announce(&mut self, plan: Plan) -> Arc<Position> {
        let durable = self.durable();
        let moved = plan.vector != durable.vector;
        if plan.is_empty() && !moved {
            return durable;
        }
        let position = if moved { encoded(plan.vector) } else { durable };
        let (documents, conflicts) = told(plan.rows);
        let batch = Arc::new(CommitBatch {
            entries: plan.entries,
            documents,
            conflicts,
            position: Arc::clone(&position),
        });
        (self.publish)(&batch);
        self.position.send_if_modified(|current| {
            let moved = !Arc::ptr_eq(current, &position);
            *current = Arc::clone(&position);
            moved
        });
        position
    }

    fn renew(&mut self) -> Result<Identity, CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        let taken: Vec<Origin> = self.shared.origins().known.keys().copied().collect();
        let drawn = fresh_origin(&mut self.new_origin, |origin| taken.contains(origin));
        let mut identity = self.shared.identity();
        let retired = mem::replace(&mut identity.origin, drawn.map_err(CommitError::Storage)?);
        let written = self.shared.store.write(|transaction| write_identity(transaction, &identity));
        written.map_err(|reason| CommitError::Storage(self.fault(reason, None)))?;
        self.own = identity.origin;
        self.shared.name_origin(identity.origin, &identity.region);
        self.shared.rename(identity.clone());
        tracing::info!(%retired, origin = %identity.origin, "the origin was renewed");
        Ok(identity)
    }

    /// Notes that everything up to a vector is here, in documents that came whole. Nobody else
    /// continues the own origin, so that stays as it is.
    fn raise(&mut self, vector: &VersionVector) -> Result<Arc<Position>, CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        let mut plan = Plan::after(&self.durable().vector);
        let missing = |dot: &Dot| dot.origin != self.own && !plan.vector.contains(*dot);
        let raised: VersionVector = vector.iter().filter(missing).collect();
        if raised.is_empty() {
            return Ok(self.durable());
        }
        plan.vector.merge(&raised);
        let mut origins = self.origin_rows(&plan);
        origins.retain(|(origin, _)| raised.sequence(*origin) == Sequence::ZERO);
        origins.extend(raised.iter().map(|dot| {
            let Known { region, latest, log } =
                self.shared.origins().known.entry(dot.origin).or_default().clone();
            let log = LogRow { floor: dot.sequence, bytes: 0, ..log };
            (dot.origin, OriginRow { sequence: dot.sequence, latest, region, log })
        }));
        let Self { shared, encoder, .. } = self;
        match shared.store.write(|transaction| apply(transaction, encoder, &plan, &origins)) {
            Ok(_) => {
                self.shared.note_logs(&origins);
                self.recovered();
                Ok(self.announce(plan))
            }
            Err(reason) => {
                self.shared.origins().unsaved.extend(origins.iter().map(|(origin, _)| *origin));
                Err(CommitError::Storage(self.fault(reason, Some(plan))))
            }
        }
    }

    /// Makes the index of the ledger anew.
    fn mend(&mut self) -> Result<(), CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        let Self { shared, encoder, .. } = self;
        let written = shared.store.write(|transaction| rebuild(transaction, encoder));
        let rows = written.map_err(|reason| CommitError::Storage(self.fault(reason, None)))?;
        tracing::warn!(rows, "the index of the ledger was damaged, and is made anew");
        Ok(())
    }

    fn durable(&self) -> Arc<Position> {
        Arc::clone(&self.position.borrow())
    }

    /// Makes sure that a write may be tried, or says why not.
    fn writable(&mut self) -> Result<(), String> {
        let Some(outage) = &self.outage else { return Ok(()) };
        if (self.monotonic)() < outage.retry_at {
            return Err(outage.reason.clone());
        }
        if outage.doubtful.is_none() {
            return Ok(());
        }
        self.reopen()
    }

    /// Notes a fault, and opens the database again at once, so that reads go on.
    fn fault(&mut self, reason: String, doubtful: Option<Plan>) -> String {
        let faults = self.outage.take().map_or(0, |outage| outage.faults).saturating_add(1);
        let pause = pause(faults);
        let retry_at = (self.monotonic)() + pause;
        tracing::error!(reason, faults, ?pause, "the journal failed to write");
        let doubtful = Some(doubtful.unwrap_or_else(|| Plan::after(&self.durable().vector)));
        self.outage = Some(Outage { reason: reason.clone(), faults, retry_at, doubtful });
        match self.reopen() {
            Ok(()) => reason,
            Err(again) => again,
        }
    }

    /// Opens the database again and finds out what became of the transaction in doubt.
    fn reopen(&mut self) -> Result<(), String> {
        let Err(error) = self.try_reopen() else { return Ok(()) };
        let now = (self.monotonic)();
        if let Some(outage) = &mut self.outage {
            outage.faults = outage.faults.saturating_add(1);
            outage.retry_at = now + pause(outage.faults);
            let reason = &outage.reason;
            return Err(format!("{reason}; and it cannot be opened again: {error}"));
        }
        Err(error)
    }

    fn try_reopen(&mut self) -> Result<(), String> {
        self.shared.store.reopen()?;
        let recovered = self.shared.store.read(recover).map_err(|error| error.to_string())?;
        self.shared.pending.store(recovered.pending, Ordering::Release);
        self.shared.any_conflicts.store(recovered.conflicts > 0, Ordering::Release);
        self.own = recovered.identity.origin;
        self.shared.note_logs(&recovered.origins);
        self.shared.rename(recovered.identity);
        let lost = self.durable().vector != recovered.vector;
        let doubtful = self.outage.as_mut().and_then(|outage| outage.doubtful.take());
        match doubtful {
            Some(plan) if plan.vector == recovered.vector => {
                if lost {
                    self.announce(plan);
                }
                Ok(())
            }
            _ if !lost => Ok(()),
            other => {
                if let Some(outage) = &mut self.outage {
                    outage.doubtful = other;
                }
                Err("it holds other entries than before; restart the node".to_owned())
            }
        }
    }

    fn recovered(&mut self) {
        if let Some(outage) = self.outage.take() {
            tracing::info!(faults = outage.faults, "the journal writes again");
        }
    }
}

/// Writes a plan, and returns how many entries are no longer pending.
fn apply(
    transaction: &WriteTransaction,
    encoder: &mut Encoder,
    plan: &Plan,
    origins: &[(Origin, OriginRow)],
) -> Result<u64, redb::Error> {
    let mut tables = Tables::new(transaction, encoder);
    guarded(|| fill(&mut tables, plan, origins)).unwrap_or_else(|panic| {
        // A table that is dropped on damaged pages might panic again.
        mem::forget(tables);
        Err(redb::Error::Corrupted(panic))
    })
}

fn fill<'p>(
    tables: &mut Tables<'_, 'p>,
    plan: &'p Plan,
    origins: &[(Origin, OriginRow)],
) -> Result<u64, redb::Error> {
    for (source, entry) in &plan.entries {
        tables.entry(*source, entry)?;
    }
    let mut moved = 0;
    for row in &plan.rows {
        moved += tables.row(row)?;
    }
    tables.documents()?;
    tables.ledger()?;
    for (origin, row) in origins {
        tables.origin(*origin, row)?;
    }
    Ok(moved)
}

/// Tells each caller how its commit went.
fn answer(
    waiting: Vec<(super::plan::Done, Result<(), CommitError>)>,
    outcome: &Result<Arc<Position>, CommitError>,
) {
    for (done, admitted) in waiting {
        done(admitted.and_then(|()| outcome.clone()));
    }
}

/// A position with its token.
pub(super) fn encoded(vector: VersionVector) -> Arc<Position> {
    let mut told = vector.clone();
    if bug!(TokenForgetsOrigin) {
        told = vector.iter().skip(1).collect();
    }
    let token = token::encode(&told);
    Arc::new(Position { vector, token })
}

/// What others are told of the rows of a plan.
fn told(rows: Vec<Row>) -> (Vec<(DocumentId, DocumentRow)>, Vec<LedgerChange>) {
    let (mut documents, mut conflicts) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Document(document, row) => documents.push((document, row)),
            Row::Conflict(document, conflict, row) => {
                conflicts.push(LedgerChange { document, conflict, row });
            }
            Row::Applied(..) | Row::Snapshot { .. } | Row::Reached(..) | Row::Redecided(..) => {}
        }
    }
    (documents, conflicts)
}

/// About how many bytes a commit writes.
fn weight(commit: &Commit) -> usize {
    let drafts = commit.drafts.iter().map(|draft| draft.change.len());
    let entries = commit.entries.iter().map(|entry| entry.change.len());
    let rows = commit.rows.iter().map(|row| match row {
        Row::Document(_, row) => row.json.as_ref().map_or(0, bytes::Bytes::len),
        Row::Applied(_, dots) | Row::Reached(_, dots) => dots.len() * 40,
        Row::Snapshot { bytes, covers, .. } => bytes.len() + covers.len() * 40,
        Row::Conflict(_, _, row) => row.as_ref().map_or(0, |row| row.bytes.len()),
        Row::Redecided(_, record) => record.len(),
    });
    drafts.chain(entries).chain(rows).sum()
}

/// The first fault costs no pause, so that a passing one is not felt.
fn pause(faults: u32) -> Duration {
    match faults {
        0 | 1 => Duration::ZERO,
        _ => (FIRST_PAUSE * 2_u32.saturating_pow(faults.min(16) - 2)).min(LONGEST_PAUSE),
    }
}

/// Commits that share a transaction at most: enough to hide the sync behind the work.
const GROUP_COMMITS: usize = 1_024;
/// Bytes that share a transaction, about: a transaction must not hold up the next for long.
const GROUP_BYTES: usize = 8 << 20;
/// The pause after the second fault in a row; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: so long after there is space again, writes go on.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
