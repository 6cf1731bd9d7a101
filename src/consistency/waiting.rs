//! Writes that wait until other regions have them.
//!
//! What a node has only grows, so of the writes that wait for one concern an earlier one is never
//! released after a later one: each concern has one queue, of which only the front is looked at
//! when an acknowledgement arrives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::WriteConcern;
use crate::error::{Error, ErrorKind};
use crate::journal::Position;
use crate::replication::{ClusterView, RegionView};

/// The writes that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    queues: Mutex<Queues>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Queues {
    by_concern: BTreeMap<WriteConcern, BTreeMap<u64, Waiter>>,
    last: u64,
}

#[derive(Debug)]
struct Waiter {
    position: Arc<Position>,
    told: oneshot::Sender<()>,
}

/// A write in its queue; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct InQueue<'a> {
    waiting: &'a Waiting,
    concern: WriteConcern,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { queues: Mutex::default(), places: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Takes a place for a write that may have to wait.
    ///
    /// # Errors
    /// `Overloaded` if too many wait already.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!(
                "{MAX_WAITING} writes wait for other regions already: try again later, or ask \
                 for less"
            );
            Error::new(ErrorKind::Overloaded, "too_many_waiting_writes", message)
        })
    }

    /// Puts a write into its queue, unless its concern is met by what `view` shows; that is read
    /// under the lock, so that no acknowledgement falls between the two.
    pub(super) fn enter(
        &self,
        concern: &WriteConcern,
        position: &Arc<Position>,
        view: impl FnOnce() -> Arc<ClusterView>,
    ) -> Option<InQueue<'_>> {
        let mut queues = self.queues();
        if concern.is_met(&view(), has(position)) {
            return None;
        }
        queues.last += 1;
        let number = queues.last;
        let (told, telling) = oneshot::channel();
        let waiter = Waiter { position: Arc::clone(position), told };
        queues.by_concern.entry(concern.clone()).or_default().insert(number, waiter);
        Some(InQueue { waiting: self, concern: concern.clone(), number, told: telling })
    }

    /// Releases every write whose concern is met.
    pub(super) fn release(&self, view: &ClusterView) {
        let mut queues = self.queues();
        for (concern, queue) in &mut queues.by_concern {
            while let Some(first) = queue.first_entry() {
                if !concern.is_met(view, has(&first.get().position)) {
                    break;
                }
                // Whoever waited may have gone.
                let _ = first.remove().told.send(());
            }
        }
        queues.by_concern.retain(|_, queue| !queue.is_empty());
    }

    /// Tells whether a write is in enough regions, and they lack only what came before it from
    /// elsewhere: nobody tells this node at once when that arrives there.
    pub(super) fn is_held_up(&self, view: &ClusterView) -> bool {
        let Some(own) = view.regions.first().and_then(|own| own.origin) else { return false };
        let queues = self.queues();
        queues.by_concern.iter().any(|(concern, queue)| {
            let first = queue.first_key_value().map(|(_, waiter)| waiter);
            first.is_some_and(|first| {
                let sequence = first.position.vector.sequence(own);
                concern.is_met(view, |region| region.held.sequence(own) >= sequence)
            })
        })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InQueue<'_> {
    /// Waits until the concern is met.
    pub(super) async fn released(&mut self) {
        // An error means that nobody releases any more, which the caller's timeout ends.
        if (&mut self.told).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        let mut queues = self.waiting.queues();
        if let Some(queue) = queues.by_concern.get_mut(&self.concern) {
            queue.remove(&self.number);
        }
    }
}

/// Tells whether a region has a write and everything that it may build on. The own region comes
/// first in a view, which may be older than the commit.
pub(super) fn has(position: &Position) -> impl Fn(&RegionView) -> bool {
    move |region| region.held.includes(&position.vector)
}

/// Writes that may wait at a time: some 200 bytes each, and a second of the fastest writer.
const MAX_WAITING: usize = 16_384;

