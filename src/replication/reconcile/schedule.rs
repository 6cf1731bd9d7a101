//! When a run begins, with whom, and what follows from its end.

use std::time::Duration;

use anabranch_crdt::ids::{DocumentId, Origin, RegionName, Sequence};

use super::fingerprint::RunId;
use super::interface::{BrokenDocument, Lacking, ReconcileEffect, Repair, RequestId, VerifyState};
use super::run::{Partner, Purpose, Run, Suspect};
use super::serve::least;
use super::walk::Walk;
use super::{Request, drive};
use crate::replication::frame::{Frame, TooOld};
use crate::replication::{LinkId, Replication, Turn};

impl Replication {
    /// Takes word that a peer's log does not go back far enough.
    pub(in crate::replication) fn handle_too_old(
        &mut self,
        id: LinkId,
        region: &RegionName,
        too_old: TooOld,
        turn: &mut Turn<'_>,
    ) {
        let TooOld { origin, floor } = too_old;
        if origin == self.origin || floor <= self.durable.sequence(origin) {
            return;
        }
        let Some(peer) = self.peers.get_mut(region) else { return };
        if floor > peer.known.sequence(origin) {
            // It is told again once the peer has said that it has so much.
            return;
        }
        peer.floors.raise(origin, floor);
        self.note_answer_end(origin, id, turn);
        // Another one may have it still.
        self.note_gap(origin, turn.monotonic(), turn);
        self.review_blocked(turn);
    }

