//! The HTTP/1.1 server: it accepts connections, bounds each of them, and shuts down gracefully.

mod stall;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::{ApiState, router};

use self::stall::Stalling;

/// Connections at once; more wait in the backlog of the kernel. Each may hold one read buffer of
/// [`READ_BUFFER`] and a file descriptor, so this stays below 300 MiB and usual descriptor limits.
pub(super) const MAX_CONNECTIONS: usize = 4_096;

/// Bytes of a request's line and headers. A key is at most 1.5 KiB when every byte is encoded, a
/// session token grows by some 30 bytes with each origin.
pub(super) const MAX_HEADER_BYTES: usize = 32 << 10;

/// Bytes that are read ahead for one connection.
const READ_BUFFER: usize = 64 << 10;

/// How long a connection may take from its start, or from the end of a reply, until the next
/// request's headers are there. Ends idle connections and those that trickle headers.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to read anything of a reply.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long requests in flight may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a failed accept, which usually means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failed accepts in a row after which the server gives up: a minute of them.
const ACCEPT_FAILURES: u32 = 600;

/// Serves the API on `listener` until `shutdown` is ready, then lets requests in flight end.
///
/// # Errors
/// The listener fails for good.
///
/// # Panics
/// When a request handler panics: the node then stops, and recovers by starting again.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let closing = state.closing().clone();
    Server { router: router(state), closing, bounds: Bounds::default() }
        .run(listener, shutdown)
        .await
}

/// Waits until the server shuts down.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// What one connection, and all of them, may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections: usize,
    head: Duration,
    stall: Duration,
    drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            head: HEAD_TIMEOUT,
            stall: STALL_TIMEOUT,
            drain: DRAIN_TIMEOUT,
        }
    }
}

struct Server {
    router: Router,
    closing: watch::Sender<bool>,
    bounds: Bounds,
}

impl Server {
    async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        let mut failures = 0;
        let ended = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                Some(ended) = connections.join_next() => settle(ended),
                accepted = listener.accept(), if connections.len() < self.bounds.connections => {
                    match accepted {
                        Ok((stream, _)) => {
                            failures = 0;
                            connections.spawn(self.connection(stream).in_current_span());
                        }
                        Err(error) if failures >= ACCEPT_FAILURES => break Err(error),
                        Err(error) => failures += pause(error).await,
                    }
                }
            }
        };
        drop(listener);
        self.closing.send_replace(true);
        drain(connections, self.bounds.drain).await;
        ended
    }

    /// Makes the task of one connection.
    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let service = TowerToHyperService::new(self.router.clone());
        let mut closing = self.closing.subscribe();
        let bounds = self.bounds;
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection ended at once");
                return;
            }
            let io = TokioIo::new(Stalling::new(stream, bounds.stall));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head)
                .max_header_size(MAX_HEADER_BYTES)
                .max_buf_size(READ_BUFFER)
                .serve_connection(io, service);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closed(&mut closing) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection was cut");
            }
        }
    }
}

/// Waits after a failed accept, unless only that one connection is gone; returns what it counts.
async fn pause(error: io::Error) -> u32 {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return 0;
    }
    tracing::warn!(%error, "no connection can be accepted");
    sleep(ACCEPT_PAUSE).await;
    1
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            settle(ended);
        }
    };
    if timeout(limit, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests in flight are cut off");
        connections.shutdown().await;
    }
}

/// Hands on the panic of a connection.
fn settle(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests;
