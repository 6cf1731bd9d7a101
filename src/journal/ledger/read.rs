//! Reading the ledger: pages of the index, newest first, counts, and what is settled.
//!
//! A total is exact. Where the filter says no more than collection, state and kind it comes from
//! the counts; otherwise it is counted in the narrowest range of the index that holds every match.

use std::collections::BTreeSet;
use std::ops::Bound;

use anabranch_crdt::conflict::{ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::ids::{DocumentId, Origin, Timestamp};
use redb::{AccessGuard, ReadTransaction, ReadableTable};

use super::keys::{self, Scope};
use super::record::{self, IndexEntry};
use super::{
    LedgerCount, LedgerFilter, LedgerPage, LedgerPosition, LedgerRow, SettledConflict,
    StoredConflict,
};
use crate::journal::ReadError;
use crate::journal::reader::open;
use crate::journal::store::unreadable;
use crate::journal::table::{self, CONFLICT_COUNTS, CONFLICT_INDEX, CONFLICTS};

/// A page of the rows that `filter` passes, from behind `after` on.
pub(in crate::journal) fn page(
    transaction: &ReadTransaction,
    filter: &LedgerFilter,
    after: Option<LedgerPosition>,
    limit: usize,
) -> Result<LedgerPage, ReadError> {
    match &filter.documents {
        Some(documents) => page_of(transaction, documents, filter, after, limit),
        // Nothing is earlier than that.
        None if filter.until == Some(Timestamp(0)) => Ok(LedgerPage::default()),
        None if Sieve::counts(filter) => counted_page(transaction, filter, after, limit),
        None => searched_page(transaction, filter, after, limit),
    }
}

/// How many rows are alike, for each kind of them.
pub(in crate::journal) fn counts(
    transaction: &ReadTransaction,
) -> Result<Vec<LedgerCount>, ReadError> {
    let table = open(transaction, &CONFLICT_COUNTS)?;
    let mut found = Vec::new();
    for pair in table.iter().map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        let part = keys::count_parts(key.value())?;
        let count = record::count(key.value(), value.value())?;
        if let Some(collection) = part.scope {
            found.push(LedgerCount { collection, state: part.state, kind: part.kind, count });
        }
    }
    Ok(found)
}

/// Settled rows behind `after`, oldest first; only those at rest since before `before`.
pub(in crate::journal) fn settled(
    transaction: &ReadTransaction,
    before: Option<Timestamp>,
    after: Option<LedgerPosition>,
    limit: usize,
) -> Result<Vec<SettledConflict>, ReadError> {
    let states = keys::states().filter(|state| *state != ConflictState::Open);
    let newest = before.map(|before| first_at(before.0.saturating_sub(1)));
    let range = (newest, after.map(Bound::Excluded));
    let mut walk = Walk::new(transaction, Scope::All, states, range, Direction::OldestFirst)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(step) = walk.next()? else { break };
        let entry = step.entry()?;
        let rests_since = entry.acted_at.unwrap_or_default().max(step.position.at);
        if before.is_none_or(|before| rests_since < before) {
            found.push(SettledConflict { position: step.position, document: entry.document });
        }
    }
    Ok(found)
}

/// A row, if it is there.
pub(in crate::journal) fn row(
    transaction: &ReadTransaction,
    document: DocumentId,
    conflict: ConflictId,
) -> Result<Option<LedgerRow>, ReadError> {
    let key = table::conflict_key(document, conflict);
    let value = open(transaction, &CONFLICTS)?.get(&key).map_err(unreadable)?;
    value.map(|value| record::owned(&key, value.value())).transpose()
}

/// Rows in the order of (document, conflict).
pub(in crate::journal) fn rows(
    transaction: &ReadTransaction,
    range: (Bound<&[u8; 32]>, Bound<&[u8; 32]>),
    limit: usize,
) -> Result<Vec<StoredConflict>, ReadError> {
    let table = open(transaction, &CONFLICTS)?;
    let mut found = Vec::new();
    for pair in table.range::<&[u8; 32]>(range).map_err(unreadable)?.take(limit) {
        let (key, value) = pair.map_err(unreadable)?;
        let (document, conflict) = table::conflict_parts(key.value())?;
        let row = record::owned(key.value(), value.value())?;
        found.push(StoredConflict { document, conflict, row });
    }
    Ok(found)
}

/// A page of some documents, whose rows are all looked at; only those of the page are copied.
fn page_of(
    transaction: &ReadTransaction,
    documents: &BTreeSet<DocumentId>,
    filter: &LedgerFilter,
    after: Option<LedgerPosition>,
    limit: usize,
) -> Result<LedgerPage, ReadError> {
    let table = open(transaction, &CONFLICTS)?;
    let mut found = Vec::new();
    for document in documents.iter().copied() {
        let (first, last) = table::conflict_bounds(document);
        for pair in table.range::<&[u8; 32]>(&first..=&last).map_err(unreadable)? {
            let (key, value) = pair.map_err(unreadable)?;
            let (_, conflict) = table::conflict_parts(key.value())?;
            let (summary, _) = record::row(key.value(), value.value())?;
            if filter.passes(document, &summary) {
                found.push((LedgerPosition { at: summary.at, conflict }, document, value));
            }
        }
    }
    found.sort_by_key(|(position, ..)| place(position));
    let total = found.len() as u64;
    let mut page = Page::new(transaction, limit)?;
    for (position, document, value) in found {
        let behind = after.is_none_or(|after| place(&position) > place(&after));
        if behind && !page.is_full() {
            let key = table::conflict_key(document, position.conflict);
            let row = record::owned(&key, value.value())?;
            page.rows.push(StoredConflict { document, conflict: position.conflict, row });
        }
    }
    Ok(page.of(total))
}

