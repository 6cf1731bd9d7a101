//! A client of a few lines, so that the tests do not check the program with its own code.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::support::PATIENCE;

/// A kept-alive connection to one node.
#[derive(Debug)]
pub(super) struct Http {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Http {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Reads a JSON value that must be there.
    #[track_caller]
    pub(super) fn get(&mut self, path: &str) -> Value {
        let reply = self.send("GET", path, "", "").unwrap();
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    /// Writes a document, which must succeed.
    #[track_caller]
    pub(super) fn put(&mut self, path: &str, body: &Value) {
        let reply = self.send("PUT", path, "application/json", &body.to_string()).unwrap();
        assert!(reply.is_success(), "{path}: {reply:?}");
    }

    /// Returns every document of a collection as (key, value).
    pub(super) fn all(&mut self, collection: &str) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/docs/{collection}?limit=1000&values=true{cursor}");
            let page = self.get(&path);
            for document in page["documents"].as_array().unwrap() {
                found.push((
                    document["key"].as_str().unwrap().to_owned(),
                    document["value"].clone(),
                ));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }

    /// Sends a request and reads the answer. After an error the next one dials again.
    pub(super) fn send(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> io::Result<Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => dial(self.address)?,
        };
        let host = self.address;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        connection.get_mut().write_all(request.as_bytes())?;
        let reply = read_reply(&mut connection)?;
        self.connection = Some(connection);
        Ok(reply)
    }
}

fn dial(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

fn read_reply(from: &mut impl BufRead) -> io::Result<Reply> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let start = read_line(from)?;
    let status = start.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad(&start))?;
    let mut length = 0;
    loop {
        let line = read_line(from)?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().map_err(|_| bad(&line))?;
        }
        assert!(!line.starts_with("transfer-encoding"), "this client reads whole answers");
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(|_| bad("no UTF-8"))?;
    Ok(Reply { status, body })
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    // A connection that was cut inside a line has not said anything.
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
