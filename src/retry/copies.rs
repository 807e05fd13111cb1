//! The copies of a hedged call: where they are, how old they are, and how they go.
//!
//! C1. However a copy ends, [`gone`] drops it, one after the other: a panic of its destructor goes to the observer, and meets
//! no other one. C2. A copy that is still there when all go was cut, by whomever: its age is noted. One that has ended, with
//! an outcome or a panic, was not cut.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::hedge::Delay;
use crate::observe::DisplacedWhat;
use crate::panic::catch;

pin_project! {
    /// The copies that run, each with the instant at which it began. Two in place; further ones in boxes.
    pub(super) struct Copies<'l, Fut> {
        #[pin]
        first: Option<Fut>,
        #[pin]
        second: Option<Fut>,
        began: [Option<Instant>; 2],
        more: Vec<Boxed<Fut>>,
        delay: Delay<'l>,
    }
    impl<Fut> PinnedDrop for Copies<'_, Fut> {
        fn drop(this: Pin<&mut Self>) {
            this.clear();
        }
    }
}

type Boxed<Fut> = (Pin<Box<Option<Fut>>>, Option<Instant>);

impl<'l, Fut> Copies<'l, Fut> {
    pub(super) const fn new(delay: Delay<'l>) -> Self {
        Self {
            first: None,
            second: None,
            began: [None; 2],
            more: Vec::new(),
            delay,
        }
    }

    pub(super) fn add(self: Pin<&mut Self>, now: Instant, index: u32, future: Fut) {
        let mut this = self.project();
        match index {
            0 => this.first.set(Some(future)),
            1 => this.second.set(Some(future)),
            _ => return this.more.push((Box::pin(Some(future)), Some(now))),
        }
        this.began[index as usize] = Some(now);
    }

    /// The place of a copy, and when it began.
    fn place(
        self: Pin<&mut Self>,
        index: usize,
    ) -> Option<(Pin<&mut Option<Fut>>, &mut Option<Instant>)> {
        let this = self.project();
        let [first, second] = this.began;
        match index {
            0 => Some((this.first, first)),
            1 => Some((this.second, second)),
            _ => {
                let (slot, began) = this.more.get_mut(index - 2)?;
                Some((slot.as_mut(), began))
            }
        }
    }

    /// Drops what runs, and notes how long it had run (C1, C2).
    pub(super) fn clear(mut self: Pin<&mut Self>) {
        let delay = self.delay;
        for index in 0..2 + self.more.len() {
            let Some((slot, began)) = self.as_mut().place(index) else {
                return;
            };
            if let (Delay::Percentile(share, latency), Some(began)) = (delay, began.take()) {
                latency.record_cut(share, began.elapsed());
            }
            gone(slot);
        }
    }
}

impl<Fut: Future> Copies<'_, Fut> {
    /// Polls one, if it runs; when it is ready, it is dropped, and when it began comes with the output.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        index: u32,
        cx: &mut Context<'_>,
    ) -> Poll<(Fut::Output, Option<Instant>)> {
        let Some((mut slot, began)) = self.place(index as usize) else {
            return Poll::Pending;
        };
        let Some(future) = slot.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let at = began.take(); // C2
        let Poll::Ready(output) = future.poll(cx) else {
            *began = at;
            return Poll::Pending;
        };
        gone(slot);
        Poll::Ready((output, at))
    }
}

/// Drops a copy, if it is there (C1).
fn gone<Fut>(mut slot: Pin<&mut Option<Fut>>) {
    if slot.is_none() {
        return;
    }
    if let Err(panic) = catch(|| slot.set(None)) {
        let core = crate::context::current().map(|(core, _)| core);
        let observer = core.as_ref().and_then(|core| core.observer());
        crate::observe::displace(observer, None, DisplacedWhat::Panic(panic));
    }
}
