//! Identity: whether this process may go on with its origin, and what this node vouches for.
//!
//! A process that keeps the origin of one before it claims it from every peer. A peer confirms the
//! claim, durably, if it knows no more of the origin than the claimant, and if the process that it
//! last vouched for is the claimant or its predecessor. Two copies of one disk name the same
//! predecessor; whichever comes second to a peer is refused there. Only a claim that every peer
//! has confirmed is settled, so of two copies at most one keeps the origin, whatever links are cut,
//! and a disk that is older than what any peer knows keeps it never.
//!
//! Nobody waits for long: who is not confirmed within a bound takes a new origin, which nobody
//! needs to confirm. Until then nothing is admitted, and everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_crdt::ids::{BootId, Origin, RegionName, Sequence};

use super::frame::{Claim, Frame, Judgement, Verdict};
use super::{Effect, Replication, Ticket, Turn};

/// What a node knows of who it is, and who its peers are.
#[derive(Debug)]
pub(super) struct Identity {
    boot: BootId,
    /// The process that had the present origin before; `None` if this one drew it.
    before: Option<BootId>,
    /// Set until the origin is confirmed, or a new one has been taken.
    settling: Option<Settling>,
    vouched: BTreeMap<Origin, Vouched>,
    vouching: BTreeMap<Ticket, Vouching>,
}

#[derive(Debug, Default)]
struct Settling {
    confirmed: BTreeSet<RegionName>,
    /// When a new origin is taken; set by the first input.
    deadline: Option<Duration>,
}

/// The process that this node has vouched for, of one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vouched {
    boot: BootId,
    durable: bool,
}

/// An outstanding [`Effect::Vouch`].
#[derive(Debug)]
struct Vouching {
    region: RegionName,
    origin: Origin,
    boot: BootId,
}

/// Who a process is, and what it takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// This process.
    pub boot: BootId,
    /// The process before it, if this one goes on with its origin and that is not settled yet.
    pub before: Option<BootId>,
    /// The processes that this node has vouched for.
    pub vouched: Vec<(Origin, BootId)>,
    /// What the known origins imply of each other.
    pub chains: anabranch_crdt::chain::Chains,
    /// How long the peers may take to confirm the origin before a new one is taken. Default 2 s:
    /// some round trips around the world, and short enough to wait for with a first write.
    pub settle_within: Duration,
}

impl Default for Incarnation {
    fn default() -> Self {
        Self {
            boot: BootId([0; 16]),
            before: None,
            vouched: Vec::new(),
            chains: anabranch_crdt::chain::Chains::new(),
            settle_within: SETTLE_WITHIN,
        }
    }
}

impl Identity {
    pub(super) fn new(incarnation: &Incarnation) -> Self {
        let vouched = incarnation.vouched.iter();
        let vouched = vouched.map(|&(origin, boot)| (origin, Vouched { boot, durable: true }));
        Self {
            boot: incarnation.boot,
            before: incarnation.before,
            settling: incarnation.before.map(|_| Settling::default()),
            vouched: vouched.collect(),
            vouching: BTreeMap::new(),
        }
    }

    /// Returns when a new origin is taken unless the present one is confirmed.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.settling.as_ref().map(|settling| settling.deadline.unwrap_or_default())
    }

    /// Goes on with an origin that this process drew.
    pub(super) fn renewed(&mut self) {
        self.before = None;
        self.settling = None;
    }
}

