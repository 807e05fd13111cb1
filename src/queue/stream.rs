//! `Stream` and `Sink`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use super::error::SendError;
use super::permit::{Permit, RoomTurn, give_room_back, leave};
use super::receiver::Receiver;
use super::sender::{SendTurn, Sender};
use super::shared::Wait;

/// Ends with the queue. Between two polls it keeps its place among those who wait.
///
/// **A stream cannot know that nobody will poll it again**: `next()` is a borrow, and dropping that, as a `select!` does, tells
/// the stream nothing. Once polled in vain, it withholds one item from other receivers until it is polled again, dropped, or
/// used for a receive. With several receivers, use [`recv`](Receiver::recv) in a `select!`: it gives its place up when it is
/// dropped.
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
/// It reserves room when it is asked whether it is ready, so that it takes no item before there is room for it, and there is
/// nothing to flush. Where items have a [weight](super::Queue::weight), the room an item needs is not known before it is
/// there: then the sink holds one item at most, which is sent when there is room, by flushing, or before it is ready again.
/// Dropped, it drops that item.
///
/// **A sink cannot know that nobody will poll it again**, as a stream cannot: once it was asked whether it is ready, it
/// withholds room for one item from other senders until it is used or dropped. A `send` of `SinkExt` that is dropped half-way
/// leaves it so. With several senders, use [`Sender::send`], which gives its place up when it is dropped.
///
/// Its errors give back the item they are about, if they are about one. Closing it gives up its sender, and does not close
/// the queue for others.
pub struct SendSink<T> {
    sender: Option<Sender<T>>,
    at: At<T>,
}

enum At<T> {
    Idle,
    /// Waits for room, in this place.
    Waits(usize),
    HasRoom,
    /// Has an item that waits for room.
    Holds(SendTurn<T>),
}

impl<T> Unpin for SendSink<T> {}

impl<T> Sender<T> {
    /// Makes a `Sink` of it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use futures::{SinkExt, StreamExt, stream};
    /// use ringfence::queue;
    ///
    /// let (sender, receiver) = queue::bounded(2);
    /// let mut sink = sender.into_sink();
    /// let feed = async {
    ///     sink.send_all(&mut stream::iter([1, 2, 3].map(Ok))).await.unwrap();
    ///     sink.close().await.unwrap();
    /// };
    /// let (all, ()) = tokio::join!(receiver.collect::<Vec<_>>(), feed);
    /// assert_eq!(all, [1, 2, 3]);
    /// # }
    /// ```
    #[must_use]
    pub fn into_sink(self) -> SendSink<T> {
        SendSink {
            sender: Some(self),
            at: At::Idle,
        }
    }
}

impl<T> SendSink<T> {
    /// Gives up whatever it waits for or holds. Returns the item that was not sent.
    fn give_up(&mut self) -> Option<T> {
        let sender = self.sender.as_ref()?;
        match std::mem::replace(&mut self.at, At::Idle) {
            At::Idle => {}
            At::Waits(key) => leave(sender.shared(), Some(key)),
            At::HasRoom => give_room_back(sender.shared(), 1),
            At::Holds(mut turn) => return turn.give_up(sender.shared()),
        }
        None
    }

    /// Sends the item that it holds.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<Option<T>>>> {
        let (Some(sender), At::Holds(turn)) = (&self.sender, &mut self.at) else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(sender.shared().poll(cx, turn));
        self.at = At::Idle;
        Poll::Ready(result.map_err(|error| error.map(Some)))
    }
}

impl<T> Sink<T> for SendSink<T> {
    type Error = SendError<Option<T>>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        let Some(sender) = &this.sender else {
            return Poll::Ready(Err(SendError::Closed(None)));
        };
        let shared = sender.shared();
        let mut key = match this.at {
            At::Waits(key) => Some(key),
            At::HasRoom => return Poll::Ready(Ok(())),
            _ if shared.config.weight.is_some() || !shared.waits() => return Poll::Ready(Ok(())),
            _ => None,
        };
        let turn = &mut RoomTurn {
            key: &mut key,
            weight: 1,
        };
        let polled = shared.poll(cx, turn);
        this.at = match (&polled, key) {
            (Poll::Ready(Ok(())), _) => At::HasRoom,
            (_, Some(key)) => At::Waits(key),
            (_, None) => At::Idle,
        };
        polled.map_err(|refusal| SendError::new(refusal, None))
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        let this = self.get_mut();
        let Some(sender) = &this.sender else {
            return Err(SendError::Closed(Some(item)));
        };
        let shared = sender.shared();
        if matches!(this.at, At::HasRoom) {
            let permit = Permit::new(shared, 1);
            this.at = At::Idle;
            return permit.send(item).map_err(|error| error.map(Some));
        }
        let mut turn = SendTurn::new(shared, item);
        let sent = shared.step(|state, effects| turn.attempt(state, effects));
        if let Some(result) = sent {
            return result.map_err(|error| error.map(Some));
        }
        if matches!(this.at, At::Idle) {
            this.at = At::Holds(turn);
            return Ok(());
        }
        // It was not asked whether it is ready.
        Err(SendError::Full(turn.give_up(shared)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_held(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        drop(this.give_up());
        this.sender = None;
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for SendSink<T> {
    fn drop(&mut self) {
        drop(self.give_up());
    }
}

impl<T> fmt::Debug for SendSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendSink")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}
