//! A queue: whoever waits is woken, and each item has one fate.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::{Parker, explore, run};
use crate::queue::{self, Queue, Receiver, Sender};
use crate::sync::PlainArc;

type Pair = (Sender<u32>, Receiver<u32>);

fn drain(mut receiver: Receiver<u32>) -> Vec<u32> {
    let mut items = Vec::new();
    while let Ok(item) = run(receiver.recv()).0 {
        items.push(item);
    }
    items
}

#[test]
fn two_senders_x_one_receiver_on_one_place() {
    explore(&["1 2", "2 1"], |seen| {
        let (sender, receiver): Pair = queue::bounded(1);
        let other = sender.clone();
        let first = thread::spawn(move || run(sender.send(1)).0.unwrap());
        let second = thread::spawn(move || run(other.send(2)).0.unwrap());
        let items = drain(receiver);
        first.join().unwrap();
        second.join().unwrap();
        seen.note(match items[..] {
            [1, 2] => "1 2",
            [2, 1] => "2 1",
            _ => panic!("{items:?}"),
        });
    });
}

#[test]
fn two_senders_x_two_receivers_on_one_place() {
    explore(&["here", "there"], |seen| {
        let (sender, mut receiver): Pair = queue::bounded(1);
        let other = sender.clone();
        let mut second = receiver.clone();
        let taker = thread::spawn(move || run(second.recv()).0.unwrap());
        let giver = thread::spawn(move || run(other.send(2)).0.unwrap());
        run(sender.send(1)).0.unwrap();
        let here = run(receiver.recv()).0.unwrap();
        giver.join().unwrap();
        let there = taker.join().unwrap();
        assert_eq!(here + there, 3);
        seen.note(if here == 1 { "here" } else { "there" });
    });
}

#[test]
fn a_receive_that_is_dropped_x_send() {
    explore(&["waited", "had it"], |seen| {
        let (sender, mut receiver): Pair = queue::bounded(1);
        let mut patient = receiver.clone();
        let taker = thread::spawn(move || drain_one(&mut patient));
        let giver = thread::spawn(move || {
            run(sender.send(1)).0.unwrap();
            run(sender.send(2)).0.unwrap();
        });
        // Polled once, and given up, whatever was set aside for it.
        let mut first = None;
        if let Poll::Ready(item) = Parker::new().poll(&mut pin!(receiver.recv())) {
            first = Some(item.unwrap());
        }
        seen.note(if first.is_some() { "had it" } else { "waited" });
        let taken = taker.join().unwrap();
        if first.is_none() {
            first = Some(run(receiver.recv()).0.unwrap());
        }
        giver.join().unwrap();
        assert_eq!(first.unwrap_or(0) + taken, 3);
    });
}

fn drain_one(receiver: &mut Receiver<u32>) -> u32 {
    run(receiver.recv()).0.unwrap()
}

#[test]
fn a_send_that_is_dropped_x_receive() {
    explore(&["sent", "given up"], |seen| {
        let (sender, receiver): Pair = queue::bounded(1);
        run(sender.send(1)).0.unwrap();
        let other = sender.clone();
        let giver = thread::spawn(move || run(other.send(2)).0.unwrap());
        let taker = thread::spawn(move || drain(receiver));
        let is_sent = Parker::new().poll(&mut pin!(sender.send(4))).is_ready();
        drop(sender);
        giver.join().unwrap();
        let sum: u32 = taker.join().unwrap().iter().sum();
        assert_eq!(sum, if is_sent { 7 } else { 3 });
        seen.note(if is_sent { "sent" } else { "given up" });
    });
}

#[test]
fn close_x_send_x_receive() {
    explore(&["sent", "refused"], |seen| {
        let (sender, receiver): Pair = queue::bounded(1);
        run(sender.send(1)).0.unwrap();
        let closer = receiver.clone();
        let giver = thread::spawn(move || run(sender.send(2)).0.is_ok());
        let closing = thread::spawn(move || closer.close());
        let items = drain(receiver);
        let is_sent = giver.join().unwrap();
        closing.join().unwrap();
        assert_eq!(items.len(), 1 + usize::from(is_sent));
        seen.note(if is_sent { "sent" } else { "refused" });
    });
}

#[test]
fn the_last_sender_x_two_receivers() {
    explore(&["here", "there"], |seen| {
        let (sender, mut receiver): Pair = queue::bounded(1);
        let mut second = receiver.clone();
        let taker = thread::spawn(move || run(second.recv()).0.is_ok());
        let giver = thread::spawn(move || {
            run(sender.send(1)).0.unwrap();
        });
        let here = run(receiver.recv()).0.is_ok();
        let there = taker.join().unwrap();
        giver.join().unwrap();
        assert!(here != there, "one has it, the other the end");
        seen.note(if here { "here" } else { "there" });
    });
}

