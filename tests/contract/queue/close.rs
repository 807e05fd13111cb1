//! Ends.

use std::sync::{Arc, Mutex};

use ringfence::queue::{self, Discarded, Queue, Receiver, SendError, Sender, TryRecvError};
use ringfence::{TaskGroup, scope};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};

use super::drain;
use crate::support::{Count, DropGuard, Drops, PanicOnDrop, every_runtime};

#[test]
fn the_last_sender_gone_lets_the_queue_drain_and_end() {
    let (sender, mut receiver) = queue::bounded(2);
    let other = sender.clone();
    sender.try_send(1).unwrap();
    drop(sender);
    other.try_send(2).unwrap();
    drop(other);
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert!(assert_ready!(spawn(receiver.recv()).poll()).is_err());
    // Who waits is told.
    let (sender, mut receiver) = queue::bounded::<u8>(1);
    let mut waiting = spawn(receiver.recv());
    assert_pending!(waiting.poll());
    drop(sender);
    assert!(waiting.is_woken());
    assert!(assert_ready!(waiting.poll()).is_err());
}

#[test]
fn close_fails_senders_and_lets_receivers_drain() {
    for (sender, mut receiver) in [queue::bounded(1), queue::rendezvous()] {
        let queued = sender.try_send(1).is_ok();
        let mut waiting = spawn(sender.send(2));
        assert_pending!(waiting.poll());
        assert!(receiver.close());
        assert!(waiting.is_woken());
        assert_eq!(assert_ready_err!(waiting.poll()), SendError::Closed(2));
        assert_eq!(drain(&mut receiver).len(), usize::from(queued));
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
    }
}

#[test]
fn close_wakes_every_receiver_that_waits() {
    let (sender, receiver) = queue::bounded::<u8>(1);
    let mut receivers = [receiver.clone(), receiver.clone(), receiver];
    let mut waiting: Vec<_> = receivers.iter_mut().map(|r| spawn(r.recv())).collect();
    for recv in &mut waiting {
        assert_pending!(recv.poll());
    }
    sender.close();
    for recv in &mut waiting {
        assert!(recv.is_woken());
        assert!(assert_ready!(recv.poll()).is_err());
    }
    assert_ready!(spawn(sender.join()).poll());
}

#[test]
fn abort_returns_the_rest() {
    let (sender, mut receiver) = queue::bounded(4);
    for item in 0..4 {
        sender.try_send(item).unwrap();
    }
    let delivery = receiver.try_deliver().unwrap();
    assert_eq!(receiver.abort(), [1, 2, 3]);
    assert_eq!(sender.try_send(4), Err(SendError::Closed(4)));
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    drop(delivery);
    assert!(join.is_woken());
    assert_ready!(join.poll());
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
}

#[test]
fn items_are_dropped_when_the_last_receiver_goes() {
    let drops = Drops::new();
    let (sender, receiver) = queue::bounded(2);
    let other = receiver.clone();
    sender.try_send(drops.guard()).unwrap();
    drop(receiver);
    assert_eq!(drops.dropped(), 0);
    drop(other);
    assert_eq!(drops.dropped(), 1);
}

#[test]
fn the_last_receiver_gone_gives_senders_their_items_back() {
    let (sender, receiver) = queue::bounded(1);
    sender.try_send(0).unwrap();
    let mut waiting: Vec<_> = (1..=1_000).map(|item| spawn(sender.send(item))).collect();
    for send in &mut waiting {
        assert_pending!(send.poll());
    }
    let mut closed = spawn(sender.closed());
    assert_pending!(closed.poll());
    drop(receiver);
    for (send, item) in waiting.iter_mut().zip(1..) {
        assert!(send.is_woken());
        assert_eq!(assert_ready_err!(send.poll()), SendError::Closed(item));
    }
    assert!(closed.is_woken());
    assert_ready!(closed.poll());
    assert!(sender.is_closed());
}

#[test]
fn closing_twice_is_the_same_as_closing_once() {
    let (sender, receiver) = queue::bounded::<u8>(1);
    assert!(!sender.is_closed());
    assert!(sender.close());
    assert!(sender.is_closed());
    assert!(!sender.close());
    assert!(!receiver.close());
}

