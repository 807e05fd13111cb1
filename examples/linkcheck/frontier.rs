//! The pages that are found but not yet fetched.
//!
//! Workers take from the frontier and add to it, so "empty" does not mean "done": a page in flight
//! may still bring new ones. The crawl is done when the frontier is empty *and* nothing is in
//! flight, and this is the place that knows both.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A queue that ends by itself.
#[derive(Debug)]
pub(crate) struct Frontier<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    in_flight: usize,
}

/// An item in flight. It counts as such until this is dropped, whatever becomes of the worker that
/// holds it: one that is cancelled in the middle cannot keep the others waiting.
#[derive(Debug)]
pub(crate) struct InFlight<'a, T> {
    frontier: &'a Frontier<T>,
    pub(crate) item: T,
}

impl<T> Frontier<T> {
    pub(crate) fn new(first: impl IntoIterator<Item = T>) -> Self {
        let state = State {
            waiting: first.into_iter().collect(),
            in_flight: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// Adds items.
    pub(crate) fn add(&self, items: Vec<T>) {
        let count = items.len();
        self.lock().waiting.extend(items);
        for _ in 0..count {
            self.changed.notify_one();
        }
    }

    /// Takes the oldest item, waiting for one if need be; `None` when the crawl is done.
    pub(crate) async fn take(&self) -> Option<InFlight<'_, T>> {
        loop {
            // Listening starts before looking: what is added in between is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(item) = state.waiting.pop_front() {
                    state.in_flight += 1;
                    return Some(InFlight {
                        frontier: self,
                        item,
                    });
                }
                if state.in_flight == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for InFlight<'_, T> {
    fn drop(&mut self) {
        let mut state = self.frontier.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 && state.waiting.is_empty() {
            self.frontier.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task};

    use super::Frontier;

    #[test]
    fn it_ends_when_empty_with_nothing_in_flight() {
        let frontier = Frontier::new([1]);
        let first = assert_ready!(task::spawn(frontier.take()).poll()).expect("an item");

        let mut other = task::spawn(frontier.take());
        assert_pending!(other.poll());
        frontier.add(vec![2]);
        let second = assert_ready!(other.poll()).expect("what was added");
        assert_eq!((first.item, second.item), (1, 2));

        let mut other = task::spawn(frontier.take());
        drop(first);
        assert_pending!(other.poll());
        drop(second);
        assert!(other.is_woken());
        assert!(assert_ready!(other.poll()).is_none());
    }

    #[test]
    fn each_added_item_wakes_a_worker() {
        let frontier = Frontier::new([1]);
        let _first = assert_ready!(task::spawn(frontier.take()).poll());
        let mut a = task::spawn(frontier.take());
        let mut b = task::spawn(frontier.take());
        assert_pending!(a.poll());
        assert_pending!(b.poll());
        frontier.add(vec![2, 3]);
        assert!(a.is_woken() && b.is_woken());
    }
}
