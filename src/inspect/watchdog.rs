//! A thread that looks whether tasks, runtimes and shutdowns get on.
//!
//! W1. Polls are timed only while a watchdog lives: each thread that polls tasks of ours then has a list of the polls that it is in,
//! which the watchdog reads. W2. A poll that is over before the watchdog came by, and lasted too long, is told of by the
//! thread itself. W3. Nothing is told under a lock, and what a handler throws is caught.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::inspect::{GroupState, GroupView, snapshot};
use crate::observe::TaskInfo;
use crate::panic::catch;
use crate::pulse::{self, Late};

/// Something that does not get on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Stall {
    /// A task has not come back from one poll for so long: it computes, or blocks its thread.
    SlowPoll {
        /// The task.
        task: TaskInfo,
        /// How long the poll lasted, or lasts already.
        lasted: Duration,
        /// Whether it is over. One that is told of while it lasts is told of again when it is over.
        is_over: bool,
    },
    /// A runtime was so late to wake a task of the watchdog's own: its threads are all busy.
    Lag {
        /// How late.
        late: Duration,
    },
    /// A group has been closing for so long, and has lost no child meanwhile.
    NoProgress {
        /// The group, with whoever holds it up.
        group: GroupView,
        /// For how long.
        lasted: Duration,
    },
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowPoll {
                task,
                lasted,
                is_over,
            } => {
                let verb = if *is_over { "was" } else { "has been" };
                write!(f, "{task} {verb} in one poll for {lasted:.1?}")
            }
            Self::Lag { late } => write!(f, "the runtime is {late:.1?} late"),
            Self::NoProgress { group, lasted } => {
                write!(f, "no progress for {lasted:.1?}: {group}")?;
                group
                    .tasks
                    .iter()
                    .try_for_each(|task| write!(f, "; {task}"))
            }
        }
    }
}

/// Watches whether tasks, a runtime and shutdowns get on: see [`Watchdog::start`].
///
/// *Comparison.* asyncio's debug mode names callbacks that took longer than 100 ms, when they are over; this names a task that blocks its
/// thread also while it does, and for ever.
#[derive(Clone, Copy, Debug)]
#[must_use = "it watches once it is started"]
pub struct Watchdog {
    slow_poll: Duration,
    lag: Option<Duration>,
    no_progress: Option<Duration>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

impl Watchdog {
    /// Watches for polls longer than 100 ms, and for nothing else.
    pub const fn new() -> Self {
        Self {
            slow_poll: Duration::from_millis(100),
            lag: None,
            no_progress: None,
        }
    }

    /// Sets how long one poll of a task may last.
    pub const fn slow_poll(mut self, bound: Duration) -> Self {
        self.slow_poll = bound;
        self
    }

    /// Watches how late the runtime that it is started in wakes its tasks, by a task that sleeps; each time it is later than `bound`.
    pub const fn lag(mut self, bound: Duration) -> Self {
        self.lag = Some(bound);
        self
    }

    /// Watches for groups that are closing, and have lost no child for so long.
    pub const fn no_progress(mut self, bound: Duration) -> Self {
        self.no_progress = Some(bound);
        self
    }

    /// Starts a thread that watches, and tells `handler` of each stall, until the returned guard is dropped.
    ///
    /// Time is that of the wall, also where the runtime's is paused. While it watches, each poll of a task pays for two looks at the
    /// clock and a lock of its thread's own.
    ///
    /// # Panics
    ///
    /// If the system gives no thread. When lag is watched, outside a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
    /// use std::time::Duration;
    /// use ringfence::{inspect::Watchdog, scope};
    ///
    /// let (tell, told) = std::sync::mpsc::channel();
    /// let watchdog = Watchdog::new()
    ///     .slow_poll(Duration::from_millis(20))
    ///     .start(move |stall| drop(tell.send(stall.to_string())));
    /// scope(async |group| -> std::io::Result<()> {
    ///     group.named("greedy").spawn(async { std::thread::sleep(Duration::from_millis(100)) });
    ///     Ok(())
    /// })
    /// .await?;
    /// drop(watchdog);
    /// assert!(told.recv().unwrap().starts_with("task `greedy` spawned at "));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn start(self, handler: impl Fn(&Stall) + Send + Sync + 'static) -> Watching {
        let tell: Tell = Arc::new(move |stall| drop(catch(|| handler(stall))));
        let lag = self.lag.map(|bound| {
            let tell = tell.clone();
            pulse::watch_lag(bound, move |late| tell(&Stall::Lag { late }))
        });
        let (stop, stopped) = channel::<()>();
        let told = tell.clone();
        let timed = pulse::time_polls(self.slow_poll, move |late| told(&Stall::from(late)));
        let every = self.every();
        let thread = thread::Builder::new().name("ringfence-watchdog".to_owned());
        let thread = thread.spawn(move || {
            let mut closing = Closing::default();
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                timed.look();
                if let Some(bound) = self.no_progress {
                    closing.look(bound, &tell);
                }
            }
        });
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => panic!("ringfence: no thread for a watchdog: {error}"),
        };
        Watching {
            stop: Some(stop),
            thread: Some(thread),
            lag,
        }
    }

    /// A quarter of the shortest bound, so that a stall is told of at one and a quarter of its bound.
    fn every(&self) -> Duration {
        let bounds = [Some(self.slow_poll), self.no_progress];
        let shortest = bounds.into_iter().flatten().min().unwrap_or_default();
        (shortest / 4).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }
}

type Tell = Arc<dyn Fn(&Stall) + Send + Sync>;

impl From<Late> for Stall {
    fn from(late: Late) -> Self {
        let Late {
            task,
            lasted,
            is_over,
        } = late;
        Self::SlowPoll {
            task,
            lasted,
            is_over,
        }
    }
}

/// The groups that are closing: how many children each had when that number last fell, when that was, and whether that was told.
#[derive(Default)]
struct Closing(HashMap<u64, (u64, Instant, bool)>);

impl Closing {
    fn look(&mut self, bound: Duration, tell: &Tell) {
        let now = Instant::now();
        let mut known = HashMap::new();
        let seen = snapshot();
        let closing = |group: &&GroupView| group.state == GroupState::Closing;
        for group in seen.groups().iter().filter(closing) {
            let fresh = (group.children, now, false);
            let old = self.0.get(&group.id).copied();
            let mut entry = old.filter(|old| old.0 == group.children).unwrap_or(fresh);
            let lasted = now.saturating_duration_since(entry.1);
            if lasted >= bound && !entry.2 {
                entry.2 = true;
                let group = group.clone();
                tell(&Stall::NoProgress { group, lasted });
            }
            known.insert(group.id, entry);
        }
        self.0 = known;
    }
}

/// A [`Watchdog`] that watches, until this is dropped. Dropping it waits for a handler that is running.
#[derive(Debug)]
#[must_use = "the watchdog ends when this is dropped"]
pub struct Watching {
    stop: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    lag: Option<pulse::LagWatch>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.lag.take());
        drop(self.stop.take());
        let is_own =
            |thread: &thread::JoinHandle<()>| thread.thread().id() == thread::current().id();
        // A handler may drop its own watchdog.
        if let Some(thread) = self.thread.take().filter(|thread| !is_own(thread)) {
            drop(thread.join());
        }
    }
}
