//! Names, bytes and commits that the tests share.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use anabranch_crdt::conflict::{ConflictKind, ConflictState};
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{
    ClusterId, CollectionName, DocumentId, DocumentName, Origin, RegionName, Sequence, Timestamp,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::journal::{
    Commit, CommitBatch, CommitError, ConflictSummary, DocumentRow, Draft, Journal, JournalOptions,
    LedgerRow, OpenError, Position, Row,
};

pub(super) type Outcome = Result<Arc<Position>, CommitError>;
pub(super) type Batches = Arc<Mutex<Vec<Arc<CommitBatch>>>>;

pub(super) fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(7))
}

pub(super) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

pub(super) fn origin(number: u128) -> Origin {
    Origin(Uuid::from_u128(number))
}

/// An origin of another leader; its id sorts after those that `options` draws.
pub(super) fn foreign(number: u128) -> Origin {
    origin((1 << 100) + number)
}

pub(super) fn document(number: u128) -> DocumentId {
    DocumentId(Uuid::from_u128(number))
}

pub(super) fn collection(name: &str) -> CollectionName {
    name.parse().unwrap()
}

pub(super) fn name(text: &str) -> DocumentName {
    text.parse().unwrap()
}

pub(super) fn dot(origin: Origin, sequence: u64) -> Dot {
    Dot { origin, sequence: Sequence(sequence) }
}

/// Options that draw random origins and keep what is published.
pub(super) fn options() -> (JournalOptions, Batches) {
    let batches = Batches::default();
    let kept = Arc::clone(&batches);
    let options = JournalOptions {
        cluster: cluster(),
        region: region("eu-west"),
        cache_bytes: 1 << 20,
        new_origin: Box::new(|| Origin(Uuid::from_u128(Uuid::new_v4().as_u128() >> 64))),
        publish: Box::new(move |batch| kept.lock().unwrap().push(Arc::clone(batch))),
    };
    (options, batches)
}

pub(super) fn open(directory: &Path) -> Journal {
    try_open(directory).unwrap()
}

pub(super) fn try_open(directory: &Path) -> Result<Journal, OpenError> {
    Journal::open(directory, options().0)
}

pub(super) fn draft(document: DocumentId, change: &str) -> Draft {
    let admitted = Timestamp(change.len() as u64);
    Draft { document, name: None, admitted, change: Bytes::copy_from_slice(change.as_bytes()) }
}

pub(super) fn entry(origin: Origin, sequence: u64, document: DocumentId) -> Entry {
    Entry {
        origin,
        sequence: Sequence(sequence),
        document,
        name: Some(name("notes/from afar")),
        admitted: Timestamp(1_000 + sequence),
        change: Bytes::from(format!("change {sequence} of {origin}")),
    }
}

pub(super) fn row(name: Option<&str>, json: Option<&str>) -> DocumentRow {
    DocumentRow {
        name: name.map(|text| text.parse().unwrap()),
        digest: [9; 16],
        conflicts: 2,
        changes: 3,
        json: json.map(|text| Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// A row of the ledger that differs with each number; similar ones are not far apart.
pub(super) fn ledger_row(number: u64, bytes: &str) -> LedgerRow {
    let pick = |of: usize| number as usize % of;
    let names = [Some("notes/a"), Some("notes/b"), Some("cities/paris"), None];
    let paths = ["", "/a", "/a/b", "/ab", "/a~1b", "/list/0"];
    let summary = ConflictSummary {
        name: names[pick(4)].map(name),
        path: paths[pick(6)].parse().unwrap(),
        kind: ConflictKind::ALL[pick(7)],
        state: ConflictState::ALL[(number / 7) as usize % 4],
        at: Timestamp(100 + number % 11),
        leaders: (0..=number % 3).map(|n| origin(u128::from(n + number % 2))).collect(),
        acted_at: (number % 5 < 2).then_some(Timestamp(105 + number % 13)),
    };
    LedgerRow { summary, bytes: Bytes::copy_from_slice(bytes.as_bytes()) }
}

/// A commit, and where its outcome will arrive.
pub(super) fn commit(
    drafts: Vec<Draft>,
    entries: Vec<Entry>,
    rows: Vec<Row>,
) -> (Commit, Receiver<Outcome>) {
    let (sender, outcome) = channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    (Commit { drafts, origin: None, entries, rows, lineage: None, done }, outcome)
}

/// Commits and waits until it is durable.
pub(super) fn write(
    journal: &Journal,
    drafts: Vec<Draft>,
    entries: Vec<Entry>,
    rows: Vec<Row>,
) -> Outcome {
    let (commit, outcome) = commit(drafts, entries, rows);
    journal.submit_blocking(commit)?;
    outcome.recv().unwrap()
}

/// Puts a named document, with one change.
pub(super) fn put(journal: &Journal, text: &str, json: &str) -> DocumentId {
    let document = DocumentId::from(&name(text));
    let rows = vec![Row::Document(document, row(Some(text), Some(json)))];
    write(journal, vec![draft(document, json)], vec![], rows).unwrap();
    document
}

pub(super) fn delete(journal: &Journal, text: &str) {
    let document = DocumentId::from(&name(text));
    let rows = vec![Row::Document(document, row(Some(text), None))];
    write(journal, vec![draft(document, "delete")], vec![], rows).unwrap();
}

/// The keys that a listing answers.
pub(super) fn keys(journal: &Journal, of: &str, prefix: &str) -> Vec<String> {
    let listed = journal.list(&collection(of), prefix, None, usize::MAX).unwrap();
    listed.into_iter().map(|listed| listed.key.to_string()).collect()
}

pub(super) fn dots(entries: &[Entry]) -> Vec<Dot> {
    entries.iter().map(Entry::dot).collect()
}
