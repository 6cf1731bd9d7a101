use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::Admitted;
use crate::edit::{Edit, difference};
use crate::policy::Policies;

/// One region's replicas of both epochs of a document.
#[derive(Clone)]
struct Region {
    origin: Origin,
    at: u64,
    closed: Document,
    next: Document,
}

impl Region {
    fn new(number: u8) -> Self {
        let (closed, next) = (Document::new(), Document::new());
        Self { origin: Origin::from_bytes([number; 16]), at: u64::from(number), closed, next }
    }

    fn author(&mut self) -> Author {
        self.at += 10;
        let at = Timestamp(crate::clock::normalise(1_700_000_000_000_000).0 + self.at);
        let message = Message { author: "ada".parse().ok(), ..Message::default() };
        Author { origin: self.origin, at, message }
    }

    /// Makes the closed epoch equal to a value.
    fn put(&mut self, value: &Value) -> &mut Self {
        let before = self.closed.value(&Policies::default()).unwrap_or_else(|| json!({}));
        self.edit(&difference(&before, value))
    }

    fn edit(&mut self, edits: &[Edit]) -> &mut Self {
        let author = self.author();
        self.closed.edit(edits, &author, &Policies::default()).unwrap();
        self
    }

    fn put_next(&mut self, value: &Value) -> &mut Self {
        let author = self.author();
        let before = self.next.value(&Policies::default()).unwrap_or_else(|| json!({}));
        self.next.edit(&difference(&before, value), &author, &Policies::default()).unwrap();
        self
    }

    fn compact(&mut self) -> &mut Self {
        let author = self.author();
        let opening = self.closed.opening(None, None, &Policies::default()).unwrap();
        apply(&mut self.next, [opening]);
        self.closed.close(&author);
        self
    }

    /// Does late edits again that are not there yet; returns what became of each.
    fn carry(&mut self) -> Vec<Carrying> {
        let carried = self.closed.carry(&self.closed.closings(), &self.next);
        for one in &carried {
            if let Carrying::Made(change) = &one.became {
                apply(&mut self.next, [change.clone()]);
            }
        }
        carried.into_iter().map(|one| one.became).collect()
    }

    fn hear(&mut self, other: &Self) -> &mut Self {
        apply(&mut self.closed, other.closed.changes_since(&[]));
        apply(&mut self.next, other.next.changes_since(&[]));
        self
    }

    fn shows(&self) -> Option<Value> {
        self.next.value(&Policies::default())
    }

    fn showed(&self) -> Option<Value> {
        self.closed.value(&Policies::default())
    }
}

