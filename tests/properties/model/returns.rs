//! What comes out of scopes, and of long-lived groups.

use ringfence::{CancelReason, Cause, TaskId};

use super::{Checked, Doing, Ending, Failure, Model, ensure};
use crate::program::Shut;
use crate::world::{Id, Returned};

type Entry = (Option<TaskId>, String);

fn entries(failures: Vec<Failure>) -> Vec<Entry> {
    let entry = |failure: Failure| (failure.task, failure.what);
    failures.into_iter().map(entry).collect()
}

/// The reason, if the group was cancelled and did not fail.
fn cancelled(reason: Option<CancelReason>) -> Option<CancelReason> {
    reason.filter(|reason| {
        matches!(
            reason,
            CancelReason::Requested { .. }
                | CancelReason::AwaitedCancelled(_)
                | CancelReason::ScopeDropped
                | CancelReason::Shutdown
        )
    })
}

impl Model {
    pub(super) fn was_cut(&mut self, id: Id) -> Checked {
        self.check_scope_gone(id)?;
        let scope = self.scope(id)?;
        ensure!(
            scope.cut_requested,
            "scope {id} was cut, and nobody asked for it"
        );
        let (opener, after) = (scope.opener, scope.spec.after_cut);
        self.scope_dropped(id)?;
        let opener_state = self.actor(opener)?;
        opener_state.doing = Doing::Idle;
        opener_state.ending = after.map(|finish| Ending::new(opener, finish));
        Ok(())
    }

    pub(super) fn returned(&mut self, id: Id, returned: &Returned) -> Checked {
        self.check_scope_gone(id)?;
        let scope = self.scope(id)?;
        ensure!(
            scope.live() == 0,
            "scope {id} returned with {} members alive",
            scope.live()
        );
        // It stays: whoever spawns later is refused with it.
        let reason = scope.reason.clone();
        let mut failures = std::mem::take(&mut scope.failures);
        let stragglers = std::mem::take(&mut scope.stragglers);
        let (opener, value, passes_on) = (scope.opener, scope.value, scope.spec.passes_on);
        scope.over = true;
        if scope.is_owned {
            return self.reported(id, opener, reason, failures, stragglers, returned);
        }
        let panic = failures.iter().position(|failure| failure.is_panic);
        let panic = panic
            .filter(|_| !scope.spec.panics_as_errors)
            .map(|at| failures.remove(at));
        let ending;
        let expected = match (panic, value, reason) {
            (Some(panic), ..) => {
                self.displaced.extend(entries(failures));
                ending = Some(Ending::Panic(panic.what.clone()));
                Returned::Panic(panic.what)
            }
            (None, Some(value), None | Some(CancelReason::Finished)) if failures.is_empty() => {
                ending = None;
                Returned::Value(value)
            }
            (None, _, reason) => {
                ending = passes_on.then_some(Ending::Err);
                let is_late = reason == Some(CancelReason::Deadline);
                let cause = match cancelled(reason) {
                    Some(reason) => Cause::Cancelled(reason),
                    None if is_late => Cause::DeadlineExceeded,
                    None => Cause::Failed,
                };
                Returned::Error {
                    cause,
                    failures: entries(failures),
                    forced: stragglers,
                }
            }
        };
        ensure!(
            *returned == expected,
            "scope {id} returned {returned:?}, expected {expected:?}"
        );
        let opener_state = self.actor(opener)?;
        ensure!(
            opener_state.doing == Doing::InScope(id),
            "{opener} is not in scope {id}"
        );
        opener_state.doing = Doing::Idle;
        opener_state.ending = ending;
        Ok(())
    }

    // -- long-lived groups --------------------------------------------------------------------------------------------

    pub(super) fn own(&mut self, by: Id, id: Id) -> Checked {
        self.opened(
            by,
            id,
            crate::program::plain(),
            crate::world::Times::default(),
        );
        // Its place in the group is the owner's: there is no body to speak of.
        let body = self.actor(id)?;
        (body.dropped, body.drop_done) = (true, true);
        self.scope(id)?.is_owned = true;
        self.actor(by)?.owned.insert(id);
        Ok(())
    }

    pub(super) fn shut(&mut self, by: Id, id: Id, how: Shut, grace: Option<u64>) -> Checked {
        let scope = self.scope(id)?;
        scope.shut |= matches!(how, Shut::Close | Shut::Wait);
        if how == Shut::Close {
            return Ok(());
        }
        self.actor(by)?.owned.remove(&id);
        if how == Shut::Drop {
            return self.scope_dropped(id);
        }
        self.actor(by)?.doing = Doing::InScope(id);
        if matches!(how, Shut::Down(_)) {
            self.scope(id)?.grace = grace;
            self.cancel(id, CancelReason::Shutdown, false)?;
        }
        self.scope(id)?.body_is_in = false;
        self.leave(id, false)
    }

    fn reported(
        &mut self,
        id: Id,
        owner: Id,
        reason: Option<CancelReason>,
        failures: Vec<Failure>,
        forced: Vec<Option<TaskId>>,
        returned: &Returned,
    ) -> Checked {
        let expected = Returned::Report {
            cancelled: cancelled(reason),
            failures: entries(failures),
            forced,
        };
        ensure!(
            *returned == expected,
            "group {id} reported {returned:?}, expected {expected:?}"
        );
        let owner = self.actor(owner)?;
        ensure!(owner.doing == Doing::InScope(id), "group {id} was not shut");
        owner.doing = Doing::Idle;
        Ok(())
    }
}
