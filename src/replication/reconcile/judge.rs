//! Judging a document that two nodes do not have alike.
//!
//! # What is broken
//!
//! A change that one replica lacks is in flight, unless its version vector claims it. A bundle says
//! of each change which leader admitted it, and up to which entry of that leader the document
//! goes; a replica whose vector included that entry *before* its heads were read, and which lacks
//! the change all the same, is broken. It takes no moment at which nothing is written to tell.
//!
//! Each node is judged by what its peer has, so a replica is found whichever side it is on.

use anabranch_crdt::bundle::Bundle;
use anabranch_crdt::ids::DocumentId;
use anabranch_crdt::version::VersionVector;

use super::drive::send;
use super::interface::{BrokenDocument, Lacking, ReconcileEffect, Repair, Want};
use super::run::{Asked, Batch, Purpose, Run, Stage};
use crate::replication::frame::{Bundles, Fetch, Frame};
use crate::replication::{Replication, Ticket, Turn};

impl Replication {
    /// Judges documents by what the peer has of them.
    pub(super) fn judge(
        &mut self,
        run: &mut Run,
        asked: &Asked,
        bundles: Bundles,
        turn: &mut Turn<'_>,
    ) {
        let (mut adopt, mut check) = (Vec::new(), Vec::new());
        for bundle in bundles.bundles {
            let have = asked.wants.iter().find(|want| want.document == bundle.document);
            let Some(have) = have.map(|want| &want.have) else { continue };
            if bundle.heads == *have {
                self.note_equal(run, bundle.document, turn);
            } else if bundle.changes.is_empty() {
                check.push(Want { document: bundle.document, have: bundle.heads });
            } else if claims(&asked.here, &bundle) {
                let changes = bundle.changes.len();
                self.note_broken(run, bundle.document, Lacking::Here, changes, turn);
                adopt.push(bundle);
            } else {
                self.wait_for(run, bundle.document, turn);
            }
        }
        for document in bundles.absent {
            let want = asked.wants.iter().find(|want| want.document == document);
            if want.is_some_and(|want| want.have.is_empty()) {
                self.note_equal(run, document, turn);
            } else {
                check.push(Want { document, have: Vec::new() });
            }
        }
        let unreadable = bundles.unreadable;
        for &document in &unreadable {
            self.note_broken(run, document, Lacking::Unreadable, 0, turn);
        }
        self.offer(run, &unreadable, turn);
        self.mend(run, adopt, turn);
        self.look_up(run, check, asked.there.clone(), turn);
    }

    /// Judges the peer by what this node has.
    pub(super) fn check_there(
        &mut self,
        run: &mut Run,
        ticket: Ticket,
        bundles: &[Bundle],
        absent: &[DocumentId],
        turn: &mut Turn<'_>,
    ) {
        let Some(batch) = run.take_batch(ticket) else { return };
        let Stage::Checking { there, .. } = batch.stage else { return };
        run.failures = 0;
        let mut lacking = Vec::new();
        for bundle in bundles {
            if claims(&there, bundle) {
                let changes = bundle.changes.len();
                self.note_broken(run, bundle.document, Lacking::There, changes, turn);
                lacking.push(bundle.document);
            }
        }
        self.offer(run, &lacking, turn);
        // What was not said may not have fitted, or has gone: all are looked at again.
        let rest = batch.documents.iter().filter(|&document| !absent.contains(document));
        let rest: Vec<DocumentId> = rest.copied().collect();
        rest.iter().for_each(|&document| self.wait_for(run, document, turn));
        absent.iter().for_each(|&document| self.note_equal(run, document, turn));
    }

    /// Leaves documents for later that the peer did not come to.
    pub(super) fn put_back_unanswered(&self, run: &mut Run, left: &[&Want], turn: &Turn<'_>) {
        for want in left {
            if let Some(suspect) = run.suspects.get_mut(&want.document) {
                suspect.tries = suspect.tries.saturating_sub(1);
                suspect.due = Some(turn.monotonic());
            }
        }
    }

