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

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::coop;
use tokio::time::Instant;

use crate::context::{Context, Enter, Relay};
use crate::detail::{self, WaitsFor};
use crate::group::TaskGroup;
use crate::group::error::GroupError;
use crate::observe::{CancelReason, DisplacedWhat, Straggler, displace};
use crate::panic::{PanicPayload, catch};
use crate::runtime::Timer;
use crate::state::listing;
use crate::state::registry::Mark;
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind, Target, Why};

/// What the driver keeps time of. The timer is made when there is first something to wait for.
pub(crate) struct Clock {
    grace: Duration,
    deadline: Option<Instant>,
    /// How long blocking work is waited for that goes on after its child was forced.
    give_up: Option<Duration>,
    grace_end: Option<Instant>,
    /// Earliest first: all have the same grace.
    targets: VecDeque<(Instant, Target)>,
    timer: Option<Pin<Box<Timer>>>,
}

impl Clock {
    /// `deadline` is the scope's own: inherited ones are kept by the scopes that set them.
    pub(crate) fn new(
        grace: Duration,
        deadline: Option<Instant>,
        give_up: Option<Duration>,
    ) -> Option<Box<Self>> {
        let has_work = !grace.is_zero() || deadline.is_some() || give_up.is_some();
        has_work.then(|| {
            Box::new(Self {
                grace,
                deadline,
                give_up,
                grace_end: None,
                targets: VecDeque::new(),
                timer: None,
            })
        })
    }

    /// Does what is due, and says whether anything was.
    fn poll(&mut self, core: &Core, cx: &mut TaskContext<'_>) -> bool {
        let word = core.word().read();
        let give_up = self
            .give_up
            .and_then(|bound| Some((bound, core.goes_on_since()? + bound)));
        if word.is_forced() {
            // The rest of it is over.
            let Some((bound, at)) = give_up else {
                self.timer = None;
                return false;
            };
            let is_due = self.is_due(at, core, cx);
            if is_due {
                core.give_up(at - bound);
            }
            return is_due;
        }
        if !self.grace.is_zero() {
            for target in core.take_signalled() {
                self.targets
                    .push_back((Instant::now() + self.grace, target));
            }
            if word.is_cancelled() && self.grace_end.is_none() {
                self.grace_end = Some(Instant::now() + self.grace);
            }
        }
        // A deadline has nothing to say to a group that is closing already.
        let deadline = self.deadline.filter(|_| !word.is_cancelled());
        let target = self.targets.front().map(|(at, _)| *at);
        let give_up_at = give_up.map(|(_, at)| at);
        let nexts = [target, self.grace_end, deadline, give_up_at];
        let Some(next) = nexts.into_iter().flatten().min() else {
            return false;
        };
        if !self.is_due(next, core, cx) {
            return false;
        }
        let now = Instant::now().max(next);
        if deadline.is_some_and(|at| at <= now) {
            core.cancel(CancelReason::Deadline);
        }
        if self.grace_end.is_some_and(|at| at <= now) {
            core.force();
        }
        if let Some((bound, _)) = give_up.filter(|(_, at)| *at <= now) {
            core.give_up(now - bound);
        }
        while let Some((at, target)) = self.targets.front().copied() {
            if at > now {
                break;
            }
            self.targets.pop_front();
            core.force_target(target);
        }
        true
    }

    /// Looks at the time. Where it cannot be kept, the group ends now.
    fn is_due(&mut self, at: Instant, core: &Core, cx: &mut TaskContext<'_>) -> bool {
        match self.poll_timer(at, cx) {
            Ok(polled) => return polled.is_ready(),
            Err(TimerLost::NoDriver(panic)) => fail(core, RawKind::Panic(panic)),
            Err(TimerLost::RuntimeGone) => {}
        }
        core.cancel_now(CancelReason::RuntimeGone);
        true
    }

    fn poll_timer(&mut self, at: Instant, cx: &mut TaskContext<'_>) -> Result<Poll<()>, TimerLost> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => catch(|| Box::pin(Timer::at(at))).map_err(TimerLost::NoDriver)?,
        };
        let timer = self.timer.insert(timer);
        // A timer panics where its runtime is being shut down. The body may have spent the task's budget; the clock is looked
        // at all the same.
        catch(|| {
            if timer.end() != at {
                timer.as_mut().reset(at);
            }
            Pin::new(&mut coop::unconstrained(timer)).poll(cx)
        })
        .map_err(|_| TimerLost::RuntimeGone)
    }
}

