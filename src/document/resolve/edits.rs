//! The edits that leave one value alone at the place of a conflict.

use anabranch_crdt::document::{Place, Typed};
use anabranch_crdt::edit::{Edit, Path};
use serde_json::{Map, Value};

/// A value that is to stand somewhere, with what JSON does not tell of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) value: Value,
    /// The counters and texts inside, by their paths.
    pub(super) typed: Vec<(Path, Typed)>,
}

/// The edits that leave what is wanted alone at a place: nothing at all for `None`. Objects and
/// lists around it that are gone come back.
pub(super) fn settling(
    document: Option<&Value>,
    place: &Place,
    wanted: Option<&Wanted>,
) -> Vec<Edit> {
    let Some(wanted) = wanted else {
        let path = place.path.clone();
        return place.stands().then_some(Edit::Remove { path }).into_iter().collect();
    };
    let (edit, path) = writing(document, place, wanted.value.clone());
    let retyped = wanted.typed.iter().filter_map(|(inside, typed)| {
        let here = wanted.value.pointer(&inside.to_string())?;
        let path = Path::from([path.tokens(), inside.tokens()].concat());
        match typed {
            // An increment makes a number a counter, and a splice makes a string a text.
            Typed::Counter => here.is_i64().then_some(Edit::Increment { path, by: 0 }),
            Typed::Text => here.is_string().then_some(Edit::Splice {
                path,
                at: 0,
                delete: 0,
                insert: String::new(),
            }),
        }
    });
    std::iter::once(edit).chain(retyped).collect()
}

/// The edit that writes a value, and where the value is after it.
fn writing(document: Option<&Value>, place: &Place, value: Value) -> (Edit, Path) {
    let tokens = place.path.tokens();
    if place.stands() {
        return (Edit::Set { path: place.path.clone(), value }, place.path.clone());
    }
    let (mut value, mut inside) = (value, Vec::new());
    let none = Value::Object(Map::new());
    let document = document.unwrap_or(&none);
    for depth in (0..tokens.len()).rev() {
        let (above, rest) = tokens.split_at(depth);
        let token = rest.first().map(String::as_str).unwrap_or_default();
        let element = place.elements.get(depth).copied().unwrap_or_default();
        let above = Path::from(above.to_vec());
        let holder = (depth <= place.standing).then(|| document.pointer(&above.to_string()));
        match (holder.flatten(), element) {
            (Some(Value::Array(list)), true) => {
                let index = token.parse::<usize>().unwrap_or(list.len()).min(list.len());
                let path = above.child(index.to_string());
                let at = joined(&path, inside);
                return (Edit::Insert { path, value }, at);
            }
            (Some(Value::Object(_)), false) => {
                let path = above.child(token);
                let at = joined(&path, inside);
                return (Edit::Set { path, value }, at);
            }
            (_, true) => {
                value = Value::Array(vec![value]);
                inside.push("0".to_owned());
            }
            (_, false) => {
                value = Value::Object(Map::from_iter([(token.to_owned(), value)]));
                inside.push(token.to_owned());
            }
        }
    }
    (Edit::Set { path: place.path.clone(), value }, place.path.clone())
}

/// A path, and the tokens that lead on from it, the innermost first.
fn joined(path: &Path, inside: Vec<String>) -> Path {
    inside.into_iter().rev().fold(path.clone(), |path, token| path.child(token))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(path: &str, elements: &[bool], standing: usize) -> Place {
        let path: Path = path.parse().unwrap();
        Place { path, elements: elements.to_vec(), standing, shown: None }
    }

    #[track_caller]
    fn check(document: Value, place: &Place, expected: Value) {
        let counter = Wanted { value: json!(7), typed: vec![(Path::default(), Typed::Counter)] };
        let edits = settling(Some(&document), place, Some(&counter));
        let mut after = document;
        anabranch_crdt::edit::apply(&mut after, &edits).unwrap();
        assert_eq!(after, expected);
        assert!(matches!(edits.last(), Some(Edit::Increment { by: 0, .. })), "{edits:?}");
    }

    #[test]
    fn what_is_there_is_replaced() {
        check(json!({"a": {"b": 1}}), &place("/a/b", &[false, false], 2), json!({"a": {"b": 7}}));
        check(json!({"a": [1, 2]}), &place("/a/1", &[false, true], 2), json!({"a": [1, 7]}));
    }

    #[test]
    fn what_is_gone_comes_back_with_what_was_around_it() {
        let name = place("/items/1/name", &[false, true, false], 1);
        check(json!({"items": [0]}), &name, json!({"items": [0, {"name": 7}]}));
        check(json!({"items": [0, 1]}), &name, json!({"items": [0, {"name": 7}, 1]}));
        let gone = place("/items/1/name", &[false, true, false], 0);
        check(json!({}), &gone, json!({"items": [{"name": 7}]}));
        check(
            json!({"items": "x"}),
            &place("/items/1/name", &[false, true, false], 1),
            json!({"items": [{"name": 7}]}),
        );
        check(json!({"a": {}}), &place("/a/b/c", &[false; 3], 1), json!({"a": {"b": {"c": 7}}}));
    }

    #[test]
    fn nothing_is_removed_only_where_something_is() {
        let document = json!({"a": [1]});
        let element = place("/a/0", &[false, true], 2);
        let removed = vec![Edit::Remove { path: element.path.clone() }];
        assert_eq!(settling(Some(&document), &element, None), removed);
        assert_eq!(settling(Some(&document), &place("/a/0", &[false, true], 1), None), []);
        assert_eq!(settling(None, &place("/a", &[false], 0), None), []);
    }

    #[test]
    fn a_document_that_is_gone_comes_back() {
        let wanted = Wanted { value: json!("x"), typed: Vec::new() };
        let edits = settling(None, &place("/a/b", &[false, false], 0), Some(&wanted));
        let path = "/a".parse().unwrap();
        assert_eq!(edits, [Edit::Set { path, value: json!({"b": "x"}) }]);
    }
}
