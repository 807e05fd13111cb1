//! What is noted of tasks only while somebody wants to know: how often they were polled, and what they wait for.
//!
//! D1. While it is off, nothing is noted, and a poll pays for one look at a flag. D2. What a task waits for is what it said last
//! in a poll that left it pending: what another one said in its last poll is not taken for its own.

use std::cell::Cell;
use std::fmt;

use crate::observe::TaskId;
use crate::sync::{Ordering, PlainFlag};

static ON: PlainFlag = PlainFlag::new(false);

std::thread_local! {
    static WAITS: Cell<Option<(TaskId, WaitsFor)>> = const { Cell::new(None) };
}

/// What a task waits for, as far as the library knows: it does not hear of sockets, or of other crates' locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitsFor {
    /// A slot of a [limited](crate::TaskGroup::limit) group.
    Slot,
    /// Room in a [queue](crate::queue).
    Room,
    /// An item of a [queue](crate::queue).
    Item,
    /// The end of all work of a [queue](crate::queue): its `join`.
    Done,
    /// A permit of a [`Limiter`](crate::Limiter).
    Permit,
    /// The next moment that a [`RateLimiter`](crate::RateLimiter) allows.
    Rate,
    /// The delay before the next attempt of a [retry](crate::retry).
    Backoff,
    /// The next run of [periodic](crate::Periodic) work.
    Tick,
    /// The end of this child, through its handle.
    Child(TaskId),
    /// The end of the children of a scope whose body is over: the group has this number.
    Children(u64),
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot => f.write_str("a slot"),
            Self::Room => f.write_str("room in a queue"),
            Self::Item => f.write_str("an item of a queue"),
            Self::Done => f.write_str("the end of a queue's work"),
            Self::Permit => f.write_str("a permit"),
            Self::Rate => f.write_str("its rate"),
            Self::Backoff => f.write_str("its next attempt"),
            Self::Tick => f.write_str("its next run"),
            Self::Child(id) => write!(f, "task {id}"),
            Self::Children(group) => write!(f, "the children of group {group}"),
        }
    }
}

/// Has details noted from now on, for [`snapshot`](crate::snapshot), or not any more: the age of each task that is parked from
/// then on, how often it was polled since, and what it waits for.
///
/// That costs a lock and some stores in each poll of a task that stays pending.
pub fn collect_details(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Notes what the running task is going to wait for.
#[inline]
pub(crate) fn waits_for(what: WaitsFor) {
    if is_on() {
        said(what);
    }
}

/// Forgets what the running task said: whom it looked at for others it does not wait for.
pub(crate) fn forget() {
    if is_on() {
        WAITS.set(None);
    }
}

#[cold]
fn said(what: WaitsFor) {
    WAITS.set(crate::context::member_id().map(|who| (who, what)));
}

/// Returns what was last said in this poll of `who`, and forgets it (D2).
pub(crate) fn noted(who: TaskId) -> Option<WaitsFor> {
    WAITS.take().filter(|said| said.0 == who).map(|said| said.1)
}
