//! Records: how values are written, with a hash over table, key and value.
//!
//! redb checks its pages only when it repairs a file, so bits that rot would be read as they are.
//! Each value here ends with the XXH3-64 of the table's name, the key and the bytes before it,
//! and no field of a value is looked at before that hash was compared.
//!
//! ```text
//! format (1) | fields ... | hash (8)
//! ```
//!
//! Numbers are big-endian. Texts have their length in front; a field of bytes is the last one and
//! takes what is left.

use std::collections::BTreeSet;

use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{DocumentId, DocumentName, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::table::{DOCUMENTS, ENTRIES, NAMES, ORIGINS};
use super::{DocumentRow, Identity, ReadError};

/// Writes records into one buffer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn entry(&mut self, key: &[u8], entry: &Entry) -> &[u8] {
        self.start();
        self.bytes.extend_from_slice(entry.document.as_bytes());
        self.number(entry.admitted.0);
        self.name(entry.name.as_ref());
        self.bytes.extend_from_slice(&entry.change);
        self.seal(ENTRIES.name, key)
    }

    /// A document: which entries it is made of, and its row, if there is one yet.
    pub(super) fn document(
        &mut self,
        key: &[u8],
        row: Option<&DocumentRow>,
        made_of: &MadeOf,
    ) -> &[u8] {
        self.start();
        self.dots(&made_of.tail);
        let more = !made_of.follows_from_tail();
        self.bytes.push(u8::from(row.is_some()) | if more { HAS_MORE } else { 0 });
        if more {
            self.dots(&made_of.kept);
            self.short_number(made_of.tops.len() as u64);
            for dot in made_of.tops.iter() {
                self.bytes.extend_from_slice(dot.origin.as_bytes());
                self.short_number(dot.sequence.0);
            }
        }
        if let Some(row) = row {
            self.row(row);
        }
        self.seal(DOCUMENTS.name, key)
    }

    fn row(&mut self, row: &DocumentRow) {
        self.bytes.extend_from_slice(&row.digest);
        self.number(u64::from(row.conflicts));
        self.number(row.changes);
        self.name(row.name.as_ref());
        self.bytes.push(u8::from(row.json.is_some()));
        self.bytes.extend_from_slice(row.json.as_deref().unwrap_or_default());
    }

    /// Entries by origin: each origin, how many, and the steps from one sequence to the next, which
    /// are small for a document that is written often.
    fn dots(&mut self, dots: &BTreeSet<Dot>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let mut left = dots.iter().copied().peekable();
        while let Some(&Dot { origin, .. }) = left.peek() {
            let of_origin = |dot: &Dot| dot.origin == origin;
            let sequences: Vec<u64> =
                std::iter::from_fn(|| left.next_if(of_origin)).map(|dot| dot.sequence.0).collect();
            self.bytes.extend_from_slice(origin.as_bytes());
            self.short_number(sequences.len() as u64);
            let mut before = 0;
            for sequence in sequences {
                self.short_number(sequence.saturating_sub(before));
                before = sequence;
            }
        }
        let length = self.bytes.len().saturating_sub(start).saturating_sub(4);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let field = self.bytes.iter_mut().skip(start);
        field.zip(length).for_each(|(to, from)| *to = from);
    }

    /// A number in groups of seven bits, the lowest first (LEB128).
    fn short_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// A record that says no more than its key.
    pub(super) fn empty(&mut self, table: &'static str, key: &[u8]) -> &[u8] {
        self.blob(table, key, &[])
    }

    /// A record of bytes that only their owner can read.
    pub(super) fn blob(&mut self, table: &'static str, key: &[u8], bytes: &[u8]) -> &[u8] {
        self.start();
        self.bytes.extend_from_slice(bytes);
        self.seal(table, key)
    }

    pub(super) fn name_row(&mut self, key: &[u8], document: DocumentId) -> &[u8] {
        self.blob(NAMES.name, key, document.as_bytes())
    }

    pub(super) fn origin(&mut self, key: &[u8], row: &OriginRow) -> &[u8] {
        self.start();
        self.number(row.sequence.0);
        self.number(row.latest.0);
        self.text(row.region.as_ref().map_or("", RegionName::as_str));
        if row.log != LogRow::default() {
            self.byte(PART_LOG);
            self.number(row.log.floor.0);
            self.number(row.log.swept.0);
            self.number(row.log.bytes);
        }
        self.seal(ORIGINS.name, key)
    }

    pub(super) fn identity(&mut self, table: &'static str, key: &[u8], who: &Identity) -> &[u8] {
        self.start();
        self.bytes.extend_from_slice(who.cluster.0.as_bytes());
        self.bytes.extend_from_slice(who.origin.as_bytes());
        self.text(who.region.as_str());
        self.seal(table, key)
    }

    pub(super) fn start(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.push(FORMAT);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Names have at most 512 bytes, so their length fits; a longer text would not be read back.
    fn text(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A text as long as a document may be.
    pub(super) fn long_text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// No collection name is empty, so an empty one says that there is no name.
    pub(super) fn name(&mut self, name: Option<&DocumentName>) {
        match name {
            Some(name) => {
                self.text(name.collection.as_str());
                self.text(name.key.as_str());
            }
            None => self.text(""),
        }
    }

    pub(super) fn seal(&mut self, table: &'static str, key: &[u8]) -> &[u8] {
        let hash = hash(table, key, &self.bytes);
        self.number(hash);
        &self.bytes
    }
}

/// What `origins-1` says about an origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OriginRow {
    pub(super) sequence: Sequence,
    /// The greatest admission time of its entries.
    pub(super) latest: Timestamp,
    pub(super) region: Option<RegionName>,
    pub(super) log: LogRow,
}

