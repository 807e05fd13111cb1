//! What holds for queues of every kind, and every call.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence::queue::{
    self, Delivery, Overflow, Queue, Receiver, SendError, Sender, TryRecvError,
};
use ringfence::{TaskGroup, scope};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};

use super::drain;
use crate::support::{cut_at_every_await, every_runtime, paused};

const LINGER: Duration = Duration::from_millis(3);
const ITEMS: usize = 8;

/// All as narrow as they can be. With whether a delivery that is dropped comes back.
fn kinds() -> Vec<(&'static str, Queue<usize>, bool)> {
    let bounded = || Queue::bounded(1);
    vec![
        ("plain", bounded(), false),
        ("lifo", bounded().lifo(), false),
        ("ranked", bounded().rank(|item| *item as i64 % 3), false),
        ("weighed", bounded().weight(|_| 1), false),
        ("redelivering", bounded().redeliver(99), true),
        ("a rendezvous", Queue::rendezvous(), false),
        (
            "a rendezvous that redelivers",
            Queue::rendezvous().redeliver(99),
            true,
        ),
        ("unbounded", Queue::unbounded(), false),
    ]
}

#[derive(Default)]
struct Log {
    sent: Mutex<Vec<usize>>,
    got: Mutex<Vec<usize>>,
}

impl Log {
    fn sent(&self, item: usize) {
        self.sent.lock().expect("no poison").push(item);
    }

    fn got(&self, items: impl IntoIterator<Item = usize>) {
        self.got.lock().expect("no poison").extend(items);
    }

    fn count(&self) -> usize {
        self.got.lock().expect("no poison").len()
    }
}

/// What is not in the buffer any more was sent.
struct Buffer<'a>(Vec<usize>, Vec<usize>, &'a Log);

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let Self(all, rest, log) = self;
        all.iter()
            .filter(|item| !rest.contains(item))
            .for_each(|item| log.sent(*item));
    }
}

async fn send_all(sender: Sender<usize>, log: &Log) {
    sender.send(1).await.expect("it is open");
    log.sent(1);
    sender
        .send_timeout(2, Duration::from_secs(9))
        .await
        .expect("it is open");
    log.sent(2);
    sender
        .reserve()
        .await
        .expect("it is open")
        .send(3)
        .expect("it is open");
    log.sent(3);
    sender
        .reserve_owned(1)
        .await
        .expect("it is open")
        .send(4)
        .expect("it is open");
    log.sent(4);
    let mut buffer = Buffer(vec![5, 6, 7], vec![5, 6, 7], log);
    sender.send_many(&mut buffer.1).await.expect("it is open");
    drop(buffer);
    #[cfg(feature = "stream")]
    futures::SinkExt::send(&mut sender.into_sink(), 8)
        .await
        .expect("it is open");
    #[cfg(not(feature = "stream"))]
    sender.send(8).await.expect("it is open");
    log.sent(8);
}

async fn take_all(mut receiver: Receiver<usize>, log: &Log, comes_back: bool) {
    log.got(receiver.recv().await);
    let delivery = receiver.deliver().await.expect("it is open");
    let early = (!comes_back).then_some(*delivery);
    log.got(early);
    tokio::task::yield_now().await;
    let late = comes_back.then_some(*delivery);
    log.got(late);
    delivery.done();
    let mut items = Vec::new();
    receiver.recv_many(&mut items, 2).await.expect("it is open");
    log.got(items.drain(..));
    receiver
        .recv_batch(&mut items, 2, LINGER)
        .await
        .expect("it is open");
    log.got(items);
    let mut deliveries = Vec::new();
    receiver
        .deliver_many(&mut deliveries, 1)
        .await
        .expect("it is open");
    log.got(deliveries.drain(..).map(Delivery::into_inner));
    receiver
        .deliver_batch(&mut deliveries, 1, LINGER)
        .await
        .expect("it is open");
    log.got(deliveries.drain(..).map(Delivery::into_inner));
    while log.count() < ITEMS {
        log.got(receiver.recv().await);
    }
}

#[test]
fn every_call_cut_at_every_await_loses_nothing() {
    for (kind, queue, comes_back) in kinds() {
        paused(async move || {
            let (sender, receiver) = queue.build();
            let log = Log::default();
            let cuts = cut_at_every_await(
                || {
                    let sends = send_all(sender.clone(), &log);
                    let takes = take_all(receiver.clone(), &log, comes_back);
                    async move { tokio::join!(sends, takes) }
                },
                async |cut| {
                    let stats = sender.stats();
                    let waiting = (stats.waiting_senders, stats.waiting_receivers);
                    assert_eq!((waiting, stats.in_delivery), ((0, 0), 0), "{kind}, {cut}");
                    assert!(stats.used <= stats.len, "{kind}, {cut}: {stats:?}");
                    let sent = std::mem::take(&mut *log.sent.lock().unwrap());
                    let mut all = std::mem::take(&mut *log.got.lock().unwrap());
                    all.extend(drain(&mut receiver.clone()));
                    let each: BTreeSet<_> = all.iter().copied().collect();
                    assert_eq!(each.len(), all.len(), "{kind}, {cut}: doubled: {all:?}");
                    let mut lost = sent.iter().filter(|item| !each.contains(item));
                    assert_eq!(lost.next(), None, "{kind}, {cut}: {sent:?}, {all:?}");
                    // On a rendezvous, a send may be dropped whose item was just taken.
                    let unsent = all.len() - sent.len();
                    assert!(
                        unsent <= usize::from(kind.contains("rendezvous")),
                        "{kind}, {cut}"
                    );
                },
            )
            .await;
            assert!(
                cuts > if kind == "unbounded" { 1 } else { 8 },
                "{kind}: {cuts}"
            );
        });
    }
}

