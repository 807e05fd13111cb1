//! What happens to items that there is no room for.

use std::sync::{Arc, Mutex};

use ringfence::queue::{Discarded, Overflow, Queue, Receiver, SendError, Sender};
use ringfence::{Displaced, Observer, Scope, TaskGroup};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok};

use super::drain;
use crate::support::{Count, single_thread};

type Seen = Arc<Mutex<Vec<i64>>>;

fn queue(overflow: Overflow) -> (Sender<i64>, Receiver<i64>, Seen) {
    let seen: Seen = Arc::default();
    let hook = seen.clone();
    let (sender, receiver) = Queue::bounded(2)
        .overflow(overflow)
        .on_discard(move |item, why| {
            assert_eq!(why, Discarded::Overflow);
            hook.lock().expect("no poison").push(item);
        })
        .build();
    (sender, receiver, seen)
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let (sender, mut receiver, seen) = queue(Overflow::DropOldest);
    for item in 1..=4 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    assert_eq!(receiver.try_recv().unwrap(), 3);
    for item in [5, 6] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [5, 6]);
    assert_eq!(*seen.lock().unwrap(), [1, 2, 4]);
}

#[test]
fn drop_newest_keeps_the_oldest() {
    let (sender, mut receiver, seen) = queue(Overflow::DropNewest);
    for item in 1..=4 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    assert_eq!(receiver.try_recv().unwrap(), 1);
    for item in [5, 6] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [2, 5]);
    assert_eq!(*seen.lock().unwrap(), [3, 4, 6]);
}

#[test]
fn refuse_gives_the_item_back() {
    let (sender, mut receiver, seen) = queue(Overflow::Refuse);
    for item in 1..=2 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    assert_eq!(
        assert_ready_err!(spawn(sender.send(3)).poll()),
        SendError::Full(3)
    );
    assert_eq!(sender.try_send(4), Err(SendError::Full(4)));
    assert_eq!(drain(&mut receiver), [1, 2]);
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn latest_keeps_one_item_the_newest() {
    let (sender, mut receiver) = Queue::latest().build();
    for item in 1..=3 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    sender.close();
    assert_eq!(drain(&mut receiver), [3]);
}

#[test]
fn every_item_has_one_fate_under_each_policy() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Refuse] {
        let (sender, mut receiver, seen) = queue(overflow);
        let (mut received, mut refused) = (Vec::new(), Vec::new());
        for item in 0..1_000 {
            if let Err(error) = sender.try_send(item) {
                refused.push(error.into_inner());
            }
            assert!(sender.len() <= 2);
            if item % 3 == 0 {
                received.extend(receiver.try_recv());
            }
        }
        received.extend(drain(&mut receiver));
        let discarded = seen.lock().unwrap().clone();
        assert_eq!(sender.stats().discarded, discarded.len() as u64);
        let mut all = [received, refused, discarded].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1_000), "{overflow:?}");
    }
}

#[test]
fn the_least_urgent_item_gives_way() {
    let (sender, mut receiver) = Queue::bounded(2)
        .overflow(Overflow::DropOldest)
        .rank(|(rank, _): &(i64, char)| *rank)
        .build();
    for item in [(1, 'a'), (1, 'b'), (0, 'c'), (2, 'd')] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [(0, 'c'), (1, 'b')]);

    let (sender, mut receiver) = Queue::bounded(4)
        .overflow(Overflow::DropOldest)
        .weight(|item: &usize| *item)
        .build();
    for item in [1, 2, 1, 3] {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [1, 3]);

    let (sender, mut receiver) = Queue::bounded(2)
        .overflow(Overflow::DropOldest)
        .weight(|_| 1)
        .lifo()
        .build();
    for item in 1..=4 {
        sender.try_send(item).unwrap();
    }
    assert_eq!(drain(&mut receiver), [4, 3]);
}

