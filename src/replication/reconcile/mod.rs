//! Reconciliation: comparing whole replicas, and taking over what differs.
//!
//! It serves two purposes. A node whose lack begins before every connected log (it is new, it was
//! away for longer than logs are kept, it was forgotten and is back) **bootstraps**: it takes over
//! documents instead of entries, and goes on with the log. And every node **verifies**, region by
//! region, that replicas which should be equal are equal.
//!
//! # How two replicas are compared
//!
//! `walk` asks, `answer` answers, `fingerprint` is what they compare: the asker goes through its
//! documents in the order of their ids, a stretch at a time, and sends the range of each with the
//! number of documents in it and their fingerprint. The answerer says that it has the same, or
//! splits the range and sends the fingerprints of the parts, or lists the documents of a small
//! one. The answerer keeps nothing between two questions; any frame may be lost, repeated or late.
//!
//! # Bootstrap
//!
//! What the source has before the first question is the goal. When every document that differs has
//! been adopted, the node has all that the goal includes, and says so ([`ReconcileEffect::Raise`]);
//! not earlier, so its acknowledgements never claim more than is durable. From there on the log
//! goes on, which its peers keep for it as for every region that is connected. Nothing but documents is kept of a bootstrap that is
//! cut short: what was adopted is equal, and skipped in the next. If the source goes away, another
//! one goes on from the same place, towards what both had.
//!
//! # Verification
//!
//! What differs is most often in flight, so it is looked at again, and judged (`judge`) by what the
//! version vectors claim. What is broken raises an alarm, and is repaired by uniting both replicas.

mod answer;
mod drive;
mod fingerprint;
mod interface;
mod judge;
mod range;
mod run;
mod schedule;
mod serve;
mod status;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anabranch_crdt::ids::{DocumentId, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;

pub use answer::{Ask, Content, Part};
pub use fingerprint::{Fingerprint, RunId};
pub use interface::{
    BatchNumber, BootstrapStatus, BrokenDocument, Lacking, ReconcileEffect, ReconcileInput,
    ReconcileStatus, Repair, RequestId, Totals, VerifyReport, VerifyState, Want,
};
pub use range::DocumentDigest;
pub use walk::AskNumber;

use super::{Effect, LinkId, Replication, Ticket, Turn};
use drive::Progress;
use run::Run;
use serve::Serving;

/// Bounds and intervals of reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileSettings {
    /// Time between two comparisons with the same region that begin by themselves; zero for none.
    /// Default 1 h.
    pub verify_interval: Duration,
    /// Documents that such a comparison reads in a second at most; zero for no limit.
    /// Default 10,000.
    pub verify_rate: u32,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self { verify_interval: Duration::from_secs(3_600), verify_rate: 10_000 }
    }
}

/// What a node knows of reconciliation.
#[derive(Debug, Default)]
pub(super) struct Reconcile {
    /// Up to where the own log may be gone.
    pub(super) floors: VersionVector,
    run: Option<Run>,
    serving: BTreeMap<Ticket, Serving>,
    /// Since when no connected log goes back to what this node lacks.
    blocked: Option<Duration>,
    /// When the next bootstrap may begin, after one that ended early.
    retry_at: Duration,
    /// Sources that were tried since the last bootstrap that came to its end.
    tried: BTreeSet<RegionName>,
    /// Where a bootstrap that ended early is to go on, and towards what.
    resume: Option<(DocumentId, VersionVector)>,
    last_error: Option<String>,
    /// When each region is to be compared with next.
    verify_due: BTreeMap<RegionName, Duration>,
    requests: VecDeque<Request>,
    /// Documents that regions say this node should look at.
    offers: BTreeMap<RegionName, BTreeSet<DocumentId>>,
    reports: VecDeque<VerifyReport>,
    last_bootstrap: Option<BootstrapStatus>,
    broken: VecDeque<BrokenDocument>,
    totals: Totals,
}

/// A comparison that an operator asked for.
#[derive(Debug)]
struct Request {
    id: RequestId,
    region: RegionName,
    repair: Repair,
}

impl From<ReconcileEffect> for Effect {
    fn from(effect: ReconcileEffect) -> Self {
        Self::Reconcile(effect)
    }
}

impl Reconcile {
    fn note_offer(&mut self, region: &RegionName, documents: Vec<DocumentId>) {
        let offers = self.offers.entry(region.clone()).or_default();
        let room = MAX_OFFERS.saturating_sub(offers.len());
        offers.extend(documents.into_iter().take(room));
    }

