//! `anabranch export`: a collection as JSON lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::CollectionName;
use serde_json::{Value, json};

use super::doc::take_list;
use super::http::{Call, Client, NodeArgs, target};
use super::output::{closed_or, note};
use super::progress::Progress;
use crate::cli::Failure;

/// Writes the documents of a collection as JSON lines, in the order of their keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// The collection to read
    #[arg(long, value_name = "NAME")]
    collection: CollectionName,

    /// Only keys that start so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Write to this file instead of stdout; it appears once it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Only the documents, without their keys
    #[arg(long)]
    values: bool,

    #[command(flatten)]
    node: NodeArgs,
}

const EXAMPLES: &str = "\
Examples:
  anabranch export --collection cities -o cities.jsonl
  anabranch export --collection cities --values | jq -r .name
  anabranch export --collection cities --prefix fr/ --url http://127.0.0.1:3032

A line is {\"key\": \u{2026}, \"value\": \u{2026}}. Documents that are written during an export may or may not be
in it.";

/// Runs the command.
///
/// # Errors
/// The file cannot be written, or what the node said.
pub(crate) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let mut progress = Progress::of_documents();
    match &args.output {
        None => {
            if io::stdout().is_terminal() {
                progress.hide();
            }
            let mut out = BufWriter::new(io::stdout());
            export(&args, &mut out, &mut progress).await?;
        }
        Some(file) => {
            let partial = Partial::create(file)?;
            let mut out = BufWriter::new(&partial.file);
            export(&args, &mut out, &mut progress).await?;
            drop(out);
            partial.complete(file)?;
        }
    }
    note(progress.finish());
    Ok(())
}

async fn export(
    args: &ExportArgs,
    out: &mut impl Write,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let path = format!("/v1/docs/{}", args.collection);
    let mut cursor = None;
    loop {
        let query = [
            ("prefix", args.prefix.clone()),
            ("limit", Some(PAGE.to_string())),
            ("values", Some("true".to_owned())),
            ("total", cursor.is_none().then(|| "true".to_owned())),
            ("cursor", cursor.take()),
        ];
        let mut body = client.send(Call::get(target(&path, &query))).await?.json()?;
        if let Some(total) = body.get("total").and_then(Value::as_u64) {
            progress.expect(total);
        }
        for document in take_list(&mut body, "documents")? {
            let line = line(document, args.values);
            writeln!(out, "{line}").map_err(|error| closed_or("the export", &error))?;
            progress.add(line.len() as u64 + 1);
        }
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return out.flush().map_err(|error| closed_or("the export", &error));
        }
    }
}

fn line(mut document: Value, values: bool) -> String {
    let mut take = |key: &str| document.get_mut(key).map(Value::take).unwrap_or_default();
    if values {
        return take("value").to_string();
    }
    json!({ "key": take("key"), "value": take("value") }).to_string()
}

/// A file that gets its name when it is complete, and goes away if it never is.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, Failure> {
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let file = File::create(&path).map_err(|error| {
            Failure::General(format!("cannot write {}: {error}", path.display()))
        })?;
        Ok(Self { path, file })
    }

    fn complete(&self, target: &Path) -> Result<(), Failure> {
        self.file.sync_all().and_then(|()| fs::rename(&self.path, target)).map_err(|error| {
            Failure::General(format!("cannot write {}: {error}", target.display()))
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `complete` there is nothing of that name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Documents per request; the node ends a page early where their values are long.
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_keys_unless_only_values_are_wanted() {
        let document = json!({"key": "a", "etag": "x", "conflicts": 0, "value": {"b": [1, "é"]}});
        assert_eq!(line(document.clone(), false), r#"{"key":"a","value":{"b":[1,"é"]}}"#);
        assert_eq!(line(document, true), r#"{"b":[1,"é"]}"#);
    }

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.jsonl");
        drop(Partial::create(&target).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let partial = Partial::create(&target).unwrap();
        partial.complete(&target).unwrap();
        drop(partial);
        assert!(target.is_file());
    }
}
