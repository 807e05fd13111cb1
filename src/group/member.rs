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

use crate::context::{Context, Enter};
use crate::group::handle::{Kept, Outcome};
use crate::group::output::TaskOutput;
use crate::observe::{CancelReason, DisplacedWhat, Ended, Straggler, displace};
use crate::panic::{PanicPayload, catch};
use crate::state::registry::Mark;
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind};
use crate::sync::Arc;

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

/// How the user's future ended, before the child has.
pub(super) enum End<V> {
    Returned(V),
    Failed(Box<dyn std::any::Any + Send>),
    Panicked(PanicPayload),
    Cancelled,
    /// The runtime was shut down.
    Gone,
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
                adopter: None,
            }),
            location,
            kind,
            registered: named,
            parked: false,
            future: Some(future),
            error: std::marker::PhantomData,
        }
    }

    fn poll_settled(self: Pin<&mut Self>, cx: &TaskContext<'_>) -> Poll<Outcome<Kept<V>>> {
        let this = self.project();
        let adopter = this
            .context
            .as_ref()
            .and_then(|context| context.adopter.clone());
        let Some(adopter) = adopter else {
            return Poll::Ready(Outcome::RuntimeGone);
        };
        if !adopter.poll_empty(cx.waker()) {
            return Poll::Pending;
        }
        let kept = adopter
            .take_kept()
            .and_then(|kept| kept.downcast::<Outcome<Kept<V>>>().ok());
        if let Some(Context { core, serial, .. }) = this.context.take() {
            if !core.word().read().is_calm() {
                // Singled out while it waited, after its entry was taken out.
                drop(core.registry().remove(serial));
            }
            core.leave(*this.kind);
        }
        Poll::Ready(kept.map_or(Outcome::RuntimeGone, |kept| *kept))
    }

    /// The common end: a value, and nothing that anybody else would have to know. Gives the value back if it is not so.
    #[inline]
    fn settle_calm(self: Pin<&mut Self>, value: V) -> Result<Outcome<Kept<V>>, V> {
        let this = self.project();
        let is_calm = |context: &Context| {
            context.adopter.is_none()
                && context.core.observer().is_none()
                && context.core.word().read().is_calm()
        };
        if *this.registered || !this.context.as_ref().is_some_and(is_calm) {
            return Err(value);
        }
        let Some(Context { core, .. }) = this.context.take() else {
            return Err(value);
        };
        core.leave(*this.kind); // M2
        Ok(Outcome::Completed(Kept::new(value, &core)))
    }

    /// The user's future is gone: records how, and ends the child unless it has to wait for scopes that it dropped.
    fn settle(self: Pin<&mut Self>, end: End<V>, cx: &TaskContext<'_>) -> Poll<Outcome<Kept<V>>> {
        let mut this = self.project();
        let Some(context) = this.context.as_mut() else {
            return Poll::Ready(Outcome::RuntimeGone);
        };
        let outcome = record(context, this.location, std::mem::take(this.registered), end);
        let adopter = context.adopter.as_ref();
        if let Some(adopter) = adopter.filter(|adopter| !adopter.poll_empty(cx.waker())) {
            adopter.keep(Box::new(outcome));
            return Poll::Pending;
        }
        if let Some(context) = this.context.take() {
            context.core.leave(*this.kind); // M2
        }
        this.future.set(None);
        Poll::Ready(outcome)
    }

    /// Registers the child when it first has to wait. Says no if it has to end instead.
    fn park(self: Pin<&mut Self>, cx: &TaskContext<'_>) -> bool {
        let this = self.project();
        if *this.parked {
            // A task's waker never changes, and the entry is ours until we end.
            return true;
        }
        let Some(context) = this.context else {
            return false;
        };
        *this.parked = context.core.park(context.serial, cx.waker(), this.location);
        *this.registered |= *this.parked;
        *this.parked
    }

    /// Drops the user's future where it is parked.
    fn force(mut self: Pin<&mut Self>) -> End<V> {
        match self.as_mut().drop_future() {
            Ok(()) => End::Cancelled,
            Err(panic) => End::Panicked(panic),
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
        if was_running {
            let word = context.core.word().read();
            let end = match dropped {
                Err(panic) => End::Panicked(panic),
                Ok(()) if context.core.is_forced(word, context.serial) => End::Cancelled,
                Ok(()) => End::Gone,
            };
            drop(record::<V>(&context, this.location, *this.registered, end));
        }
        let (core, kind) = (context.core.clone(), *this.kind);
        let leaves = match context.adopter.take() {
            Some(adopter) => {
                drop(adopter.take_kept());
                adopter.inherit(core, kind)
            }
            None => Some((core, kind)),
        };
        if let Some((core, kind)) = leaves {
            core.leave(kind);
        }
    }

    fn drop_future(self: Pin<&mut Self>) -> Result<(), PanicPayload> {
        let mut this = self.project();
        let _inside = Enter::new(this.context); // M1
        catch(|| this.future.set(None))
    }
}

