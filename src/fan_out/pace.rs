//! How long a worker goes on before it lets others run.
//!
//! Items that are ready at once never return to the scheduler by themselves. A worker yields after 64 of them, or after
//! 100 µs of them, and reads the clock as seldom as the items allow: after one, two, four … up to 64 of them; and not for the one
//! that it was woken for, if the next one has to wait again.

use std::time::Duration;

use tokio::time::Instant;

const MOST: u32 = 64;
const SLICE: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub(crate) struct Pace {
    stride: u32,
    left: u32,
    since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            stride: 1,
            left: 1,
            since: None,
        }
    }

    /// Notes that an item ended at once. Returns whether it is time to yield.
    #[inline]
    pub(crate) fn step(&mut self) -> bool {
        self.left -= 1;
        self.left == 0 && self.look()
    }

    /// Notes that the worker has to wait anyway.
    #[inline]
    pub(crate) fn pause(&mut self) {
        self.left = 2;
        self.since = None;
    }

    #[cold]
    fn look(&mut self) -> bool {
        let now = Instant::now();
        let Some(since) = self.since.replace(now) else {
            self.left = (self.stride - 1).max(1); // the clock starts here
            return false;
        };
        let is_long = now - since >= SLICE;
        let is_over = is_long || self.stride == MOST;
        self.stride = if is_long {
            (self.stride / 2).max(1)
        } else {
            (self.stride * 2).min(MOST)
        };
        if is_over {
            // What others do meanwhile is not to be counted: the clock starts with the next one.
            self.since = None;
            self.left = 1;
        } else {
            self.left = self.stride;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many items end before it is time to yield, if each takes so long.
    async fn burst(pace: &mut Pace, each: Duration) -> u32 {
        for item in 1.. {
            tokio::time::advance(each).await;
            if pace.step() {
                return item;
            }
        }
        unreachable!("it yields at last")
    }

    #[tokio::test(start_paused = true)]
    async fn short_items_yield_after_64_and_long_ones_at_once() {
        let (short, long) = (Duration::ZERO, Duration::from_millis(1));
        let mut pace = Pace::new();
        let first = burst(&mut pace, short).await;
        assert_eq!(first, 1 + 1 + 2 + 4 + 8 + 16 + 32 + 64);
        for _ in 0..3 {
            assert_eq!(burst(&mut pace, short).await, 64);
        }
        // They become long, and short again.
        for expected in [64, 32, 16, 8, 4, 2, 2, 2] {
            assert_eq!(burst(&mut pace, long).await, expected);
        }
        assert_eq!(burst(&mut pace, short).await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_that_is_just_as_long_is_over() {
        assert_eq!(burst(&mut Pace::new(), SLICE).await, 2);
        assert!(burst(&mut Pace::new(), SLICE - Duration::from_micros(1)).await > 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_begins_anew_and_the_one_it_was_woken_for_is_not_timed() {
        let mut pace = Pace::new();
        for _ in 0..1_000 {
            assert!(!pace.step(), "it waits after each");
            pace.pause();
            tokio::time::advance(SLICE).await;
        }
        assert!(pace.since.is_none());
        while !pace.step() {}
        pace.pause();
        assert!(!pace.step() && pace.since.is_none());
        assert_eq!((1..).find(|_| pace.step()), Some(64));
    }
}
