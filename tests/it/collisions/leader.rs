//! Leaders in memory: a document, its ledger, and everything that was admitted.

use anabranch_crdt::conflict::Conflict;
use anabranch_crdt::document::{Admitted, Author, Change, Collisions, Document, Ledger};
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{DocumentId, Origin, RegionName, Timestamp};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use serde_json::Value;
use uuid::Uuid;

use super::story::{Deed, Side};

/// The leader of one region, with one document.
#[derive(Debug, Clone)]
pub(crate) struct Leader {
    region: RegionName,
    origin: Origin,
    document: Document,
    ledger: Ledger,
    log: Vec<Admitted>,
    policies: Policies,
}

impl Leader {
    pub(crate) fn new(region: &str, policies: &Policies) -> Self {
        let region: RegionName = region.parse().unwrap();
        Self {
            origin: Origin::of_region(&region, [1; 16]),
            region,
            document: Document::new(),
            ledger: Ledger::default(),
            log: Vec::new(),
            policies: policies.clone(),
        }
    }

    pub(crate) fn write(&mut self, side: &Side) {
        match &side.deed {
            Deed::Edits(edits) => self.edit(side.at, edits),
            Deed::Delete => {
                let change = self.document.delete(&self.author(side.at)).unwrap();
                self.admit(change, side.at);
            }
        }
    }

    pub(crate) fn edit(&mut self, at: u64, edits: &[Edit]) {
        let author = self.author(at);
        let change = self.document.edit(edits, &author, &self.policies).unwrap().unwrap();
        self.admit(change, at);
    }

    fn author(&self, at: u64) -> Author {
        Author { origin: self.origin, at: Timestamp(BASE + at), message: Message::default() }
    }

    fn admit(&mut self, change: Change, at: u64) {
        let made = Collisions::made(&self.document, change.hash);
        self.keep(change, at);
        self.settle(&made);
    }

    fn keep(&mut self, change: Change, at: u64) {
        let (at, by) = (Timestamp(BASE + at), Some(self.origin));
        self.log.push(Admitted { change: change.bytes, at, by });
    }

    /// Takes in what others admitted; tells whether anything was new.
    pub(crate) fn receive(&mut self, changes: &[Admitted]) -> bool {
        let applied = self.document.apply(changes, &self.policies).unwrap();
        self.log.extend(applied.new.iter().map(|index| changes[*index].clone()));
        self.settle(&applied.collisions);
        !applied.new.is_empty()
    }

    fn settle(&mut self, collisions: &Collisions) {
        self.ledger.absorb(&self.document, ID, &self.policies, collisions);
        let own = self.region.clone();
        let admits = |writers: &std::collections::BTreeSet<Origin>| {
            writers.iter().any(|writer| writer.is_of(&own))
        };
        let made = self.document.resolutions(&mut self.ledger, ID, &self.policies, admits).unwrap();
        made.into_iter().for_each(|change| self.keep(change, LATE));
        self.ledger.unsaved();
    }

    pub(crate) fn log(&self) -> &[Admitted] {
        &self.log
    }

    /// What the API shows; `null` for a document that is gone.
    pub(crate) fn json(&self) -> Value {
        self.document.value(&self.policies).unwrap_or(Value::Null)
    }

    /// What Automerge itself shows.
    pub(crate) fn stock(&self) -> Value {
        let bytes: Vec<u8> = self
            .document
            .changes_since(&[])
            .iter()
            .flat_map(|change| change.bytes.clone())
            .collect();
        let mut document = automerge::AutoCommit::new();
        document.load_incremental(&bytes).unwrap();
        serde_json::to_value(automerge::AutoSerde::from(&document)).unwrap()
    }

    /// The ledger, in the order of paths.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = self.ledger.conflicts().cloned().collect();
        conflicts.sort_by_key(|conflict| (conflict.path.clone(), conflict.id));
        conflicts
    }
}

const ID: DocumentId = DocumentId(Uuid::nil());

const BASE: u64 = 1_700_000_000_000_000;

/// When policies write what they decided.
const LATE: u64 = 9_000;
