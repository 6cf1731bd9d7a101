//! Anti-entropy: finding what is missing, and pulling it.

use std::time::Duration;

use anabranch_crdt::bug;
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, RegionName, Sequence};

use super::fanout::frame_length;
use super::frame::{Frame, Pull, encode_batch};
use super::{Effect, LinkId, Purpose, Reading, Replication, Turn};

/// Entries of one origin that a peer has and this node has not.
#[derive(Debug)]
pub(super) struct Gap {
    /// When to pull, unless entries keep coming by themselves until then.
    due: Duration,
    pull: Option<Outstanding>,
    /// The region that was asked last, in vain.
    tried: Option<RegionName>,
    /// Whether pulls are being answered, so that the next one need not wait.
    eager: bool,
}

#[derive(Debug)]
struct Outstanding {
    link: LinkId,
    region: RegionName,
    deadline: Duration,
    /// Whether anything came.
    answered: bool,
}

impl Gap {
    pub(super) fn next_timeout(&self) -> Duration {
        self.pull.as_ref().map_or(self.due, |pull| pull.deadline)
    }

    fn fail(&mut self, due: Duration) {
        self.tried = self.pull.take().map(|pull| pull.region);
        self.due = due;
        self.eager = false;
    }
}

impl Replication {
    /// Finds what a peer has and this node has not. It is pulled at `due`, or after a grace if
    /// its origin has a live link and will rather send it by itself.
    pub(super) fn note_gaps(&mut self, region: &RegionName, due: Duration, turn: &Turn<'_>) {
        let Some(peer) = self.peers.get(region) else { return };
        let ahead =
            |origin, sequence| origin != self.origin && sequence > self.durable.sequence(origin);
        let known = peer.known.iter().filter(|dot| ahead(dot.origin, dot.sequence));
        let missing = known.filter(|dot| dot.sequence > self.pending(dot.origin));
        let missing: Vec<Origin> = missing.map(|dot| dot.origin).collect();
        for origin in missing {
            self.note_gap(origin, due, turn);
        }
    }

    pub(super) fn note_gap(&mut self, origin: Origin, due: Duration, turn: &Turn<'_>) {
        let live = self.greeted().any(|(_, _, _, owner)| owner == origin);
        let due = if live { due.max(self.grace(turn)) } else { due };
        let gap = self.gaps.entry(origin);
        let gap = gap.or_insert(Gap { due, pull: None, tried: None, eager: false });
        gap.due = gap.due.min(due);
    }

    /// Returns the end of the time in which entries may still come without a pull.
    pub(super) fn grace(&self, turn: &Turn<'_>) -> Duration {
        turn.monotonic() + self.settings.digest_interval
    }

    fn pull_deadline(&self, turn: &Turn<'_>) -> Duration {
        turn.monotonic() + self.settings.digest_interval * PULL_INTERVALS
    }

    /// Takes note that entries of an origin came in over a link.
    pub(super) fn note_progress(
        &mut self,
        origin: Origin,
        link: LinkId,
        from_owner: bool,
        turn: &Turn<'_>,
    ) {
        let (grace, deadline) = (self.grace(turn), self.pull_deadline(turn));
        let Some(gap) = self.gaps.get_mut(&origin) else { return };
        gap.due = grace;
        let Some(pull) = gap.pull.as_mut().filter(|pull| pull.link == link) else { return };
        if from_owner {
            gap.pull = None;
            gap.eager = false;
        } else {
            pull.answered = true;
            pull.deadline = deadline;
        }
    }

    /// Lets pulls go on whose last answer has become durable.
    pub(super) fn resume_pulls(&mut self, origins: &[Origin], turn: &Turn<'_>) {
        for origin in origins {
            if let Some(gap) = self.gaps.get_mut(origin).filter(|gap| gap.eager) {
                gap.due = gap.due.min(turn.monotonic());
            }
        }
    }

