//! What a run does next: reads, asks, adopts, and ends.

use std::time::Duration;

use anabranch_crdt::bundle::{Bundle, IdRange};
use anabranch_crdt::ids::DocumentId;
use anabranch_crdt::version::VersionVector;

use super::interface::{BatchNumber, ReconcileEffect, ReconcileInput, Want};
use super::run::{Asked, Batch, MAX_BATCHES, Purpose, Run, Stage, Suspect, Wanted};
use super::walk::{AskNumber, Difference, STRETCH_DOCUMENTS};
use super::{PATIENCE, Part};
use crate::replication::frame::{Bundles, Fetch, Frame, Ranges};
use crate::replication::{Replication, Ticket, Turn};

/// How a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    GoesOn,
    Ended,
}

impl Replication {
    /// Does what the run under way can do now.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub(super) fn drive(&mut self, run: &mut Run, turn: &mut Turn<'_>) -> Result<Progress, String> {
        self.walk_on(run, turn)?;
        self.take_up_suspects(run, turn);
        self.start_batches(run, turn);
        self.repeat_batches(run, turn)?;
        if !run.is_exhausted() || run.raising.is_some() {
            return Ok(Progress::GoesOn);
        }
        let Purpose::Bootstrap { goal } = &run.purpose else { return Ok(Progress::Ended) };
        if !run.unreadable.is_empty() && self.has_other_source(&run.region) {
            let lost = run.unreadable.len();
            return Err(format!("{} cannot give {lost} documents: asking another", run.region));
        }
        // Nobody else says what this node has of its own.
        let others = goal.iter().filter(|dot| dot.origin != self.origin);
        let vector: VersionVector = others.collect();
        let ticket = self.next_ticket();
        run.raising = Some(ticket);
        turn.effects.push(ReconcileEffect::Raise { ticket, vector }.into());
        Ok(Progress::GoesOn)
    }

    fn walk_on(&mut self, run: &mut Run, turn: &mut Turn<'_>) -> Result<(), String> {
        let now = turn.monotonic();
        if !run.may_walk(now) {
            return Ok(());
        }
        if let Some(range) = run.walk.next_stretch() {
            let ticket = self.next_ticket();
            run.reading = Some(ticket);
            let limit = STRETCH_DOCUMENTS;
            turn.effects.push(ReconcileEffect::Digests { ticket, range, limit }.into());
        }
        let due = run.walk.due(now, PATIENCE).map_err(|error| error.to_string())?;
        for (number, ask) in due {
            let frame = Frame::Ranges(Ranges::Ask { run: run.id, number, ask });
            send(run, &frame, turn);
        }
        Ok(())
    }

    /// Looks again at documents that were not the same.
    fn take_up_suspects(&mut self, run: &mut Run, turn: &mut Turn<'_>) {
        while run.batches.len() < MAX_BATCHES {
            let now = turn.monotonic();
            let due = |suspect: &Suspect| suspect.due.is_some_and(|due| due <= now);
            let suspects = run.suspects.iter_mut().filter(|(_, suspect)| due(suspect));
            let taken = suspects.take(SUSPECTS).map(|(&document, suspect)| {
                suspect.due = None;
                suspect.tries = suspect.tries.saturating_add(1);
                document
            });
            let documents: Vec<DocumentId> = taken.collect();
            if documents.is_empty() {
                return;
            }
            self.read_heads(run, documents, turn);
        }
    }

    fn start_batches(&mut self, run: &mut Run, turn: &mut Turn<'_>) {
        while run.batches.len() < MAX_BATCHES && run.resting_until <= turn.monotonic() {
            let count = run.queue.len().min(DOCUMENTS);
            let wanted: Vec<Wanted> = run.queue.drain(..count).collect();
            if wanted.is_empty() {
                return;
            }
            let documents: Vec<DocumentId> = wanted.iter().map(|want| want.document).collect();
            if wanted.iter().any(|want| want.known) {
                self.read_heads(run, documents, turn);
            } else {
                let want = |&document: &DocumentId| Want { document, have: Vec::new() };
                let wants = documents.iter().map(want).collect();
                let here = self.durable.clone();
                self.fetch(run, wants, here, turn);
            }
        }
    }

    fn read_heads(&mut self, run: &mut Run, documents: Vec<DocumentId>, turn: &mut Turn<'_>) {
        let ticket = self.next_ticket();
        let stage = Stage::Heads { ticket, here: self.durable.clone() };
        turn.effects.push(ReconcileEffect::Heads { ticket, documents: documents.clone() }.into());
        run.add_batch(Batch { documents, stage });
    }

    fn fetch(&mut self, run: &mut Run, wants: Vec<Want>, here: VersionVector, turn: &mut Turn<'_>) {
        let there = self.known_of(&run.region);
        let documents = wants.iter().map(|want| want.document).collect();
        let deadline = turn.monotonic() + PATIENCE;
        let asked = Asked { wants: wants.clone(), here, there, deadline, tries: 1 };
        let number = run.add_batch(Batch { documents, stage: Stage::Asked(asked) });
        self.send_want(run, number, wants, turn);
    }

    fn send_want(&self, run: &mut Run, number: BatchNumber, wants: Vec<Want>, turn: &mut Turn<'_>) {
        let bytes = u32::try_from(self.bundle_bytes()).unwrap_or(u32::MAX);
        let fetch = Fetch::Want { run: run.id, number, bytes, wants };
        send(run, &Frame::Fetch(fetch), turn);
    }

    /// Asks again for what did not come in time.
    fn repeat_batches(&mut self, run: &mut Run, turn: &mut Turn<'_>) -> Result<(), String> {
        let now = turn.monotonic();
        let mut late = Vec::new();
        for (&number, batch) in &mut run.batches {
            if let Stage::Asked(asked) = &mut batch.stage
                && asked.deadline <= now
            {
                if asked.tries >= MAX_TRIES {
                    return Err(format!("{} does not answer requests", run.region));
                }
                asked.tries += 1;
                asked.deadline = now + PATIENCE;
                late.push((number, asked.wants.clone()));
            }
        }
        for (number, wants) in late {
            self.send_want(run, number, wants, turn);
        }
        Ok(())
    }

    /// Takes what the shell answers to the run.
    ///
    /// # Errors
    /// Why the run cannot go on.
    pub(super) fn continue_run(
        &mut self,
        run: &mut Run,
        input: ReconcileInput,
        turn: &mut Turn<'_>,
    ) -> Result<Progress, String> {
        match input {
            ReconcileInput::Digests { ticket, digests, more } => {
                if run.reading == Some(ticket) {
                    run.reading = None;
                    run.failures = 0;
                    run.resting_until = turn.monotonic() + self.rest_after(run, digests.len());
                    run.walk.stretch(digests, more);
                }
            }
            ReconcileInput::Heads { ticket, heads } => {
                if let Some(Batch { stage: Stage::Heads { here, .. }, .. }) = run.take_batch(ticket)
                {
                    run.failures = 0;
                    self.fetch(run, heads, here, turn);
                }
            }
            ReconcileInput::Exported { ticket, bundles, absent, .. } => {
                self.check_there(run, ticket, &bundles, &absent, turn);
            }
            ReconcileInput::Adopted { ticket, partial, refused } => {
                self.note_adopted(run, ticket, &partial, &refused, turn);
            }
            ReconcileInput::Raised { ticket } => {
                if run.raising == Some(ticket) {
                    return Ok(Progress::Ended);
                }
            }
            ReconcileInput::Failed { ticket, reason } => self.retry(run, ticket, reason, turn)?,
            ReconcileInput::Floors { .. }
            | ReconcileInput::Damaged { .. }
            | ReconcileInput::Verify { .. } => {}
        }
        Ok(Progress::GoesOn)
    }

    /// Does once more, after a rest, what the shell could not do.
    fn retry(
        &mut self,
        run: &mut Run,
        ticket: Ticket,
        reason: String,
        turn: &mut Turn<'_>,
    ) -> Result<(), String> {
        if run.reading == Some(ticket) {
            run.reading = None;
            run.walk.stretch_failed();
        } else if run.raising == Some(ticket) {
            return Err(reason);
        } else if let Some(batch) = run.take_batch(ticket) {
            self.put_back(run, &batch.documents, turn);
        } else {
            return Ok(());
        }
        run.failures += 1;
        run.resting_until = turn.monotonic() + self.settings.digest_interval;
        if run.failures >= MAX_FAILURES { Err(reason) } else { Ok(()) }
    }

    /// Puts documents back to where they wait.
    pub(super) fn put_back(&self, run: &mut Run, documents: &[DocumentId], turn: &Turn<'_>) {
        let later = turn.monotonic() + self.settings.digest_interval;
        for &document in documents.iter().rev() {
            if run.is_bootstrap() {
                run.queue.push_front(Wanted { document, known: true });
            } else if let Some(suspect) = run.suspects.get_mut(&document) {
                suspect.due = Some(later);
            }
        }
    }

    /// Returns how long a run rests after it has read so many documents.
    fn rest_after(&self, run: &Run, documents: usize) -> Duration {
        let rate = self.settings.reconcile.verify_rate;
        match &run.purpose {
            Purpose::Verify { request: None, .. } if rate > 0 => {
                Duration::from_secs_f64(documents as f64 / f64::from(rate))
            }
            Purpose::Verify { .. } | Purpose::Bootstrap { .. } => Duration::ZERO,
        }
    }

    /// Takes an answer to a question.
    ///
    /// # Errors
    /// Why the run cannot go on.
    pub(super) fn take_answer(
        &mut self,
        run: &mut Run,
        number: AskNumber,
        parts: &[Part],
        turn: &Turn<'_>,
    ) -> Result<(), String> {
        let found = run.walk.answered(number, parts).map_err(|error| error.to_string())?;
        run.figures.equal += found.equal;
        run.figures.compared += found.equal + found.differences.len() as u64;
        let settled = turn.monotonic() + self.settings.digest_interval * SETTLE_INTERVALS;
        for Difference { document, here, there } in found.differences {
            if !run.is_bootstrap() {
                let suspect = Suspect { due: Some(settled), tries: 0, broken: false };
                run.suspects.insert(document, suspect);
            } else if there.is_some() {
                run.queue.push_back(Wanted { document, known: here.is_some() });
            }
        }
        Ok(())
    }

    /// Takes whole documents.
    ///
    /// # Errors
    /// Why the run cannot go on.
    pub(super) fn take_bundles(
        &mut self,
        run: &mut Run,
        bundles: Bundles,
        turn: &mut Turn<'_>,
    ) -> Result<(), String> {
        let Some(batch) = run.batches.remove(&bundles.number) else { return Ok(()) };
        let Stage::Asked(asked) = batch.stage else {
            // It was answered before: this is the answer to a repeated request.
            run.batches.insert(bundles.number, batch);
            return Ok(());
        };
        let left = check_bundles(&asked.wants, &bundles)?;
        if run.is_bootstrap() {
            self.take_over(run, bundles, left, turn);
        } else {
            self.put_back_unanswered(run, &left, turn);
            self.judge(run, &asked, bundles, turn);
        }
        Ok(())
    }

    /// Has documents adopted, and asks later for what did not come with them.
    fn take_over(
        &mut self,
        run: &mut Run,
        bundles: Bundles,
        left: Vec<&Want>,
        turn: &mut Turn<'_>,
    ) {
        run.unreadable.extend(bundles.unreadable);
        for want in left.into_iter().rev() {
            let wanted = Wanted { document: want.document, known: !want.have.is_empty() };
            run.queue.push_front(wanted);
        }
        self.adopt(run, bundles.bundles, turn);
    }

    pub(super) fn adopt(&mut self, run: &mut Run, bundles: Vec<Bundle>, turn: &mut Turn<'_>) {
        if bundles.is_empty() {
            return;
        }
        let ticket = self.next_ticket();
        let documents = bundles.iter().map(|bundle| bundle.document).collect();
        turn.effects.push(ReconcileEffect::Adopt { ticket, bundles }.into());
        run.add_batch(Batch { documents, stage: Stage::Adopting(ticket) });
    }

    fn note_adopted(
        &mut self,
        run: &mut Run,
        ticket: Ticket,
        partial: &[DocumentId],
        refused: &[DocumentId],
        turn: &mut Turn<'_>,
    ) {
        let Some(batch) = run.take_batch(ticket) else { return };
        run.failures = 0;
        let left = partial.len() + refused.len();
        let adopted = batch.documents.len().saturating_sub(left);
        run.figures.adopted += adopted as u64;
        if run.is_bootstrap() {
            run.unreadable.extend(refused);
            self.put_back(run, partial, turn);
        } else {
            // Only equal heads tell that a document is repaired.
            self.put_back(run, &batch.documents, turn);
        }
    }

    /// Returns how many bytes of bundles one answer may have.
    pub(super) fn bundle_bytes(&self) -> usize {
        (self.settings.frame_bytes / 2).clamp(1, MAX_BUNDLE_BYTES)
    }
}

