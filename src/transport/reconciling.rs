//! What the driver does for reconciliation: digests from the journal, whole documents from and to
//! their owners.
//!
//! All of it is of low priority, so few of these tasks run at a time, and none of them in the
//! driver itself.

use std::sync::Arc;

use anabranch_crdt::bundle::{Bundle, IdRange};
use anabranch_crdt::ids::{ChangeHash, DocumentId};
use futures::StreamExt;
use futures::stream::iter;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::pass_on_panic;
use crate::document::{Adopted, Documents};
use crate::error::{Error, ErrorKind};
use crate::journal::{CommitError, Journal, ReadError};
use crate::replication::Ticket;
use crate::replication::reconcile::{
    BrokenDocument, DocumentDigest, ReconcileEffect, ReconcileInput, Want,
};

/// Carries out the effects of reconciliation.
pub(super) struct Reconciling {
    shell: Shell,
    turns: Arc<Semaphore>,
    running: JoinSet<ReconcileInput>,
}

#[derive(Clone)]
struct Shell {
    journal: Journal,
    /// A node without documents has nothing to give, and can take nothing.
    documents: Option<Documents>,
}

/// Why an effect could not be carried out.
#[derive(Debug, thiserror::Error)]
enum EffectError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Commit(#[from] CommitError),
    #[error("{0}")]
    Documents(#[from] Error),
    #[error("{0}")]
    Ended(#[from] JoinError),
    #[error("this node keeps no documents")]
    NoDocuments,
}

impl Reconciling {
    pub(super) fn new(journal: Journal, documents: Option<Documents>) -> Self {
        let shell = Shell { journal, documents };
        Self { shell, turns: Arc::new(Semaphore::new(TASKS)), running: JoinSet::new() }
    }

    /// Begins to carry out an effect. The state machine bounds how many there are.
    pub(super) fn start(&mut self, effect: ReconcileEffect) {
        let (shell, turns) = (self.shell.clone(), Arc::clone(&self.turns));
        let Some(ticket) = ticket(&effect) else { return shell.perform_at_once(&effect) };
        self.running.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire_owned().await;
            let done = shell.perform(effect).await;
            done.unwrap_or_else(|error| ReconcileInput::Failed {
                ticket,
                reason: error.to_string(),
            })
        });
    }

    /// Waits for the next answer; none comes while nothing is under way.
    pub(super) async fn next(&mut self) -> Option<ReconcileInput> {
        match self.running.join_next().await? {
            Ok(input) => Some(input),
            Err(error) => {
                pass_on_panic(Err(error));
                None
            }
        }
    }
}

impl Shell {
    async fn perform(&self, effect: ReconcileEffect) -> Result<ReconcileInput, EffectError> {
        match effect {
            ReconcileEffect::Digests { ticket, range, limit } => {
                let (digests, more) = self.digests(range, limit).await?;
                Ok(ReconcileInput::Digests { ticket, digests, more })
            }
            ReconcileEffect::Heads { ticket, documents } => {
                let heads = self.heads(documents).await?;
                Ok(ReconcileInput::Heads { ticket, heads })
            }
            ReconcileEffect::Export { ticket, wants, bytes } => {
                self.export(ticket, wants, bytes).await
            }
            ReconcileEffect::Adopt { ticket, bundles } => self.adopt(ticket, bundles).await,
            ReconcileEffect::Raise { ticket, vector } => {
                let journal = self.journal.clone();
                spawn_blocking(move || journal.raise(vector)).await??;
                Ok(ReconcileInput::Raised { ticket })
            }
            ReconcileEffect::Alarm(_) => Err(EffectError::NoDocuments),
        }
    }

    async fn digests(
        &self,
        range: IdRange,
        limit: usize,
    ) -> Result<(Vec<DocumentDigest>, bool), EffectError> {
        let journal = self.journal.clone();
        let read = spawn_blocking(move || journal.digests(range, limit.saturating_add(1)));
        let mut found = read.await??;
        let more = found.len() > limit;
        found.truncate(limit);
        let digest = |(document, digest, pending)| DocumentDigest { document, digest, pending };
        Ok((found.into_iter().map(digest).collect(), more))
    }