#[test]
fn a_hook_that_panics_loses_nothing() {
    let called = Count::new();
    let counted = called.clone();
    let (sender, mut receiver) = Queue::bounded(1)
        .overflow(Overflow::DropOldest)
        .on_discard(move |_, _| {
            counted.add();
            panic!("in the hook");
        })
        .build();
    for item in 0..4 {
        sender.try_send(item).unwrap();
    }
    assert_eq!(called.get(), 3);
    assert_eq!(drain(&mut receiver), [3]);
}

#[test]
fn a_hook_that_panics_is_told_to_the_observer_of_the_group() {
    struct Seen(Count);
    impl Observer for Seen {
        fn displaced(&self, what: &Displaced) {
            assert_eq!(what.to_string(), "panicked: in the hook");
            self.0.add();
        }
    }
    single_thread(async || {
        let told = Count::new();
        let scope = Scope::new().observer(Arc::new(Seen(told.clone())));
        let ended = scope.run(async |group: &TaskGroup| {
            let (sender, receiver) = Queue::latest()
                .on_discard(|_: u8, _| panic!("in the hook"))
                .build();
            sender.send(1).await?;
            sender.send(2).await?; // in the body
            group.spawn(async move { drop(receiver) }); // in a child
            Ok(())
        });
        ended.await.unwrap();
        assert_eq!(told.get(), 2);
    });
}

#[test]
fn a_discarded_item_is_finished() {
    let (sender, mut receiver) = Queue::latest().build();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    receiver.try_recv().unwrap();
    assert_ready!(join.poll());
}

#[test]
fn what_is_in_delivery_does_not_give_way() {
    let (sender, mut receiver) = Queue::bounded(1).overflow(Overflow::DropOldest).build();
    sender.try_send(1).unwrap();
    let delivery = receiver.try_deliver().unwrap();
    sender.try_send(2).unwrap();
    assert_eq!((*delivery, sender.len()), (1, 0));
    drop(delivery);

    let mut recv = spawn(receiver.recv());
    assert_pending!(recv.poll());
    sender.try_send(3).unwrap();
    sender.try_send(4).unwrap();
    assert_eq!(assert_ready!(recv.poll()).unwrap(), 4);
}

#[test]
fn latest_is_there_while_an_older_one_is_worked_on() {
    let (sender, mut receiver) = Queue::latest().build();
    sender.try_send(1).unwrap();
    let old = receiver.try_deliver().unwrap();
    for item in 2..=4 {
        assert_ready_ok!(spawn(sender.send(item)).poll());
    }
    old.send(5).unwrap();
    let permit = sender.try_reserve().unwrap();
    assert_eq!(sender.len(), 1);
    permit.send(6).unwrap();
    drop(old);
    assert_eq!(drain(&mut receiver), [6]);
    let stats = sender.stats();
    assert_eq!((stats.used, stats.discarded, stats.peak), (0, 4, 1));
}

#[test]
fn what_comes_back_late_gives_way_to_the_latest() {
    let seen: Seen = Arc::default();
    let hook = seen.clone();
    let (sender, mut receiver) = Queue::latest()
        .redeliver(5)
        .on_discard(move |item, _| hook.lock().expect("no poison").push(item))
        .build();
    sender.try_send(1).unwrap();
    drop(receiver.try_deliver().unwrap());
    let again = receiver.try_deliver().unwrap();
    assert_eq!((*again, again.attempt()), (1, 2));
    sender.try_send(2).unwrap();
    drop(again);
    let newest = receiver.try_deliver().unwrap();
    sender.try_send(3).unwrap();
    receiver.try_deliver().unwrap().done();
    drop(newest); // 3 has been here, and is done
    assert!(sender.is_empty());
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
}

