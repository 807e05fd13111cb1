//! Histories of a queue: sends, receives, cancellations, deliveries and closes, carried out poll by poll by the real queue
//! and by a plain model of it. Each result is the model's, whoever could go on has been woken, and each item has one fate.

mod linear;
mod plain;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::queue::{Delivery, Overflow, OwnedPermit, Queue, Receiver, SendError, Sender};

use self::plain::{Given, Item, Model, Shape};
use crate::agreement::{at, same};
use crate::support::{CountingWaker, DropGuard, Drops};
use crate::{cases, figures, try_cases};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Send(i64),
    TrySend(i64),
    PollSend(u8),
    DropSend(u8),
    Recv,
    Deliver,
    TryRecv,
    PollRecv(u8),
    DropRecv(u8),
    Done(u8),
    DropDelivery(u8),
    Feed(u8),
    Reserve,
    PollReserve(u8),
    DropReserve(u8),
    UsePermit(u8, i64),
    DropPermit(u8),
    Close,
    DropSender,
    Join,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_i64).prop_map(Op::Send),
        3 => (0..3_i64).prop_map(Op::TrySend),
        4 => any::<u8>().prop_map(Op::PollSend),
        2 => any::<u8>().prop_map(Op::DropSend),
        5 => Just(Op::Recv),
        3 => Just(Op::Deliver),
        3 => Just(Op::TryRecv),
        5 => any::<u8>().prop_map(Op::PollRecv),
        2 => any::<u8>().prop_map(Op::DropRecv),
        3 => any::<u8>().prop_map(Op::Done),
        2 => any::<u8>().prop_map(Op::DropDelivery),
        1 => any::<u8>().prop_map(Op::Feed),
        3 => Just(Op::Reserve),
        4 => any::<u8>().prop_map(Op::PollReserve),
        1 => any::<u8>().prop_map(Op::DropReserve),
        3 => (any::<u8>(), 0..3_i64).prop_map(|(at, rank)| Op::UsePermit(at, rank)),
        1 => any::<u8>().prop_map(Op::DropPermit),
        1 => Just(Op::Close),
        1 => Just(Op::DropSender),
        1 => Just(Op::Join),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let overflow = prop_oneof![
        3 => Just(Overflow::Wait),
        1 => Just(Overflow::Refuse),
        1 => Just(Overflow::DropOldest),
        1 => Just(Overflow::DropNewest),
    ];
    (0..4_usize, any::<bool>(), any::<bool>(), overflow, 0..3_u32).prop_map(
        |(capacity, is_lifo, is_ranked, overflow, attempts)| Shape {
            capacity,
            is_lifo,
            is_ranked,
            overflow,
            attempts,
        },
    )
}

