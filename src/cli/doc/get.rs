//! `anabranch doc get`.

use anabranch_crdt::ids::DocumentName;

use super::at::{At, at};
use super::{document_path, mention_conflicts};
use crate::cli::Failure;
use crate::cli::http::{Call, NodeArgs, target};
use crate::cli::output::print;
use crate::cli::reading::ReadingArgs;

/// Prints a document as canonical JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc get cities/paris
  anabranch doc get cities/paris --url http://127.0.0.1:3032 | jq .population
  anabranch doc get cities/paris --at 2h                as it was two hours ago
  anabranch doc get cities/paris --conflicts | jq '.conflicts[].candidates'
  anabranch doc get cities/paris --token \"$TOKEN\"      wait until this region has your write")]
pub(super) struct GetArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Answer only from a state that includes this session token
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// As it was then: RFC 3339, so long ago (2h, 3d), or hashes of changes joined by commas
    #[arg(long, value_name = "TIME|CHANGES", value_parser = at)]
    at: Option<At>,

    /// With the conflicts that are open or that a policy settled: {"value", "conflicts"}
    #[arg(long, conflicts_with = "at")]
    conflicts: bool,

    /// As an epoch showed it last, by its number: `anabranch doc epochs` lists them
    #[arg(long, value_name = "N", conflicts_with_all = ["at", "conflicts"])]
    epoch: Option<u32>,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: GetArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let at = match args.at {
        Some(at) => Some(at.written(&mut client, &args.name).await?),
        None => None,
    };
    let query = [
        ("at", at),
        ("conflicts", args.conflicts.then(|| "true".to_owned())),
        ("epoch", args.epoch.map(|epoch| epoch.to_string())),
    ];
    let call = Call::get(target(&document_path(&args.name), &query))
        .header("session-token", args.token.as_deref())?;
    let reply = client.send(call).await?;
    print(&reply.body)?;
    mention_conflicts(&reply, &args.name);
    Ok(())
}
