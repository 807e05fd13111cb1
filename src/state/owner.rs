//! Who waits for the children of a scope whose future was dropped: adoption.
//!
//! A scope that is dropped with children alive is adopted by the task that dropped it, if it was opened in that task's group
//! or deeper; else by the group in whose body or child it was opened, else by the root of its runtime. The adopter is counted up; whoever leaves the orphaned
//! group last counts it down.
//!
//! | adopter      | counts in      | waits by                                          |
//! |--------------|----------------|---------------------------------------------------|
//! | a child      | its [`Seat`]     | staying pending at its end until the count is 0   |
//! | a body       | the group's word | the group does not close                        |
//! | the root     | the root       | nobody, or whoever calls [`Root::wait`](crate::Root::wait) |
//!
//! A1. A count is taken before the orphan's last member can leave, since the dropped future still holds the body's own.
//! A2. A [`Seat`] accepts while its child lives: only code inside the child's poll or destructor can reach it. A3. If
//! the child's wrapper is itself destroyed early (its runtime was shut down), the child's own place in its group becomes
//! the heir, and is given up with the last count. A4. Settling is a loop, not a recursion: chains may be long. A5. A scope
//! that is dropped alone is taken out in one step, so that nobody counts on it in between. A6. Whoever adopts is in a
//! group around the scope that is adopted. So who waits for whom follows the tree of scopes, and nobody waits in a circle:
//! not the task that drops the scope it is in, nor two scopes dropped by children of one another.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Instant;

use crate::observe::{CancelReason, TaskInfo, wake};
use crate::panic::catch;
use crate::root::RootState;
use crate::runtime::Timer;
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::{Arc, AtomicBool, AtomicU64, Lock, OnceLock, Ordering, PlainArc};

/// What others have to know of a child, made when there is first something to know: whether it was cancelled alone, for
/// the tokens that it gave out; and how many scopes it has adopted, and what is to happen when there are none.
pub(crate) struct Seat {
    is_marked: AtomicBool,
    /// The child ends itself, as a cancelled one: it was asked to, and has nothing to do any more.
    has_quit: AtomicBool,
    /// Sections of the task that are shielded: used by the task alone, as is all down to `forced`.
    shields: AtomicU64,
    /// Whether the code that runs is in one of them.
    is_inside: AtomicBool,
    /// Whether one of them lasted longer than it may.
    is_overrun: AtomicBool,
    /// Whether that was all of them, so that the task is not shielded any more.
    is_over: AtomicBool,
    watch: Lock<Watch>,
    /// When one of them first found that the task was forced.
    forced: OnceLock<Instant>,
    adopted: Lock<Adopted>,
}

/// How long shields may last, and what wakes the task then.
#[derive(Default)]
struct Watch {
    bounds: Vec<Duration>,
    alarm: Option<Pin<Box<Timer>>>,
}

