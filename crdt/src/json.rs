//! JSON: strict reading, canonical writing.
//!
//! What is read here can be stored and read back anywhere without being bent: no duplicate keys,
//! no integers that a double cannot hold, no nesting that overflows a stack. The depth is
//! checked on the bytes, before anything recursive runs.
//!
//! Numbers are those of JavaScript: `1`, `1.0` and `1e0` are one integer, and everything that is
//! not an integer between ±(2^53-1) is a double.

use std::fmt;
use std::io::Write as _;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// The greatest integer: the greatest that a JavaScript number holds exactly.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// The deepest nesting that anything in this crate takes, whatever limit a caller names, so that
/// recursion over a value is bounded.
pub const MAX_NESTING: usize = 256;

/// A body that is no JSON, or JSON that a document cannot hold exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are no JSON; the message has line and column.
    #[error("{0}")]
    Syntax(String),
    /// Containers are nested deeper than the limit.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The deepest nesting that is taken.
        limit: usize,
    },
    /// The value would be bent by storing it; the message says which and why.
    #[error("{0}")]
    NotRepresentable(String),
}

/// Reads JSON strictly; at most `nesting` containers (and never more than [`MAX_NESTING`]) may
/// stand inside one another.
///
/// # Errors
/// See [`JsonError`].
pub fn parse(body: &[u8], nesting: usize) -> Result<Value, JsonError> {
    let offence = scan(body, nesting.min(MAX_NESTING))?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    let parsed = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match (parsed, offence) {
        (Ok(value), None) => Ok(value),
        (Err(error), Some(offence)) if offence.is_after(&error) => Err(refused(&error)),
        (_, Some(offence)) => Err(JsonError::NotRepresentable(offence.to_string())),
        (Err(error), None) => Err(refused(&error)),
    }
}

/// Applies the rules of [`parse`] for numbers and nesting to a value that was built otherwise.
///
/// # Errors
/// [`JsonError::TooDeep`] and [`JsonError::NotRepresentable`].
pub fn check(value: &Value, nesting: usize) -> Result<(), JsonError> {
    let limit = nesting.min(MAX_NESTING);
    check_below(value, limit, limit)
}

/// Counts how many containers stand inside one another at the deepest place; a scalar has none.
#[must_use]
pub fn nesting(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 0)];
    while let Some((value, around)) = open.pop() {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            Value::Array(items) => {
                deepest = deepest.max(around + 1);
                open.extend(items.iter().map(|item| (item, around + 1)));
            }
            Value::Object(members) => {
                deepest = deepest.max(around + 1);
                open.extend(members.values().map(|member| (member, around + 1)));
            }
        }
    }
    deepest
}

/// Returns the integer that a value is, be it written as `1` or as `1.0`; `-0.0` is none.
#[must_use]
pub fn integer(value: &Value) -> Option<i64> {
    value.as_number().and_then(integer_of)
}

/// Tells whether two values are equal: whether their canonical bytes are.
#[must_use]
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (integer_of(one), integer_of(other)) {
            (None, None) => one == other,
            (one, other) => one == other,
        },
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let equal = |(key, value)| other.get(key).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(equal)
        }
        _ => one == other,
    }
}

/// Writes JSON canonically: keys sorted by their UTF-8 bytes, no white space, shortest numbers.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value);
    out
}

/// Names the type of a value for a message, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Tells whether an integer is one that every client can hold.
pub(crate) fn is_exact(number: i64) -> bool {
    (-MAX_INTEGER..=MAX_INTEGER).contains(&number)
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_scalar(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(members) => write_object(out, members),
    }
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    match (integer_of(number), number.as_f64()) {
        (Some(integer), _) => write_scalar(out, &integer),
        (None, Some(double)) if number.is_f64() => {
            write_double(out, double).expect("a Vec takes every write");
        }
        (None, _) => write_scalar(out, number),
    }
}

/// Writes a double with the fewest digits that read back as it, always with a point or an
/// exponent, so that it never reads back as an integer. The standard library finds the digits:
/// those that serde_json writes have changed their form between its releases.
fn write_double(out: &mut Vec<u8>, double: f64) -> std::io::Result<()> {
    if double != 0.0 && !(1e-5..1e16).contains(&double.abs()) {
        write!(out, "{double:e}")
    } else if double.fract() == 0.0 {
        write!(out, "{double:.1}")
    } else {
        write!(out, "{double}")
    }
}

fn write_object(out: &mut Vec<u8>, members: &Map<String, Value>) {
    out.push(b'{');
    if members.keys().is_sorted() {
        write_members(out, members.iter());
    } else {
        // Only where some other crate has switched on serde_json's `preserve_order`.
        let mut sorted: Vec<_> = members.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        write_members(out, sorted.into_iter());
    }
    out.push(b'}');
}

