//! Atomics and locks: std's, or the model checkers' under their own cfgs.
//!
//! The only room that names `std::sync` atomics and locks, so that a lane that swaps them swaps all of them.

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
mod imp {
    pub(super) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use std::sync::{Arc, MutexGuard, OnceLock};
    pub(crate) use std::thread_local;
}
#[cfg(ringfence_loom)]
mod imp {
    pub(crate) use loom::sync::Arc;
    pub(super) use loom::sync::Mutex;
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use loom::thread_local;

    /// loom has none: std's with a flag that loom knows of, so that it sees what is ordered by it, and what is not.
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: AtomicBool,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self {
                value: std::sync::OnceLock::new(),
                is_set: AtomicBool::new(false),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            let is_set = self.is_set.load(super::Ordering::Acquire);
            is_set.then(|| self.value.get()).flatten()
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            let value = self.value.get_or_init(make);
            self.is_set.store(true, super::Ordering::Release);
            value
        }
    }
}
#[cfg(ringfence_shuttle)]
mod imp {
    pub(crate) use shuttle::sync::Arc;
    pub(super) use shuttle::sync::Mutex;
    pub(crate) use shuttle::sync::MutexGuard;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use shuttle::thread_local;
    pub(crate) use std::sync::OnceLock;
}

pub(crate) use imp::{Arc, AtomicBool, AtomicU64, MutexGuard, OnceLock, thread_local};
pub(crate) use std::sync::atomic::Ordering;
/// std's own in every lane: it goes with the count of a [`PlainArc`].
pub(crate) use std::sync::atomic::fence;

/// std's own in every lane: for what is only shown to people.
pub(crate) use std::sync::atomic::AtomicBool as PlainFlag;
use std::sync::atomic::AtomicU64 as PlainAtomic;
#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU8 as PlainByte, AtomicU64 as PlainNumber};
/// std's own in every lane: for names and hooks, which are no part of any protocol.
pub(crate) use std::sync::{Arc as PlainArc, Mutex as PlainMutex};

/// Returns a number that no other call returns.
pub(crate) fn unique() -> u64 {
    static NEXT: PlainAtomic = PlainAtomic::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A lock that ignores poisoning.
///
/// No user code runs under a lock of ours, so a poisoned one says nothing about what it guards.
pub(crate) struct Lock<T>(imp::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A lock that is held for a few dozen instructions at a time, never by the user's code, and wanted for every item.
///
/// It costs one locked operation: its release is a plain store. A lock that wakes who sleeps needs two. Who finds it taken
/// looks again, less often each time, gives way to other threads, and sleeps at last: a holder whose thread was taken off
/// its core costs the others a little time, and no core.
#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
mod short {
    use std::hint::spin_loop;
    use std::thread;
    use std::time::Duration;

    use spin::mutex::{SpinMutex, SpinMutexGuard};

    pub(crate) type ShortGuard<'a, T> = SpinMutexGuard<'a, T>;

    pub(crate) struct ShortLock<T>(SpinMutex<T>);

    impl<T> ShortLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(SpinMutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> ShortGuard<'_, T> {
            match self.0.try_lock() {
                Some(guard) => guard,
                None => self.lock_patiently(),
            }
        }

        #[cold]
        fn lock_patiently(&self) -> ShortGuard<'_, T> {
            let mut round = 0;
            loop {
                wait(round);
                round = (round + 1).min(SLEEPS);
                // Looks first, which leaves the lock where it is, in the cache of who has it.
                if !self.0.is_locked() {
                    if let Some(guard) = self.0.try_lock() {
                        return guard;
                    }
                }
            }
        }
    }

    const YIELDS: u32 = 11;
    const SLEEPS: u32 = 32;

    /// Longer each time: whoever has the lock is left alone with its cache for a while, and gets much done.
    #[expect(
        clippy::disallowed_methods,
        reason = "the holder's thread does not run: no clock of a test matters, nor does anybody wait for a time"
    )]
    fn wait(round: u32) {
        match round {
            0..YIELDS => (0..1 << round).for_each(|_| spin_loop()),
            YIELDS..SLEEPS => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(100)),
        }
    }
}

/// One that the lanes know of.
#[cfg(any(ringfence_loom, ringfence_shuttle))]
mod short {
    pub(crate) type ShortGuard<'a, T> = super::MutexGuard<'a, T>;
    pub(crate) type ShortLock<T> = super::Lock<T>;
}

pub(crate) use short::{ShortGuard, ShortLock};

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::ShortLock;

    #[test]
    fn a_short_lock_excludes_more_threads_than_there_are_cores() {
        let lock = ShortLock::new((0_u32, false));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for turn in 0..1_000 {
                        let mut inside = lock.lock();
                        assert!(!std::mem::replace(&mut inside.1, true));
                        if turn % 100 == 0 {
                            // As if it were taken off its core.
                            std::thread::yield_now();
                        }
                        inside.0 += 1;
                        inside.1 = false;
                    }
                });
            }
        });
        assert_eq!(lock.lock().0, 16_000);
    }
}
