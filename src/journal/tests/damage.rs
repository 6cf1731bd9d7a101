//! Bits that rot in a closed file: what is wrong is reported, and nothing wrong is served.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, Sequence};
use bytes::Bytes;
use redb::ReadableTable as _;

use super::fixture::*;
use crate::journal::{
    Journal, JournalOptions, LedgerCount, LedgerFilter, LedgerPage, Listed, OpenError, ReadError,
    Row, SettledConflict, StoredConflict, StoredDocument,
};
use crate::sim::disk::{Dice, SimDisk};

const DOCUMENTS: u128 = 40;

/// Everything that a journal can be asked.
#[derive(Debug, PartialEq)]
struct Everything {
    entries: Vec<(Origin, Vec<Entry>)>,
    documents: Vec<String>,
    listed: Vec<Listed>,
    ledger: Vec<StoredConflict>,
    page: LedgerPage,
    found: LedgerPage,
    counts: Vec<LedgerCount>,
    settled: Vec<SettledConflict>,
    pending: Vec<anabranch_crdt::ids::DocumentId>,
}

fn everything(journal: &Journal) -> Result<Everything, ReadError> {
    let origins = journal.origins();
    let entries = origins.iter().map(|(origin, _)| {
        Ok((*origin, journal.entries(*origin, Sequence::ZERO, usize::MAX, usize::MAX)?))
    });
    let documents = (0..DOCUMENTS).map(|number| {
        let id = anabranch_crdt::ids::DocumentId::from(&name(&format!("notes/{number}")));
        let StoredDocument { row, snapshot, tail, pending } = journal.load(id)?;
        assert_eq!(journal.row(id)?, (row.clone(), !pending.is_empty()));
        Ok(format!("{row:?} {snapshot:?} {tail:?} {pending:?}"))
    });
    let searched = LedgerFilter { path: "/a".parse().ok(), ..LedgerFilter::default() };
    Ok(Everything {
        entries: entries.collect::<Result<_, ReadError>>()?,
        documents: documents.collect::<Result<_, ReadError>>()?,
        listed: journal.list(&collection("notes"), "", None, usize::MAX)?,
        ledger: journal.ledger(None, usize::MAX)?,
        page: journal.conflicts(&LedgerFilter::default(), None, 30)?,
        found: journal.conflicts(&searched, None, 30)?,
        counts: journal.conflict_counts()?,
        settled: journal.settled_conflicts(None, None, usize::MAX)?,
        pending: journal.pending(None, usize::MAX)?,
    })
}

/// A closed file with some of everything in it, and what it answers.
fn filled() -> (Vec<u8>, Everything) {
    let disk = SimDisk::new(0);
    let journal = Journal::open_backend(disk.backend(), options_of_one_origin()).unwrap();
    let own = journal.identity().origin;
    for number in 0..DOCUMENTS {
        let text = format!("notes/{number}");
        let id = put(&journal, &text, &format!("{{\"text\":\"{}\"}}", "x".repeat(200)));
        let far = entry(foreign(1), number as u64 + 1, id);
        let conflict = ConflictId([number as u8; 16]);
        let rows = vec![Row::Conflict(id, conflict, Some(ledger_row(number as u64, "seven")))];
        write(&journal, vec![draft(id, "again")], vec![far], rows).unwrap();
        if number % 3 == 0 {
            let sequence = journal.position().borrow().vector.sequence(own).0;
            let covers = vec![dot(own, sequence)];
            let bytes = Bytes::from(vec![number as u8; 500]);
            write(&journal, vec![], vec![], vec![Row::Snapshot { document: id, bytes, covers }])
                .unwrap();
        }
    }
    let expected = everything(&journal).unwrap();
    assert!(journal.scrub().unwrap().is_clean());
    journal.close();
    (disk.image(), expected)
}

fn options_of_one_origin() -> JournalOptions {
    let (mut options, _) = options();
    options.new_origin = Box::new(|| origin(77));
    options
}

/// Opens an image; `true` means that it reports damage.
fn reports(image: Vec<u8>, expected: &Everything) -> bool {
    let disk = SimDisk::holding(0, image);
    let journal = match Journal::open_backend(disk.backend(), options_of_one_origin()) {
        Ok(journal) => journal,
        Err(OpenError::Locked | OpenError::Foreign(_)) => panic!("damage is not a stranger"),
        Err(OpenError::Format(_) | OpenError::Storage(_)) => return true,
    };
    // Rot where only redb looks is not seen by a scrub, and might end the process at the close.
    journal.inner.shared.store.distrust();
    if !journal.scrub().is_ok_and(|report| report.is_clean()) {
        // What is read is an error or right, as far as it is there at all.
        let _ = everything(&journal);
        return true;
    }
    assert_eq!(&everything(&journal).unwrap(), expected, "silently wrong");
    false
}

#[test]
fn rotten_bits_are_reported_or_harmless() {
    let (image, expected) = filled();
    assert!(!reports(image.clone(), &expected));
    // Only what is used is worth rotting: most of a file that redb grew ahead is zeros.
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    let mut dice = Dice(0xb175);
    let mut reported = 0;
    for round in 0..400 {
        let at = match dice.roll(4) {
            0 => dice.roll(image.len() as u64) as usize,
            _ => used[dice.roll(used.len() as u64) as usize],
        };
        let bit = dice.roll(8);
        let mut rotten = image.clone();
        rotten[at] ^= 1 << bit;
        let outcome = catch_unwind(AssertUnwindSafe(|| reports(rotten, &expected)));
        let Ok(damaged) = outcome else { panic!("round {round}: bit {bit} of byte {at}") };
        reported += u32::from(damaged);
    }
    assert!(reported > 100, "only {reported} of 400 were noticed: the flips miss the data");
}

#[test]
fn an_image_cut_short_is_refused() {
    let (image, expected) = filled();
    for part in 1..8 {
        let cut = image[..image.len() * part / 8].to_vec();
        let outcome = catch_unwind(AssertUnwindSafe(|| reports(cut, &expected)));
        assert!(outcome.expect("no panic"), "{part}/8 of the file passed for the whole");
    }
}

/// The record of a document holds its tail. Once it rotted, the next write could have made a new
/// record with an empty one, and every change since the last snapshot would have been forgotten.
#[test]
fn the_tail_of_a_rotten_record_is_found_again_by_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    let id = put(&journal, "notes/a", "{}");
    write(&journal, vec![draft(id, "second")], vec![], vec![]).unwrap();
    put(&journal, "notes/b", "{}");
    journal.close();
    rot(&directory.path().join("journal.redb"), id);

    let journal = open(directory.path());
    assert!(matches!(journal.load(id), Err(ReadError::Corrupt { table: "documents-1" })));
    put(&journal, "notes/a", "{\"n\":3}");
    let stored = journal.load(id).unwrap();
    let changes: Vec<_> = stored.tail.iter().map(|entry| entry.change.clone()).collect();
    assert_eq!(changes, ["{}", "second", "{\"n\":3}"]);
    assert!(journal.scrub().unwrap().is_clean());
}

/// Flips a bit of a document's record, as redb would not notice it.
fn rot(file: &std::path::Path, id: anabranch_crdt::ids::DocumentId) {
    let table = redb::TableDefinition::<&[u8; 16], &[u8]>::new("documents-1");
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut documents = transaction.open_table(table).unwrap();
        let mut record = documents.get(id.as_bytes()).unwrap().unwrap().value().to_vec();
        record[3] ^= 1;
        documents.insert(id.as_bytes(), record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}
