//! From the journal's writer thread to the replication driver: never blocks the writer, never
//! grows, never loses the newest vector.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anabranch_crdt::entry::Entry;
use anabranch_crdt::version::VersionVector;
use tokio::sync::{mpsc, watch};

use crate::journal::{CommitBatch, Position, Source};

/// Makes the channel that `JournalOptions::publish` fills and `Transport::start` empties.
#[must_use]
pub fn commit_channel() -> (CommitSender, CommitReceiver) {
    let (batches, queue) = mpsc::channel(MAX_BATCHES);
    let (newest, newest_seen) = watch::channel(Arc::default());
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = CommitSender {
        batches,
        newest,
        waiting: Arc::clone(&waiting),
        gap: AtomicBool::new(false),
        order: Mutex::new(()),
    };
    (sender, CommitReceiver { queue, newest: newest_seen, waiting })
}

/// The end for the writer thread.
#[derive(Debug)]
pub struct CommitSender {
    batches: mpsc::Sender<Message>,
    newest: watch::Sender<Arc<Position>>,
    waiting: Arc<AtomicUsize>,
    gap: AtomicBool,
    order: Mutex<()>,
}

/// The end for the driver.
#[derive(Debug)]
pub struct CommitReceiver {
    queue: mpsc::Receiver<Message>,
    newest: watch::Receiver<Arc<Position>>,
    waiting: Arc<AtomicUsize>,
}

/// What became durable since the last news.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Entries that this leader admitted: all since the last news, or none.
    pub(crate) local: Vec<Entry>,
    /// Everything that is durable.
    pub(crate) vector: VersionVector,
}

#[derive(Debug)]
struct Message {
    batch: Arc<CommitBatch>,
    bytes: usize,
    /// Batches before this one were left out.
    gap: bool,
}

impl CommitSender {
    /// Passes on what is durable now. When the driver is far behind, the entries are left out and
    /// only what is durable is kept; the driver reads them back.
    pub fn committed(&self, batch: &Arc<CommitBatch>) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = batch.entries.iter().map(|(_, entry)| entry.change.len()).sum();
        let fits = self.waiting.load(Ordering::Acquire).saturating_add(bytes) <= MAX_BYTES;
        let gap = self.gap.load(Ordering::Relaxed);
        let message = Message { batch: Arc::clone(batch), bytes, gap };
        self.waiting.fetch_add(bytes, Ordering::AcqRel);
        if fits && self.batches.try_send(message).is_ok() {
            self.gap.store(false, Ordering::Relaxed);
            return;
        }
        self.waiting.fetch_sub(bytes, Ordering::AcqRel);
        self.gap.store(true, Ordering::Relaxed);
        self.newest.send_replace(Arc::clone(&batch.position));
    }
}

impl CommitReceiver {
    /// Waits for news; `None` when the journal is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<News> {
        if let Some(news) = self.try_next() {
            return Some(news);
        }
        tokio::select! {
            biased;
            message = self.queue.recv() => {
                let message = message?;
                Some(self.collect(message))
            }
            changed = self.newest.changed() => {
                changed.ok()?;
                // Batches that came before are told before.
                Some(self.try_next().unwrap_or_else(|| self.newest_alone()))
            }
        }
    }

    /// Returns news if there are any.
    pub(crate) fn try_next(&mut self) -> Option<News> {
        if let Ok(message) = self.queue.try_recv() {
            return Some(self.collect(message));
        }
        self.newest.has_changed().is_ok_and(|changed| changed).then(|| self.newest_alone())
    }

    fn newest_alone(&mut self) -> News {
        let vector = self.newest.borrow_and_update().vector.clone();
        News { local: Vec::new(), vector }
    }

    /// Takes a message and those that wait behind it, up to and including the first gap.
    fn collect(&mut self, first: Message) -> News {
        let mut news = News::default();
        let mut next = Some(first);
        while let Some(message) = next {
            self.waiting.fetch_sub(message.bytes, Ordering::AcqRel);
            news.vector.merge(&message.batch.position.vector);
            if message.gap {
                // Entries on both sides of the gap would look like neighbours.
                news.local.clear();
                return news;
            }
            let local = message.batch.entries.iter().filter(|(source, _)| *source == Source::Local);
            news.local.extend(local.map(|(_, entry)| entry.clone()));
            let more = news.local.len() < MAX_ENTRIES;
            next = if more { self.queue.try_recv().ok() } else { None };
        }
        news
    }
}

