//! Conflicts from their making to their end, in three regions.
//!
//! One region is cut off. On both sides of the cut the same fields are written, then the link
//! heals. All regions show the same document again, and the ledger has every collision: what was
//! written where and when, which value shows, and why. One conflict is settled by hand, in a
//! region that took no part in it, and is closed in all of them.
//!
//! ```text
//! cargo run --example conflict_inspector
//! ```

#![allow(clippy::print_stdout, reason = "an example says what it does")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anabranch::document::{
    ConflictFilter, Documents, NamedConflict, Precondition, Settling, Write,
};
use anabranch::node::{Node, NodeBuilder};
use anabranch::settings::{Joining, Limits, Neighbours, RegionSettings, Settings};
use anabranch::transport::LinkState;
use anabranch_crdt::conflict::ConflictState;
use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{ClusterId, CollectionName, DocumentName, RegionName};
use anabranch_crdt::policy::{Policies, Policy};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

type Regions<'a> = [&'a Documents; 3];

#[tokio::main]
async fn main() -> Outcome<()> {
    let home = tempfile::tempdir()?;
    let [us_east, eu_west, ap_south] = start_cluster(home.path()).await?;
    let [us, eu, ap] = [&us_east, &eu_west, &ap_south].map(Node::documents);
    let everywhere: Regions<'_> = [&us, &eu, &ap];
    let paris: DocumentName = "cities/paris".parse()?;

    let first = json!({"mayor": "Ada", "population": 2_102_650, "motto": "?"});
    us.write(paris.clone(), Write::Put(first), None, Precondition::None).await?;
    count_visit(&us, &paris).await?;
    settle(everywhere, &paris).await?;
    println!("us-east created {paris}, and every region has it.\n");

    for other in ["eu-west", "ap-south"] {
        us_east.transport().set_link(&other.parse()?, LinkState::Cut)?;
    }
    println!("us-east is cut off. Both sides go on writing:");
    collide(&us, &eu, &paris).await?;

    for other in ["eu-west", "ap-south"] {
        us_east.transport().set_link(&other.parse()?, LinkState::Up)?;
    }
    let shown = settle(everywhere, &paris).await?;
    println!("\nThe links are back, and every region shows\n  {}", text(&shown));
    let open = inspect(everywhere, &paris).await?;

    resolve(&ap, &open).await?;
    let shown: Value = serde_json::from_slice(&settle(everywhere, &paris).await?)?;
    assert_eq!(shown.pointer("/mayor"), Some(&json!("Ben")));
    assert_eq!(shown.pointer("/visits"), Some(&json!(3)), "increments add up");
    check_closed(everywhere, &open, &paris).await?;

    for node in [us_east, eu_west, ap_south] {
        node.shutdown().await?;
    }
    Ok(())
}

/// Writes the same fields on both sides of the cut.
async fn collide(us: &Documents, eu: &Documents, paris: &DocumentName) -> Outcome<()> {
    // A null in a merge patch deletes the field.
    let in_us = json!({"mayor": "Ben", "population": 2_100_000, "motto": null});
    let in_eu = json!({"mayor": "Cleo", "population": 2_113_705, "motto": "Fluctuat nec mergitur"});
    for (documents, patch) in [(us, in_us), (eu, in_eu)] {
        println!("  {} patches {patch} and counts a visit", documents.region());
        documents.write(paris.clone(), Write::MergePatch(patch), None, Precondition::None).await?;
        count_visit(documents, paris).await?;
    }
    Ok(())
}

async fn count_visit(documents: &Documents, paris: &DocumentName) -> Outcome<()> {
    let count = Edit::Increment { path: "/visits".parse()?, by: 1 };
    documents.write(paris.clone(), Write::Edits(vec![count]), None, Precondition::None).await?;
    Ok(())
}

/// Shows the ledger, checks that every region has the same one, and returns the open conflict.
async fn inspect(everywhere: Regions<'_>, paris: &DocumentName) -> Outcome<NamedConflict> {
    let ledgers = ledgers(everywhere, paris).await?;
    let [first, ..] = &ledgers;
    assert!(ledgers.iter().all(|other| other == first), "a region has another ledger");
    println!("\nThe ledger, the same in every region:");
    let [documents, ..] = everywhere;
    first.iter().for_each(|named| print(named, documents));

    let states: BTreeMap<String, (Policy, ConflictState)> = first
        .iter()
        .map(|NamedConflict { conflict, .. }| {
            (conflict.path.to_string(), (conflict.policy, conflict.state))
        })
        .collect();
    let expected = BTreeMap::from([
        // Two people were elected: someone has to say who it is.
        ("/mayor".to_owned(), (Policy::Auto, ConflictState::Open)),
        // A write wins over a concurrent delete, and nobody has to be asked.
        ("/motto".to_owned(), (Policy::Auto, ConflictState::AutoResolved)),
        // The later of the two wins.
        ("/population".to_owned(), (Policy::Lww, ConflictState::AutoResolved)),
        // The two visits are no conflict: they add up.
    ]);
    assert_eq!(states, expected);
    let open = first.iter().find(|named| named.conflict.state == ConflictState::Open);
    Ok(open.ok_or("no conflict is open")?.clone())
}

fn text(json: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(json)
}

