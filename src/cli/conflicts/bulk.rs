//! Decisions about all conflicts that match a filter: one request, one line for each conflict as
//! it is settled, and a summary.

use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::decision::{DecisionArgs, Matching};
use super::ledger::{self, Query};
use crate::cli::Failure;
use crate::cli::http::{Call, Client, Lines, not_far_enough};
use crate::cli::output::{Format, note, plural, print, printable, shorten, thousands};
use crate::cli::progress::Progress;

/// What is done about all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Resolve,
    Dismiss,
    Reopen,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Dismiss => "dismiss",
            Self::Reopen => "reopen",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Resolve => "resolved",
            Self::Dismiss => "dismissed",
            Self::Reopen => "reopened",
        }
    }
}

/// What a line of the answer says about one conflict.
#[derive(Debug, PartialEq, Deserialize)]
struct Settled {
    id: String,
    document: Option<String>,
    #[serde(default)]
    path: String,
    outcome: String,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    detail: Option<String>,
}

/// What the last line of the answer says about all of them.
#[derive(Debug, Default, PartialEq, Deserialize)]
struct Sum {
    matched: u64,
    changed: u64,
    skipped: u64,
    failed: u64,
    #[serde(default)]
    acked_regions: Vec<String>,
    /// `None` if nothing was asked for.
    #[serde(default)]
    write_concern_met: Option<bool>,
}

#[derive(Debug, PartialEq)]
enum Line {
    One(Settled),
    Sum(Sum),
}

/// Decides about all that match.
///
/// # Errors
/// `General` if any of them failed, or what the node said.
pub(super) async fn run(
    matching: Matching,
    verb: Verb,
    act: Value,
    args: DecisionArgs,
) -> Result<(), Failure> {
    let filter = matching.filter.query()?;
    let body = body(&matching, &act, args.note.as_deref())?;
    let expected = count(&args, filter, verb, matching.limit).await?;
    let call = Call::new(Method::POST, format!("/v1/conflicts:{}", verb.name()))
        .header("accept", Some("application/x-ndjson"))?
        .body("application/json", body.to_string());
    let call = args.writing.clone().or_account().sign(call)?;
    let mut lines = Client::new(&args.node).stream(call).await?;
    let mut progress = Progress::of_conflicts();
    if let Some(expected) = expected {
        progress.expect(expected);
    }
    let sum = follow(&mut lines, &args, matching.dry_run, &mut progress).await;
    let rate = progress.finish();
    let sum = sum?;
    note(summary(verb, matching.dry_run, &sum, &rate));
    if sum.failed > 0 {
        let failed = plural(sum.failed, "conflict");
        return Err(Failure::General(format!("{failed} could not be {}", verb.done())));
    }
    if sum.write_concern_met == Some(false) {
        return Err(not_far_enough(&sum.acked_regions.join(", ")));
    }
    Ok(())
}

