use anabranch_crdt::document::inspect;
use anabranch_crdt::edit;

use super::*;

fn policies(settings: Value) -> Policies {
    Policies::read(&settings).unwrap()
}

fn row(key: &str, content: Option<Value>) -> DocumentRow {
    let name = Some(format!("_collections/{key}").parse().unwrap());
    let json = content.map(|content| content.to_string().into());
    DocumentRow { name, json, ..DocumentRow::default() }
}

#[test]
fn what_can_be_read_of_broken_settings_holds() {
    for (content, sound, errors) in [
        (json!({"policy": "lww"}), json!({"policy": "lww"}), 0),
        (json!({"policy": "lww", "paths": {}}), json!({"policy": "lww"}), 0),
        (json!({"policy": "newest", "paths": {"/a": "max"}}), json!({"paths": {"/a": "max"}}), 1),
        (
            json!({"policy": "region-priority", "paths": {"/a": "max", "b": "max", "/c": 1}}),
            json!({"paths": {"/a": "max"}}),
            3,
        ),
        (
            json!({"policy": "region-priority", "regions": ["eu", "us"], "paths": []}),
            json!({"policy": "region-priority", "regions": ["eu", "us"]}),
            1,
        ),
        (
            json!({"regions": ["eu", "eu"], "paths": {"/a": "region-priority", "/b": "lww"}}),
            json!({"paths": {"/b": "lww"}}),
            2,
        ),
        (json!({"policy": "min", "colour": "red"}), json!({"policy": "min"}), 1),
        (json!(["lww"]), json!({}), 1),
    ] {
        let (found, told) = read(&content);
        assert_eq!((found, told.len()), (policies(sound), errors), "{content}: {told:?}");
    }
}

#[test]
fn the_owners_see_what_is_durable() {
    let collections = Collections::new([]);
    let notes: CollectionName = "notes".parse().unwrap();
    let changes = collections.changes();
    let version = || collections.of(Some(&notes)).version();
    collections.note(&row("notes", Some(json!({"policy": "max"}))));
    assert_eq!(version(), policies(json!({"policy": "max"})).version());
    assert_eq!(collections.of(None).version(), Policies::default().version());
    assert_eq!((*changes.borrow(), collections.take_touched(&notes)), (1, Some(Reach::Rows)));
    assert_eq!(collections.take_touched(&notes), None);
    collections.note(&row("notes", Some(json!({"policy": "max", "paths": {}}))));
    assert_eq!((*changes.borrow(), collections.touched()), (1, vec![]), "equal settings");
    let whole = json!({"paths": {"/a": {"policy": "lww", "whole": true}}});
    collections.note(&row("notes", Some(whole)));
    collections.note(&row("notes", None));
    assert_eq!(collections.take_touched(&notes), Some(Reach::Whole), "it was, in between");
    assert_eq!((version().to_string(), collections.named()), ("default".to_owned(), vec![]));
}

#[test]
fn what_is_no_settings_document_is_passed_over() {
    let collections = Collections::new([]);
    let max = Some(json!({"policy": "max"}));
    for key in ["_collections", "no collection", "a/b"] {
        collections.note(&row(key, max.clone()));
    }
    let other = DocumentRow { name: "notes/a".parse().ok(), ..row("x", max) };
    collections.note(&other);
    assert_eq!(collections.named(), vec![]);
    let own = collections.of(Some(&CollectionName::settings()));
    assert_eq!(own.of(&Path::default()), Policy::Lww);
}

#[test]
fn rules_and_orders_are_changed_as_one_value_each() {
    let old = json!({
        "policy": "lww",
        "paths": {"/a": "max", "/b": {"policy": "lww", "whole": true}, "/c": "min"},
        "regions": ["eu", "us"],
    });
    let new = json!({
        "policy": "lww",
        "paths": {"/a": "max", "/b": {"policy": "max", "whole": true}, "/d": "min"},
        "regions": ["us", "eu"],
    });
    let edits = edits(&old, &new);
    let paths: Vec<String> = edits.iter().map(|edit| format!("{edit:?}")).collect();
    assert_eq!(edits.len(), 4, "{paths:?}");
    assert!(
        edits
            .contains(&Edit::Set { path: "/regions".parse().unwrap(), value: json!(["us", "eu"]) })
    );
    let mut changed = old;
    edit::apply(&mut changed, &edits).unwrap();
    assert_eq!(changed, new);
    let mut none = json!({});
    edit::apply(&mut none, &super::edits(&json!({}), &new)).unwrap();
    assert_eq!(none, new);
    assert_eq!(super::edits(&new, &new), vec![]);
}

/// Maps that are handed to Automerge as a whole are written in an order that differs from run to
/// run; a seed must not.
#[test]
fn equal_files_make_equal_seeds() {
    let settings = json!({
        "policy": "region-priority",
        "regions": ["eu", "us", "ap"],
        "paths": {"/a": "max", "/b": {"policy": "lww", "whole": true}, "/c": "min", "/d": "lww"},
    });
    let seeds: Vec<Change> = (0..20).map(|_| seed(&policies(settings.clone())).unwrap()).collect();
    assert!(seeds.iter().all(|seed| *seed == seeds[0]));
    let summary = inspect(&seeds[0].bytes).unwrap();
    assert_eq!((summary.hash, summary.first), (seeds[0].hash, true));
    assert_eq!(summary.message.note.as_deref(), Some(SEED_NOTE));
    let other = seed(&policies(json!({"policy": "max"}))).unwrap();
    assert_ne!(inspect(&other.bytes).unwrap().writer, summary.writer);
}
