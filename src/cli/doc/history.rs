//! `anabranch doc history`.

use anabranch_crdt::ids::DocumentName;
use serde::Deserialize;
use serde_json::Value;

use super::{path_below, take_list};
use crate::cli::Failure;
use crate::cli::conflicts::Time;
use crate::cli::http::{Call, Client, NodeArgs, target};
use crate::cli::output::{
    Format, note, plural, print, print_json, printable, render_table, shorten, terminal_width,
    thousands,
};
use crate::cli::reading::ReadingArgs;

/// Lists the changes of a document: who wrote what, when and where, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch doc history cities/paris
  anabranch doc history cities/paris --path /mayor --limit 5
  anabranch doc history cities/paris -o json | jq -r '.[] | .at + \" \" + .author'")]
pub(super) struct HistoryArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Only changes at this place, or below it: a JSON pointer
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// Of this epoch, by its number; of the newest if it is not given
    #[arg(long, value_name = "N")]
    epoch: Option<u32>,

    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// A change of a document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct Change {
    pub(in crate::cli) hash: String,
    region: Option<String>,
    #[serde(default)]
    author: Option<String>,
    origin: String,
    #[serde(default)]
    client: bool,
    at: Time,
    act: String,
    #[serde(default)]
    note: Option<String>,
    operations: u64,
    #[serde(default)]
    paths: Vec<String>,
}

impl Change {
    /// Takes a change from an answer.
    ///
    /// # Errors
    /// `General` if the node writes it in another way.
    pub(in crate::cli) fn read(value: Value) -> Result<Self, Failure> {
        serde_json::from_value(value)
            .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
    }

    /// Returns as much of the hash as tells the changes of a document apart.
    pub(in crate::cli) fn short_hash(&self) -> String {
        printable(&self.hash.chars().take(SHORT_HASH).collect::<String>())
    }

    /// Returns when it was written.
    pub(in crate::cli) fn when(&self) -> String {
        printable(&self.at.show())
    }

    /// Returns what it does, and where.
    pub(in crate::cli) fn what(&self) -> String {
        let shown = self.paths.iter().take(PATHS).map(String::as_str);
        let paths = shown.map(|path| if path.is_empty() { "(root)" } else { path });
        let mut text = format!("{} {}", self.act, paths.collect::<Vec<_>>().join(" "));
        if self.paths.len() > PATHS {
            text.push_str(&format!(" and {} more", self.paths.len() - PATHS));
        }
        // The note of what a policy wrote names operations.
        if let Some(note) = self.note.as_ref().filter(|_| self.act != POLICY) {
            text.push_str(&format!(" ({note})"));
        }
        shorten(&printable(text.trim_end()), WHAT)
    }

    /// Returns who wrote it, and where.
    pub(in crate::cli) fn who(&self) -> String {
        if self.act == POLICY {
            return "the policy".to_owned();
        }
        writer(self.author.as_deref(), self.region.as_deref(), &self.origin, self.client)
    }
}

/// The act of a change that a policy called for; every leader makes the same.
const POLICY: &str = "policy";

/// Names a writer: the person if one signed, and the region.
pub(super) fn writer(
    author: Option<&str>,
    region: Option<&str>,
    origin: &str,
    client: bool,
) -> String {
    let origin: String = origin.chars().take(SHORT_ORIGIN).collect();
    let place = match (region, client) {
        (Some(region), false) => region.to_owned(),
        (Some(region), true) => format!("a client of {region}"),
        (None, _) => "a client".to_owned(),
    };
    printable(&match author {
        Some(author) => format!("{author}, {place}"),
        None => format!("{place} ({origin})"),
    })
}

/// Runs the command.
pub(super) async fn run(args: HistoryArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let (found, more) =
        fetch(&mut client, &args.name, args.path.as_deref(), args.epoch, args.limit).await?;
    if args.output == Format::Json {
        print_json(&Value::Array(found))?;
    } else {
        let changes = found.into_iter().map(Change::read).collect::<Result<Vec<_>, _>>()?;
        if changes.is_empty() {
            note("no changes");
        } else {
            print(table(&changes, terminal_width()))?;
        }
    }
    if more {
        let shown = plural(args.limit as u64, "change");
        note(format!("the newest {shown}; there are more (--limit)"));
    }
    Ok(())
}

/// Fetches up to `limit` changes, the newest first, and tells whether there are more.
///
/// # Errors
/// What the node said.
pub(in crate::cli) async fn fetch(
    client: &mut Client,
    name: &DocumentName,
    path: Option<&str>,
    epoch: Option<u32>,
    limit: usize,
) -> Result<(Vec<Value>, bool), Failure> {
    let route = path_below("history", name);
    let mut found = Vec::new();
    let mut cursor = None;
    while found.len() < limit {
        let query = [
            ("limit", Some((limit - found.len()).min(PAGE).to_string())),
            ("cursor", cursor.take()),
            ("path", path.map(str::to_owned)),
            ("epoch", epoch.map(|epoch| epoch.to_string())),
        ];
        let mut body = client.send(Call::get(target(&route, &query))).await?.json()?;
        found.append(&mut take_list(&mut body, "changes")?);
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok((found, cursor.is_some()))
}

fn table(changes: &[Change], width: Option<u16>) -> String {
    let row = |change: &Change| {
        vec![
            change.short_hash(),
            change.when(),
            change.who(),
            thousands(change.operations),
            change.what(),
        ]
    };
    let rows = changes.iter().map(row).collect();
    render_table(&["change", "at", "by", "ops", "what"], rows, width)
}

/// Changes per request; the node takes up to 1,000.
const PAGE: usize = 1_000;

/// Digits of a hash that tell the changes of a document apart; any unique beginning is accepted.
const SHORT_HASH: usize = 9;
const SHORT_ORIGIN: usize = 8;

/// Paths of a change that are shown.
const PATHS: usize = 5;

/// Characters that say what a change does.
const WHAT: usize = 200;

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Returns a change whose hash starts so.
    pub(in super::super) fn change(hash: &str) -> Change {
        Change::read(json!({
            "hash": format!("{hash:0<64}"), "deps": [], "region": "eu-west", "author": null,
            "origin": "5d0c1122-3344-5566-7788-9900aabbccdd", "client": false,
            "at": "2026-03-01T10:15:30.123456Z", "act": "write", "note": null,
            "operations": 1_234, "paths": ["/mayor", ""],
        }))
        .unwrap()
    }

    #[test]
    fn history_fits_80_columns() {
        let mut resolved = change("bb");
        resolved.author = Some("Zoë".to_owned());
        resolved.act = "resolve".to_owned();
        resolved.note = Some("as the map\u{1b}[2J says".to_owned());
        resolved.paths = (0..20).map(|n| format!("/field-{n}")).collect();
        let text = table(&[change("aa"), resolved], Some(80));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
        assert!(text.starts_with("CHANGE     AT"), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.concat();
        assert!(words.contains("resolve/field-0"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(change("aa").what(), "write /mayor (root)");
        assert_eq!(change("aa").who(), "eu-west (5d0c1122)");
    }
}
