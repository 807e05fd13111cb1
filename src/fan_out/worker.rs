//! A worker: a child of the fan-out's group that takes items and runs them, one after the other.
//!
//! U1. An item's future is dropped before its result goes on, its permits go back, or the next item is taken. U2. However a
//! worker ends, it counts itself out, the item it was at is counted as cancelled, and errors that nobody has been told of go
//! to the group. U3. One that started another lets it run first: on several threads that one would otherwise be stuck behind
//! an item that does not wait. U4. It looks at its group before it begins, and after each wait: items that shield themselves,
//! one after the other, do not outlast a force.

use std::future::{Future, pending, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::calm::calmly;
use crate::fan_out::crew::Next;
use crate::fan_out::door::{Door, Visit};
use crate::fan_out::input::Input;
use crate::fan_out::outlet::{Outlet, Put};
use crate::fan_out::output::ItemOutput;
use crate::fan_out::pace::Pace;
use crate::fan_out::progress::{End, Progress};
use crate::group::spawn::{Birth, admit};
use crate::observe::{CancelReason, DisplacedWhat, TaskInfo, displace, wake};
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind};
use crate::sync::{Arc, Lock, PlainArc};

/// What the workers of a fan-out share.
pub(crate) struct Shared<S: Input, F, O> {
    pub(crate) door: Door<S, S::Item>,
    pub(crate) closing: Closing,
    pub(crate) function: F,
    pub(crate) outlet: O,
    pub(crate) progress: Option<Progress>,
    pub(crate) core: Arc<Core>,
    pub(crate) runtime: Option<Handle>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) is_parallel: bool,
}

/// Whether the last worker has ended, and who waits for that.
pub(crate) struct Closing(Lock<(bool, Option<Waker>)>);

impl Closing {
    pub(crate) fn new() -> Self {
        Self(Lock::new((false, None)))
    }

    /// Waits until the last worker has ended.
    pub(crate) async fn closed(&self) {
        poll_fn(|cx| {
            let fresh = cx.waker().clone();
            let (old, is_closed) = {
                let mut closed = self.0.lock();
                (closed.1.replace(fresh), closed.0)
            };
            drop(old);
            if is_closed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn close(&self) {
        let waker = {
            let mut closed = self.0.lock();
            closed.0 = true;
            closed.1.take()
        };
        wake(waker);
    }
}

/// Where a worker is. One that is dropped in the middle of an item has been thrown out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Door,
    /// The user's code runs.
    Item,
    /// An item was started, and waits.
    Wait,
}

pin_project! {
    pub(crate) struct Worker<S, F, Fut, O>
    where
        S: Input,
        Fut: Future,
        Fut::Output: ItemOutput,
        <Fut::Output as ItemOutput>::Error: Send,
        <Fut::Output as ItemOutput>::Error: 'static,
        O: Outlet<<Fut::Output as ItemOutput>::Value, <Fut::Output as ItemOutput>::Error>,
    {
        // Dropped first (U1).
        #[pin]
        running: Option<Fut>,
        visit: Visit<S::Item>,
        at: At,
        is_out: bool,
        pace: Pace,
        kept: O::Kept,
        shared: PlainArc<Shared<S, F, O>>,
    }

    impl<S, F, Fut, O> PinnedDrop for Worker<S, F, Fut, O>
    where
        S: Input,
        Fut: Future,
        Fut::Output: ItemOutput,
        <Fut::Output as ItemOutput>::Error: Send,
        <Fut::Output as ItemOutput>::Error: 'static,
        O: Outlet<<Fut::Output as ItemOutput>::Value, <Fut::Output as ItemOutput>::Error>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.is_out {
                return;
            }
            let shared = &**this.shared;
            if *this.at == At::Item {
                name(this.visit.pass.index);
            }
            if *this.at != At::Door {
                shared.door.tear();
                if let Some(progress) = &shared.progress {
                    progress.end(End::Cancelled);
                }
            }
            shared.door.stop(None);
            shared.leave(this.visit, this.kept);
        }
    }
}

type Value<Fut> = <<Fut as Future>::Output as ItemOutput>::Value;
type Error<Fut> = <<Fut as Future>::Output as ItemOutput>::Error;

impl<S: Input, F, O> Shared<S, F, O> {
    /// Counts a worker out; the last one closes the door.
    fn leave<V, E: Send + 'static>(&self, visit: &mut Visit<S::Item>, kept: &mut O::Kept)
    where
        O: Outlet<V, E>,
    {
        self.tell(self.outlet.flush(kept));
        for (index, error) in self.outlet.overlooked() {
            let what = DisplacedWhat::Overlooked(Box::new(error));
            displace(self.core.observer(), Some(self.info(index)), what);
        }
        if self.door.leave(visit) {
            self.outlet.close();
            self.closing.close();
        }
    }

    /// Has the group fail with errors of items.
    pub(crate) fn tell<E: Send + 'static>(&self, errors: impl IntoIterator<Item = (usize, E)>) {
        fail_with(&self.core, self.location, errors);
    }

    fn info(&self, index: usize) -> TaskInfo {
        info(&self.core, self.location, index)
    }

    /// Cancels the group if its workers did not get through the input. They have ended.
    pub(crate) fn cut_if_torn(&self) -> bool {
        let Some(reason) = self.door.why_torn() else {
            return false;
        };
        let reason = reason.or_else(|| self.core.reason());
        self.core
            .cancel_now(reason.unwrap_or(CancelReason::RuntimeGone));
        true
    }
}

