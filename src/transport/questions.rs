//! Questions of readers to the regions of the cluster, on their way through the driver.
//!
//! Readers share questions: while as many are under way as may be, those that come are asked
//! together in the next one. A question that was sent before a reader came is of no use to it.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use anabranch_crdt::version::VersionVector;
use tokio::sync::{mpsc, oneshot};

use crate::replication::{Input, Ticket};

/// What was durable in a majority of the regions, or the regions that have not answered.
pub(crate) type Answer = Result<VersionVector, Vec<RegionName>>;

/// Makes the channel from the readers to the driver.
pub(crate) fn questions() -> (Asker, Questions) {
    let (sender, queue) = mpsc::channel(MAX_QUEUE);
    let questions = Questions {
        queue,
        under_way: BTreeMap::new(),
        waiting: Vec::new(),
        wait: Duration::ZERO,
        last: 0,
    };
    (Asker(sender), questions)
}

/// The end of the readers; clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Asker(mpsc::Sender<Question>);

impl Asker {
    /// Asks what is durable in a majority of the regions from now on; `None` if nobody answers.
    pub(crate) async fn ask(&self, wait: Duration) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Question { wait, reply }).await.ok()?;
        answer.await.ok()
    }
}

#[derive(Debug)]
pub(crate) struct Question {
    wait: Duration,
    reply: oneshot::Sender<Answer>,
}

/// The end of the driver.
#[derive(Debug)]
pub(crate) struct Questions {
    queue: mpsc::Receiver<Question>,
    under_way: BTreeMap<Ticket, Vec<oneshot::Sender<Answer>>>,
    /// Readers of the next question.
    waiting: Vec<oneshot::Sender<Answer>>,
    /// How long the most patient of them waits.
    wait: Duration,
    last: u64,
}

impl Questions {
    /// Waits for a reader; never ends before the readers do.
    pub(crate) async fn next(&mut self) -> Option<Question> {
        self.queue.recv().await
    }

    /// Takes a reader, and all that wait behind it.
    pub(crate) fn take(&mut self, first: Question) {
        let mut next = Some(first);
        while let Some(question) = next {
            self.wait = self.wait.max(question.wait);
            self.waiting.push(question.reply);
            next = self.queue.try_recv().ok();
        }
    }

    /// Answers the readers of one question.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        for reply in self.under_way.remove(&ticket).unwrap_or_default() {
            // A reader may have given up.
            drop(reply.send(answer.clone()));
        }
    }

    /// Returns what to ask now, if readers wait and not too much is under way.
    pub(crate) fn start(&mut self) -> Option<Input> {
        self.waiting.retain(|reply| !reply.is_closed());
        if self.waiting.is_empty() || self.under_way.len() >= UNDER_WAY {
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.under_way.insert(ticket, std::mem::take(&mut self.waiting));
        Some(Input::Ask { ticket, wait: std::mem::take(&mut self.wait) })
    }
}

/// Questions under way at once: over 200 ms of distance that is one in 6 ms.
const UNDER_WAY: usize = 32;

/// Readers on their way to the driver; more wait where they are.
const MAX_QUEUE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(questions: &mut Questions) -> (Option<Ticket>, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        questions.take(Question { wait: Duration::from_secs(1), reply });
        (questions.start().map(ticket), answer)
    }

    fn ticket(input: Input) -> Ticket {
        let Input::Ask { ticket, .. } = input else { panic!("{input:?}") };
        ticket
    }

    #[test]
    fn readers_that_come_while_many_questions_are_under_way_share_the_next() {
        let (_asker, mut questions) = questions();
        let early: Vec<_> = (0..UNDER_WAY).map(|_| reader(&mut questions)).collect();
        assert!(early.iter().all(|(asked, _)| asked.is_some()));
        let (none, mut third) = reader(&mut questions);
        let (_, mut fourth) = reader(&mut questions);
        assert_eq!(none, None);

        let answer = Ok(VersionVector::new());
        questions.answer(early[0].0.unwrap(), &answer);
        let next = questions.start().map(ticket).unwrap();
        assert!(third.try_recv().is_err(), "an older question says nothing to it");
        questions.answer(next, &answer);
        assert!(questions.start().is_none());
        assert_eq!(
            (third.try_recv().unwrap(), fourth.try_recv().unwrap()),
            (answer.clone(), answer)
        );
    }

    #[test]
    fn nobody_is_asked_for_a_reader_that_is_gone() {
        let (_asker, mut questions) = questions();
        let (reply, answer) = oneshot::channel();
        drop(answer);
        questions.take(Question { wait: Duration::ZERO, reply });
        assert!(questions.start().is_none());
    }
}
