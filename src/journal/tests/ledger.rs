//! The index of the ledger and its counts say what the rows say, whatever happens.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use anabranch_crdt::conflict::{ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::document::{Admitted, Author, Collisions, Document, Ledger};
use anabranch_crdt::ids::{DocumentId, Timestamp};
use anabranch_crdt::message::Message;
use bytes::Bytes;
use proptest::prelude::*;
use tempfile::tempdir;

use super::fixture::*;
use crate::journal::record::Encoder;
use crate::journal::{Journal, LedgerFilter, LedgerPage, LedgerRow, Row, StoredConflict};

/// Compares listings and counts with a look at every row.
pub(super) fn check_index(journal: &Journal) {
    let mut all = journal.ledger(None, usize::MAX).unwrap();
    all.sort_by_key(|stored| (Reverse(stored.row.summary.at), stored.conflict));
    for filter in filters() {
        let expected: Vec<_> = all
            .iter()
            .filter(|stored| filter.passes(stored.document, &stored.row.summary))
            .cloned()
            .collect();
        assert_eq!(pages(journal, &filter, 3), expected, "{filter:?}");
        let LedgerPage { rows, total, next } = journal.conflicts(&filter, None, 999).unwrap();
        assert_eq!((rows, total, next), (expected.clone(), expected.len() as u64, None));
    }
    let mut counts = BTreeMap::new();
    for StoredConflict { row: LedgerRow { summary, .. }, .. } in &all {
        let collection = summary.collection().cloned();
        *counts.entry((collection, summary.state, summary.kind)).or_insert(0) += 1;
    }
    let counted = journal.conflict_counts().unwrap().into_iter();
    let counted: BTreeMap<_, _> =
        counted.map(|count| ((count.collection, count.state, count.kind), count.count)).collect();
    assert_eq!(counted, counts);
    check_settled(journal, &all);
}

fn check_settled(journal: &Journal, all: &[StoredConflict]) {
    for before in [None, Some(Timestamp(107)), Some(Timestamp(0))] {
        let expected: Vec<_> = all
            .iter()
            .rev()
            .filter(|stored| stored.row.summary.state != ConflictState::Open)
            .filter(|stored| before.is_none_or(|at| stored.row.summary.rests_since() < at))
            .map(|stored| (stored.document, stored.position()))
            .collect();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = journal.settled_conflicts(before, after, 2).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.position);
            found.extend(page.iter().map(|settled| (settled.document, settled.position)));
        }
        assert_eq!(found, expected, "before {before:?}");
    }
}

/// Every page of a listing; each says the same total.
fn pages(journal: &Journal, filter: &LedgerFilter, limit: usize) -> Vec<StoredConflict> {
    let (mut found, mut after, mut totals) = (Vec::new(), None, BTreeSet::new());
    loop {
        let page = journal.conflicts(filter, after, limit).unwrap();
        totals.insert(page.total);
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            assert_eq!(totals, BTreeSet::from([found.len() as u64]));
            return found;
        }
    }
}

fn filters() -> Vec<LedgerFilter> {
    let none = LedgerFilter::default();
    let mut filters = vec![none.clone()];
    let of = |name: &str| LedgerFilter { collection: Some(collection(name)), ..none.clone() };
    filters.extend([of("notes"), of("cities"), of("note")]);
    for state in ConflictState::ALL {
        filters.push(LedgerFilter { state: Some(state), ..none.clone() });
        filters.push(LedgerFilter { state: Some(state), ..of("notes") });
    }
    for kind in [ConflictKind::Value, ConflictKind::Whole] {
        filters.push(LedgerFilter { kind: Some(kind), ..none.clone() });
        filters.push(LedgerFilter { kind: Some(kind), ..of("cities") });
    }
    for path in ["/a", "/a~1b", "/list", "/nothing"] {
        filters.push(LedgerFilter { path: path.parse().ok(), ..none.clone() });
    }
    for (since, until) in
        [(None, Some(105)), (Some(105), None), (Some(103), Some(104)), (None, Some(0))]
    {
        let (since, until) = (since.map(Timestamp), until.map(Timestamp));
        filters.push(LedgerFilter { since, until, ..none.clone() });
        filters.push(LedgerFilter { since, until, ..of("notes") });
    }
    filters.push(LedgerFilter { leaders: Some([origin(2), origin(9)].into()), ..none.clone() });
    filters.push(LedgerFilter { leaders: Some(BTreeSet::new()), ..none.clone() });
    let own = LedgerFilter { documents: Some([document(1)].into()), ..none };
    filters.push(LedgerFilter { state: Some(ConflictState::Open), ..own.clone() });
    filters.push(own);
    filters
}

