//! Clients: sessions that read and write, one request after the other, in the region that they are
//! in, and take their token with them when they go to another.

use std::time::Duration;

use anabranch_crdt::conflict::ConflictId;
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::{AuthorName, DocumentId, DocumentName};
use anabranch_crdt::token;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::subjects::Target;
use super::{Event, World};
use crate::document::{Documents, Precondition, Settling, Write, Written};
use crate::error::{Error, ErrorKind};
use crate::sim::history::{Answer, Call, CallId, Intent, Kind};
use crate::sim::node::{Asking, Reply, Waiting};
use crate::sim::nodes::NodeId;
use crate::sim::plan::{Plan, pick};

/// A client that does one thing after the other.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: NodeId,
    pub(super) token: Option<String>,
    /// Until when it waits for its region to catch up.
    patient_until: Option<Duration>,
    busy: Option<CallId>,
}

/// What a session asks for.
#[derive(Debug)]
enum Request {
    Read,
    /// Writes this, into a document that is made if need be.
    Merge(Value),
    Edit(Edit),
    Write(Write),
    Settle(ConflictId, Settling),
}

impl Session {
    pub(super) fn draw(plan: &Plan, rng: &mut ChaCha8Rng) -> Vec<Self> {
        let session = |_| Self {
            node: NodeId(rng.random_range(0..plan.nodes)),
            token: None,
            patient_until: None,
            busy: None,
        };
        (0..plan.sessions).map(session).collect()
    }
}

impl World {
    /// Lets a session ask for the next thing, if it has the answer to the last one.
    pub(super) fn ask(&mut self, number: usize) {
        if self.quiet {
            return;
        }
        let pause = self.plan.think.mul_f64(self.rng.random_range(0.2..1.8));
        self.schedule_in(pause, Event::Ask { session: number });
        let moves = self.rng.random_bool(self.plan.moves);
        let elsewhere = self.any_node();
        let Some(session) = self.sessions.get_mut(number).filter(|s| s.busy.is_none()) else {
            return;
        };
        if moves && session.patient_until.is_none() && session.node != elsewhere {
            session.node = elsewhere;
            self.tally.moves += 1;
        }
        let node = session.node;
        if self.nodes[node].process.is_none() {
            return self.send_elsewhere(number, elsewhere);
        }
        if self.is_answered_by(number, node) {
            self.ask_for_something(number, node);
        }
    }

    fn send_elsewhere(&mut self, number: usize, node: NodeId) {
        if let Some(session) = self.sessions.get_mut(number) {
            session.node = node;
            session.patient_until = None;
        }
    }

