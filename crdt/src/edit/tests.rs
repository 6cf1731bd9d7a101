use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json::arbitrary;
use crate::json::{MAX_INTEGER, MAX_NESTING, same};

mod patches;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn set(at: &str, value: Value) -> Edit {
    Edit::Set { path: path(at), value }
}

fn remove(at: &str) -> Edit {
    Edit::Remove { path: path(at) }
}

fn insert(at: &str, value: Value) -> Edit {
    Edit::Insert { path: path(at), value }
}

fn increment(at: &str, by: i64) -> Edit {
    Edit::Increment { path: path(at), by }
}

fn splice(place: &str, at: usize, delete: usize, insert: &str) -> Edit {
    Edit::Splice { path: path(place), at, delete, insert: insert.to_owned() }
}

fn applied(value: &Value, edits: &[Edit]) -> Value {
    let mut value = value.clone();
    apply(&mut value, edits).unwrap_or_else(|error| panic!("{value} {edits:?}: {error}"));
    value
}

fn check_difference(old: Value, new: Value, expected: &[Edit]) {
    let edits = difference(&old, &new);
    assert_eq!(edits, expected, "{old} to {new}");
    assert!(same(&applied(&old, &edits), &new), "{old} to {new}");
}

fn check_applied(value: Value, edit: Edit, expected: Value) {
    assert_eq!(applied(&value, &[edit]), expected);
}

fn check_unfit(value: Value, edit: Edit, words: &str) {
    let mut changed = value.clone();
    match apply(&mut changed, &[edit]) {
        Err(EditError::Unfit(reason)) => {
            assert!(reason.starts_with("edit 0: ") && reason.contains(words), "{reason}");
        }
        other => panic!("{words}: {other:?}"),
    }
    assert_eq!(changed, value, "an edit that does not fit changes nothing");
}

fn check_malformed(body: Value, words: &str) {
    match parse_edits(&body) {
        Err(EditError::Malformed(reason)) => assert!(reason.contains(words), "{body}: {reason}"),
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn paths_are_read_as_the_standard_says() {
    for (text, tokens) in [
        ("", vec![]),
        ("/", vec![""]),
        ("/a/0/-", vec!["a", "0", "-"]),
        ("/a~1b/m~0n/~01", vec!["a/b", "m~n", "~1"]),
        ("/ /\"/é", vec![" ", "\"", "é"]),
    ] {
        assert_eq!(path(text).tokens(), tokens, "{text}");
        assert_eq!(path(text).to_string(), text);
    }
    for text in ["a", " /a", "/~", "/a~2", "/~~0", "#/a"] {
        let refusal = text.parse::<Path>().unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("'{text}' is no JSON pointer")), "{refusal}");
    }
    assert!(path("").is_root() && path("").is_around(&path("/a")));
    assert!(path("/a").is_around(&path("/a/b/c")) && !path("/a").is_around(&path("/a")));
    assert!(!path("/a").is_around(&path("/ab/c")));
}

#[test]
fn only_what_differs_is_edited() {
    check_difference(
        json!({"a": 1, "b": [1, {"c": null}]}),
        json!({"a": 1.0, "b": [1, {"c": null}]}),
        &[],
    );
    check_difference(
        json!({"a": 1, "gone": {"x": 1}, "o": {"same": [1], "n": 1}}),
        json!({"a": 2, "o": {"same": [1], "n": 1, "new": {}}, "z": null}),
        &[remove("/gone"), set("/a", json!(2)), set("/o/new", json!({})), set("/z", json!(null))],
    );
    check_difference(json!({"a": {"b": 1}}), json!({"a": [1]}), &[set("/a", json!([1]))]);
    check_difference(
        json!({"a/b": {"~": 1}}),
        json!({"a/b": {"~": 2}}),
        &[set("/a~1b/~0", json!(2))],
    );
    check_difference(json!({"a": 0}), json!({"a": -0.0}), &[set("/a", json!(-0.0))]);
}

#[test]
fn what_is_no_object_differs_like_an_empty_one() {
    assert_eq!(difference(&Value::Null, &json!({"a": 1})), [set("/a", json!(1))]);
    assert_eq!(difference(&json!({"a": 1}), &json!([])), [remove("/a")]);
}

