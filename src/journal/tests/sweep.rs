//! What may go from the log goes, what a document needs stays, and whoever asks for more than there
//! is hears so.

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{DocumentId, Origin, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use tempfile::tempdir;

use super::crash::stored_entries;
use super::fixture::*;
use crate::journal::{Allowance, Journal, NO_DIGEST, ReadError, Row, Swept};

/// Lets every entry go up to one.
fn sweep(journal: &Journal, origin: Origin, upto: u64) -> Swept {
    let upto = (Sequence(upto), Timestamp::MAX);
    let allowance = Allowance { origin, everywhere: upto, elsewhere: upto, excess: 0 };
    journal.sweep(allowance).unwrap()
}

fn snapshot(document: DocumentId, covers: &[Dot]) -> Row {
    Row::Snapshot { document, bytes: Bytes::from_static(b"whole"), covers: covers.to_vec() }
}

/// Two snapshots that hold everything that a document has.
fn save(journal: &Journal, id: DocumentId) {
    let covers = journal.tail_of(id).unwrap();
    let rows = vec![snapshot(id, &covers), snapshot(id, &[])];
    write(journal, vec![], vec![], rows).unwrap();
}

fn sequences(journal: &Journal, of: Origin) -> Vec<u64> {
    let stored = stored_entries(journal);
    stored.keys().filter(|dot| dot.origin == of).map(|dot| dot.sequence.0).collect()
}

#[test]
fn what_both_snapshots_hold_goes() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.origin();
    let id = put(&journal, "notes/a", "1");
    for change in ["2", "3"] {
        write(&journal, vec![draft(id, change)], vec![], vec![]).unwrap();
    }
    save(&journal, id);
    write(&journal, vec![draft(id, "four")], vec![], vec![]).unwrap();
    let swept = sweep(&journal, own, 4);
    assert_eq!(swept, Swept { floor: Sequence(4), seen: 4, dropped: 3, pinned: vec![id] });
    assert_eq!(sequences(&journal, own), [4]);
    let too_old = journal.entries(own, Sequence(3), 9, 99).unwrap_err();
    assert!(matches!(too_old, ReadError::TooOld { floor: Sequence(4), .. }), "{too_old}");
    write(&journal, vec![draft(id, "5")], vec![], vec![]).unwrap();
    assert_eq!(dots(&journal.entries(own, Sequence(4), 9, 99).unwrap()), [dot(own, 5)]);
    assert_eq!(dots(&journal.load(id).unwrap().tail), [dot(own, 4), dot(own, 5)]);
    // What was pinned goes with the snapshots that hold it, and the rest stays in the log.
    save(&journal, id);
    assert_eq!(sequences(&journal, own), [5]);
    assert_eq!(journal.dropped().0, 4);
    journal.close();

    let journal = open(directory.path());
    assert_eq!(journal.floors(), VersionVector::from_iter([dot(own, 4)]));
    assert_eq!(journal.logs()[0].bytes, 1);
    assert_eq!(journal.document_dots(id).unwrap(), [dot(own, 5)]);
    assert!(journal.scrub().unwrap().is_clean());
    assert_eq!(sweep(&journal, own, 5).dropped, 1);
    journal.close();
    let journal = open(directory.path());
    assert_eq!(journal.position().borrow().vector.sequence(own), Sequence(5));
    assert!(sequences(&journal, own).is_empty());
    assert!(journal.entries(own, Sequence(5), 9, 99).unwrap().is_empty());
    assert!(journal.scrub().unwrap().is_clean());
}

#[test]
fn one_snapshot_is_not_enough() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let own = journal.origin();
    let id = put(&journal, "notes/a", "1");
    write(&journal, vec![], vec![], vec![snapshot(id, &[dot(own, 1)])]).unwrap();
    write(&journal, vec![draft(id, "2")], vec![], vec![]).unwrap();
    assert_eq!(sweep(&journal, own, 2).dropped, 0);
    // The next one, whenever it comes, makes the first entry needless, and not the second.
    write(&journal, vec![], vec![], vec![snapshot(id, &[dot(own, 2)])]).unwrap();
    assert_eq!(sequences(&journal, own), [2]);
    assert!(journal.scrub().unwrap().is_clean());
}

