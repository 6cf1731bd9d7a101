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

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence};
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use redb::WriteTransaction;
use tokio::sync::{mpsc, watch};

use super::apply::{Dropped, Tables};
use super::incarnation::{Standing, heritage, write_boot};
use super::ledger::LedgerChange;
use super::ledger::index::rebuild;
use super::plan::Plan;
use super::record::{BootRow, Encoder, Ending, LogRow, OriginRow};
use super::recovery::{fresh_origin, recover, write_identity};
use super::shared::Shared;
use super::store::guarded;
use super::sweep::{Allowance, Swept, sweep};
use super::{Commit, CommitBatch, CommitError, DocumentRow, Identity, Position, Publish, Row};

/// What the handles ask of the writer thread.
pub(super) enum Order {
    Commit(Commit),
    Renew(SyncSender<Result<Identity, CommitError>>),
    /// Makes durable what is known of origins.
    Save(SyncSender<Result<(), CommitError>>),
    Mend(SyncSender<Result<(), CommitError>>),
    Raise(VersionVector, SyncSender<Result<Arc<Position>, CommitError>>),
    Sweep(Allowance, SyncSender<Result<Swept, CommitError>>),
}

/// Owns everything that only the writer thread touches.
pub(super) struct Writer {
    shared: Arc<Shared>,
    position: watch::Sender<Arc<Position>>,
    publish: Publish,
    new_origin: Box<dyn FnMut() -> Origin + Send>,
    own: Origin,
    /// What is durable, in the short form that tokens have.
    short: VersionVector,
    encoder: Encoder,
    outage: Option<Outage>,
}

