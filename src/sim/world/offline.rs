//! Offline-first clients: each keeps a document of its own, edits it without any node, and at times
//! fetches what it lacks and uploads what it made.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anabranch_crdt::document::{Admitted, Author, Document};
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::{Origin, Timestamp};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::clients::{FIELDS, author, element, field_name, value_of};
use super::subjects::{Subjects, Target};
use super::{EPOCH, Event, World};
use crate::sim::history::{Answer, Call, CallId, Intent, Kind};
use crate::sim::node::Reply;
use crate::sim::plan::{Plan, pick};

/// One client, and its copy of one document.
#[derive(Debug)]
pub(super) struct Offline {
    target: Target,
    document: Document,
    writer: Origin,
    unsent: Vec<(CallId, Bytes)>,
    upload: Option<CallId>,
    /// What the last fetch brought.
    fetched: Rc<RefCell<Vec<Bytes>>>,
}

impl Offline {
    pub(super) fn draw(plan: &Plan, subjects: &Subjects, rng: &mut ChaCha8Rng) -> Vec<Self> {
        let simple = |target: &&Target| matches!(target.kind, Kind::Set | Kind::Register);
        let targets: Vec<&Target> = subjects.0.iter().filter(simple).collect();
        let mut clients = Vec::new();
        for _ in 0..plan.offline_clients {
            let Some(target) = pick(rng, &targets) else { continue };
            clients.push(Self {
                target: target.clone(),
                document: Document::new(),
                writer: Origin::from_bytes(rng.random()),
                unsent: Vec::new(),
                upload: None,
                fetched: Rc::default(),
            });
        }
        clients
    }

    pub(super) fn end_upload(&mut self, call: CallId) {
        if self.upload == Some(call) {
            self.upload = None;
        }
    }

    /// Takes in what the last fetch brought.
    fn catch_up(&mut self) {
        let fetched = std::mem::take(&mut *self.fetched.borrow_mut());
        let admitted = |change| Admitted { change, at: Timestamp(0), by: None };
        let fetched: Vec<Admitted> = fetched.into_iter().map(admitted).collect();
        // What it cannot take it fetches again.
        let _ = self.document.apply(&fetched, &Policies::default());
    }
}

impl World {
    pub(super) fn go_on_offline(&mut self, number: usize) {
        if self.quiet {
            return;
        }
        let pause = Duration::from_millis(self.rng.random_range(20..400));
        self.schedule_in(pause, Event::Offline { client: number });
        if self.rng.random_bool(0.6) {
            self.edit_offline(number);
        } else {
            self.synchronise(number);
        }
    }

    fn edit_offline(&mut self, number: usize) {
        let id = self.next_call();
        let field = self.rng.random_range(0..FIELDS);
        let wrong = self.rng.random_range(-3_600_000_000..=3_600_000_000_i64);
        let now = EPOCH + i64::try_from(self.now.as_micros()).unwrap_or_default() + wrong;
        let step = self.history.steps.len();
        let Some(client) = self.offline.get_mut(number) else { return };
        client.catch_up();
        let (intent, key, value) = match client.target.kind {
            Kind::Register => (Intent::Assign(field), field_name(field), json!(value_of(id))),
            Kind::Set | Kind::NestedSet | Kind::Counter | Kind::Wild => {
                (Intent::Add, element(id), json!(id))
            }
        };
        let message = Message { author: author(id), ..Message::default() };
        let at = Timestamp(u64::try_from(now).unwrap_or_default());
        let writer = Author { origin: client.writer, at, message };
        let edit = Edit::Set { path: Path::default().child(key), value };
        let Ok(Some(change)) = client.document.edit(&[edit], &writer, &Policies::default()) else {
            return;
        };
        client.unsent.push((id, change.bytes));
        let document = client.target.number;
        let call = Call {
            session: NOBODY,
            node: NOBODY,
            document,
            intent,
            asked: self.now,
            answer: Answer::Unknown,
            after_step: step,
            answered_step: usize::MAX,
            with_token: false,
        };
        self.history.calls.insert(id, call);
        self.tally.offline += 1;
    }

    fn synchronise(&mut self, number: usize) {
        let node = self.any_node();
        let Some(documents) = self.documents(node) else { return };
        let id = self.next_call();
        let Some(client) = self.offline.get_mut(number).filter(|c| c.upload.is_none()) else {
            return;
        };
        client.catch_up();
        client.upload = Some(id);
        let (name, heads) = (client.target.name.clone(), client.document.heads());
        let (calls, changes): (Vec<CallId>, Vec<Bytes>) = client.unsent.iter().cloned().unzip();
        let (document, fetched) = (client.target.number, Rc::clone(&client.fetched));
        let asking = Box::pin(async move {
            let news = documents.changes_since(name.clone(), heads).await;
            if let Ok(news) = news {
                fetched.borrow_mut().extend(news.into_iter().map(|change| change.bytes));
            }
            match documents.admit(name, changes).await {
                Ok(position) => Reply { outcome: Ok(None), position },
                Err(error) => Reply { outcome: Err(error), position: documents.position() },
            }
        });
        self.begin(NOBODY, node, document, (Intent::Upload(calls), asking));
    }

    /// Takes note that what was made offline is admitted.
    pub(super) fn uploaded(&mut self, id: CallId, answer: &Answer) {
        if *answer != Answer::Done {
            return;
        }
        let Some(call) = self.history.calls.get(&id) else { return };
        let (node, step) = (call.node, call.answered_step);
        let Intent::Upload(calls) = call.intent.clone() else { return };
        for client in &mut self.offline {
            client.unsent.retain(|(call, _)| !calls.contains(call));
        }
        for id in calls {
            if let Some(call) = self.history.calls.get_mut(&id) {
                call.answer = Answer::Done;
                call.node = node;
                call.answered_step = step;
            }
        }
    }
}

/// The session, or the node, of what belongs to none.
pub(super) const NOBODY: usize = usize::MAX;