/// An item that counts its drop.
#[derive(Debug)]
struct Real(Item, #[expect(dead_code, reason = "it counts")] DropGuard);

type Sent = Result<(), SendError<Real>>;
type Received = Result<Got, ()>;
type Reserved = Result<OwnedPermit<Real>, SendError<()>>;

enum Got {
    Item(Real),
    Delivery(Delivery<Real>),
}

/// A future that is polled by hand.
struct Pending<T> {
    id: usize,
    future: Pin<Box<dyn Future<Output = T>>>,
    waker: Arc<CountingWaker>,
    polled_at: usize,
}

impl<T> Pending<T> {
    fn new(id: usize, future: impl Future<Output = T> + 'static) -> Self {
        Self {
            id,
            future: Box::pin(future),
            waker: CountingWaker::new(),
            polled_at: 0,
        }
    }

    fn poll(&mut self) -> Poll<T> {
        self.polled_at = self.waker.wakes();
        let waker: Waker = self.waker.waker();
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.waker.wakes() > self.polled_at
    }
}

struct Run {
    model: Model,
    sender: Option<Sender<Real>>,
    receiver: Receiver<Real>,
    sends: Vec<Pending<Sent>>,
    reserves: Vec<Pending<Reserved>>,
    permits: Vec<OwnedPermit<Real>>,
    recvs: Vec<Pending<Received>>,
    joins: Vec<Pending<()>>,
    deliveries: BTreeMap<u64, Delivery<Real>>,
    discards: Arc<Mutex<Vec<u64>>>,
    drops: Drops,
    next: usize,
}

impl Run {
    fn new(shape: Shape) -> Self {
        let discards: Arc<Mutex<Vec<u64>>> = Arc::default();
        let seen = discards.clone();
        let mut queue = match shape.capacity {
            0 => Queue::rendezvous(),
            capacity => Queue::bounded(capacity),
        }
        .overflow(shape.overflow)
        .on_discard(move |item: Real, _| seen.lock().expect("no poison").push(item.0.id));
        if shape.is_lifo {
            queue = queue.lifo();
        }
        if shape.is_ranked {
            queue = queue.rank(|item| item.0.rank);
        }
        if shape.attempts > 0 {
            queue = queue.redeliver(shape.attempts);
        }
        let (sender, receiver) = queue.build();
        Self {
            model: Model::new(shape),
            sender: Some(sender),
            receiver,
            sends: Vec::new(),
            reserves: Vec::new(),
            permits: Vec::new(),
            recvs: Vec::new(),
            joins: Vec::new(),
            deliveries: BTreeMap::new(),
            discards,
            drops: Drops::new(),
            next: 0,
        }
    }

    fn item(&mut self, rank: i64) -> Real {
        self.next += 1;
        let id = self.next as u64;
        Real(Item { id, rank }, self.drops.guard())
    }

    fn given<E>(result: Result<(), SendError<Real>>) -> Result<Given, E> {
        Ok(match result {
            Ok(()) => Given::Taken,
            Err(SendError::Full(_)) => Given::Full,
            Err(_) => Given::Closed,
        })
    }

    fn sent(&mut self, at: usize) -> Result<(), TestCaseError> {
        let polled = self.sends[at].poll();
        let id = self.sends[at].id;
        match polled {
            Poll::Pending => same("send", &self.model.poll_send(id), &None),
            Poll::Ready(result) => {
                drop(self.sends.remove(at));
                let given = Self::given::<TestCaseError>(result)?;
                same("send", &self.model.poll_send(id), &Some(given))?;
                self.model.sender_gone();
                Ok(())
            }
        }
    }

    fn reserved(&mut self, at: usize) -> Result<(), TestCaseError> {
        let polled = self.reserves[at].poll();
        let id = self.reserves[at].id;
        let expected = self.model.poll_reserve(id);
        let Poll::Ready(result) = polled else {
            return same("reserve", &expected, &None);
        };
        drop(self.reserves.remove(at));
        let given = if result.is_ok() {
            Given::Taken
        } else {
            Given::Closed
        };
        self.permits.extend(result);
        self.model.sender_gone();
        same("reserve", &expected, &Some(given))
    }

    fn received(&mut self, at: usize) -> Result<(), TestCaseError> {
        let polled = self.recvs[at].poll();
        let id = self.recvs[at].id;
        let expected = self.model.poll_recv(id);
        match polled {
            Poll::Pending => same("recv", &expected, &None),
            Poll::Ready(result) => {
                drop(self.recvs.remove(at));
                let item = self.keep(result);
                same("recv", &expected, &Some(item))
            }
        }
    }

    fn keep(&mut self, result: Received) -> Option<u64> {
        match result {
            Ok(Got::Item(item)) => Some(item.0.id),
            Ok(Got::Delivery(delivery)) => {
                let id = delivery.0.id;
                self.deliveries.insert(id, delivery);
                Some(id)
            }
            Err(()) => None,
        }
    }

    fn delivery(&mut self, number: u8) -> Option<(u64, Delivery<Real>)> {
        let keys: Vec<u64> = self.deliveries.keys().copied().collect();
        let id = keys[at(&keys, number)?];
        Some((id, self.deliveries.remove(&id)?))
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Send(rank) => {
                let Some(sender) = self.sender.clone() else {
                    return Ok(());
                };
                let item = self.item(rank);
                let id = self.next;
                self.model.start_send(id, item.0);
                self.sends
                    .push(Pending::new(id, async move { sender.send(item).await }));
                self.sent(self.sends.len() - 1)?;
            }
            Op::TrySend(rank) => {
                if self.sender.is_none() {
                    return Ok(());
                }
                let item = self.item(rank);
                let expected = self.model.try_send(item.0);
                let result = self.sender.as_ref().map(|sender| sender.try_send(item));
                let given = Self::given::<TestCaseError>(result.unwrap_or(Ok(())))?;
                same("try_send", &expected, &given)?;
            }
            Op::PollSend(number) => {
                if let Some(at) = at(&self.sends, number) {
                    self.sent(at)?;
                }
            }
            Op::DropSend(number) => {
                if let Some(at) = at(&self.sends, number) {
                    let id = self.sends.remove(at).id;
                    self.model.drop_send(id);
                    self.model.sender_gone();
                }
            }
            Op::Recv | Op::Deliver => {
                self.next += 1;
                let id = self.next;
                let mut receiver = self.receiver.clone();
                let is_delivery = matches!(op, Op::Deliver);
                self.model.start_recv(id, is_delivery);
                self.recvs.push(Pending::new(id, async move {
                    if is_delivery {
                        receiver.deliver().await.map(Got::Delivery).map_err(drop)
                    } else {
                        receiver.recv().await.map(Got::Item).map_err(drop)
                    }
                }));
                self.received(self.recvs.len() - 1)?;
            }
            Op::TryRecv => {
                let result = self.receiver.try_recv();
                let item = result.ok().map(|item| item.0.id);
                same("try_recv", &self.model.try_recv(), &item)?;
            }
            Op::PollRecv(number) => {
                if let Some(at) = at(&self.recvs, number) {
                    self.received(at)?;
                }
            }
            Op::DropRecv(number) => {
                if let Some(at) = at(&self.recvs, number) {
                    let id = self.recvs.remove(at).id;
                    self.model.drop_recv(id);
                }
            }
            Op::Done(number) => {
                if let Some((id, delivery)) = self.delivery(number) {
                    delivery.done();
                    self.model.finish(id, true);
                }
            }
            Op::DropDelivery(number) => {
                if let Some((id, delivery)) = self.delivery(number) {
                    drop(delivery);
                    self.model.finish(id, false);
                }
            }
            Op::Feed(number) => {
                let keys: Vec<u64> = self.deliveries.keys().copied().collect();
                if let Some(at) = at(&keys, number) {
                    let item = self.item(0);
                    let expected = self.model.feed(item.0);
                    let given =
                        Self::given::<TestCaseError>(self.deliveries[&keys[at]].send(item))?;
                    same("feed", &expected, &given)?;
                }
            }
            Op::Reserve => {
                let Some(sender) = self.sender.clone() else {
                    return Ok(());
                };
                self.next += 1;
                let id = self.next;
                self.model.start_reserve(id);
                self.reserves.push(Pending::new(
                    id,
                    async move { sender.reserve_owned(1).await },
                ));
                self.reserved(self.reserves.len() - 1)?;
            }
            Op::PollReserve(number) => {
                if let Some(at) = at(&self.reserves, number) {
                    self.reserved(at)?;
                }
            }
            Op::DropReserve(number) => {
                if let Some(at) = at(&self.reserves, number) {
                    let id = self.reserves.remove(at).id;
                    self.model.drop_send(id);
                    self.model.sender_gone();
                }
            }
            Op::UsePermit(number, rank) => {
                if let Some(at) = at(&self.permits, number) {
                    let permit = self.permits.remove(at);
                    let item = self.item(rank);
                    self.model.end_permit(Some(item.0));
                    same("a permit", &true, &permit.send(item).is_ok())?;
                }
            }
            Op::DropPermit(number) => {
                if let Some(at) = at(&self.permits, number) {
                    drop(self.permits.remove(at));
                    self.model.end_permit(None);
                }
            }
            Op::Close => {
                self.receiver.close();
                self.model.close();
            }
            Op::DropSender => {
                if self.sender.take().is_some() {
                    self.model.sender_gone();
                }
            }
            Op::Join => {
                self.next += 1;
                let receiver = self.receiver.clone();
                let mut join = Pending::new(self.next, async move { receiver.join().await });
                let is_idle = join.poll().is_ready();
                same("join", &self.model.is_idle(), &is_idle)?;
                if !is_idle {
                    self.joins.push(join);
                }
            }
        }
        self.check()
    }

    /// What holds between any two steps.
    fn check(&mut self) -> Result<(), TestCaseError> {
        same("len", &self.model.len(), &self.receiver.len())?;
        if self.model.is_idle() {
            for mut join in self.joins.drain(..) {
                same("join is woken", &true, &join.is_woken())?;
                same("join ends", &true, &join.poll().is_ready())?;
            }
        }
        for send in &self.sends {
            if self.model.can_send(send.id) {
                same("a send that can go on is woken", &true, &send.is_woken())?;
            }
        }
        for reserve in &self.reserves {
            if self.model.can_send(reserve.id) {
                let is_woken = reserve.is_woken();
                same("a reservation that can go on is woken", &true, &is_woken)?;
            }
        }
        let woken = self.recvs.iter().filter(|recv| recv.is_woken()).count();
        let needed = self.model.recvs_to_wake();
        if woken < needed {
            let text = format!("{needed} receives can go on, {woken} are woken");
            return Err(TestCaseError::fail(text));
        }
        for recv in &self.recvs {
            if self.model.is_promised(recv.id) {
                same(
                    "a receive that was promised an item is woken",
                    &true,
                    &recv.is_woken(),
                )?;
            }
        }
        same(
            "discarded",
            &self.model.discards,
            &self.discards.lock().expect("no poison").clone(),
        )
    }

    /// Lets everything go: nothing may stay alive, and what nobody took was discarded.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.sends.clear();
        self.reserves.clear();
        self.permits.clear();
        self.recvs.clear();
        self.joins.clear();
        self.deliveries.clear();
        drop(self.sender);
        drop(self.receiver);
        same("items alive at the end", &0, &self.drops.alive())
    }
}

pub(crate) fn case() -> impl Strategy<Value = (Shape, Vec<Op>)> {
    (shape(), vec(op(), 1..80))
}

/// How many steps it took.
pub(crate) fn agree((shape, ops): &(Shape, Vec<Op>)) -> Result<usize, TestCaseError> {
    let mut run = Run::new(*shape);
    for op in ops {
        run.step(*op)?;
    }
    run.end()?;
    Ok(ops.len())
}

#[test]
fn random_histories_agree_with_the_plain_queue() {
    let steps = std::cell::Cell::new(0_usize);
    try_cases(
        cases(if cfg!(debug_assertions) {
            2_000
        } else {
            10_000
        }),
        &case(),
        |case| {
            steps.set(steps.get() + agree(&case)?);
            Ok(())
        },
    );
    figures(format_args!("{} steps of queues", steps.get()));
}
