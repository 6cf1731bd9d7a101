//! `anabranch doc`: single documents.

use std::io::Read;
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::{CollectionName, DocumentName};
use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::Value;

use super::http::{Call, Client, NodeArgs, Reply, encode, target};
use super::output::{Format, note, plural, print, print_json, print_table, printable, shorten};
use crate::cli::Failure;

/// Reads and writes documents
#[derive(Debug, clap::Args)]
pub(crate) struct DocArgs {
    #[command(subcommand)]
    command: DocCommand,
}

#[derive(Debug, Subcommand)]
enum DocCommand {
    Get(GetArgs),
    Put(PutArgs),
    Patch(PatchArgs),
    Delete(DeleteArgs),
    Ls(LsArgs),
}

/// Prints a document as canonical JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc get cities/paris
  anabranch doc get cities/paris --url http://127.0.0.1:3032 | jq .population
  anabranch doc get cities/paris --token \"$TOKEN\"      wait until this region has your write")]
struct GetArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Answer only from a state that includes this session token
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    #[command(flatten)]
    node: NodeArgs,
}

/// Creates a document, or makes it equal to a JSON object by the fewest edits
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc put cities/paris '{\"name\": \"Paris\", \"population\": 2102650}'
  anabranch doc put cities/paris --file paris.json
  jq .paris all.json | anabranch doc put cities/paris -
  anabranch doc put cities/paris --if-match '\"5f0c\u{2026}\"' --file paris.json")]
