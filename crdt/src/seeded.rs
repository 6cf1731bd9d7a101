//! Deliberate bugs, to see whether the simulator finds them. They exist only with the feature
//! `seeded-bugs`, which no build that anybody runs has; without it every `bug!` is `false`.

/// Tells whether a deliberate bug is at work here; with `every`, only at each so many times.
#[cfg(not(feature = "seeded-bugs"))]
#[macro_export]
macro_rules! bug {
    ($($which:tt)*) => {
        $crate::seeded::none()
    };
}

/// Tells whether a deliberate bug is at work here; with `every`, only at each so many times.
#[cfg(feature = "seeded-bugs")]
#[macro_export]
macro_rules! bug {
    ($name:ident) => {
        $crate::seeded::is_active($crate::seeded::Bug::$name)
    };
    ($name:ident, every $times:literal) => {
        $crate::seeded::is_due($crate::seeded::Bug::$name, $times)
    };
    ($name:ident, at $node:literal) => {
        $crate::seeded::is_active_at($crate::seeded::Bug::$name, $node)
    };
}

/// No bug is at work.
#[cfg(not(feature = "seeded-bugs"))]
#[must_use]
#[inline]
pub const fn none() -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use planted::{Bug, enter, is_active, is_active_at, is_due, plant};

#[cfg(feature = "seeded-bugs")]
mod planted {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A bug that somebody could have made.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Bug { $($(#[$doc])* $name,)* }

            impl Bug {
                /// Every bug.
                pub const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    bugs! {
        /// A commit is answered before it is written.
        AcknowledgeBeforeWrite,
        /// Commits are not synced.
        SkipSync,
        /// One entry in ten thousand is not stored.
        DropOneInTenThousand,
        /// A restored disk goes on under the origin that it had.
        KeepOriginOfCopy,
        /// Entries that are there are stored again.
        ForgetDeduplication,
        /// Entries are stored although some before them are missing.
        IgnoreGap,
        /// A commit keeps all but its last entry, and says that all are there.
        TruncateBatch,
        /// Once opened, a journal says that it has one entry more than it has.
        RestoreTooMuch,
        /// An entry from elsewhere loses its admission time.
        SkipAdmissionTime,
        /// Entries that wait to be applied are not seen by reads.
        ReadStaleRow,
        /// What was built on a failed commit is committed all the same.
        ForgetLineage,
        /// A document is loaded from disk while its last step is on its way there.
        LoadTooEarly,
        /// Entries that were applied in vain are not tried again.
        NoRetryAfterFault,
        /// An entry that waits for another counts as applied.
        ApplyWithoutDependency,
        /// Now and then a document goes on showing what it showed before.
        StaleView,
        /// Now and then a row of the ledger is not stored.
        SkipLedgerRow,
        /// A client may write under the name of a leader.
        AdmitForgedWriter,
        /// Damaged changes pass for others.
        SkipChecksum,
        /// In one region the least value wins where the greatest should.
        WrongWinner,
        /// A session token leaves out an origin.
        TokenForgetsOrigin,
        /// A node acknowledges one entry more than it has.
        AcknowledgeTooMuch,
        /// There are no timers.
        LoseTimer,
        /// An answer to a pull that never comes is waited for without end.
        LosePullTimeout,
        /// Whoever says that frames are missing is not believed.
        TreatLostAsSent,
        /// What a peer had before its restart it is taken to have for ever.
        TrustOldKnowledge,
        /// Two entries of a frame change places.
        SwapEntries,
        /// Entries are relayed also to those who hear them from their origin.
        RelayToAll,
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static NODE: Cell<usize> = const { Cell::new(usize::MAX) };
        static TIMES: Cell<u64> = const { Cell::new(0) };
    }

    /// Puts a bug to work on this thread, and no other.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        TIMES.set(0);
    }

    /// Says which node this thread works for.
    pub fn enter(node: usize) {
        NODE.set(node);
    }

    /// Tells whether a bug is at work.
    #[must_use]
    pub fn is_active(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Tells whether a bug is at work in this node.
    #[must_use]
    pub fn is_active_at(bug: Bug, node: usize) -> bool {
        is_active(bug) && NODE.get() == node
    }

    /// Tells, each so many times, that a bug is at work.
    #[must_use]
    pub fn is_due(bug: Bug, every: u64) -> bool {
        if !is_active(bug) {
            return false;
        }
        TIMES.set(TIMES.get() + 1);
        TIMES.get() % every == 0
    }
}
