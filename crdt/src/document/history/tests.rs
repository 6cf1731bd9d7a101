//! Stories of points in the past, and the laws that hold for any history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::document::tests::laws::{Step, policies, run, step};
use crate::document::tests::{Region, exchange, pair, set};
use crate::document::{
    Admitted, Blamed, Change, Document, HistoryCursor, Recorded, differences, inspect,
};
use crate::edit::{Edit, Path};
use crate::ids::{ChangeHash, Origin, Timestamp};
use crate::message::{Act, Message};
use crate::policy::{Policies, Policy};

const START: u64 = 1_700_000_000_000_000;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

impl Region {
    fn splice(&mut self, at: &str, index: usize, insert: &str) -> &mut Self {
        let insert = insert.to_owned();
        let missing = self.json().pointer(at).is_none();
        let made = missing.then(|| set(at, json!("")));
        let splice = Edit::Splice { path: path(at), at: index, delete: 0, insert };
        self.edit(&made.into_iter().chain([splice]).collect::<Vec<_>>()).unwrap();
        self
    }

    fn by(&mut self, author: &str, edits: &[Edit]) -> &mut Self {
        let message = Message { author: author.parse().ok(), ..Message::default() };
        self.edit_with(edits, message).unwrap();
        self
    }

    fn value_at(&self, heads: &[ChangeHash]) -> Option<Value> {
        self.document.value_at(heads, &self.policies)
    }

    fn value_at_time(&self, microseconds: u64) -> Option<Value> {
        self.value_at(&self.document.heads_at(Timestamp(START + microseconds)))
    }

    fn revert(&mut self, heads: &[ChangeHash]) {
        let edits = self.document.edits_back_to(heads, &self.policies).unwrap();
        self.edit_with(&edits, Message::of(Act::Revert)).unwrap();
    }

    fn blame(&self, within: Option<&str>) -> Vec<Blamed> {
        let within = within.map(path);
        self.document.blame(&self.policies, within.as_ref())
    }

    /// Everything in the history, read in pages.
    fn history(&self, within: Option<&str>, limit: usize) -> Vec<Recorded> {
        let within = within.map(path);
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.document.history(within.as_ref(), cursor.as_ref(), limit).unwrap();
            assert!(page.changes.len() <= limit);
            found.extend(page.changes);
            match page.next {
                Some(next) => cursor = Some(next.to_string().parse::<HistoryCursor>().unwrap()),
                None => return found,
            }
        }
    }
}

#[test]
fn a_document_is_read_as_it_was() {
    let mut regions = pair(Policy::Auto);
    assert_eq!(regions[0].value_at(&[]), None);
    regions[0].set("/title", json!("one"));
    let one = regions[0].document.heads();
    regions[0].set("/title", json!("two")).delete();
    let deleted = regions[0].document.heads();
    regions[0].set("/title", json!("three"));
    exchange(&mut regions);
    let region = &regions[1];
    assert_eq!(region.value_at(&one), Some(json!({"title": "one"})));
    assert_eq!(region.value_at(&deleted), None);
    assert_eq!(region.value_at(&[]), None);
    assert_eq!(region.value_at(&[one[0], deleted[0]]), None, "one is before deleted");
    assert_eq!(region.document.heads_of(&[deleted[0], one[0]]), Some(deleted));
    assert_eq!(region.value_at(&[ChangeHash([7; 32])]), None);
    assert_eq!(region.document.heads_of(&[ChangeHash([7; 32])]), None);
    assert_eq!(region.value_at(&region.document.heads()), Some(json!({"title": "three"})));
}

#[test]
fn a_time_names_what_had_happened_in_every_region() {
    let mut regions = pair(Policy::Auto);
    regions[0].at(1_000).set("/a", json!(1));
    exchange(&mut regions);
    regions[0].at(2_000).set("/a", json!(2));
    regions[1].at(3_000).set("/b", json!(3));
    exchange(&mut regions);
    for region in &regions {
        assert_eq!(region.document.heads_at(Timestamp(START)), []);
        assert_eq!(region.value_at_time(0), None);
        assert_eq!(region.value_at_time(1_010), Some(json!({"a": 1})));
        assert_eq!(region.value_at_time(2_010), Some(json!({"a": 2})));
        assert_eq!(region.value_at_time(2_999), Some(json!({"a": 2})));
        assert_eq!(region.value_at_time(9_999), Some(json!({"a": 2, "b": 3})));
        assert_eq!(region.document.heads_at(Timestamp::MAX), region.document.heads());
    }
}

