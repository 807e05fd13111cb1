//! A value that tasks wait on.
//!
//! V1. Whoever looks in vain leaves a waker under the same lock: no change falls in between. V2. Wakers are cloned, woken
//! and dropped outside the lock; looking and changing run under it, and run no user code. V3. A wait that is dropped leaves
//! nothing behind.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::sorted_map::SortedMap;
use crate::sync::Lock;

pub(crate) struct Watched<T>(Lock<Inside<T>>);

struct Inside<T> {
    value: T,
    /// One for each wait, under its number.
    waiters: SortedMap<u64, Waker>,
    next: u64,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Lock::new(Inside {
            value,
            waiters: SortedMap::new(),
            next: 0,
        }))
    }

    /// Looks at the value, or changes it in a way that nobody waits for.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.0.lock().value)
    }

    /// Changes the value, and wakes everybody who waits.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let (result, waiters) = {
            let mut inside = self.0.lock();
            let result = change(&mut inside.value);
            (result, std::mem::take(&mut inside.waiters))
        };
        for waiter in waiters.into_values() {
            // A waker may throw: that must not cost the others their turn.
            if let Err(panic) = catch(|| waiter.wake()) {
                displace(None, None, DisplacedWhat::Panic(panic));
            }
        }
        result
    }

    /// Waits until `look` finds something.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken before it is ready.
    pub(crate) fn until<R, F: FnMut(&mut T) -> Option<R>>(&self, look: F) -> Looking<'_, T, F> {
        Looking {
            watched: self,
            look,
            number: None,
        }
    }
}

/// See [`Watched::until`].
///
/// # Cancel safety
///
/// Cancel safe.
pub(crate) struct Looking<'a, T, F> {
    watched: &'a Watched<T>,
    look: F,
    number: Option<u64>,
}

// The closure is called, never pinned.
impl<T, F> Unpin for Looking<'_, T, F> {}

impl<T, R, F: FnMut(&mut T) -> Option<R>> Future for Looking<'_, T, F> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let me = &mut *self;
        let waker = cx.waker().clone();
        let mut inside = me.watched.0.lock();
        if let Some(found) = (me.look)(&mut inside.value) {
            drop(inside);
            return Poll::Ready(found);
        }
        let number = *me.number.get_or_insert_with(|| {
            inside.next += 1;
            inside.next
        });
        let old = inside.waiters.insert(number, waker); // V1
        drop(inside);
        drop(old);
        Poll::Pending
    }
}

impl<T, F> Drop for Looking<'_, T, F> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let old = self.watched.0.lock().waiters.remove(number); // V3
            drop(old);
        }
    }
}
