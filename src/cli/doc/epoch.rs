//! `anabranch doc undelete`, `compact`, `purge`, `epochs` and `quarantine`.

use std::time::Duration;

use anabranch_crdt::ids::DocumentName;
use hyper::Method;
use serde_json::{Map, Value};

use super::write::quoted;
use super::{mention_conflicts, path_below, take_list};
use crate::cli::Failure;
use crate::cli::author::AuthorArgs;
use crate::cli::http::{Call, Client, NodeArgs, NodeUrl, Reply, target};
use crate::cli::output::{Format, note, plural, print_json, print_table, printable, thousands};

/// Brings a deleted document back as it was, by a new edit
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc undelete cities/paris
  anabranch doc undelete cities/paris --note 'deleted by mistake'

Until a document is purged its delete can be undone: `anabranch doc epochs` says whether it was.")]
pub(super) struct UndeleteArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    condition: ConditionArgs,
}

/// Starts a new epoch: the history so far becomes an archive
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc compact cities/paris --note 'ten thousand edits of an import'
  anabranch doc history cities/paris --epoch 0        the archive
  anabranch doc epochs cities/paris                   what came for it later

Waits until every region has what this one has. Edits that come for the old epoch afterwards, from
a region or a client that was away, are merged into the new one, and reported.")]
pub(super) struct CompactArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    condition: ConditionArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Purges a deleted document, for good
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc delete cities/paris && anabranch doc purge cities/paris
  anabranch doc purge cities/paris --wait 60

