//! Settling many conflicts by one rule: what one of ten thousand costs.
//!
//! The conflicts are those of two clients that wrote the same fields without hearing of each
//! other; a node admits what both wrote, as it does for clients that were offline.

use std::path::Path;
use std::time::Instant;

use anabranch_crdt::document::{Admitted, Author, Document};
use anabranch_crdt::edit::{self, Edit};
use anabranch_crdt::ids::{DocumentName, Origin, Timestamp};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::load::{Measured, histogram, record};
use super::report::Figures;
use crate::cli::Failure;
use crate::document::{Bulk, Choice, ConflictFilter, Documents, Fate};

/// Measures a node of its own, with its data below `base`.
pub(super) async fn measure(base: &Path) -> Result<Vec<Figures>, Failure> {
    let mut all = Vec::new();
    for (workload, fields) in
        [("settle: one of a document", 1), ("settle: a hundred of a document", 100)]
    {
        let cluster = Cluster::start(base, 1).await?;
        let documents = cluster.documents()?;
        collide(&documents, fields).await?;
        let measured = settle(&documents).await;
        cluster.stop().await?;
        all.push(Figures { workload, measured: measured?, http: None, commit: None });
    }
    Ok(all)
}

/// Makes [`CONFLICTS`] conflicts, so many in each document.
async fn collide(documents: &Documents, fields: usize) -> Result<(), Failure> {
    let changes = sides(fields)?;
    let admit = |number: usize| {
        let (documents, changes) = (documents.clone(), changes.clone());
        async move {
            let name: DocumentName = format!("cities/{number}").parse().map_err(broken)?;
            documents.admit(name, changes).await.map(drop).map_err(broken)
        }
    };
    let admitting = stream::iter((0..CONFLICTS / fields).map(admit));
    admitting.buffer_unordered(AT_ONCE).try_collect().await
}

/// What two clients write to the same fields, behind what both start from.
fn sides(fields: usize) -> Result<Vec<Bytes>, Failure> {
    let value = |word: &str| -> Value {
        let text = |number: usize| json!(format!("{word}, a value as long as many are {number}"));
        (0..fields).map(|number| (number.to_string(), text(number))).collect::<Map<_, _>>().into()
    };
    let policies = Policies::default();
    let edit = |document: &mut Document, number: u8, from: &Value, to: &Value| {
        let author = Author {
            origin: Origin::from_bytes([number; 16]),
            at: Timestamp(NOW + u64::from(number)),
            message: Message::default(),
        };
        let edits: Vec<Edit> = edit::difference(from, to);
        let made = document.edit(&edits, &author, &policies).map_err(broken)?;
        made.map(|change| change.bytes).ok_or_else(|| broken("nothing was written"))
    };
    let (mut one, mut other) = (Document::new(), Document::new());
    let start = value("start");
    let first = edit(&mut one, 1, &json!({}), &start)?;
    let admitted = Admitted { change: first.clone(), at: Timestamp(NOW + 1), by: None };
    other.apply(&[admitted], &policies).map_err(broken)?;
    let ours = edit(&mut one, 1, &start, &value("ours"))?;
    let theirs = edit(&mut other, 2, &start, &value("theirs"))?;
    Ok(vec![first, ours, theirs])
}

async fn settle(documents: &Documents) -> Result<Measured, Failure> {
    let bulk = Bulk {
        filter: ConflictFilter { limit: CONFLICTS, ..ConflictFilter::default() },
        choice: Choice::Latest,
        note: None,
        author: None,
        rehearsal: false,
    };
    let begin = Instant::now();
    let mut latency = histogram()?;
    let mut settled = std::pin::pin!(documents.settle_all(bulk));
    let mut last = begin;
    while let Some(one) = settled.try_next().await.map_err(broken)? {
        if one.fate != Fate::Done {
            return Err(broken(format!("a conflict was not settled: {one:?}")));
        }
        record(&mut latency, last.elapsed());
        last = Instant::now();
    }
    if latency.len() != CONFLICTS as u64 {
        return Err(broken(format!("{} conflicts were settled", latency.len())));
    }
    Ok(Measured { rate: CONFLICTS as f64 / begin.elapsed().as_secs_f64(), latency })
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::General(error.to_string())
}

const CONFLICTS: usize = 10_000;

/// Documents that are made at once.
const AT_ONCE: usize = 256;

const NOW: u64 = 1_700_000_000_000_000;
