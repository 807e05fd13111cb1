//! One child of a group whose children live in the caller's task: what a [`Member`](crate::group::member::Member) is to a
//! tokio task.
//!
//! | state    | holds                | left when                                          | to       |
//! |----------|----------------------|----------------------------------------------------|----------|
//! | running  | the user's future    | it returned, failed, panicked, or is forced        | settling |
//! | settling | the outcome          | no scope that it dropped has children alive        | ended    |
//! | ended    | nothing              |                                                    |          |
//!
//! The invariants are M1–M4 of the member. For M5: a child that is dropped with its scope is [abandoned](Child::abandon).

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::context::{Context, Enter};
use crate::group::borrow::slot::Slot;
use crate::group::handle::{Kept, Settled};
use crate::group::member::{Cause, End, record};
use crate::group::output::TaskOutput;
use crate::observe::{DisplacedWhat, displace};
use crate::panic::{PanicPayload, catch};
use crate::state::Core;
use crate::state::owner::Seat;
use crate::state::word::Kind;
use crate::sync::Arc;

/// The context that the children of a group take turns in.
pub(super) struct Stage {
    core: Arc<Core>,
    // None while user code runs in it.
    context: Option<Context>,
    // Children that are in a shielded section, and whether one of those was there for too long.
    shielded: usize,
    bound: Duration,
    is_overrun: bool,
}

impl Stage {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            context: None,
            shielded: 0,
            bound: Duration::ZERO,
            is_overrun: false,
        }
    }

    /// Asks for how long the task has to go on for the children, and if it has not, whether one would still have to.
    pub(super) fn shield(&self) -> (Option<Duration>, bool) {
        ((self.shielded > 0).then_some(self.bound), self.is_overrun)
    }

    /// Follows the shields of the child on the stage; `was_up` says whether they were up before.
    fn follow(&mut self, was_up: &mut bool) {
        let seat = self.context.as_ref().and_then(|it| it.seat.as_ref());
        let up = seat.filter(|seat| seat.is_shielded());
        let has_changed = up.is_some() != std::mem::replace(was_up, up.is_some());
        if let Some(seat) = up {
            self.bound = self.bound.max(seat.bound());
            self.shielded += usize::from(has_changed);
            return;
        }
        if !has_changed {
            return;
        }
        self.shielded -= 1;
        if self.shielded == 0 {
            self.bound = Duration::ZERO;
        }
        self.is_overrun |= seat.is_some_and(|seat| seat.is_overrun());
    }

    fn context(&mut self) -> &mut Context {
        self.context.get_or_insert_with(|| Context {
            core: self.core.clone(),
            serial: 0,
            seat: None,
        })
    }

    /// Runs user code inside the child's context (M1).
    fn inside<R>(&mut self, call: impl FnOnce() -> R) -> Result<R, PanicPayload> {
        let _inside = Enter::new(&mut self.context);
        catch(call)
    }

    fn has_seat(&self) -> bool {
        let context = self.context.as_ref();
        context.is_some_and(|context| context.seat.is_some())
    }

    fn may_go_on(&self, cx: &mut TaskContext<'_>) -> bool {
        let context = self.context.as_ref();
        context.is_some_and(|context| context.may_go_on(cx))
    }

    /// Whether the child still has to wait for scopes that it dropped.
    fn has_adopted(&self, cx: &TaskContext<'_>) -> bool {
        let seat = self.context.as_ref().and_then(|it| it.seat.as_ref());
        seat.is_some_and(|seat| !seat.poll_empty(cx.waker()))
    }
}

/// A child, whatever its future and its value are.
pub(super) trait Child {
    /// Gives the child its turn: it is polled, or dropped where it is parked if it has to end. The
    /// context on the stage is the child's for the time of the call.
    fn turn(self: Pin<&mut Self>, stage: &mut Stage, cx: &mut TaskContext<'_>) -> Poll<()>;

    /// Ends the child at once, since its scope is dropped. If it still has to wait for scopes that it dropped, its place
    /// in the group goes to them.
    fn abandon(self: Pin<&mut Self>, stage: &mut Stage);
}

pin_project! {
    #[project = StateProj]
    enum State<F, V> {
        Running {
            #[pin]
            future: F,
        },
        Settling {
            // Boxed, since it is rare, and lies where the future does.
            end: Option<Box<End<V>>>,
        },
        Ended,
    }
}

pin_project! {
    /// See the module.
    pub(super) struct Cell<F, E, V> {
        #[pin]
        state: State<F, V>,
        slot: Slot<V>,
        serial: u64,
        seat: Option<Arc<Seat>>,
        location: &'static Location<'static>,
        kind: Kind,
        // Whether the registry has an entry that nobody but us will take out.
        registered: bool,
        // Whether that entry has our waker.
        parked: bool,
        // Whether the handle, if there is one, can ring at us.
        waits: bool,
        // Whether the stage knows that we are in a shielded section.
        is_up: bool,
        error: std::marker::PhantomData<fn() -> E>,
    }
}

impl<F, E, V> Cell<F, E, V>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    E: Send + 'static,
{
    /// Wraps a future for a child that has been counted in as `serial`.
    pub(super) fn boxed(
        future: F,
        slot: Slot<V>,
        serial: u64,
        kind: Kind,
        named: bool,
        location: &'static Location<'static>,
    ) -> Pin<Box<Self>> {
        Box::pin(Self {
            state: State::Running { future },
            slot,
            serial,
            seat: None,
            location,
            kind,
            registered: named,
            parked: false,
            waits: false,
            is_up: false,
            error: std::marker::PhantomData,
        })
    }

