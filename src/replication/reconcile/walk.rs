//! The asking side of a comparison: walks through the space of document ids once, a few stretches
//! at a time, and finds every document that the peer does not have as this node has it.
//!
//! A stretch is as many of the own documents as fit, so memory does not grow with their number. A
//! question may be lost, repeated or late, and so may its answer: each is asked until the first
//! answer comes, and what comes after that is ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::ids::DocumentId;

use super::answer::{Ask, Content, Part};
use super::fingerprint::{Fingerprint, RunId, Side};
use super::range::{DocumentDigest, rest, successor, within};

/// Names a question within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskNumber(pub u32);

/// A document that is not the same at both nodes, or not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    /// The document.
    pub(super) document: DocumentId,
    /// What this node has.
    pub(super) here: Option<DocumentDigest>,
    /// What the peer has.
    pub(super) there: Option<DocumentDigest>,
}

/// Why a comparison cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WalkError {
    /// The answer does not belong to the question.
    #[error("an answer does not fit its question")]
    Misfit,
    /// The peer has split a range again and again without coming to its documents.
    #[error("a range is split without end")]
    Endless,
    /// A question was repeated in vain.
    #[error("questions are not answered")]
    Unanswered,
}

/// What an answer brought.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is not the same.
    pub(super) differences: Vec<Difference>,
    /// How many documents are the same.
    pub(super) equal: u64,
}

/// One comparison.
#[derive(Debug)]
pub(super) struct Walk {
    run: RunId,
    /// Where the next stretch begins; `None` behind the last one.
    next: Option<DocumentId>,
    /// Whether the next stretch is being read.
    reading: bool,
    stretches: BTreeMap<DocumentId, Stretch>,
    asks: BTreeMap<AskNumber, Open>,
    last: u32,
}

/// Own documents that are being compared.
#[derive(Debug)]
struct Stretch {
    items: Vec<DocumentDigest>,
    /// Questions about it that are open.
    open: usize,
}

/// A question that is not answered.
#[derive(Debug)]
struct Open {
    stretch: DocumentId,
    ask: Ask,
    depth: u8,
    tries: u8,
    /// When it is asked again; `None` before it was asked at all.
    deadline: Option<Duration>,
}

impl Walk {
    /// Starts a comparison at `first`; without one, it has come to its end.
    #[must_use]
    pub(super) fn new(first: Option<DocumentId>, run: RunId) -> Self {
        Self {
            run,
            next: first,
            reading: false,
            stretches: BTreeMap::new(),
            asks: BTreeMap::new(),
            last: 0,
        }
    }

    /// Returns what is to be read next, if there is room for it. It is then said by
    /// [`Walk::stretch`].
    pub(super) fn next_stretch(&mut self) -> Option<IdRange> {
        let first = self.next.filter(|_| self.wants_stretch())?;
        self.reading = true;
        Some(IdRange { first, end: None })
    }

    /// Tells whether there is room for another stretch, and something left.
    #[must_use]
    pub(super) fn wants_stretch(&self) -> bool {
        self.next.is_some() && !self.reading && self.stretches.len() < MAX_STRETCHES
    }

    /// Takes a stretch of own documents that was read, and whether more follow.
    pub(super) fn stretch(&mut self, items: Vec<DocumentDigest>, more: bool) {
        self.reading = false;
        let Some(first) = self.next else { return };
        let end = items.last().filter(|_| more).and_then(|last| successor(last.document));
        self.next = end;
        let range = IdRange { first, end };
        self.stretches.insert(first, Stretch { items, open: 0 });
        self.ask(first, range, 0);
    }

    /// Lets the stretch that could not be read be read again.
    pub(super) fn stretch_failed(&mut self) {
        self.reading = false;
    }

    /// Returns the questions that are to be asked now, the first time or again.
    ///
    /// # Errors
    /// [`WalkError::Unanswered`].
    pub(super) fn due(
        &mut self,
        now: Duration,
        patience: Duration,
    ) -> Result<Vec<(AskNumber, Ask)>, WalkError> {
        let asked = self.asks.values().filter(|open| open.deadline.is_some()).count();
        let mut room = MAX_ASKS.saturating_sub(asked);
        let mut due = Vec::new();
        for (&number, open) in &mut self.asks {
            match open.deadline {
                Some(deadline) if deadline > now => continue,
                Some(_) if open.tries >= MAX_TRIES => return Err(WalkError::Unanswered),
                None if room == 0 => continue,
                None => room -= 1,
                Some(_) => {}
            }
            open.tries += 1;
            open.deadline = Some(now + patience);
            due.push((number, open.ask));
        }
        Ok(due)
    }

    /// Takes an answer. One that comes a second time changes nothing.
    ///
    /// # Errors
    /// See [`WalkError`].
    pub(super) fn answered(
        &mut self,
        number: AskNumber,
        parts: &[Part],
    ) -> Result<Found, WalkError> {
        let Some(open) = self.asks.get(&number) else { return Ok(Found::default()) };
        let ends = check_parts(&open.ask, parts)?;
        let Open { stretch, ask, depth, .. } =
            self.asks.remove(&number).ok_or(WalkError::Misfit)?;
        let mut found = Found::default();
        let mut first = Some(ask.range.first);
        for (part, end) in parts.iter().zip(ends) {
            let Some(range) = rest(ask.range, first).map(|rest| IdRange { end, ..rest }) else {
                break;
            };
            self.compare(stretch, range, &part.content, depth, &mut found)?;
            first = end;
        }
        if let Some(rest) = rest(ask.range, first) {
            // What the answer did not come to. It is no deeper: the walk has moved on.
            self.ask(stretch, rest, depth);
        }
        self.close(stretch);
        Ok(found)
    }

