//! Joining helpers: several futures as children of a group, and one answer.
//!
//! J1. Whoever is not needed any more is cancelled, and gone, before the answer is given. J2. What a future fails with is the
//! caller's, not the group's; a panic is the group's, as any child's. J3. Dropped early, a helper cancels what it has
//! started, and the group waits for it. J4. A helper never waits for what cannot come: where a child that it needs was
//! cancelled by others, it awaits that child's handle, which ends the body (H2). J5. Each end costs constant time.
//! J6. Whatever a helper holds, it holds as [`Held`]: nothing that is dropped here throws, and no error is lost that can travel.

mod completed;
mod engines;
mod held;
mod parts;
mod racers;

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

pub use self::completed::AsCompleted;
use self::engines::{Unfinished, first, settle_all, settle_all_by, staggered, try_join_all};
use self::held::{Held, displaced, dropped, overlooked};
use self::racers::Racers;
use crate::group::TaskGroup;
use crate::group::borrow::{BorrowGroup, LocalGroup};
use crate::group::handle::Outcome;
use crate::time::Deadline;

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
    fn join<'g>(self, group: &'g G, location: &'static Location<'static>) -> Self::Joining<'g>;
}

type Boxed<'g, T> = Pin<Box<dyn Future<Output = T> + Send + 'g>>;
type BoxedLocal<'g, T> = Pin<Box<dyn Future<Output = T> + 'g>>;