#[test]
fn lists_keep_what_they_have_in_common() {
    let lists = |old: Value, new: Value, edits: &[Edit]| {
        check_difference(json!({"l": old}), json!({"l": new}), edits);
    };
    lists(json!([1, 2, 3]), json!([1, 2, 3, 4]), &[insert("/l/3", json!(4))]);
    lists(json!([1, 2, 3]), json!([0, 1, 2, 3]), &[insert("/l/0", json!(0))]);
    lists(json!([1, 2, 3, 4]), json!([1, 4]), &[remove("/l/2"), remove("/l/1")]);
    lists(json!([1, 2, 3]), json!([1, 9, 3]), &[set("/l/1", json!(9))]);
    lists(json!([1, 2, 3, 4]), json!([2, 3, 4, 1]), &[remove("/l/0"), insert("/l/3", json!(1))]);
    lists(
        json!(["a", "b", "c", "d", "e"]),
        json!(["x", "b", "d", "y", "z", "e"]),
        &[
            set("/l/0", json!("x")),
            remove("/l/2"),
            insert("/l/3", json!("y")),
            insert("/l/4", json!("z")),
        ],
    );
    lists(json!([]), json!([1, 2]), &[insert("/l/0", json!(1)), insert("/l/1", json!(2))]);
    lists(json!([1, 1]), json!([]), &[remove("/l/1"), remove("/l/0")]);
    lists(json!([1.0, 2]), json!([1, 2.0]), &[]);
}

#[test]
fn elements_at_one_place_are_changed_inside() {
    check_difference(
        json!({"l": [{"id": 1, "n": 1}, {"id": 2, "n": 1}, [1, 2]]}),
        json!({"l": [{"id": 1, "n": 1}, {"id": 2, "n": 5}, [1, 2, 3]]}),
        &[set("/l/1/n", json!(5)), insert("/l/2/2", json!(3))],
    );
    check_difference(
        json!({"l": [{"id": 0}, {"id": 1, "n": 1}, {"id": 2}]}),
        json!({"l": [{"id": 1, "n": 2}, {"id": 2}]}),
        &[remove("/l/0/id"), set("/l/0/id", json!(1)), set("/l/0/n", json!(2)), remove("/l/1")]
            [1..],
    );
}

#[test]
fn lists_too_long_for_a_table_are_compared_place_by_place() {
    let old: Vec<_> = (0..600).map(|n| json!({"n": n})).collect();
    let mut new: Vec<_> = (0..605).map(|n| json!({"n": n + 1})).collect();
    new[300] = json!("other");
    let (old, new) = (json!({"l": old}), json!({"l": new}));
    let edits = difference(&old, &new);
    assert_eq!(edits.len(), 605);
    assert_eq!(edits[0], set("/l/0/n", json!(1)));
    assert_eq!(edits[300], set("/l/300", json!("other")));
    assert_eq!(edits[604], insert("/l/604", json!({"n": 605})));
    assert_eq!(applied(&old, &edits), new);
    assert_eq!(applied(&new, &difference(&new, &old)), old);
}

#[test]
fn very_many_lists_share_one_bound() {
    let lists = |from: usize| -> Vec<_> {
        (0..40).map(|_| (from..from + 400).collect::<Vec<_>>()).map(|list| json!(list)).collect()
    };
    let (old, new) = (json!({"l": lists(0)}), json!({"l": lists(1)}));
    let edits = difference(&old, &new);
    assert!(edits.len() > 40 * 2 && edits.len() < 40 * 400);
    assert_eq!(applied(&old, &edits), new);
}

#[test]
fn a_long_list_with_one_change_in_the_middle_needs_one_edit() {
    let old: Vec<_> = (0..100_000).collect();
    let mut new = old.clone();
    new[50_000] = -1;
    check_difference(json!({"l": old}), json!({"l": new}), &[set("/l/50000", json!(-1))]);
    new.remove(50_000);
    check_difference(json!({"l": old}), json!({"l": new}), &[remove("/l/50000")]);
}

