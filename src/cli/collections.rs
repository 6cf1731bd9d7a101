//! `anabranch collections`: how a collection resolves conflicts, and what another way would change.

use std::path::PathBuf;

use anabranch_crdt::ids::{CollectionName, RegionName};
use clap::Subcommand;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conflicts::Policy;
use super::doc::{read_file, take_list};
use super::http::{Call, Client, NodeArgs, Reply};
use super::output::{
    Format, note, plural, print, print_json, printable, render_table, shorten, terminal_width,
    thousands,
};
use super::reading::ReadingArgs;
use super::writing::WritingArgs;
use crate::cli::Failure;

/// Shows and changes how collections resolve conflicts
#[derive(Debug, clap::Args)]
pub(crate) struct CollectionsArgs {
    #[command(subcommand)]
    command: CollectionsCommand,
}

#[derive(Debug, Subcommand)]
enum CollectionsCommand {
    List(ListArgs),
    Get(GetArgs),
    Set(Box<SetArgs>),
    Simulate(Box<SimulateArgs>),
}

/// Lists the collections that have settings
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch collections list
  anabranch collections list -o json | jq -r '.[].name'")]
struct ListArgs {
    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Shows the settings of a collection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch collections get cities
  anabranch collections get cities -o json | jq .settings > cities.json")]
struct GetArgs {
    /// The collection
    collection: CollectionName,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Changes the settings of a collection, in every region
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch collections set cities --policy lww
  anabranch collections set cities --path '/visits/*=max' --path /address=lww:whole
  anabranch collections set cities --policy region-priority --regions eu-west,us-east
  anabranch collections set cities --replace --file cities.json
  anabranch collections get cities -o json | jq .settings | anabranch collections set cities --file -

Flags change only what they name; --replace starts from nothing. What a person settled stays as it
is; what a policy settled is decided again, and what flipped is said.
`anabranch collections simulate` says it before.")]
struct SetArgs {
    /// The collection
    collection: CollectionName,

    #[command(flatten)]
    edit: EditArgs,

    #[command(flatten)]
    writing: WritingArgs,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Says which winners other settings would flip, and changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch collections simulate cities --policy max
  anabranch collections simulate cities --path /mayor=first -o json | jq .flipped
  anabranch collections simulate cities --file new.json --exit-code || echo 'look first'")]
struct SimulateArgs {
    /// The collection
    collection: CollectionName,

    #[command(flatten)]
    edit: EditArgs,

    /// Exit with code 4 if any winner would flip
    #[arg(long)]
    exit_code: bool,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
#[group(id = "edit", required = true, multiple = true)]
#[command(next_help_heading = "Which settings")]
struct EditArgs {
    /// How every place is resolved that has no policy of its own
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,

    /// How one place is resolved, as PATTERN=POLICY; * stands for any key or index, and :whole
    /// after the policy makes the object or list there one value
    #[arg(long = "path", value_name = "PATTERN=POLICY", value_parser = rule)]
    paths: Vec<Rule>,

    /// Takes the policy of a place away
    #[arg(long, value_name = "PATTERN")]
    remove_path: Vec<String>,

    /// The regions in the order of their priority, for region-priority
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    regions: Option<Vec<RegionName>>,

    /// All settings as JSON from a file, or from stdin if it is -
    #[arg(short, long, value_name = "FILE",
        conflicts_with_all = ["policy", "paths", "remove_path", "regions"])]
    file: Option<PathBuf>,

    /// Start from nothing instead of from the settings that are there
    #[arg(long)]
    replace: bool,
}

/// The policy of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: String,
    policy: Policy,
    whole: bool,
}

impl Rule {
    fn json(&self) -> Value {
        let policy = self.policy.name();
        if self.whole { json!({"policy": policy, "whole": true}) } else { Value::from(policy) }
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    use clap::ValueEnum;
    let help = "write PATTERN=POLICY, such as /visits/*=max or /address=lww:whole";
    // A key may have a '=' in it, a policy has none.
    let (pattern, policy) = text.rsplit_once('=').ok_or_else(|| help.to_owned())?;
    if !pattern.starts_with('/') {
        return Err(format!("a pattern starts with a slash: {help}"));
    }
    let (policy, whole) = match policy.split_once(':') {
        None => (policy, false),
        Some((policy, "whole")) => (policy, true),
        Some((_, other)) => return Err(format!("'{other}' after the policy is not known: {help}")),
    };
    let policy = Policy::from_str(policy, false).map_err(|_| {
        let names = Policy::value_variants().iter().map(|policy| policy.name());
        format!("'{policy}' is no policy: {}", names.collect::<Vec<_>>().join(", "))
    })?;
    Ok(Rule { pattern: pattern.to_owned(), policy, whole })
}

impl EditArgs {
    /// Returns the settings that are meant, where `current` are there.
    async fn settings(self, current: Value) -> Result<Value, Failure> {
        if let Some(file) = self.file {
            return serde_json::from_slice(&read_file(file).await?)
                .map_err(|error| Failure::Usage(format!("this is no JSON: {error}")));
        }
        Ok(self.apply(&current))
    }

