//! Groups: scopes in scopes with children of every kind, joins, borrowing scopes. And what all parts share.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use ringfence::{
    Deadline, GroupError, KeyedLimiter, Limiter, RateLimiter, RetryBudget, Scope, SingleFlight,
    Slots, StartError, TaskGroup, borrow_scope, shield, token,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::faults::{RARITY, Rng, block, cut, held, snap, thrown, trace, work};
use crate::ledger::{Census, Fault, Guard, Inside, Kind, check, count};
use crate::witness::{see_payload, settle};
use crate::{jobs, queues, services};

/// What all parts of an episode share.
pub struct World {
    pub limiter: Limiter,
    pub adaptive: Limiter,
    pub keyed: KeyedLimiter<u64>,
    pub rate: RateLimiter,
    pub slots: Slots,
    pub budget: RetryBudget,
}

pub type Flights = SingleFlight<u64, u64, Fault>;

#[derive(Clone)]
pub struct Ctx {
    pub world: Arc<World>,
    pub flights: Arc<Flights>,
    pub depth: u32,
    /// How many items a queue or a fan-out has.
    pub items: u64,
}

pub type Part = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// One part, whichever the seed says, with others inside it.
pub fn any(ctx: &Ctx, rng: &mut Rng) -> Part {
    let (mut ctx, mut rng) = (ctx.clone(), rng.split());
    ctx.depth = ctx.depth.saturating_sub(1);
    Box::pin(async move {
        let part = rng.below(16);
        trace(|| format!("part {part} at depth {}", ctx.depth));
        match part {
            0..3 => children(&ctx, &mut rng).await,
            3 => joins(&mut rng).await,
            4 => borrowing(&mut rng).await,
            5 if rng.one_in(3) => services::called_off(&mut rng).await,
            5 => services::flights(&ctx, &mut rng).await,
            6 => services::limits(&ctx, &mut rng).await,
            7 => services::supervised(&ctx, &mut rng).await,
            8 => services::periodic(&mut rng).await,
            9 => services::owned(&ctx, &mut rng).await,
            10 => jobs::retries(&ctx, &mut rng).await,
            11 | 12 => jobs::fanned(&ctx, &mut rng).await,
            13 => queues::pooled(&ctx, &mut rng).await,
            _ => queues::queued(&ctx, &mut rng).await,
        }
    })
}

pub fn options(rng: &mut Rng) -> Scope {
    let mut scope = Scope::new();
    if rng.one_in(3) {
        scope = scope.name("part");
    }
    if rng.one_in(3) {
        scope = scope.grace(rng.millis(0..5));
    }
    if rng.one_in(6) {
        scope = scope.deadline(rng.millis(0..30));
    }
    if rng.one_in(3) {
        scope = scope.panics_as_errors();
    }
    if rng.one_in(10) {
        scope = scope.give_up_blocking_after(rng.millis(0..2));
    }
    scope
}

/// Runs a scope, perhaps not to its end, and settles what comes of it. If it comes back, nobody may be inside any more.
pub async fn ran<T>(
    what: &str,
    census: &Census,
    scope: impl Future<Output = Result<T, GroupError<Fault>>>,
    rng: &mut Rng,
) -> Option<T> {
    let mut own = rng.split();
    let mut scope = Box::pin(cut(scope, &mut own));
    let ended = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| scope.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    );
    let ended = ended.await;
    trace(|| {
        format!(
            "{what}: {}",
            match &ended {
                Ok(None) => "cut",
                Ok(Some(Ok(_))) => "ok",
                Ok(Some(Err(_))) => "failed",
                Err(_) => "thrown",
            }
        )
    });
    match ended {
        Ok(None) => None,
        Ok(Some(ended)) => {
            census.closed(what);
            settle(ended)
        }
        Err(panic) => {
            census.closed(what);
            if rng.one_in(2) {
                resume_unwind(panic);
            }
            see_payload(&*panic);
            None
        }
    }
}

pub async fn child(ctx: Ctx, mut rng: Rng) -> Result<u64, Fault> {
    for _ in 0..rng.below(4) {
        work(&mut rng).await?;
    }
    if ctx.depth > 0 && rng.one_in(4) {
        any(&ctx, &mut rng).await?;
    }
    Ok(rng.next())
}

