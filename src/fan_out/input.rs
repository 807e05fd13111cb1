//! What items come from: iterators and streams, through one trait.

use std::task::{Context, Poll};

/// Yields the items of a fan-out.
///
/// Implemented here for iterators and, with the feature `stream`, for streams. Implement it, and [`IntoInput`] with a marker
/// of your own, for anything else that yields items.
pub trait Input {
    /// What it yields.
    type Item;

    /// Yields the next item, or says that there is none now, or none ever again. It is not asked again after the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// Says how many are left, at least and at most. It is a hint: nothing breaks if it lies.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, None)
    }
}

/// What a fan-out can be made from: every iterable, and with the feature `stream` every stream.
///
/// `M` tells the two apart, so that one name serves both. Something that is both is ambiguous: make it one of them first, with
/// `.into_iter()`, or with a stream adapter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` yields no items: `fan_out` takes iterables, and streams with the feature `stream`",
    label = "neither an iterable nor a stream"
)]
pub trait IntoInput<M> {
    /// What it yields.
    type Item;
    /// What it becomes.
    type Input: Input<Item = Self::Item>;

    /// Makes the source.
    fn into_input(self) -> Self::Input;
}

/// Items of an iterator; also the marker of [`IntoInput`] for iterables.
#[derive(Clone, Debug)]
pub struct Iterated<I>(I);

impl<I: Iterator> Input for Iterated<I> {
    type Item = I::Item;

    #[inline]
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<I: IntoIterator> IntoInput<Iterated<()>> for I {
    type Item = I::Item;
    type Input = Iterated<I::IntoIter>;

    fn into_input(self) -> Self::Input {
        Iterated(self.into_iter())
    }
}

/// Items of a stream; also the marker of [`IntoInput`] for streams.
#[cfg(feature = "stream")]
#[derive(Debug)]
pub struct Streamed<S>(std::pin::Pin<Box<S>>);

#[cfg(feature = "stream")]
impl<S: futures_core::Stream> Input for Streamed<S> {
    type Item = S::Item;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

#[cfg(feature = "stream")]
impl<S: futures_core::Stream> IntoInput<Streamed<()>> for S {
    type Item = S::Item;
    type Input = Streamed<S>;

    fn into_input(self) -> Self::Input {
        Streamed(Box::pin(self))
    }
}
