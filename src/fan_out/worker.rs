//! A worker: a child of the fan-out's group that takes items and runs them, one after the other.
//!
//! U1. An item's future is dropped before its result goes on, its permits go back, or the next item is taken. U2. However a
//! worker ends, it counts itself out, and the item it was at is counted as cancelled. U3. One that started another lets it run
//! first: on several threads that one would otherwise be stuck behind an item that does not wait.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::fan_out::crew::{Badge, Crew, Next};
use crate::fan_out::input::Input;
use crate::fan_out::intake::{Intake, Pass, Taken};
use crate::fan_out::outlet::Outlet;
use crate::fan_out::output::ItemOutput;
use crate::fan_out::pace::Pace;
use crate::fan_out::progress::{End, Progress};
use crate::group::spawn::{Birth, admit};
use crate::observe::CancelReason;
use crate::state::word::Kind;
use crate::state::{Core, RawFailure, RawKind};
use crate::sync::{Arc, AtomicBool, Lock, Ordering, PlainArc};

/// How often a worker looks whether the intake is free before it lets others run.
const TRIES: usize = 200;

/// What the workers of a fan-out share.
pub(crate) struct Shared<S: Input, F, O> {
    pub(crate) door: Lock<Door<S>>,
    /// Nothing more is to be taken.
    pub(crate) is_stopped: AtomicBool,
    pub(crate) closing: Closing,
    pub(crate) function: F,
    pub(crate) outlet: O,
    pub(crate) progress: Option<Progress>,
    pub(crate) core: Arc<Core>,
    pub(crate) runtime: Option<Handle>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) has_steps: bool,
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
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

pub(crate) struct Door<S: Input> {
    pub(crate) intake: Intake<S, S::Item>,
    pub(crate) crew: Crew,
}

pin_project! {
    pub(crate) struct Worker<S, F, Fut, O>
    where
        S: Input,
        Fut: Future,
        Fut::Output: ItemOutput,
        O: Outlet<<Fut::Output as ItemOutput>::Value, <Fut::Output as ItemOutput>::Error>,
    {
        // Dropped first (U1).
        #[pin]
        running: Option<Fut>,
        pass: Pass,
        // The first poll of an item is put off by one turn (U3).
        is_behind: bool,
        // An item was started and has not ended.
        is_at_item: bool,
        is_out: bool,
        badge: Badge,
        pace: Pace,
        kept: O::Kept,
        shared: PlainArc<Shared<S, F, O>>,
    }

    impl<S, F, Fut, O> PinnedDrop for Worker<S, F, Fut, O>
    where
        S: Input,
        Fut: Future,
        Fut::Output: ItemOutput,
        O: Outlet<<Fut::Output as ItemOutput>::Value, <Fut::Output as ItemOutput>::Error>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.is_out {
                return;
            }
            let shared = &**this.shared;
            if let (true, Some(progress)) = (*this.is_at_item, &shared.progress) {
                progress.end(End::Cancelled);
            }
            shared.stop();
            if shared.leave(this.badge) {
                shared.outlet.close();
                    shared.closing.close();
            }
        }
    }
}

type Value<Fut> = <<Fut as Future>::Output as ItemOutput>::Value;
type Error<Fut> = <<Fut as Future>::Output as ItemOutput>::Error;

impl<S: Input, F, O> Shared<S, F, O> {
    /// Counts a worker out; the first to go wakes all who wait, and the last one closes the door.
    fn leave(&self, badge: &mut Badge) -> bool {
        let (is_last, all) = {
            let mut door = self.door.lock();
            (door.crew.leave(badge), door.crew.wake_all())
        };
        for waker in all {
            waker.wake();
        }
        is_last
    }

