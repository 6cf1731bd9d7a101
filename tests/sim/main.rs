//! Seeded simulation of a cluster: the real state machine of replication on virtual time,
//! simulated links and simulated disks, against a reference model.
//!
//! `SEED=n cargo test --test sim` replays one seed, `SEED=300..10000` runs more of them.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is its purpose"
)]

mod network;
mod oracle;
mod plan;
mod storage;
mod world;

use std::ops::Range;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use plan::Plan;
use world::{Report, World, run_seed};

/// Runs a range of seeds, or, once, what the environment asks for.
fn run_seeds(range: Range<u64>) {
    let Ok(wanted) = std::env::var("SEED") else {
        return check_coverage(&range.map(run_seed).collect::<Vec<_>>());
    };
    if range.start > 0 {
        return;
    }
    let number = |text: &str| text.parse::<u64>().expect("SEED=number or SEED=from..to");
    match wanted.split_once("..") {
        Some((from, to)) => {
            check_coverage(&(number(from)..number(to)).map(run_seed).collect::<Vec<_>>());
        }
        None => println!("SEED={wanted}: {:#?}", run_seed(number(&wanted))),
    }
}

/// Checks that the seeds have shown what they are there for.
fn check_coverage(reports: &[Report]) {
    let total = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let counts = [
        ("acknowledged writes", total(|report| report.acknowledged), 20_000),
        ("crashes", total(|report| report.crashes), 50),
        ("partitions", total(|report| report.partitions), 50),
        ("renewed origins", total(|report| report.renewals), 2),
        ("writes recovered from peers", total(|report| report.recovered), 20),
    ];
    println!("{} seeds: {counts:?}, {} lost with disks", reports.len(), total(|r| r.lost));
    for (what, count, least) in counts {
        assert!(count >= least, "only {count} {what}");
    }
}

#[test]
fn replicas_agree_after_any_trouble_1() {
    run_seeds(0..75);
}

#[test]
fn replicas_agree_after_any_trouble_2() {
    run_seeds(75..150);
}

#[test]
fn replicas_agree_after_any_trouble_3() {
    run_seeds(150..225);
}

#[test]
fn replicas_agree_after_any_trouble_4() {
    run_seeds(225..300);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 77, 1_000_003] {
        assert_eq!(run_seed(seed), run_seed(seed), "SEED={seed}");
    }
}

/// A change crosses a full mesh once: pushing, relaying and pulling do not overlap. And digests
/// stay as rare as they are meant to be, however much is written.
#[test]
fn a_calm_mesh_sends_nothing_twice() {
    for seed in 0..8 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = Plan::calm(&mut rng);
        let (nodes, seconds) = (plan.nodes as u64, plan.trouble.as_secs());
        let report = World::new(plan, rng).run_steadily(Duration::from_secs(5));
        assert!(report.deliveries > 100, "SEED={seed}: {report:?}");
        assert_eq!(report.repeated, 0, "SEED={seed}: {report:?}");
        let links = nodes * (nodes - 1);
        assert!(report.digests <= links * seconds * 3 / 2, "SEED={seed}: {report:?}");
    }
}
