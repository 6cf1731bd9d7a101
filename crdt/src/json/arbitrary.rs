//! Arbitrary JSON for property tests: small keys that collide, and scalars at the edges.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Number, Value};

use super::MAX_INTEGER;

/// Keys of a small alphabet, so that two values share many, and of the whole of Unicode.
pub(crate) fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[abc]", 1 => "[0-9~/-]{0,3}", 1 => any::<String>()]
}

/// Finite numbers: small, at the limits, with a fraction, and integral but written as doubles.
pub(crate) fn number() -> impl Strategy<Value = Value> {
    let double = |double: f64| Number::from_f64(double).map_or(Value::Null, Value::Number);
    prop_oneof![
        4 => (-3_i64..4).prop_map(Value::from),
        1 => (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::from),
        1 => prop_oneof![Just(MAX_INTEGER), Just(-MAX_INTEGER)].prop_map(Value::from),
        1 => any::<f64>().prop_map(double),
        1 => (-3_i8..4).prop_map(move |number| double(f64::from(number))),
    ]
}

/// Any scalar.
pub(crate) fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        4 => number(),
        2 => "[xy]{0,2}".prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ]
}

/// Any value, nested to four levels.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map(key(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Any object, nested to five levels.
pub(crate) fn object() -> impl Strategy<Value = Value> {
    btree_map(key(), value(), 0..6).prop_map(|map| map.into_iter().collect())
}
