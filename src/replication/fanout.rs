//! Fan-out of own entries, and relay of those that a peer does not hear from their origin.

use std::collections::{BTreeMap, VecDeque, vec_deque};

use anabranch_crdt::bug;
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, RegionName, Sequence};
use bytes::Bytes;

use super::frame::{BATCH_HEADER_BYTES, MAX_BATCH_ENTRIES, encode_batch, encoded_entry_bytes};
use super::peer::{Link, Peer};
use super::{Effect, Purpose, Reading, Replication, ReplicationSettings, Turn};

/// The newest own entries without gaps; all are durable.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, entry: Entry, settings: &ReplicationSettings) {
        if let Some(last) = self.entries.back().map(|last| last.sequence) {
            if entry.sequence <= last {
                return;
            }
            if entry.sequence != last.next() {
                self.clear();
            }
        }
        self.bytes += encoded_entry_bytes(&entry);
        self.entries.push_back(entry);
        let too_much = |bytes, entries| {
            bytes > settings.frame_bytes * RECENT_FULL_FRAMES
                || entries > settings.batch_entries * RECENT_BATCHES
        };
        while too_much(self.bytes, self.entries.len()) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= encoded_entry_bytes(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Returns one frame's worth of the entries that follow `after`, if the first is here.
    fn after(
        &self,
        after: Sequence,
        settings: &ReplicationSettings,
    ) -> Option<vec_deque::Iter<'_, Entry>> {
        let first = self.entries.front()?.sequence;
        let skip = usize::try_from(after.next().0.checked_sub(first.0)?).ok()?;
        if skip >= self.entries.len() {
            return None;
        }
        let count = frame_length(self.entries.range(skip..), settings);
        Some(self.entries.range(skip..skip + count))
    }
}

/// Frames that were encoded in this turn, because most peers stand at the same entry.
type Encoded = BTreeMap<(Sequence, usize), Bytes>;

impl Replication {
    /// Sends own entries to every peer, as far as windows allow.
    pub(super) fn pump_all(&mut self, turn: &mut Turn<'_>) {
        let regions: Vec<RegionName> = self.links.values().cloned().collect();
        let mut encoded = Encoded::new();
        for region in &regions {
            self.pump_with(region, &mut encoded, turn);
        }
    }

    /// Sends own entries to a peer, as far as its window allows.
    pub(super) fn pump(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        self.pump_with(region, &mut Encoded::new(), turn);
    }

    fn pump_with(&mut self, region: &RegionName, encoded: &mut Encoded, turn: &mut Turn<'_>) {
        if self.renewing {
            return;
        }
        let (origin, settings) = (self.origin, &self.settings);
        let link = self.peers.get_mut(region).and_then(|peer| peer.link.as_mut());
        let Some(link) = link.filter(|link| link.origin.is_some()) else { return };
        while link.window.has_room(settings) {
            let after = link.window.sent;
            let Some(entries) = self.recent.after(after, settings) else { break };
            let count = entries.len();
            let bytes = encoded
                .entry((after, count))
                .or_insert_with(|| encode_batch(origin, after.next(), entries))
                .clone();
            link.window.push(Sequence(after.0 + count as u64), count, bytes.len());
            turn.send(link.id, bytes);
        }
        self.read_for_stream(region, turn);
    }

