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
#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
pub(crate) use std::sync::atomic::AtomicU8 as PlainByte;
use std::sync::atomic::AtomicU64 as PlainAtomic;
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

    /// Takes the lock where it is held for a few instructions at a time, and wanted often: looks a few times again before
    /// it lets the thread sleep, which costs more than the wait.
    #[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
    #[inline]
    pub(crate) fn lock_soon(&self) -> MutexGuard<'_, T> {
        use std::sync::TryLockError;
        match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_patiently(),
        }
    }

    #[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
    #[cold]
    fn lock_patiently(&self) -> MutexGuard<'_, T> {
        // Longer each time: whoever has the lock is left alone with its cache for a while, and gets much done.
        for round in 0..11_u32 {
            for _ in 0..1 << round {
                std::hint::spin_loop();
            }
            if let Ok(guard) = self.0.try_lock() {
                return guard;
            }
        }
        self.lock()
    }

    #[cfg(any(ringfence_loom, ringfence_shuttle))]
    pub(crate) fn lock_soon(&self) -> MutexGuard<'_, T> {
        self.lock()
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
