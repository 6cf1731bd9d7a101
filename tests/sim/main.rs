//! The seeds of a CI run: simulated clusters through everything that can go wrong, by the simulator
//! that `anabranch sim` runs.
//!
//! `SEED=n cargo test --test sim` runs one seed, `SEED=300..10000` runs more of them.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is its purpose"
)]

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anabranch::sim::{Batch, Outcome, Summary, minimise, run_calm, run_seed};

/// Seeds of a run, unless the environment asks for others.
const SEEDS: u64 = 600;

/// Which seeds are asked for: the first, and how many.
fn wanted() -> (u64, u64) {
    let number = |text: &str| text.parse::<u64>().expect("SEED=number or SEED=from..to");
    let Ok(wanted) = std::env::var("SEED") else { return (0, SEEDS) };
    match wanted.split_once("..") {
        Some((from, to)) => (number(from), number(to) - number(from)),
        None => (number(&wanted), 1),
    }
}

fn explain(failure: &Outcome) {
    let seed = failure.seed;
    println!("seed {seed} fails; replay it with `anabranch sim --seed {seed}`");
    failure.violations.iter().for_each(|violation| println!("  {violation}"));
    let least = minimise(failure, Duration::from_secs(20));
    println!("  {} of its {} faults are enough:", least.faults.len(), failure.faults.len());
    least.faults.iter().for_each(|fault| println!("  {fault}"));
}

/// Checks that the seeds have tried what they are there for.
fn check_coverage(summary: &Summary) {
    let tally = &summary.tally;
    let counts = [
        ("acknowledged writes", tally.acknowledged, 100_000),
        ("reads", tally.reads, 30_000),
        ("sessions that moved", tally.moves, 3_000),
        ("pairs of requests of a session", tally.session_pairs, 30_000),
        ("changes made offline", tally.offline, 3_000),
        ("hostile uploads", tally.attacks, 500),
        ("crashes", tally.crashes, 500),
        ("crashes inside a write", tally.torn_commits, 50),
        ("crashes inside a restart", tally.failed_restarts, 20),
        ("disks rolled back", tally.rollbacks, 10),
        ("disks destroyed", tally.destroyed, 10),
        ("disks full", tally.full_disks, 100),
        ("clock jumps", tally.clock_jumps, 300),
        ("partitions", tally.partitions, 500),
        ("rows of the ledger", tally.conflicts, 3_000),
        ("overwritten values looked up", tally.overwritten, 1_000),
    ];
    println!("{:.2} seeds per second, {counts:?}", summary.rate());
    for (what, count, least) in counts {
        assert!(count >= least, "only {count} {what}");
    }
}

#[test]
fn every_promise_holds_through_any_trouble() {
    let (from, seeds) = wanted();
    let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let summary = Batch { from, seeds, jobs }.run(&AtomicBool::new(false), |_| {});
    summary.failures.iter().take(3).for_each(explain);
    let failed: Vec<u64> = summary.failures.iter().map(|failure| failure.seed).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    let diverged = summary.diverged.clone();
    assert!(diverged.is_empty(), "seeds that did not go the same way again: {diverged:?}");
    if seeds >= SEEDS {
        assert!(summary.replayed >= seeds / 100, "{} seeds ran twice", summary.replayed);
        check_coverage(&summary);
    }
}

#[test]
fn another_seed_is_another_run_and_the_same_seed_is_the_same() {
    let [one, again, other] = [3, 3, 1_000_003].map(run_seed);
    assert_eq!((one.trace, one.tally, one.faults), (again.trace, again.tally, again.faults));
    assert_ne!(one.trace, other.trace);
}

/// A change crosses a full mesh once: pushing, relaying and pulling do not overlap. And digests
/// stay as rare as they are meant to be, however much is written.
#[test]
fn a_calm_mesh_sends_nothing_twice() {
    for seed in 0..4 {
        let outcome = run_calm(seed);
        assert!(outcome.violations.is_empty(), "SEED={seed}: {:?}", outcome.violations);
        assert!(outcome.tally.delivered_bytes > 10_000, "SEED={seed}: {:?}", outcome.tally);
    }
}
