//! What is known of one peer, and of the link to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, Sequence};
use anabranch_crdt::version::VersionVector;

use super::clock::{Heard, PeerClock};
use super::frame::BATCH_HEADER_BYTES;
use super::knowledge::News;
use super::{EntryBytes, LinkId, ReplicationSettings, Ticket};

/// One region other than this one. It outlives its links.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What was durable there when it last spoke; every hello starts it anew, because a peer may
    /// come back with an older disk.
    pub(super) known: VersionVector,
    /// Up to where its log is gone, as far as it said so on this link.
    pub(super) floors: VersionVector,
    pub(super) link: Option<Link>,
    pub(super) clock: PeerClock,
    pub(super) last_error: Option<String>,
    pub(super) traffic: EntryBytes,
}

impl EntryBytes {
    /// Counts a batch that came when everything up to `pending` was here or on its way in.
    pub(super) fn receive(&mut self, batch: &[Entry], pending: Sequence) {
        let bytes = |entry: &Entry| super::frame::encoded_entry_bytes(entry) as u64;
        let again = batch.iter().filter(|entry| entry.sequence <= pending);
        self.entry_bytes_received += batch.iter().map(bytes).sum::<u64>();
        self.duplicate_bytes_received += again.map(bytes).sum::<u64>();
    }

    /// Counts a frame of entries, of so many bytes before it was packed.
    pub(super) fn send(&mut self, frame: usize) {
        self.entry_bytes_sent += frame.saturating_sub(BATCH_HEADER_BYTES) as u64;
    }
}

/// One connection to a peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// The peer's present origin; `None` until its hello.
    pub(super) origin: Option<Origin>,
    /// The origins that the peer says it has a live link to.
    pub(super) direct: BTreeSet<Origin>,
    /// The stream of own entries.
    pub(super) window: Window,
    /// The outstanding read that the stream goes on with.
    pub(super) stream_read: Option<Ticket>,
    /// When the stream may read again after a read that gave nothing.
    pub(super) stream_read_after: Duration,
    pub(super) relayed: Relayed,
    /// What it is to hear of regions that it has no link to.
    pub(super) news: News,
    pub(super) inbox: Inbox,
    /// The outstanding append of entries from this link.
    pub(super) append: Option<Ticket>,
    /// Pulls of the peer that wait for the journal.
    pub(super) answers: usize,
    pub(super) connected_at: Duration,
    pub(super) heard_at: Duration,
    pub(super) digest_due: Duration,
    pub(super) last_digest: Duration,
    pub(super) digests: u64,
    /// Whether the peer has confirmed that this process goes on with its present origin.
    pub(super) vouched: bool,
    /// The mark that goes back with the next digest.
    pub(super) heard_mark: Option<Heard>,
    /// When the link is closed because its region is gone.
    pub(super) closes_at: Option<Duration>,
    /// Whether nothing was heard for so long that others had better pass on what comes from here.
    pub(super) suspected: bool,
    /// The digest of the member table that the peer was told, and when.
    pub(super) members_told: Option<(u64, Duration)>,
}

impl Link {
    pub(super) fn new(id: LinkId, now: Duration) -> Self {
        Self {
            id,
            origin: None,
            direct: BTreeSet::new(),
            window: Window::default(),
            stream_read: None,
            stream_read_after: Duration::ZERO,
            relayed: Relayed::default(),
            news: News::default(),
            inbox: Inbox::default(),
            append: None,
            answers: 0,
            connected_at: now,
            heard_at: now,
            digest_due: now,
            last_digest: now,
            digests: 0,
            vouched: false,
            heard_mark: None,
            closes_at: None,
            suspected: false,
            members_told: None,
        }
    }

    pub(super) fn next_timeout(&self, interval: Duration) -> Duration {
        let next = self.digest_due.min(self.gives_up_at(interval));
        let next = self.closes_at.map_or(next, |at| next.min(at));
        let next = self.news.due().map_or(next, |news| news.min(next));
        let doubtful = self.suspected || self.origin.is_none();
        if doubtful { next } else { next.min(self.suspected_at(interval)) }
    }

    /// Returns when the link counts as doubtful if nothing more is heard.
    pub(super) fn suspected_at(&self, interval: Duration) -> Duration {
        self.heard_at + interval * SUSPECT_INTERVALS
    }

