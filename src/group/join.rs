//! Joining helpers: several futures as children of a group, and one answer.
//!
//! J1. Whoever is not needed any more is cancelled, and gone, before the answer is given. J2. What a future fails with is the
//! caller's, not the group's; a panic is the group's, as any child's. J3. Dropped early, a helper cancels what it has
//! started, and the group waits for it. J4. A helper never waits for what cannot come: where a child that it needs was
//! cancelled by others, it awaits that child's handle, which ends the body (H2). J5. Each end costs constant time.

mod completed;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

pub use self::completed::AsCompleted;
use crate::group::TaskGroup;
use crate::group::borrow::{BorrowGroup, LocalGroup};
use crate::group::handle::{Outcome, TaskHandle};
use crate::observe::{CancelReason, wake};
use crate::sync::{Lock, PlainArc};
use crate::time::{Deadline, timeout, timeout_at};

/// Who has ended, in that order.
struct Ends<T>(Lock<Done<T>>);

struct Done<T> {
    /// The place of each, and what it returned; nothing if it was cancelled, or threw.
    ends: VecDeque<(usize, Option<T>)>,
    waker: Option<Waker>,
}

impl<T> Ends<T> {
    fn push(&self, place: usize, output: Option<T>) {
        let waker = {
            let mut done = self.0.lock();
            done.ends.push_back((place, output));
            done.waker.take()
        };
        wake(waker);
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<(usize, Option<T>)> {
        let waker = cx.waker().clone();
        let mut done = self.0.lock();
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
struct Racers<'g, T> {
    ends: PlainArc<Ends<T>>,
    /// Each at its place; none where it has ended.
    handles: Vec<Option<TaskHandle<'g, ()>>>,
    running: usize,
}

impl<'g, T> Racers<'g, T> {
    fn new() -> Self {
        Self {
            ends: PlainArc::new(Ends(Lock::new(Done {
                ends: VecDeque::new(),
                waker: None,
            }))),
            handles: Vec::new(),
            running: 0,
        }
    }

    fn start<F>(&mut self, future: F, spawn: impl FnOnce(Racer<F>) -> TaskHandle<'g, ()>)
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

    /// Waits for the next one to end. One that was cancelled, or threw, gives its handle, on which to wait for ever (J4).
    async fn next(&mut self) -> (usize, Result<T, Option<TaskHandle<'g, ()>>>) {
        let end = poll_fn(|cx| self.ends.poll_next(cx)).await;
        self.ended(end).await
    }

    /// The same, for so long at most. It is the end that is waited for so long: what has ended is not lost.
    async fn next_within(
        &mut self,
        limit: Duration,
    ) -> Option<(usize, Result<T, Option<TaskHandle<'g, ()>>>)> {
        let end = timeout(limit, poll_fn(|cx| self.ends.poll_next(cx))).await;
        Some(self.ended(end.ok()?).await)
    }

    async fn ended(
        &mut self,
        (place, output): (usize, Option<T>),
    ) -> (usize, Result<T, Option<TaskHandle<'g, ()>>>) {
        self.running -= 1;
        let handle = self.handles.get_mut(place).and_then(Option::take);
        match output {
            Some(output) => {
                if let Some(handle) = handle {
                    handle.outcome().await; // J1: its destructors have run.
                }
                (place, Ok(output))
            }
            None => (place, Err(handle)),
        }
    }

    /// Cancels all who still run, and waits until they are gone (J1).
    async fn finish(mut self) {
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

/// Waits for a child whose value will not come: the body ends here (H2).
async fn stuck(handle: Option<TaskHandle<'_, ()>>) -> ! {
    if let Some(handle) = handle {
        handle.await;
    }
    std::future::pending().await
}

async fn try_join_all<T, E>(mut racers: Racers<'_, Result<T, E>>) -> Result<Vec<T>, E> {
    let mut values: Vec<Option<T>> = racers.handles.iter().map(|_| None).collect();
    while racers.running > 0 {
        match racers.next().await {
            (place, Ok(Ok(value))) => values[place] = Some(value),
            (_, Ok(Err(error))) => {
                racers.finish().await;
                return Err(error);
            }
            (_, Err(handle)) => stuck(handle).await,
        }
    }
    Ok(values.into_iter().flatten().collect())
}

async fn first<T>(mut racers: Racers<'_, T>) -> Option<T> {
    let mut lost = None;
    while racers.running > 0 {
        match racers.next().await {
            (_, Ok(output)) => {
                racers.finish().await;
                return Some(output);
            }
            (_, Err(handle)) => lost = Some(handle),
        }
    }
    match lost {
        Some(handle) => stuck(handle).await,
        None => None,
    }
}

/// The engine of the races that look for a success: `start` starts the next one, or says that there is none.
async fn staggered<'g, T, E>(
    delay: Duration,
    mut start: impl FnMut(&mut Racers<'g, Result<T, E>>) -> bool,
) -> Result<T, Vec<E>> {
    let (mut racers, mut errors, mut lost) = (Racers::new(), Vec::new(), None);
    let mut is_more = start(&mut racers);
    while is_more && delay.is_zero() {
        is_more = start(&mut racers);
    }
    while racers.running > 0 {
        let end = if is_more {
            racers.next_within(delay).await
        } else {
            Some(racers.next().await)
        };
        match end {
            Some((_, Ok(Ok(value)))) => {
                racers.finish().await;
                return Ok(value);
            }
            Some((_, Ok(Err(error)))) => errors.push(error),
            Some((_, Err(handle))) => lost = Some(handle),
            None => {} // It is the next one's time.
        }
        is_more = is_more && start(&mut racers);
    }
    match lost {
        Some(handle) if errors.is_empty() => stuck(handle).await,
        _ => Err(errors),
    }
}

/// Handles whose children are cancelled if they are not waited for to the end (J3).
struct Unfinished<'g, T>(VecDeque<TaskHandle<'g, T>>);

impl<T> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        self.0.iter().for_each(TaskHandle::cancel);
    }
}

impl<T> Unfinished<'_, T> {
    /// Waits for the rest, in their order.
    async fn settle(&mut self, outcomes: &mut Vec<Outcome<T>>) {
        while let Some(handle) = self.0.front_mut() {
            outcomes.push(poll_fn(|cx| handle.poll_outcome(cx)).await);
            self.0.pop_front();
        }
    }
}

async fn settle_all<T>(mut handles: Unfinished<'_, T>) -> Vec<Outcome<T>> {
    let mut outcomes = Vec::with_capacity(handles.0.len());
    handles.settle(&mut outcomes).await;
    outcomes
}

async fn settle_all_by<T>(mut handles: Unfinished<'_, T>, deadline: Deadline) -> Vec<Outcome<T>> {
    let mut outcomes = Vec::with_capacity(handles.0.len());
    if timeout_at(deadline, handles.settle(&mut outcomes))
        .await
        .is_ok()
    {
        return outcomes;
    }
    let in_time = outcomes.len();
    handles.0.iter().for_each(TaskHandle::cancel);
    handles.settle(&mut outcomes).await;
    for outcome in &mut outcomes[in_time..] {
        // Nobody else has the handles.
        if matches!(outcome, Outcome::Cancelled(CancelReason::Handle)) {
            *outcome = Outcome::Cancelled(CancelReason::Deadline);
        }
    }
    outcomes
}

/// A tuple of two to six futures that a group can run as its children: see [`TaskGroup::try_join`].
///
/// Each returns a `Result`; the error is the same for all of them, and need not be the group's.
pub trait TryJoin<G, X> {
    /// The values, as a tuple.
    type Output;

