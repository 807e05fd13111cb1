//! Children that are started: until they are ready, they live in the task of whoever waits.

use ringfence::{CancelReason, Ended, Outcome, StartError};

use super::{Actor, Checked, Doing, Ending, Fate, Model, ensure};
use crate::program::{ChildSpec, Handle};
use crate::world::{Id, destructor_of, error_of};

impl Actor {
    /// Whether it may still say something about that.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting.is_some() && self.ready.is_none()
    }

    /// Whether it said that it never will be ready.
    pub(super) fn is_lost(&self) -> bool {
        self.starting.is_some() && self.ready == Some(false)
    }
}

impl Model {
    /// A child that is not ready goes with whoever waits for it.
    pub(super) fn is_withdrawn(&self, child: &Actor) -> bool {
        let body = child.group.filter(|_| child.starting.is_some());
        body.is_some_and(|body| self.is_droppable(body))
    }

    pub(super) fn start(&mut self, by: Id, child: Id, spec: &ChildSpec) -> Checked {
        let spec = ChildSpec {
            background: false,
            slot: None,
            ..spec.clone()
        };
        self.add_child(child, by, Some(by), &spec);
        let state = self.actor(child)?;
        state.waiters = 0;
        state.starting = Some(spec.handle);
        self.actor(by)?.doing = Doing::Starting(child);
        Ok(())
    }

    /// One that is started is counted in without a word, and polled at once.
    pub(super) fn first_start(&mut self, child: Id) -> Checked {
        let state = self.actor(child)?;
        if state.starting.is_none() || state.fate != Fate::Unborn {
            return Ok(());
        }
        let task = self.observed_spawn;
        self.spawned(
            child,
            task.ok_or(format!("the start of {child} was not observed"))?,
        )
    }

    fn start_over(&mut self, child: Id) -> Checked {
        let by = self.actor(child)?.group.unwrap_or_default();
        let body = self.actor(by)?;
        ensure!(
            body.doing == Doing::Starting(child),
            "{by} does not start {child}"
        );
        body.doing = Doing::Idle;
        Ok(())
    }

    pub(super) fn started(&mut self, child: Id, value: Id) -> Checked {
        self.start_over(child)?;
        let state = self.actor(child)?;
        ensure!(
            state.ready == Some(true) && value == child && !state.dropped,
            "{child} was not ready"
        );
        let by = state.group.unwrap_or_default();
        match state.starting.take() {
            Some(Handle::Awaited) => state.waiters = 1,
            Some(Handle::Kept) => self.actor(by)?.handles.push(child),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn not_started(
        &mut self,
        child: Id,
        why: &Result<StartError<String>, String>,
    ) -> Checked {
        self.start_over(child)?;
        let state = self.actor(child)?.clone();
        let thrown = match (&state.ending, state.destructor_panicked) {
            (Some(Ending::Panic(what)), _) => Some(what.clone()),
            (_, true) if state.fate == Fate::Alive => Some(destructor_of(child)),
            _ => None,
        };
        let expected = match (thrown, &state.ending, &state.outcome) {
            (Some(what), ..) => Err(what),
            (None, Some(Ending::Err), _) => Ok(StartError::Failed(error_of(child))),
            (None, None, Some(Outcome::Cancelled(reason))) if !state.is_lost() => {
                Ok(StartError::Cancelled(reason.clone()))
            }
            _ => Ok(StartError::NotReady),
        };
        ensure!(
            *why == expected,
            "{child} did not start: {why:?}, expected {expected:?}"
        );
        if why.is_err() && state.ending.is_none() {
            // It was not alone when it threw: whoever waited has it, nobody else.
            let entry = (state.task, destructor_of(child));
            let place = self.displaced.iter().position(|known| *known == entry);
            place.map(|place| self.displaced.remove(place));
        }
        let state = self.actor(child)?;
        if state.fate == Fate::Unborn {
            (state.fate, state.out) = (Fate::Refused, true);
        }
        ensure!(state.out, "the end of {child} was not observed");
        Ok(())
    }

    /// It is gone before it was ready: the group hears nothing of it.
    pub(super) fn start_ended(&mut self, id: Id, child: &Actor) -> Checked {
        let destructor = (child.task, destructor_of(id));
        let is_cancelled = self.is_signalled(child);
        let ended = match (&child.ending, child.destructor_panicked) {
            (Some(Ending::Ok), false) => Ended::Completed,
            (Some(Ending::Err), false) => Ended::Failed,
            (Some(Ending::Panic(_)), panicked) => {
                self.displaced.extend(panicked.then_some(destructor));
                Ended::Panicked
            }
            (Some(Ending::Err), true) => {
                self.displaced.push((child.task, error_of(id)));
                Ended::Panicked
            }
            (Some(Ending::Ok), true) => Ended::Panicked,
            (None, true) => {
                // Taken back if somebody is still there to be thrown at.
                self.displaced.push(destructor);
                Ended::Panicked
            }
            (None, false) => {
                let reason = if is_cancelled {
                    self.reason_for(child)
                } else {
                    CancelReason::Handle
                };
                if let Some(outlasted) = self.outlasted(child) {
                    let told = self.reason_told(outlasted, child, reason.clone());
                    self.scope(outlasted)?.stragglers.push(child.task);
                    self.expected_force = Some((child.task, told));
                }
                Ended::Cancelled(reason)
            }
        };
        let state = self.actor(id)?;
        if let Ended::Cancelled(reason) = &ended {
            state.outcome = Some(Outcome::Cancelled(reason.clone()));
        }
        state.ended = Some(ended);
        Ok(())
    }
}
