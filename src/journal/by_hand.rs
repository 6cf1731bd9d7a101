//! The writer without its thread: whoever holds the journal decides when a transaction is made,
//! which is how the simulator runs it on virtual time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::writer::{Order, Writer};

/// The writer of a journal that is driven by hand. Dropped it leaves the file as a process does
/// that ends at once.
pub(super) struct HandWriter(Mutex<Desk>);

struct Desk {
    writer: Writer,
    orders: mpsc::Receiver<Order>,
    next: Option<Order>,
}

impl HandWriter {
    pub(super) fn new(writer: Writer, orders: mpsc::Receiver<Order>) -> Self {
        Self(Mutex::new(Desk { writer, orders, next: None }))
    }

    /// Tells whether nothing is queued.
    pub(super) fn is_idle(&self) -> bool {
        let desk = self.desk();
        desk.next.is_none() && desk.orders.is_empty()
    }

    /// Makes one transaction of what is queued, and tells everyone how it went; tells whether there
    /// was anything.
    pub(super) fn step(&self) -> bool {
        let mut desk = self.desk();
        let desk = &mut *desk;
        let order = desk.next.take().or_else(|| desk.orders.try_recv().ok());
        let Some(order) = order else { return false };
        desk.next = desk.writer.serve(order, &mut desk.orders);
        true
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
