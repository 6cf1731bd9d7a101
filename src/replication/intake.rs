//! Entries that come in: append them without gaps, acknowledge what is durable, pass it on.

use anabranch_crdt::bug;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{Origin, RegionName, Sequence};
use anabranch_crdt::version::VersionVector;

use super::fanout::is_deaf_to;
use super::frame::{Batch, Frame};
use super::{Effect, LinkId, Replication, Ticket, Turn};

/// What an outstanding [`Effect::Append`] holds.
#[derive(Debug)]
pub(super) struct Appending {
    region: RegionName,
    link: LinkId,
    /// The last sequence per origin.
    highest: VersionVector,
    /// The entries, to be relayed when they are durable.
    entries: Vec<Entry>,
}

impl Replication {
    pub(super) fn handle_entries(
        &mut self,
        region: &RegionName,
        batch: Batch,
        turn: &mut Turn<'_>,
    ) {
        let Batch { origin, first, entries } = batch;
        let Some((id, owner)) = self.link_mut(region).map(|link| (link.id, link.origin)) else {
            return;
        };
        let Some(last) = entries.last().map(|entry| entry.sequence) else {
            return self.note_answer_end(origin, id, turn);
        };
        // A peer sends only what is durable there.
        if let Some(peer) = self.peers.get_mut(region) {
            peer.known.raise(origin, last);
        }
        if origin == self.origin {
            if last > self.durable.sequence(origin) {
                self.ask_for_origin(turn);
            }
            return;
        }
        let pending = self.pending(origin);
        if last <= self.durable.sequence(origin) {
            self.acknowledge(id, &[], turn);
        }
        if last <= pending {
            return;
        }
        self.take_in(region, id, owner == Some(origin), (first, pending), entries, turn);
    }

