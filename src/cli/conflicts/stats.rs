//! `anabranch conflicts stats`.

use anabranch_crdt::ids::CollectionName;
use serde::Deserialize;

use crate::cli::Failure;
use crate::cli::http::{Call, NodeArgs, target};
use crate::cli::output::{
    Format, note, plural, print, print_json, printable, render_table, terminal_width, thousands,
};
use crate::cli::reading::ReadingArgs;

/// Counts conflicts by collection, state and kind
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts stats
  anabranch conflicts stats --collection cities
  anabranch conflicts stats -o json | jq .open")]
pub(super) struct StatsArgs {
    /// Only of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<CollectionName>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Deserialize)]
struct Stats {
    total: u64,
    open: u64,
    by: Vec<Count>,
    #[serde(default)]
    region: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Count {
    collection: Option<String>,
    state: String,
    kind: String,
    count: u64,
}

/// Runs the command.
pub(super) async fn run(args: StatsArgs) -> Result<(), Failure> {
    let query = [("collection", args.collection.as_ref().map(ToString::to_string))];
    let call = Call::get(target("/v1/conflicts/stats", &query));
    let value = args.reading.client(&args.node)?.send(call).await?.json()?;
    if args.output == Format::Json {
        return print_json(&value);
    }
    let stats: Stats = serde_json::from_value(value)
        .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))?;
    if !stats.by.is_empty() {
        print(table(&stats, terminal_width()))?;
    }
    note(summary(&stats));
    Ok(())
}

fn table(stats: &Stats, width: Option<u16>) -> String {
    let rows = stats.by.iter().map(|count| {
        vec![
            printable(count.collection.as_deref().unwrap_or("(without a name)")),
            printable(&count.state),
            printable(&count.kind),
            thousands(count.count),
        ]
    });
    render_table(&["collection", "state", "kind", "count"], rows.collect(), width)
}

fn summary(stats: &Stats) -> String {
    let region = stats.region.as_ref().map(|name| format!(" in {}", printable(name)));
    let region = region.unwrap_or_default();
    format!("{}{region}, {} of them open", plural(stats.total, "conflict"), thousands(stats.open))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_a_table_and_a_sum() {
        let stats: Stats = serde_json::from_value(json!({
            "total": 12_403, "open": 3, "region": "eu-west",
            "by": [
                {"collection": "cities", "state": "auto-resolved", "kind": "value", "count": 12_400},
                {"collection": null, "state": "open", "kind": "delete", "count": 3},
            ],
        }))
        .unwrap();
        assert_eq!(
            table(&stats, Some(80)),
            "\
COLLECTION        STATE          KIND    COUNT
cities            auto-resolved  value   12,400
(without a name)  open           delete  3"
        );
        assert_eq!(summary(&stats), "12,403 conflicts in eu-west, 3 of them open");
    }
}
