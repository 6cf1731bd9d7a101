//! Edits as Automerge operations, one change for each request.

use super::view::{Held, Slot, View, count, merged_maps};
use super::{Admissions, Author, Change, Document, actor, stored};
use crate::edit::{Edit, EditError, Path};
use crate::policy::Policies;
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    AutomergeError, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, hydrate,
};
use serde_json::Value as Json;

/// Applies edits as one change.
pub(super) fn edit(
    document: &mut Document,
    edits: &[Edit],
    author: &Author,
    policies: &Policies,
) -> Result<Option<Change>, EditError> {
    let missing = !document.exists();
    let Document { doc, admissions } = document;
    doc.set_actor(actor(author.origin));
    // Fields that are written in one step stand behind every operation there is, and what was
    // inside deleted objects has to stand behind the root's.
    let new = doc.get_heads().is_empty();
    let options = || options(author, author.message.text());
    let hash = match run(doc.transaction(), edits, new, policies, admissions, options())? {
        Some(hash) => hash,
        None if missing => doc.empty_commit(options()),
        None => return Ok(None),
    };
    Ok(doc.get_change_by_hash(&hash).as_ref().map(stored))
}

fn run(
    tx: Transaction<'_>,
    edits: &[Edit],
    new: bool,
    policies: &Policies,
    admissions: &Admissions,
    options: CommitOptions,
) -> Result<Option<ChangeHash>, EditError> {
    let mut writer = Writer { tx, policies, admissions };
    match first_fields(edits).filter(|_| new) {
        Some(fields) => writer.tx.init_root_from_hydrate(&fields?).map_err(defect)?,
        None => edits.iter().try_for_each(|edit| writer.edit(edit))?,
    }
    let (hash, _) = writer.tx.commit_with(options);
    Ok(hash)
}

/// Makes a change that writes nothing and follows everything that is known.
pub(super) fn mark(document: &mut Document, author: &Author) -> Change {
    let text = match document.exists() {
        true => author.message.text(),
        false => Some(author.message.deleting_text()),
    };
    let doc = &mut document.doc;
    doc.set_actor(actor(author.origin));
    let hash = doc.empty_commit(options(author, text));
    let change = doc.get_change_by_hash(&hash).expect("the change was just made");
    stored(&change)
}

/// Deletes every field of the document, and marks the change. The delete of a document without
/// fields deletes one that it wrote itself, because conflicts name their sides by operations.
pub(super) fn delete(document: &mut Document, author: &Author) -> Change {
    let doc = &mut document.doc;
    doc.set_actor(actor(author.origin));
    let mut tx = doc.transaction();
    let mut keys: Vec<String> = tx.keys(ROOT).collect();
    if keys.is_empty() {
        tx.put(ROOT, NO_FIELD, ScalarValue::Null).expect("any document takes a field");
        keys.push(NO_FIELD.to_owned());
    }
    let removed = keys.into_iter().try_for_each(|key| tx.delete(ROOT, key));
    removed.expect("the keys were read in the same transaction");
    let (hash, _) = tx.commit_with(options(author, Some(author.message.deleting_text())));
    let hash = hash.expect("the change has operations");
    let change = doc.get_change_by_hash(&hash).expect("the change was just made");
    stored(&change)
}

fn options(author: &Author, message: Option<String>) -> CommitOptions {
    let time = i64::try_from(author.at.0).unwrap_or(i64::MAX);
    let options = CommitOptions::default().with_time(time);
    match message {
        Some(message) => options.with_message(message),
        None => options,
    }
}

struct Writer<'a> {
    tx: Transaction<'a>,
    policies: &'a Policies,
    admissions: &'a Admissions,
}

/// A field or an element, and what stands there.
struct Place {
    /// The objects that hold it: one, or maps that were created concurrently under one key.
    holders: Vec<ObjId>,
    prop: Prop,
    slots: Vec<Slot>,
}