    fn note_equal(&mut self, run: &mut Run, document: DocumentId, turn: &Turn<'_>) {
        let Some(suspect) = run.suspects.remove(&document) else { return };
        run.figures.equal += 1;
        if suspect.broken {
            run.figures.repaired += 1;
            self.reconcile.note_repaired(document, &run.region, turn.now.wall);
        }
    }

    fn note_broken(
        &mut self,
        run: &mut Run,
        document: DocumentId,
        lacking: Lacking,
        changes: usize,
        turn: &mut Turn<'_>,
    ) {
        let Some(suspect) = run.suspects.get_mut(&document) else { return };
        if std::mem::replace(&mut suspect.broken, true) {
            return;
        }
        run.figures.broken += 1;
        let broken = BrokenDocument {
            document,
            peer: run.region.clone(),
            lacking,
            changes: changes as u64,
            found: turn.now.wall,
            repaired: None,
        };
        if self.reconcile.note_broken(broken.clone()) {
            turn.effects.push(ReconcileEffect::Alarm(broken).into());
        }
    }

    /// Looks at a document again after a while; gives it up when that was done often enough.
    fn wait_for(&mut self, run: &mut Run, document: DocumentId, turn: &Turn<'_>) {
        let mends = mends(run);
        let Some(suspect) = run.suspects.get_mut(&document) else { return };
        let hopeless = suspect.broken && !mends;
        if suspect.tries < MAX_LOOKS && !hopeless {
            let pause = self.settings.digest_interval * u32::from(suspect.tries.clamp(1, 8));
            suspect.due = Some(turn.monotonic() + pause);
        } else {
            run.figures.in_flight += u64::from(!suspect.broken);
            run.suspects.remove(&document);
        }
    }

    fn mend(&mut self, run: &mut Run, bundles: Vec<Bundle>, turn: &mut Turn<'_>) {
        let documents: Vec<DocumentId> = bundles.iter().map(|bundle| bundle.document).collect();
        for &document in &documents {
            self.wait_for(run, document, turn);
        }
        if mends(run) {
            let still = |bundle: &Bundle| run.suspects.contains_key(&bundle.document);
            let bundles: Vec<Bundle> = bundles.into_iter().filter(still).collect();
            for bundle in &bundles {
                if let Some(suspect) = run.suspects.get_mut(&bundle.document) {
                    suspect.due = None;
                }
            }
            self.adopt(run, bundles, turn);
        }
    }

    /// Tells the peer to look at documents for itself.
    fn offer(&mut self, run: &mut Run, documents: &[DocumentId], turn: &mut Turn<'_>) {
        if documents.is_empty() {
            return;
        }
        if mends(run) {
            let offer = Fetch::Offer { documents: documents.to_vec() };
            send(run, &Frame::Fetch(offer), turn);
        }
        documents.iter().for_each(|&document| self.wait_for(run, document, turn));
    }

    fn look_up(
        &mut self,
        run: &mut Run,
        wants: Vec<Want>,
        there: VersionVector,
        turn: &mut Turn<'_>,
    ) {
        if wants.is_empty() {
            return;
        }
        let ticket = self.next_ticket();
        let documents = wants.iter().map(|want| want.document).collect();
        run.add_batch(Batch { documents, stage: Stage::Checking { ticket, there } });
        let bytes = self.bundle_bytes();
        turn.effects.push(ReconcileEffect::Export { ticket, wants, bytes }.into());
    }
}

fn mends(run: &Run) -> bool {
    match run.purpose {
        Purpose::Verify { repair, .. } => repair == Repair::Mend,
        Purpose::Bootstrap { .. } => true,
    }
}

/// Tells whether a vector claims one of the changes of a bundle: it includes the last entry that
/// the document has of the leader who admitted the change.
fn claims(vector: &VersionVector, bundle: &Bundle) -> bool {
    bundle.changes.iter().any(|change| {
        let last = bundle.dots.iter().find(|dot| dot.origin == change.by);
        last.is_some_and(|&dot| vector.contains(dot))
    })
}

/// How often a document is looked at before it counts as in flight: with ever longer pauses, for
/// half a minute.
const MAX_LOOKS: u8 = 8;
