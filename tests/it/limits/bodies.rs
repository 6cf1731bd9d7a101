//! Bodies: how large one may be, how many bytes may be in flight, how many requests may wait.

use anabranch::settings::Limits;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{sized, with};
use crate::support::{Client, eventually, seen, soon};

/// A connection that writes what a test tells it to, byte for byte.
struct Wire(TcpStream);

impl Wire {
    async fn open(client: &Client, head: &str) -> Self {
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        let head = format!(
            "PUT /v1/docs/notes/wire HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\n{head}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads the reply to its end.
    async fn reply(mut self) -> String {
        let mut reply = Vec::new();
        soon("a reply", self.0.read_to_end(&mut reply)).await.unwrap();
        String::from_utf8(reply).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_body() {
    let cluster = with(Limits { body_bytes: 1_000, ..Limits::default() }).await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &sized(1_000)).send().await.expect(201);
    let problem = solo.put("notes/a", &sized(1_001)).refused(413, "body_too_large").await.value();
    assert!(problem["detail"].as_str().unwrap().contains("at most 1000 bytes"), "{problem}");
    solo.put("notes/a", &sized(3_000_000)).refused(413, "body_too_large").await;
    let mut chunked = Wire::open(solo, "transfer-encoding: chunked").await;
    for _ in 0..2 {
        chunked.write(&format!("200\r\n{}\r\n", " ".repeat(0x200))).await;
    }
    chunked.write("0\r\n\r\n").await;
    let reply = chunked.reply().await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("body_too_large"), "{reply}");
    let announced = Wire::open(solo, "content-length: 4000000000000\r\nexpect: 100-continue").await;
    let reply = announced.reply().await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_bodies_in_flight() {
    let limits = Limits { body_bytes: 800, in_flight_bytes: 1_000, ..Limits::default() };
    let cluster = with(limits).await;
    let solo = cluster.at("solo");
    let body = sized(800).to_string();
    let mut slow = Wire::open(solo, "content-length: 800").await;
    slow.write(&body[..700]).await;
    eventually("the first body takes what may be in flight", async || {
        let reply = solo.put("notes/a", &sized(400)).send().await;
        let refused = reply.status == 429 && reply.value()["code"] == "too_many_bytes_in_flight";
        seen(refused && reply.header("retry-after") == "1", || format!("{reply:?}"))
    })
    .await;
    solo.put("notes/b", &sized(100)).ok().await;
    slow.write(&body[700..]).await;
    let reply = slow.reply().await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    solo.put("notes/a", &sized(400)).ok().await;
    assert_eq!(solo.value("notes/wire").await, Some(sized(800)));
    cluster.stop().await;
}

/// Requests that find no room in the queue of an owner are told to come back; those that were
/// answered are there.
#[tokio::test(flavor = "multi_thread")]
async fn the_requests_that_wait_for_an_owner() {
    let cluster = with(Limits { queue: 1, ..Limits::default() }).await;
    let solo = cluster.at("solo");
    let members = (0..5_000).map(|n| (format!("member-{n}"), json!(n)));
    let large = serde_json::Value::Object(members.collect());
    solo.put("notes/a", &large).ok().await;
    let mut counted = 0_u64;
    eventually("a request is refused", async || {
        let increment = json!([{"op": "increment", "path": "/counted"}]);
        let calls = (0..32).map(|_| solo.edit("notes/a", &increment).send());
        let replies = futures::future::join_all(calls).await;
        counted += replies.iter().filter(|reply| reply.status == 200).count() as u64;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
        for reply in &refused {
            // All are for one document, which fills its share before the queue is full, or after.
            let code = reply.value()["code"].clone();
            let full = code == "owner_queue_full" || code == "document_queue_full";
            assert!(reply.status == 429 && full, "{reply:?}");
            assert_eq!(reply.header("retry-after"), "1");
        }
        seen(!refused.is_empty(), || format!("{counted} requests were all taken"))
    })
    .await;
    assert_eq!(solo.value("notes/a").await.unwrap()["counted"], counted);
    cluster.stop().await;
}
