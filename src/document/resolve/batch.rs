//! Settling many conflicts by one rule.
//!
//! Conflicts are taken from the listing page by page, and those of one document go to its owner
//! together: each still gets a change of its own, but the ledger is decided and the row of the
//! document written once for all of them. Many documents are under way at once, so that the
//! journal has much to commit together; nothing runs on when the stream is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_crdt::conflict::{Candidate, Conflict, ConflictId, ConflictState};
use anabranch_crdt::document::Collisions;
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::{AuthorName, DocumentId, DocumentName, RegionName};
use futures::stream::{self, Stream, TryStreamExt as _};
use serde_json::Value;

use super::{Deed, Order, Settling, decide, find, perform, plan};
use crate::document::loaded::{Loaded, Outcome, Scene};
use crate::document::request::Request;
use crate::document::{ConflictFilter, Documents, NamedConflict, write};
use crate::error::{Error, ErrorKind};

/// How to settle each of many conflicts.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Take the latest candidate.
    Latest,
    /// Take the earliest candidate.
    Earliest,
    /// Take the candidate that shows.
    Winner,
    /// Take the latest candidate of a region.
    Region(RegionName),
    /// Settle each in this way.
    Each(Settling),
}

/// What is to be settled, how, and by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    /// Which conflicts; its limit is the most that are settled.
    pub filter: ConflictFilter,
    /// How.
    pub choice: Choice,
    /// Why.
    pub note: Option<String>,
    /// Who asks for it.
    pub author: Option<AuthorName>,
    /// Whether only to tell what would be done.
    pub rehearsal: bool,
}

/// What became of one conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// The conflict.
    pub id: ConflictId,
    /// The name of its document, if it has one.
    pub name: Option<DocumentName>,
    /// Its path.
    pub path: Path,
    /// Whether it was settled.
    pub fate: Fate,
    /// What shows at the place now, or would show; `None` for nothing, and where nothing was done.
    pub value: Option<Value>,
}

/// Whether a conflict was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was.
    Done,
    /// It would be, but for the rehearsal.
    Rehearsed,
    /// The rule does not apply to it, as the text says.
    Skipped(String),
    /// Something is wrong, as the text says.
    Failed(String),
}

impl Documents {
    /// Settles many conflicts, each by one replicated change, and tells what became of each, in no
    /// particular order.
    ///
    /// # Errors
    /// A page of the ledger cannot be read: `Corrupt`, `Unavailable`. Nothing comes after that.
    ///
    /// # Cancel safety
    /// When the stream is dropped, conflicts that it took up may still be settled.
    pub fn settle_all(&self, bulk: Bulk) -> impl Stream<Item = Result<Settled, Error>> + use<> {
        let documents = self.clone();
        let filter = bulk.filter.clone();
        let batch = Arc::new(Batch {
            choice: bulk.choice,
            state: filter.state,
            note: bulk.note,
            author: bulk.author,
            rehearsal: bulk.rehearsal,
        });
        self.clone()
            .jobs(filter)
            .map_ok(move |job| documents.clone().run(job, Arc::clone(&batch)))
            .try_buffer_unordered(JOBS)
            .map_ok(|settled| stream::iter(settled.into_iter().map(Ok)))
            .try_flatten()
    }

    /// The conflicts that a filter passes, by document.
    fn jobs(self, filter: ConflictFilter) -> impl Stream<Item = Result<Job, Error>> {
        let pages = stream::try_unfold(Some(filter), move |filter| {
            let documents = self.clone();
            async move {
                let Some(mut filter) = filter.filter(|filter| filter.limit > 0) else {
                    return Ok(None);
                };
                let limit = filter.limit.min(PAGE);
                let page = documents.conflicts(ConflictFilter { limit, ..filter.clone() }).await?;
                filter.limit = filter.limit.saturating_sub(page.conflicts.len());
                filter.after = page.next;
                let more = page.next.is_some().then_some(filter);
                Ok::<_, Error>(Some((jobs_of(page.conflicts), more)))
            }
        });
        pages.map_ok(|jobs| stream::iter(jobs.into_iter().map(Ok))).try_flatten()
    }

    async fn run(self, job: Job, batch: Arc<Batch>) -> Result<Vec<Settled>, Error> {
        let whole = self.submit(&job, &batch, job.conflicts.clone()).await;
        let error = match whole {
            Ok(settled) => return Ok(settled),
            Err(error) => error,
        };
        let mut settled = Vec::new();
        for named in &job.conflicts {
            // One of them may have failed the others.
            let alone = match job.conflicts.len() {
                1 => Err(Error::new(error.kind(), error.code(), error.to_string())),
                _ => self.submit(&job, &batch, vec![named.clone()]).await,
            };
            settled.extend(alone.unwrap_or_else(|error| vec![failed(named, &error)]));
        }
        Ok(settled)
    }

    async fn submit(
        &self,
        job: &Job,
        batch: &Arc<Batch>,
        conflicts: Vec<NamedConflict>,
    ) -> Result<Vec<Settled>, Error> {
        let (document, batch) = (job.document, Arc::clone(batch));
        let ask = |reply| Request::SettleAll { document, conflicts, batch, reply };
        self.settled().await?;
        Ok(self.ask_patiently(document, ask).await?.0)
    }
}

/// Conflicts of one document that are settled together.
#[derive(Debug)]
struct Job {
    document: DocumentId,
    conflicts: Vec<NamedConflict>,
}

