//! Many items, and calls that are tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use ringfence::{Hedge, Progress, Retry, fan_out};

use crate::faults::{Rng, cut, held, snap, trace, work};
use crate::ledger::{Census, Fault, Guard, ITEMS, check};
use crate::parts::{Ctx, options, ran};
use crate::witness::settle;

pub async fn fanned(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (census, items, draw, progress) =
        (Census::default(), ctx.items, rng.next(), Progress::new());
    let mut fan = fan_out(0..items)
        .limit(rng.within(1..33) as usize)
        .progress(&progress);
    if rng.one_in(3) {
        fan = fan.limiter(&ctx.world.limiter);
    } else if rng.one_in(3) {
        fan = fan.weighted(&ctx.world.limiter, |item| (*item % 3) as u32);
    }
    if rng.one_in(3) {
        fan = fan.key_if(|item| (item % 5 < 3).then_some(item % 5));
    }
    if rng.one_in(3) {
        fan = fan.buffer(rng.within(1..8) as usize);
    }
    fan = fan.scope(options(rng));
    let (inner, limiter, nests) = (
        census.clone(),
        ctx.world.limiter.clone(),
        ctx.depth > 0 && rng.one_in(3),
    );
    let form = rng.below(7);
    trace(|| format!("fan-out {form}"));
    let own_guard = Guard::armed(rng.is_due());
    let one = move |item: u64| {
        let _held = &own_guard;
        ITEMS.fetch_add(1, SeqCst);
        let (mut rng, limiter) = (Rng::new(draw ^ item), limiter.clone());
        let is_busy = rng.one_in(32);
        let inside = inner.enter(form != 0 && is_busy && rng.is_due());
        held(inside, async move {
            if is_busy {
                work(&mut rng).await?;
            }
            if nests && rng.one_in(64) {
                let within = fan_out(0..8_u64).limiter(&limiter).fold(
                    0,
                    |n| async move { Ok::<_, Fault>(n) },
                    |sum, n| sum + n,
                );
                let sum = settle(within.await);
                check(sum.is_none_or(|sum| sum == 28), || {
                    format!("a sum of {sum:?}")
                });
            }
            Ok::<_, Fault>(item)
        })
    };
    let in_order = || (0..items).collect::<Vec<_>>();
    match form {
        0 => drop(
            ran(
                "for_each",
                &census,
                fan.for_each(move |item| {
                    let one = one(item);
                    async move { one.await.map(drop) }
                }),
                rng,
            )
            .await,
        ),
        1 => {
            let all = ran("collect", &census, fan.collect(one), rng).await;
            check(all.is_none_or(|all| all == in_order()), || {
                "collected out of order".into()
            });
        }
        2 => {
            let all = ran(
                "collect_unordered",
                &census,
                fan.collect_unordered(one),
                rng,
            )
            .await;
            let sorted = all.map(|mut all| {
                all.sort_unstable();
                all
            });
            check(sorted.is_none_or(|all| all == in_order()), || {
                "collected others".into()
            });
        }
        3 => {
            let sum = ran(
                "fold",
                &census,
                fan.fold(0, one, |sum, item| sum + item),
                rng,
            )
            .await;
            check(sum.is_none_or(|sum| sum == (0..items).sum()), || {
                format!("a sum of {sum:?}")
            });
        }
        4 => drop(ran("first_success", &census, fan.first_success(one), rng).await),
        5 => {
            let all = ran("outcomes", &census, fan.outcomes(one), rng)
                .await
                .unwrap_or_default();
            all.into_iter()
                .filter_map(Result::err)
                .for_each(|fault| fault.see());
        }
        _ => {
            let (mut own, mut results) = (rng.split(), fan.results(one));
            let enough = if own.one_in(2) {
                items
            } else {
                own.below(items)
            };
            // Dropped after it: else what that throws would cost the error that is returned.
            let results = &mut results;
            let taken = async move {
                for place in 0..enough {
                    match results.next().await {
                        Some(Ok(item)) => check(item == place, || "a result out of order".into()),
                        Some(Err(error)) => return Err(error),
                        None => break,
                    }
                }
                Ok(())
            };
            ran("results", &Census::default(), taken, rng).await;
        }
    }
    snap(rng)
}

pub async fn retries(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let mut own = rng.split();
    let policy = Retry::constant(rng.millis(0..2)).attempts(rng.within(1..6) as u32);
    let run = policy.retry(|_| {
        let (mut rng, guard) = (own.split(), Guard::new());
        held(guard, async move { work(&mut rng).await })
    });
    let mut run = run.when(|fault| {
        fault.see();
        true
    });
    if rng.one_in(2) {
        run = run.budget(&ctx.world.budget);
    }
    if rng.one_in(3) {
        run = run.attempt_timeout(rng.millis(0..2));
    }
    if let Some(Err(error)) = cut(run.into_future(), rng).await {
        error.last_error().map(Fault::see);
    }
    let seed = Arc::new(AtomicU64::new(rng.next()));
    let hedged = Hedge::after(rng.millis(0..2)).copies(3).run(move |_| {
        let (mut rng, guard) = (Rng::new(seed.fetch_add(77, SeqCst)), Guard::new());
        held(guard, async move { work(&mut rng).await })
    });
    let hedged = hedged.when(|fault: &Fault| {
        fault.see();
        true
    });
    if let Some(Err(error)) = cut(hedged.into_future(), rng).await {
        error
            .failures()
            .filter_map(|(_, failure)| failure.err())
            .for_each(Fault::see);
    }
    snap(rng)
}
