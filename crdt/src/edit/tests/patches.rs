//! The two standard patch formats: their own examples, and independent models of both.

use super::*;

fn check_merge(original: Value, patch: Value, result: Value) {
    let (before, patch) = (json!({"x": original}), json!({"x": patch}));
    let expected = if result.is_null() { json!({}) } else { json!({"x": result}) };
    assert_eq!(applied(&before, &merge_patch(&before, &patch).unwrap()), expected);
}

/// The appendix has patches and targets that are no objects; one level down, all of them fit.
#[test]
fn the_appendix_of_rfc_7396_holds() {
    check_merge(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
    check_merge(json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"}));
    check_merge(json!({"a": "b"}), json!({"a": null}), json!({}));
    check_merge(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
    check_merge(json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"}));
    check_merge(json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]}));
    check_merge(
        json!({"a": {"b": "c"}}),
        json!({"a": {"b": "d", "c": null}}),
        json!({"a": {"b": "d"}}),
    );
    check_merge(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
    check_merge(json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"]));
    check_merge(json!({"a": "b"}), json!(["c"]), json!(["c"]));
    check_merge(json!({"a": "foo"}), json!(null), json!(null));
    check_merge(json!({"a": "foo"}), json!("bar"), json!("bar"));
    check_merge(json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1}));
    check_merge(json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"}));
    check_merge(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
}

#[test]
fn the_example_of_rfc_7396_holds_with_the_fewest_edits() {
    let document = json!({
        "title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"], "content": "This will be unchanged",
    });
    let patch = json!({
        "title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null},
        "tags": ["example"], "content": "This will be unchanged", "absent": null,
    });
    let edits = merge_patch(&document, &patch).unwrap();
    let expected = [
        remove("/author/familyName"),
        set("/phoneNumber", json!("+01-123-456-7890")),
        remove("/tags/1"),
        set("/title", json!("Hello!")),
    ];
    assert_eq!(edits, expected);
}

#[test]
fn a_merge_patch_is_an_object() {
    for patch in [json!([]), json!(null), json!("x")] {
        let refusal = merge_patch(&json!({}), &patch).unwrap_err();
        assert!(matches!(&refusal, EditError::Malformed(m) if m.starts_with("the merge patch is")));
    }
    assert_eq!(
        merge_patch(&Value::Null, &json!({"a": {"b": null}})).unwrap(),
        [set("/a", json!({}))]
    );
    let nulls_in_lists = json!({"a": [null, {"b": null}]});
    assert_eq!(
        merge_patch(&json!({}), &nulls_in_lists).unwrap(),
        [set("/a", json!([null, {"b": null}]))]
    );
}

fn check_patch(document: Value, patch: Value, expected: Value) {
    let edits = json_patch(&document, &patch).unwrap_or_else(|error| panic!("{patch}: {error}"));
    assert_eq!(applied(&document, &edits), expected, "{document} {patch}");
}

fn check_patch_unfit(document: Value, patch: Value, words: &str) {
    match json_patch(&document, &patch) {
        Err(EditError::Unfit(reason)) => assert!(reason.contains(words), "{patch}: {reason}"),
        other => panic!("{words}: {:?}", other.map(|edits| edits.len())),
    }
}

fn check_patch_malformed(patch: Value, words: &str) {
    match json_patch(&json!({}), &patch) {
        Err(EditError::Malformed(reason)) => assert!(reason.contains(words), "{patch}: {reason}"),
        other => panic!("{patch}: {other:?}"),
    }
}

fn check_test_failed(document: Value, patch: Value, words: &str) {
    let refusal = json_patch(&document, &patch).unwrap_err();
    assert!(matches!(refusal, EditError::TestFailed(_)), "{refusal:?}");
    assert_eq!(refusal.to_string(), words);
}

/// A.1 to A.7, A.10, A.11, A.14 and A.16.
#[test]
fn the_appendix_of_rfc_6902_holds() {
    check_patch(
        json!({"foo": "bar"}),
        json!([{"op": "add", "path": "/baz", "value": "qux"}]),
        json!({"baz": "qux", "foo": "bar"}),
    );
    check_patch(
        json!({"foo": ["bar", "baz"]}),
        json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
        json!({"foo": ["bar", "qux", "baz"]}),
    );
    check_patch(
        json!({"baz": "qux", "foo": "bar"}),
        json!([{"op": "remove", "path": "/baz"}]),
        json!({"foo": "bar"}),
    );
    check_patch(
        json!({"foo": ["bar", "qux", "baz"]}),
        json!([{"op": "remove", "path": "/foo/1"}]),
        json!({"foo": ["bar", "baz"]}),
    );
    check_patch(
        json!({"baz": "qux", "foo": "bar"}),
        json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
        json!({"baz": "boo", "foo": "bar"}),
    );
    check_patch(
        json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
        json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
        json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
    );
    check_patch(
        json!({"foo": ["all", "grass", "cows", "eat"]}),
        json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
        json!({"foo": ["all", "cows", "eat", "grass"]}),
    );
    check_patch(
        json!({"foo": "bar"}),
        json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
        json!({"foo": "bar", "child": {"grandchild": {}}}),
    );
    check_patch(
        json!({"foo": "bar"}),
        json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
        json!({"foo": "bar", "baz": "qux"}),
    );
    check_patch(
        json!({"/": 9, "~1": 10}),
        json!([{"op": "test", "path": "/~01", "value": 10}]),
        json!({"/": 9, "~1": 10}),
    );
    check_patch(
        json!({"foo": ["bar"]}),
        json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
        json!({"foo": ["bar", ["abc", "def"]]}),
    );
}

/// A.8, A.9, A.12 and A.15; A.13 writes a key twice, which no body here may.
#[test]
fn the_errors_of_the_appendix_of_rfc_6902_hold() {
    let document = json!({"baz": "qux", "foo": ["a", 2, "c"]});
    check_patch(
        document.clone(),
        json!([
            {"op": "test", "path": "/baz", "value": "qux"},
            {"op": "test", "path": "/foo/1", "value": 2},
        ]),
        document,
    );
    check_test_failed(
        json!({"baz": "qux"}),
        json!([{"op": "test", "path": "/baz", "value": "bar"}]),
        "test failed at '/baz' (operation 0): another value is there",
    );
    check_patch_unfit(
        json!({"foo": "bar"}),
        json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]),
        "operation 0: '/baz/bat' cannot be: '/baz' does not exist",
    );
    check_test_failed(
        json!({"/": 9, "~1": 10}),
        json!([{"op": "test", "path": "/~01", "value": "10"}]),
        "test failed at '/~01' (operation 0): another value is there",
    );
}