    fn apply(self, current: &Value) -> Value {
        let there = if self.replace { None } else { current.as_object() };
        let mut settings = there.cloned().unwrap_or_default();
        if let Some(policy) = self.policy {
            settings.insert("policy".to_owned(), Value::from(policy.name()));
        }
        if let Some(regions) = self.regions {
            let names = regions.iter().map(|region| Value::from(region.as_str()));
            settings.insert("regions".to_owned(), Value::Array(names.collect()));
        }
        if !self.paths.is_empty() || !self.remove_path.is_empty() {
            let paths = settings.entry("paths").or_insert_with(|| json!({}));
            if let Some(paths) = paths.as_object_mut() {
                self.remove_path.iter().for_each(|pattern| {
                    paths.remove(pattern);
                });
                paths.extend(self.paths.iter().map(|rule| (rule.pattern.clone(), rule.json())));
            }
        }
        Value::Object(settings)
    }
}

/// Runs the command.
///
/// # Errors
/// The arguments fit no settings, or what the node said.
pub(crate) async fn run(args: CollectionsArgs) -> Result<(), Failure> {
    match args.command {
        CollectionsCommand::List(args) => list(args).await,
        CollectionsCommand::Get(args) => get(args).await,
        CollectionsCommand::Set(args) => set(*args).await,
        CollectionsCommand::Simulate(args) => simulate(*args).await,
    }
}

/// A collection as the API writes it.
#[derive(Debug, Deserialize)]
struct Collection {
    name: String,
    settings: Value,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    source: Option<String>,
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
}

fn path(collection: &CollectionName) -> String {
    format!("/v1/collections/{collection}")
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let mut body = client.send(Call::get("/v1/collections")).await?.json()?;
    let found = take_list(&mut body, "collections")?;
    if args.output == Format::Json {
        return print_json(&Value::Array(found));
    }
    let collections =
        found.into_iter().map(read::<Collection>).collect::<Result<Vec<_>, Failure>>()?;
    if collections.is_empty() {
        note("no collection has settings: all resolve conflicts as `auto`");
        return Ok(());
    }
    print(list_table(&collections, terminal_width()))
}

fn list_table(collections: &[Collection], width: Option<u16>) -> String {
    let row = |collection: &Collection| {
        let settings = &collection.settings;
        let paths = settings.get("paths").and_then(Value::as_object).map_or(0, Map::len);
        vec![
            printable(&collection.name),
            printable(settings.get("policy").and_then(Value::as_str).unwrap_or("auto")),
            paths.to_string(),
            printable(&regions(settings)),
            printable(collection.version.as_deref().unwrap_or("-")),
        ]
    };
    let rows = collections.iter().map(row).collect();
    render_table(&["collection", "policy", "paths", "regions", "version"], rows, width)
}

async fn get(args: GetArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let reply = client.send(Call::get(path(&args.collection))).await?;
    match args.output {
        Format::Json => print_json(&reply.json()?),
        Format::Table => print(table(&read(reply.json()?)?, terminal_width())),
    }
}

/// Lays out the settings of one collection.
fn table(collection: &Collection, width: Option<u16>) -> String {
    let settings = &collection.settings;
    let text = |key: &str| settings.get(key).and_then(Value::as_str).unwrap_or("auto");
    let mut rows = vec![
        ("collection".to_owned(), collection.name.clone()),
        ("policy".to_owned(), text("policy").to_owned()),
    ];
    for (pattern, rule) in settings.get("paths").and_then(Value::as_object).into_iter().flatten() {
        rows.push((format!("  {pattern}"), rule_text(rule)));
    }
    rows.extend([
        ("regions".to_owned(), regions(settings)),
        ("version".to_owned(), collection.version.clone().unwrap_or_else(|| "-".to_owned())),
        ("source".to_owned(), collection.source.clone().unwrap_or_else(|| "-".to_owned())),
    ]);
    let rows = rows.iter().map(|(name, value)| vec![printable(name), printable(value)]);
    render_table(&[], rows.collect(), width)
}

fn rule_text(rule: &Value) -> String {
    let policy = rule.as_str().or_else(|| rule.get("policy").and_then(Value::as_str));
    let whole = rule.get("whole") == Some(&Value::Bool(true));
    format!("{}{}", policy.unwrap_or("auto"), if whole { ", as one value" } else { "" })
}

fn regions(settings: &Value) -> String {
    let names = settings.get("regions").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

/// Reads the settings that are there, with what `If-Match` needs.
async fn current(
    client: &mut Client,
    collection: &CollectionName,
) -> Result<(Value, Option<String>), Failure> {
    let reply: Reply = client.send(Call::get(path(collection))).await?;
    let there: Collection = read(reply.json()?)?;
    let etag = reply.header("etag").map(str::to_owned);
    // What is not set yet has nothing that could have changed.
    Ok((there.settings, etag.filter(|_| there.source.as_deref() != Some("default"))))
}

async fn set(args: SetArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let (there, etag) = current(&mut client, &args.collection).await?;
    let settings = args.edit.settings(there).await?;
    let call = Call::new(Method::PUT, path(&args.collection))
        .header("if-match", etag.as_deref())?
        .body("application/json", settings.to_string());
    let value = client.send(args.writing.or_account().sign(call)?).await?.json()?;
    note(set_summary(&args.collection, &value));
    match args.output {
        Format::Json => print_json(&value)?,
        Format::Table => print(table(&read(value)?, terminal_width()))?,
    }
    client.far_enough()
}

/// Says what the new settings decided in another way.
fn set_summary(collection: &CollectionName, answer: &Value) -> String {
    let count = |key: &str| answer.pointer(&format!("/redecided/{key}")).and_then(Value::as_u64);
    match (count("documents"), count("conflicts"), count("flipped")) {
        (Some(documents), Some(conflicts), Some(flipped)) => format!(
            "settings of {collection} saved: {} of {} decided again, {} flipped",
            plural(conflicts, "conflict"),
            plural(documents, "document"),
            thousands(flipped)
        ),
        _ => format!("settings of {collection} saved"),
    }
}

/// What other settings would do.
#[derive(Debug, Deserialize)]
struct Simulation {
    conflicts: u64,
    flips: Vec<Flip>,
    flipped: u64,
}

#[derive(Debug, Deserialize)]
struct Flip {
    id: String,
    document: Option<String>,
    path: String,
    from: Decision,
    to: Decision,
}

#[derive(Debug, Deserialize)]
struct Decision {
    /// The candidate; none where all show merged.
    #[serde(default)]
    candidate: Option<String>,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    policy: Option<String>,
}

async fn simulate(args: SimulateArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let (there, _) = current(&mut client, &args.collection).await?;
    let settings = args.edit.settings(there).await?;
    let call = Call::new(Method::POST, format!("{}:simulate", path(&args.collection)))
        .body("application/json", settings.to_string());
    let value = client.send(call).await?.json()?;
    let simulation: Simulation = read(value.clone())?;
    match args.output {
        Format::Json => print_json(&value)?,
        Format::Table if simulation.flips.is_empty() => {}
        Format::Table => print(flips(&simulation, terminal_width()))?,
    }
    note(simulation_summary(&simulation));
    if args.exit_code && simulation.flipped > 0 {
        return Err(Failure::WouldFlip);
    }
    Ok(())
}

fn flips(simulation: &Simulation, width: Option<u16>) -> String {
    let decision = |decision: &Decision| {
        let policy = decision.policy.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let value = match &decision.candidate {
            Some(_) => decision.value.to_string(),
            None => "all, merged".to_owned(),
        };
        format!("{}{policy}", shorten(&printable(&value), VALUE))
    };
    let row = |flip: &Flip| {
        let document = flip.document.as_deref().unwrap_or("(a document without a name)");
        vec![
            printable(&format!("{:.8}", flip.id)),
            shorten(&printable(document), NAME),
            shorten(&printable(&flip.path), NAME),
            decision(&flip.from),
            decision(&flip.to),
        ]
    };
    let rows = simulation.flips.iter().map(row).collect();
    render_table(&["id", "document", "path", "shows now", "would show"], rows, width)
}

fn simulation_summary(simulation: &Simulation) -> String {
    let shown = simulation.flips.len() as u64;
    let cut = if shown < simulation.flipped {
        format!(", the first {} are listed", thousands(shown))
    } else {
        String::new()
    };
    format!(
        "{} of {} would flip{cut}; nothing was changed",
        thousands(simulation.flipped),
        plural(simulation.conflicts, "conflict")
    )
}

const NAME: usize = 40;

/// Characters of a value; `-o json` has all of them.
const VALUE: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(policy: Option<Policy>, paths: &[&str]) -> EditArgs {
        EditArgs {
            policy,
            paths: paths.iter().map(|text| rule(text).unwrap()).collect(),
            remove_path: Vec::new(),
            regions: None,
            file: None,
            replace: false,
        }
    }

    #[test]
    fn rules_are_read() {
        let read = |text: &str| rule(text).map(|rule| (rule.pattern.clone(), rule.json()));
        assert_eq!(read("/a/*=max"), Ok(("/a/*".to_owned(), json!("max"))));
        let whole = json!({"policy": "lww", "whole": true});
        assert_eq!(read("/a=b=lww:whole"), Ok(("/a=b".to_owned(), whole)));
        for (text, part) in [
            ("/a", "PATTERN=POLICY"),
            ("a=max", "starts with a slash"),
            ("/a=most", "auto, lww, first, max, min, manual, region-priority"),
            ("/a=lww:half", "'half'"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn flags_change_what_they_name_and_replace_starts_from_nothing() {
        let there = json!({"policy": "lww", "paths": {"/a": "max", "/b": "min"}, "more": 1});
        let changed = edit(None, &["/b=first", "/c=auto:whole"]).apply(&there);
        assert_eq!(
            changed,
            json!({"policy": "lww", "more": 1, "paths": {"/a": "max", "/b": "first",
                "/c": {"policy": "auto", "whole": true}}})
        );
        let mut other = edit(Some(Policy::RegionPriority), &[]);
        other.regions = Some(vec!["eu-west".parse().unwrap()]);
        other.remove_path = vec!["/a".to_owned()];
        assert_eq!(
            other.apply(&there),
            json!({"policy": "region-priority", "regions": ["eu-west"], "paths": {"/b": "min"},
                "more": 1})
        );
        let mut fresh = edit(Some(Policy::Max), &[]);
        fresh.replace = true;
        assert_eq!(fresh.apply(&there), json!({"policy": "max"}));
        assert_eq!(edit(Some(Policy::Max), &[]).apply(&Value::Null), json!({"policy": "max"}));
    }

    #[test]
    fn settings_are_a_table() {
        let collection: Collection = read(json!({
            "name": "cities", "version": "00000000000000b7", "source": "set",
            "settings": {"policy": "lww", "regions": ["eu-west", "us-east"],
                "paths": {"/a/*": "max", "/address": {"policy": "lww", "whole": true}}},
        }))
        .unwrap();
        assert_eq!(
            table(&collection, Some(80)),
            "\
collection  cities
policy      lww
  /a/*      max
  /address  lww, as one value
regions     eu-west us-east
version     00000000000000b7
source      set"
        );
        assert_eq!(
            list_table(&[collection], Some(80)),
            "\
COLLECTION  POLICY  PATHS  REGIONS          VERSION
cities      lww     2      eu-west us-east  00000000000000b7"
        );
    }

    #[test]
    fn flips_are_a_table_and_a_sum() {
        let simulation: Simulation = read(json!({
            "version": "x", "conflicts": 12, "flipped": 1_200,
            "flips": [{"id": "3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b", "document": "cities/paris",
                "path": "/population",
                "from": {"candidate": "1@a", "value": 1, "policy": "auto"},
                "to": {"candidate": "1@b", "value": 2, "policy": "max"}}],
        }))
        .unwrap();
        assert_eq!(
            flips(&simulation, Some(80)),
            "\
ID        DOCUMENT      PATH         SHOWS NOW  WOULD SHOW
3f2a9c1b  cities/paris  /population  1 (auto)   2 (max)"
        );
        assert_eq!(
            simulation_summary(&simulation),
            "1,200 of 12 conflicts would flip, the first 1 are listed; nothing was changed"
        );
        let name: CollectionName = "cities".parse().unwrap();
        let answer = json!({"redecided": {"documents": 3, "conflicts": 2, "flipped": 1}});
        assert_eq!(
            set_summary(&name, &answer),
            "settings of cities saved: 2 conflicts of 3 documents decided again, 1 flipped"
        );
    }
}
