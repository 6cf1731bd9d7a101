//! The settings of collections: set, seeded, replicated, and documents decided by them again.

use std::collections::BTreeMap;

use anabranch_crdt::conflict::Candidate;

use super::*;

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(30);

fn policies(settings: Value) -> Policies {
    Policies::read(&settings).unwrap()
}

fn notes() -> CollectionName {
    "notes".parse().unwrap()
}

impl Fixture {
    async fn set(&self, settings: Value) -> SettingsWritten {
        let policies = policies(settings);
        let (free, documents) = (Precondition::None, &self.documents);
        documents.set_settings(notes(), &policies, None, free, NOW).await.unwrap()
    }

    /// Sets, and decides again.
    async fn decide_by(&self, settings: Value) -> Redecided {
        let (rounds, _) = self.documents.redeciding(&notes());
        self.set(settings).await;
        self.decide_again().await;
        self.documents.redecided(&notes(), rounds, SOON).await.unwrap()
    }

    async fn decide_again(&self) {
        Redecider::new(self.documents.clone()).once().await.unwrap();
    }

    async fn version(&self) -> String {
        self.documents.settings(notes()).await.unwrap().policies.version().to_string()
    }

    async fn seed(&self, file: Value) {
        let file = BTreeMap::from([(notes(), policies(file))]);
        self.documents.seed(&file).await.unwrap();
    }

    async fn rows(&self) -> Vec<Conflict> {
        let filter = ConflictFilter { limit: 1_000, ..Default::default() };
        let page = self.documents.conflicts(filter).await.unwrap();
        page.conflicts.into_iter().map(|named| named.conflict).collect()
    }

    fn left(&self) -> Option<u64> {
        self.documents.redeciding(&notes()).1
    }
}

/// Both ways until neither has anything for the other.
async fn exchange(one: &Fixture, other: &Fixture) {
    for _ in 0..3 {
        one.send_to(other).await;
        other.send_to(one).await;
        for node in [one, other] {
            // Reading has what came applied, which may call for changes.
            for name in ["_collections/notes", "notes/a", "notes/b", "notes/c"] {
                node.json(name).await;
            }
        }
    }
}

/// Two regions that wrote different numbers into `/n` of some documents at once; the greater one
/// is `us`'s, the later one `eu`'s.
async fn disputed(names: &[&str]) -> (Fixture, Fixture) {
    let (us, eu) = (Fixture::new("us"), Fixture::new("eu"));
    for name in names {
        us.put(name, json!({"n": 0})).await.unwrap();
    }
    exchange(&us, &eu).await;
    for name in names {
        us.patch(name, json!({"n": 9})).await.unwrap();
        eu.patch(name, json!({"n": 1})).await.unwrap();
    }
    exchange(&us, &eu).await;
    (us, eu)
}

