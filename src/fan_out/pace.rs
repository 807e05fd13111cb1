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
        self.left = self.stride.max(2);
        self.since = None;
    }

    #[cold]
    fn look(&mut self) -> bool {
        let now = Instant::now();
        let since = self.since.replace(now);
        let is_long = since.is_some_and(|since| now - since >= SLICE);
        let is_over = is_long || self.stride == MOST;
        self.stride = if is_long {
            (self.stride / 2).max(1)
        } else if since.is_some() {
            (self.stride * 2).min(MOST)
        } else {
            self.stride
        };
        self.left = self.stride;
        if is_over {
            self.since = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn short_items_yield_after_64_and_long_ones_after_each() {
        let mut pace = Pace::new();
        let first = (1..).find(|_| pace.step());
        assert_eq!(first, Some(1 + 1 + 2 + 4 + 8 + 16 + 32 + 64));
        assert_eq!((1..).find(|_| pace.step()), Some(64));
        let mut slow = Pace::new();
        for item in 0..9 {
            tokio::time::advance(Duration::from_millis(1)).await;
            // The first one starts the clock.
            assert_eq!(slow.step(), item % 2 == 1, "item {item}");
        }
    }
}