#[test]
fn what_a_policy_made_later_does_not_bring_later_values_into_an_earlier_time() {
    let mut regions = pair(Policy::Lww);
    regions[0].at(1_000).set("/a", json!(1));
    exchange(&mut regions);
    regions[1].at(2_000).set("/x", json!(0)).set("/a", json!("early"));
    regions[0].at(3_000).set("/a", json!("late"));
    exchange(&mut regions);
    let made = regions[0].history(None, 9).into_iter().find(|c| c.message.act == Act::Policy);
    assert!(made.is_some());
    assert_eq!(regions[0].value_at_time(2_020), Some(json!({"a": "early", "x": 0})));
    assert_eq!(regions[0].value_at_time(3_010), Some(json!({"a": "late", "x": 0})));
    assert_eq!(regions[0].document.heads_at(Timestamp(START + 3_010)), regions[0].document.heads());
}

#[test]
fn a_policy_change_of_an_early_winner_waits_for_those_that_lost() {
    // Made by hand, as a policy makes it under which the earliest value wins.
    let mut regions = pair(Policy::Auto);
    regions[0].at(1_000).set("/a", json!(0));
    exchange(&mut regions);
    regions[0].at(2_000).set("/a", json!("first"));
    regions[1].at(5_000).set("/a", json!("second"));
    exchange(&mut regions);
    regions[0].at(2_000).edit_with(&[set("/a", json!("first"))], Message::of(Act::Policy)).unwrap();
    exchange(&mut regions);
    assert_eq!(regions[1].json(), json!({"a": "first"}));
    let at = |microseconds| regions[1].document.heads_at(Timestamp(START + microseconds));
    assert_eq!(at(4_000).len(), 1);
    assert!(!at(4_000).contains(&regions[1].document.heads()[0]), "nobody had written 'second'");
    assert_eq!(regions[1].value_at_time(4_000), Some(json!({"a": "first"})));
    assert_eq!(at(5_010), regions[1].document.heads());
}

