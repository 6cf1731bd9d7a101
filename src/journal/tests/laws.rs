//! What is committed is read back, in order, once, also after a restart.

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::ids::{DocumentId, Sequence, Timestamp};
use bytes::Bytes;
use proptest::prelude::*;
use tempfile::tempdir;

use super::fixture::*;
use crate::journal::{CommitError, Journal, Row, Source};

fn snapshot(document: DocumentId, bytes: &str, covers: &[anabranch_crdt::entry::Dot]) -> Row {
    let bytes = Bytes::copy_from_slice(bytes.as_bytes());
    Row::Snapshot { document, bytes, covers: covers.to_vec() }
}

#[test]
fn drafts_are_numbered_and_read_back_after_a_restart() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.identity().origin;
    let json = r#"{"title":"hello"}"#;
    let id = put(&journal, "notes/a", json);
    let two = vec![draft(id, "second"), draft(document(5), "third")];
    let position = write(&journal, two, vec![], vec![]).unwrap();
    assert_eq!(position.vector.sequence(own), Sequence(3));
    let before = journal.entries(own, Sequence::ZERO, 100, 1 << 20).unwrap();
    assert_eq!(dots(&before), [dot(own, 1), dot(own, 2), dot(own, 3)]);
    assert_eq!(before[1].change, "second");
    journal.close();

    let journal = open(directory.path());
    assert_eq!(journal.identity().origin, own);
    assert_eq!(journal.entries(own, Sequence::ZERO, 100, 1 << 20).unwrap(), before);
    assert_eq!(**journal.position().borrow(), *position);
    assert_eq!(journal.row(id).unwrap(), (Some(row(Some("notes/a"), Some(json))), false));
    assert_eq!(journal.row(document(99)).unwrap(), (None, false));
    assert_eq!(journal.clock_floor(), Timestamp(json.len() as u64));
    assert_eq!(dots(&journal.load(id).unwrap().tail), [dot(own, 1), dot(own, 2)]);
}

#[test]
fn ranges_of_entries_stop_at_their_bounds_but_never_at_nothing() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.identity().origin;
    let drafts = (0..10).map(|_| draft(document(1), "0123456789")).collect();
    write(&journal, drafts, vec![], vec![]).unwrap();
    let sequences = |after, entries, bytes| -> Vec<u64> {
        let found = journal.entries(own, Sequence(after), entries, bytes).unwrap();
        found.iter().map(|entry| entry.sequence.0).collect()
    };
    assert_eq!(sequences(0, 3, 1_000), [1, 2, 3]);
    assert_eq!(sequences(7, 100, 1_000), [8, 9, 10]);
    assert_eq!(sequences(2, 100, 25), [3, 4]);
    assert_eq!(sequences(2, 0, 0), [3]);
    assert!(sequences(10, 5, 5).is_empty());
    assert!(sequences(u64::MAX, 5, 5).is_empty());
    assert!(journal.entries(origin(404), Sequence::ZERO, 5, 5).unwrap().is_empty());
}

#[test]
fn a_gap_is_refused_alone() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let far = foreign(1);
    let lasting = |sequences: &[u64]| {
        sequences.iter().map(|&sequence| entry(far, sequence, document(1))).collect::<Vec<_>>()
    };
    let refused = |entries, expected: u64, found: u64| {
        let rows = vec![Row::Document(document(1), row(None, Some("{}")))];
        let error = write(&journal, vec![draft(document(2), "x")], entries, rows).unwrap_err();
        let wanted =
            CommitError::Gap { origin: far, expected: Sequence(expected), found: Sequence(found) };
        assert_eq!(error.to_string(), wanted.to_string());
    };
    refused(lasting(&[2]), 1, 2);
    write(&journal, vec![], lasting(&[1, 2]), vec![]).unwrap();
    refused(lasting(&[3, 5]), 4, 5);
    refused(lasting(&[3, 4, 6]), 5, 6);
    let own = journal.identity().origin;
    assert_eq!(journal.position().borrow().vector.sequence(far), Sequence(2));
    assert_eq!(journal.position().borrow().vector.sequence(own), Sequence::ZERO);
    assert_eq!(journal.row(document(1)).unwrap().0, None);
}

