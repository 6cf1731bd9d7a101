//! The story of the project on real input: a public data set is imported in one region, all three
//! regions edit the same documents while one of them is cut off, and when the link comes back all
//! of them hold the same bytes, with every collision in the ledger and nothing else in it.
//!
//! What has to come out is computed by a model in this file, which knows neither CRDTs nor nodes.

mod data;

use std::collections::BTreeSet;

use anabranch_crdt::policy::Policy;
use futures::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use self::data::Record;
use crate::support::cluster::Picture;
use crate::support::{Cluster, Plan};

/// Documents that are imported.
const DOCUMENTS: usize = 5_000;

/// Articles that are told of besides.
const ARTICLES: usize = 500;

/// Of each so many documents, one is edited in each of the ways that [`Edits::of`] knows, and the
/// rest is left as it is.
const EVERY: usize = 20;

/// Requests of a client that are under way at one time.
const IN_FLIGHT: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_agree_on_a_public_data_set_after_a_partition() {
    tell(data::records(DOCUMENTS).await).await;
}

/// The same over the articles that stand in where the data set cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn three_regions_agree_on_made_up_articles_after_a_partition() {
    tell(data::articles(ARTICLES)).await;
}

async fn tell(records: Vec<Record>) {
    let count = records.len();
    let cluster = Plan::new(&["ap-south", "eu-west", "us-east"])
        .policy("places", Policy::Auto, &[("/population", Policy::Lww)])
        .start()
        .await;
    cluster.meshed().await;
    import(&cluster, "us-east", &records).await;
    let story = Story::over(records);
    story.prepare(&cluster).await;
    let imported = cluster.agreed(&["places"]).await;
    assert_eq!((imported.listed().len(), imported.conflicts().len()), (count, 0));

    cluster.isolate("ap-south").await;
    story.edit(&cluster).await;
    cluster.rejoin("ap-south");
    let picture = cluster.agreed(&["places"]).await;
    story.check(&picture);
    check_exports(&cluster, &picture).await;
    cluster.stop().await;
}

/// Imports as `anabranch import` does: one request per document, many in flight.
async fn import(cluster: &Cluster, region: &str, records: &[Record]) {
    let client = cluster.at(region);
    let put = |record: &Record| {
        let call = client.put(&name(record), &record.value).header("prefer", "return=minimal");
        async move { drop(call.send().await.expect(201)) }
    };
    stream::iter(records.iter().map(put)).buffer_unordered(IN_FLIGHT).collect::<()>().await;
}

fn name(record: &Record) -> String {
    format!("places/{}", record.key)
}

/// The documents that are edited, each with what is done to it.
struct Story {
    edited: Vec<Edited>,
    untouched: Vec<Record>,
}

struct Edited {
    record: Record,
    edits: Edits,
}

/// What each region does to one document, and what has to come of it.
#[derive(Default)]
struct Edits {
    prepare: Option<Value>,
    us: Option<Value>,
    eu: Option<Value>,
    ap: Option<Value>,
    /// Whether `us` deletes the document instead.
    delete: bool,
    shown: Shown,
    ledger: Vec<Row>,
}

/// What the document has to show.
#[derive(Default)]
enum Shown {
    /// These members in place of the imported ones; null for one that is gone.
    #[default]
    Members,
    Patched(Value),
    /// One of the candidates at this member, and everything else as imported.
    OneOf(&'static str),
}

/// One row of the ledger: path, kind, state, and (region, value) of every candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    document: String,
    path: String,
    kind: String,
    state: String,
    candidates: BTreeSet<(String, String)>,
}

impl Edits {
    /// The ways to edit; the regions `us` and `eu` hear of each other, `ap` of nobody.
    fn of(way: usize, number: usize, record: &Record) -> Option<Self> {
        let (one, two) = (json!(format!("one {number}")), json!(format!("two {number}")));
        match way {
            0 => Some(Self::of_one_field(one, two)),
            1 => Some(Self::under_lww(number)),
            2 => Some(Self::of_different_fields(one, two)),
            3 => Some(Self::equal(one)),
            4 => Some(Self::one_after_the_other(one, two)),
            5 => Some(Self::deleted_field(two)),
            6 => Some(Self::counter()),
            7 => Some(Self::list_and_text()),
            8 => Some(Self::deleted_document(two, record)),
            _ => None,
        }
    }

    /// Both values of a field are kept, and one shows.
    fn of_one_field(one: Value, two: Value) -> Self {
        Self {
            shown: Shown::OneOf("name"),
            ledger: vec![row("/name", "value", "open", &[("us-east", &one), ("ap-south", &two)])],
            us: set("/name", one),
            ap: set("/name", two),
            ..Self::default()
        }
    }

