//! The replica on a real disk: what was confirmed is there after a crash, a copy writes under
//! another id, and damage is told.

use std::collections::BTreeSet;
use std::fs;

use anabranch_crdt::document::Document;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::leaf::Outlook;

fn settings() -> ReplicaSettings {
    ReplicaSettings {
        cluster: ClusterId(Uuid::from_u128(7)),
        collections: BTreeMap::new(),
        limits: Limits::default(),
    }
}

fn open(directory: &TempDir) -> Replica {
    Replica::open(directory.path(), settings()).unwrap()
}

fn name(text: &str) -> DocumentName {
    text.parse().unwrap()
}

fn put(replica: &mut Replica, to: &str, value: Value) {
    replica.write(&name(to), LocalWrite::Put(&value)).unwrap();
}

fn value(replica: &mut Replica, of: &str) -> Value {
    replica.value(&name(of)).unwrap().unwrap_or(Value::Null)
}

/// What a crash leaves: the file as it is at this moment, in another directory.
fn crash_image(directory: &TempDir) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join(store::FILE), image.path().join(store::FILE)).unwrap();
    image
}

fn numbers(pushes: &[Push]) -> BTreeSet<u64> {
    pushes.iter().map(|push| push.number).collect()
}

#[test]
fn every_confirmed_edit_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    for step in 0..20 {
        put(&mut replica, "notes/a", json!({ "step": step }));
        let mut recovered = open(&crash_image(&directory));
        assert_eq!(value(&mut recovered, "notes/a"), json!({ "step": step }));
        let pushes = recovered.pushes(&name("notes/a")).unwrap();
        assert_eq!(pushes.len(), step + 1, "each edit is still to be pushed");
    }
}

#[test]
fn a_copy_writes_under_an_id_of_its_own_and_the_original_keeps_its() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    put(&mut replica, "notes/a", json!({ "by": "original" }));
    let writer = replica.writer();
    let image = crash_image(&directory);
    let mut copy = open(&image);
    let copied = copy.writer();
    assert_ne!(copied, writer);
    put(&mut copy, "notes/a", json!({ "by": "copy" }));
    let last = copy.pushes(&name("notes/a")).unwrap().pop().unwrap();
    let written = anabranch_crdt::document::inspect(&last.change).unwrap();
    assert_eq!(written.writer, Some(copied));
    drop((replica, copy));
    assert_eq!(open(&directory).writer(), writer);
    assert_eq!(open(&image).writer(), copied, "the copy is no copy the second time");
}

#[test]
fn a_replica_is_open_once_and_of_one_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let replica = open(&directory);
    let refused = Replica::open(directory.path(), settings()).unwrap_err();
    assert_eq!(refused.code(), "replica_in_use");
    assert!(refused.to_string().contains("is open already"), "{refused}");
    drop(replica);
    let other = ReplicaSettings { cluster: ClusterId(Uuid::from_u128(8)), ..settings() };
    let refused = Replica::open(directory.path(), other).unwrap_err();
    assert_eq!(refused.code(), "replica_of_other_cluster");
}

#[test]
fn a_crash_while_creating_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("replica.redb.new"), b"half of a database").unwrap();
    let mut replica = open(&directory);
    put(&mut replica, "notes/a", json!({}));
    assert_eq!(value(&mut replica, "notes/a"), json!({}));
}

