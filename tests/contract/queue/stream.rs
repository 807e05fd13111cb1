//! `Stream` and `Sink`.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures::{Sink, SinkExt, StreamExt, stream::FusedStream};
use ringfence::queue::{self, Overflow, Queue, SendError};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_eq, assert_ready_err, assert_ready_ok};

use crate::support::{CountingWaker, single_thread};

#[test]
fn a_receiver_is_a_stream() {
    let (sender, receiver) = queue::bounded(2);
    let mut stream = spawn(receiver);
    assert_pending!(stream.poll_next());
    sender.try_send(1).unwrap();
    assert!(stream.is_woken());
    assert_ready_eq!(stream.poll_next(), Some(1));
    assert_pending!(stream.poll_next());
    sender.try_send(2).unwrap();
    assert_eq!(
        stream.enter(|_, mut receiver| receiver.try_recv()).unwrap(),
        2
    );
    drop(sender);
    assert_ready_eq!(stream.poll_next(), None);
}

#[test]
fn a_batch_takes_no_place_over_from_a_stream() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(4);
        assert_pending!(spawn(&mut receiver).poll_next());
        let mut items = Vec::new();
        let mut batch = spawn(receiver.recv_batch(&mut items, 2, Duration::MAX));
        assert_pending!(batch.poll());
        sender.try_send(1).unwrap();
        assert_pending!(batch.poll());
        sender.try_send(2).unwrap();
        assert_eq!(assert_ready_ok!(batch.poll()), 2);
    });
}

#[test]
fn a_sender_makes_a_sink() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(1);
        {
            let mut sink = spawn(sender.clone().into_sink());
            for _ in 0..2 {
                assert_ready_ok!(sink.enter(|cx, sink| sink.poll_ready(cx)));
                assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
            }
            assert_ready_ok!(sink.enter(|cx, sink| sink.poll_close(cx)));
            assert!(sender.try_send(0).is_ok(), "it needs no room any more");
        }
        assert_eq!(receiver.try_recv().unwrap(), 0);
        assert!(sender.try_send(1).is_ok());
        let mut sink = sender.into_sink();
        let sends = async {
            for item in 2..5 {
                sink.send(item).await.unwrap();
            }
            sink.close().await.unwrap();
        };
        let (taken, ()) = tokio::join!(receiver.by_ref().collect::<Vec<_>>(), sends);
        assert_eq!(taken, [1, 2, 3, 4]);
    });
}

#[test]
fn a_sink_takes_items_of_any_weight() {
    let (sender, mut receiver) = Queue::bounded(10).weight(|weight: &usize| *weight).build();
    let mut sink = spawn(sender.clone().into_sink());
    for weight in [7, 4] {
        assert_ready_ok!(sink.enter(|cx, sink| sink.poll_ready(cx)));
        assert!(sink.enter(|_, sink| sink.start_send(weight)).is_ok());
    }
    // The second one is held: there is no room for it, nor for one behind it.
    assert_pending!(sink.enter(|cx, sink| sink.poll_ready(cx)));
    assert_pending!(sink.enter(|cx, sink| sink.poll_flush(cx)));
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    assert_eq!(receiver.try_recv().unwrap(), 7);
    assert!(sink.is_woken());
    assert_ready_ok!(sink.enter(|cx, sink| sink.poll_close(cx)));
    assert_eq!(receiver.try_recv().unwrap(), 4);
    assert_eq!(sender.stats().senders, 1);
}

#[test]
fn a_sink_gives_back_what_it_could_not_send() {
    let start = |queue: Queue<usize>, is_closed: bool| {
        let (sender, receiver) = queue.weight(|weight| *weight).build();
        let mut sink = spawn(sender.into_sink());
        assert_ready_ok!(sink.enter(|cx, sink| sink.poll_ready(cx)));
        if is_closed {
            receiver.close();
        }
        sink.enter(|_, sink| sink.start_send(5))
    };
    let bounded = |capacity| Queue::bounded(capacity);
    let refuses = bounded(5).overflow(Overflow::Refuse);
    assert_eq!(start(bounded(4), false), Err(SendError::TooHeavy(Some(5))));
    assert_eq!(start(bounded(5), true), Err(SendError::Closed(Some(5))));
    assert_eq!(start(refuses, false), Ok(()));

    let (sender, receiver) = queue::bounded(1);
    let mut sink = spawn(sender.into_sink());
    assert_ready_ok!(sink.enter(|cx, sink| sink.poll_ready(cx)));
    drop(receiver);
    let sent = sink.enter(|_, sink| sink.start_send(5));
    assert_eq!(sent, Err(SendError::Closed(Some(5))));
}

