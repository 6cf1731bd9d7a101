//! The disks of the simulated nodes: what is durable, what is not yet, and what a crash leaves.

use std::collections::BTreeMap;

use anabranch::replication::Ticket;
use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{
    BootId, DocumentId, DocumentName, Origin, RegionName, Sequence, Timestamp,
};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

/// A write of a client that the node admits; the disk numbers it.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) document: DocumentId,
    pub(crate) name: Option<DocumentName>,
    pub(crate) admitted: Timestamp,
    pub(crate) change: Bytes,
}

/// Work that waits for a sync.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Admit(Draft),
    Append(Ticket, Vec<Entry>),
}

/// What one sync made durable.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    pub(crate) local: Vec<Entry>,
    pub(crate) remote: Vec<Entry>,
    pub(crate) appended: Vec<(Ticket, Option<String>)>,
}

/// What the simulator asks of a disk; a real journal can stand here.
pub(crate) trait Storage {
    fn origin(&self) -> Origin;
    fn vector(&self) -> VersionVector;
    fn names(&self) -> Vec<(Origin, RegionName)>;
    fn name_origin(&mut self, origin: Origin, region: RegionName, after: Vec<Dot>);
    fn chains(&self) -> &Chains;
    fn vouched(&self) -> Vec<(Origin, BootId)>;
    fn vouch(&mut self, origin: Origin, boot: BootId);
    fn read(&self, origin: Origin, after: Sequence, entries: usize, bytes: usize) -> Vec<Entry>;
    fn entries(&self) -> Vec<Entry>;
    fn stage(&mut self, work: Work);
    fn staged(&self) -> usize;
    /// Tells whether the entry is durable or may become so.
    fn may_hold(&self, dot: Dot) -> bool;
    /// Makes the first `count` works durable; `fail` fails the appends among them.
    fn sync(&mut self, count: usize, fail: bool) -> Synced;
    /// Drops what is not durable.
    fn crash(&mut self);
    /// Takes a new origin of a region, and tells what stands before it.
    fn renew(&mut self, origin: Origin, region: &RegionName) -> Vec<Dot>;
    /// Begins to belong to a process, and tells who had it before.
    fn begin(&mut self, boot: BootId) -> Start;
    /// Ends in order.
    fn end(&mut self);
    /// Copies what is durable, as a backup or a clone of the disk would.
    fn image(&self) -> Box<dyn Storage>;
}

/// How a process comes to the origin of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Fresh,
    Kept(BootId),
    Broken,
}

/// A disk in memory.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    origin: Origin,
    vector: VersionVector,
    entries: BTreeMap<Dot, Entry>,
    names: BTreeMap<Origin, RegionName>,
    chains: Chains,
    vouched: BTreeMap<Origin, BootId>,
    /// The last process, and whether it ended in order.
    last: Option<(BootId, bool)>,
    staged: Vec<Work>,
}

impl Memory {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            vector: VersionVector::new(),
            entries: BTreeMap::new(),
            names: BTreeMap::new(),
            chains: Chains::new(),
            vouched: BTreeMap::new(),
            last: None,
            staged: Vec::new(),
        }
    }

    fn admit(&mut self, draft: Draft) -> Entry {
        let Draft { document, name, admitted, change } = draft;
        let (origin, sequence) = (self.origin, self.vector.sequence(self.origin).next());
        let entry = Entry { origin, sequence, document, name, admitted, change };
        self.store(&entry);
        entry
    }

    /// Appends all or nothing, as the journal does.
    fn append(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, String> {
        let mut next = self.vector.clone();
        let mut added = Vec::new();
        for entry in entries {
            assert_ne!(entry.origin, self.origin, "own entries are never appended from outside");
            if next.contains(entry.dot()) {
                continue;
            }
            if entry.sequence != next.sequence(entry.origin).next() {
                return Err(format!("gap before {:?}", entry.dot()));
            }
            next.raise(entry.origin, entry.sequence);
            added.push(entry);
        }
        added.iter().for_each(|entry| self.store(entry));
        Ok(added)
    }

    fn store(&mut self, entry: &Entry) {
        self.vector.raise(entry.origin, entry.sequence);
        assert!(self.chains.allow(entry.origin, &self.vector), "appended before what it implies");
        self.entries.insert(entry.dot(), entry.clone());
    }
}

