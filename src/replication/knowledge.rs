//! What every region has durably, as far as this node knows, and who is to hear of it.
//!
//! A row says what one region has. A region with a live link says so itself: by its hello, its
//! acknowledgements and its digests. Of the others this node knows by hearsay: whoever has a link
//! to a region passes its row on to those who have none, at once when it advances (many advances
//! make one frame), and as a whole with every digest, which repairs what was lost. So an
//! acknowledgement comes back over a chain or a hub as fast as the entry went out, and in a full
//! mesh nothing is ever sent.
//!
//! # Why rows have a stamp
//!
//! Rows are merged by the greater sequence, so they may be lost, repeated and late. That would
//! hold a region for ever to what it had before its disk was rolled back. So a row belongs to one
//! run of the region's process, and a row of a later run replaces that of an earlier one. A run is
//! stamped with the wall clock of its start; a region that hears a row of itself with a stamp that
//! is not below its own, as after its clock was set back, takes a greater one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::fanout::is_deaf_to;
use super::frame::{Frame, Hello, Knowledge, KnownRow};
use super::{LinkId, Replication, Turn};

/// Orders the runs of one region's process, and within a run the origins that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What is known of one region other than this node's own.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) stamp: Stamp,
    /// The region's present origin.
    pub(super) origin: Origin,
    /// What is durable there.
    pub(super) held: Arc<VersionVector>,
    /// When that was last confirmed by the region itself, on the monotonic clock here.
    pub(super) as_of: Option<Duration>,
    /// Up to when this node has everything that the region had admitted, on the same clock.
    pub(super) current: Option<Duration>,
    /// What the region had admitted at later moments, the earliest first.
    marks: VecDeque<Mark>,
}

/// What a region had admitted at a moment.
#[derive(Debug)]
struct Mark {
    at: Duration,
    admitted: VersionVector,
}

impl Row {
    fn new(stamp: Stamp, origin: Origin) -> Self {
        Self {
            stamp,
            origin,
            held: Arc::default(),
            as_of: None,
            current: None,
            marks: VecDeque::new(),
        }
    }

    /// Begins anew for another run of the region, if it is one. What was admitted in an earlier
    /// run stays admitted, so the marks stay.
    fn restart(&mut self, stamp: Stamp, origin: Origin) {
        if self.stamp != stamp {
            self.held = Arc::default();
        }
        (self.stamp, self.origin) = (stamp, origin);
    }

    /// Raises what the region has, and returns the origins of which it has more now.
    fn raise(&mut self, vector: &VersionVector, chains: &Chains) -> Vec<Origin> {
        let is_new = |dot: &Dot| dot.sequence > self.held.sequence(dot.origin);
        let mut news: Vec<Dot> = vector.iter().filter(is_new).collect();
        if news.iter().any(|dot| self.held.sequence(dot.origin) == Sequence::ZERO) {
            // The first entry of an origin implies what stands before it.
            news = chains.expand(&news.into_iter().collect()).iter().filter(is_new).collect();
        }
        if !news.is_empty() {
            let held = Arc::make_mut(&mut self.held);
            news.iter().for_each(|dot| held.raise(dot.origin, dot.sequence));
        }
        news.into_iter().map(|dot| dot.origin).collect()
    }

    /// Adds what origins imply that have become known.
    pub(super) fn expand(&mut self, chains: &Chains) {
        if !chains.are_kept_by(&self.held) {
            self.held = Arc::new(chains.expand(&self.held));
        }
    }

    fn mark(&mut self, at: Duration, admitted: VersionVector, durable: &VersionVector) {
        if self.as_of.is_some_and(|as_of| at <= as_of) {
            return;
        }
        self.as_of = Some(at);
        if self.marks.len() >= MARKS {
            // The earliest tell how old the data is, the latest how new it may become.
            self.marks.pop_back();
        }
        self.marks.push_back(Mark { at, admitted });
        self.settle(durable);
    }

    /// Takes note of what has become durable here.
    fn settle(&mut self, durable: &VersionVector) {
        while self.marks.front().is_some_and(|mark| durable.includes(&mark.admitted)) {
            if let Some(mark) = self.marks.pop_front() {
                self.current = Some(mark.at);
            }
        }
    }
}

/// What a peer is to hear of other regions: the origins that advanced there.
#[derive(Debug, Default)]
pub(super) struct News {
    rows: BTreeMap<RegionName, BTreeSet<Origin>>,
    /// When news may be sent again.
    after: Duration,
}

impl News {
    fn note(&mut self, region: &RegionName, origins: impl IntoIterator<Item = Origin>) {
        self.rows.entry(region.clone()).or_default().extend(origins);
    }

    /// Returns when there is something to send.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.rows.is_empty()).then_some(self.after)
    }
}

