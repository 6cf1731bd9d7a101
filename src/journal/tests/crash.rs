//! Power failures at any write, also while the journal recovers from one: what was acknowledged
//! is there, and all that is there is what some whole number of commits left.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{CollectionName, DocumentId, Origin, Sequence};
use bytes::Bytes;

use super::fixture::*;
use super::ledger::check_index;
use crate::journal::{DocumentRow, Draft, Journal, LedgerRow, Row};
use crate::sim::disk::{Dice, SimDisk};

const SEEDS: u64 = 300;
const DOCUMENTS: u64 = 6;
const OWN: u128 = 77;

/// What one commit does. Each has exactly one draft, so the own sequence counts commits.
#[derive(Debug, Clone)]
struct Step {
    draft: Draft,
    entries: Vec<Entry>,
    rows: Vec<Row>,
}

/// The reference: what a journal must answer after some steps.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<Dot, Entry>,
    rows: BTreeMap<DocumentId, DocumentRow>,
    pending: BTreeSet<(DocumentId, Dot)>,
    tails: BTreeSet<(DocumentId, Dot)>,
    snapshots: BTreeMap<DocumentId, Bytes>,
    conflicts: BTreeMap<(DocumentId, ConflictId), LedgerRow>,
    redecided: BTreeMap<CollectionName, Bytes>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        let Draft { document, name, admitted, change } = step.draft.clone();
        let sequence = Sequence(self.reached(origin(OWN)) + 1);
        let own = Entry { origin: origin(OWN), sequence, document, name, admitted, change };
        self.tails.insert((document, own.dot()));
        self.entries.insert(own.dot(), own);
        for entry in &step.entries {
            self.pending.insert((entry.document, entry.dot()));
            self.entries.insert(entry.dot(), entry.clone());
        }
        step.rows.iter().for_each(|row| self.row(row));
    }

    fn row(&mut self, row: &Row) {
        match row.clone() {
            Row::Document(document, row) => {
                self.rows.insert(document, row);
            }
            Row::Applied(document, dots) => {
                for dot in dots {
                    self.pending.remove(&(document, dot));
                    self.tails.insert((document, dot));
                }
            }
            Row::Snapshot { document, bytes, covers } => {
                self.snapshots.insert(document, bytes);
                self.tails.retain(|(id, dot)| *id != document || !covers.contains(dot));
            }
            Row::Reached(..) => {}
            Row::Conflict(document, conflict, Some(row)) => {
                self.conflicts.insert((document, conflict), row);
            }
            Row::Conflict(document, conflict, None) => {
                self.conflicts.remove(&(document, conflict));
            }
            Row::Redecided(collection, record) => {
                self.redecided.insert(collection, record);
            }
        }
    }

    fn reached(&self, of: Origin) -> u64 {
        self.entries.keys().filter(|dot| dot.origin == of).count() as u64
    }

    /// Reads the same out of a journal.
    fn read(journal: &Journal) -> Self {
        let mut model = Self::default();
        for (origin, _) in journal.origins() {
            let entries = journal.entries(origin, Sequence::ZERO, usize::MAX, usize::MAX).unwrap();
            model.entries.extend(entries.into_iter().map(|entry| (entry.dot(), entry)));
        }
        for number in 0..DOCUMENTS {
            let id = id(number);
            let stored = journal.load(id).unwrap();
            model.rows.extend(stored.row.map(|row| (id, row)));
            model.snapshots.extend(stored.snapshot.map(|bytes| (id, bytes)));
            model.tails.extend(stored.tail.iter().map(|entry| (id, entry.dot())));
            model.pending.extend(stored.pending.iter().map(|entry| (id, entry.dot())));
        }
        let ledger = journal.ledger(None, usize::MAX).unwrap().into_iter();
        model.redecided.extend(journal.redecided().unwrap());
        model.conflicts.extend(ledger.map(|row| ((row.document, row.conflict), row.row)));
        model
    }
}

fn id(number: u64) -> DocumentId {
    DocumentId::from(&name(&format!("notes/{number}")))
}