#[test]
fn each_edit_does_what_it_says() {
    check_applied(json!({}), set("/a", json!(1)), json!({"a": 1}));
    check_applied(json!({"a": {"b": 1}}), set("/a/b", json!(null)), json!({"a": {"b": null}}));
    check_applied(json!({"l": [1, 2]}), set("/l/1", json!(3)), json!({"l": [1, 3]}));
    check_applied(json!({"l": [1, 2]}), remove("/l/0"), json!({"l": [2]}));
    check_applied(json!({"": 1, "a": 2}), remove("/"), json!({"a": 2}));
    check_applied(json!({"l": [1]}), insert("/l/0", json!(0)), json!({"l": [0, 1]}));
    check_applied(json!({"l": [1]}), insert("/l/1", json!(2)), json!({"l": [1, 2]}));
    check_applied(json!({"l": [1]}), insert("/l/-", json!(2)), json!({"l": [1, 2]}));
    check_applied(json!({}), increment("/n", -3), json!({"n": -3}));
    check_applied(json!({"n": 4.0}), increment("/n", 3), json!({"n": 7}));
    check_applied(json!({"l": [4]}), increment("/l/0", 3), json!({"l": [7]}));
    check_applied(json!({"t": "añ😀o"}), splice("/t", 1, 2, "nn"), json!({"t": "anno"}));
    check_applied(json!({"t": "ab"}), splice("/t", 2, 0, "c"), json!({"t": "abc"}));
    check_applied(json!({"l": ["ab"]}), splice("/l/0", 0, 2, ""), json!({"l": [""]}));
}

#[test]
fn an_edit_that_does_not_fit_says_why() {
    check_unfit(json!({}), set("", json!({})), "the path is empty");
    check_unfit(json!({}), set("/a/b", json!(1)), "'/a/b' cannot be: '/a' does not exist");
    check_unfit(json!({"a": 1}), set("/a/b", json!(1)), "'/a' is a number, not a container");
    check_unfit(json!({"l": [1]}), set("/l/1", json!(1)), "'/l/1' does not exist");
    check_unfit(json!({"l": [1]}), set("/l/-", json!(1)), "'/l/-' does not exist");
    check_unfit(json!({"l": [1]}), set("/l/00", json!(1)), "'/l/00' does not exist");
    check_unfit(json!({"l": [1]}), set("/l/+0", json!(1)), "'/l/+0' does not exist");
    check_unfit(json!({"a": 1}), remove("/b"), "'/b' does not exist");
    check_unfit(json!({"l": [1]}), remove("/l/1"), "'/l/1' does not exist");
    check_unfit(json!({"l": [1]}), insert("/l/2", json!(1)), "which has 1 elements");
    check_unfit(json!({"l": [1]}), insert("/l/x", json!(1)), "does not end in an index");
    check_unfit(json!({"a": {}}), insert("/a/0", json!(1)), "only lists take an insert");
    check_unfit(json!({"n": "1"}), increment("/n", 1), "'/n' is a string");
    check_unfit(json!({"n": 1.5}), increment("/n", 1), "'/n' is 1.5");
    check_unfit(
        json!({"n": MAX_INTEGER}),
        increment("/n", 1),
        "'/n' would leave ±9007199254740991",
    );
    check_unfit(json!({}), increment("/n", i64::MIN), "would leave");
    check_unfit(json!({"l": []}), increment("/l/0", 1), "does not exist");
    check_unfit(json!({}), splice("/t", 0, 0, "x"), "'/t' does not exist");
    check_unfit(json!({"t": 1}), splice("/t", 0, 0, "x"), "'/t' is a number");
    check_unfit(json!({"t": "é"}), splice("/t", 1, 1, ""), "'/t' has 1 characters");
    check_unfit(json!({"t": "é"}), splice("/t", 2, 0, ""), "'/t' has 1 characters");
    check_unfit(json!({"t": ""}), splice("/t", 1, usize::MAX, ""), "'/t' has 0 characters");
}

#[test]
fn the_edit_that_does_not_fit_is_named_by_its_index() {
    let edits = [set("/a", json!(1)), remove("/a"), remove("/a")];
    let refusal = apply(&mut json!({}), &edits).unwrap_err();
    assert_eq!(refusal, EditError::Unfit("edit 2: '/a' does not exist".to_owned()));
}

