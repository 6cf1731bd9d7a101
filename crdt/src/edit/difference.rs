//! The difference of two values, as the fewest edits.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Edit, Path};
use crate::json;

/// Returns the fewest edits that turn `old` into `new`, both JSON objects (anything else counts
/// as an empty one).
///
/// Only what differs is touched, so that concurrent writes to the rest survive: objects are
/// compared key by key, and lists keep the longest run of elements that both have in common.
/// What stands between two kept elements is changed in place where it can be.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<Edit> {
    let none = Map::new();
    let mut differ = Differ::default();
    differ.objects(old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
    differ.into_edits()
}

/// Collects edits while it walks down two values side by side.
#[derive(Debug)]
pub(super) struct Differ {
    here: Vec<String>,
    edits: Vec<Edit>,
    /// How many more cells may be spent on tables of common subsequences.
    cells: usize,
}

impl Default for Differ {
    fn default() -> Self {
        Self { here: Vec::new(), edits: Vec::new(), cells: MAX_CELLS }
    }
}

impl Differ {
    pub(super) fn into_edits(self) -> Vec<Edit> {
        self.edits
    }

    pub(super) fn enter(&mut self, token: impl Into<String>) {
        self.here.push(token.into());
    }

    pub(super) fn leave(&mut self) {
        self.here.pop();
    }

    pub(super) fn set(&mut self, value: Value) {
        let path = self.path();
        self.edits.push(Edit::Set { path, value });
    }

    pub(super) fn remove(&mut self) {
        let path = self.path();
        self.edits.push(Edit::Remove { path });
    }

    /// Turns the value at this place from `old` into `new`.
    pub(super) fn change(&mut self, old: &Value, new: &Value) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => self.objects(old, new),
            (Value::Array(old), Value::Array(new)) => self.lists(old, new),
            _ if json::same(old, new) => {}
            _ => self.set(new.clone()),
        }
    }

    fn insert(&mut self, value: Value) {
        let path = self.path();
        self.edits.push(Edit::Insert { path, value });
    }

    fn path(&self) -> Path {
        Path::from(self.here.clone())
    }

    fn objects(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) {
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.enter(key);
            self.remove();
            self.leave();
        }
        for (key, value) in new {
            self.enter(key);
            match old.get(key) {
                Some(old) => self.change(old, value),
                None => self.set(value.clone()),
            }
            self.leave();
        }
    }

    fn lists(&mut self, old: &[Value], new: &[Value]) {
        let alike = |(old, new): &(&Value, &Value)| json::same(old, new);
        let start = old.iter().zip(new).take_while(alike).count();
        let (old, new) = (skip(old, start), skip(new, start));
        let end = old.iter().rev().zip(new.iter().rev()).take_while(alike).count();
        let (old, new) = (skip_end(old, end), skip_end(new, end));
        let (mut at, mut dropped) = (start, 0);
        for step in self.align(old, new) {
            if !matches!(step, Step::Drop) {
                self.remove_elements(at, std::mem::take(&mut dropped));
            }
            self.enter(at.to_string());
            match step {
                Step::Keep => {}
                Step::Change(old, new) => self.change(old, new),
                Step::Add(value) => self.insert(value.clone()),
                Step::Drop => dropped += 1,
            }
            self.leave();
            at += usize::from(dropped == 0);
        }
        self.remove_elements(at, dropped);
    }

    /// Removes elements from the last to the first, which never moves one that goes next.
    fn remove_elements(&mut self, at: usize, count: usize) {
        for index in (at..at + count).rev() {
            self.enter(index.to_string());
            self.remove();
            self.leave();
        }
    }

    /// Finds the fewest steps, or plain ones where a table of all pairs would be too great.
    fn align<'a>(&mut self, old: &'a [Value], new: &'a [Value]) -> Vec<Step<'a>> {
        let cells = old.len().saturating_mul(new.len());
        if cells == 0 || cells > MAX_CELLS_PER_LIST || cells > self.cells {
            return side_by_side(old, new);
        }
        self.cells -= cells;
        Costs::new(old, new).steps(old, new)
    }
}

/// What becomes of the next old element, or that a new one comes before it.
enum Step<'a> {
    Keep,
    Change(&'a Value, &'a Value),
    Drop,
    Add(&'a Value),
}