impl Storage for Memory {
    fn origin(&self) -> Origin {
        self.origin
    }

    fn vector(&self) -> VersionVector {
        self.vector.clone()
    }

    fn names(&self) -> Vec<(Origin, RegionName)> {
        self.names.iter().map(|(origin, region)| (*origin, region.clone())).collect()
    }

    fn name_origin(&mut self, origin: Origin, region: RegionName, after: Vec<Dot>) {
        self.names.insert(origin, region);
        self.chains.note(origin, after);
    }

    fn chains(&self) -> &Chains {
        &self.chains
    }

    fn vouched(&self) -> Vec<(Origin, BootId)> {
        self.vouched.iter().map(|(origin, boot)| (*origin, *boot)).collect()
    }

    fn vouch(&mut self, origin: Origin, boot: BootId) {
        self.vouched.insert(origin, boot);
    }

    fn read(&self, origin: Origin, after: Sequence, entries: usize, bytes: usize) -> Vec<Entry> {
        let from = Dot { origin, sequence: after.next() };
        let to = Dot { origin, sequence: Sequence(u64::MAX) };
        let mut total = 0;
        let mut fits = |(index, entry): &(usize, &Entry)| {
            total += entry.change.len();
            *index == 0 || total <= bytes
        };
        let range = self.entries.range(from..=to).map(|(_, entry)| entry);
        let range = range.take(entries).enumerate().take_while(|item| fits(item));
        range.map(|(_, entry)| entry.clone()).collect()
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }

    fn stage(&mut self, work: Work) {
        self.staged.push(work);
    }

    fn staged(&self) -> usize {
        self.staged.len()
    }

    fn may_hold(&self, dot: Dot) -> bool {
        let staged = self.staged.iter().any(|work| match work {
            Work::Admit(_) => false,
            Work::Append(_, entries) => entries.iter().any(|entry| entry.dot() == dot),
        });
        staged || self.vector.contains(dot)
    }

    fn sync(&mut self, count: usize, fail: bool) -> Synced {
        let mut synced = Synced::default();
        for work in self.staged.drain(..count).collect::<Vec<_>>() {
            match work {
                Work::Admit(draft) => synced.local.push(self.admit(draft)),
                Work::Append(ticket, _) if fail => {
                    synced.appended.push((ticket, Some("disk trouble".to_owned())));
                }
                Work::Append(ticket, entries) => match self.append(entries) {
                    Ok(added) => {
                        synced.remote.extend(added);
                        synced.appended.push((ticket, None));
                    }
                    Err(error) => synced.appended.push((ticket, Some(error))),
                },
            }
        }
        synced
    }

    fn crash(&mut self) {
        self.staged.clear();
    }

    fn renew(&mut self, origin: Origin, region: &RegionName) -> Vec<Dot> {
        let is_own =
            |dot: &Dot| dot.origin == self.origin || self.names.get(&dot.origin) == Some(region);
        let own: VersionVector = self.vector.iter().filter(is_own).collect();
        let after: Vec<Dot> = self.chains.compact(&own).iter().collect();
        self.name_origin(origin, region.clone(), after.clone());
        self.origin = origin;
        after
    }

    fn begin(&mut self, boot: BootId) -> Start {
        match self.last.replace((boot, false)) {
            None => Start::Fresh,
            Some((before, true)) => Start::Kept(before),
            Some((_, false)) => Start::Broken,
        }
    }

    fn end(&mut self) {
        self.last = self.last.map(|(boot, _)| (boot, true));
    }

    fn image(&self) -> Box<dyn Storage> {
        Box::new(Self { staged: Vec::new(), ..self.clone() })
    }
}
