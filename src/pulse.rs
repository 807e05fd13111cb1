//! How long polls take, and how late a runtime is: measured only while somebody watches.
//!
//! P1. While nobody watches, a poll pays for one look at a flag. P2. Each thread keeps a list of the polls that it is in, innermost last;
//! it alone adds to it and takes off. P3. Nothing is told, and no group dropped, under a lock.

use std::panic::Location;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::observe::TaskInfo;

/// A poll that lasts, or has lasted, too long.
pub(crate) struct Late {
    pub(crate) task: TaskInfo,
    pub(crate) lasted: Duration,
    pub(crate) is_over: bool,
}

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
mod imp {
    use std::cell::OnceCell;
    use std::sync::{Arc, PoisonError, Weak};

    use super::{Duration, Instant, Late, Location};
    use crate::panic::catch;
    use crate::state::Core;
    use crate::sync::{MutexGuard, Ordering, PlainMutex, PlainNumber, unique};

    type Tell = Arc<dyn Fn(Late) + Send + Sync>;

    /// The shortest bound of all who watch, in nanoseconds: that of nobody is for ever.
    static SHORTEST: PlainNumber = PlainNumber::new(NOBODY);
    const NOBODY: u64 = u64::MAX;
    static WATCHERS: PlainMutex<Vec<Watcher>> = PlainMutex::new(Vec::new());
    static THREADS: PlainMutex<Vec<Weak<Polls>>> = PlainMutex::new(Vec::new());

    std::thread_local! {
        static POLLS: OnceCell<Arc<Polls>> = const { OnceCell::new() };
    }

    type Polls = PlainMutex<Vec<Poll>>;

    /// A poll that somebody is in.
    #[derive(Clone)]
    struct Poll {
        core: Arc<Core>,
        serial: u64,
        /// Asked for in time: a child that has ended has none.
        name: Option<Arc<str>>,
        location: &'static Location<'static>,
        since: Instant,
        /// The watchers that know of it.
        told: Vec<u64>,
    }

    #[derive(Clone)]
    struct Watcher {
        number: u64,
        bound: Duration,
        tell: Tell,
    }

    fn lock<T>(mutex: &PlainMutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl Watcher {
        fn tell(&self, poll: &Poll, is_over: bool) {
            let late = Late {
                task: poll
                    .core
                    .info(poll.serial, poll.name.clone(), poll.location),
                lasted: poll.since.elapsed(),
                is_over,
            };
            drop(catch(|| (self.tell)(late)));
        }
    }

    fn nanos(time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).map_or(NOBODY - 1, |nanos| nanos.min(NOBODY - 1))
    }

    fn note_shortest(watchers: &[Watcher]) {
        let shortest = watchers.iter().map(|watcher| nanos(watcher.bound)).min();
        SHORTEST.store(shortest.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// Times all polls until it is dropped.
    pub(crate) struct PollWatch(Watcher);

    pub(crate) fn time_polls(
        bound: Duration,
        tell: impl Fn(Late) + Send + Sync + 'static,
    ) -> PollWatch {
        let watcher = Watcher {
            number: unique(),
            bound,
            tell: Arc::new(tell),
        };
        let mut watchers = lock(&WATCHERS);
        watchers.push(watcher.clone());
        note_shortest(&watchers);
        PollWatch(watcher)
    }

    impl PollWatch {
        /// Tells of polls that last too long, each once: the innermost of each thread.
        pub(crate) fn look(&self) {
            let Self(watcher) = self;
            let threads: Vec<_> = {
                let mut threads = lock(&THREADS);
                threads.retain(|thread| thread.strong_count() > 0);
                threads.iter().filter_map(Weak::upgrade).collect()
            };
            for thread in threads {
                let late = lock(&thread).last_mut().and_then(|poll| {
                    let is_news = !poll.told.contains(&watcher.number);
                    let is_late = is_news && poll.since.elapsed() >= watcher.bound;
                    is_late.then(|| {
                        poll.told.push(watcher.number);
                        poll.clone()
                    })
                });
                if let Some(poll) = late {
                    watcher.tell(&poll, false);
                }
            }
        }
    }

    impl Drop for PollWatch {
        fn drop(&mut self) {
            let mut watchers = lock(&WATCHERS);
            let place = watchers.iter().position(|it| it.number == self.0.number);
            let gone = place.map(|place| watchers.remove(place));
            note_shortest(&watchers);
            drop(watchers);
            drop(gone);
        }
    }

    /// A poll that is timed, until this is dropped.
    pub(crate) struct Timed(Arc<Polls>);

    #[inline]
    pub(crate) fn is_on() -> bool {
        SHORTEST.load(Ordering::Relaxed) != NOBODY
    }

    /// Begins a poll.
    pub(crate) fn begin(
        core: &Arc<Core>,
        serial: u64,
        location: &'static Location<'static>,
    ) -> Option<Timed> {
        let polls = POLLS.try_with(|polls| {
            let make = || {
                let polls = Arc::new(Polls::default());
                lock(&THREADS).push(Arc::downgrade(&polls));
                polls
            };
            polls.get_or_init(make).clone()
        });
        let polls = polls.ok()?;
        let poll = Poll {
            core: core.clone(),
            serial,
            name: core.name_of(serial),
            location,
            since: Instant::now(),
            told: Vec::new(),
        };
        lock(&polls).push(poll);
        Some(Timed(polls))
    }

    impl Drop for Timed {
        #[cold]
        fn drop(&mut self) {
            let poll = lock(&self.0).pop();
            let Some(poll) = poll else { return };
            let lasted = poll.since.elapsed();
            if nanos(lasted) < SHORTEST.load(Ordering::Relaxed) {
                return;
            }
            let watchers = lock(&WATCHERS).clone();
            for watcher in watchers.iter().filter(|watcher| watcher.bound <= lasted) {
                watcher.tell(&poll, true);
            }
        }
    }
}

/// Nobody watches in these lanes.
#[cfg(any(ringfence_loom, ringfence_shuttle))]
mod imp {
    use super::{Duration, Late, Location};
    use crate::state::Core;
    use crate::sync::Arc;

    pub(crate) struct PollWatch;
    pub(crate) struct Timed;

    pub(crate) fn time_polls(_: Duration, _: impl Fn(Late) + Send + Sync + 'static) -> PollWatch {
        PollWatch
    }

    impl PollWatch {
        pub(crate) fn look(&self) {}
    }

    pub(crate) fn is_on() -> bool {
        false
    }

    pub(crate) fn begin(_: &Arc<Core>, _: u64, _: &'static Location<'static>) -> Option<Timed> {
        None
    }
}

pub(crate) use imp::{begin, is_on, time_polls};

/// Tells, until it is dropped, how late the runtime is.
#[derive(Debug)]
pub(crate) struct LagWatch(AbortHandle);

impl Drop for LagWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells whenever the caller's runtime is later than `bound`.
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub(crate) fn watch_lag(bound: Duration, tell: impl Fn(Duration) + Send + 'static) -> LagWatch {
    let every = (bound / 2).max(Duration::from_millis(1));
    let watch = async move {
        loop {
            // Of the wall, since that is what threads are busy in.
            let asleep = Instant::now();
            tokio::time::sleep(every).await;
            let late = asleep.elapsed().saturating_sub(every);
            if late > bound {
                tell(late);
            }
        }
    };
    LagWatch(crate::runtime::spawn(None, watch).abort_handle())
}
