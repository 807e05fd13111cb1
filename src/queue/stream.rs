//! `Stream` and `Sink`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use super::error::SendError;
use super::receiver::Receiver;
use super::sender::{Sender, leave};
use super::shared::Wait;
use super::state::{Effects, Refusal, State};

/// Ends with the queue. Between two polls it keeps its place among those who wait.
impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().poll_item(cx).map(Result::ok)
    }
}

impl<T> FusedStream for Receiver<T> {
    fn is_terminated(&self) -> bool {
        self.has_ended()
    }
}

/// A [`Sender`] as a `Sink`: see [`Sender::into_sink`].
///
/// It reserves room when it is asked whether it is ready, so that no item is ever held outside the queue; there is nothing
/// to flush. Closing it gives up its sender, and does not close the queue for others.
pub struct SendSink<T> {
    sender: Option<Sender<T>>,
    key: Option<usize>,
    has_room: bool,
}

impl<T> Sender<T> {
    /// Makes a `Sink` of it.
    #[must_use]
    pub fn into_sink(self) -> SendSink<T> {
        SendSink {
            sender: Some(self),
            key: None,
            has_room: false,
        }
    }
}

impl<T> SendSink<T> {
    fn give_up(&mut self) {
        if let Some(sender) = &self.sender {
            leave(sender.shared(), self.key.take());
            if std::mem::take(&mut self.has_room) {
                let _nothing = sender
                    .shared()
                    .step(|state, effects| state.end_permit(1, &mut None, (0, 0), effects));
            }
        }
    }
}

struct Room<'a>(&'a mut Option<usize>);

impl<T> Wait<T> for Room<'_> {
    type Output = Result<(), Refusal>;

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        match state.permit_turn(self.0, 1, effects) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.0
            .is_some_and(|key| state.senders.would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        state.park_permit(self.0, 1, waker, effects);
    }
}

impl<T> Sink<T> for SendSink<T> {
    type Error = SendError<()>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        let Some(sender) = &this.sender else {
            return Poll::Ready(Err(SendError::Closed(())));
        };
        if this.has_room || !sender.shared().waits() {
            return Poll::Ready(Ok(()));
        }
        sender
            .shared()
            .poll(cx, &mut Room(&mut this.key))
            .map(|result| {
                this.has_room = result.is_ok();
                result.map_err(|refusal| SendError::new(refusal, ()))
            })
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        let this = self.get_mut();
        let Some(sender) = &this.sender else {
            return Err(SendError::Closed(()));
        };
        if !std::mem::take(&mut this.has_room) {
            return sender.try_send(item).map_err(|error| error.split().0);
        }
        let shared = sender.shared();
        let meta = shared.measure(&item);
        let mut item = Some(item);
        shared
            .step(|state, effects| state.end_permit(1, &mut item, meta, effects))
            .map_err(|refusal| SendError::new(refusal, ()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        this.give_up();
        this.sender = None;
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for SendSink<T> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<T> fmt::Debug for SendSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendSink")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}
