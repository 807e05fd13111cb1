//! What happens in silence, what time brings, and what must have happened when all is quiet.

use ringfence::{CancelReason, TaskId};

use super::{Checked, Doing, Fate, Kind, Mark, Model, ScopeState, Target, ensure};
use crate::world::Id;

impl Model {
    pub(super) fn next_timer(&self) -> Option<u64> {
        let running = self.scopes.values().filter(|scope| !scope.over);
        running
            .flat_map(|scope| {
                let deadline = scope.deadline.filter(|_| !scope.cancelled);
                let grace = scope.grace_end.filter(|_| !scope.forced);
                let targets = scope
                    .targets
                    .iter()
                    .map(|(at, _)| *at)
                    .filter(|_| !scope.forced);
                let timeout = scope.timeout_at.filter(|_| !scope.cut_requested);
                targets.chain(deadline).chain(grace).chain(timeout)
            })
            .min()
    }

    pub(super) fn fire(&mut self, at: u64) -> Checked {
        self.now = at;
        for id in self.scopes.keys().copied().collect::<Vec<_>>() {
            let scope = self.scope(id)?;
            if scope.over {
                continue;
            }
            if scope.timeout_at == Some(at) {
                scope.cut_requested = true;
            }
            if scope.grace_end == Some(at) {
                scope.grace_over |= !scope.forced;
                scope.forced = true;
            }
            let (due, later): (Vec<_>, Vec<_>) =
                scope.targets.iter().partition(|(when, _)| *when == at);
            scope.targets = later;
            if scope.deadline == Some(at) && !scope.cancelled {
                self.cancel(id, CancelReason::Deadline, false)?;
            }
            for (_, target) in due {
                match target {
                    Target::Below(cut) => {
                        let scope = self.scope(id)?;
                        scope.force_cut = scope.force_cut.max(cut);
                    }
                    Target::Child(child) => self.actor(child)?.mark = Mark::Forced,
                }
            }
        }
        Ok(())
    }

    /// Lets time pass: whatever a timer asks for has to happen at its very millisecond.
    pub(crate) fn advance(&mut self, to: u64) -> Checked {
        while let Some(at) = self.next_timer().filter(|at| *at <= to) {
            if at > self.now {
                self.check_quiet()?;
            }
            self.fire(at)?;
        }
        if to > self.now {
            self.check_quiet()?;
            self.now = to;
        }
        Ok(())
    }