/// Set while writes fail.
struct Outage {
    reason: String,
    /// Faults in a row.
    faults: u32,
    /// Until then writes are refused without trying.
    retry_at: Instant,
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
        let encoder = Encoder::default();
        let short = shared.origins().chains.compact(&position.borrow().vector);
        Self { shared, position, publish, new_origin, own, short, encoder, outage: None }
    }

    /// Serves orders until every handle has let go of the queue.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut next = orders.blocking_recv();
        while let Some(order) = next.take() {
            match order {
                Order::Commit(first) => next = self.gather(first, &mut orders),
                // Nobody may be waiting for the answer any more, and that is fine.
                Order::Renew(answer) => drop(answer.send(self.renew())),
                Order::Mend(answer) => drop(answer.send(self.mend())),
                Order::Save(answer) => drop(answer.send(self.save())),
                Order::Raise(vector, answer) => drop(answer.send(self.raise(&vector))),
                Order::Sweep(allowance, answer) => drop(answer.send(self.sweep(&allowance))),
            }
            next = next.or_else(|| orders.blocking_recv());
        }
        if self.save().is_ok() {
            self.end();
        }
        self.shared.store.close();
    }

    /// Makes durable what is known of origins and not saved.
    fn save(&mut self) -> Result<(), CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        if self.shared.origins().unsaved.is_empty() {
            return Ok(());
        }
        let plan = Plan::after(&self.durable().vector);
        self.write(plan).map(|_| ())
    }

    /// Notes that this process admits no more. Without the note the next one takes a new origin.
    fn end(&self) {
        let row = BootRow { boot: self.shared.incarnation.boot, ending: Ending::Orderly };
        if let Err(reason) = self.shared.store.write(|transaction| write_boot(transaction, row)) {
            tracing::warn!(reason, "the journal was closed without a note that it was");
        }
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
        self.plan(&mut plan, first);
        let mut other = None;
        while commits < GROUP_COMMITS && bytes < GROUP_BYTES {
            match orders.try_recv() {
                Ok(Order::Commit(commit)) => {
                    commits += 1;
                    bytes += weight(&commit);
                    self.plan(&mut plan, commit);
                }
                Ok(
                    order @ (Order::Renew(_)
                    | Order::Mend(_)
                    | Order::Save(_)
                    | Order::Raise(..)
                    | Order::Sweep(..)),
                ) => {
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

    /// Takes a commit into a plan; one that admits anything only if the origin is settled.
    fn plan(&self, plan: &mut Plan, commit: Commit) {
        if !commit.drafts.is_empty() && *self.shared.standing.borrow() == Standing::Settling {
            return plan.waiting.push((commit.done, Err(CommitError::Unsettled)));
        }
        plan.add(self.own, commit);
    }

    fn commit(&mut self, mut plan: Plan) {
        let waiting = mem::take(&mut plan.waiting);
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
        let covering = plan.rows.iter().any(|row| matches!(row, Row::Snapshot { .. }));
        let swept = if covering { shared.swept() } else { VersionVector::new() };
        let written =
            shared.store.write(|transaction| apply(transaction, encoder, &plan, &origins, swept));
        match written {
            Ok((moved, dropped)) => {
                self.shared.pending.fetch_sub(moved, Ordering::AcqRel);
                self.shared.note_dropped(dropped);
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
            let mut known = origins.known.get(&origin).cloned().unwrap_or_default();
            known.log.bytes += added.get(&origin).copied().unwrap_or_default();
            (origin, known.row(plan.vector.sequence(origin), origins.chains.after(origin)))
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
        let position = if moved {
            self.lengthen(&durable.vector, &plan);
            Arc::new(Position { vector: plan.vector, token: token::encode(&self.short) })
        } else {
            durable
        };
        self.shared.close(&plan.rows);
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

    /// Brings the short form in step with what a plan has made durable.
    fn lengthen(&mut self, before: &VersionVector, plan: &Plan) {
        let chains = &self.shared.origins().chains;
        if plan.entries.is_empty() {
            // Documents came whole, so origins rose by other ways than entries.
            self.short = chains.compact(&plan.vector);
            return;
        }
        for &origin in plan.touched.keys() {
            let dot = Dot { origin, sequence: plan.vector.sequence(origin) };
            let first = before.sequence(origin) == Sequence::ZERO;
            chains.lengthen(&mut self.short, &plan.vector, dot, first);
        }
    }

    fn renew(&mut self) -> Result<Identity, CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        let mut identity = self.shared.identity();
        let vector = &self.durable().vector;
        let (taken, after) = {
            let origins = self.shared.origins();
            let after = heritage(&identity.region, &origins.known, &origins.chains, vector);
            (origins.known.keys().copied().collect::<BTreeSet<Origin>>(), after)
        };
        let drawn = fresh_origin(&mut self.new_origin, |origin| taken.contains(origin));
        let retired = mem::replace(&mut identity.origin, drawn.map_err(CommitError::Storage)?);
        let write =
            |transaction: &WriteTransaction| write_identity(transaction, &identity, after.clone());
        let written = self.shared.store.write(write);
        written.map_err(|reason| CommitError::Storage(self.fault(reason, None)))?;
        self.own = identity.origin;
        self.shared.name_origin(identity.origin, &identity.region);
        self.shared.origins().chains.note(identity.origin, after);
        self.shared.rename(identity.clone());
        self.shared.standing.send_replace(Standing::Settled);
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
            let mut origins = self.shared.origins();
            let mut known = origins.known.entry(dot.origin).or_default().clone();
            known.log = LogRow { floor: dot.sequence, bytes: 0, ..known.log };
            (dot.origin, known.row(dot.sequence, origins.chains.after(dot.origin)))
        }));
        let Self { shared, encoder, .. } = self;
        let none = VersionVector::new();
        let written =
            shared.store.write(|transaction| apply(transaction, encoder, &plan, &origins, none));
        match written {
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

    /// Takes one step of the sweep of a log.
    fn sweep(&mut self, allowance: &Allowance) -> Result<Swept, CommitError> {
        self.writable().map_err(CommitError::Storage)?;
        let origin = allowance.origin;
        let plan = Plan::after(&self.durable().vector);
        let row = {
            let origins = self.shared.origins();
            let known = origins.known.get(&origin).cloned().unwrap_or_default();
            known.row(plan.vector.sequence(origin), origins.chains.after(origin))
        };
        let Self { shared, encoder, .. } = self;
        let step = |transaction: &WriteTransaction| sweep(transaction, encoder, row, allowance);
        match shared.store.write(step) {
            Ok((swept, row, dropped)) => {
                self.shared.note_logs(&[(origin, row)]);
                self.shared.note_dropped(dropped);
                self.recovered();
                Ok(swept)
            }
            Err(reason) => Err(CommitError::Storage(self.fault(reason, None))),
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
        if Instant::now() < outage.retry_at {
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
        let retry_at = Instant::now() + pause;
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
        if let Some(outage) = &mut self.outage {
            outage.faults = outage.faults.saturating_add(1);
            outage.retry_at = Instant::now() + pause(outage.faults);
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
        self.shared.reclose(recovered.closed);
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

/// Writes a plan, and returns how many entries are no longer pending, and what went from the log.
fn apply(
    transaction: &WriteTransaction,
    encoder: &mut Encoder,
    plan: &Plan,
    origins: &[(Origin, OriginRow)],
    swept: VersionVector,
) -> Result<(u64, Dropped), redb::Error> {
    let mut tables = Tables::new(transaction, encoder).with_swept(swept);
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
) -> Result<(u64, Dropped), redb::Error> {
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
    Ok((moved, tables.dropped()))
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

/// A position with its token, which leaves out what is implied.
pub(super) fn encoded(vector: VersionVector, chains: &Chains) -> Arc<Position> {
    let token = token::encode(&chains.compact(&vector));
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
            Row::Archived(..)
            | Row::Epoch(..)
            | Row::SetAside(..)
            | Row::Emptied { .. }
            | Row::Stripped(..)
            | Row::Applied(..)
            | Row::Reached(..)
            | Row::Snapshot { .. }
            | Row::Redecided(..)
            | Row::Members(_) => {}
        }
    }
    (documents, conflicts)
}

/// About how many bytes a commit writes.
fn weight(commit: &Commit) -> usize {
    let drafts = commit.drafts.iter().map(|draft| draft.change.len());
    let entries = commit.entries.iter().map(|entry| entry.change.len());
    let rows = commit.rows.iter().map(|row| match row {
        Row::Document(_, row) | Row::Archived(_, row) => {
            row.json.as_ref().map_or(0, bytes::Bytes::len)
        }
        Row::Applied(_, dots) | Row::Reached(_, dots) => dots.len() * 40,
        Row::Snapshot { bytes, covers, .. } => bytes.len() + covers.len() * 40,
        Row::Conflict(_, _, row) => row.as_ref().map_or(0, |row| row.bytes.len()),
        Row::Redecided(_, record) | Row::Members(record) => record.len(),
        Row::Epoch(..) => 64,
        Row::SetAside(_, dots) | Row::Stripped(dots) => dots.len() * 64,
        Row::Emptied { snapshot, strip, .. } => snapshot.len() + strip.len() * 64,
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
