//! The simulator: whole clusters on virtual time, with real journals, real documents and the real
//! state machine of replication, and everything else made of dice.
//!
//! A seed is a run, and the same run each time. `plan` draws which faults exist in it and how
//! strong they are; `world` has the clocks, the links, the clients and the faults; `node` drives
//! the parts of one node by hand, on a `disk` that crashes, tears, lies and fills up. What an
//! observer sees goes into the `history`, and `check` judges that, without the server's own idea
//! of what is durable or what came before what. `batch` runs many seeds, and finds out which faults
//! a failing one needs.
//!
//! # Why the parts are driven by hand
//!
//! A thread that is woken a moment later is another run. So the writer of the journal and the
//! owners of documents do their work in steps, which a thread of the node takes in a loop, and the
//! simulator when its dice say so. Whoever has to wait for the disk meanwhile drives it.

#[cfg(feature = "seeded-bugs")]
mod audit;
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
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[cfg(feature = "seeded-bugs")]
pub use audit::{Catch, audit};
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
    play(plan, seed, masked, World::run)
}

/// Runs a full mesh in which nothing goes wrong, and looks at what it costs: no more than one in
/// fifty bytes of changes may come to a node that had them, and digests are as rare as they are
/// meant to be.
#[must_use]
pub fn run_calm(seed: u64) -> Outcome {
    let plan = Plan::calm(&mut ChaCha8Rng::seed_from_u64(seed));
    play(plan, seed, &BTreeSet::new(), |world| world.run_steadily(Duration::from_secs(4)))
}

fn play(plan: Plan, seed: u64, masked: &BTreeSet<u32>, run: impl FnOnce(&mut World)) -> Outcome {
    let mut world = World::new(plan, seed, Schedule::new(seed, masked.clone()));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        run(&mut world);
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