impl Replication {
    /// Tells whether every peer has confirmed the origin, or a new one was taken.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.identity.settling.is_none()
    }

    /// Sets the time that the peers have, and settles at once where there are none.
    pub(super) fn start_settling(&mut self, turn: &mut Turn<'_>) {
        let deadline = turn.monotonic() + self.settings.incarnation.settle_within;
        let Some(settling) = &mut self.identity.settling else { return };
        if settling.deadline.is_none() {
            settling.deadline = Some(deadline);
            self.keep_if_confirmed(turn);
        }
    }

    /// Takes a new origin once the peers have had their time.
    pub(super) fn check_settling(&mut self, turn: &mut Turn<'_>) {
        let Some(settling) = &self.identity.settling else { return };
        if settling.deadline.is_none_or(|deadline| turn.monotonic() < deadline) {
            return;
        }
        let silent = self.judges().filter(|region| !settling.confirmed.contains(*region));
        let silent: Vec<&str> = silent.map(RegionName::as_str).collect();
        let reason = format!("{} did not confirm the origin in time", silent.join(", "));
        self.ask_for_origin(reason, turn);
    }

    /// Claims the present origin from a peer.
    pub(super) fn send_claim(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        if self.renewing {
            return;
        }
        let claim = Claim {
            origin: self.origin,
            sequence: self.durable.sequence(self.origin),
            boot: self.identity.boot,
            before: self.identity.before,
        };
        let Some(link) = self.link_mut(region) else { return };
        turn.send(link.id, Frame::Claim(claim).encode());
    }

    /// Judges a peer's claim; a new one is vouched for durably before it is answered.
    pub(super) fn handle_claim(&mut self, region: &RegionName, claim: Claim, turn: &mut Turn<'_>) {
        let Claim { origin, sequence, boot, before } = claim;
        if self.link_mut(region).is_none_or(|link| link.origin != Some(origin)) {
            return;
        }
        let known = self.highest_known(origin, region);
        if known > sequence {
            return self.answer(region, origin, boot, Judgement::Ahead(known), turn);
        }
        match self.identity.vouched.get(&origin) {
            Some(vouched) if vouched.boot == boot && vouched.durable => {
                return self.answer(region, origin, boot, Judgement::Confirmed, turn);
            }
            Some(vouched) if vouched.boot != boot && before != Some(vouched.boot) => {
                return self.answer(region, origin, boot, Judgement::Taken, turn);
            }
            Some(_) | None => {}
        }
        let ticket = self.next_ticket();
        self.identity.vouched.insert(origin, Vouched { boot, durable: false });
        self.identity.vouching.insert(ticket, Vouching { region: region.clone(), origin, boot });
        turn.effects.push(Effect::Vouch { ticket, origin, boot });
    }

    /// Confirms a claim that is durably vouched for; where it is not, the claimant asks again.
    pub(super) fn handle_vouched(
        &mut self,
        ticket: Ticket,
        error: Option<String>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Vouching { region, origin, boot }) = self.identity.vouching.remove(&ticket) else {
            return;
        };
        let vouched = self.identity.vouched.get_mut(&origin).filter(|kept| kept.boot == boot);
        let Some(vouched) = vouched.filter(|_| error.is_none()) else { return };
        vouched.durable = true;
        if self.link_mut(&region).is_some_and(|link| link.origin == Some(origin)) {
            self.answer(&region, origin, boot, Judgement::Confirmed, turn);
        }
    }

    pub(super) fn handle_verdict(
        &mut self,
        region: &RegionName,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) {
        if verdict.origin != self.origin || verdict.boot != self.identity.boot {
            return;
        }
        match verdict.judgement {
            Judgement::Confirmed => {
                if let Some(link) = self.link_mut(region) {
                    link.vouched = true;
                }
                if let Some(settling) = &mut self.identity.settling {
                    settling.confirmed.insert(region.clone());
                    self.keep_if_confirmed(turn);
                }
            }
            Judgement::Ahead(known) if known <= self.durable.sequence(self.origin) => {}
            Judgement::Ahead(known) => {
                self.give_way(region, known, turn);
            }
            Judgement::Taken => {
                let reason = format!("{region} knows another process that took over the origin");
                self.ask_for_origin(reason, turn);
            }
        }
    }

    /// Keeps the origin if every peer has confirmed it.
    pub(super) fn keep_if_confirmed(&mut self, turn: &mut Turn<'_>) {
        let Some(settling) = &self.identity.settling else { return };
        let confirmed = self.judges().all(|region| settling.confirmed.contains(region));
        if confirmed && !self.renewing {
            self.identity.settling = None;
            turn.effects.push(Effect::ConfirmOrigin);
        }
    }

    /// Returns the regions that must confirm a claim: all that this one has links with. What others
    /// know of the origin came over those, and they have heard of it.
    fn judges(&self) -> impl Iterator<Item = &RegionName> {
        let others = self.members.others().map(|member| &member.region);
        others.filter(|region| self.members.link_with(region).is_ok())
    }

    /// Returns the highest sequence of an origin that is here, on its way here, or that another
    /// region than `claimant` is known to have.
    fn highest_known(&self, origin: Origin, claimant: &RegionName) -> Sequence {
        let others = self.peers.iter().filter(|(region, _)| *region != claimant);
        let others = others.map(|(_, peer)| peer.known.sequence(origin));
        let far = self.rows.iter().filter(|(region, _)| *region != claimant);
        let far = far.map(|(_, row)| row.held.sequence(origin));
        others.chain(far).fold(self.pending(origin), Sequence::max)
    }

    fn answer(
        &mut self,
        region: &RegionName,
        origin: Origin,
        boot: BootId,
        judgement: Judgement,
        turn: &mut Turn<'_>,
    ) {
        let Some(link) = self.link_mut(region) else { return };
        turn.send(link.id, Frame::Verdict(Verdict { origin, boot, judgement }).encode());
    }
}

/// See [`Incarnation::settle_within`].
const SETTLE_WITHIN: Duration = Duration::from_secs(2);