#[test]
fn edits_cannot_nest_without_end() {
    let mut value = json!({});
    let inner = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
    let place = |depth: usize| Path::from(vec!["a".to_owned(); depth]);
    apply(&mut value, &[Edit::Set { path: place(1), value: inner.clone() }]).unwrap();
    apply(&mut value, &[Edit::Set { path: place(102), value: inner.clone() }]).unwrap();
    let refusal = apply(&mut value, &[Edit::Set { path: place(203), value: inner }]).unwrap_err();
    assert!(refusal.to_string().contains(&format!("deeper than {MAX_NESTING} levels")));
}

#[test]
fn edits_are_read_with_their_defaults() {
    let body = json!([
        {"op": "set", "path": "/a", "value": null},
        {"op": "remove", "path": "/a~1b"},
        {"op": "insert", "path": "/l/-", "value": {"x": [1]}},
        {"op": "increment", "path": "/n"},
        {"op": "increment", "path": "/n", "by": -9_007_199_254_740_991_i64},
        {"op": "splice", "path": "/t", "at": 0},
        {"op": "splice", "path": "/t", "at": 1, "delete": 2, "insert": "x"},
    ]);
    let expected = [
        set("/a", json!(null)),
        remove("/a~1b"),
        insert("/l/-", json!({"x": [1]})),
        increment("/n", 1),
        increment("/n", -MAX_INTEGER),
        splice("/t", 0, 0, ""),
        splice("/t", 1, 2, "x"),
    ];
    assert_eq!(parse_edits(&body).unwrap(), expected);
    assert_eq!(parse_edits(&json!([])).unwrap(), []);
}

#[test]
fn an_edit_that_cannot_be_read_is_named_with_the_cure() {
    check_malformed(json!({"op": "set"}), "the body is an object: send a list of edits");
    check_malformed(
        json!([{"op": "remove", "path": "/a"}, 7]),
        "edit 1 is a number, not an object",
    );
    check_malformed(json!([{"path": "/a"}]), "edit 0: 'op' is missing");
    check_malformed(json!([{"op": 1, "path": "/a"}]), "edit 0: 'op' is a number, not a string");
    check_malformed(
        json!([{"op": "incr", "path": "/a"}]),
        "edit 0: 'incr' is no op: write set, remove",
    );
    check_malformed(json!([{"op": "set", "value": 1}]), "edit 0: 'path' is missing");
    check_malformed(json!([{"op": "set", "path": "a", "value": 1}]), "'a' is no JSON pointer");
    check_malformed(json!([{"op": "set", "path": ["a"], "value": 1}]), "'path' is a list");
    check_malformed(json!([{"op": "set", "path": "", "value": {}}]), "PUT replaces it whole");
    check_malformed(json!([{"op": "set", "path": "/a"}]), "'value' is missing");
    check_malformed(
        json!([{"op": "remove", "path": "/a", "value": 1}]),
        "'value' is no member of 'remove', which has op, path",
    );
    for by in [json!(1.5), json!("1"), json!(null), json!(1_i64 << 53), json!(i64::MIN)] {
        check_malformed(json!([{"op": "increment", "path": "/n", "by": by}]), "'by' is no integer");
    }
    for at in [json!(-1), json!(0.5), json!("0"), json!(null)] {
        check_malformed(json!([{"op": "splice", "path": "/t", "at": at}]), "'at' is no number");
    }
    check_malformed(json!([{"op": "splice", "path": "/t"}]), "'at' is missing");
    check_malformed(
        json!([{"op": "splice", "path": "/t", "at": 0, "delete": -1}]),
        "'delete' is no",
    );
    check_malformed(
        json!([{"op": "splice", "path": "/t", "at": 0, "insert": 1}]),
        "'insert' is a number",
    );
}

#[test]
fn a_request_has_at_most_so_many_edits() {
    let edit = json!({"op": "remove", "path": "/a"});
    assert_eq!(parse_edits(&Value::from(vec![edit.clone(); MAX_EDITS])).unwrap().len(), MAX_EDITS);
    check_malformed(Value::from(vec![edit; MAX_EDITS + 1]), "has 10001 edits, at most 10000");
}

