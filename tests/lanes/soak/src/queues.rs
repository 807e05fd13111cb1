//! Work that is handed over: queues of every kind, and pools of workers.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use ringfence::queue::{Delivery, Overflow, Queue, Receiver, Sender};
use ringfence::{FailureKind, Retry, TaskGroup, WorkFailure, Workers};
use tokio::task::yield_now;

use crate::faults::{Rng, cut, held, snap, snap_in_hook, thrown, trace, work};
use crate::ledger::{Census, Fault, Guard, Item, Kind, accepted, broken, check};
use crate::parts::{Ctx, options, ran};
use crate::witness::see_panic;

/// A queue, of one kind or the other; whether it delivers again.
fn make(rng: &mut Rng) -> (Sender<Item>, Receiver<Item>, bool) {
    let mut queue = match rng.below(8) {
        0 => Queue::rendezvous(),
        1 => Queue::unbounded(),
        2 => Queue::latest(),
        3 => Queue::bounded(1),
        _ => Queue::bounded(rng.within(2..64) as usize),
    };
    let is_weighed = rng.one_in(4);
    if is_weighed {
        queue = queue.weight(|item: &Item| item.weight);
    }
    match rng.below(4) {
        0 => queue = queue.lifo(),
        1 => queue = queue.rank(|item: &Item| i64::from(item.number % 7)),
        _ => {}
    }
    match rng.below(8) {
        0 => queue = queue.overflow(Overflow::Refuse),
        1 => queue = queue.overflow(Overflow::DropOldest),
        2 => queue = queue.overflow(Overflow::DropNewest),
        _ => {}
    }
    let comes_back = rng.one_in(2);
    if comes_back {
        queue = queue.redeliver(rng.within(1..4) as u32);
    }
    let draw = AtomicU64::new(rng.next());
    let queue = queue.on_discard(move |item: Item, _| {
        item.fated();
        snap_in_hook(&draw);
    });
    trace(|| format!("{queue:?}, weighed: {is_weighed}, comes back: {comes_back}"));
    let (sender, receiver) = queue.build();
    (sender, receiver, comes_back)
}

/// Sends items, in all the ways there are.
async fn produce(sender: Sender<Item>, items: u64, mut rng: Rng) -> Result<(), Fault> {
    for _ in 0..items {
        let Some(item) = Item::new(rng.below(4) as usize) else {
            break;
        };
        let number = item.number;
        let sent = match rng.below(16) {
            0 => sender.try_send(item),
            1 => sender.send_timeout(item, Duration::from_millis(1)).await,
            2 => match sender.reserve().await {
                Ok(permit) => permit.send(item),
                Err(_) => break,
            },
            3 => match sender.reserve_owned(item.weight).await {
                Ok(permit) => permit.send(item),
                Err(_) => continue,
            },
            4 => match cut(sender.send(item), &mut rng).await {
                Some(sent) => sent,
                None => continue, // it may have been received all the same, and then has its fate
            },
            5 => {
                let mut many = vec![item];
                many.extend((0..4).filter_map(|_| Item::new(1)));
                let numbers: Vec<_> = many.iter().map(|item| item.number).collect();
                let sent = cut(sender.send_many(&mut many), &mut rng).await;
                let left: Vec<_> = many.iter().map(|item| item.number).collect();
                numbers
                    .iter()
                    .filter(|number| !left.contains(number))
                    .for_each(|number| accepted(*number));
                match sent {
                    Some(Err(error)) if error.is_closed() => break,
                    _ => continue,
                }
            }
            6 => thrown(sender.send(item), &mut rng).await,
            _ => sender.send(item).await,
        };
        match sent {
            Ok(()) => accepted(number),
            Err(error) if error.is_closed() => break,
            Err(_) => yield_now().await,
        }
        if rng.one_in(64) {
            work(&mut rng).await?;
        }
    }
    if rng.one_in(40) {
        sender.close();
    }
    Ok(())
}

