//! Replication: which entries go to which peer, as a pure state machine.
//!
//! It owns what this node knows of its peers, and decides what to send, to append, to read and
//! to acknowledge. It never reads a clock, a socket or a file: inputs come in by
//! [`Replication::handle`], effects go out, and [`Replication::poll_timeout`] names the one
//! moment at which it wants to be called again. Effects are to be carried out in their order.
//!
//! # How an entry travels
//!
//! - **Fan-out.** What this leader admits is one stream to every peer. Each link has a cursor and
//!   a window of what may be unacknowledged; a peer that keeps up is served from memory, one that
//!   lags is read for from the journal, so a slow peer costs one window and nothing more.
//! - **Relay.** An entry of another origin that has just become durable is passed on, once, to
//!   the peers that do not say that they have a live link to that origin.
//! - **Anti-entropy.** Every peer regularly says what it has. What this node lacks it pulls: by
//!   one pull per origin, from any peer that has it, and not while it keeps coming by itself.
//!
//! Fan-out and relay make it fast, anti-entropy makes it certain: every frame but the hello may
//! be lost, repeated or late, and nothing but time is lost.
//!
//! # Why a pull at the origin itself moves its cursor
//!
//! The origin is sending anyway. Answering a pull beside the stream would send everything twice,
//! so the pull tells the stream where to go on.

mod catchup;
mod clock;
mod cluster;
mod fanout;
pub mod frame;
mod greeting;
mod identity;
mod intake;
mod interface;
mod knowledge;
mod members;
mod membership;
mod names;
mod peer;
mod probe;
pub mod reconcile;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

#[cfg(test)]
pub(crate) use cluster::views;
pub use cluster::{ClusterView, MemberState, RegionView};
pub use identity::Incarnation;
pub use interface::{
    Effect, EntryBytes, Input, Lane, LinkId, Now, PeerStatus, ReplicationSettings, Ticket, Traffic,
};
pub use knowledge::Stamp;
pub use members::{
    Contact, MAX_ACTIVE_MEMBERS, MAX_MEMBERS, Member, MemberAct, MemberDecodeError, MemberVersion,
    Members, Neighbours, NoLink, Standing, SteerError, decode_members, encode_members,
};

use catchup::{Answer, Gap};
use fanout::Recent;
use frame::{Frame, Packer};
use identity::Identity;
use intake::Appending;
use knowledge::Row;
use peer::{Link, Peer};
use probe::Probes;
use reconcile::Reconcile;
use samples::Samples;

/// The state machine of one node.
#[derive(Debug)]
pub struct Replication {
    settings: ReplicationSettings,
    /// The present origin of this node.
    origin: Origin,
    /// Whether a new origin was asked for and has not come; nothing of the old one is sent then.
    renewing: bool,
    /// Who else may have the origin, and what this node vouches for.
    identity: Identity,
    /// What is durable here; grows by [`Replication::grow`] alone.
    durable: VersionVector,
    /// The same in its short form, in which it is told.
    told: VersionVector,
    /// What origins imply of each other; known for each that has a name.
    chains: Chains,
    names: BTreeMap<Origin, RegionName>,
    members: Members,
    /// Since when this region is on its way out.
    leaving_since: Option<Duration>,
    /// Origins of which a peer has entries, and knows no name either; older data may have such.
    nameless: BTreeSet<Origin>,
    peers: BTreeMap<RegionName, Peer>,
    links: BTreeMap<LinkId, RegionName>,
    /// What is known of the other regions, linked or not.
    rows: BTreeMap<RegionName, Row>,
    /// Of this run of the process.
    stamp: Stamp,
    probes: Probes,
    /// The newest own entries, shared by all links that keep up.
    recent: Recent,
    packer: Packer,
    samples: Samples,
    /// The greatest admission time of own entries.
    clock: Timestamp,
    gaps: BTreeMap<Origin, Gap>,
    appends: BTreeMap<Ticket, Appending>,
    reads: BTreeMap<Ticket, Reading>,
    reconcile: Reconcile,
    last_ticket: u64,
    /// Counts what changed in what is known of the regions.
    knowledge: u64,
}

/// The moment and the effects of one call of [`Replication::handle`].
#[derive(Debug)]
struct Turn<'a> {
    now: Now,
    effects: &'a mut Vec<Effect>,
}