    /// Tells whether everything was compared.
    #[must_use]
    pub(super) fn is_done(&self) -> bool {
        self.next.is_none() && !self.reading && self.stretches.is_empty()
    }

    /// Returns the first id that is not compared yet; `None` if there is none.
    #[must_use]
    pub(super) fn position(&self) -> Option<DocumentId> {
        let asked = self.asks.values().map(|open| open.ask.range.first).min();
        asked.into_iter().chain(self.next).min()
    }

    /// Returns when a question is to be asked again.
    #[must_use]
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.asks.values().filter_map(|open| open.deadline).min()
    }

    fn compare(
        &mut self,
        stretch: DocumentId,
        range: IdRange,
        content: &Content,
        depth: u8,
        found: &mut Found,
    ) -> Result<(), WalkError> {
        let own = self.stretches.get(&stretch).ok_or(WalkError::Misfit)?;
        let items = within(range, &own.items);
        match content {
            Content::Equal => found.equal += items.len() as u64,
            Content::Counted(count, fingerprint) => {
                let here = Fingerprint::of(items, Side::Asker, self.run);
                if *count as usize == items.len() && *fingerprint == here {
                    found.equal += items.len() as u64;
                } else if depth >= MAX_DEPTH {
                    return Err(WalkError::Endless);
                } else {
                    self.ask(stretch, range, depth + 1);
                }
            }
            Content::Listed(listed) => match_up(items, listed, found),
        }
        Ok(())
    }

    fn ask(&mut self, stretch: DocumentId, range: IdRange, depth: u8) {
        let Some(own) = self.stretches.get_mut(&stretch) else { return };
        let items = within(range, &own.items);
        let ask = Ask {
            range,
            count: u32::try_from(items.len()).unwrap_or(u32::MAX),
            fingerprint: Fingerprint::of(items, Side::Asker, self.run),
        };
        own.open += 1;
        self.last = self.last.wrapping_add(1);
        let open = Open { stretch, ask, depth, tries: 0, deadline: None };
        self.asks.insert(AskNumber(self.last), open);
    }

    /// Takes note that a question about a stretch is answered.
    fn close(&mut self, stretch: DocumentId) {
        let Some(own) = self.stretches.get_mut(&stretch) else { return };
        own.open = own.open.saturating_sub(1);
        if own.open == 0 {
            self.stretches.remove(&stretch);
        }
    }
}

/// Checks that an answer covers the beginning of what was asked, in order, with documents where
/// they belong; returns where its parts end.
fn check_parts(ask: &Ask, parts: &[Part]) -> Result<Vec<Option<DocumentId>>, WalkError> {
    let mut first = Some(ask.range.first);
    let mut ends = Vec::with_capacity(parts.len());
    for part in parts {
        let range = rest(ask.range, first).ok_or(WalkError::Misfit)?;
        let inside = match (part.end, range.end) {
            (end, None) => end.is_none_or(|end| range.first < end),
            (Some(end), Some(last)) => range.first < end && end <= last,
            (None, Some(_)) => false,
        };
        let fits = match &part.content {
            Content::Equal => part.end == ask.range.end && parts.len() == 1,
            Content::Counted(..) => true,
            Content::Listed(items) => are_listed_in(IdRange { end: part.end, ..range }, items),
        };
        if !inside || !fits {
            return Err(WalkError::Misfit);
        }
        ends.push(part.end);
        first = part.end;
    }
    if parts.is_empty() { Err(WalkError::Misfit) } else { Ok(ends) }
}

fn are_listed_in(range: IdRange, items: &[DocumentDigest]) -> bool {
    items.is_sorted_by(|a, b| a.document < b.document)
        && items.iter().all(|item| range.contains(item.document))
}

/// Compares two lists of the same range.
fn match_up(here: &[DocumentDigest], there: &[DocumentDigest], found: &mut Found) {
    let (mut here, mut there) = (here.iter().peekable(), there.iter().peekable());
    loop {
        let (own, other) = (here.peek().copied(), there.peek().copied());
        let document = match (own, other) {
            (None, None) => return,
            (Some(own), Some(other)) => own.document.min(other.document),
            (Some(only), None) | (None, Some(only)) => only.document,
        };
        let own = here.next_if(|item| item.document == document).copied();
        let other = there.next_if(|item| item.document == document).copied();
        let settled = own.zip(other).is_some_and(|(own, other)| {
            own.digest == other.digest && !own.pending && !other.pending
        });
        if settled {
            found.equal += 1;
        } else {
            found.differences.push(Difference { document, here: own, there: other });
        }
    }
}

/// Own documents of one stretch: what a fingerprint is worth, at little memory.
pub(super) const STRETCH_DOCUMENTS: usize = 4_096;

/// Stretches that are compared at a time, so that a far peer does not make the walk slow.
const MAX_STRETCHES: usize = 4;

/// Questions that are under way at a time: what the answerer takes without losing any.
pub(super) const MAX_ASKS: usize = 8;

/// How often a question is asked before the comparison is given up.
const MAX_TRIES: u8 = 5;

/// How often a range is split at most. Honest peers need two splits for what they read at once;
/// documents that come and go meanwhile may cost one more each time.
const MAX_DEPTH: u8 = 16;