    /// Takes note of the end of an answer. The next pull follows at once, unless it was empty.
    pub(super) fn note_answer_end(&mut self, origin: Origin, link: LinkId, turn: &Turn<'_>) {
        let grace = self.grace(turn);
        let Some(gap) = self.gaps.get_mut(&origin) else { return };
        let Some(pull) = gap.pull.take_if(|pull| pull.link == link) else { return };
        gap.eager = pull.answered;
        if gap.eager {
            gap.due = turn.monotonic();
        } else {
            gap.tried = Some(pull.region);
            gap.due = grace;
        }
    }

    /// Gives up the pulls of a link that is gone.
    pub(super) fn abandon_pulls(&mut self, link: LinkId, turn: &Turn<'_>) {
        for gap in self.gaps.values_mut() {
            if gap.pull.as_ref().is_some_and(|pull| pull.link == link) {
                gap.fail(turn.monotonic());
            }
        }
    }

    /// Gives up pulls that were not answered in time; the next peer is asked.
    pub(super) fn expire_pulls(&mut self, turn: &Turn<'_>) {
        for gap in self.gaps.values_mut() {
            if gap.pull.as_ref().is_some_and(|pull| pull.deadline <= turn.monotonic())
                && !bug!(LosePullTimeout)
            {
                gap.fail(turn.monotonic());
            }
        }
    }

    /// Sends the pulls that are due.
    pub(super) fn start_pulls(&mut self, turn: &mut Turn<'_>) {
        let is_due = |gap: &Gap| gap.pull.is_none() && gap.due <= turn.monotonic();
        let due = self.gaps.iter().filter(|(_, gap)| is_due(gap));
        let due: Vec<Origin> = due.map(|(&origin, _)| origin).collect();
        for origin in due {
            self.start_pull(origin, turn);
        }
    }

    fn start_pull(&mut self, origin: Origin, turn: &mut Turn<'_>) {
        let after = self.pending(origin);
        let closed = !self.greeted().any(|(_, peer, ..)| peer.known.sequence(origin) > after);
        if closed || origin == self.origin {
            self.gaps.remove(&origin);
            return;
        }
        // A pull names only what is durable; what came last is awaited before more is asked for.
        let settled = after == self.durable.sequence(origin);
        let chosen = if settled { self.choose_source(origin, after) } else { None };
        let deadline = self.pull_deadline(turn);
        let Some(gap) = self.gaps.get_mut(&origin) else { return };
        let Some((region, link)) = chosen else {
            gap.due = turn.monotonic() + self.settings.digest_interval / 4;
            return;
        };
        gap.pull = Some(Outstanding { link, region, deadline, answered: false });
        let entries = self.settings.batch_entries.saturating_mul(ANSWER_FRAMES);
        let bytes = self.settings.frame_bytes.saturating_mul(ANSWER_FRAMES);
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        turn.send(link, Frame::Pull(Pull { origin, after, entries, bytes }).encode());
    }

    /// Chooses whom to ask: the origin itself first, then around all that have more.
    fn choose_source(&self, origin: Origin, after: Sequence) -> Option<(RegionName, LinkId)> {
        let tried = self.gaps.get(&origin).and_then(|gap| gap.tried.as_ref());
        let has_more = self.greeted().filter(|(_, peer, link, _)| {
            peer.known.sequence(origin) > after
                && !link.inbox.is_half_full(&self.settings)
                && self.pulls_on(link.id) < PULLS_PER_LINK
        });
        let ranked = has_more.map(|(region, _, link, owner)| {
            let rank = match tried {
                None => u8::from(owner != origin),
                Some(tried) => u8::from(region <= tried),
            };
            (rank, region, link.id)
        });
        ranked.min().map(|(_, region, link)| (region.clone(), link))
    }

    fn pulls_on(&self, link: LinkId) -> usize {
        let pulls = self.gaps.values().filter_map(|gap| gap.pull.as_ref());
        pulls.filter(|pull| pull.link == link).count()
    }