    /// Tells whether a node has what the token of a session asks for; the session waits for a
    /// while, and then goes elsewhere.
    fn is_answered_by(&mut self, number: usize, node: NodeId) -> bool {
        let (now, patience, elsewhere) = (self.now, self.plan.patience, self.any_node());
        let position = self.nodes[node].process.as_ref().map(|process| process.position());
        let Some(position) = position else { return false };
        let Some(session) = self.sessions.get_mut(number) else { return false };
        let Some(token) = &session.token else { return true };
        let wanted = match token::decode(token) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.violated("sessions", format!("{node} does not read a token: {error}"));
                return false;
            }
        };
        if position.vector.includes(&wanted) {
            session.patient_until = None;
            return true;
        }
        if *session.patient_until.get_or_insert(now + patience) < now {
            session.patient_until = None;
            session.node = elsewhere;
            self.tally.stale += 1;
        }
        false
    }

    fn ask_for_something(&mut self, number: usize, node: NodeId) {
        let Some(target) = self.any_target() else { return };
        let id = self.next_call();
        let (intent, request) = self.request(id, node, &target);
        let Some(documents) = self.documents(node) else { return };
        let asking = asking(documents, target.name.clone(), author(id), request);
        self.begin(number, node, target.number, (intent, asking));
    }

    fn any_target(&mut self) -> Option<Target> {
        let targets = &self.subjects.0;
        targets.get(self.rng.random_range(0..targets.len().max(1))).cloned()
    }

    pub(super) fn documents(&self, node: NodeId) -> Option<Documents> {
        self.nodes[node].process.as_ref().map(|process| process.documents.clone())
    }

    pub(super) fn next_call(&self) -> CallId {
        self.history.calls.len() as u64 + 1
    }

    /// Notes a request, and gives it to a node.
    pub(super) fn begin(
        &mut self,
        session: usize,
        node: NodeId,
        document: u128,
        (intent, asking): (Intent, Asking),
    ) {
        let id = self.next_call();
        let state = self.sessions.get_mut(session);
        let with_token = state.is_some_and(|session| {
            session.busy = Some(id);
            session.token.is_some()
        });
        let step = self.history.steps.len();
        let call = Call {
            session,
            node: node.0,
            document,
            intent,
            asked: self.now,
            answer: Answer::Unknown,
            after_step: step,
            answered_step: usize::MAX,
            with_token,
        };
        self.history.calls.insert(id, call);
        let life = self.nodes[node].life;
        if let Some(process) = self.process(node, life) {
            process.waiting.push(Waiting { call: id, asking });
        }
        self.settle(node);
    }

    pub(super) fn answered(&mut self, id: CallId, reply: Reply) {
        let steps = self.history.steps.len();
        let Some(call) = self.history.calls.get_mut(&id) else { return };
        call.answered_step = steps;
        let (node, session, writes) = (call.node, call.session, call.intent.writes());
        let answer = match reply.outcome {
            Ok(_) if writes => Answer::Done,
            Ok(shown) => Answer::Shown(shown),
            Err(error) => match refusal(&error) {
                Ok(answer) => answer,
                Err(defect) => {
                    let what = format!("region-{node} answers call {id} with a {defect}: {error}");
                    return self.violated("durable", what);
                }
            },
        };
        call.answer = answer.clone();
        self.note((id, format!("{answer:?}")));
        if let Some(session) = self.sessions.get_mut(session)
            && answer != Answer::Unknown
        {
            session.token = Some(reply.position.token.clone());
        }
        self.uploaded(id, &answer);
        self.free_session(id);
    }

    pub(super) fn free_session(&mut self, call: CallId) {
        let busy = |session: &&mut Session| session.busy == Some(call);
        if let Some(session) = self.sessions.iter_mut().find(busy) {
            session.busy = None;
        }
        self.offline.iter_mut().for_each(|client| client.end_upload(call));
    }

    // What is asked for

    fn request(&mut self, id: CallId, node: NodeId, target: &Target) -> (Intent, Request) {
        if self.rng.random_bool(READS) {
            return (Intent::Read, Request::Read);
        }
        match target.kind {
            Kind::Set => (Intent::Add, Request::Merge(json!({ element(id): id }))),
            Kind::NestedSet => {
                (Intent::Add, Request::Merge(json!({ "inside": { element(id): id } })))
            }
            Kind::Counter if !self.may_count(node, target) => (Intent::Read, Request::Read),
            Kind::Counter => {
                let by = pick(&mut self.rng, &[-5, -2, -1, 1, 2, 3, 7, 9]).unwrap_or(1);
                let path = Path::default().child("n");
                (Intent::Count(by), Request::Edit(Edit::Increment { path, by }))
            }
            Kind::Register => self.register(id),
            Kind::Wild => self.anything(id, node, target),
        }
    }

    /// A counter is made in one region; the others wait until they have it.
    fn may_count(&self, node: NodeId, target: &Target) -> bool {
        let id = DocumentId(uuid::Uuid::from_u128(target.number));
        let row =
            self.nodes[node].process.as_ref().and_then(|process| process.journal.row(id).ok());
        let json = row.and_then(|(row, _)| row?.json);
        let is_there = json.is_some_and(|json| String::from_utf8_lossy(&json).contains("\"n\""));
        is_there || target.number % self.nodes.len() as u128 == node.0 as u128
    }

    fn register(&mut self, id: CallId) -> (Intent, Request) {
        let field = self.rng.random_range(0..FIELDS);
        match self.rng.random_range(0..10) {
            0 => (Intent::Erase(field), Request::Merge(json!({ field_name(field): null }))),
            _ => {
                let value = json!({ field_name(field): value_of(id) });
                (Intent::Assign(field), Request::Merge(value))
            }
        }
    }

    fn settling(&mut self, node: NodeId, target: &Target) -> Option<(Intent, Request)> {
        let journal = &self.nodes[node].process.as_ref()?.journal;
        let rows = journal.conflicts_of(DocumentId(uuid::Uuid::from_u128(target.number))).ok()?;
        let ids: Vec<ConflictId> = rows.iter().map(|(id, _)| *id).collect();
        let id = pick(&mut self.rng, &ids)?;
        let value = json!(format!("settled {}", self.next_call()));
        let settling = match self.rng.random_range(0..4) {
            0 => Settling::Dismiss,
            1 => Settling::Reopen,
            2 => Settling::Delete,
            _ => Settling::Value(value),
        };
        Some((Intent::Other, Request::Settle(id, settling)))
    }

    fn anything(&mut self, id: CallId, node: NodeId, target: &Target) -> (Intent, Request) {
        let key = format!("k{}", self.rng.random_range(0..3));
        let path =
            |tokens: &[&str]| tokens.iter().fold(Path::default(), |path, token| path.child(*token));
        let request = match self.rng.random_range(0..12) {
            0 => Request::Merge(json!({ "inside": null })),
            1 => Request::Merge(json!({ "inside": value_of(id) })),
            2 => Request::Merge(json!({ "list": [] })),
            3 | 4 => Request::Edit(Edit::Insert { path: path(&["list", "-"]), value: json!(id) }),
            5 => Request::Edit(Edit::Remove { path: path(&["list", "0"]) }),
            6 => Request::Merge(json!({ "text": "" })),
            7 => Request::Edit(Edit::Splice {
                path: path(&["text"]),
                at: 0,
                delete: 0,
                insert: value_of(id),
            }),
            8 => Request::Write(Write::Delete),
            9 => Request::Edit(Edit::Increment { path: path(&["inside", "n"]), by: 1 }),
            10 => match self.settling(node, target) {
                Some((_, request)) => request,
                None => Request::Merge(json!({ "inside": { key: id } })),
            },
            _ => Request::Merge(json!({ "inside": { key: id } })),
        };
        (Intent::Other, request)
    }
}

