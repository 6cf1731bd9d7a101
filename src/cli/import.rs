//! `anabranch import`: documents from JSON lines, many requests at a time.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_crdt::edit;
use anabranch_crdt::ids::{CollectionName, DocumentKey, DocumentName};
use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::doc::document_path;
use super::http::{Call, Client, NodeArgs};
use super::output::{note, plural, thousands};
use super::progress::Progress;
use super::signals::Signals;
use super::writing::WritingArgs;
use crate::cli::Failure;

/// Writes the documents of a JSON lines file into a collection
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// A file with one JSON object per line, or - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The collection to write to
    #[arg(long, value_name = "NAME")]
    collection: CollectionName,

    /// The field that holds the key: its name, or a JSON pointer such as /meta/id
    #[arg(long, value_name = "FIELD", value_parser = key_field)]
    key_field: edit::Path,

    /// Requests at a time
    #[arg(long, default_value_t = 16, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    requests: u16,

    /// Go on after a bad line; the exit code is still 1
    #[arg(long)]
    keep_going: bool,

    /// Read and check everything, write nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    writing: WritingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

const EXAMPLES: &str = "\
Examples:
  anabranch import cities.jsonl --collection cities --key-field geonameid
  anabranch import pages.jsonl --collection pages --key-field /meta/id --keep-going
  anabranch import cities.jsonl --collection cities --key-field id --author geonames
  jq -c '.[]' countries.json | anabranch import - --collection countries --key-field cca3

Each line replaces the document of its key by the fewest edits, so an import can be run again.
Lines with the same key are written in their order.";

/// Runs the command.
///
/// # Errors
/// The input cannot be read, a line is bad, or what the node said.
pub(crate) async fn run(args: ImportArgs) -> Result<(), Failure> {
    if args.collection.is_reserved() {
        // What `export` writes of it is for people: it names no collection inside the settings.
        let message = format!(
            "'{}' holds the settings of collections, and is not imported: `anabranch collections \
             set` sets them",
            args.collection
        );
        return Err(Failure::Usage(message));
    }
    let mut signals = Signals::install()?;
    let input = Input::open(&args.file)?;
    let mut progress = Progress::of_bytes(input.bytes);
    let mut tally = Tally::new(args.file.clone(), args.keep_going);
    let outcome = tokio::select! {
        outcome = import(input, &args, &mut progress, &mut tally) => outcome,
        () = signals.next() => Err(Failure::Interrupted),
    };
    note(tally.summary(args.dry_run, &progress.finish()));
    outcome.and(tally.outcome())
}

/// Lines flow from a reader thread to workers, each of which has a connection of its own; what
/// became of them flows back here. Every queue is short, so a slow node slows the reader down.
async fn import(
    input: Input,
    args: &ImportArgs,
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let (report, mut reports) = mpsc::channel(REPORTS);
    let mut tasks = JoinSet::new();
    let mut lanes = Vec::new();
    for _ in 0..args.requests {
        let (lane, jobs) = mpsc::channel(LANE);
        let client = (!args.dry_run).then(|| Client::new(&args.node));
        tasks.spawn(work(jobs, client, args.writing.clone(), report.clone()));
        lanes.push(lane);
    }
    let parser = Parser { collection: args.collection.clone(), key_field: args.key_field.clone() };
    tasks.spawn_blocking(move || read(input, &parser, &lanes, &report));
    while let Some(report) = reports.recv().await {
        progress.add(report.bytes);
        if let Some(message) = tally.count(report)? {
            progress.note(&message);
        }
    }
    // A task that panicked has lost lines, which must not look like the end of the input.
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::General(format!("the import broke off: {error}")))?;
    }
    Ok(())
}

/// One document to write.
#[derive(Debug)]
struct Job {
    line: u64,
    bytes: u64,
    name: DocumentName,
    body: Bytes,
}

