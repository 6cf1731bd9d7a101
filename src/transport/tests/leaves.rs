//! Offline-first clients.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::rig::{FRAME_BYTES, Log, Node, Pki, address, settings, soon};
use crate::pki::{self, ClientName, Overwrite, Validity};
use crate::settings::PkiPaths;
use crate::transport::leaf::{self, LeafConnection, LeafService, LeafStream};
use crate::transport::{FrameError, panic_message};

/// Answers each frame with the client's name before it.
struct Echo;

impl LeafService for Echo {
    fn serve(&self, client: ClientName, mut stream: LeafStream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Ok(Some(frame)) = stream.receive().await {
                assert_ne!(frame.as_ref(), b"panic", "asked for");
                let answer = [client.as_str().as_bytes(), b": ", &frame].concat();
                stream.send(answer.into()).await.unwrap();
            }
            stream.finish();
        })
    }
}

fn client(pki: &Pki, name: &str) -> PkiPaths {
    let name: ClientName = name.parse().unwrap();
    let issued = pki.authority.issue_client(&name, Validity::days(30)).unwrap();
    issued.store(pki.directory(), Overwrite::Replace).unwrap();
    pki::paths(pki.directory(), name.as_str())
}

fn node(pki: &Pki) -> Node {
    Node::with_leaf(&settings(pki, "eu", &[]), Some(Arc::new(Echo))).unwrap()
}

async fn connect(pki: &Pki, node: &Node, paths: &PkiPaths) -> Result<LeafConnection, String> {
    soon(leaf::connect(address(node), paths, pki.authority.cluster(), FRAME_BYTES))
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_client_holds_several_conversations() {
    let pki = Pki::new();
    let node = node(&pki);
    let connection = connect(&pki, &node, &client(&pki, "laptop")).await.unwrap();
    assert_eq!(connection.region().as_str(), "eu");
    let (mut one, mut two) = (connection.open().await.unwrap(), connection.open().await.unwrap());
    two.send(Bytes::from_static(b"two")).await.unwrap();
    one.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(soon(one.receive()).await.unwrap().unwrap().as_ref(), b"laptop: one");
    assert_eq!(soon(two.receive()).await.unwrap().unwrap().as_ref(), b"laptop: two");
    one.finish();
    assert!(soon(one.receive()).await.unwrap().is_none());

    let over = two.send(Bytes::from(vec![0; FRAME_BYTES + 1])).await.unwrap_err();
    assert!(matches!(over, FrameError::TooLarge { .. }), "{over}");
    soon(connection.close()).await;
    assert!(connection.open().await.is_err());
}

#[tokio::test]
async fn a_client_hears_when_the_node_stops() {
    let pki = Pki::new();
    let node = node(&pki);
    let connection = connect(&pki, &node, &client(&pki, "laptop")).await.unwrap();
    node.stop().await;
    let reason = soon(connection.closed()).await;
    assert!(reason.contains("the node is shutting down"), "{reason}");
}

#[tokio::test]
async fn clients_are_refused_with_the_reason_on_both_sides() {
    let mut log = Log::capture();
    let (pki, other) = (Pki::of(1, "one"), Pki::of(1, "other"));
    let node = node(&pki);
    let own = client(&pki, "laptop");
    let forged = PkiPaths { authority: own.authority.clone(), ..client(&other, "laptop") };
    let reason = connect(&pki, &node, &forged).await.unwrap_err();
    assert!(reason.contains("it is of another cluster's authority"), "{reason}");
    log.warning("the peer at 127.0.0.1 shows a certificate of another cluster's authority").await;

    let closed_to_clients = Node::start(&pki, "us", &[], |_| {});
    let reason = connect(&pki, &closed_to_clients, &own).await.unwrap_err();
    assert!(reason.contains("this node takes no clients"), "{reason}");
    log.warning("this node takes no clients").await;
}

#[tokio::test]
async fn a_panic_in_a_conversation_reaches_the_owner_of_the_tasks() {
    let pki = Pki::new();
    let mut node = node(&pki);
    let connection = connect(&pki, &node, &client(&pki, "laptop")).await.unwrap();
    let mut stream = connection.open().await.unwrap();
    stream.send(Bytes::from_static(b"panic")).await.unwrap();
    let ended = soon(node.tasks.join_next()).await.unwrap().unwrap_err();
    let message = panic_message(ended);
    assert!(message.contains("asked for"), "{message}");
}
