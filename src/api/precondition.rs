//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1).
//!
//! Entity tags that are well-formed but none of ours are kept as what they are: tags that no
//! document has.

use axum::http::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderName, StatusCode};

use crate::document::{Digest, Precondition};

use super::error::Problem;

/// The conditions of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conditions {
    /// None.
    None,
    /// `If-Match`, which compares strongly: weak tags never match.
    Match(Tags),
    /// `If-None-Match`, which compares weakly.
    NoneMatch(Tags),
}

/// The value of one of the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`.
    Any,
    /// Those that could be a document's.
    Listed(Vec<Digest>),
}

/// What the conditions of a read come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send the document.
    Send,
    /// The client has it.
    NotModified,
    /// `If-Match` does not hold.
    Failed,
}

impl Conditions {
    /// Reads the conditions of a request.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        match (headers.contains_key(IF_MATCH), headers.contains_key(IF_NONE_MATCH)) {
            (false, false) => Ok(Self::None),
            (true, false) => tags(headers, IF_MATCH, Weak::Dropped).map(Self::Match),
            (false, true) => tags(headers, IF_NONE_MATCH, Weak::Kept).map(Self::NoneMatch),
            (true, true) => Err(bad("send If-Match or If-None-Match, not both")),
        }
    }

    /// Judges a read of a document that exists.
    pub(super) fn judge(&self, digest: Digest) -> Verdict {
        match self {
            Self::Match(tags) if !tags.hold(digest) => Verdict::Failed,
            Self::NoneMatch(tags) if tags.hold(digest) => Verdict::NotModified,
            Self::None | Self::Match(_) | Self::NoneMatch(_) => Verdict::Send,
        }
    }

    /// Returns the precondition of a write.
    pub(super) fn for_write(self) -> Result<Precondition, Problem> {
        match self {
            Self::None => Ok(Precondition::None),
            Self::Match(Tags::Any) => Ok(Precondition::Match(Vec::new())),
            Self::NoneMatch(Tags::Any) => Ok(Precondition::NoneMatch(Vec::new())),
            // An empty list means any tag in a `Precondition`, so none at all is told here.
            Self::Match(Tags::Listed(digests)) if digests.is_empty() => Err(failed()),
            Self::NoneMatch(Tags::Listed(digests)) if digests.is_empty() => Ok(Precondition::None),
            Self::Match(Tags::Listed(digests)) => Ok(Precondition::Match(digests)),
            Self::NoneMatch(Tags::Listed(digests)) => Ok(Precondition::NoneMatch(digests)),
        }
    }
}

impl Tags {
    fn hold(&self, digest: Digest) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(digests) => digests.contains(&digest),
        }
    }
}

/// The reply to `If-Match` that does not hold.
pub(super) fn failed() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        "the document has none of the entity tags of If-Match: read it again, then decide",
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Weak {
    Kept,
    Dropped,
}

fn tags(headers: &HeaderMap, name: HeaderName, weak: Weak) -> Result<Tags, Problem> {
    let mut elements = Vec::new();
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| malformed(&name))?;
        split(text, &mut elements).ok_or_else(|| malformed(&name))?;
    }
    match elements.as_slice() {
        [] => Err(malformed(&name)),
        [Element::Any] => Ok(Tags::Any),
        _ if elements.contains(&Element::Any) => Err(malformed(&name)),
        _ => Ok(Tags::Listed(elements.into_iter().filter_map(|e| e.digest(weak)).collect())),
    }
}

#[derive(PartialEq, Eq)]
enum Element<'a> {
    Any,
    Strong(&'a str),
    Weak(&'a str),
}

impl Element<'_> {
    fn digest(&self, weak: Weak) -> Option<Digest> {
        match self {
            Self::Strong(opaque) => digest(opaque),
            Self::Weak(opaque) if weak == Weak::Kept => digest(opaque),
            Self::Any | Self::Weak(_) => None,
        }
    }
}

/// Splits a list at commas; a comma inside a tag belongs to the tag.
fn split<'a>(mut rest: &'a str, elements: &mut Vec<Element<'a>>) -> Option<()> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(());
        }
        let (element, after) = element(rest)?;
        elements.push(element);
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

