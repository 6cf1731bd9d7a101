//! The writer without its thread: whoever holds it decides when a transaction is made, which is how
//! the simulator runs the journal on virtual time.

use std::fmt;

use tokio::sync::mpsc;

use super::writer::{Order, Writer};
use super::{CommitError, Identity};

/// The writer of a journal that is driven by hand. Dropped without [`HandWriter::close`] it leaves
/// the file as a process that ends at once does.
///
/// The queue of commits is bounded, and handing over one more while it is full waits for ever:
/// [`HandWriter::step`] has to be called in between.
pub struct HandWriter {
    writer: Writer,
    orders: mpsc::Receiver<Order>,
    next: Option<Order>,
}

impl HandWriter {
    pub(super) fn new(writer: Writer, orders: mpsc::Receiver<Order>) -> Self {
        Self { writer, orders, next: None }
    }

    /// Tells whether nothing is queued.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.next.is_none() && self.orders.is_empty()
    }

    /// Makes one transaction of what is queued, and tells everyone how it went; tells whether there
    /// was anything.
    pub fn step(&mut self) -> bool {
        let order = self.next.take().or_else(|| self.orders.try_recv().ok());
        let Some(order) = order else { return false };
        self.next = self.writer.serve(order, &mut self.orders);
        true
    }

    /// Does what [`super::Journal::renew_origin`] asks the thread for.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn renew_origin(&mut self) -> Result<Identity, CommitError> {
        self.writer.renew()
    }

    /// Commits what is queued, and closes the file.
    pub fn close(mut self) {
        while self.step() {}
        self.writer.finish();
    }
}

impl fmt::Debug for HandWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandWriter").field("idle", &self.is_idle()).finish_non_exhaustive()
    }
}