/// What became of one line.
#[derive(Debug)]
struct Report {
    line: u64,
    bytes: u64,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Created,
    Updated,
    /// Written, but not in time where it was wanted.
    Short,
    Checked,
    Blank,
    Bad(String),
    Failed(Failure),
}

async fn work(
    mut jobs: mpsc::Receiver<Job>,
    mut client: Option<Client>,
    writing: WritingArgs,
    to: mpsc::Sender<Report>,
) {
    while let Some(job) = jobs.recv().await {
        let outcome = match &mut client {
            Some(client) => write(client, &job, &writing).await,
            None => Outcome::Checked,
        };
        if to.send(Report { line: job.line, bytes: job.bytes, outcome }).await.is_err() {
            return;
        }
    }
}

/// Writes a document, and asks again a few times where the node is busy.
async fn write(client: &mut Client, job: &Job, writing: &WritingArgs) -> Outcome {
    let call = Call::new(Method::PUT, document_path(&job.name))
        .body("application/json", job.body.clone())
        // The documents are known here: no need to have them sent back.
        .header("prefer", Some("return=minimal"));
    let call = match call.and_then(|call| writing.sign(call)) {
        Ok(call) => call,
        Err(failure) => return Outcome::Failed(failure),
    };
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let reply = match client.exchange(&call).await {
            Ok(reply) => reply,
            Err(failure) => return Outcome::Failed(failure),
        };
        let busy = matches!(reply.status.as_u16(), 429 | 503);
        if !busy || attempt == ATTEMPTS {
            let created = reply.status.as_u16() == 201;
            if client.far_enough().is_err() {
                return Outcome::Short;
            }
            return match reply.success() {
                Ok(_) if created => Outcome::Created,
                Ok(_) => Outcome::Updated,
                Err(Failure::General(message)) => Outcome::Bad(message),
                Err(failure) => Outcome::Failed(failure),
            };
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Outcome::Bad("the node stayed busy".to_owned())
}

/// The input, and its length where that is known.
#[derive(Debug)]
struct Input {
    source: Option<File>,
    bytes: Option<u64>,
}

impl Input {
    fn open(file: &Path) -> Result<Self, Failure> {
        if file == Path::new("-") {
            return Ok(Self { source: None, bytes: None });
        }
        let failed = |error: io::Error| {
            let message = format!("cannot read {}: {error}", file.display());
            let missing = error.kind() == io::ErrorKind::NotFound;
            if missing { Failure::NotFound(message) } else { Failure::General(message) }
        };
        let source = File::open(file).map_err(failed)?;
        let metadata = source.metadata().map_err(failed)?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { source: Some(source), bytes })
    }

    fn reader(self) -> Box<dyn BufRead> {
        match self.source {
            Some(file) => Box::new(BufReader::with_capacity(1 << 16, file)),
            None => Box::new(io::stdin().lock()),
        }
    }
}

/// Reads lines until the input or the interest in it ends.
fn read(input: Input, parser: &Parser, lanes: &[mpsc::Sender<Job>], to: &mpsc::Sender<Report>) {
    let mut reader = input.reader();
    let mut text = Vec::new();
    for line in 1.. {
        let outcome = match next_line(&mut reader, &mut text) {
            Ok(0) => return,
            Ok(_) if text.trim_ascii().is_empty() => Outcome::Blank,
            Ok(_) => match parser.parse(&text) {
                Ok(name) => {
                    let body = Bytes::copy_from_slice(text.trim_ascii());
                    let job = Job { line, bytes: text.len() as u64, name, body };
                    if hand_out(lanes, job).is_none() {
                        return;
                    }
                    continue;
                }
                Err(message) => Outcome::Bad(message),
            },
            Err(error) => Outcome::Failed(Failure::General(format!("cannot read on: {error}"))),
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        let report = Report { line, bytes: text.len() as u64, outcome };
        if to.blocking_send(report).is_err() || failed {
            return;
        }
    }
}

/// Reads one line, of bounded length.
fn next_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    use io::Read;
    text.clear();
    let read = reader.take(MAX_LINE).read_until(b'\n', text)?;
    if read as u64 == MAX_LINE {
        return Err(io::Error::other(format!("a line is longer than {} MiB", MAX_LINE >> 20)));
    }
    Ok(read)
}