#[cfg(test)]
mod tests {
    use anabranch_crdt::entry::Dot;
    use anabranch_crdt::ids::{Origin, Sequence};
    use anabranch_crdt::version::VersionVector;

    use crate::replication::MemberState;

    use super::*;

    fn vector(dots: &[(u8, u64)]) -> VersionVector {
        let dot = |&(byte, sequence): &(u8, u64)| Dot {
            origin: Origin::from_bytes([byte; 16]),
            sequence: Sequence(sequence),
        };
        dots.iter().map(dot).collect()
    }

    fn position(dots: &[(u8, u64)]) -> Arc<Position> {
        Arc::new(Position { vector: vector(dots), token: String::new() })
    }

    /// The own region has everything; two others have this.
    fn view(us: &[(u8, u64)], ap: &[(u8, u64)]) -> Arc<ClusterView> {
        let region = |name: &str, origin: u8, held: VersionVector| RegionView {
            region: name.parse().unwrap(),
            state: MemberState::Active,
            connected: true,
            origin: Some(Origin::from_bytes([origin; 16])),
            held: Arc::new(held),
            as_of: None,
            current: None,
        };
        let own = region("eu", 1, vector(&[(1, 100), (2, 100)]));
        let others = [region("us", 2, vector(us)), region("ap", 3, vector(ap))];
        Arc::new(ClusterView { regions: [own].into_iter().chain(others).collect() })
    }

    fn is_released(queue: &mut InQueue<'_>) -> bool {
        queue.told.try_recv().is_ok()
    }

    #[test]
    fn writes_are_released_in_their_order_as_acknowledgements_arrive() {
        let waiting = Waiting::new();
        let majority = WriteConcern::Majority;
        let mut queue: Vec<_> = (1..=3)
            .map(|n| waiting.enter(&majority, &position(&[(1, n)]), || view(&[], &[])).unwrap())
            .collect();
        let mut all =
            waiting.enter(&WriteConcern::All, &position(&[(1, 1)]), || view(&[], &[])).unwrap();
        waiting.release(&view(&[(1, 2)], &[]));
        let released: Vec<bool> = queue.iter_mut().map(is_released).collect();
        assert_eq!(released, [true, true, false]);
        assert!(!is_released(&mut all));
        waiting.release(&view(&[(1, 2)], &[(1, 1)]));
        assert!(is_released(&mut all) && !is_released(&mut queue[2]));
    }

    #[test]
    fn what_is_met_already_does_not_wait() {
        let waiting = Waiting::new();
        let met = || view(&[(1, 5)], &[]);
        assert!(waiting.enter(&WriteConcern::Majority, &position(&[(1, 5)]), met).is_none());
    }

    /// A region that has a write and not what it builds on cannot show it.
    #[test]
    fn a_region_counts_once_it_has_what_the_write_builds_on() {
        let waiting = Waiting::new();
        let write = position(&[(1, 5), (2, 7)]);
        let entered = waiting.enter(&WriteConcern::Majority, &write, || view(&[], &[]));
        let mut queue = entered.unwrap();
        let half = view(&[(1, 5), (2, 6)], &[]);
        waiting.release(&half);
        assert!(!is_released(&mut queue));
        assert!(waiting.is_held_up(&half), "only the other region can tell");
        waiting.release(&view(&[(1, 5), (2, 7)], &[]));
        assert!(is_released(&mut queue));
    }

    #[test]
    fn a_write_that_gives_up_leaves_nothing_behind() {
        let waiting = Waiting::new();
        drop(waiting.enter(&WriteConcern::All, &position(&[(1, 1)]), || view(&[], &[])));
        waiting.release(&view(&[], &[]));
        assert!(waiting.queues().by_concern.is_empty());
    }

    #[test]
    fn the_number_of_waiting_writes_is_bounded() {
        let waiting = Waiting::new();
        let places: Vec<_> = (0..MAX_WAITING).map(|_| waiting.place().unwrap()).collect();
        assert_eq!(waiting.place().unwrap_err().code(), "too_many_waiting_writes");
        drop(places);
        assert!(waiting.place().is_ok());
    }
}