/// The rule by which conflicts are settled together.
#[derive(Debug)]
pub(in crate::document) struct Batch {
    choice: Choice,
    /// The state in which they were listed; those that are not in it any more are left alone.
    state: Option<ConflictState>,
    note: Option<String>,
    author: Option<AuthorName>,
    rehearsal: bool,
}

fn jobs_of(conflicts: Vec<NamedConflict>) -> Vec<Job> {
    let mut by_document: BTreeMap<DocumentId, Vec<NamedConflict>> = BTreeMap::new();
    for named in conflicts {
        by_document.entry(named.conflict.document).or_default().push(named);
    }
    let mut jobs = Vec::new();
    for (document, mut conflicts) in by_document {
        while !conflicts.is_empty() {
            let rest = conflicts.split_off(conflicts.len().min(TOGETHER));
            jobs.push(Job { document, conflicts });
            conflicts = rest;
        }
    }
    jobs
}

/// Settles conflicts of one document.
pub(in crate::document) fn settle_all(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    conflicts: &[NamedConflict],
    batch: &Batch,
) -> Result<(Vec<Settled>, Outcome), Error> {
    let (mut outcome, mut collisions) = (Outcome::default(), Collisions::default());
    let mut all = Vec::new();
    for named in conflicts {
        let (mut settled, deed) = match prepare(loaded, scene, named.conflict.id, batch) {
            Ok((settled, deed)) => (settled, deed),
            Err(error) => {
                all.push(failed(named, &error));
                continue;
            }
        };
        if let (false, Some((settling, deed))) = (batch.rehearsal, deed) {
            let order = batch.order(settled.id, &settling);
            let before = loaded.document.digest();
            match perform(loaded, scene, &order, deed, &mut outcome) {
                Ok(change) => collisions.extend(Collisions::made(&loaded.document, change)),
                // Nothing was done about this one, so the others are not its concern.
                Err(error) if loaded.document.digest() == before => {
                    settled = failed(named, &error);
                }
                Err(error) => return Err(error),
            }
        }
        all.push(settled);
    }
    if !outcome.drafts.is_empty() {
        write::conclude(loaded, scene, &collisions, &mut outcome)?;
    }
    Ok((all, outcome))
}

/// Decides about one conflict: what is to be told of it, and what is to be done if anything is.
fn prepare(
    loaded: &Loaded,
    scene: Scene<'_>,
    id: ConflictId,
    batch: &Batch,
) -> Result<(Settled, Option<(Settling, Deed)>), Error> {
    let conflict = find(loaded, id)?;
    let told = |fate, value| Settled {
        id,
        name: loaded.name.clone(),
        path: conflict.path.clone(),
        fate,
        value,
    };
    if batch.state.is_some_and(|state| state != conflict.state) {
        let detail = format!("it is {} by now", conflict.state);
        return Ok((told(Fate::Skipped(detail), None), None));
    }
    let Some(settling) = batch.choice.of(conflict, scene) else {
        let detail = batch.choice.nothing();
        return Ok((told(Fate::Skipped(detail), None), None));
    };
    let deed = decide(loaded, scene, &batch.order(id, &settling))?;
    let value = plan::foreseen(loaded, scene, conflict, &deed);
    let fate = if batch.rehearsal { Fate::Rehearsed } else { Fate::Done };
    Ok((told(fate, value), Some((settling, deed))))
}

impl Batch {
    fn order<'a>(&'a self, id: ConflictId, settling: &'a Settling) -> Order<'a> {
        Order {
            id,
            settling,
            expected: None,
            note: self.note.as_deref(),
            author: self.author.as_ref(),
        }
    }
}

impl Choice {
    /// How a conflict is to be settled; `None` if it has no such candidate.
    fn of(&self, conflict: &Conflict, scene: Scene<'_>) -> Option<Settling> {
        let candidates = &conflict.candidates;
        let time = |candidate: &&Candidate| (candidate.at, candidate.change);
        let taken = match self {
            Self::Each(settling) => return Some(settling.clone()),
            Self::Latest => candidates.iter().max_by_key(time),
            Self::Earliest => candidates.iter().min_by_key(time),
            Self::Winner => conflict.winner.and_then(|index| candidates.get(index)),
            Self::Region(region) => {
                let of =
                    |c: &&Candidate| scene.journal.region_of(c.leader).as_ref() == Some(region);
                candidates.iter().filter(of).max_by_key(time)
            }
        };
        taken.map(|candidate| Settling::Take(candidate.id.clone()))
    }

    fn nothing(&self) -> String {
        match self {
            Self::Region(region) => format!("it has no candidate of region {region}"),
            Self::Winner => "none of its candidates shows".to_owned(),
            Self::Latest | Self::Earliest | Self::Each(_) => "it has no candidates".to_owned(),
        }
    }
}

fn failed(named: &NamedConflict, error: &Error) -> Settled {
    let detail = error.to_string();
    let skipped = error.kind() == ErrorKind::Conflict || RULES.contains(&error.code());
    Settled {
        id: named.conflict.id,
        name: named.name.clone(),
        path: named.conflict.path.clone(),
        fate: if skipped { Fate::Skipped(detail) } else { Fate::Failed(detail) },
        value: None,
    }
}

/// Codes of errors that say that the rule does not apply to a conflict.
const RULES: [&str; 3] = ["not_mergeable", "not_decidable", "conflict_not_found"];

/// Conflicts that are listed at once.
const PAGE: usize = 1_000;

/// Conflicts of one document that are settled together: some milliseconds of its owner's time.
const TOGETHER: usize = 64;

/// Documents that are under way at once, for the journal to commit together.
const JOBS: usize = 256;
