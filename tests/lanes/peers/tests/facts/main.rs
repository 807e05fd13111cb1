//! What `docs/comparison.md` says of other crates. A name says who, and what.

mod fan;
mod limits;
mod queues;
mod retries;
mod tasks;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Polls once, with a waker that nobody hears.
fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