impl Replication {
    /// Takes the row of a peer from its hello; the first on a link is believed whatever was known.
    pub(super) fn learn_hello(
        &mut self,
        region: &RegionName,
        hello: &Hello,
        first: bool,
        turn: &mut Turn<'_>,
    ) {
        let known = self.rows.get(region);
        let later = known.is_none_or(|row| hello.stamp > row.stamp);
        let same = known.is_some_and(|row| hello.stamp == row.stamp);
        if !(first || later || same) {
            return;
        }
        let fell = same && known.is_some_and(|row| !hello.vector.includes(&row.held));
        if first && !later && (fell || !same) {
            // What others hold of it looks newer than what it is now: it is to take a newer stamp.
            self.tell_its_own_row(region, turn);
        }
        let row = || Row::new(hello.stamp, hello.origin);
        let row = self.rows.entry(region.clone()).or_insert_with(row);
        if first && fell {
            row.held = Arc::default();
        }
        row.restart(hello.stamp, hello.origin);
        if first || later {
            self.knowledge += 1;
        }
        self.learn_row(region, &hello.vector, turn);
    }

    /// Takes what a peer says to have.
    pub(super) fn learn_row(
        &mut self,
        region: &RegionName,
        vector: &VersionVector,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.rows.get_mut(region) else { return };
        let advanced = row.raise(vector, &self.chains);
        self.spread(region, region, &advanced, turn);
    }

    /// Takes note of what a peer had admitted when its wall clock showed `wall`.
    pub(super) fn learn_moment(
        &mut self,
        region: &RegionName,
        wall: Timestamp,
        vector: &VersionVector,
        turn: &Turn<'_>,
    ) {
        let at = self.peers.get(region).and_then(|peer| peer.clock.moment(wall));
        if let Some(at) = at {
            self.mark(region, at.min(turn.monotonic()), vector);
        }
    }

    fn mark(&mut self, region: &RegionName, at: Duration, vector: &VersionVector) {
        let Self { rows, names, durable, .. } = self;
        let Some(row) = rows.get_mut(region) else { return };
        let own = |dot: &Dot| names.get(&dot.origin).is_none_or(|name| name == region);
        row.mark(at, vector.iter().filter(own).collect(), durable);
        self.knowledge += 1;
    }

    /// Takes note that more has become durable here.
    pub(super) fn settle_rows(&mut self) {
        let Self { rows, durable, .. } = self;
        rows.values_mut().for_each(|row| row.settle(durable));
        self.knowledge += 1;
    }

    pub(super) fn handle_knowledge(
        &mut self,
        region: &RegionName,
        knowledge: Knowledge,
        turn: &mut Turn<'_>,
    ) {
        let said = self.peers.get(region).and_then(|peer| peer.clock.moment(knowledge.wall));
        for row in knowledge.rows {
            if row.region == self.settings.region {
                self.handle_own_row(&row, turn);
            } else if self.hears_only_of(&row.region) {
                self.learn_hearsay(region, said, &row, turn);
            }
        }
    }

    /// Tells whether a region is one of the cluster, and has no link to here that says more.
    fn hears_only_of(&self, region: &RegionName) -> bool {
        let peer = self.peers.get(region);
        peer.is_some_and(|peer| peer.link.as_ref().is_none_or(|link| link.origin.is_none()))
    }

    fn learn_hearsay(
        &mut self,
        from: &RegionName,
        said: Option<Duration>,
        news: &KnownRow,
        turn: &mut Turn<'_>,
    ) {
        let KnownRow { region, stamp, origin, vector, age } = news;
        let row = self.rows.entry(region.clone()).or_insert_with(|| Row::new(*stamp, *origin));
        if *stamp < row.stamp {
            return;
        }
        let other = *stamp != row.stamp;
        row.restart(*stamp, *origin);
        let mut advanced = row.raise(vector, &self.chains);
        if other {
            self.knowledge += 1;
            advanced = vector.iter().map(|dot| dot.origin).collect();
        }
        self.spread(region, from, &advanced, turn);
        if let Some((said, age)) = said.zip(*age) {
            let at = said.min(turn.monotonic()).saturating_sub(age);
            self.mark(region, at, vector);
        }
    }

    /// Takes a greater stamp if others believe what is not true of this node any more.
    fn handle_own_row(&mut self, row: &KnownRow, turn: &mut Turn<'_>) {
        if row.vector.sequence(self.origin) > self.durable.sequence(self.origin) {
            let reason =
                format!("others have more of the origin: {}", row.vector.sequence(self.origin));
            self.ask_for_origin(reason, turn);
        }
        let true_still = row.stamp == self.stamp && self.durable.includes(&row.vector);
        if row.stamp < self.stamp || true_still {
            return;
        }
        self.stamp = row.stamp.next();
        self.introduce_anew(turn);
    }

    /// Goes on under a greater stamp, because this node has another origin now.
    pub(super) fn restamp(&mut self) {
        self.stamp = self.stamp.next();
    }

