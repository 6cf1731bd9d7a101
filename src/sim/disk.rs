//! A disk in memory that crashes, tears writes, fills up and fails, for tests of storage.
//!
//! Writes and length changes stay in a volatile queue until they are synced. A crash keeps, drops
//! or tears each of them at random, in granules of 1 B, 512 B or 4 KiB, so that they may reach
//! the platter in any order. Everything follows from one seed.
//!
//! The tests of the journal and of the client's store use it as well as the simulator.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    disk: Arc<Mutex<Disk>>,
}

/// What a process has open; it goes dead when the disk crashes.
#[derive(Debug)]
pub(crate) struct SimBackend {
    disk: SimDisk,
    epoch: u64,
}

struct Disk {
    /// What survives a crash for sure.
    durable: Vec<u8>,
    /// What a read sees.
    volatile: Vec<u8>,
    unsynced: Vec<Change>,
    dice: Dice,
    /// Counts up with each crash; backends of an earlier epoch are dead.
    epoch: u64,
    /// Writes, syncs and length changes until the power fails.
    fuse: Option<u64>,
    /// Writes and length changes until nothing at all can be written.
    space: Option<u64>,
    /// Blocks that were written once, and have their space for good.
    allocated: BTreeSet<usize>,
    /// Whether no further block gets space.
    full: bool,
    /// Of a hundred syncs, so many are only said to be done.
    lies: u64,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl SimDisk {
    /// Makes an empty disk whose crashes follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self::holding(seed, Vec::new())
    }

    /// Makes a disk that holds a file already.
    pub(crate) fn holding(seed: u64, image: Vec<u8>) -> Self {
        let disk = Disk {
            durable: image.clone(),
            volatile: image,
            unsynced: Vec::new(),
            dice: Dice(seed),
            epoch: 0,
            fuse: None,
            space: None,
            allocated: BTreeSet::new(),
            full: false,
            lies: 0,
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Opens the disk.
    pub(crate) fn backend(&self) -> SimBackend {
        SimBackend { disk: self.clone(), epoch: self.lock().epoch }
    }

    /// Lets the power fail after so many writes, syncs and length changes.
    pub(crate) fn crash_after(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    /// Lets the disk be full now: blocks that were written before can be written again, as in a
    /// file system that writes in place.
    pub(crate) fn fill(&self) {
        self.lock().full = true;
    }

    /// Lets every write fail for lack of space after so many writes and length changes, as in a
    /// file system that copies on write.
    pub(crate) fn fill_after(&self, operations: u64) {
        self.lock().space = Some(operations);
    }

    /// Lets so many of a hundred syncs do nothing, and say that they did.
    pub(crate) fn lie(&self, percent: u64) {
        self.lock().lies = percent;
    }

    /// Tells whether the power has failed and not come back.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().fuse == Some(0)
    }

    /// Tells whether there may be no space.
    pub(crate) fn is_full(&self) -> bool {
        let disk = self.lock();
        disk.full || disk.space.is_some()
    }

    /// Makes space again.
    pub(crate) fn make_space(&self) {
        let mut disk = self.lock();
        (disk.space, disk.full) = (None, false);
    }

    /// Cuts the power, and turns it on again: every open backend is dead, and of what was not
    /// synced a random part is left.
    pub(crate) fn power_cycle(&self) {
        let mut disk = self.lock();
        disk.fuse = None;
        disk.epoch += 1;
        disk.settle();
    }

    /// Returns what is on the disk, as a reader sees it.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.lock().volatile.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("bytes", &self.lock().volatile.len()).finish()
    }
}

impl redb::StorageBackend for SimBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.volatile.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(disk.volatile.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.spend(true)?;
        disk.apply(Change::Length(usize::try_from(len).map_err(io::Error::other)?));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.spend(false)?;
        if disk.lies > 0 && disk.dice.roll(100) < disk.lies {
            return Ok(());
        }
        for change in std::mem::take(&mut disk.unsynced) {
            match change {
                Change::Write(offset, data) => overwrite(&mut disk.durable, offset, &data),
                Change::Length(length) => disk.durable.resize(length, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.spend(true)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        disk.allocate(offset, data.len())?;
        disk.apply(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl SimBackend {
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.epoch != self.epoch || disk.fuse == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(disk)
    }
}

impl Disk {
    fn spend(&mut self, takes_space: bool) -> io::Result<()> {
        if let Some(fuse) = &mut self.fuse {
            *fuse -= 1;
            if *fuse == 0 {
                return Err(io::Error::other("the power fails"));
            }
        }
        match &mut self.space {
            Some(0) if takes_space => Err(io::ErrorKind::StorageFull.into()),
            Some(space) if takes_space => {
                *space -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn allocate(&mut self, offset: usize, length: usize) -> io::Result<()> {
        let blocks = offset / BLOCK..(offset + length).div_ceil(BLOCK);
        if self.full && blocks.clone().any(|block| !self.allocated.contains(&block)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.allocated.extend(blocks);
        Ok(())
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Write(offset, data) => overwrite(&mut self.volatile, *offset, data),
            Change::Length(length) => self.volatile.resize(*length, 0),
        }
        self.unsynced.push(change);
    }

    /// Decides what a crash leaves.
    fn settle(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match (change, self.dice.roll(3)) {
                (_, 0) => {}
                (Change::Length(length), _) => self.durable.resize(length, 0),
                (Change::Write(offset, data), 1) => overwrite(&mut self.durable, offset, &data),
                (Change::Write(offset, data), _) => self.tear(offset, &data),
            }
        }
        self.volatile = self.durable.clone();
    }

    fn tear(&mut self, offset: usize, data: &[u8]) {
        let granule = match self.dice.roll(3) {
            0 => 1,
            1 => 512,
            _ => BLOCK,
        };
        let mut at = offset;
        for part in data.chunks(granule) {
            if self.dice.roll(2) == 0 {
                overwrite(&mut self.durable, at, part);
            }
            at += part.len();
        }
    }
}

/// Writes as far as the file goes: a length change that was lost takes what lies beyond with it.
fn overwrite(file: &mut [u8], offset: usize, data: &[u8]) {
    let end = file.len().min(offset + data.len());
    let (Some(to), Some(from)) =
        (file.get_mut(offset..end), data.get(..end.saturating_sub(offset)))
    else {
        return;
    };
    to.copy_from_slice(from);
}

/// SplitMix64: small, and the same for ever.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Returns a number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// Returns the next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// Bytes of a block of the file system.
const BLOCK: usize = 4096;
