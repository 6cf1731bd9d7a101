//! The HTTP client of the commands: one kept-alive connection to one node, with timeouts, and
//! with the node's own error messages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config::parse_duration;
use crate::cli::Failure;

/// Which node a command talks to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node to talk to
    #[arg(
        long,
        env = "ANABRANCH_URL",
        default_value = "http://127.0.0.1:3031",
        value_name = "URL"
    )]
    pub(crate) url: NodeUrl,

    /// How long to wait for an answer
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// The address of a node, as `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeUrl {
    host: String,
    port: u16,
}

impl NodeUrl {
    /// Returns `host:port`, for dialling and for the `Host` header.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write it like http://127.0.0.1:3031";
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| format!("'{text}' is no URL: {help}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("nodes speak plain http, not '{full}': {help}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("the URL of a node has no path: {help}"));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("'{text}' names no host: {help}"))?;
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80) })
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// Starts a request for a path that is encoded already.
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Starts a `GET`.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// Adds a header, if there is a value.
    ///
    /// # Errors
    /// `Usage` if the value cannot stand in a header.
    pub(crate) fn header(
        mut self,
        name: &'static str,
        value: Option<&str>,
    ) -> Result<Self, Failure> {
        if let Some(value) = value {
            self.headers.insert(name, header_value(name, value)?);
        }
        Ok(self)
    }

    /// Adds a body.
    pub(crate) fn body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = body.into();
        self
    }

    fn request(&self, authority: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.target.as_str())
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("anabranch/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(self.body.clone()))
            .map_err(|error| Failure::Usage(format!("cannot ask for {}: {error}", self.target)))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// Returns a header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// `General` if it is none.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::General(format!("the node's answer is no JSON: {error}")))
    }

    /// Keeps a success, and turns anything else into the failure that the node describes.
    ///
    /// # Errors
    /// What the node said.
    pub(crate) fn success(self) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// Returns the stable code of a refusal.
    pub(crate) fn problem_code(&self) -> Option<String> {
        let problem: Value = serde_json::from_slice(&self.body).ok()?;
        problem.get("code").and_then(Value::as_str).map(str::to_owned)
    }

    /// Returns the failure that the node describes.
    pub(crate) fn failure(&self) -> Failure {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |key: &str| problem.get(key).and_then(Value::as_str).map(str::to_owned);
        let reason = self.status.canonical_reason().unwrap_or("an unknown status");
        let detail = text("detail").or_else(|| text("title")).unwrap_or_else(|| reason.to_owned());
        let message = match text("code") {
            Some(code) => format!("{detail} ({code}, HTTP {})", self.status.as_u16()),
            None => format!("{detail} (HTTP {})", self.status.as_u16()),
        };
        match self.status.as_u16() {
            404 => Failure::NotFound(message),
            503 | 504 => Failure::Unreachable(message),
            _ => Failure::General(message),
        }
    }
}

/// A connection to one node, made when it is first needed and made again when it was closed.
#[derive(Debug)]
pub(crate) struct Client {
    url: NodeUrl,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
    connection: JoinSet<()>,
    /// Added to every request.
    headers: HeaderMap,
    /// Where the last write is that did not get as far as it was asked to.
    short: Option<String>,
}

impl Client {
    /// Makes a client; nothing is dialled yet.
    pub(crate) fn new(node: &NodeArgs) -> Self {
        Self {
            url: node.url.clone(),
            timeout: node.timeout,
            sender: None,
            connection: JoinSet::new(),
            headers: HeaderMap::new(),
            short: None,
        }
    }

    /// Adds a header to every request, if there is a value.
    ///
    /// # Errors
    /// `Usage` if the value cannot stand in a header.
    pub(crate) fn with_header(
        mut self,
        name: &'static str,
        value: Option<&str>,
    ) -> Result<Self, Failure> {
        if let Some(value) = value {
            self.headers.insert(name, header_value(name, value)?);
        }
        Ok(self)
    }

    /// Fails if a write since the last call did not get as far in time as it was asked to.
    ///
    /// # Errors
    /// `NotFarEnough`, saying where the write is.
    pub(crate) fn far_enough(&mut self) -> Result<(), Failure> {
        self.short.take().map_or(Ok(()), |regions| Err(not_far_enough(&regions)))
    }

    /// Sends a request and returns a success.
    ///
    /// # Errors
    /// `Unreachable`, or what the node said.
    pub(crate) async fn send(&mut self, call: Call) -> Result<Reply, Failure> {
        self.exchange(&call).await?.success()
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// # Errors
    /// `Unreachable` if there is no answer in time.
    pub(crate) async fn exchange(&mut self, call: &Call) -> Result<Reply, Failure> {
        let limit = self.timeout;
        match timeout(limit, self.attempt(call)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // An answer that comes late must not be taken for the next one.
                self.sender = None;
                let url = &self.url;
                Err(Failure::Unreachable(format!(
                    "{url} did not answer within {limit:?}; raise --timeout or ask another node"
                )))
            }
        }
    }

