use std::sync::Arc;

use axum::body::Body;
use axum::routing::get;
use futures::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Far longer than any test takes.
const NEVER: Duration = Duration::from_secs(600);

struct Running {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinSet<io::Result<()>>,
}

impl Running {
    async fn start(router: Router, bounds: Bounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        server.spawn(async move {
            Server { router, closing: watch::Sender::new(false), bounds }
                .run(listener, async { drop(stopped.await) })
                .await
        });
        Self { address, stop, server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn bounds() -> Bounds {
    Bounds { connections: 8, head: NEVER, stall: NEVER, drain: NEVER }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset ends a stream as well as a close.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

async fn read_reply(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"hello") {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "closed before the reply");
    }
}

#[tokio::test]
async fn connection_is_kept_for_the_next_request() {
    let running = Running::start(hello(), bounds()).await;
    let mut client = running.connect().await;
    for _ in 0..3 {
        client.write_all(REQUEST).await.unwrap();
        read_reply(&mut client).await;
    }
}

#[tokio::test]
async fn headers_that_trickle_are_cut() {
    let bounds = Bounds { head: Duration::from_millis(50), ..bounds() };
    let running = Running::start(hello(), bounds).await;
    let mut client = running.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
    assert!(!read_to_end(&mut client).await.contains("200 OK"));
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let running = Running::start(hello(), bounds()).await;
    let mut client = running.connect().await;
    let flood = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEADER_BYTES));
    client.write_all(flood.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn client_that_reads_nothing_is_cut() {
    let dropped = Arc::new(Notify::new());
    let watched = Arc::clone(&dropped);
    let endless = move || {
        let signal = DropSignal(Arc::clone(&watched));
        async move {
            let block = bytes::Bytes::from(vec![0; 1 << 20]);
            Body::from_stream(stream::unfold(signal, move |signal| {
                let block = block.clone();
                async move { Some((Ok::<_, io::Error>(block), signal)) }
            }))
        }
    };
    let bounds = Bounds { stall: Duration::from_millis(50), ..bounds() };
    let running = Running::start(Router::new().route("/", get(endless)), bounds).await;
    let mut client = running.connect().await;
    client.write_all(REQUEST).await.unwrap();
    dropped.notified().await;
}

struct DropSignal(Arc<Notify>);

impl Drop for DropSignal {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_their_turn() {
    let running = Running::start(hello(), Bounds { connections: 1, ..bounds() }).await;
    let mut first = running.connect().await;
    first.write_all(REQUEST).await.unwrap();
    read_reply(&mut first).await;
    let mut second = running.connect().await;
    second.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), second.read(&mut byte)).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    read_reply(&mut second).await;
}

/// A route that says when a request is there, and answers when told.
fn held(started: &Arc<Notify>, release: &Arc<Notify>) -> Router {
    let (started, release) = (Arc::clone(started), Arc::clone(release));
    let answer = move || {
        let (started, release) = (Arc::clone(&started), Arc::clone(&release));
        async move {
            started.notify_one();
            release.notified().await;
            "hello"
        }
    };
    Router::new().route("/", get(answer))
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_closes_idle_connections() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut running = Running::start(held(&started, &release), bounds()).await;
    let mut idle = running.connect().await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    started.notified().await;
    running.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    release.notify_one();
    assert!(read_to_end(&mut busy).await.ends_with("hello"));
    running.server.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_has_a_deadline() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let bounds = Bounds { drain: Duration::from_millis(50), ..bounds() };
    let mut running = Running::start(held(&started, &release), bounds).await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    started.notified().await;
    running.stop.send(()).unwrap();
    running.server.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn panic_of_a_handler_reaches_the_owner_of_the_server() {
    let broken = || async {
        if std::env::args().count() > 0 {
            panic!("as the test wants");
        }
    };
    let mut running = Running::start(Router::new().route("/", get(broken)), bounds()).await;
    let mut client = running.connect().await;
    client.write_all(REQUEST).await.unwrap();
    assert!(running.server.join_next().await.unwrap().unwrap_err().is_panic());
}
