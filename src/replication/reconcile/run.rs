//! One run: a walk through all documents with one peer, and the documents that are asked for,
//! adopted and judged on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anabranch_crdt::ids::{DocumentId, RegionName};
use anabranch_crdt::version::VersionVector;

use super::fingerprint::RunId;
use super::interface::{BatchNumber, Repair, RequestId, Want};
use super::range::share_before;
use super::walk::Walk;
use crate::replication::{LinkId, Ticket};

/// What a run is for.
#[derive(Debug, Clone)]
pub(in crate::replication) enum Purpose {
    /// To take over what the peer has, and to go on with its log from `goal` on.
    Bootstrap {
        /// What the peer had before the first question.
        goal: VersionVector,
    },
    /// To prove that both have the same.
    Verify {
        /// What asked for it.
        request: Option<RequestId>,
        /// Whether what is broken is repaired.
        repair: Repair,
    },
}

/// A walk with one peer.
#[derive(Debug)]
pub(in crate::replication) struct Run {
    pub(super) id: RunId,
    pub(super) region: RegionName,
    pub(super) link: LinkId,
    pub(super) purpose: Purpose,
    /// Whether it goes through all documents, or only those it was told.
    pub(super) whole: bool,
    pub(super) walk: Walk,
    /// The own digests that are being read.
    pub(super) reading: Option<Ticket>,
    /// The walk rests until then, to keep its rate, or after a failure.
    pub(super) resting_until: Duration,
    /// Documents that are to be asked for.
    pub(super) queue: VecDeque<Wanted>,
    pub(super) batches: BTreeMap<BatchNumber, Batch>,
    last_batch: u32,
    /// Documents that were not the same when they were compared.
    pub(super) suspects: BTreeMap<DocumentId, Suspect>,
    /// Documents that the peer cannot give, or that cannot be adopted.
    pub(super) unreadable: BTreeSet<DocumentId>,
    pub(super) raising: Option<Ticket>,
    pub(super) figures: Figures,
    pub(super) began: Duration,
    /// Effects that failed since one succeeded.
    pub(super) failures: u32,
}

/// A document that is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) document: DocumentId,
    /// Whether this node has something of it, so that its heads must be read first.
    pub(super) known: bool,
}

/// Documents that are dealt with together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) documents: Vec<DocumentId>,
    pub(super) stage: Stage,
}

/// How far a batch is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The own heads are being read. What is durable was noted before.
    Heads { ticket: Ticket, here: VersionVector },
    /// The peer was asked. What is durable on both sides was noted before.
    Asked(Asked),
    /// What came is being adopted.
    Adopting(Ticket),
    /// It is being looked up what the peer lacks, whose heads were read after it had `there`.
    Checking { ticket: Ticket, there: VersionVector },
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wants: Vec<Want>,
    pub(super) here: VersionVector,
    pub(super) there: VersionVector,
    pub(super) deadline: Duration,
    pub(super) tries: u8,
}

/// A document that was not the same, and is looked at again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    /// When; `None` while it is being looked at.
    pub(super) due: Option<Duration>,
    pub(super) tries: u8,
    /// Whether it turned out to be broken.
    pub(super) broken: bool,
}

/// What a run has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) compared: u64,
    pub(super) equal: u64,
    pub(super) adopted: u64,
    pub(super) in_flight: u64,
    pub(super) broken: u64,
    pub(super) repaired: u64,
    pub(super) bytes: u64,
}

/// With whom a run is held.
#[derive(Debug, Clone)]
pub(super) struct Partner {
    pub(super) region: RegionName,
    pub(super) link: LinkId,
}

impl Run {
    pub(super) fn new(
        id: RunId,
        with: Partner,
        purpose: Purpose,
        walk: Walk,
        now: Duration,
    ) -> Self {
        Self {
            id,
            region: with.region,
            link: with.link,
            purpose,
            whole: true,
            walk,
            reading: None,
            resting_until: Duration::ZERO,
            queue: VecDeque::new(),
            batches: BTreeMap::new(),
            last_batch: 0,
            suspects: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            raising: None,
            figures: Figures::default(),
            began: now,
            failures: 0,
        }
    }

    pub(super) fn is_bootstrap(&self) -> bool {
        match self.purpose {
            Purpose::Bootstrap { .. } => true,
            Purpose::Verify { .. } => false,
        }
    }

    /// Tells whether the walk may go on: there is room for what it will find, and it is time.
    pub(super) fn may_walk(&self, now: Duration) -> bool {
        self.has_room() && self.resting_until <= now
    }

    fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUE && self.suspects.len() < MAX_SUSPECTS
    }

    /// Tells whether nothing is left to be done but to end.
    pub(super) fn is_exhausted(&self) -> bool {
        self.walk.is_done()
            && self.queue.is_empty()
            && self.batches.is_empty()
            && self.suspects.is_empty()
    }

    /// Adds a batch, and returns its number.
    pub(super) fn add_batch(&mut self, batch: Batch) -> BatchNumber {
        self.last_batch = self.last_batch.wrapping_add(1);
        let number = BatchNumber(self.last_batch);
        self.batches.insert(number, batch);
        number
    }

    /// Removes the batch that waits for a ticket.
    pub(super) fn take_batch(&mut self, answered: Ticket) -> Option<Batch> {
        let waits = |batch: &Batch| match batch.stage {
            Stage::Heads { ticket, .. }
            | Stage::Adopting(ticket)
            | Stage::Checking { ticket, .. } => ticket == answered,
            Stage::Asked(_) => false,
        };
        let found = self.batches.iter().find(|(_, batch)| waits(batch));
        let number = found.map(|(&number, _)| number)?;
        self.batches.remove(&number)
    }

    /// Returns the first document that is not dealt with yet; `None` if all are.
    pub(super) fn low_water(&self) -> Option<DocumentId> {
        let queued = self.queue.iter().map(|wanted| wanted.document);
        let under_way = self.batches.values().flat_map(|batch| batch.documents.iter().copied());
        let lost = self.unreadable.iter().copied();
        let suspects = self.suspects.keys().copied();
        queued.chain(under_way).chain(lost).chain(suspects).chain(self.walk.position()).min()
    }

    pub(super) fn progress(&self) -> f64 {
        if self.whole { self.low_water().map_or(1.0, share_before) } else { 0.0 }
    }

    /// Returns when something is due that no input will bring about.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let suspects = self.suspects.values().filter_map(|suspect| suspect.due);
        let suspects = suspects.min().filter(|_| self.batches.len() < MAX_BATCHES);
        let deadlines = self.batches.values().filter_map(|batch| match &batch.stage {
            Stage::Asked(asked) => Some(asked.deadline),
            Stage::Heads { .. } | Stage::Adopting(_) | Stage::Checking { .. } => None,
        });
        let walk = self.walk.next_timeout().map(|at| at.max(self.resting_until));
        let rest = (self.resting_until > Duration::ZERO && self.reading.is_none())
            .then_some(self.resting_until)
            .filter(|_| !self.walk.is_done() && self.walk.wants_stretch());
        let walk = walk.into_iter().chain(rest).min().filter(|_| self.has_room());
        suspects.into_iter().chain(deadlines).chain(walk).min()
    }
}

/// Documents that wait to be asked for, above which the walk waits.
const MAX_QUEUE: usize = 8_192;

/// Documents that are looked at again, above which the walk waits.
const MAX_SUSPECTS: usize = 4_096;

/// Batches under way at a time, so that asking, reading and adopting overlap.
pub(super) const MAX_BATCHES: usize = 4;