    /// Sends a request whose answer comes line by line, and returns once it begins. Each line may
    /// take as long as an answer.
    ///
    /// # Errors
    /// `Unreachable`, or what the node said.
    pub(crate) async fn stream(mut self, call: Call) -> Result<Lines, Failure> {
        let limit = self.timeout;
        let silent = Failure::Unreachable(format!("{} did not answer within {limit:?}", self.url));
        let begin = async {
            let request = self.request(&call)?;
            let mut sender = self.dial().await?;
            let response =
                sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            Ok::<_, Failure>((sender, response))
        };
        let (sender, response) = timeout(limit, begin).await.map_err(|_| silent)??;
        if response.status().is_success() {
            self.sender = Some(sender);
            return Ok(Lines { client: self, body: response.into_body(), read: Vec::new() });
        }
        let reply = timeout(limit, self.finish(sender, response)).await;
        Err(reply.map_or(Failure::Unreachable("the refusal does not end".to_owned()), |reply| {
            reply.map_or_else(|failure| failure, |reply| reply.failure())
        }))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = call.request(&self.url.authority())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    async fn attempt(&mut self, call: &Call) -> Result<Reply, Failure> {
        let mut request = self.request(call)?;
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        if let Some(mut sender) = kept {
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                // The node closed the idle connection before it saw the request: dial again.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(&error.into_error())),
                },
            }
        }
        let mut sender = self.dial().await?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        self.finish(sender, response).await
    }

    async fn dial(&mut self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.url.authority()).await.map_err(|error| {
            Failure::Unreachable(format!(
                "cannot reach {}: {error}; is the node running? (--url or ANABRANCH_URL says \
                 which node to ask)",
                self.url
            ))
        })?;
        // A request goes out in one piece, so waiting for more would only delay it.
        stream.set_nodelay(true).map_err(|error| Failure::General(error.to_string()))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        self.connection.abort_all();
        self.connection.spawn(async move {
            // Whatever ends the connection is also reported to the request that uses it.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn finish(
        &mut self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<Reply, Failure> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_REPLY_BYTES).collect().await.map_err(|error| {
            Failure::General(format!("the answer of {} cannot be read: {error}", self.url))
        })?;
        self.sender = Some(sender);
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        if text("write-concern").is_some_and(|outcome| outcome.ends_with("; unmet")) {
            self.short = Some(text("acked-regions").unwrap_or("-").to_owned());
        }
        Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let cause = super::failure::with_sources(error);
        Failure::Unreachable(format!("the connection to {} broke: {cause}", self.url))
    }
}

/// Says where a write is that did not get as far as it was asked to.
pub(crate) fn not_far_enough(regions: &str) -> Failure {
    Failure::NotFarEnough(format!(
        "written, but in time only known to be durable in {regions}; it stays written, and \
         reaches the other regions when they can be reached"
    ))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Failure::Usage(format!("the value for {name} has characters that no header takes"))
    })
}

/// An answer that comes line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    /// It carries the connection.
    client: Client,
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// Returns the next line that is not empty, without its end, or `None` after the last one.
    ///
    /// # Errors
    /// `Unreachable` if the connection breaks, or nothing comes within `patience`.
    ///
    /// # Cancel safety
    /// What was read stays here when the future is dropped.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(line.trim_ascii_end().len());
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            let Some(frame) = timeout(patience, self.body.frame()).await.map_err(|_| {
                let url = &self.client.url;
                Failure::Unreachable(format!("{url} has been silent for {patience:?}"))
            })?
            else {
                let last = std::mem::take(&mut self.read);
                return Ok(Some(last).filter(|line| !line.trim_ascii().is_empty()));
            };
            let frame = frame.map_err(|error| self.client.broken(&error))?;
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(Failure::General("a line of the answer does not end".to_owned()));
            }
        }
    }
}

/// Writes one segment of a path or one value of a query, percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Writes a path with the parts of its query that have a value.
pub(crate) fn target(path: &str, query: &[(&str, Option<String>)]) -> String {
    let parts: Vec<String> = query
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|v| format!("{name}={}", encode(v))))
        .collect();
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}

/// The longest answer that is taken: a page of documents at their default limits stays far below.
const MAX_REPLY_BYTES: usize = 1 << 30;

/// The longest line that is taken: a few values of a document at its default limit.
const MAX_LINE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests;