/// What an outstanding [`Effect::Read`] is for.
#[derive(Debug)]
struct Reading {
    link: LinkId,
    region: RegionName,
    origin: Origin,
    after: Sequence,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To go on with the stream of own entries.
    Stream,
    /// To answer a pull.
    Answer(Answer),
}

impl Turn<'_> {
    /// Sends what must not wait: control frames and fresh entries.
    fn send(&mut self, link: LinkId, bytes: Bytes) {
        self.effects.push(Effect::Send { link, bytes, lane: Lane::Fresh });
    }

    /// Sends what may wait: what catches up or compares.
    fn send_bulk(&mut self, link: LinkId, bytes: Bytes) {
        self.effects.push(Effect::Send { link, bytes, lane: Lane::Bulk });
    }

    fn monotonic(&self) -> Duration {
        self.now.monotonic
    }
}

impl Replication {
    /// Starts with what is durable, and with the regions that the settings name.
    #[must_use]
    pub fn new(settings: ReplicationSettings, vector: VersionVector) -> Self {
        let members = Members::named(settings.region.clone(), &settings.peers);
        Self::with_members(settings, vector, members)
    }

    /// Starts with what is durable, and with a member table.
    #[must_use]
    pub fn with_members(
        settings: ReplicationSettings,
        vector: VersionVector,
        members: Members,
    ) -> Self {
        let mut names: BTreeMap<_, _> = settings.names.iter().cloned().collect();
        names.insert(settings.origin, settings.region.clone());
        let mut replication = Self {
            origin: settings.origin,
            renewing: false,
            identity: Identity::new(&settings.incarnation),
            chains: settings.incarnation.chains.clone(),
            samples: Samples::new(vector.sequence(settings.origin)),
            told: settings.incarnation.chains.compact(&vector),
            durable: vector,
            nameless: BTreeSet::new(),
            names,
            members,
            leaving_since: None,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            rows: BTreeMap::new(),
            stamp: Stamp::default(),
            probes: Probes::default(),
            recent: Recent::default(),
            packer: Packer::new(settings.packing.compression),
            clock: Timestamp::default(),
            gaps: BTreeMap::new(),
            appends: BTreeMap::new(),
            reads: BTreeMap::new(),
            reconcile: Reconcile::default(),
            last_ticket: 0,
            knowledge: 0,
            settings,
        };
        replication.meet_members();
        replication
    }

    /// Takes one input and adds what is to be done to `effects`, in order.
    pub fn handle(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let turn = &mut Turn { now, effects };
        self.samples.start(turn.monotonic());
        self.start_stamps(now.wall);
        self.start_settling(turn);
        match input {
            Input::Connected { link, region } => self.handle_connected(link, region, turn),
            Input::Disconnected { link, reason } => self.forget_link(link, reason, turn),
            Input::Frame { link, bytes } => self.handle_frame(link, &bytes, turn),
            Input::Committed { local, vector } => self.handle_committed(local, &vector, turn),
            Input::Appended { ticket, error } => self.handle_appended(ticket, error, turn),
            Input::Read { ticket, entries } => self.handle_read(ticket, entries, turn),
            Input::Renewed { origin, after } => self.handle_renewed(origin, after, turn),
            Input::Ask { ticket, wait } => self.handle_ask(ticket, wait, turn),
            Input::Vouched { ticket, error } => self.handle_vouched(ticket, error, turn),
            Input::Reconcile(input) => self.handle_reconcile(input, turn),
            Input::Timeout => self.handle_timeout(turn),
            Input::Joining { member } => self.handle_joining(member, turn),
            Input::Told { by, members } => self.handle_members(&by, members, turn),
            Input::Steer { region, act } => self.handle_steer(&region, act, turn),
        }
        self.leave_when_done(turn);
        self.start_pulls(turn);
        self.reconcile(turn);
    }