#[test]
fn operations_see_what_went_before() {
    check_patch(
        json!({"l": [1]}),
        json!([
            {"op": "add", "path": "/a", "value": {}},
            {"op": "copy", "from": "/l", "path": "/a/l"},
            {"op": "add", "path": "/a/l/0", "value": 0},
            {"op": "test", "path": "/a/l", "value": [0, 1.0]},
            {"op": "move", "from": "/a/l", "path": "/m"},
            {"op": "replace", "path": "/m/1", "value": "x"},
            {"op": "add", "path": "/a", "value": 7},
        ]),
        json!({"l": [1], "a": 7, "m": [0, "x"]}),
    );
    check_test_failed(
        json!({"a": 1}),
        json!([{"op": "remove", "path": "/a"}, {"op": "test", "path": "/a", "value": 1}]),
        "test failed at '/a' (operation 1): nothing is there",
    );
}

#[test]
fn the_whole_document_is_replaced_by_its_difference() {
    let document = json!({"keep": 1, "gone": 2, "o": {"a": 1}});
    for op in ["add", "replace"] {
        let patch = json!([{"op": op, "path": "", "value": {"keep": 1, "o": {"a": 2}}}]);
        let edits = json_patch(&document, &patch).unwrap();
        assert_eq!(edits, [remove("/gone"), set("/o/a", json!(2))]);
        let patch = json!([{"op": op, "path": "", "value": [1]}]);
        check_patch_unfit(
            document.clone(),
            patch,
            "operation 0: the whole document cannot become a list",
        );
    }
    check_patch(
        document.clone(),
        json!([{"op": "move", "from": "/o", "path": ""}]),
        json!({"a": 1}),
    );
    check_patch(
        document.clone(),
        json!([{"op": "copy", "from": "", "path": ""}]),
        document.clone(),
    );
    check_patch(
        document.clone(),
        json!([{"op": "test", "path": "", "value": document.clone()}]),
        document.clone(),
    );
    check_patch_unfit(document, json!([{"op": "remove", "path": ""}]), "send DELETE");
}