/// Why the time cannot be kept.
enum TimerLost {
    NoDriver(PanicPayload),
    RuntimeGone,
}

pin_project! {
    /// See the module.
    pub(crate) struct Driver<'g, Fut, T, E>
    where
        Fut: Future<Output = Result<T, E>>,
        E: Send,
        E: 'static,
    {
        group: &'g TaskGroup<E>,
        // The body's, while it is not running.
        context: Option<Context>,
        // A shield in the body shields the task that the scope is in.
        relay: Relay,
        #[pin]
        body: Option<Fut>,
        value: Option<T>,
        // None where there is no time to keep.
        clock: Option<Box<Clock>>,
        panics_as_errors: bool,
        is_done: bool,
    }

    impl<Fut, T, E> PinnedDrop for Driver<'_, Fut, T, E>
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

impl<'g, Fut, T, E> Driver<'g, Fut, T, E>
where
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    /// Calls `body` for its future. A plain function may spawn, and throw, before it gives one: D2 holds for that, too.
    pub(crate) fn new(
        group: &'g TaskGroup<E>,
        body: impl FnOnce() -> Fut,
        clock: Option<Box<Clock>>,
        panics_as_errors: bool,
    ) -> Self {
        let core = group.core();
        let mut context = Some(Context {
            core: core.clone(),
            serial: 0,
            seat: None,
        });
        let called = {
            let _inside = Enter::new(&mut context);
            catch(body)
        };
        let body = match called {
            Ok(body) => Some(body),
            Err(panic) => {
                fail(core, RawKind::Panic(panic));
                core.listed().end_body();
                core.leave(Kind::Normal);
                None
            }
        };
        Self {
            group,
            context,
            relay: Relay::default(),
            body,
            value: None,
            clock,
            panics_as_errors,
            is_done: false,
        }
    }

    /// Waits for a group whose place of the body is given up now. Panics become failures: there is no caller of the body's.
    pub(crate) fn without_body(group: &'g TaskGroup<E>, clock: Option<Box<Clock>>) -> Self
    where
        T: Default,
    {
        let core = group.core();
        core.listed().end_body();
        core.leave(Kind::Normal);
        Self {
            group,
            context: Some(Context {
                core: core.clone(),
                serial: 0,
                seat: None,
            }),
            relay: Relay::default(),
            body: None,
            value: Some(T::default()),
            clock,
            panics_as_errors: true,
            is_done: false,
        }
    }

    /// Polls the body if it is still there and may go on.
    fn poll_body(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) {
        let mut this = self.as_mut().project();
        let core = this.group.core();
        let mut was_stuck = false;
        loop {
            let Some(body) = this.body.as_mut().as_pin_mut() else {
                return;
            };
            if core.word().read().is_forced() && !may_go_on(this.context, cx) {
                core.forced(0, Mark::None, is_overrun(this.context), || Straggler {
                    task: None,
                    group: core.path().cloned(),
                    reason: core.reason_why(Why::Group),
                    age: None,
                });
                return self.end_body(None);
            }
            let polled = {
                let _inside = Enter::new(this.context);
                catch(|| body.poll(cx))
            };
            match polled {
                Ok(Poll::Ready(Ok(value))) => {
                    *this.value = Some(value);
                    return self.end_body(None);
                }
                Ok(Poll::Ready(Err(error))) => {
                    return self.end_body(Some(RawKind::Error(Box::new(error))));
                }
                Err(panic) => return self.end_body(Some(RawKind::Panic(panic))),
                Ok(Poll::Pending) => {
                    // A section that is shielded may have more to do than to wait for that value: it has its bound.
                    let is_stuck = core.take_stuck() && !is_shielded(this.context);
                    if is_stuck && was_stuck {
                        return self.end_body(None);
                    }
                    let ends = core.word().read().is_forced() && !may_go_on(this.context, cx);
                    if !(is_stuck || ends) {
                        return;
                    }
                    // It polled a handle that will never yield. Does it wait for that, or has it gone on to something else?
                    was_stuck = is_stuck;
                }
            }
        }
    }

    /// Drops the body, and counts it out.
    fn end_body(mut self: Pin<&mut Self>, failure: Option<RawKind>) {
        let core = self.group.core();
        if let Some(kind) = failure {
            fail(core, kind);
        }
        if let Err(panic) = self.as_mut().drop_body() {
            fail(core, RawKind::Panic(panic));
        }
        core.listed().end_body();
        core.leave(Kind::Normal);
    }

    fn drop_body(self: Pin<&mut Self>) -> Result<(), PanicPayload> {
        let mut this = self.project();
        let _inside = Enter::new(this.context);
        catch(|| this.body.set(None)) // D2
    }

    fn finish(self: Pin<&mut Self>) -> Result<T, GroupError<E>> {
        let this = self.project();
        let core = this.group.core();
        *this.is_done = true;
        if let Some(value) = this.value.take_if(|_| core.has_ended_well()) {
            return Ok(value);
        }
        let mut remains = core.take_remains();
        let value = this.value.take();
        let is_panic = |failure: &RawFailure| matches!(failure.kind, RawKind::Panic(_));
        let place = (!*this.panics_as_errors)
            .then(|| remains.failures.iter().position(is_panic))
            .flatten();
        if let Some(place) = place {
            // G4. The first panic goes on in the caller; all else has nobody else to go to but the observer.
            let first = remains.failures.remove(place);
            drop_value(core, value);
            core.displace_all(remains.failures);
            if let RawKind::Panic(panic) = first.kind {
                panic.resume();
            }
            unreachable!("a panic was found there");
        }
        drop_value(core, value);
        Err(GroupError::new(remains, core.path().cloned()))
    }

    /// D4.
    fn dropped(mut self: Pin<&mut Self>) {
        if self.is_done {
            return;
        }
        let was_in = self.body.is_some();
        if let Err(panic) = self.as_mut().drop_body() {
            displace(
                self.group.core().observer(),
                None,
                DisplacedWhat::Panic(panic),
            );
        }
        // The value's destructor is the caller's business now; the group's is to be gone.
        self.group.abandon(was_in);
    }
}

fn may_go_on(context: &Option<Context>, cx: &mut TaskContext<'_>) -> bool {
    let context = context.as_ref();
    context.is_some_and(|context| context.may_go_on(cx))
}

fn is_shielded(context: &Option<Context>) -> bool {
    let seat = context.as_ref().and_then(|context| context.seat.as_ref());
    seat.is_some_and(|seat| seat.is_shielded())
}

fn is_overrun(context: &Option<Context>) -> bool {
    let seat = context.as_ref().and_then(|context| context.seat.as_ref());
    seat.is_some_and(|seat| seat.is_overrun())
}

/// Makes a group that somebody waits for visible.
fn show<E: Send + 'static>(group: &TaskGroup<E>, body: Option<&Context>) {
    let core = group.core();
    if !core.listed().is_set() {
        listing::add(core, group.runtime().map(Handle::id));
    }
    if detail::is_on() {
        // The task that the scope is in waits for the same.
        let waits_for = match body {
            Some(body) => body.note(),
            None => Some(WaitsFor::Children(core.task_id(0).group)),
        };
        waits_for.into_iter().for_each(detail::waits_for);
    }
}

