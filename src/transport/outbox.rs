//! Frames that wait to go out on one link: bounded in number and bytes, each with the moment
//! before which it must not leave.
//!
//! # Why a moment per frame
//! A link between oceans is late, not slow. Delaying each write would cut the throughput to one
//! frame per delay; a due moment per frame keeps the order and lets any number be under way.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The queue cannot take the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Outbox {
    /// Makes a queue that holds several frames of `frame_bytes`.
    pub(crate) fn new(frame_bytes: usize) -> Self {
        let max_bytes = MIN_BYTES.max(frame_bytes.saturating_mul(2));
        Self { waiting: Mutex::default(), filled: Notify::new(), max_bytes }
    }

    /// Adds a frame that leaves after `delay`, and after those before it.
    pub(crate) fn push(&self, frame: Bytes, delay: Duration) -> Result<(), Full> {
        let mut waiting = self.lock();
        let bytes = waiting.bytes.saturating_add(frame.len());
        if bytes > self.max_bytes || waiting.frames.len() >= MAX_FRAMES {
            return Err(Full);
        }
        let due = Instant::now() + delay;
        let after = waiting.frames.back().map_or(due, |&(last, _)| due.max(last));
        waiting.bytes = bytes;
        waiting.frames.push_back((after, frame));
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for the next frame that is due. For one caller at a time.
    pub(crate) async fn next(&self) -> Bytes {
        loop {
            let due = self.lock().frames.front().map(|&(due, _)| due);
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
        let (_, frame) = waiting.frames.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(frame.len());
        Some(frame)
    }

    /// A panic elsewhere cannot leave the queue half changed, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames of one link at most: some hundred milliseconds of the fastest fan-out.
const MAX_FRAMES: usize = 4_096;

/// Bytes of one link at least: 190 ms of round trip at 80 MB/s.
const MIN_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_frames_and_in_bytes() {
        let outbox = Outbox::new(1 << 10);
        for _ in 0..MAX_FRAMES {
            outbox.push(Bytes::from_static(b"x"), Duration::ZERO).unwrap();
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x"), Duration::ZERO), Err(Full));

        let outbox = Outbox::new(8 << 20);
        let frame = Bytes::from(vec![0; 8 << 20]);
        for _ in 0..2 {
            outbox.push(frame.clone(), Duration::ZERO).unwrap();
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x"), Duration::ZERO), Err(Full));
        outbox.pop().unwrap();
        outbox.push(Bytes::from_static(b"x"), Duration::ZERO).unwrap();
    }

    #[tokio::test]
    async fn a_delay_keeps_the_order_and_does_not_add_up() {
        let outbox = Outbox::new(1 << 10);
        let began = Instant::now();
        for n in 0..100_u8 {
            // The later half is not delayed, yet stays behind the former.
            let delay = if n < 50 { Duration::from_millis(40) } else { Duration::ZERO };
            outbox.push(Bytes::copy_from_slice(&[n]), delay).unwrap();
        }
        for n in 0..100_u8 {
            assert_eq!(outbox.next().await.as_ref(), &[n]);
            assert!(began.elapsed() >= Duration::from_millis(40));
        }
        assert!(began.elapsed() < Duration::from_millis(2_000));
    }
}
