//! The node behind the inspector: one task follows the stream, one answers requests in turn.

use std::time::Duration;

use anabranch_crdt::ids::DocumentName;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::super::ledger::{self, Act};
use super::super::row::{Row, State};
use super::super::stream::{self, Subscription};
use super::model::{Event, Listing, MOST_ROWS};
use crate::cli::Failure;
use crate::cli::doc::{Change, fetch_history};
use crate::cli::http::Client;
use crate::cli::writing::WritingArgs;

/// What is asked of the node.
#[derive(Debug)]
pub(super) enum Request {
    List { state: Option<State>, ticket: u64 },
    Load { id: String, ticket: u64 },
    Act { row: Box<Row>, act: Act },
    History(String),
}

/// Follows a stream that is connected, connects it again whenever it is lost, and ends when
/// nobody listens any more.
///
/// # Errors
/// The node refuses to tell.
pub(super) async fn follow(
    mut subscription: Subscription,
    events: mpsc::Sender<Event>,
) -> Result<(), Failure> {
    let mut heard = OffsetDateTime::now_utc();
    loop {
        let line = subscription.next().await;
        if line.is_ok() {
            heard = OffsetDateTime::now_utc();
        }
        let event = match line.and_then(|line| stream::read(&line)) {
            Ok(stream::Event::Conflict(row)) => Event::Streamed(row),
            Ok(stream::Event::Removed(id)) => Event::Removed(id),
            Ok(stream::Event::Lagged) => Event::Lagged,
            Ok(stream::Event::Heartbeat) => continue,
            Err(failure) => {
                let lost = Event::Lost { since: clock(heard), why: failure.to_string() };
                if events.send(lost).await.is_err() {
                    return Ok(());
                }
                reconnect(&mut subscription).await?;
                heard = OffsetDateTime::now_utc();
                Event::Connected
            }
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn reconnect(subscription: &mut Subscription) -> Result<(), Failure> {
    let mut wait = stream::FIRST_WAIT;
    loop {
        tokio::time::sleep(wait).await;
        match subscription.connect().await {
            Ok(()) => return Ok(()),
            Err(Failure::Unreachable(_)) => wait = stream::next_wait(wait),
            Err(failure) => return Err(failure),
        }
    }
}

/// Answers requests, one after the other, and ends when nobody asks or listens any more.
pub(super) async fn answer(
    mut client: Client,
    author: WritingArgs,
    mut requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<Event>,
) -> Result<(), Failure> {
    while let Some(request) = requests.recv().await {
        let event = match request {
            Request::List { state, ticket } => {
                Event::Listed { ticket, page: unhurried(list(&mut client, state).await).await }
            }
            Request::Load { id, ticket } => {
                let row = ledger::one(&mut client, &id).await.and_then(Row::read).map(Box::new);
                Event::Loaded { id, ticket, row: unhurried(row).await }
            }
            Request::Act { row, act } => {
                let outcome = ledger::act(&mut client, &row, &act, None, &author).await;
                Event::Acted { row, act, outcome }
            }
            Request::History(document) => {
                let changes = history(&mut client, &document).await;
                Event::History { document, changes }
            }
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads the newest rows.
///
/// # Errors
/// What the node said.
pub(super) async fn list(client: &mut Client, state: Option<State>) -> Result<Listing, Failure> {
    let filter = vec![("state", state.map(|state| state.name().to_owned()))];
    let page = ledger::fetch(client, &filter, MOST_ROWS).await?;
    let rows = page.rows()?;
    let total = page.total.unwrap_or(rows.len() as u64);
    Ok(Listing { rows, total })
}

async fn history(client: &mut Client, document: &str) -> Result<Vec<Change>, Failure> {
    let name: DocumentName =
        document.parse().map_err(|error| Failure::General(format!("{document}: {error}")))?;
    let (found, _) = fetch_history(client, &name, None, None, CHANGES).await?;
    found.into_iter().map(Change::read).collect()
}

/// Holds a failure back for a moment: the inspector asks again as soon as it hears of it.
async fn unhurried<T>(outcome: Result<T, Failure>) -> Result<T, Failure> {
    if matches!(outcome, Err(Failure::Unreachable(_) | Failure::General(_))) {
        tokio::time::sleep(PAUSE).await;
    }
    outcome
}

fn clock(time: OffsetDateTime) -> String {
    let (hour, minute, second) = time.to_hms();
    format!("{hour:02}:{minute:02}:{second:02} UTC")
}

/// Changes of a document that are shown: the newest.
const CHANGES: usize = 200;

/// Between a request that failed and the next one of its kind.
const PAUSE: Duration = Duration::from_secs(1);
