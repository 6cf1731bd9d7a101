//! Links: who is there, what they have, how they are connected, and who this node is to them.

use anabranch_crdt::bug;
use anabranch_crdt::ids::{Origin, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::frame::{Digest, Frame, Hello, MAX_ORIGINS};
use super::peer::Link;
use super::samples::Samples;
use super::{Effect, LinkId, Replication, Turn, clock};

impl Replication {
    pub(super) fn handle_connected(&mut self, id: LinkId, region: RegionName, turn: &mut Turn<'_>) {
        let Some(peer) = self.peers.get(&region) else {
            let reason = format!("region {region} is not in this cluster's list of peers");
            return turn.effects.push(Effect::Close { link: id, reason });
        };
        if let Some(older) = peer.link.as_ref().map(|link| link.id) {
            self.close(older, "replaced by a newer link".to_owned(), turn);
        }
        self.links.insert(id, region.clone());
        if let Some(peer) = self.peers.get_mut(&region) {
            peer.link = Some(Link::new(id, turn.monotonic()));
        }
        self.send_hello(&region, turn);
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
            peer.last_error = Some(reason);
        }
        self.reads.retain(|_, reading| reading.link != id);
        self.abandon_pulls(id, turn);
        self.hasten_digests(turn);
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
        self.name_origin(hello.origin, region, turn);
        self.learn_names(hello.names, turn);
        let own = self.origin;
        let Some(peer) = self.peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let before = link.origin.replace(hello.origin);
        link.direct = hello.direct.into_iter().collect();
        if before.is_none() && bug!(TrustOldKnowledge) {
            link.window.restart(peer.known.sequence(own));
        } else if before.is_none() {
            peer.known = VersionVector::new();
            link.window.restart(hello.vector.sequence(own));
        }
        self.learn(region, &hello.vector, turn);
        if before.is_some() && !hello.heard {
            self.send_hello(region, turn);
        }
        if before != Some(hello.origin) {
            self.hasten_digests(turn);
        }
        self.note_gaps(region, turn.monotonic(), turn);
        self.pump(region, turn);
    }

    pub(super) fn handle_digest(
        &mut self,
        region: &RegionName,
        digest: Digest,
        turn: &mut Turn<'_>,
    ) {
        if let Some(link) = self.link_mut(region) {
            link.direct = digest.direct.into_iter().collect();
        }
        if digest.clock > Timestamp::default() {
            turn.effects.push(Effect::ObserveClock { seen: digest.clock });
        }
        if let Some(reading) = digest.reading {
            self.handle_reading(region, reading, turn);
        }
        self.learn(region, &digest.vector, turn);
        let due = self.grace(turn);
        self.note_gaps(region, due, turn);
        self.forget_samples();
        self.tell_names(region, &digest.unnamed, turn);
        self.pump(region, turn);
    }

    /// Goes on as a new origin; the old one is from now on one of many.
    pub(super) fn handle_renewed(&mut self, origin: Origin, turn: &mut Turn<'_>) {
        self.origin = origin;
        self.renewing = false;
        self.recent.clear();
        self.samples = Samples::new(self.durable.sequence(origin));
        self.samples.start(turn.monotonic());
        self.clock = Timestamp::default();
        let own_region = self.settings.region.clone();
        self.name_origin(origin, &own_region, turn);
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        for region in &regions {
            if let Some(peer) = self.peers.get_mut(region)
                && let Some(link) = peer.link.as_mut()
            {
                link.window.restart(peer.known.sequence(origin));
                link.stream_read = None;
            }
            self.send_hello(region, turn);
            self.note_gaps(region, turn.monotonic(), turn);
            self.pump(region, turn);
        }
    }

    /// Does what a link's timers ask for.
    pub(super) fn check_link(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let (now, interval) = (turn.monotonic(), self.settings.digest_interval);
        let Some(peer) = self.peers.get_mut(region) else { return };
        let Some(link) = peer.link.as_mut() else { return };
        let (id, greeted) = (link.id, link.origin.is_some());
        if link.gives_up_at(interval) <= now {
            let reason = if greeted { "peer is silent" } else { "peer sends no hello" };
            return self.close(id, reason.to_owned(), turn);
        }
        if link.digest_due > now {
            return;
        }
        link.relayed.settle(&peer.known, now.saturating_sub(interval * RELAY_INTERVALS));
        if !greeted {
            return self.send_hello(region, turn);
        }
        self.send_digest(region, turn);
        self.pump(region, turn);
    }

    fn send_hello(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let direct = self.direct();
        let interval = self.settings.digest_interval;
        let mut hello = Hello {
            region: self.settings.region.clone(),
            origin: self.origin,
            vector: self.durable.clone(),
            names: self.names.iter().map(|(&origin, name)| (origin, name.clone())).collect(),
            direct,
            heard: false,
        };
        let Some(link) = self.link_mut(region) else { return };
        hello.heard = link.origin.is_some();
        link.schedule_digest(turn.now.monotonic, interval);
        turn.send(link.id, Frame::Hello(hello).encode());
    }

    fn send_digest(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let mut digest = Digest {
            vector: self.durable.clone(),
            clock: self.clock,
            direct: self.direct(),
            unnamed: self.unnamed(),
            reading: None,
        };
        let interval = self.settings.digest_interval;
        let Some(link) = self.link_mut(region) else { return };
        digest.reading = Some(clock::reading(link.heard_mark, turn.now));
        link.schedule_digest(turn.now.monotonic, interval);
        turn.send(link.id, Frame::Digest(digest).encode());
    }

    fn hasten_digests(&mut self, turn: &Turn<'_>) {
        let interval = self.settings.digest_interval;
        for peer in self.peers.values_mut() {
            if let Some(link) = peer.link.as_mut().filter(|link| link.origin.is_some()) {
                link.hasten_digest(turn.monotonic(), interval);
            }
        }
    }

    /// Returns the origins at the other ends of live links, in order.
    fn direct(&self) -> Vec<Origin> {
        let mut origins: Vec<Origin> = self.greeted().map(|(_, _, _, owner)| owner).collect();
        origins.sort_unstable();
        origins.dedup();
        origins
    }

    /// Returns durable origins without a name, in order.
    fn unnamed(&self) -> Vec<Origin> {
        let origins = self.durable.iter().map(|dot| dot.origin);
        origins.filter(|origin| !self.names.contains_key(origin)).take(UNNAMED).collect()
    }

    fn tell_names(&mut self, region: &RegionName, unnamed: &[Origin], turn: &mut Turn<'_>) {
        let named = |&origin: &Origin| Some((origin, self.names.get(&origin)?.clone()));
        let names: Vec<_> = unnamed.iter().take(UNNAMED).filter_map(named).collect();
        if names.is_empty() {
            return;
        }
        if let Some(link) = self.link_mut(region) {
            turn.send(link.id, Frame::Names(names).encode());
        }
    }

    /// Takes names from hearsay: only those that are not known yet.
    pub(super) fn learn_names(&mut self, names: Vec<(Origin, RegionName)>, turn: &mut Turn<'_>) {
        for (origin, region) in names {
            if !self.names.contains_key(&origin) && self.names.len() < MAX_ORIGINS {
                self.name_origin(origin, &region, turn);
            }
        }
    }

    /// Takes a name from someone who must know.
    fn name_origin(&mut self, origin: Origin, region: &RegionName, turn: &mut Turn<'_>) {
        if self.names.get(&origin) != Some(region) {
            self.names.insert(origin, region.clone());
            turn.effects.push(Effect::NameOrigin { origin, region: region.clone() });
        }
    }
}

/// How many digest intervals a relayed entry counts as on its way.
const RELAY_INTERVALS: u32 = 4;

/// How many names are asked for in one digest.
const UNNAMED: usize = 64;
