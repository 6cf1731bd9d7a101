//! Names: whose an origin is, and what stands before it.
//!
//! A hello names only what its short vector mentions. A node that learns a name passes it on over
//! its other links, ahead of the entries that follow; what it still lacks it asks for by its next
//! digest, and is told all that stands before it, too.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_crdt::ids::{Origin, RegionName};
use anabranch_crdt::version::VersionVector;

use super::frame::{Frame, Hello, MAX_ORIGINS, Named};
use super::{Effect, Replication, Turn};

impl Replication {
    /// Returns the names of this node's origin and of those of a short vector.
    pub(super) fn names_of(&self, vector: &VersionVector) -> Vec<Named> {
        let others = vector.iter().map(|dot| dot.origin).take(HELLO_NAMES);
        let origins: BTreeSet<Origin> = others.chain([self.origin]).collect();
        origins.into_iter().filter_map(|origin| self.named(origin)).collect()
    }

    /// Returns origins without a name, in order: some of those that are here, that a peer has, or
    /// that stand before another one.
    pub(super) fn unnamed(&self) -> Vec<Origin> {
        let known = self.peers.values().flat_map(|peer| peer.known.iter());
        let before = self.names.keys().flat_map(|origin| self.chains.after(*origin)).copied();
        let all = self.durable.iter().chain(known).chain(before).map(|dot| dot.origin);
        let is_known =
            |origin: &Origin| self.names.contains_key(origin) || self.nameless.contains(origin);
        let unnamed = all.filter(|origin| !is_known(origin));
        unnamed.collect::<BTreeSet<_>>().into_iter().take(UNNAMED).collect()
    }

    /// Answers what a peer's digest asks for, with what stands before it.
    pub(super) fn tell_names(
        &mut self,
        region: &RegionName,
        unnamed: &[Origin],
        turn: &mut Turn<'_>,
    ) {
        let nameless = |origin: &&Origin| {
            !self.names.contains_key(*origin) && self.durable.sequence(**origin).0 > 0
        };
        let nobodys = unnamed.iter().take(UNNAMED).filter(nameless);
        let nobodys =
            nobodys.map(|&origin| (origin, Named { origin, region: None, after: vec![] }));
        let mut names: BTreeMap<Origin, Named> = nobodys.collect();
        let mut told = BTreeSet::new();
        let mut open: Vec<Origin> = unnamed.iter().copied().take(UNNAMED).collect();
        while let Some(origin) = open.pop() {
            if told.len() < NAMES_TOLD && self.names.contains_key(&origin) && told.insert(origin) {
                open.extend(self.chains.after(origin).iter().map(|dot| dot.origin));
            }
        }
        names.extend(told.into_iter().filter_map(|origin| Some((origin, self.named(origin)?))));
        if names.is_empty() {
            return;
        }
        let names = names.into_values().collect();
        if let Some(link) = self.link_mut(region) {
            turn.send(link.id, Frame::Names(names).encode());
        }
    }

    /// Takes what a peer says of its own origin.
    pub(super) fn learn_owner(&mut self, region: &RegionName, hello: &Hello, turn: &mut Turn<'_>) {
        let own = hello.names.iter().find(|named| named.origin == hello.origin);
        let after = own.map(|named| named.after.clone()).unwrap_or_default();
        let new = !self.names.contains_key(&hello.origin);
        let named = Named { origin: hello.origin, region: Some(region.clone()), after };
        self.name_origin(named.clone(), turn);
        if new {
            self.pass_on(region, vec![named], turn);
        }
    }

