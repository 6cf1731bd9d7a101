//! A disk that fills up: acknowledged data stays, and writes go on once there is space.

use std::sync::Arc;

use anabranch_crdt::ids::Sequence;
use redb::Database;

use super::fixture::*;
use crate::journal::store::Store;
use crate::journal::{CommitError, Journal, Row, recovery};
use crate::sim::disk::SimDisk;

/// Opens a journal that can be reopened on the same disk, as one on a file can.
fn open_on(disk: &SimDisk) -> (Journal, Batches) {
    let (mut options, batches) = options();
    drop(recovery::open_backend(disk.backend(), &mut options).unwrap());
    let reopened = disk.clone();
    let opener = move || Database::builder().create_with_backend(reopened.backend());
    let store = Store::new(opener().unwrap(), Some(Box::new(opener)), None);
    let recovered = store.read(recovery::recover).unwrap();
    (Journal::start(store, recovered, options).unwrap(), batches)
}

fn attempt(journal: &Journal, number: u64) -> Outcome {
    let id = document(u128::from(number));
    let json = format!("{{\"n\":{number}}}");
    let rows = vec![Row::Document(id, row(None, Some(&json)))];
    write(journal, vec![draft(id, &json)], vec![], rows)
}

/// A fault that was felt twice once made the journal number two changes alike: the next commit
/// had been numbered before the first was found to be durable after all.
///
/// The disk is full at each single operation of a run in turn; then there is space again.
#[test]
fn a_full_disk_loses_nothing_and_passes() {
    for space in 0..60 {
        let disk = SimDisk::new(space);
        let (journal, batches) = open_on(&disk);
        let own = journal.identity().origin;
        disk.fill_after(space);
        let outcomes: Vec<_> = (0..8).map(|number| (number, attempt(&journal, number))).collect();
        disk.make_space();
        let resumed = std::iter::repeat_with(|| attempt(&journal, 1_000))
            .inspect(|outcome| assert!(!matches!(outcome, Err(CommitError::Gap { .. }))))
            .find_map(Result::ok);
        let position = resumed.unwrap();
        for (number, outcome) in &outcomes {
            let found = journal.row(document(u128::from(*number))).unwrap().0;
            assert!(outcome.is_err() || found.is_some(), "space {space}: {number} was lost");
        }
        let published: u64 =
            batches.lock().unwrap().iter().map(|batch| batch.entries.len() as u64).sum();
        assert_eq!(position.vector.sequence(own), Sequence(published), "space {space}");
        let stored = journal.entries(own, Sequence::ZERO, 100, 1 << 20).unwrap();
        assert_eq!(stored.len() as u64, published, "space {space}");
        assert!(journal.scrub().unwrap().is_clean(), "space {space}");
    }
}

#[test]
fn reads_go_on_while_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let (journal, _) = open_on(&disk);
    attempt(&journal, 1).unwrap();
    disk.fill();
    let big = vec![draft(document(2), &"x".repeat(100_000))];
    let error = write(&journal, big, vec![], vec![]).unwrap_err();
    assert!(matches!(error, CommitError::Storage(_)));
    assert!(journal.row(document(1)).unwrap().0.is_some());
    let own = journal.identity().origin;
    assert_eq!(journal.entries(own, Sequence::ZERO, 9, 99).unwrap().len(), 1);
}

#[test]
fn a_backend_that_cannot_be_reopened_keeps_refusing() {
    let disk = SimDisk::new(1);
    let (options, batches) = options();
    let journal = Journal::open_backend(disk.backend(), options).unwrap();
    attempt(&journal, 1).unwrap();
    disk.fill_after(0);
    assert!(matches!(attempt(&journal, 2), Err(CommitError::Storage(_))));
    disk.make_space();
    let error = attempt(&journal, 3).unwrap_err();
    assert!(error.to_string().contains("cannot write"));
    assert_eq!(batches.lock().unwrap().len(), 1);
    journal.close();
    let journal = Journal::open_backend(disk.backend(), self::options().0).unwrap();
    assert!(journal.row(document(1)).unwrap().0.is_some());
}

/// A caller hears of a commit after whoever publishes, so that it finds nothing out of date.
#[test]
fn publishing_comes_before_the_answer() {
    let disk = SimDisk::new(1);
    let (journal, batches) = open_on(&disk);
    for number in 1..=20 {
        let position = attempt(&journal, number).unwrap();
        let last = Arc::clone(batches.lock().unwrap().last().unwrap());
        assert!(Arc::ptr_eq(&last.position, &position));
        assert!(Arc::ptr_eq(&journal.position().borrow(), &position));
    }
}
