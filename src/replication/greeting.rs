//! Links: who is there, what they have, how they are connected, and who this node is to them.

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::frame::{Digest, Frame, Hello, Named};
use super::peer::Link;
use super::samples::Samples;
use super::{Effect, LinkId, Replication, Turn, clock};

impl Replication {
    pub(super) fn handle_connected(&mut self, id: LinkId, region: RegionName, turn: &mut Turn<'_>) {
        if let Err(why) = self.members.link_with(&region) {
            let reason = why.explain(self.members.own(), &region);
            return turn.effects.push(Effect::Close { link: id, reason });
        }
        let Some(peer) = self.peers.get(&region) else { return };
        if let Some(older) = peer.link.as_ref().map(|link| link.id) {
            self.close(older, "replaced by a newer link".to_owned(), turn);
        }
        self.links.insert(id, region.clone());
        if let Some(peer) = self.peers.get_mut(&region) {
            peer.link = Some(Link::new(id, turn.monotonic()));
        }
        self.knowledge += 1;
        self.send_hello(&region, turn);
        self.send_claim(&region, turn);
    }

    /// Closes a link and forgets it at once; what still comes from it is ignored.
    pub(super) fn close(&mut self, id: LinkId, reason: String, turn: &mut Turn<'_>) {
        turn.effects.push(Effect::Close { link: id, reason: reason.clone() });
        self.forget_link(id, reason, turn);
    }

    /// Forgets a link that is gone.
    pub(super) fn forget_link(&mut self, id: LinkId, reason: String, turn: &mut Turn<'_>) {
        let Some(region) = self.links.remove(&id) else { return };
        if let Some(peer) = self.peers.get_mut(&region) {
            peer.link = None;
            peer.last_error = Some(reason.clone());
        }
        self.reads.retain(|_, reading| reading.link != id);
        self.forget_relays(id);
        self.abandon_pulls(id, turn);
        self.knowledge += 1;
        self.rush_digests(turn);
        self.stop_reconciling(id, &reason, turn);
        self.review_blocked(turn);
    }

    /// Takes a peer's introduction: the first on a link, a repeated one, or a renewed one.
    pub(super) fn handle_hello(
        &mut self,
        id: LinkId,
        region: &RegionName,
        hello: Hello,
        turn: &mut Turn<'_>,
    ) {
        if hello.region != *region {
            let reason = format!("{region} introduced itself as {}", hello.region);
            return self.close(id, reason, turn);
        }
        if hello.origin == self.origin {
            let reason = format!("{region} uses the origin of this node, {}", hello.origin);
            return self.close(id, reason, turn);
        }
        self.learn_owner(region, &hello, turn);
        self.learn_names(region, hello.names.clone(), turn);
        let members = hello.members;
        let own = self.origin;
        let Some(peer) = self.peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let before = link.origin.replace(hello.origin);
        link.direct = hello.direct.iter().copied().collect();
        if before.is_none() {
            peer.known = VersionVector::new();
            peer.floors = VersionVector::new();
            link.window.restart(hello.vector.sequence(own));
        }
        self.learn_hello(region, &hello, before.is_none(), turn);
        self.learn(region, &hello.vector, turn);
        if before.is_some() && !hello.heard {
            self.send_hello(region, turn);
        }
        if before != Some(hello.origin) {
            self.rush_digests(turn);
        }
        if before.is_none() {
            self.introduce_neighbours(region, &hello, turn);
        }
        self.note_gaps(region, turn.monotonic(), turn);
        self.pump(region, turn);
        self.compare_members(region, members, turn);
    }

    pub(super) fn handle_digest(
        &mut self,
        region: &RegionName,
        digest: Digest,
        turn: &mut Turn<'_>,
    ) {
        if let Some(link) = self.link_mut(region) {
            let before = std::mem::replace(&mut link.direct, digest.direct.into_iter().collect());
            let lost = before.difference(&link.direct).copied().collect();
            self.make_up_for(region, &lost, turn);
        }
        self.offer_what_is_missing(region, turn);
        if digest.clock > Timestamp::default() {
            turn.effects.push(Effect::ObserveClock { seen: digest.clock });
        }
        if let Some(reading) = digest.reading {
            self.handle_reading(region, reading, turn);
            self.learn_moment(region, reading.wall, &digest.vector, turn);
        }
        self.learn(region, &digest.vector, turn);
        let due = self.grace(turn);
        self.note_gaps(region, due, turn);
        self.forget_samples();
        self.tell_names(region, &digest.unnamed, turn);
        self.pump(region, turn);
        self.compare_members(region, digest.members, turn);
    }

