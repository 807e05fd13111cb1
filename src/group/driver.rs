//! The future that drives a scope: it polls the body, keeps the time, and waits for the children.
//!
//! | phase   | `body` | word        | left when                                                                  |
//! |---------|--------|-------------|----------------------------------------------------------------------------|
//! | body    | some   | body counted in | the body is ready or throws; the group is forced; the body is stuck (G8) |
//! | waiting | none   | body counted out | nobody is left                                                         |
//! | done    | none   |             | it has yielded                                                             |
//!
//! D1. The waker is left before the word is looked at. D2. The body is dropped before it is counted out, in its own context. D3. The
//! clock is looked at after the body was polled: what is ready is never late. D4. Dropped before it is done, it forces the
//! group and hands it to whoever adopts it: it never blocks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Id;
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use crate::context::{self, Context, Enter};
use crate::group::error::GroupError;
use crate::observe::{CancelReason, DisplacedWhat, displace};
use crate::panic::{PanicPayload, catch};
use crate::runtime::sleep_until;
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind, Target};
use crate::sync::Arc;

/// What the driver keeps time of. The timer is made when there is first something to wait for.
pub(crate) struct Clock {
    grace: Duration,
    deadline: Option<Instant>,
    grace_end: Option<Instant>,
    targets: Vec<(Instant, Target)>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// `deadline` is the scope's own, where it is earlier than all around it: the others are kept by their own scopes.
    pub(crate) fn new(grace: Duration, deadline: Option<Instant>) -> Option<Box<Self>> {
        let has_work = !grace.is_zero() || deadline.is_some();
        has_work.then(|| {
            Box::new(Self {
                grace,
                deadline,
                grace_end: None,
                targets: Vec::new(),
                sleep: None,
            })
        })
    }

    /// Does what is due, and says whether anything was.
    fn poll(&mut self, core: &Core, cx: &mut TaskContext<'_>) -> bool {
        let word = core.word().read();
        if word.is_forced() {
            self.sleep = None;
            return false;
        }
        if !self.grace.is_zero() {
            for target in core.take_signalled() {
                self.targets.push((Instant::now() + self.grace, target));
            }
            if word.is_cancelled() && self.grace_end.is_none() {
                self.grace_end = Some(Instant::now() + self.grace);
            }
        }
        // A deadline has nothing to say to a group that is closing already.
        let deadline = self.deadline.filter(|_| !word.is_cancelled());
        let targets = self.targets.iter().map(|(at, _)| *at);
        let Some(next) = targets.chain(self.grace_end).chain(deadline).min() else {
            return false;
        };
        match &mut self.sleep {
            Some(sleep) if sleep.deadline() == next => {}
            Some(sleep) => sleep.as_mut().reset(next),
            None => self.sleep = Some(Box::pin(sleep_until(next))),
        }
        let due = self.sleep.as_mut().is_some_and(|sleep| {
            // The body may have spent the task's budget; the clock is looked at all the same.
            Pin::new(&mut coop::unconstrained(sleep))
                .poll(cx)
                .is_ready()
        });
        if !due {
            return false;
        }
        let now = Instant::now().max(next);
        if deadline.is_some_and(|at| at <= now) {
            core.cancel(CancelReason::Deadline, false);
        }
        if self.grace_end.is_some_and(|at| at <= now) {
            core.force();
        }
        self.targets.retain(|(at, target)| {
            let is_due = *at <= now;
            if is_due {
                core.force_target(*target);
            }
            !is_due
        });
        true
    }
}

pin_project! {
    /// See the module.
    pub(crate) struct Driver<Fut, T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: Send,
        E: 'static,
    {
        core: Arc<Core>,
        // The body's, while it is not running.
        context: Option<Context>,
        #[pin]
        body: Option<Fut>,
        value: Option<T>,
        // None where there is no time to keep.
        clock: Option<Box<Clock>>,
        runtime: Option<Id>,
        panics_as_errors: bool,
        is_done: bool,
    }

    impl<Fut, T, E> PinnedDrop for Driver<Fut, T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: Send,
        E: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            this.dropped();
        }
    }
}

