//! `anabranch conflicts dismiss`, `reopen` and `undo`.

use serde_json::json;

use super::bulk;
use super::decision::{self, DecisionArgs, OneArgs, Target, TargetArgs};
use super::ledger::Act;
use crate::cli::Failure;

/// Says that a conflict, or all that match, needs no decision
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts dismiss 3f2a --note 'both are fine'
  anabranch conflicts dismiss --all-matching --collection logs --dry-run

What shows stays as it is. `conflicts reopen` takes it back.")]
pub(super) struct DismissArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    decision: DecisionArgs,
}

/// Asks for a decision again, about one conflict or all that match
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts reopen 3f2a --note 'the census was wrong'
  anabranch conflicts reopen --all-matching --state dismissed --collection logs

What shows stays as it is; `conflicts undo` brings back what showed before a resolution.")]
pub(super) struct ReopenArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    decision: DecisionArgs,
}

/// Puts back what showed before a resolution, as a new edit, and opens the conflict
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts undo 3f2a
  anabranch conflicts undo 3f2a --note 'wrong side'")]
pub(super) struct UndoArgs {
    #[command(flatten)]
    target: OneArgs,

    #[command(flatten)]
    decision: DecisionArgs,
}

/// Runs `dismiss`.
pub(super) async fn dismiss(args: DismissArgs) -> Result<(), Failure> {
    act(args.target, Act::Dismiss, bulk::Verb::Dismiss, args.decision).await
}

/// Runs `reopen`.
pub(super) async fn reopen(args: ReopenArgs) -> Result<(), Failure> {
    act(args.target, Act::Reopen, bulk::Verb::Reopen, args.decision).await
}

/// Runs `undo`.
pub(super) async fn undo(args: UndoArgs) -> Result<(), Failure> {
    decision::one(args.target, |_| Ok(Act::Undo), args.decision).await
}

async fn act(
    target: TargetArgs,
    act: Act,
    verb: bulk::Verb,
    decision: DecisionArgs,
) -> Result<(), Failure> {
    match target.target()? {
        Target::One(one) => decision::one(one, |_| Ok(act), decision).await,
        Target::Matching(matching) => bulk::run(matching, verb, json!({}), decision).await,
    }
}