/// A page whose total is known from the counts, so that only its own rows are looked at.
fn counted_page(
    transaction: &ReadTransaction,
    filter: &LedgerFilter,
    after: Option<LedgerPosition>,
    limit: usize,
) -> Result<LedgerPage, ReadError> {
    let scope = Scope::of(filter);
    let mut total = 0_u64;
    let mut states = Vec::new();
    for state in keys::states().filter(|state| filter.state.is_none_or(|wanted| wanted == *state)) {
        let count = count(transaction, scope, state, filter.kind)?;
        total = total.saturating_add(count);
        states.extend((count > 0).then_some(state));
    }
    let range = (after.map(Bound::Excluded), None);
    let mut walk = Walk::new(transaction, scope, states, range, Direction::NewestFirst)?;
    let sieve = Sieve::new(filter);
    let mut page = Page::new(transaction, limit)?;
    while let Some(step) = walk.next()? {
        let entry = step.entry()?;
        // The last of few is followed by many that are looked at for nothing.
        if after.is_none() && page.rows.len() as u64 == total {
            break;
        }
        if sieve.passes(&entry) && !page.take(step.position, entry.document)? {
            break;
        }
    }
    Ok(page.of(total))
}

/// A page and its total, by a look at every row of the range.
fn searched_page(
    transaction: &ReadTransaction,
    filter: &LedgerFilter,
    after: Option<LedgerPosition>,
    limit: usize,
) -> Result<LedgerPage, ReadError> {
    let states = keys::states().filter(|state| filter.state.is_none_or(|wanted| wanted == *state));
    let newest = filter.until.map(|until| first_at(until.0.saturating_sub(1)));
    let oldest = filter.since.map(last_at);
    let range = (newest, oldest);
    let scope = Scope::of(filter);
    let mut walk = Walk::new(transaction, scope, states, range, Direction::NewestFirst)?;
    let sieve = Sieve::new(filter);
    let mut page = Page::new(transaction, limit)?;
    let mut total = 0;
    while let Some(step) = walk.next()? {
        let entry = step.entry()?;
        if !sieve.passes(&entry) {
            continue;
        }
        total += 1;
        if after.is_none_or(|after| place(&step.position) > place(&after)) {
            page.take(step.position, entry.document)?;
        }
    }
    Ok(page.of(total))
}

/// How many rows of a scope have a state, and a kind if one is given.
fn count(
    transaction: &ReadTransaction,
    scope: Scope<'_>,
    state: ConflictState,
    kind: Option<ConflictKind>,
) -> Result<u64, ReadError> {
    let table = open(transaction, &CONFLICT_COUNTS)?;
    let start = kind.map_or_else(|| scope.state(state), |kind| scope.count(state, kind));
    let mut total = 0_u64;
    for pair in table.range::<&[u8]>(start.as_slice()..).map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        if !key.value().starts_with(&start) {
            break;
        }
        total = total.saturating_add(record::count(key.value(), value.value())?);
    }
    Ok(total)
}

/// The order of listings: newest first, then by id.
fn place(position: &LedgerPosition) -> (std::cmp::Reverse<Timestamp>, ConflictId) {
    (std::cmp::Reverse(position.at), position.conflict)
}

/// Before every row of a time.
fn first_at(at: u64) -> Bound<LedgerPosition> {
    Bound::Included(LedgerPosition { at: Timestamp(at), conflict: ConflictId([0; 16]) })
}

/// Behind every row of a time.
fn last_at(at: Timestamp) -> Bound<LedgerPosition> {
    Bound::Included(LedgerPosition { at, conflict: ConflictId([u8::MAX; 16]) })
}

/// What a filter asks for that the keys of the index do not tell.
struct Sieve<'f> {
    kind: Option<ConflictKind>,
    path: Option<String>,
    leaders: Option<&'f BTreeSet<Origin>>,
}

impl<'f> Sieve<'f> {
    fn new(filter: &'f LedgerFilter) -> Self {
        let path = filter.path.as_ref().map(ToString::to_string);
        Self { kind: filter.kind, path, leaders: filter.leaders.as_ref() }
    }

    /// Tells whether the counts know how many rows a filter passes.
    fn counts(filter: &LedgerFilter) -> bool {
        let LedgerFilter { path, leaders, since, until, .. } = filter;
        path.is_none() && leaders.is_none() && since.is_none() && until.is_none()
    }

