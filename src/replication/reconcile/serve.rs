//! The side that answers: it reads what a peer asks for, and keeps nothing of it.

use anabranch_crdt::ids::{Origin, RegionName};
use anabranch_crdt::version::VersionVector;

use super::answer::{Ask, answer, documents_to_read};
use super::fingerprint::RunId;
use super::interface::{BatchNumber, ReconcileEffect, ReconcileInput};
use super::range::DocumentDigest;
use super::run::MAX_BATCHES;
use super::walk::{AskNumber, MAX_ASKS};
use crate::replication::frame::{Bundles, Fetch, Frame, ITEM_BYTES, MAX_LISTED, Ranges, TooOld};
use crate::replication::{LinkId, Replication, Ticket, Turn};

/// What is being read for a peer.
#[derive(Debug)]
pub(super) struct Serving {
    link: LinkId,
    region: RegionName,
    run: RunId,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Compare(AskNumber, Ask),
    Give(BatchNumber),
}

impl Replication {
    pub(in crate::replication) fn handle_ranges(
        &mut self,
        id: LinkId,
        region: &RegionName,
        ranges: Ranges,
        turn: &mut Turn<'_>,
    ) {
        match ranges {
            Ranges::Ask { run, number, ask } => {
                let limit = documents_to_read(&ask, self.listable());
                let question = Question::Compare(number, ask);
                let serving = Serving { link: id, region: region.clone(), run, question };
                let Some(ticket) = self.serve(serving) else { return };
                let range = ask.range;
                turn.effects.push(ReconcileEffect::Digests { ticket, range, limit }.into());
            }
            Ranges::Answer { run, number, parts } => {
                self.with_run(run, id, turn, |replication, run, turn| {
                    replication.take_answer(run, number, &parts, turn)
                });
            }
        }
    }

    pub(in crate::replication) fn handle_fetch(
        &mut self,
        id: LinkId,
        region: &RegionName,
        fetch: Fetch,
        turn: &mut Turn<'_>,
    ) {
        match fetch {
            Fetch::Want { run, number, bytes, wants } => {
                let question = Question::Give(number);
                let serving = Serving { link: id, region: region.clone(), run, question };
                let Some(ticket) = self.serve(serving) else { return };
                let bytes = (bytes as usize).clamp(1, self.bundle_bytes());
                turn.effects.push(ReconcileEffect::Export { ticket, wants, bytes }.into());
            }
            Fetch::Offer { documents } => self.reconcile.note_offer(region, documents),
        }
    }

    pub(in crate::replication) fn handle_bundles(
        &mut self,
        id: LinkId,
        bundles: Bundles,
        turn: &mut Turn<'_>,
    ) {
        self.with_run(bundles.run, id, turn, |replication, run, turn| {
            replication.take_bundles(run, bundles, turn)
        });
    }

    /// Takes note of a question, unless the peer has too many under way.
    fn serve(&mut self, serving: Serving) -> Option<Ticket> {
        let same = self.reconcile.serving.values().filter(|other| other.link == serving.link);
        if same.count() >= MAX_SERVED {
            return None;
        }
        let ticket = self.next_ticket();
        self.reconcile.serving.insert(ticket, serving);
        Some(ticket)
    }

    /// Answers a peer from what was read for it.
    pub(super) fn answer_peer(
        &mut self,
        serving: Serving,
        input: ReconcileInput,
        turn: &mut Turn<'_>,
    ) {
        let Serving { link, region, run, question } = serving;
        if self.links.get(&link) != Some(&region) {
            return;
        }
        let frame = match (question, input) {
            (Question::Compare(number, ask), ReconcileInput::Digests { digests, more, .. }) => {
                Some(self.compare(run, number, &ask, &digests, more))
            }
            (
                Question::Give(number),
                ReconcileInput::Exported { bundles, absent, unreadable, .. },
            ) => Some(Frame::Bundles(Bundles { run, number, bundles, absent, unreadable })),
            // What could not be read is asked for again.
            (Question::Compare(..) | Question::Give(_), _) => None,
        };
        if let Some(frame) = frame {
            let bytes = frame.encode();
            self.reconcile.totals.bytes += bytes.len() as u64;
            turn.send_bulk(link, bytes);
        }
    }

    fn compare(
        &self,
        run: RunId,
        number: AskNumber,
        ask: &Ask,
        digests: &[DocumentDigest],
        more: bool,
    ) -> Frame {
        let parts = answer(ask, digests, more, self.listable(), run);
        Frame::Ranges(Ranges::Answer { run, number, parts })
    }

    /// Returns how many documents one frame may list.
    fn listable(&self) -> usize {
        (self.settings.frame_bytes.saturating_sub(FRAME_BYTES) / ITEM_BYTES).clamp(1, MAX_LISTED)
    }

    /// Tells a peer that a log does not go back to what it lacks.
    pub(in crate::replication) fn tell_too_old(
        &self,
        link: LinkId,
        origin: Origin,
        turn: &mut Turn<'_>,
    ) {
        let floor = self.reconcile.floors.sequence(origin);
        turn.send(link, Frame::TooOld(TooOld { origin, floor }).encode());
    }
}

/// Returns what both vectors include.
pub(super) fn least(one: &VersionVector, other: &VersionVector) -> VersionVector {
    let both = one.iter().map(|mut dot| {
        dot.sequence = dot.sequence.min(other.sequence(dot.origin));
        dot
    });
    both.collect()
}

impl Serving {
    pub(super) fn link(&self) -> LinkId {
        self.link
    }
}

/// Questions of one peer under way: all that an honest one has.
const MAX_SERVED: usize = MAX_ASKS + MAX_BATCHES + 2;

/// Bytes of a frame that lists documents, beside the list.
const FRAME_BYTES: usize = 64;
