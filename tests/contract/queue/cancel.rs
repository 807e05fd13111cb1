//! What a dropped call leaves.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use ringfence::queue::{self, Queue, SendError, Sender, TryRecvError};
use ringfence::{Scope, TaskGroup, scope, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok};

use super::drain;
use crate::support::{
    Count, CountingWaker, Drops, cut_at_every_await, every_runtime, paused, settle,
};

#[test]
fn a_dropped_receive_leaves_its_item_in_its_place() {
    let (sender, receiver) = queue::bounded(3);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut waiting = spawn(first.recv());
    assert_pending!(waiting.poll());
    for item in [1, 2] {
        sender.try_send(item).unwrap();
    }
    assert!(waiting.is_woken());
    drop(waiting);
    assert_eq!(drain(&mut second), [1, 2]);
}

#[test]
fn of_many_receivers_the_next_ones_get_what_the_first_gave_up() {
    let (sender, receiver) = queue::bounded(2);
    let mut receivers = [receiver.clone(), receiver.clone(), receiver];
    let mut waiting: Vec<_> = receivers.iter_mut().map(|r| spawn(r.recv())).collect();
    for recv in &mut waiting {
        assert_pending!(recv.poll());
    }
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    drop(waiting.remove(0));
    let got: Vec<i32> = waiting
        .iter_mut()
        .map(|recv| assert_ready!(recv.poll()).unwrap())
        .collect();
    assert_eq!(got, [1, 2]);
}

#[test]
fn a_receive_dropped_before_the_send_is_forgotten() {
    let (sender, receiver) = queue::bounded(1);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut one = spawn(first.recv());
    let mut two = spawn(second.recv());
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    drop(one);
    sender.try_send(1).unwrap();
    assert!(two.is_woken());
    assert_eq!(assert_ready!(two.poll()).unwrap(), 1);
}

#[test]
fn a_dropped_send_was_never_in_the_queue() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send('a').unwrap();
    let mut b = spawn(sender.send('b'));
    let mut x = spawn(sender.send('x'));
    let mut c = spawn(sender.send('c'));
    for send in [&mut b, &mut x, &mut c] {
        assert_pending!(send.poll());
    }
    drop(x);
    assert_eq!(receiver.try_recv().unwrap(), 'a');
    assert_ready_ok!(b.poll());
    assert_eq!(receiver.try_recv().unwrap(), 'b');
    assert_ready_ok!(c.poll());
    assert_eq!(drain(&mut receiver), ['c']);
}

#[test]
fn a_send_dropped_at_its_turn_passes_its_room_on() {
    let drops = Drops::new();
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(drops.guard()).unwrap();
    let mut one = spawn(sender.send(drops.guard()));
    let mut two = spawn(sender.send(drops.guard()));
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    drop(receiver.try_recv().unwrap());
    assert!(one.is_woken() && !two.is_woken());
    drop(one);
    assert_eq!(drops.dropped(), 2);
    assert!(two.is_woken());
    assert_ready_ok!(two.poll());
    assert_eq!(receiver.len(), 1);
}

#[test]
fn cancelled_waiters_leave_no_trace() {
    let (sender, mut receiver) = queue::bounded::<u8>(1);
    let waker = CountingWaker::new();
    for _ in 0..100 {
        let task = waker.waker();
        let mut recv = std::pin::pin!(receiver.recv());
        assert!(
            recv.as_mut()
                .poll(&mut Context::from_waker(&task))
                .is_pending()
        );
    }
    let mut join = spawn(sender.join());
    assert_ready!(join.poll());
    sender.try_send(1).unwrap();
    let task = waker.waker();
    for _ in 0..100 {
        let mut cx = Context::from_waker(&task);
        assert!(std::pin::pin!(sender.join()).poll(&mut cx).is_pending());
        assert!(std::pin::pin!(sender.closed()).poll(&mut cx).is_pending());
    }
    drop(task);
    assert_eq!(Arc::strong_count(&waker), 1);
    assert_eq!(receiver.stats().waiting_receivers, 0);
}

#[test]
fn a_send_that_is_never_polled_drops_its_item_once() {
    let drops = Drops::new();
    let (sender, receiver) = queue::bounded(1);
    drop(sender.send(drops.guard()));
    assert_eq!((drops.dropped(), receiver.len()), (1, 0));
}