#[test]
fn what_waits_to_be_applied_stays() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let far = foreign(1);
    let entries = vec![entry(far, 1, document(1)), entry(far, 2, document(1))];
    write(&journal, vec![], entries, vec![]).unwrap();
    let swept = sweep(&journal, far, 2);
    assert_eq!((swept.seen, swept.dropped, swept.pinned), (2, 0, vec![]));
    assert_eq!(journal.load(document(1)).unwrap().pending.len(), 2);
    let rows = vec![snapshot(document(1), &[dot(far, 1)]), snapshot(document(1), &[])];
    write(&journal, vec![], vec![], rows).unwrap();
    assert_eq!(sequences(&journal, far), [2], "the snapshots hold one, and one still waits");
    assert_eq!(dots(&journal.load(document(1)).unwrap().pending), [dot(far, 2)]);
}

#[test]
fn only_what_is_allowed_goes() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let (far, id) = (foreign(1), document(1));
    let entries: Vec<_> = (1..=9).map(|sequence| entry(far, sequence, id)).collect();
    let bytes = entries[0].change.len() as u64;
    let all: Vec<Dot> = entries.iter().map(|entry| entry.dot()).collect();
    let rows = vec![snapshot(id, &all), snapshot(id, &[])];
    write(&journal, vec![], entries, rows).unwrap();
    assert_eq!(journal.logs().iter().map(|log| log.bytes).sum::<u64>(), 9 * bytes);
    let log = *journal.logs().iter().find(|log| log.origin == far).unwrap();
    assert_eq!(journal.oldest(&log).unwrap(), Some(Timestamp(1_001)));
    let floor = |everywhere, elsewhere, excess| {
        let at = |(sequence, time)| (Sequence(sequence), Timestamp(time));
        let (everywhere, elsewhere) = (at(everywhere), at(elsewhere));
        let allowance = Allowance { origin: far, everywhere, elsewhere, excess };
        journal.sweep(allowance).unwrap().floor.0
    };
    assert_eq!(floor((9, 0), (9, 0), 0), 0, "nothing is old");
    assert_eq!(floor((2, 9_000), (9, 0), 0), 2, "every region has two");
    assert_eq!(floor((9, 1_003), (9, 0), 0), 2, "the third was admitted then");
    assert_eq!(floor((2, 9_000), (9, 1_005), 0), 4, "one region waited for long");
    assert_eq!(floor((2, 9_000), (9, 0), bytes + 1), 6, "the journal is too large");
    assert_eq!(floor((2, 9_000), (7, 0), u64::MAX), 7, "a region that is there lacks the rest");
    assert_eq!(journal.logs().iter().map(|log| log.bytes).sum::<u64>(), 2 * bytes);
}