    async fn heads(&self, documents: Vec<DocumentId>) -> Result<Vec<Want>, EffectError> {
        let owners = self.documents()?;
        let heads = iter(documents).map(|document| async move {
            match owners.heads(document).await {
                Ok(have) => Ok(Want { document, have }),
                // What cannot be read is asked for as if there were nothing.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    Ok(Want { document, have: Vec::new() })
                }
                Err(error) => Err(error),
            }
        });
        let heads: Vec<Result<Want, Error>> = heads.buffered(AT_ONCE).collect().await;
        Ok(heads.into_iter().collect::<Result<_, _>>()?)
    }

    /// Reads documents until `bytes` are reached; one at least.
    async fn export(
        &self,
        ticket: Ticket,
        wants: Vec<Want>,
        bytes: usize,
    ) -> Result<ReconcileInput, EffectError> {
        let owners = self.documents()?;
        let (mut bundles, mut absent, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut size = 0_usize;
        let mut exports = iter(wants)
            .map(|Want { document, have }| export(owners, document, have))
            .buffered(AT_ONCE);
        while let Some((document, exported)) = exports.next().await {
            match exported {
                Ok(bundle) if bundle.heads.is_empty() => absent.push(document),
                Ok(bundle) => {
                    size = size.saturating_add(bundle.encoded_bytes());
                    // The first one goes in any case, or nothing ever would.
                    if size > bytes && !bundles.is_empty() {
                        break;
                    }
                    bundles.push(bundle);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => unreadable.push(document),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ReconcileInput::Exported { ticket, bundles, absent, unreadable })
    }

    async fn adopt(
        &self,
        ticket: Ticket,
        bundles: Vec<Bundle>,
    ) -> Result<ReconcileInput, EffectError> {
        let documents: Vec<DocumentId> = bundles.iter().map(|bundle| bundle.document).collect();
        let adopted = self.documents()?.adopt(bundles).await?;
        let (mut partial, mut refused) = (Vec::new(), Vec::new());
        for (document, adopted) in documents.into_iter().zip(adopted) {
            match adopted {
                Adopted::Whole => {}
                Adopted::Partial(_) => partial.push(document),
                Adopted::Waiting(_) | Adopted::Refused(_) => refused.push(document),
            }
        }
        Ok(ReconcileInput::Adopted { ticket, partial, refused })
    }

    fn documents(&self) -> Result<&Documents, EffectError> {
        self.documents.as_ref().ok_or(EffectError::NoDocuments)
    }

    /// Does what needs no answer.
    fn perform_at_once(&self, effect: &ReconcileEffect) {
        if let ReconcileEffect::Alarm(broken) = effect {
            let BrokenDocument { document, peer, lacking, changes, .. } = broken;
            let row = self.journal.row(*document).ok().and_then(|(row, _)| row);
            let name = row.and_then(|row| row.name).map(|name| name.to_string());
            let name = name.as_deref().unwrap_or("without a name");
            tracing::error!(
                %document, name, %peer, ?lacking, changes,
                "replicas differ although both have every entry: one of them is broken"
            );
        }
    }
}

async fn export(
    owners: &Documents,
    document: DocumentId,
    have: Vec<ChangeHash>,
) -> (DocumentId, Result<Bundle, Error>) {
    (document, owners.export(document, have).await)
}

fn ticket(effect: &ReconcileEffect) -> Option<Ticket> {
    match effect {
        ReconcileEffect::Digests { ticket, .. }
        | ReconcileEffect::Heads { ticket, .. }
        | ReconcileEffect::Export { ticket, .. }
        | ReconcileEffect::Adopt { ticket, .. }
        | ReconcileEffect::Raise { ticket, .. } => Some(*ticket),
        ReconcileEffect::Alarm(_) => None,
    }
}

/// Effects that are carried out at a time: enough to keep the owners busy, few enough to leave
/// them to those who write.
const TASKS: usize = 4;

/// Documents of one effect that are with their owners at a time.
const AT_ONCE: usize = 8;
