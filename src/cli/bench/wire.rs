//! HTTP/1.1 over one connection, as lean as a generator of load should be: requests are bytes that
//! were made before, and of an answer only what is needed is read.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A kept-alive connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Where the parts of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    head_bytes: usize,
    /// Bytes of the body.
    pub(super) body_bytes: usize,
}

impl Answer {
    /// Tells whether the request did what it should.
    pub(super) fn is_success(self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let answer = loop {
            self.fill().await?;
            if let Some(answer) = parse_head(&self.buffer)? {
                break answer;
            }
        };
        while self.buffer.len() < answer.head_bytes + answer.body_bytes {
            self.fill().await?;
        }
        Ok(answer)
    }

    /// Returns the body of the last answer.
    pub(super) fn body(&self, answer: Answer) -> &[u8] {
        self.buffer.get(answer.head_bytes..).unwrap_or_default()
    }

    /// Returns a header of the last answer; `name` is in lower case.
    pub(super) fn header(&self, answer: Answer, name: &str) -> Option<&str> {
        let head = self.buffer.get(..answer.head_bytes)?;
        head.split(|byte| *byte == b'\n').find_map(|line| header_value(line, name.as_bytes()))
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node hung up")),
            _ => Ok(()),
        }
    }
}

/// Reads the head of an answer, if all of it is there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err(strange("a head without end")) } else { Ok(None) };
    };
    let head = bytes.get(..end).unwrap_or_default();
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix(b"HTTP/1.1 "))
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
        .ok_or_else(|| strange("no status line of HTTP/1.1"))?;
    let mut body_bytes = 0;
    for line in lines {
        if header_value(line, b"transfer-encoding").is_some() {
            return Err(strange("a body of unknown length"));
        }
        if let Some(value) = header_value(line, b"content-length") {
            body_bytes = value.parse().map_err(|_| strange("a bad Content-Length"))?;
        }
    }
    if body_bytes > MAX_BODY {
        return Err(strange("a body that is too long"));
    }
    Ok(Some(Answer { status, head_bytes: end + 4, body_bytes }))
}

fn header_value<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l str> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value.trim_ascii()).ok()
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the node answered with {what}"))
}

const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_once_they_are_whole() {
        let text = b"HTTP/1.1 201 Created\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello";
        for end in 0..text.len() - 8 {
            assert_eq!(parse_head(&text[..end]).unwrap(), None, "{end}");
        }
        let answer = parse_head(text).unwrap().unwrap();
        assert_eq!((answer.status, answer.body_bytes), (201, 5));
        assert_eq!(&text[answer.head_bytes..], b"hello");
        let empty = parse_head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((empty.status, empty.body_bytes), (204, 0));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in [
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 xx\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_head(&vec![b'x'; MAX_HEAD + 1]).is_err());
    }

    #[test]
    fn header_names_have_no_case() {
        assert_eq!(header_value(b"Session-Token: abc\r", b"session-token"), Some("abc"));
        assert_eq!(header_value(b"session-tokens: abc", b"session-token"), None);
        assert_eq!(header_value(b"etag", b"session-token"), None);
    }
}
