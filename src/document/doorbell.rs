//! The queues of the owners, and the bell that the journal rings when entries of other regions
//! are durable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_crdt::ids::DocumentId;
use tokio::sync::mpsc;

use super::request::Request;
use crate::journal::{CommitBatch, Source};

/// The queues of the owners that are to be started.
#[derive(Debug)]
pub struct OwnerQueues {
    senders: Arc<[mpsc::Sender<Request>]>,
    receivers: Vec<Receiving>,
}

type Receiving = (mpsc::Receiver<Request>, Arc<Bell>);

/// Why an owner is to look for pending entries on disk.
#[derive(Debug)]
pub(super) struct Bell {
    /// A notice did not fit into its queue.
    pub(super) rescan: AtomicBool,
    /// Something of the owner's was not stored, which may have been entries that it had applied.
    /// They are tried again once the journal writes again.
    pub(super) failed: AtomicBool,
}

impl OwnerQueues {
    pub(super) fn split(self) -> (Arc<[mpsc::Sender<Request>]>, Vec<Receiving>) {
        (self.senders, self.receivers)
    }
}

/// Tells owners which documents have new entries. It never blocks: a notice that does not fit
/// into a queue becomes the order to look on disk.
#[derive(Debug, Clone)]
pub struct Doorbell {
    owners: Vec<(mpsc::Sender<Request>, Arc<Bell>)>,
}

impl Doorbell {
    /// Takes note of what one transaction added.
    pub fn committed(&self, batch: &CommitBatch) {
        let mut documents = vec![BTreeSet::new(); self.owners.len()];
        for (source, entry) in &batch.entries {
            if *source == Source::Remote
                && let Some(of) = documents.get_mut(owner_of(entry.document, self.owners.len()))
            {
                of.insert(entry.document);
            }
        }
        for ((queue, bell), documents) in self.owners.iter().zip(documents) {
            let again = bell.failed.swap(false, Ordering::AcqRel);
            if again {
                bell.rescan.store(true, Ordering::Release);
            }
            if documents.is_empty() && !again {
                continue;
            }
            let documents = documents.into_iter().collect();
            if queue.try_send(Request::Refresh { documents }).is_err() {
                bell.rescan.store(true, Ordering::Release);
            }
        }
    }
}

/// Makes the queues of `owners` owners, each with room for `length` requests. They look for
/// pending entries on disk first.
#[must_use]
pub fn owner_queues(owners: usize, length: usize) -> (Doorbell, OwnerQueues) {
    let (mut senders, mut receivers, mut bells) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..owners.max(1) {
        let (sender, receiver) = mpsc::channel(length.max(1));
        let (rescan, failed) = (AtomicBool::new(true), AtomicBool::new(false));
        let bell = Arc::new(Bell { rescan, failed });
        bells.push((sender.clone(), Arc::clone(&bell)));
        senders.push(sender);
        receivers.push((receiver, bell));
    }
    (Doorbell { owners: bells }, OwnerQueues { senders: senders.into(), receivers })
}

/// Ids of named documents are hashes, so any bytes of them spread evenly.
pub(super) fn owner_of(id: DocumentId, owners: usize) -> usize {
    let number = u128::from_be_bytes(*id.as_bytes()) % (owners.max(1) as u128);
    usize::try_from(number).unwrap_or_default()
}
