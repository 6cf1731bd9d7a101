//! `anabranch explain-divergence`: why one document is not the same in two regions at this moment.

use std::collections::BTreeMap;

use anabranch_crdt::ids::DocumentName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::doc::path_below;
use super::http::{Call, Client, NodeArgs, NodeUrl};
use super::output::{Format, plural, print, print_json, printable};
use crate::cli::Failure;

/// Says why a document differs between regions at this moment
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// The document, as collection/key
    #[arg(value_name = "DOCUMENT")]
    name: DocumentName,

    /// Compare these regions only
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    regions: Vec<String>,

    /// Where a region's node is, if not where the cluster says
    #[arg(long, value_name = "REGION=URL", value_parser = place)]
    at: Vec<(String, NodeUrl)>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

const EXAMPLES: &str = "\
Examples:
  anabranch explain-divergence cities/paris
  anabranch explain-divergence cities/paris --regions eu-west,us-east
  anabranch explain-divergence cities/paris --at us-east=http://10.0.0.7:3031

Each pair of regions is equal, or in flight (one lacks entries that are on their way), held back
(it has the entries, but not what they build on), quarantined (an entry cannot be applied), damaged
(a replica cannot be read), or broken (both claim to have the same). The exit code is 0 if all are
equal, else 4.";

/// How a document stands in one region, as its node says.
#[derive(Debug, Clone, Default, Deserialize)]
struct Standing {
    region: String,
    #[serde(default)]
    heads: Vec<String>,
    #[serde(default)]
    changes: u64,
    #[serde(default)]
    dots: Vec<Dot>,
    #[serde(default)]
    held_back: Vec<HeldBack>,
    damage: Option<String>,
    #[serde(default)]
    bootstrapping: bool,
    #[serde(default)]
    vector: Vec<Dot>,
    #[serde(default)]
    regions: Vec<Link>,
    /// By region, the age in seconds of the oldest own entry that it has not acknowledged.
    #[serde(default)]
    behind: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Dot {
    origin: String,
    region: Option<String>,
    sequence: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct HeldBack {
    #[serde(flatten)]
    dot: Dot,
    quarantined: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Link {
    region: String,
    connected: bool,
}

/// Why a document differs between two regions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    kind: &'static str,
    words: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// `Differs` if not all are equal; `Unreachable` if a node cannot be asked.
pub(crate) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let mut standings = Vec::new();
    for (region, url) in nodes(&args).await? {
        let node = NodeArgs { url, ..args.node.clone() };
        let standing = ask(&node, &args.name).await.map_err(|failure| {
            let reason = format!("region {} cannot be asked: {failure}", printable(&region));
            Failure::Unreachable(reason)
        })?;
        standings.push(standing);
    }
    let mut all_equal = true;
    let mut verdicts = Vec::new();
    for (index, one) in standings.iter().enumerate() {
        for other in standings.iter().skip(index + 1) {
            let verdict = explain(one, other);
            all_equal &= verdict.kind == "equal";
            verdicts.push((one.region.clone(), other.region.clone(), verdict));
        }
    }
    show(&args, &verdicts)?;
    if all_equal { Ok(()) } else { Err(Failure::Differs) }
}

fn show(args: &ExplainArgs, verdicts: &[(String, String, Verdict)]) -> Result<(), Failure> {
    if args.output == Format::Json {
        let pair = |(one, other, verdict): &(String, String, Verdict)| json!({"regions": [one, other], "verdict": verdict.kind, "why": verdict.words});
        let pairs: Vec<Value> = verdicts.iter().map(pair).collect();
        return print_json(&json!({"document": args.name.to_string(), "pairs": pairs}));
    }
    for (one, other, Verdict { kind, words }) in verdicts {
        print(printable(&format!("{} between {one} and {other}: {kind}", args.name)))?;
        for line in words {
            print(printable(&format!("  {line}")))?;
        }
    }
    Ok(())
}

/// Finds the nodes of the regions that are to be compared.
async fn nodes(args: &ExplainArgs) -> Result<Vec<(String, NodeUrl)>, Failure> {
    let status = Client::new(&args.node).send(Call::get("/v1/status")).await?.json()?;
    let known = status.get("regions").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
    };
    let mut nodes: BTreeMap<String, NodeUrl> = BTreeMap::new();
    for region in &known {
        if let Ok(url) = text(region, "http").parse() {
            nodes.insert(text(region, "name"), url);
        }
    }
    nodes.insert(text(&status, "region"), args.node.url.clone());
    nodes.extend(args.at.iter().cloned());
    if !args.regions.is_empty() {
        if let Some(unknown) = args.regions.iter().find(|name| !nodes.contains_key(*name)) {
            return Err(Failure::NotFound(format!("there is no region {unknown}")));
        }
        nodes.retain(|name, _| args.regions.contains(name));
    }
    if nodes.len() < 2 {
        return Err(Failure::Usage("a comparison takes two regions".to_owned()));
    }
    Ok(nodes.into_iter().collect())
}

async fn ask(node: &NodeArgs, name: &DocumentName) -> Result<Standing, Failure> {
    let mut client = Client::new(node);
    let standing = client.send(Call::get(path_below("sync", name))).await?.json()?;
    let replication = client.send(Call::get("/v1/replication")).await?.json()?;
    let mut standing: Standing = serde_json::from_value(standing)
        .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))?;
    let peers = replication.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let behind = |peer: &Value| {
        let region = peer.get("region")?.as_str()?.to_owned();
        Some((region, peer.get("seconds_behind")?.as_f64()?))
    };
    standing.behind = peers.iter().filter_map(behind).collect();
    Ok(standing)
}

