use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(base: Value, sides: [Value; 2], expected: Result<Value, &str>) {
    let [one, other] = &sides;
    for sides in [[one, other], [other, one]] {
        let merged = merge(Some(&base), &sides).map_err(|error| error.to_string());
        assert_eq!(merged, expected.clone().map_err(str::to_owned), "{base} {sides:?}");
    }
}

fn words(text: &str) -> Value {
    json!(text)
}

#[test]
fn objects_merge_key_by_key() {
    check(
        json!({"a": 1, "b": 1, "gone": 1, "in": {"x": 1, "y": 1}}),
        [
            json!({"a": 2, "b": 1, "gone": 1, "in": {"x": 2, "y": 1}, "new": [1]}),
            json!({"a": 1, "b": 1, "in": {"x": 1}, "new": [1]}),
        ],
        Ok(json!({"a": 2, "b": 1, "in": {"x": 2}, "new": [1]})),
    );
}

#[test]
fn texts_merge_by_their_edits() {
    check(
        words("the cat sat on the mat"),
        [words("the black cat sat on the mat"), words("the cat sat on the red mat")],
        Ok(words("the black cat sat on the red mat")),
    );
    check(
        json!({"t": "one two three"}),
        [json!({"t": "two three"}), json!({"t": "one two three four"})],
        Ok(json!({"t": "two three four"})),
    );
}

#[test]
fn what_cannot_be_merged_is_named() {
    let different = |what: &str| {
        format!("at '/a' the sides have different values, and {what} cannot be merged")
    };
    for (one, other, what) in [
        (json!(2), json!(3), "numbers"),
        (json!([1]), json!([2]), "lists"),
        (json!(true), json!("x"), "values of different types"),
        (json!("x"), json!("y"), "texts that were not made from one"),
    ] {
        let sides = [json!({"a": one}), json!({"a": other})];
        check(json!({}), sides, Err(&different(what)));
    }
    let removed = "one side removed '/a/b~1c' and another one changed it";
    let base = json!({"a": {"b/c": 1}});
    check(base, [json!({"a": {"b/c": 2}}), json!({"a": {}})], Err(removed));
}

#[test]
fn without_a_base_objects_unite_and_texts_must_be_equal() {
    let (one, other) = (json!({"a": 1, "t": "x"}), json!({"b": 2, "t": "x"}));
    assert_eq!(merge(None, &[&one, &other]), Ok(json!({"a": 1, "b": 2, "t": "x"})));
    assert_eq!(merge(None, &[&json!("x"), &json!("x")]), Ok(json!("x")));
    assert!(merge(None, &[&json!("x"), &json!("y")]).is_err());
    assert_eq!(merge(None, &[]), Err(MergeError::Nothing));
}

#[test]
fn three_sides_merge_at_once() {
    let base = words("a b c d");
    let sides = ["x a b c d", "a b y c d", "a b c d z"].map(words);
    let [one, two, three] = &sides;
    let expected = Ok(words("x a b y c d z"));
    assert_eq!(merge(Some(&base), &[one, two, three]), expected);
    assert_eq!(merge(Some(&base), &[three, one, two]), expected);
}

/// Texts that would take seconds are refused; long ones with few changes are not.
#[test]
fn work_is_bounded() {
    let mixed = |seed: u64, length: usize| -> Value {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(char::from(b'a' + u8::try_from((*state >> 59) % 26).unwrap()))
        };
        let mut state = seed;
        Value::String(std::iter::from_fn(|| next(&mut state)).take(length).collect())
    };
    let (base, one, other) = (mixed(1, 400_000), mixed(2, 400_000), mixed(3, 400_000));
    let refused = merge(Some(&base), &[&one, &other]);
    assert_eq!(refused, Err(MergeError::TooDifferent(Path::default())));
    let long = "lorem ipsum ".repeat(340_000);
    let edited = |at: usize, word: &str| {
        let mut text = long.clone();
        text.insert_str(at, word);
        Value::String(text)
    };
    let (one, other) = (edited(12, "dolor "), edited(1_200, "amet "));
    let merged = merge(Some(&Value::String(long.clone())), &[&one, &other]).unwrap();
    assert_eq!(merged.as_str().unwrap().len(), long.len() + "dolor amet ".len());
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..3).prop_map(Value::from),
        "[ab ]{0,6}".prop_map(Value::from),
        Just(Value::Null),
        Just(json!([1])),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        btree_map("[abc]", inner, 0..3).prop_map(|map| map.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn the_order_of_sides_does_not_matter(
        base in proptest::option::of(value()), one in value(), two in value(), three in value(),
    ) {
        let base = base.as_ref();
        let merged = merge(base, &[&one, &two, &three]).ok();
        for sides in [[&two, &one, &three], [&three, &two, &one], [&two, &three, &one]] {
            prop_assert_eq!(&merge(base, &sides).ok(), &merged);
        }
    }

    #[test]
    fn sides_that_agree_merge_to_what_they_are(base in value(), side in value()) {
        prop_assert_eq!(merge(Some(&base), &[&side, &side]), Ok(side.clone()));
        prop_assert_eq!(merge(Some(&base), &[&base, &side]), Ok(side.clone()));
        prop_assert_eq!(merge(None, &[&side, &side]), Ok(side.clone()));
        prop_assert_eq!(merge(Some(&base), &[]), Ok(base));
    }

    #[test]
    fn no_word_is_lost(
        text in vec("[a-f]{1,4}", 1..12),
        mine in vec((0usize..12, "[0-4]{1,3}"), 1..4),
        yours in vec((0usize..12, "[5-9]{1,3}"), 1..4),
    ) {
        let with = |inserted: &[(usize, String)]| {
            let mut text = text.clone();
            for (at, word) in inserted {
                text.insert((*at).min(text.len()), word.clone());
            }
            Value::String(text.join(" "))
        };
        let base = Value::String(text.join(" "));
        let merged = merge(Some(&base), &[&with(&mine), &with(&yours)]).unwrap();
        let merged = merged.as_str().unwrap();
        for (_, word) in mine.iter().chain(&yours) {
            prop_assert!(merged.contains(word.as_str()), "{} is not in {}", word, merged);
        }
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
        prop_assert_eq!(letters(merged), letters(base.as_str().unwrap()));
    }

    #[test]
    fn the_work_is_told_from_the_difference(one in "[ab]{0,20}", other in "[ab]{0,20}") {
        let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
        let mut steps = 10_000;
        prop_assert!(within(&one, &other, &mut steps));
        prop_assert!(one == other || !within(&one, &other, &mut 0));
    }
}
