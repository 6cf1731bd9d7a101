//! `anabranch sim`: whole clusters on virtual time, and everything that can go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::output::{Format, note, print, print_json, print_table, thousands};
use super::signals::Signals;
use crate::cli::Failure;
use crate::sim::{Batch, Outcome, Summary, Tally, minimise, run_seed};

/// Runs simulated clusters through partitions, crashes and lost disks, and checks every promise
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimArgs {
    /// How many seeds to run
    #[arg(long, default_value_t = 100, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,

    /// Run this seed alone, twice, and print its faults
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,

    /// Seeds at a time
    #[arg(long, default_value_t = default_jobs(), value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,

    /// Put every deliberate bug to work until a checker finds it, each for at most --seeds seeds
    #[cfg(feature = "seeded-bugs")]
    #[arg(long, conflicts_with_all = ["seed", "from"])]
    audit: bool,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Each seed is a cluster of 3 to 5 regions in one process and on virtual time: the real replication,
the real journal on a disk that tears and drops what was not synced, real documents. From the seed
follow the topology, the settings, the clients and every fault. In the end the regions must agree,
nothing that was acknowledged may be missing, and every session must have seen its own writes.

A seed that fails prints its number and its faults, and fails the same way each time:
`anabranch sim --seed 4711`. The exit code is 1 if a promise was broken.

Examples:
  anabranch sim
  anabranch sim --seeds 1000 --jobs 2
  anabranch sim --from 5000 --seeds 500 -o json
  anabranch sim --seed 4711";

fn default_jobs() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(u16::MAX).min(256)
}