#[test]
fn the_history_tells_who_did_what_and_where() {
    let mut regions = pair(Policy::Auto);
    regions[0]
        .by("ada", &[set("/list", json!(["a", "b", "c"])), set("/m", json!({"x": {"y": 1}}))]);
    regions[0].splice("/text", 0, "hello").splice("/text", 5, " world");
    exchange(&mut regions);
    let insert = Edit::Insert { path: path("/list/0"), value: json!("first") };
    regions[1].at(100).by("grace", &[insert, set("/m/x/y", json!(2))]);
    regions[1].remove("/list/2").delete();
    exchange(&mut regions);
    let found = regions[0].history(None, 2);
    let lines: Vec<_> = found
        .iter()
        .map(|change| {
            let paths: Vec<_> = change.paths.iter().map(ToString::to_string).collect();
            let author = change.message.author.as_ref().map_or("-", |author| author.as_str());
            (author, change.message.act.to_string(), change.operations, paths.join(" "))
        })
        .collect();
    let line =
        |author, act: &str, count, paths: &str| (author, act.to_owned(), count, paths.into());
    let expected = [
        line("-", "delete", 3, "/list /m /text"),
        line("-", "write", 1, "/list/2"),
        line("grace", "write", 2, "/list/0 /m/x/y"),
        line("-", "write", 6, "/text"),
        line("-", "write", 7, "/text"),
        line("ada", "write", 7, "/list /m"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(found[0].deps, [found[1].hash]);
    assert_eq!((found[2].writer, found[2].leader), (regions[1].origin, regions[1].origin));
    assert_eq!(found[2].at, Timestamp(START + 110));
    let hashes = |within| {
        let found = regions[0].history(Some(within), 1).into_iter();
        found.map(|change| change.hash).collect::<Vec<_>>()
    };
    assert_eq!(hashes("/m/x/y"), [found[0].hash, found[2].hash, found[5].hash]);
    assert_eq!(hashes("/list/2"), [found[0].hash, found[5].hash], "there is no such element now");
    assert_eq!(hashes("/nowhere"), []);
}

#[test]
fn the_history_of_an_element_follows_it_through_its_list() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/list", json!(["a", {"name": "b"}]));
    regions[0].set("/list/1/name", json!("B")).set("/list/0", json!("A"));
    let first = Edit::Insert { path: path("/list/0"), value: json!("first") };
    regions[0].edit(&[first]).unwrap();
    regions[0].remove("/list/2/name").set("/list/1", json!("AA"));
    exchange(&mut regions);
    let at = |within| {
        let found = regions[1].history(Some(within), 9).into_iter();
        found.map(|change| change.paths[0].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at("/list/0"), ["/list/0", "/list"]);
    assert_eq!(at("/list/1"), ["/list/1", "/list/0", "/list"]);
    assert_eq!(at("/list/2"), ["/list/2/name", "/list/1/name", "/list"]);
    assert_eq!(at("/list/2/name"), ["/list/2/name", "/list/1/name", "/list"]);
    assert_eq!(at("/list/2/other"), ["/list"]);
    assert_eq!(at("/list/x"), ["/list"]);
    assert_eq!(at("/list").len(), 6);
    assert_eq!(at("").len(), 6);
}

#[test]
fn a_history_wider_than_a_cursor_is_read_in_pages_too() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/a", json!(0));
    let start = regions[0].clone();
    let width = 80;
    for number in 0..width {
        let mut client = start.clone();
        client.origin = Origin::from_bytes([10 + number; 16]);
        client.at(1_000 + u64::from(number)).set(&format!("/c{number}"), json!(number));
        regions[0].receive(&client.log[1..]);
    }
    let found = regions[0].history(None, 3);
    assert_eq!(found.len(), usize::from(width) + 1);
    assert_eq!(found, regions[0].history(None, 1_000));
    let page = regions[0].document.history(None, None, 3).unwrap();
    assert_eq!(page.next, Some(HistoryCursor::After(found[2].hash)));
}

#[test]
fn a_client_with_a_slow_clock_brings_what_it_knew_into_the_time_that_it_claims() {
    let mut regions = pair(Policy::Auto);
    regions[0].at(1_000).set("/a", json!(1)).at(5_000).set("/a", json!(2));
    let log = regions[0].log.clone();
    regions[1].receive(&log);
    regions[1].at(2_000).set("/b", json!(3));
    assert_eq!(regions[1].value_at_time(1_500), Some(json!({"a": 1})));
    assert_eq!(regions[1].value_at_time(3_000), Some(json!({"a": 2, "b": 3})));
    let order: Vec<_> = regions[1].history(None, 9).iter().map(|c| c.at.0 - START).collect();
    assert_eq!(order, [2_010, 5_010, 1_010], "what follows another comes before it");
}

#[test]
fn what_a_policy_wrote_again_is_blamed_on_who_wrote_it_first() {
    let mut regions = pair(Policy::Lww);
    regions[0].at(1_000).by("joan", &[set("/z", json!(0))]);
    exchange(&mut regions);
    let object = json!({"x": 1, "deep": {"y": [2]}});
    regions[0].at(2_000).by("ada", &[set("/a", json!("early")), set("/m", object)]);
    regions[1].at(3_000).by("grace", &[set("/a", json!("late")), set("/m", json!("none"))]);
    exchange(&mut regions);
    assert_eq!(regions[0].blame(Some("/m"))[0].author, "grace".parse().ok());
    // What lost was deleted; the new policy has it written again.
    let first = Policies::new(Policy::First, Vec::new(), Vec::new());
    regions.iter_mut().for_each(|region| region.set_policies(&first));
    exchange(&mut regions);
    for region in &regions {
        let mut found = Vec::new();
        for blamed in region.blame(None) {
            found.push((blamed.path.to_string(), blamed.author.unwrap().to_string()));
        }
        let line = |path: &str, author: &str| (path.to_owned(), author.to_owned());
        let ada = ["/a", "/m/deep/y/0", "/m/x"].map(|path| line(path, "ada"));
        assert_eq!(found, [ada.to_vec(), vec![line("/z", "joan")]].concat());
    }
}

#[test]
fn a_page_goes_on_where_the_last_one_ended_whatever_arrives_meanwhile() {
    let mut regions = pair(Policy::Auto);
    for n in 1..=6 {
        regions[0].set("/a", json!(n));
    }
    let all: Vec<_> = regions[0].history(None, 100).iter().map(|change| change.hash).collect();
    let first = regions[0].document.history(None, None, 4).unwrap();
    regions[0].set("/b", json!(1));
    let document = &regions[0].document;
    let second = document.history(None, first.next.as_ref(), 4).unwrap();
    let after = HistoryCursor::After(first.changes.last().unwrap().hash);
    assert_eq!(document.history(None, Some(&after), 4).unwrap(), second);
    assert_eq!(second.next, None);
    let pages = first.changes.into_iter().chain(second.changes);
    assert_eq!(pages.map(|change| change.hash).collect::<Vec<_>>(), all);
    for cursor in
        [HistoryCursor::After(ChangeHash([1; 32])), HistoryCursor::Heads(vec![ChangeHash([1; 32])])]
    {
        assert_eq!(document.history(None, Some(&cursor), 4), None);
    }
    for text in ["", "after-", "abc", &format!("{}.", all[0])] {
        assert!(text.parse::<HistoryCursor>().is_err(), "{text}");
    }
}

#[test]
fn a_client_s_change_is_told_with_the_leader_that_admitted_it() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/a", json!(1));
    let mut client = regions[0].clone();
    client.origin = Origin::from_bytes([9; 16]);
    client.set("/a", json!(2));
    let admitted = Admitted { by: Some(regions[0].origin), ..client.log.last().unwrap().clone() };
    regions[0].receive(&[admitted]);
    exchange(&mut regions);
    let found = &regions[1].history(None, 9)[0];
    assert_eq!((found.writer, found.leader), (client.origin, regions[0].origin));
    let blamed = &regions[1].blame(None)[0];
    assert_eq!((blamed.writer, blamed.leader), (client.origin, regions[0].origin));
}