#[derive(Default)]
struct Adopted {
    scopes: usize,
    waker: Option<Waker>,
    heir: Option<(Arc<Core>, Kind)>,
    /// What goes with the last scope.
    kept: Option<Box<dyn Any + Send>>,
    outcome: Option<Box<dyn Any + Send>>,
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self {
            is_marked: AtomicBool::new(false),
            has_quit: AtomicBool::new(false),
            shields: AtomicU64::new(0),
            is_inside: AtomicBool::new(false),
            is_overrun: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            watch: Lock::new(Watch::default()),
            forced: OnceLock::new(),
            adopted: Lock::new(Adopted::default()),
        }
    }

    /// Notes that the child was cancelled alone: for ever, also when it is gone.
    pub(crate) fn mark(&self) {
        self.is_marked.store(true, Ordering::Release);
    }

    pub(crate) fn is_marked(&self) -> bool {
        // Pairs with the Release in `mark`: who sees the mark sees what its canceller did before.
        self.is_marked.load(Ordering::Acquire)
    }

    /// Has the child end when its poll is over. Set and read by its own task.
    pub(crate) fn quit(&self) {
        self.has_quit.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_quit(&self) -> bool {
        self.has_quit.load(Ordering::Relaxed)
    }

    /// Raises a shield that may last so long after the force.
    pub(crate) fn raise(&self, bound: Duration) {
        self.watch.lock().bounds.push(bound);
        self.shields.fetch_add(1, Ordering::Relaxed);
    }

    /// Lowers a shield, since its section has ended, or lasted too long.
    pub(crate) fn lower(&self, bound: Duration, is_overrun: bool) {
        let bounds = &mut self.watch.lock().bounds;
        if let Some(place) = bounds.iter().position(|own| *own == bound) {
            bounds.swap_remove(place);
        }
        let was_last = self.shields.fetch_sub(1, Ordering::Relaxed) == 1;
        // A shield of a scope inside may have lasted too long for that scope alone: this task was not forced, and goes on.
        if was_last && is_overrun && self.forced.get().is_some() {
            self.is_overrun.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_shielded(&self) -> bool {
        self.shields.load(Ordering::Relaxed) > 0 && !self.is_over.load(Ordering::Relaxed)
    }

    /// Returns how long the task may be shielded: by the longest of its bounds.
    pub(crate) fn bound(&self) -> Duration {
        let longest = self.watch.lock().bounds.iter().max().copied();
        longest.unwrap_or_default()
    }

    /// Asks whether the task, which is shielded and was forced at `since`, may go on. Wakes it when it may not any more.
    pub(crate) fn holds(&self, since: Instant, cx: &mut Context<'_>) -> bool {
        let Some(end) = since.checked_add(self.bound()) else {
            return true;
        };
        // Where the time cannot be kept, it is over.
        let is_over = end <= Instant::now() || catch(|| self.is_due(end, cx)).unwrap_or(true);
        if is_over {
            self.is_over.store(true, Ordering::Relaxed);
            self.is_overrun.store(true, Ordering::Relaxed);
        }
        !is_over
    }

    fn is_due(&self, end: Instant, cx: &mut Context<'_>) -> bool {
        let known = self.watch.lock().alarm.take();
        let mut alarm = known.unwrap_or_else(|| Box::pin(Timer::at(end)));
        if alarm.end() != end {
            alarm.as_mut().reset(end);
        }
        let is_due = Pin::new(&mut coop::unconstrained(alarm.as_mut()))
            .poll(cx)
            .is_ready();
        self.watch.lock().alarm = Some(alarm);
        is_due
    }

    /// Asks whether the bound of a task that was forced at `since` is over.
    pub(crate) fn is_past(&self, since: Instant, now: Instant) -> bool {
        let end = since.checked_add(self.bound());
        end.is_some_and(|end| end <= now)
    }

    pub(crate) fn is_overrun(&self) -> bool {
        self.is_overrun.load(Ordering::Relaxed)
    }

    /// Notes that the task was forced, now or earlier. Returns when that was first noted.
    pub(crate) fn forced_since(&self, now: Instant) -> Instant {
        *self.forced.get_or_init(|| now)
    }

    /// Says whether the code that runs from now on is in a shielded section. Returns what was before.
    pub(crate) fn step(&self, is_inside: bool) -> bool {
        self.is_inside.swap(is_inside, Ordering::Relaxed)
    }

    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside.load(Ordering::Relaxed)
    }

    fn adopt(&self) {
        self.adopted.lock().scopes += 1;
    }

    /// Counts one scope down. Wakes the child that waits, or returns the place to give up (A3).
    fn settle(&self) -> Option<(Arc<Core>, Kind)> {
        let (waker, heir, kept) = {
            let mut adopted = self.adopted.lock();
            adopted.scopes -= 1;
            if adopted.scopes > 0 {
                return None;
            }
            (
                adopted.waker.take(),
                adopted.heir.take(),
                adopted.kept.take(),
            )
        };
        drop(kept);
        wake(waker); // what it throws must not cost those further up their count (A4)
        heir
    }

    /// Asks whether there are adopted scopes.
    pub(crate) fn has_adopted(&self) -> bool {
        self.adopted.lock().scopes > 0
    }

    /// Keeps a thing of ours until they are gone. Gives it back if they are.
    pub(crate) fn outlast(&self, thing: Box<dyn Any + Send>) -> Option<Box<dyn Any + Send>> {
        let mut adopted = self.adopted.lock();
        if adopted.scopes == 0 {
            return Some(thing);
        }
        adopted.kept.replace(thing)
    }

    /// Whether all adopted scopes are gone; if not, `waker` is woken when they are.
    pub(crate) fn poll_empty(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut adopted = self.adopted.lock();
        if adopted.scopes == 0 {
            drop(adopted);
            return true;
        }
        let old = adopted.waker.replace(waker);
        drop(adopted);
        drop(old);
        false
    }

    /// Keeps the child's outcome while it waits.
    pub(crate) fn keep(&self, outcome: Box<dyn Any + Send>) {
        self.adopted.lock().outcome = Some(outcome);
    }

    pub(crate) fn take_kept(&self) -> Option<Box<dyn Any + Send>> {
        self.adopted.lock().outcome.take()
    }

    /// Names the place to give up when the last scope is gone. Returns it if that is now.
    pub(crate) fn inherit(&self, core: Arc<Core>, kind: Kind) -> Option<(Arc<Core>, Kind)> {
        let mut adopted = self.adopted.lock();
        if adopted.scopes == 0 {
            return Some((core, kind));
        }
        adopted.heir = Some((core, kind));
        None
    }
}

/// Work that goes on after its child was forced, and that a group can stop to wait for.
pub(crate) trait GiveUp: Send + Sync {
    /// Gives it up, unless it is over. Returns what it was, why it was forced, and the count to settle.
    fn give_up(&self) -> Option<(TaskInfo, CancelReason, Owner)>;

    /// The group that it belongs to.
    fn group(&self) -> &Arc<Core>;
}

/// A count held on whoever adopted a scope.
pub(crate) enum Owner {
    Child(Arc<Seat>),
    Group(Arc<Core>, Kind),
    Root(PlainArc<RootState>),
}

impl Owner {
    /// Takes a count on a child.
    pub(crate) fn child(seat: &Arc<Seat>) -> Self {
        seat.adopt();
        Self::Child(seat.clone())
    }

    /// Takes a count on a group whose body is running.
    pub(crate) fn body(core: &Arc<Core>) -> Self {
        core.word().adopt();
        Self::Group(core.clone(), Kind::Normal)
    }

    /// Takes a count on the nearest group of the chain that is not closed, or on the root.
    pub(crate) fn nearest(
        mut group: Option<&Arc<Core>>,
        root: impl FnOnce() -> PlainArc<RootState>,
    ) -> Self {
        while let Some(core) = group {
            if let Some(kind) = core.word().try_adopt() {
                return Self::Group(core.clone(), kind);
            }
            group = core.parent();
        }
        let root = root();
        root.adopt();
        Self::Root(root)
    }

    /// Gives the count up, and all that hang on it (A4).
    pub(crate) fn settle(self) {
        let mut next = Some(self);
        while let Some(owner) = next.take() {
            next = match owner {
                Self::Child(seat) => seat.settle().and_then(|(core, kind)| core.leave_step(kind)),
                Self::Group(core, kind) => core.leave_step(kind),
                Self::Root(root) => {
                    root.settle();
                    None
                }
            };
        }
    }
}
