//! How a group, or a part of it, is asked to end: the only room that sets flags for that.

use std::ops::Range;

use tokio::time::Instant;

use crate::observe::{CancelReason, TaskInfo};
use crate::state::registry::Mark;
use crate::state::word::Reading;
use crate::state::{Core, RawFailure, RawKind};
use crate::sync::Ordering;

/// How a group is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// By signal if there is a grace, else by force.
    Cancel,
    /// By force: nobody is there any more to keep the time of a grace.
    Drop,
    /// By force, as the grace is over.
    GraceOver,
}

/// Why a member was cancelled, in short: [`Core::reason_why`] has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Group,
    Children,
    Handle,
}

/// Something that is to be forced when the grace is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Child(u64),
    Below(u64),
}

impl Core {
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.cold.lock().rare.as_ref()?.reason.clone()
    }

    /// Asks the group to end, for `reason` if it is the first: by signal if there is a grace, else by force.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        self.end(Some(reason), None, Ask::Cancel);
    }

    /// Asks the group to end at once: nobody is there any more to keep the time of a grace.
    pub(crate) fn cancel_now(&self, reason: CancelReason) {
        self.end(Some(reason), None, Ask::Drop);
    }

    /// Forces what was only signalled before: the grace is over.
    pub(crate) fn force(&self) {
        self.end(None, None, Ask::GraceOver);
    }

    /// Asks a long-lived group to end: with a grace, which somebody keeps from now on, or at once.
    pub(crate) fn shut_down(&self, has_grace: bool) {
        self.has_grace.store(has_grace, Ordering::Relaxed);
        self.end(Some(CancelReason::Shutdown), None, Ask::Cancel);
    }

    /// Records a failure and asks the group to end because of it.
    pub(crate) fn fail(&self, failure: RawFailure) {
        let reason = match (&failure.kind, failure.task.as_ref().map(TaskInfo::id)) {
            (RawKind::Error(_), Some(id)) => CancelReason::Failed(id),
            (RawKind::Error(_), None) => CancelReason::BodyFailed,
            (RawKind::Panic(_), Some(id)) => CancelReason::Panicked(id),
            (RawKind::Panic(_), None) => CancelReason::BodyPanicked,
        };
        self.end(Some(reason), Some(failure), Ask::Cancel);
    }

    fn end(&self, reason: Option<CancelReason>, failure: Option<RawFailure>, ask: Ask) {
        let force = ask != Ask::Cancel || !self.has_grace();
        let (before, waiter, listeners) = {
            let mut cold = self.cold.lock();
            if ask == Ask::Cancel && failure.is_none() && self.word.read().live() == 0 {
                return; // S5
            }
            let rare = cold.rare();
            rare.failures.extend(failure);
            if rare.reason.is_none() {
                rare.reason = reason; // S4
            }
            rare.is_grace_over |= ask == Ask::GraceOver && !self.word.read().is_forced();
            let before = self.word.cancel(force); // S1
            if before.is_forced() || (before.is_cancelled() && !force) {
                return;
            }
            let listeners = std::mem::take(&mut rare.listeners);
            (before, cold.waiter.take(), listeners)
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_values().for_each(|waker| self.wake(waker));
        if force && !before.is_forced() {
            self.registry.wake_below(u64::MAX, |waker| self.wake(waker));
        }
    }

    /// Singles one child out to be ended: at once, or after the grace that the scope keeps time of.
    pub(crate) fn cancel_child(&self, serial: u64) {
        if self.is_signalled(serial, || self.registry.mark(serial) > Mark::None) {
            return; // S4
        }
        let force = !self.has_grace();
        let mark = if force { Mark::Forced } else { Mark::Signalled };
        self.word.call_attention(); // R2
        let waker = self.registry.single_out(serial, mark);
        waker.into_iter().for_each(|waker| self.wake(waker));
        self.signalled(
            (!force).then_some(Target::Child(serial)),
            serial..serial + 1,
        );
    }

    /// Singles all present children out, the body not.
    pub(crate) fn cancel_children(&self) {
        if self.word.read().is_cancelled() {
            return; // S4
        }
        let cut = self.next.load(Ordering::Relaxed);
        if self.has_grace() {
            self.signal_cut.fetch_max(cut, Ordering::AcqRel);
            self.word.call_attention();
            self.signalled(Some(Target::Below(cut)), 1..cut);
        } else {
            self.force_target(Target::Below(cut));
        }
    }

    /// Tells the scope of what it has to force later, and whoever listens for one of `members` that there is news.
    fn signalled(&self, target: Option<Target>, members: Range<u64>) {
        let (waiter, listeners) = {
            let mut cold = self.cold.lock();
            let waiter = target.and_then(|target| {
                cold.rare().signalled.push(target);
                cold.waiter.take()
            });
            let all = cold.rare.as_mut().map(|rare| &mut rare.listeners);
            let listeners = all.map_or_else(Vec::new, |all| {
                all.extract((members.start, 0)..(members.end, 0), |_| true)
            });
            (waiter, listeners)
        };
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
        listeners.into_iter().for_each(|waker| self.wake(waker));
    }

    pub(crate) fn take_signalled(&self) -> Vec<Target> {
        let mut cold = self.cold.lock();
        let rare = cold.rare.as_mut();
        rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.signalled))
    }

    /// Forces children that were singled out.
    pub(crate) fn force_target(&self, target: Target) {
        match target {
            Target::Child(serial) => {
                let waker = self.registry.force(serial);
                waker.into_iter().for_each(|waker| self.wake(waker)); // who listens was told of the signal
            }
            Target::Below(cut) => {
                self.force_cut.fetch_max(cut, Ordering::AcqRel);
                self.word.call_attention();
                self.registry.wake_below(cut, |waker| self.wake(waker));
                self.signalled(None, 1..cut);
            }
        }
    }

    /// Asks whether a child has to end where it is parked, given a reading of the word.
    pub(crate) fn is_forced(&self, word: Reading, serial: u64) -> bool {
        !word.is_calm() && self.is_forced_with(word, serial, || self.registry.mark(serial))
    }

    /// Notes that somebody goes on although all are forced. Returns since when, at the latest; nothing if they are not.
    pub(crate) fn forced_since(&self, now: Instant) -> Option<Instant> {
        let is_forced = self.word.read().is_forced();
        is_forced.then(|| *self.cold.lock().rare().forced_since.get_or_insert(now))
    }

    pub(super) fn is_forced_with(
        &self,
        word: Reading,
        serial: u64,
        mark: impl FnOnce() -> Mark,
    ) -> bool {
        word.is_forced()
            || serial < self.force_cut.load(Ordering::Acquire)
            || mark() == Mark::Forced
    }

    /// Asks whether a member was signalled: serial 0 is the body. `is_marked` says whether it was singled out by itself.
    pub(crate) fn is_signalled(&self, serial: u64, is_marked: impl FnOnce() -> bool) -> bool {
        let word = self.word.read();
        word.is_cancelled()
            || (!word.is_calm() && serial > 0 && (serial < self.cut() || is_marked()))
    }

    /// Children below were asked to end together.
    fn cut(&self) -> u64 {
        let signalled = self.signal_cut.load(Ordering::Acquire);
        signalled.max(self.force_cut.load(Ordering::Acquire))
    }

    /// Returns why a member was cancelled. Only meaningful for one that was.
    pub(crate) fn why(&self, serial: u64, is_marked: bool) -> Why {
        if is_marked {
            Why::Handle
        } else if serial > 0 && serial < self.cut() {
            Why::Children
        } else {
            Why::Group
        }
    }

    /// Returns the reason in full.
    pub(crate) fn reason_why(&self, why: Why) -> CancelReason {
        match why {
            Why::Handle => CancelReason::Handle,
            Why::Children => CancelReason::ChildrenCancelled,
            Why::Group => self
                .reason()
                .or_else(|| self.reason_around())
                .unwrap_or(CancelReason::RuntimeGone),
        }
    }

    /// Returns the innermost member around it that was asked to end.
    pub(crate) fn signalled_around(&self) -> Option<(&Self, u64)> {
        std::iter::successors(self.exposed_in(), |(core, _)| core.exposed_in()).find(
            |(core, serial)| {
                core.is_signalled(*serial, || core.registry.mark(*serial) > Mark::None)
            },
        )
    }

    /// Returns why that was asked to end.
    pub(crate) fn reason_around(&self) -> Option<CancelReason> {
        let (core, serial) = self.signalled_around()?;
        let why = core.why(serial, core.registry.mark(serial) > Mark::None);
        Some(core.reason_why(why))
    }
}