fn print(named: &NamedConflict, documents: &Documents) {
    let conflict = &named.conflict;
    println!("\n  {} ({}, {}, {})", conflict.path, conflict.kind, conflict.policy, conflict.state);
    for (index, candidate) in conflict.candidates.iter().enumerate() {
        let region = documents.region_of(candidate.origin);
        println!(
            "    {} {:<24} by {:<8} at {} µs, change {:.8}…",
            if conflict.winner == Some(index) { "shows" } else { "     " },
            candidate.value.as_ref().map_or_else(|| "deleted".to_owned(), Value::to_string),
            region.map_or_else(|| "?".to_owned(), |region| region.to_string()),
            candidate.at.0,
            candidate.change.to_string(),
        );
    }
    println!("    because {}", conflict.why());
}

/// Takes the candidate that us-east wrote.
async fn resolve(documents: &Documents, open: &NamedConflict) -> Outcome<()> {
    let of_us = |origin| documents.region_of(origin).is_some_and(|r| r.as_str() == "us-east");
    let candidates = &open.conflict.candidates;
    let taken = candidates.iter().find(|candidate| of_us(candidate.origin));
    let taken = taken.ok_or("us-east wrote none of the candidates")?.id.clone();
    let note = Some("as the city hall says".to_owned());
    documents.settle(open.conflict.id, Settling::Take(taken), None, note, None).await?;
    println!("\n{} took what us-east had written to {}.", documents.region(), open.conflict.path);
    Ok(())
}

/// Checks that the conflict is closed in every region, by the same change.
async fn check_closed(
    everywhere: Regions<'_>,
    open: &NamedConflict,
    paris: &DocumentName,
) -> Outcome<()> {
    for (documents, ledger) in everywhere.into_iter().zip(ledgers(everywhere, paris).await?) {
        let found = ledger.iter().find(|named| named.conflict.id == open.conflict.id);
        let conflict = &found.ok_or("the ledger has lost a row")?.conflict;
        assert_eq!(conflict.state, ConflictState::Resolved);
        let settled = conflict.settled.as_ref().ok_or("nobody is said to have settled it")?;
        let by = documents.region_of(settled.origin).ok_or("the region is not known")?;
        let note = settled.note.as_deref().unwrap_or_default();
        println!("  {}: resolved by {by} ({note})", documents.region());
    }
    Ok(())
}

async fn ledgers(
    everywhere: Regions<'_>,
    paris: &DocumentName,
) -> Outcome<[Vec<NamedConflict>; 3]> {
    let filter = ConflictFilter { document: Some(paris.clone()), limit: 100, ..Default::default() };
    let mut all = [const { Vec::new() }; 3];
    for (ledger, documents) in all.iter_mut().zip(everywhere) {
        *ledger = documents.conflicts(filter.clone()).await?.conflicts;
    }
    Ok(all)
}

/// Waits until every region has what any of them has, and returns the document that all show.
async fn settle(everywhere: Regions<'_>, paris: &DocumentName) -> Outcome<Bytes> {
    for from in everywhere {
        let position = from.position();
        for to in everywhere {
            to.wait_for(&position.vector, PATIENCE).await?;
        }
    }
    let mut shown: Vec<Bytes> = Vec::new();
    for documents in everywhere {
        // What has come in is applied at the latest when it is read.
        shown.push(documents.read(paris).await?.ok_or("the document is gone")?.json);
    }
    let first = shown.first().ok_or("there are no regions")?;
    assert!(shown.iter().all(|json| json == first), "regions differ: {shown:?}");
    Ok(first.clone())
}

/// Starts three regions on loopback, with certificates and data below `home`.
async fn start_cluster(home: &Path) -> Outcome<[Node; 3]> {
    let cluster = ClusterId(Uuid::new_v4());
    let names = ["us-east", "eu-west", "ap-south"].map(str::parse::<RegionName>);
    let names = names.into_iter().collect::<Result<Vec<_>, _>>()?;
    let certificates = anabranch::pki::ensure_development(&home.join("pki"), cluster, &names)?;
    let regions = names.iter().cloned().map(on_loopback).collect::<Outcome<Vec<_>>>()?;
    let mut nodes = Vec::new();
    for (region, pki) in names.into_iter().map(|name| (name.clone(), certificates.get(&name))) {
        let settings = Settings {
            cluster_name: "example".to_owned(),
            cluster,
            regions: regions.clone(),
            collections: collections()?,
            limits: Limits::default(),
            data: home.join(region.as_str()),
            pki: pki.ok_or("no certificate was made")?.clone(),
            joining: Joining::default(),
            region,
        };
        nodes.push(NodeBuilder::new(settings).start().await?);
    }
    nodes.try_into().map_err(|_| "there are not three regions".into())
}

/// Everything in `cities` resolves by `auto`, its population by `lww`.
fn collections() -> Outcome<BTreeMap<CollectionName, Policies>> {
    let settings = serde_json::json!({ "policy": "auto", "paths": { "/population": "lww" } });
    Ok(BTreeMap::from([("cities".parse()?, Policies::read(&settings)?)]))
}

/// Regions have to know each other's ports before they start, so a free one is looked for here.
fn on_loopback(name: RegionName) -> Outcome<RegionSettings> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let quic = UdpSocket::bind(loopback)?.local_addr()?;
    Ok(RegionSettings { name, quic, http: loopback, peers: Neighbours::All })
}

/// How long regions may take to agree: far more than they need.
const PATIENCE: Duration = Duration::from_secs(30);