struct PutArgs {
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
struct PatchArgs {
    /// What the body is
    #[arg(long = "type", default_value = "merge", value_name = "TYPE")]
    kind: PatchKind,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    body: BodyArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PatchKind {
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
struct DeleteArgs {
    #[command(flatten)]
    write: WriteArgs,
}

/// Lists the documents of a collection, in the order of their keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc ls cities
  anabranch doc ls cities --prefix fr/ --limit 20
  anabranch doc ls cities --values -o json | jq '.[].value.name'")]
struct LsArgs {
    /// The collection
    collection: CollectionName,

    /// Only keys that start so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,

    /// With the documents themselves
    #[arg(long)]
    values: bool,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
struct WriteArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Write only if the document still has this ETag; * means that it must exist
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,

    /// Write only after everything that this session token includes
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Print what the node answered (ETag, session token, conflicts) to stdout
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct BodyArgs {
    /// The JSON, or - to read it from stdin
    #[arg(value_name = "JSON")]
    json: Option<String>,

    /// Read the JSON from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The arguments are no JSON, or what the node said.
pub(crate) async fn run(args: DocArgs) -> Result<(), Failure> {
    match args.command {
        DocCommand::Get(args) => get(args).await,
        DocCommand::Put(args) => {
            let body = read_body(args.body).await?;
            write(args.write, Method::PUT, Some(("application/json", body))).await
        }
        DocCommand::Patch(args) => {
            let body = read_body(args.body).await?;
            write(args.write, Method::PATCH, Some((args.kind.media_type(), body))).await
        }
        DocCommand::Delete(args) => write(args.write, Method::DELETE, None).await,
        DocCommand::Ls(args) => ls(args).await,
    }
}

async fn get(args: GetArgs) -> Result<(), Failure> {
    let call =
        Call::get(document_path(&args.name)).header("session-token", args.token.as_deref())?;
    let reply = Client::new(&args.node).send(call).await?;
    print(&reply.body)?;
    mention_conflicts(&reply, &args.name);
    Ok(())
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
    let reply = Client::new(&args.node).send(call).await?;
    let done = match (deleted, reply.status.as_u16()) {
        (true, _) => "deleted",
        (false, 201) => "created",
        (false, _) => "saved",
    };
    report(&args, &reply, done)?;
    mention_conflicts(&reply, &args.name);
    Ok(())
}

fn report(args: &WriteArgs, reply: &Reply, done: &str) -> Result<(), Failure> {
    let text = |name| reply.header(name).unwrap_or("-");
    let rows = [
        ("document", args.name.to_string()),
        ("outcome", done.to_owned()),
        ("region", text("region").to_owned()),
        ("etag", text("etag").to_owned()),
        ("token", text("session-token").to_owned()),
        ("conflicts", conflicts(reply).to_string()),
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
            object.insert("conflicts".to_owned(), Value::from(conflicts(reply)));
            print_json(&Value::Object(object))
        }
    }
}

async fn ls(args: LsArgs) -> Result<(), Failure> {
    let documents = fetch(&args).await?;
    match args.output {
        Format::Json => print_json(&Value::Array(documents)),
        Format::Table => {
            let rows = documents.iter().map(|document| row(document, args.values)).collect();
            let header: &[&str] = if args.values {
                &["key", "conflicts", "value"]
            } else {
                &["key", "conflicts", "etag"]
            };
            print_table(header, rows)
        }
    }
}

/// Follows the cursor until there is enough or nothing more.
async fn fetch(args: &LsArgs) -> Result<Vec<Value>, Failure> {
    let mut client = Client::new(&args.node);
    let mut documents = Vec::new();
    let mut cursor = None;
    while documents.len() < args.limit {
        let page = (args.limit - documents.len()).min(PAGE);
        let path = format!("/v1/docs/{}", args.collection);
        let query = [
            ("prefix", args.prefix.clone()),
            ("limit", Some(page.to_string())),
            ("values", args.values.then(|| "true".to_owned())),
            ("cursor", cursor.take()),
        ];
        let mut body = client.send(Call::get(target(&path, &query))).await?.json()?;
        documents.append(&mut take_list(&mut body, "documents")?);
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(documents);
        }
    }
    if cursor.is_some() {
        note(format!(
            "the first {}; there are more (--limit)",
            plural(args.limit as u64, "document")
        ));
    }
    Ok(documents)
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

fn row(document: &Value, values: bool) -> Vec<String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or("-");
    let open = document.get("conflicts").and_then(Value::as_u64).unwrap_or(0);
    let last = if values {
        let value = document.get("value").map(Value::to_string).unwrap_or_default();
        shorten(&printable(&value), 200)
    } else {
        printable(text("etag"))
    };
    vec![printable(text("key")), open.to_string(), last]
}

/// Returns the path of a document; a slash in its key is encoded.
pub(crate) fn document_path(name: &DocumentName) -> String {
    format!("/v1/docs/{}/{}", name.collection, encode(name.key.as_str()))
}

fn conflicts(reply: &Reply) -> u64 {
    reply.header("conflicts").and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn mention_conflicts(reply: &Reply, name: &DocumentName) {
    let open = conflicts(reply);
    if open > 0 {
        let command = format!("anabranch conflicts list --document '{name}'");
        note(format!("{}: {command}", plural(open, "open conflict")));
    }
}

/// Quotes an ETag that was written without its quotes, as it is easily lost to a shell.
fn quoted(etag: &str) -> String {
    if etag == "*" || etag.contains('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

async fn read_body(args: BodyArgs) -> Result<Vec<u8>, Failure> {
    let bytes = match (args.json, args.file) {
        (Some(text), _) if text == "-" => read_blocking(None).await?,
        (Some(text), _) => text.into_bytes(),
        (None, Some(file)) if file == Path::new("-") => read_blocking(None).await?,
        (None, file) => read_blocking(file).await?,
    };
    match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::Usage(format!("this is no JSON: {error}"))),
    }
}

async fn read_blocking(file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let what = file.as_ref().map_or_else(|| "stdin".to_owned(), |f| f.display().to_string());
    let read = tokio::task::spawn_blocking(move || match file {
        Some(file) => std::fs::read(file),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
    });
    read.await
        .map_err(|error| Failure::General(format!("cannot read {what}: {error}")))?
        .map_err(|error| Failure::General(format!("cannot read {what}: {error}")))
}

/// Documents per request; the node takes up to 1,000.
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn etags_may_lose_their_quotes() {
        assert_eq!(quoted("5f"), "\"5f\"");
        assert_eq!(quoted("\"5f\""), "\"5f\"");
        assert_eq!(quoted("\"a\", \"b\""), "\"a\", \"b\"");
        assert_eq!(quoted("*"), "*");
    }

    #[test]
    fn a_key_with_slashes_stays_one_segment() {
        let name: DocumentName = "cities/fr/île de ré".parse().unwrap();
        assert_eq!(document_path(&name), "/v1/docs/cities/fr%2F%C3%AEle%20de%20r%C3%A9");
    }

    #[test]
    fn rows_show_etag_or_value() {
        let document = json!({"key": "a", "etag": "\"5f\"", "conflicts": 2, "value": {"b": 1}});
        assert_eq!(row(&document, false), ["a", "2", "\"5f\""]);
        assert_eq!(row(&document, true), ["a", "2", "{\"b\":1}"]);
    }
}
