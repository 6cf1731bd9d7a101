//! The twelve collisions that the comparison shows, told to two real nodes over HTTP.

use anabranch_crdt::edit::Edit;
use anabranch_crdt::policy::Policy;
use serde_json::{Value, json};

use super::page::TWELVE;
use super::story::{Deed, Expected, ExpectedRow, Side};
use super::{Story, stories};
use crate::support::{Client, Plan};

/// An edit as the API takes it.
fn edit(edit: &Edit) -> Value {
    match edit {
        Edit::Set { path, value } => json!({"op": "set", "path": path.to_string(), "value": value}),
        Edit::Remove { path } => json!({"op": "remove", "path": path.to_string()}),
        Edit::Insert { path, value } => {
            json!({"op": "insert", "path": path.to_string(), "value": value})
        }
        Edit::Increment { path, by } => {
            json!({"op": "increment", "path": path.to_string(), "by": by})
        }
        Edit::Splice { path, at, delete, insert } => json!({
            "op": "splice", "path": path.to_string(), "at": at, "delete": delete, "insert": insert,
        }),
    }
}

async fn write(client: &Client, name: &str, side: &Side) {
    match &side.deed {
        Deed::Edits(edits) => {
            let edits: Value = edits.iter().map(edit).collect();
            client.edit(name, &edits).ok().await;
        }
        Deed::Delete => drop(client.delete(name).ok().await),
    }
}

/// What a node shows of one document, in the form in which stories say it.
fn shown(json: Value, ledger: &[Value], name: &str) -> Expected {
    let mut rows: Vec<&Value> = ledger.iter().filter(|row| row["document"] == name).collect();
    rows.sort_by_key(|row| row["path"].to_string());
    Expected { json, rows: rows.into_iter().map(row).collect() }
}

fn row(conflict: &Value) -> ExpectedRow {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = conflict["candidates"].as_array().unwrap();
    let value = |c: &Value| Some(c["value"].clone()).filter(|_| c["deleted"] == false);
    let mut candidates: Vec<_> = all.iter().map(|c| (text(&c["region"]), value(c))).collect();
    candidates.sort_by(|one, other| one.0.cmp(&other.0));
    let winner = all.iter().find(|candidate| candidate["id"] == conflict["winner"]);
    ExpectedRow {
        path: text(&conflict["path"]),
        kind: text(&conflict["kind"]),
        state: text(&conflict["state"]),
        base: conflict["base"].get("value").cloned(),
        candidates,
        winner: winner.map(|candidate| text(&candidate["region"])),
        why: text(&conflict["why"]),
    }
}

/// The stories of two regions under `auto` and `lww`, with the names of their documents.
fn told_to_nodes() -> Vec<(String, Story)> {
    let mut told = Vec::new();
    for story in stories() {
        let number = TWELVE.iter().position(|kind| *kind == story.kind);
        let policy = matches!(story.policy, Policy::Auto | Policy::Lww);
        if let Some(number) = number.filter(|_| policy && story.sides.len() == 2) {
            told.push((format!("{}/{number}", story.policy), story));
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_collisions_of_two_nodes_end_as_their_stories_say() {
    let told = told_to_nodes();
    assert_eq!(told.len(), 2 * TWELVE.len());
    let cluster = Plan::new(&["eu", "us"]).policy("lww", Policy::Lww, &[]).start().await;
    for (name, story) in &told {
        let before: Value = story.before.iter().map(edit).collect();
        cluster.at("eu").put(name, &json!({})).ok().await;
        cluster.at("eu").edit(name, &before).ok().await;
    }
    cluster.agreed(&["auto", "lww"]).await;
    cluster.cut("eu", "us").await;
    // `us` writes first, as in the stories.
    for (name, story) in &told {
        for side in story.sides.iter().rev() {
            write(cluster.at(side.region), name, side).await;
        }
    }
    cluster.heal("eu", "us");
    let picture = cluster.agreed(&["auto", "lww"]).await;
    let ledger = picture.conflicts();
    for (name, story) in &told {
        let document = cluster.at("us").value(name).await.unwrap_or(Value::Null);
        let mut found = shown(document, &ledger, name);
        let mut expected = story.expected.clone();
        for (found, expected) in found.rows.iter_mut().zip(&mut expected.rows) {
            if found.why.starts_with(&expected.why) {
                found.why.clone_from(&expected.why);
            }
        }
        assert_eq!(found, expected, "{}: {}\nfound: {found}", story.name(), story.told);
    }
    cluster.stop().await;
}