/// Sends a request to a node; the answer comes when the future is done.
fn asking(
    documents: Documents,
    name: DocumentName,
    author: Option<AuthorName>,
    request: Request,
) -> Asking {
    Box::pin(async move {
        let outcome = match request {
            Request::Read => documents.read(&name).await.map(|document| {
                let json = document.map(|document| document.json);
                (json.map(|json| String::from_utf8_lossy(&json).into_owned()), None)
            }),
            Request::Merge(value) => {
                let patch = Write::MergePatch(value.clone());
                let written =
                    documents.write(name.clone(), patch, author.clone(), Precondition::None);
                match written.await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        made(documents.write(name, Write::Put(value), author, missing()).await)
                    }
                    written => made(written),
                }
            }
            Request::Edit(edit) => {
                let edits = || Write::Edits(vec![edit.clone()]);
                let written =
                    documents.write(name.clone(), edits(), author.clone(), Precondition::None);
                match written.await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let empty = Write::Put(json!({}));
                        // Somebody else may have made it in the meantime.
                        let _ = documents.write(name.clone(), empty, None, missing()).await;
                        made(documents.write(name, edits(), author, Precondition::None).await)
                    }
                    written => made(written),
                }
            }
            Request::Write(write) => {
                made(documents.write(name, write, author, Precondition::None).await)
            }
            Request::Settle(id, settling) => {
                let settled = documents.settle(id, settling, None, None, author).await;
                made(settled.map(|(_, written)| written))
            }
        };
        let now = documents.position();
        match outcome {
            Ok((shown, position)) => {
                Reply { outcome: Ok(shown), position: position.unwrap_or(now) }
            }
            Err(error) => Reply { outcome: Err(error), position: now },
        }
    })
}

type Made = (Option<String>, Option<std::sync::Arc<crate::journal::Position>>);

fn made(written: Result<Written, Error>) -> Result<Made, Error> {
    written.map(|written| (None, Some(written.position)))
}

/// The document must not be there.
fn missing() -> Precondition {
    Precondition::NoneMatch(Vec::new())
}

/// What an error says to a client: that nothing was done, or that nobody knows.
fn refusal(error: &Error) -> Result<Answer, &'static str> {
    match error.kind() {
        ErrorKind::Invalid
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Precondition
        | ErrorKind::TooLarge
        | ErrorKind::Gone
        | ErrorKind::Overloaded
        | ErrorKind::Stale => Ok(Answer::Refused(error.code())),
        ErrorKind::Unavailable => Ok(Answer::Unknown),
        ErrorKind::Corrupt => Err("damaged record"),
        ErrorKind::Internal => Err("defect"),
    }
}

pub(super) fn author(call: CallId) -> Option<AuthorName> {
    value_of(call).parse().ok()
}

/// The value that only one call writes.
pub(super) fn value_of(call: CallId) -> String {
    format!("w{call}")
}

/// The key that only one call writes.
pub(super) fn element(call: CallId) -> String {
    format!("e{call}")
}

pub(super) fn field_name(field: u8) -> String {
    format!("f{field}")
}

/// Fields of a register document: few, so that writes meet.
pub(super) const FIELDS: u8 = 2;

/// Share of the requests that read.
const READS: f64 = 0.25;