macro_rules! tuples {
    ([$($env:lifetime)?] $Group:ty, $Boxed:ident, $boxed:path, $Send:path, $life:lifetime, $untaken:ident) => {
        tuples! { @ [$($env)?] $Group, $Boxed, $boxed, $Send, $life, $untaken, A a, B b }
        tuples! { @ [$($env)?] $Group, $Boxed, $boxed, $Send, $life, $untaken, A a, B b, C c }
        tuples! { @ [$($env)?] $Group, $Boxed, $boxed, $Send, $life, $untaken, A a, B b, C c, D d }
        tuples! { @ [$($env)?] $Group, $Boxed, $boxed, $Send, $life, $untaken, A a, B b, C c, D d, F f }
        tuples! { @ [$($env)?] $Group, $Boxed, $boxed, $Send, $life, $untaken, A a, B b, C c, D d, F f, H h }
    };
    (@ [$($env:lifetime)?] $Group:ty, $Boxed:ident, $boxed:path, $Send:path, $life:lifetime, $untaken:ident, $($F:ident $f:ident),*) => {
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

            fn join<'g>(
                self,
                group: &'g $Group,
                location: &'static Location<'static>,
            ) -> Self::Joining<'g> {
                let ($($f,)*) = self;
                $boxed(group.core(), $untaken, move |racers| {
                    ($(racers.start_part($f, |racer| group.spawn_from(location, racer)),)*)
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

tuples! { [] TaskGroup<E>, Boxed, parts::boxed, Send, 'static, displaced }
tuples! { ['env] BorrowGroup<'env, E>, Boxed, parts::boxed, Send, 'env, dropped }
tuples! { ['env] LocalGroup<'env, E>, BoxedLocal, parts::boxed_local, Sized, 'env, dropped }

macro_rules! joins {
    ([$($life:lifetime)?] $Group:ty, [$($bound:tt)*], $untaken:ident, $overlooked:ident $(, $lint:meta)?) => {
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
            /// With the first error, after all the others have been cancelled and are gone. What comes too late to be the first is
            /// [displaced](crate::Displaced), unless the group lets errors borrow, or be not `Send`: then it is dropped.
            #[track_caller]
            pub fn try_join<J, X>(&self, futures: J) -> J::Joining<'_>
            where
                J: TryJoin<Self, X>,
            {
                futures.join(self, Location::caller())
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
            /// With the first error, after all the others have been cancelled and are gone. What comes too late to be the first is
            /// [displaced](crate::Displaced), unless the group lets errors borrow, or be not `Send`: then it is dropped.
            #[track_caller]
            pub fn try_join_all<I, F, T, X>(&self, futures: I) -> impl Future<Output = Result<Vec<T>, X>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                let location = Location::caller();
                async move {
                    let mut racers = Racers::new(self.core(), $untaken);
                    for future in futures {
                        racers.start(future, |racer| self.spawn_from(location, racer));
                    }
                    try_join_all(racers).await
                }
            }

            $(#[$lint])?
            /// Runs futures as children, and returns how each ended, in the order of the futures.
            ///
            /// What a future returns is its value, also if that is a `Result`; so nobody is cancelled because of another, unless that
            /// one panics.
            ///
            /// # Cancel safety
            ///
            /// Dropped early, it cancels what it has started, and the group waits for it.
            #[doc(alias("gather", "join_all"))]
            #[track_caller]
            pub fn settle_all<I, F, T>(&self, futures: I) -> impl Future<Output = Vec<Outcome<T>>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let location = Location::caller();
                async move {
                    let start = |future: F| self.spawn_from(location, async move { Ok(future.await) });
                    settle_all(Unfinished::new(self.core(), futures.into_iter().map(start))).await
                }
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
            #[track_caller]
            pub fn settle_all_by<I, F, T>(
                &self,
                deadline: impl Into<Deadline>,
                futures: I,
            ) -> impl Future<Output = Vec<Outcome<T>>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let location = Location::caller();
                async move {
                    let deadline = deadline.into();
                    let start = |future: F| self.spawn_from(location, async move { Ok(future.await) });
                    settle_all_by(Unfinished::new(self.core(), futures.into_iter().map(start)), deadline).await
                }
            }

            /// Runs futures as children, and hands out how each ended, as they end.
            ///
            /// What a future returns is its value, also if that is a `Result`.
            #[doc(alias = "join_next")]
            #[track_caller]
            pub fn as_completed<I, F, T>(&self, futures: I) -> AsCompleted<'_, T>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let location = Location::caller();
                let mut racers = Racers::new(self.core(), dropped);
                for future in futures {
                    racers.start(future, |racer| self.spawn_from(location, racer));
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
            #[track_caller]
            pub fn first<I, F, T>(&self, futures: I) -> impl Future<Output = Option<T>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = T> + $($bound)*,
                T: $($bound)*,
            {
                let location = Location::caller();
                async move {
                    let mut racers = Racers::new(self.core(), dropped);
                    for future in futures {
                        racers.start(future, |racer| self.spawn_from(location, racer));
                    }
                    first(racers).await
                }
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
            /// If none succeeds, the errors of all in the order in which they came: none if there were no futures. Where one
            /// succeeds, they are [overlooked](crate::DisplacedWhat::Overlooked), unless the group lets errors borrow, or be not `Send`: then they
            /// are dropped.
            #[track_caller]
            pub fn first_ok<I, F, T, X>(&self, futures: I) -> impl Future<Output = Result<T, Vec<X>>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                self.staggered(Duration::ZERO, futures)
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
            /// If none succeeds, the errors of all in the order in which they came: none if there were no futures. Where one
            /// succeeds, they are [overlooked](crate::DisplacedWhat::Overlooked), unless the group lets errors borrow, or be not `Send`: then they
            /// are dropped.
            ///
            /// # Panics
            ///
            /// When it has to wait outside a tokio runtime with a time driver, unless `delay` is zero.
            #[track_caller]
            pub fn staggered<I, F, T, X>(
                &self,
                delay: Duration,
                futures: I,
            ) -> impl Future<Output = Result<T, Vec<X>>>
            where
                I: IntoIterator<Item = F>,
                F: Future<Output = Result<T, X>> + $($bound)*,
                T: $($bound)*,
                X: $($bound)*,
            {
                let location = Location::caller();
                async move {
                    let mut futures = Held::of(futures.into_iter(), self.core());
                    let racers = Racers::new(self.core(), $overlooked);
                    staggered(racers, delay, move |racers| match futures.get_mut().and_then(Iterator::next) {
                        Some(future) => {
                            racers.start(future, |racer| self.spawn_from(location, racer));
                            true
                        }
                        None => false,
                    })
                    .await
                }
            }
        }
    };
}

joins! { [] TaskGroup<E>, [Send + 'static], displaced, overlooked }
joins! { ['env] BorrowGroup<'env, E>, [Send + 'env], dropped, dropped }
joins! { ['env] LocalGroup<'env, E>, ['env], dropped, dropped, expect(clippy::future_not_send, reason = "its children need not be") }