#[test]
fn receives_given_up_at_random_lose_and_double_nothing() {
    every_runtime(async || {
        const EACH: usize = 2_000;
        let (sender, receiver) = queue::bounded(2);
        let seen = Arc::new(Mutex::new(vec![0_u8; 4 * EACH]));
        scope(async |group: &TaskGroup| {
            for i in 0..4 {
                let sender = sender.clone();
                group.spawn(async move {
                    for item in i * EACH..(i + 1) * EACH {
                        sender.send(item).await.unwrap();
                    }
                });
            }
            drop(sender);
            for _ in 0..4 {
                let (mut receiver, seen) = (receiver.clone(), seen.clone());
                group.spawn(async move {
                    loop {
                        // The other branch is ready at its second poll.
                        let received = tokio::select! {
                            biased;
                            received = receiver.recv() => received,
                            () = tokio::task::yield_now() => continue,
                        };
                        match received {
                            Ok(item) => seen.lock().unwrap()[item] += 1,
                            Err(_) => break,
                        }
                    }
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert!(seen.lock().unwrap().iter().all(|count| *count == 1));
    });
}

#[test]
fn a_send_that_times_out_gives_its_item_back() {
    paused(async || {
        for (sender, mut receiver) in [queue::bounded(1), queue::rendezvous()] {
            let _full_or_nobody_there = sender.try_send(0);
            let start = tokio::time::Instant::now();
            let result = sender.send_timeout(1, Duration::from_millis(7)).await;
            assert_eq!(result, Err(SendError::TimedOut(1)));
            assert_eq!(start.elapsed(), Duration::from_millis(7));
            assert!(!drain(&mut receiver).contains(&1));
            drop(receiver);
            let result = sender.send_timeout(2, Duration::from_millis(7)).await;
            assert_eq!(result, Err(SendError::Closed(2)));
        }
    });
}

#[test]
fn a_receive_that_times_out_leaves_the_item_in_the_queue() {
    paused(async || {
        let (sender, mut receiver) = queue::bounded(1);
        let limit = Duration::from_millis(5);
        let (received, ()) = tokio::join!(timeout(limit, receiver.recv()), async {
            tokio::time::sleep(limit).await;
            sender.send(1).await.unwrap();
        });
        let left = drain(&mut receiver).len();
        assert_eq!(usize::from(received.is_ok()) + left, 1);
    });
}

#[test]
fn a_kept_future_withholds_one_item_at_most() {
    let (sender, receiver) = queue::bounded(2);
    let (mut first, mut second) = (receiver.clone(), receiver);
    let mut kept = spawn(first.recv());
    assert_pending!(kept.poll());
    for item in 0..100 {
        sender.try_send(2 * item).unwrap();
        if item > 0 {
            assert_eq!(second.try_recv().unwrap(), 2 * (item - 1));
        }
    }
    // Even that one is there for others once the queue is closed.
    sender.close();
    assert_eq!(second.try_recv().unwrap(), 198);
}

#[test]
fn a_wait_that_moves_is_woken_where_it_is() {
    let (sender, mut receiver) = queue::bounded(1);
    let (old, new) = (CountingWaker::new(), CountingWaker::new());
    let mut recv = std::pin::pin!(receiver.recv());
    for waker in [old.waker(), new.waker()] {
        assert!(
            recv.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    sender.try_send(1).unwrap();
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
}

struct Reentrant(Mutex<Option<Sender<u8>>>);

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        if let Some(sender) = self.0.lock().expect("no poison").take() {
            sender.try_send(9).expect("room");
        }
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        drop(self.0.lock().expect("no poison").take());
    }
}

#[test]
fn wakers_may_use_the_queue() {
    let (sender, mut receiver) = queue::bounded(2);
    let waker = Waker::from(Arc::new(Reentrant(Mutex::new(Some(sender.clone())))));
    let mut recv = std::pin::pin!(receiver.recv());
    assert!(
        recv.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(waker);
    sender.try_send(1).unwrap();
    assert_eq!(sender.len(), 2);
    let other = CountingWaker::new().waker();
    assert!(
        recv.as_mut()
            .poll(&mut Context::from_waker(&other))
            .is_ready()
    );
}

#[test]
fn calls_cut_at_every_await_leave_the_queue_whole() {
    paused(async || {
        let (sender, receiver) = Queue::bounded(2).redeliver(9).build();
        let items = Arc::new(Mutex::new(Vec::new()));
        let cuts = cut_at_every_await(
            || {
                let (sender, mut receiver) = (sender.clone(), receiver.clone());
                let items = items.clone();
                async move {
                    let mut feed = sender.clone();
                    let sends = async {
                        for item in 0..4 {
                            feed.send(item).await.unwrap();
                        }
                        feed = sender.clone();
                    };
                    let takes = async {
                        for _ in 0..2 {
                            let delivery = receiver.deliver().await.unwrap();
                            tokio::task::yield_now().await;
                            items.lock().unwrap().push(*delivery);
                            delivery.done();
                        }
                        while items.lock().unwrap().len() < 4 {
                            let (mut batch, linger) = (Vec::new(), Duration::from_millis(3));
                            receiver.recv_batch(&mut batch, 2, linger).await.unwrap();
                            items.lock().unwrap().append(&mut batch);
                        }
                    };
                    tokio::join!(sends, takes);
                }
            },
            async |_| {
                let stats = sender.stats();
                assert_eq!((stats.waiting_senders, stats.waiting_receivers), (0, 0));
                assert_eq!((stats.in_delivery, stats.used), (0, stats.len));
                let mut rest = drain(&mut receiver.clone());
                let mut all = std::mem::take(&mut *items.lock().unwrap());
                all.append(&mut rest);
                assert!(all.iter().copied().eq(0..all.len() as i32), "{all:?}");
            },
        )
        .await;
        assert!(cuts > 4, "{cuts}");
    });
}

#[test]
fn a_queue_drains_within_the_grace() {
    paused(async || {
        let (sender, mut receiver) = queue::bounded(1);
        let received = Count::new();
        let start = tokio::time::Instant::now();
        let error = Scope::new()
            .grace(Duration::from_millis(100))
            .run(async |group: &TaskGroup| {
                group.spawn(async move {
                    for item in 0..5 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        sender.send(item).await.unwrap();
                    }
                    pending::<()>().await;
                });
                let counted = received.clone();
                group.spawn(async move {
                    while receiver.recv().await.is_ok() {
                        counted.add();
                    }
                });
                settle().await;
                group.cancel();
                pending::<Result<(), _>>().await
            })
            .await
            .unwrap_err();
        assert_eq!(received.get(), 5);
        assert_eq!(error.forced().len(), 3, "both tasks, and the body");
        assert_eq!(start.elapsed(), Duration::from_millis(100));
    });
}

#[test]
fn a_send_with_a_limit_needs_a_runtime_only_where_it_waits() {
    let drops = Drops::new();
    let (sender, mut receiver) = queue::bounded(1);
    let send = || {
        let sent = sender.send_timeout(drops.guard(), Duration::from_secs(1));
        crate::support::caught(sent).now_or_never()
    };
    assert!(send().expect("there is room").expect("no panic").is_ok());
    let thrown = send().expect("it throws").map(drop).unwrap_err();
    assert_eq!(
        thrown,
        "ringfence: cannot wait for time outside a tokio runtime"
    );
    assert_eq!((drops.dropped(), sender.stats().waiting_senders), (1, 0));
    assert!(receiver.try_recv().is_ok());
}

#[test]
fn a_rendezvous_forgets_those_who_gave_up() {
    let (sender, mut receiver) = queue::rendezvous();
    let mut other = receiver.clone();
    let mut send = spawn(sender.send(1));
    assert_pending!(send.poll());
    drop(send);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    let mut recv = spawn(receiver.recv());
    assert_pending!(recv.poll());
    drop(recv);
    assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
    // Two who wait are there for two items; what the first gave up is the second one's.
    let (mut first, mut second) = (spawn(receiver.recv()), spawn(other.recv()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    sender.try_send(3).unwrap();
    sender.try_send(4).unwrap();
    assert_eq!(sender.try_send(5), Err(SendError::Full(5)));
    drop(first);
    assert_eq!(assert_ready_ok!(second.poll()), 3);
    assert_eq!(drain(&mut receiver), [4]);
}

/// Its destructor asks the queue something, and counts.
struct Asking<T>(Sender<T>, Count);

impl<T: Send + 'static> Wake for Asking<T> {
    fn wake(self: Arc<Self>) {}
}

impl<T> Drop for Asking<T> {
    fn drop(&mut self) {
        assert!(self.0.len() < 9);
        self.1.add();
    }
}

#[test]
fn wakers_that_are_replaced_or_left_may_use_the_queue_in_their_destructors() {
    let (sender, _receiver) = queue::bounded(1);
    sender.try_send('a').unwrap();
    let dropped = Count::new();
    let waker = || Waker::from(Arc::new(Asking(sender.clone(), dropped.clone())));
    {
        let mut send = Box::pin(sender.send('b'));
        for round in 0..2 {
            let poll = send.as_mut().poll(&mut Context::from_waker(&waker()));
            assert!(poll.is_pending());
            assert_eq!(dropped.get(), round, "the older one");
        }
    }
    assert_eq!(dropped.get(), 2, "the one that was left");
}
