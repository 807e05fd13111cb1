//! A tuple of futures, whose values are of different types.
//!
//! The future that joins them is written once, for all tuples and groups: the compiler would else prove of each that it is `Send`,
//! part by part, which took it longer than all the rest of this room.

use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::engines::try_join_all;
use super::held::{Held, Untaken, dropped};
use super::racers::{Racer, Racers};
use crate::group::handle::TaskHandle;
use crate::state::{Core, Inherited};
use crate::sync::{Lock, PlainArc};

/// Where a value waits for the others.
pub(super) struct Place<V>(PlainArc<Lock<Option<Held<V>>>>);

impl<V> Place<V> {
    fn take(self) -> Option<V> {
        let value = self.0.lock().take();
        value.and_then(Held::take)
    }
}

/// The places of a tuple.
pub(super) trait Places {
    type Values;

    /// Takes the values out: of all, or none.
    fn take(self) -> Option<Self::Values>;
}

macro_rules! places {
    ($($V:ident $v:ident),*) => {
        impl<$($V),*> Places for ($(Place<$V>,)*) {
            type Values = ($($V,)*);

            fn take(self) -> Option<Self::Values> {
                let ($($v,)*) = self;
                $(let $v = $v.take();)*
                Some(($($v?,)*))
            }
        }
    };
}

places! { A a, B b }
places! { A a, B b, C c }
places! { A a, B b, C c, D d }
places! { A a, B b, C c, D d, E e }
places! { A a, B b, C c, D d, E e, F f }

pin_project! {
    /// One of the futures: what it fails with is told at its end, and its value is put into its place.
    pub(crate) struct Part<F, V> {
        #[pin]
        future: F,
        place: PlainArc<Lock<Option<Held<V>>>>,
        observed: Option<PlainArc<Inherited>>,
    }
}

impl<F: Future<Output = Result<V, X>>, V, X> Future for Part<F, V> {
    type Output = Result<(), X>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), X>> {
        let this = self.project();
        let value = ready!(this.future.poll(cx))?;
        *this.place.lock() = Some(Held::new(value, dropped, this.observed.take()));
        Poll::Ready(Ok(()))
    }
}

impl<'g, X> Racers<'g, Result<(), X>> {
    /// Starts one part of a tuple.
    pub(super) fn start_part<F, V>(
        &mut self,
        future: F,
        spawn: impl FnOnce(Racer<Part<F, V>>) -> TaskHandle<'g, ()>,
    ) -> Place<V>
    where
        F: Future<Output = Result<V, X>>,
    {
        let place = PlainArc::new(Lock::new(None));
        let part = Part {
            future,
            place: place.clone(),
            observed: self.ends.observed.clone(),
        };
        self.start(part, spawn);
        Place(place)
    }
}

async fn join<'g, X, P: Places>(
    core: &'g Core,
    untaken: Untaken<Result<(), X>>,
    start: impl FnOnce(&mut Racers<'g, Result<(), X>>) -> P,
) -> Result<P::Values, X> {
    let mut racers = Racers::new(core, untaken);
    let places = start(&mut racers);
    try_join_all(racers).await?;
    if let Some(values) = places.take() {
        return Ok(values);
    }
    pending().await
}

pub(super) fn boxed<'g, X, P>(
    core: &'g Core,
    untaken: Untaken<Result<(), X>>,
    start: impl FnOnce(&mut Racers<'g, Result<(), X>>) -> P + Send + 'g,
) -> Pin<Box<dyn Future<Output = Result<P::Values, X>> + Send + 'g>>
where
    X: Send + 'g,
    P: Places + Send + 'g,
{
    Box::pin(join(core, untaken, start))
}

pub(super) fn boxed_local<'g, X, P>(
    core: &'g Core,
    untaken: Untaken<Result<(), X>>,
    start: impl FnOnce(&mut Racers<'g, Result<(), X>>) -> P + 'g,
) -> Pin<Box<dyn Future<Output = Result<P::Values, X>> + 'g>>
where
    X: 'g,
    P: Places + 'g,
{
    Box::pin(join(core, untaken, start))
}