    /// Notes that so many results were delivered.
    pub(crate) fn deliver(&self, n: usize) {
        let waker = {
            let mut door = self.door.lock();
            door.intake.deliver(n);
            door.crew.wake_one()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets the workers take nothing more.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
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
    pub(crate) fn start(shared: PlainArc<Shared<S, F, O>>, number: usize) {
        let core = shared.core.clone();
        let (runtime, location) = (shared.runtime.clone(), shared.location);
        let worker = Self {
            running: None,
            pass: Pass::default(),
            is_behind: false,
            is_at_item: false,
            is_out: false,
            badge: Badge::new(number),
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

    /// Takes the next item, and sees to who takes the one after it.
    fn take(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let shared = &**this.shared;
        let mut tries = 0;
        let mut door = loop {
            if let Some(door) = shared.door.try_lock() {
                break door;
            }
            tries += 1;
            if tries == TRIES {
                // The input takes its time: this thread has other things to do.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            std::hint::spin_loop();
        };
        let Door { intake, crew } = &mut *door;
        crew.arrive(this.badge);
        if let Some(key) = this.pass.key.take() {
            intake.done(key);
        }
        if shared.is_stopped.load(Ordering::Relaxed) {
            let reason = shared.core.reason();
            let reason = reason.or_else(|| crate::cancel::token().reason());
            // That its own children are cancelled means that it has what it wanted.
            intake.cut(reason.filter(|reason| *reason != CancelReason::ChildrenCancelled));
        }
        let may_pull = !crew.is_inside();
        if !may_pull && !intake.has_ready() {
            crew.wait_idle(this.badge, cx.waker().clone());
            return Poll::Pending;
        }
        match intake.poll(may_pull, this.pass, cx) {
            Poll::Ready(Taken::Item(item)) => {
                let next = crew.next();
                drop(door);
                match next {
                    Next::Nothing => {}
                    Next::Wake(waker) => waker.wake(),
                    Next::Start(number) => {
                        Self::start(this.shared.clone(), number);
                        *this.is_behind = shared.is_parallel;
                    }
                }
                Poll::Ready(Some(item))
            }
            Poll::Ready(Taken::Full) => {
                crew.wait_idle(this.badge, cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Taken::End) => Poll::Ready(None),
            Poll::Pending => {
                crew.wait_inside(this.badge, cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Hands on the result of the item that has just ended.
    fn hand_on(self: Pin<&mut Self>, result: Result<Value<Fut>, Error<Fut>>) {
        let this = self.project();
        let shared = &**this.shared;
        *this.is_at_item = false;
        if shared.has_steps {
            if let Some(permit) = this.pass.permit.take() {
                match &result {
                    Ok(_) => permit.succeeded(),
                    Err(_) => permit.overloaded(),
                }
            }
        }
        if let Some(progress) = &shared.progress {
            progress.end(if result.is_ok() {
                End::Done
            } else {
                End::Failed
            });
        }
        let index = this.pass.index;
        if let Some(error) = shared.outlet.put(this.kept, index, result) {
            shared.stop();
            fail(&shared.core, shared.location, index, error);
        }
    }
}

/// Has the group fail with the error of an item.
pub(crate) fn fail<E: Send + 'static>(
    core: &Core,
    location: &'static Location<'static>,
    index: usize,
    error: E,
) {
    let serial = crate::context::task_id().map_or(0, |id| id.serial);
    let name = PlainArc::from(format!("item {index}"));
    core.fail(RawFailure {
        task: Some(core.info(serial, Some(name), location)),
        kind: RawKind::Error(Box::new(error)),
    });
}

impl<S, F, Fut, O> Future for Worker<S, F, Fut, O>
where
    S: Input<Item: Send> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: ItemOutput<Value: Send, Error: Send + 'static>> + Send + 'static,
    O: Outlet<Value<Fut>, Error<Fut>>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut this = self.as_mut().project();
            if let Some(running) = this.running.as_mut().as_pin_mut() {
                if std::mem::take(this.is_behind) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Poll::Ready(output) = running.poll(cx) else {
                    this.pace.pause();
                    this.shared.outlet.flush(this.kept);
                    return Poll::Pending;
                };
                this.running.set(None); // U1
                let is_over = this.pace.step();
                self.as_mut().hand_on(output.into_item());
                if is_over {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let taken = ready!(self.as_mut().take(cx));
            let mut this = self.as_mut().project();
            let Some(item) = taken else {
                this.shared.outlet.flush(this.kept);
                *this.is_out = true;
                if this.shared.leave(this.badge) {
                    this.shared.outlet.close();
                    this.shared.closing.close();
                }
                return Poll::Ready(());
            };
            *this.is_at_item = true;
            if let Some(progress) = &this.shared.progress {
                progress.start();
            }
            this.running.set(Some((this.shared.function)(item)));
        }
    }
}
