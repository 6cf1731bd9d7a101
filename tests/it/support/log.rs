//! The log of this process, from information upwards, with the region that each line is of.
//!
//! It is one for all tests, because parts of a node log from threads of their own. A test finds
//! its lines by names that no other test uses.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{eventually, seen};

static LINES: OnceLock<Mutex<String>> = OnceLock::new();

/// Begins to keep the log, once.
pub(crate) fn capture() {
    LINES.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(|| Writer)
            .init();
        Mutex::default()
    });
}

/// Returns the lines that hold every one of the words.
pub(crate) fn with(words: &[&str]) -> Vec<String> {
    let lines = LINES.get().expect("capture() was called").lock();
    let lines = lines.unwrap_or_else(PoisonError::into_inner);
    let holds = |line: &&str| words.iter().all(|word| line.contains(word));
    lines.lines().filter(holds).map(str::to_owned).collect()
}

/// Waits for a line that holds every one of the words.
pub(crate) async fn said(words: &[&str]) {
    eventually(&format!("a log line with {words:?}"), async || {
        seen(!with(words).is_empty(), || with(&words[..1]).join("\n"))
    })
    .await;
}

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(lines) = LINES.get() {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_str(&String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