#[test]
fn a_refused_commit_does_not_spoil_its_neighbours() {
    let directory = tempdir().unwrap();
    let (options, batches) = options();
    let journal = Journal::open(directory.path(), options).unwrap();
    // The first callback holds the writer back until the others are queued together.
    let (first, outcome) = commit(vec![draft(document(1), "first")], vec![], vec![]);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let done = first.done;
    let held = Box::new(move |result| {
        done(result);
        wait.recv().unwrap();
    });
    journal.submit_blocking(crate::journal::Commit { done: held, ..first }).unwrap();
    outcome.recv().unwrap().unwrap();
    let (good, good_outcome) = commit(vec![draft(document(1), "good")], vec![], vec![]);
    let (bad, bad_outcome) =
        commit(vec![draft(document(1), "bad")], vec![entry(foreign(1), 9, document(1))], vec![]);
    let (last, last_outcome) = commit(vec![draft(document(1), "last")], vec![], vec![]);
    for commit in [good, bad, last] {
        journal.submit_blocking(commit).unwrap();
    }
    go.send(()).unwrap();
    assert!(matches!(bad_outcome.recv().unwrap(), Err(CommitError::Gap { .. })));
    let position = last_outcome.recv().unwrap().unwrap();
    assert_eq!(good_outcome.recv().unwrap().unwrap(), position);
    let batches = batches.lock().unwrap();
    let changes: Vec<_> = batches[1].entries.iter().map(|(_, entry)| &entry.change[..]).collect();
    assert_eq!((batches.len(), changes), (2, vec![&b"good"[..], b"last"]));
}

#[test]
fn known_entries_are_skipped_silently() {
    let directory = tempdir().unwrap();
    let (options, batches) = options();
    let journal = Journal::open(directory.path(), options).unwrap();
    let entries = |sequences: std::ops::RangeInclusive<u64>| {
        sequences.map(|sequence| entry(foreign(1), sequence, document(1))).collect::<Vec<_>>()
    };
    write(&journal, vec![], entries(1..=3), vec![]).unwrap();
    let position = write(&journal, vec![], entries(1..=3), vec![]).unwrap();
    assert_eq!(position.vector.sequence(foreign(1)), Sequence(3));
    write(&journal, vec![], entries(2..=5), vec![]).unwrap();
    let own = journal.identity().origin;
    write(&journal, vec![draft(document(1), "mine")], vec![], vec![]).unwrap();
    write(&journal, vec![], vec![entry(own, 1, document(1))], vec![]).unwrap();
    let published = batches.lock().unwrap();
    let published: Vec<_> = published
        .iter()
        .flat_map(|batch| batch.entries.iter().map(|(source, entry)| (*source, entry.dot())))
        .collect();
    let mut expected: Vec<_> =
        (1..=5).map(|sequence| (Source::Remote, dot(foreign(1), sequence))).collect();
    expected.push((Source::Local, dot(own, 1)));
    assert_eq!(published, expected);
}

#[test]
fn nobody_else_continues_the_own_origin() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.identity().origin;
    let error = write(&journal, vec![], vec![entry(own, 1, document(1))], vec![]).unwrap_err();
    assert!(matches!(error, CommitError::Gap { .. }));
    journal.renew_origin().unwrap();
    write(&journal, vec![], vec![entry(own, 1, document(1))], vec![]).unwrap();
    assert_eq!(journal.entries(own, Sequence::ZERO, 9, 99).unwrap().len(), 1);
}

#[test]
fn pending_entries_are_seen_until_they_are_applied() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let far = foreign(1);
    let entries = vec![
        entry(far, 1, document(1)),
        entry(far, 2, document(2)),
        entry(far, 3, document(1)),
        entry(far, 4, document(3)),
    ];
    write(&journal, vec![], entries.clone(), vec![]).unwrap();
    assert_eq!(journal.row(document(1)).unwrap(), (None, true));
    assert_eq!(journal.row(document(9)).unwrap(), (None, false));
    assert_eq!(journal.pending(None, 9).unwrap(), [document(1), document(2), document(3)]);
    assert_eq!(journal.pending(Some(document(1)), 1).unwrap(), [document(2)]);
    assert!(journal.pending(None, 0).unwrap().is_empty());
    journal.close();

    let journal = open(directory.path());
    let loaded = journal.load(document(1)).unwrap();
    assert_eq!(loaded.pending, [entries[0].clone(), entries[2].clone()]);
    let applied = vec![
        Row::Applied(document(1), vec![dot(far, 1), dot(far, 3)]),
        Row::Document(document(1), row(None, Some("{}"))),
    ];
    write(&journal, vec![], vec![], applied.clone()).unwrap();
    write(&journal, vec![], vec![], applied).unwrap();
    let loaded = journal.load(document(1)).unwrap();
    assert_eq!((loaded.pending.len(), dots(&loaded.tail)), (0, vec![dot(far, 1), dot(far, 3)]));
    assert!(!journal.row(document(1)).unwrap().1);
    assert!(journal.row(document(2)).unwrap().1);
    for (id, sequence) in [(document(2), 2), (document(3), 4)] {
        let applied = Row::Applied(id, vec![dot(far, sequence)]);
        write(&journal, vec![], vec![], vec![applied]).unwrap();
    }
    assert!(journal.pending(None, 9).unwrap().is_empty());
    assert!(!journal.row(document(3)).unwrap().1);
}