/// Gives a job to the worker of its key, so that lines of one key stay in order.
fn hand_out(lanes: &[mpsc::Sender<Job>], job: Job) -> Option<()> {
    let mut hasher = DefaultHasher::new();
    job.name.key.hash(&mut hasher);
    let lane = hasher.finish().checked_rem(lanes.len() as u64)?;
    lanes.get(usize::try_from(lane).ok()?)?.blocking_send(job).ok()
}

/// Finds the document's name in a line.
#[derive(Debug)]
struct Parser {
    collection: CollectionName,
    key_field: edit::Path,
}

impl Parser {
    fn parse(&self, line: &[u8]) -> Result<DocumentName, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if !value.is_object() {
            return Err("a document is a JSON object".to_owned());
        }
        Ok(DocumentName { collection: self.collection.clone(), key: self.key(&value)? })
    }

    fn key(&self, document: &Value) -> Result<DocumentKey, String> {
        let field = self.key_field.to_string();
        let value =
            document.pointer(&field).ok_or_else(|| format!("there is no key field {field}"))?;
        let text = if let Some(text) = value.as_str() {
            text.to_owned()
        } else if value.is_i64() || value.is_u64() {
            value.to_string()
        } else {
            return Err(format!("the key field {field} is neither a string nor a whole number"));
        };
        text.parse::<DocumentKey>().map_err(|error| format!("the key field {field}: {error}"))
    }
}

/// A plain name is a field of the root; with a slash in front it is a JSON pointer.
fn key_field(text: &str) -> Result<edit::Path, String> {
    if text.is_empty() {
        return Err("name the field that holds the key".to_owned());
    }
    if !text.starts_with('/') {
        return Ok(edit::Path::default().child(text));
    }
    text.parse().map_err(|error: edit::PathError| error.to_string())
}

/// What became of all lines.
#[derive(Debug)]
struct Tally {
    file: PathBuf,
    keep_going: bool,
    created: u64,
    updated: u64,
    checked: u64,
    bad: u64,
    short: u64,
}

impl Tally {
    fn new(file: PathBuf, keep_going: bool) -> Self {
        Self { file, keep_going, created: 0, updated: 0, checked: 0, bad: 0, short: 0 }
    }

    /// Counts a line, and returns what should be said about it.
    fn count(&mut self, report: Report) -> Result<Option<String>, Failure> {
        let place = format!("{}:{}", self.file.display(), report.line);
        match report.outcome {
            Outcome::Created => self.created += 1,
            Outcome::Updated => self.updated += 1,
            Outcome::Short => self.short += 1,
            Outcome::Checked => self.checked += 1,
            Outcome::Blank => {}
            Outcome::Bad(message) => {
                self.bad += 1;
                let message = format!("{place}: {message}");
                if self.keep_going {
                    return Ok(Some(message));
                }
                let help = "\n  help: correct the line, or pass bad lines with --keep-going";
                return Err(Failure::General(format!("{message}{help}")));
            }
            Outcome::Failed(failure) => return Err(failure),
        }
        Ok(None)
    }

    fn summary(&self, dry_run: bool, progress: &str) -> String {
        let bad = format!("{} bad", plural(self.bad, "line"));
        if dry_run {
            let checked = thousands(self.checked);
            return format!("checked {checked}, {bad}, wrote nothing, {progress}");
        }
        let (created, updated) = (thousands(self.created), thousands(self.updated));
        format!("{created} created, {updated} updated, {bad}, {progress}")
    }

