//! `anabranch conflicts list`.

use serde_json::Value;

use super::filter::FilterArgs;
use super::ledger;
use super::row::Row;
use crate::cli::Failure;
use crate::cli::http::NodeArgs;
use crate::cli::output::{
    Format, note, plural, print, print_json, printable, render_table, shorten, terminal_width,
    thousands,
};
use crate::cli::reading::ReadingArgs;

/// Lists conflicts: where, what shows, and where each stands
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts list
  anabranch conflicts list --collection cities --state open --since 2h
  anabranch conflicts list --document cities/paris -o json | jq '.[].candidates'
  anabranch conflicts list --path /address --region eu-west --kind delete
  anabranch conflicts list --state open --exit-code || echo 'someone has to decide'")]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,

    /// At most so many, the newest first
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,

    /// Exit with code 4 if any conflict that is listed is open
    #[arg(long)]
    exit_code: bool,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: ListArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let page = ledger::fetch(&mut client, &args.filter.query()?, args.limit).await?;
    let rows = page.rows()?;
    match args.output {
        Format::Json => print_json(&Value::Array(page.found))?,
        Format::Table if rows.is_empty() => note("no conflicts"),
        Format::Table => print(table(&rows, terminal_width()))?,
    }
    if let Some(message) = summary(rows.len(), page.total, page.more) {
        note(message);
    }
    if args.exit_code && rows.iter().any(Row::is_open) {
        return Err(Failure::ConflictsPresent);
    }
    Ok(())
}

/// Says how many there are where not all of them are shown.
fn summary(shown: usize, total: Option<u64>, more: bool) -> Option<String> {
    let shown = shown as u64;
    match total {
        Some(total) if total > shown => Some(format!(
            "the newest {} of {}; there are more (--limit)",
            thousands(shown),
            plural(total, "conflict")
        )),
        Some(0) => None,
        Some(total) => Some(format!("{} in all", plural(total, "conflict"))),
        None if more => {
            Some(format!("the first {}; there are more (--limit)", plural(shown, "conflict")))
        }
        None => None,
    }
}

/// Lays out a list, one conflict per row; the regions only where there is room for them.
fn table(rows: &[Row], width: Option<u16>) -> String {
    let with_regions = width.is_none_or(|width| width >= WITH_REGIONS);
    let mut header = vec!["id", "document", "path", "kind", "state", "shows"];
    if with_regions {
        header.push("regions");
    }
    let line = |row| {
        let mut line = line(row);
        line.extend(with_regions.then(|| regions(row)));
        line
    };
    render_table(&header, rows.iter().map(line).collect(), width)
}

fn line(row: &Row) -> Vec<String> {
    vec![
        row.short_id(),
        shorten(&printable(&row.document_name()), LIST_DOCUMENT),
        shorten(&printable(&row.place()), LIST_PATH),
        printable(&row.kind),
        row.state.name().to_owned(),
        shorten(&printable(&row.shown()), LIST_VALUE),
    ]
}

fn regions(row: &Row) -> String {
    let mut regions: Vec<&str> =
        row.candidates.iter().map(|c| c.region.as_deref().unwrap_or("client")).collect();
    regions.sort_unstable();
    regions.dedup();
    printable(&regions.join(" "))
}

/// Columns from which on the regions are listed.
const WITH_REGIONS: u16 = 100;

const LIST_DOCUMENT: usize = 40;
const LIST_PATH: usize = 40;
const LIST_VALUE: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{check_width, row};
    use super::*;

    #[test]
    fn a_list_fits_80_columns() {
        let deleted = row(|v| {
            v["id"] = json!("77aa0000000000000000000000000000");
            v["path"] = json!("");
            v["state"] = json!("auto-resolved");
            v["kind"] = json!("document");
            v["candidates"][1]["deleted"] = json!(true);
        });
        let text = table(&[row(|_| {}), deleted], Some(80));
        check_width(&text, 80);
        let expected = "\
ID        DOCUMENT      PATH              KIND      STATE          SHOWS
3f2a9c1b  cities/paris  /population       value     open           2099000
77aa0000  cities/paris  (whole document)  document  auto-resolved  (deleted)";
        assert_eq!(text, expected);
        let wide = table(&[row(|_| {})], Some(100));
        assert!(wide.ends_with("2099000  eu-west us-east"), "{wide}");
    }

    #[test]
    fn long_names_and_values_wrap_inside_80_columns() {
        let long = row(|v| {
            v["document"] = json!(format!("cities/{}", "long-".repeat(30)));
            v["path"] = json!("/a/b/c".repeat(20));
            v["candidates"][1]["value"] = json!("word ".repeat(100));
        });
        check_width(&table(std::slice::from_ref(&long), Some(80)), 80);
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let said = |shown, total, more| summary(shown, total, more).unwrap_or_default();
        assert_eq!(
            said(100, Some(12_345), true),
            "the newest 100 of 12,345 conflicts; there are more (--limit)"
        );
        assert_eq!(said(1, Some(1), false), "1 conflict in all");
        assert_eq!(said(0, Some(0), false), "");
        assert_eq!(said(5, None, true), "the first 5 conflicts; there are more (--limit)");
    }
}