    /// Takes the first stamp of this run.
    pub(super) fn start_stamps(&mut self, wall: Timestamp) {
        if self.stamp == Stamp::default() {
            self.stamp = Stamp(wall.0.max(1));
        }
    }

    /// Has a peer told what is new in a row, unless it hears the region itself.
    fn spread(
        &mut self,
        region: &RegionName,
        from: &RegionName,
        advanced: &[Origin],
        turn: &mut Turn<'_>,
    ) {
        if advanced.is_empty() {
            return;
        }
        self.knowledge += 1;
        let Some(owner) = self.rows.get(region).map(|row| row.origin) else { return };
        for (name, peer) in &mut self.peers {
            let Some(link) = peer.link.as_mut().filter(|link| is_deaf_to(link, owner)) else {
                continue;
            };
            if name != from && name != region {
                link.news.note(region, advanced.iter().copied());
            }
        }
        self.send_news(turn);
    }

    /// Has a peer told everything of the regions that it has just lost its links to.
    pub(super) fn make_up_for(
        &mut self,
        region: &RegionName,
        lost: &BTreeSet<Origin>,
        turn: &mut Turn<'_>,
    ) {
        let Self { rows, peers, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else { return };
        let lost = rows.iter().filter(|(name, row)| lost.contains(&row.origin) && *name != region);
        for (name, row) in lost {
            link.news.note(name, row.held.iter().map(|dot| dot.origin));
        }
        self.send_news(turn);
    }

    /// Sends what is new to those peers that have not just been told something.
    pub(super) fn send_news(&mut self, turn: &mut Turn<'_>) {
        let now = turn.monotonic();
        let pause = self.settings.digest_interval / NEWS_PER_INTERVAL;
        let Self { rows, peers, .. } = self;
        for peer in peers.values_mut() {
            let Some(link) = peer.link.as_mut() else { continue };
            if link.news.due().is_none_or(|due| due > now) {
                continue;
            }
            link.news.after = now + pause;
            let news = std::mem::take(&mut link.news.rows);
            let news = news.into_iter().filter_map(|(region, origins)| {
                let row = rows.get(&region)?;
                let dot = |origin| Dot { origin, sequence: row.held.sequence(origin) };
                let vector = origins.into_iter().map(dot).collect();
                Some(KnownRow { region, stamp: row.stamp, origin: row.origin, vector, age: None })
            });
            send_rows(link.id, news.collect(), turn);
        }
    }

    /// Sends a peer everything of the regions that it does not hear; part of every digest.
    pub(super) fn send_rows(&self, region: &RegionName, turn: &mut Turn<'_>) {
        let Some(link) = self.peers.get(region).and_then(|peer| peer.link.as_ref()) else { return };
        let deaf = |row: &Row| is_deaf_to(link, row.origin);
        let rows = self.rows.iter().filter(|(name, row)| *name != region && deaf(row));
        let rows = rows.map(|(name, row)| whole(name, row, &self.chains, turn.monotonic()));
        send_rows(link.id, rows.collect(), turn);
    }

    fn tell_its_own_row(&self, region: &RegionName, turn: &mut Turn<'_>) {
        let link = self.peers.get(region).and_then(|peer| peer.link.as_ref());
        if let Some((link, row)) = link.zip(self.rows.get(region)) {
            send_rows(link.id, vec![whole(region, row, &self.chains, turn.monotonic())], turn);
        }
    }
}

fn whole(region: &RegionName, row: &Row, chains: &Chains, now: Duration) -> KnownRow {
    KnownRow {
        region: region.clone(),
        stamp: row.stamp,
        origin: row.origin,
        vector: chains.compact(&row.held),
        age: row.as_of.map(|as_of| now.saturating_sub(as_of)),
    }
}

/// Sends rows in frames of a bounded size.
fn send_rows(link: LinkId, rows: Vec<KnownRow>, turn: &mut Turn<'_>) {
    let mut frame: Vec<KnownRow> = Vec::new();
    let mut dots = 0;
    for row in rows {
        if dots + row.vector.len() > FRAME_DOTS && !frame.is_empty() {
            send_frame(link, std::mem::take(&mut frame), turn);
            dots = 0;
        }
        dots += row.vector.len();
        frame.push(row);
    }
    if !frame.is_empty() {
        send_frame(link, frame, turn);
    }
}

fn send_frame(link: LinkId, rows: Vec<KnownRow>, turn: &mut Turn<'_>) {
    let wall = turn.now.wall;
    turn.send(link, Frame::Knowledge(Knowledge { wall, rows }).encode());
}

/// Moments of one region that wait until this node has what was admitted then.
const MARKS: usize = 8;

/// How many times in a digest interval a peer is told what is new: a pause of 5 ms, which many
/// acknowledgements under load share.
const NEWS_PER_INTERVAL: u32 = 200;

/// Sequences of one frame at most; a row that alone has more travels alone.
const FRAME_DOTS: usize = 4_096;
