//! Questions to every region: what is durable with you now?
//!
//! A majority read has to include whatever a majority of the regions had when it began. What this
//! node knows of them by acknowledgements and digests may be older than that, so it asks. The
//! question goes to every peer, and each passes it on, once, to those of its peers that have no
//! link to who asks; the answers come back the way that the question went. In a full mesh nothing
//! is passed on.
//!
//! Any of it may be lost: the question is asked anew, under a new number, until a majority has
//! answered or the time is over. Every answer counts, whichever time it was asked for, because all
//! of them were given after the first question.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use anabranch_crdt::version::VersionVector;

use super::fanout::is_deaf_to;
use super::frame::{Frame, Probe, ProbeAnswer, ProbeId};
use super::{Effect, LinkId, Replication, Ticket, Turn};

/// The questions under way.
#[derive(Debug, Default)]
pub(super) struct Probes {
    last_number: u64,
    asking: BTreeMap<Ticket, Asking>,
    /// Which of the own questions a number is about.
    numbers: BTreeMap<ProbeId, Ticket>,
    /// The way back for the answers to questions of others, and until when it is kept.
    relays: BTreeMap<ProbeId, (LinkId, Duration)>,
}

/// One question of this node.
#[derive(Debug)]
struct Asking {
    answered: BTreeMap<RegionName, VersionVector>,
    again: Duration,
    pause: Duration,
    gives_up: Duration,
}

impl Probes {
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.asking.values().map(|asking| asking.again.min(asking.gives_up)).min()
    }

    fn forget(&mut self, ticket: Ticket) -> Option<Asking> {
        self.numbers.retain(|_, asked| *asked != ticket);
        self.asking.remove(&ticket)
    }

    /// Remembers the way back, unless it is known or there are too many.
    fn relay(&mut self, id: ProbeId, link: LinkId, now: Duration) -> bool {
        if self.relays.len() >= MAX_RELAYS {
            self.relays.retain(|_, (_, until)| *until > now);
        }
        if self.relays.len() >= MAX_RELAYS || self.relays.contains_key(&id) {
            return false;
        }
        self.relays.insert(id, (link, now + RELAY_TIME));
        true
    }
}

impl Replication {
    /// Asks every region, until a majority has answered or `wait` is over.
    pub(super) fn handle_ask(&mut self, ticket: Ticket, wait: Duration, turn: &mut Turn<'_>) {
        let now = turn.monotonic();
        let pause = self.settings.digest_interval / 4;
        let own = (self.settings.region.clone(), self.durable.clone());
        let answered = BTreeMap::from([own]);
        let asking = Asking { answered, again: now + pause, pause, gives_up: now + wait };
        self.probes.asking.insert(ticket, asking);
        self.ask(ticket, turn);
        self.conclude(ticket, turn);
    }

    /// Sends a question under a new number.
    fn ask(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        // A run of this process must not take answers to questions of the one before it.
        self.probes.last_number = self.probes.last_number.max(self.stamp.0) + 1;
        let id = ProbeId { asker: self.origin, number: self.probes.last_number };
        self.probes.numbers.insert(id, ticket);
        let probe = Probe { id };
        let bytes = Frame::Probe(probe).encode();
        for (.., link, _) in self.greeted() {
            turn.send(link.id, bytes.clone());
        }
    }

    /// Asks again where answers are missing, and gives up where the time is over.
    pub(super) fn check_probes(&mut self, turn: &mut Turn<'_>) {
        let now = turn.monotonic();
        let due = self.probes.asking.iter().filter(|(_, asking)| asking.gives_up <= now);
        let over: Vec<Ticket> = due.map(|(&ticket, _)| ticket).collect();
        for ticket in over {
            self.give_up(ticket, turn);
        }
        let due = self.probes.asking.iter_mut().filter(|(_, asking)| asking.again <= now);
        let again: Vec<Ticket> = due
            .map(|(&ticket, asking)| {
                asking.pause = asking.pause.saturating_mul(2);
                asking.again = now + asking.pause;
                ticket
            })
            .collect();
        for ticket in again {
            self.ask(ticket, turn);
        }
    }

    /// Takes a question: answers it, and passes it on to those that do not hear who asks.
    pub(super) fn handle_probe(&mut self, region: &RegionName, probe: Probe, turn: &mut Turn<'_>) {
        let asker = probe.id.asker;
        if asker == self.origin {
            return;
        }
        let Some(from) = self.link_mut(region).map(|link| link.id) else { return };
        if self.probes.relays.contains_key(&probe.id) {
            return;
        }
        let answer = ProbeAnswer {
            id: probe.id,
            region: self.settings.region.clone(),
            vector: self.told.clone(),
        };
        turn.send(from, Frame::ProbeAnswer(answer).encode());
        let deaf = self.greeted().filter(|(_, _, link, _)| is_deaf_to(link, asker));
        let deaf: Vec<LinkId> = deaf.map(|(_, _, link, _)| link.id).collect();
        let others = deaf.iter().any(|link| *link != from);
        if !others || !self.probes.relay(probe.id, from, turn.monotonic()) {
            return;
        }
        let bytes = Frame::Probe(probe).encode();
        for link in deaf.into_iter().filter(|link| *link != from) {
            turn.send(link, bytes.clone());
        }
    }

    /// Takes an answer: as one of those that this node waits for, or to pass it back.
    pub(super) fn handle_answer(
        &mut self,
        region: &RegionName,
        answer: ProbeAnswer,
        turn: &mut Turn<'_>,
    ) {
        if answer.region == *region {
            // It comes from the region itself, and is news like any other.
            self.learn(region, &answer.vector, turn);
            self.note_gaps(region, turn.monotonic(), turn);
        }
        if let Some(&(link, _)) = self.probes.relays.get(&answer.id) {
            if self.links.contains_key(&link) {
                turn.send(link, Frame::ProbeAnswer(answer).encode());
            }
            return;
        }
        let Some(&ticket) = self.probes.numbers.get(&answer.id) else { return };
        let Some(asking) = self.probes.asking.get_mut(&ticket) else { return };
        let known = self.peers.contains_key(&answer.region);
        if known {
            asking.answered.entry(answer.region).or_default().merge(&answer.vector);
            self.conclude(ticket, turn);
        }
    }

    /// Ends a question that a majority has answered.
    fn conclude(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(asking) = self.probes.asking.get(&ticket) else { return };
        let answered = self.voters().filter(|voter| asking.answered.contains_key(*voter));
        if answered.count() <= self.voters().count() / 2 {
            return;
        }
        let Some(asking) = self.probes.forget(ticket) else { return };
        let mut vector = VersionVector::new();
        asking.answered.values().for_each(|answer| vector.merge(answer));
        turn.effects.push(Effect::Asked { ticket, vector: Ok(vector) });
    }

    fn give_up(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(asking) = self.probes.forget(ticket) else { return };
        let missing = self.voters().filter(|voter| !asking.answered.contains_key(*voter));
        let missing = missing.cloned().collect();
        turn.effects.push(Effect::Asked { ticket, vector: Err(missing) });
    }

    /// Forgets the ways back over a link that is gone.
    pub(super) fn forget_relays(&mut self, link: LinkId) {
        self.probes.relays.retain(|_, (back, _)| *back != link);
    }
}

/// Questions of others whose way back is kept. More are answered and not passed on.
const MAX_RELAYS: usize = 4_096;

/// How long a way back is kept: longer than any answer is waited for.
const RELAY_TIME: Duration = Duration::from_secs(60);
