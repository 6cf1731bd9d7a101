//! Conflicts for the tests.

use serde_json::{Value, json};

use super::row::Row;

/// An open conflict, as the API writes it.
pub(super) fn conflict() -> Value {
    json!({
        "id": "3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b",
        "revision": "00000000000000a1",
        "document": "cities/paris",
        "document_id": "8d7e2f10-0000-5000-8000-000000000001",
        "path": "/population",
        "kind": "value",
        "base": {"value": 2_100_000},
        "policy": "auto",
        "policy_version": "default",
        "state": "open",
        "winner": "12@a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "why": "the greatest operation id shows until someone decides",
        "candidates": [
            {"id": "12@5d0c11223344556677889900aabbccdd", "value": 2_102_650, "deleted": false,
             "region": "us-east", "author": null, "client": false,
             "origin": "5d0c1122-3344-5566-7788-9900aabbccdd",
             "at": "2026-03-01T10:15:30.123456Z",
             "change": "aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44"},
            {"id": "12@a1b2c3d4e5f60718293a4b5c6d7e8f90", "value": 2_099_000, "deleted": false,
             "region": "eu-west", "author": "alice", "client": false,
             "origin": "a1b2c3d4-e5f6-0718-293a-4b5c6d7e8f90",
             "at": "2026-03-01T10:15:30.124000Z",
             "change": "0011bb22cc33dd44ee55ff66aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44"},
        ],
        "settled": null,
        "acts": [],
        "at": "2026-03-01T10:15:30.124000Z",
    })
}

/// What ben did about it.
pub(super) fn act(name: &str, note: Option<&str>) -> Value {
    json!({
        "act": name, "region": "ap-south", "author": "ben",
        "origin": "00ff00ff-0000-0000-0000-000000000000", "at": "2026-03-01T10:16:30.000000Z",
        "change": "ffee00112233445566778899aabbccddeeff00112233445566778899aabbccdd", "note": note,
    })
}

/// The same, with what the test changes.
pub(super) fn row(change: impl FnOnce(&mut Value)) -> Row {
    let mut value = conflict();
    change(&mut value);
    Row::read(value).unwrap()
}

/// Checks that a text fits a terminal.
#[track_caller]
pub(super) fn check_width(text: &str, width: usize) {
    use unicode_width::UnicodeWidthStr;
    for line in text.lines() {
        assert!(line.width() <= width, "{line:?} is wider than {width} in\n{text}");
    }
}