    /// Checks that nothing has still to happen.
    pub(crate) fn check_quiet(&mut self) -> Checked {
        let now = self.now;
        for (id, actor) in &self.actors {
            let is_waited_for = |by: Id| self.actors[&by].doing == Doing::Waiting(*id);
            ensure!(
                actor.fate != Fate::Unborn || actor.spawned_by.is_some_and(is_waited_for),
                "at {now}: {id} was neither spawned nor refused"
            );
            if actor.kind == Kind::Child && actor.fate == Fate::Alive && actor.dropped {
                ensure!(
                    actor.out,
                    "at {now}: child {id} was dropped, its end was not observed; it waits for {:?}",
                    actor.adopted
                );
            }
            ensure!(
                !actor.out || actor.waiters == 0,
                "at {now}: nobody was told the outcome of {id}"
            );
            if actor.dropped || actor.fate == Fate::Unborn {
                continue;
            }
            ensure!(
                actor.fate != Fate::Refused,
                "at {now}: the refused {id} is alive"
            );
            ensure!(
                actor.command.is_none(),
                "at {now}: {id} did not take its command"
            );
            ensure!(
                actor.ending.is_none(),
                "at {now}: {id} has ended and is not dropped"
            );
            ensure!(
                !self.is_droppable(*id),
                "at {now}: {id} should have been dropped"
            );
            if let Doing::Waiting(child) = actor.doing {
                self.check_wait(*id, child)
                    .map_err(|error| format!("at {now}: {error}"))?;
            }
            if let Doing::Starting(child) = actor.doing {
                let child = &self.actors[&child];
                ensure!(
                    child.ready.is_none() && !child.dropped,
                    "at {now}: {id} was not told of what it starts"
                );
            }
            if let Doing::Awaiting(child) = actor.doing {
                ensure!(
                    !self.actors[&child].out,
                    "at {now}: {id} was not given the value of {child}"
                );
            }
            if actor.listens.is_some() && actor.doing == Doing::Idle {
                ensure!(
                    self.token(*id).is_none(),
                    "at {now}: {id} did not see its token cancelled"
                );
            }
        }
        ensure!(
            self.expected_force.is_none() && self.named_body.is_none(),
            "at {now}: stragglers {:?} and {:?} are not settled",
            self.expected_force,
            self.named_body
        );
        for (id, scope) in &self.scopes {
            ensure!(
                scope.over || scope.live() > 0,
                "at {now}: scope {id} should have returned"
            );
            ensure!(
                scope.over || !scope.cut_requested,
                "at {now}: scope {id} should have been cut"
            );
            ensure!(
                !scope.orphaned || scope.live() == 0,
                "at {now}: the orphaned scope {id} should be empty"
            );
        }
        let sorted = |list: &mut Vec<(Option<TaskId>, String)>| {
            list.sort();
            std::mem::take(list)
        };
        let (expected, observed) = (
            sorted(&mut self.displaced),
            sorted(&mut self.observed_displaced),
        );
        ensure!(
            expected == observed,
            "at {now}: displaced were {observed:?}, expected {expected:?}"
        );
        Ok(())
    }

    /// What the spawner of a scope has to show.
    pub(crate) fn reading(&self, id: Id) -> String {
        let scope = &self.scopes[&id];
        format!(
            "Spawner {{ name: {:?}, state: Reading {{ cancelled: {}, forced: {}, orphaned: {}, normal: {}, background: {} }} }}",
            self.path(id),
            scope.cancelled,
            scope.forced,
            scope.orphaned,
            scope.normal,
            scope.background
        )
    }

    /// The names on the way to a scope: those of the named children in which it, and all around it, were opened.
    fn path(&self, scope: Id) -> Option<String> {
        let opener = &self.actors[&self.scopes[&scope].opener];
        let outer = opener.group.and_then(|group| self.path(group));
        match (outer, opener.name) {
            (Some(outer), Some(name)) => Some(format!("{outer}/{name}")),
            (outer, name) => outer.or(name.map(str::to_owned)),
        }
    }

    /// The child or stranger in whose task an actor lives.
    pub(super) fn task_with(&self, actor: Id) -> Id {
        let state = self.actors.get(&actor);
        let starts = state.filter(|state| state.starting.is_some());
        match (self.scopes.get(&actor), starts.and_then(|it| it.group)) {
            (Some(scope), _) => self.task_with(scope.opener),
            (None, Some(body)) => self.task_with(body),
            (None, None) => actor,
        }
    }

    pub(crate) fn is_open(&self, scope: Id) -> bool {
        self.scopes.get(&scope).is_some_and(ScopeState::is_open)
    }

    pub(crate) fn depth(&self, actor: Id) -> usize {
        let scope = self.actors[&actor]
            .group
            .and_then(|group| self.scopes.get(&group));
        scope.map_or(0, |scope| 1 + self.depth(scope.opener))
    }

    pub(crate) fn cut(&mut self, scope: Id) {
        if let Some(scope) = self.scopes.get_mut(&scope) {
            scope.cut_requested = !scope.over;
        }
    }

    pub(crate) fn abort(&mut self, stranger: Id) {
        if let Some(stranger) = self.actors.get_mut(&stranger) {
            stranger.aborted = true;
        }
    }

    pub(crate) fn await_handle(&mut self, child: Id) -> Checked {
        self.actor(child)?.waiters += 1;
        Ok(())
    }
}