impl<S, F, O> Shared<S, F, O>
where
    S: Input<Item: Send> + Send,
    F: Send + Sync,
    O: Send + Sync,
{
    /// Waits until the last worker has ended; for ever if they did not get through the input, because the group is cancelled
    /// then, if it is not yet.
    pub(crate) async fn done(&self) {
        self.closing.closed().await;
        if self.cut_if_torn() {
            pending::<()>().await;
        }
    }
}

/// Has a group fail with errors of items.
pub(crate) fn fail_with<E: Send + 'static>(
    core: &Core,
    location: &'static Location<'static>,
    errors: impl IntoIterator<Item = (usize, E)>,
) {
    for (index, error) in errors {
        core.fail(RawFailure {
            task: Some(info(core, location, index)),
            kind: RawKind::Error(Box::new(error)),
        });
    }
}

fn info(core: &Core, location: &'static Location<'static>, index: usize) -> TaskInfo {
    let serial = crate::context::task_id().map_or(0, |id| id.serial);
    let name = PlainArc::from(format!("item {index}"));
    core.info(serial, Some(name), location)
}

/// Names the worker whose item has thrown after that: the panic is told of as the item's.
#[cold]
fn name(index: usize) {
    if let Some((core, serial, _)) = crate::context::place() {
        core.set_name(serial, format!("item {index}").into());
    }
}

/// The result of an item while its future is dropped. Should that throw, an error must not be lost, nor what the destructor of
/// a value throws in turn end the process.
struct Returned<'a, S: Input, F, O, V, E: Send + 'static> {
    shared: &'a Shared<S, F, O>,
    index: usize,
    result: Option<Result<V, E>>,
}

impl<S: Input, F, O, V, E: Send + 'static> Drop for Returned<'_, S, F, O, V, E> {
    #[inline]
    fn drop(&mut self) {
        match self.result.take() {
            None => {}
            Some(Ok(value)) => calmly(|| drop(value)),
            Some(Err(error)) => {
                let info = self.shared.info(self.index);
                displace(
                    self.shared.core.observer(),
                    Some(info),
                    DisplacedWhat::Error(Box::new(error)),
                );
            }
        }
    }
}

impl<S, F, Fut, O> Worker<S, F, Fut, O>
where
    S: Input<Item: Send> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: ItemOutput<Value: Send, Error: Send + 'static>> + Send + 'static,
    O: Outlet<Value<Fut>, Error<Fut>>,
{
    /// Starts a worker in the group. It is counted in by now.
    pub(crate) fn start(shared: PlainArc<Shared<S, F, O>>) {
        let core = shared.core.clone();
        let (runtime, location) = (shared.runtime.clone(), shared.location);
        let worker = Self {
            running: None,
            visit: Visit::new(),
            at: At::Door,
            is_out: false,
            pace: Pace::new(),
            kept: O::Kept::default(),
            shared,
        };
        let birth = Birth {
            kind: Kind::Normal,
            name: None,
            location,
        };
        // Refused by a group that is closing, the worker counts itself out.
        if let Ok((member, _)) = admit::<Self, Error<Fut>, ()>(&core, worker, &birth) {
            drop(crate::runtime::spawn(runtime.as_ref(), member));
        }
    }
}

impl<S, F, Fut, O> Future for Worker<S, F, Fut, O>
where
    S: Input<Item: Send> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: ItemOutput<Value: Send, Error: Send + 'static>> + Send + 'static,
    O: Outlet<Value<Fut>, Error<Fut>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let shared = &**this.shared;
        if shared.core.word().read().is_cancelled() && !shared.door.is_stopped() {
            shared.door.stop(None); // U4
        }
        let mut lease = None;
        loop {
            if let Some(running) = this.running.as_mut().as_pin_mut() {
                *this.at = At::Item;
                let Poll::Ready(output) = running.poll(cx) else {
                    *this.at = At::Wait;
                    this.pace.pause();
                    return Poll::Pending;
                };
                let index = this.visit.pass.index;
                let mut returned = Returned {
                    shared,
                    index,
                    result: Some(output.into_item()),
                };
                this.running.set(None); // U1
                *this.at = At::Door;
                if let Some(permit) = this.visit.pass.permit.take() {
                    match &returned.result {
                        Some(Ok(_)) => permit.succeeded(),
                        _ => permit.overloaded(),
                    }
                }
                let is_over = this.pace.step();
                if let Some(result) = returned.result.take() {
                    if let Some(progress) = &shared.progress {
                        progress.end(End::of(&result));
                    }
                    if let Put::Break(error) = shared.outlet.put(this.kept, index, result) {
                        shared.door.stop(None);
                        shared.tell(error.map(|error| (index, error)));
                    }
                }
                if is_over {
                    shared.tell(shared.outlet.flush(this.kept));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let Some((item, next)) = ready!(shared.door.poll_next(this.visit, &mut lease, cx))
            else {
                drop(lease); // the caller, who is woken by that, takes the lock, perhaps at once
                *this.is_out = true;
                shared.leave(this.visit, this.kept);
                return Poll::Ready(());
            };
            *this.at = At::Item;
            if let Some(progress) = &shared.progress {
                progress.start();
            }
            let mut has_started = false;
            match next {
                Next::Nothing => {}
                Next::Wake(waker) => waker.wake(),
                Next::Start => {
                    Self::start(this.shared.clone());
                    has_started = true;
                }
            }
            this.running.set(Some((shared.function)(item)));
            if has_started && shared.is_parallel {
                *this.at = At::Wait;
                cx.waker().wake_by_ref();
                return Poll::Pending; // U3
            }
        }
    }
}