fn shown(conflict: &Conflict) -> Option<Value> {
    let candidate: &Candidate = conflict.candidates.get(conflict.winner?)?;
    candidate.value.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_a_document_that_the_store_alone_writes() {
    let node = Fixture::new("us");
    let found = node.documents.settings(notes()).await.unwrap();
    assert_eq!((found.policies.version().to_string().as_str(), found.digest), ("default", None));
    let set = node.set(json!({"policy": "lww", "paths": {"/n": "max"}})).await.settings;
    assert_eq!(
        node.json("_collections/notes").await,
        json!({"policy": "lww", "paths": {"/n": "max"}})
    );
    let found = node.documents.settings(notes()).await.unwrap();
    assert_eq!((&found.policies, found.digest), (&set.policies, set.digest));
    let refused = node.put("_collections/notes", json!({"policy": "max"})).await;
    assert_eq!(code(refused), "reserved_collection");
    let changes = node.documents.admit(at("_collections/notes"), Vec::new()).await;
    assert_eq!(code(changes), "reserved_collection");
    let (auto, own) = (Policies::default(), CollectionName::settings());
    let refused = node.documents.set_settings(own, &auto, None, Precondition::None, NOW);
    assert_eq!(code(refused.await), "reserved_collection");
    let stale = Precondition::Match(vec![Digest([0; 16])]);
    let refused = node.documents.set_settings(notes(), &auto, None, stale, NOW);
    assert_eq!(code(refused.await), "precondition_failed");
    let reset = node.documents.reset_settings(notes(), None, Precondition::None, NOW).await;
    assert_eq!(reset.unwrap().settings.digest, None);
    assert_eq!(node.version().await, "default");
    let again = node.documents.reset_settings(notes(), None, Precondition::None, NOW).await;
    assert_eq!(again.unwrap().settings.policies.version().to_string(), "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_survive_a_restart_and_hold_at_once() {
    let node = Fixture::new("us");
    node.set(json!({"policy": "max"})).await;
    let version = node.version().await;
    let node = node.restart("us").await;
    assert_eq!(node.version().await, version);
    let held = node.documents.setting.collections.of(Some(&notes()));
    assert_eq!(held.version().to_string(), version);
    assert_eq!(node.left(), Some(0), "nobody has decided by them yet");
    node.decide_again().await;
    assert_eq!(node.left(), None);
    let node = node.restart("us").await;
    node.decide_again().await;
    let (rounds, left) = node.documents.redeciding(&notes());
    assert_eq!((rounds, left), (0, None), "what is done is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_of_one_file_are_one_change_and_what_is_set_is_later() {
    let file = json!({"policy": "lww", "paths": {"/n": "max", "/m": "min"}});
    let (us, eu, ap) = (Fixture::new("us"), Fixture::new("eu"), Fixture::new("ap"));
    for node in [&us, &eu] {
        node.seed(file.clone()).await;
        node.seed(json!({"policy": "min"})).await;
    }
    exchange(&us, &eu).await;
    exchange(&us, &ap).await;
    let history = us.documents.changes_since(at("_collections/notes"), vec![]).await.unwrap();
    assert_eq!((history.len(), us.rows().await.len()), (1, 0));
    let version = policies(file.clone()).version().to_string();
    for node in [&us, &eu, &ap] {
        assert_eq!(node.version().await, version);
        assert_eq!(node.json("_collections/notes").await, file);
    }
    us.set(json!({"policy": "first"})).await;
    ap.documents.reset_settings(notes(), None, Precondition::None, NOW).await.unwrap();
    let fresh = Fixture::new("sa");
    fresh.seed(file).await;
    exchange(&us, &fresh).await;
    assert_eq!(fresh.version().await, policies(json!({"policy": "first"})).version().to_string());
    ap.seed(json!({"policy": "min"})).await;
    assert_eq!(ap.version().await, "default", "what was taken back is not seeded again");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_settings_merge_path_by_path() {
    let (us, eu) = (Fixture::new("us"), Fixture::new("eu"));
    us.set(json!({"policy": "region-priority", "regions": ["us", "eu"]})).await;
    exchange(&us, &eu).await;
    us.set(json!({"policy": "max", "regions": ["us", "eu"], "paths": {"/a": "min"}})).await;
    let rules = json!({"/b": {"policy": "lww", "whole": true}});
    eu.set(json!({"policy": "region-priority", "regions": ["eu", "us"], "paths": rules})).await;
    exchange(&us, &eu).await;
    let merged = json!({
        "policy": "max",
        "regions": ["eu", "us"],
        "paths": {"/a": "min", "/b": {"policy": "lww", "whole": true}},
    });
    for node in [&us, &eu] {
        assert_eq!(node.json("_collections/notes").await, merged);
        assert_eq!(node.version().await, policies(merged.clone()).version().to_string());
    }
    // Sound in each region, and not together: one asks for the regions that the other removes.
    us.set(json!({"policy": "region-priority", "regions": ["eu", "us"]})).await;
    eu.set(json!({"policy": "max"})).await;
    exchange(&us, &eu).await;
    let (here, there) = (us.version().await, eu.version().await);
    assert_eq!(here, there);
    assert_eq!(us.json("_collections/notes").await, eu.json("_collections/notes").await);
    for node in [us, eu] {
        let region = node.documents.region().to_string();
        assert_eq!(node.restart(&region).await.version().await, here);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn winners_flip_and_flip_back_and_no_candidate_is_lost() {
    let (us, eu) = disputed(&["notes/a"]).await;
    for (policy, value, state) in [
        ("lww", json!(1), ConflictState::AutoResolved),
        ("max", json!(9), ConflictState::AutoResolved),
        ("manual", json!(9), ConflictState::Open),
        ("lww", json!(1), ConflictState::AutoResolved),
        ("first", json!(9), ConflictState::AutoResolved),
    ] {
        us.decide_by(json!({"policy": policy})).await;
        exchange(&us, &eu).await;
        eu.decide_again().await;
        exchange(&us, &eu).await;
        for node in [&us, &eu] {
            let [row] = node.rows().await.try_into().unwrap();
            assert_eq!(row.candidates.len(), 2, "{policy}: {row:#?}");
            assert_eq!(row.policy.to_string(), policy);
            assert_eq!((row.version.to_string(), row.state), (node.version().await, state));
            if policy != "manual" {
                assert_eq!(node.json("notes/a").await, json!({"n": value}), "{policy}");
                assert_eq!(shown(&row), Some(value.clone()), "{policy}");
            }
        }
        assert_eq!(us.json("notes/a").await, eu.json("notes/a").await, "{policy}");
        assert_eq!(us.rows().await, eu.rows().await, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_tells_what_setting_then_does() {
    let (us, eu) = disputed(&["notes/a", "notes/b", "notes/c"]).await;
    us.decide_by(json!({"policy": "lww"})).await;
    exchange(&us, &eu).await;
    for settings in [
        json!({"policy": "max"}),
        json!({"policy": "max", "paths": {"/n": "min"}}),
        json!({"policy": "lww"}),
        json!({"policy": "region-priority", "regions": ["us", "eu"]}),
        json!({"policy": "region-priority", "regions": ["eu", "us"]}),
        json!({"policy": "manual"}),
    ] {
        let before: BTreeMap<_, _> =
            us.rows().await.iter().map(|row| (row.id, shown(row))).collect();
        let wanted = policies(settings.clone());
        let simulation = us.documents.simulate(&notes(), &wanted).await.unwrap();
        assert_eq!(simulation.conflicts, 3);
        let unchanged: BTreeMap<_, _> =
            us.rows().await.iter().map(|row| (row.id, shown(row))).collect();
        assert_eq!(unchanged, before, "nothing is written");
        let decided = us.decide_by(settings).await;
        assert_eq!((decided.documents, decided.flipped), (3, simulation.flipped));
        let after = us.rows().await;
        let flipped: BTreeMap<_, _> = after
            .iter()
            .filter(|row| before[&row.id] != shown(row))
            .map(|row| (row.id, (before[&row.id].clone(), shown(row))))
            .collect();
        let value = |candidate: &Option<Candidate>| candidate.as_ref().unwrap().value.clone();
        let told = simulation.flips.iter().map(|named| {
            (named.flip.conflict, (value(&named.flip.from.1), value(&named.flip.to.1)))
        });
        assert_eq!(told.collect::<BTreeMap<_, _>>(), flipped);
        assert!(
            simulation.flips.iter().all(|named| {
                named.name.as_ref().is_some_and(|name| name.collection == notes())
            })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stopped_in_the_middle_goes_on() {
    let (us, eu) = disputed(&["notes/a", "notes/b", "notes/c"]).await;
    us.decide_again().await;
    us.set(json!({"policy": "max"})).await;
    // One document is written in the meantime, and decided by the way.
    us.patch("notes/b", json!({"other": true})).await.unwrap();
    let us = us.restart("us").await;
    assert!(us.left().is_some());
    us.decide_again().await;
    let decided = us.documents.redecided(&notes(), 0, SOON).await.unwrap();
    assert_eq!((decided.documents, us.left()), (2, None));
    let version = us.version().await;
    assert!(us.rows().await.iter().all(|row| row.version.to_string() == version));
    exchange(&us, &eu).await;
    eu.decide_again().await;
    assert!(eu.rows().await.iter().all(|row| row.version.to_string() == version));
}

/// Reads are answered from the row, which follows soon; a write is not made against what showed
/// under the settings before.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_meets_what_the_new_settings_show() {
    let (us, _eu) = disputed(&["notes/a", "notes/b"]).await;
    us.decide_by(json!({"policy": "lww"})).await;
    us.set(json!({"policy": "max"})).await;
    // As it showed under `lww`: under `max` it is a change.
    us.put("notes/a", json!({"n": 1})).await.unwrap();
    assert_eq!(us.json("notes/a").await, json!({"n": 1}));
    let patched = us.patch("notes/b", json!({"m": 1})).await.unwrap();
    let shown: Value = serde_json::from_slice(&patched.document.unwrap().json).unwrap();
    assert_eq!(shown, json!({"n": 9, "m": 1}));
    us.decide_again().await;
    assert_eq!(us.json("notes/a").await, json!({"n": 1}));
    assert_eq!(us.json("notes/b").await, json!({"n": 9, "m": 1}));
}

/// Begins to decide again, and breaks off once at most `left` documents are left.
async fn broken_off(node: &Fixture, left: u64) {
    let mut progress = node.documents.setting.collections.progress().subscribe();
    let redecider = Redecider::new(node.documents.clone());
    let mut deciding = tokio::task::JoinSet::new();
    deciding.spawn(async move { redecider.once().await });
    let far = progress.wait_for(|all| {
        let progress = all.get(&notes()).copied().unwrap_or_default();
        progress.rounds > 0
            || (progress.decided_by.is_none() && (1..=left).contains(&progress.left))
    });
    drop(far.await.unwrap());
    // It may have come to its end before it is told to stop.
    deciding.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_a_stop_is_not_decided_again() {
    let names: Vec<String> = (0..100).map(|number| format!("notes/{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (us, _eu) = disputed(&names).await;
    for name in &names {
        us.json(name).await;
    }
    us.decide_again().await;
    us.set(json!({"policy": "max"})).await;
    broken_off(&us, 60).await;
    let us = us.restart("us").await;
    us.decide_again().await;
    let decided = us.documents.redecided(&notes(), 0, SOON).await.unwrap();
    assert!(decided.documents <= 60, "{decided:?}");
    let (rows, version) = (us.rows().await, us.version().await);
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().all(|row| row.version.to_string() == version));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_through_every_document_goes_on_where_it_stopped() {
    let us = Fixture::new("us");
    let names: Vec<String> = (0..300).map(|number| format!("notes/{number:03}")).collect();
    for some in names.chunks(32) {
        futures::future::join_all(some.iter().map(|name| us.put(name, json!({"a": {}})))).await;
    }
    us.set(json!({"paths": {"/a": {"policy": "lww", "whole": true}}})).await;
    // The first page of 256 is remembered by the time that the second one is begun.
    broken_off(&us, 300 - 256 - 1).await;
    let us = us.restart("us").await;
    us.decide_again().await;
    let decided = us.documents.redecided(&notes(), 0, SOON).await.unwrap();
    assert!(decided.documents <= 300 - 256, "{decided:?}");
    assert_eq!(us.left(), None);
}

/// Settings came and went: what was decided by them is decided again, although those that hold are
/// those by which everything had been decided before.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_came_and_went_leave_nothing_behind() {
    let (us, _eu) = disputed(&["notes/a", "notes/b"]).await;
    us.decide_by(json!({"policy": "lww"})).await;
    us.set(json!({"policy": "max"})).await;
    us.patch("notes/a", json!({"other": true})).await.unwrap();
    us.set(json!({"policy": "lww"})).await;
    us.decide_again().await;
    let version = us.version().await;
    assert!(us.rows().await.iter().all(|row| row.version.to_string() == version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_wholes_goes_through_every_document() {
    let (us, eu) = (Fixture::new("us"), Fixture::new("eu"));
    let start = json!({"address": {"street": "s", "town": "t"}});
    for name in ["notes/a", "notes/b", "notes/c"] {
        us.put(name, start.clone()).await.unwrap();
    }
    exchange(&us, &eu).await;
    us.patch("notes/a", json!({"address": {"street": "us"}})).await.unwrap();
    eu.patch("notes/a", json!({"address": {"town": "eu"}})).await.unwrap();
    exchange(&us, &eu).await;
    assert_eq!(us.rows().await, []);
    let whole = json!({"paths": {"/address": {"policy": "lww", "whole": true}}});
    let simulation = us.documents.simulate(&notes(), &policies(whole.clone())).await.unwrap();
    let decided = us.decide_by(whole).await;
    assert!(decided.documents >= 3, "{decided:?}");
    assert_eq!(simulation.conflicts, us.rows().await.len() as u64);
    let [row] = us.rows().await.try_into().unwrap();
    assert_eq!((row.kind, row.path.to_string().as_str()), (ConflictKind::Whole, "/address"));
    exchange(&us, &eu).await;
    eu.decide_again().await;
    exchange(&us, &eu).await;
    assert_eq!(us.json("notes/a").await, eu.json("notes/a").await);
    assert_eq!(us.rows().await, eu.rows().await);
    us.decide_by(json!({"policy": "auto"})).await;
    assert_eq!(us.rows().await, [], "parts that do not collide are no conflict again");
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_listed_with_and_without_settings() {
    let node = Fixture::new("us");
    node.set(json!({"policy": "max"})).await;
    node.put("cities/a", json!({})).await.unwrap();
    let listed = async |after: Option<&str>, limit| {
        let after = after.map(|name| name.parse().unwrap());
        let found = node.documents.collections(after.as_ref(), limit).await.unwrap();
        let name = |c: &CollectionSettings| format!("{} {}", c.name, c.policies.version());
        found.iter().map(name).collect::<Vec<_>>()
    };
    let version = node.version().await;
    let seeded = ["cities", "homes", "latest"].map(|name| format!("{name} default"));
    let all = [&seeded[..], &[format!("notes {version}")]].concat();
    assert_eq!(listed(None, 9).await, all);
    assert_eq!(listed(None, 1).await, all[..1]);
    assert_eq!(listed(Some("cities"), 1).await, all[1..2]);
}
