//! What holds of a comparison for any two sets of documents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anabranch_crdt::bundle::IdRange;
use anabranch_crdt::ids::DocumentId;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::replication::frame::{Frame, Ranges};
use crate::replication::reconcile::answer::{MAX_READ, answer, documents_to_read};
use crate::replication::reconcile::fingerprint::RunId;
use crate::replication::reconcile::walk::{
    AskNumber, MAX_ASKS, STRETCH_DOCUMENTS, Walk, WalkError,
};
use crate::replication::reconcile::{Ask, Content, DocumentDigest, Part};

const RUN: RunId = RunId(7);
const PATIENCE: Duration = Duration::from_secs(1);

type Set = BTreeMap<DocumentId, (u8, bool)>;

/// Reads a store as the journal does.
fn read(set: &Set, range: IdRange, limit: usize) -> (Vec<DocumentDigest>, bool) {
    let all = set.range(range.first..).take_while(|(id, _)| range.contains(**id));
    let mut items: Vec<DocumentDigest> = all
        .take(limit + 1)
        .map(|(&document, &(digest, pending))| DocumentDigest {
            document,
            digest: [digest; 16],
            pending,
        })
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

/// What a network does to the next frame.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
}

/// What a comparison found, and what it took.
#[derive(Debug, Default)]
struct Outcome {
    differing: BTreeSet<DocumentId>,
    equal: u64,
    frames: usize,
    longest: usize,
    rounds: usize,
}

/// Compares two sets, a stretch of `stretch` documents at a time, lists of `listable` at most.
fn compare(
    here: &Set,
    there: &Set,
    (stretch, listable): (usize, usize),
    fates: &[Fate],
) -> Result<Outcome, WalkError> {
    let mut walk = Walk::new(Some(IdRange::all().first), RUN);
    let mut outcome = Outcome::default();
    let mut fates = fates.iter().copied();
    let mut late: VecDeque<(AskNumber, Ask)> = VecDeque::new();
    let mut now = Duration::ZERO;
    while !walk.is_done() {
        outcome.rounds += 1;
        assert!(outcome.rounds < 10_000, "the comparison does not end");
        now += PATIENCE / 2;
        while let Some(range) = walk.next_stretch() {
            let (items, more) = read(here, range, stretch);
            walk.stretch(items, more);
        }
        let mut asks: VecDeque<(AskNumber, Ask)> = std::mem::take(&mut late);
        asks.extend(walk.due(now, PATIENCE)?);
        while let Some((number, ask)) = asks.pop_front() {
            let fate = fates.next().unwrap_or(Fate::Arrives);
            if fate == Fate::Lost {
                continue;
            }
            if fate == Fate::Late {
                late.push_back((number, ask));
                continue;
            }
            let (items, more) = read(there, ask.range, documents_to_read(&ask, listable));
            let parts = answer(&ask, &items, more, listable, RUN);
            let frame = Frame::Ranges(Ranges::Answer { run: RUN, number, parts: parts.clone() });
            outcome.frames += 1;
            outcome.longest = outcome.longest.max(frame.encode().len());
            let times = if fate == Fate::Twice { 2 } else { 1 };
            for _ in 0..times {
                let found = walk.answered(number, &parts)?;
                outcome.equal += found.equal;
                outcome.differing.extend(found.differences.iter().map(|d| d.document));
            }
        }
    }
    Ok(outcome)
}

/// The documents that are not proven equal.
fn truth(here: &Set, there: &Set) -> BTreeSet<DocumentId> {
    let all: BTreeSet<DocumentId> = here.keys().chain(there.keys()).copied().collect();
    let equal = |id: &DocumentId| match (here.get(id), there.get(id)) {
        (Some((one, false)), Some((other, false))) => one == other,
        _ => false,
    };
    all.into_iter().filter(|id| !equal(id)).collect()
}

fn ids() -> impl Strategy<Value = DocumentId> {
    // Some close together, some far apart, and the ends of the space.
    let number = prop_oneof![
        6 => any::<u128>(),
        3 => 0_u128..200,
        1 => (0_u128..3).prop_map(|behind| u128::MAX - behind),
    ];
    number.prop_map(|number| DocumentId::from_bytes(number.to_be_bytes()))
}

fn sets() -> impl Strategy<Value = (Set, Set)> {
    let pending = prop_oneof![20 => Just(false), 1 => Just(true)];
    let common = btree_map(ids(), (0_u8..4, pending), 0..400);
    let change = (any::<prop::sample::Index>(), 0_u8..3, 0_u8..4);
    (common, vec(change, 0..12), btree_map(ids(), (0_u8..4, Just(false)), 0..40)).prop_map(
        |(common, changes, extra)| {
            let (mut here, mut there) = (common.clone(), common.clone());
            let keys: Vec<DocumentId> = common.keys().copied().collect();
            for (at, kind, digest) in changes {
                let Some(&id) = keys.get(at.index(keys.len().max(1))) else { continue };
                match kind {
                    0 => drop(here.remove(&id)),
                    1 => drop(there.remove(&id)),
                    _ => drop(there.insert(id, (digest, false))),
                }
            }
            there.extend(extra);
            (here, there)
        },
    )
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Late),
    ];
    vec(fate, 0..30)
}