    /// Goes on as a new origin; the old one is from now on one of many.
    pub(super) fn handle_renewed(&mut self, origin: Origin, after: Vec<Dot>, turn: &mut Turn<'_>) {
        self.origin = origin;
        self.restamp();
        self.knowledge += 1;
        self.renewing = false;
        self.identity.renewed();
        self.recent.clear();
        self.samples = Samples::new(self.durable.sequence(origin));
        self.samples.start(turn.monotonic());
        self.clock = Timestamp::default();
        let own_region = self.settings.region.clone();
        self.name_origin(Named { origin, region: Some(own_region), after }, turn);
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        for region in &regions {
            if let Some(peer) = self.peers.get_mut(region)
                && let Some(link) = peer.link.as_mut()
            {
                link.window.restart(peer.known.sequence(origin));
                link.stream_read = None;
                link.vouched = false;
            }
            self.send_hello(region, turn);
            self.send_claim(region, turn);
            self.note_gaps(region, turn.monotonic(), turn);
            self.pump(region, turn);
        }
    }

    /// Does what a link's timers ask for.
    pub(super) fn check_link(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        if self.close_if_gone(region, turn) {
            return;
        }
        let (now, interval) = (turn.monotonic(), self.settings.digest_interval);
        let Some(link) = self.link_mut(region) else { return };
        let (id, greeted) = (link.id, link.origin.is_some());
        if link.gives_up_at(interval) <= now {
            let reason = if greeted { "peer is silent" } else { "peer sends no hello" };
            return self.close(id, reason.to_owned(), turn);
        }
        let suspected = greeted && link.suspected_at(interval) <= now;
        if suspected {
            self.suspect(region, true, turn);
        }
        self.send_due_digest(region, turn);
    }

    fn send_due_digest(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let (now, interval) = (turn.monotonic(), self.settings.digest_interval);
        let Some(peer) = self.peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let greeted = link.origin.is_some();
        if link.digest_due > now {
            return;
        }
        link.relayed.settle(&peer.known, now.saturating_sub(interval * RELAY_INTERVALS));
        let vouched = link.vouched;
        if !greeted {
            return self.send_hello(region, turn);
        }
        self.send_digest(region, turn);
        if !vouched {
            self.send_claim(region, turn);
        }
        self.pump(region, turn);
    }

    fn send_hello(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let (direct, vector) = (self.direct(), self.told.clone());
        let interval = self.settings.digest_interval;
        let mut hello = Hello {
            region: self.settings.region.clone(),
            origin: self.origin,
            names: self.names_of(&vector),
            vector,
            direct,
            heard: false,
            stamp: self.stamp,
            members: self.members.digest(),
        };
        let Some(link) = self.link_mut(region) else { return };
        hello.heard = link.origin.is_some();
        link.schedule_digest(turn.now.monotonic, interval);
        turn.send(link.id, Frame::Hello(hello).encode());
    }

    fn send_digest(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let mut digest = Digest {
            vector: self.told.clone(),
            clock: self.clock,
            direct: self.direct(),
            unnamed: self.unnamed(),
            reading: None,
            members: self.members.digest(),
        };
        let interval = self.settings.digest_interval;
        let Some(link) = self.link_mut(region) else { return };
        digest.reading = Some(clock::reading(link.heard_mark, turn.now));
        link.schedule_digest(turn.now.monotonic, interval);
        turn.send(link.id, Frame::Digest(digest).encode());
        self.send_rows(region, turn);
    }

    /// Sends every greeted peer another hello, because this node is not whom they know.
    pub(super) fn introduce_anew(&mut self, turn: &mut Turn<'_>) {
        let greeted: Vec<RegionName> = self.greeted().map(|(name, ..)| name.clone()).collect();
        greeted.iter().for_each(|region| self.send_hello(region, turn));
    }

    /// Tells every peer soon what this node hears directly.
    pub(super) fn rush_digests(&mut self, turn: &Turn<'_>) {
        let interval = self.settings.digest_interval;
        for peer in self.peers.values_mut() {
            if let Some(link) = peer.link.as_mut().filter(|link| link.origin.is_some()) {
                link.rush_digest(turn.monotonic(), interval);
            }
        }
    }

    /// Notes that a peer has been silent for long, or has spoken again, and tells the others.
    pub(super) fn suspect(&mut self, region: &RegionName, suspected: bool, turn: &Turn<'_>) {
        let Some(link) = self.link_mut(region) else { return };
        if link.suspected != suspected {
            link.suspected = suspected;
            self.rush_digests(turn);
        }
    }

    /// Returns the origins at the other ends of links that are well, in order.
    fn direct(&self) -> Vec<Origin> {
        let well = self.greeted().filter(|(_, _, link, _)| !link.suspected);
        let mut origins: Vec<Origin> = well.map(|(_, _, _, owner)| owner).collect();
        origins.sort_unstable();
        origins.dedup();
        origins
    }
}

/// How many digest intervals a relayed entry counts as on its way.
const RELAY_INTERVALS: u32 = 4;