pub async fn serve(mut rng: Rng) -> Result<(), Fault> {
    loop {
        work(&mut rng).await?;
        sleep(Duration::from_millis(1)).await;
    }
}

async fn children(ctx: &Ctx, rng: &mut Rng) -> Result<(), Fault> {
    let (census, mut own) = (Census::default(), rng.split());
    let (ctx, inner) = (ctx.clone(), census.clone());
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        for _ in 0..own.within(1..12) {
            one_more(group, &ctx, &inner, &mut own).await?;
        }
        match own.below(12) {
            0 => group.cancel_with("enough"),
            1 => group.cancel_children(),
            2 => group.cancel(),
            _ => return work(&mut own).await,
        }
        count(Kind::Cancel);
        work(&mut own).await
    });
    ran("scope", &census, scope, rng).await;
    snap(rng)
}

/// Spawns a child, of one kind or the other.
async fn one_more(
    group: &TaskGroup<Fault>,
    ctx: &Ctx,
    census: &Census,
    rng: &mut Rng,
) -> Result<(), Fault> {
    let mut own = rng.split();
    let inside = census.enter(own.is_due());
    let limited = group.limit(ctx.world.slots.clone());
    match rng.below(19) {
        0 => drop(group.spawn_background(held(inside, serve(own)))),
        1 => drop(group.spawn_eager(held(inside, child(ctx.clone(), own)))),
        2 => {
            // Not inside: a call that was given up may outlive its scope.
            let guard = Guard::new();
            drop(group.spawn_blocking(move || {
                let _guard = guard;
                block(&mut own);
                snap(&mut own)
            }));
        }
        3 => {
            let started = group.start(move |ready: ringfence::Ready<u64>| {
                let started = async move {
                    work(&mut own).await?;
                    ready.set(7);
                    work(&mut own).await
                };
                held(inside, started)
            });
            match started.await {
                Ok((value, handle)) => {
                    check(value == 7, || format!("a child is ready with {value}"));
                    drop(handle);
                }
                Err(StartError::Failed(fault)) => fault.see(),
                Err(_) => {}
            }
        }
        4 if own.one_in(3) => {
            // Whoever was to say that the child is ready does not, or does it from elsewhere.
            let (spawner, is_said) = (group.spawner(), own.one_in(2));
            let started = group.start(move |ready: ringfence::Ready<u64>| {
                let says = async move {
                    yield_now().await;
                    if is_said {
                        ready.set(7);
                    }
                };
                drop(spawner.spawn(says));
                held(inside, serve(own))
            });
            match started.await {
                Ok((_, handle)) => {
                    check(is_said, || "a child is ready, and nobody said so".into());
                    handle.cancel();
                }
                Err(StartError::Failed(fault)) => fault.see(),
                Err(_) => {}
            }
        }
        4 => drop(limited.spawn(held(inside, once(own))).await),
        5 => drop(limited.try_spawn(held(inside, once(own)))),
        6 => {
            let handle = group.spawn(held(inside, child(ctx.clone(), own)));
            yield_now().await;
            count(Kind::HandleCancel);
            handle.cancel();
        }
        7 => {
            let handle = group.spawn(held(inside, serve(own)));
            sleep(rng.millis(0..2)).await;
            count(Kind::HandleCancel);
            drop(handle.cancel_and_wait().await);
        }
        8 => drop(group.spawn_background(held(inside, pending::<()>()))),
        9 => drop(group.spawn_background(held(inside, async move {
            thrown(token().cancelled(), &mut own).await;
            work(&mut own).await
        }))),
        10 => drop(group.spawn(held(inside, async move {
            let bound = own.millis(1..5);
            shield(bound, work(&mut own)).await
        }))),
        11 => {
            if let Ok(guard) = group.spawner().guard() {
                drop(group.spawn(held((guard, inside), once(own))));
            }
        }
        12 => drop(group.spawn(held(inside, once(own))).outcome().await),
        13 => {
            let value = group.spawn(held(inside, child(ctx.clone(), own))).await;
            drop(group.named("after").spawn(async move { Ok(value) }));
        }
        14 => drop(group.spawn(async move { Ok(census_value(inside)) })),
        _ => drop(group.spawn(held(inside, child(ctx.clone(), own)))),
    }
    Ok(())
}