    /// `ap` comes later.
    fn under_lww(number: usize) -> Self {
        let (one, two) = (json!(number), json!(number + 1));
        let candidates = [("us-east", &one), ("ap-south", &two)];
        Self {
            shown: Shown::Patched(json!({"population": two})),
            ledger: vec![row("/population", "value", "auto-resolved", &candidates)],
            us: set("/population", one),
            ap: set("/population", two),
            ..Self::default()
        }
    }

    fn of_different_fields(one: Value, two: Value) -> Self {
        let three = json!([null, {"deep": 1.5}]);
        Self {
            shown: Shown::Patched(json!({"us": one, "eu": three, "ap": two})),
            us: set("/us", one),
            eu: set("/eu", three),
            ap: set("/ap", two),
            ..Self::default()
        }
    }

    fn equal(value: Value) -> Self {
        Self {
            shown: Shown::Patched(json!({"name": value})),
            eu: set("/name", value.clone()),
            ap: set("/name", value),
            ..Self::default()
        }
    }

    /// `eu` writes over what `us` wrote, which it has seen; so two values collide, not three.
    fn one_after_the_other(one: Value, two: Value) -> Self {
        Self {
            shown: Shown::OneOf("name"),
            ledger: vec![row("/name", "value", "open", &[("eu-west", &one), ("ap-south", &two)])],
            us: set("/name", json!("seen and replaced")),
            eu: set("/name", one),
            ap: set("/name", two),
            ..Self::default()
        }
    }

    /// A field that one region deletes and another one writes stays.
    fn deleted_field(two: Value) -> Self {
        let candidates = [("us-east", &Value::Null), ("ap-south", &two)];
        Self {
            us: Some(json!([{"op": "remove", "path": "/name"}])),
            shown: Shown::Patched(json!({"name": two})),
            ledger: vec![row("/name", "delete", "auto-resolved", &candidates)],
            ap: set("/name", two),
            ..Self::default()
        }
    }

    fn counter() -> Self {
        let add = |by: i64| Some(json!([{"op": "increment", "path": "/visits", "by": by}]));
        Self {
            prepare: add(0),
            us: add(1),
            eu: add(10),
            ap: add(100),
            shown: Shown::Patched(json!({"visits": 111})),
            ..Self::default()
        }
    }

    /// A list grows at both ends, and a text in two places.
    fn list_and_text() -> Self {
        Self {
            prepare: Some(json!([
                {"op": "set", "path": "/tags", "value": ["first", "last"]},
                {"op": "set", "path": "/text", "value": "begin end"},
                {"op": "splice", "path": "/text", "at": 5, "insert": ","},
            ])),
            us: Some(json!([
                {"op": "insert", "path": "/tags/1", "value": "us"},
                {"op": "splice", "path": "/text", "at": 0, "insert": "us: "},
            ])),
            ap: Some(json!([
                {"op": "insert", "path": "/tags/-", "value": "ap"},
                {"op": "splice", "path": "/text", "at": 10, "insert": " (ap)"},
            ])),
            shown: Shown::Patched(
                json!({"tags": ["first", "us", "last", "ap"], "text": "us: begin, end (ap)"}),
            ),
            ..Self::default()
        }
    }

    /// A document that one region deletes and another one writes lives on, whole.
    fn deleted_document(two: Value, record: &Record) -> Self {
        let mut whole = record.value.clone();
        whole["name"] = two.clone();
        let candidates = [("us-east", &Value::Null), ("ap-south", &whole)];
        let ledger = vec![row("", "document", "auto-resolved", &candidates)];
        Self { delete: true, us: None, ledger, ..Self::deleted_field(two) }
    }
}

/// The edit that writes one member.
fn set(path: &str, value: Value) -> Option<Value> {
    Some(json!([{"op": "set", "path": path, "value": value}]))
}

fn row(path: &str, kind: &str, state: &str, candidates: &[(&str, &Value)]) -> Row {
    let candidate = |(region, value): &(&str, &Value)| ((*region).to_owned(), value.to_string());
    Row {
        document: String::new(),
        path: path.to_owned(),
        kind: kind.to_owned(),
        state: state.to_owned(),
        candidates: candidates.iter().map(candidate).collect(),
    }
}

impl Story {
    fn over(records: Vec<Record>) -> Self {
        let mut story = Self { edited: Vec::new(), untouched: Vec::new() };
        for (number, record) in records.into_iter().enumerate() {
            match Edits::of(number % EVERY, number, &record) {
                Some(edits) => story.edited.push(Edited { record, edits }),
                None => story.untouched.push(record),
            }
        }
        story
    }

