//! `anabranch doc ls`.

use anabranch_crdt::ids::CollectionName;
use serde_json::Value;

use super::take_list;
use crate::cli::Failure;
use crate::cli::http::{Call, NodeArgs, target};
use crate::cli::output::{Format, note, plural, print_json, print_table, printable, shorten};
use crate::cli::reading::ReadingArgs;

/// Lists the documents of a collection, in the order of their keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc ls cities
  anabranch doc ls cities --prefix fr/ --limit 20
  anabranch doc ls cities --values -o json | jq '.[].value.name'")]
pub(super) struct LsArgs {
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
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: LsArgs) -> Result<(), Failure> {
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
    let mut client = args.reading.client(&args.node)?;
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

/// Documents per request; the node takes up to 1,000.
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_show_etag_or_value() {
        let document = json!({"key": "a", "etag": "\"5f\"", "conflicts": 2, "value": {"b": 1}});
        assert_eq!(row(&document, false), ["a", "2", "\"5f\""]);
        assert_eq!(row(&document, true), ["a", "2", "{\"b\":1}"]);
    }
}