#[test]
fn a_snapshot_drops_the_tail_that_it_covers() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let (own, far, id) = (journal.identity().origin, foreign(1), document(1));
    let drafts = vec![draft(id, "one"), draft(id, "two")];
    write(&journal, drafts, vec![entry(far, 1, id)], vec![]).unwrap();
    let covers = [dot(own, 1), dot(far, 1)];
    let rows = vec![snapshot(id, "first", &covers)];
    write(&journal, vec![draft(id, "three")], vec![], rows).unwrap();
    let loaded = journal.load(id).unwrap();
    assert_eq!(loaded.snapshot.unwrap(), "first");
    assert_eq!(dots(&loaded.tail), [dot(own, 2), dot(own, 3)]);
    assert!(loaded.pending.is_empty());
    let rows = vec![snapshot(id, "second", &[dot(own, 2), dot(own, 3)])];
    write(&journal, vec![], vec![], rows).unwrap();
    let loaded = journal.load(id).unwrap();
    assert_eq!((loaded.snapshot.unwrap(), loaded.tail.len()), (Bytes::from("second"), 0));
    let before = journal.snapshot_before(id).unwrap();
    assert_eq!(before.unwrap(), "first");
    assert_eq!(journal.entries(own, Sequence::ZERO, 9, 99).unwrap().len(), 3);
    assert!(journal.scrub().unwrap().is_clean());
}

#[test]
fn listings_follow_the_order_of_keys_also_of_odd_ones() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let odd = ["a", "a/b", "a/b/c", "ab", "b", "z", "Ä", "ä", "é", "日本", "😀", "\u{10ffff}", " "];
    for key in odd {
        put(&journal, &format!("notes/{key}"), "{}");
    }
    put(&journal, "note/b", "{}");
    put(&journal, "notes2/b", "{}");
    let mut sorted: Vec<String> = odd.iter().map(|key| (*key).to_owned()).collect();
    sorted.sort();
    assert_eq!(keys(&journal, "notes", ""), sorted);
    assert_eq!(keys(&journal, "notes", "a"), ["a", "a/b", "a/b/c", "ab"]);
    assert_eq!(keys(&journal, "notes", "a/"), ["a/b", "a/b/c"]);
    assert_eq!(keys(&journal, "notes", "\u{10ffff}"), ["\u{10ffff}"]);
    assert!(keys(&journal, "notes", "nothing").is_empty());
    assert_eq!(keys(&journal, "note", ""), ["b"]);

    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = journal.list(&collection("notes"), "", after.as_ref(), 2).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|listed| listed.key.to_string()));
    }
    assert_eq!(found, sorted);
    let past = journal.list(&collection("notes"), "a", Some(&"b".parse().unwrap()), 9).unwrap();
    assert!(past.is_empty());
    let early = journal.list(&collection("notes"), "b", Some(&"a".parse().unwrap()), 9).unwrap();
    assert_eq!(early.len(), 1);
}

#[test]
fn only_live_documents_are_listed() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    put(&journal, "notes/a", "1");
    let b = put(&journal, "notes/b", "2");
    delete(&journal, "notes/a");
    assert_eq!(keys(&journal, "notes", ""), ["b"]);
    put(&journal, "notes/a", "3");
    assert_eq!(keys(&journal, "notes", ""), ["a", "b"]);
    let renamed = Row::Document(b, row(Some("notes/c"), Some("4")));
    write(&journal, vec![], vec![], vec![renamed]).unwrap();
    assert_eq!(keys(&journal, "notes", ""), ["a", "c"]);
    let nameless = Row::Document(b, row(None, Some("5")));
    write(&journal, vec![], vec![], vec![nameless]).unwrap();
    let listed = journal.list(&collection("notes"), "", None, 9).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].row, row(Some("notes/a"), Some("3")));
    assert!(journal.scrub().unwrap().is_clean());
}

#[test]
fn the_ledger_is_kept_by_document() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let conflict = |number: u8| ConflictId([number; 16]);
    let rows = [(1, 2), (1, 1), (2, 0), (3, 255)].map(|(id, number)| {
        Row::Conflict(document(id), conflict(number), Some(ledger_row(7, &number.to_string())))
    });
    write(&journal, vec![], vec![], rows.to_vec()).unwrap();
    let all = journal.ledger(None, 9).unwrap();
    let ids: Vec<_> = all.iter().map(|row| (row.document, row.conflict)).collect();
    let expected = [(1, 1), (1, 2), (2, 0), (3, 255)];
    assert_eq!(ids, expected.map(|(id, number)| (document(id), conflict(number))));
    assert_eq!(journal.ledger(Some(ids[1]), 1).unwrap(), [all[2].clone()]);
    assert_eq!(journal.conflicts_of(document(3)).unwrap()[0].1, "255");
    let removed = Row::Conflict(document(1), conflict(1), None);
    write(&journal, vec![], vec![], vec![removed]).unwrap();
    assert_eq!(journal.conflicts_of(document(1)).unwrap().len(), 1);
}

