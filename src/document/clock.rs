//! The node's hybrid clock: one for all owners, so that timestamps never repeat on a node.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anabranch_crdt::clock::HybridClock;
use anabranch_crdt::ids::Timestamp;

/// Reads the wall clock; a component, so that tests can set it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The hybrid clock of a node; clones share it.
#[derive(Clone)]
pub struct NodeClock {
    clock: Arc<Mutex<HybridClock>>,
    wall: WallClock,
    skew: u64,
}

impl NodeClock {
    /// Starts at `floor`, the greatest timestamp that this node ever gave or took note of.
    #[must_use]
    pub fn new(wall: WallClock, floor: Timestamp, skew: Duration) -> Self {
        let skew = u64::try_from(skew.as_micros()).unwrap_or(u64::MAX);
        Self { clock: Arc::new(Mutex::new(HybridClock::resume(floor))), wall, skew }
    }

    /// Gives the timestamp of something that happens now.
    #[must_use]
    pub fn tick(&self) -> Timestamp {
        let wall = (self.wall)();
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(wall)
    }

    /// Reads the wall clock, for what is no timestamp of a change.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// Takes note of a peer's clock, as far as the allowed skew.
    pub fn observe(&self, seen: Timestamp) {
        let wall = (self.wall)();
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.observe(seen, wall, self.skew);
    }
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeClock").field("skew_microseconds", &self.skew).finish_non_exhaustive()
    }
}
