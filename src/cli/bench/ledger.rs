//! The ledger with many conflicts: what a row costs to record, and a page to list.
//!
//! Rows are written to a journal directly, because making as many documents collide takes an hour;
//! their bytes are those of a real conflict, and listing decodes them as a node does.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anabranch_crdt::conflict::{ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::document::{Admitted, Author, Document, Ledger};
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{ClusterId, DocumentId, DocumentName, Origin, Timestamp};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use bytes::Bytes;
use uuid::Uuid;

use super::cluster::TemporaryDirectory;
use super::load::{Measured, histogram, record};
use super::report::Figures;
use crate::cli::Failure;
use crate::journal::{
    Commit, ConflictSummary, Journal, JournalOptions, LedgerFilter, LedgerRow, Row,
};

/// Measures a ledger of [`ROWS`] rows, kept below `base`. Blocks.
pub(super) fn measure(base: &Path, most: Duration) -> Result<Vec<Figures>, Failure> {
    let dir = TemporaryDirectory::create(base)?;
    let journal = open(&dir.path)?;
    let mut all = vec![figures("ledger: record a row", fill(&journal)?)];
    let pages = [
        ("ledger: first page", LedgerFilter::default()),
        (
            "ledger: open ones",
            LedgerFilter { state: Some(ConflictState::Open), ..LedgerFilter::default() },
        ),
        (
            "ledger: a small collection",
            LedgerFilter { collection: parsed(SMALL).ok(), ..LedgerFilter::default() },
        ),
        (
            "ledger: a rare kind",
            LedgerFilter { kind: Some(ConflictKind::Type), ..LedgerFilter::default() },
        ),
        (
            "ledger: one path",
            LedgerFilter { path: parsed("/rare").ok(), ..LedgerFilter::default() },
        ),
        (
            "ledger: one document",
            LedgerFilter { documents: Some([document(7)?.0].into()), ..LedgerFilter::default() },
        ),
    ];
    for (workload, filter) in pages {
        all.push(figures(workload, repeat(most, || list(&journal, &filter))?));
    }
    let stats = || journal.conflict_counts().map(drop).map_err(broken);
    all.push(figures("ledger: counts", repeat(most, stats)?));
    journal.close();
    Ok(all)
}

fn figures(workload: &'static str, measured: Measured) -> Figures {
    Figures { workload, measured, http: None, commit: None }
}

fn open(path: &Path) -> Result<Journal, Failure> {
    let options = JournalOptions {
        cluster: ClusterId(Uuid::new_v4()),
        region: parsed("bench")?,
        cache_bytes: 64 << 20,
        new_origin: Box::new(|| Origin(Uuid::new_v4())),
        publish: Box::new(|_| {}),
    };
    Journal::open(path, options).map_err(broken)
}

/// Writes every row, many in a commit, so that a row is measured and not the disk.
fn fill(journal: &Journal) -> Result<Measured, Failure> {
    let bytes = row_bytes()?;
    let mut latency = histogram()?;
    let begin = Instant::now();
    for first in (0..ROWS).step_by(ROWS_OF_COMMIT) {
        let numbers = first..first + ROWS_OF_COMMIT as u64;
        let rows: Result<Vec<Row>, Failure> = numbers.map(|number| row(number, &bytes)).collect();
        let (done, outcome) = mpsc::sync_channel(1);
        let mut commit = Commit::of_entries(Vec::new(), move |result| {
            // Nobody is there to hear it only if the wait below has failed.
            let _ = done.send(result.map(drop));
        });
        commit.rows = rows?;
        let asked = Instant::now();
        journal.submit_blocking(commit).map_err(broken)?;
        outcome.recv().map_err(broken)?.map_err(broken)?;
        for _ in 0..ROWS_OF_COMMIT {
            record(&mut latency, asked.elapsed() / ROWS_OF_COMMIT as u32);
        }
    }
    Ok(Measured { rate: ROWS as f64 / begin.elapsed().as_secs_f64(), latency })
}

/// One page, decoded.
fn list(journal: &Journal, filter: &LedgerFilter) -> Result<(), Failure> {
    let page = journal.conflicts(filter, None, PAGE).map_err(broken)?;
    if page.rows.is_empty() {
        return Err(Failure::General("a listing that is measured is empty".to_owned()));
    }
    page.rows
        .iter()
        .try_for_each(|stored| Ledger::read_conflict(&stored.row.bytes).map(drop).map_err(broken))
}