/// Draws a step that makes sense after `model`.
fn step(dice: &mut Dice, model: &Model) -> Step {
    let number = dice.roll(DOCUMENTS);
    let document = id(number);
    let size = if dice.roll(10) == 0 { dice.roll(40_000) } else { dice.roll(300) } as usize;
    let change = format!("{:0size$}", dice.roll(1_000_000));
    let json = (dice.roll(5) != 0).then(|| format!("{{\"n\":\"{change}\"}}"));
    let text = format!("notes/{number}");
    let mut rows = vec![Row::Document(document, row(Some(&text), json.as_deref()))];
    let of = |set: &BTreeSet<(DocumentId, Dot)>| -> Vec<Dot> {
        set.iter().filter(|(id, _)| *id == document).map(|(_, dot)| *dot).collect()
    };
    match dice.roll(5) {
        3 => {
            let collection = format!("notes{}", dice.roll(3)).parse().unwrap();
            rows.push(Row::Redecided(collection, Bytes::from(change.clone())));
        }
        0 => rows.push(Row::Applied(document, of(&model.pending))),
        1 => {
            let (bytes, covers) = (Bytes::from(change.clone()), of(&model.tails));
            rows.push(Row::Snapshot { document, bytes, covers });
        }
        2 => {
            // A conflict is of one document.
            let conflict = ConflictId([(number * 4 + dice.roll(4)) as u8; 16]);
            let row = (dice.roll(3) != 0).then(|| ledger_row(dice.roll(1_000), &change));
            rows.push(Row::Conflict(document, conflict, row));
        }
        _ => {}
    }
    let far = foreign(u128::from(dice.roll(2)));
    let first = model.reached(far) + 1;
    let entries = (first..first + dice.roll(4)).map(|sequence| entry(far, sequence, id(0)));
    Step { draft: draft(document, &change), entries: entries.collect(), rows }
}

fn options_of_one_origin() -> crate::journal::JournalOptions {
    let (mut options, _) = options();
    options.cache_bytes = 64 << 10;
    options.new_origin = Box::new(|| origin(OWN));
    options
}

/// Commits steps, singly and in bursts, until the power fails or there are enough. Returns how
/// many were acknowledged; `states` gets the model after each step that was tried.
fn work(journal: &Journal, dice: &mut Dice, states: &mut Vec<Model>) -> usize {
    let mut acknowledged = states.len() - 1;
    for _ in 0..12 {
        let outcomes: Vec<_> = (0..=dice.roll(3))
            .map(|_| {
                let mut model = states.last().unwrap().clone();
                let Step { draft, entries, rows } = step(dice, &model);
                model.apply(&Step {
                    draft: draft.clone(),
                    entries: entries.clone(),
                    rows: rows.clone(),
                });
                states.push(model);
                let (commit, outcome) = commit(vec![draft], entries, rows);
                journal.submit_blocking(commit).unwrap();
                outcome
            })
            .collect();
        for outcome in outcomes {
            match outcome.recv().unwrap() {
                Ok(_) => acknowledged += 1,
                Err(_) => return acknowledged,
            }
        }
    }
    acknowledged
}

/// Opens the journal after a crash; the power may fail a few times in the middle of that.
fn reopen(disk: &SimDisk, dice: &mut Dice) -> Journal {
    disk.power_cycle();
    while dice.roll(10) < 4 {
        disk.crash_after(1 + dice.roll(12));
        // It may get by before the power fails; then the power fails on an idle journal.
        drop(Journal::open_backend(disk.backend(), options_of_one_origin()));
        disk.power_cycle();
    }
    Journal::open_backend(disk.backend(), options_of_one_origin()).expect("the journal opens")
}

fn survive(seed: u64) {
    let mut dice = Dice(seed);
    let disk = SimDisk::new(dice.next());
    let mut states = vec![Model::default()];
    let mut journal = Journal::open_backend(disk.backend(), options_of_one_origin()).unwrap();
    for _ in 0..4 {
        disk.crash_after(1 + dice.roll(120));
        let acknowledged = work(&journal, &mut dice, &mut states);
        drop(journal);
        journal = reopen(&disk, &mut dice);
        let found = Model::read(&journal);
        let commits = found.reached(origin(OWN)) as usize;
        assert!(commits >= acknowledged, "{commits} of {acknowledged} commits are left");
        states.truncate(commits + 1);
        assert_eq!(states.get(commits), Some(&found), "after {commits} commits");
        assert!(journal.scrub().unwrap().is_clean());
        check_index(&journal);
        if dice.roll(2) == 0 {
            // What one process saw at its start, it may have told others; it must not go away.
            disk.crash_after(1);
            drop(journal);
            journal = reopen(&disk, &mut dice);
            assert_eq!(Model::read(&journal), found, "the next process sees something else");
        }
    }
}

#[test]
fn acknowledged_commits_survive_any_crash() {
    for seed in 0..SEEDS {
        if catch_unwind(AssertUnwindSafe(|| survive(seed))).is_err() {
            panic!("SEED={seed}");
        }
    }
}

/// The power fails at each operation of creating a journal in turn. The bytes that are left are
/// what the file of the temporary name would hold: they are thrown away, and must not be needed.
#[test]
fn a_crash_while_creating_is_no_loss() {
    for seed in 0..20 {
        for operations in 1..40 {
            let disk = SimDisk::new(seed);
            disk.crash_after(operations);
            let created = Journal::open_backend(disk.backend(), options_of_one_origin());
            let complete = created.is_ok();
            drop(created);
            disk.power_cycle();
            let again = Journal::open_backend(disk.backend(), options_of_one_origin());
            assert!(again.is_ok() || !complete, "SEED={seed} operations={operations}");
        }
    }
}