#[test]
fn every_kind_ends_at_capacity_one() {
    every_runtime(async || {
        for (kind, queue, _) in kinds() {
            let (sender, receiver) = queue.build();
            let log = Arc::new(Log::default());
            scope(async |group: &TaskGroup| {
                for first in [1, 11, 21] {
                    let sender = sender.clone();
                    group.spawn(async move {
                        for item in first..first + 5 {
                            sender.send(item).await?;
                        }
                        sender.reserve().await?.send(first + 5)?;
                        sender
                            .send_many(&mut (first + 6..first + 10).collect())
                            .await?;
                        Ok(())
                    });
                }
                drop(sender);
                for taker in 0..3 {
                    let (mut receiver, log) = (receiver.clone(), log.clone());
                    group.spawn(async move {
                        let mut items = Vec::new();
                        loop {
                            let taken = match taker {
                                0 => receiver.recv().await.map(|item| items.push(item)),
                                1 => receiver.recv_batch(&mut items, 4, LINGER).await.map(drop),
                                _ => receiver
                                    .deliver()
                                    .await
                                    .map(|item| items.push(item.into_inner())),
                            };
                            log.got(items.drain(..));
                            if taken.is_err() {
                                break;
                            }
                        }
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
            let mut got = std::mem::take(&mut *log.got.lock().unwrap());
            got.sort_unstable();
            assert!(got.into_iter().eq(1..31), "{kind}");
        }
    });
}

#[test]
fn weights_may_be_anything() {
    // More than can be counted at once, and all of it is counted.
    let (sender, mut receiver) = Queue::bounded(usize::MAX).weight(|w: &usize| *w).build();
    sender.try_send(usize::MAX).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    delivery.send(usize::MAX).unwrap();
    assert_eq!(sender.stats().used, usize::MAX);
    delivery.done();
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    receiver.try_recv().unwrap();
    assert_eq!(sender.stats().used, 0);

    // No room is used up where there is no end of it.
    let (sender, receiver) = queue::unbounded();
    let permit = assert_ready_ok!(spawn(sender.reserve_weight(usize::MAX)).poll());
    sender.try_send(0).unwrap();
    let mut items = vec![1, 2];
    assert_ready_ok!(spawn(sender.send_many(&mut items)).poll());
    drop(permit);
    assert_eq!((receiver.len(), sender.stats().used), (3, 3));
}

#[test]
fn a_measure_that_panics_takes_nothing_with_it() {
    let picky = |item: &u32| {
        assert!(*item != 13, "an unlucky one");
        1
    };
    let (sender, mut receiver) = Queue::bounded(2).weight(picky).build();
    let permit = sender.try_reserve().unwrap();
    catch_unwind(AssertUnwindSafe(|| permit.send(13))).unwrap_err();
    assert_eq!(sender.stats().used, 0);
    let mut items = vec![1, 13, 2];
    catch_unwind(AssertUnwindSafe(|| {
        spawn(sender.send_many(&mut items)).poll().is_ready()
    }))
    .unwrap_err();
    assert_eq!((items, drain(&mut receiver)), (vec![13, 2], vec![1]));
    drop(sender);
    assert_ready!(spawn(receiver.recv()).poll()).unwrap_err();
}

#[test]
fn ranks_may_be_anything() {
    for is_lifo in [false, true] {
        let queue = Queue::bounded(4).rank(|rank: &i64| *rank);
        let queue = if is_lifo { queue.lifo() } else { queue };
        let (sender, mut receiver) = queue.overflow(Overflow::DropOldest).build();
        for rank in [i64::MAX, 0, i64::MIN, i64::MAX, -1] {
            sender.try_send(rank).unwrap();
        }
        assert_eq!(drain(&mut receiver), [i64::MIN, -1, 0, i64::MAX]);
    }
}

#[test]
fn every_kind_drains_after_a_close_and_can_be_aborted() {
    for (kind, queue, _) in kinds() {
        let (sender, mut receiver) = queue.build();
        let mut accepted = usize::from(sender.try_send(1).is_ok());
        let mut second = spawn(sender.send(2));
        let waits = second.poll().is_pending();
        accepted += usize::from(!waits);
        assert!(sender.close(), "{kind}");
        if waits {
            assert_eq!(assert_ready_err!(second.poll()), SendError::Closed(2));
        }
        assert_eq!(sender.try_send(3), Err(SendError::Closed(3)), "{kind}");
        let mut join = spawn(sender.join());
        for _ in 0..accepted {
            let delivery = receiver.try_deliver().unwrap();
            assert_pending!(join.poll(), "{kind}");
            delivery.done();
        }
        assert_ready!(join.poll(), "{kind}");
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
    }
    for (kind, queue, _) in kinds() {
        let (sender, mut receiver) = queue.build();
        let there = sender.try_send(1).is_ok();
        assert_eq!(receiver.abort().len(), usize::from(there), "{kind}");
        assert_ready!(spawn(sender.join()).poll(), "{kind}");
        assert_eq!(sender.try_send(2), Err(SendError::Closed(2)), "{kind}");
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed(_))));
    }
}

#[test]
fn a_receiver_on_a_rendezvous_is_there_for_who_reserved_first() {
    let (sender, mut receiver) = Queue::rendezvous().build();
    let mut reserve = spawn(sender.reserve());
    assert_pending!(reserve.poll());
    let mut recv = spawn(receiver.recv());
    assert_pending!(recv.poll());
    assert!(reserve.is_woken());
    let mut send = spawn(sender.send(2));
    assert_pending!(send.poll());
    assert!(!recv.is_woken(), "it is there for the other");
    drop(reserve);
    assert!(recv.is_woken());
    assert_eq!(assert_ready_ok!(recv.poll()), 2);
    assert_ready_ok!(send.poll());
}