    /// Asks the journal for what the stream of a peer lacks and memory does not hold.
    fn read_for_stream(&mut self, region: &RegionName, turn: &mut Turn<'_>) {
        let (origin, durable) = (self.origin, self.durable.sequence(self.origin));
        let ticket = self.next_ticket();
        let Self { settings, peers, reads, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else { return };
        let after = link.window.sent;
        let wanted = after < durable && link.window.has_room(settings);
        let free = link.stream_read.is_none() && link.stream_read_after <= turn.monotonic();
        if !wanted || !free {
            return;
        }
        link.stream_read = Some(ticket);
        let (link, region, purpose) = (link.id, region.clone(), Purpose::Stream);
        reads.insert(ticket, Reading { link, region, origin, after, purpose });
        let (entries, bytes) = (settings.batch_entries, settings.frame_bytes);
        turn.effects.push(Effect::Read { ticket, origin, after, entries, bytes });
    }

    /// Sends what was read for a stream, and goes on with it.
    pub(super) fn continue_stream(
        &mut self,
        reading: &Reading,
        entries: Vec<Entry>,
        turn: &mut Turn<'_>,
    ) {
        let retry_at = turn.monotonic() + self.settings.digest_interval;
        let current = reading.origin == self.origin && !self.renewing;
        let Self { settings, peers, .. } = self;
        let link = peers.get_mut(&reading.region).and_then(|peer| peer.link.as_mut());
        let Some(link) = link else { return };
        link.stream_read = None;
        if entries.is_empty() {
            link.stream_read_after = retry_at;
        }
        let sent = link.window.sent;
        let mut rest = entries;
        rest.retain(|entry| entry.sequence > sent);
        // A pull may have moved the cursor back while the journal was read; then read again.
        if current && rest.first().is_some_and(|entry| entry.sequence == sent.next()) {
            for batch in split_frames(&rest, settings) {
                let Some((first, last)) = ends(batch) else { continue };
                let bytes = encode_batch(reading.origin, first, batch.iter());
                link.window.push(last, batch.len(), bytes.len());
                turn.send(link.id, bytes);
            }
        }
        self.pump(&reading.region, turn);
    }

    /// Passes on entries that have just become durable to the peers that do not hear their
    /// origin. Each node does so once per entry, so nothing goes in circles.
    pub(super) fn relay(&mut self, entries: &[Entry], turn: &mut Turn<'_>) {
        let Self { settings, peers, durable, .. } = self;
        let same_run =
            |a: &Entry, b: &Entry| a.origin == b.origin && a.sequence.next() == b.sequence;
        for run in entries.chunk_by(same_run) {
            for batch in split_frames(run, settings) {
                let Some((first, last)) = ends(batch) else { continue };
                let Some(origin) = batch.first().map(|entry| entry.origin) else { continue };
                if last > durable.sequence(origin) {
                    continue;
                }
                let mut encoded: Option<Bytes> = None;
                for peer in peers.values_mut() {
                    if !wants_relay(peer, origin, first, last, settings) {
                        continue;
                    }
                    let Some(link) = peer.link.as_mut() else { continue };
                    let frame = || encode_batch(origin, first, batch.iter());
                    let bytes = encoded.get_or_insert_with(frame).clone();
                    link.relayed.push(origin, last, bytes.len(), turn.monotonic());
                    turn.send(link.id, bytes);
                }
            }
        }
    }
}

/// Tells whether a batch goes on where the peer stands, and does not reach it directly.
fn wants_relay(
    peer: &Peer,
    origin: Origin,
    first: Sequence,
    last: Sequence,
    settings: &ReplicationSettings,
) -> bool {
    let Some(link) = peer.link.as_ref().filter(|link| is_deaf_to(link, origin)) else {
        return false;
    };
    let cursor = peer.known.sequence(origin).max(link.relayed.sent.sequence(origin));
    first <= cursor.next() && cursor < last && link.relayed.has_room(settings)
}

/// Tells whether a peer has introduced itself, and neither is nor directly hears an origin.
pub(super) fn is_deaf_to(link: &Link, origin: Origin) -> bool {
    let hears = link.direct.contains(&origin) && !bug!(RelayToAll);
    link.origin.is_some_and(|own| own != origin) && !hears
}

/// Counts the entries that fit into one frame; at least one, if there is one.
pub(super) fn frame_length<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    settings: &ReplicationSettings,
) -> usize {
    let mut bytes = BATCH_HEADER_BYTES;
    let fits = |(index, entry): &(usize, &Entry)| {
        bytes += encoded_entry_bytes(entry);
        *index == 0 || bytes <= settings.frame_bytes
    };
    let limit = settings.batch_entries.clamp(1, MAX_BATCH_ENTRIES);
    entries.take(limit).enumerate().take_while(fits).count()
}

fn split_frames<'a>(mut entries: &'a [Entry], settings: &ReplicationSettings) -> Vec<&'a [Entry]> {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = entries.split_at_checked(frame_length(entries.iter(), settings))
        && !frame.is_empty()
    {
        frames.push(frame);
        entries = rest;
    }
    frames
}

fn ends(batch: &[Entry]) -> Option<(Sequence, Sequence)> {
    Some((batch.first()?.sequence, batch.last()?.sequence))
}

/// Bytes of own entries that are kept in memory, in full frames.
const RECENT_FULL_FRAMES: usize = 2;

/// Own entries that are kept in memory, in full batches.
const RECENT_BATCHES: usize = 4;
