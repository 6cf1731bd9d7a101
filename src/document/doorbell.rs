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

type Receiving = (mpsc::Receiver<Request>, Arc<AtomicBool>);

impl OwnerQueues {
    pub(super) fn split(self) -> (Arc<[mpsc::Sender<Request>]>, Vec<Receiving>) {
        (self.senders, self.receivers)
    }
}

/// Tells owners which documents have new entries. It never blocks: a notice that does not fit
/// into a queue becomes the order to look on disk.
#[derive(Debug, Clone)]
pub struct Doorbell {
    owners: Vec<(mpsc::Sender<Request>, Arc<AtomicBool>)>,
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
        for ((queue, rescan), documents) in self.owners.iter().zip(documents) {
            if documents.is_empty() {
                continue;
            }
            let documents = documents.into_iter().collect();
            // The last place is left to requests.
            let told =
                queue.capacity() > 1 && queue.try_send(Request::Refresh { documents }).is_ok();
            if !told {
                rescan.store(true, Ordering::Release);
                wake(queue);
            }
        }
    }
}

/// Wakes an owner that may be waiting for a request; one that has any looks at its orders anyway.
fn wake(queue: &mpsc::Sender<Request>) {
    if queue.capacity() == queue.max_capacity() {
        // It fails only when a request has come in the meantime, which is as good.
        drop(queue.try_send(Request::Refresh { documents: Vec::new() }));
    }
}

/// Makes the queues of `owners` owners, each with room for `length` requests: half of them in the
/// channel, half sorted by the owner into turns. They look for pending entries on disk first.
#[must_use]
pub fn owner_queues(owners: usize, length: usize) -> (Doorbell, OwnerQueues) {
    let (mut senders, mut receivers, mut bells) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..owners.max(1) {
        let (sender, receiver) = mpsc::channel((length / 2).max(1) + 1);
        let rescan = Arc::new(AtomicBool::new(true));
        bells.push((sender.clone(), Arc::clone(&rescan)));
        senders.push(sender);
        receivers.push((receiver, rescan));
    }
    (Doorbell { owners: bells }, OwnerQueues { senders: senders.into(), receivers })
}

/// Ids of named documents are hashes, so any bytes of them spread evenly. All epochs of a document
/// have the first ones in common, and so one owner.
pub(super) fn owner_of(id: DocumentId, owners: usize) -> usize {
    let number = u32::from_be_bytes(id.family());
    usize::try_from(number).unwrap_or_default() % owners.max(1)
}
