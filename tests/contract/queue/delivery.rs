//! Work that is finished, not just received.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence::queue::{self, Delivery, Discarded, Queue, SendError, TryRecvError};
use ringfence::{BorrowGroup, Outcome, TaskGroup, borrow_scope, fan_out, scope, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok};

use crate::support::{
    Count, Drops, Log, OnDrop, PanicOnDrop, caught, every_runtime, settle, single_thread,
};

#[test]
fn join_of_an_empty_queue_is_ready() {
    let (sender, _receiver) = queue::bounded::<u8>(1);
    assert_ready!(spawn(sender.join()).poll());
    assert_ready!(spawn(sender.join()).poll());
}

#[test]
fn join_waits_until_everything_is_done() {
    every_runtime(async || {
        let (sender, receiver) = queue::bounded(10);
        let sum = Arc::new(Mutex::new(0));
        scope(async |group: &TaskGroup| {
            for _ in 0..2 {
                let (mut receiver, sum) = (receiver.clone(), sum.clone());
                group.spawn(async move {
                    while let Ok(delivery) = receiver.deliver().await {
                        tokio::task::yield_now().await;
                        *sum.lock().unwrap() += *delivery;
                    }
                });
            }
            for item in 0..100 {
                sender.send(item).await?;
            }
            sender.join().await;
            assert_eq!(*sum.lock().unwrap(), 4_950);
            sender.close();
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn an_item_is_finished_when_received_and_a_delivery_when_dropped() {
    let (sender, mut receiver) = queue::bounded(2);
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    assert_eq!(receiver.try_recv().unwrap(), 1);
    let delivery = receiver.try_deliver().unwrap();
    assert_pending!(join.poll());
    assert_eq!(delivery.into_inner(), 2);
    assert!(join.is_woken());
    assert_ready!(join.poll());
}

#[test]
fn join_waits_for_what_is_sent_meanwhile() {
    let (sender, mut receiver) = queue::bounded(2);
    sender.try_send(1).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    let first = receiver.try_deliver().unwrap();
    sender.try_send(2).unwrap();
    drop(first);
    assert!(!join.is_woken());
    receiver.try_recv().unwrap();
    assert_ready!(join.poll());
}

#[test]
fn join_is_ready_though_something_was_sent_since() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(1).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    receiver.try_recv().unwrap();
    sender.try_send(2).unwrap();
    assert_ready!(join.poll());
}

#[test]
fn empty_is_not_finished() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(1).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    assert!(sender.is_empty());
    assert_pending!(spawn(sender.join()).poll());
    assert_eq!(sender.stats().in_delivery, 1);
    drop(delivery);
    assert_ready!(spawn(sender.join()).poll());
}

#[test]
fn a_delivery_keeps_its_room() {
    for queue in [Queue::bounded(1), Queue::bounded(1).redeliver(2)] {
        let (sender, mut receiver) = queue.build();
        sender.try_send(1).unwrap();
        let delivery = receiver.try_deliver().unwrap();
        assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
        let mut waiting = spawn(sender.send(3));
        assert_pending!(waiting.poll());
        delivery.done();
        assert!(waiting.is_woken());
        assert_ready_ok!(waiting.poll());
    }
}

#[test]
fn a_delivery_that_is_not_done_comes_back() {
    single_thread(async || {
        let (sender, mut receiver) = Queue::bounded(3).redeliver(9).build();
        for item in ["first", "second"] {
            sender.try_send(item).unwrap();
        }
        drop(receiver.try_deliver().unwrap());
        let delivery = receiver.try_deliver().unwrap();
        assert_eq!((*delivery, delivery.attempt()), ("first", 2));
        let panicked = caught(async move {
            let _delivery = delivery;
            panic!("in the handler");
        });
        assert!(panicked.await.is_err());
        let delivery = receiver.try_deliver().unwrap();
        assert_eq!((*delivery, delivery.attempt()), ("first", 3));
        let outcome = scope(async |group: &TaskGroup| {
            let worker = group.spawn(async move {
                let _delivery = delivery;
                pending::<()>().await;
            });
            settle().await;
            Ok(worker.cancel_and_wait().await)
        })
        .await
        .unwrap();
        assert!(matches!(outcome, Outcome::Cancelled(_)));
        let delivery = receiver.try_deliver().unwrap();
        assert_eq!((*delivery, delivery.attempt()), ("first", 4));
        delivery.done();
        assert_eq!(receiver.try_recv().unwrap(), "second");
        assert_ready!(spawn(sender.join()).poll());
        assert_eq!(sender.stats().redelivered, 3);
    });
}

#[test]
fn an_item_that_is_never_done_is_dead_after_its_last_attempt() {
    let dead: Arc<Mutex<Vec<(u8, Discarded)>>> = Arc::default();
    let hook = dead.clone();
    let (sender, mut receiver) = Queue::bounded(3)
        .redeliver(2)
        .on_discard(move |item, why| hook.lock().unwrap().push((item, why)))
        .build();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    drop(receiver.try_deliver().unwrap());
    drop(receiver.try_deliver().unwrap());
    receiver.try_deliver().unwrap().reject();
    assert!(matches!(receiver.try_deliver(), Err(TryRecvError::Empty)));
    assert!(join.is_woken());
    assert_ready!(join.poll());
    let expected = [
        (1, Discarded::Dead { attempts: 2 }),
        (2, Discarded::Dead { attempts: 1 }),
    ];
    assert_eq!(*dead.lock().unwrap(), expected);
    let stats = sender.stats();
    assert_eq!((stats.dead, stats.used), (2, 0));
}

#[test]
fn a_dead_letter_is_told_before_the_end() {
    let seen: Arc<Mutex<Vec<TryRecvError>>> = Arc::default();
    let slot: Arc<Mutex<Option<queue::Receiver<u8>>>> = Arc::default();
    let (hook, other) = (seen.clone(), slot.clone());
    let (sender, mut receiver) = Queue::bounded(1)
        .redeliver(1)
        .on_discard(move |_, _| {
            let mut other = other.lock().expect("no poison").take().expect("a receiver");
            assert_pending!(spawn(other.join()).poll());
            hook.lock()
                .expect("no poison")
                .extend(other.try_recv().err());
        })
        .build();
    sender.try_send(1).unwrap();
    drop(sender);
    *slot.lock().unwrap() = Some(receiver.clone());
    let mut join = receiver.clone();
    let mut end = spawn(join.recv());
    let delivery = receiver.try_deliver().unwrap();
    assert_pending!(end.poll());
    drop(delivery);
    assert_eq!(*seen.lock().unwrap(), [TryRecvError::Empty]);
    assert!(end.is_woken());
    assert!(assert_ready!(end.poll()).is_err());
}

#[test]
fn after_an_abort_join_waits_for_deliveries_alone() {
    let (sender, mut receiver) = Queue::bounded(4).redeliver(3).build();
    for item in [1, 2] {
        sender.try_send(item).unwrap();
    }
    let delivery = receiver.try_deliver().unwrap();
    assert_eq!(receiver.abort(), [2]);
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    drop(delivery); // comes back, and nobody is there to take it
    assert!(join.is_woken());
    assert_ready!(join.poll());
    assert_ready!(spawn(sender.join()).poll());
    assert_eq!(receiver.abort(), [1]);
}

#[test]
fn a_delivery_cut_short_by_a_cancel_is_never_the_last() {
    for is_alone in [false, true] {
        every_runtime(async || cut_short(is_alone).await);
    }
}

/// With its whole group, or alone.
async fn cut_short(is_alone: bool) {
    let (sender, receiver) = Queue::bounded(4).redeliver(1).build();
    sender.try_send(1).unwrap();
    let mut worker = receiver.clone();
    let ended = scope(async |group: &TaskGroup| {
        let working = group.spawn(async move {
            let _delivery = worker.deliver().await;
            pending::<()>().await;
        });
        while sender.stats().in_delivery == 0 {
            tokio::task::yield_now().await;
        }
        if is_alone {
            drop(working.cancel_and_wait().await);
        } else {
            group.cancel();
            working.await;
        }
        Ok(())
    });
    assert_eq!(ended.await.is_err(), !is_alone);
    let stats = sender.stats();
    assert_eq!((stats.redelivered, stats.dead), (1, 0));
    let mut other = receiver.clone();
    let again = other.try_deliver().unwrap();
    assert_eq!(again.attempt(), 2);
    drop(again); // by itself: that was the last
    assert_eq!(sender.stats().dead, 1);
}

#[test]
fn an_item_is_not_leaked_though_what_is_left_of_the_queue_throws() {
    let drops = Drops::new();
    let hook = PanicOnDrop("hook");
    let queue = Queue::bounded(1).on_discard(move |_, _| {
        let _held = &hook;
    });
    let (sender, mut receiver) = queue.build();
    sender.try_send(drops.guard()).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    drop((sender, receiver));
    let taken = catch_unwind(AssertUnwindSafe(|| drop(delivery.into_inner())));
    assert_eq!((taken.is_err(), drops.alive()), (true, 0));
}

#[test]
fn an_item_is_gone_before_its_delivery_is_finished() {
    let (sender, mut receiver) = queue::bounded::<Box<dyn Send>>(1);
    let (log, stats) = (Log::new(), sender.clone());
    let seen = log.clone();
    let item = OnDrop::new(move || seen.push(stats.stats().in_delivery));
    sender.try_send(Box::new(item)).ok().unwrap();
    receiver.try_deliver().unwrap().done();
    assert_eq!((log.entries(), sender.stats().in_delivery), (vec![1], 0));
}

#[test]
fn deliveries_come_in_batches_too() {
    single_thread(async || {
        let (sender, mut receiver) = Queue::bounded(8).redeliver(2).build();
        for item in 0..5 {
            sender.try_send(item).unwrap();
        }
        let mut batch = Vec::new();
        assert_eq!(receiver.deliver_many(&mut batch, 0).await, Ok(0));
        assert_eq!(receiver.deliver_many(&mut batch, 2).await, Ok(2));
        let linger = Duration::from_millis(1);
        assert_eq!(receiver.deliver_batch(&mut batch, 8, linger).await, Ok(3));
        assert_eq!((sender.stats().in_delivery, sender.stats().used), (5, 5));
        let first = batch.remove(0);
        first.done();
        drop(batch);
        assert_eq!(receiver.deliver_many(&mut Vec::new(), 9).await, Ok(4));
    });
}

#[test]
fn the_end_waits_for_deliveries() {
    let (sender, receiver) = Queue::bounded(1).redeliver(3).build();
    let (mut first, mut second) = (receiver.clone(), receiver);
    sender.try_send(1).unwrap();
    drop(sender);
    let delivery = first.try_deliver().unwrap();
    let mut waiting = spawn(second.deliver());
    assert_pending!(waiting.poll());
    drop(delivery);
    assert!(waiting.is_woken());
    let again = assert_ready!(waiting.poll()).unwrap();
    drop(waiting);
    let mut end = spawn(first.recv());
    assert_pending!(end.poll());
    again.done();
    assert!(end.is_woken());
    assert!(assert_ready!(end.poll()).is_err());
}

#[test]
fn a_leaked_delivery_is_seen_in_the_figures() {
    let (sender, mut receiver) = queue::bounded(1);
    sender.try_send(1).unwrap();
    let leaked = receiver.try_deliver().unwrap();
    #[expect(clippy::mem_forget, reason = "the leak is what is looked at")]
    std::mem::forget(leaked);
    sender.close();
    assert_pending!(spawn(sender.join()).poll());
    assert_pending!(spawn(receiver.recv()).poll());
    assert_eq!(receiver.stats().in_delivery, 1);
}

/// Visits the numbers below `limit`, each found from its half.
async fn crawl(capacity: usize, workers: usize, limit: usize) -> BTreeSet<usize> {
    let (sender, receiver) = queue::bounded(capacity);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    sender.send(1).await.expect("as it should");
    drop(sender);
    scope(async |group: &TaskGroup| {
        for _ in 0..workers {
            let (mut receiver, seen) = (receiver.clone(), seen.clone());
            group.spawn(async move {
                while let Ok(page) = receiver.deliver().await {
                    tokio::task::yield_now().await;
                    for link in [2 * *page, 2 * *page + 1] {
                        if link < limit {
                            page.send(link).expect("as it should");
                        }
                    }
                    seen.lock().expect("as it should").insert(*page);
                }
            });
        }
        Ok(())
    })
    .await
    .expect("as it should");
    Arc::into_inner(seen)
        .expect("as it should")
        .into_inner()
        .expect("as it should")
}

#[test]
fn work_that_finds_work_ends_by_itself() {
    every_runtime(async || {
        let seen = crawl(100, 4, 1_000).await;
        assert!(seen.into_iter().eq(1..1_000));
    });
}

#[test]
fn a_worker_that_sends_into_its_own_full_queue_does_not_deadlock() {
    every_runtime(async || {
        for workers in [1, 4] {
            assert_eq!(crawl(1, workers, 200).await.len(), 199);
        }
    });
}

#[test]
fn a_delivery_sends_nothing_that_is_too_heavy() {
    let (sender, mut receiver) = Queue::bounded(4).weight(|weight| *weight).build();
    sender.try_send(1).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    assert_eq!(delivery.send(5), Err(SendError::TooHeavy(5)));
    assert_eq!(delivery.send(4), Ok(()));
}

#[test]
fn a_closed_queue_refuses_what_deliveries_send() {
    let (sender, mut receiver) = queue::bounded(2);
    sender.try_send(1).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    delivery.send(2).unwrap();
    receiver.close();
    assert_eq!(delivery.send(3), Err(SendError::Closed(3)));
    drop(delivery);
    assert_eq!(receiver.try_recv().unwrap(), 2);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
}

#[test]
fn every_item_is_done_once_however_often_it_comes_back() {
    every_runtime(async || {
        let (sender, receiver) = Queue::bounded(16).redeliver(u32::MAX).build();
        let done = Arc::new(Mutex::new(vec![0_u8; 1_000]));
        let tries = Count::new();
        scope(async |group: &TaskGroup| {
            for _ in 0..4 {
                let (mut receiver, done, tries) = (receiver.clone(), done.clone(), tries.clone());
                group.spawn(async move {
                    while let Ok(delivery) = receiver.deliver().await {
                        tokio::task::yield_now().await;
                        if tries.add() % 3 == 0 {
                            done.lock().unwrap()[*delivery] += 1;
                            Delivery::done(delivery);
                        }
                    }
                });
            }
            for item in 0..1_000 {
                sender.send(item).await?;
            }
            drop(sender);
            Ok(())
        })
        .await
        .unwrap();
        assert!(done.lock().unwrap().iter().all(|count| *count == 1));
        assert!(tries.get() >= 3 * 1_000 - 2);
    });
}

#[test]
fn a_delivery_in_a_scope_inside_is_cut_with_the_group_around() {
    type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
    let nests: [fn(Delivery<u8>) -> Work; 5] = [
        |delivery| {
            Box::pin(async {
                let work = async |_: &TaskGroup| {
                    pending::<()>().await;
                    delivery.done();
                    Ok(())
                };
                scope(work).await.unwrap();
            })
        },
        |delivery| {
            Box::pin(async {
                let work = async move |_: BorrowGroup<'_, String>| {
                    pending::<()>().await;
                    delivery.done();
                    Ok(())
                };
                borrow_scope(work).await.unwrap();
            })
        },
        |delivery| {
            Box::pin(async {
                let work = async move |group: BorrowGroup<'_, String>| {
                    group.spawn(async move {
                        pending::<()>().await;
                        delivery.done();
                    });
                    Ok(())
                };
                borrow_scope(work).await.unwrap();
            })
        },
        |delivery| {
            Box::pin(async {
                let work = async move |delivery: Delivery<u8>| {
                    pending::<()>().await;
                    delivery.done();
                    Ok::<_, String>(())
                };
                let all = fan_out([delivery]).limit(1).collect(work);
                all.await.unwrap();
            })
        },
        |delivery| {
            Box::pin(async {
                let work = async move {
                    pending::<()>().await;
                    delivery.done();
                };
                timeout(Duration::MAX, work).await.unwrap();
            })
        },
    ];
    single_thread(async || {
        for nest in nests {
            let dead = Count::new();
            let told = dead.clone();
            let (sender, mut receiver) = Queue::bounded(1)
                .redeliver(1)
                .on_discard(move |_, _| {
                    told.add();
                })
                .build();
            sender.try_send(1).unwrap();
            let rest = receiver.clone();
            let ended = scope(async |group: &TaskGroup| {
                group.spawn(async move { nest(receiver.deliver().await.unwrap()).await });
                settle().await;
                group.cancel();
                Ok(())
            });
            drop(ended.await);
            assert_eq!((rest.abort(), dead.get()), (vec![1], 0));
        }
    });
}

#[test]
fn what_comes_back_when_nobody_receives_any_more_is_abandoned() {
    let told = Log::new();
    let log = told.clone();
    let queue = Queue::bounded(1).redeliver(9);
    let (sender, mut receiver) = queue
        .on_discard(move |item, why| log.push((item, why)))
        .build();
    sender.try_send(7).expect("room");
    let delivery = receiver.try_deliver().expect("an item");
    drop(receiver);
    assert!(told.entries().is_empty());
    drop(delivery);
    assert_eq!(told.entries(), [(7, Discarded::Abandoned)]);
}
