//! What a task inherits: the group it is in. Swapped into a thread-local around each poll of a member.
//!
//! C1. The context is moved, not cloned: no reference count is touched. C2. The thread-local is never borrowed while user
//! code runs. C3. A destructor of a member's future sees the member's context, whoever drops it.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::Context as TaskContext;
use std::time::Duration;

use tokio::time::Instant;

use crate::detail::{self, WaitsFor};
use crate::root::RootState;
use crate::state::Core;
use crate::state::owner::{Owner, Seat};
use crate::sync::{Arc, PlainArc, thread_local};
use crate::time::Deadline;

/// Who is running: a member of a group.
pub(crate) struct Context {
    pub(crate) core: Arc<Core>,
    /// 0 for the body.
    pub(crate) serial: u64,
    /// Made when a token is first asked for here, or the first scope is dropped here with children alive.
    pub(crate) seat: Option<Arc<Seat>>,
}

impl Context {
    fn seat(&mut self) -> &Arc<Seat> {
        self.seat.get_or_insert_with(|| {
            let seat = Arc::new(Seat::new());
            if self.serial > 0 {
                self.core.registry().seat(self.serial, seat.clone());
            }
            seat
        })
    }

    /// Puts another member of the same group in its place, and returns the one before.
    fn exchange(&mut self, serial: u64, seat: Option<Arc<Seat>>) -> (u64, Option<Arc<Seat>>) {
        (
            std::mem::replace(&mut self.serial, serial),
            std::mem::replace(&mut self.seat, seat),
        )
    }

    /// Notes what it waits for. Returns that.
    #[cold]
    pub(crate) fn note(&self) -> Option<WaitsFor> {
        let waits_for = detail::noted(self.core.task_id(self.serial));
        self.core.registry().note(self.serial, waits_for);
        waits_for
    }

    /// Asks whether the task ends itself, as a cancelled one.
    #[inline]
    pub(crate) fn has_quit(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.has_quit())
    }

    /// Asks whether a shield of the task has lasted longer than it may, whoever finds that out.
    pub(crate) fn is_overrun(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| {
            let is_past = || {
                let now = Instant::now();
                let since = self.core.forced_since(now);
                since.is_some_and(|since| seat.is_past(since, now))
            };
            seat.is_overrun() || (seat.is_shielded() && is_past())
        })
    }

    /// Asks whether the task may go on although it is forced; wakes it when it may not any more.
    pub(crate) fn may_go_on(&self, cx: &mut TaskContext<'_>) -> bool {
        let seat = self.seat.as_ref().filter(|seat| seat.is_shielded());
        seat.is_some_and(|seat| {
            let now = Instant::now();
            let since = self.core.forced_since(now).unwrap_or(now);
            seat.holds(seat.forced_since(since), cx)
        })
    }
}

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
thread_local! {
    static CURRENT: Cell<ManuallyDrop<Option<Context>>> = const { Cell::new(ManuallyDrop::new(None)) };
}
#[cfg(any(ringfence_loom, ringfence_shuttle))]
thread_local! {
    static CURRENT: Cell<ManuallyDrop<Option<Context>>> = Cell::new(ManuallyDrop::new(None));
}

#[inline]
fn swap(slot: &mut Option<Context>) {
    // Nothing is left inside when a thread ends, and what needs no destructor is never gone.
    CURRENT.with(|current| {
        let outer = current.replace(ManuallyDrop::new(slot.take()));
        *slot = ManuallyDrop::into_inner(outer);
    });
}

/// Puts a context in force, and takes it back when dropped.
pub(crate) struct Enter<'a>(&'a mut Option<Context>);

impl<'a> Enter<'a> {
    #[inline]
    pub(crate) fn new(slot: &'a mut Option<Context>) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Enter<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.0);
    }
}

/// Shields the task in which another member is polled as long as that one is: the body of a scope inside it, or a child that is
/// being started there.
#[derive(Default)]
pub(crate) struct Relay(Option<(Arc<Seat>, Duration)>);

impl Relay {
    /// Follows the shields of `inner`, which was just polled here.
    #[inline]
    pub(crate) fn follow(&mut self, inner: Option<&Context>) {
        let seat = inner.and_then(|inner| inner.seat.as_ref());
        if seat.is_some() || self.0.is_some() {
            self.shift(seat);
        }
    }

    fn shift(&mut self, inner: Option<&Arc<Seat>>) {
        let up = inner.filter(|seat| seat.is_shielded());
        self.hold(up.map(|seat| seat.bound()), || {
            inner.is_some_and(|seat| seat.is_overrun())
        });
    }

    /// Shields the task for so long, or does so no more: `is_overrun` says whether that is because it lasted too long.
    pub(crate) fn hold(&mut self, bound: Option<Duration>, is_overrun: impl FnOnce() -> bool) {
        match (self.0.take(), bound) {
            (None, Some(bound)) => {
                self.0 = with(|context| (context.seat().clone(), bound));
                self.0.iter().for_each(|(seat, bound)| seat.raise(*bound));
            }
            (Some((outer, old)), Some(bound)) => {
                if bound != old {
                    outer.raise(bound);
                    outer.lower(old, false);
                }
                self.0 = Some((outer, bound));
            }
            (Some((outer, old)), None) => outer.lower(old, is_overrun()),
            (None, None) => {}
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|(seat, bound)| seat.lower(*bound, false));
    }
}

