//! `anabranch conflicts`: the ledger of conflicts, read and settled from any node.

mod render;
mod row;

use anabranch_crdt::ids::{CollectionName, DocumentName};
use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use self::row::Row;
use super::doc::take_list;
use super::http::{Call, Client, NodeArgs, encode, target};
use super::output::{Format, note, plural, print, print_json, printable, terminal_width};
use crate::cli::Failure;

/// Lists, explains and settles conflicts
#[derive(Debug, clap::Args)]
pub(crate) struct ConflictsArgs {
    #[command(subcommand)]
    command: ConflictsCommand,
}

#[derive(Debug, Subcommand)]
enum ConflictsCommand {
    List(ListArgs),
    Show(ShowArgs),
    Resolve(ResolveArgs),
}

/// Lists conflicts: where, what shows, and where each stands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts list
  anabranch conflicts list --collection cities --state open
  anabranch conflicts list --document cities/paris -o json | jq '.[].candidates'
  anabranch conflicts list --state open --exit-code || echo 'someone has to decide'")]
struct ListArgs {
    /// Only of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<CollectionName>,

    /// Only of this document, as collection/key
    #[arg(long, value_name = "DOCUMENT")]
    document: Option<DocumentName>,

    /// Only in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,

    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,

    /// Exit with code 4 if any conflict that is listed is open
    #[arg(long)]
    exit_code: bool,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// More than one value is still there, and none was chosen
    Open,
    /// The policy of the path chose
    AutoResolved,
    /// A later write superseded every value
    Resolved,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::AutoResolved => "auto-resolved",
            Self::Resolved => "resolved",
        }
    }
}

/// Explains one conflict: who wrote what, where and when, which value shows, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts show 3f2a
  anabranch conflicts show 3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b -o json")]
struct ShowArgs {
    /// The conflict's id, or the beginning of it
    #[arg(value_name = "CONFLICT")]
    id: String,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Settles a conflict, in every region
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts resolve 3f2a --take 2
  anabranch conflicts resolve 3f2a --take 17@5d0c --note 'as the census says'
  anabranch conflicts resolve 3f2a --value '{\"name\": \"Paris\"}'")]
struct ResolveArgs {
    /// The conflict's id, or the beginning of it
    #[arg(value_name = "CONFLICT")]
    id: String,

    #[command(flatten)]
    choice: Choice,

    /// Why, for those who read the ledger later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// Take this candidate: its number in `conflicts show`, its id, or the beginning of that
    #[arg(long, value_name = "CANDIDATE")]
    take: Option<String>,

    /// Write this value instead
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    value: Option<Value>,
}

/// Runs the command.
///
/// # Errors
/// There is no such conflict, the choice does not fit it, or what the node said.
pub(crate) async fn run(args: ConflictsArgs) -> Result<(), Failure> {
    match args.command {
        ConflictsCommand::List(args) => list(args).await,
        ConflictsCommand::Show(args) => show(args).await,
        ConflictsCommand::Resolve(args) => resolve(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let filter = Filter {
        collection: args.collection.as_ref().map(ToString::to_string),
        document: args.document.as_ref().map(ToString::to_string),
        state: args.state.map(|state| state.name().to_owned()),
    };
    let mut client = Client::new(&args.node);
    let (found, more) = fetch(&mut client, &filter, args.limit).await?;
    let rows = found.iter().cloned().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    match args.output {
        Format::Json => print_json(&Value::Array(found))?,
        Format::Table if rows.is_empty() => note("no conflicts"),
        Format::Table => print(render::list(&rows, terminal_width()))?,
    }
    if more {
        let shown = plural(args.limit as u64, "conflict");
        note(format!("the first {shown}; there are more (--limit)"));
    }
    if args.exit_code && rows.iter().any(Row::is_open) {
        return Err(Failure::ConflictsPresent);
    }
    Ok(())
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let value = find(&mut client, &args.id).await?;
    match args.output {
        Format::Json => print_json(&value),
        Format::Table => print(render::show(&Row::read(value)?, terminal_width())),
    }
}

async fn resolve(args: ResolveArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let row = Row::read(find(&mut client, &args.id).await?)?;
    let mut body = match (args.choice.take, args.choice.value) {
        (Some(take), _) => json!({ "take": row.candidate(&take)? }),
        (None, value) => json!({ "value": value }),
    };
    if let (Some(fields), Some(text)) = (body.as_object_mut(), args.note) {
        fields.insert("note".to_owned(), Value::from(text));
    }
    let path = format!("/v1/conflicts/{}:resolve", encode(&row.id));
    let call = Call::new(Method::POST, path).body("application/json", body.to_string());
    let reply = client.send(call).await?;
    note(format!("resolved {} of {}", printable(&row.place()), printable(&row.document_name())));
    if args.output == Format::Json { print(&reply.body) } else { Ok(()) }
}

/// Which conflicts to fetch.
#[derive(Debug, Default)]
struct Filter {
    collection: Option<String>,
    document: Option<String>,
    state: Option<String>,
}

/// Fetches up to `limit` conflicts, and tells whether there are more.
async fn fetch(
    client: &mut Client,
    filter: &Filter,
    limit: usize,
) -> Result<(Vec<Value>, bool), Failure> {
    let mut found = Vec::new();
    let mut cursor = None;
    while found.len() < limit {
        let query = [
            ("collection", filter.collection.clone()),
            ("document", filter.document.clone()),
            ("state", filter.state.clone()),
            ("limit", Some((limit - found.len()).min(PAGE).to_string())),
            ("cursor", cursor.take()),
        ];
        let mut body = client.send(Call::get(target("/v1/conflicts", &query))).await?.json()?;
        found.append(&mut take_list(&mut body, "conflicts")?);
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok((found, cursor.is_some()))
}

/// Finds the one conflict whose id is, or starts with, `prefix`.
async fn find(client: &mut Client, prefix: &str) -> Result<Value, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!(
            "'{prefix}' is no conflict id: it is made of hexadecimal digits, as `conflicts list` \
             prints them"
        )));
    }
    if prefix.len() == ID_DIGITS {
        return client.send(Call::get(format!("/v1/conflicts/{prefix}"))).await?.json();
    }
    let (all, more) = fetch(client, &Filter::default(), SEARCHED).await?;
    let id = |value: &Value| value.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut matching = all.into_iter().filter(|value| id(value).starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(one), Some(other)) => Err(Failure::Usage(format!(
            "'{prefix}' is the beginning of more than one conflict, among them {} and {}: write \
             more of it",
            id(&one),
            id(&other)
        ))),
        (None, _) if more => Err(Failure::NotFound(format!(
            "no conflict starts with '{prefix}' among the first {SEARCHED}: write the whole id"
        ))),
        (None, _) => Err(Failure::NotFound(format!("no conflict starts with '{prefix}'"))),
    }
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error} (a string needs its double quotes: '\"text\"')"))
}

/// Conflicts per request; the node takes up to 1,000.
const PAGE: usize = 1_000;

/// Conflicts that are searched for an id of which only the beginning was given.
const SEARCHED: usize = 100_000;

const ID_DIGITS: usize = 32;