    /// Takes a peer's pull: of own entries as the place where its stream goes on, of others as a
    /// question.
    pub(super) fn handle_pull(&mut self, region: &RegionName, pull: Pull, turn: &mut Turn<'_>) {
        let durable = self.durable.sequence(pull.origin);
        if pull.origin == self.origin {
            if pull.after > durable {
                return self.ask_for_origin(turn);
            }
            if let Some(link) = self.link_mut(region)
                && !bug!(TreatLostAsSent)
            {
                link.window.restart(pull.after);
            }
            return self.pump(region, turn);
        }
        let Pull { origin, after, .. } = pull;
        let Self { settings, peers, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else { return };
        if link.answers >= ANSWERS_PER_LINK {
            return;
        }
        link.answers += 1;
        let entries = settings.batch_entries.saturating_mul(ANSWER_FRAMES);
        let bytes = settings.frame_bytes.saturating_mul(ANSWER_FRAMES);
        let answer = Answer {
            entries: (pull.entries as usize).clamp(1, entries.max(1)),
            bytes: (pull.bytes as usize).clamp(1, bytes.max(1)),
        };
        self.continue_answer(region, origin, after, answer, turn);
    }

    /// Sends one frame of what was read for a pull, and goes on with the answer.
    pub(super) fn answer_pull(
        &mut self,
        reading: &Reading,
        mut answer: Answer,
        entries: &[Entry],
        turn: &mut Turn<'_>,
    ) {
        let Reading { region, origin, after, .. } = reading;
        let frame = entries.iter().take(frame_length(entries.iter(), &self.settings));
        let Some(link) = self.link_mut(region) else { return };
        let Some(last) = frame.clone().last().map(|entry| entry.sequence) else {
            let nothing_left = Answer { entries: 0, bytes: 0 };
            return self.continue_answer(region, *origin, *after, nothing_left, turn);
        };
        answer.entries = answer.entries.saturating_sub(frame.len());
        let sent: usize = frame.clone().map(|entry| entry.change.len()).sum();
        answer.bytes = answer.bytes.saturating_sub(sent);
        // What comes next can be relayed, because it goes on from here.
        link.relayed.sent.raise(*origin, last);
        turn.send_bulk(link.id, encode_batch(*origin, after.next(), frame));
        self.continue_answer(region, *origin, last, answer, turn);
    }

    /// Reads on for a pull, or ends its answer, which an empty batch tells.
    fn continue_answer(
        &mut self,
        region: &RegionName,
        origin: Origin,
        after: Sequence,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) {
        let ticket = self.next_ticket();
        let Self { settings, peers, reads, durable, .. } = self;
        let Some(link) = peers.get_mut(region).and_then(|peer| peer.link.as_mut()) else { return };
        if answer.entries == 0 || answer.bytes == 0 || after >= durable.sequence(origin) {
            link.answers = link.answers.saturating_sub(1);
            return turn.send_bulk(link.id, encode_batch(origin, after.next(), [].iter()));
        }
        let (link, region, purpose) = (link.id, region.clone(), Purpose::Answer(answer));
        reads.insert(ticket, Reading { link, region, origin, after, purpose });
        let entries = answer.entries.min(settings.batch_entries.max(1));
        let bytes = answer.bytes.min(settings.frame_bytes);
        turn.effects.push(Effect::Read { ticket, origin, after, entries, bytes });
    }
}

/// What of an answer to a pull is still to be sent, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    entries: usize,
    bytes: usize,
}

/// Pulls of different origins that may be outstanding on one link.
const PULLS_PER_LINK: usize = 2;

/// Full frames of one answer at most: some, so that a long way is not walked for each frame.
const ANSWER_FRAMES: usize = 4;

/// Pulls of one peer that wait for the journal; more are ignored, and asked again by the peer.
const ANSWERS_PER_LINK: usize = 2 * PULLS_PER_LINK;

/// How many digest intervals a peer may take to answer a pull.
const PULL_INTERVALS: u32 = 5;