fn element(text: &str) -> Option<(Element<'_>, &str)> {
    if let Some(after) = text.strip_prefix('*') {
        return Some((Element::Any, after));
    }
    let (is_weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
    let valid = opaque.bytes().all(|byte| byte > b' ' && byte < 0x7f);
    let element = if is_weak { Element::Weak(opaque) } else { Element::Strong(opaque) };
    valid.then_some((element, after))
}

fn digest(opaque: &str) -> Option<Digest> {
    let digits = opaque.as_bytes();
    let ours = digits.len() == 32 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ours.then_some(())?;
    u128::from_str_radix(opaque, 16).ok().map(|number| Digest(number.to_be_bytes()))
}

fn malformed(name: &HeaderName) -> Problem {
    bad(&format!("the {name} header is '*' or a list of entity tags such as \"0a1b…\""))
}

fn bad(detail: &str) -> Problem {
    Problem::bad_request("bad_precondition", detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;

    use super::*;

    const A: &str = "\"000102030405060708090a0b0c0d0e0f\"";
    const B: &str = "\"ffffffffffffffffffffffffffffffff\"";

    fn digest_a() -> Digest {
        Digest([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    }

    fn parse(lines: &[(HeaderName, &str)]) -> Result<Conditions, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Conditions::parse(&headers).map_err(|problem| problem.into_response().status().as_u16())
    }

    fn if_match(value: &str) -> Result<Conditions, u16> {
        parse(&[(IF_MATCH, value)])
    }

    fn if_none_match(value: &str) -> Result<Conditions, u16> {
        parse(&[(IF_NONE_MATCH, value)])
    }

    #[test]
    fn no_header_is_no_condition() {
        assert_eq!(parse(&[]), Ok(Conditions::None));
        assert_eq!(Conditions::None.for_write().unwrap(), Precondition::None);
    }

    #[test]
    fn lists_are_read_over_lines_and_commas() {
        let both = Tags::Listed(vec![digest_a(), Digest([255; 16])]);
        assert_eq!(if_match(&format!("{A}, {B}")), Ok(Conditions::Match(both.clone())));
        assert_eq!(if_match(&format!(" ,{A} ,,{B},")), Ok(Conditions::Match(both.clone())));
        assert_eq!(parse(&[(IF_MATCH, A), (IF_MATCH, B)]), Ok(Conditions::Match(both)));
    }

    #[test]
    fn star_stands_alone() {
        assert_eq!(if_match("*"), Ok(Conditions::Match(Tags::Any)));
        assert_eq!(if_none_match(" * "), Ok(Conditions::NoneMatch(Tags::Any)));
        assert_eq!(if_match(&format!("*, {A}")), Err(400));
        assert_eq!(if_match("**"), Err(400));
    }

    #[test]
    fn weak_tags_count_only_for_if_none_match() {
        let weak = format!("W/{A}");
        assert_eq!(if_match(&weak), Ok(Conditions::Match(Tags::Listed(vec![]))));
        let kept = Conditions::NoneMatch(Tags::Listed(vec![digest_a()]));
        assert_eq!(if_none_match(&weak), Ok(kept));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for text in ["", ",", "abc", "\"abc", "abc\"", "\"a b\"", "w/\"a\"", "\"a\" \"b\"", "W/*"] {
            assert_eq!(if_match(text), Err(400), "{text}");
        }
        assert_eq!(parse(&[(IF_MATCH, A), (IF_NONE_MATCH, B)]), Err(400));
    }

    #[test]
    fn foreign_tags_match_nothing() {
        let condition = if_match("\"v1,v2\"").unwrap();
        assert_eq!(condition.judge(digest_a()), Verdict::Failed);
        assert_eq!(condition.for_write().unwrap_err().into_response().status(), 412);
        let condition = if_none_match("\"v1\"").unwrap();
        assert_eq!(condition.judge(digest_a()), Verdict::Send);
        assert_eq!(condition.for_write().unwrap(), Precondition::None);
    }

    #[test]
    fn reads_are_judged() {
        assert_eq!(if_match(A).unwrap().judge(digest_a()), Verdict::Send);
        assert_eq!(if_match(B).unwrap().judge(digest_a()), Verdict::Failed);
        assert_eq!(if_match("*").unwrap().judge(digest_a()), Verdict::Send);
        assert_eq!(if_none_match(A).unwrap().judge(digest_a()), Verdict::NotModified);
        assert_eq!(if_none_match(B).unwrap().judge(digest_a()), Verdict::Send);
        assert_eq!(if_none_match("*").unwrap().judge(digest_a()), Verdict::NotModified);
    }

    #[test]
    fn writes_get_their_precondition() {
        let of = |condition: Result<Conditions, u16>| condition.unwrap().for_write().unwrap();
        assert_eq!(of(if_match(A)), Precondition::Match(vec![digest_a()]));
        assert_eq!(of(if_match("*")), Precondition::Match(vec![]));
        assert_eq!(of(if_none_match("*")), Precondition::NoneMatch(vec![]));
        assert_eq!(of(if_none_match(A)), Precondition::NoneMatch(vec![digest_a()]));
    }
}