#[test]
fn drop_oldest_does_not_overtake_a_reservation() {
    let (sender, mut receiver) = Queue::bounded(10)
        .weight(|weight: &usize| *weight)
        .overflow(Overflow::DropOldest)
        .build();
    sender.try_send(5).unwrap();
    let mut heavy = spawn(sender.reserve_weight(8));
    assert_pending!(heavy.poll());
    sender.try_send(3).unwrap(); // there is room, but not for both
    assert_eq!(sender.stats().discarded, 1);
    assert_eq!(receiver.try_recv().unwrap(), 5);
    assert!(heavy.is_woken());
    drop(assert_ready_ok!(heavy.poll()));

    let mut light = spawn(sender.reserve_weight(6));
    for item in [4, 4] {
        sender.try_send(item).unwrap();
    }
    assert_pending!(light.poll());
    sender.try_send(4).unwrap(); // both that are there give way: to who waits, and to this one
    assert!(light.is_woken());
    assert_eq!(drain(&mut receiver), [4]);
}

#[test]
fn nothing_gives_way_in_vain() {
    let (sender, mut receiver) = Queue::bounded(4)
        .weight(|item: &(i64, usize)| item.1)
        .rank(|item: &(i64, usize)| item.0)
        .overflow(Overflow::DropOldest)
        .build();
    for item in [(0, 2), (9, 1), (9, 1)] {
        sender.try_send(item).unwrap();
    }
    sender.try_send((5, 3)).unwrap(); // the two of rank 9 are not enough
    assert_eq!(sender.stats().discarded, 1);
    sender.try_send((5, 2)).unwrap();
    assert_eq!(drain(&mut receiver), [(0, 2), (5, 2)]);
}

#[test]
fn nothing_is_over_before_the_hook_has_returned() {
    type Ends = (Sender<u8>, Option<Receiver<u8>>);
    let slot: Arc<Mutex<Option<Ends>>> = Arc::default();
    let told: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (inside, early) = (slot.clone(), told.clone());
    let (sender, receiver) = Queue::bounded(1)
        .overflow(Overflow::DropOldest)
        .on_discard(move |_, _| {
            let (sender, receiver) = inside.lock().unwrap().take().expect("they are there");
            // What made the other give way is taken meanwhile, the first time.
            receiver
                .into_iter()
                .for_each(|mut all| drop(all.try_recv()));
            let is_over = spawn(sender.join()).poll().is_ready();
            early.lock().unwrap().push(is_over);
            *inside.lock().unwrap() = Some((sender, None));
        })
        .build();
    *slot.lock().unwrap() = Some((sender.clone(), Some(receiver.clone())));
    sender.try_send(1).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    sender.try_send(2).unwrap();
    assert_ready!(join.poll());

    sender.try_send(3).unwrap();
    let mut join = spawn(sender.join());
    assert_pending!(join.poll());
    drop(receiver);
    assert_ready!(join.poll());
    assert_eq!(*told.lock().unwrap(), [false, false]);
    slot.lock().unwrap().take();
}

#[test]
fn what_was_promised_and_gave_way_is_waited_for_again() {
    let queue = Queue::bounded(2).weight(|weight| *weight);
    let (sender, receiver) = queue.overflow(Overflow::DropOldest).build();
    let (mut first, mut second) = (receiver.clone(), receiver);
    let (mut one, mut two) = (spawn(first.recv()), spawn(second.recv()));
    assert_pending!(one.poll());
    assert_pending!(two.poll());
    sender.try_send(1).unwrap();
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap(); // in place of both
    assert_pending!(two.poll());
    assert_eq!(assert_ready_ok!(one.poll()), 2);
    sender.try_send(1).unwrap();
    assert!(two.is_woken());
    assert_eq!(assert_ready_ok!(two.poll()), 1);
}

#[test]
fn the_latest_is_the_latest_in_any_order() {
    let (sender, mut receiver) = Queue::latest().lifo().redeliver(3).build();
    sender.try_send('a').unwrap();
    let a = receiver.try_deliver().unwrap();
    drop(a);
    assert_eq!(sender.len(), 1, "nothing is newer");
    let a = receiver.try_deliver().unwrap();
    sender.try_send('b').unwrap();
    drop(a);
    assert_eq!(sender.stats().discarded, 1, "b is newer");
    assert_eq!(*receiver.try_deliver().unwrap(), 'b');
}