    /// Returns when the link counts as dead if nothing more is heard.
    pub(super) fn gives_up_at(&self, interval: Duration) -> Duration {
        match self.origin {
            None => self.connected_at + interval * HELLO_INTERVALS,
            Some(_) => self.heard_at + interval * SILENT_INTERVALS,
        }
    }

    /// Sets the time of the next digest, a little apart from those of other links.
    pub(super) fn schedule_digest(&mut self, now: Duration, interval: Duration) {
        self.digests += 1;
        self.last_digest = now;
        let jitter = u32::from(mix(self.id.0 ^ (self.digests << 32)));
        self.digest_due = now + interval * (7 * 128 + jitter) / 1024;
    }

    /// Makes the next digest due now, unless one has only just gone: others have to hear of a
    /// link that came or went, so that they pass on what does not come over it any more.
    pub(super) fn rush_digest(&mut self, now: Duration, interval: Duration) {
        let spacing = if self.digests == 0 { Duration::ZERO } else { interval / RUSH_SHARE };
        self.digest_due = self.digest_due.min(now.max(self.last_digest + spacing));
    }

    /// Brings the next digest forward, but not closer to the last one than a quarter of the
    /// interval: what is learned from digests must never cause a storm of them.
    pub(super) fn hasten_digest(&mut self, now: Duration, interval: Duration) {
        self.digest_due = self.digest_due.min(now.max(self.last_digest + interval / 4));
    }
}

/// What of the stream of own entries is on its way.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The peer has, or was sent, everything up to here.
    pub(super) sent: Sequence,
    flights: VecDeque<Flight>,
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Flight {
    last: Sequence,
    entries: usize,
    bytes: usize,
}

impl Window {
    /// Goes on after `sequence`, whatever was sent.
    pub(super) fn restart(&mut self, sequence: Sequence) {
        *self = Self { sent: sequence, ..Self::default() };
    }

    pub(super) fn push(&mut self, last: Sequence, entries: usize, bytes: usize) {
        self.sent = self.sent.max(last);
        self.entries += entries;
        self.bytes += bytes;
        self.flights.push_back(Flight { last, entries, bytes });
    }

    pub(super) fn acknowledge(&mut self, sequence: Sequence) {
        while self.flights.front().is_some_and(|flight| flight.last <= sequence) {
            if let Some(flight) = self.flights.pop_front() {
                self.entries -= flight.entries;
                self.bytes -= flight.bytes;
            }
        }
        self.sent = self.sent.max(sequence);
    }

    /// Tells whether another frame of any size may be sent.
    pub(super) fn has_room(&self, settings: &ReplicationSettings) -> bool {
        self.flights.len() < WINDOW_FRAMES
            && self.entries <= settings.batch_entries * (WINDOW_BATCHES - 1)
            && self.bytes <= settings.frame_bytes * (WINDOW_FULL_FRAMES - 1)
    }
}

/// What was relayed over a link and not acknowledged. Best effort: what is left out is pulled.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    pub(super) sent: VersionVector,
    flights: VecDeque<(Origin, Sequence, usize, Duration)>,
    bytes: usize,
}

impl Relayed {
    pub(super) fn push(&mut self, origin: Origin, last: Sequence, bytes: usize, now: Duration) {
        self.sent.raise(origin, last);
        self.bytes += bytes;
        self.flights.push_back((origin, last, bytes, now));
    }

    /// Drops what the peer has, and what is so old that it is lost.
    pub(super) fn settle(&mut self, known: &VersionVector, older: Duration) {
        let bytes = &mut self.bytes;
        self.flights.retain(|&(origin, last, size, at)| {
            let waiting = known.sequence(origin) < last && at >= older;
            if !waiting {
                *bytes -= size;
            }
            waiting
        });
    }

    pub(super) fn has_room(&self, settings: &ReplicationSettings) -> bool {
        self.flights.len() < WINDOW_FRAMES && self.bytes < settings.frame_bytes * 2
    }
}

