//! The past of documents: read at a point, listed, compared, blamed, and gone back to.

use hyper::Method;
use serde_json::{Value, json};

use super::one;
use crate::support::client::Call;
use crate::support::{Client, Cluster, encoded};

const UNKNOWN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Every change of a document, the newest first, read in pages of two.
async fn history(client: &Client, name: &str, query: &str) -> Vec<Value> {
    let mut changes = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/history/{}?limit=2&{query}{cursor}", encoded(name));
        let page = client.get(path).ok().await.value();
        changes.extend(page["changes"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return changes,
        }
    }
}

fn at<'a>(client: &'a Client, name: &str, point: &str) -> Call<'a> {
    client.get(format!("/v1/docs/{}?at={}", encoded(name), encoded(point)))
}

fn revert<'a>(client: &'a Client, name: &str, body: &Value) -> Call<'a> {
    client.call(Method::POST, format!("/v1/revert/{}", encoded(name))).json(body)
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member}: {value}"))
}

/// A document with three changes: made by ada, edited by grace, and edited by nobody in particular.
async fn told() -> (Cluster, Vec<Value>) {
    let cluster = one().await;
    let client = cluster.at("solo");
    let start = json!({"title": "one", "list": ["a", "b"], "kept": true});
    client.put("notes/a b", &start).header("author", "ada").ok().await;
    client.merge("notes/a b", &json!({"title": "two"})).header("author", "grace").ok().await;
    let edits = json!([
        {"op": "remove", "path": "/list/0"},
        {"op": "increment", "path": "/likes", "by": 3},
    ]);
    client.edit("notes/a b", &edits).ok().await;
    let changes = history(client, "notes/a b", "").await;
    (cluster, changes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_read_as_it_was_at_a_change_and_at_a_time() {
    let (cluster, changes) = told().await;
    let client = cluster.at("solo");
    let states = [
        json!({"title": "two", "list": ["b"], "kept": true, "likes": 3}),
        json!({"title": "two", "list": ["a", "b"], "kept": true}),
        json!({"title": "one", "list": ["a", "b"], "kept": true}),
    ];
    for (change, state) in changes.iter().zip(&states) {
        for point in [text(change, "hash"), text(change, "at")] {
            assert_eq!(at(client, "notes/a b", point).ok().await.value(), *state, "{point}");
        }
    }
    let now = client.read("notes/a b").ok().await;
    let newest = at(client, "notes/a b", text(&changes[0], "hash")).ok().await;
    assert_eq!((newest.etag(), newest.header("conflicts")), (now.etag(), "0"));
    let older = at(client, "notes/a b", text(&changes[1], "hash")).ok().await;
    assert_ne!(older.etag(), now.etag());
    assert!(older.find("session-token").is_some());
    let again = at(client, "notes/a b", text(&changes[1], "hash"));
    again.header("if-none-match", older.etag()).send().await.expect(304);
    let both = format!("{},{}", text(&changes[2], "hash"), text(&changes[1], "hash"));
    assert_eq!(at(client, "notes/a b", &both).ok().await.etag(), older.etag());

    at(client, "notes/a b", "2001-01-01T00:00:00Z").refused(404, "document_not_found").await;
    at(client, "notes/a b", UNKNOWN).refused(422, "unknown_heads").await;
    at(client, "notes/never", UNKNOWN).refused(404, "document_not_found").await;
    for point in ["", "yesterday", "2001-01-01", &UNKNOWN[1..]] {
        at(client, "notes/a b", point).refused(400, "bad_point").await;
    }
    client.delete("notes/a b").ok().await;
    let deleted = history(client, "notes/a b", "").await;
    assert_eq!((deleted.len(), text(&deleted[0], "act")), (4, "delete"));
    at(client, "notes/a b", text(&deleted[0], "hash")).refused(404, "document_not_found").await;
    assert_eq!(at(client, "notes/a b", text(&deleted[1], "hash")).ok().await.value(), states[0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_who_did_what_where_and_when() {
    let (cluster, changes) = told().await;
    let client = cluster.at("solo");
    let line = |change: &Value| {
        (change["author"].clone(), change["operations"].clone(), change["paths"].clone())
    };
    let expected = [
        (Value::Null, json!(3), json!(["/list/0", "/likes"])),
        (json!("grace"), json!(1), json!(["/title"])),
        (json!("ada"), json!(5), json!(["/kept", "/list", "/title"])),
    ];
    assert_eq!(changes.iter().map(line).collect::<Vec<_>>(), expected);
    for (change, before) in changes.iter().zip(&changes[1..]) {
        assert_eq!(change["deps"], json!([before["hash"]]));
        assert!(text(change, "at") > text(before, "at"));
    }
    for change in &changes {
        assert_eq!(change["region"], "solo");
        assert_eq!(change["act"], "write");
        assert_eq!((&change["client"], &change["note"]), (&json!(false), &Value::Null));
    }
    let titles = history(client, "notes/a b", "path=/title").await;
    assert_eq!(titles, [changes[1].clone(), changes[2].clone()]);
    assert_eq!(history(client, "notes/a b", "path=/nowhere").await, [] as [Value; 0]);

    client.put("notes/other", &json!({"a": 1})).ok().await;
    let list = |query: String| client.get(format!("/v1/history/notes/other?{query}"));
    list(format!("cursor={}", text(&changes[0], "hash"))).refused(400, "unknown_cursor").await;
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x", "path=title", "since=1"] {
        list(query.to_owned()).refused(400, "bad_query").await;
    }
    client.get("/v1/history/notes/never").refused(404, "document_not_found").await;
    client.get("/v1/history/notes/").refused(400, "bad_key").await;
    client.call(Method::POST, "/v1/history/notes/a").refused(405, "method_not_allowed").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_points_are_compared_and_what_shows_is_blamed() {
    let (cluster, changes) = told().await;
    let client = cluster.at("solo");
    let [newest, _, first] = [0, 1, 2].map(|index| text(&changes[index], "hash").to_owned());
    let diff = client.get(format!("/v1/diff/notes/a%20b?from={first}")).ok().await.value();
    let change = |kind, path, before: Value, after: Value| json!({"kind": kind, "path": path, "before": before, "after": after});
    let expected = json!([
        change("added", "/likes", Value::Null, json!(3)),
        change("removed", "/list/0", json!("a"), Value::Null),
        change("changed", "/title", json!("one"), json!("two")),
    ]);
    assert_eq!(diff, json!({"from": [first], "to": [newest], "changes": expected}));
    let long_ago = "2001-01-01T00:00:00Z";
    let made = format!("/v1/diff/notes/a%20b?from={long_ago}&to={first}");
    let made = client.get(made).ok().await.value();
    assert_eq!(made["from"], json!([]));
    assert_eq!(
        (&made["changes"][0]["path"], &made["changes"][0]["kind"]),
        (&json!(""), &json!("added"))
    );

    let blame = client.get("/v1/blame/notes/a%20b").ok().await.value();
    let fields = blame["fields"].as_array().unwrap();
    let line = |field: &Value| {
        (
            text(field, "path").to_owned(),
            field["value"].clone(),
            field["change"].clone(),
            field["author"].clone(),
        )
    };
    let by = |index: usize| (changes[index]["hash"].clone(), changes[index]["author"].clone());
    let expected = [
        ("/kept", json!(true), by(2)),
        ("/likes", json!(3), by(0)),
        ("/list/0", json!("b"), by(2)),
        ("/title", json!("two"), by(1)),
    ];
    let expected =
        expected.map(|(path, value, (hash, author))| (path.to_owned(), value, hash, author));
    assert_eq!(fields.iter().map(line).collect::<Vec<_>>(), expected);
    assert!(fields.iter().all(|field| field["region"] == "solo" && field["client"] == false));
    let list = client.get("/v1/blame/notes/a%20b?path=/list").ok().await.value();
    assert_eq!(list["fields"], json!([fields[2]]));

    client.get("/v1/diff/notes/a%20b").refused(400, "bad_query").await;
    client.get("/v1/diff/notes/a%20b?from=then").refused(400, "bad_point").await;
    client
        .get(format!("/v1/diff/notes/a%20b?from={first}&to={UNKNOWN}"))
        .refused(422, "unknown_heads")
        .await;
    client
        .get(format!("/v1/diff/notes/never?from={first}"))
        .refused(404, "document_not_found")
        .await;
    client.get("/v1/blame/notes/never").refused(404, "document_not_found").await;
    client.get("/v1/blame/notes/a%20b?path=x").refused(400, "bad_query").await;
    client.delete("notes/a b").ok().await;
    client.get("/v1/blame/notes/a%20b").refused(404, "document_not_found").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_back_while_another_region_writes_on() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    let start = json!({"title": "one", "body": "x", "list": [1, 2, 3]});
    us.put("notes/a", &start).header("author", "ada").ok().await;
    us.edit("notes/a", &json!([{"op": "increment", "path": "/likes", "by": 1}])).ok().await;
    let good = us.read("notes/a").ok().await.value();
    let point = text(&history(us, "notes/a", "").await[0], "hash").to_owned();
    us.put("notes/a", &json!({"title": "spam", "list": [3], "likes": 9})).ok().await;
    cluster.agreed(&["notes"]).await;

    cluster.cut("eu", "us").await;
    let body = json!({"to": point, "note": "spam"});
    let etag = us.read("notes/a").ok().await.etag();
    let stale = "\"00000000000000000000000000000000\"";
    let refused = revert(us, "notes/a", &body).header("if-match", stale);
    refused.refused(412, "precondition_failed").await;
    let reverted = revert(us, "notes/a", &body).header("author", "grace").header("if-match", etag);
    let reverted = reverted.ok().await;
    assert_eq!(reverted.value(), good);
    assert_eq!(reverted.etag(), us.read("notes/a").ok().await.etag());
    let edits = json!([{"op": "increment", "path": "/likes", "by": 10}, {"op": "set", "path": "/new", "value": 1}]);
    eu.edit("notes/a", &edits).header("author", "joan").ok().await;
    cluster.heal("eu", "us");
    cluster.agreed(&["notes"]).await;

    let merged = json!({"title": "one", "body": "x", "list": [1, 2, 3], "likes": 11, "new": 1});
    let lists = [history(eu, "notes/a", "").await, history(us, "notes/a", "").await];
    assert_eq!(lists[0], lists[1], "both regions tell the same");
    for client in [eu, us] {
        assert_eq!(client.value("notes/a").await, Some(merged.clone()));
        assert_eq!(at(client, "notes/a", &point).ok().await.value(), good);
    }
    let told = |act: &str| {
        let found = lists[0].iter().find(|change| change["act"] == act).unwrap();
        (found["author"].clone(), found["region"].clone(), found["note"].clone())
    };
    assert_eq!(told("revert"), (json!("grace"), json!("us"), json!("spam")));
    let regions: Vec<_> = lists[0].iter().map(|change| text(change, "region")).collect();
    assert_eq!(regions.iter().filter(|region| **region == "eu").count(), 1);
    let blame = us.get("/v1/blame/notes/a?path=/new").ok().await.value();
    assert_eq!(
        (&blame["fields"][0]["author"], &blame["fields"][0]["region"]),
        (&json!("joan"), &json!("eu"))
    );

    // A token of one region makes the other one answer for what it names.
    let token = us.merge("notes/a", &json!({"title": "two"})).ok().await.token();
    let seen =
        eu.get("/v1/history/notes/a?limit=1").header("session-token", token).ok().await.value();
    assert_eq!(seen["changes"][0]["paths"], json!(["/title"]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_comes_back() {
    let (cluster, changes) = told().await;
    let client = cluster.at("solo");
    let point = text(&changes[0], "at").to_owned();
    let before = client.value("notes/a b").await.unwrap();
    let nothing = revert(client, "notes/a b", &json!({"to": point})).ok().await;
    assert_eq!(nothing.value(), before);
    assert_eq!(history(client, "notes/a b", "").await.len(), 3, "there was nothing to do");
    client.delete("notes/a b").ok().await;
    let back = revert(client, "notes/a b", &json!({"to": point})).send().await.expect(201);
    assert_eq!((back.value(), back.header("location")), (before, "/v1/docs/notes/a%20b"));
    let minimal = revert(client, "notes/a b", &json!({"to": text(&changes[2], "hash")}));
    let minimal = minimal.header("prefer", "return=minimal").send().await.expect(204);
    assert!(minimal.body.is_empty());

    let ask = |body: Value| revert(client, "notes/a b", &body);
    ask(json!({"to": "2001-01-01T00:00:00Z"})).refused(404, "document_not_found").await;
    ask(json!({"to": UNKNOWN})).refused(422, "unknown_heads").await;
    ask(json!({"to": "then"})).refused(400, "bad_point").await;
    ask(json!({"to": point})).header("author", "a\tb").refused(400, "bad_author").await;
    for body in [
        json!({}),
        json!([]),
        json!({"to": 1}),
        json!({"to": point, "why": 1}),
        json!({"to": point, "note": 1}),
    ] {
        ask(body).refused(422, "bad_revert").await;
    }
    revert(client, "notes/never", &json!({"to": point})).refused(404, "document_not_found").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_read_with_its_conflicts() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    us.put("notes/a", &json!({"title": "t"})).ok().await;
    us.put("notes/b", &json!({"title": "t"})).ok().await;
    cluster.agreed(&["notes"]).await;
    let with = async || us.get("/v1/docs/notes/a?conflicts=true").ok().await;
    let reply = with().await;
    assert_eq!(reply.value(), json!({"value": {"title": "t"}, "conflicts": []}));
    cluster.cut("eu", "us").await;
    for name in ["notes/a", "notes/b"] {
        us.merge(name, &json!({"title": "us"})).ok().await;
        eu.merge(name, &json!({"title": "eu"})).ok().await;
    }
    cluster.heal("eu", "us");
    cluster.agreed(&["notes"]).await;
    let (told, listed) = (with().await, us.conflicts("document=notes/a").await);
    assert_eq!((listed.len(), &told.value()["conflicts"]), (1, &json!(listed)));
    let plain = us.read("notes/a").ok().await;
    assert_eq!(told.value()["value"], plain.value());
    assert_eq!((told.etag(), told.header("conflicts")), (plain.etag(), "1"));
    us.resolve(&listed[0], &json!({"value": "both"})).ok().await;
    assert_eq!(with().await.value(), json!({"value": {"title": "both"}, "conflicts": []}));
    us.get("/v1/docs/notes/never?conflicts=true").refused(404, "document_not_found").await;
    us.get("/v1/docs/notes/a?conflicts=yes").refused(400, "bad_query").await;
    us.get(format!("/v1/docs/notes/a?conflicts=true&at={UNKNOWN}")).refused(400, "bad_query").await;
    cluster.stop().await;
}