#[test]
fn collections_are_listed_without_reading_their_documents() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let listed = |after: Option<&str>, limit| {
        let found = journal.collections(after.map(collection).as_ref(), limit).unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(listed(None, 9).is_empty());
    for name in ["notes/a", "notes/b", "notes-2/a", "notes.x/\u{10ffff}", "a/a", "_collections/a"] {
        put(&journal, name, "1");
    }
    assert_eq!(listed(None, 9), ["_collections", "a", "notes", "notes-2", "notes.x"]);
    assert_eq!(listed(None, 2), ["_collections", "a"]);
    assert_eq!(listed(Some("a"), 2), ["notes", "notes-2"]);
    assert_eq!(listed(Some("notes.x"), 9), [""; 0]);
    delete(&journal, "a/a");
    assert_eq!(listed(None, 2), ["_collections", "notes"]);
}

#[test]
fn what_was_decided_is_remembered_by_collection() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    assert_eq!(journal.redecided().unwrap(), []);
    let row = |name: &str, record: &'static str| {
        Row::Redecided(collection(name), Bytes::from_static(record.as_bytes()))
    };
    let rows = vec![row("notes", "1"), row("cities", "2"), row("notes", "3")];
    write(&journal, vec![], vec![], rows).unwrap();
    let expected = [("cities", "2"), ("notes", "3")];
    let expected = expected.map(|(name, record)| (collection(name), Bytes::from(record)));
    assert_eq!(journal.redecided().unwrap(), expected);
    journal.close();
    let journal = open(directory.path());
    assert_eq!(journal.redecided().unwrap(), expected);
    assert!(journal.scrub().unwrap().is_clean());
}

#[test]
fn a_closed_journal_says_so() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let id = put(&journal, "notes/a", "1");
    let other = journal.clone();
    journal.close();
    journal.close();
    let (commit, outcome) = commit(vec![draft(id, "x")], vec![], vec![]);
    assert!(matches!(other.submit_blocking(commit), Err(CommitError::Closed)));
    assert!(matches!(outcome.recv().unwrap(), Err(CommitError::Closed)));
    assert!(matches!(other.renew_origin(), Err(CommitError::Closed)));
    assert!(other.row(id).is_err());
    open(directory.path());
}

#[test]
fn what_is_queued_is_committed_before_the_journal_closes() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.identity().origin;
    let outcomes: Vec<_> = (0..500)
        .map(|_| {
            let (commit, outcome) = commit(vec![draft(document(1), "x")], vec![], vec![]);
            journal.submit_blocking(commit).unwrap();
            outcome
        })
        .collect();
    journal.close();
    assert!(outcomes.iter().all(|outcome| outcome.recv().unwrap().is_ok()));
    let journal = open(directory.path());
    assert_eq!(journal.position().borrow().vector.sequence(own), Sequence(500));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any bytes, names and times come back as they went in.
    #[test]
    fn records_read_back(
        changes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        key in "\\PC{1,40}",
        json in prop::option::of(".{0,200}"),
        admitted in 0..(1_u64 << 53),
    ) {
        let directory = tempdir().unwrap();
        let journal = open(directory.path());
        let name = format!("c/{key}");
        let drafts = changes.iter().map(|change| crate::journal::Draft {
            document: document(1),
            name: Some(name.parse().unwrap()),
            admitted: Timestamp(admitted),
            change: Bytes::from(change.clone()),
        });
        let row = row(Some(&name), json.as_deref());
        let rows = vec![Row::Document(document(1), row.clone())];
        write(&journal, drafts.collect(), vec![], rows).unwrap();
        let own = journal.identity().origin;
        let found = journal.entries(own, Sequence::ZERO, 99, 1 << 20).unwrap();
        let found_changes: Vec<_> = found.iter().map(|entry| entry.change.to_vec()).collect();
        prop_assert_eq!(found_changes, changes);
        prop_assert!(found.iter().all(|entry| entry.admitted == Timestamp(admitted)));
        prop_assert!(found.iter().all(|entry| entry.name == row.name));
        let listed = keys(&journal, "c", &key);
        prop_assert_eq!(listed, json.map(|_| key).into_iter().collect::<Vec<_>>());
        prop_assert_eq!(journal.row(document(1)).unwrap(), (Some(row), false));
    }
}
