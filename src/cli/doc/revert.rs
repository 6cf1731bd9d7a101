//! `anabranch doc revert`.

use anabranch_crdt::ids::DocumentName;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::at::{At, at};
use super::write::quoted;
use super::{mention_conflicts, path_below};
use crate::cli::Failure;
use crate::cli::http::{Call, Client, NodeArgs, Reply};
use crate::cli::output::{Format, note, print_json, printable};
use crate::cli::writing::WritingArgs;

/// Makes a document what it was at an earlier point, by a new edit
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc revert cities/paris 2h --note 'the import was wrong'
  anabranch doc revert cities/paris 3f2a9c1b
  anabranch doc revert cities/paris 2026-03-01T00:00:00Z --if-match '\"5f0c\u{2026}\"'

A point is a time (RFC 3339), how long ago (90s, 30min, 2h, 3d), or hashes of changes, joined by
commas. History is not rewritten: `anabranch doc history` shows the revert, and it merges with
what others write at the same time.")]
pub(super) struct RevertArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// The point to go back to
    #[arg(value_name = "TO", value_parser = at)]
    to: At,

    /// Why, for those who read the history later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// Revert only if the document still has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,

    #[command(flatten)]
    writing: WritingArgs,

    /// Print what the node answered (ETag, session token, conflicts) to stdout
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: RevertArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let to = args.to.written(&mut client, &args.name).await?;
    let mut body = json!({ "to": to });
    if let (Some(fields), Some(text)) = (body.as_object_mut(), args.note) {
        fields.insert("note".to_owned(), Value::from(text));
    }
    let call = Call::new(Method::POST, path_below("revert", &args.name))
        .header("if-match", args.if_match.as_deref().map(quoted).as_deref())?
        .body("application/json", body.to_string());
    let reply = client.send(args.writing.or_account().sign(call)?).await?;
    let region = reply.header("region").unwrap_or("-");
    note(format!("reverted {} in {region}", printable(&args.name.to_string())));
    if args.output == Format::Json {
        print_json(&answer(&args.name, &reply))?;
    }
    mention_conflicts(&reply, &args.name);
    client.far_enough()
}

fn answer(name: &DocumentName, reply: &Reply) -> Value {
    let header = |name: &str| Value::from(reply.header(name).unwrap_or("-"));
    Value::Object(Map::from_iter([
        ("document".to_owned(), Value::from(name.to_string())),
        ("outcome".to_owned(), Value::from("reverted")),
        ("region".to_owned(), header("region")),
        ("etag".to_owned(), header("etag")),
        ("token".to_owned(), header("session-token")),
        ("conflicts".to_owned(), Value::from(super::open_conflicts(reply))),
    ]))
}
