//! Who may use what, where a lint cannot say it: the pure parts stay pure, Automerge stays in its
//! room, files stay readable.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is its purpose")]

use std::fs;
use std::path::{Path, PathBuf};

/// Returns every Rust file below a directory of the repository, with its text.
fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut waiting = vec![root];
    let mut files = Vec::new();
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

/// Finds lines, comments aside, that hold one of the words.
fn find(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    found
}

#[test]
fn replication_is_pure() {
    let files = sources("src/replication");
    assert!(files.len() > 3, "the sources have moved");
    let banned = [
        "Instant",
        "SystemTime",
        "tokio",
        "rand::",
        "HashMap",
        "HashSet",
        "std::fs",
        "std::net",
        "std::thread",
        "new_v4",
        "std::env",
    ];
    assert_eq!(find(&files, &banned), Vec::<String>::new());
}

#[test]
fn the_crdt_crate_touches_nothing_outside() {
    let files = sources("crdt/src");
    assert!(files.len() > 3, "the sources have moved");
    let banned = ["tokio", "std::fs", "std::net", "std::thread", "std::env", "SystemTime"];
    assert_eq!(find(&files, &banned), Vec::<String>::new());
}

#[test]
fn automerge_stays_in_the_document_module() {
    let mut files = sources("crdt/src");
    files.extend(sources("src"));
    files.retain(|(path, _)| !path.to_string_lossy().contains("crdt/src/document"));
    // What judges the documents must not use what it judges.
    files.retain(|(path, _)| !path.to_string_lossy().contains("src/sim/check"));
    assert_eq!(find(&files, &["automerge::"]), Vec::<String>::new());
}

#[test]
fn no_file_is_too_long_to_read() {
    let files = ["src", "crdt/src", "tests", "examples"].into_iter().flat_map(sources);
    let long = files.filter(|(_, text)| text.lines().count() > 800);
    let long: Vec<PathBuf> = long.map(|(path, _)| path).collect();
    assert_eq!(long, Vec::<PathBuf>::new(), "split these");
}