    fn outcome(&self) -> Result<(), Failure> {
        if self.bad == 0 && self.short > 0 {
            let message = format!(
                "{} written, but not in time where they were wanted; they stay written",
                plural(self.short, "document")
            );
            return Err(Failure::NotFarEnough(message));
        }
        if self.bad == 0 {
            return Ok(());
        }
        let bad = plural(self.bad, "line");
        Err(Failure::General(format!("{bad} of {} could not be imported", self.file.display())))
    }
}

/// Jobs that wait for one worker.
const LANE: usize = 4;

/// Reports that wait to be counted.
const REPORTS: usize = 256;

/// The longest line: far more than a node takes as one document.
const MAX_LINE: u64 = 128 << 20;

/// A busy node is asked this often, with pauses that double: a second and a half together.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(field: &str) -> Parser {
        Parser { collection: "c".parse().unwrap(), key_field: key_field(field).unwrap() }
    }

    #[test]
    fn keys_are_found_by_name_and_by_pointer() {
        for (field, line, name) in [
            ("id", r#"{"id": "a/b"}"#, "c/a/b"),
            ("id", r#"{"id": -7}"#, "c/-7"),
            ("a b", r#"{"a b": "x"}"#, "c/x"),
            ("a/b", r#"{"a/b": "x"}"#, "c/x"),
            ("/meta/id", r#"{"meta": {"id": "x"}}"#, "c/x"),
            ("/ids/1", r#"{"ids": ["x", "y"]}"#, "c/y"),
            ("/a~1b", r#"{"a/b": "x"}"#, "c/x"),
        ] {
            let found = parser(field).parse(line.as_bytes()).unwrap();
            assert_eq!(found.to_string(), name, "{field} {line}");
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, part) in [
            ("{", "EOF"),
            ("[1]", "JSON object"),
            ("{\"other\": 1}", "no key field /id"),
            ("{\"id\": null}", "neither a string nor a whole number"),
            ("{\"id\": 1.5}", "neither a string nor a whole number"),
            ("{\"id\": \"\"}", "at least one character"),
            ("{\"id\": \"a\\nb\"}", "control characters"),
        ] {
            let error = parser("id").parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(key_field("").is_err());
        assert!(key_field("/a~2").is_err());
    }

    fn report(line: u64, outcome: Outcome) -> Report {
        Report { line, bytes: 10, outcome }
    }

    #[test]
    fn the_first_bad_line_stops_an_import_unless_told_otherwise() {
        let mut strict = Tally::new("f.jsonl".into(), false);
        assert_eq!(strict.count(report(1, Outcome::Created)), Ok(None));
        let error = strict.count(report(2, Outcome::Bad("no".to_owned()))).unwrap_err().to_string();
        assert!(error.starts_with("f.jsonl:2: no\n"), "{error}");
        let mut tolerant = Tally::new("f.jsonl".into(), true);
        let said = tolerant.count(report(2, Outcome::Bad("no".to_owned()))).unwrap();
        assert_eq!(said.as_deref(), Some("f.jsonl:2: no"));
        assert_eq!(
            tolerant.outcome().unwrap_err().code(),
            1,
            "what is missing must not pass as done"
        );
    }

    #[test]
    fn a_dry_run_reads_every_line_and_keeps_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lines.jsonl");
        std::fs::write(&file, "{\"id\": 1}\n\n{\"id\": 2}\nnonsense\n{\"id\": 3}").unwrap();
        let (mut progress, mut tally) = (Progress::of_bytes(None), Tally::new(file.clone(), true));
        let args = [
            "import",
            file.to_str().unwrap(),
            "--collection",
            "c",
            "--key-field",
            "id",
            "--dry-run",
            "--requests",
            "2",
        ];
        let args = <Wrapper as clap::Parser>::parse_from(args).args;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let input = Input::open(&file).unwrap();
        assert_eq!(input.bytes, Some(39));
        runtime.block_on(import(input, &args, &mut progress, &mut tally)).unwrap();
        assert_eq!((tally.checked, tally.bad, tally.created), (3, 1, 0));
    }

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: ImportArgs,
    }
}
