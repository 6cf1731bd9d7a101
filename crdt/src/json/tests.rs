use proptest::prelude::*;
use serde_json::json;

use super::*;

const LIMIT: usize = 128;

fn read(body: &str) -> Value {
    parse(body.as_bytes(), LIMIT).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn refusal(body: &str) -> JsonError {
    parse(body.as_bytes(), LIMIT).expect_err(body)
}

fn check_syntax(body: &str, words: &str) {
    match refusal(body) {
        JsonError::Syntax(message) => assert!(message.contains(words), "{body}: {message}"),
        other @ (JsonError::TooDeep { .. } | JsonError::NotRepresentable(_)) => {
            panic!("{body}: {other:?}")
        }
    }
}

fn check_bent(body: &str, words: &str) {
    match refusal(body) {
        JsonError::NotRepresentable(message) => {
            assert!(message.contains(words), "{body}: {message}");
        }
        other @ (JsonError::Syntax(_) | JsonError::TooDeep { .. }) => panic!("{body}: {other:?}"),
    }
}

fn check_canonical(body: &str, expected: &str) {
    assert_eq!(String::from_utf8(canonical(&read(body))).unwrap(), expected, "{body}");
}

fn lists(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

fn objects(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[test]
fn syntax_errors_say_where() {
    check_syntax("", "line 1 column 0");
    check_syntax("{\n  \"a\": 1,\n}", "line 3 column 1");
    check_syntax("{\"a\":1} x", "trailing characters at line 1 column 9");
    check_syntax("[1,]", "trailing comma");
    check_syntax("{'a':1}", "line 1 column 2");
    check_syntax("[01]", "invalid number");
    check_syntax("[-]", "invalid number");
    check_syntax("[+1]", "line 1 column 2");
    check_syntax("[NaN]", "line 1 column 2");
    check_syntax("\"a\nb\"", "control character");
    check_syntax("\u{feff}{}", "line 1 column 1");
}

#[test]
fn text_that_is_no_unicode_is_refused() {
    check_syntax(r#""\ud800""#, "line 1");
    check_syntax(r#""\udc00""#, "surrogate");
    check_syntax(r#""\ud800\u0041""#, "surrogate");
    assert_eq!(read(r#""\ud83d\ude00\u0000""#), json!("\u{1f600}\0"));
    assert!(matches!(parse(b"\"\xff\"", LIMIT), Err(JsonError::Syntax(_))));
    assert!(matches!(parse(b"\xff", LIMIT), Err(JsonError::Syntax(_))));
}

#[test]
fn a_key_that_is_written_twice_is_refused_by_name() {
    check_bent(r#"{"a":1,"b":{"c":1,"c":2}}"#, "the key 'c' is written twice at line 1 column 21");
    check_bent(r#"{"a":1,"\u0061":1}"#, "the key 'a' is written twice");
    assert_eq!(read(r#"[{"a":1},{"a":2}]"#), json!([{"a": 1}, {"a": 2}]));
}

#[test]
fn nesting_is_taken_up_to_the_limit_exactly() {
    for limit in [1, 127, 128, 129, MAX_NESTING] {
        for body in [lists, objects] {
            let value = parse(body(limit).as_bytes(), limit).unwrap();
            assert_eq!(nesting(&value), limit);
            assert_eq!(check(&value, limit), Ok(()));
            assert_eq!(check(&value, limit - 1), Err(JsonError::TooDeep { limit: limit - 1 }));
            let deeper = parse(body(limit + 1).as_bytes(), limit);
            assert_eq!(deeper, Err(JsonError::TooDeep { limit }));
        }
    }
    assert_eq!(parse(b"[]", 0), Err(JsonError::TooDeep { limit: 0 }));
    assert_eq!(parse(b"1", 0), Ok(json!(1)));
}

#[test]
fn a_deep_body_never_reaches_the_stack() {
    let too_deep = Err(JsonError::TooDeep { limit: LIMIT });
    assert_eq!(parse("[".repeat(1_000_000).as_bytes(), LIMIT), too_deep);
    assert_eq!(parse(r#"{"a":["#.repeat(500_000).as_bytes(), LIMIT), too_deep);
    let no_limit = parse("[".repeat(1_000_000).as_bytes(), usize::MAX);
    assert_eq!(no_limit, Err(JsonError::TooDeep { limit: MAX_NESTING }));
}

#[test]
fn brackets_in_strings_are_no_nesting() {
    let text = "[{\\\"".repeat(1000);
    assert!(read(&format!("{{\"{text}\":\"{text}\\\\\"}}")).is_object());
    assert!(read(&format!("[{}[]]", "[],{},".repeat(1000))).is_array());
}

#[test]
fn integers_are_exact_or_refused() {
    assert_eq!(read("9007199254740991"), json!(9_007_199_254_740_991_i64));
    assert_eq!(read("-9007199254740991"), json!(-9_007_199_254_740_991_i64));
    for body in [
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551616",
        "123456789012345678901234567890",
    ] {
        check_bent(body, body);
        check_bent(&format!("{{\"a\":[{body}]}}"), "send it as a string at line 1 column 7");
    }
    assert_eq!(read("\"9007199254740992\""), json!("9007199254740992"));
    assert!(refusal(&"9".repeat(100_000)).to_string().len() < 200);
}

#[test]
fn floats_are_doubles_and_integral_ones_are_integers() {
    for body in ["1", "1.0", "1e0", "10e-1", "1.000"] {
        assert_eq!(integer(&read(body)), Some(1), "{body}");
        assert!(read(body).is_i64() || read(body).is_u64(), "{body}");
    }
    assert_eq!(read("1e3"), json!(1000));
    assert_eq!(read("0.1"), json!(0.1));
    assert_eq!(read("1e-400"), json!(0));
    for body in ["-0", "-0.0", "-0e5"] {
        let zero = read(body).as_f64().unwrap();
        assert!(read(body).is_f64() && zero == 0.0 && zero.is_sign_negative(), "{body}");
    }
    assert!(read("1e16").is_f64());
    check_bent("[1e400]", "1e400 is too great for a number: send it as a string");
    check_bent("-1E+999", "too great");
    check_bent(&format!("{}.5", "9".repeat(400)), "too great");
}

#[test]
fn the_first_fault_of_a_body_is_the_one_that_is_named() {
    check_syntax("[tru, 9007199254740992]", "line 1 column 5");
    check_syntax("<html>123456789012345678901234567890", "line 1 column 1");
    check_bent("[9007199254740992, tru]", "column 2");
}

#[test]
fn canonical_text_is_fixed() {
    check_canonical(r#" { "b" : 1.0, "a" : [ ] , "" : { } } "#, r#"{"":{},"a":[],"b":1}"#);
    check_canonical(r#"{"\uff61":1,"\ud83d\ude00":2,"z":3}"#, "{\"z\":3,\"｡\":1,\"😀\":2}");
    check_canonical(r#""\u00e9\u0007\n\/\"\\""#, "\"é\\u0007\\n/\\\"\\\\\"");
    check_canonical("[1e2,-0.0,0.10,1e21,1.5e300,-1e16]", "[100,-0.0,0.1,1e21,1.5e300,-1e16]");
    check_canonical("[9007199254740994.0,-1.5E-5,9e-6]", "[9007199254740994.0,-0.000015,9e-6]");
    check_canonical("[5e-324,1.7976931348623157e308]", "[5e-324,1.7976931348623157e308]");
    check_canonical("[null,true,false]", "[null,true,false]");
}

#[test]
fn a_value_that_was_built_is_checked_like_one_that_was_read() {
    assert_eq!(check(&json!({"a": [1, 1.5, "x", null, 1e20, 2.0]}), LIMIT), Ok(()));
    for number in [json!(1_i64 << 53), json!(-(1_i64 << 53)), json!(u64::MAX)] {
        let refused = check(&json!({"a": [number]}), LIMIT).unwrap_err();
        assert!(refused.to_string().contains(&number.to_string()), "{refused}");
        assert!(matches!(refused, JsonError::NotRepresentable(_)));
    }
}

#[test]
fn nesting_of_a_very_deep_value_is_counted_without_recursion() {
    let mut value = Value::Null;
    for _ in 0..100_000 {
        value = Value::Array(vec![value]);
    }
    assert_eq!(nesting(&value), 100_000);
    assert_eq!(check(&value, usize::MAX), Err(JsonError::TooDeep { limit: MAX_NESTING }));
    // Dropping it level by level, because dropping it whole would overflow the stack.
    while let Some(inner) = value.as_array_mut().and_then(Vec::pop) {
        value = inner;
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in arbitrary::value()) {
        let bytes = canonical(&value);
        let read = parse(&bytes, LIMIT).unwrap();
        prop_assert!(same(&read, &value), "{read} is not {value}");
        prop_assert_eq!(canonical(&read), bytes);
        prop_assert_eq!(check(&read, nesting(&value)), Ok(()));
    }

    #[test]
    fn other_writers_are_read_the_same(value in arbitrary::value()) {
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(canonical(&parse(&pretty, LIMIT).unwrap()), canonical(&value));
    }

    #[test]
    fn equal_values_have_equal_bytes(one in arbitrary::value(), other in arbitrary::value()) {
        prop_assert_eq!(same(&one, &other), canonical(&one) == canonical(&other));
        prop_assert!(same(&one, &one.clone()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body, LIMIT);
    }

    #[test]
    fn bytes_that_look_like_json_never_panic_and_agree_with_the_plain_parser(
        body in r#"[\[\]{}",:0-9eE.+\\ untrfalse-]{0,40}"#,
    ) {
        if let Ok(value) = parse(body.as_bytes(), LIMIT) {
            let plain: Value = serde_json::from_str(&body).unwrap();
            prop_assert!(same(&value, &plain), "{value} is not {plain}");
        }
    }
}
