//! What is shared, and what lives long: flights, limits, supervisors, periodic work, groups that are handed about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use ringfence::supervise::{Child, Strategy};
use ringfence::{OwnedGroup, Periodic, Report, Retry, Supervisor, TaskGroup, queue};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::faults::{Rng, cut, held, snap, snap_in_hook, thrown, work};
use crate::ledger::{Census, Fault, Guard, Kind, check, count};
use crate::parts::{Ctx, any, child, options, ran};
use crate::witness::{see_end, see_failures, see_flight};

async fn fly(mut rng: Rng, key: u64) -> Result<u64, Fault> {
    for _ in 0..rng.below(8) {
        yield_now().await;
    }
    let fault = if rng.is_due() {
        Fault::raise(Kind::Error)
    } else {
        None
    };
    let Some(fault) = fault else { return Ok(key) };
    if rng.one_in(2) {
        fault.throw();
    }
    Err(fault)
}

pub async fn flights(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (census, mut own) = (Census::default(), rng.split());
    let (ctx, inner) = (ctx.clone(), census.clone());
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        for _ in 0..own.within(2..10) {
            let (ctx, mut rng, inside) = (ctx.clone(), own.split(), inner.enter(false));
            drop(group.spawn(held(inside, async move {
                let (key, own) = (rng.below(4), rng.split());
                let guard = Guard::armed(rng.is_due());
                let call = move || held(guard, fly(own, key));
                let call = ctx.flights.run(key, call);
                match cut(thrown(call, &mut rng.split()), &mut rng).await {
                    Some(Ok(found)) => {
                        check(found == key, || format!("flight {key} landed with {found}"))
                    }
                    Some(Err(error)) => see_flight(&error),
                    None => drop(ctx.flights.forget(&key)),
                }
            })));
        }
        Ok(())
    });
    ran("flights", &census, scope, rng).await;
    snap(rng)
}

pub async fn limits(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (census, mut own) = (Census::default(), rng.split());
    let (world, inner) = (ctx.world.clone(), census.clone());
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        for _ in 0..own.within(2..20) {
            let (world, mut rng, inside) = (world.clone(), own.split(), inner.enter(own.is_due()));
            drop(group.spawn(held(inside, async move {
                let mut own = rng.split();
                let holding = async {
                    match rng.below(5) {
                        0 => drop(world.limiter.try_acquire()),
                        1 => {
                            let _permit = thrown(world.limiter.acquire_many(2), &mut rng).await;
                            work(&mut rng).await?;
                        }
                        2 => {
                            let _permit =
                                thrown(world.keyed.acquire(rng.below(4)), &mut rng.split()).await;
                            work(&mut rng).await?;
                        }
                        3 => drop(world.rate.acquire().await),
                        _ => {
                            let permit = thrown(world.adaptive.acquire(), &mut rng).await;
                            let worked = work(&mut rng).await;
                            if let (Ok(permit), true) = (permit, worked.is_ok()) {
                                permit.succeeded();
                            }
                            worked?;
                        }
                    }
                    Ok(())
                };
                cut(holding, &mut own).await.unwrap_or(Ok(()))
            })));
        }
        if own.one_in(8) {
            world.limiter.set_limit(own.within(2..5) as usize);
        }
        Ok(())
    });
    ran("limits", &census, scope, rng).await;
    snap(rng)
}