    fn step(mut self: Pin<&mut Self>, stage: &mut Stage, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        if !matches!(this.state.as_mut().project(), StateProj::Running { .. }) {
            return self.settled(stage, cx);
        }
        let core = &stage.core;
        if core.is_forced(core.word().read(), *this.serial) && !stage.may_go_on(cx) {
            let why = self.as_mut().force(stage);
            return self.settle(why, stage, cx);
        }
        // Kept outside of what may throw, so that it is dropped on its own if the future's destructor does.
        let mut output = None;
        let polled = stage.inside(|| {
            if let StateProj::Running { future } = this.state.as_mut().project() {
                if let Poll::Ready(ready) = future.poll(cx) {
                    output = Some(ready);
                    this.state.set(State::Ended);
                }
            }
        });
        let why = match (polled, output) {
            (Ok(()), None) => {
                if self.as_mut().park(stage, cx) {
                    return Poll::Pending;
                }
                self.as_mut().force(stage)
            }
            (Ok(()), Some(output)) => match output.into_result() {
                Ok(value) => match self.as_mut().settle_calm(value, stage) {
                    Ok(()) => return Poll::Ready(()),
                    Err(value) => Cause::Returned(value),
                },
                Err(error) => Cause::Failed(Box::new(error)),
            },
            (Err(panic), output) => {
                self.as_mut().displace_rest(output, stage);
                Cause::Panicked(panic)
            }
        };
        self.settle(why, stage, cx)
    }

    /// Does what a child does when it has to wait. Says no if it has to end instead.
    fn park(self: Pin<&mut Self>, stage: &Stage, cx: &mut TaskContext<'_>) -> bool {
        let this = self.project();
        if !*this.waits {
            *this.waits = true;
            this.slot.leave_bell(cx.waker()); // L2
        }
        let core = &stage.core;
        // While nobody is singled out, and nobody keeps time, the driver alone finds us: no entry is needed.
        if core.word().read().is_calm() && !core.has_grace() {
            return true;
        }
        if !*this.parked {
            core.park(*this.serial, cx.waker(), this.location);
            (*this.parked, *this.registered) = (true, true);
        }
        // Also of a cancel while it parked (R2). A shield may have come down in this very poll, or be up.
        !core.is_forced(core.word().read(), *this.serial) || stage.may_go_on(cx)
    }

    /// The common end: a value, and nothing that anybody else would have to know. Gives the value back if it is not so.
    fn settle_calm(self: Pin<&mut Self>, value: V, stage: &Stage) -> Result<(), V> {
        let this = self.project();
        let core = &stage.core;
        let is_calm =
            !stage.has_seat() && core.observer().is_none() && core.word().read().is_calm();
        if !is_calm {
            return Err(value);
        }
        if *this.registered {
            drop(core.registry().remove(*this.serial));
        }
        if this.slot.has_reader() || std::mem::needs_drop::<V>() {
            let kept = Kept::new(value, core);
            this.slot.end(Settled::Completed(kept), core);
        }
        core.leave_as(*this.kind, *this.serial); // M2
        Ok(())
    }

    /// The user's future is gone: records how, and ends the child unless it has to wait for scopes that it dropped.
    fn settle(
        self: Pin<&mut Self>,
        why: Cause<V>,
        stage: &mut Stage,
        cx: &TaskContext<'_>,
    ) -> Poll<()> {
        let mut this = self.project();
        let registered = std::mem::take(this.registered);
        let end = record(stage.context(), this.location, registered, false, why);
        if stage.has_adopted(cx) {
            let end = Some(Box::new(end));
            this.state.set(State::Settling { end });
            return Poll::Pending;
        }
        this.slot.end(end.tell(&stage.core), &stage.core);
        stage.core.leave_as(*this.kind, *this.serial); // M2
        Poll::Ready(())
    }