/// A value that may throw when nobody takes it; where it has been put, the scope does not know any more.
fn census_value(inside: Inside) -> Guard {
    drop(inside);
    Guard::new()
}

async fn once(mut rng: Rng) -> Result<(), Fault> {
    work(&mut rng).await
}

async fn joins(rng: &mut Rng) -> Result<(), Fault> {
    let (census, mut own) = (Census::default(), rng.split());
    let inner = census.clone();
    let scope = options(rng).run(async move |group: &TaskGroup<Fault>| {
        let mut one = || {
            let (mut rng, inside) = (own.split(), inner.enter(own.is_due()));
            held(inside, async move {
                work(&mut rng).await?;
                work(&mut rng).await.map(|()| 1_u64)
            })
        };
        let several = |one: &mut dyn FnMut() -> _| (0..4).map(|_| one()).collect::<Vec<_>>();
        let sum = group.try_join((one(), one())).await.inspect_err(Fault::see);
        check(sum.is_err() || matches!(sum, Ok((1, 1))), || {
            "a tuple with other values".into()
        });
        let all = group
            .try_join_all(several(&mut one))
            .await
            .inspect_err(Fault::see);
        check(all.is_err() || all.is_ok_and(|all| all == [1; 4]), || {
            "a join with other values".into()
        });
        let first = group.first_ok(several(&mut one)).await;
        first
            .inspect_err(|all| all.iter().for_each(Fault::see))
            .ok();
        let first = group
            .staggered(Duration::from_millis(1), several(&mut one))
            .await;
        first
            .inspect_err(|all| all.iter().for_each(Fault::see))
            .ok();
        // All fail in the same moment: those that come too late are told all the same.
        let fails = || {
            let (kind, inside) = (Kind::Error, inner.enter(false));
            held(inside, async move {
                yield_now().await;
                Fault::raise(kind).map_or(Ok(1_u64), Err)
            })
        };
        if RARITY.load(SeqCst) > 0 {
            let joined = group.try_join((fails(), fails(), fails())).await;
            joined.inspect_err(Fault::see).ok();
            let joined = group.try_join_all([fails(), fails(), fails()]).await;
            joined.inspect_err(Fault::see).ok();
        }
        let mut plain = || {
            let (mut rng, inside) = (own.split(), inner.enter(false));
            held(inside, async move {
                match work(&mut rng).await {
                    Ok(()) => 1_u64,
                    Err(fault) => {
                        fault.see();
                        0
                    }
                }
            })
        };
        let settled = group.settle_all([plain(), plain(), plain()]).await;
        check(settled.len() == 3, || "an outcome is missing".into());
        let deadline = Deadline::after(Duration::from_millis(2));
        let settled = group.settle_all_by(deadline, [plain(), plain()]).await;
        check(settled.len() == 2, || {
            "an outcome by a deadline is missing".into()
        });
        let mut completed = group.as_completed([plain(), plain(), plain()]);
        drop(completed.next().await);
        drop(completed);
        check(group.first([plain(), plain()]).await.is_some(), || {
            "nobody was first".into()
        });
        Ok(())
    });
    ran("joins", &census, scope, rng).await;
    snap(rng)
}

async fn borrowing(rng: &mut Rng) -> Result<(), Fault> {
    let (census, numbers, total) = (
        Census::default(),
        (1..=20).collect::<Vec<u64>>(),
        AtomicU64::new(0),
    );
    let (inner, mut own) = (census.clone(), rng.split());
    let (slices, sum) = (&numbers, &total);
    let scope = borrow_scope(async move |group| {
        for slice in slices.chunks(5) {
            let (mut rng, inside) = (own.split(), inner.enter(own.is_due()));
            drop(group.spawn(held(inside, async move {
                for number in slice {
                    work(&mut rng).await?;
                    sum.fetch_add(*number, SeqCst);
                }
                Ok(())
            })));
        }
        let (rng, inside) = (own.split(), inner.enter(false));
        drop(group.spawn_background(held(inside, serve(rng))));
        work(&mut own).await
    });
    let ended = ran("borrow_scope", &census, scope, rng).await;
    census.closed("borrow_scope, dropped"); // its children go with it, also half-way
    if let Some(()) = ended {
        check(total.into_inner() == 210, || {
            "a borrowing child has not done its work".into()
        });
    }
    Ok(())
}