pub async fn supervised(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let strategies = [
        Strategy::OneForOne,
        Strategy::OneForAll,
        Strategy::RestForOne,
    ];
    let mut supervisor = Supervisor::new()
        .name("supervisor")
        .strategy(strategies[rng.below(3) as usize])
        .grace(rng.millis(0..10));
    supervisor = if rng.one_in(2) {
        supervisor.unlimited()
    } else {
        supervisor.intensity(5, Duration::from_secs(1))
    };
    let draw = Arc::new(AtomicU64::new(rng.next()));
    let (is_told, hook_draw) = (rng.one_in(2), draw.clone());
    if is_told {
        supervisor = supervisor.on_end(move |ended| {
            see_end(ended.end);
            snap_in_hook(&hook_draw);
        });
    }
    let make = |number: u64, rng: &mut Rng| {
        let (draw, ctx, rounds) = (draw.clone(), ctx.clone(), rng.within(1..12));
        let start = move |run: ringfence::supervise::Run| {
            if run.number() > 1 {
                count(Kind::Restart);
            }
            let (mut rng, ctx) = (Rng::new(draw.fetch_add(0x51_7cc1, SeqCst)), ctx.clone());
            held(Guard::armed(rng.is_due()), async move {
                run.ready();
                for _ in 0..rounds {
                    work(&mut rng).await?;
                    sleep(rng.millis(0..2)).await;
                }
                if ctx.depth > 0 && rng.one_in(4) {
                    any(&ctx, &mut rng).await?;
                }
                Ok(())
            })
        };
        let child = match rng.below(8) {
            0 => Child::critical(format!("child {number}"), start),
            1 | 2 => Child::permanent(format!("child {number}"), start),
            3 => Child::temporary(format!("child {number}"), start),
            _ => Child::transient(format!("child {number}"), start),
        };
        let child = child
            .backoff(Retry::constant(rng.millis(0..2)))
            .grace(rng.millis(0..4));
        if rng.one_in(3) {
            child.ready_within(rng.millis(5..50))
        } else {
            child
        }
    };
    let handles: Vec<_> = (0..rng.within(1..5))
        .map(|n| supervisor.add(make(n, rng)))
        .collect();
    let (handle, late, mut own) = (supervisor.handle(), make(9, rng), rng.split());
    let census = Census::default();
    let inner = census.clone();
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        let inside = inner.enter(false);
        drop(group.spawn(held(inside, async move {
            if let Err(error) = supervisor.run().await {
                see_end(error.end());
            }
            Ok(())
        })));
        sleep(own.millis(0..6)).await;
        for child in &handles {
            match own.below(6) {
                0 => child.stop(),
                1 => drop(child.restart()),
                2 => drop(child.stop_and_wait().await),
                _ => {}
            }
        }
        drop(handle.add(late));
        sleep(own.millis(0..10)).await;
        handle.shut_down();
        for child in handles {
            drop(child.ended().await);
        }
        Ok(())
    });
    ran("supervisor", &census, scope, rng).await;
    snap(rng)
}

pub async fn periodic(rng: &mut Rng) -> Result<(), Fault> {
    let is_rate = rng.one_in(2);
    let periodic = if is_rate {
        Periodic::rate(Duration::from_millis(1))
    } else {
        Periodic::delay(rng.millis(0..2))
    };
    let (handle, draw, rounds) = (periodic.handle(), rng.next(), rng.within(1..8));
    handle.trigger();
    let work = periodic.run(move |tick| {
        if tick.number() >= rounds {
            handle.stop();
        }
        let (mut rng, guard) = (Rng::new(draw ^ tick.number()), Guard::new());
        held(guard, async move { work(&mut rng).await })
    });
    cut(work, rng).await.unwrap_or(Ok(()))
}

pub async fn owned(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (census, mut own) = (Census::default(), rng.split());
    let (ctx, inner) = (ctx.clone(), census.clone());
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        let (sender, mut receiver) = queue::bounded::<OwnedGroup<Fault>>(1);
        let (mut takes, inside) = (own.split(), inner.enter(false));
        drop(group.spawn(held(inside, async move {
            while let Ok(group) = receiver.recv().await {
                let report: Report<Fault> = match takes.below(4) {
                    0 => continue, // dropped: this task waits for its children
                    1 => group.wait().await,
                    _ => group.shutdown(takes.millis(0..3)).await,
                };
                see_failures(report.failures(), Fault::see);
            }
        })));
        for _ in 0..own.within(1..5) {
            let group = if own.one_in(2) {
                OwnedGroup::new()
            } else {
                OwnedGroup::with_name("owned")
            };
            for _ in 0..own.below(5) {
                drop(group.spawn(held(
                    inner.enter(own.is_due()),
                    child(ctx.clone(), own.split()),
                )));
            }
            if sender.send(group).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    });
    ran("owned", &census, scope, rng).await;
    snap(rng)
}
