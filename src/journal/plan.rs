//! The plan of one transaction: which commits go into it, and what their entries are numbered.
//!
//! Planning touches no file, so a commit that cannot be is turned away before anything of it is
//! written, and its neighbours never notice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anabranch_crdt::bug;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{Origin, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::{Commit, CommitError, Draft, Position, Row, Source};

/// Tells the caller of a commit how it went.
pub(super) type Done = Box<dyn FnOnce(Result<Arc<Position>, CommitError>) + Send>;

/// Commits that become durable together.
#[derive(Default)]
pub(super) struct Plan {
    /// New entries, in the order of their commit.
    pub(super) entries: Vec<(Source, Entry)>,
    /// Cache rows, in the order of their commit; they are written after all entries.
    pub(super) rows: Vec<Row>,
    /// What is durable once the plan is.
    pub(super) vector: VersionVector,
    /// Each origin that has new entries, with their greatest admission time.
    pub(super) touched: BTreeMap<Origin, Timestamp>,
    /// Who waits, and whether the commit was turned away.
    pub(super) waiting: Vec<(Done, Result<(), CommitError>)>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("entries", &self.entries.len())
            .field("rows", &self.rows.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Starts from what is durable.
    pub(super) fn after(vector: &VersionVector) -> Self {
        Self { vector: vector.clone(), ..Self::default() }
    }

    /// Takes a commit in, or notes why not.
    pub(super) fn add(&mut self, own: Origin, commit: Commit) {
        let Commit { drafts, origin, entries, rows, lineage, done } = commit;
        let broken = lineage.is_some_and(|lineage| lineage.is_broken()) && !bug!(ForgetLineage);
        let outcome = if broken || origin.is_some_and(|origin| origin != own) {
            Err(CommitError::Superseded)
        } else {
            self.check(own, &entries)
        };
        if outcome.is_ok() {
            drafts.into_iter().for_each(|draft| self.admit(own, draft));
            let last = entries.last().map(Entry::dot);
            entries.into_iter().for_each(|entry| self.take(Source::Remote, entry));
            if last.is_some() && bug!(TruncateBatch, every 50) {
                self.entries.pop();
            }
            self.rows.extend(rows);
        }
        self.waiting.push((done, outcome));
    }

    /// Tells whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty()
    }

    /// Counts the entries that other leaders admitted.
    pub(super) fn remote(&self) -> u64 {
        self.entries.iter().filter(|(source, _)| *source == Source::Remote).count() as u64
    }

    /// Each origin's entries must go on where the vector ends. Nobody but this leader continues
    /// its own origin, so an unknown entry of it from elsewhere is refused, too.
    fn check(&self, own: Origin, entries: &[Entry]) -> Result<(), CommitError> {
        let mut ahead: BTreeMap<Origin, Dot> = BTreeMap::new();
        for dot in entries.iter().map(Entry::dot) {
            let reached = match ahead.get(&dot.origin) {
                Some(reached) => reached.sequence,
                None => self.vector.sequence(dot.origin),
            };
            if dot.sequence <= reached || bug!(IgnoreGap) {
                continue;
            }
            if dot.origin == own || dot.sequence != reached.next() {
                let (expected, found) = (reached.next(), dot.sequence);
                return Err(CommitError::Gap { origin: dot.origin, expected, found });
            }
            ahead.insert(dot.origin, dot);
        }
        Ok(())
    }

    fn admit(&mut self, own: Origin, draft: Draft) {
        let Draft { document, name, admitted, change } = draft;
        let sequence = self.vector.sequence(own).next();
        let entry = Entry { origin: own, sequence, document, name, admitted, change };
        self.take(Source::Local, entry);
    }

    fn take(&mut self, source: Source, entry: Entry) {
        if self.vector.contains(entry.dot()) && !bug!(ForgetDeduplication) {
            return;
        }
        if bug!(DropOneInTenThousand, every 10_000) {
            return;
        }
        let mut entry = entry;
        if source == Source::Remote && bug!(SkipAdmissionTime) {
            entry.admitted = Timestamp::default();
        }
        self.vector.raise(entry.origin, entry.sequence);
        let latest = self.touched.entry(entry.origin).or_default();
        *latest = entry.admitted.max(*latest);
        self.entries.push((source, entry));
    }
}