    /// Returns the next monotonic time at which [`Input::Timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let links = links.map(|link| link.next_timeout(self.settings.digest_interval));
        let settling = self.identity.next_timeout().filter(|_| !self.renewing);
        let gaps = self.gaps.values().map(Gap::next_timeout);
        let asked = self.probes.next_timeout().into_iter().chain(self.next_reconcile());
        links.chain(gaps).chain(asked).chain(settling).min()
    }

    /// Returns what is known of every other region that counts, in the order of their names.
    #[must_use]
    pub fn status(&self, now: Now) -> Vec<PeerStatus> {
        let known = |member: &Member| {
            let peer = self.peers.get(&member.region)?;
            Some(self.status_of(member, peer, now))
        };
        self.members.others().filter_map(known).collect()
    }

    fn status_of(&self, member: &Member, peer: &Peer, now: Now) -> PeerStatus {
        let acknowledged = peer.known.sequence(self.origin);
        let behind = acknowledged < self.durable.sequence(self.origin);
        let age = behind.then(|| self.samples.age(acknowledged.next(), now.monotonic));
        PeerStatus {
            region: member.region.clone(),
            standing: member.standing,
            neighbour: self.members.link_with(&member.region).is_ok(),
            connected: peer.link.is_some(),
            entries_behind: peer.known.behind(&self.durable),
            seconds_behind: age.unwrap_or_default().as_secs_f64(),
            entries_missing: self.durable.behind(&peer.known),
            last_error: peer.last_error.clone(),
            clock: peer.clock.measured(now),
            entries: peer.traffic,
            traffic: Traffic::default(),
        }
    }

    fn handle_frame(&mut self, id: LinkId, bytes: &Bytes, turn: &mut Turn<'_>) {
        let Some(region) = self.links.get(&id).cloned() else { return };
        let frame = match Frame::decode_within(bytes, self.settings.packing.longest) {
            Ok(frame) => frame,
            Err(error) => return self.close(id, format!("bad frame: {error}"), turn),
        };
        let Some(link) = self.link_mut(&region) else { return };
        link.heard_at = turn.now.monotonic;
        self.suspect(&region, false, turn);
        let Some(link) = self.link_mut(&region) else { return };
        if let Frame::Hello(hello) = frame {
            return self.handle_hello(id, &region, hello, turn);
        }
        if link.origin.is_none() {
            // Ahead of its hello: what it carries will be pulled.
            return;
        }
        match frame {
            Frame::Hello(_) => {}
            Frame::Entries(batch) => self.handle_entries(&region, batch, turn),
            Frame::Ack { vector } => self.handle_ack(&region, &vector, turn),
            Frame::Digest(digest) => self.handle_digest(&region, digest, turn),
            Frame::Pull(pull) => self.handle_pull(&region, pull, turn),
            Frame::Names(names) => self.learn_names(&region, names, turn),
            Frame::Claim(claim) => self.handle_claim(&region, claim, turn),
            Frame::Verdict(verdict) => self.handle_verdict(&region, verdict, turn),
            Frame::Knowledge(knowledge) => self.handle_knowledge(&region, knowledge, turn),
            Frame::Probe(probe) => self.handle_probe(&region, probe, turn),
            Frame::ProbeAnswer(answer) => self.handle_answer(&region, answer, turn),
            Frame::Members(members) => self.handle_members(&region, members, turn),
            Frame::TooOld(too_old) => self.handle_too_old(id, &region, too_old, turn),
            Frame::Ranges(ranges) => {
                self.count_reconciled(id, bytes.len());
                self.handle_ranges(id, &region, ranges, turn);
            }
            Frame::Fetch(fetch) => self.handle_fetch(id, &region, fetch, turn),
            Frame::Bundles(bundles) => {
                self.count_reconciled(id, bytes.len());
                self.handle_bundles(id, bundles, turn);
            }
        }
    }

    fn handle_committed(&mut self, local: Vec<Entry>, vector: &VersionVector, turn: &mut Turn<'_>) {
        self.grow(vector);
        self.settle_rows();
        let durable = self.durable.sequence(self.origin);
        self.samples.note(durable, turn.monotonic());
        let own = local.into_iter().filter(|entry| entry.origin == self.origin);
        for entry in own.filter(|entry| entry.sequence <= durable) {
            self.clock = self.clock.max(entry.admitted);
            self.recent.push(entry, &self.settings);
        }
        self.forget_samples();
        self.pump_all(turn);
        self.start_appends(turn);
    }

    fn handle_read(&mut self, ticket: Ticket, entries: Vec<Entry>, turn: &mut Turn<'_>) {
        let Some(reading) = self.reads.remove(&ticket) else { return };
        let live = self.links.contains_key(&reading.link);
        if !live {
            return;
        }
        // The journal may be ahead of what was published; what was not is not sent yet.
        let durable = self.durable.sequence(reading.origin);
        let next = reading.after.next();
        let entries: Vec<Entry> = (next.0..)
            .zip(entries)
            .take_while(|(sequence, entry)| {
                entry.origin == reading.origin
                    && entry.sequence.0 == *sequence
                    && entry.sequence <= durable
            })
            .map(|(_, entry)| entry)
            .collect();
        match reading.purpose {
            Purpose::Stream => self.continue_stream(&reading, entries, turn),
            Purpose::Answer(answer) => self.answer_pull(&reading, answer, &entries, turn),
        }
    }

    fn handle_timeout(&mut self, turn: &mut Turn<'_>) {
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        for region in &regions {
            self.check_link(region, turn);
        }
        self.send_news(turn);
        self.check_probes(turn);
        self.expire_pulls(turn);
        self.check_settling(turn);
    }

    /// Raises what a peer is known to have; asks for a new origin if it has more of this node's
    /// own than this node.
    fn learn(&mut self, region: &RegionName, vector: &VersionVector, turn: &mut Turn<'_>) {
        let most = self.durable.len() + frame::MAX_ORIGINS;
        let Self { peers, chains, .. } = self;
        let Some(peer) = peers.get_mut(region) else { return };
        chains.merge(&mut peer.known, vector);
        self.learn_row(region, vector, turn);
        let Some(peer) = self.peers.get_mut(region) else { return };
        let own = peer.known.sequence(self.origin);
        if let Some(link) = peer.link.as_mut() {
            link.window.acknowledge(own);
            link.relayed.settle(&peer.known, Duration::ZERO);
            let too_many = peer.known.len() > most;
            if too_many {
                let id = link.id;
                return self.close(id, "peer names too many origins".to_owned(), turn);
            }
        }
        if own > self.durable.sequence(self.origin) {
            self.give_way(region, own, turn);
        }
    }

    /// Asks for a new origin because a peer knows more of the present one.
    fn give_way(&mut self, region: &RegionName, known: Sequence, turn: &mut Turn<'_>) {
        let reason = format!("{region} knows {known} entries of the origin, more than are here");
        self.ask_for_origin(reason, turn);
    }

    fn ask_for_origin(&mut self, reason: String, turn: &mut Turn<'_>) {
        if !self.renewing {
            self.renewing = true;
            turn.effects.push(Effect::RenewOrigin { reason });
        }
    }

    /// Takes note of what is durable.
    fn grow(&mut self, vector: &VersionVector) {
        let Self { durable, told, chains, .. } = self;
        let new: Vec<Dot> = vector.iter().filter(|dot| !durable.contains(*dot)).collect();
        let implies = |dot: &Dot| {
            durable.sequence(dot.origin) == Sequence::ZERO && !chains.after(dot.origin).is_empty()
        };
        let implies = new.iter().any(implies);
        for dot in new {
            durable.raise(dot.origin, dot.sequence);
            told.raise(dot.origin, dot.sequence);
        }
        if implies {
            *told = chains.compact(durable);
        }
    }

    fn forget_samples(&mut self) {
        let staying = self.peers.iter().filter(|(region, _)| !self.is_gone(region));
        let acknowledged = staying.map(|(region, peer)| {
            let far = self.rows.get(region).map(|row| row.held.sequence(self.origin));
            peer.known.sequence(self.origin).max(far.unwrap_or_default())
        });
        if let Some(least) = acknowledged.min() {
            self.samples.forget(least);
        }
    }

    fn link_mut(&mut self, region: &RegionName) -> Option<&mut Link> {
        self.peers.get_mut(region)?.link.as_mut()
    }

    /// Iterates over the links whose peer has introduced itself.
    fn greeted(&self) -> impl Iterator<Item = (&RegionName, &Peer, &Link, Origin)> {
        self.peers.iter().filter_map(|(region, peer)| {
            let link = peer.link.as_ref()?;
            Some((region, peer, link, link.origin?))
        })
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }
}

#[cfg(test)]
mod tests;
