//! `anabranch doc put`, `patch` and `delete`.

use anabranch_crdt::ids::DocumentName;
use clap::ValueEnum;
use hyper::Method;
use serde_json::Value;

use super::body::BodyArgs;
use super::{document_path, mention_conflicts, open_conflicts};
use crate::cli::Failure;
use crate::cli::http::{Call, Client, NodeArgs, Reply};
use crate::cli::output::{Format, note, print_json, print_table, printable};
use crate::cli::writing::WritingArgs;

/// Creates a document, or makes it equal to a JSON object by the fewest edits
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc put cities/paris '{\"name\": \"Paris\", \"population\": 2102650}'
  anabranch doc put cities/paris --file paris.json
  jq .paris all.json | anabranch doc put cities/paris -
  anabranch doc put cities/paris --author alice --file paris.json
  anabranch doc put cities/paris --write-concern majority --file paris.json
  anabranch doc put cities/paris --if-match '\"5f0c\u{2026}\"' --file paris.json")]
pub(super) struct PutArgs {
    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    body: BodyArgs,
}

/// Changes parts of a document
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc patch cities/paris '{\"population\": 2102651}'
  anabranch doc patch cities/paris --type json '[{\"op\": \"remove\", \"path\": \"/mayor\"}]'
  anabranch doc patch cities/paris --type edits \\
      '[{\"op\": \"increment\", \"path\": \"/visits\", \"by\": 1}]'")]
pub(super) struct PatchArgs {
    /// What the body is
    #[arg(long = "type", default_value = "merge", value_name = "TYPE")]
    kind: PatchKind,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    body: BodyArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PatchKind {
    /// A JSON merge patch (RFC 7396): an object with the fields to set, null removes
    Merge,
    /// A JSON patch (RFC 6902): a list of operations
    Json,
    /// Edits that keep their intent, such as increment, insert and splice
    Edits,
}

impl PatchKind {
    fn media_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
            Self::Edits => "application/vnd.anabranch.edits+json",
        }
    }
}

/// Deletes a document
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc delete cities/atlantis
  anabranch doc delete cities/atlantis --if-match '\"5f0c\u{2026}\"'")]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct WriteArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Write only if the document still has this ETag; * means that it must exist
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,

    /// Write only after everything that this session token includes
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    #[command(flatten)]
    writing: WritingArgs,

    /// Print what the node answered (ETag, session token, conflicts) to stdout
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs `put`.
pub(super) async fn put(args: PutArgs) -> Result<(), Failure> {
    let body = args.body.read().await?;
    write(args.write, Method::PUT, Some(("application/json", body))).await
}

/// Runs `patch`.
pub(super) async fn patch(args: PatchArgs) -> Result<(), Failure> {
    let body = args.body.read().await?;
    write(args.write, Method::PATCH, Some((args.kind.media_type(), body))).await
}

/// Runs `delete`.
pub(super) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    write(args.write, Method::DELETE, None).await
}

async fn write(
    args: WriteArgs,
    method: Method,
    body: Option<(&'static str, Vec<u8>)>,
) -> Result<(), Failure> {
    let deleted = method == Method::DELETE;
    let mut call = Call::new(method, document_path(&args.name))
        .header("if-match", args.if_match.as_deref().map(quoted).as_deref())?
        .header("session-token", args.token.as_deref())?;
    if let Some((media_type, body)) = body {
        call = call.body(media_type, body);
    }
    let mut client = Client::new(&args.node);
    let reply = client.send(args.writing.sign(call)?).await?;
    let done = match (deleted, reply.status.as_u16()) {
        (true, _) => "deleted",
        (false, 201) => "created",
        (false, _) => "saved",
    };
    report(&args, &reply, done)?;
    mention_conflicts(&reply, &args.name);
    client.far_enough()
}

fn report(args: &WriteArgs, reply: &Reply, done: &str) -> Result<(), Failure> {
    let text = |name| reply.header(name).unwrap_or("-");
    let rows = [
        ("document", args.name.to_string()),
        ("outcome", done.to_owned()),
        ("region", text("region").to_owned()),
        ("durable", text("acked-regions").to_owned()),
        ("etag", text("etag").to_owned()),
        ("token", text("session-token").to_owned()),
        ("conflicts", open_conflicts(reply).to_string()),
    ];
    match args.output {
        None => {
            note(format!("{done} {} in {}", printable(&args.name.to_string()), text("region")));
            Ok(())
        }
        Some(Format::Table) => {
            let rows = rows.map(|(name, value)| vec![name.to_owned(), printable(&value)]);
            print_table(&["", ""], rows.to_vec())
        }
        Some(Format::Json) => {
            let members = rows.map(|(name, value)| (name.to_owned(), Value::from(value)));
            let mut object = serde_json::Map::from_iter(members);
            object.insert("conflicts".to_owned(), Value::from(open_conflicts(reply)));
            print_json(&Value::Object(object))
        }
    }
}

/// Quotes an ETag that was written without its quotes, as it is easily lost to a shell.
pub(super) fn quoted(etag: &str) -> String {
    if etag == "*" || etag.contains('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_may_lose_their_quotes() {
        assert_eq!(quoted("5f"), "\"5f\"");
        assert_eq!(quoted("\"5f\""), "\"5f\"");
        assert_eq!(quoted("\"a\", \"b\""), "\"a\", \"b\"");
        assert_eq!(quoted("*"), "*");
    }
}