#[test]
fn receivers_wait_for_a_permit_that_is_held() {
    let (sender, mut receiver) = queue::bounded(1);
    let permit = sender.try_reserve().unwrap();
    let mut reserving = spawn(sender.reserve());
    assert_pending!(reserving.poll());
    receiver.close();
    assert!(assert_ready!(reserving.poll()).is_err());
    let mut recv = spawn(receiver.recv());
    assert_pending!(recv.poll());
    permit.send(1).unwrap();
    assert!(recv.is_woken());
    assert_eq!(assert_ready!(recv.poll()).unwrap(), 1);

    let (sender, mut receiver) = queue::bounded::<u8>(1);
    let permit = sender.try_reserve().unwrap();
    sender.close();
    let mut recv = spawn(receiver.recv());
    assert_pending!(recv.poll());
    drop(permit);
    assert!(recv.is_woken());
    assert!(assert_ready!(recv.poll()).is_err());
}

#[test]
fn of_sends_that_race_with_a_close_the_accepted_are_received() {
    every_runtime(async || {
        let (sender, mut receiver) = queue::bounded(8);
        let accepted = Count::new();
        let received = scope(async |group: &TaskGroup| {
            for _ in 0..8 {
                let (sender, accepted) = (sender.clone(), accepted.clone());
                group.spawn(async move {
                    while sender.send(()).await.is_ok() {
                        accepted.add();
                    }
                });
            }
            let mut received = 0;
            while receiver.recv().await.is_ok() {
                received += 1;
                if received == 500 {
                    receiver.close();
                }
            }
            Ok(received)
        })
        .await
        .unwrap();
        assert_eq!(received, accepted.get());
    });
}

#[test]
fn a_receive_after_the_close_never_waits_for_a_woken_one() {
    let (sender, receiver) = queue::bounded(1);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut woken = spawn(first.recv());
    assert_pending!(woken.poll());
    sender.try_send(1).unwrap();
    sender.close();
    assert_eq!(assert_ready!(spawn(second.recv()).poll()).unwrap(), 1);
    assert!(assert_ready!(woken.poll()).is_err());
}

#[test]
fn nobody_waits_for_a_woken_one_once_all_is_there() {
    type Make = fn(&Sender<u8>, &mut Receiver<u8>) -> Box<dyn FnOnce()>;
    let makes: [Make; 2] = [
        |sender, receiver| {
            sender.try_send(0).unwrap();
            let delivery = receiver.try_deliver().unwrap();
            Box::new(|| drop(delivery))
        },
        |sender, _| {
            let permit = assert_ready_ok!(spawn(sender.reserve_owned(1)).poll());
            Box::new(|| drop(permit))
        },
    ];
    for make in makes {
        for is_closed in [false, true] {
            let (sender, mut receiver) = queue::bounded(4);
            let end = make(&sender, &mut receiver);
            let (mut first, mut second) = (receiver.clone(), receiver);
            let mut woken = spawn(first.recv());
            let mut behind = spawn(second.recv());
            assert_pending!(woken.poll());
            assert_pending!(behind.poll());
            sender.try_send(1).unwrap();
            if is_closed {
                sender.close();
            }
            drop(sender);
            assert_pending!(behind.poll());
            end();
            assert!(behind.is_woken());
            assert_eq!(assert_ready_ok!(behind.poll()), 1);
            assert!(assert_ready!(woken.poll()).is_err());
        }
    }
}

#[test]
fn destructors_of_items_harm_nobody() {
    let drops = Drops::new();
    type Item = (Option<PanicOnDrop>, DropGuard);
    let (sender, receiver) = queue::bounded::<Item>(4);
    for i in 0..4 {
        let panics = (i % 2 == 0).then(|| PanicOnDrop("an item"));
        assert!(sender.try_send((panics, drops.guard())).is_ok());
    }
    drop(receiver);
    assert_eq!(drops.dropped(), 4);
    assert!(sender.is_closed());
}

#[test]
fn a_cause_reaches_receivers_after_the_drain() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(1).unwrap();
    sender.close_with("the disk is full");
    sender.close_with("too late");
    assert_eq!(receiver.try_recv().unwrap(), 1);
    let end = assert_ready!(spawn(receiver.recv()).poll()).unwrap_err();
    assert_eq!(end.cause().unwrap().to_string(), "the disk is full");
    assert_eq!(end.to_string(), "the queue has ended");
    assert!(std::error::Error::source(&end).is_some());
}

