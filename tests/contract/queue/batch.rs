//! Many at once.

use std::time::Duration;

use ringfence::queue::{self, Overflow, Queue, SendError};
use ringfence::timeout;
use tokio::time::{Instant, sleep};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};

use super::drain;
use crate::support::{Count, paused, single_thread};

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn recv_many_takes_what_is_there() {
    single_thread(async || {
        for queue in [Queue::bounded(8), Queue::bounded(8).redeliver(1)] {
            let (sender, mut receiver) = queue.build();
            let mut items = vec![0];
            assert_eq!(receiver.recv_many(&mut items, 0).await.unwrap(), 0);
            {
                let mut recv = spawn(receiver.recv_many(&mut items, 3));
                assert_pending!(recv.poll());
                for item in 1..=5 {
                    sender.try_send(item).unwrap();
                }
                assert!(recv.is_woken());
                assert_eq!(assert_ready!(recv.poll()).unwrap(), 3);
            }
            drop(sender);
            assert_eq!(receiver.recv_many(&mut items, 9).await.unwrap(), 2);
            assert_eq!(items, [0, 1, 2, 3, 4, 5]);
            assert!(receiver.recv_many(&mut items, 9).await.is_err());
            assert_eq!(items.len(), 6, "as it was");
        }
    });
}

#[test]
fn recv_many_leaves_what_others_wait_for() {
    let (sender, receiver) = queue::bounded(8);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut items = Vec::new();
    let mut many = spawn(first.recv_many(&mut items, 8));
    let mut one = spawn(second.recv());
    assert_pending!(many.poll());
    assert_pending!(one.poll());
    for item in 1..=3 {
        sender.try_send(item).unwrap();
    }
    assert_eq!(assert_ready!(many.poll()).unwrap(), 2);
    assert_eq!(assert_ready!(one.poll()).unwrap(), 3);
    drop(many);
    assert_eq!(items, [1, 2]);
}

#[test]
fn a_batch_is_ready_when_full_or_after_its_linger() {
    paused(async || {
        let (sender, mut receiver) = queue::bounded(10);
        let start = Instant::now();
        let sends = async {
            for item in 0..3 {
                sender.send(item).await.unwrap();
            }
            sleep(ms(500)).await;
            for item in 3..5 {
                sender.send(item).await.unwrap();
                sleep(ms(20)).await;
            }
            sleep(ms(460)).await;
            sender.send(5).await.unwrap();
            drop(sender);
        };
        let takes = async {
            let mut batches = Vec::new();
            let mut batch = Vec::new();
            while receiver.recv_batch(&mut batch, 3, ms(100)).await.is_ok() {
                let at = start.elapsed().as_millis();
                batches.push((at, std::mem::take(&mut batch)));
            }
            batches
        };
        let ((), batches) = tokio::join!(sends, takes);
        let expected = [(0, vec![0, 1, 2]), (600, vec![3, 4]), (1_000, vec![5])];
        assert_eq!(batches, expected);
    });
}

#[test]
fn a_batch_that_is_polled_for_nothing_does_not_linger_yet() {
    paused(async || {
        let (sender, mut receiver) = queue::bounded(4);
        let mut items = Vec::new();
        let mut batch = spawn(receiver.recv_batch(&mut items, 3, ms(10)));
        for _ in 0..3 {
            assert_pending!(batch.poll());
            sleep(ms(100)).await;
        }
        sender.try_send(1).unwrap();
        assert_pending!(batch.poll(), "from now on it lingers");
        sleep(ms(9)).await;
        assert_pending!(batch.poll());
        sleep(ms(1)).await;
        assert_eq!(assert_ready_ok!(batch.poll()), 1);
    });
}

#[test]
fn a_batch_wants_no_more_than_there_is_room_for() {
    paused(async || {
        let start = Instant::now();
        for queue in [Queue::bounded(4), Queue::bounded(8).weight(|_| 2)] {
            let (sender, mut receiver) = queue.build();
            sender.try_send(0).unwrap();
            let delivery = receiver.try_deliver().unwrap();
            let mut batch = Vec::new();
            let takes = async {
                while batch.len() < 6 {
                    receiver
                        .recv_batch(&mut batch, 100, ms(5_000))
                        .await
                        .unwrap();
                }
            };
            let sends = async {
                for item in 1..=7 {
                    sender.send(item).await.unwrap();
                }
            };
            tokio::join!(sends, takes);
            assert!(batch.len() >= 6);
            drop(delivery);
        }
        assert_eq!(start.elapsed(), ms(0));
    });
}

#[test]
fn a_batch_dropped_half_way_leaves_everything_in_the_queue() {
    paused(async || {
        let (sender, mut receiver) = queue::bounded(10);
        for item in 0..3 {
            sender.try_send(item).unwrap();
        }
        let mut batch = Vec::new();
        let late = timeout(ms(10), receiver.recv_batch(&mut batch, 9, ms(100))).await;
        assert!(late.is_err() && batch.is_empty());
        assert_eq!(drain(&mut receiver), [0, 1, 2]);
        let mut half = spawn(receiver.recv_batch(&mut batch, 9, ms(100)));
        assert_pending!(half.poll());
        sender.try_send(3).unwrap();
        drop(half);
        assert_eq!(sender.stats().waiting_receivers, 0);
    });
}

