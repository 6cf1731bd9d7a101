//! `anabranch conflicts`: the ledger of conflicts, read and settled from any node.

mod acts;
mod bulk;
mod decision;
mod explain;
mod filter;
mod inspector;
mod ledger;
mod list;
mod resolve;
mod row;
#[cfg(test)]
mod samples;
mod show;
mod stats;
mod stream;
mod watch;

use clap::Subcommand;

pub(in crate::cli) use self::filter::{When, when};
use self::inspector::InspectorArgs;
pub(in crate::cli) use self::ledger::Policy;
pub(in crate::cli) use self::row::Time;
use super::signals::unless_interrupted;
use crate::cli::Failure;

/// Lists, explains, watches and settles conflicts; on a terminal, opens the inspector
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConflictsArgs {
    #[command(subcommand)]
    command: Option<ConflictsCommand>,

    #[command(flatten)]
    inspector: InspectorArgs,
}

#[derive(Debug, Subcommand)]
enum ConflictsCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Watch(watch::WatchArgs),
    Resolve(Box<resolve::ResolveArgs>),
    Dismiss(Box<acts::DismissArgs>),
    Reopen(Box<acts::ReopenArgs>),
    Undo(acts::UndoArgs),
    Stats(stats::StatsArgs),
    Explain(explain::ExplainArgs),
}

/// Runs the command.
///
/// # Errors
/// There is no such conflict, the choice does not fit it, or what the node said.
pub(crate) async fn run(args: ConflictsArgs) -> Result<(), Failure> {
    match args.command {
        // It has the terminal to put back before it obeys a signal.
        None => inspector::run(args.inspector).await,
        Some(command) => unless_interrupted(run_command(command)).await,
    }
}

async fn run_command(command: ConflictsCommand) -> Result<(), Failure> {
    match command {
        ConflictsCommand::List(args) => list::run(args).await,
        ConflictsCommand::Show(args) => show::run(args).await,
        ConflictsCommand::Watch(args) => watch::run(args).await,
        ConflictsCommand::Resolve(args) => resolve::run(*args).await,
        ConflictsCommand::Dismiss(args) => acts::dismiss(*args).await,
        ConflictsCommand::Reopen(args) => acts::reopen(*args).await,
        ConflictsCommand::Undo(args) => acts::undo(args).await,
        ConflictsCommand::Stats(args) => stats::run(args).await,
        ConflictsCommand::Explain(args) => explain::run(args).await,
    }
}