#[test]
fn the_last_receiver_x_send() {
    explore(&["sent", "refused"], |seen| {
        let (sender, receiver): Pair = queue::bounded(1);
        run(sender.send(1)).0.unwrap();
        let giver = thread::spawn(move || run(sender.send(2)).0.is_ok());
        let mut receiver = receiver;
        let _first = receiver.try_recv().unwrap();
        drop(receiver);
        seen.note(if giver.join().unwrap() {
            "sent"
        } else {
            "refused"
        });
    });
}

#[test]
fn a_delivery_that_comes_back_x_the_end() {
    explore(&["again here", "again there"], |seen| {
        let (sender, mut receiver) = Queue::bounded(1).redeliver(2).build();
        run(sender.send(1)).0.unwrap();
        drop(sender);
        let mut second = receiver.clone();
        let delivery = receiver.try_deliver().unwrap();
        let taker = thread::spawn(move || {
            run(Box::pin(async move {
                match second.deliver().await {
                    Ok(delivery) => {
                        assert_eq!(delivery.attempt(), 2);
                        delivery.done();
                        true
                    }
                    Err(_) => false,
                }
            }))
            .0
        });
        drop(delivery);
        let here = match run(Box::pin(receiver.deliver())).0 {
            Ok(delivery) => {
                delivery.done();
                true
            }
            Err(_) => false,
        };
        let there = taker.join().unwrap();
        assert!(
            here != there,
            "it is done once, and then the end is there for both"
        );
        seen.note(if here { "again here" } else { "again there" });
    });
}

#[test]
fn join_x_done() {
    explore(&["over before", "woken"], |seen| {
        let (sender, mut receiver): Pair = queue::bounded(1);
        run(sender.send(1)).0.unwrap();
        let worker = thread::spawn(move || drop(receiver.try_deliver().unwrap()));
        let ((), polls) = run(sender.join());
        worker.join().unwrap();
        seen.note(if polls == 1 { "over before" } else { "woken" });
    });
}

#[test]
fn a_rendezvous() {
    explore(&["sent", "given up", "taken unseen"], |seen| {
        let (sender, receiver): Pair = queue::rendezvous();
        let other = sender.clone();
        let giver = thread::spawn(move || run(other.send(1)).0.unwrap());
        let taker = thread::spawn(move || drain(receiver));
        let is_sent = {
            let mut send = pin!(sender.send(2));
            let parker = Parker::new();
            parker.poll(&mut send).is_ready() || parker.poll(&mut send).is_ready()
        };
        drop(sender);
        giver.join().unwrap();
        let items = taker.join().unwrap();
        assert!(items.contains(&1));
        // It may be taken after the last poll: then the send was dropped, and the item is with the receiver.
        let is_taken = items.contains(&2);
        assert!(is_taken || !is_sent);
        seen.note(match (is_sent, is_taken) {
            (true, _) => "sent",
            (false, true) => "taken unseen",
            (false, false) => "given up",
        });
    });
}

/// A waker whose destructor asks the queue something: dropped under the lock, it would wait for ever.
struct Nosy(Receiver<u32>);

impl Wake for Nosy {
    fn wake(self: PlainArc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        let _nothing = self.0.len();
    }
}

fn poll_with<F: Future>(future: &mut Pin<Box<F>>, waker: Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_newer_waker_x_the_end_of_the_last_delivery() {
    explore(&["took it", "waits"], |seen| {
        let (sender, receiver): Pair = queue::bounded(2);
        sender.try_send(0).unwrap();
        drop(sender);
        let (mut one, mut two) = (receiver.clone(), receiver.clone());
        let seed = one.try_deliver().unwrap();
        let parker = Parker::new();
        let mut first = Box::pin(one.recv());
        let mut second = Box::pin(two.recv());
        assert!(parker.poll(&mut first).is_pending());
        let nosy = |receiver: &Receiver<u32>| Waker::from(PlainArc::new(Nosy(receiver.clone())));
        assert!(poll_with(&mut second, nosy(&receiver)).is_pending());
        seed.send(1).unwrap(); // for the first
        let finisher = thread::spawn(move || drop(seed));
        // The second takes it only at the end, when promises count no more: perhaps between its two looks.
        let polled = poll_with(&mut second, nosy(&receiver));
        finisher.join().unwrap();
        seen.note(if polled.is_ready() {
            "took it"
        } else {
            "waits"
        });
        let first = parker.poll(&mut first);
        assert!(polled.is_ready() || matches!(first, Poll::Ready(Ok(1))));
    });
}

#[test]
fn a_reservation_x_a_send_x_a_receiver_on_a_rendezvous() {
    explore(&["the permit first", "the send first"], |seen| {
        let (sender, receiver): Pair = queue::rendezvous();
        let other = sender.clone();
        let giver = thread::spawn(move || run(other.send(1)).0.unwrap());
        let taker = thread::spawn(move || drain(receiver));
        run(sender.reserve()).0.unwrap().send(2).unwrap();
        drop(sender);
        giver.join().unwrap();
        seen.note(match taker.join().unwrap()[..] {
            [1, 2] => "the send first",
            [2, 1] => "the permit first",
            ref items => panic!("{items:?}"),
        });
    });
}