#[test]
fn what_is_left_when_the_last_receiver_goes_reaches_the_hook() {
    let seen: Arc<Mutex<Vec<(u8, Discarded)>>> = Arc::default();
    let hook = seen.clone();
    let (sender, receiver) = Queue::bounded(2)
        .on_discard(move |item, why| hook.lock().unwrap().push((item, why)))
        .build();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut waiting = spawn(sender.send(3));
    assert_pending!(waiting.poll());
    drop(receiver);
    assert_eq!(assert_ready_err!(waiting.poll()), SendError::Closed(3));
    let expected = [(1, Discarded::Abandoned), (2, Discarded::Abandoned)];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(sender.stats().discarded, 2);
}

#[test]
fn closed_is_ready_once_nothing_can_be_sent() {
    let (sender, receiver) = queue::bounded::<u8>(1);
    let mut closed = spawn(sender.closed());
    assert_pending!(closed.poll());
    receiver.close();
    assert!(closed.is_woken());
    assert_ready!(closed.poll());
    assert_ready!(spawn(sender.closed()).poll());
    let send = spawn(sender.send(1)).poll();
    assert_ready_err!(send);
}

#[test]
fn a_cause_that_comes_too_late_is_dropped_outside_the_lock() {
    #[derive(Debug)]
    struct Holds(#[expect(dead_code, reason = "it is there to be dropped")] Sender<u8>);
    impl std::fmt::Display for Holds {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("too late")
        }
    }
    impl std::error::Error for Holds {}
    let (sender, _receiver) = queue::bounded(1);
    assert!(sender.close());
    assert!(!sender.close_with(Holds(sender.clone())));
}

#[test]
fn what_a_close_refuses_withholds_nothing() {
    let (sender, mut receiver) = queue::rendezvous();
    let mut feeding = receiver.clone();
    let mut delivering = spawn(feeding.deliver());
    assert_pending!(delivering.poll());
    sender.try_send(1).unwrap();
    let delivery = assert_ready_ok!(delivering.poll());
    let mut waits = spawn(receiver.recv());
    assert_pending!(waits.poll());
    delivery.send(2).unwrap();
    let (mut reserves, mut sends) = (spawn(sender.reserve()), spawn(sender.send(3)));
    assert_pending!(reserves.poll());
    assert_pending!(sends.poll());
    sender.close();
    // Both are refused, whether they look or not: the item is for who waits for it.
    assert!(waits.is_woken());
    assert_eq!(assert_ready_ok!(waits.poll()), 2);
    assert!(assert_ready!(reserves.poll()).is_err());
    assert_eq!(assert_ready_err!(sends.poll()), SendError::Closed(3));
}

#[test]
fn a_reservation_that_a_close_refuses_keeps_no_receiver_waiting() {
    for (weight, closes_first, is_dropped) in [1, 2]
        .into_iter()
        .flat_map(|weight| [true, false].map(|first| (weight, first)))
        .flat_map(|(weight, first)| [true, false].map(|dropped| (weight, first, dropped)))
    {
        let (sender, mut receiver) = queue::bounded::<()>(weight);
        let permit = sender.try_reserve().unwrap();
        let mut reserves = spawn(sender.reserve_weight(weight));
        assert_pending!(reserves.poll());
        let mut other = receiver.clone();
        let mut waits = spawn(other.recv());
        assert_pending!(waits.poll());
        if closes_first {
            receiver.close();
            assert!(reserves.is_woken());
            assert_pending!(spawn(receiver.recv()).poll(), "for the permit");
            drop(permit);
        } else {
            drop(permit);
            assert!(reserves.is_woken(), "it is its turn, and it has not looked");
            receiver.close();
        }
        if is_dropped {
            drop(reserves);
        } else {
            assert_eq!(assert_ready_err!(reserves.poll()), SendError::Closed(()));
        }
        assert!(waits.is_woken());
        assert!(assert_ready!(waits.poll()).is_err());
    }
}

#[test]
fn who_waits_until_all_is_done_hears_of_an_abort_and_of_the_last_receiver() {
    let (sender, receiver) = queue::bounded(1);
    sender.try_send('a').unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    assert_eq!(receiver.abort(), ['a']);
    assert!(join.is_woken());
    assert_ready!(join.poll());
    assert_eq!(sender.stats().used, 0);

    let (sender, receiver) = Queue::rendezvous().build();
    let (mut send, mut join) = (spawn(sender.send('a')), spawn(sender.join()));
    assert_pending!(send.poll());
    assert_pending!(join.poll());
    drop(receiver); // and the item is its sender's again
    assert!(join.is_woken());
    assert_ready!(join.poll());
}
