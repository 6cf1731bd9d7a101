//! Conflicts over HTTP: what merges, what wins, what stays open, and how it is settled.

mod ledger;
mod settling;

use anabranch_crdt::policy::Policy;
use serde_json::{Value, json};

use crate::support::cluster::Picture;
use crate::support::{Cluster, Plan};

/// Two regions with one collection of each policy, and one that mixes them by path.
async fn pair() -> Cluster {
    Plan::new(&["eu", "us"])
        .policy("latest", Policy::Lww, &[])
        .policy("mixed", Policy::Auto, &[("/price", Policy::Lww), ("/items/*/at", Policy::Lww)])
        .policy("mostly", Policy::Lww, &[("/notes", Policy::Auto)])
        .start()
        .await
}

/// What two regions do to one document that both know, while they do not hear of each other; what
/// `eu` does is later than what `us` does.
struct Clash {
    cluster: Cluster,
    name: String,
}

impl Clash {
    async fn over(name: &str, start: Value) -> Self {
        let cluster = pair().await;
        cluster.at("us").put(name, &start).ok().await;
        cluster.agreed(&[collection(name)]).await;
        cluster.cut("eu", "us").await;
        Self { cluster, name: name.to_owned() }
    }

    async fn patch(self, us: Value, eu: Value) -> (Value, Vec<Value>) {
        self.cluster.at("us").merge(&self.name, &us).ok().await;
        self.cluster.at("eu").merge(&self.name, &eu).ok().await;
        self.end().await
    }

    async fn edit(self, us: Value, eu: Value) -> (Value, Vec<Value>) {
        self.cluster.at("us").edit(&self.name, &us).ok().await;
        self.cluster.at("eu").edit(&self.name, &eu).ok().await;
        self.end().await
    }

    /// Heals, and returns the document and the ledger on which the regions agree.
    async fn end(self) -> (Value, Vec<Value>) {
        let picture = healed(&self.cluster, &[collection(&self.name)]).await;
        self.cluster.stop().await;
        let document = picture.listed().first().map_or(Value::Null, |d| d["value"].clone());
        (document, picture.conflicts())
    }
}

async fn healed(cluster: &Cluster, collections: &[&str]) -> Picture {
    cluster.heal("eu", "us");
    cluster.agreed(collections).await
}

fn collection(name: &str) -> &str {
    name.split('/').next().unwrap()
}

/// Checks path, kind, state and policy of each row, and returns the rows in the order of paths.
fn check_ledger(mut ledger: Vec<Value>, expected: &[[&str; 4]]) -> Vec<Value> {
    ledger.sort_by_key(|conflict| conflict["path"].to_string());
    let row = |conflict: &Value| {
        ["path", "kind", "state", "policy"]
            .map(|member| conflict[member].as_str().unwrap().to_owned())
    };
    assert_eq!(ledger.iter().map(row).collect::<Vec<_>>(), expected, "{ledger:#?}");
    ledger
}