/// How much of an origin's log is left. A row that does not say it has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogRow {
    /// Entries up to here may be gone.
    pub(super) floor: Sequence,
    /// Entries up to here were looked at: those that are still there were needed then.
    pub(super) swept: Sequence,
    /// Bytes of changes above the floor, as far as they were counted.
    pub(super) bytes: u64,
}

/// Which entries a document is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MadeOf {
    /// Entries that the row reflects and the newest snapshot lacks.
    pub(super) tail: BTreeSet<Dot>,
    /// Entries that the newest snapshot has and the one before lacks.
    pub(super) kept: BTreeSet<Dot>,
    /// The last entry of each origin that the row reflects, also of those that came in a bundle.
    pub(super) tops: VersionVector,
}

impl MadeOf {
    /// Tells whether the tail says it all, as for a document that never had a snapshot.
    fn follows_from_tail(&self) -> bool {
        self.kept.is_empty() && self.tops == self.tail.iter().copied().collect()
    }
}

/// The fields of a record that are still to be read; anything unexpected is damage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    table: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(table: &'static str, rest: &'a [u8]) -> Self {
        Self { table, rest }
    }

    /// Compares the hash of a record, and returns its fields.
    pub(super) fn unseal(
        table: &'static str,
        key: &[u8],
        value: &'a [u8],
    ) -> Result<Self, ReadError> {
        let damaged = ReadError::Corrupt { table };
        let Some((body, stored)) = value.split_last_chunk::<8>() else { return Err(damaged) };
        if hash(table, key, body) != u64::from_be_bytes(*stored) {
            return Err(damaged);
        }
        match body.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { table, rest }),
            _ => Err(damaged),
        }
    }

    pub(super) fn damaged(&self) -> ReadError {
        ReadError::Corrupt { table: self.table }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn number(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    /// A part that has its length in front.
    fn part(&mut self) -> Result<Fields<'a>, ReadError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        Ok(Fields { table: self.table, rest: self.take(length)? })
    }

    fn dots(mut self) -> Result<BTreeSet<Dot>, ReadError> {
        let mut dots = BTreeSet::new();
        while !self.rest.is_empty() {
            let origin = Origin::from_bytes(self.array()?);
            let mut sequence = 0_u64;
            for _ in 0..self.short_number()? {
                let step = self.short_number()?;
                sequence = sequence.checked_add(step).ok_or_else(|| self.damaged())?;
                dots.insert(Dot { origin, sequence: Sequence(sequence) });
            }
        }
        Ok(dots)
    }

    fn tops(&mut self) -> Result<VersionVector, ReadError> {
        let mut tops = VersionVector::new();
        for _ in 0..self.short_number()? {
            let origin = Origin::from_bytes(self.array()?);
            tops.raise(origin, Sequence(self.short_number()?));
        }
        Ok(tops)
    }

    fn short_number(&mut self) -> Result<u64, ReadError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    fn text(&mut self) -> Result<&'a str, ReadError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let text = self.take(length)?;
        std::str::from_utf8(text).map_err(|_| self.damaged())
    }

    pub(super) fn long_text(&mut self) -> Result<&'a str, ReadError> {
        let text = self.part()?.rest;
        std::str::from_utf8(text).map_err(|_| self.damaged())
    }

    pub(super) fn name(&mut self) -> Result<Option<DocumentName>, ReadError> {
        let collection = self.text()?;
        if collection.is_empty() {
            return Ok(None);
        }
        let key = self.text()?;
        let collection = collection.parse().map_err(|_| self.damaged())?;
        let key = key.parse().map_err(|_| self.damaged())?;
        Ok(Some(DocumentName { collection, key }))
    }

    fn region(&mut self) -> Result<Option<RegionName>, ReadError> {
        match self.text()? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| self.damaged()),
        }
    }
}

pub(super) fn entry(key: &[u8], dot: Dot, value: &[u8]) -> Result<Entry, ReadError> {
    let mut fields = Fields::unseal(ENTRIES.name, key, value)?;
    Ok(Entry {
        origin: dot.origin,
        sequence: dot.sequence,
        document: DocumentId::from_bytes(fields.array()?),
        admitted: Timestamp(fields.number()?),
        name: fields.name()?,
        change: Bytes::copy_from_slice(fields.rest()),
    })
}

