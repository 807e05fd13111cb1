//! The future that wraps each child.
//!
//! | state    | `future` | `context` | left when                                        | to               |
//! |----------|----------|-----------|--------------------------------------------------|------------------|
//! | running  | some     | some      | it returned, failed, panicked, or is forced      | settling         |
//! | settling | none     | some      | no scope that it dropped has children alive      | ended            |
//! | ended    | none     | none      |                                                  |                  |
//!
//! M1. The user's future is polled and dropped inside its own context, under `catch`. M2. It is dropped before the child
//! settles, and the child settles before it is counted out. M3. A failure is recorded before the child is counted out. M4. One
//! Acquire load a poll decides whether to go on. M5. Dropped early by the runtime, it does all the same but wait.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::context::{Context, Enter, Relay};
use crate::detail;
use crate::group::handle::{Kept, Settled};
use crate::group::output::TaskOutput;
use crate::observe::{CancelReason, DisplacedWhat, Ended, Straggler, TaskInfo, displace, tell};
use crate::panic::{PanicPayload, catch};
use crate::pulse;
use crate::state::owner::Seat;
use crate::state::registry::Mark;
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind, Why};
use crate::sync::Arc;
use crate::trace;

pin_project! {
    /// See the module.
    pub(crate) struct Member<F, E>
    where
        F: Future,
        F::Output: TaskOutput<E>,
        <F::Output as TaskOutput<E>>::Value: Send,
        <F::Output as TaskOutput<E>>::Value: 'static,
        E: Send,
        E: 'static,
    {
        context: Option<Context>,
        location: &'static Location<'static>,
        kind: Kind,
        // Whether the registry has an entry that nobody but us will take out.
        registered: bool,
        // Whether that entry has our waker.
        parked: bool,
        #[pin]
        future: Option<F>,
        error: std::marker::PhantomData<fn() -> E>,
    }

    impl<F, E> PinnedDrop for Member<F, E>
    where
        F: Future,
        F::Output: TaskOutput<E>,
        <F::Output as TaskOutput<E>>::Value: Send,
        <F::Output as TaskOutput<E>>::Value: 'static,
        E: Send,
        E: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            this.destroyed();
        }
    }
}

/// How the user's future ended, before anybody was told.
pub(super) enum Cause<V> {
    Returned(V),
    Failed(Box<dyn std::any::Any + Send>),
    Panicked(PanicPayload),
    Cancelled,
    /// The runtime was shut down.
    Gone,
}

/// How the child ends, and what the observer is told of it when nothing of it is left.
pub(super) struct End<V> {
    settled: Settled<V>,
    event: Option<Box<(TaskInfo, Ended)>>,
}

impl<V> End<V> {
    pub(super) fn tell(self, core: &Core) -> Settled<V> {
        if let Some((info, how)) = self.event.as_deref() {
            tell(core.observer(), |o| o.ended(info, how));
        }
        self.settled
    }
}