/// Writes the body of the request.
fn body(matching: &Matching, act: &Value, why: Option<&str>) -> Result<Value, Failure> {
    let filter = matching.filter.body()?;
    let mut body = act.as_object().cloned().unwrap_or_default();
    if filter.keys().all(|name| name == "state") {
        // That is every conflict there is, and it was said in so many words.
        body.insert("all".to_owned(), Value::from(true));
    }
    body.insert("filter".to_owned(), Value::Object(filter));
    body.insert("dry_run".to_owned(), Value::from(matching.dry_run));
    let more = [("note", why.map(Value::from)), ("limit", matching.limit.map(Value::from))];
    for (name, value) in more {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    Ok(Value::Object(body))
}

/// Asks how many there are, for the progress bar.
async fn count(
    args: &DecisionArgs,
    mut filter: Query,
    verb: Verb,
    limit: Option<u64>,
) -> Result<Option<u64>, Failure> {
    let has_state = filter.iter().any(|(name, value)| *name == "state" && value.is_some());
    if !has_state && verb != Verb::Reopen {
        filter.retain(|(name, _)| *name != "state");
        filter.push(("state", Some("open".to_owned())));
    }
    let page = ledger::fetch(&mut Client::new(&args.node), &filter, 1).await?;
    Ok(page.total.map(|total| limit.map_or(total, |limit| total.min(limit))))
}

/// Shows each line as it comes, up to the last one.
async fn follow(
    lines: &mut Lines,
    args: &DecisionArgs,
    dry_run: bool,
    progress: &mut Progress,
) -> Result<Sum, Failure> {
    let mut would_change = 0;
    while let Some(line) = lines.next(args.node.timeout).await? {
        if args.output == Format::Json {
            print(&line)?;
        }
        match read(&line)? {
            Line::Sum(sum) if dry_run => return Ok(Sum { changed: would_change, ..sum }),
            Line::Sum(sum) => return Ok(sum),
            Line::One(one) => {
                progress.add(0);
                would_change += u64::from(one.outcome.starts_with("would-"));
                let is_problem = matches!(one.outcome.as_str(), "skipped" | "failed");
                if args.output == Format::Table && dry_run {
                    print(text(&one))?;
                } else if args.output == Format::Table && is_problem {
                    progress.note(&text(&one));
                }
            }
        }
    }
    Err(Failure::Unreachable("the answer of the node ends in the middle".to_owned()))
}

fn read(line: &[u8]) -> Result<Line, Failure> {
    let unexpected = |error: serde_json::Error| {
        Failure::General(format!("unexpected line in the answer of the node: {error}"))
    };
    let value: Value = serde_json::from_slice(line).map_err(unexpected)?;
    if value.get("done").is_some() {
        return serde_json::from_value(value).map(Line::Sum).map_err(unexpected);
    }
    serde_json::from_value(value).map(Line::One).map_err(unexpected)
}

fn text(one: &Settled) -> String {
    let document = one.document.as_deref().unwrap_or("(a document without a name)");
    let value = one.value.as_ref().map(|value| format!("  {value}")).unwrap_or_default();
    let detail = one.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = format!("{:.8}  {}  {document} {}{value}{detail}", one.id, one.outcome, one.path);
    shorten(&printable(&line), LINE)
}

fn summary(verb: Verb, dry_run: bool, sum: &Sum, rate: &str) -> String {
    let Sum { matched, changed, skipped, failed, .. } = sum;
    let done = if dry_run { format!("would be {}", verb.done()) } else { verb.done().to_owned() };
    format!(
        "{} matched: {} {done}, {} skipped, {} failed, {rate}",
        plural(*matched, "conflict"),
        thousands(*changed),
        thousands(*skipped),
        thousands(*failed)
    )
}

/// Characters of a line about one conflict.
const LINE: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::filter::{FilterArgs, LiveFilterArgs};
    use super::super::row::State;
    use super::*;

    fn matching(live: LiveFilterArgs) -> Matching {
        let filter = FilterArgs { live, since: None, until: None };
        Matching { filter, dry_run: true, limit: Some(5) }
    }

    #[test]
    fn every_conflict_there_is_must_be_asked_for() {
        let of_collection = LiveFilterArgs {
            collection: Some("cities".parse().unwrap()),
            ..LiveFilterArgs::default()
        };
        assert_eq!(
            body(&matching(of_collection), &json!({"take": "latest"}), Some("why")).unwrap(),
            json!({"filter": {"collection": "cities"}, "take": "latest", "dry_run": true,
                "limit": 5, "note": "why"})
        );
        let open = LiveFilterArgs { state: Some(State::Open), ..LiveFilterArgs::default() };
        assert_eq!(
            body(&matching(open), &json!({}), None).unwrap(),
            json!({"filter": {"state": "open"}, "all": true, "dry_run": true, "limit": 5})
        );
    }

    #[test]
    fn lines_are_conflicts_and_then_the_sum() {
        let read = |value: Value| read(value.to_string().as_bytes()).unwrap();
        let one = read(json!({"id": "3f2a9c1b7d4e", "document": "c/k", "path": "/a",
            "outcome": "failed", "detail": "too\u{1b} late"}));
        let Line::One(one) = one else { panic!("{one:?}") };
        assert_eq!(text(&one), "3f2a9c1b  failed  c/k /a: too\\u{1b} late");
        let sum = read(json!({"done": true, "matched": 1200, "changed": 1190, "skipped": 9,
            "failed": 1}));
        let Line::Sum(sum) = sum else { panic!("{sum:?}") };
        assert_eq!(
            summary(Verb::Resolve, true, &sum, "in 1.0 s"),
            "1,200 conflicts matched: 1,190 would be resolved, 9 skipped, 1 failed, in 1.0 s"
        );
    }
}