/// Says why a document differs between two regions.
fn explain(one: &Standing, other: &Standing) -> Verdict {
    if one.heads == other.heads && one.damage.is_none() && other.damage.is_none() {
        let changes = plural(one.changes, "change");
        let words = vec![format!("both have the same {changes} and the same heads")];
        return Verdict { kind: "equal", words };
    }
    let both = [(one, other), (other, one)];
    let told = |tell: fn(&Standing, &Standing) -> Vec<String>| -> Vec<String> {
        both.into_iter().flat_map(|(here, there)| tell(here, there)).collect()
    };
    let reasons: [(&'static str, Vec<String>); 4] = [
        ("damaged", told(damage)),
        ("quarantined", told(quarantine)),
        ("in flight", told(flight)),
        ("held back", told(held_back)),
    ];
    let words: Vec<String> = reasons.iter().flat_map(|(_, words)| words.clone()).collect();
    match reasons.into_iter().find(|(_, words)| !words.is_empty()) {
        Some((kind, _)) => Verdict { kind, words },
        None => Verdict { kind: "broken", words: broken(one, other) },
    }
}

fn damage(here: &Standing, _: &Standing) -> Vec<String> {
    let tell = |reason: &String| {
        format!(
            "the replica of {} cannot be read: {reason}; anabranch verify --repair",
            here.region
        )
    };
    here.damage.iter().map(tell).collect()
}

fn quarantine(here: &Standing, _: &Standing) -> Vec<String> {
    let tell = |held: &HeldBack| {
        let reason = held.quarantined.as_ref()?;
        Some(format!("{} cannot apply entry {}: {reason}", here.region, name(&held.dot)))
    };
    here.held_back.iter().filter_map(tell).collect()
}

/// What `here` has not been sent of the document.
fn flight(here: &Standing, there: &Standing) -> Vec<String> {
    let have = |origin: &str| {
        let dot = here.vector.iter().find(|dot| dot.origin == origin);
        dot.map_or(0, |dot| dot.sequence)
    };
    let mut words = Vec::new();
    for dot in there.dots.iter().filter(|dot| dot.sequence > have(&dot.origin)) {
        let count = plural(dot.sequence - have(&dot.origin), "entry").replace("entrys", "entries");
        words.push(format!(
            "{} has not got {count} of {}, up to number {}",
            here.region,
            dot.region.as_deref().unwrap_or(&dot.origin),
            dot.sequence,
        ));
    }
    if words.is_empty() {
        return words;
    }
    if here.bootstrapping {
        words.push(format!("{} takes over what it lacks: see /v1/replication", here.region));
    }
    if there.regions.iter().any(|link| link.region == here.region && !link.connected) {
        words.push(format!("{} has no link to {}", there.region, here.region));
    }
    if let Some(seconds) = there.behind.get(&here.region).filter(|seconds| **seconds > 0.0) {
        words.push(format!("the oldest waits for {seconds:.1} s in {}", there.region));
    }
    words
}

fn held_back(here: &Standing, _: &Standing) -> Vec<String> {
    let waiting = here.held_back.iter().filter(|held| held.quarantined.is_none());
    let tell = |held: &HeldBack| {
        let (region, entry) = (&here.region, name(&held.dot));
        format!("{region} holds entry {entry} back: what it builds on is not there yet")
    };
    let mut words: Vec<String> = waiting.map(tell).collect();
    if here.bootstrapping && words.is_empty() {
        words.push(format!("{} takes over what it lacks: see /v1/replication", here.region));
    }
    words
}

fn broken(one: &Standing, other: &Standing) -> Vec<String> {
    let has = |standing: &Standing| {
        let (changes, heads) = (plural(standing.changes, "change"), standing.heads.len() as u64);
        format!("{} has {changes} and {}", standing.region, plural(heads, "head"))
    };
    vec![
        "both have every entry that the other one's document is made of, and yet they differ"
            .to_owned(),
        has(one),
        has(other),
        format!("anabranch verify --repair --peer {} unites them", other.region),
    ]
}

fn name(dot: &Dot) -> String {
    format!("{} of {}", dot.sequence, dot.region.as_deref().unwrap_or(&dot.origin))
}

/// Reads `REGION=URL`.
fn place(text: &str) -> Result<(String, NodeUrl), String> {
    let (region, url) = text.split_once('=').ok_or("write it as REGION=URL")?;
    Ok((region.to_owned(), url.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(origin: &str, sequence: u64) -> Dot {
        Dot { origin: origin.to_owned(), region: Some(origin.to_owned()), sequence }
    }

    fn standing(region: &str, heads: &[&str], dots: &[Dot], vector: &[Dot]) -> Standing {
        Standing {
            region: region.to_owned(),
            heads: heads.iter().map(ToString::to_string).collect(),
            changes: heads.len() as u64,
            dots: dots.to_vec(),
            vector: vector.to_vec(),
            ..Standing::default()
        }
    }

    #[test]
    fn the_same_heads_are_equal() {
        let one = standing("eu", &["a"], &[dot("eu", 1)], &[dot("eu", 1)]);
        let other = standing("us", &["a"], &[dot("eu", 1)], &[dot("eu", 9)]);
        assert_eq!(explain(&one, &other).kind, "equal");
    }

    #[test]
    fn what_was_not_sent_is_in_flight() {
        let mut one = standing("eu", &["b"], &[dot("eu", 7)], &[dot("eu", 7)]);
        one.behind.insert("us".to_owned(), 2.5);
        one.regions = vec![Link { region: "us".to_owned(), connected: false }];
        let other = standing("us", &["a"], &[dot("eu", 5)], &[dot("eu", 5)]);
        let verdict = explain(&one, &other);
        assert_eq!(verdict.kind, "in flight");
        assert_eq!(
            verdict.words,
            [
                "us has not got 2 entries of eu, up to number 7",
                "eu has no link to us",
                "the oldest waits for 2.5 s in eu",
            ]
        );
    }

    #[test]
    fn what_waits_or_cannot_be_applied_is_told_apart() {
        let one = standing("eu", &["b"], &[dot("eu", 7)], &[dot("eu", 7)]);
        let mut other = standing("us", &["a"], &[dot("eu", 7)], &[dot("eu", 7)]);
        other.held_back = vec![HeldBack { dot: dot("eu", 7), quarantined: None }];
        let verdict = explain(&one, &other);
        assert_eq!(verdict.kind, "held back");
        assert_eq!(
            verdict.words,
            ["us holds entry 7 of eu back: what it builds on is not there yet"]
        );
        other.held_back = vec![HeldBack { dot: dot("eu", 7), quarantined: Some("bad".into()) }];
        let verdict = explain(&one, &other);
        assert_eq!(verdict.kind, "quarantined");
        assert_eq!(verdict.words, ["us cannot apply entry 7 of eu: bad"]);
        other.damage = Some("rot".to_owned());
        assert_eq!(explain(&one, &other).kind, "damaged");
    }

    #[test]
    fn the_same_entries_and_other_heads_are_broken() {
        let one = standing("eu", &["b"], &[dot("eu", 7)], &[dot("eu", 7), dot("us", 2)]);
        let other = standing("us", &["a"], &[dot("us", 2)], &[dot("eu", 7), dot("us", 2)]);
        let verdict = explain(&one, &other);
        assert_eq!(verdict.kind, "broken");
        assert!(verdict.words.iter().any(|line| line.contains("verify --repair")));
    }
}
