//! Frames that wait to go out on one link: two queues, one per lane, each bounded in number and
//! bytes, each frame with the moment before which it must not leave.
//!
//! # Why a moment per frame
//! A link between oceans is late, not slow. Delaying each write would cut the throughput to one
//! frame per delay; a due moment per frame keeps the order and lets any number be under way.
//!
//! # Why some frames replace those before them
//! On a slow link acknowledgements come faster than they leave. The newest says all that those
//! before it say, so a frame that waits only because the link is slow takes over its content.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::replication::Lane;
use crate::replication::frame::{Newest, newest_counts};

/// The queue cannot take the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
pub(crate) struct Outbox {
    fresh: Queue,
    bulk: Queue,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    due: Instant,
    bytes: Bytes,
    newest: Option<Newest>,
}

impl Outbox {
    /// Makes queues that hold several frames of `longest` bytes, the longest that a frame may be.
    pub(crate) fn new(longest: usize) -> Self {
        let max_bytes = MIN_BYTES.max(longest.saturating_mul(LONGEST_FRAMES));
        let queue = || Queue { waiting: Mutex::default(), filled: Notify::new(), max_bytes };
        Self { fresh: queue(), bulk: queue() }
    }

    /// Adds a frame that leaves after `delay`, and after those of its lane before it.
    pub(crate) fn push(&self, frame: Bytes, lane: Lane, delay: Duration) -> Result<(), Full> {
        self.queue(lane).push(frame, delay)
    }

    /// Waits for the next frame of a lane that is due. For one caller per lane at a time.
    pub(crate) async fn next(&self, lane: Lane) -> Bytes {
        self.queue(lane).next().await
    }

    /// Counts the bytes that wait in a lane.
    pub(crate) fn waiting(&self, lane: Lane) -> usize {
        self.queue(lane).lock().bytes
    }

    fn queue(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Fresh => &self.fresh,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl Queue {
    fn push(&self, frame: Bytes, delay: Duration) -> Result<(), Full> {
        let (now, newest) = (Instant::now(), newest_counts(&frame));
        let mut waiting = self.lock();
        if waiting.take_over(&frame, newest, now) {
            return Ok(());
        }
        let bytes = waiting.bytes.saturating_add(frame.len());
        if bytes > self.max_bytes || waiting.frames.len() >= MAX_FRAMES {
            return Err(Full);
        }
        let due = now + delay;
        let due = waiting.frames.back().map_or(due, |last| due.max(last.due));
        waiting.bytes = bytes;
        waiting.frames.push_back(Frame { due, bytes: frame, newest });
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    async fn next(&self) -> Bytes {
        loop {
            let due = self.lock().frames.front().map(|frame| frame.due);
            match due {
                None => self.filled.notified().await,
                Some(due) if due > Instant::now() => sleep_until(due).await,
                Some(_) => {
                    if let Some(frame) = self.pop() {
                        return frame;
                    }
                }
            }
        }
    }

    fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let frame = waiting.frames.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(frame.bytes.len());
        Some(frame.bytes)
    }

    /// A panic elsewhere cannot leave the queue half changed, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Puts `frame` in the place of one that is due and says less, if there is one.
    fn take_over(&mut self, frame: &Bytes, newest: Option<Newest>, now: Instant) -> bool {
        let Some(newest) = newest else { return false };
        let same = |older: &&mut Frame| older.newest == Some(newest) && older.due <= now;
        let Some(older) = self.frames.iter_mut().find(same) else { return false };
        self.bytes = self.bytes.saturating_sub(older.bytes.len()).saturating_add(frame.len());
        older.bytes = frame.clone();
        true
    }
}

/// Frames of one lane at most: some hundred milliseconds of the fastest fan-out.
const MAX_FRAMES: usize = 4_096;

/// Bytes of one lane at least: the window of the own stream, relays, and a frame of each.
const MIN_BYTES: usize = 32 << 20;

/// The longest frames of one lane, of which there may be one more than those windows hold.
const LONGEST_FRAMES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::frame::Frame as Message;

    use anabranch_crdt::entry::Dot;
    use anabranch_crdt::ids::{Origin, Sequence};

    fn ack(sequence: u64) -> Bytes {
        let dot = Dot { origin: Origin::from_bytes([1; 16]), sequence: Sequence(sequence) };
        Message::Ack { vector: [dot].into_iter().collect() }.encode()
    }

    #[test]
    fn each_lane_is_bounded_in_frames_and_in_bytes() {
        for (lane, other) in [(Lane::Fresh, Lane::Bulk), (Lane::Bulk, Lane::Fresh)] {
            let outbox = Outbox::new(1 << 10);
            let small = || Bytes::from_static(b"x");
            for _ in 0..MAX_FRAMES {
                outbox.push(small(), lane, Duration::ZERO).unwrap();
            }
            assert_eq!(outbox.push(small(), lane, Duration::ZERO), Err(Full));
            outbox.push(small(), other, Duration::ZERO).unwrap();

            let outbox = Outbox::new(16 << 20);
            let frame = Bytes::from(vec![0; 16 << 20]);
            for _ in 0..LONGEST_FRAMES {
                outbox.push(frame.clone(), lane, Duration::ZERO).unwrap();
            }
            assert_eq!(outbox.push(small(), lane, Duration::ZERO), Err(Full));
            outbox.queue(lane).pop().unwrap();
            outbox.push(small(), lane, Duration::ZERO).unwrap();
        }
    }

    #[tokio::test]
    async fn a_delay_keeps_the_order_and_does_not_add_up() {
        let outbox = Outbox::new(1 << 10);
        let began = Instant::now();
        for n in 0..100_u8 {
            // The later half is not delayed, yet stays behind the former.
            let delay = if n < 50 { Duration::from_millis(40) } else { Duration::ZERO };
            outbox.push(Bytes::copy_from_slice(&[n]), Lane::Fresh, delay).unwrap();
        }
        for n in 0..100_u8 {
            assert_eq!(outbox.next(Lane::Fresh).await.as_ref(), &[n]);
            assert!(began.elapsed() >= Duration::from_millis(40));
        }
        assert!(began.elapsed() < Duration::from_millis(2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_that_wait_become_one_unless_the_delay_holds_them() {
        let outbox = Outbox::new(1 << 10);
        for sequence in 1..=10_000 {
            outbox.push(ack(sequence), Lane::Fresh, Duration::ZERO).unwrap();
        }
        assert_eq!(outbox.next(Lane::Fresh).await, ack(10_000));
        assert_eq!(outbox.waiting(Lane::Fresh), 0);

        // What an artificial distance holds up would arrive before its time.
        for sequence in 1..=3 {
            outbox.push(ack(sequence), Lane::Fresh, Duration::from_millis(40)).unwrap();
        }
        for sequence in 1..=3 {
            assert_eq!(outbox.next(Lane::Fresh).await, ack(sequence));
        }
    }
}