fn got(item: &Item) {
    item.handed_out();
    item.handled();
}

/// Has a delivery: on a queue that does not deliver again, it is finished whatever happens to it from now on.
fn begin(delivery: &Delivery<Item>, comes_back: bool) {
    delivery.handed_out();
    if !comes_back {
        delivery.handled();
    }
}

/// Works on a delivery, which may find more to do; gives it back when it is done.
async fn handle(
    delivery: Delivery<Item>,
    comes_back: bool,
    rng: &mut Rng,
) -> Result<Option<Delivery<Item>>, Fault> {
    if rng.one_in(16) {
        work(rng).await?;
    }
    if rng.one_in(32) {
        if let Some(more) = Item::new(1) {
            let number = more.number;
            if delivery.send(more).is_ok() {
                accepted(number);
            }
        }
    }
    if comes_back && rng.one_in(32) {
        if rng.one_in(2) {
            delivery.reject();
        }
        return Ok(None);
    }
    Ok(Some(delivery))
}

/// Takes items until there are no more, in one of the ways there are.
async fn consume(
    mut receiver: Receiver<Item>,
    comes_back: bool,
    mut rng: Rng,
) -> Result<(), Fault> {
    let (way, mut many, mut batch) = (rng.below(6), Vec::new(), Vec::new());
    let brief = Duration::from_millis(1);
    trace(|| format!("consumer {way}"));
    loop {
        let is_over = match way {
            0 => match thrown(receiver.recv(), &mut rng).await {
                Ok(item) => {
                    got(&item);
                    false
                }
                Err(_) => true,
            },
            1 => match cut(receiver.recv_many(&mut many, 16), &mut rng).await {
                Some(taken) => taken.is_err(),
                None => false,
            },
            2 => match cut(receiver.recv_batch(&mut many, 16, brief), &mut rng).await {
                Some(taken) => taken.is_err(),
                None => false,
            },
            3 => match receiver.deliver_batch(&mut batch, 4, brief).await {
                Ok(_) => {
                    batch
                        .iter()
                        .for_each(|delivery| begin(delivery, comes_back));
                    for delivery in batch.drain(..) {
                        if let Some(delivery) = handle(delivery, comes_back, &mut rng).await? {
                            delivery.handled();
                            delivery.done();
                        }
                    }
                    false
                }
                Err(_) => true,
            },
            _ => match cut(receiver.deliver(), &mut rng).await {
                Some(Ok(delivery)) => {
                    begin(&delivery, comes_back);
                    if let Some(delivery) = handle(delivery, comes_back, &mut rng).await? {
                        delivery.handled();
                        if rng.one_in(2) {
                            delivery.done()
                        } else {
                            drop(delivery.into_inner())
                        }
                    }
                    false
                }
                Some(Err(_)) => true,
                None => false,
            },
        };
        many.drain(..).for_each(|item: Item| got(&item));
        if is_over {
            return Ok(());
        }
        if rng.one_in(64) {
            work(&mut rng).await?;
        }
    }
}

/// Looks at what is left: nothing may be out, nobody may wait, and what is there is taken back.
fn audit(auditor: &Receiver<Item>) {
    auditor.abort().iter().for_each(Item::fated);
    let stats = auditor.stats();
    let rest = (
        stats.len,
        stats.in_delivery,
        stats.used,
        stats.waiting_senders,
        stats.waiting_receivers,
        stats.senders,
    );
    check(rest == (0, 0, 0, 0, 0, 0), || {
        format!("a queue does not come to rest: {stats:?}")
    });
}