#[test]
fn a_vector_rises_with_its_floors() {
    let directory = tempdir().unwrap();
    let (options, batches) = options();
    let journal = Journal::open(directory.path(), options).unwrap();
    let (own, far, other) = (journal.origin(), foreign(1), foreign(2));
    put(&journal, "notes/a", "1");
    write(&journal, vec![], vec![entry(far, 1, document(1)), entry(far, 2, document(1))], vec![])
        .unwrap();
    let vector = [dot(own, 7), dot(far, 5), dot(other, 3)].into_iter().collect::<VersionVector>();
    let position = journal.raise(vector.clone()).unwrap();
    let expected = [dot(own, 1), dot(far, 5), dot(other, 3)].into_iter().collect();
    assert_eq!(position.vector, expected, "nobody else continues the own origin");
    assert_eq!(batches.lock().unwrap().last().unwrap().position, position);
    assert_eq!(journal.floors(), [dot(far, 5), dot(other, 3)].into_iter().collect());
    assert!(matches!(journal.entries(far, Sequence(1), 9, 99), Err(ReadError::TooOld { .. })));
    assert_eq!(journal.load(document(1)).unwrap().pending.len(), 2);
    journal.close();

    let journal = open(directory.path());
    assert_eq!(journal.position().borrow().vector, expected_of(&position));
    let told = journal.raise(vector).unwrap();
    assert_eq!(told, position, "once more changes nothing");
    write(&journal, vec![], vec![entry(far, 5, document(1)), entry(far, 6, document(1))], vec![])
        .unwrap();
    assert_eq!(dots(&journal.entries(far, Sequence(5), 9, 99).unwrap()), [dot(far, 6)]);
    assert!(journal.scrub().unwrap().is_clean());
    // What was here of the log before is of no use to others, and goes when its document lets it.
    let all = [dot(far, 1), dot(far, 2), dot(far, 6)];
    let rows = vec![snapshot(document(1), &all), snapshot(document(1), &[])];
    write(&journal, vec![], vec![], rows).unwrap();
    assert_eq!(sweep(&journal, far, 0).dropped, 2);
    assert_eq!(sequences(&journal, far), [6]);
    assert!(journal.scrub().unwrap().is_clean());
}

fn expected_of(position: &crate::journal::Position) -> VersionVector {
    position.vector.clone()
}

#[test]
fn digests_are_listed_in_the_order_of_ids() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let put = |number, json| {
        let rows = vec![Row::Document(document(number), row(None, json))];
        write(&journal, vec![draft(document(number), "x")], vec![], rows).unwrap();
    };
    put(3, Some("{}"));
    put(1, None);
    put(7, Some("{}"));
    let far = foreign(1);
    let waiting = [(1, 1), (2, 5), (3, 5), (4, 9)];
    let entries = waiting.map(|(sequence, id)| entry(far, sequence, document(id)));
    write(&journal, vec![], entries.to_vec(), vec![]).unwrap();
    let all = |range, limit| journal.digests(range, limit).unwrap();
    let expected = [
        (document(1), [9; 16], true),
        (document(3), [9; 16], false),
        (document(5), NO_DIGEST, true),
        (document(7), [9; 16], false),
        (document(9), NO_DIGEST, true),
    ];
    assert_eq!(all(IdRange::all(), 99), expected);
    for limit in 0..6 {
        assert_eq!(all(IdRange::all(), limit), expected[..limit.min(5)], "at most {limit}");
    }
    let range = IdRange { first: document(3), end: Some(document(9)) };
    assert_eq!(all(range, 99), expected[1..4]);
    assert_eq!(all(range.after(document(3)).unwrap(), 1), expected[2..3]);
    let dots = journal.document_dots(document(5)).unwrap();
    assert_eq!(dots, [dot(far, 3)]);
}

/// A million documents, to measure what going through them costs; run by hand:
/// `MILLION=1 cargo test --release -p anabranch --lib a_million -- --nocapture`.
#[test]
fn a_million_digests_are_read_in_pages() {
    let count: u128 = if std::env::var_os("MILLION").is_some() { 1_000_000 } else { 2_000 };
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    for chunk in 0..count / 1_000 {
        let ids = (0..1_000).map(|number| {
            DocumentId(uuid::Uuid::new_v5(
                &uuid::Uuid::NAMESPACE_OID,
                &(chunk * 1_000 + number).to_be_bytes(),
            ))
        });
        let json = format!("{{\"text\":\"{}\"}}", "x".repeat(200));
        let rows = ids.map(|id| Row::Document(id, row(Some("notes/a"), Some(&json)))).collect();
        write(&journal, vec![], vec![], rows).unwrap();
    }
    let started = std::time::Instant::now();
    let (mut range, mut seen) = (Some(IdRange::all()), 0);
    while let Some(some) = range {
        let page = journal.digests(some, 1_024).unwrap();
        seen += page.len() as u128;
        range = page.last().and_then(|(id, ..)| some.after(*id));
    }
    println!("{seen} digests in {:?}", started.elapsed());
    assert_eq!(seen, count);
}
