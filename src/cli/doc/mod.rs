//! `anabranch doc`: single documents, and how they became what they are.

mod at;
mod blame;
mod body;
mod diff;
mod epoch;
mod get;
mod history;
mod ls;
mod revert;
mod write;

use anabranch_crdt::ids::DocumentName;
use clap::Subcommand;
use serde_json::Value;

pub(in crate::cli) use self::body::read_file;
pub(in crate::cli) use self::history::{Change, fetch as fetch_history};
use super::http::{Reply, encode};
use super::output::{note, plural};
use crate::cli::Failure;

/// Reads and writes documents, and shows their history
#[derive(Debug, clap::Args)]
pub(crate) struct DocArgs {
    #[command(subcommand)]
    command: DocCommand,
}

#[derive(Debug, Subcommand)]
enum DocCommand {
    Get(get::GetArgs),
    Put(write::PutArgs),
    Patch(write::PatchArgs),
    Delete(write::DeleteArgs),
    Ls(ls::LsArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Blame(blame::BlameArgs),
    Revert(revert::RevertArgs),
    Undelete(epoch::UndeleteArgs),
    Compact(epoch::CompactArgs),
    Purge(epoch::PurgeArgs),
    Epochs(epoch::EpochsArgs),
    Quarantine(epoch::QuarantineArgs),
}

/// Runs the command.
///
/// # Errors
/// The arguments are no JSON, or what the node said.
pub(crate) async fn run(args: DocArgs) -> Result<(), Failure> {
    match args.command {
        DocCommand::Get(args) => get::run(args).await,
        DocCommand::Put(args) => write::put(args).await,
        DocCommand::Patch(args) => write::patch(args).await,
        DocCommand::Delete(args) => write::delete(args).await,
        DocCommand::Ls(args) => ls::run(args).await,
        DocCommand::History(args) => history::run(args).await,
        DocCommand::Diff(args) => diff::run(args).await,
        DocCommand::Blame(args) => blame::run(args).await,
        DocCommand::Revert(args) => revert::run(args).await,
        DocCommand::Undelete(args) => epoch::undelete(args).await,
        DocCommand::Compact(args) => epoch::compact(args).await,
        DocCommand::Purge(args) => epoch::purge(args).await,
        DocCommand::Epochs(args) => epoch::epochs(args).await,
        DocCommand::Quarantine(args) => epoch::quarantine(args).await,
    }
}

/// Takes the list under `key` out of an answer.
///
/// # Errors
/// `General` if there is none.
pub(crate) fn take_list(body: &mut Value, key: &str) -> Result<Vec<Value>, Failure> {
    match body.get_mut(key).map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(Failure::General(format!("unexpected answer of the node: it has no '{key}'"))),
    }
}

/// Returns the path of a document; a slash in its key is encoded.
pub(crate) fn document_path(name: &DocumentName) -> String {
    path_below("docs", name)
}

/// Returns the path of something about a document, such as its history.
pub(crate) fn path_below(route: &str, name: &DocumentName) -> String {
    format!("/v1/{route}/{}/{}", name.collection, encode(name.key.as_str()))
}

/// Returns how many conflicts of the document are open.
fn open_conflicts(reply: &Reply) -> u64 {
    reply.header("conflicts").and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn mention_conflicts(reply: &Reply, name: &DocumentName) {
    let open = open_conflicts(reply);
    if open > 0 {
        let command = format!("anabranch conflicts list --document '{name}'");
        note(format!("{}: {command}", plural(open, "open conflict")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_slashes_stays_one_segment() {
        let name: DocumentName = "cities/fr/île de ré".parse().unwrap();
        assert_eq!(document_path(&name), "/v1/docs/cities/fr%2F%C3%AEle%20de%20r%C3%A9");
        assert_eq!(path_below("blame", &name), "/v1/blame/cities/fr%2F%C3%AEle%20de%20r%C3%A9");
    }
}
