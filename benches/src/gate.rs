//! A point in a contender's body where the driver may stop it: the clock starts there, or memory is looked at.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::Body;

/// Stops a body once, if it is shut.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: AtomicBool,
    reached: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    /// A gate that lets its body through: one relaxed load.
    #[must_use]
    pub fn open() -> Self {
        Self::new(true)
    }

    /// A gate at which its body waits for [`Gate::unlock`].
    #[must_use]
    pub fn shut() -> Self {
        Self::new(false)
    }

    fn new(open: bool) -> Self {
        Self(Arc::new(Inner {
            open: AtomicBool::new(open),
            reached: AtomicBool::new(false),
            waker: Mutex::new(None),
        }))
    }

    /// Called by the body: waits here while the gate is shut.
    pub async fn pass(&self) {
        poll_fn(|cx| {
            if self.0.open.load(Relaxed) {
                return Poll::Ready(());
            }
            self.0.reached.store(true, Relaxed);
            *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Called by the driver: runs `body` until it stands at the gate.
    ///
    /// # Panics
    ///
    /// If the body ends without having come to the gate.
    pub async fn reached_by(&self, body: &mut Body) {
        poll_fn(|cx| match Pin::new(&mut *body).poll(cx) {
            Poll::Ready(_) => panic!("the body ended before its gate"),
            Poll::Pending if self.0.reached.load(Relaxed) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }

    /// Called by the driver: lets the body go on.
    pub fn unlock(&self) {
        self.0.open.store(true, Relaxed);
        let waker = self
            .0
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
