//! The ceilings: what HTTP alone gives on this machine, and HTTP with a bare group commit of the
//! same bytes. No store that answers over HTTP after a durable commit can be faster.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use redb::{Database, Durability, TableDefinition};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::cli::Failure;

/// A server that stores nothing, or nothing but bytes.
#[derive(Debug)]
pub(super) struct Ceiling {
    /// Where it listens.
    pub(super) authority: String,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    blank: Bytes,
    commits: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    bytes: Bytes,
    done: oneshot::Sender<bool>,
}

impl Ceiling {
    /// Starts the server, with its database in `dir`.
    pub(super) async fn start(dir: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::General(format!("cannot start the ceilings: {error}"))
        };
        let database = Database::create(dir.join("ceiling.redb")).map_err(|e| failed(&e))?;
        let (commits, jobs) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn_blocking(move || commit_batches(&database, jobs));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| failed(&e))?;
        let authority = listener.local_addr().map_err(|e| failed(&e))?.to_string();
        let listener = listener.tap_io(|stream| {
            // Without it the ceiling would be lower than it is, which favours the store.
            let _ = stream.set_nodelay(true);
        });
        let shared = Shared { blank: Bytes::from(vec![b' '; MAX_REPLY]), commits };
        let router = Router::new()
            .route("/plain/{reply}", get(plain).post(plain))
            .route("/commit/{reply}", post(commit))
            .with_state(shared);
        tasks.spawn(async move {
            // It ends when the set of tasks is dropped.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { authority, _tasks: tasks })
    }
}

async fn plain(
    State(shared): State<Shared>,
    UrlPath(reply): UrlPath<usize>,
    _body: Bytes,
) -> Response<Body> {
    respond(&shared, StatusCode::OK, reply)
}

async fn commit(
    State(shared): State<Shared>,
    UrlPath(reply): UrlPath<usize>,
    bytes: Bytes,
) -> Response<Body> {
    let (done, committed) = oneshot::channel();
    let sent = shared.commits.send(Job { bytes, done }).await.is_ok();
    let status = match committed.await {
        Ok(true) if sent => StatusCode::OK,
        Ok(_) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    respond(&shared, status, reply)
}

fn respond(shared: &Shared, status: StatusCode, reply: usize) -> Response<Body> {
    let mut response = Response::new(Body::from(shared.blank.slice(..reply.min(MAX_REPLY))));
    *response.status_mut() = status;
    response
}

/// Commits what has come in the meantime, all at once, until nobody can send any more.
fn commit_batches(database: &Database, mut jobs: mpsc::Receiver<Job>) {
    let mut sequence = 0;
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let outcome = commit_batch(database, &mut sequence, &batch);
        for job in batch.drain(..) {
            // A connection that was closed meanwhile does not wait any more.
            let _ = job.done.send(outcome.is_ok());
        }
    }
}

fn commit_batch(
    database: &Database,
    sequence: &mut u64,
    batch: &[Job],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    {
        let mut table = transaction.open_table(TABLE)?;
        for job in batch {
            *sequence += 1;
            table.insert(*sequence, job.bytes.as_ref())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bytes");

/// Bodies of one commit at most, as many as the journal takes.
const BATCH: usize = 256;

/// Bodies that wait for the committer: more than there are connections.
const QUEUE: usize = 4_096;

/// The longest reply that is asked for: documents here have 1 KB.
const MAX_REPLY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use redb::ReadableDatabase;

    use super::*;
    use crate::cli::bench::load::ask;
    use crate::cli::bench::request::{Template, document};
    use crate::cli::bench::wire::Wire;

    #[test]
    fn a_batch_is_stored_as_it_came() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::create(folder.path().join("db")).unwrap();
        let job = |text: &'static str| Job { bytes: Bytes::from(text), done: oneshot::channel().0 };
        commit_batch(&database, &mut 0, &[job("a"), job("b")]).unwrap();
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        assert_eq!(table.get(1).unwrap().unwrap().value(), b"a");
        assert_eq!(table.get(2).unwrap().unwrap().value(), b"b");
    }

    #[tokio::test]
    async fn both_ceilings_answer_with_as_many_bytes_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let ceiling = Ceiling::start(folder.path()).await.unwrap();
        let mut wire = Wire::connect(&ceiling.authority).await.unwrap();
        for (method, path, body) in [
            ("GET", "/plain/900", String::new()),
            ("POST", "/plain/900", document()),
            ("POST", "/commit/900", document()),
        ] {
            let mut request = Template::new(method, path, "application/json", &body);
            let answer = ask(&mut wire, request.fill(&[1])).await.unwrap();
            assert_eq!((answer.status, answer.body_bytes), (200, 900), "{method} {path}");
        }
    }
}