/// Reads the context in force. It is out of its place meanwhile: `read` runs no user code (C2).
fn with<R>(read: impl FnOnce(&mut Context) -> R) -> Option<R> {
    CURRENT.with(|current| {
        let mut context = current.replace(ManuallyDrop::new(None));
        let found = context.as_mut().map(read);
        current.set(context);
        found
    })
}

/// Runs `call`, which does not throw, as the child `serial` of `core`, in the caller's turn. Returns also the child's seat.
pub(crate) fn as_child<R>(
    core: &Arc<Core>,
    serial: u64,
    call: impl FnOnce() -> R,
) -> (R, Option<Arc<Seat>>) {
    let outer = with(|context| {
        let is_same = Arc::ptr_eq(&context.core, core);
        is_same.then(|| context.exchange(serial, None))
    });
    let Some((outer, seat)) = outer.flatten() else {
        let mut context = Some(Context {
            core: core.clone(),
            serial,
            seat: None,
        });
        let result = {
            let _inside = Enter::new(&mut context);
            call()
        };
        return (result, context.and_then(|context| context.seat));
    };
    let result = call();
    let inner = with(|context| context.exchange(outer, seat));
    (result, inner.and_then(|(_, seat)| seat))
}

/// Returns the group that the caller runs in, and its serial there.
pub(crate) fn current() -> Option<(Arc<Core>, u64)> {
    with(|context| (context.core.clone(), context.serial))
}

/// Asks whether the caller runs in a group.
#[inline]
pub(crate) fn is_in_a_group() -> bool {
    with(|_| ()).is_some()
}

/// The same for a token of the caller's: that of a child has its seat, so that it still tells when the child is gone.
pub(crate) fn place() -> Option<(Arc<Core>, u64, Option<Arc<Seat>>)> {
    with(|context| {
        let seat = (context.serial > 0).then(|| context.seat().clone());
        (context.core.clone(), context.serial, seat)
    })
}

/// Returns the group that the caller runs in, its member and seat: also for a body.
pub(crate) fn seat() -> Option<(Arc<Core>, u64, Arc<Seat>)> {
    with(|context| {
        let seat = context.seat().clone();
        (context.core.clone(), context.serial, seat)
    })
}

/// Asks whether the caller is in a shielded section.
pub(crate) fn is_inside_shield() -> bool {
    with(|context| context.seat.as_ref().is_some_and(|seat| seat.is_inside())).unwrap_or(false)
}

/// Has the child that the caller is end, as a cancelled one, when its poll is over.
pub(crate) fn quit() {
    with(|context| context.seat().quit());
}

/// Returns which member the caller is, and whether in a shielded section.
#[inline]
pub(crate) fn here() -> Option<(crate::observe::TaskId, bool)> {
    with(|context| {
        let is_inside = context.seat.as_ref().is_some_and(|seat| seat.is_inside());
        (context.core.task_id(context.serial), is_inside)
    })
}

/// Takes a count on the child that the caller is.
pub(crate) fn keeper() -> Option<Owner> {
    with(|context| Owner::child(context.seat()))
}

/// Returns the seat of the caller if it has dropped scopes that are not gone.
pub(crate) fn adopting() -> Option<Arc<Seat>> {
    with(|context| {
        context
            .seat
            .as_ref()
            .filter(|seat| seat.has_adopted())
            .cloned()
    })
    .flatten()
}

/// Returns the id of the member that the caller is: also of a body, whose number is 0.
pub(crate) fn member_id() -> Option<crate::observe::TaskId> {
    with(|context| context.core.task_id(context.serial))
}

pub(crate) fn task_id() -> Option<crate::observe::TaskId> {
    with(|context| (context.serial > 0).then(|| context.core.task_id(context.serial))).flatten()
}

pub(crate) fn deadline() -> Deadline {
    with(|context| {
        let is_inside = context.seat.as_ref().is_some_and(|seat| seat.is_inside());
        let deadline = || context.core.deadline();
        if is_inside {
            Deadline::NEVER
        } else {
            deadline()
        }
    })
    .unwrap_or(Deadline::NEVER)
}

/// Finds who adopts a scope that is dropped here and now: see [`crate::state::owner`].
pub(crate) fn adopter(scope: &Arc<Core>, root: impl FnOnce() -> PlainArc<RootState>) -> Owner {
    with(|context| {
        if !scope.is_inside(&context.core) {
            None // A6
        } else if context.serial == 0 {
            Some(Owner::body(&context.core))
        } else {
            Some(Owner::child(context.seat()))
        }
    })
    .flatten()
    .unwrap_or_else(|| Owner::nearest(scope.parent(), root))
}