#[test]
fn differences_are_told_place_by_place() {
    let old = json!({"a": 1, "b": [1, 2, 3], "c": {"d": "x"}, "gone": null});
    let new = json!({"a": 2, "b": [2, 3, 4], "c": {"d": "x", "e/f": []}});
    let found: Vec<_> = differences(Some(&old), Some(&new))
        .into_iter()
        .map(|d| (d.path.to_string(), d.before, d.after))
        .collect();
    let expected = [
        ("/gone".into(), Some(Value::Null), None),
        ("/a".into(), Some(json!(1)), Some(json!(2))),
        ("/b/0".into(), Some(json!(1)), None),
        ("/b/2".into(), None, Some(json!(4))),
        ("/c/e~1f".into(), None, Some(json!([]))),
    ];
    assert_eq!(found, expected);
    assert_eq!(differences(None, None), []);
    let made = differences(None, Some(&new));
    assert_eq!((made.len(), made[0].path.is_root(), made[0].before.as_ref()), (1, true, None));
    assert_eq!(differences(Some(&new), None)[0].after, None);
}

#[test]
fn the_writer_of_what_shows_is_blamed() {
    let mut regions = pair(Policy::Lww);
    regions[0]
        .by("ada", &[set("/a", json!(0)), set("/m", json!({"x": 1})), set("/empty", json!({}))]);
    regions[0].increment("/likes", 1).splice("/text", 0, "hello");
    exchange(&mut regions);
    regions[0].at(3_000).by("ada", &[set("/a", json!("late")), set("/map", json!({"one": 1}))]);
    regions[1].at(2_000).by("grace", &[set("/a", json!("early")), set("/map", json!({"two": 2}))]);
    regions[1].increment("/likes", 10).splice("/text", 5, "!");
    exchange(&mut regions);
    for region in &regions {
        let blamed = region.blame(None);
        let names: BTreeMap<_, _> = blamed
            .iter()
            .map(|b| (b.path.to_string(), b.author.as_ref().map_or("-", |a| a.as_str())))
            .collect();
        let expected = [
            ("/a", "ada"),
            ("/empty", "ada"),
            ("/likes", "-"),
            ("/m/x", "ada"),
            ("/map/one", "ada"),
            ("/map/two", "grace"),
            ("/text", "-"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(p, a)| (p.to_owned(), a)).into();
        assert_eq!(names, expected);
        let at = |text: &str| blamed.iter().find(|b| b.path == path(text)).unwrap();
        assert_eq!((at("/a").writer, &at("/a").value), (regions[0].origin, &json!("late")));
        assert_eq!((at("/likes").writer, &at("/likes").value), (regions[1].origin, &json!(11)));
        assert_eq!((at("/text").writer, &at("/text").value), (regions[1].origin, &json!("hello!")));
        let inside: Vec<_> = region.blame(Some("/map")).into_iter().map(|b| b.path).collect();
        assert_eq!(inside, [path("/map/one"), path("/map/two")]);
        assert_eq!(region.blame(Some("/map/two")), [at("/map/two").clone()]);
        assert_eq!(region.blame(Some("/a/b")), []);
    }
    regions[0].delete();
    assert_eq!(regions[0].blame(None), []);
}

#[test]
fn a_document_goes_back_and_keeps_what_others_write_meanwhile() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/title", json!("one")).set("/list", json!(["a", "b", "c"]));
    regions[0].splice("/text", 0, "hello").increment("/likes", 5);
    let point = regions[0].document.heads();
    let then = regions[0].json();
    regions[0].set("/title", json!("two")).remove("/list/1").set("/new", json!({"x": 1}));
    regions[0].splice("/text", 5, " world").increment("/likes", 1);
    exchange(&mut regions);

    let before = regions[0].log.len();
    regions[0].revert(&point);
    assert_eq!(regions[0].json(), then);
    let made = inspect(&regions[0].log[before].change).unwrap();
    assert_eq!((regions[0].log.len(), made.message.act), (before + 1, Act::Revert));
    regions[1].set("/other", json!(true)).increment("/likes", 10).splice("/text", 11, "!");
    exchange(&mut regions);
    let merged = json!({
        "title": "one", "list": ["a", "b", "c"], "text": "hello!", "likes": 15, "other": true,
    });
    assert_eq!(regions[0].json(), merged);
    assert_eq!(regions[1].json(), merged);
    assert_eq!(
        regions[1].document.edits_back_to(&regions[1].document.heads(), &regions[1].policies),
        Some(vec![])
    );
    assert_eq!(regions[1].document.edits_back_to(&[], &regions[1].policies), None);
}

