//! Every capacity made 1, for tests: what only works while there is room is found so.

use std::cell::Cell;
use std::marker::PhantomData;

std::thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, each limit and capacity that this thread gives is 1: of queues, worker pools, fan-outs, slots.
///
/// A program that ends with all of them at 1 has no deadlock that hides behind a buffer. What counts weights instead of items keeps its
/// limit: at 1, a heavier item would not be served at all. `RINGFENCE_CAPACITIES=1` in the environment does the same for a whole process.
///
/// # Examples
///
/// ```
/// use ringfence::{queue, testing::Smallest};
///
/// let smallest = Smallest::new();
/// let (sender, _receiver) = queue::bounded(1000);
/// assert!(sender.try_send('a').is_ok());
/// assert!(sender.try_send('b').is_err());
/// drop(smallest);
/// ```
#[derive(Debug)]
#[must_use = "capacities are 1 only while it lives"]
pub struct Smallest(PhantomData<*const ()>);

impl Smallest {
    /// Makes capacities 1 from now on, in this thread.
    pub fn new() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(PhantomData)
    }
}

impl Default for Smallest {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Smallest {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Returns the capacity to use where `given` is asked for.
pub(crate) fn capacity(given: usize) -> usize {
    static ALL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let all = || {
        let wanted = std::env::var_os("RINGFENCE_CAPACITIES");
        wanted.is_some_and(|wanted| wanted == "1")
    };
    if DEPTH.get() > 0 || *ALL.get_or_init(all) {
        given.min(1)
    } else {
        given
    }
}