/// Runs the seeds.
///
/// # Errors
/// A promise was broken, or a seed did not replay; a signal, after what was done is printed.
pub(crate) async fn run(args: SimArgs) -> Result<(), Failure> {
    #[cfg(feature = "seeded-bugs")]
    if args.audit {
        return audit(&args).await;
    }
    let batch = match args.seed {
        Some(seed) => Batch { from: seed, seeds: 1, jobs: 1 },
        None => Batch { from: args.from, seeds: args.seeds, jobs: usize::from(args.jobs) },
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, bar) = (Arc::clone(&stop), progress(batch.seeds));
    let shown = bar.clone();
    let running = tokio::task::spawn_blocking(move || {
        batch.run(&asked, |outcome| {
            shown.inc(1);
            if !outcome.violations.is_empty() {
                shown.suspend(|| note(format!("seed {} fails", outcome.seed)));
            }
        })
    });
    let mut signals = Signals::install()?;
    tokio::pin!(running);
    let mut interrupted = false;
    let summary = loop {
        tokio::select! {
            summary = &mut running => break summary,
            () = signals.next() => {
                if interrupted {
                    return Err(Failure::Interrupted);
                }
                interrupted = true;
                stop.store(true, Ordering::Relaxed);
                bar.suspend(|| note("stopping after the seeds that are under way"));
            }
        }
    };
    bar.finish_and_clear();
    let summary = summary.map_err(|error| Failure::General(format!("it panicked: {error}")))?;
    report(&args, summary).await?;
    if interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Runs every deliberate bug until it is found.
#[cfg(feature = "seeded-bugs")]
async fn audit(args: &SimArgs) -> Result<(), Failure> {
    let (jobs, seeds) = (usize::from(args.jobs), args.seeds);
    let hunting = tokio::task::spawn_blocking(move || {
        let stop = AtomicBool::new(false);
        crate::sim::audit(jobs, seeds, &stop, |catch| {
            let bug = catch.bug;
            match catch.found {
                Some((check, seeds)) => note(format!("{bug:?}: {check}, after {seeds} seeds")),
                None => note(format!("{bug:?}: nobody")),
            }
        })
    });
    let hunting = hunting.await;
    let catches = hunting.map_err(|error| Failure::General(format!("it panicked: {error}")))?;
    let escaped = catches.iter().filter(|catch| catch.found.is_none()).count();
    let row = |catch: &crate::sim::Catch| {
        let (check, seeds) = match catch.found {
            Some((check, seeds)) => (check, thousands(seeds)),
            None => ("nobody", thousands(args.seeds)),
        };
        vec![format!("{:?}", catch.bug), check.to_owned(), seeds]
    };
    print_table(&["bug", "found by", "seeds"], catches.iter().map(row).collect())?;
    if escaped > 0 {
        return Err(Failure::General(format!("{escaped} bugs escaped")));
    }
    Ok(())
}

fn progress(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, ETA {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn report(args: &SimArgs, summary: Summary) -> Result<(), Failure> {
    match args.output {
        Format::Json => print_json(&to_json(&summary))?,
        Format::Table => print_table(&["tried", "times"], rows(&summary))?,
    }
    let shown = args.output == Format::Table && summary.failures.is_empty();
    if let Some(seed) = args.seed.filter(|_| shown) {
        let outcome = run_seed(seed);
        print(format!("\nseed {seed}, trace {:016x}", outcome.trace))?;
        outcome.faults.iter().try_for_each(|fault| print(fault.to_string()))?;
    }
    for seed in &summary.diverged {
        note(format!("seed {seed} did not go the same way again: the simulator has a leak"));
    }
    if args.output == Format::Table {
        for failure in summary.failures.iter().take(SHOWN_FAILURES) {
            explain(failure).await?;
        }
    }
    if summary.is_clean() {
        return Ok(());
    }
    let (failures, diverged) = (summary.failures.len(), summary.diverged.len());
    Err(Failure::General(format!("{failures} seeds failed, {diverged} did not replay")))
}

/// Prints what a failing seed broke, and which of its faults are enough for that.
async fn explain(failure: &Outcome) -> Result<(), Failure> {
    let (seed, trace) = (failure.seed, failure.trace);
    note(format!(
        "\nseed {seed}, trace {trace:016x}: replay it with `anabranch sim --seed {seed}`"
    ));
    for violation in &failure.violations {
        note(format!("  {violation}"));
    }
    let whole = failure.clone();
    let least = tokio::task::spawn_blocking(move || minimise(&whole, MINIMISING)).await;
    let least = least.map_err(|error| Failure::General(format!("it panicked: {error}")))?;
    note(format!("  {} of its {} faults are enough:", least.faults.len(), failure.faults.len()));
    least.faults.iter().for_each(|fault| note(format!("  {fault}")));
    Ok(())
}

fn rows(summary: &Summary) -> Vec<Vec<String>> {
    let row = |(name, value): (&str, String)| vec![name.to_owned(), value];
    let counted = counts(&summary.tally).into_iter().map(|(name, n)| (name, thousands(n)));
    let virtual_time = summary.tally.virtual_time.as_secs_f64() / 3_600.0;
    let more = [
        ("virtual time", format!("{virtual_time:.1} h")),
        ("seeds per second", format!("{:.2}", summary.rate())),
        ("seeds run twice", thousands(summary.replayed)),
        ("of them otherwise", thousands(summary.diverged.len() as u64)),
        ("seeds that failed", thousands(summary.failures.len() as u64)),
    ];
    counted.chain(more).map(row).collect()
}

fn to_json(summary: &Summary) -> Value {
    let counted = counts(&summary.tally);
    let counted = counted.into_iter().map(|(name, n)| (name.replace(' ', "_"), json!(n)));
    let failures = summary.failures.iter().map(|failure| {
        let violations: Vec<String> = failure.violations.iter().map(ToString::to_string).collect();
        let trace = format!("{:016x}", failure.trace);
        json!({ "seed": failure.seed, "trace": trace, "violations": violations })
    });
    json!({
        "tried": counted.collect::<serde_json::Map<_, _>>(),
        "virtual_seconds": summary.tally.virtual_time.as_secs_f64(),
        "elapsed_seconds": summary.elapsed.as_secs_f64(),
        "seeds_per_second": summary.rate(),
        "replayed": summary.replayed,
        "diverged": summary.diverged,
        "failures": failures.collect::<Vec<_>>(),
    })
}

fn counts(tally: &Tally) -> Vec<(&'static str, u64)> {
    vec![
        ("seeds", tally.seeds),
        ("acknowledged writes", tally.acknowledged),
        ("reads", tally.reads),
        ("refused writes", tally.refused),
        ("writes in doubt", tally.unknown),
        ("writes lost with their disk", tally.lost_with_disks),
        ("writes made offline", tally.offline),
        ("hostile uploads", tally.attacks),
        ("sessions that moved", tally.moves),
        ("sessions told to wait", tally.stale),
        ("partitions", tally.partitions),
        ("links reset", tally.flaps),
        ("crashes", tally.crashes),
        ("crashes inside a write", tally.torn_commits),
        ("crashes inside a restart", tally.failed_restarts),
        ("disks rolled back", tally.rollbacks),
        ("disks destroyed", tally.destroyed),
        ("disks full", tally.full_disks),
        ("clock jumps", tally.clock_jumps),
        ("renewed origins", tally.renewals),
        ("rows of the ledger", tally.conflicts),
        ("overwritten values looked up", tally.overwritten),
        ("session pairs compared", tally.session_pairs),
        ("frames", tally.frames),
        ("bytes on links", tally.bytes),
    ]
}

/// Failing seeds that are explained.
const SHOWN_FAILURES: usize = 3;

/// How long to look for faults that a failing seed does not need.
const MINIMISING: Duration = Duration::from_secs(20);
