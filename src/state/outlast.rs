//! Who outlasts what: members that needed force although there was a grace, and work that goes on after its child was forced.

use std::sync::Weak;

use crate::observe::{CancelReason, Straggler, tell};
use crate::state::Core;
use crate::state::end::Why;
use crate::state::owner::GiveUp;
use crate::state::registry::Mark;
use crate::sync::Ordering;

impl Core {
    /// Finds the group whose report names a member that was forced: its own if it outlasted the grace; or one around it that
    /// forced it together with the scope it is in. None where it was forced early, for instance since its scope was dropped.
    pub(crate) fn outlasted(&self, serial: u64, mark: Mark) -> Option<&Self> {
        if self.has_grace() && (mark == Mark::Forced || self.is_grace_over(serial)) {
            return Some(self);
        }
        let dropped = |core: &Self| matches!(core.reason(), Some(CancelReason::ScopeDropped));
        if !dropped(self) {
            return None;
        }
        std::iter::successors(self.opened_in(), |(core, _)| {
            dropped(core).then(|| core.opened_in()).flatten()
        })
        .find(|(core, opener)| core.has_grace() && core.is_grace_over(*opener))
        .map(|(core, _)| core)
    }

    fn is_grace_over(&self, serial: u64) -> bool {
        let cold = self.cold.lock();
        cold.rare.as_ref().is_some_and(|rare| rare.is_grace_over)
            || (serial > 0 && serial < self.force_cut.load(Ordering::Acquire))
    }

    /// Notes that a member had to be forced although there was a grace.
    pub(crate) fn straggled(&self, straggler: Straggler) {
        crate::trace::forced(&straggler);
        tell(self.observer(), |o| o.forced(&straggler));
        self.cold.lock().rare().stragglers.push(straggler);
    }

    /// Notes work that goes on after its child was forced, with the nearest group that may give it up.
    pub(crate) fn watch(&self, serial: u64, call: Weak<dyn GiveUp>) {
        let mut around = std::iter::successors(Some(self), |core| core.parent.as_deref());
        let Some(group) = around.find(|core| core.gives_up) else {
            return;
        };
        let is_late = {
            let mut cold = group.cold.lock();
            let rare = cold.rare();
            if !rare.gives_up {
                rare.calls.insert((self.id, serial), call.clone());
            }
            rare.gives_up
        };
        if is_late {
            group.give_up_call(&call);
        }
    }

    pub(crate) fn unwatch(&self, serial: u64) {
        let around = std::iter::successors(Some(self), |core| core.parent.as_deref());
        if let Some(group) = around.into_iter().find(|core| core.gives_up) {
            let mut cold = group.cold.lock();
            let rare = cold.rare.as_mut();
            let old = rare.and_then(|rare| rare.calls.remove(&(self.id, serial)));
            drop(cold);
            drop(old);
        }
    }

    /// Stops waiting for work that goes on after its child was forced.
    pub(crate) fn give_up(&self) {
        let calls = {
            let mut cold = self.cold.lock();
            let rare = cold.rare();
            rare.gives_up = true;
            std::mem::take(&mut rare.calls)
        };
        calls
            .into_values()
            .for_each(|call| self.give_up_call(&call));
    }

    fn give_up_call(&self, call: &Weak<dyn GiveUp>) {
        let Some((info, owner)) = call.upgrade().and_then(|call| call.give_up()) else {
            return;
        };
        let abandoned = Straggler {
            task: Some(info),
            reason: self.reason_why(Why::Group),
            age: None,
        };
        crate::trace::abandoned(&abandoned);
        tell(self.observer(), |o| o.abandoned(&abandoned));
        self.cold.lock().rare().abandoned.push(abandoned);
        owner.settle();
    }
}
