//! Queues: order, room, turns. What a cancel leaves is in `queue/cancel.rs`, ends in `queue/close.rs`, deliveries in
//! `queue/delivery.rs`, policies in `queue/overflow.rs`, batches in `queue/batch.rs`.

#[path = "queue/batch.rs"]
mod batch;
#[path = "queue/cancel.rs"]
mod cancel;
#[path = "queue/close.rs"]
mod close;
#[path = "queue/delivery.rs"]
mod delivery;
#[path = "queue/kinds.rs"]
mod kinds;
#[path = "queue/overflow.rs"]
mod overflow;
#[cfg(feature = "stream")]
#[path = "queue/stream.rs"]
mod stream;

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use futures::FutureExt;
use ringfence::queue::{self, Queue, Receiver, SendError, TryRecvError};
use ringfence::{TaskGroup, scope};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};

use crate::support::{Count, CountingWaker, every_runtime, settle, single_thread};

/// Everything that is there now.
fn drain<T>(receiver: &mut Receiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn items_come_out_in_the_order_in_which_they_went_in() {
    let (sender, mut receiver) = queue::bounded(3);
    for item in [1, 3, 2] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [1, 3, 2]);
}

#[test]
fn lifo_gives_the_last_item_first() {
    for queue in [Queue::bounded(3), Queue::bounded(3).weight(|_| 1)] {
        let (sender, mut receiver) = queue.lifo().build();
        for item in [1, 3, 2] {
            sender.try_send(item).unwrap();
        }
        assert_eq!(drain(&mut receiver), [2, 3, 1]);
    }
}

#[test]
fn the_lowest_rank_comes_first() {
    let (sender, mut receiver) = Queue::bounded(3).rank(|item: &i64| *item).build();
    for item in [1, 3, 2] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [1, 2, 3]);
}

#[test]
fn equal_ranks_keep_the_order_of_sending() {
    let (sender, mut receiver) = Queue::bounded(9)
        .rank(|(rank, _): &(i64, char)| *rank)
        .redeliver(2)
        .build();
    for item in [(1, 'a'), (0, 'b'), (1, 'c'), (0, 'd'), (1, 'e')] {
        sender.try_send(item).unwrap();
    }
    let first = receiver.try_deliver().unwrap();
    let second = receiver.try_deliver().unwrap();
    drop(second);
    drop(first);
    let order: String = drain(&mut receiver).iter().map(|(_, name)| *name).collect();
    assert_eq!(order, "bdace");
}

#[test]
fn items_of_a_high_rank_wait_and_are_not_lost() {
    let (sender, mut receiver) = Queue::unbounded().rank(|item: &i64| *item % 2).build();
    let mut first = 0;
    for item in 0..100_000 {
        sender.try_send(2 * item + 1).unwrap();
        sender.try_send(2 * item).unwrap();
        first += receiver.try_recv().unwrap() % 2;
    }
    assert_eq!(first, 0, "the low rank comes first");
    let rest = drain(&mut receiver);
    assert!(
        rest.iter()
            .copied()
            .eq((0..100_000).map(|item| 2 * item + 1))
    );
}

#[test]
fn a_send_waits_for_room() {
    let (sender, mut receiver) = queue::bounded(2);
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut third = spawn(sender.send(3));
    assert_pending!(third.poll());
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert!(third.is_woken());
    assert_ready_ok!(third.poll());
    assert_eq!(drain(&mut receiver), [2, 3]);
}

#[test]
fn capacities_of_zero_are_refused() {
    use std::panic::catch_unwind;
    let text = |run: fn()| {
        let payload = catch_unwind(run).expect_err("refused");
        crate::support::message(&*payload)
    };
    assert!(text(|| drop(queue::bounded::<u8>(0))).contains("capacity 0"));
    assert!(text(|| drop(Queue::<u8>::bounded(1).redeliver(0))).contains("0 times"));
    assert!(text(|| drop(ringfence::Workers::<()>::new(0))).contains("0 workers"));
}

