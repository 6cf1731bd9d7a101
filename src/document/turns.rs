//! Whose turn it is: the requests that wait for one owner, shared out fairly.
//!
//! Collections take turns, and within a collection its documents, so that a client which floods one
//! document or one collection waits behind its own requests and not the others behind it. Requests
//! about one document keep their order, but for those that name it against those that only have its
//! id. Entries of other regions are applied one document at a time, in turn with requests: catching
//! up does not hold up local writes.
//!
//! What concerns many documents is a barrier: it is served after everything that came before it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use anabranch_crdt::ids::{CollectionName, DocumentId};
use tokio::sync::mpsc;

use super::request::{Place, Request};
use crate::error::{Error, ErrorKind};

/// What an owner does next.
#[derive(Debug)]
pub(super) enum Turn {
    Serve(Request),
    /// Bring a document up to date.
    Refresh(DocumentId),
}

/// The requests that wait.
#[derive(Debug)]
pub(super) struct Turns {
    ring: VecDeque<Group>,
    groups: HashMap<Group, Documents>,
    waiting: usize,
    refresh: BTreeSet<DocumentId>,
    /// The last document that was brought up to date; the others come first.
    refreshed: Option<DocumentId>,
    refresh_next: bool,
    barrier: Option<Request>,
    limit: usize,
}

/// Those of one collection; or of documents whose collection the request does not say.
type Group = Option<CollectionName>;

#[derive(Debug, Default)]
struct Documents {
    ring: VecDeque<DocumentId>,
    queues: HashMap<DocumentId, VecDeque<Request>>,
}

impl Turns {
    /// Makes room for `limit` requests.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            groups: HashMap::new(),
            waiting: 0,
            refresh: BTreeSet::new(),
            refreshed: None,
            refresh_next: false,
            barrier: None,
            limit: limit.max(1),
        }
    }

    /// Takes what has come, as far as there is room.
    pub(super) fn fill(&mut self, requests: &mut mpsc::Receiver<Request>) {
        while self.has_room()
            && let Ok(request) = requests.try_recv()
        {
            self.add(request);
        }
    }

    fn has_room(&self) -> bool {
        self.barrier.is_none() && self.waiting < self.limit && self.refresh.len() < MAX_REFRESHES
    }

    /// Adds a request, or refuses it if its document has more than its share already.
    pub(super) fn add(&mut self, request: Request) {
        let (group, document) = match request.place() {
            Place::Of(collection, document) => (collection.cloned(), document),
            Place::Everywhere => {
                self.barrier = Some(request);
                return;
            }
            Place::Refresh => {
                if let Request::Refresh { documents } = request {
                    self.refresh.extend(documents);
                }
                return;
            }
        };
        let documents = self.groups.entry(group.clone()).or_insert_with(|| {
            self.ring.push_back(group);
            Documents::default()
        });
        let queue = documents.queues.entry(document).or_insert_with(|| {
            documents.ring.push_back(document);
            VecDeque::new()
        });
        if queue.len() >= (self.limit / DOCUMENT_SHARE).max(1) {
            return request.refuse(flooded());
        }
        queue.push_back(request);
        self.waiting += 1;
    }

    /// Returns what to do next; `None` when nothing waits.
    pub(super) fn next(&mut self) -> Option<Turn> {
        self.refresh_next = !self.refresh_next;
        if self.refresh_next
            && let Some(document) = self.next_refresh()
        {
            return Some(Turn::Refresh(document));
        }
        if let Some(request) = self.next_request() {
            return Some(Turn::Serve(request));
        }
        match self.next_refresh() {
            Some(document) => Some(Turn::Refresh(document)),
            None => self.barrier.take().map(Turn::Serve),
        }
    }

    fn next_refresh(&mut self) -> Option<DocumentId> {
        let later = self.refreshed.and_then(|last| self.refresh.range(last..).next().copied());
        let document = later.or_else(|| self.refresh.first().copied())?;
        self.refresh.remove(&document);
        self.refreshed = Some(document);
        Some(document)
    }

    fn next_request(&mut self) -> Option<Request> {
        let group = self.ring.pop_front()?;
        let documents = self.groups.get_mut(&group)?;
        let request = documents.next();
        if documents.ring.is_empty() {
            self.groups.remove(&group);
        } else {
            self.ring.push_back(group);
        }
        self.waiting = self.waiting.saturating_sub(usize::from(request.is_some()));
        request
    }
}

