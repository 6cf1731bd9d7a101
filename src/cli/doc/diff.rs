//! `anabranch doc diff`.

use anabranch_crdt::ids::DocumentName;
use serde::Deserialize;
use serde_json::Value;

use super::at::{At, at};
use super::path_below;
use crate::cli::Failure;
use crate::cli::http::{Call, NodeArgs, target};
use crate::cli::output::{
    Format, note, print, print_json, printable, render_table, shorten, terminal_width,
};
use crate::cli::reading::ReadingArgs;

/// Shows what is different between two points in the history of a document
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc diff cities/paris 2h                    since two hours ago
  anabranch doc diff cities/paris 3f2a9c1b 77aa00e1     between two changes
  anabranch doc diff cities/paris 2026-03-01T00:00:00Z -o json | jq '.changes[].path'

A point is a time (RFC 3339), how long ago (90s, 30min, 2h, 3d), or hashes of changes, joined by
commas, as `anabranch doc history` prints them.")]
pub(super) struct DiffArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// The earlier point
    #[arg(value_name = "FROM", value_parser = at)]
    from: At,

    /// The later point; without it, now
    #[arg(value_name = "TO", value_parser = at)]
    to: Option<At>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Deserialize)]
struct Diff {
    changes: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
struct Difference {
    path: String,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    kind: String,
}

/// Runs the command.
pub(super) async fn run(args: DiffArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let from = args.from.written(&mut client, &args.name).await?;
    let to = match args.to {
        Some(to) => Some(to.written(&mut client, &args.name).await?),
        None => None,
    };
    let query = [("from", Some(from)), ("to", to)];
    let call = Call::get(target(&path_below("diff", &args.name), &query));
    let value = client.send(call).await?.json()?;
    if args.output == Format::Json {
        return print_json(&value);
    }
    let diff: Diff = serde_json::from_value(value)
        .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))?;
    if diff.changes.is_empty() {
        note("no difference");
        return Ok(());
    }
    print(table(&diff, terminal_width()))
}

fn table(diff: &Diff, width: Option<u16>) -> String {
    let row = |change: &Difference| {
        let (before, after) = match change.kind.as_str() {
            "added" => ("-".to_owned(), text(&change.after)),
            "removed" => (text(&change.before), "-".to_owned()),
            _ => (text(&change.before), text(&change.after)),
        };
        let path = if change.path.is_empty() { "(root)" } else { &change.path };
        vec![printable(&change.kind), shorten(&printable(path), PATH), before, after]
    };
    let rows = diff.changes.iter().map(row).collect();
    render_table(&["change", "path", "before", "after"], rows, width)
}

fn text(value: &Value) -> String {
    shorten(&printable(&value.to_string()), VALUE)
}

const PATH: usize = 60;

/// Characters of a value; `-o json` has all of them.
const VALUE: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_rows_and_fit_80_columns() {
        let diff: Diff = serde_json::from_value(json!({"from": ["aa"], "to": ["bb"], "changes": [
            {"path": "/mayor", "before": "Ada", "after": "Ben", "kind": "changed"},
            {"path": "/n", "before": null, "after": 1, "kind": "added"},
            {"path": "", "before": {}, "after": null, "kind": "removed"},
        ]}))
        .unwrap();
        assert_eq!(
            table(&diff, Some(80)),
            "\
CHANGE   PATH    BEFORE  AFTER
changed  /mayor  \"Ada\"   \"Ben\"
added    /n      -       1
removed  (root)  {}      -"
        );
        let long = json!({"changes": [{"path": "/a".repeat(90), "before": "x ".repeat(300),
            "after": "y".repeat(300), "kind": "changed"}]});
        let text = table(&serde_json::from_value(long).unwrap(), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