impl<F, E, V> Member<F, E>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    V: Send + 'static,
    E: Send + 'static,
{
    /// Wraps a future for a child that has been counted in as `serial`.
    pub(crate) fn new(
        core: Arc<Core>,
        serial: u64,
        kind: Kind,
        named: bool,
        location: &'static Location<'static>,
        future: F,
    ) -> Self {
        Self {
            context: Some(Context {
                core,
                serial,
                seat: None,
            }),
            location,
            kind,
            registered: named,
            parked: false,
            future: Some(future),
            error: std::marker::PhantomData,
        }
    }

    /// Wraps what is left of a child that was polled before it was counted in.
    pub(crate) fn resumed(
        core: Arc<Core>,
        serial: u64,
        seat: Option<Arc<Seat>>,
        location: &'static Location<'static>,
        future: Option<F>,
    ) -> Self {
        Self {
            context: Some(Context { core, serial, seat }),
            location,
            kind: Kind::Normal,
            registered: false,
            parked: false,
            future,
            error: std::marker::PhantomData,
        }
    }

    fn poll_settled(self: Pin<&mut Self>, cx: &TaskContext<'_>) -> Poll<Settled<V>> {
        let this = self.project();
        let seat = this
            .context
            .as_ref()
            .and_then(|context| context.seat.clone());
        let Some(seat) = seat else {
            return Poll::Ready(Settled::RuntimeGone);
        };
        if !seat.poll_empty(cx.waker()) {
            return Poll::Pending;
        }
        let kept = seat.take_kept();
        let kept = kept.and_then(|kept| kept.downcast::<End<V>>().ok());
        let Some(Context { core, serial, .. }) = this.context.take() else {
            return Poll::Ready(Settled::RuntimeGone);
        };
        drop(core.registry().remove(serial));
        let settled = kept.map_or(Settled::RuntimeGone, |end| end.tell(&core));
        core.leave_as(*this.kind, serial);
        Poll::Ready(settled)
    }

    /// The common end: a value, and nothing that anybody else would have to know. Gives the value back if it is not so.
    #[inline]
    fn settle_calm(self: Pin<&mut Self>, value: V) -> Result<Settled<V>, V> {
        let this = self.project();
        let is_calm = |context: &Context| {
            context.seat.is_none()
                && context.core.observer().is_none()
                && context.core.word().read().is_calm()
        };
        if !this.context.as_ref().is_some_and(is_calm) {
            return Err(value);
        }
        let Some(Context { core, serial, .. }) = this.context.take() else {
            return Err(value);
        };
        if *this.registered {
            drop(core.registry().remove(serial));
        }
        core.leave_as(*this.kind, serial); // M2
        Ok(Settled::Completed(Kept::new(value, &core)))
    }

    /// The user's future is gone: records how, and ends the child unless it has to wait for scopes that it dropped.
    pub(super) fn settle(
        self: Pin<&mut Self>,
        why: Cause<V>,
        cx: &TaskContext<'_>,
    ) -> Poll<Settled<V>> {
        let mut this = self.project();
        let Some(context) = this.context.as_mut() else {
            return Poll::Ready(Settled::RuntimeGone);
        };
        let lingers = context.seat.as_ref().is_some_and(|seat| seat.has_adopted());
        let registered = std::mem::take(this.registered);
        let end = record(context, this.location, registered, lingers, why);
        if let Some(seat) = &context.seat {
            if !seat.poll_empty(cx.waker()) {
                seat.keep(Box::new(end));
                return Poll::Pending;
            }
        }
        if lingers {
            drop(context.core.registry().remove(context.serial));
        }
        let settled = end.tell(&context.core);
        if let Some(context) = this.context.take() {
            context.core.leave_as(*this.kind, context.serial); // M2
        }
        this.future.set(None);
        Poll::Ready(settled)
    }

    /// Registers the child when it first has to wait. Says no if it has to end instead.
    fn park(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> bool {
        let this = self.project();
        let Some(context) = this.context else {
            return false;
        };
        if !*this.parked {
            // A task's waker never changes, and the entry is ours until we end.
            context.core.park(context.serial, cx.waker(), this.location);
            (*this.parked, *this.registered) = (true, true);
            note(context);
        } else {
            note(context);
            if context.seat.is_none() {
                return true;
            }
        }
        if context.has_quit() {
            return false;
        }
        // Also of a cancel while it parked (R2). A shield may have come down in this very poll, or be up.
        let word = context.core.word().read();
        !context.core.is_forced(word, context.serial) || context.may_go_on(cx)
    }

    /// Prepares for being polled by another waker than before.
    pub(crate) fn unpark(self: Pin<&mut Self>) {
        *self.project().parked = false;
    }

    /// Polls a child that is no task yet, for what its future returns or throws. `None` says that it is forced.
    pub(crate) fn poll_inline(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        relay: &mut Relay,
    ) -> Poll<Option<Result<F::Output, PanicPayload>>> {
        let this = self.as_mut().project();
        if this.context.as_ref().is_some_and(|context| {
            let word = context.core.word().read();
            context.core.is_forced(word, context.serial) && !context.may_go_on(cx)
        }) {
            return Poll::Ready(None);
        }
        let timed = this.context.as_ref().filter(|_| pulse::is_on());
        let timed = timed.map(|it| pulse::begin(&it.core, it.serial, this.location));
        let mut output = None;
        let polled = self.as_mut().step(cx, &mut output);
        drop(timed);
        relay.follow(self.context.as_ref());
        match (polled, output) {
            (Ok(()), Some(output)) => Poll::Ready(Some(Ok(output))),
            (Err(panic), output) => {
                self.displace_rest(output);
                Poll::Ready(Some(Err(panic)))
            }
            (Ok(()), None) => {
                self.as_mut().unpark();
                if self.park(cx) {
                    Poll::Pending
                } else {
                    Poll::Ready(None)
                }
            }
        }
    }

    /// Polls the user's future, and drops it if that was its last step (M1). What it returned is kept outside of what may throw,
    /// so that it is dropped on its own if the future's destructor does.
    #[inline]
    fn step(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        output: &mut Option<F::Output>,
    ) -> Result<(), PanicPayload> {
        let mut this = self.project();
        let span = this.context.as_ref().and_then(|it| it.core.span());
        let _span = trace::enter(span);
        let _inside = Enter::new(this.context);
        catch(|| {
            let future = this.future.as_mut().as_pin_mut();
            if let Some(Poll::Ready(ready)) = future.map(|future| future.poll(cx)) {
                *output = Some(ready);
                this.future.set(None);
            }
        })
    }

    /// Asks whether a shield of the child has lasted longer than it may. With its future, the shields go.
    pub(crate) fn is_overrun(&self) -> bool {
        self.context.as_ref().is_some_and(Context::is_overrun)
    }

    /// Takes a child that is no task yet out of the group, which hears nothing of how it ended: that it was cancelled, unless
    /// `how` says otherwise. Returns why it was cancelled, if it was.
    pub(crate) fn withdraw(
        mut self: Pin<&mut Self>,
        how: Option<Ended>,
        is_overrun: bool,
    ) -> CancelReason {
        let dropped = self.as_mut().drop_future();
        let this = self.project();
        let Some(mut context) = this.context.take() else {
            return CancelReason::Closed;
        };
        let (core, serial) = (context.core.clone(), context.serial);
        let entry = core.registry().remove(serial);
        // It has no handle yet, so nobody singled it out. Nobody may have asked it to end: then whoever waited for it to be
        // ready does no more.
        let reason = if core.is_signalled(serial, || false) {
            core.reason_why(core.why(serial, false))
        } else {
            CancelReason::Handle
        };
        let since = entry.as_ref().and_then(|entry| entry.since);
        let name = entry.and_then(|entry| entry.name().cloned());
        let info = core.info(serial, name, this.location);
        if how.is_none() && dropped.is_ok() {
            core.forced(serial, Mark::None, is_overrun, || Straggler {
                task: Some(info.clone()),
                group: core.path().cloned(),
                reason: reason.clone(),
                age: since.map(|since| Instant::from_std(since).elapsed()),
            });
        }
        let how = match dropped {
            Ok(()) => how.unwrap_or_else(|| Ended::Cancelled(reason.clone())),
            Err(panic) => {
                let what = DisplacedWhat::Panic(panic);
                displace(core.observer(), Some(info.clone()), what);
                Ended::Panicked
            }
        };
        tell(core.observer(), |o| o.ended(&info, &how));
        let leaves = match context.seat.take() {
            Some(seat) => seat.inherit(core, *this.kind),
            None => Some((core, *this.kind)),
        };
        if let Some((core, kind)) = leaves {
            core.leave_as(kind, serial);
        }
        reason
    }

    /// Drops the user's future where it is parked.
    fn force(self: Pin<&mut Self>) -> Cause<V> {
        match self.drop_future() {
            Ok(()) => Cause::Cancelled,
            Err(panic) => Cause::Panicked(panic),
        }
    }

    /// M5: the wrapper itself is dropped before the child has ended.
    fn destroyed(mut self: Pin<&mut Self>) {
        if self.context.is_none() {
            return;
        }
        let was_running = self.future.is_some();
        let dropped = self.as_mut().drop_future();
        let this = self.project();
        let Some(mut context) = this.context.take() else {
            return;
        };
        let end = if was_running {
            let word = context.core.word().read();
            let why = match dropped {
                Err(panic) => Cause::Panicked(panic),
                Ok(()) if context.core.is_forced(word, context.serial) => Cause::Cancelled,
                Ok(()) => Cause::Gone,
            };
            Some(record::<V>(
                &context,
                this.location,
                *this.registered,
                false,
                why,
            ))
        } else {
            drop(context.core.registry().remove(context.serial));
            let kept = context.seat.as_ref().and_then(|seat| seat.take_kept());
            kept.and_then(|kept| kept.downcast().ok()).map(|end| *end)
        };
        let (core, kind) = (context.core.clone(), *this.kind);
        drop(end.map(|end| end.tell(&core)));
        let leaves = match context.seat.take() {
            Some(seat) => seat.inherit(core, kind),
            None => Some((core, kind)),
        };
        if let Some((core, kind)) = leaves {
            core.leave_as(kind, context.serial);
        }
    }

    /// After a panic: drops the future, and reports what comes of that. If the future had returned, and its destructor threw
    /// then, an error that it returned must not be lost.
    #[cold]
    pub(crate) fn displace_rest(mut self: Pin<&mut Self>, output: Option<F::Output>) {
        let mut displaced = Vec::new();
        if let Err(second) = self.as_mut().drop_future() {
            displaced.push(DisplacedWhat::Panic(second));
        }
        match catch(|| output.and_then(|output| output.into_result().err())) {
            Ok(None) => {}
            Ok(Some(error)) => displaced.push(DisplacedWhat::Error(Box::new(error))),
            Err(second) => displaced.push(DisplacedWhat::Panic(second)),
        }
        let Some(Context { core, serial, .. }) = self.context.as_ref() else {
            return;
        };
        for what in displaced {
            let info = core.info(*serial, core.name_of(*serial), self.location);
            displace(core.observer(), Some(info), what);
        }
    }

    pub(crate) fn drop_future(self: Pin<&mut Self>) -> Result<(), PanicPayload> {
        let mut this = self.project();
        let _inside = Enter::new(this.context); // M1
        catch(|| this.future.set(None))
    }
}

/// Notes what a member waits for, if anybody wants to know.
#[inline]
pub(super) fn note(context: &Context) {
    if detail::is_on() {
        context.note();
    }
}

/// Tells the group how a child ended, and takes it out of the registry, unless it lingers there for what it left behind.
pub(super) fn record<V>(
    context: &Context,
    location: &'static Location<'static>,
    registered: bool,
    lingers: bool,
    why: Cause<V>,
) -> End<V> {
    let Context { core, serial, seat } = context;
    let word = core.word().read();
    if matches!(why, Cause::Cancelled) && seat.is_none() && core.ends_unseen(word) {
        return End {
            settled: Settled::Cancelled(Why::Group),
            event: None,
        };
    }
    // One that was singled out before it ever waited has an entry that it does not know of.
    let entry = (registered || seat.is_some() || !word.is_calm())
        .then(|| match lingers {
            true => core.registry().linger(*serial, location),
            false => core.registry().remove(*serial),
        })
        .flatten();
    let mark = entry.as_ref().map_or(Mark::None, |entry| entry.mark);
    let since = entry.as_ref().and_then(|entry| entry.since);
    let name = entry.as_ref().and_then(|entry| entry.name().cloned());
    let info = || core.info(*serial, name.clone(), location);
    let (settled, how) = match why {
        Cause::Returned(value) => (Settled::Completed(Kept::new(value, core)), Ended::Completed),
        Cause::Failed(error) => {
            core.fail(RawFailure {
                task: Some(info()),
                kind: RawKind::Error(error),
            }); // M3
            (Settled::Failed, Ended::Failed)
        }
        Cause::Panicked(panic) => {
            core.fail(RawFailure {
                task: Some(info()),
                kind: RawKind::Panic(panic),
            }); // M3
            (Settled::Panicked, Ended::Panicked)
        }
        Cause::Cancelled => {
            let why = core.why(*serial, mark > Mark::None);
            let reason = core.reason_why(why);
            let is_overrun = seat.as_ref().is_some_and(|seat| seat.is_overrun());
            core.forced(*serial, mark, is_overrun, || Straggler {
                task: Some(info()),
                group: core.path().cloned(),
                reason: reason.clone(),
                age: since.map(|since| Instant::from_std(since).elapsed()),
            });
            (Settled::Cancelled(why), Ended::Cancelled(reason))
        }
        Cause::Gone => {
            core.cancel_now(CancelReason::RuntimeGone);
            (Settled::RuntimeGone, Ended::RuntimeGone)
        }
    };
    let event = core.observer().map(|_| Box::new((info(), how)));
    End { settled, event }
}

impl<F, E, V> Future for Member<F, E>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    V: Send + 'static,
    E: Send + 'static,
{
    type Output = Settled<V>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Settled<V>> {
        if pulse::is_on() {
            return self.poll_timed(cx);
        }
        self.poll_now(cx)
    }
}

impl<F, E, V> Member<F, E>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    V: Send + 'static,
    E: Send + 'static,
{
    #[cold]
    fn poll_timed(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Settled<V>> {
        let context = self.context.as_ref();
        let timed = context.map(|it| pulse::begin(&it.core, it.serial, self.location));
        let polled = self.poll_now(cx);
        drop(timed);
        polled
    }

    #[inline]
    fn poll_now(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Settled<V>> {
        let this = self.as_mut().project();
        let Some(context) = this.context else {
            return Poll::Ready(Settled::RuntimeGone);
        };
        if this.future.is_none() {
            return self.poll_settled(cx);
        }
        let word = context.core.word().read();
        if context.core.is_forced(word, context.serial) && !context.may_go_on(cx) {
            let end = self.as_mut().force();
            return self.settle(end, cx);
        }

        let mut output = None;
        let polled = self.as_mut().step(cx, &mut output);
        let why = match (polled, output) {
            (Ok(()), None) => {
                if self.as_mut().park(cx) {
                    return Poll::Pending;
                }
                self.as_mut().force()
            }
            (Ok(()), Some(output)) => match output.into_result() {
                Ok(value) => match self.as_mut().settle_calm(value) {
                    Ok(settled) => return Poll::Ready(settled),
                    Err(value) => Cause::Returned(value),
                },
                Err(error) => Cause::Failed(Box::new(error)),
            },
            (Err(panic), output) => {
                self.as_mut().displace_rest(output);
                Cause::Panicked(panic)
            }
        };
        self.settle(why, cx)
    }
}