#[test]
fn operations_that_do_not_fit_say_why() {
    let document = || json!({"a": {"b": [1, 2]}, "ab": 1});
    let unfit =
        |operation: Value, words: &str| check_patch_unfit(document(), json!([operation]), words);
    unfit(json!({"op": "remove", "path": "/x"}), "operation 0: '/x' does not exist");
    unfit(json!({"op": "replace", "path": "/x", "value": 1}), "'/x' does not exist");
    unfit(json!({"op": "replace", "path": "/a/b/2", "value": 1}), "'/a/b/2' does not exist");
    unfit(json!({"op": "add", "path": "/a/b/3", "value": 1}), "past the end of the list");
    unfit(json!({"op": "add", "path": "/a/b/01", "value": 1}), "does not end in an index");
    unfit(json!({"op": "add", "path": "/ab/c", "value": 1}), "'/ab' is a number");
    unfit(json!({"op": "copy", "from": "/x", "path": "/y"}), "'/x' does not exist");
    unfit(json!({"op": "copy", "from": "/a/b/-", "path": "/y"}), "'/a/b/-' does not exist");
    unfit(json!({"op": "move", "from": "/x", "path": "/x"}), "'/x' does not exist");
    unfit(json!({"op": "move", "from": "/a", "path": "/a/b/0"}), "'/a' cannot move into itself");
    unfit(json!({"op": "move", "from": "", "path": "/c"}), "'' cannot move into itself");
    check_patch(document(), json!([{"op": "move", "from": "/a", "path": "/a"}]), document());
    check_patch(
        document(),
        json!([{"op": "copy", "from": "/a", "path": "/a/c"}]),
        json!({"a": {"b": [1, 2], "c": {"b": [1, 2]}}, "ab": 1}),
    );
    check_patch(
        json!({"a": 1}),
        json!([{"op": "move", "from": "/a", "path": "/ab"}]),
        json!({"ab": 1}),
    );
}

#[test]
fn operations_that_cannot_be_read_say_why() {
    check_patch_malformed(json!({"op": "add"}), "the body is an object: send a list of operations");
    check_patch_malformed(json!(["add"]), "operation 0 is a string, not an object");
    check_patch_malformed(json!([{"path": "/a"}]), "operation 0: 'op' is missing");
    check_patch_malformed(json!([{"op": "add", "value": 1}]), "operation 0: 'path' is missing");
    check_patch_malformed(json!([{"op": "add", "path": "/a"}]), "operation 0: 'value' is missing");
    check_patch_malformed(json!([{"op": "test", "path": ""}]), "operation 0: 'value' is missing");
    check_patch_malformed(json!([{"op": "move", "path": "/a"}]), "operation 0: 'from' is missing");
    check_patch_malformed(json!([{"op": "copy", "path": "/a", "from": 1}]), "'from' is a number");
    check_patch_malformed(json!([{"op": "remove", "path": "a"}]), "'a' is no JSON pointer");
    check_patch_malformed(
        json!([{"op": "test", "path": "", "value": {}}, {"op": "incr", "path": "/a"}]),
        "operation 1: 'incr' is no op",
    );
    let operation = json!({"op": "test", "path": "", "value": {}});
    check_patch_malformed(Value::from(vec![operation; MAX_EDITS + 1]), "has 10001 operations");
}

#[test]
fn copies_of_copies_do_not_grow_without_end() {
    let wide: Vec<_> =
        (0..50).map(|_| json!({"op": "copy", "from": "/l", "path": "/l/-"})).collect();
    let document = json!({"l": ["x".repeat(100_000)]});
    check_patch_unfit(document, json!(wide), "copies and moves more than");
    let deep: Vec<_> =
        (0..300).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/a"})).collect();
    check_patch_unfit(json!({"a": {}}), json!(deep), "deeper than 256 levels");
    let moves: Vec<_> = (0..1000)
        .map(|turn| (format!("/{turn}"), format!("/{}", turn + 1)))
        .map(|(from, path)| json!({"op": "move", "from": from, "path": path}))
        .collect();
    check_patch_unfit(
        json!({"0": "x".repeat(1_000_000)}),
        json!(moves),
        "copies and moves more than",
    );
}

