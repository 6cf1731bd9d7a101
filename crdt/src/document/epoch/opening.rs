//! The first change of an epoch: what shows, written once, in an order that is the same everywhere.

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue};

use super::{OpeningError, by_content};
use crate::document::view::{Held, Slot, View, merged_maps};
use crate::document::{Change, Document, actor, stored};
use crate::edit::Path;
use crate::ids::Timestamp;
use crate::message::Message;
use crate::policy::Policies;

/// Makes the change; see [`Document::opening`].
pub(super) fn make(
    document: &Document,
    message: Message,
    policies: &Policies,
) -> Result<Change, OpeningError> {
    if !document.exists() {
        return Err(OpeningError::NotThere);
    }
    let view = View::new(&document.doc, policies, &document.admissions);
    let copier = Copier { view, doc: &document.doc };
    copier.check()?;
    let at = document.time_of(&document.heads());
    Ok(by_content(|origin| {
        let mut doc = Automerge::new();
        doc.set_actor(actor(origin));
        let mut tx = doc.transaction();
        let copied = copier.map(&mut tx, &[ROOT], &ROOT, &mut Vec::new());
        copied.expect("an empty document takes whatever another one holds");
        let hash = tx.commit_with(options(at, &message)).0;
        let hash = hash.unwrap_or_else(|| doc.empty_commit(options(at, &message)));
        stored(&doc.get_change_by_hash(&hash).expect("the change was just made"))
    }))
}

fn options(at: Timestamp, message: &Message) -> CommitOptions {
    let time = i64::try_from(at.0).unwrap_or(i64::MAX);
    CommitOptions::default().with_time(time).with_message(message.text().unwrap_or_default())
}

/// Copies what shows of one document into another.
struct Copier<'a> {
    view: View<'a, Automerge>,
    doc: &'a Automerge,
}

type Copied = Result<(), AutomergeError>;

impl Copier<'_> {
    /// Tells whether all of the document can be copied.
    fn check(&self) -> Result<(), OpeningError> {
        let mut rich = None;
        self.walk(&[ROOT], &mut Vec::new(), &mut |path, text| {
            let marked = self.doc.marks(text).is_ok_and(|marks| !marks.is_empty());
            let blocks = self.doc.text(text).is_ok_and(|text| text.contains(BLOCK));
            if marked || blocks {
                rich.get_or_insert_with(|| Path::from(path.to_vec()));
            }
        });
        rich.map_or(Ok(()), |path| Err(OpeningError::RichText(path)))
    }

    /// Calls `meet` with every text below some maps that show as one.
    fn walk(
        &self,
        maps: &[ObjId],
        path: &mut Vec<String>,
        meet: &mut dyn FnMut(&[String], &ObjId),
    ) {
        for key in self.view.keys(maps) {
            let slots = self.view.slots(maps, &Prop::Map(key.clone()));
            path.push(key);
            self.walk_slots(&slots, path, meet);
            path.pop();
        }
    }

    fn walk_slots(
        &self,
        slots: &[Slot],
        path: &mut Vec<String>,
        meet: &mut dyn FnMut(&[String], &ObjId),
    ) {
        let Some(Slot { value: Held::Object(kind), operation, .. }) = self.view.winner(slots, path)
        else {
            return;
        };
        match kind {
            ObjType::Map | ObjType::Table => self.walk(&merged_maps(slots), path, meet),
            ObjType::Text => meet(path, operation),
            ObjType::List => {
                for index in 0..self.doc.length(operation) {
                    let slots = self.view.slots(std::slice::from_ref(operation), &Prop::Seq(index));
                    path.push(index.to_string());
                    self.walk_slots(&slots, path, meet);
                    path.pop();
                }
            }
        }
    }

    fn map(
        &self,
        tx: &mut Transaction<'_>,
        from: &[ObjId],
        to: &ObjId,
        path: &mut Vec<String>,
    ) -> Copied {
        for key in self.view.keys(from) {
            let slots = self.view.slots(from, &Prop::Map(key.clone()));
            path.push(key.clone());
            self.value(tx, &slots, to, Target::Field(key), path)?;
            path.pop();
        }
        Ok(())
    }

    fn value(
        &self,
        tx: &mut Transaction<'_>,
        slots: &[Slot],
        to: &ObjId,
        at: Target,
        path: &mut Vec<String>,
    ) -> Copied {
        let Some(winner) = self.view.winner(slots, path) else { return Ok(()) };
        match &winner.value {
            Held::Object(kind @ (ObjType::Map | ObjType::Table)) => {
                let map = at.make(tx, to, *kind)?;
                self.map(tx, &merged_maps(slots), &map, path)
            }
            Held::Object(ObjType::List) => {
                let list = at.make(tx, to, ObjType::List)?;
                self.list(tx, &winner.operation, &list, path)
            }
            Held::Object(ObjType::Text) => {
                let text = at.make(tx, to, ObjType::Text)?;
                tx.splice_text(&text, 0, 0, &self.doc.text(&winner.operation)?)
            }
            Held::Scalar(ScalarValue::Counter(_)) => {
                let shown = self.view.show(slots, path).and_then(|shown| shown.as_i64());
                at.put(tx, to, ScalarValue::counter(shown.unwrap_or_default()))
            }
            Held::Scalar(scalar) => at.put(tx, to, scalar.clone()),
        }
    }

    fn list(
        &self,
        tx: &mut Transaction<'_>,
        from: &ObjId,
        to: &ObjId,
        path: &mut Vec<String>,
    ) -> Copied {
        for index in 0..self.doc.length(from) {
            let slots = self.view.slots(std::slice::from_ref(from), &Prop::Seq(index));
            path.push(index.to_string());
            self.value(tx, &slots, to, Target::Element(index), path)?;
            path.pop();
        }
        Ok(())
    }
}

/// Where a value is written.
enum Target {
    Field(String),
    Element(usize),
}

impl Target {
    fn make(
        &self,
        tx: &mut Transaction<'_>,
        to: &ObjId,
        kind: ObjType,
    ) -> Result<ObjId, AutomergeError> {
        match self {
            Self::Field(key) => tx.put_object(to, key.as_str(), kind),
            Self::Element(index) => tx.insert_object(to, *index, kind),
        }
    }

    fn put(&self, tx: &mut Transaction<'_>, to: &ObjId, value: ScalarValue) -> Copied {
        match self {
            Self::Field(key) => tx.put(to, key.as_str(), value),
            Self::Element(index) => tx.insert(to, *index, value),
        }
    }
}

/// What stands in a text where a block begins.
const BLOCK: char = '\u{fffc}';