type Step = Vec<(u128, u8, Option<u64>)>;

fn rows(step: &Step) -> Vec<Row> {
    let row = |&(of, conflict, number): &(u128, u8, Option<u64>)| {
        // A conflict is of one document.
        let id = ConflictId([conflict * 4 + of as u8; 16]);
        Row::Conflict(document(of), id, number.map(|n| ledger_row(n, &n.to_string())))
    };
    step.iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However rows come, change and go, several in one transaction too.
    #[test]
    fn the_index_says_what_the_rows_say(steps in prop::collection::vec(
        prop::collection::vec((0..4_u128, 0..8_u8, prop::option::weighted(0.8, 0..2_000_u64)), 1..12),
        1..12,
    )) {
        let directory = tempdir().unwrap();
        let journal = open(directory.path());
        for step in &steps {
            write(&journal, vec![], vec![], rows(step)).unwrap();
        }
        check_index(&journal);
        prop_assert!(journal.scrub().unwrap().is_clean());
        journal.close();
        check_index(&open(directory.path()));
    }
}

fn filled(journal: &Journal) {
    let all = (0..40_u8).map(|n| (u128::from(n % 3), n / 3, Some(u64::from(n) * 37))).collect();
    write(journal, vec![], vec![], rows(&all)).unwrap();
}

#[test]
fn a_cursor_holds_its_place_while_rows_come_and_go() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    filled(&journal);
    let all = LedgerFilter::default();
    let first = journal.conflicts(&all, None, 10).unwrap();
    assert_eq!((first.rows.len(), first.total), (10, 40));
    let rest = pages(&journal, &all, 7).split_off(10);
    // The row that the cursor names goes, and a newer one comes.
    let last = first.rows.last().unwrap();
    let gone = Row::Conflict(last.document, last.conflict, None);
    let mut newer = ledger_row(1, "newer");
    newer.summary.at = Timestamp(1_000);
    let newer = Row::Conflict(document(9), ConflictId([250; 16]), Some(newer));
    write(&journal, vec![], vec![], vec![gone, newer]).unwrap();
    let cursor = first.next.unwrap().to_string().parse().unwrap();
    let second = journal.conflicts(&all, Some(cursor), 99).unwrap();
    assert_eq!((second.rows, second.total), (rest, 40));
}