/// RFC 7396, section 2, word for word.
fn merge_model(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let before = target.remove(name).unwrap_or(Value::Null);
            target.insert(name.clone(), merge_model(before, value));
        }
    }
    Value::Object(target)
}

/// RFC 6902, section 4, with nothing but serde_json's pointers; `None` for any error.
fn patch_model(mut document: Value, patch: &Value) -> Option<Value> {
    for operation in patch.as_array()? {
        let member = |name: &str| operation.get(name)?.as_str();
        let path = member("path")?;
        match member("op")? {
            "add" => add_model(&mut document, path, operation.get("value")?.clone())?,
            "remove" => drop(remove_model(&mut document, path)?),
            "replace" => *document.pointer_mut(path)? = operation.get("value")?.clone(),
            "move" if path.starts_with(&format!("{}/", member("from")?)) => return None,
            "move" if path == member("from")? => drop(document.pointer(path)?),
            "move" if path.is_empty() => document = document.pointer(member("from")?)?.clone(),
            "move" => {
                let value = remove_model(&mut document, member("from")?)?;
                add_model(&mut document, path, value)?;
            }
            "copy" => {
                let value = document.pointer(member("from")?)?.clone();
                add_model(&mut document, path, value)?;
            }
            "test" if same(document.pointer(path)?, operation.get("value")?) => {}
            _ => return None,
        }
        document.as_object()?;
    }
    Some(document)
}

fn split(path: &str) -> Option<(&str, String)> {
    let (around, token) = path.rsplit_once('/')?;
    Some((around, token.replace("~1", "/").replace("~0", "~")))
}

fn add_model(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = value;
        return Some(());
    }
    let (around, token) = split(path)?;
    match document.pointer_mut(around)? {
        Value::Object(members) => drop(members.insert(token, value)),
        Value::Array(items) => {
            let index = if token == "-" { items.len() } else { token.parse().ok()? };
            (index <= items.len()).then(|| items.insert(index, value))?;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

fn remove_model(document: &mut Value, path: &str) -> Option<Value> {
    let (around, token) = split(path)?;
    match document.pointer_mut(around)? {
        Value::Object(members) => members.remove(&token),
        Value::Array(items) => {
            let index = token.parse().ok().filter(|&index: &usize| index < items.len())?;
            Some(items.remove(index))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Patches that often fit documents of [`small_document`].
fn operations() -> impl Strategy<Value = Value> {
    let pointer = || "/l/[0-3-]|/[abl]|/[ab]/[abl]|";
    let operation = ("add|add|remove|replace|move|copy|test", pointer(), pointer(), small_value())
        .prop_map(
            |(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}),
        );
    vec(operation, 1..5).prop_map(Value::Array)
}

fn small_value() -> impl Strategy<Value = Value> {
    let object = vec(("[abl]", 0..2), 0..3)
        .prop_map(|pairs| pairs.into_iter().map(|(key, number)| (key, json!(number))).collect());
    prop_oneof![(0..2).prop_map(Value::from), vec(0..2, 0..3).prop_map(|list| json!(list)), object,]
}

fn small_document() -> impl Strategy<Value = Value> {
    (small_value(), small_value(), vec(small_value(), 0..4))
        .prop_map(|(a, b, l)| json!({"a": a, "b": b, "l": l}))
}

proptest! {
    #[test]
    fn merge_patches_agree_with_the_pseudocode(
        document in arbitrary::object(), patch in arbitrary::object(),
    ) {
        let edits = merge_patch(&document, &patch).unwrap();
        let expected = merge_model(document.clone(), &patch);
        prop_assert!(same(&applied(&document, &edits), &expected));
        prop_assert_eq!(edits.is_empty(), same(&document, &expected));
    }

    #[test]
    fn json_patches_agree_with_the_model(document in small_document(), patch in operations()) {
        let expected = patch_model(document.clone(), &patch);
        match json_patch(&document, &patch) {
            Ok(edits) => prop_assert_eq!(Some(applied(&document, &edits)), expected),
            Err(error) => prop_assert_eq!(None, expected, "{}", error),
        }
    }

    #[test]
    fn json_patches_of_any_shape_are_refused_or_applied(
        document in arbitrary::object(), patch in request(),
    ) {
        if let Ok(edits) = json_patch(&document, &patch) {
            applied(&document, &edits);
        }
    }
}