impl<Fut, T, E> Driver<Fut, T, E>
where
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    /// Calls `body` for its future. A plain function may spawn, and throw, before it gives one: D2 holds for that, too.
    pub(crate) fn new(
        core: Arc<Core>,
        body: impl FnOnce() -> Fut,
        clock: Option<Box<Clock>>,
        runtime: Option<Id>,
        panics_as_errors: bool,
    ) -> Self {
        let mut context = Some(Context {
            core: core.clone(),
            serial: 0,
            adopter: None,
        });
        let called = {
            let _inside = Enter::new(&mut context);
            catch(body)
        };
        let body = match called {
            Ok(body) => Some(body),
            Err(panic) => {
                core.fail(RawFailure {
                    task: None,
                    kind: RawKind::Panic(panic),
                });
                core.leave(Kind::Normal);
                None
            }
        };
        Self {
            core,
            context,
            body,
            value: None,
            clock,
            runtime,
            panics_as_errors,
            is_done: false,
        }
    }

    /// Polls the body if it is still there and may go on.
    fn poll_body(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) {
        let mut this = self.as_mut().project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return;
        };
        if this.core.word().read().is_forced() {
            return self.end_body(None);
        }
        let polled = {
            let _inside = Enter::new(this.context);
            catch(|| body.poll(cx))
        };
        match polled {
            Ok(Poll::Ready(Ok(value))) => {
                *this.value = Some(value);
                self.end_body(None);
            }
            Ok(Poll::Ready(Err(error))) => self.end_body(Some(RawKind::Error(Box::new(error)))),
            Err(panic) => self.end_body(Some(RawKind::Panic(panic))),
            Ok(Poll::Pending) => {
                if this.core.take_stuck() || this.core.word().read().is_forced() {
                    self.end_body(None);
                }
            }
        }
    }

    /// Drops the body, and counts it out.
    fn end_body(mut self: Pin<&mut Self>, failure: Option<RawKind>) {
        if let Some(kind) = failure {
            self.core.fail(RawFailure { task: None, kind });
        }
        if let Err(panic) = self.as_mut().drop_body() {
            self.core.fail(RawFailure {
                task: None,
                kind: RawKind::Panic(panic),
            });
        }
        self.core.leave(Kind::Normal);
    }

    fn drop_body(self: Pin<&mut Self>) -> Result<(), PanicPayload> {
        let mut this = self.project();
        let _inside = Enter::new(this.context);
        catch(|| this.body.set(None)) // D2
    }

    fn finish(self: Pin<&mut Self>) -> Result<T, GroupError<E>> {
        let this = self.project();
        *this.is_done = true;
        let mut remains = this.core.take_remains();
        let value = this.value.take();
        let is_panic = |failure: &RawFailure| matches!(failure.kind, RawKind::Panic(_));
        let place = (!*this.panics_as_errors)
            .then(|| remains.failures.iter().position(is_panic))
            .flatten();
        if let Some(place) = place {
            // G4. The first panic goes on in the caller; all else has nobody else to go to but the observer.
            let first = remains.failures.remove(place);
            if let Err(panic) = catch(|| drop(value)) {
                displace(this.core.observer(), None, DisplacedWhat::Panic(panic));
            }
            this.core.displace_all(remains.failures);
            if let RawKind::Panic(panic) = first.kind {
                panic.resume();
            }
            unreachable!("a panic was found there");
        }
        match (value, &remains.reason) {
            (Some(value), None | Some(CancelReason::Finished)) if remains.failures.is_empty() => {
                Ok(value)
            }
            (value, _) => {
                if let Err(panic) = catch(|| drop(value)) {
                    displace(this.core.observer(), None, DisplacedWhat::Panic(panic));
                }
                Err(GroupError::new(remains, this.core.path().cloned()))
            }
        }
    }

    /// D4.
    fn dropped(mut self: Pin<&mut Self>) {
        if self.is_done {
            return;
        }
        let was_in = self.body.is_some();
        if let Err(panic) = self.as_mut().drop_body() {
            displace(self.core.observer(), None, DisplacedWhat::Panic(panic));
        }
        let this = self.project();
        let core = this.core;
        // The value's destructor is the caller's business now; the group's is to be gone.
        core.cancel(CancelReason::ScopeDropped, true);
        if !was_in {
            // Counted out already: come in again, so that the last one out is not missed (A1).
            core.word().adopt();
        }
        if !core.orphan_empty() {
            let owner = context::adopter(core, || crate::root::of(*this.runtime));
            core.orphan(owner);
        }
    }
}

impl<Fut, T, E> Future for Driver<Fut, T, E>
where
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    type Output = Result<T, GroupError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            self.as_mut().poll_body(cx);
            let this = self.as_mut().project();
            if this.core.word().read().live() == 0 {
                return Poll::Ready(self.finish());
            }
            this.core.set_waiter(cx.waker()); // D1
            let word = this.core.word().read();
            if word.live() == 0 || (word.is_forced() && this.body.is_some()) {
                continue;
            }
            let clock = this.clock.as_mut();
            if !clock.is_some_and(|clock| clock.poll(this.core, cx)) {
                return Poll::Pending;
            }
            // Something was due: look again.
        }
    }
}