    /// Takes note of a broken document; tells whether that is news.
    fn note_broken(&mut self, broken: BrokenDocument) -> bool {
        let open = |known: &BrokenDocument| {
            known.document == broken.document
                && known.peer == broken.peer
                && known.repaired.is_none()
        };
        if self.broken.iter().any(open) {
            return false;
        }
        self.totals.broken += 1;
        if self.broken.len() >= MAX_BROKEN {
            self.broken.pop_front();
        }
        self.broken.push_back(broken);
        true
    }

    fn note_repaired(&mut self, document: DocumentId, peer: &RegionName, now: Timestamp) {
        self.totals.repaired += 1;
        let of_it = |known: &&mut BrokenDocument| {
            known.document == document && known.peer == *peer && known.repaired.is_none()
        };
        self.broken.iter_mut().filter(of_it).for_each(|known| known.repaired = Some(now));
    }
}

impl Replication {
    pub(super) fn handle_reconcile(&mut self, input: ReconcileInput, turn: &mut Turn<'_>) {
        match input {
            ReconcileInput::Floors { floors } => self.reconcile.floors = floors,
            ReconcileInput::Damaged { documents } => self.note_damaged(documents),
            ReconcileInput::Verify { request, peer, repair } => {
                self.request_verification(request, peer, repair);
            }
            ReconcileInput::Digests { ticket, .. }
            | ReconcileInput::Heads { ticket, .. }
            | ReconcileInput::Exported { ticket, .. }
            | ReconcileInput::Adopted { ticket, .. }
            | ReconcileInput::Raised { ticket }
            | ReconcileInput::Failed { ticket, .. } => self.handle_done(ticket, input, turn),
        }
    }

    /// Takes the answer to an effect, which was for a peer or for the own run.
    fn handle_done(&mut self, ticket: Ticket, input: ReconcileInput, turn: &mut Turn<'_>) {
        if let Some(serving) = self.reconcile.serving.remove(&ticket) {
            return self.answer_peer(serving, input, turn);
        }
        let Some(mut run) = self.reconcile.run.take() else { return };
        match self.continue_run(&mut run, input, turn) {
            Ok(Progress::GoesOn) => self.reconcile.run = Some(run),
            Ok(Progress::Ended) => self.end_run(run, turn),
            Err(reason) => self.abort_run(run, reason, turn),
        }
    }

    /// Gives a frame to the run that it belongs to, if that is still under way.
    fn with_run(
        &mut self,
        id: RunId,
        link: LinkId,
        turn: &mut Turn<'_>,
        take: impl FnOnce(&mut Self, &mut Run, &mut Turn<'_>) -> Result<(), String>,
    ) {
        let ours = |run: &mut Run| run.id == id && run.link == link;
        let Some(mut run) = self.reconcile.run.take_if(ours) else { return };
        match take(self, &mut run, turn) {
            Ok(()) => self.reconcile.run = Some(run),
            Err(reason) => self.abort_run(run, reason, turn),
        }
    }

    /// Counts the bytes of a frame that came for the run under way.
    pub(super) fn count_reconciled(&mut self, link: LinkId, bytes: usize) {
        if let Some(run) = self.reconcile.run.as_mut().filter(|run| run.link == link) {
            run.figures.bytes += bytes as u64;
        }
    }

    /// Does what reconciliation can do now: called after every input.
    pub(super) fn reconcile(&mut self, turn: &mut Turn<'_>) {
        self.start_run(turn);
        let Some(mut run) = self.reconcile.run.take() else { return };
        match self.drive(&mut run, turn) {
            Ok(Progress::GoesOn) => self.reconcile.run = Some(run),
            Ok(Progress::Ended) => self.end_run(run, turn),
            Err(reason) => self.abort_run(run, reason, turn),
        }
    }

    /// Forgets a link that is gone.
    pub(super) fn stop_reconciling(&mut self, link: LinkId, reason: &str, turn: &Turn<'_>) {
        self.reconcile.serving.retain(|_, serving| serving.link() != link);
        if let Some(run) = self.reconcile.run.take_if(|run| run.link == link) {
            self.abort_run(run, reason.to_owned(), turn);
        }
    }

    fn known_of(&self, region: &RegionName) -> VersionVector {
        self.peers.get(region).map(|peer| peer.known.clone()).unwrap_or_default()
    }
}

/// How long an answer may take, also of a peer that is busy with its disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// Documents of one region that wait to be looked at; what is more is found by itself.
const MAX_OFFERS: usize = 1_024;

/// Broken documents that are kept for those who ask.
const MAX_BROKEN: usize = 1_000;

#[cfg(test)]
mod tests;