/// The candidates as (region, value); a delete is `null` with `deleted`.
fn candidates(conflict: &Value) -> Vec<(String, Value)> {
    let of = |candidate: &Value| {
        assert_eq!(candidate["deleted"], candidate["value"].is_null(), "{candidate}");
        (candidate["region"].as_str().unwrap().to_owned(), candidate["value"].clone())
    };
    let mut all: Vec<_> = conflict["candidates"].as_array().unwrap().iter().map(of).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn both(eu: Value, us: Value) -> Vec<(String, Value)> {
    vec![("eu".to_owned(), eu), ("us".to_owned(), us)]
}

#[tokio::test(flavor = "multi_thread")]
async fn under_auto_a_field_keeps_both_values_and_the_ledger_has_them() {
    let clash = Clash::over("notes/a", json!({"title": "t", "n": 1})).await;
    let (document, ledger) = clash.patch(json!({"title": "us"}), json!({"title": "eu"})).await;
    let rows = check_ledger(ledger, &[["/title", "value", "open", "auto"]]);
    assert_eq!(candidates(&rows[0]), both(json!("eu"), json!("us")));
    assert_eq!(rows[0]["document"], "notes/a");
    let shown =
        &rows[0]["candidates"].as_array().unwrap().iter().find(|c| c["id"] == rows[0]["winner"]);
    assert_eq!(document, json!({"title": shown.unwrap()["value"], "n": 1}));
    assert!(rows[0]["why"].as_str().unwrap().starts_with("auto: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_lww_the_later_write_wins_and_the_earlier_one_is_in_the_ledger() {
    let clash = Clash::over("latest/a", json!({"title": "t", "n": 1})).await;
    let (document, ledger) = clash.patch(json!({"title": "us"}), json!({"title": "eu"})).await;
    assert_eq!(document, json!({"title": "eu", "n": 1}));
    let rows = check_ledger(ledger, &[["/title", "value", "auto-resolved", "lww"]]);
    assert_eq!(candidates(&rows[0]), both(json!("eu"), json!("us")));
    assert!(rows[0]["why"].as_str().unwrap().starts_with("lww: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_per_path() {
    let start = json!({"title": "t", "price": 1, "items": [{"at": 0, "by": "x"}]});
    let clash = Clash::over("mixed/a", start).await;
    let edits = |region: &str, n: u64| {
        json!([
            {"op": "set", "path": "/title", "value": region},
            {"op": "set", "path": "/price", "value": n},
            {"op": "set", "path": "/items/0/at", "value": n},
            {"op": "set", "path": "/items/0/by", "value": region},
        ])
    };
    let (document, ledger) = clash.edit(edits("us", 2), edits("eu", 3)).await;
    assert_eq!((&document["price"], &document["items"][0]["at"]), (&json!(3), &json!(3)));
    check_ledger(
        ledger,
        &[
            ["/items/0/at", "value", "auto-resolved", "lww"],
            ["/items/0/by", "value", "open", "auto"],
            ["/price", "value", "auto-resolved", "lww"],
            ["/title", "value", "open", "auto"],
        ],
    );
    let clash = Clash::over("mostly/a", json!({"title": "t", "notes": "n"})).await;
    let patch = |region: &str| json!({"title": region, "notes": region});
    let (document, ledger) = clash.patch(patch("us"), patch("eu")).await;
    assert_eq!(document["title"], "eu");
    let expected =
        [["/notes", "value", "open", "auto"], ["/title", "value", "auto-resolved", "lww"]];
    check_ledger(ledger, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_values_are_no_conflict() {
    let clash = Clash::over("notes/a", json!({"title": "t"})).await;
    let (document, ledger) = clash.patch(json!({"title": "x"}), json!({"title": "x"})).await;
    assert_eq!(document, json!({"title": "x"}));
    check_ledger(ledger, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_created_under_one_key_merge_key_by_key() {
    let clash = Clash::over("notes/a", json!({"x": 0})).await;
    let us = json!({"profile": {"name": "Ada", "age": 36, "at": {"work": "us"}}});
    let eu = json!({"profile": {"name": "Ada", "town": "London", "at": {"home": "eu"}}});
    let (document, ledger) = clash.patch(us, eu).await;
    let merged =
        json!({"name": "Ada", "age": 36, "town": "London", "at": {"work": "us", "home": "eu"}});
    assert_eq!(document, json!({"x": 0, "profile": merged}));
    assert!(ledger.iter().all(|row| row["state"] == "auto-resolved"), "{ledger:#?}");
}

/// Two regions create one document at once: it is one document.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_created_twice_is_one_document() {
    let cluster = pair().await;
    cluster.meshed().await;
    cluster.cut("eu", "us").await;
    cluster.at("us").put("notes/new", &json!({"by": "us", "same": 1, "us": [1]})).ok().await;
    cluster.at("eu").put("notes/new", &json!({"by": "eu", "same": 1, "eu": {"n": 2}})).ok().await;
    let picture = healed(&cluster, &["notes"]).await;
    let document = &picture.listed()[0]["value"];
    assert_eq!((&document["us"], &document["eu"]), (&json!([1]), &json!({"n": 2})));
    check_ledger(picture.conflicts(), &[["/by", "value", "open", "auto"]]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_add_up_and_lists_and_texts_interleave() {
    let start = json!({"likes": 1, "list": ["a", "z"], "text": "ab"});
    let cluster = pair().await;
    cluster.at("us").put("notes/a", &start).ok().await;
    let prepare = json!([
        {"op": "increment", "path": "/likes", "by": 0},
        {"op": "splice", "path": "/text", "at": 1, "insert": "-"},
    ]);
    cluster.at("us").edit("notes/a", &prepare).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    let us = json!([
        {"op": "increment", "path": "/likes", "by": 10},
        {"op": "insert", "path": "/list/1", "value": "us"},
        {"op": "splice", "path": "/text", "at": 0, "insert": "us "},
    ]);
    let eu = json!([
        {"op": "increment", "path": "/likes", "by": 100},
        {"op": "increment", "path": "/likes", "by": -1},
        {"op": "insert", "path": "/list/2", "value": "eu"},
        {"op": "splice", "path": "/text", "at": 3, "insert": " eu"},
    ]);
    cluster.at("us").edit("notes/a", &us).ok().await;
    cluster.at("eu").edit("notes/a", &eu).ok().await;
    let picture = healed(&cluster, &["notes"]).await;
    let expected = json!({"likes": 110, "list": ["a", "us", "z", "eu"], "text": "us a-b eu"});
    assert_eq!(picture.listed()[0]["value"], expected);
    check_ledger(picture.conflicts(), &[]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_against_a_write_is_in_the_ledger_under_both_policies() {
    let clash = Clash::over("notes/a", json!({"title": "t", "x": 0})).await;
    let (document, ledger) = clash.patch(json!({"title": "us"}), json!({"title": null})).await;
    assert_eq!(document, json!({"title": "us", "x": 0}), "under auto a write wins over a delete");
    let rows = check_ledger(ledger, &[["/title", "delete", "auto-resolved", "auto"]]);
    assert_eq!(candidates(&rows[0]), both(Value::Null, json!("us")));

    let clash = Clash::over("latest/a", json!({"title": "t", "x": 0})).await;
    let (document, ledger) = clash.patch(json!({"title": "us"}), json!({"title": null})).await;
    assert_eq!(document, json!({"x": 0}), "the delete was later");
    check_ledger(ledger, &[["/title", "delete", "auto-resolved", "lww"]]);

    let clash = Clash::over("latest/a", json!({"title": "t", "x": 0})).await;
    let (document, ledger) = clash.patch(json!({"title": null}), json!({"title": "eu"})).await;
    assert_eq!(document, json!({"title": "eu", "x": 0}), "the write was later");
    check_ledger(ledger, &[["/title", "delete", "auto-resolved", "lww"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_inside_a_deleted_object_is_in_the_ledger() {
    let clash = Clash::over("notes/a", json!({"by": {"name": "Ada"}, "x": 0})).await;
    let (document, ledger) =
        clash.patch(json!({"by": null}), json!({"by": {"name": "Grace"}})).await;
    assert_eq!(document, json!({"x": 0}));
    let rows = check_ledger(ledger, &[["/by/name", "delete", "auto-resolved", "auto"]]);
    assert_eq!(candidates(&rows[0]), both(json!("Grace"), Value::Null));
}

/// A document that one region deletes and another one changes stays, whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_that_was_changed_elsewhere_lives_on() {
    let cluster = pair().await;
    let us = cluster.at("us");
    us.put("notes/changed", &json!({"title": "t", "x": 0})).ok().await;
    us.put("notes/left", &json!({"title": "t"})).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    for name in ["notes/changed", "notes/left"] {
        us.delete(name).ok().await;
    }
    cluster.at("eu").merge("notes/changed", &json!({"title": "eu"})).ok().await;
    let picture = healed(&cluster, &["notes"]).await;
    let listed = picture.listed();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let whole = json!({"title": "eu", "x": 0});
    assert_eq!(listed[0]["value"], whole);
    let rows = check_ledger(picture.conflicts(), &[["", "document", "auto-resolved", "auto"]]);
    assert_eq!(candidates(&rows[0]), both(whole, Value::Null));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_different_types_collide() {
    let clash = Clash::over("notes/a", json!({"v": 1})).await;
    let (_, ledger) = clash.patch(json!({"v": {"a": 1}}), json!({"v": "text"})).await;
    let rows = check_ledger(ledger, &[["/v", "type", "open", "auto"]]);
    assert_eq!(candidates(&rows[0]), both(json!("text"), json!({"a": 1})));
}
