//! Writers that put a node under load and remember what they were told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::http::Http;
use super::support::PATIENCE;

/// The collection that is written to.
pub(super) const COLLECTION: &str = "load";

/// The counter that all writers of all regions add to.
pub(super) const SHARED: &str = "shared";

/// What one key must hold, as far as its writers know.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last value that was acknowledged.
    acknowledged: Option<Value>,
    /// Values that were sent since then and never answered: each may have been written or not.
    unanswered: Vec<Value>,
}

/// What a counter must hold: the acknowledged sum, and at most the unanswered ones more.
#[derive(Debug, Clone, Default)]
struct Sum {
    acknowledged: u64,
    unanswered: u64,
}

/// What writers were told.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    documents: BTreeMap<String, Known>,
    counters: BTreeMap<String, Sum>,
}

impl Memory {
    /// Adds what another writer was told.
    pub(super) fn merge(&mut self, other: &Self) {
        self.documents.extend(other.documents.clone());
        for (key, sum) in &other.counters {
            let own = self.counters.entry(key.clone()).or_default();
            own.acknowledged += sum.acknowledged;
            own.unanswered += sum.unanswered;
        }
    }

    /// Checks a whole collection: every acknowledged write is there, and nothing is torn.
    pub(super) fn check(&self, found: Vec<(String, Value)>) -> Result<(), String> {
        let mut found: BTreeMap<String, Value> = found.into_iter().collect();
        for (key, known) in &self.documents {
            let value = found.remove(key);
            let is_known = value == known.acknowledged
                || value.as_ref().is_some_and(|value| known.unanswered.contains(value));
            if !is_known {
                return Err(format!("{key} is {value:?}, but its writer knows {known:?}"));
            }
        }
        for (key, sum) in &self.counters {
            let value = found.remove(key).and_then(|document| document["count"].as_u64());
            let allowed = sum.acknowledged..=sum.acknowledged + sum.unanswered;
            if !value.is_some_and(|value| allowed.contains(&value)) {
                return Err(format!("counter {key} is {value:?}, not within {allowed:?}"));
            }
        }
        if found.is_empty() { Ok(()) } else { Err(format!("nobody wrote {found:?}")) }
    }
}

/// One client with a connection of its own. Every key but the shared counter has one writer.
#[derive(Debug)]
pub(super) struct Writer {
    name: String,
    random: ChaCha8Rng,
    serial: u64,
    memory: Memory,
}

/// What all writers share while they write.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Writes that were acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Set when enough was written.
    pub(super) stop: AtomicBool,
}

impl Writer {
    /// Makes a writer; what it writes follows from the seed.
    pub(super) fn new(name: String, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { name, random, serial: 0, memory: Memory::default() }
    }

    /// Returns what the writer knows.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes the counters, so that all later increments add to the same ones.
    pub(super) fn make_counters(&mut self, node: SocketAddr, shared: bool) {
        let mut http = Http::new(node);
        let own = format!("{}-counter", self.name);
        let names = if shared { vec![own, SHARED.to_owned()] } else { vec![own] };
        for name in names {
            http.put(&path(&name), &json!({}));
            self.increment(&mut http, name).unwrap();
        }
    }

    /// Writes until the node does not answer or enough is written.
    pub(super) fn run(&mut self, node: SocketAddr, traffic: &Traffic) {
        let mut http = Http::new(node);
        // A test that fails while writers run still waits for them.
        let deadline = Instant::now() + PATIENCE;
        while !traffic.stop.load(Ordering::Relaxed) && Instant::now() < deadline {
            if self.write(&mut http).is_err() {
                return;
            }
            traffic.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, http: &mut Http) -> io::Result<()> {
        self.serial += 1;
        let (name, serial) = (&self.name, self.serial);
        match self.random.random_range(0..10) {
            0..6 => {
                let key = format!("{name}-{serial:06}");
                self.put(http, key)
            }
            6..8 => {
                let key = format!("{name}-revised-{}", serial % 4);
                self.put(http, key)
            }
            8 => {
                let key = format!("{name}-counter");
                self.increment(http, key)
            }
            _ => self.increment(http, SHARED.to_owned()),
        }
    }

    fn put(&mut self, http: &mut Http, key: String) -> io::Result<()> {
        let filler = "word ".repeat(self.random.random_range(0..400));
        let n = self.serial;
        let value = json!({"writer": self.name, "n": n, "filler": filler, "last": [n, {"n": n}]});
        let known = self.memory.documents.entry(key.clone()).or_default();
        known.unanswered.push(value.clone());
        answered(http.send("PUT", &path(&key), "application/json", &value.to_string()))?;
        *known = Known { acknowledged: Some(value), unanswered: Vec::new() };
        Ok(())
    }

    fn increment(&mut self, http: &mut Http, key: String) -> io::Result<()> {
        let edits = r#"[{"op": "increment", "path": "/count", "by": 1}]"#;
        let media_type = "application/vnd.anabranch.edits+json";
        let reply = http.send("PATCH", &path(&key), media_type, edits);
        let sum = self.memory.counters.entry(key).or_default();
        sum.unanswered += 1;
        answered(reply)?;
        sum.unanswered -= 1;
        sum.acknowledged += 1;
        Ok(())
    }
}

fn answered(reply: io::Result<super::http::Reply>) -> io::Result<()> {
    let reply = reply?;
    assert!(reply.is_success(), "a node under load refused: {reply:?}");
    Ok(())
}

fn path(key: &str) -> String {
    format!("/v1/docs/{COLLECTION}/{key}")
}

#[test]
fn a_lost_a_torn_and_a_foreign_write_are_noticed() {
    let known = |acknowledged, unanswered: &[Value]| Known {
        acknowledged,
        unanswered: unanswered.to_vec(),
    };
    let memory = Memory {
        documents: BTreeMap::from([
            ("kept".to_owned(), known(Some(json!(1)), &[json!(2), json!(3)])),
            ("open".to_owned(), known(None, &[json!(4)])),
        ]),
        counters: BTreeMap::from([("n".to_owned(), Sum { acknowledged: 5, unanswered: 1 })]),
    };
    let check = |found: &[(&str, Value)]| {
        memory.check(found.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    };
    let count = |n| ("n", json!({"count": n}));
    for good in [
        &[("kept", json!(1)), count(5)][..],
        &[("kept", json!(3)), count(6)],
        &[("kept", json!(2)), ("open", json!(4)), count(5)],
    ] {
        assert_eq!(check(good), Ok(()));
    }
    for (bad, part) in [
        (&[count(5)][..], "kept is None"),
        (&[("kept", json!(4)), count(5)], "kept is Some"),
        (&[("kept", json!(1)), ("open", json!(1)), count(5)], "open is Some"),
        (&[("kept", json!(1)), count(4)], "counter n is Some(4)"),
        (&[("kept", json!(1)), count(7)], "counter n is Some(7)"),
        (&[("kept", json!(1))], "counter n is None"),
        (&[("kept", json!(1)), count(5), ("x", json!(1))], "nobody wrote"),
    ] {
        let error = check(bad).expect_err(part);
        assert!(error.contains(part), "{error}");
    }
}