/// Drops the value of a body whose group came to another end.
fn drop_value<T>(core: &Core, value: Option<T>) {
    if let Err(panic) = catch(|| drop(value)) {
        displace(core.observer(), None, DisplacedWhat::Panic(panic));
    }
}

/// Records a failure of the body.
fn fail(core: &Core, kind: RawKind) {
    core.fail(RawFailure { task: None, kind });
}

impl<Fut, T, E> Future for Driver<'_, Fut, T, E>
where
    Fut: Future<Output = Result<T, E>>,
    E: Send + 'static,
{
    type Output = Result<T, GroupError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            self.as_mut().poll_body(cx);
            let this = self.as_mut().project();
            this.relay.follow(this.context.as_ref());
            let core = this.group.core();
            if core.word().read().live() == 0 {
                return Poll::Ready(self.finish());
            }
            core.set_waiter(cx.waker()); // D1
            let word = core.word().read();
            let ends = word.is_forced() && this.body.is_some() && !may_go_on(this.context, cx);
            if word.live() == 0 || ends {
                continue;
            }
            let clock = this.clock.as_mut();
            if !clock.is_some_and(|clock| clock.poll(core, cx)) {
                show(
                    this.group,
                    this.context.as_ref().filter(|_| this.body.is_some()),
                );
                return Poll::Pending;
            }
            // Something was due: look again.
        }
    }
}
