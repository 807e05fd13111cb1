//! Who outlasts what: members that needed force although there was a grace, and work that goes on after its child was forced.

use std::sync::Weak;

use tokio::time::Instant;

use crate::observe::{CancelReason, Straggler, tell};
use crate::state::Core;
use crate::state::owner::GiveUp;
use crate::state::registry::Mark;
use crate::state::word::Reading;
use crate::sync::{Arc, Ordering};

impl Core {
    /// Asks whether a forced member needs no more than to be counted out: nobody hears of it, and what it has in the
    /// registry goes with all the rest (R4).
    pub(crate) fn ends_unseen(&self, word: Reading) -> bool {
        word.is_forced()
            && word.is_undivided()
            && !self.has_grace()
            && !self.has_outlasted()
            && self.observer().is_none()
    }

    fn has_outlasted(&self) -> bool {
        // Relaxed: set before the group is forced, and asked after.
        self.has_outlasted.load(Ordering::Relaxed)
    }

    /// Asks the group to end at once, as its scope is being dropped.
    pub(crate) fn cancel_dropped(&self, body_is_in: bool) {
        // Found before anybody is told to end: later, those around may have ended, too.
        let is_empty = self.children(body_is_in) == 0;
        let around = (!is_empty).then(|| self.grace_over_around()).flatten();
        if let Some(around) = around {
            self.cold.lock().rare().outlasted = Some(around);
            self.has_outlasted.store(true, Ordering::Relaxed);
        }
        self.cancel_now(CancelReason::ScopeDropped);
    }

    /// Names a member that is forced, in the report of its own group if it outlasted the grace there, or its shield; else, if
    /// its scope was dropped, in that of the group around whose grace was over then. Nobody who was forced early is named.
    pub(crate) fn forced(
        &self,
        serial: u64,
        mark: Mark,
        is_overrun: bool,
        straggler: impl FnOnce() -> Straggler,
    ) {
        if is_overrun || self.is_grace_over(serial, || mark) {
            self.straggled(straggler());
        } else if let Some(around) = self.outlasted() {
            // Its scope was dropped because of what `around` was asked.
            let straggler = straggler();
            let reason = around.reason().unwrap_or(straggler.reason);
            around.straggled(Straggler {
                reason,
                ..straggler
            });
        }
    }

    fn outlasted(&self) -> Option<Arc<Self>> {
        if !self.has_outlasted() {
            return None;
        }
        self.cold.lock().rare.as_ref()?.outlasted.clone()
    }

    /// Finds the innermost group around whose grace is over for what this one was opened in.
    fn grace_over_around(&self) -> Option<Arc<Self>> {
        let mut inner = self;
        while let Some(core) = inner.parent.as_ref() {
            if core.is_grace_over(inner.opener, || core.registry.mark(inner.opener)) {
                return Some(core.clone());
            }
            // Dropped itself, by one that may be gone by now: what that one outlasted is outlasted here, too.
            if let Some(around) = core.outlasted() {
                return Some(around);
            }
            inner = core;
        }
        None
    }

    /// Asks whether a member has to end because a grace is over: that of the group, or one that it had alone.
    fn is_grace_over(&self, serial: u64, mark: impl FnOnce() -> Mark) -> bool {
        let together = || {
            let cold = self.cold.lock();
            cold.rare.as_ref().is_some_and(|rare| rare.is_grace_over)
        };
        let alone = || serial < self.force_cut.load(Ordering::Acquire) || mark() == Mark::Forced;
        self.has_grace() && (together() || (serial > 0 && alone()))
    }

    /// Notes that a member had to be forced although there was a grace.
    fn straggled(&self, straggler: Straggler) {
        crate::trace::forced(&straggler);
        tell(self.observer(), |o| o.forced(&straggler));
        self.cold.lock().rare().stragglers.push(straggler);
    }

    /// Notes work that goes on after its child was forced, with every group around that may give it up: whoever is the first
    /// to do so does it for all.
    pub(crate) fn watch(&self, serial: u64, call: &Weak<dyn GiveUp>) {
        let since = Instant::now();
        for group in self.who_gives_up() {
            let waiter = {
                let mut cold = group.cold.lock();
                let call = (since, call.clone());
                cold.rare().calls.insert((self.id, serial), call);
                cold.waiter.take() // it keeps the time
            };
            if let Some(waiter) = waiter {
                group.wake(waiter);
            }
        }
    }

    pub(crate) fn unwatch(&self, serial: u64) {
        for group in self.who_gives_up() {
            let mut cold = group.cold.lock();
            if let Some(rare) = cold.rare.as_mut() {
                rare.calls.remove((self.id, serial));
            }
        }
    }

    fn who_gives_up(&self) -> impl Iterator<Item = &Self> {
        let around = std::iter::successors(Some(self), |core| core.parent.as_deref());
        around.filter(|core| core.gives_up)
    }

    /// Returns since when the oldest of such work goes on.
    pub(crate) fn goes_on_since(&self) -> Option<Instant> {
        let cold = self.cold.lock();
        let calls = &cold.rare.as_ref()?.calls;
        calls.values().map(|(since, _)| *since).min()
    }

    /// Stops waiting for what has gone on since `since` or longer.
    pub(crate) fn give_up(&self, since: Instant) {
        let calls: Vec<_> = {
            let mut cold = self.cold.lock();
            cold.rare().calls.extract(.., |(at, _)| *at <= since)
        };
        calls.iter().for_each(|(_, call)| self.give_up_call(call));
    }

    fn give_up_call(&self, call: &Weak<dyn GiveUp>) {
        let Some(call) = call.upgrade() else { return };
        let Some((info, reason, owner)) = call.give_up() else {
            return;
        };
        let abandoned = Straggler {
            group: info.group.clone(),
            task: Some(info),
            reason,
            age: None,
        };
        crate::trace::abandoned(&abandoned);
        tell(self.observer(), |o| o.abandoned(&abandoned));
        // Both reports name it: of who gave it up, and of the group that it belongs to.
        let own = call.group();
        if own.id != self.id {
            own.cold.lock().rare().abandoned.push(abandoned.clone());
        }
        self.cold.lock().rare().abandoned.push(abandoned);
        owner.settle();
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use std::sync::Weak;

    use super::GiveUp;
    use crate::observe::{CancelReason, TaskInfo};
    use crate::state::owner::Owner;
    use crate::state::{Core, Settings};
    use crate::sync::Arc;

    /// A call that is over.
    struct Over;

    impl GiveUp for Over {
        fn give_up(&self) -> Option<(TaskInfo, CancelReason, Owner)> {
            None
        }

        fn group(&self) -> &Arc<Core> {
            unreachable!("it was not given up")
        }
    }

    #[test]
    fn a_call_that_is_over_is_forgotten_by_every_group_around_that_has_a_bound() {
        let with = |gives_up, parent: Option<&Arc<Core>>| {
            let settings = Settings {
                gives_up,
                ..Settings::default()
            };
            Core::new(settings, parent.cloned())
        };
        let outer = with(true, None);
        let middle = with(false, Some(&outer));
        let inner = with(true, Some(&middle));
        let groups = [&outer, &middle, &inner];
        let since = || groups.map(|group| group.goes_on_since().is_some());
        let call: Weak<dyn GiveUp> = Weak::<Over>::new();
        inner.watch(1, &call);
        inner.watch(2, &call);
        assert_eq!(since(), [true, false, true]);
        inner.unwatch(1);
        assert_eq!(since(), [true, false, true], "there is another one");
        inner.unwatch(2);
        assert_eq!(since(), [false; 3], "nobody keeps time for it any more");
    }
}
