//! A small HTTP/1.1 client: keep-alive connections to one node, and streams.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::soon;

type Connection = SendRequest<Full<Bytes>>;

/// Talks to one node.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    connections: Mutex<JoinSet<()>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default(), connections: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call { client: self, method, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::GET, path)
    }

    /// A `PUT` of a document, named `collection/key`.
    pub(crate) fn put(&self, name: &str, value: &Value) -> Call<'_> {
        self.call(Method::PUT, docs(name)).json(value)
    }

    /// A `PATCH` with an RFC 7396 merge patch.
    pub(crate) fn merge(&self, name: &str, patch: &Value) -> Call<'_> {
        self.call(Method::PATCH, docs(name)).body("application/merge-patch+json", patch.to_string())
    }

    /// A `PATCH` with an RFC 6902 patch.
    pub(crate) fn json_patch(&self, name: &str, patch: &Value) -> Call<'_> {
        self.call(Method::PATCH, docs(name)).body("application/json-patch+json", patch.to_string())
    }

    /// A `PATCH` with intent-preserving edits.
    pub(crate) fn edit(&self, name: &str, edits: &Value) -> Call<'_> {
        let edits = edits.to_string();
        self.call(Method::PATCH, docs(name)).body("application/vnd.anabranch.edits+json", edits)
    }

    pub(crate) fn read(&self, name: &str) -> Call<'_> {
        self.get(docs(name))
    }

    pub(crate) fn delete(&self, name: &str) -> Call<'_> {
        self.call(Method::DELETE, docs(name))
    }

    /// The conflicts that a query lists, first page.
    pub(crate) async fn conflicts(&self, query: &str) -> Vec<Value> {
        let page = self.get(format!("/v1/conflicts?{query}")).ok().await.value();
        page["conflicts"].as_array().unwrap().clone()
    }

    pub(crate) fn resolve(&self, conflict: &Value, body: &Value) -> Call<'_> {
        let id = conflict["id"].as_str().unwrap();
        self.call(Method::POST, format!("/v1/conflicts/{id}:resolve")).json(body)
    }

    /// The document if it is there.
    pub(crate) async fn value(&self, name: &str) -> Option<Value> {
        let reply = self.read(name).send().await;
        match reply.status {
            404 => None,
            _ => Some(reply.expect(200).value()),
        }
    }

    /// Connects; `driver` owns what keeps the connection going.
    async fn connect(&self, driver: &Mutex<JoinSet<()>>) -> Connection {
        let stream = TcpStream::connect(self.address).await.expect("the node listens");
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        // An error of the connection is told by the request that is under way.
        let drive = async move { drop(connection.await) };
        driver.lock().unwrap().spawn(drive);
        sender
    }

    async fn connection(&self) -> Connection {
        loop {
            let idle = self.idle.lock().unwrap().pop();
            match idle {
                None => return self.connect(&self.connections).await,
                Some(mut connection) => {
                    if connection.ready().await.is_ok() {
                        return connection;
                    }
                }
            }
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    pub(crate) fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE.as_str(), media_type)
    }

    /// Sends the request and expects success.
    pub(crate) async fn ok(self) -> Reply {
        let told = format!("{} {}", self.method, self.path);
        let reply = self.send().await;
        assert!((200..300).contains(&reply.status), "{told}: {reply:?}");
        reply
    }

    /// Sends the request and expects a problem.
    pub(crate) async fn refused(self, status: u16, code: &str) -> Reply {
        let told = format!("{} {}", self.method, self.path);
        self.send().await.problem(status, code, &told)
    }

    pub(crate) async fn send(self) -> Reply {
        let client = self.client;
        let mut connection = client.connection().await;
        let told = format!("{} {}", self.method, self.path);
        let response = soon(&told, connection.send_request(self.into_request())).await;
        let response = response.unwrap_or_else(|error| panic!("{told}: {error}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = soon(&told, response.into_body().collect()).await.unwrap().to_bytes();
        client.idle.lock().unwrap().push(connection);
        Reply { status, headers, body }
    }

    /// Opens a stream of lines, on a connection of its own.
    pub(crate) async fn lines(self) -> Lines {
        let driver = Mutex::default();
        let mut connection = self.client.connect(&driver).await;
        let response =
            soon("a stream", connection.send_request(self.into_request())).await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let body = response.into_body();
        Lines { headers, body, buffer: BytesMut::new(), _connection: (connection, driver) }
    }

    fn into_request(self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        request = request.header(HOST, self.client.address.to_string());
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body)).unwrap()
    }
}

/// A reply, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn find(&self, header: &str) -> Option<&str> {
        self.headers.get(header).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn header(&self, header: &str) -> &str {
        self.find(header).unwrap_or_else(|| panic!("no {header}: {self:?}"))
    }

    pub(crate) fn etag(&self) -> String {
        self.header("etag").to_owned()
    }

    pub(crate) fn token(&self) -> String {
        self.header("session-token").to_owned()
    }

    /// Expects a problem of RFC 9457 with everything that it has to have.
    fn problem(self, status: u16, code: &str, told: &str) -> Self {
        assert_eq!(self.status, status, "{told}: {self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{told}");
        assert!(self.find("region").is_some(), "{told}: {self:?}");
        let problem = self.value();
        assert_eq!(problem["code"], code, "{told}: {problem}");
        assert_eq!(problem["type"], format!("urn:anabranch:error:{code}"), "{told}");
        assert_eq!(problem["status"], status, "{told}");
        for member in ["title", "detail"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{told}: no {member}: {problem}");
        }
        self
    }
}

/// An open stream of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    _connection: (Connection, Mutex<JoinSet<()>>),
}

impl Lines {
    /// The next line, without its end; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            let frame = soon("a line of a stream", self.body.frame()).await?;
            if let Ok(data) = frame.expect("the stream is not broken").into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// The path of a document, named `collection/key`.
pub(crate) fn docs(name: &str) -> String {
    format!("/v1/docs/{}", encoded(name))
}

/// Percent-encodes everything that is not plain in a path.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
        out
    })
}