#[test]
fn texts_and_counters_that_come_back_are_texts_and_counters() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/m", json!({"list": [1, 2]}));
    regions[0].splice("/m/text", 0, "hello").increment("/m/list/1", 5).splice("/text", 0, "abc");
    regions[0].increment("/likes", 3);
    let point = regions[0].document.heads();
    let then = regions[0].json();
    regions[0].remove("/m").set("/likes", json!("none")).set("/text", json!({"a": 1}));
    regions[0].revert(&point);
    assert_eq!(regions[0].json(), then);
    regions[0].delete();
    regions[0].revert(&point);
    assert_eq!(regions[0].json(), then);
    exchange(&mut regions);
    for region in &mut regions {
        region.increment("/m/list/1", 10).increment("/likes", 1);
        region.splice("/m/text", 5, "!").splice("/text", 3, "d");
    }
    exchange(&mut regions);
    let merged = json!({
        "m": {"list": [1, 27], "text": "hello!!"}, "likes": 5, "text": "abcdd",
    });
    assert_eq!(regions[0].json(), merged);
}

/// What a document showed whenever its heads were new.
type Seen = BTreeMap<Vec<ChangeHash>, Option<Value>>;

#[derive(Debug, Clone)]
enum Move {
    Step(Step),
    Splice(usize, usize, &'static str),
    Revert(usize, prop::sample::Index),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let text = (0..3_usize, 0..3_usize, prop::sample::select(vec!["a", "bc"]));
    let one = prop_oneof![
        12 => step().prop_map(Move::Step),
        2 => text.prop_map(|(region, at, insert)| Move::Splice(region, at, insert)),
        1 => (0..3_usize, any::<prop::sample::Index>()).prop_map(|(r, at)| Move::Revert(r, at)),
    ];
    prop::collection::vec(one, 1..24)
}

/// Plays the moves in three regions; returns them, all equal in the end, and what was seen.
fn play(moves: &[Move], policies: &Policies) -> (Vec<Region>, Seen) {
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, policies)).collect();
    let mut seen = Seen::new();
    for one in moves {
        match one {
            Move::Step(step) => run(&mut regions, step),
            Move::Splice(region, at, insert) => {
                let insert = (*insert).to_owned();
                let splice = Edit::Splice { path: path("/t"), at: *at, delete: 0, insert };
                let made = set("/t", json!(""));
                let missing = regions[*region].json().get("t").is_none();
                let edits = [missing.then_some(made), Some(splice)];
                drop(regions[*region].edit(&edits.into_iter().flatten().collect::<Vec<_>>()));
            }
            Move::Revert(region, point) => revert_to_any(&mut regions[*region], *point),
        }
        look(&regions, &mut seen);
    }
    exchange(&mut regions);
    look(&regions, &mut seen);
    (regions, seen)
}

