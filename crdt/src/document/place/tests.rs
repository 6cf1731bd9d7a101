use serde_json::{Value, json};

use super::super::tests::{Region, exchange, pair, set};
use super::*;
use crate::conflict::Conflict;
use crate::edit::Edit;
use crate::policy::Policy;

fn insert(path: &str, value: Value) -> Edit {
    Edit::Insert { path: path.parse().unwrap(), value }
}

fn place(region: &Region, conflict: &Conflict) -> Place {
    let operations = conflict.candidates.iter().map(|candidate| candidate.id.as_str());
    let depth = conflict.path.tokens().len();
    region.document.place(operations, depth, &Policies::default()).unwrap()
}

fn check(region: &Region, conflict: &Conflict, path: &str, elements: &[bool], standing: usize) {
    let place = place(region, conflict);
    assert_eq!((place.path.to_string().as_str(), place.standing), (path, standing), "{place:?}");
    assert_eq!(place.elements, elements);
    assert_eq!(place.shown.is_some(), place.stands(), "{place:?}");
}

/// Both regions write the name of the second item at once.
fn disputed_item() -> [Region; 2] {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/items", json!([{"name": "a"}, {"name": "b"}]));
    exchange(&mut regions);
    for (region, name) in regions.iter_mut().zip(["x", "y"]) {
        region.set("/items/1/name", json!(name));
    }
    exchange(&mut regions);
    regions
}

#[test]
fn a_place_follows_its_list_element() {
    let mut regions = disputed_item();
    let conflict = regions[0].conflicts().remove(0);
    let elements = [false, true, false];
    check(&regions[0], &conflict, "/items/1/name", &elements, 3);
    regions[0].edit(&[insert("/items/0", json!("first"))]).unwrap();
    check(&regions[0], &conflict, "/items/2/name", &elements, 3);
    regions[0].remove("/items/2/name");
    check(&regions[0], &conflict, "/items/2/name", &elements, 2);
    regions[0].remove("/items/2").edit(&[insert("/items/2", json!({"name": "other"}))]).unwrap();
    assert_eq!(place(&regions[0], &conflict).standing, 1, "the element there now is another one");
    regions[0].set("/items", json!([1, 2, {"name": "other"}]));
    assert_eq!(place(&regions[0], &conflict).standing, 1, "and so is this list");
    regions[0].remove("/items");
    assert_eq!(place(&regions[0], &conflict).standing, 0);
}

#[test]
fn operations_tell_their_types() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/x", json!(0));
    exchange(&mut regions);
    for region in &mut regions {
        let nested = json!({"n": 1, "list": [{"t": "x"}], "s": "plain"});
        let at = |path: &str| path.parse().unwrap();
        region
            .edit(&[
                set("/in", nested),
                Edit::Increment { path: at("/in/n"), by: 2 },
                Edit::Splice { path: at("/in/list/0/t"), at: 0, delete: 0, insert: "y".into() },
                Edit::Increment { path: at("/count"), by: 1 },
            ])
            .unwrap();
    }
    exchange(&mut regions);
    let document = &regions[0].document;
    let typed = |path: &str| -> Vec<(String, Typed)> {
        let view = View::new(&document.doc, &regions[0].policies, &document.admissions);
        let prop = automerge::Prop::Map(path.to_owned());
        let slots = view.slots(&[ROOT], &prop);
        let found = document.typed(&object_name(&slots[0].operation));
        found.into_iter().map(|(path, typed)| (path.to_string(), typed)).collect()
    };
    assert_eq!(typed("count"), [(String::new(), Typed::Counter)]);
    let nested = [("/list/0/t".to_owned(), Typed::Text), ("/n".to_owned(), Typed::Counter)];
    assert_eq!(typed("in"), nested);
    assert_eq!(typed("x"), []);
    assert!(document.typed("no operation").is_empty());
}
