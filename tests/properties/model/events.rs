//! The events of the log: each is allowed where it stands, or is an error.

use ringfence::{CancelReason, Ended, Outcome, TaskId};

use super::{Actor, Checked, Destructor, Doing, Ending, Fate, Kind, Model, ScopeState, ensure};
use crate::program::ScopeSpec;
use crate::world::{Command, Event, Id, Times, destructor_of, error_of};

impl Model {
    pub(crate) fn accept(&mut self, at: u64, event: &Event) -> Checked {
        self.advance(at)?;
        if let Some((task, reason)) = self.expected_force.take() {
            let expected = Event::ObservedForce(task, reason);
            ensure!(*event == expected, "expected first {expected:?}");
            return Ok(());
        }
        // One that was never born is in the task of whoever spawns it, one that is being started in that of the body.
        let waits = match event {
            Event::Dropped(child) => self.actors.get(child).and_then(|child| {
                let is_born = child.fate == Fate::Alive;
                let by = child.spawned_by.filter(|_| !is_born);
                by.or_else(|| child.group.filter(|_| child.starting.is_some()))
            }),
            _ => None,
        };
        self.accept_now(event)?;
        match event {
            Event::Dropped(_) if waits.is_some() => {
                self.running = waits.map(|by| self.task_with(by));
            }
            Event::Ran(actor) => self.running = Some(self.task_with(*actor)),
            Event::FirstPoll(actor) | Event::Dropped(actor)
                if self.running != Some(self.task_with(*actor)) =>
            {
                self.running = None;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn accept_now(&mut self, event: &Event) -> Checked {
        match event {
            Event::Ran(actor) => self.ran(*actor),
            Event::Signalled(actor, reason) => {
                let expected = self.token(*actor);
                ensure!(
                    expected.is_some(),
                    "{actor} saw its token cancelled, and it is not"
                );
                ensure!(
                    expected == *reason,
                    "{actor} was told {reason:?}, expected {expected:?}"
                );
                // It may have been forced in the very poll that it is in, or its body in the same task is.
                if self.running != Some(self.task_with(*actor)) {
                    self.check_may_run(*actor)?;
                }
                let actor_state = self.actor(*actor)?;
                ensure!(
                    actor_state.doing == Doing::Idle,
                    "{actor} does not listen now"
                );
                let finish = actor_state
                    .listens
                    .ok_or(format!("{actor} does not listen"))?;
                actor_state.ending = Some(Ending::new(*actor, finish));
                Ok(())
            }
            Event::FirstPoll(actor) => {
                self.first_start(*actor)?;
                self.check_may_run(*actor)?;
                self.lend(*actor);
                let actor_state = self.actor(*actor)?;
                ensure!(
                    !actor_state.polled,
                    "{actor} was polled for the first time twice"
                );
                actor_state.polled = true;
                Ok(())
            }
            Event::Dropped(actor) => self.dropped(*actor),
            Event::DropDone(actor, panicked) => self.drop_done(*actor, *panicked),
            Event::DestructorSpawns(actor, child) => {
                let group = self
                    .actor(*actor)?
                    .group
                    .ok_or(format!("{actor} has no group"))?;
                self.add_child(
                    *child,
                    group,
                    Some(*actor),
                    &crate::world::actor::quiet(false),
                );
                Ok(())
            }
            Event::Spawned(child, task) => {
                self.slotted(*child)?;
                self.spawned(*child, *task)
            }
            Event::Full(child) => self.was_full(*child),
            Event::Circle(child) => self.was_circle(*child),
            Event::Started(child, value) => self.started(*child, *value),
            Event::NotStarted(child, why) => self.not_started(*child, why),
            Event::Refused(child, reason) => self.refused(*child, reason.as_ref()),
            Event::SpawnThrew(child, what) => {
                Err(format!("the call that spawned {child} threw `{what}`"))
            }
            Event::Returned(scope, returned) => self.returned(*scope, returned),
            Event::Cut(scope) => self.was_cut(*scope),
            Event::Value(body, child, value) => {
                let child_state = self.actor(*child)?;
                ensure!(
                    child_state.out,
                    "{body} has the value of {child}, which has not ended"
                );
                ensure!(
                    child_state.outcome == Some(Outcome::Completed(*value)) && value == child,
                    "{body} was given {value} for {child}, whose outcome is {:?}",
                    child_state.outcome
                );
                let body_state = self.actor(*body)?;
                ensure!(
                    body_state.doing == Doing::Awaiting(*child),
                    "{body} did not await {child}"
                );
                body_state.doing = Doing::Idle;
                Ok(())
            }
            Event::Outcome(child, outcome) => {
                let child_state = self.actor(*child)?;
                ensure!(
                    child_state.out,
                    "the outcome of {child} is known before it is gone"
                );
                ensure!(
                    child_state.outcome.as_ref() == Some(outcome),
                    "the outcome of {child} is {outcome:?}, expected {:?}",
                    child_state.outcome
                );
                child_state.waiters = child_state
                    .waiters
                    .checked_sub(1)
                    .ok_or(format!("two outcomes of {child}"))?;
                Ok(())
            }
            Event::ObservedSpawn(task) => {
                ensure!(
                    self.observed_spawn.is_none(),
                    "two spawns observed, one handle"
                );
                self.observed_spawn = Some(*task);
                Ok(())
            }
            Event::ObservedEnd(task, how) => self.ended(*task, how),
            Event::ObservedForce(task, reason) => self.forced(*task, reason),
            Event::ObservedDisplaced(task, what) => {
                self.observed_displaced.push((*task, what.clone()));
                Ok(())
            }
        }
    }

    pub(super) fn check_may_run(&mut self, id: Id) -> Checked {
        let actor = &self.actors[&id];
        ensure!(!actor.dropped, "{id} runs after it was dropped");
        ensure!(actor.fate == Fate::Alive, "{id} runs, and was not accepted");
        let forced = match actor.kind {
            Kind::Stranger => actor.aborted,
            Kind::Child => self.is_forced(actor),
            Kind::Body => self.scopes[&id].forced,
        };
        ensure!(!forced, "{id} runs although it was forced");
        Ok(())
    }

    pub(super) fn ran(&mut self, id: Id) -> Checked {
        self.check_may_run(id)?;
        let command = self
            .actor(id)?
            .command
            .take()
            .ok_or(format!("{id} had no command"))?;
        match command {
            Command::Finish(finish) => self.actor(id)?.ending = Some(Ending::new(id, finish)),
            Command::Open { scope, spec, times } => {
                self.actor(id)?.doing = Doing::InScope(scope);
                self.opened(id, scope, spec, times);
            }
            Command::Spawn { into, child, spec } => {
                self.add_child(child, into, Some(id), &spec);
                if spec.waits() {
                    self.wait_for_slot(id, child)?;
                }
            }
            Command::SpawnHere { child, spec } => {
                self.add_child(child, id, Some(id), &spec);
                self.actor(child)?.name = spec.name();
                if spec.handle == crate::program::Handle::Kept {
                    self.actor(id)?.handles.push(child);
                }
                if spec.waits() {
                    self.wait_for_slot(id, child)?;
                }
            }
            Command::Start { child, spec } => self.start(id, child, &spec)?,
            Command::Ready(is_ready) => {
                self.actor(id)?.ready.get_or_insert(is_ready);
            }
            Command::Own { scope } => self.own(id, scope)?,
            Command::Shut { scope, how, grace } => self.shut(id, scope, how, grace)?,
            Command::Await { child } => {
                let actor = self.actor(id)?;
                actor.doing = Doing::Awaiting(child);
                actor.handles.retain(|known| *known != child);
            }
            Command::CancelChildren => self.cancel_children(id)?,
            Command::Cancel { scope } => self.request(scope, Some(id))?,
        }
        Ok(())
    }

    pub(super) fn opened(&mut self, by: Id, id: Id, spec: ScopeSpec, times: Times) {
        let body = self.add_actor(id, Kind::Body, Some(id));
        body.destructor = spec.body_destructor;
        body.listens = spec.body_listens;
        let state = ScopeState {
            opener: by,
            grace: times.grace,
            deadline: times.deadline.map(|limit| self.now + limit),
            timeout_at: times.timeout.map(|limit| self.now + limit),
            cut_requested: false,
            cancelled: false,
            forced: false,
            reason: None,
            failures: Vec::new(),
            stragglers: Vec::new(),
            grace_over: false,
            grace_end: None,
            targets: Vec::new(),
            signal_cut: 0,
            force_cut: 0,
            next: 1,
            normal: 1,
            background: 0,
            body_is_in: true,
            value: None,
            orphaned: false,
            owner: None,
            outlasted: None,
            over: false,
            is_owned: false,
            shut: false,
            spec,
        };
        self.scopes.insert(id, state);
    }

    pub(super) fn spawned(&mut self, id: Id, task: TaskId) -> Checked {
        ensure!(
            self.observed_spawn.take() == Some(task),
            "the spawn of {id} was not observed"
        );
        let child = self.actor(id)?;
        ensure!(
            child.fate == Fate::Unborn && !child.dropped,
            "{id} cannot be spawned now"
        );
        let (group, background) = (child.group.unwrap_or_default(), child.background);
        let scope = self.scope(group)?;
        ensure!(
            scope.is_open(),
            "{id} was spawned into scope {group}, which is not open"
        );
        let serial = scope.next;
        scope.next += 1;
        if background {
            scope.background += 1;
        } else {
            scope.normal += 1;
        }
        let child = self.actor(id)?;
        child.fate = Fate::Alive;
        child.serial = serial;
        child.task = Some(task);
        ensure!(
            self.tasks.insert(task, id).is_none(),
            "two children are {task}"
        );
        Ok(())
    }

    pub(super) fn refused(&mut self, id: Id, reason: Option<&CancelReason>) -> Checked {
        let child = self.actor(id)?;
        ensure!(child.fate == Fate::Unborn, "{id} cannot be refused now");
        child.fate = Fate::Refused;
        child.out = true;
        let (group, is_handle) = (child.group.unwrap_or_default(), reason.is_none());
        if !is_handle {
            self.never_made(id)?;
        }
        if self.waited(id)? {
            return Ok(()); // seen when it was dropped
        }
        let scope = self.scope(group)?;
        ensure!(
            !scope.is_open(),
            "{id} was refused by scope {group}, which is open"
        );
        let expected = scope.reason.clone().unwrap_or(CancelReason::Closed);
        ensure!(
            reason.is_none_or(|reason| *reason == expected),
            "{id} was refused because of {reason:?}, expected {expected:?}"
        );
        self.actor(id)?
            .outcome
            .get_or_insert(Outcome::Cancelled(expected));
        Ok(())
    }

    pub(super) fn dropped(&mut self, id: Id) -> Checked {
        let actor = self.actor(id)?.clone();
        ensure!(!actor.dropped, "{id} was dropped twice");
        let own_end = actor.ending.is_some();
        match (actor.kind, actor.fate) {
            (_, Fate::Refused) => {}
            (_, Fate::Unborn) if self.is_wait_over(id)? => {}
            (_, Fate::Unborn) => {
                let group = actor.group.unwrap_or_default();
                ensure!(
                    !self.scope(group)?.is_open(),
                    "{id} was dropped by an open group"
                );
                // Known before the destructor does anything.
                let reason = self.scope(group)?.reason.clone();
                self.actor(id)?.outcome =
                    Some(Outcome::Cancelled(reason.unwrap_or(CancelReason::Closed)));
            }
            (Kind::Body, _) => {
                if self.is_stuck(&actor) {
                    let Doing::Awaiting(child) = actor.doing else {
                        return Ok(());
                    };
                    if let Some(task) = self.task_of(Some(child)) {
                        self.cancel(id, CancelReason::AwaitedCancelled(task), false)?;
                    }
                }
                ensure!(
                    own_end || self.is_droppable(id),
                    "body {id} was dropped, and need not be"
                );
                self.body_named(id, &actor)?;
            }
            (Kind::Child, _) => {
                ensure!(
                    own_end || self.is_droppable(id) || actor.is_lost(),
                    "child {id} was dropped, and need not be"
                );
            }
            (Kind::Stranger, _) => ensure!(own_end || actor.aborted, "stranger {id} was dropped"),
        }
        self.actor(id)?.dropped = true;
        if let Doing::InScope(scope) = actor.doing {
            self.check_scope_gone(scope)?;
            self.scope_dropped(scope)?;
        }
        for scope in actor.owned {
            self.scope_dropped(scope)?;
        }
        if actor.destructor == Destructor::Cancels
            && let Some(group) = actor.group
        {
            let by = if actor.fate == Fate::Alive {
                Some(id)
            } else {
                actor.spawned_by
            };
            self.request(group, by)?;
        }
        Ok(())
    }

    pub(super) fn check_scope_gone(&self, scope: Id) -> Checked {
        let body = &self.actors[&scope];
        ensure!(body.drop_done, "scope {scope} is gone, its body is not");
        ensure!(!self.scopes[&scope].over, "scope {scope} is gone twice");
        Ok(())
    }

    pub(super) fn drop_done(&mut self, id: Id, panicked: bool) -> Checked {
        let actor = self.actor(id)?;
        ensure!(
            actor.dropped && !actor.drop_done,
            "{id}: a destructor is done that had not begun"
        );
        actor.drop_done = true;
        actor.destructor_panicked = panicked;
        actor.command = None;
        let actor = actor.clone();
        let unwinds = actor.kind == Kind::Body && matches!(actor.ending, Some(Ending::Panic(_)))
            || actor.is_circle;
        let expected = actor.destructor == Destructor::Panics && !unwinds;
        ensure!(
            panicked == expected,
            "{id}: the destructor panicked: {panicked}, expected {expected}"
        );
        match (actor.kind, actor.fate) {
            (Kind::Body, _) => self.body_ended(id, &actor),
            // A future that is refused by `spawn` belongs to nobody else; `try_spawn` has given it back.
            (Kind::Child, Fate::Unborn) if panicked => {
                self.displaced.push((None, destructor_of(id)));
                Ok(())
            }
            (Kind::Child, Fate::Alive) => {
                self.give_back(id)?;
                if actor.starting.is_some() {
                    self.start_ended(id, &actor)
                } else {
                    self.child_ended(id, &actor)
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a body that has not ended goes down with the future of its scope.
    fn is_dropped_with_scope(&self, id: Id, body: &Actor) -> bool {
        let scope = &self.scopes[&id];
        body.ending.is_none()
            && (self.is_droppable(scope.opener)
                || (scope.cut_requested && !scope.forced && !self.is_stuck(body)))
    }

    /// A straggler was named: the body of a scope whose grace is over, before it is dropped.
    fn forced(&mut self, task: Option<TaskId>, reason: &CancelReason) -> Checked {
        ensure!(
            task.is_none(),
            "{task:?} was named as a straggler, and is none"
        );
        ensure!(
            self.named_body.replace(reason.clone()).is_none(),
            "two bodies were named at once"
        );
        Ok(())
    }

    /// Checks that a body that is being dropped was named, or was not, as it should have been.
    fn body_named(&mut self, id: Id, body: &Actor) -> Checked {
        let is_forced = body.ending.is_none()
            && self.scopes[&id].forced
            && !self.is_dropped_with_scope(id, body);
        let outlasted = self.outlasted(body).filter(|_| is_forced);
        let Some(group) = outlasted else {
            return Ok(());
        };
        let expected = self.reason_told(group, body, self.reason_for(body));
        let named = self.named_body.take();
        ensure!(
            named.as_ref() == Some(&expected),
            "body {id} was named as {named:?}, expected {expected:?}"
        );
        let starts = match body.doing {
            Doing::Starting(child) => self.actors[&child].task,
            _ => None,
        };
        // A child that was being started went with it, and was named after it.
        let stragglers = &mut self.scope(group)?.stragglers;
        let went = starts.is_some() && stragglers.last() == Some(&starts);
        stragglers.insert(stragglers.len() - usize::from(went), None);
        Ok(())
    }

    pub(super) fn body_ended(&mut self, id: Id, body: &Actor) -> Checked {
        if self.is_dropped_with_scope(id, body) {
            if body.destructor_panicked {
                self.displaced.push((None, destructor_of(id)));
            }
            return Ok(()); // its place is given up with the scope
        }
        match &body.ending {
            // An error that the body was about to return is lost in the body itself.
            _ if body.destructor_panicked => self.fail(id, None, destructor_of(id), true)?,
            Some(Ending::Err) => self.fail(id, None, error_of(id), false)?,
            Some(Ending::Panic(what)) => self.fail(id, None, what.clone(), true)?,
            Some(Ending::Ok) => self.scope(id)?.value = Some(id),
            None => {}
        }
        self.scope(id)?.body_is_in = false;
        self.leave(id, false)
    }

    /// A child is gone but for the scopes that it dropped: how it ended is settled.
    fn child_ended(&mut self, id: Id, child: &Actor) -> Checked {
        let group = child.group.unwrap_or_default();
        let task = child.task;
        let (ended, outcome) = match (&child.ending, child.destructor_panicked) {
            (Some(Ending::Ok), false) => (Ended::Completed, Outcome::Completed(id)),
            (Some(Ending::Err), false) => {
                self.fail(group, Some(id), error_of(id), false)?;
                (Ended::Failed, Outcome::Failed)
            }
            (None, false) => {
                let reason = self.reason_for(child);
                if let Some(outlasted) = self.outlasted(child) {
                    let told = self.reason_told(outlasted, child, reason.clone());
                    self.scope(outlasted)?.stragglers.push(task);
                    self.expected_force = Some((task, told));
                }
                (Ended::Cancelled(reason.clone()), Outcome::Cancelled(reason))
            }
            (ending, panicked) => {
                let first = match ending {
                    Some(Ending::Panic(what)) => what.clone(),
                    _ => destructor_of(id),
                };
                // Nothing is lost: what the first panic displaces is observed.
                match ending {
                    Some(Ending::Panic(_)) if panicked => {
                        self.displaced.push((task, destructor_of(id)));
                    }
                    Some(Ending::Err) => self.displaced.push((task, error_of(id))),
                    _ => {}
                }
                self.fail(group, Some(id), first, true)?;
                (Ended::Panicked, Outcome::Panicked)
            }
        };
        let child = self.actor(id)?;
        child.ended = Some(ended);
        child.outcome = Some(outcome);
        Ok(())
    }

    pub(super) fn ended(&mut self, task: TaskId, how: &Ended) -> Checked {
        let id = *self
            .tasks
            .get(&task)
            .ok_or(format!("the unknown {task} ended"))?;
        let child = self.actor(id)?;
        ensure!(
            child.drop_done,
            "the end of {id} was observed before it was dropped"
        );
        ensure!(!child.out, "the end of {id} was observed twice");
        let is_starting = child.starting.is_some();
        ensure!(
            is_starting || child.adopted.is_empty(),
            "the end of {id} was observed before that of {:?}",
            child.adopted
        );
        ensure!(
            child.ended.as_ref() == Some(how),
            "{id} ended as {how:?}, expected {:?}",
            child.ended
        );
        child.out = true;
        child.is_heir = !child.adopted.is_empty();
        let is_heir = child.is_heir;
        let (group, background) = (child.group.unwrap_or_default(), child.background);
        self.ended += 1;
        if is_heir {
            return Ok(());
        }
        self.leave(group, background)
    }
}