/// Commits that wait for the driver; some seconds of group commits.
const MAX_BATCHES: usize = 1_024;

/// Bytes of changes that wait for the driver.
const MAX_BYTES: usize = 32 << 20;

/// Entries that one piece of news collects.
const MAX_ENTRIES: usize = 1_024;

#[cfg(test)]
mod tests {
    use anabranch_crdt::entry::Dot;
    use anabranch_crdt::ids::{DocumentId, Origin, Sequence, Timestamp};
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn origin() -> Origin {
        Origin(Uuid::from_u128(1))
    }

    fn batch(sequence: u64, source: Source, bytes: usize) -> Arc<CommitBatch> {
        let entry = Entry {
            origin: origin(),
            sequence: Sequence(sequence),
            document: DocumentId(Uuid::nil()),
            name: None,
            admitted: Timestamp(sequence),
            change: Bytes::from(vec![0; bytes]),
        };
        let vector = [Dot { origin: origin(), sequence: Sequence(sequence) }].into_iter().collect();
        let position = Arc::new(Position { vector, token: String::new() });
        Arc::new(CommitBatch {
            entries: vec![(source, entry)],
            documents: Vec::new(),
            conflicts: Vec::new(),
            position,
        })
    }

    fn sequences(news: &News) -> Vec<u64> {
        news.local.iter().map(|entry| entry.sequence.0).collect()
    }

    #[tokio::test]
    async fn commits_are_told_together_and_in_order() {
        let (sender, mut receiver) = commit_channel();
        for n in 1..=3 {
            sender.committed(&batch(n, Source::Local, 1));
        }
        sender.committed(&batch(4, Source::Remote, 1));
        let news = receiver.next().await.unwrap();
        assert_eq!(sequences(&news), [1, 2, 3]);
        assert_eq!(news.vector.sequence(origin()), Sequence(4));
        assert_eq!(receiver.try_next(), None);
        drop(sender);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn under_overload_entries_are_left_out_and_the_newest_vector_is_not() {
        let (sender, mut receiver) = commit_channel();
        let last = MAX_BATCHES as u64 + 10;
        for n in 1..=last {
            sender.committed(&batch(n, Source::Local, 1));
        }
        let told = receiver.next().await.unwrap();
        assert_eq!(sequences(&told), (1..=MAX_BATCHES as u64).collect::<Vec<_>>());
        let newest = receiver.next().await.unwrap();
        assert_eq!((newest.local.len(), newest.vector.sequence(origin())), (0, Sequence(last)));

        // The first after the gap is told without its entries, the next with them.
        sender.committed(&batch(last + 1, Source::Local, 1));
        sender.committed(&batch(last + 2, Source::Local, 1));
        let gap = receiver.next().await.unwrap();
        assert_eq!((gap.local.len(), gap.vector.sequence(origin())), (0, Sequence(last + 1)));
        let after = receiver.next().await.unwrap();
        assert_eq!(sequences(&after), [last + 2]);
        assert_eq!(after.vector.sequence(origin()), Sequence(last + 2));
        assert_eq!(receiver.try_next(), None);
    }

    #[test]
    fn it_is_bounded_in_bytes_too() {
        let (sender, mut receiver) = commit_channel();
        for n in 1..=5 {
            sender.committed(&batch(n, Source::Local, 10 << 20));
        }
        assert_eq!(sequences(&receiver.try_next().unwrap()), [1, 2, 3]);
        assert_eq!(receiver.try_next().unwrap().vector.sequence(origin()), Sequence(5));
        assert_eq!(receiver.waiting.load(Ordering::Acquire), 0);
    }
}