/// Goes back to some change of the history; afterwards the document shows what it showed then.
fn revert_to_any(region: &mut Region, point: prop::sample::Index) {
    let all = region.document.changes_since(&[]);
    if all.is_empty() {
        return;
    }
    let heads = [point.get(&all).hash];
    let then = region.value_at(&heads);
    if then.is_some() {
        region.revert(&heads);
        assert_eq!(region.document.value(&region.policies), then);
    }
}

fn look(regions: &[Region], seen: &mut Seen) {
    for Region { document, policies, .. } in regions {
        seen.entry(document.heads()).or_insert_with(|| document.value(policies));
    }
}

/// A replica that has these changes and what they follow, and nothing else.
fn replica_of(all: &[Change], heads: &[ChangeHash]) -> Document {
    let mut known: BTreeSet<ChangeHash> = heads.iter().copied().collect();
    for change in all.iter().rev().filter(|c| known.contains(&c.hash)).collect::<Vec<_>>() {
        known.insert(change.hash);
    }
    let mut replica = Document::new();
    let mut whole = Document::new();
    whole.apply(&admitted(all), &Policies::default()).unwrap();
    let after = whole.changes_since(heads);
    let before: Vec<_> = all.iter().filter(|c| !after.contains(c)).cloned().collect();
    replica.apply(&admitted(&before), &Policies::default()).unwrap();
    replica
}

fn admitted(changes: &[Change]) -> Vec<Admitted> {
    let one = |c: &Change| Admitted { change: c.bytes.clone(), at: Timestamp::MAX, by: None };
    changes.iter().map(one).collect()
}

fn leaves_of(value: &Value, at: Path, found: &mut BTreeMap<Path, Value>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    if members.is_empty() && !at.is_root() {
        found.insert(at.clone(), value.clone());
    }
    members.into_iter().for_each(|(token, member)| leaves_of(member, at.child(token), found));
}