fn apply(document: &mut Document, changes: impl IntoIterator<Item = Change>) {
    let admitted = |change: Change| Admitted { change: change.bytes, at: Timestamp::MAX, by: None };
    let changes: Vec<_> = changes.into_iter().map(admitted).collect();
    assert!(document.apply(&changes, &Policies::default()).unwrap().waiting.is_empty());
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn increment(at: &str, by: i64) -> Edit {
    Edit::Increment { path: path(at), by }
}

fn splice(at: &str, insert: &str) -> Edit {
    Edit::Splice { path: path(at), at: 0, delete: 0, insert: insert.to_owned() }
}

#[test]
fn a_new_epoch_shows_the_same_and_goes_on_with_counters_texts_and_lists() {
    let mut eu = Region::new(1);
    eu.put(&json!({"title": "a", "n": 1, "list": [1, {"x": [true, null]}, 1.5], "o": {}, "e": []}));
    eu.edit(&[increment("/hits", 5), splice("/title", "b")]).compact();
    assert_eq!(eu.shows(), eu.showed());
    assert_eq!(eu.next.changes(), 1);
    let mut us = eu.clone();
    us.origin = Origin::from_bytes([2; 16]);
    for (region, by, text) in [(&mut eu, 2, "x"), (&mut us, 3, "y")] {
        let author = region.author();
        let edits = [increment("/hits", by), splice("/title", text)];
        region.next.edit(&edits, &author, &Policies::default()).unwrap();
    }
    eu.hear(&us);
    let shown = eu.shows().unwrap();
    assert_eq!(shown["hits"], json!(10));
    assert_eq!(shown["title"].as_str().unwrap().len(), 4, "{shown}");
}

#[test]
fn equal_states_open_alike_and_different_ones_under_different_writers() {
    let mut eu = Region::new(1);
    eu.put(&json!({"a": {"b": 1, "c": 2}, "d": "x"}));
    let mut us = eu.clone();
    us.origin = Origin::from_bytes([2; 16]);
    let open = |region: &Region| region.closed.opening(None, None, &Policies::default()).unwrap();
    assert_eq!(open(&eu), open(&us));
    us.put(&json!({"a": 1}));
    let writers =
        [open(&eu), open(&us)].map(|change| super::super::inspect(&change.bytes).unwrap().writer);
    assert_ne!(writers[0], writers[1]);
}

#[test]
fn a_late_edit_merges_with_what_was_written_since() {
    let mut eu = Region::new(1);
    eu.put(&json!({"name": "Paris", "mayor": "A", "visits": 1})).edit(&[increment("/visits", 1)]);
    let mut client = eu.clone();
    client.origin = Origin::from_bytes([7; 16]);
    client
        .put(&json!({"name": "Paris", "mayor": "B", "visits": 2}))
        .edit(&[increment("/visits", 5)]);
    eu.compact().put_next(&json!({"name": "Lutetia", "mayor": "A", "visits": 12}));
    eu.hear(&client);
    assert!(eu.carry().iter().all(|became| matches!(became, Carrying::Made(_))));
    assert_eq!(eu.shows(), Some(json!({"name": "Lutetia", "mayor": "B", "visits": 17})));
    assert!(eu.carry().iter().all(|became| matches!(became, Carrying::Known(_))));
    let history = eu.next.changes_since(&[]);
    let late = super::super::inspect(&history.last().unwrap().bytes).unwrap();
    assert_eq!(late.message.author, "ada".parse().ok(), "the author of a late edit is kept");
}

#[test]
fn leaders_that_carry_the_same_edits_make_the_same_changes() {
    let mut eu = Region::new(1);
    eu.put(&json!({"a": 1, "l": ["x"]})).compact();
    let mut late = [Region::new(7), Region::new(8)];
    for (number, region) in late.iter_mut().enumerate() {
        region.closed = eu.closed.past(&eu.closed.closings()[0].covers).unwrap();
        region.put(&json!({"a": 2 + number, "l": ["x", number], "o": {"p": {"q": 1}, "r": 2}}));
    }
    let (mut us, mut ap) = (eu.clone(), eu.clone());
    us.hear(&late[0]).carry();
    us.hear(&late[1]).carry();
    ap.put_next(&json!({"a": 9, "l": []}));
    ap.hear(&late[1]).carry();
    ap.hear(&late[0]).carry();
    let count = |region: &Region| region.next.changes();
    assert_eq!((count(&us), count(&ap)), (3, 4));
    us.hear(&ap);
    ap.hear(&us);
    assert_eq!((count(&us), us.next.heads()), (4, ap.next.heads()));
    assert_eq!(us.shows(), ap.shows());
}

#[test]
fn two_leaders_that_compacted_different_states_converge_and_lose_nothing() {
    let mut eu = Region::new(1);
    eu.put(&json!({"a": 1, "b": 1}));
    let mut us = eu.clone();
    us.origin = Origin::from_bytes([2; 16]);
    eu.put(&json!({"a": 2, "b": 1, "eu": true})).compact();
    us.put(&json!({"a": 1, "b": 2, "us": true})).compact();
    eu.hear(&us);
    us.hear(&eu);
    assert!(eu.carry().is_empty(), "a closing covers it all");
    let shown = eu.shows().unwrap();
    assert_eq!((&shown["eu"], &shown["us"], us.shows()), (&json!(true), &json!(true), eu.shows()));
}

#[test]
fn a_purge_stands_alone_and_what_knew_the_delete_starts_anew() {
    let mut eu = Region::new(1);
    eu.put(&json!({"a": 1}));
    let mut stale = eu.clone();
    stale.origin = Origin::from_bytes([7; 16]);
    stale.put(&json!({"a": "stale"}));
    let author = eu.author();
    eu.closed.delete(&author).unwrap();
    let mut us = eu.clone();
    us.origin = Origin::from_bytes([2; 16]);
    us.put(&json!({"a": "again", "b": [1]}));
    let purge = eu.closed.purging(None, Some("why: because"));
    assert_eq!(purge, eu.clone().closed.purging(None, Some("why: because")));
    apply(&mut eu.closed, [purge.clone()]);
    assert_eq!(eu.showed(), None);
    let closings = eu.closed.closings();
    assert_eq!(closings[0].note.as_deref(), Some("why: because"));
    eu.hear(&us).hear(&stale);
    let became = eu.carry();
    assert_eq!(became.iter().filter(|became| **became == Carrying::Purged).count(), 1);
    assert_eq!(eu.shows(), Some(json!({"a": "again", "b": [1]})));
    let tomb = eu.closed.only(&[purge.hash]);
    assert_eq!((tomb.changes(), tomb.exists(), tomb.closings()), (1, false, closings));
}

#[test]
fn a_deleted_document_remembers_what_it_was() {
    let mut eu = Region::new(1);
    assert_eq!(eu.closed.heads_before_delete(), None);
    eu.put(&json!({"a": 1}));
    assert_eq!(eu.closed.heads_before_delete(), None);
    let before = eu.closed.heads();
    let author = eu.author();
    eu.closed.delete(&author).unwrap();
    assert_eq!(eu.closed.heads_before_delete(), Some(before.clone()));
    let author = eu.author();
    eu.closed.mark(&author);
    assert_eq!(eu.closed.heads_before_delete(), Some(before));
}

#[test]
fn formatted_text_is_not_compacted() {
    use automerge::transaction::Transactable;
    let mut document = Document::new();
    let mut tx = document.doc.transaction();
    let text = tx.put_object(automerge::ROOT, "t", automerge::ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, "bold").unwrap();
    let mark = automerge::marks::Mark::new("b".to_owned(), true, 0, 2);
    tx.mark(&text, mark, automerge::marks::ExpandMark::After).unwrap();
    tx.commit();
    let refused = document.opening(None, None, &Policies::default());
    assert_eq!(refused, Err(OpeningError::RichText(path("/t"))));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", value(), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// A region that wrote `base`, and a writer that went on with `theirs`, one value after the other.
fn apart(base: &Value, theirs: &[Value]) -> (Region, Region) {
    let mut eu = Region::new(1);
    eu.put(base);
    let mut client = eu.clone();
    client.origin = Origin::from_bytes([7; 16]);
    for value in theirs {
        client.put(value);
    }
    (eu, client)
}

proptest! {
    #[test]
    fn the_next_epoch_shows_the_same(values in proptest::collection::vec(object(), 1..4)) {
        let mut eu = Region::new(1);
        for value in &values {
            eu.put(value);
        }
        eu.compact();
        prop_assert_eq!(eu.shows(), eu.showed());
    }

    #[test]
    fn merging_nothing_leaves_ours(base in object(), ours in object()) {
        let (mut eu, client) = apart(&base, &[]);
        eu.compact().put_next(&ours);
        eu.hear(&client);
        prop_assert!(eu.carry().is_empty());
        prop_assert_eq!(eu.shows(), Some(ours));
    }

    #[test]
    fn where_nothing_was_written_since_theirs_shows(
        base in object(), theirs in proptest::collection::vec(object(), 1..4),
    ) {
        let (mut eu, client) = apart(&base, &theirs);
        eu.compact().hear(&client);
        eu.carry();
        prop_assert_eq!(eu.shows(), theirs.last().cloned());
    }

    #[test]
    fn edits_of_different_fields_are_both_there(base in object(), ours in value(), theirs in value()) {
        let with = |key: &str, value: &Value| {
            let mut next = base.clone();
            next[key] = value.clone();
            next
        };
        let (mut eu, client) = apart(&base, &[with("theirs", &theirs)]);
        eu.compact().put_next(&with("ours", &ours));
        eu.hear(&client);
        eu.carry();
        let mut expected = with("ours", &ours);
        expected["theirs"] = theirs;
        prop_assert_eq!(eu.shows(), Some(expected));
    }

    #[test]
    fn regions_converge_whatever_the_order(
        base in object(), ours in object(), one in object(), other in object(),
    ) {
        let (mut eu, first) = apart(&base, &[one]);
        let mut second = eu.clone();
        second.origin = Origin::from_bytes([8; 16]);
        second.put(&other);
        eu.compact();
        let mut us = eu.clone();
        us.origin = Origin::from_bytes([2; 16]);
        eu.put_next(&ours);
        eu.hear(&first).carry();
        us.hear(&second).carry();
        us.hear(&first).carry();
        eu.hear(&second).carry();
        eu.hear(&us);
        us.hear(&eu);
        prop_assert_eq!(eu.next.heads(), us.next.heads());
        prop_assert_eq!(eu.shows(), us.shows());
        prop_assert!(eu.carry().iter().all(|became| !matches!(became, Carrying::Made(_))));
    }
}
