//! Does the net catch fish? Every deliberate bug is put to work until a checker finds it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use anabranch_crdt::seeded::{Bug, plant};

use super::{Outcome, run_calm, run_seed};

/// What became of one bug.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Catch {
    /// The bug.
    pub bug: Bug,
    /// The checker that found it, and after how many seeds; `None` if nobody did.
    pub found: Option<(&'static str, u64)>,
}

/// Puts every bug to work, each for at most `seeds` seeds, and tells `each` what became of it.
pub fn audit(
    jobs: usize,
    seeds: u64,
    stop: &AtomicBool,
    mut each: impl FnMut(&Catch),
) -> Vec<Catch> {
    let (next, mut catches) = (AtomicUsize::new(0), Vec::new());
    let (sender, caught) = channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = hunt(*bug, seeds, stop);
                    if stop.load(Ordering::Relaxed)
                        || sender.send(Catch { bug: *bug, found }).is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for catch in caught {
            each(&catch);
            catches.push(catch);
        }
    });
    catches
}

/// Runs seeds with a bug until one fails; every fourth is a calm mesh.
fn hunt(bug: Bug, seeds: u64, stop: &AtomicBool) -> Option<(&'static str, u64)> {
    plant(Some(bug));
    let mut ran = 0;
    let found = (0..seeds).find_map(|seed| {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        ran += 1;
        let run: fn(u64) -> Outcome = if seed % 4 == 3 { run_calm } else { run_seed };
        plant(Some(bug));
        run(seed).violations.first().map(|violation| violation.check)
    });
    plant(None);
    found.map(|check| (check, ran))
}
