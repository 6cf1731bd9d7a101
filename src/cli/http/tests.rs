use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[test]
fn urls_of_nodes_are_read_and_wrong_ones_say_how() {
    for (text, authority) in [
        ("http://127.0.0.1:3031", "127.0.0.1:3031"),
        ("http://node.example/", "node.example:80"),
        ("localhost:3032", "localhost:3032"),
        ("http://[::1]:3031", "[::1]:3031"),
    ] {
        assert_eq!(text.parse::<NodeUrl>().unwrap().authority(), authority);
    }
    for (text, part) in [
        ("https://a", "plain http"),
        ("http://a/v1", "no path"),
        ("http://a?x=1", "no path"),
        ("", "write it like"),
        ("http:// a", "write it like"),
    ] {
        let error = text.parse::<NodeUrl>().unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn segments_are_encoded_slash_included() {
    assert_eq!(encode("a/b c%é"), "a%2Fb%20c%25%C3%A9");
    let query = [("prefix", Some("x&y".to_owned())), ("cursor", None)];
    assert_eq!(target("/v1/docs/c", &query), "/v1/docs/c?prefix=x%26y");
    assert_eq!(target("/v1/docs/c", &[("cursor", None)]), "/v1/docs/c");
}

#[test]
fn problems_become_messages_with_code_and_status() {
    let reply = |status: u16, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    let check = |status, body, code, message: &str| {
        let failure = reply(status, body).success().unwrap_err();
        assert_eq!((failure.code(), failure.to_string().as_str()), (code, message));
    };
    check(
        404,
        r#"{"code":"not_found","detail":"no such document"}"#,
        3,
        "no such document (not_found, HTTP 404)",
    );
    check(503, r#"{"code":"stale","title":"behind"}"#, 5, "behind (stale, HTTP 503)");
    check(400, "<html>", 1, "Bad Request (HTTP 400)");
    assert!(reply(204, "").success().is_ok());
}

/// Serves one connection after the other. `answers` says what each connection sends, one piece for
/// each request; after the last piece it hangs up. Returns how many connections were made.
async fn serve(answers: Vec<Vec<&'static str>>) -> (NodeArgs, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let mut server = JoinSet::new();
    server.spawn(async move {
        for pieces in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 4096];
            for piece in pieces {
                if stream.read(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
        }
        // Whoever connects now is never answered.
        std::future::pending::<()>().await;
    });
    (NodeArgs { url, timeout: Duration::from_secs(10) }, connections, server)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRegion: eu-west\r\n\r\n{}";
const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let (node, connections, _server) = serve(vec![vec![OK, OK, OK]]).await;
    let mut client = Client::new(&node);
    for _ in 0..3 {
        let reply = client.send(Call::get("/x")).await.unwrap();
        assert_eq!(
            (reply.header("region"), reply.json()),
            (Some("eu-west"), Ok(serde_json::json!({})))
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_node_closed_is_made_again() {
    let (node, connections, _server) = serve(vec![vec![LAST], vec![LAST]]).await;
    let mut client = Client::new(&node);
    client.send(Call::get("/x")).await.unwrap();
    client.send(Call::get("/x")).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_closed_port_is_unreachable() {
    let (mut node, _connections, _server) = serve(Vec::new()).await;
    node.timeout = Duration::from_millis(20);
    let failure = Client::new(&node).send(Call::get("/x")).await.unwrap_err();
    assert_eq!(failure.code(), 5);
    assert!(failure.to_string().contains("did not answer within 20ms"), "{failure}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    node.url = unused.local_addr().unwrap().to_string().parse().unwrap();
    node.timeout = Duration::from_secs(10);
    drop(unused);
    let failure = Client::new(&node).send(Call::get("/x")).await.unwrap_err();
    assert_eq!(failure.code(), 5);
    assert!(failure.to_string().contains("is the node running?"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_request_is_reported() {
    let (node, _connections, _server) = serve(vec![vec!["HTTP/1.1 200 OK\r\nContent-"]]).await;
    let failure = Client::new(&node).send(Call::get("/x")).await.unwrap_err();
    assert_eq!(failure.code(), 5, "{failure}");
}