/// Repeats an operation, a thousand times or for as long as is measured.
fn repeat(
    most: Duration,
    operation: impl Fn() -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    operation()?;
    let mut latency = histogram()?;
    let begin = Instant::now();
    while latency.len() < REPEATS && begin.elapsed() < most {
        let asked = Instant::now();
        operation()?;
        record(&mut latency, asked.elapsed());
    }
    Ok(Measured { rate: latency.len() as f64 / begin.elapsed().as_secs_f64(), latency })
}

/// Each document has ten rows; one row in a hundred is open, a thousandth is in a small collection.
fn row(number: u64, bytes: &Bytes) -> Result<Row, Failure> {
    let (id, name) = document(number / 10)?;
    let conflict = ConflictId(Uuid::from_u128(u128::from(number)).into_bytes());
    let settled = if number.is_multiple_of(2) {
        ConflictState::AutoResolved
    } else {
        ConflictState::Resolved
    };
    let state = if number % 100 == 7 { ConflictState::Open } else { settled };
    let rare = number % 5_000 == 11;
    let summary = ConflictSummary {
        name: Some(name),
        path: parsed(if rare { "/rare/title" } else { "/fields/title" })?,
        kind: if rare { ConflictKind::Type } else { ConflictKind::Value },
        state,
        at: Timestamp(NOW + number),
        leaders: vec![writer(1), writer(2)],
        acted_at: None,
    };
    Ok(Row::Conflict(id, conflict, Some(LedgerRow { summary, bytes: bytes.clone() })))
}

fn document(number: u64) -> Result<(DocumentId, DocumentName), Failure> {
    let collection = if number.is_multiple_of(1_000) { SMALL } else { "cities" };
    let name: DocumentName = parsed(&format!("{collection}/{number}"))?;
    Ok((DocumentId::from(&name), name))
}

fn writer(number: u8) -> Origin {
    Origin::from_bytes([number; 16])
}

/// The bytes of a row for two titles that were written at once.
fn row_bytes() -> Result<Bytes, Failure> {
    let policies = Policies::default();
    let id = document(0)?.0;
    let (mut one, mut other) = (Document::new(), Document::new());
    let edit = |document: &mut Document, number: u8| {
        let path = parsed("/title")?;
        let value = format!("a title as long as titles are, number {number}").into();
        let message = Message::default();
        let author = Author { origin: writer(number), at: Timestamp(NOW), message };
        document.edit(&[Edit::Set { path, value }], &author, &policies).map_err(broken)
    };
    edit(&mut one, 1)?;
    let change = edit(&mut other, 2)?;
    let admitted = change.map(|change| Admitted {
        change: change.bytes,
        at: Timestamp(NOW),
        by: Some(writer(2)),
    });
    let applied =
        one.apply(&admitted.into_iter().collect::<Vec<_>>(), &policies).map_err(broken)?;
    let mut ledger = Ledger::default();
    ledger.absorb(&one, id, &policies, &applied.collisions);
    ledger.decide(&one, id, &policies);
    let row = ledger.unsaved().into_iter().find_map(|(_, row)| row);
    row.map(|(bytes, _)| Bytes::from(bytes))
        .ok_or_else(|| Failure::General("no conflict came about".to_owned()))
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::General(error.to_string())
}

/// Rows of the ledger that is measured.
const ROWS: u64 = 100_000;
const ROWS_OF_COMMIT: usize = 1_000;
/// Rows of a page, as many as a request gets that does not say.
const PAGE: usize = 100;
const REPEATS: u64 = 1_000;
const SMALL: &str = "rivers";
const NOW: u64 = 1_700_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_a_node_writes_them() {
        let conflict = Ledger::read_conflict(&row_bytes().unwrap()).unwrap();
        assert_eq!(
            (conflict.candidates.len(), conflict.path.to_string()),
            (2, "/title".to_owned())
        );
        let Row::Conflict(id, _, Some(stored)) = row(70, &Bytes::new()).unwrap() else {
            panic!("a row of the ledger");
        };
        assert_eq!(id, document(7).unwrap().0);
        assert_eq!(stored.summary.name.unwrap().to_string(), "cities/7");
    }
}