    fn settled(self: Pin<&mut Self>, stage: &mut Stage, cx: &TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        let StateProj::Settling { end } = this.state.as_mut().project() else {
            return Poll::Ready(());
        };
        if stage.has_adopted(cx) {
            return Poll::Pending;
        }
        let end = end.take();
        let core = &stage.core;
        this.state.set(State::Ended);
        let settled = end.map_or(Settled::RuntimeGone, |end| end.tell(core));
        this.slot.end(settled, core);
        core.leave_as(*this.kind, *this.serial);
        Poll::Ready(())
    }

    /// Drops the user's future where it is parked.
    fn force(self: Pin<&mut Self>, stage: &mut Stage) -> Cause<V> {
        match self.drop_future(stage) {
            Ok(()) => Cause::Cancelled,
            Err(panic) => Cause::Panicked(panic),
        }
    }

    /// After a panic: as the member does.
    #[cold]
    fn displace_rest(mut self: Pin<&mut Self>, output: Option<F::Output>, stage: &mut Stage) {
        let mut displaced = Vec::new();
        if let Err(second) = self.as_mut().drop_future(stage) {
            displaced.push(DisplacedWhat::Panic(second));
        }
        // It had returned, and its destructor threw then: an error that it returned must not be lost.
        match catch(|| output.and_then(|output| output.into_result().err())) {
            Ok(None) => {}
            Ok(Some(error)) => displaced.push(DisplacedWhat::Error(Box::new(error))),
            Err(second) => displaced.push(DisplacedWhat::Panic(second)),
        }
        let (core, serial) = (&stage.core, self.serial);
        for what in displaced {
            let info = core.info(serial, core.name_of(serial), self.location);
            displace(core.observer(), Some(info), what);
        }
    }

    fn drop_future(self: Pin<&mut Self>, stage: &mut Stage) -> Result<(), PanicPayload> {
        let mut this = self.project();
        stage.inside(|| this.state.set(State::Ended))
    }

    /// Polls the child where it is spawned. If that was not all, it is polled again as one of the group's.
    pub(super) fn start(mut self: Pin<&mut Self>, core: &Arc<Core>) -> Poll<()> {
        // Nobody has to be woken.
        let mut nobody = TaskContext::from_waker(Waker::noop());
        let mut stage = Stage::new(core.clone());
        let polled = self.as_mut().turn(&mut stage, &mut nobody);
        let this = self.project();
        (*this.parked, *this.waits, *this.is_up) = (false, false, false);
        polled
    }

    /// Makes the context that of this child, for the time of a call.
    fn enter<R>(
        mut self: Pin<&mut Self>,
        stage: &mut Stage,
        call: impl FnOnce(Pin<&mut Self>, &mut Stage) -> R,
    ) -> R {
        let this = self.as_mut().project();
        let context = stage.context();
        context.serial = *this.serial;
        context.seat = this.seat.take();
        let result = call(self.as_mut(), stage);
        *self.project().seat = stage.context().seat.take();
        result
    }
}

impl<F, E, V> Child for Cell<F, E, V>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    E: Send + 'static,
{
    fn turn(self: Pin<&mut Self>, stage: &mut Stage, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.enter(stage, |mut child, stage| {
            let polled = child.as_mut().step(stage, cx);
            stage.follow(child.project().is_up);
            polled
        })
    }

    fn abandon(self: Pin<&mut Self>, stage: &mut Stage) {
        self.enter(stage, |mut child, stage| {
            let mut this = child.as_mut().project();
            let end = match this.state.as_mut().project() {
                StateProj::Running { .. } => {
                    let why = child.as_mut().force(stage);
                    let this = child.as_mut().project();
                    let registered = *this.registered;
                    let end = record(stage.context(), this.location, registered, false, why);
                    Some(Box::new(end))
                }
                StateProj::Settling { end } => end.take(),
                StateProj::Ended => return,
            };
            let mut this = child.project();
            this.state.set(State::Ended);
            let settled = end.map_or(Settled::RuntimeGone, |end| end.tell(&stage.core));
            this.slot.end(settled, &stage.core);
            let (core, kind, serial) = (stage.core.clone(), *this.kind, *this.serial);
            let leaves = match stage.context().seat.take() {
                Some(seat) => seat.inherit(core, kind),
                None => Some((core, kind)),
            };
            if let Some((core, kind)) = leaves {
                core.leave_as(kind, serial);
            }
        });
    }
}