impl Documents {
    fn next(&mut self) -> Option<Request> {
        let document = self.ring.pop_front()?;
        let queue = self.queues.get_mut(&document)?;
        let request = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&document);
        } else {
            self.ring.push_back(document);
        }
        request
    }
}

fn flooded() -> Error {
    let message = "too many requests wait for this document: try again later";
    Error::new(ErrorKind::Overloaded, "document_queue_full", message)
}

/// One document may have this part of the queue.
const DOCUMENT_SHARE: usize = 4;

/// Documents that may wait to be brought up to date: some seconds of work, 16 bytes each.
const MAX_REFRESHES: usize = 65_536;

#[cfg(test)]
mod tests {
    use anabranch_crdt::ids::DocumentName;
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;
    use crate::document::request::Answer;
    use crate::document::{Document, Precondition, Write};

    type Answered = oneshot::Receiver<Answer<(Option<Document>, bool)>>;

    fn write(name: &str) -> Request {
        write_with(name).0
    }

    fn write_with(name: &str) -> (Request, Answered) {
        let (reply, answer) = oneshot::channel();
        let name: DocumentName = name.parse().unwrap();
        let (write, precondition) = (Write::Put(json!({})), Precondition::None);
        (Request::Write { name, write, author: None, precondition, reply }, answer)
    }

    fn order(turns: &mut Turns) -> Vec<String> {
        std::iter::from_fn(|| turns.next())
            .map(|turn| match turn {
                Turn::Serve(Request::Write { name, .. }) => name.to_string(),
                Turn::Serve(Request::Stop) => "stop".to_owned(),
                Turn::Refresh(_) => "refresh".to_owned(),
                Turn::Serve(other) => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn collections_take_turns_and_within_them_their_documents() {
        let mut turns = Turns::new(1_000);
        for n in 0..50 {
            turns.add(write(&format!("flood/{}", n % 10)));
        }
        turns.add(write("quiet/a"));
        turns.add(write("flood/rare"));
        turns.add(write("quiet/a"));
        let order = order(&mut turns);
        let place = |wanted: &str| order.iter().position(|name| name == wanted).unwrap();
        assert!(place("quiet/a") <= 1, "{order:?}");
        assert!(place("flood/rare") <= 13, "{order:?}");
        assert_eq!(order.len(), 53);
        assert_eq!(turns.waiting, 0);
        assert!(turns.groups.is_empty() && turns.ring.is_empty());
    }

    #[test]
    fn a_document_that_is_flooded_is_refused_and_no_other() {
        let mut turns = Turns::new(100);
        let answers: Vec<_> = (0..40)
            .map(|_| {
                let (request, answer) = write_with("flood/one");
                turns.add(request);
                answer
            })
            .collect();
        let refused = answers.into_iter().filter_map(|mut answer| answer.try_recv().ok());
        let codes: Vec<_> = refused.map(|answer| answer.unwrap_err().code()).collect();
        assert_eq!(codes, vec!["document_queue_full"; 15]);
        turns.add(write("flood/two"));
        assert_eq!(order(&mut turns).len(), 26);
    }

    #[test]
    fn entries_of_other_regions_take_turns_with_requests() {
        let mut turns = Turns::new(100);
        let documents = (0..4).map(|n| DocumentId::from_bytes([n; 16])).collect();
        turns.add(Request::Refresh { documents });
        ["a/1", "a/2"].iter().for_each(|name| turns.add(write(name)));
        let refresh = "refresh";
        assert_eq!(order(&mut turns), [refresh, "a/1", refresh, "a/2", refresh, refresh]);
    }

    #[test]
    fn a_barrier_is_served_after_what_came_before_it_and_before_what_comes_after() {
        let (sender, mut requests) = mpsc::channel(8);
        let mut turns = Turns::new(100);
        for request in [write("a/1"), Request::Stop, write("a/2")] {
            sender.try_send(request).unwrap();
        }
        turns.fill(&mut requests);
        assert_eq!(order(&mut turns), ["a/1", "stop"]);
        turns.fill(&mut requests);
        assert_eq!(order(&mut turns), ["a/2"]);
    }
}