/// Changes a record as redb would not notice it.
fn rot(file: &std::path::Path, table: &str, nth: usize) {
    let table = redb::TableDefinition::<&[u8], &[u8]>::new(table);
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        use redb::ReadableTable as _;
        let mut table = transaction.open_table(table).unwrap();
        let (key, mut value) = {
            let (key, value) = table.iter().unwrap().nth(nth).unwrap().unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        value[9] ^= 1;
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_damaged_index_is_made_anew_when_it_is_met() {
    for (table, nth) in
        [("conflict-index-1", 0), ("conflict-index-1", 50), ("conflict-counts-1", 3)]
    {
        let directory = tempdir().unwrap();
        let journal = open(directory.path());
        filled(&journal);
        journal.close();
        rot(&directory.path().join("journal.redb"), table, nth);
        let journal = open(directory.path());
        check_index(&journal);
        assert!(journal.scrub().unwrap().is_clean(), "{table}");
    }
}

/// A row that cannot be read does not say what the index has of it.
#[test]
fn a_damaged_row_is_replaced_with_all_that_follows_from_it() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    filled(&journal);
    let id = journal.ledger(None, 1).unwrap()[0].conflict;
    journal.close();
    let file = directory.path().join("journal.redb");
    {
        use redb::ReadableTable as _;
        let table = redb::TableDefinition::<&[u8; 32], &[u8]>::new("conflicts-2");
        let database = redb::Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(table).unwrap();
            let (key, mut value) = {
                let (key, value) = table.first().unwrap().unwrap();
                (*key.value(), value.value().to_vec())
            };
            value[20] ^= 1;
            table.insert(&key, value.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let journal = open(directory.path());
    assert!(journal.ledger(None, 9).is_err());
    let row = Row::Conflict(document(0), id, Some(ledger_row(1_111, "again")));
    write(&journal, vec![], vec![], vec![row]).unwrap();
    check_index(&journal);
    assert!(journal.scrub().unwrap().is_clean());
}

const NOW: u64 = 1_700_000_000_000_000;

/// A document with one conflict, and its ledger row.
fn collided(id: DocumentId) -> (ConflictId, Vec<u8>) {
    let policies = anabranch_crdt::policy::Policies::default();
    let at = |number: u128, at: u64| Author {
        origin: origin(number),
        at: Timestamp(at),
        message: Message::default(),
    };
    let set = |value: i32| {
        let path = "/a".parse().unwrap();
        vec![anabranch_crdt::edit::Edit::Set { path, value: value.into() }]
    };
    let mut one = Document::new();
    let mut other = Document::new();
    one.edit(&set(1), &at(1, NOW), &policies).unwrap();
    let change = other.edit(&set(2), &at(2, NOW + 9), &policies).unwrap().unwrap();
    let admitted = Admitted { change: change.bytes, at: Timestamp(NOW + 9), by: Some(origin(2)) };
    let applied = one.apply(&[admitted], &policies).unwrap();
    let collisions: &Collisions = &applied.collisions;
    let mut ledger = Ledger::default();
    ledger.absorb(&one, id, &policies, collisions);
    ledger.decide(&one, id, &policies);
    let (conflict, row) = ledger.unsaved().pop().unwrap();
    (conflict, row.unwrap().0)
}

/// A journal of the release before rows had summaries.
#[test]
fn a_ledger_of_format_1_is_converted() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let id = put(&journal, "notes/a", "{}");
    journal.close();
    let (conflict, bytes) = collided(id);
    let file = directory.path().join("journal.redb");
    {
        let database = redb::Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        for table in ["conflicts-2", "conflict-index-1", "conflict-counts-1"] {
            let untyped = transaction.list_tables().unwrap().find(|t| {
                use redb::TableHandle as _;
                t.name() == table
            });
            transaction.delete_table(untyped.unwrap()).unwrap();
        }
        {
            let mut encoder = Encoder::default();
            let rows = redb::TableDefinition::<&[u8; 32], &[u8]>::new("conflicts-1");
            let mut rows = transaction.open_table(rows).unwrap();
            let key = crate::journal::table::conflict_key(id, conflict);
            rows.insert(&key, encoder.blob("conflicts-1", &key, &bytes)).unwrap();
            let broken = crate::journal::table::conflict_key(id, ConflictId([9; 16]));
            rows.insert(&broken, encoder.blob("conflicts-1", &broken, b"{}")).unwrap();
            let meta = redb::TableDefinition::<&str, &[u8]>::new("meta-1");
            let mut meta = transaction.open_table(meta).unwrap();
            meta.insert("format", encoder.blob("meta-1", b"format", b"1")).unwrap();
        }
        transaction.commit().unwrap();
    }
    for _ in 0..2 {
        let journal = open(directory.path());
        let page = journal.conflicts(&LedgerFilter::default(), None, 9).unwrap();
        let [stored] = page.rows.as_slice() else { panic!("{page:?}") };
        assert_eq!((stored.conflict, &stored.row.bytes), (conflict, &Bytes::from(bytes.clone())));
        let summary = &stored.row.summary;
        assert_eq!(summary.name, Some(name("notes/a")));
        assert_eq!((summary.path.to_string(), summary.at), ("/a".to_owned(), Timestamp(NOW + 9)));
        check_index(&journal);
        assert!(journal.scrub().unwrap().is_clean());
        journal.close();
    }
}

#[test]
fn what_a_transaction_did_to_the_ledger_is_told() {
    let directory = tempdir().unwrap();
    let (options, batches) = options();
    let journal = Journal::open(directory.path(), options).unwrap();
    let step = vec![(1, 1, Some(5)), (1, 2, None)];
    write(&journal, vec![], vec![], rows(&step)).unwrap();
    let batches = batches.lock().unwrap();
    let told: Vec<_> = batches[0].conflicts.iter().map(|c| (c.document, c.row.clone())).collect();
    assert_eq!(told, [(document(1), Some(ledger_row(5, "5"))), (document(1), None)]);
}