pub async fn queued(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (sender, receiver, comes_back) = make(rng);
    let auditor = rng.one_in(2).then(|| receiver.clone());
    let (census, mut own, items) = (Census::default(), rng.split(), ctx.items);
    let inner = census.clone();
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        let producers = own.within(1..5);
        for _ in 0..producers {
            let inside = inner.enter(own.is_due());
            drop(group.spawn(held(
                inside,
                produce(sender.clone(), items / producers, own.split()),
            )));
        }
        for _ in 0..own.within(1..5) {
            let inside = inner.enter(own.is_due());
            drop(group.spawn(held(
                inside,
                consume(receiver.clone(), comes_back, own.split()),
            )));
        }
        let joined = own.one_in(4).then(|| receiver.clone());
        drop((sender, receiver));
        if let Some(joined) = joined {
            joined.join().await;
        }
        Ok(())
    });
    let ended = ran("queue", &census, scope, rng).await;
    if let (Some(auditor), Some(())) = (&auditor, ended) {
        audit(auditor);
    } else if let Some(auditor) = auditor {
        auditor.abort().iter().for_each(Item::fated);
    }
    snap(rng)
}

/// What a pool was told of a failure.
fn told(failure: &WorkFailure<Fault>) {
    match failure {
        WorkFailure::Error(fault) => fault.see(),
        WorkFailure::Panicked(panic) => see_panic(panic),
        WorkFailure::TimedOut(_) => {}
        _ => broken("a pool could not mark what it had done"),
    }
}

pub async fn pooled(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (sender, receiver, comes_back) = make(rng);
    let auditor = rng.one_in(2).then(|| receiver.clone());
    let mut pool = Workers::new(rng.within(1..9) as usize);
    if rng.one_in(2) {
        let (draw, held) = (AtomicU64::new(rng.next()), Guard::armed(rng.is_due()));
        pool = pool.on_failure(move |failure| {
            let _held = &held;
            told(&failure);
            snap_in_hook(&draw);
        });
    }
    if rng.one_in(3) {
        pool = pool.timeout(rng.millis(0..4));
    }
    let (draw, world) = (AtomicU64::new(rng.next()), ctx.world.clone());
    let own_guard = Guard::armed(rng.is_due());
    let handler = move |delivery: Delivery<Item>| {
        let _held = &own_guard;
        let (mut rng, world) = (Rng::new(draw.fetch_add(0x9e37_79b9, SeqCst)), world.clone());
        begin(&delivery, comes_back);
        let guard = Guard::armed(rng.is_due());
        held(guard, async move {
            if rng.one_in(16) {
                let (_permit, mut own) = (world.limiter.acquire().await, rng.split());
                let policy = Retry::constant(Duration::ZERO).attempts(3);
                let tried = policy.retry(|_| {
                    let mut own = own.split();
                    async move { work(&mut own).await }
                });
                let tried = tried
                    .when(|fault| {
                        fault.see();
                        true
                    })
                    .budget(&world.budget)
                    .await;
                tried
                    .map_err(|error| error.into_error())
                    .or_else(|last| last.map_or(Ok(()), Err))?;
            }
            match handle(delivery, comes_back, &mut rng).await? {
                Some(job) => {
                    job.handled();
                    Ok(job)
                }
                None => match Fault::raise(Kind::Error) {
                    Some(fault) => Err(fault),
                    None => std::future::pending().await,
                },
            }
        })
    };
    let (census, mut own, items) = (Census::default(), rng.split(), ctx.items);
    let inner = census.clone();
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        for _ in 0..2 {
            drop(group.spawn(held(
                inner.enter(false),
                produce(sender.clone(), items / 2, own.split()),
            )));
        }
        drop(sender);
        match pool.run(receiver, handler).await {
            Ok(_) => {}
            Err(error) => check(
                error
                    .iter()
                    .all(|failure| matches!(failure.kind(), FailureKind::Panic(_))),
                || "a queue failed".into(),
            ),
        }
        Ok(())
    });
    let ended = ran("pool", &census, scope, rng).await;
    if let (Some(auditor), Some(())) = (&auditor, ended) {
        audit(auditor);
    } else if let Some(auditor) = auditor {
        auditor.abort().iter().for_each(Item::fated);
    }
    snap(rng)
}