proptest! {
    #[test]
    fn a_comparison_finds_exactly_what_differs(
        (here, there) in sets(),
        stretch in 1_usize..100,
        listable in 1_usize..100,
        fates in fates(),
    ) {
        // A question may be unlucky so often that the comparison is given up, and begun anew.
        let outcome = match compare(&here, &there, (stretch, listable), &fates) {
            Err(WalkError::Unanswered) => return Ok(()),
            outcome => outcome.unwrap(),
        };
        let truth = truth(&here, &there);
        prop_assert_eq!(&outcome.differing, &truth);
        let equal = here.keys().filter(|id| !truth.contains(id)).count();
        prop_assert_eq!(outcome.equal, equal as u64);
    }

    #[test]
    fn hostile_answers_are_refused_or_end(
        (here, there) in sets(),
        ends in vec(proptest::option::of(ids()), 0..4),
        kind in 0_u8..3,
    ) {
        let mut walk = Walk::new(Some(IdRange::all().first), RUN);
        let range = walk.next_stretch().unwrap();
        let (items, more) = read(&here, range, 50);
        walk.stretch(items, more);
        let listed = read(&there, IdRange::all(), 20).0;
        let parts: Vec<Part> = ends.into_iter().map(|end| {
            let content = match kind {
                0 => Content::Equal,
                1 => Content::Counted(3, crate::replication::reconcile::Fingerprint([1; 16])),
                _ => Content::Listed(listed.clone()),
            };
            Part { end, content }
        }).collect();
        // Whatever comes: no panic, and no more questions than answers can have made.
        for round in 1..40_u32 {
            let due = walk.due(PATIENCE * round * 2, PATIENCE);
            let Ok(due) = due else { break };
            prop_assert!(due.len() <= MAX_ASKS);
            for (number, _) in due {
                if walk.answered(number, &parts).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A million equal documents are compared in one question per stretch, and a difference among
/// them in two more.
#[test]
fn a_difference_among_many_takes_few_rounds_and_bytes() {
    let id = |number: u128| DocumentId::from_bytes((number << 100).to_be_bytes());
    let here: Set = (0..20_000).map(|number| (id(number), (1, false))).collect();
    let same = compare(&here, &here, (STRETCH_DOCUMENTS, MAX_READ), &[]).unwrap();
    assert_eq!((same.equal, same.frames), (20_000, 20_000_usize.div_ceil(STRETCH_DOCUMENTS)));

    let mut there = here.clone();
    there.insert(id(7_777), (2, false));
    let found = compare(&here, &there, (STRETCH_DOCUMENTS, MAX_READ), &[]).unwrap();
    assert_eq!(found.differing, BTreeSet::from([id(7_777)]));
    assert!(found.frames <= same.frames + 2, "{} frames", found.frames);
    assert!(found.longest < 2_000, "{} bytes", found.longest);
}

/// A new node is told the documents of the other one in lists, as long as frames may be.
#[test]
fn an_empty_node_is_told_everything() {
    let id = |number: u128| DocumentId::from_bytes((number << 64).to_be_bytes());
    let there: Set = (0..10_000).map(|number| (id(number), (1, false))).collect();
    let found = compare(&Set::new(), &there, (STRETCH_DOCUMENTS, 3_000), &[]).unwrap();
    assert_eq!((found.differing.len(), found.frames), (10_000, 4));
}

#[test]
fn a_range_that_is_split_without_end_is_given_up() {
    let mut walk = Walk::new(Some(IdRange::all().first), RUN);
    walk.next_stretch().unwrap();
    walk.stretch(Vec::new(), false);
    let fingerprint = crate::replication::reconcile::Fingerprint([9; 16]);
    let parts = [Part { end: None, content: Content::Counted(5, fingerprint) }];
    let error = (1..100_u32).find_map(|round| {
        let due = walk.due(PATIENCE * round, PATIENCE).unwrap();
        due.into_iter().find_map(|(number, _)| walk.answered(number, &parts).err())
    });
    assert_eq!(error, Some(WalkError::Endless));
}

#[test]
fn a_question_is_asked_again_until_it_is_hopeless() {
    let mut walk = Walk::new(Some(IdRange::all().first), RUN);
    walk.next_stretch().unwrap();
    walk.stretch(Vec::new(), false);
    let mut now = Duration::ZERO;
    let mut asked = 0;
    let error = loop {
        match walk.due(now, PATIENCE) {
            Ok(due) => asked += due.len(),
            Err(error) => break error,
        }
        now += PATIENCE;
    };
    assert_eq!((asked, error), (5, WalkError::Unanswered));
}