    /// What [`TaskGroup::try_join`] returns: boxed, so that whether it is `Send` does not hang on what it was given.
    type Joining<'g>: Future<Output = Result<Self::Output, X>>
    where
        G: 'g;

    #[doc(hidden)]
    fn join<'g>(self, group: &'g G) -> Self::Joining<'g>;
}

type Boxed<'g, T> = Pin<Box<dyn Future<Output = T> + Send + 'g>>;
type BoxedLocal<'g, T> = Pin<Box<dyn Future<Output = T> + 'g>>;

macro_rules! tuples {
    ([$($env:lifetime)?] $Group:ty, $Boxed:ident, $Send:path, $life:lifetime) => {
        tuples! { @ [$($env)?] $Group, $Boxed, $Send, $life, A a, B b }
        tuples! { @ [$($env)?] $Group, $Boxed, $Send, $life, A a, B b, C c }
        tuples! { @ [$($env)?] $Group, $Boxed, $Send, $life, A a, B b, C c, D d }
        tuples! { @ [$($env)?] $Group, $Boxed, $Send, $life, A a, B b, C c, D d, F f }
        tuples! { @ [$($env)?] $Group, $Boxed, $Send, $life, A a, B b, C c, D d, F f, H h }
    };
    (@ [$($env:lifetime)?] $Group:ty, $Boxed:ident, $Send:path, $life:lifetime, $($F:ident $f:ident),*) => {
        impl<$($env,)? E, X, $($F,)*> TryJoin<$Group, X> for ($($F,)*)
        where
            E: Send + 'static,
            X: $Send + $life,
            $($F: IntoResult<X, Value: $Send + $life> + $Send + $life,)*
        {
            type Output = ($($F::Value,)*);

            type Joining<'g>
                = $Boxed<'g, Result<Self::Output, X>>
            where
                $Group: 'g;

            fn join<'g>(self, group: &'g $Group) -> Self::Joining<'g> {
                Box::pin(async move {
                    let ($($f,)*) = self;
                    let mut racers = Racers::new();
                    $(
                        let place = PlainArc::new(Lock::new(None));
                        let inside = place.clone();
                        let child = async move {
                            let value = $f.await?;
                            *inside.lock() = Some(value);
                            Ok(())
                        };
                        racers.start(child, |racer| group.spawn(racer));
                        let $f = place;
                    )*
                    try_join_all(racers).await?;
                    $(let $f = $f.lock().take();)*
                    match ($($f,)*) {
                        ($(Some($f),)*) => Ok(($($f,)*)),
                        _ => stuck(None).await,
                    }
                })
            }
        }
    };
}