    /// What has to be there before the regions part.
    async fn prepare(&self, cluster: &Cluster) {
        self.send(cluster, "us-east", |edits| edits.prepare.as_ref()).await;
    }

    /// What the regions do: `eu` after it has heard of `us`, and `ap` last, alone.
    async fn edit(&self, cluster: &Cluster) {
        self.send(cluster, "us-east", |edits| edits.us.as_ref()).await;
        let client = cluster.at("us-east");
        for edited in self.edited.iter().filter(|edited| edited.edits.delete) {
            client.delete(&name(&edited.record)).ok().await;
        }
        cluster.agreed_among(&["eu-west", "us-east"], &[]).await;
        self.send(cluster, "eu-west", |edits| edits.eu.as_ref()).await;
        self.send(cluster, "ap-south", |edits| edits.ap.as_ref()).await;
    }

    async fn send(&self, cluster: &Cluster, region: &str, of: fn(&Edits) -> Option<&Value>) {
        let client = cluster.at(region);
        let calls = self.edited.iter().filter_map(|edited| {
            let edits = of(&edited.edits)?;
            let call = client.edit(&name(&edited.record), edits);
            Some(async move { drop(call.ok().await) })
        });
        stream::iter(calls).buffer_unordered(IN_FLIGHT).collect::<()>().await;
    }

    /// Compares what the regions agree on with what had to come out.
    fn check(&self, picture: &Picture) {
        let listed = picture.listed();
        assert_eq!(listed.len(), self.edited.len() + self.untouched.len());
        let shown: std::collections::BTreeMap<&str, &Value> =
            listed.iter().map(|d| (d["key"].as_str().unwrap(), &d["value"])).collect();
        for record in &self.untouched {
            assert_eq!(*shown[record.key.as_str()], record.value, "{}", record.key);
        }
        for edited in &self.edited {
            edited.check(shown[edited.record.key.as_str()]);
        }
        self.check_ledger(&picture.conflicts());
    }

    fn check_ledger(&self, conflicts: &[Value]) {
        let mut expected: Vec<Row> = Vec::new();
        for edited in &self.edited {
            let document = name(&edited.record);
            let of = |row: &Row| Row { document: document.clone(), ..row.clone() };
            expected.extend(edited.edits.ledger.iter().map(of));
        }
        let mut told: Vec<Row> = conflicts.iter().map(read_row).collect();
        expected.sort();
        told.sort();
        let missing: Vec<_> = expected.iter().filter(|row| !told.contains(row)).take(5).collect();
        let strange: Vec<_> = told.iter().filter(|row| !expected.contains(row)).take(5).collect();
        assert!(missing.is_empty() && strange.is_empty(), "{missing:#?}\nin place of {strange:#?}");
        assert_eq!(told.len(), expected.len(), "some are told twice");
    }
}

impl Edited {
    fn check(&self, shown: &Value) {
        let key = &self.record.key;
        let mut expected: Map<String, Value> = self.record.value.as_object().unwrap().clone();
        match &self.edits.shown {
            Shown::Members => {}
            Shown::Patched(patch) => expected.extend(patch.as_object().unwrap().clone()),
            Shown::OneOf(member) => {
                let value = &shown[*member];
                let candidates = self.edits.ledger[0].candidates.iter();
                let written = value.to_string();
                let known = candidates.into_iter().any(|(_, text)| *text == written);
                assert!(known, "{key}: {value} is no candidate");
                expected.insert((*member).to_owned(), value.clone());
            }
        }
        assert_eq!(*shown, Value::Object(expected), "{key}");
    }
}

fn read_row(conflict: &Value) -> Row {
    let candidates: Vec<(&str, &Value)> = conflict["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|candidate| (candidate["region"].as_str().unwrap(), &candidate["value"]))
        .collect();
    let text = |member: &str| conflict[member].as_str().unwrap().to_owned();
    let row = row(&text("path"), &text("kind"), &text("state"), &candidates);
    Row { document: text("document"), ..row }
}

/// Reads some documents one by one as well: the same bytes and the same entity tag everywhere.
async fn check_exports(cluster: &Cluster, picture: &Picture) {
    for document in picture.listed().iter().step_by(97) {
        let name = format!("places/{}", document["key"].as_str().unwrap());
        let first = cluster.at("us-east").read(&name).ok().await;
        for region in ["eu-west", "ap-south"] {
            let other = cluster.at(region).read(&name).ok().await;
            assert_eq!((&other.body, other.etag()), (&first.body, first.etag()), "{name}");
            assert_eq!(other.header("conflicts"), first.header("conflicts"), "{name}");
        }
    }
}