/// Tells the group and the observer how a child ended, and takes it out of the registry.
pub(super) fn record<V>(
    context: &Context,
    location: &'static Location<'static>,
    registered: bool,
    end: End<V>,
) -> Outcome<Kept<V>> {
    let Context { core, serial, .. } = context;
    let word = core.word().read();
    // One that was singled out before it ever waited has an entry that it does not know of.
    let entry = (registered || !word.is_calm())
        .then(|| core.registry().remove(*serial))
        .flatten();
    let mark = entry.as_ref().map_or(Mark::None, |entry| entry.mark);
    let since = entry.as_ref().and_then(|entry| entry.since);
    let name = entry.and_then(|entry| entry.name);
    let info = || core.info(*serial, name.clone(), location);
    let (outcome, how) = match end {
        End::Returned(value) => (Outcome::Completed(Kept::new(value, core)), Ended::Completed),
        End::Failed(error) => {
            core.fail(RawFailure {
                task: Some(info()),
                kind: RawKind::Error(error),
            }); // M3
            (Outcome::Failed, Ended::Failed)
        }
        End::Panicked(panic) => {
            core.fail(RawFailure {
                task: Some(info()),
                kind: RawKind::Panic(panic),
            }); // M3
            (Outcome::Panicked, Ended::Panicked)
        }
        End::Cancelled => {
            let reason = core.reason_for(*serial, mark);
            if core.has_grace() && reason != CancelReason::ScopeDropped {
                core.straggled(Straggler {
                    task: info(),
                    reason: reason.clone(),
                    age: since.map(|since| Instant::from_std(since).elapsed()),
                });
            }
            (Outcome::Cancelled(reason.clone()), Ended::Cancelled(reason))
        }
        End::Gone => {
            core.cancel(CancelReason::RuntimeGone, true);
            (Outcome::RuntimeGone, Ended::RuntimeGone)
        }
    };
    core.tell_ended(info, &how);
    outcome
}

impl<F, E, V> Future for Member<F, E>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    V: Send + 'static,
    E: Send + 'static,
{
    type Output = Outcome<Kept<V>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        let Some(context) = this.context else {
            return Poll::Ready(Outcome::RuntimeGone);
        };
        if this.future.is_none() {
            return self.poll_settled(cx);
        }
        if context
            .core
            .is_forced(context.core.word().read(), context.serial)
        {
            let end = self.as_mut().force();
            return self.settle(end, cx);
        }

        // Kept outside of what may throw, so that it is dropped on its own if the future's destructor does.
        let mut output = None;
        let polled = {
            let _inside = Enter::new(this.context);
            catch(|| {
                let future = this.future.as_mut().as_pin_mut();
                if let Some(Poll::Ready(ready)) = future.map(|future| future.poll(cx)) {
                    output = Some(ready);
                    this.future.set(None);
                }
            })
        };
        let end = match (polled, output) {
            (Ok(()), None) => {
                if self.as_mut().park(cx) {
                    return Poll::Pending;
                }
                self.as_mut().force()
            }
            (Ok(()), Some(output)) => match catch(|| output.into_result()) {
                Ok(Ok(value)) => match self.as_mut().settle_calm(value) {
                    Ok(outcome) => return Poll::Ready(outcome),
                    Err(value) => End::Returned(value),
                },
                Ok(Err(error)) => End::Failed(Box::new(error)),
                Err(panic) => End::Panicked(panic),
            },
            (Err(panic), output) => {
                let core = this.context.as_ref().map(|context| context.core.clone());
                let mut displaced = Vec::new();
                if let Err(second) = self.as_mut().drop_future() {
                    displaced.push(DisplacedWhat::Panic(second));
                }
                // It had returned, and its destructor threw then: an error that it returned must not be lost.
                match catch(|| output.and_then(|output| output.into_result().err())) {
                    Ok(None) => {}
                    Ok(Some(error)) => displaced.push(DisplacedWhat::Error(Box::new(error))),
                    Err(second) => displaced.push(DisplacedWhat::Panic(second)),
                }
                if let Some(core) = core {
                    for what in displaced {
                        displace(core.observer(), None, what);
                    }
                }
                End::Panicked(panic)
            }
        };
        self.settle(end, cx)
    }
}