impl Writer<'_> {
    fn edit(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::Set { path, value } => self.set(path, value),
            Edit::Remove { path } => self.remove(path),
            Edit::Insert { path, value } => self.insert(path, value),
            Edit::Increment { path, by } => self.increment(path, *by),
            Edit::Splice { path, at, delete, insert } => self.splice(path, *at, *delete, insert),
        }
    }

    fn set(&mut self, path: &Path, value: &Json) -> Result<(), EditError> {
        let place = self.place(path)?;
        if matches!(place.prop, Prop::Seq(_)) && place.slots.is_empty() {
            return Err(missing(path));
        }
        if self.keep_type(&place, value)? {
            return Ok(());
        }
        self.put(&place, value)
    }

    /// Edits a text or a counter in place, where the new value lets it stay one.
    fn keep_type(&mut self, place: &Place, value: &Json) -> Result<bool, EditError> {
        let [slot] = place.slots.as_slice() else { return Ok(false) };
        match (&slot.value, value) {
            (Held::Object(ObjType::Text), Json::String(text)) => {
                self.tx.update_text(&slot.operation, text).map_err(defect)?;
                Ok(true)
            }
            (held, Json::Number(number)) if held.is_counter() => {
                let (Some(now), Some(wanted)) = (count(held), number.as_i64()) else {
                    return Ok(false);
                };
                let by = wanted.saturating_sub(now);
                if by != 0 {
                    let prop = place.prop.clone();
                    self.tx.increment(&slot.holder, prop, by).map_err(defect)?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn put(&mut self, place: &Place, value: &Json) -> Result<(), EditError> {
        let (first, others) = place.holders.split_first().expect("a place has a holder");
        self.write(first, place.prop.clone(), value, false)?;
        let prop = &place.prop;
        for other in others.iter().filter(|h| place.slots.iter().any(|s| s.holder == **h)) {
            self.tx.delete(other, prop.clone()).map_err(defect)?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), EditError> {
        let place = self.place(path)?;
        if place.slots.is_empty() {
            return Err(missing(path));
        }
        for holder in place.holders.iter().filter(|h| place.slots.iter().any(|s| s.holder == **h)) {
            self.tx.delete(holder, place.prop.clone()).map_err(defect)?;
        }
        Ok(())
    }

    fn insert(&mut self, path: &Path, value: &Json) -> Result<(), EditError> {
        let (list, index) = self.element(path)?;
        let length = self.tx.length(&list);
        let index = match index {
            Index::At(index) if index <= length => index,
            Index::At(index) => {
                return Err(EditError::Unfit(format!(
                    "'{path}': cannot insert at {index}, the list has {length} elements"
                )));
            }
            Index::End => length,
        };
        self.write(&list, Prop::Seq(index), value, true)
    }

    fn increment(&mut self, path: &Path, by: i64) -> Result<(), EditError> {
        let place = self.place(path)?;
        let holder = place.holders.first().expect("a place has a holder").clone();
        let single = matches!(place.slots.as_slice(), [slot] if slot.value.is_counter());
        let now = self.count_at(&place, path)?;
        if now.checked_add(by).is_none_or(|sum| sum.unsigned_abs() >= 1 << 53) {
            return Err(EditError::Unfit(format!("'{path}': the sum is beyond 2^53 - 1")));
        }
        if !single {
            if matches!(place.prop, Prop::Seq(_)) && place.slots.is_empty() {
                return Err(missing(path));
            }
            let counter = ScalarValue::counter(now);
            self.tx.put(&holder, place.prop.clone(), counter).map_err(defect)?;
            for slot in place.slots.iter().filter(|slot| slot.holder != holder) {
                self.tx.delete(&slot.holder, place.prop.clone()).map_err(defect)?;
            }
        }
        self.tx.increment(&holder, place.prop, by).map_err(defect)
    }

    /// The number that an increment goes on from.
    fn count_at(&self, place: &Place, path: &Path) -> Result<i64, EditError> {
        let mut tokens = path.tokens().to_vec();
        match self.view().show(&place.slots, &mut tokens) {
            None => Ok(0),
            Some(shown) => shown.as_i64().ok_or_else(|| {
                EditError::Unfit(format!("'{path}' is {}, not an integer", kind(&shown)))
            }),
        }
    }

    fn splice(
        &mut self,
        path: &Path,
        at: usize,
        delete: usize,
        insert: &str,
    ) -> Result<(), EditError> {
        let place = self.place(path)?;
        let mut tokens = path.tokens().to_vec();
        let Some(shown) = self.view().show(&place.slots, &mut tokens) else {
            return Err(missing(path));
        };
        let Json::String(old) = shown else {
            return Err(EditError::Unfit(format!("'{path}' is {}, not a string", kind(&shown))));
        };
        let length = old.chars().count();
        if at.checked_add(delete).is_none_or(|end| end > length) {
            return Err(EditError::Unfit(format!(
                "'{path}': cannot replace {delete} characters at {at}, the text has {length}"
            )));
        }
        let text = match self.view().winner(&place.slots, path.tokens()) {
            Some(Slot { value: Held::Object(ObjType::Text), operation, .. }) => operation.clone(),
            _ => self.make_text(&place, &old)?,
        };
        let delete = isize::try_from(delete).map_err(|_| missing(path))?;
        self.tx.splice_text(&text, at, delete, insert).map_err(defect)
    }

    fn make_text(&mut self, place: &Place, content: &str) -> Result<ObjId, EditError> {
        let holder = place.holders.first().expect("a place has a holder");
        let prop = place.prop.clone();
        let text = self.tx.put_object(holder, prop, ObjType::Text).map_err(defect)?;
        self.tx.splice_text(&text, 0, 0, content).map_err(defect)?;
        Ok(text)
    }

    fn write(
        &mut self,
        holder: &ObjId,
        prop: Prop,
        value: &Json,
        insert: bool,
    ) -> Result<(), EditError> {
        let written = match (value, insert, &prop) {
            (Json::Object(_) | Json::Array(_), _, _) => {
                let value = hydrated(value)?;
                self.tx.batch_create_object(holder, prop, &value, insert).map(drop)
            }
            (_, true, Prop::Seq(index)) => self.tx.insert(holder, *index, scalar(value)?),
            (_, _, _) => self.tx.put(holder, prop, scalar(value)?),
        };
        written.map_err(defect)
    }

    /// Finds the place that a path names; its last token may be a key that is not there yet.
    fn place(&self, path: &Path) -> Result<Place, EditError> {
        let Some((last, parents)) = path.tokens().split_last() else {
            return Err(EditError::Unfit("the root of a document cannot be replaced".into()));
        };
        let (holders, list) = self.container(parents)?;
        let prop = if list { Prop::Seq(index(last, path)?) } else { Prop::Map(last.clone()) };
        let slots = self.view().slots(&holders, &prop);
        Ok(Place { holders, prop, slots })
    }

    /// Finds the list and the index of an insertion.
    fn element(&self, path: &Path) -> Result<(ObjId, Index), EditError> {
        let (last, parents) = path.tokens().split_last().ok_or_else(|| missing(path))?;
        let (holders, list) = self.container(parents)?;
        let holder = holders.into_iter().next().ok_or_else(|| missing(path))?;
        if !list {
            return Err(EditError::Unfit(format!("'{path}' is not inside a list")));
        }
        let index = if last == "-" { Index::End } else { Index::At(index(last, path)?) };
        Ok((holder, index))
    }

    /// Returns the objects at a path of containers, and whether they are a list.
    fn container(&self, tokens: &[String]) -> Result<(Vec<ObjId>, bool), EditError> {
        let view = self.view();
        let (mut holders, mut list) = (vec![ROOT], false);
        for depth in 0..tokens.len() {
            let (above, _) = tokens.split_at(depth.saturating_add(1));
            let here = || Path::from(above.to_vec());
            let token = above.last().map(String::as_str).unwrap_or_default();
            let prop =
                if list { Prop::Seq(index(token, &here())?) } else { Prop::Map(token.to_owned()) };
            let slots = view.slots(&holders, &prop);
            let winner = view.winner(&slots, above).ok_or_else(|| missing(&here()))?;
            (holders, list) = match &winner.value {
                Held::Object(ObjType::Map | ObjType::Table) => (merged_maps(&slots), false),
                Held::Object(ObjType::List) => (vec![winner.operation.clone()], true),
                Held::Object(ObjType::Text) | Held::Scalar(_) => {
                    return Err(EditError::Unfit(format!(
                        "'{}' is neither an object nor a list",
                        here()
                    )));
                }
            };
        }
        Ok((holders, list))
    }

    fn view(&self) -> View<'_, Transaction<'_>> {
        View::new(&self.tx, self.policies, self.admissions)
    }
}

enum Index {
    At(usize),
    End,
}

fn index(token: &str, path: &Path) -> Result<usize, EditError> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| canonical).ok_or_else(|| {
        EditError::Unfit(format!("'{path}' ends in '{token}', which is no list index"))
    })
}

fn missing(path: &Path) -> EditError {
    EditError::Unfit(format!("'{path}' does not exist"))
}

/// Automerge refused an operation on a place that was just found.
fn defect(error: AutomergeError) -> EditError {
    EditError::Unfit(format!("automerge refuses the edit: {error}"))
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn scalar(value: &Json) -> Result<ScalarValue, EditError> {
    match value {
        Json::Null => Ok(ScalarValue::Null),
        Json::Bool(truth) => Ok(ScalarValue::Boolean(*truth)),
        Json::String(text) => Ok(ScalarValue::Str(text.as_str().into())),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(ScalarValue::Int(integer)),
            (None, Some(float)) if !number.is_u64() => Ok(ScalarValue::F64(float)),
            _ => Err(EditError::Unfit(format!("{number} is beyond 2^53 - 1"))),
        },
        Json::Array(_) | Json::Object(_) => {
            Err(EditError::Unfit(format!("{} is no scalar", kind(value))))
        }
    }
}

/// Returns the fields of a new document whose edits only set fields of the root: written in
/// one step they cost a tenth of what they cost one by one.
fn first_fields(edits: &[Edit]) -> Option<Result<hydrate::Map, EditError>> {
    let field = |edit: &Edit| match edit {
        Edit::Set { path, value } => match path.tokens() {
            [key] => Some(hydrated(value).map(|value| (key.clone(), value))),
            _ => None,
        },
        Edit::Remove { .. }
        | Edit::Insert { .. }
        | Edit::Increment { .. }
        | Edit::Splice { .. } => None,
    };
    let fields: Option<Vec<_>> = edits.iter().map(field).collect();
    fields
        .filter(|fields| fields.len() > 1)
        .map(|fields| fields.into_iter().collect())
        .map(|fields: Result<Vec<_>, _>| fields.map(hydrated_map))
}

#[expect(clippy::disallowed_types, reason = "automerge takes no other map")]
fn hydrated_map(members: Vec<(String, hydrate::Value)>) -> hydrate::Map {
    hydrate::Map::from(members.into_iter().collect::<std::collections::HashMap<_, _>>())
}

fn hydrated(value: &Json) -> Result<hydrate::Value, EditError> {
    Ok(match value {
        Json::Object(members) => {
            let members: Result<Vec<_>, EditError> =
                members.iter().map(|(key, member)| Ok((key.clone(), hydrated(member)?))).collect();
            hydrate::Value::Map(hydrated_map(members?))
        }
        Json::Array(elements) => {
            let elements: Result<Vec<_>, EditError> = elements.iter().map(hydrated).collect();
            hydrate::Value::from(elements?)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            hydrate::Value::Scalar(scalar(value)?)
        }
    })
}

/// The field that the delete of a document without fields writes and deletes.
const NO_FIELD: &str = "";