    /// Takes a batch that has news into the inbox, unless it leaves a gap or there is no room.
    fn take_in(
        &mut self,
        region: &RegionName,
        id: LinkId,
        from_owner: bool,
        (first, pending): (Sequence, Sequence),
        mut entries: Vec<Entry>,
        turn: &mut Turn<'_>,
    ) {
        let Some(origin) = entries.first().map(|entry| entry.origin) else { return };
        let grace = self.grace(turn);
        let Self { settings, peers, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else { return };
        let gap = first > pending.next() && !bug!(IgnoreGap);
        if gap || link.inbox.is_full(settings) {
            return self.note_gap(origin, grace, turn);
        }
        entries.retain(|entry| entry.sequence > pending);
        if let [one, two, ..] = entries.as_mut_slice()
            && bug!(SwapEntries)
        {
            std::mem::swap(&mut one.change, &mut two.change);
        }
        link.inbox.push(entries);
        self.note_progress(origin, id, from_owner, turn);
        self.start_append(region, turn);
    }

    /// Returns the highest contiguous sequence of an origin that is durable or about to be.
    pub(super) fn pending(&self, origin: Origin) -> Sequence {
        let appending = self.appends.values().map(|append| append.highest.sequence(origin));
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let waiting = links.map(|link| link.inbox.highest(origin));
        appending.chain(waiting).fold(self.durable.sequence(origin), Sequence::max)
    }

    pub(super) fn start_appends(&mut self, turn: &mut Turn<'_>) {
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        for region in &regions {
            self.start_append(region, turn);
        }
    }

    /// Appends what waits in a link's inbox, if nothing of that link is being appended.
    fn start_append(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let idle = |link: &super::Link| link.append.is_none() && !link.inbox.batches.is_empty();
        if !self.link_mut(region).is_some_and(|link| idle(link)) {
            return;
        }
        let (entries, highest) = self.gather(region);
        let Some(seen) = entries.iter().map(|entry| entry.admitted).max() else { return };
        let ticket = self.next_ticket();
        let Some(link) = self.link_mut(region) else { return };
        link.append = Some(ticket);
        let (link, region) = (link.id, region.clone());
        // What this node admits after it has seen an entry must not look older than the entry.
        turn.effects.push(Effect::ObserveClock { seen });
        turn.effects.push(Effect::Append { ticket, entries: entries.clone() });
        self.appends.insert(ticket, Appending { region, link, highest, entries });
    }

    /// Takes entries from an inbox that go on without a gap after what is durable.
    fn gather(&mut self, region: &RegionName) -> (Vec<Entry>, VersionVector) {
        let (mut entries, mut highest) = (Vec::new(), VersionVector::new());
        let Self { settings, peers, durable, appends, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else {
            return (entries, highest);
        };
        let limit = settings.batch_entries * APPEND_BATCHES;
        while entries.len() < limit
            && let Some(first) = link.inbox.batches.front().and_then(|batch| batch.first())
        {
            let (origin, first) = (first.origin, first.sequence);
            let have = durable.sequence(origin).max(highest.sequence(origin));
            let comes = appends.values().any(|append| append.highest.sequence(origin) > have);
            if first > have.next() && comes {
                break;
            }
            let Some(batch) = link.inbox.pop() else { break };
            if first > have.next() {
                // Its predecessor was lost with another link; both will be pulled.
                continue;
            }
            entries.extend(batch.into_iter().filter(|entry| entry.sequence > have));
            let last = entries.last().filter(|entry| entry.origin == origin);
            highest.raise(origin, last.map_or(have, |entry| entry.sequence));
        }
        (entries, highest)
    }

    pub(super) fn handle_appended(
        &mut self,
        ticket: Ticket,
        error: Option<String>,
        turn: &mut Turn<'_>,
    ) {
        let Some(appending) = self.appends.remove(&ticket) else { return };
        let Appending { region, link: id, highest, entries } = appending;
        if let Some(link) = self.link_mut(&region).filter(|link| link.append == Some(ticket)) {
            link.append = None;
        }
        let origins: Vec<Origin> = highest.iter().map(|dot| dot.origin).collect();
        if error.is_some() {
            let due = self.grace(turn);
            origins.iter().for_each(|&origin| self.note_gap(origin, due, turn));
        } else {
            self.acknowledge(id, &origins, turn);
            self.relay(&entries, turn);
            self.resume_pulls(&origins, turn);
        }
        self.start_appends(turn);
    }

    /// Tells a link, and the origins of what has become durable, what this node has.
    fn acknowledge(&mut self, id: LinkId, origins: &[Origin], turn: &mut Turn<'_>) {
        let listens = |link: LinkId, owner| link == id || origins.contains(&owner);
        let links = self.greeted().filter(|(_, _, link, owner)| listens(link.id, *owner));
        let links: Vec<LinkId> = links.map(|(_, _, link, _)| link.id).collect();
        if links.is_empty() {
            return;
        }
        let mut vector = self.durable.clone();
        if bug!(AcknowledgeTooMuch, every 20) {
            vector =
                vector.iter().map(|dot| Dot { sequence: dot.sequence.next(), ..dot }).collect();
        }
        let bytes = Frame::Ack { vector }.encode();
        links.into_iter().for_each(|link| turn.send(link, bytes.clone()));
    }

    pub(super) fn handle_ack(
        &mut self,
        region: &RegionName,
        vector: &VersionVector,
        turn: &mut Turn<'_>,
    ) {
        self.learn(region, vector, turn);
        let due = self.grace(turn);
        self.note_gaps(region, due, turn);
        self.forget_samples();
        self.offer_what_is_missing(region, turn);
        self.pump(region, turn);
    }

    /// Brings the digest forward if the peer lacks something that nobody pushes to it.
    fn offer_what_is_missing(&mut self, region: &RegionName, turn: &Turn<'_>) {
        let interval = self.settings.digest_interval;
        let Self { peers, durable, origin, .. } = self;
        let Some(peer) = peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let lacks = durable.iter().any(|dot| {
            dot.origin != *origin
                && dot.sequence > peer.known.sequence(dot.origin)
                && dot.sequence > link.relayed.sent.sequence(dot.origin)
                && is_deaf_to(link, dot.origin)
        });
        if lacks {
            link.hasten_digest(turn.monotonic(), interval);
        }
    }
}

/// Entries of one append at most, in full batches: what came in during the append before it.
const APPEND_BATCHES: usize = 4;
