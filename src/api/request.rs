//! Reading requests: names in paths, query parameters, media types, preferences.

use std::borrow::Cow;
use std::str::FromStr;

use anabranch_crdt::ids::{AuthorName, CollectionName, DocumentKey, DocumentName};
use axum::http::{HeaderMap, HeaderName};

use super::error::Problem;

/// What stands before the name of a document in a path.
const DOCS: &str = "/v1/docs/";

/// Reads the document that a path names. The key is all that follows the collection, so it may
/// hold `/`, written as it is or as `%2F`.
pub(super) fn document_name(path: &str) -> Result<DocumentName, Problem> {
    document_below(DOCS, path)
}

/// Reads the document that a path names behind `prefix`, like [`document_name`].
pub(super) fn document_below(prefix: &str, path: &str) -> Result<DocumentName, Problem> {
    let (collection, key) = path
        .strip_prefix(prefix)
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| bad_key(&format!("write {prefix}{{collection}}/{{key}}")))?;
    let collection = collection_name(collection)?;
    let key = percent_decoded(key, Plus::Literal)
        .ok_or_else(|| bad_key("a document key is percent-encoded UTF-8"))?;
    let key = DocumentKey::from_str(&key).map_err(|error| bad_key(&error.to_string()))?;
    Ok(DocumentName { collection, key })
}

/// Reads the collection that a path names.
pub(super) fn listed_collection(path: &str) -> Result<CollectionName, Problem> {
    collection_name(path.strip_prefix(DOCS).unwrap_or_default())
}

fn collection_name(encoded: &str) -> Result<CollectionName, Problem> {
    let text = percent_decoded(encoded, Plus::Literal)
        .ok_or_else(|| bad_collection("a collection name is percent-encoded UTF-8"))?;
    text.parse().map_err(|error| bad_collection(&format!("{error}")))
}

fn bad_key(detail: &str) -> Problem {
    Problem::bad_request("bad_key", detail)
}

fn bad_collection(detail: &str) -> Problem {
    Problem::bad_request("bad_collection", detail)
}

/// The query parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the parameters; each may appear once, and none that is not in `known`.
    pub(super) fn parse(query: Option<&'a str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &'a str| {
                percent_decoded(text, Plus::Space).ok_or_else(|| {
                    bad_query(format!("the query parameter '{text}' is no percent-encoded UTF-8"))
                })
            };
            let name = decode(name)?;
            let name =
                known.iter().find(|&&known| known == name).ok_or_else(|| unknown(&name, known))?;
            if parameters.iter().any(|(seen, _)| seen == name) {
                return Err(bad_query(format!("the query parameter '{name}' appears twice")));
            }
            parameters.push((name, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// Returns a parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref())
    }

    /// Returns a parameter as `T`.
    pub(super) fn parsed<T>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let parse = |text: &str| {
            text.parse().map_err(|error| bad_query(format!("query parameter '{name}': {error}")))
        };
        self.text(name).map(parse).transpose()
    }

    /// Returns a number, which must be in the range.
    pub(super) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = range.into_inner();
            bad_query(format!("the query parameter '{name}' is a number from {least} to {most}"))
        })
    }

    /// Returns a switch, which is off by default.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad_query(format!("the query parameter '{name}' is true or false"))),
        }
    }
}

/// Refuses any query.
pub(super) fn no_query(query: Option<&str>) -> Result<(), Problem> {
    Query::parse(query, &[]).map(|_| ())
}

/// Makes a problem of a query parameter.
pub(super) fn bad_query(detail: impl Into<String>) -> Problem {
    Problem::bad_request("bad_query", detail)
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    bad_query(match known {
        [] => format!("unknown query parameter '{name}': this route takes none"),
        _ => format!("unknown query parameter '{name}': this route takes {}", known.join(", ")),
    })
}

/// What `+` stands for in percent-encoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plus {
    /// Itself, as in paths.
    Literal,
    /// A space, as in queries.
    Space,
}

/// Decodes percent-encoded UTF-8; `None` if it is not that.
fn percent_decoded(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    let special = |byte: u8| byte == b'%' || (byte == b'+' && plus == Plus::Space);
    if !text.bytes().any(special) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Writes an opaque cursor: text as hexadecimal digits, safe in URLs.
pub(super) fn to_cursor(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`to_cursor`] wrote.
pub(super) fn from_cursor(cursor: &str) -> Option<String> {
    let mut bytes = cursor.bytes();
    let mut text = Vec::with_capacity(cursor.len() / 2);
    while let Some(high) = bytes.next() {
        text.push(hex_digit(high)? << 4 | hex_digit(bytes.next()?)?);
    }
    String::from_utf8(text).ok()
}

/// Reads who makes the request, as far as it says.
pub(super) fn author(headers: &HeaderMap) -> Result<Option<AuthorName>, Problem> {
    let Some(value) = headers.get(AUTHOR) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| bad_author("the header 'Author' is no UTF-8"))?;
    text.parse().map(Some).map_err(|error| bad_author(&format!("the header 'Author': {error}")))
}

fn bad_author(detail: &str) -> Problem {
    Problem::bad_request("bad_author", detail)
}

/// Who makes the request; kept inside the changes that it makes.
const AUTHOR: HeaderName = HeaderName::from_static("author");

/// Tells whether a media type, parameters included, is `expected`; a charset must be UTF-8.
pub(super) fn is_media_type(value: &str, expected: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case(expected)
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
                charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// Tells whether a list of the client's `Accept` header names `media_type`.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    elements(headers, &axum::http::header::ACCEPT).any(|range| is_media_type(range, media_type))
}

/// Tells whether the client prefers no body (`Prefer: return=minimal`, RFC 7240).
pub(super) fn prefers_minimal(headers: &HeaderMap) -> bool {
    let minimal = |preference: &str| {
        let preference = preference.split(';').next().unwrap_or_default();
        preference.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("return")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("minimal")
        })
    };
    elements(headers, &HeaderName::from_static("prefer")).any(minimal)
}

/// Iterates over the elements of a comma-separated header; values that are no text are passed over.
pub(super) fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests;