proptest! {
    #[test]
    fn every_point_that_was_seen_is_read_as_it_was(moves in moves(), policies in policies()) {
        let (regions, seen) = play(&moves, &policies);
        let loaded = Document::load(&regions[0].document.save()).unwrap();
        for (heads, value) in &seen {
            for document in regions.iter().map(|r| &r.document).chain([&loaded]) {
                prop_assert_eq!(&document.value_at(heads, &regions[0].policies), value);
            }
        }
    }

    #[test]
    fn any_changes_are_read_as_a_replica_shows_that_has_no_others(
        moves in moves(), policies in policies(), points in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (regions, _) = play(&moves, &policies);
        let document = &regions[0].document;
        let all = document.changes_since(&[]);
        prop_assume!(!all.is_empty());
        let heads: Vec<_> = points.iter().map(|point| point.get(&all).hash).collect();
        let replica = replica_of(&all, &heads);
        prop_assert_eq!(document.heads_of(&heads), Some(replica.heads()));
        prop_assert_eq!(document.value_at(&heads, &policies), replica.value(&policies));
    }

    #[test]
    fn a_later_time_knows_all_that_an_earlier_one_does(moves in moves(), policies in policies()) {
        let (regions, _) = play(&moves, &policies);
        let document = &regions[0].document;
        let all = regions[0].history(None, 1_000);
        let times: BTreeSet<_> = all.iter().map(|change| change.at).collect();
        let mut before = BTreeSet::new();
        for time in times {
            let heads = document.heads_at(time);
            prop_assert_eq!(document.heads_of(&heads), Some(heads.clone()), "heads, and sorted");
            let after: BTreeSet<_> = document.changes_since(&heads).into_iter().map(|c| c.hash).collect();
            let known: BTreeSet<_> =
                all.iter().map(|c| c.hash).filter(|hash| !after.contains(hash)).collect();
            prop_assert!(known.is_superset(&before));
            for change in &all {
                let due = change.at <= time && change.message.act != Act::Policy;
                prop_assert!(!due || known.contains(&change.hash));
            }
            for head in all.iter().filter(|change| heads.contains(&change.hash)) {
                prop_assert!(head.at <= time, "nothing later shows for its own sake");
            }
            before = known;
        }
        prop_assert_eq!(document.heads_at(Timestamp::MAX), document.heads());
    }

    #[test]
    fn the_history_has_every_change_once_and_none_before_one_that_follows_it(
        moves in moves(), policies in policies(), limit in 1..5_usize,
    ) {
        let (regions, _) = play(&moves, &policies);
        let all = regions[0].history(None, limit);
        for region in &regions {
            prop_assert_eq!(&region.history(None, 1_000), &all);
        }
        let hashes: BTreeSet<_> = all.iter().map(|change| change.hash).collect();
        prop_assert_eq!(hashes.len(), all.len());
        prop_assert_eq!(all.len() as u64, regions[0].document.changes());
        let mut told = BTreeSet::new();
        for change in &all {
            prop_assert!(change.deps.iter().all(|dep| !told.contains(dep)));
            told.insert(change.hash);
        }
        let mut left = all.clone();
        for change in &all {
            let free = |c: &&Recorded| !left.iter().any(|other| other.deps.contains(&c.hash));
            let next = left.iter().filter(free).max_by_key(|c| (c.at, c.hash)).unwrap().hash;
            prop_assert_eq!(next, change.hash);
            left.retain(|c| c.hash != next);
        }
    }

    #[test]
    fn blame_covers_exactly_the_leaves_that_show(moves in moves(), policies in policies()) {
        let (regions, _) = play(&moves, &policies);
        let mut leaves = BTreeMap::new();
        leaves_of(&regions[0].json(), Path::default(), &mut leaves);
        if !regions[0].document.exists() {
            leaves.clear();
        }
        let all: BTreeSet<_> = regions[0].history(None, 1_000).into_iter().map(|c| c.hash).collect();
        for region in &regions {
            let blamed = region.blame(None);
            prop_assert!(blamed.iter().all(|b| all.contains(&b.change)));
            let found: BTreeMap<_, _> = blamed.iter().map(|b| (b.path.clone(), b.value.clone())).collect();
            prop_assert_eq!(found.len(), blamed.len());
            prop_assert_eq!(&found, &leaves);
        }
    }

    #[test]
    fn differences_lead_from_one_point_to_the_other(moves in moves(), points in any::<[prop::sample::Index; 2]>()) {
        let (regions, seen) = play(&moves, &Policies::default());
        let values: Vec<_> = seen.values().cloned().collect();
        let [from, to] = points.map(|point| point.get(&values).clone());
        let found = differences(from.as_ref(), to.as_ref());
        prop_assert_eq!(found.is_empty(), from == to);
        prop_assert!(found.iter().all(|d| d.before != d.after));
        prop_assert!(regions.len() == 3);
    }
}
