//! Who a journal is: restarts keep the origin, copies do not, strangers are refused.

use std::fs;

use anabranch_crdt::ids::{BootId, ClusterId, Sequence};
use anabranch_crdt::token;
use tempfile::tempdir;
use uuid::Uuid;

use super::fixture::*;
use crate::journal::{CommitError, Journal, OpenError, Start};

#[test]
fn restarts_do_not_grow_the_vector() {
    let directory = tempdir().unwrap();
    let first = open(directory.path()).identity();
    for _ in 0..5 {
        let journal = open(directory.path());
        assert_eq!(journal.identity(), first);
        put(&journal, "notes/a", "1");
        assert_eq!(journal.position().borrow().vector.len(), 1);
    }
}

#[test]
fn a_copied_file_goes_on_under_a_new_origin() {
    let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
    let journal = open(here.path());
    let old = journal.identity();
    put(&journal, "notes/a", "1");
    journal.close();
    fs::copy(here.path().join("journal.redb"), there.path().join("journal.redb")).unwrap();

    let copy = open(there.path());
    let new = copy.identity();
    assert_ne!(new.origin, old.origin);
    assert_eq!((new.cluster, &new.region), (old.cluster, &old.region));
    assert_eq!(copy.entries(old.origin, Sequence::ZERO, 9, 99).unwrap().len(), 1);
    assert_eq!(copy.region_of(new.origin), Some(region("eu-west")));
    put(&copy, "notes/b", "2");
    assert_eq!(copy.entries(new.origin, Sequence::ZERO, 9, 99).unwrap().len(), 1);
    drop(copy);

    assert_eq!(open(there.path()).identity(), new);
    assert_eq!(open(here.path()).identity(), old);
}

#[test]
fn a_moved_directory_keeps_its_origin() {
    let base = tempdir().unwrap();
    let (from, to) = (base.path().join("from"), base.path().join("to"));
    let old = open(&from).identity();
    fs::rename(&from, &to).unwrap();
    assert_eq!(open(&to).identity(), old);
}

#[test]
fn a_directory_serves_one_journal_at_a_time() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    assert!(matches!(try_open(directory.path()), Err(OpenError::Locked)));
    put(&journal, "notes/a", "1");
    drop(journal);
    assert_eq!(keys(&open(directory.path()), "notes", ""), ["a"]);
}

#[test]
fn strangers_are_refused_and_told_the_cure() {
    let directory = tempdir().unwrap();
    drop(open(directory.path()));
    let refused = |cluster, name: &str| {
        let (mut options, _) = options();
        (options.cluster, options.region) = (cluster, region(name));
        match Journal::open(directory.path(), options) {
            Err(OpenError::Foreign(message)) => message,
            other => panic!("not refused as foreign: {other:?}"),
        }
    };
    let message = refused(cluster(), "us-east");
    assert!(message.contains("'eu-west'") && message.contains("another data directory"));
    let message = refused(ClusterId(Uuid::from_u128(8)), "eu-west");
    assert!(message.contains("cluster") && message.contains("another data directory"));
    open(directory.path());
}

#[test]
fn a_renewed_origin_is_durable_and_numbers_from_one() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let old = journal.identity().origin;
    put(&journal, "notes/a", "1");
    let new = journal.renew_origin().unwrap();
    assert_ne!(new.origin, old);
    assert_eq!(journal.identity(), new);
    put(&journal, "notes/b", "2");
    drop(journal);
    let journal = open(directory.path());
    assert_eq!(journal.identity(), new);
    for origin in [old, new.origin] {
        assert_eq!(journal.position().borrow().vector.sequence(origin), Sequence(1));
        assert_eq!(journal.region_of(origin), Some(region("eu-west")));
    }
}

#[test]
fn regions_of_origins_are_remembered() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    journal.name_origin(foreign(1), &region("us-east"));
    journal.name_origin(foreign(1), &region("us-east"));
    assert_eq!(journal.region_of(foreign(1)), Some(region("us-east")));
    put(&journal, "notes/a", "1");
    journal.name_origin(foreign(2), &region("asia"));
    write(&journal, vec![], vec![entry(foreign(3), 1, document(1))], vec![]).unwrap();
    let mut before = journal.origins();
    drop(journal);
    let journal = open(directory.path());
    let mut after = journal.origins();
    before.sort();
    after.sort();
    assert_eq!(after, before);
    assert_eq!(after.len(), 4);
    assert_eq!(journal.region_of(foreign(2)), Some(region("asia")));
    assert_eq!(journal.region_of(foreign(3)), None);
}