    /// Looks whether any connected log goes back to what this node lacks.
    pub(in crate::replication) fn review_blocked(&mut self, turn: &Turn<'_>) {
        let origins: Vec<Origin> = self
            .greeted()
            .flat_map(|(_, peer, ..)| peer.floors.iter().map(|dot| dot.origin))
            .collect();
        let blocked = origins.into_iter().any(|origin| self.is_blocked(origin));
        self.reconcile.blocked = match (blocked, self.reconcile.blocked) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(turn.monotonic())),
        };
    }

    fn is_blocked(&self, origin: Origin) -> bool {
        let have = self.pending(origin);
        if origin == self.origin {
            return false;
        }
        let mut ahead =
            self.greeted().filter(|(_, peer, ..)| peer.known.sequence(origin) > have).peekable();
        ahead.peek().is_some() && ahead.all(|(_, peer, ..)| peer.floors.sequence(origin) > have)
    }

    /// Tells whether the bootstrap under way will bring the entry after `after`.
    pub(in crate::replication) fn is_bootstrapped(&self, origin: Origin, after: Sequence) -> bool {
        let Some(run) = &self.reconcile.run else { return false };
        match &run.purpose {
            Purpose::Bootstrap { goal } => goal.sequence(origin) > after,
            Purpose::Verify { .. } => false,
        }
    }

    pub(super) fn start_run(&mut self, turn: &mut Turn<'_>) {
        let bootstraps = self.reconcile.run.as_ref().is_some_and(Run::is_bootstrap);
        if bootstraps {
            return;
        }
        if let Some(since) = self.reconcile.blocked {
            let due = (since + self.grace_of_bootstrap()).max(self.reconcile.retry_at);
            if due <= turn.monotonic() {
                self.start_bootstrap(turn);
            }
            return;
        }
        if self.reconcile.run.is_none() {
            self.start_requested(turn);
            self.start_offered(turn);
            self.start_due(turn);
        }
    }

    fn grace_of_bootstrap(&self) -> Duration {
        // Other regions may be about to connect, and their logs go back further.
        self.settings.digest_interval * 2
    }

    fn start_bootstrap(&mut self, turn: &mut Turn<'_>) {
        let chosen = self.choose_bootstrap_source().or_else(|| {
            self.reconcile.tried.clear();
            self.choose_bootstrap_source()
        });
        let Some(partner) = chosen else {
            self.reconcile.retry_at = turn.monotonic() + self.settings.digest_interval;
            return;
        };
        if let Some(run) = self.reconcile.run.take() {
            self.abort_run(run, "a bootstrap comes first".to_owned(), turn);
        }
        self.reconcile.tried.insert(partner.region.clone());
        let known = self.known_of(&partner.region);
        let resume = self.reconcile.resume.take();
        let (first, goal) = match resume {
            Some((first, goal)) => (first, least(&goal, &known)),
            None => (drive::everything().first, known),
        };
        let id = self.run_id(partner.link, turn);
        let walk = Walk::new(Some(first), id);
        let run = Run::new(id, partner, Purpose::Bootstrap { goal }, walk, turn.monotonic());
        self.reconcile.run = Some(run);
    }

    /// Chooses a region whose log does not go back far enough, but which has what is lacking: the
    /// one that has most, of those that were not tried.
    fn choose_bootstrap_source(&self) -> Option<Partner> {
        let candidates = self.greeted().filter(|(region, peer, ..)| {
            !self.reconcile.tried.contains(*region) && self.durable.behind(&peer.known) > 0
        });
        let ranked = candidates.map(|(region, peer, link, _)| {
            let lacks = self.durable.behind(&peer.known);
            (lacks, Partner { region: region.clone(), link: link.id })
        });
        ranked.max_by_key(|(lacks, _)| *lacks).map(|(_, partner)| partner)
    }

    pub(super) fn has_other_source(&self, but: &RegionName) -> bool {
        let mut others = self.greeted().filter(|(region, peer, ..)| {
            *region != but
                && !self.reconcile.tried.contains(*region)
                && self.durable.behind(&peer.known) > 0
        });
        others.next().is_some()
    }

    pub(super) fn request_verification(
        &mut self,
        id: RequestId,
        peer: Option<RegionName>,
        repair: Repair,
    ) {
        let known: Vec<RegionName> = self.peers.keys().cloned().collect();
        let wanted = peer.map_or(known, |peer| vec![peer]);
        for region in wanted {
            if self.reconcile.requests.len() < MAX_REQUESTS {
                self.reconcile.requests.push_back(Request { id, region, repair });
            } else {
                let full = "too many comparisons wait already".to_owned();
                self.reconcile.report_early(Some(id), region, full);
            }
        }
    }

    fn start_requested(&mut self, turn: &Turn<'_>) {
        while self.reconcile.run.is_none()
            && let Some(Request { id, region, repair }) = self.reconcile.requests.pop_front()
        {
            match self.partner(&region) {
                Some(partner) => {
                    self.start_verification(partner, Some(id), repair, turn);
                }
                None => {
                    let gone = format!("{region} is not connected");
                    self.reconcile.report_early(Some(id), region, gone);
                }
            }
        }
    }

    fn start_offered(&mut self, turn: &Turn<'_>) {
        if self.reconcile.run.is_some() {
            return;
        }
        while let Some((region, documents)) = self.reconcile.offers.pop_first() {
            let Some(partner) = self.partner(&region) else { continue };
            let id = self.run_id(partner.link, turn);
            let purpose = Purpose::Verify { request: None, repair: Repair::Mend };
            let mut run = Run::new(id, partner, purpose, Walk::new(None, id), turn.monotonic());
            run.whole = false;
            let suspect = Suspect { due: Some(turn.monotonic()), tries: 0, broken: false };
            run.suspects = documents.into_iter().map(|document| (document, suspect)).collect();
            self.reconcile.run = Some(run);
            return;
        }
    }

    fn start_due(&mut self, turn: &Turn<'_>) {
        let interval = self.settings.reconcile.verify_interval;
        if self.reconcile.run.is_some() || interval.is_zero() {
            return;
        }
        let now = turn.monotonic();
        let waits = |region: &RegionName| {
            self.reconcile.verify_due.get(region).is_some_and(|due| *due > now)
        };
        let regions = self.greeted().map(|(region, ..)| region).filter(|region| !waits(region));
        let regions: Vec<RegionName> = regions.cloned().collect();
        for region in regions {
            let due = *self.reconcile.verify_due.entry(region.clone()).or_insert(now + interval);
            if due > now {
                continue;
            }
            let Some(partner) = self.partner(&region).filter(|_| self.is_caught_up(&region)) else {
                let later = now + (interval / 16).max(self.settings.digest_interval);
                self.reconcile.verify_due.insert(region, later);
                continue;
            };
            self.reconcile.verify_due.insert(region, now + interval);
            return self.start_verification(partner, None, Repair::Mend, turn);
        }
    }

    fn start_verification(
        &mut self,
        partner: Partner,
        request: Option<RequestId>,
        repair: Repair,
        turn: &Turn<'_>,
    ) {
        let id = self.run_id(partner.link, turn);
        let walk = Walk::new(Some(drive::everything().first), id);
        let purpose = Purpose::Verify { request, repair };
        self.reconcile.run = Some(Run::new(id, partner, purpose, walk, turn.monotonic()));
    }

    /// Tells whether little enough is on its way that a comparison is worth its cost.
    fn is_caught_up(&self, region: &RegionName) -> bool {
        let few = (self.settings.batch_entries as u64).saturating_mul(FEW_BATCHES);
        let peer = self.peers.get(region);
        peer.is_some_and(|peer| {
            peer.known.behind(&self.durable) <= few && self.durable.behind(&peer.known) <= few
        })
    }

    pub(super) fn note_damaged(&mut self, documents: Vec<DocumentId>) {
        let regions: Vec<RegionName> = self.greeted().map(|(region, ..)| region.clone()).collect();
        // Another region each time: the first may not have them whole either.
        let turn = usize::try_from(self.last_ticket).unwrap_or_default();
        let Some(region) = regions.get(turn % regions.len().max(1)) else { return };
        self.reconcile.note_offer(region, documents);
    }

    fn partner(&self, name: &RegionName) -> Option<Partner> {
        let mut greeted = self.greeted();
        let found = greeted.find(|(region, ..)| *region == name);
        found.map(|(region, _, link, _)| Partner { region: region.clone(), link: link.id })
    }

    /// Names a run as no other: by the clock, the node, and a number.
    fn run_id(&mut self, link: LinkId, turn: &Turn<'_>) -> RunId {
        let ticket = self.next_ticket();
        let own = self.origin.as_bytes().first_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
        RunId(turn.now.wall.0.rotate_left(24) ^ own ^ ticket.0 ^ link.0.rotate_left(48))
    }

    /// Takes note of a run that has come to its end.
    pub(super) fn end_run(&mut self, run: Run, turn: &mut Turn<'_>) {
        self.reconcile.count(&run);
        if run.is_bootstrap() {
            self.end_bootstrap(run, turn);
        } else {
            self.reconcile.report(&run, VerifyState::Done, turn.monotonic());
        }
    }

    fn end_bootstrap(&mut self, run: Run, turn: &mut Turn<'_>) {
        let mut status = run.bootstrap_status(turn.monotonic());
        status.finished = true;
        status.progress = 1.0;
        status.eta_seconds = None;
        self.reconcile.last_bootstrap = Some(status);
        self.reconcile.totals.bootstraps += 1;
        self.reconcile.tried.clear();
        self.reconcile.last_error = None;
        for document in run.unreadable {
            // Nobody could give them. The next comparison looks at them again.
            let (peer, found) = (run.region.clone(), turn.now.wall);
            let (lacking, changes, repaired) = (Lacking::Here, 0, None);
            let broken = BrokenDocument { document, peer, lacking, changes, found, repaired };
            if self.reconcile.note_broken(broken.clone()) {
                turn.effects.push(ReconcileEffect::Alarm(broken).into());
            }
        }
        self.review_blocked(turn);
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        for region in &regions {
            self.note_gaps(region, turn.monotonic(), turn);
        }
        self.tell_durable(turn);
    }

    /// Tells every peer what is durable here.
    fn tell_durable(&self, turn: &mut Turn<'_>) {
        let bytes = Frame::Ack { vector: self.durable.clone() }.encode();
        self.greeted().for_each(|(_, _, link, _)| turn.send(link.id, bytes.clone()));
    }

    /// Takes note of a run that cannot go on. A bootstrap is begun again, with another source if
    /// there is one.
    pub(super) fn abort_run(&mut self, run: Run, reason: String, turn: &Turn<'_>) {
        self.reconcile.count(&run);
        let later = turn.monotonic() + self.settings.digest_interval;
        match &run.purpose {
            Purpose::Bootstrap { goal } => {
                self.reconcile.resume = run.low_water().map(|first| (first, goal.clone()));
                self.reconcile.last_error = Some(reason);
                self.reconcile.retry_at = later;
                self.review_blocked(turn);
            }
            Purpose::Verify { request: None, .. } if run.whole => {
                // It begins anew by itself, and not only after a whole interval.
                let later = later + self.settings.reconcile.verify_interval / 16;
                self.reconcile.verify_due.insert(run.region.clone(), later);
                self.reconcile.report(&run, VerifyState::Failed(reason), turn.monotonic());
            }
            Purpose::Verify { .. } => {
                self.reconcile.report(&run, VerifyState::Failed(reason), turn.monotonic());
            }
        }
    }

    /// Returns when reconciliation has something to do that no input will bring about.
    pub(in crate::replication) fn next_reconcile(&self) -> Option<Duration> {
        let blocked = self.reconcile.blocked;
        let bootstrap = blocked.map(|since| since + self.grace_of_bootstrap());
        let bootstrap = bootstrap.map(|due| due.max(self.reconcile.retry_at));
        match &self.reconcile.run {
            Some(run) if run.is_bootstrap() => run.next_timeout(),
            Some(run) => run.next_timeout().into_iter().chain(bootstrap).min(),
            None => bootstrap.or_else(|| self.next_verification()),
        }
    }

    fn next_verification(&self) -> Option<Duration> {
        let due = |region: &RegionName| self.reconcile.verify_due.get(region).copied();
        self.greeted().filter_map(|(region, ..)| due(region)).min()
    }
}

/// Comparisons that wait to be begun.
const MAX_REQUESTS: usize = 64;

/// How many full batches may be on their way when a comparison begins by itself.
const FEW_BATCHES: u64 = 4;
