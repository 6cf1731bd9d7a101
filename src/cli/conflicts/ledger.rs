//! The ledger over HTTP: pages, one row, and what is done about one.

use anabranch_crdt::ids::DocumentName;
use hyper::Method;
use serde_json::{Value, json};

use super::row::{Later, Row};
use crate::cli::Failure;
use crate::cli::doc::{document_path, take_list};
use crate::cli::http::{Call, Client, Reply, encode, target};
use crate::cli::writing::WritingArgs;

/// The parts of a query.
pub(super) type Query = Vec<(&'static str, Option<String>)>;

/// Conflicts that were asked for.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) found: Vec<Value>,
    /// All that match, if the node says so.
    pub(super) total: Option<u64>,
    pub(super) more: bool,
}

impl Page {
    /// Returns the rows.
    ///
    /// # Errors
    /// `General` if the node writes them in another way.
    pub(super) fn rows(&self) -> Result<Vec<Row>, Failure> {
        self.found.iter().cloned().map(Row::read).collect()
    }
}

/// Fetches up to `limit` conflicts.
///
/// # Errors
/// What the node said.
pub(super) async fn fetch(
    client: &mut Client,
    filter: &Query,
    limit: usize,
) -> Result<Page, Failure> {
    let mut page = Page::default();
    let mut cursor = None;
    while page.found.len() < limit {
        let mut query = filter.clone();
        query.push(("limit", Some((limit - page.found.len()).min(PAGE).to_string())));
        query.push(("cursor", cursor.take()));
        let mut body = client.send(Call::get(target("/v1/conflicts", &query))).await?.json()?;
        page.found.append(&mut take_list(&mut body, "conflicts")?);
        page.total = body.get("total").and_then(Value::as_u64).or(page.total);
        cursor = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    page.more = cursor.is_some();
    Ok(page)
}

/// Returns one conflict.
///
/// # Errors
/// `NotFound`, or what the node said.
pub(super) async fn one(client: &mut Client, id: &str) -> Result<Value, Failure> {
    client.send(Call::get(format!("/v1/conflicts/{}", encode(id)))).await?.json()
}

/// Finds the one conflict whose id is, or starts with, `prefix`.
///
/// # Errors
/// `Usage` if more than one starts so, `NotFound` if none does.
pub(super) async fn find(client: &mut Client, prefix: &str) -> Result<Value, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!(
            "'{prefix}' is no conflict id: it is made of hexadecimal digits, as `conflicts list` \
             prints them"
        )));
    }
    if prefix.len() == ID_DIGITS {
        return one(client, &prefix).await;
    }
    let Page { found, more, .. } = fetch(client, &Query::new(), SEARCHED).await?;
    let id = |value: &Value| value.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut matching = found.into_iter().filter(|value| id(value).starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(one), Some(other)) => Err(Failure::Usage(format!(
            "'{prefix}' is the beginning of more than one conflict, among them {} and {}: write \
             more of it",
            id(&one),
            id(&other)
        ))),
        (None, _) if more => Err(Failure::NotFound(format!(
            "no conflict starts with '{prefix}' among the first {SEARCHED}: write the whole id"
        ))),
        (None, _) => Err(Failure::NotFound(format!("no conflict starts with '{prefix}'"))),
    }
}

/// Looks up what the document has at the place of a conflict, if that is none of the sides.
///
/// # Errors
/// What the node said, unless that is that there is no such document.
pub(super) async fn look_up_result(client: &mut Client, row: &mut Row) -> Result<(), Failure> {
    let name = row.document.as_ref().and_then(|name| name.parse::<DocumentName>().ok());
    let (None, Some(name)) = (row.winner(), name) else { return Ok(()) };
    let there = match client.send(Call::get(document_path(&name))).await {
        Ok(reply) => reply.json()?.pointer(&row.path).cloned(),
        Err(Failure::NotFound(_)) => None,
        Err(failure) => return Err(failure),
    };
    row.later = Some(there.map_or(Later::Nothing, Later::Value));
    Ok(())
}

/// What can be done about one conflict.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// Take a candidate, by its id.
    Take(String),
    /// Write this value.
    Value(Value),
    /// Remove what is there.
    Delete,
    /// Merge all sides.
    Merge,
    /// Let this policy decide once.
    Policy(Policy),
    /// Say that no decision is needed.
    Dismiss,
    /// Ask for a decision again.
    Reopen,
    /// Put back what showed before the resolution.
    Undo,
}

/// How a path resolves conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Policy {
    /// Merge what can be merged, keep every value of the rest
    Auto,
    /// The last writer wins
    Lww,
    /// The first writer wins
    First,
    /// The greatest value wins
    Max,
    /// The least value wins
    Min,
    /// A person decides
    Manual,
    /// The region that comes first in the settings wins
    RegionPriority,
}

impl Policy {
    /// Returns the name that the API uses.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Lww => "lww",
            Self::First => "first",
            Self::Max => "max",
            Self::Min => "min",
            Self::Manual => "manual",
            Self::RegionPriority => "region-priority",
        }
    }
}