#[test]
fn send_many_sends_all_in_order() {
    single_thread(async || {
        let queues = [
            Queue::bounded(3),
            Queue::bounded(3).weight(|_| 1),
            Queue::rendezvous(),
        ];
        for queue in queues {
            let (sender, mut receiver) = queue.build();
            let mut items: Vec<i32> = (0..20).collect();
            let takes = async {
                let mut taken = Vec::new();
                while let Ok(item) = receiver.recv().await {
                    taken.push(item);
                }
                taken
            };
            let sends = async {
                let result = sender.send_many(&mut items).await;
                drop(sender);
                (result, items)
            };
            let (taken, (result, rest)) = tokio::join!(takes, sends);
            assert_eq!((result, rest), (Ok(()), vec![]));
            assert!(taken.into_iter().eq(0..20));
        }
    });
}

#[test]
fn send_many_keeps_what_it_could_not_send() {
    for queue in [Queue::bounded(2), Queue::bounded(2).weight(|_| 1)] {
        let (sender, mut receiver) = queue.build();
        let mut items = vec![1, 2, 3, 4];
        {
            let mut many = spawn(sender.send_many(&mut items));
            assert_pending!(many.poll());
        }
        assert_eq!(items, [3, 4]);
        assert_eq!(sender.stats().waiting_senders, 0);
        {
            let mut many = spawn(sender.send_many(&mut items));
            assert_pending!(many.poll());
            receiver.close();
            assert!(many.is_woken());
            assert_eq!(assert_ready!(many.poll()), Err(SendError::Closed(())));
        }
        assert_eq!(items, [3, 4]);
        assert_eq!(drain(&mut receiver), [1, 2]);
    }
    let (sender, mut receiver) = Queue::bounded(2).overflow(Overflow::Refuse).build();
    let mut items = vec![1, 2, 3, 4];
    let refused = assert_ready!(spawn(sender.send_many(&mut items)).poll());
    assert_eq!((refused, items), (Err(SendError::Full(())), vec![3, 4]));
    assert_eq!(drain(&mut receiver), [1, 2]);
}

#[test]
fn send_many_waits_its_turn() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(0).unwrap();
    let mut one = spawn(sender.send(1));
    assert_pending!(one.poll());
    let mut items = vec![2, 3];
    let mut many = spawn(sender.send_many(&mut items));
    assert_pending!(many.poll());
    assert_eq!(receiver.try_recv().unwrap(), 0);
    assert_pending!(many.poll());
    assert!(assert_ready!(one.poll()).is_ok());
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert_pending!(many.poll());
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert!(assert_ready!(many.poll()).is_ok());
    assert_eq!(receiver.try_recv().unwrap(), 3);
}

#[test]
fn many_items_pass_a_narrow_queue_at_the_same_cost_each() {
    const COUNT: usize = 60_000;
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded::<[usize; 64]>(1);
        let mut items: Vec<_> = (0..COUNT).map(|item| [item; 64]).collect();
        // Each that goes must not move all the others: that would take minutes.
        let sends = sender.send_many(&mut items);
        let receives = async {
            for item in 0..COUNT {
                assert_eq!(receiver.recv().await.unwrap()[0], item);
            }
        };
        assert!(tokio::join!(sends, receives).0.is_ok());
    });
}

#[test]
fn send_many_on_a_closed_queue_never_waits() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(0).unwrap();
    let _keeps_the_room = receiver.try_deliver().unwrap();
    let mut first = spawn(sender.send(1));
    assert_pending!(first.poll());
    sender.close();
    // The first still stands in the line: it has not been polled since.
    let mut items = vec![2, 3];
    let refused = assert_ready_err!(spawn(sender.send_many(&mut items)).poll());
    assert_eq!((refused, items), (SendError::Closed(()), vec![2, 3]));
    assert_ready_err!(first.poll());
}

#[test]
fn each_item_is_measured_once() {
    let asked = Count::new();
    let seen = asked.clone();
    let (sender, mut receiver) = Queue::bounded(2)
        .weight(move |_: &u32| {
            seen.add();
            1
        })
        .build();
    let mut items = vec![1, 2, 3];
    let mut many = spawn(sender.send_many(&mut items));
    assert_pending!(many.poll());
    receiver.try_recv().unwrap();
    assert_ready_ok!(many.poll());
    drop(many);
    assert_eq!((asked.get(), items.len()), (3, 0));
}

#[test]
fn a_batch_does_not_linger_for_room_that_permits_hold() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(4);
        let mut items = Vec::new();
        let mut batch = spawn(receiver.recv_batch(&mut items, 4, Duration::MAX));
        sender.try_send(1).unwrap();
        assert_pending!(batch.poll());
        let reserved = spawn(sender.reserve_weight(3)).poll();
        let _permit = assert_ready_ok!(reserved);
        assert!(batch.is_woken());
        assert_eq!(assert_ready_ok!(batch.poll()), 1);
    });
}