    /// Names the origins of other peers to one that has just come: what they write first would
    /// wait there for their names.
    pub(super) fn introduce_neighbours(
        &mut self,
        region: &RegionName,
        hello: &Hello,
        turn: &mut Turn<'_>,
    ) {
        let is_known = |origin: &Origin| {
            hello.direct.contains(origin) || hello.names.iter().any(|named| named.origin == *origin)
        };
        let others = self.greeted().map(|(_, _, _, owner)| owner);
        let unknown = others.filter(|owner| *owner != hello.origin && !is_known(owner));
        let names: BTreeMap<Origin, Named> =
            unknown.filter_map(|owner| Some((owner, self.named(owner)?))).collect();
        if names.is_empty() {
            return;
        }
        if let Some(link) = self.link_mut(region) {
            turn.send(link.id, Frame::Names(names.into_values().collect()).encode());
        }
    }

    /// Takes names from hearsay: only those that are not known yet.
    pub(super) fn learn_names(
        &mut self,
        region: &RegionName,
        names: Vec<Named>,
        turn: &mut Turn<'_>,
    ) {
        let mut new = Vec::new();
        for named in names {
            let room = self.names.len() < self.durable.len() + MAX_ORIGINS;
            if !room || self.names.contains_key(&named.origin) {
                continue;
            }
            if named.region.is_none() {
                self.nameless.insert(named.origin);
                continue;
            }
            self.name_origin(named.clone(), turn);
            new.push(named);
        }
        if new.is_empty() {
            return;
        }
        self.pass_on(region, new, turn);
        // What the peers have said before means more now.
        let regions: Vec<RegionName> = self.peers.keys().cloned().collect();
        for region in &regions {
            if let Some(peer) = self.peers.get_mut(region) {
                peer.known = self.chains.expand(&peer.known);
            }
            self.note_gaps(region, turn.monotonic(), turn);
        }
        let Self { rows, chains, .. } = self;
        rows.values_mut().for_each(|row| row.expand(chains));
        if !self.unnamed().is_empty() {
            self.hasten_digests(turn);
        }
    }

    fn hasten_digests(&mut self, turn: &Turn<'_>) {
        let interval = self.settings.digest_interval;
        for peer in self.peers.values_mut() {
            if let Some(link) = peer.link.as_mut().filter(|link| link.origin.is_some()) {
                link.hasten_digest(turn.monotonic(), interval);
            }
        }
    }

    /// Asks for the name of an origin that cannot be appended without it.
    pub(super) fn hasten_names(&mut self, origin: Origin, region: &RegionName, turn: &Turn<'_>) {
        let interval = self.settings.digest_interval;
        if self.names.contains_key(&origin) {
            return;
        }
        if let Some(link) = self.link_mut(region) {
            link.hasten_digest(turn.monotonic(), interval);
        }
    }

    /// Takes a name from someone who must know; what stands before an origin never changes.
    pub(super) fn name_origin(&mut self, named: Named, turn: &mut Turn<'_>) {
        let Named { origin, region: Some(region), after } = named else { return };
        let known = self.names.get(&origin);
        if known == Some(&region) {
            return;
        }
        let after = if known.is_none() { after } else { Vec::new() };
        self.chains.note(origin, after.clone());
        self.names.insert(origin, region.clone());
        turn.effects.push(Effect::NameOrigin { origin, region, after });
    }

    /// Tells the other peers what has just been learned.
    fn pass_on(&mut self, from: &RegionName, names: Vec<Named>, turn: &mut Turn<'_>) {
        let others = self.greeted().filter(|(region, ..)| *region != from);
        let others: Vec<_> = others.map(|(_, _, link, _)| link.id).collect();
        if others.is_empty() {
            return;
        }
        let bytes = Frame::Names(names).encode();
        others.into_iter().for_each(|link| turn.send(link, bytes.clone()));
    }

    fn named(&self, origin: Origin) -> Option<Named> {
        let region = Some(self.names.get(&origin)?.clone());
        Some(Named { origin, region, after: self.chains.after(origin).to_vec() })
    }
}

/// Names in one hello: those of the regions, and some that came back late.
const HELLO_NAMES: usize = 64;

/// How many names are asked for in one digest.
const UNNAMED: usize = 64;

/// How many names are told at once: a thousand renewals are learned in some round trips.
const NAMES_TOLD: usize = 512;
