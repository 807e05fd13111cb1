//! `Stream` and `Sink`.

use futures::{Sink, SinkExt, StreamExt};
use ringfence::queue::{self, SendError};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready_eq, assert_ready_ok};

use crate::support::single_thread;

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
fn a_sender_makes_a_sink() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(1);
        {
            let mut sink = spawn(sender.clone().into_sink());
            assert_ready_ok!(sink.enter(|cx, sink| sink.poll_ready(cx)));
            assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
        }
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