impl Act {
    /// Returns the verb of the route.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Take(_) | Self::Value(_) | Self::Delete | Self::Merge | Self::Policy(_) => {
                "resolve"
            }
            Self::Dismiss => "dismiss",
            Self::Reopen => "reopen",
            Self::Undo => "undo",
        }
    }

    /// Returns the verb in the past.
    pub(super) fn done(&self) -> &'static str {
        match self {
            Self::Take(_) | Self::Value(_) | Self::Delete | Self::Merge | Self::Policy(_) => {
                "resolved"
            }
            Self::Dismiss => "dismissed",
            Self::Reopen => "reopened",
            Self::Undo => "undid the resolution of",
        }
    }

    /// Returns the body of the request.
    pub(super) fn body(&self) -> Value {
        match self {
            Self::Take(id) => json!({ "take": id }),
            Self::Value(value) => json!({ "value": value }),
            Self::Delete => json!({ "delete": true }),
            Self::Merge => json!({ "merge": true }),
            Self::Policy(policy) => json!({ "policy": policy.name() }),
            Self::Dismiss | Self::Reopen | Self::Undo => json!({}),
        }
    }
}

/// How an act on one conflict went.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// It was done, and this is the row now.
    Done(Box<Value>),
    /// The row has changed since it was read, and this is it now.
    Changed(Box<Row>),
    /// Others have settled it already, and this is the row now.
    Settled(Box<Row>),
    /// The node says why not.
    Refused(Failure),
}

/// Does something about one conflict as it is in `row`: a row that has changed meanwhile is left
/// alone.
///
/// # Errors
/// `Unreachable` if the node does not answer; what it answers is an outcome.
pub(super) async fn act(
    client: &mut Client,
    row: &Row,
    act: &Act,
    note: Option<&str>,
    writing: &WritingArgs,
) -> Result<Outcome, Failure> {
    let mut body = act.body();
    if let (Some(fields), Some(text)) = (body.as_object_mut(), note) {
        fields.insert("note".to_owned(), Value::from(text));
    }
    let path = format!("/v1/conflicts/{}:{}", encode(&row.id), act.verb());
    let call = Call::new(Method::POST, path)
        .header("if-match", row.if_match().as_deref())?
        .body("application/json", body.to_string());
    let reply = client.exchange(&writing.sign(call)?).await?;
    read_outcome(&reply)
}

fn read_outcome(reply: &Reply) -> Result<Outcome, Failure> {
    if reply.status.is_success() {
        return Ok(Outcome::Done(Box::new(reply.json()?)));
    }
    let code = reply.problem_code();
    let current = || Row::read(reply.json().ok()?.get("conflict")?.clone()).ok().map(Box::new);
    let outcome = match code.as_deref() {
        Some("conflict_changed") => current().map(Outcome::Changed),
        Some("already_resolved" | "already_dismissed") => current().map(Outcome::Settled),
        _ => None,
    };
    Ok(outcome.unwrap_or_else(|| Outcome::Refused(reply.failure())))
}

/// Conflicts per request; the node takes up to 1,000.
const PAGE: usize = 1_000;

/// Conflicts that are searched for an id of which only the beginning was given.
const SEARCHED: usize = 100_000;

const ID_DIGITS: usize = 32;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};

    use super::super::samples::{conflict, row};
    use super::*;

    fn outcome(status: u16, body: &Value) -> Outcome {
        let reply = Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_string()),
        };
        read_outcome(&reply).unwrap()
    }

    #[test]
    fn refusals_carry_the_row_as_it_is_now() {
        let now = Box::new(row(|_| {}));
        let problem = |code: &str| json!({"code": code, "detail": "no", "conflict": conflict()});
        assert_eq!(outcome(412, &problem("conflict_changed")), Outcome::Changed(now.clone()));
        assert_eq!(outcome(409, &problem("already_resolved")), Outcome::Settled(now.clone()));
        assert_eq!(outcome(409, &problem("already_dismissed")), Outcome::Settled(now));
        let refused = outcome(422, &json!({"code": "not_mergeable", "detail": "two numbers"}));
        let message = "two numbers (not_mergeable, HTTP 422)".to_owned();
        assert_eq!(refused, Outcome::Refused(Failure::General(message)));
        let bare = outcome(412, &json!({"code": "conflict_changed", "detail": "changed"}));
        assert!(matches!(bare, Outcome::Refused(_)), "{bare:?}");
        assert_eq!(outcome(200, &conflict()), Outcome::Done(Box::new(conflict())));
    }

    #[test]
    fn every_act_has_one_body() {
        for (act, verb, body) in [
            (Act::Take("1@a".to_owned()), "resolve", json!({"take": "1@a"})),
            (Act::Value(Value::Null), "resolve", json!({"value": null})),
            (Act::Delete, "resolve", json!({"delete": true})),
            (Act::Merge, "resolve", json!({"merge": true})),
            (Act::Policy(Policy::RegionPriority), "resolve", json!({"policy": "region-priority"})),
            (Act::Dismiss, "dismiss", json!({})),
            (Act::Reopen, "reopen", json!({})),
            (Act::Undo, "undo", json!({})),
        ] {
            assert_eq!((act.verb(), act.body()), (verb, body));
        }
    }
}