/// Bodies that look like edits and operations, right and wrong.
pub(super) fn request() -> impl Strategy<Value = Value> {
    let op = "set|remove|insert|increment|splice|add|replace|move|copy|test|x";
    let pointer = "(/([abc]|[0-3]|-)){0,3}|[ab~/]{1,3}";
    let members =
        (op, pointer, prop::option::of(pointer), arbitrary::value(), vec(arbitrary::scalar(), 3));
    let edit = members.prop_map(|(op, path, from, value, numbers)| {
        let mut edit = json!({"op": op, "path": path, "value": value});
        if let Some(from) = from {
            edit["from"] = json!(from);
        }
        for (name, number) in ["by", "at", "delete"].into_iter().zip(numbers) {
            if !number.is_null() {
                edit[name] = number;
            }
        }
        edit
    });
    vec(prop_oneof![8 => edit, 1 => arbitrary::value()], 0..6).prop_map(Value::Array)
}

fn list_pair() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    let list = || vec((0..4).prop_map(Value::from), 0..12);
    (list(), list())
}

/// The edit distance, by the book.
fn distance(old: &[Value], new: &[Value]) -> usize {
    let mut row: Vec<usize> = (0..=new.len()).collect();
    for old in old {
        let mut diagonal = row[0];
        row[0] += 1;
        for (column, new) in new.iter().enumerate() {
            let changed = diagonal + usize::from(old != new);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[new.len()]
}

proptest! {
    #[test]
    fn a_difference_leads_from_the_old_to_the_new(
        old in arbitrary::object(), new in arbitrary::object(),
    ) {
        let edits = difference(&old, &new);
        prop_assert!(same(&applied(&old, &edits), &new));
        prop_assert_eq!(edits.is_empty(), same(&old, &new));
        prop_assert_eq!(difference(&new, &new), []);
    }

    #[test]
    fn a_difference_of_lists_has_as_many_edits_as_they_are_apart((old, new) in list_pair()) {
        let (before, after) = (json!({"l": old}), json!({"l": new}));
        let edits = difference(&before, &after);
        prop_assert_eq!(applied(&before, &edits), after);
        prop_assert_eq!(edits.len(), distance(&old, &new));
    }

    #[test]
    fn lists_of_any_elements_become_one_another(
        old in vec(arbitrary::value(), 0..8), new in vec(arbitrary::value(), 0..8),
    ) {
        let (before, after) = (json!({"l": old}), json!({"l": new}));
        let edits = difference(&before, &after);
        prop_assert!(same(&applied(&before, &edits), &after));
    }

    #[test]
    fn one_changed_leaf_is_one_edit(old in arbitrary::object(), value in arbitrary::scalar()) {
        let mut new = old.clone();
        new["changed"] = value;
        let mut other = new.clone();
        other["changed"] = json!(["something else"]);
        prop_assert_eq!(difference(&new, &other).len(), 1);
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in arbitrary::value(), document in arbitrary::object()) {
        let _ = parse_edits(&body);
        let _ = json_patch(&document, &body);
        let _ = merge_patch(&body, &document);
        let _ = merge_patch(&document, &body);
        let _ = difference(&body, &document);
    }

    #[test]
    fn requests_are_refused_or_applied(body in request(), document in arbitrary::object()) {
        if let Ok(edits) = parse_edits(&body) {
            prop_assert_eq!(edits.len(), body.as_array().unwrap().len());
            let _ = apply(&mut document.clone(), &edits);
        }
    }

    #[test]
    fn paths_come_back(tokens in vec(any::<String>(), 0..5), text in "[/~01ab]{0,8}") {
        let path = Path::from(tokens);
        prop_assert_eq!(path.to_string().parse::<Path>(), Ok(path));
        if let Ok(path) = text.parse::<Path>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn a_splice_agrees_with_lists_of_characters(
        text in "[aé😀]{0,6}", at in 0_usize..8, delete in 0_usize..8, insert in "[xñ]{0,3}",
    ) {
        let mut value = json!({"t": text});
        let done = apply(&mut value, &[splice("/t", at, delete, &insert)]);
        let mut characters: Vec<_> = text.chars().collect();
        prop_assert_eq!(done.is_ok(), at + delete <= characters.len());
        if done.is_ok() {
            characters.splice(at..at + delete, insert.chars());
            prop_assert_eq!(&value["t"], &json!(characters.into_iter().collect::<String>()));
        }
    }
}