/// What `documents-1` says of a document, its hash compared once; each part is read on demand.
#[derive(Debug)]
pub(super) struct DocumentRecord<'a> {
    tail: Fields<'a>,
    /// What there is to say of its entries besides; `None` where the tail says it all.
    more: Option<(Fields<'a>, VersionVector)>,
    /// `None` if there is no row yet.
    row: Option<Fields<'a>>,
}

impl<'a> DocumentRecord<'a> {
    pub(super) fn unseal(key: &[u8], value: &'a [u8]) -> Result<Self, ReadError> {
        let mut fields = Fields::unseal(DOCUMENTS.name, key, value)?;
        let tail = fields.part()?;
        let [present] = fields.array()?;
        if present & !(HAS_ROW | HAS_MORE) != 0 {
            return Err(fields.damaged());
        }
        let more = match present & HAS_MORE {
            0 => None,
            _ => Some((fields.part()?, fields.tops()?)),
        };
        Ok(Self { tail, more, row: (present & HAS_ROW != 0).then_some(fields) })
    }

    /// The entries that the row reflects and the snapshot lacks.
    pub(super) fn tail(&self) -> Result<BTreeSet<Dot>, ReadError> {
        self.tail.dots()
    }

    /// All that is known of the entries.
    pub(super) fn made_of(&self) -> Result<MadeOf, ReadError> {
        let tail = self.tail()?;
        Ok(match &self.more {
            Some((kept, tops)) => MadeOf { tail, kept: kept.dots()?, tops: tops.clone() },
            None => MadeOf { tops: tail.iter().copied().collect(), tail, kept: BTreeSet::new() },
        })
    }

    /// The row, if there is one yet.
    pub(super) fn row(&self) -> Result<Option<DocumentRow>, ReadError> {
        self.row.map(row_fields).transpose()
    }

    /// The digest of the heads, if there is a row; nothing else of it is read.
    pub(super) fn digest(&self) -> Result<Option<[u8; 16]>, ReadError> {
        self.row.map(|mut fields| fields.array()).transpose()
    }

    /// The name of a live document; the JSON is not copied.
    pub(super) fn live_name(&self) -> Result<Option<DocumentName>, ReadError> {
        let Some(mut fields) = self.row else { return Ok(None) };
        let _: [u8; 32] = fields.array()?;
        let name = fields.name()?;
        let [live] = fields.array()?;
        Ok(name.filter(|_| live != 0))
    }
}

fn row_fields(mut fields: Fields<'_>) -> Result<DocumentRow, ReadError> {
    let digest = fields.array()?;
    let conflicts = u32::try_from(fields.number()?).map_err(|_| fields.damaged())?;
    let changes = fields.number()?;
    let name = fields.name()?;
    let [live] = fields.array()?;
    let json = (live != 0).then(|| Bytes::copy_from_slice(fields.rest()));
    Ok(DocumentRow { name, digest, conflicts, changes, json })
}

pub(super) fn name_row(key: &[u8], value: &[u8]) -> Result<DocumentId, ReadError> {
    Fields::unseal(NAMES.name, key, value)?.array().map(DocumentId::from_bytes)
}

pub(super) fn origin(key: &[u8], value: &[u8]) -> Result<OriginRow, ReadError> {
    let mut fields = Fields::unseal(ORIGINS.name, key, value)?;
    let mut row = OriginRow {
        sequence: Sequence(fields.number()?),
        latest: Timestamp(fields.number()?),
        region: fields.region()?,
        log: LogRow::default(),
    };
    // What releases added, each with a byte that says what it is.
    while !fields.rest.is_empty() {
        match fields.array()? {
            [PART_LOG] => {
                row.log.floor = Sequence(fields.number()?);
                row.log.swept = Sequence(fields.number()?);
                row.log.bytes = fields.number()?;
            }
            _ => return Err(fields.damaged()),
        }
    }
    Ok(row)
}

pub(super) fn identity(
    table: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<Identity, ReadError> {
    let mut fields = Fields::unseal(table, key, value)?;
    let cluster = anabranch_crdt::ids::ClusterId(uuid::Uuid::from_bytes(fields.array()?));
    let origin = anabranch_crdt::ids::Origin::from_bytes(fields.array()?);
    let region = fields.region()?.ok_or_else(|| fields.damaged())?;
    Ok(Identity { cluster, region, origin })
}

fn hash(table: &str, key: &[u8], body: &[u8]) -> u64 {
    let seed = XxHash3_64::oneshot(table.as_bytes());
    let seed = XxHash3_64::oneshot_with_seed(seed, key);
    XxHash3_64::oneshot_with_seed(seed, body)
}

/// The layout of records that this release writes and reads.
const FORMAT: u8 = 1;

/// Bits that say what follows the tail of a document; releases before retention knew the first.
const HAS_ROW: u8 = 1;
const HAS_MORE: u8 = 2;

/// What follows the region of an origin says how much of its log is left.
const PART_LOG: u8 = 1;

/// A buffer that grew larger for one big record is given back.
const KEPT_BYTES: usize = 1 << 20;