#[test]
fn a_huge_capacity_allocates_nothing_ahead() {
    let (sender, mut receiver) = queue::bounded(usize::MAX);
    sender.try_send([0_u8; 64]).unwrap();
    assert!(receiver.try_recv().is_ok());
    let (sender, _receiver) = Queue::bounded(usize::MAX).weight(|_| usize::MAX).build();
    sender.try_send(1).unwrap();
    assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
}

#[test]
fn a_refused_item_comes_back() {
    let (sender, receiver) = Queue::bounded(3).weight(|item: &usize| *item).build();
    assert_eq!(sender.try_send(4), Err(SendError::TooHeavy(4)));
    sender.try_send(3).unwrap();
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    receiver.close();
    assert_eq!(sender.try_send(2), Err(SendError::Closed(2)));
    assert_eq!(sender.try_send(2).unwrap_err().into_inner(), 2);
}

#[test]
fn empty_and_closed_are_told_apart() {
    let (sender, mut receiver) = queue::bounded(1);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    sender.try_send(1).unwrap();
    sender.close();
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
}

#[test]
fn a_drain_loop_sees_every_item_that_was_sent() {
    every_runtime(async || {
        let (sender, mut receiver) = queue::bounded(4);
        let sent = Count::new();
        let received = scope(async |group: &TaskGroup| {
            for _ in 0..100 {
                let (sender, sent) = (sender.clone(), sent.clone());
                group.spawn(async move {
                    if sender.try_send(1).is_ok() {
                        sent.add();
                    }
                });
            }
            drop(sender);
            let mut received = 0;
            loop {
                match receiver.try_recv() {
                    Ok(item) => received += item,
                    Err(TryRecvError::Closed(_)) => return Ok(received),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(received, sent.get());
    });
}

#[test]
fn the_figures_are_exact() {
    let (sender, mut receiver) = queue::bounded(2);
    let other = sender.clone();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut waiting = spawn(other.send(3));
    assert_pending!(waiting.poll());
    let stats = receiver.stats();
    assert_eq!(
        (stats.len, stats.used, stats.peak, stats.capacity),
        (2, 2, 2, Some(2))
    );
    assert_eq!((stats.senders, stats.receivers), (2, 1));
    assert_eq!((stats.waiting_senders, stats.waiting_receivers), (1, 0));
    drop(waiting);
    assert_eq!(drain(&mut receiver), [1, 2]);
    let mut second = receiver.clone();
    let mut waiting = spawn(second.recv());
    assert_pending!(waiting.poll());
    let stats = receiver.stats();
    assert_eq!(
        (
            stats.len,
            stats.peak,
            stats.waiting_senders,
            stats.waiting_receivers
        ),
        (0, 2, 0, 1)
    );
    assert_eq!((stats.sent, stats.received), (2, 2));
    drop(waiting);
    assert_eq!(receiver.stats().waiting_receivers, 0);
    assert_eq!(queue::unbounded::<u8>().0.stats().capacity, None);
    assert_eq!(queue::rendezvous::<u8>().0.stats().capacity, Some(0));
}

#[test]
fn what_waits_on_a_rendezvous_is_not_counted_as_sent() {
    let (sender, mut receiver) = queue::rendezvous();
    let mut given_up = spawn(sender.send(1));
    assert_pending!(given_up.poll());
    assert_eq!(receiver.stats().sent, 0);
    drop(given_up);
    let mut taken = spawn(sender.send(2));
    assert_pending!(taken.poll());
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert_eq!(receiver.stats().sent, 1);
    let mut failed = spawn(sender.send(3));
    assert_pending!(failed.poll());
    sender.close();
    assert_eq!(assert_ready_err!(failed.poll()).into_inner(), 3);
    assert_eq!((receiver.stats().sent, receiver.stats().received), (1, 1));
}

#[test]
fn an_unbounded_queue_never_makes_a_sender_wait() {
    let (sender, mut receiver) = Queue::unbounded().weight(|_: &u8| usize::MAX).build();
    for item in [1, 2] {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    receiver.try_deliver().unwrap().done();
    assert_eq!(drain(&mut receiver), [2]);

    let (sender, receiver) = queue::unbounded();
    for item in 0..10_000 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    assert_eq!(receiver.len(), 10_000);
}

#[test]
fn a_rendezvous_passes_items_from_hand_to_hand() {
    let (sender, mut receiver) = queue::rendezvous();
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    let mut send = spawn(sender.send(2));
    assert_pending!(send.poll());
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert!(send.is_woken());
    assert_ready_ok!(send.poll());

    let mut other = receiver.clone();
    let mut recv = spawn(other.recv());
    assert_pending!(recv.poll());
    sender.try_send(3).unwrap();
    assert_eq!(assert_ready!(recv.poll()).unwrap(), 3);
    let mut first = spawn(receiver.recv());
    assert_pending!(first.poll());
    let mut send = spawn(sender.send(4));
    assert_pending!(send.poll(), "nobody has it yet");
    assert_eq!(assert_ready!(first.poll()).unwrap(), 4);
    assert_ready_ok!(send.poll());
}

#[test]
fn nobody_overtakes_a_receiver_that_waits() {
    let (sender, receiver) = queue::bounded(1);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut waiting = spawn(first.recv());
    assert_pending!(waiting.poll());
    sender.try_send(1).unwrap();
    assert!(matches!(second.try_recv(), Err(TryRecvError::Empty)));
    assert_pending!(spawn(second.recv()).poll());
    assert_eq!(assert_ready!(waiting.poll()).unwrap(), 1);
}

#[test]
fn nobody_overtakes_a_sender_that_waits() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(1).unwrap();
    let mut waiting = spawn(sender.send(2));
    assert_pending!(waiting.poll());
    assert_eq!(receiver.try_recv().unwrap(), 1);
    assert_eq!(sender.try_send(3), Err(SendError::Full(3)));
    assert_ready_ok!(waiting.poll());
}

#[test]
fn promises_that_came_to_nothing_leave_the_order_as_it_was() {
    let (sender, receiver) = queue::rendezvous();
    let (mut one, mut two) = (receiver.clone(), receiver);
    let (mut first, mut second) = (spawn(one.recv()), spawn(two.recv()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    {
        let mut sends = [spawn(sender.send(1)), spawn(sender.send(2))];
        sends
            .iter_mut()
            .for_each(|send| assert_pending!(send.poll()));
        assert!(first.is_woken() && second.is_woken());
    }
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    sender.try_send(3).unwrap();
    assert!(first.is_woken() && !second.is_woken());
}

#[test]
fn nobody_overtakes_on_a_queue_that_feeds_itself() {
    let (sender, receiver) = queue::bounded(8);
    sender.try_send(0).unwrap();
    drop(sender);
    let mut late = receiver.clone();
    let seed = late.try_deliver().unwrap();
    let (mut one, mut two) = (receiver.clone(), receiver);
    let (mut first, mut second) = (spawn(one.recv()), spawn(two.recv()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    seed.send(1).unwrap();
    seed.send(2).unwrap();
    assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(assert_ready!(second.poll()), Ok(1));
    assert_eq!(assert_ready!(first.poll()), Ok(2));
}

#[test]
fn who_sends_and_who_reserves_take_turns_on_a_rendezvous() {
    let (sender, receiver) = queue::rendezvous();
    let mut receivers = [receiver.clone(), receiver.clone(), receiver.clone()];
    let mut reserve = spawn(sender.reserve());
    assert_pending!(reserve.poll());
    let mut send = spawn(sender.send(1));
    assert_pending!(send.poll());
    let mut last = spawn(sender.reserve());
    assert_pending!(last.poll());
    let mut waiting: Vec<_> = receivers.iter_mut().map(|r| spawn(r.recv())).collect();

    // The first receiver is for the first who came, the second for the second.
    assert_pending!(waiting[0].poll());
    assert!(reserve.is_woken() && !last.is_woken());
    assert_eq!(receiver.clone().try_recv(), Err(TryRecvError::Empty));
    assert_pending!(waiting[1].poll());
    assert!(waiting[0].is_woken() && !last.is_woken());
    assert_eq!(assert_ready!(waiting[0].poll()), Ok(1));
    assert_ready_ok!(send.poll());
    assert_pending!(waiting[2].poll());
    assert!(last.is_woken());
    assert_ready_ok!(reserve.poll()).send(2).unwrap();
    assert_eq!(assert_ready!(waiting[1].poll()), Ok(2));
    assert_ready_ok!(last.poll()).send(3).unwrap();
    assert_eq!(assert_ready!(waiting[2].poll()), Ok(3));
}

#[test]
fn a_reservation_whose_receiver_left_waits_for_another() {
    let (sender, receiver) = queue::rendezvous();
    let (mut one, mut two) = (receiver.clone(), receiver);
    let mut reserve = spawn(sender.reserve());
    assert_pending!(reserve.poll());
    let mut recv = spawn(one.recv());
    assert_pending!(recv.poll());
    assert!(reserve.is_woken());
    drop(recv);
    assert_pending!(reserve.poll());
    let mut recv = spawn(two.recv());
    assert_pending!(recv.poll());
    assert_ready_ok!(reserve.poll()).send(1).unwrap();
    assert_eq!(assert_ready!(recv.poll()), Ok(1));
}

#[test]
fn a_permit_may_own_its_queue() {
    single_thread(async || {
        let (sender, mut receiver) = queue::bounded(2);
        let permit = sender.reserve_owned(2).await.unwrap();
        assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        crate::support::spawn(async move { permit.send(2) });
        assert_eq!(receiver.recv().await, Ok(2));
        assert!(receiver.recv().await.is_err());
    });
}

#[test]
fn a_heavy_item_is_not_overtaken_by_light_ones() {
    let (sender, mut receiver) = Queue::bounded(4).weight(|item: &usize| *item).build();
    sender.try_send(3).unwrap();
    let mut heavy = spawn(sender.send(4));
    assert_pending!(heavy.poll());
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    let mut light = spawn(sender.send(1));
    assert_pending!(light.poll());
    assert_eq!(receiver.try_recv().unwrap(), 3);
    assert!(heavy.is_woken() && !light.is_woken());
    assert_ready_ok!(heavy.poll());
    assert_eq!(receiver.try_recv().unwrap(), 4);
    assert_ready_ok!(light.poll());
}

#[test]
fn weights_are_counted_and_never_exceed_the_capacity() {
    let (sender, mut receiver) = Queue::bounded(5).weight(|item: &usize| *item).build();
    for item in [2, 0, 2] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(sender.stats().used, 5);
    assert_eq!(sender.try_send(0), Err(SendError::Full(0)));
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert_eq!(sender.stats().used, 3);
}

async fn shares(senders: usize, receivers: usize, items: usize) -> (Vec<usize>, Vec<usize>) {
    let (sender, receiver) = queue::bounded(1);
    let counts = Arc::new(Mutex::new((vec![0; senders], vec![0; receivers])));
    let taken = Count::new();
    scope(async |group: &TaskGroup| {
        let send = |i| {
            let sender = sender.clone();
            group.spawn(async move { while sender.send(i).await.is_ok() {} });
        };
        let take = |i: usize| {
            let (mut receiver, counts, taken) = (receiver.clone(), counts.clone(), taken.clone());
            group.spawn(async move {
                while let Ok(from) = receiver.recv().await {
                    let mut counts = counts.lock().expect("as it should");
                    let (sent, received): &mut (Vec<usize>, Vec<usize>) = &mut counts;
                    sent[from] += 1;
                    received[i] += 1;
                    if taken.add() + 1 >= items {
                        drop(receiver.abort());
                        break;
                    }
                }
            });
        };
        // The side that is many stands in its list before the other one begins.
        if senders > 1 {
            sender.send(0).await?;
            (0..senders).for_each(send);
            settle().await;
            (0..receivers).for_each(take);
        } else {
            (0..receivers).for_each(take);
            settle().await;
            (0..senders).for_each(send);
        }
        Ok(())
    })
    .await
    .expect("as it should");
    let counts = counts.lock().expect("as it should");
    counts.clone()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().expect("as it should") - counts.iter().min().expect("as it should")
}

#[test]
fn eight_senders_get_equal_shares() {
    single_thread(async || {
        let (sent, _) = shares(8, 1, 8_001).await;
        assert!(spread(&sent) <= 1, "{sent:?}");
    });
}

#[test]
fn eight_receivers_get_equal_shares() {
    single_thread(async || {
        let (_, received) = shares(1, 8, 8_000).await;
        assert!(spread(&received) <= 1, "{received:?}");
    });
}

#[test]
fn eight_by_eight_share_equally() {
    single_thread(async || {
        let (sent, received) = shares(8, 8, 8_001).await;
        assert!(spread(&sent) <= 1, "{sent:?}");
        assert!(spread(&received) <= 1, "{received:?}");
    });
}

#[test]
fn a_long_drain_lets_others_run() {
    single_thread(async || {
        let ring = (Queue::unbounded(), 2_000_000);
        let ranked = (Queue::unbounded().rank(|_| 0), 20_000);
        for (queue, count) in [ring, ranked] {
            let (sender, mut receiver) = queue.build();
            let mut items = vec![0_u8; count];
            sender.send_many(&mut items).await.unwrap();
            drop(sender);
            let turns = scope(async |group: &TaskGroup| {
                let drained = group.spawn(async move { while receiver.recv().await.is_ok() {} });
                let mut turns = 0_usize;
                while !drained.is_finished() {
                    turns += 1;
                    tokio::task::yield_now().await;
                }
                Ok(turns)
            })
            .await
            .unwrap();
            assert!(turns > count / 200, "{turns} turns");
        }
    });
}

#[test]
fn a_pipeline_of_capacity_one_ends() {
    every_runtime(async || {
        let sum = scope(async |group: &TaskGroup| {
            let (sender, mut stage) = queue::bounded(1);
            group.spawn(async move {
                for item in 0..500_u64 {
                    sender.send(item).await.unwrap();
                }
            });
            for _ in 0..3 {
                let (sender, receiver) = queue::bounded(1);
                let mut previous = std::mem::replace(&mut stage, receiver);
                group.spawn(async move {
                    while let Ok(item) = previous.recv().await {
                        sender.send(item + 1).await.unwrap();
                    }
                });
            }
            let mut sum = 0;
            while let Ok(item) = stage.recv().await {
                sum += item;
            }
            Ok(sum)
        })
        .await
        .unwrap();
        assert_eq!(sum, (0..500).sum::<u64>() + 3 * 500);
    });
}

#[test]
fn a_permit_holds_room_until_it_is_used_or_dropped() {
    let (sender, mut receiver) = queue::bounded(1);
    let permit = sender.try_reserve().unwrap();
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    assert!(sender.try_reserve().is_err());
    let too_heavy = assert_ready!(spawn(sender.reserve_weight(2)).poll());
    assert_eq!(too_heavy.unwrap_err(), SendError::TooHeavy(()));
    let mut waiting = spawn(sender.send(2));
    assert_pending!(waiting.poll());
    drop(permit);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
    assert_eq!(receiver.try_recv().unwrap(), 2);
    sender.try_reserve().unwrap().send(3).unwrap();
    assert_eq!(receiver.try_recv().unwrap(), 3);
}

#[test]
fn len_and_is_empty_count_the_items_and_nothing_else() {
    for (sender, mut receiver) in [queue::bounded(100), queue::unbounded()] {
        let permit = sender.try_reserve().unwrap();
        assert!((sender.len(), sender.is_empty()) == (0, true));
        drop(permit);
        for sent in 1..=100 {
            sender.try_send(sent).unwrap();
            assert_eq!((receiver.len(), receiver.is_empty()), (sent, false));
            assert_eq!((sender.len(), sender.is_empty()), (sent, false));
        }
        assert_eq!(
            sender.try_send(101).is_err(),
            sender.stats().capacity.is_some()
        );
        // Neither a close nor the end of the senders is an item.
        let items = receiver.len();
        receiver.close();
        assert_eq!(sender.len(), items);
        drop(sender);
        for left in (0..items).rev() {
            receiver.try_recv().unwrap();
            assert_eq!((receiver.len(), receiver.is_empty()), (left, left == 0));
        }
    }
    // Again and again through the same places.
    let (sender, mut receiver) = queue::bounded(33);
    for item in 0..256 {
        sender.try_send(item).unwrap();
        receiver.try_recv().unwrap();
        assert!(receiver.is_empty() && sender.is_empty());
    }
}

#[test]
fn handles_ask_nothing_of_the_item_and_show_who_waits() {
    struct Plain;
    let (sender, receiver) = queue::bounded(1);
    let permit = sender.clone().try_reserve().map(drop);
    assert!(permit.is_ok() && sender.clone().try_send(Plain).is_ok());
    let mut waits = spawn(sender.send(Plain));
    assert_pending!(waits.poll());
    let full: Box<dyn std::error::Error> = Box::new(sender.try_send(Plain).unwrap_err());
    assert_eq!(full.to_string(), "the queue is full");
    for shown in [format!("{sender:?}"), format!("{:?}", receiver.clone())] {
        assert!(shown.contains("waiting_senders: 1"), "{shown}");
    }
}

#[test]
fn who_waits_in_another_task_by_now_is_woken_there() {
    let moves = |wait: &mut dyn FnMut(&mut Context<'_>) -> bool, step: &dyn Fn()| {
        let (old, new) = (CountingWaker::new(), CountingWaker::new());
        for waker in [&old, &new] {
            assert!(!wait(&mut Context::from_waker(&waker.waker())));
        }
        step();
        assert_eq!((old.wakes(), new.wakes()), (0, 1));
        assert!(wait(&mut Context::from_waker(Waker::noop())));
    };
    for make in [|| queue::bounded(1), queue::rendezvous] {
        let (sender, receiver) = make();
        let _full = sender.try_send(0);
        let mut send = Box::pin(sender.send(1));
        let take = || assert!(receiver.clone().try_recv().is_ok());
        moves(&mut |cx| send.as_mut().poll(cx).is_ready(), &take);
    }
    let (sender, receiver) = queue::bounded(1);
    let mut recv = receiver.clone();
    let mut recv = Box::pin(recv.recv());
    let send = || sender.try_send(0).expect("room");
    moves(&mut |cx| recv.as_mut().poll(cx).is_ready(), &send);
    drop(recv);
    send();
    let mut join = Box::pin(sender.join());
    let take = || assert!(receiver.clone().try_recv().is_ok());
    moves(&mut |cx| join.as_mut().poll(cx).is_ready(), &take);
    let mut closed = Box::pin(sender.closed());
    let close = || assert!(sender.close());
    moves(&mut |cx| closed.as_mut().poll(cx).is_ready(), &close);
}

#[test]
fn a_permit_takes_no_more_weight_than_it_is_for() {
    let (sender, mut receiver) = Queue::bounded(5).weight(|n: &usize| *n).build();
    for (item, fits) in [(1, true), (2, true), (3, false)] {
        let permit = sender.reserve_weight(2).now_or_never().expect("room");
        match permit.expect("open").send(item) {
            Ok(()) => assert!(fits && receiver.try_recv() == Ok(item)),
            Err(refused) => assert!(!fits && matches!(refused, SendError::TooHeavy(3))),
        }
        assert!(sender.is_empty() && sender.try_reserve().is_ok());
    }
}

#[test]
fn nothing_is_sent_to_a_closed_queue_without_a_complaint() {
    let (sender, _receiver) = queue::bounded(1);
    sender.close();
    let (mut none, mut some) = (Vec::new(), vec![1]);
    assert!(matches!(
        sender.send_many(&mut none).now_or_never(),
        Some(Ok(()))
    ));
    let refused = sender.send_many(&mut some).now_or_never();
    assert!(matches!(refused, Some(Err(SendError::Closed(())))));
    assert_eq!(some, [1]);
}