/// A future of a `Result`, so that its value has a name in the bounds of a tuple.
pub trait IntoResult<X>: Future<Output = Result<Self::Value, X>> {
    /// The value of success.
    type Value;
}

impl<F: Future<Output = Result<T, X>>, T, X> IntoResult<X> for F {
    type Value = T;
}

tuples! { [] TaskGroup<E>, Boxed, Send, 'static }
tuples! { ['env] BorrowGroup<'env, E>, Boxed, Send, 'env }
tuples! { ['env] LocalGroup<'env, E>, BoxedLocal, Sized, 'env }

macro_rules! joins {
    ([$($life:lifetime)?] $Group:ty, [$($bound:tt)*] $(, $lint:meta)?) => {
        impl<$($life,)? E: Send + 'static> $Group {
            /// Runs a tuple of two to six futures as children, and returns their values, or the first error when the
            /// others are gone.
            ///
            /// The error is the caller's, not the group's: `group.try_join((user(7), posts(7))).await?`.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            ///
            /// # Errors
            ///
            /// With the first error, after all the others have been cancelled and are gone.
            pub fn try_join<J, X>(&self, futures: J) -> J::Joining<'_>
            where
                J: TryJoin<Self, X>,
            {
                futures.join(self)
            }

            $(#[$lint])?
            /// Runs futures as children, and returns their values in the order of the futures, or the first error when
            /// the others are gone.
            ///
            /// *Comparison.* `futures::future::try_join_all` drops the others without waiting for what they had started.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            ///
            /// # Errors
            ///
            /// With the first error, after all the others have been cancelled and are gone.
            pub async fn try_join_all<I, F, T, X>(&self, futures: I) -> Result<Vec<T>, X>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                let mut racers = Racers::new();
                for future in futures {
                    racers.start(future, |racer| self.spawn(racer));
                }
                try_join_all(racers).await
            }

            $(#[$lint])?
            /// Runs futures as children, and returns how each ended, in the order of the futures.
            ///
            /// What a future returns is its value, also if that is a `Result`; so nobody is cancelled because of another.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            pub async fn settle_all<I, F, T>(&self, futures: I) -> Vec<Outcome<T>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let start = |future: F| self.spawn(async move { Ok(future.await) });
                settle_all(Unfinished(futures.into_iter().map(start).collect())).await
            }

            $(#[$lint])?
            /// Runs futures as children until `deadline`, and returns how each ended, in the order of the futures.
            ///
            /// As [`settle_all`](Self::settle_all), but partial: whoever has not ended by then is cancelled, with
            /// [`CancelReason::Deadline`](crate::CancelReason::Deadline) as its outcome, and is gone; the group goes on.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            ///
            /// # Panics
            ///
            /// When it has to wait outside a tokio runtime with a time driver.
            pub async fn settle_all_by<I, F, T>(
                &self,
                deadline: impl Into<Deadline>,
                futures: I,
            ) -> Vec<Outcome<T>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let deadline = deadline.into();
                let start = |future: F| self.spawn(async move { Ok(future.await) });
                settle_all_by(Unfinished(futures.into_iter().map(start).collect()), deadline).await
            }

            /// Runs futures as children, and hands out how each ended, as they end.
            ///
            /// What a future returns is its value, also if that is a `Result`.
            pub fn as_completed<I, F, T>(&self, futures: I) -> AsCompleted<'_, T>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let mut racers = Racers::new();
                for future in futures {
                    racers.start(future, |racer| self.spawn(racer));
                }
                AsCompleted::new(racers)
            }

            $(#[$lint])?
            /// Runs futures as children, and returns what the first of them to end returned, when the others are gone;
            /// `None` if there are no futures.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            pub async fn first<I, F, T>(&self, futures: I) -> Option<T>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let mut racers = Racers::new();
                for future in futures {
                    racers.start(future, |racer| self.spawn(racer));
                }
                first(racers).await
            }

            $(#[$lint])?
            /// Runs futures as children, and returns the value of the first to succeed, when the others are gone.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            ///
            /// # Errors
            ///
            /// If none succeeds, the errors of all in the order in which they came: none if there were no futures.
            pub async fn first_ok<I, F, T, X>(&self, futures: I) -> Result<T, Vec<X>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                self.staggered(Duration::ZERO, futures).await
            }

            $(#[$lint])?
            /// Runs futures as children, each `delay` after the one before it or as soon as one fails, and returns the value
            /// of the first to succeed, when the others are gone: *happy eyeballs*.
            ///
            /// Futures that are not started are not asked of the iterator.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            ///
            /// # Errors
            ///
            /// If none succeeds, the errors of all in the order in which they came: none if there were no futures.
            ///
            /// # Panics
            ///
            /// When it has to wait outside a tokio runtime with a time driver, unless `delay` is zero.
            pub async fn staggered<I, F, T, X>(
                &self,
                delay: Duration,
                futures: I,
            ) -> Result<T, Vec<X>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                let mut futures = futures.into_iter();
                staggered(delay, move |racers| match futures.next() {
                    Some(future) => {
                        racers.start(future, |racer| self.spawn(racer));
                        true
                    }
                    None => false,
                })
                .await
            }
        }
    };
}

joins! { [] TaskGroup<E>, [Send + 'static] }
joins! { ['env] BorrowGroup<'env, E>, [Send + 'env] }
joins! { ['env] LocalGroup<'env, E>, ['env], expect(clippy::future_not_send, reason = "its children need not be") }