fn write_members<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (place, (key, value)) in members.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_scalar(out, key);
        out.push(b':');
        write_value(out, value);
    }
}

fn write_scalar<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, scalar: &T) {
    serde_json::to_writer(out, scalar).expect("a Vec takes every write, and scalars have no keys");
}

fn integer_of(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| if number.is_f64() { integral(number.as_f64()?) } else { None })
}

/// Returns the integer that a double is, if both name one number in every client.
fn integral(double: f64) -> Option<i64> {
    let negative_zero = double == 0.0 && double.is_sign_negative();
    let exact = double.fract() == 0.0 && double.abs() <= MAX_INTEGER as f64;
    (exact && !negative_zero).then_some(double as i64)
}

fn check_below(value: &Value, left: usize, limit: usize) -> Result<(), JsonError> {
    let below = |left: usize| left.checked_sub(1).ok_or(JsonError::TooDeep { limit });
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => check_number(number),
        Value::Array(items) => {
            let left = below(left)?;
            items.iter().try_for_each(|item| check_below(item, left, limit))
        }
        Value::Object(members) => {
            let left = below(left)?;
            members.values().try_for_each(|member| check_below(member, left, limit))
        }
    }
}

fn check_number(number: &Number) -> Result<(), JsonError> {
    if number.is_f64() || number.as_i64().is_some_and(is_exact) {
        return Ok(());
    }
    Err(JsonError::NotRepresentable(out_of_range(&number.to_string())))
}

fn refused(error: &serde_json::Error) -> JsonError {
    match error.classify() {
        Category::Data => JsonError::NotRepresentable(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => JsonError::Syntax(error.to_string()),
    }
}

/// A number that storing would bend, and where it stands.
struct Offence {
    reason: String,
    line: usize,
    column: usize,
}

impl Offence {
    fn new(reason: String, before: &[u8]) -> Self {
        let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Self { reason, line, column }
    }

    fn is_after(&self, error: &serde_json::Error) -> bool {
        (error.line(), error.column()) < (self.line, self.column)
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.reason, self.line, self.column)
    }
}

/// Walks over the bytes without recursion. Up to its first syntax error a body has the same
/// strings, brackets and numbers here as in the parser, so the parser goes no deeper.
fn scan(body: &[u8], limit: usize) -> Result<Option<Offence>, JsonError> {
    let mut depth = 0_usize;
    let mut offence = None;
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => after_string(after),
            b'{' | b'[' if depth >= limit => return Err(JsonError::TooDeep { limit }),
            b'{' | b'[' => {
                depth += 1;
                after
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'-' | b'0'..=b'9' => {
                let (number, after) = split_number(rest);
                if let (None, Some(reason)) = (&offence, bent(number)) {
                    let before = body.get(..body.len() - rest.len()).unwrap_or_default();
                    offence = Some(Offence::new(reason, before));
                }
                after
            }
            _ => after,
        };
    }
    Ok(offence)
}

fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => return after,
            b'\\' => after.get(1..).unwrap_or_default(),
            _ => after,
        };
    }
    rest
}

fn split_number(rest: &[u8]) -> (&[u8], &[u8]) {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let end = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
    rest.split_at_checked(end).unwrap_or((rest, &[]))
}

/// Says why a number cannot be stored as it is written; nothing if it can, or is no number.
fn bent(number: &[u8]) -> Option<String> {
    let text = str::from_utf8(number).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let exact = text.parse().is_ok_and(is_exact);
        return (!exact).then(|| out_of_range(text));
    }
    let may_overflow = text.contains(['e', 'E']) || text.len() > LONGEST_FINITE;
    let overflows = may_overflow && text.parse().is_ok_and(f64::is_infinite);
    overflows.then(|| format!("{} is too great for a number: send it as a string", brief(text)))
}

fn out_of_range(integer: &str) -> String {
    format!(
        "{} is outside ±{MAX_INTEGER}, the integers that every client holds exactly: send it as a \
         string",
        brief(integer)
    )
}

fn brief(number: &str) -> String {
    const SHOWN: usize = 40;
    number.get(..SHOWN).map_or_else(|| number.to_owned(), |start| format!("{start}…"))
}

/// A decimal without exponent that has no more characters than this is finite.
const LONGEST_FINITE: usize = 300;

/// Builds a value, refusing keys that are written twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(integral(value).map_or_else(|| Value::from(value), Value::from))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match members.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(access.next_value_seed(Self)?);
                }
                Entry::Occupied(place) => {
                    let twice = format!("the key '{}' is written twice", place.key());
                    return Err(A::Error::custom(twice));
                }
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
