//! `anabranch doc blame`.

use anabranch_crdt::ids::DocumentName;
use serde::Deserialize;
use serde_json::Value;

use super::history::writer;
use super::path_below;
use crate::cli::Failure;
use crate::cli::conflicts::Time;
use crate::cli::http::{Call, NodeArgs, target};
use crate::cli::output::{
    Format, note, print, print_json, printable, render_table, shorten, terminal_width,
};
use crate::cli::reading::ReadingArgs;

/// Says for every value that shows who wrote it, when and where
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc blame cities/paris
  anabranch doc blame cities/paris --path /address
  anabranch doc blame cities/paris -o json | jq '.fields[] | select(.author == \"alice\")'")]
pub(super) struct BlameArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Only values at this place, or below it: a JSON pointer
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Deserialize)]
struct Blame {
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    path: String,
    value: Value,
    region: Option<String>,
    #[serde(default)]
    author: Option<String>,
    origin: String,
    #[serde(default)]
    client: bool,
    at: Time,
    change: String,
}

/// Runs the command.
pub(super) async fn run(args: BlameArgs) -> Result<(), Failure> {
    let call = Call::get(target(&path_below("blame", &args.name), &[("path", args.path)]));
    let value = args.reading.client(&args.node)?.send(call).await?.json()?;
    if args.output == Format::Json {
        return print_json(&value);
    }
    let blame: Blame = serde_json::from_value(value)
        .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))?;
    if blame.fields.is_empty() {
        note("no values");
        return Ok(());
    }
    print(table(&blame, terminal_width()))
}

fn table(blame: &Blame, width: Option<u16>) -> String {
    let row = |field: &Field| {
        vec![
            shorten(&printable(&field.path), PATH),
            shorten(&printable(&field.value.to_string()), VALUE),
            writer(field.author.as_deref(), field.region.as_deref(), &field.origin, field.client),
            printable(&field.at.show()),
            printable(&field.change.chars().take(SHORT_HASH).collect::<String>()),
        ]
    };
    let rows = blame.fields.iter().map(row).collect();
    render_table(&["path", "value", "by", "at", "change"], rows, width)
}

const PATH: usize = 60;

/// Characters of a value; `-o json` has all of them.
const VALUE: usize = 120;

/// Digits of a hash that tell the changes of a document apart; any unique beginning is accepted.
const SHORT_HASH: usize = 9;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_has_its_writer() {
        let field = |path: &str, value: Value, author: Value| {
            json!({"path": path, "value": value, "region": "eu-west", "author": author,
                "origin": "5d0c1122-3344-5566-7788-9900aabbccdd", "client": false,
                "at": "2026-03-01T10:15:30Z", "change": "aa11bb22cc33dd44"})
        };
        let of =
            |fields: Value| serde_json::from_value::<Blame>(json!({"fields": fields})).unwrap();
        let blame = of(json!([field("/name", json!("Paris"), json!("Zoë"))]));
        assert_eq!(
            table(&blame, Some(80)),
            "\
PATH   VALUE    BY            AT                        CHANGE
/name  \"Paris\"  Zoë, eu-west  2026-03-01 10:15:30.000Z  aa11bb22c"
        );
        let long = of(json!([field(&"/a".repeat(99), json!("x".repeat(999)), Value::Null)]));
        let text = table(&long, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
