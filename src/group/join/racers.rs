//! The children of one helper, and how they tell that they have ended.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::held::{Held, Untaken};
use crate::group::handle::TaskHandle;
use crate::observe::wake;
use crate::state::{Core, Inherited};
use crate::sync::{Lock, PlainArc};
use crate::time::timeout;

/// Who has ended, in that order.
pub(super) struct Ends<T> {
    done: Lock<Done<T>>,
    untaken: Untaken<T>,
    pub(super) observed: Option<PlainArc<Inherited>>,
}

/// The place of one, and what it returned; nothing if it was cancelled, or threw.
type End<T> = (usize, Option<Held<T>>);

struct Done<T> {
    ends: VecDeque<End<T>>,
    waker: Option<Waker>,
}

impl<T> Ends<T> {
    fn push(&self, place: usize, output: Option<T>) {
        let hold = |output| Held::new(output, self.untaken, self.observed.clone());
        let output = output.map(hold);
        let waker = {
            let mut done = self.done.lock();
            done.ends.push_back((place, output));
            done.waker.take()
        };
        wake(waker);
    }

    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<End<T>> {
        let waker = cx.waker().clone();
        let mut done = self.done.lock();
        if let Some(end) = done.ends.pop_front() {
            drop(done);
            return Poll::Ready(end);
        }
        let old = done.waker.replace(waker);
        drop(done);
        drop(old);
        Poll::Pending
    }
}

pin_project! {
    /// One of the futures, as a child.
    pub(crate) struct Racer<F>
    where
        F: Future,
    {
        #[pin]
        future: F,
        place: usize,
        // None once it has said how it ended.
        ends: Option<PlainArc<Ends<F::Output>>>,
    }

    impl<F> PinnedDrop for Racer<F>
    where
        F: Future,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(ends) = this.ends.take() {
                ends.push(*this.place, None);
            }
        }
    }
}

impl<F: Future> Future for Racer<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let output = std::task::ready!(this.future.poll(cx));
        if let Some(ends) = this.ends.take() {
            ends.push(*this.place, Some(output));
        }
        Poll::Ready(())
    }
}

/// The children of one helper.
pub(super) struct Racers<'g, T> {
    pub(super) ends: PlainArc<Ends<T>>,
    /// Each at its place; none once its child is known to be gone: to have returned is not enough, nor to be cancelled (J1).
    pub(super) handles: Vec<Option<TaskHandle<'g, ()>>>,
    pub(super) running: usize,
}

impl<'g, T> Racers<'g, T> {
    pub(super) fn new(core: &Core, untaken: Untaken<T>) -> Self {
        let done = Done {
            ends: VecDeque::new(),
            waker: None,
        };
        Self {
            ends: PlainArc::new(Ends {
                done: Lock::new(done),
                untaken,
                observed: core.observed(),
            }),
            handles: Vec::new(),
            running: 0,
        }
    }

    pub(super) fn start<F>(&mut self, future: F, spawn: impl FnOnce(Racer<F>) -> TaskHandle<'g, ()>)
    where
        F: Future<Output = T>,
    {
        let racer = Racer {
            future,
            place: self.handles.len(),
            ends: Some(self.ends.clone()),
        };
        self.running += 1;
        self.handles.push(Some(spawn(racer)));
    }

    /// Waits for the next one to end, and to be gone. One that was cancelled, or threw, gives its place, for
    /// [`stuck`](Self::stuck) (J4).
    pub(super) async fn next(&mut self) -> Result<(usize, Held<T>), usize> {
        let end = poll_fn(|cx| self.ends.poll_next(cx)).await;
        self.ended(end).await
    }

    /// The same, for so long at most. It is the end that is waited for so long: what has ended is not lost.
    pub(super) async fn next_within(
        &mut self,
        limit: Duration,
    ) -> Option<Result<(usize, Held<T>), usize>> {
        let end = timeout(limit, poll_fn(|cx| self.ends.poll_next(cx))).await;
        Some(self.ended(end.ok()?).await)
    }

    async fn ended(&mut self, (place, output): End<T>) -> Result<(usize, Held<T>), usize> {
        self.running -= 1;
        // Its handle stays for `finish`: what it has left behind may take its time.
        let Some(output) = output else {
            return Err(place);
        };
        if let Some(handle) = self.handles.get_mut(place).and_then(Option::take) {
            handle.outcome().await; // J1: its destructors have run.
        }
        Ok((place, output))
    }

    /// Waits for a child whose value will not come: the body ends here (H2).
    pub(super) async fn stuck(mut self, place: usize) -> ! {
        if let Some(handle) = self.handles.get_mut(place).and_then(Option::take) {
            handle.await;
        }
        std::future::pending().await
    }

    /// Cancels all who still run, and waits until they are gone (J1).
    pub(super) async fn finish(mut self) {
        self.cancel();
        for handle in self.handles.drain(..).flatten() {
            handle.outcome().await;
        }
    }

    fn cancel(&self) {
        self.handles.iter().flatten().for_each(TaskHandle::cancel);
    }
}

impl<T> Drop for Racers<'_, T> {
    fn drop(&mut self) {
        self.cancel(); // J3
    }
}
