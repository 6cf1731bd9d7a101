//! The simulator: whole clusters on virtual time, with real journals, real documents and the real
//! state machine of replication, and everything else made of dice.

mod batch;
mod check;
pub(crate) mod disk;
mod history;
mod network;
mod node;
mod nodes;
mod plan;
mod schedule;
mod tally;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use batch::{Batch, Summary, minimise};
pub use check::Violation;
pub use schedule::Fault;
pub use tally::Tally;

use plan::Plan;
use schedule::Schedule;
use world::World;

/// What one seed came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A number that is another if anything happened otherwise.
    pub trace: u64,
    /// What was tried.
    pub tally: Tally,
    /// The promises that were broken; none if all is well.
    pub violations: Vec<Violation>,
    /// The faults that happened, in their order.
    pub faults: Vec<Fault>,
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run_without(seed, &BTreeSet::new())
}

/// Runs one seed, leaving out the faults with these numbers.
#[must_use]
pub fn run_without(seed: u64, masked: &BTreeSet<u32>) -> Outcome {
    let plan = Plan::draw(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut world = World::new(plan, seed, Schedule::new(seed, masked.clone()));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        check::check(&world.history, &mut world.tally)
    }));
    let mut violations = std::mem::take(&mut world.violations);
    match ended {
        Ok(found) => violations.extend(found),
        Err(panic) => violations.push(Violation::panicked(panic.as_ref())),
    }
    Outcome {
        seed,
        trace: world.trace(),
        tally: std::mem::take(&mut world.tally),
        violations,
        faults: std::mem::take(&mut world.schedule.faults),
    }
}
