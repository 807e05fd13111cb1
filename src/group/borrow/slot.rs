//! Where a child leaves its outcome, and its handle finds it.
//!
//! | state   | holds                                          | left by                       | to       |
//! |---------|------------------------------------------------|-------------------------------|----------|
//! | running | who waits; how to ring at the child, once it waits | the child's end            | ended    |
//! | ended   | the outcome                                    | the handle takes it           | taken    |
//! | taken   | nothing                                        |                               |          |
//!
//! L1. Wakers, and outcomes with the values in them, are woken and dropped outside the lock. L2. A child leaves its bell
//! before it looks at the word; who cancels it changes the word before it rings the bell: the child looks, or is rung.

use std::task::{Context, Poll, Waker};

use crate::group::handle::Settled;
use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::state::Core;
use crate::sync::{Lock, PlainArc};

enum State<T> {
    Running {
        reader: Option<Waker>,
        bell: Option<Waker>,
    },
    Ended(Settled<T>),
    Taken,
}

/// The child's side.
pub(super) struct Slot<T>(PlainArc<Lock<State<T>>>);

/// The handle's side.
pub(crate) struct Reader<T> {
    slot: PlainArc<Lock<State<T>>>,
    /// Whether our waker may be there.
    waits: bool,
}

pub(super) fn slot<T>() -> (Slot<T>, Reader<T>) {
    let slot = PlainArc::new(Lock::new(State::Running {
        reader: None,
        bell: None,
    }));
    let reader = Reader {
        slot: slot.clone(),
        waits: false,
    };
    (Slot(slot), reader)
}

impl<T> Slot<T> {
    pub(super) fn has_reader(&self) -> bool {
        PlainArc::strong_count(&self.0) > 1
    }

    /// Has the handle ring here when it cancels the child (L2).
    pub(super) fn leave_bell(&self, bell: &Waker) {
        if !self.has_reader() {
            return;
        }
        let new = bell.clone();
        let old = match &mut *self.0.lock() {
            State::Running { bell, .. } => bell.replace(new),
            State::Ended(_) | State::Taken => Some(new),
        };
        drop(old);
    }

    /// Leaves the outcome for the handle, or drops it if there is none any more.
    pub(super) fn end(&self, settled: Settled<T>, core: &Core) {
        if !self.has_reader() {
            return drop(settled);
        }
        let old = std::mem::replace(&mut *self.0.lock(), State::Ended(settled));
        if let State::Running {
            reader: Some(reader),
            ..
        } = old
        {
            if let Err(panic) = catch(|| reader.wake()) {
                displace(core.observer(), None, DisplacedWhat::Panic(panic));
            }
        }
    }
}

impl<T> Reader<T> {
    /// Takes the outcome; the handle asks no more after that.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Settled<T>> {
        let waker = cx.waker();
        if let State::Running {
            reader: Some(known),
            ..
        } = &*self.slot.lock()
        {
            if known.will_wake(waker) {
                return Poll::Pending;
            }
        }
        let new = waker.clone();
        let mut state = self.slot.lock();
        if let State::Running { reader, .. } = &mut *state {
            let old = reader.replace(new);
            drop(state);
            drop(old);
            self.waits = true;
            return Poll::Pending;
        }
        let ended = std::mem::replace(&mut *state, State::Taken);
        drop(state);
        match ended {
            State::Ended(settled) => Poll::Ready(settled),
            State::Running { .. } | State::Taken => Poll::Ready(Settled::RuntimeGone),
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        !matches!(&*self.slot.lock(), State::Running { .. })
    }

    /// Names how the child ended.
    pub(crate) fn describe(&self) -> Option<&'static str> {
        match &*self.slot.lock() {
            State::Running { .. } => None,
            State::Ended(settled) => Some(settled.describe()),
            State::Taken => Some("taken"),
        }
    }

    /// How to have the child look at the word. The waker is one of ours, so cloning it runs no user code.
    pub(crate) fn bell(&self) -> Option<Waker> {
        match &*self.slot.lock() {
            State::Running { bell, .. } => bell.clone(),
            State::Ended(_) | State::Taken => None,
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let old = match &mut *self.slot.lock() {
            State::Running { reader, .. } => reader.take(),
            State::Ended(_) | State::Taken => None,
        };
        drop(old);
    }
}