#[test]
fn a_stream_and_a_sink_that_are_dropped_leave_no_waker() {
    let (sender, receiver) = queue::bounded(1);
    let (waker, mut stream) = (CountingWaker::new(), receiver.clone());
    let task = waker.waker();
    let mut cx = Context::from_waker(&task);
    let held = |waker| Arc::strong_count(waker) - 2;
    assert!(stream.poll_next_unpin(&mut cx).is_pending());
    assert_eq!(held(&waker), 1);
    drop(stream);
    assert_eq!(held(&waker), 0);
    sender.try_send(1).unwrap();
    let mut sink = sender.clone().into_sink();
    assert!(sink.poll_ready_unpin(&mut cx).is_pending());
    assert_eq!(held(&waker), 1);
    drop(sink);
    assert_eq!((held(&waker), receiver.len()), (0, 1));
}

#[test]
fn a_stream_that_waits_is_woken_once_and_passes_on_what_it_does_not_take() {
    let (sender, receiver) = queue::bounded(4);
    let (mut other, mut stream) = (receiver.clone(), receiver);
    let waker = CountingWaker::new();
    let task = waker.waker();
    let polled = stream.poll_next_unpin(&mut Context::from_waker(&task));
    assert!(polled.is_pending());
    let mut waits = spawn(other.recv());
    assert_pending!(waits.poll());
    sender.try_send(1).unwrap();
    assert_eq!(waker.wakes(), 1);
    drop(stream);
    assert!(waits.is_woken());
    assert_ready_eq!(waits.poll(), Ok(1));
    drop(waits);
    assert!(
        other
            .poll_next_unpin(&mut Context::from_waker(&task))
            .is_pending()
    );
    for item in 2..=4 {
        sender.try_send(item).unwrap();
    }
    assert_eq!(waker.wakes(), 2, "once for all three");
    // Nor does what asks once keep the place.
    assert_eq!(*other.try_deliver().unwrap(), 2);
    assert_eq!(sender.stats().waiting_receivers, 0);
}

#[test]
fn a_stream_of_items_is_forwarded_to_its_end() {
    single_thread(async || {
        let (sender, receiver) = queue::bounded(100);
        let items = futures::stream::iter((0..1_000).map(Ok));
        let forwards = crate::support::spawn(items.forward(sender.into_sink()));
        let taken: Vec<i32> = receiver.collect().await;
        assert!(taken.into_iter().eq(0..1_000));
        assert_eq!(forwards.await.unwrap(), Ok(()));
    });
}

#[test]
fn a_sink_that_was_not_asked_keeps_one_item_and_gives_back_the_next() {
    let (sender, mut receiver) = queue::bounded(1);
    let mut sink = spawn(sender.into_sink());
    for item in [1, 2] {
        assert!(sink.enter(|_, sink| sink.start_send(item)).is_ok());
    }
    let refused = sink.enter(|_, sink| sink.start_send(3));
    assert!(matches!(refused, Err(SendError::Full(Some(3)))));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_ready_ok!(sink.enter(|cx, sink| sink.poll_close(cx)));
    assert!(!receiver.is_terminated() && receiver.try_recv() == Ok(2));
    let ready = assert_ready_err!(sink.enter(|cx, sink| sink.poll_ready(cx)));
    assert!(matches!(ready, SendError::Closed(None)));
    let refused = sink.enter(|_, sink| sink.start_send(4));
    assert!(matches!(refused, Err(SendError::Closed(Some(4)))));
    drop(sink);
    assert!(receiver.is_terminated());
}