#[test]
fn a_batch_lets_who_reserved_on_a_rendezvous_go_first() {
    single_thread(async || {
        let (sender, mut receiver) = queue::rendezvous();
        let mut reserve = spawn(sender.reserve());
        assert_pending!(reserve.poll());
        let mut send = spawn(sender.send(2));
        assert_pending!(send.poll());
        let mut items = Vec::new();
        let mut batch = spawn(receiver.recv_batch(&mut items, 4, Duration::MAX));
        assert_pending!(batch.poll());
        assert!(reserve.is_woken());
        assert_ready_ok!(reserve.poll()).send(1).unwrap();
        assert_eq!(assert_ready_ok!(batch.poll()), 2);
        assert_ready_ok!(send.poll());
    });
}

#[test]
fn a_batch_does_not_linger_once_the_queue_is_closed() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(4);
        sender.try_send(0).unwrap();
        let _delivery = receiver.try_deliver().unwrap();
        sender.try_send(1).unwrap();
        let mut items = Vec::new();
        let mut batch = spawn(receiver.recv_batch(&mut items, 3, Duration::MAX));
        assert_pending!(batch.poll());
        if batch.is_woken() {
            assert_pending!(batch.poll());
        }
        sender.close();
        assert!(batch.is_woken());
        assert_eq!(assert_ready_ok!(batch.poll()), 1);
    });
}

#[test]
fn a_batch_that_is_there_does_not_wait() {
    let (sender, mut receiver) = queue::bounded(4);
    for item in 1..=3 {
        sender.try_send(item).unwrap();
    }
    let mut items = vec![0];
    let batch = spawn(receiver.recv_batch(&mut items, 3, Duration::MAX)).poll();
    assert_eq!(assert_ready_ok!(batch), 3);
    assert_eq!(items, [0, 1, 2, 3]);
    assert_eq!(sender.stats().received, 3);
}

#[test]
fn a_batch_does_not_linger_while_somebody_waits_for_room() {
    paused(async || {
        for (weight, reserves) in [(1, false), (2, false), (2, true)] {
            let (sender, mut receiver) = Queue::bounded(4).weight(|weight| *weight).build();
            let mut items = Vec::new();
            let mut batch = spawn(receiver.recv_batch(&mut items, 3, Duration::MAX));
            assert_pending!(batch.poll());
            sender.try_send(3).unwrap();
            let mut send = spawn(sender.send(weight));
            let mut reserve = spawn(sender.reserve_weight(weight));
            if reserves {
                assert_pending!(reserve.poll());
            } else if weight == 2 {
                assert_pending!(send.poll()); // not full, but somebody waits
            } else {
                assert_ready_ok!(send.poll()); // full, and nobody waits
            }
            assert!(batch.is_woken());
            assert_ready_ok!(batch.poll());
        }
    });
}

#[test]
fn a_send_of_many_that_fits_does_not_wait() {
    let (sender, mut receiver) = queue::bounded(4);
    let mut items = vec![1, 2, 3];
    assert_ready_ok!(spawn(sender.send_many(&mut items)).poll());
    assert!(items.is_empty());
    assert_eq!(sender.stats().sent, 3);
    assert_eq!(drain(&mut receiver), [1, 2, 3]);
}

#[test]
fn a_send_of_many_wakes_as_many() {
    let (sender, receiver) = queue::bounded(4);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let (mut one, mut two) = (spawn(first.recv()), spawn(second.recv()));
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    assert_ready_ok!(spawn(sender.send_many(&mut vec![1, 2])).poll());
    assert!(one.is_woken() && two.is_woken());
    assert_eq!(assert_ready_ok!(two.poll()), 1);
    assert_eq!(assert_ready_ok!(one.poll()), 2);
}

#[test]
fn a_send_of_many_does_not_overtake_and_keeps_its_place() {
    let (sender, mut receiver) = queue::bounded(4);
    for item in [1, 2] {
        sender.try_send(item).unwrap();
    }
    let mut reserve = spawn(sender.reserve_weight(3));
    assert_pending!(reserve.poll());
    let mut items = vec![3];
    let mut many = spawn(sender.send_many(&mut items));
    let mut last = spawn(sender.send(4));
    assert_pending!(many.poll()); // there is room, but not for who came first
    assert_pending!(last.poll());
    assert_pending!(many.poll());
    drop(reserve);
    assert!(many.is_woken() && last.is_woken());
    assert_ready_ok!(last.poll());
    assert_ready_ok!(many.poll());
    drop(many);
    let mut items = vec![5, 6];
    let mut many = spawn(sender.send_many(&mut items));
    let mut last = spawn(sender.send(7));
    assert_pending!(many.poll());
    assert_pending!(last.poll());
    assert_pending!(many.poll()); // once more, for nothing
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert!(many.is_woken() && !last.is_woken());
}