/// Changes every element into the one at its place, and drops or adds the rest.
fn side_by_side<'a>(old: &'a [Value], new: &'a [Value]) -> Vec<Step<'a>> {
    let both = old.iter().zip(new).map(|(old, new)| Step::Change(old, new));
    let dropped = skip(old, new.len()).iter().map(|_| Step::Drop);
    let added = skip(new, old.len()).iter().map(Step::Add);
    both.chain(dropped).chain(added).collect()
}

/// What it costs to turn each suffix of one list into each suffix of another: the edit distance,
/// and of equal distances the one that keeps more elements.
struct Costs {
    old: Vec<usize>,
    new: Vec<usize>,
    cells: Vec<u32>,
}

/// The first step of the cheapest way from a cell.
#[derive(Debug, Clone, Copy)]
enum Move {
    Keep,
    Change,
    Drop,
    Add,
}

impl Costs {
    fn new(old: &[Value], new: &[Value]) -> Self {
        // Equal elements get equal numbers, so that every pair is compared at once.
        let mut numbers = BTreeMap::new();
        let mut number = |value: &Value| {
            let next = numbers.len();
            *numbers.entry(json::canonical(value)).or_insert(next)
        };
        let old: Vec<_> = old.iter().map(&mut number).collect();
        let new: Vec<_> = new.iter().map(&mut number).collect();
        let cells = vec![0; (old.len() + 1) * (new.len() + 1)];
        let mut costs = Self { old, new, cells };
        costs.measure();
        costs
    }

    fn measure(&mut self) {
        for row in (0..=self.old.len()).rev() {
            for column in (0..=self.new.len()).rev() {
                let cost = self.best(row, column).map_or(0, |(cost, _)| cost);
                let cell = self.cell(row, column);
                if let Some(place) = self.cells.get_mut(cell) {
                    *place = cost;
                }
            }
        }
    }

    /// Returns the cheapest step from a cell, and what it costs to the end; none at the end.
    fn best(&self, row: usize, column: usize) -> Option<(u32, Move)> {
        let drop = || (self.cost(row + 1, column) + ONE_EDIT, Move::Drop);
        let add = || (self.cost(row, column + 1) + ONE_EDIT, Move::Add);
        match (self.old.get(row), self.new.get(column)) {
            (None, None) => None,
            (Some(_), None) => Some(drop()),
            (None, Some(_)) => Some(add()),
            (Some(old), Some(new)) if old == new => {
                Some((self.cost(row + 1, column + 1), Move::Keep))
            }
            (Some(_), Some(_)) => {
                let change = (self.cost(row + 1, column + 1) + ONE_EDIT + 1, Move::Change);
                [change, drop(), add()].into_iter().min_by_key(|(cost, _)| *cost)
            }
        }
    }

    fn cell(&self, row: usize, column: usize) -> usize {
        row * (self.new.len() + 1) + column
    }

    fn cost(&self, row: usize, column: usize) -> u32 {
        self.cells.get(self.cell(row, column)).copied().unwrap_or_default()
    }

    fn steps<'a>(&self, old: &'a [Value], new: &'a [Value]) -> Vec<Step<'a>> {
        let (mut old, mut new) = (old.iter(), new.iter());
        let next = || {
            let (row, column) = (self.old.len() - old.len(), self.new.len() - new.len());
            match self.best(row, column)?.1 {
                Move::Keep => old.next().zip(new.next()).map(|_| Step::Keep),
                Move::Change => old.next().zip(new.next()).map(|(old, new)| Step::Change(old, new)),
                Move::Drop => old.next().map(|_| Step::Drop),
                Move::Add => new.next().map(Step::Add),
            }
        };
        std::iter::from_fn(next).collect()
    }
}

fn skip(items: &[Value], count: usize) -> &[Value] {
    items.get(count..).unwrap_or_default()
}

fn skip_end(items: &[Value], count: usize) -> &[Value] {
    items.get(..items.len().saturating_sub(count)).unwrap_or_default()
}

/// The greatest table for one pair of lists: 500 elements against 500, about a millisecond.
const MAX_CELLS_PER_LIST: usize = 250_000;

/// The greatest sum of all tables for one pair of documents, so that a request with very many
/// lists costs no more than some ten milliseconds.
const MAX_CELLS: usize = 4_000_000;

/// What one edit costs. A change in place costs one more, so that of two ways with as many edits
/// the one with fewer changes, which keeps more elements, is cheaper; no list within the bounds
/// needs as many changes as one edit costs.
const ONE_EDIT: u32 = 1024;