/// Flips a bit in every record of a table, below its hash.
fn damage(directory: &TempDir, table: &'static str) {
    let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
    let database = Database::open(directory.path().join(store::FILE)).unwrap();
    let rows: Vec<_> = {
        let rows = database.begin_read().unwrap().open_table(table).unwrap();
        let pairs = rows.iter().unwrap().map(Result::unwrap);
        pairs.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    };
    let transaction = database.begin_write().unwrap();
    for (key, mut record) in rows {
        record[1] ^= 1;
        let mut rows = transaction.open_table(table).unwrap();
        rows.insert(key.as_slice(), record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn damage_is_told_and_never_read() {
    let check = |table: &'static str, read: fn(&mut Replica) -> Result<(), Error>| {
        let directory = tempfile::tempdir().unwrap();
        let mut replica = open(&directory);
        put(&mut replica, "notes/a", json!({ "text": "something" }));
        drop(replica);
        damage(&directory, table);
        let error = match Replica::open(directory.path(), settings()) {
            Ok(mut replica) => read(&mut replica).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, "replica_damaged"));
        assert!(error.to_string().contains(table), "{error}");
    };
    check("documents-1", |replica| replica.value(&name("notes/a")).map(drop));
    check("unsynced-1", |replica| replica.pushes(&name("notes/a")).map(drop));
    check("unsynced-1", |replica| {
        replica.write(&name("notes/a"), LocalWrite::Put(&json!({}))).map(drop)
    });
    check("meta-1", |_| Ok(()));
}

#[test]
fn a_long_history_is_folded_and_nothing_unsynced_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    for step in 0..100 {
        put(&mut replica, "notes/a", json!({ "step": step }));
    }
    drop(replica);
    let mut replica = open(&directory);
    let pushes = replica.pushes(&name("notes/a")).unwrap();
    assert_eq!(pushes.len(), 100);
    replica.accept(&name("notes/a"), &numbers(&pushes[..60])).unwrap();
    assert_eq!(replica.pushes(&name("notes/a")).unwrap().len(), 40);
    drop(replica);
    let mut replica = open(&directory);
    put(&mut replica, "notes/a", json!({ "step": 100 }));
    let pushes = replica.pushes(&name("notes/a")).unwrap();
    assert_eq!(pushes.len(), 41);
    replica.accept(&name("notes/a"), &numbers(&pushes)).unwrap();
    assert!(replica.unsynced(None, 10).unwrap().is_empty());
    drop(replica);
    let mut replica = open(&directory);
    assert_eq!(value(&mut replica, "notes/a"), json!({ "step": 100 }));
    put(&mut replica, "notes/a", json!({ "step": 101 }));
    drop(replica);
    assert_eq!(value(&mut open(&directory), "notes/a"), json!({ "step": 101 }));
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    let missing = replica.write(&name("notes/a"), LocalWrite::Edits(&[])).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let missing = replica.write(&name("notes/a"), LocalWrite::Delete).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    put(&mut replica, "notes/a", json!({ "kept": true }));
    let large = json!({ "text": "x".repeat(5 << 20) });
    let refused = replica.write(&name("notes/a"), LocalWrite::Put(&large)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // Random text, because a change is not compressed well enough otherwise.
    let noise: String = std::iter::repeat_with(|| char::from(rand::random_range(b' '..b'~')))
        .take(3 << 20)
        .collect();
    let refused = replica.write(&name("notes/a"), LocalWrite::Put(&json!({ "noise": noise })));
    assert_eq!(refused.unwrap_err().code(), "change_too_large");
    assert_eq!(value(&mut replica, "notes/a"), json!({ "kept": true }));
    assert_eq!(replica.pushes(&name("notes/a")).unwrap().len(), 1);
    let again = replica.write(&name("notes/a"), LocalWrite::Put(&json!({ "kept": true })));
    assert_eq!(again.unwrap(), Written::Nothing);
}

/// A replica that was rolled back, for instance with the virtual machine around it, may already
/// have told others of changes that it has forgotten; it must not reuse their numbers.
#[test]
fn a_rolled_back_replica_takes_a_new_id() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    put(&mut replica, "notes/a", json!({ "step": 1 }));
    let writer = replica.writer();
    let pushes = replica.pushes(&name("notes/a")).unwrap();
    let mut there = Document::new();
    let admitted =
        |change| anabranch_crdt::document::Admitted { change, at: Timestamp::MAX, by: None };
    there.apply(&[admitted(pushes[0].change.clone())], &Policies::default()).unwrap();
    let author = Author {
        origin: writer,
        at: Timestamp(9),
        message: anabranch_crdt::message::Message::default(),
    };
    let edits = anabranch_crdt::edit::difference(&json!({ "step": 1 }), &json!({ "step": 2 }));
    let forgotten = there.edit(&edits, &author, &Policies::default()).unwrap().unwrap();
    let document = DocumentId::from(&name("notes/a"));
    let pulled = Pulled { name: name("notes/a"), document, changes: vec![forgotten.bytes] };
    replica.take_in(vec![pulled]).unwrap();
    assert_eq!(value(&mut replica, "notes/a"), json!({ "step": 2 }));
    let renewed = replica.writer();
    assert_ne!(renewed, writer);
    drop(replica);
    assert_eq!(open(&directory).writer(), renewed);
}

#[test]
fn discarded_changes_are_gone_and_their_id_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    put(&mut replica, "notes/a", json!({ "kept": 1 }));
    let pushes = replica.pushes(&name("notes/a")).unwrap();
    replica.accept(&name("notes/a"), &numbers(&pushes)).unwrap();
    put(&mut replica, "notes/a", json!({ "kept": 1, "unwanted": 2 }));
    put(&mut replica, "notes/a", json!({ "unwanted": 3 }));
    let message = "the document is not wanted".to_owned();
    let refusal = Refusal { code: "refused".to_owned(), message, outlook: Outlook::Never };
    replica.refuse(&name("notes/a"), &refusal).unwrap();
    assert_eq!(replica.refused().unwrap(), [(name("notes/a"), refusal)]);
    let writer = replica.writer();
    assert_eq!(replica.discard(&name("notes/a")).unwrap(), 2);
    assert_eq!(replica.discard(&name("notes/a")).unwrap(), 0);
    drop(replica);
    let mut replica = open(&directory);
    assert_eq!(value(&mut replica, "notes/a"), json!({ "kept": 1 }));
    assert_ne!(replica.writer(), writer);
    assert!(replica.refused().unwrap().is_empty());
    assert!(replica.unsynced(None, 10).unwrap().is_empty());
}

#[test]
fn unsynced_documents_are_listed_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&directory);
    for n in 0..25 {
        put(&mut replica, &format!("notes/{n}"), json!({ "n": n }));
        put(&mut replica, &format!("notes/{n}"), json!({ "n": n, "more": true }));
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = replica.unsynced(after.as_ref(), 10).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        all.extend(page);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 25);
    assert_eq!(replica.names(&"notes".parse().unwrap()).unwrap().len(), 25);
    assert!(replica.names(&"note".parse().unwrap()).unwrap().is_empty());
}