/// Entries that came in and wait for the append before them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) batches: VecDeque<Vec<Entry>>,
    /// Batches that have overtaken those before them, by their first entry: a fresh frame passes
    /// the bulk ones that it follows, and to ask for it again would send everything twice.
    early: BTreeMap<(Origin, Sequence), Vec<Entry>>,
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, batch: Vec<Entry>) {
        self.bytes += bytes_of(&batch);
        self.entries += batch.len();
        self.batches.push_back(batch);
    }

    pub(super) fn pop(&mut self) -> Option<Vec<Entry>> {
        let batch = self.batches.pop_front()?;
        self.forget(&batch);
        Some(batch)
    }

    /// Keeps a batch that leaves a gap before it.
    pub(super) fn keep_early(&mut self, batch: Vec<Entry>) {
        let Some(first) = batch.first() else { return };
        let place = (first.origin, first.sequence);
        let longer = |kept: &Vec<Entry>| kept.len() >= batch.len();
        if self.early.get(&place).is_some_and(longer) {
            return;
        }
        self.bytes += bytes_of(&batch);
        self.entries += batch.len();
        let shorter = self.early.insert(place, batch).unwrap_or_default();
        self.forget(&shorter);
    }

    /// Returns the origins of which something has come early.
    pub(super) fn early_origins(&self) -> BTreeSet<Origin> {
        self.early.keys().map(|(origin, _)| *origin).collect()
    }

    /// Takes what came early into its place, as far as it follows `pending` without a gap.
    pub(super) fn release_early(&mut self, origin: Origin, mut pending: Sequence) {
        let last = (origin, Sequence(u64::MAX));
        let next = |early: &BTreeMap<(Origin, Sequence), Vec<Entry>>| {
            early.range((origin, Sequence::ZERO)..=last).next().map(|(&place, _)| place)
        };
        while let Some(place) = next(&self.early)
            && place.1 <= pending.next()
            && let Some(mut batch) = self.early.remove(&place)
        {
            self.forget(&batch);
            batch.retain(|entry| entry.sequence > pending);
            if let Some(newest) = batch.last() {
                pending = newest.sequence;
                self.push(batch);
            }
        }
    }

    /// Gives up what came early: it will be pulled.
    pub(super) fn drop_early(&mut self) {
        for batch in std::mem::take(&mut self.early).into_values() {
            self.forget(&batch);
        }
    }

    fn forget(&mut self, batch: &[Entry]) {
        self.bytes -= bytes_of(batch);
        self.entries -= batch.len();
    }

    /// Returns the last sequence of `origin` that waits here.
    pub(super) fn highest(&self, origin: Origin) -> Sequence {
        let last = self.batches.iter().filter_map(|batch| batch.last());
        let last = last.filter(|entry| entry.origin == origin).map(|entry| entry.sequence);
        last.max().unwrap_or_default()
    }

    /// Tells whether an honest peer's windows are exceeded.
    pub(super) fn is_full(&self, settings: &ReplicationSettings) -> bool {
        self.bytes > settings.frame_bytes * INBOX_FULL_FRAMES
            || self.entries > settings.batch_entries * INBOX_BATCHES
    }

    /// Tells whether more may be asked for.
    pub(super) fn is_half_full(&self, settings: &ReplicationSettings) -> bool {
        self.bytes > settings.frame_bytes * INBOX_FULL_FRAMES / 2
            || self.entries > settings.batch_entries * INBOX_BATCHES / 2
    }
}

fn bytes_of(batch: &[Entry]) -> usize {
    batch.iter().map(super::frame::encoded_entry_bytes).sum()
}

/// Scatters the bits of a number; the digests of a node's links shall not fall together.
fn mix(number: u64) -> u8 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (number >> 56) as u8
}

/// Frames of one stream that may be unacknowledged: a round trip of 200 ms at 1,000 commits a
/// second, and a bound on the queue that the transport needs for a link.
const WINDOW_FRAMES: usize = 256;

/// Entries of the own stream that may be unacknowledged, in full batches.
pub(super) const WINDOW_BATCHES: usize = 8;

/// Bytes of the own stream that may be unacknowledged, in full frames.
pub(super) const WINDOW_FULL_FRAMES: usize = 4;

/// Bytes that may wait for the journal per link, in full frames: a window, relays, and pulls.
const INBOX_FULL_FRAMES: usize = 12;

/// Entries that may wait for the journal per link, in full batches.
const INBOX_BATCHES: usize = 24;

/// How many digest intervals a peer may be silent before others are asked to pass on what comes
/// from there: two digests are missing then. It costs no more than some repeated entries if wrong.
const SUSPECT_INTERVALS: u32 = 3;

/// The share of a digest interval that lies between rushed digests at least.
const RUSH_SHARE: u32 = 20;

/// How many digest intervals a peer may take for its hello.
const HELLO_INTERVALS: u32 = 10;

/// How many digest intervals a peer may be silent, although it sends a digest in each.
const SILENT_INTERVALS: u32 = 30;