Waits until every region has the delete. Afterwards nothing is left of the document, and nobody who
stayed away can bring it back; what is written under its name is a new document.")]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Why, for those who read the history later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    #[command(flatten)]
    author: AuthorArgs,

    /// Print what the node answered to stdout
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
struct ConditionArgs {
    /// Only if the document still has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

#[derive(Debug, clap::Args)]
struct WaitArgs {
    /// How many seconds to wait for other regions
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

/// Lists the epochs of a document, and what came late
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc epochs cities/paris
  anabranch doc epochs cities/paris -o json | jq '.[].late'")]
pub(super) struct EpochsArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Lists changes that came for purged documents and were set aside
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc quarantine
  anabranch doc quarantine -o json | jq -r '.[] | .document + \" \" + .region'")]
pub(super) struct QuarantineArgs {
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs `undelete`.
pub(super) async fn undelete(args: UndeleteArgs) -> Result<(), Failure> {
    act(args.common, "undelete", args.condition.if_match, None, "brought back").await
}

/// Runs `compact`.
pub(super) async fn compact(args: CompactArgs) -> Result<(), Failure> {
    let wait = Some(args.wait.wait);
    act(args.common, "compact", args.condition.if_match, wait, "compacted").await
}

/// Runs `purge`.
pub(super) async fn purge(args: PurgeArgs) -> Result<(), Failure> {
    act(args.common, "purge", None, Some(args.wait.wait), "purged").await
}

/// Runs `epochs`.
pub(super) async fn epochs(args: EpochsArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let mut body = client.send(Call::get(path_below("epochs", &args.name))).await?.json()?;
    let epochs = take_list(&mut body, "epochs")?;
    if args.output == Format::Json {
        return print_json(&Value::Array(epochs));
    }
    let rows = epochs.iter().map(epoch_row).collect();
    print_table(&["epoch", "state", "changes", "closed", "by", "late"], rows)
}

/// Runs `quarantine`.
pub(super) async fn quarantine(args: QuarantineArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let (mut entries, mut cursor, mut total) = (Vec::new(), None::<String>, 0);
    while entries.len() < args.limit {
        let limit = (args.limit - entries.len()).min(PAGE).to_string();
        let query = [("limit", Some(limit)), ("cursor", cursor)];
        let mut body = client.send(Call::get(target("/v1/quarantine", &query))).await?.json()?;
        entries.extend(take_list(&mut body, "entries")?);
        total = body.get("total").and_then(Value::as_u64).unwrap_or_default();
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if args.output == Format::Json {
        return print_json(&Value::Array(entries));
    }
    let columns = ["document", "region", "author", "at", "bytes", "reason"];
    let row = |entry: &Value| columns.map(|name| shown(entry, name)).to_vec();
    print_table(&columns, entries.iter().map(row).collect())?;
    note(format!("{} set aside", plural(total, "change")));
    Ok(())
}

async fn act(
    args: CommonArgs,
    route: &str,
    if_match: Option<String>,
    wait: Option<u64>,
    done: &str,
) -> Result<(), Failure> {
    let mut body = Map::new();
    body.extend(args.note.map(|text| ("note".to_owned(), Value::from(text))));
    body.extend(wait.map(|wait| ("wait_seconds".to_owned(), Value::from(wait))));
    let call = Call::new(Method::POST, path_below(route, &args.name))
        .header("if-match", if_match.as_deref().map(quoted).as_deref())?
        .body("application/json", Value::Object(body).to_string());
    let call = args.author.or_account().sign(call)?;
    // An answer takes as long as the node waits for other regions.
    let waits = Duration::from_secs(wait.unwrap_or_default());
    let node = NodeArgs { timeout: args.node.timeout.max(waits + ANSWER), ..args.node };
    let reply = Client::new(&node).exchange(&call).await?;
    let reply = match leader(&reply) {
        Some(url) => {
            note(format!("documents are compacted at {url}: asking there"));
            Client::new(&NodeArgs { url, ..node }).send(call).await?
        }
        None => reply.success()?,
    };
    let region = reply.header("region").unwrap_or("-");
    note(format!("{done} {} in {region}", printable(&args.name.to_string())));
    if args.output == Format::Json {
        print_json(&answer(&args.name, done, &reply))?;
    }
    mention_conflicts(&reply, &args.name);
    Ok(())
}

/// The node that compacts, where another one was asked.
fn leader(reply: &Reply) -> Option<NodeUrl> {
    reply.problem_code().filter(|code| code == "other_leader")?;
    let problem = reply.json().ok()?;
    problem.get("leader")?.as_str()?.parse().ok()
}

fn answer(name: &DocumentName, done: &str, reply: &Reply) -> Value {
    let header = |name: &str| Value::from(reply.header(name).unwrap_or("-"));
    let mut members = Map::from_iter([
        ("document".to_owned(), Value::from(name.to_string())),
        ("outcome".to_owned(), Value::from(done)),
        ("region".to_owned(), header("region")),
        ("etag".to_owned(), header("etag")),
        ("token".to_owned(), header("session-token")),
    ]);
    if let Ok(Value::Object(body)) = reply.json()
        && body.contains_key("archived_changes")
    {
        members.extend(body);
    }
    Value::Object(members)
}

fn epoch_row(epoch: &Value) -> Vec<String> {
    let count = |name: &str| epoch.get(name).and_then(Value::as_u64).unwrap_or_default();
    let closed = epoch.get("closed").and_then(Value::as_array).and_then(|all| all.first());
    let of_closing = |name: &str| closed.map_or_else(|| "-".to_owned(), |one| shown(one, name));
    let late = epoch.get("late").and_then(Value::as_array).cloned().unwrap_or_default();
    let told: Vec<String> = BECAME
        .iter()
        .map(|what| (late.iter().filter(|one| shown(one, "became") == *what).count(), what))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    vec![
        count("epoch").to_string(),
        shown(epoch, "state"),
        thousands(count("changes")),
        of_closing("at"),
        of_closing("author"),
        if told.is_empty() { "-".to_owned() } else { told.join(", ") },
    ]
}

fn shown(object: &Value, name: &str) -> String {
    match object.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

/// How long an answer may take once nothing is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What may become of a late change.
const BECAME: [&str; 5] = ["merged", "waiting", "nothing", "unplaced", "purged"];

/// Entries that are asked for at once.
const PAGE: usize = 1_000;