#[test]
fn a_process_knows_how_the_one_before_it_ended() {
    let directory = tempdir().unwrap();
    let first = open(directory.path()).incarnation();
    assert_eq!(first.start, Start::Fresh);
    let second = open(directory.path());
    assert_eq!(second.incarnation().start, Start::Kept { before: first.boot });
    assert_ne!(second.incarnation().boot, first.boot);
    second.close();

    // A copy of a running node's file starts as that node would after a crash.
    let running = open(directory.path());
    let file = directory.path().join("journal.redb");
    let image = fs::read(&file).unwrap();
    running.close();
    fs::write(&file, image).unwrap();
    assert_eq!(open(directory.path()).incarnation().start, Start::Broken);
}

/// The file has the inode that it always had, and the node that left it had ended in order.
#[test]
fn an_older_file_put_back_in_place_goes_on_under_a_new_origin() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("journal.redb");
    let journal = open(directory.path());
    let old = journal.origin();
    put(&journal, "notes/a", "1");
    journal.close();
    let backup = fs::read(&file).unwrap();
    let journal = open(directory.path());
    put(&journal, "notes/b", "2");
    journal.close();

    fs::write(&file, backup).unwrap();
    let journal = open(directory.path());
    assert_ne!(journal.origin(), old);
    assert_eq!(journal.incarnation().start, Start::Fresh);
    assert_eq!(journal.chains().after(journal.origin()), [dot(old, 1)]);
    assert_eq!(journal.renewals(), 1);
}

#[test]
fn nothing_is_admitted_until_it_is_settled_and_everything_else_is_done() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    journal.hold();
    let refused = write(&journal, vec![draft(document(1), "x")], vec![], vec![]);
    assert!(matches!(refused, Err(CommitError::Unsettled)), "{refused:?}");
    write(&journal, vec![], vec![entry(foreign(1), 1, document(1))], vec![]).unwrap();
    journal.settle();
    write(&journal, vec![draft(document(1), "x")], vec![], vec![]).unwrap();

    journal.hold();
    let origin = journal.origin();
    journal.renew_origin().unwrap();
    write(&journal, vec![draft(document(1), "y")], vec![], vec![]).unwrap();
    assert_eq!(journal.position().borrow().vector.sequence(origin), Sequence(1));
}

#[test]
fn who_was_vouched_for_is_remembered() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    let boot = BootId([4; 16]);
    journal.vouch(foreign(1), BootId([3; 16])).unwrap();
    journal.vouch(foreign(1), boot).unwrap();
    journal.name_chained(foreign(2), &region("us-east"), vec![dot(foreign(1), 7)]);
    drop(journal);
    let journal = open(directory.path());
    assert_eq!(journal.vouched(), [(foreign(1), boot)]);
    assert_eq!(journal.chains().after(foreign(2)), [dot(foreign(1), 7)]);
}

/// Each renewal costs a row, and not a byte of the token.
#[test]
fn tokens_do_not_grow_with_renewals() {
    let directory = tempdir().unwrap();
    let journal = open(directory.path());
    for _ in 0..30 {
        put(&journal, "notes/a", "1");
        journal.renew_origin().unwrap();
    }
    put(&journal, "notes/a", "1");
    let position = journal.position().borrow().clone();
    assert_eq!(position.vector.len(), 31);
    let short = token::decode(&position.token).unwrap();
    assert_eq!(short.len(), 1);
    assert_eq!(journal.expand(&short), position.vector);
    drop(journal);
    let journal = open(directory.path());
    assert_eq!(journal.position().borrow().token, position.token);
}

/// A crash while the file was created left bytes at which redb said "magic number mismatch", and
/// the node never started again.
#[test]
fn a_crash_while_creating_leaves_no_journal() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("journal.redb.new"), vec![0xa5; 10_000]).unwrap();
    let journal = open(directory.path());
    put(&journal, "notes/a", "1");
    assert!(!directory.path().join("journal.redb.new").exists());
}

#[test]
fn what_is_no_journal_is_not_opened() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("journal.redb"), b"not a database").unwrap();
    assert!(matches!(try_open(directory.path()), Err(OpenError::Storage(_))));
}