    fn passes(&self, entry: &IndexEntry<'_>) -> bool {
        self.kind.is_none_or(|wanted| wanted == entry.kind)
            && self.path.as_ref().is_none_or(|wanted| starts_with(entry.path, wanted))
            && self.leaders.is_none_or(|wanted| entry.leaders().any(|one| wanted.contains(&one)))
    }
}

/// Tells whether a JSON pointer starts with the tokens of another.
fn starts_with(path: &str, wanted: &str) -> bool {
    let rest = path.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A page in the making.
struct Page {
    table: redb::ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    rows: Vec<StoredConflict>,
    limit: usize,
    more: bool,
}

impl Page {
    fn new(transaction: &ReadTransaction, limit: usize) -> Result<Self, ReadError> {
        let table = open(transaction, &CONFLICTS)?;
        Ok(Self { table, rows: Vec::new(), limit, more: false })
    }

    /// Takes a row that the index tells of; `false` if there is no room for it.
    fn take(&mut self, position: LedgerPosition, document: DocumentId) -> Result<bool, ReadError> {
        if self.is_full() {
            return Ok(false);
        }
        let LedgerPosition { conflict, .. } = position;
        let key = table::conflict_key(document, conflict);
        let value = self.table.get(&key).map_err(unreadable)?;
        // They are written together, so an entry without its row is damage.
        let value = value.ok_or(ReadError::Corrupt { table: CONFLICT_INDEX.name })?;
        let row = record::owned(&key, value.value())?;
        self.rows.push(StoredConflict { document, conflict, row });
        Ok(true)
    }

    fn is_full(&mut self) -> bool {
        let full = self.rows.len() >= self.limit;
        self.more |= full;
        full
    }

    fn of(self, total: u64) -> LedgerPage {
        let next = self.rows.last().filter(|_| self.more).map(StoredConflict::position);
        LedgerPage { rows: self.rows, total, next }
    }
}

/// A way through the ranges of several states at once, in the order of time.
struct Walk {
    lanes: Vec<Lane>,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    NewestFirst,
    OldestFirst,
}

/// The range of one state, and the row that comes next in it.
struct Lane {
    range: redb::Range<'static, &'static [u8], &'static [u8]>,
    next: Option<Step>,
}

/// One row of a walk.
struct Step {
    position: LedgerPosition,
    key: AccessGuard<'static, &'static [u8]>,
    value: AccessGuard<'static, &'static [u8]>,
}

impl Step {
    fn entry(&self) -> Result<IndexEntry<'_>, ReadError> {
        record::index_entry(self.key.value(), self.value.value())
    }
}

type Ends = (Option<Bound<LedgerPosition>>, Option<Bound<LedgerPosition>>);

impl Walk {
    /// Starts a walk through a part of the index; the ends are its newest and its oldest row.
    fn new(
        transaction: &ReadTransaction,
        scope: Scope<'_>,
        states: impl IntoIterator<Item = ConflictState>,
        (newest, oldest): Ends,
        direction: Direction,
    ) -> Result<Self, ReadError> {
        let index = open(transaction, &CONFLICT_INDEX)?;
        let first = newest.unwrap_or(first_at(u64::MAX));
        let last = oldest.unwrap_or(last_at(Timestamp(0)));
        let mut lanes = Vec::new();
        for state in states {
            let first = first.map(|position| scope.row(state, position));
            let last = last.map(|position| scope.row(state, position));
            if limit_of(&first) >= limit_of(&last) {
                continue;
            }
            let ends = (first.as_ref().map(Vec::as_slice), last.as_ref().map(Vec::as_slice));
            let range = index.range::<&[u8]>(ends).map_err(unreadable)?;
            let mut lane = Lane { range, next: None };
            lane.advance(direction)?;
            lanes.push(lane);
        }
        Ok(Self { lanes, direction })
    }

    fn next(&mut self) -> Result<Option<Step>, ReadError> {
        let full = self.lanes.iter_mut().filter_map(|lane| {
            let place = lane.next.as_ref().map(|step| place(&step.position))?;
            Some((place, lane))
        });
        let nearest = match self.direction {
            Direction::NewestFirst => full.min_by(|(one, _), (other, _)| one.cmp(other)),
            Direction::OldestFirst => full.max_by(|(one, _), (other, _)| one.cmp(other)),
        };
        let Some((_, lane)) = nearest else { return Ok(None) };
        let step = lane.next.take();
        lane.advance(self.direction)?;
        Ok(step)
    }
}

impl Lane {
    fn advance(&mut self, direction: Direction) -> Result<(), ReadError> {
        let pair = match direction {
            Direction::NewestFirst => self.range.next(),
            Direction::OldestFirst => self.range.next_back(),
        };
        let Some(pair) = pair else { return Ok(()) };
        let (key, value) = pair.map_err(unreadable)?;
        let position = keys::position(CONFLICT_INDEX.name, key.value())?;
        self.next = Some(Step { position, key, value });
        Ok(())
    }
}

fn limit_of(bound: &Bound<Vec<u8>>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}