/// Sends a frame of a run.
pub(super) fn send(run: &mut Run, frame: &Frame, turn: &mut Turn<'_>) {
    let bytes = frame.encode();
    run.figures.bytes += bytes.len() as u64;
    turn.send_bulk(run.link, bytes);
}

/// Checks that an answer holds only what was asked for, each document once and one at least;
/// returns what it left out.
fn check_bundles<'a>(wants: &'a [Want], bundles: &Bundles) -> Result<Vec<&'a Want>, String> {
    let given = bundles.bundles.iter().map(|bundle| bundle.document);
    let lost = bundles.absent.iter().chain(&bundles.unreadable).copied();
    let mut answered: Vec<DocumentId> = given.chain(lost).collect();
    let count = answered.len();
    answered.sort_unstable();
    answered.dedup();
    let (there, left): (Vec<_>, Vec<_>) =
        wants.iter().partition(|want| answered.binary_search(&want.document).is_ok());
    if count == 0 || answered.len() != count || there.len() != count {
        return Err("an answer does not fit its request".to_owned());
    }
    Ok(left)
}

/// Returns the whole range that a question may be about.
#[must_use]
pub(super) fn everything() -> IdRange {
    IdRange::all()
}

/// Documents of one request: their bundles are small, or the answer is cut by its bytes.
const DOCUMENTS: usize = 512;

/// Documents that are looked at again at a time.
const SUSPECTS: usize = 128;

/// Bytes of bundles of one answer: little enough that four of them do not matter.
const MAX_BUNDLE_BYTES: usize = 1 << 20;

/// How often a request is sent before the run is given up.
const MAX_TRIES: u8 = 5;

/// How many effects may fail in a row.
const MAX_FAILURES: u32 = 5;

/// How many digest intervals a document that differs is left alone before it is looked at again:
/// most often what it lacks is on its way.
const SETTLE_INTERVALS: u32 = 2;
